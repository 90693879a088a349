//! Mounts whose supervisor is gone, found by their daemons.
//!
//! Each socket in the run folder belongs to a mount. Its daemon answers once it has lost its
//! supervisor; with what it hands over, this process is the supervisor. A socket that nobody listens
//! at is that of a mount whose daemon died as well, or that was unmounted: it is removed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connection;
use super::watch::Running;
use crate::handover::{Handover, HandoverFds, Order, Word};
use crate::spawner::{DaemonProcess, End};
use crate::{rendezvous, sys};

/// How long a daemon may take to answer. One without a supervisor does so at once; one that has a
/// living supervisor does not answer at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A mount that lives without a supervisor.
pub struct Found {
    handover: Handover,
    fds: HandoverFds,
    daemon: Running,
    socket: PathBuf,
}

/// What is found at a mount's socket.
enum Answer {
    Found(Box<Found>),
    /// Nobody listens, or the mount is over.
    Over,
    /// It has a supervisor.
    Taken,
}

/// The mounts in a run folder that have a daemon and no supervisor.
///
/// It is for a supervisor of all of them: a mount that has another one is waited for, for seconds.
pub fn find_abandoned(run_folder: &Path) -> io::Result<Vec<Found>> {
    let sockets = rendezvous::sockets(run_folder)?;
    Ok(sockets.iter().filter_map(|socket| find(socket)).collect())
}

/// The mount at one path, if it has a daemon and no supervisor.
pub fn find_abandoned_at(run_folder: &Path, mountpoint: &Path) -> Option<Found> {
    let socket = rendezvous::socket_of(run_folder, mountpoint);
    find(&socket).filter(|found| found.mountpoint() == mountpoint)
}

fn find(socket: &Path) -> Option<Found> {
    match ask(socket) {
        Ok(Answer::Found(mount)) => return Some(*mount),
        Ok(Answer::Taken) => {
            tracing::info!(socket = %socket.display(), "a mount has another supervisor");
        }
        Ok(Answer::Over) => remove(socket),
        Err(error) => {
            tracing::error!(socket = %socket.display(), %error, "cannot take over a mount");
        }
    }
    None
}

fn remove(socket: &Path) {
    match fs::remove_file(socket) {
        Ok(()) => tracing::info!(
            socket = %socket.display(),
            "nobody serves the mount of this socket any more"
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(socket = %socket.display(), %error, "cannot remove it"),
    }
}

fn ask(socket: &Path) -> io::Result<Answer> {
    let control = match rendezvous::connect(socket) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            return Ok(Answer::Over);
        }
        connected => connected?,
    };
    let [answered] = sys::wait_any([control.as_fd()], Some(ANSWER_LIMIT))?;
    if !answered {
        return Ok(Answer::Taken);
    }
    let back = Handover::receive_back(control.as_fd())?;
    if sys::is_disconnected(back.fds.device.as_fd())? {
        return Ok(Answer::Over);
    }
    let process = AdoptedDaemon::new(back.sender, back.pidfd, control.as_fd())?;
    Ok(Answer::Found(Box::new(Found {
        daemon: Running::adopted(Box::new(process), control),
        handover: back.handover,
        fds: back.fds,
        socket: socket.to_owned(),
    })))
}

impl Found {
    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.handover.mountpoint
    }

    /// What it shows.
    pub fn source_name(&self) -> &str {
        &self.handover.options.source_name
    }

    /// Where its daemon offers its metrics.
    pub fn metrics_socket(&self) -> Option<&Path> {
        self.handover.options.metrics_socket.as_deref()
    }

    /// The version of the program that its daemon runs.
    pub fn daemon_version(&self) -> &str {
        &self.handover.version
    }

    /// Whether it can still be reached by its path.
    pub fn is_mounted(&self) -> io::Result<bool> {
        let mount = connection::find(&self.handover.mountpoint)?;
        Ok(mount.is_some_and(|mount| mount.device_number == self.handover.device_number))
    }

    pub(super) fn into_parts(self) -> (Handover, HandoverFds, Running, PathBuf) {
        (self.handover, self.fds, self.daemon, self.socket)
    }
}

/// A daemon that another supervisor, or another pod's agent, started.
struct AdoptedDaemon {
    pid: u32,
    pidfd: OwnedFd,
    control: OwnedFd,
}

impl AdoptedDaemon {
    /// `sender` is what the kernel says of the peer, `told` the peer's own word.
    ///
    /// The kernel's word counts, since this process may be told to kill what is behind it. Where the
    /// peer lives in a namespace of process ids that cannot be seen from here, the kernel says
    /// nothing, and does not let us kill by the peer's descriptor either.
    fn new(sender: Option<u32>, told: OwnedFd, control: BorrowedFd<'_>) -> io::Result<Self> {
        let control = control.try_clone_to_owned()?;
        let Some(pid) = sender else {
            return Ok(Self {
                pid: 0,
                pidfd: told,
                control,
            });
        };
        let pidfd = sys::pidfd_open(pid)?;
        // Its end of the socket is still open, so the number is still its own.
        match sys::wait_any([control.as_fd()], Some(Duration::ZERO))? {
            [false] => Ok(Self {
                pid,
                pidfd,
                control,
            }),
            [true] => Err(io::Error::other("the daemon ended while it was taken over")),
        }
    }
}

impl DaemonProcess for AdoptedDaemon {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn kill(&self) -> io::Result<()> {
        match sys::pidfd_kill(self.pidfd.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            // Another namespace: it is asked.
            Err(_) => match Order::End.send(self.control.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                sent => sent,
            },
            killed => killed,
        }
    }

    /// Its parent, if it is not this process, knows.
    fn reap(self: Box<Self>) -> End {
        End::unknown("another process started it")
    }
}
