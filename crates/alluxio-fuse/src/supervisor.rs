//! The supervisor: a small privileged part that holds a mount while daemons come and go.
//!
//! It opens `/dev/fuse`, mounts, answers INIT, and starts a daemon that gets the connection and all
//! that a successor would need: the journal of requests in flight, the log of inodes, the
//! configuration. From then on it only waits. When a daemon dies, it starts another on the same
//! connection; readers see a pause. It parses nothing that comes from afar.
//!
//! A daemon needs no supervisor to go on serving, and ends by itself when the mount is gone.

mod backoff;
mod connection;
mod watch;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::handover::HandoverFds;
use crate::options::MountRequest;
use crate::spawner::DaemonSpawner;
use crate::{inodes, journal, sys};
use watch::Watcher;

/// How long an unmount waits for open files to be closed before it detaches the mount: enough for a
/// process that is just ending, little for someone who waits at a terminal.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// How often a busy mount is tried again meanwhile.
const BUSY_RETRY: Duration = Duration::from_millis(100);

/// How long an unmount waits for the watching thread, which itself waits a shorter, bounded time for
/// the daemon and then kills it.
const END_LIMIT: Duration = Duration::from_secs(30);

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
    state: Arc<State>,
    /// Closing or writing to it tells the watching thread to end the mount.
    stop: UnixStream,
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
        let (journal, inode_log, config) =
            shared_memory(&request.config_yaml).map_err(MountError::Memory)?;
        let connection = connection::establish(&mountpoint, &request.options)?;
        let fds = HandoverFds {
            device: connection.device,
            journal,
            inode_log,
            config,
        };
        let guard = UnmountOnDrop(Some(&mountpoint));
        let (stop, stopped) = UnixStream::pair().map_err(MountError::Memory)?;
        let state = Arc::new(State::default());
        let watcher = Watcher::new(fds, request.options, spawner, stopped, Arc::clone(&state))?;
        watcher.watch().map_err(MountError::Spawn)?;
        guard.keep();
        tracing::info!(mountpoint = %mountpoint.display(), "mounted");
        Ok(Self {
            mountpoint,
            device_number: connection.device_number,
            state,
            stop,
        })
    }

    /// Where the files are.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
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
        match self.state.wait(Some(END_LIMIT)) {
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

/// The journal, the inode log and the configuration.
fn shared_memory(config_yaml: &str) -> io::Result<(OwnedFd, OwnedFd, OwnedFd)> {
    let mut config = File::from(sys::memfd(c"alluxio-config")?);
    config.write_all(config_yaml.as_bytes())?;
    sys::seal_content(config.as_fd())?;
    Ok((journal::create()?, inodes::create_log()?, config.into()))
}
