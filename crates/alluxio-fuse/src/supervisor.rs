//! The supervisor: a small privileged part that holds a mount while daemons come and go.
//!
//! It opens `/dev/fuse`, mounts, answers INIT, and starts a daemon that gets the connection and all
//! that a successor would need: the journal of requests in flight, the log of inodes, the
//! configuration. From then on it only waits. When a daemon dies, it starts another on the same
//! connection; readers see a pause. It parses nothing that comes from afar.
//!
//! A daemon needs no supervisor to go on serving, and ends by itself when the mount is gone. A
//! supervisor that comes after one that died asks the daemon for all of it ([`Mount::adopt`]). A
//! daemon is upgraded by starting the next one beside it and letting it end ([`Mount::upgrade`]).

mod adopt;
mod backoff;
mod connection;
mod watch;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::backing::{BackingFiles, Passthrough};
use crate::handover::{BrokerFds, Handover, HandoverFds};
use crate::options::{MountOptions, MountRequest};
use crate::spawner::DaemonSpawner;
use crate::{inodes, journal, opens, protocol, rendezvous, sys};
use watch::{Plea, Watcher};

pub use adopt::{Found, find_abandoned, find_abandoned_at};

/// How long an unmount waits for open files to be closed before it detaches the mount: enough for a
/// process that is just ending, little for someone who waits at a terminal.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// How often a busy mount is tried again meanwhile.
const BUSY_RETRY: Duration = Duration::from_millis(100);

/// How long an unmount waits for the watching thread, which itself waits a shorter, bounded time for
/// the daemon and then kills it.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Held while this process mounts, and while it starts a daemon; see [`hold_mounts`].
static MOUNTS: Mutex<()> = Mutex::new(());

