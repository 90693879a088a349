//! Starting a daemon: here, or through the agent of another pod.
//!
//! A daemon parses what comes over the network, so it is started with nothing to lose: no root, no
//! capability, no way back to either, and no descriptor but its control socket. The supervisor only
//! sees a [`DaemonProcess`]; the hand-over goes over the control socket, so whoever starts the
//! process for us never sees the configuration's secrets.
#![allow(
    unsafe_code,
    reason = "what happens between fork and exec has no safe form in the standard library"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde::{Deserialize, Serialize};

use crate::sandbox::Cell;
use crate::{supervisor, sys};

/// Starts daemons.
pub trait DaemonSpawner: Send + Sync {
    /// Starts a daemon whose descriptor 3 is `control`.
    fn spawn(&self, control: OwnedFd) -> io::Result<Box<dyn DaemonProcess>>;
}

/// A daemon that was started.
pub trait DaemonProcess: Send {
    /// Its process id, as whoever started it sees it.
    fn pid(&self) -> u32;

    /// Readable once the process has ended.
    fn pidfd(&self) -> BorrowedFd<'_>;

    /// Kills it; a process that has ended already is fine.
    fn kill(&self) -> io::Result<()>;

    /// Frees what is left of the ended process, and tells how it ended.
    fn reap(self: Box<Self>) -> End;
}

/// How a daemon ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// For people: an exit status, a signal.
    pub how: String,
    /// Whether somebody ended it, the kernel for want of memory among them, rather than it itself.
    /// Where nobody can tell, it is taken for innocent.
    pub was_killed: bool,
}

impl End {
    /// An end of which nothing is known, and why.
    pub(crate) fn unknown(why: &str) -> Self {
        Self {
            how: format!("unknown end: {why}"),
            was_killed: true,
        }
    }
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        Self {
            how: status.to_string(),
            was_killed: status.signal() == Some(libc::SIGKILL),
        }
    }
}

/// Starts daemons as children of this process.
#[derive(Clone, Debug)]
pub struct LocalSpawner {
    /// The program; it must call [`crate::daemon::run`] with descriptor 3.
    pub program: PathBuf,
    /// Its arguments. They are visible to every user, so they hold no secret.
    pub args: Vec<String>,
    /// The user that a daemon runs as when this process is root.
    pub uid: u32,
    /// The group that a daemon runs as when this process is root.
    pub gid: u32,
    /// Folders that exist and that a daemon may write to; when this process is root, the rest of the
    /// tree is read-only for it, as far as the kernel allows.
    pub writable: Vec<PathBuf>,
    /// Most bytes of private memory that a daemon may have, for a bug in it not to eat the machine.
    pub data_limit_bytes: Option<u64>,
}

/// A child process.
#[derive(Debug)]
pub(crate) struct LocalDaemon {
    child: Child,
    pidfd: OwnedFd,
}

impl LocalSpawner {
    /// As [`DaemonSpawner::spawn`], with the type that the agent needs.
    pub(crate) fn start(&self, control: BorrowedFd<'_>) -> io::Result<LocalDaemon> {
        // Number 3 is for the control socket, in the child. Holding it here keeps the standard
        // library's own descriptors away from it.
        let _placeholder = sys::duplicate_from(control, 3)?;
        let control = sys::duplicate_from(control, 4)?;
        let program = File::open(&self.program)?;
        let program = sys::duplicate_from(program.as_fd(), 4)?;
        let number = control.as_raw_fd();
        // No mount may come between the look at the mounts that are hidden and the namespace.
        let _no_mount = supervisor::hold_mounts();
        let cell = Cell::new(self.uid, self.gid, &self.writable, self.data_limit_bytes)?;
        let mut command = Command::new(self.path_of(&program));
        command
            .arg0(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A daemon keeps no directory busy.
            .current_dir("/");
        // SAFETY: `enter` makes only system calls, which is what may happen between fork and exec in
        // a process with threads.
        unsafe { command.pre_exec(move || cell.enter(number)) };
        let child = command.spawn()?;
        let pidfd = sys::pidfd_open(child.id())?;
        Ok(LocalDaemon { child, pidfd })
    }

    /// The program through its descriptor: the unprivileged user may not be allowed to walk to it,
    /// such as below `/root`.
    fn path_of(&self, program: &OwnedFd) -> PathBuf {
        let open = PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()));
        if Path::new("/proc/self/fd").exists() {
            open
        } else {
            self.program.clone()
        }
    }
}

impl DaemonSpawner for LocalSpawner {
    fn spawn(&self, control: OwnedFd) -> io::Result<Box<dyn DaemonProcess>> {
        Ok(Box::new(self.start(control.as_fd())?))
    }
}

impl DaemonProcess for LocalDaemon {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn kill(&self) -> io::Result<()> {
        match sys::pidfd_kill(self.pidfd.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            killed => killed,
        }
    }

    fn reap(mut self: Box<Self>) -> End {
        match self.child.wait() {
            Ok(status) => status.into(),
            Err(error) => End::unknown(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn shell(script: &str) -> LocalSpawner {
        LocalSpawner {
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
            uid: 65534,
            gid: 65534,
            writable: Vec::new(),
            data_limit_bytes: None,
        }
    }

    /// What a script run as a daemon writes to its control socket.
    fn hears(script: &str) -> String {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let daemon = shell(script).spawn(theirs).unwrap();
        sys::wait_any([daemon.pidfd()], None).unwrap();
        let end = daemon.reap();
        let mut buffer = vec![0; 8192];
        let (length, _) = sys::receive_message(ours.as_fd(), &mut buffer).unwrap();
        assert_ne!(length, 0, "{end:?}");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_daemon_has_no_descriptor_above_its_control_socket() {
        // `ls` has one more while it reads the directory.
        let open = hears("ls /proc/self/fd | tr '\\n' ' ' >&3");
        assert_eq!(open.trim(), "0 1 2 3 4");
    }

    #[test]
    fn a_daemon_has_no_capability_and_cannot_gain_one() {
        let status = hears("grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t\\n' >&3");
        assert!(status.contains("NoNewPrivs:1"), "{status}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(
                status.contains(&format!("{set}:0000000000000000")),
                "{status}"
            );
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_at_once() {
        let (_ours, theirs) = sys::seqpacket_pair().unwrap();
        let mut missing = shell("");
        missing.program = "/nonexistent/daemon".into();
        let error = missing.spawn(theirs).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_killed_daemon_is_seen_and_tells_how_it_ended() {
        let (_ours, theirs) = sys::seqpacket_pair().unwrap();
        let daemon = shell("exec sleep 1000").spawn(theirs).unwrap();
        daemon.kill().unwrap();
        sys::wait_any([daemon.pidfd()], None).unwrap();
        daemon.kill().unwrap();
        let end = daemon.reap();
        assert!(end.how.contains("signal: 9") && end.was_killed, "{end:?}");
    }

    #[test]
    fn a_daemon_that_ends_by_itself_was_not_killed() {
        for script in ["exit 3", "kill -ABRT $$"] {
            let (_ours, theirs) = sys::seqpacket_pair().unwrap();
            let daemon = shell(script).spawn(theirs).unwrap();
            sys::wait_any([daemon.pidfd()], None).unwrap();
            let end = daemon.reap();
            assert!(!end.was_killed, "{end:?}");
        }
    }
}