/// Why a mount could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is no directory that can be mounted on.
    #[error("cannot use {} as a mount point: {source}; it must be an existing directory{}", .mountpoint.display(), dead_mount_hint(.source))]
    Mountpoint {
        /// The path asked for.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One of our mounts is there already.
    #[error("a dataset is mounted at {} already; unmount it first", .mountpoint.display())]
    AlreadyMounted {
        /// The path asked for.
        mountpoint: PathBuf,
    },
    /// There is no FUSE.
    #[error(
        "cannot open /dev/fuse: {0}; load the kernel module `fuse`, and in a container give access \
         to the device"
    )]
    Device(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot mount at {}: {source}; mounting needs root (CAP_SYS_ADMIN)", .mountpoint.display())]
    Mount {
        /// The path asked for.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The memory that daemons share could not be made.
    #[error("cannot make the memory that a mount's daemons share: {0}")]
    Memory(#[source] io::Error),
    /// The socket could not be made at which daemons meet the next supervisor.
    #[error("cannot make the mount's socket in {}: {source}", .folder.display())]
    Socket {
        /// The folder of such sockets.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon could not be replaced; the old one serves on, or a successor will be started.
    #[error("cannot replace the mount's daemon: {0}")]
    Upgrade(String),
    /// No daemon could be started.
    #[error("cannot start the mount's daemon: {0}")]
    Spawn(#[source] io::Error),
    /// The daemon could not serve; mostly a configuration that leads nowhere.
    #[error("the mount's daemon cannot serve: {0}")]
    Daemon(String),
    /// The mount could not be taken away.
    #[error("cannot unmount {}: {source}", .mountpoint.display())]
    Unmount {
        /// Where it is.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to add where a FUSE mount without a daemon is in the way.
fn dead_mount_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotConnected {
        ", and a dead mount is in the way here: `umount -l` takes it away"
    } else {
        ""
    }
}

/// A mount that is being held.
///
/// Its functions block, so an asynchronous program calls them from a blocking thread. Dropping it
/// unmounts.
pub struct Mount {
    mountpoint: PathBuf,
    device_number: String,
    options: MountOptions,
    /// Where daemons meet the next supervisor.
    socket: Option<PathBuf>,
    state: Arc<State>,
    /// The table of open files, where the outcome of passthrough's trial is.
    opens: File,
    /// Closing or writing to it tells the watching thread to end the mount.
    stop: UnixStream,
    /// Pleas to the watching thread, and what wakes it.
    pleas: mpsc::Sender<Plea>,
    wake: UnixStream,
}

/// What the watching thread tells.
#[derive(Default)]
struct State {
    /// The end of the mount, and what went wrong if it did not end by being unmounted.
    end: Mutex<Option<Result<(), String>>>,
    ended: Condvar,
    /// The present daemon, 0 while there is none.
    daemon_pid: AtomicU32,
    restarts: AtomicU32,
}

impl State {
    fn end(&self, result: Result<(), String>) {
        *self.end.lock() = Some(result);
        self.ended.notify_all();
    }

    /// Waits for the end of the mount, if need be for ever; none when the time is over.
    fn wait(&self, limit: Option<Duration>) -> Option<Result<(), MountError>> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut end = self.end.lock();
        while end.is_none() {
            match deadline {
                None => self.ended.wait(&mut end),
                Some(deadline) => {
                    if self.ended.wait_until(&mut end, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        end.clone().map(|result| result.map_err(MountError::Daemon))
    }
}

impl Mount {
    /// Mounts, and returns once a daemon serves; on any failure nothing stays mounted.
    pub fn start(
        request: MountRequest,
        spawner: Arc<dyn DaemonSpawner>,
    ) -> Result<Self, MountError> {
        let mountpoint = check_mountpoint(&request.mountpoint)?;
        let (_, request_bytes) = protocol::request_sizes(request.options.is_writable());
        let size = journal::Size::for_requests(request_bytes);
        let memory = SharedMemory::new(size, &request.config_yaml).map_err(MountError::Memory)?;
        let connection = {
            let _alone = hold_mounts();
            connection::establish(&mountpoint, &request.options)?
        };
        let guard = UnmountOnDrop(Some(&mountpoint));
        let (socket, listener) = match &request.run_folder {
            Some(folder) => meeting_place(folder, &mountpoint)?,
            None => (None, None),
        };
        let fds = memory.with(connection.device, listener);
        let handover = Handover::new(
            size,
            request.options,
            mountpoint.clone(),
            connection.device_number,
            connection.has_passthrough,
        );
        let mount = Self::watch(handover, fds, spawner, socket, Watcher::start)?;
        guard.keep();
        tracing::info!(mountpoint = %mountpoint.display(), "mounted");
        Ok(mount)
    }

    /// Goes on with a mount whose daemon was found, as if this process had made it.
    pub fn adopt(found: Found, spawner: Arc<dyn DaemonSpawner>) -> Result<Self, MountError> {
        let (handover, fds, daemon, socket) = found.into_parts();
        let mountpoint = handover.mountpoint.clone();
        let mount = Self::watch(handover, fds, spawner, Some(socket), |watcher| {
            watcher.go_on_with(daemon);
            Ok(())
        })?;
        tracing::info!(
            mountpoint = %mountpoint.display(),
            daemon = mount.daemon_pid(),
            "took over a mount from its daemon"
        );
        Ok(mount)
    }

    /// Sets up the watching thread around the daemon that `first_daemon` brings.
    fn watch(
        handover: Handover,
        fds: HandoverFds,
        spawner: Arc<dyn DaemonSpawner>,
        socket: Option<PathBuf>,
        first_daemon: impl FnOnce(&mut Watcher) -> Result<(), MountError>,
    ) -> Result<Self, MountError> {
        let (stop, stopped) = UnixStream::pair().map_err(MountError::Memory)?;
        let (wake, woken) = UnixStream::pair().map_err(MountError::Memory)?;
        let (pleas, heard) = mpsc::channel();
        let state = Arc::new(State::default());
        let opens = fds.opens.try_clone().map_err(MountError::Memory)?;
        BackingFiles::serve(&fds, handover.has_passthrough).map_err(MountError::Memory)?;
        let mount = Self {
            mountpoint: handover.mountpoint.clone(),
            device_number: handover.device_number.clone(),
            options: handover.options.clone(),
            socket,
            state: Arc::clone(&state),
            opens: opens.into(),
            stop,
            pleas,
            wake,
        };
        let signals = watch::Signals {
            stopped,
            woken,
            pleas: heard,
        };
        let mut watcher = Watcher::new(fds, handover, spawner, signals, state);
        let begun =
            first_daemon(&mut watcher).and_then(|()| watcher.watch().map_err(MountError::Spawn));
        if let Err(error) = begun {
            // Nothing serves: the caller takes the mount away, so there is nothing for `Drop` to do.
            mount.state.end(Ok(()));
            mount.forget_socket();
            return Err(error);
        }
        Ok(mount)
    }

    /// Whether the kernel reads wholly cached files past the daemon.
    pub fn passthrough(&self) -> Passthrough {
        Passthrough::of(&self.opens)
    }

    /// The `MAJ:MIN` of the mount, by which it and its binds are found in the mount table.
    pub fn device_number(&self) -> &str {
        &self.device_number
    }

    /// Where the files are.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// How the files look.
    pub fn options(&self) -> &MountOptions {
        &self.options
    }

    /// Replaces the daemon by a new one from the spawner, which by now may start another version.
    ///
    /// The new one gets ready first; readers wait from the old one's last answer to the new one's
    /// first, and that time is returned. On a failure the old one serves on.
    pub fn upgrade(&self) -> Result<Duration, MountError> {
        let failed = |reason: &str| MountError::Upgrade(reason.to_owned());
        let (answer, answered) = mpsc::sync_channel(1);
        self.pleas
            .send(Plea { answer })
            .map_err(|_| failed("the mount has ended"))?;
        (&self.wake)
            .write_all(&[1])
            .map_err(|_| failed("the mount has ended"))?;
        match answered.recv() {
            Ok(upgraded) => upgraded.map_err(MountError::Upgrade),
            Err(_) => Err(failed("the mount ended meanwhile")),
        }
    }

    /// How many daemons have died and been replaced.
    pub fn restarts(&self) -> u32 {
        self.state.restarts.load(Ordering::Relaxed)
    }

    /// The daemon's process id, as whoever started it sees it; none while one is being replaced.
    pub fn daemon_pid(&self) -> Option<u32> {
        let pid = self.state.daemon_pid.load(Ordering::Acquire);
        (pid != 0).then_some(pid)
    }

    /// Whether the mount is over.
    pub fn has_ended(&self) -> bool {
        self.state.end.lock().is_some()
    }

    /// Waits until somebody unmounts, or daemons could not be kept alive.
    pub fn wait(&self) -> Result<(), MountError> {
        self.state.wait(None).unwrap_or(Ok(()))
    }

    /// Takes the mount away; returns when it and its daemon are gone.
    ///
    /// Files that stay open get a few seconds. Then the mount is taken out of the tree, and its
    /// connection ends: who still has a file open gets ENOTCONN.
    pub fn unmount(&self) -> Result<(), MountError> {
        if self.has_ended() {
            return self.wait();
        }
        detach(&self.mountpoint, &self.device_number).map_err(|source| MountError::Unmount {
            mountpoint: self.mountpoint.clone(),
            source,
        })?;
        // The thread that hears this is the only one; should it be gone, the state says so.
        let _ended = (&self.stop).write(&[1]);
        let ended = self.state.wait(Some(END_LIMIT));
        self.forget_socket();
        match ended {
            Some(end) => end,
            None => Err(MountError::Unmount {
                mountpoint: self.mountpoint.clone(),
                source: io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the mount is gone but its daemon does not end",
                ),
            }),
        }
    }
}

impl Mount {
    /// Removes the socket of a mount that is over. One that stays is removed by whoever finds that
    /// nobody listens.
    fn forget_socket(&self) {
        if let Some(socket) = &self.socket {
            let _gone = std::fs::remove_file(socket);
        }
    }
}

/// Keeps this process from mounting while it is held.
///
/// A daemon's namespace must not have a copy of another mount of ours, which would live on in it; so
/// between the look at the mounts that there are and the namespace no new one may come.
pub(crate) fn hold_mounts() -> MutexGuard<'static, ()> {
    MOUNTS.lock()
}

/// Where mounts of this product are at present.
pub(crate) fn mounts_of_ours() -> io::Result<Vec<PathBuf>> {
    connection::ours()
}

/// The socket at which the daemons of a mount will meet its next supervisor.
fn meeting_place(
    folder: &Path,
    mountpoint: &Path,
) -> Result<(Option<PathBuf>, Option<OwnedFd>), MountError> {
    let socket = rendezvous::socket_of(folder, mountpoint);
    let listener = rendezvous::make_folder(folder).and_then(|()| rendezvous::listen(&socket));
    let listener = listener.map_err(|source| MountError::Socket {
        folder: folder.to_owned(),
        source,
    })?;
    Ok((Some(socket), Some(listener)))
}

/// Takes away a mount of this product whose supervisor is gone; nothing mounted there is fine.
///
/// Its daemon has served on, and ends with the mount.
pub fn unmount_abandoned(mountpoint: &Path) -> Result<(), MountError> {
    let failed = |source| MountError::Unmount {
        mountpoint: mountpoint.to_owned(),
        source,
    };
    match connection::find(mountpoint).map_err(failed)? {
        Some(mount) if mount.is_ours() => detach(mountpoint, &mount.device_number).map_err(failed),
        _ => Ok(()),
    }
}

/// Takes a mount out of the tree, gently at first.
fn detach(mountpoint: &Path, device_number: &str) -> io::Result<()> {
    let deadline = Instant::now() + BUSY_LIMIT;
    loop {
        let found = connection::find(mountpoint)?;
        if found.is_none_or(|mount| mount.device_number != device_number) {
            // Somebody was faster.
            return Ok(());
        }
        match sys::unmount(mountpoint, false) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            done => return done,
        }
        if Instant::now() >= deadline {
            tracing::warn!(
                mountpoint = %mountpoint.display(),
                "files are still open; detaching the mount"
            );
            return sys::unmount(mountpoint, true);
        }
        // Nobody tells when the last file is closed.
        std::thread::sleep(BUSY_RETRY);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::error!(%error, "a mount may be left behind");
        }
    }
}

/// Undoes a mount whose daemon did not come up.
struct UnmountOnDrop<'a>(Option<&'a Path>);

impl UnmountOnDrop<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for UnmountOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(mountpoint) = self.0
            && let Err(error) = sys::unmount(mountpoint, true)
        {
            tracing::error!(mountpoint = %mountpoint.display(), %error, "cannot unmount");
        }
    }
}

/// The mount point as mountinfo will name it.
fn check_mountpoint(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let refuse = |source| MountError::Mountpoint {
        mountpoint: mountpoint.to_owned(),
        source,
    };
    let path = mountpoint.canonicalize().map_err(refuse)?;
    if !path.is_dir() {
        return Err(refuse(io::ErrorKind::NotADirectory.into()));
    }
    if path.to_str().is_none() {
        return Err(refuse(io::ErrorKind::InvalidFilename.into()));
    }
    let found = connection::find(&path).map_err(refuse)?;
    if found.is_some_and(|mount| mount.is_ours()) {
        let mountpoint = path;
        return Err(MountError::AlreadyMounted { mountpoint });
    }
    Ok(path)
}

/// What daemons share beside the connection.
struct SharedMemory {
    journal: OwnedFd,
    inode_log: OwnedFd,
    config: OwnedFd,
    opens: OwnedFd,
    broker: BrokerFds,
}

impl SharedMemory {
    fn new(size: journal::Size, config_yaml: &str) -> io::Result<Self> {
        let mut config = File::from(sys::memfd(c"alluxio-config")?);
        config.write_all(config_yaml.as_bytes())?;
        sys::seal_content(config.as_fd())?;
        let (asking, answering) = sys::seqpacket_pair()?;
        Ok(Self {
            journal: journal::create(size)?,
            inode_log: inodes::create_log()?,
            config: config.into(),
            opens: opens::create()?,
            broker: BrokerFds { asking, answering },
        })
    }

    fn with(self, device: OwnedFd, listener: Option<OwnedFd>) -> HandoverFds {
        HandoverFds {
            device,
            journal: self.journal,
            inode_log: self.inode_log,
            config: self.config,
            opens: self.opens,
            broker: self.broker,
            listener,
        }
    }
}
