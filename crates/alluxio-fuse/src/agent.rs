//! The agent of the mounter pod: starts daemons for a supervisor in another pod.
//!
//! The supervisor is privileged and handles no data, the daemons handle data and have no privilege,
//! and they live in different pods so that neither goes down with the other. One connection is one
//! daemon: the supervisor sends the daemon's end of a control socket, the agent starts the daemon
//! and answers with a pidfd, and says how it ended before it closes the connection. A supervisor
//! that goes away takes no daemon with it; only the message `kill` ends one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spawner::{DaemonProcess, DaemonSpawner, End, LocalDaemon, LocalSpawner};
use crate::sys;

/// Daemons that one agent runs: a node has at most 110 pods by default, and one mount serves all
/// pods of a dataset, so this is never the limit that a user meets first.
const MAX_DAEMONS: usize = 256;

/// A message is one line of JSON, sent in one piece; the longest has an error's text.
const MAX_LINE_BYTES: usize = 4096;

/// A peer that connects and says nothing for so long is left, and so is a silent agent: starting a
/// process takes milliseconds.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// What a supervisor asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Request {
    /// Start a daemon; its control socket comes with the message.
    Spawn,
    /// Kill the daemon of this connection.
    Kill,
}

/// What an agent answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    /// The daemon runs; its pidfd comes with the message.
    Started { pid: u32 },
    /// No daemon was started.
    Refused { reason: String },
    /// The daemon has ended.
    Ended(End),
}

/// Starts daemons through an agent.
#[derive(Clone, Debug)]
pub struct AgentSpawner {
    /// Where the agent listens.
    pub socket: PathBuf,
}

/// A daemon that an agent runs.
#[derive(Debug)]
struct RemoteDaemon {
    pid: u32,
    pidfd: OwnedFd,
    connection: UnixStream,
}

impl DaemonSpawner for AgentSpawner {
    fn spawn(&self, control: OwnedFd) -> io::Result<Box<dyn DaemonProcess>> {
        let connection = UnixStream::connect(&self.socket).map_err(|error| {
            let socket = self.socket.display();
            io::Error::new(
                error.kind(),
                format!(
                    "no mounter agent at {socket}: {error}; is the mounter pod of this node up?"
                ),
            )
        })?;
        say(connection.as_fd(), &Request::Spawn, &[control.as_fd()])?;
        drop(control);
        match hear(connection.as_fd())? {
            Some((Answer::Started { pid }, fds)) => {
                let pidfd = fds.into_iter().next();
                let pidfd = pidfd.ok_or_else(|| io::Error::other("agent sent no pidfd"))?;
                Ok(Box::new(RemoteDaemon {
                    pid,
                    pidfd,
                    connection,
                }))
            }
            Some((Answer::Refused { reason }, _)) => {
                Err(io::Error::other(format!("mounter agent: {reason}")))
            }
            Some((Answer::Ended(_), _)) | None => Err(io::Error::other(
                "mounter agent closed the connection before it started a daemon",
            )),
        }
    }
}

impl DaemonProcess for RemoteDaemon {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn kill(&self) -> io::Result<()> {
        match say(self.connection.as_fd(), &Request::Kill, &[]) {
            // The agent is gone, and in a pod its daemons with it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            killed => killed,
        }
    }

    fn reap(self: Box<Self>) -> End {
        match hear(self.connection.as_fd()) {
            Ok(Some((Answer::Ended(end), _))) => end,
            _ => End::unknown("the mounter agent is gone"),
        }
    }
}

/// Serves supervisors until the listener fails.
///
/// Only root and the agent's own user may ask: a daemon's control socket gives it a mount.
pub fn serve(listener: &UnixListener, spawner: &LocalSpawner) -> io::Result<()> {
    let running = Arc::new(AtomicUsize::new(0));
    loop {
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            // The supervisor changed its mind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let (spawner, counted) = (spawner.clone(), Arc::clone(&running));
        let is_free = running.fetch_add(1, Ordering::Relaxed) < MAX_DAEMONS;
        let serve_one = move || {
            let served = if is_free {
                serve_connection(&connection, &spawner)
            } else {
                refuse(&connection, format!("{MAX_DAEMONS} daemons run already"))
            };
            counted.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = served {
                tracing::warn!(%error, "a supervisor's request failed");
            }
        };
        // Most threads wait for their daemon's end and nothing else.
        let started = std::thread::Builder::new()
            .name("daemon-watch".to_owned())
            .spawn(serve_one);
        if let Err(error) = started {
            running.fetch_sub(1, Ordering::Relaxed);
            tracing::error!(%error, "cannot watch one more daemon");
        }
    }
}

fn serve_connection(connection: &UnixStream, spawner: &LocalSpawner) -> io::Result<()> {
    let uid = sys::peer_uid(connection.as_fd())?;
    if uid != 0 && uid != sys::effective_uid() {
        return refuse(connection, format!("user {uid} may not start daemons"));
    }
    let Some((Request::Spawn, fds)) = hear(connection.as_fd())? else {
        return refuse(connection, "nothing was asked for".to_owned());
    };
    let Some(control) = fds.into_iter().next() else {
        return refuse(
            connection,
            "no control socket came with the request".to_owned(),
        );
    };
    let started = spawner.start(control.as_fd());
    // The daemon's end of the socket is the daemon's alone: its death must close it.
    drop(control);
    match started {
        Ok(daemon) => watch(connection, daemon),
        Err(error) => refuse(connection, format!("cannot start a daemon: {error}")),
    }
}

/// Stays with a daemon until it has ended, whatever becomes of its supervisor.
fn watch(connection: &UnixStream, daemon: LocalDaemon) -> io::Result<()> {
    let pid = daemon.pid();
    tracing::info!(pid, "daemon started");
    let started = say(
        connection.as_fd(),
        &Answer::Started { pid },
        &[daemon.pidfd()],
    );
    let mut is_heard = started.is_ok();
    loop {
        let ended = if is_heard {
            let [ended, asked] = sys::wait_any([daemon.pidfd(), connection.as_fd()], None)?;
            if asked && !ended {
                is_heard = obey(connection, &daemon)?;
            }
            ended
        } else {
            sys::wait_any([daemon.pidfd()], None)?[0]
        };
        if ended {
            let end = Box::new(daemon).reap();
            tracing::info!(pid, how = end.how, "daemon ended");
            // Nobody may be there to hear it.
            let _unheard = say(connection.as_fd(), &Answer::Ended(end), &[]);
            return Ok(());
        }
    }
}

/// Does what the supervisor says; false when it is gone.
fn obey(connection: &UnixStream, daemon: &LocalDaemon) -> io::Result<bool> {
    match hear(connection.as_fd()) {
        Ok(Some((Request::Kill, _))) => daemon.kill().map(|()| true),
        Ok(Some((Request::Spawn, _)) | None) | Err(_) => Ok(false),
    }
}

fn refuse(connection: &UnixStream, reason: String) -> io::Result<()> {
    say(connection.as_fd(), &Answer::Refused { reason }, &[])
}

fn say(
    connection: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    sys::send_message(connection, &line, fds)
}

/// The next message and its descriptors; none when the peer is gone.
fn hear<M: DeserializeOwned>(connection: BorrowedFd<'_>) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let [spoke] = sys::wait_any([connection], Some(SILENCE_LIMIT))?;
    if !spoke {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut buffer = [0; MAX_LINE_BYTES];
    let (length, fds) = sys::receive_message(connection, &mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    let line = buffer[..length].split(|&byte| byte == b'\n').next();
    let message = serde_json::from_slice(line.unwrap_or_default())?;
    Ok(Some((message, fds)))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    /// An agent whose daemons run a shell script; it lives until the test's process ends.
    fn agent(script: &str) -> (tempfile::TempDir, AgentSpawner) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let spawner = LocalSpawner {
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
            uid: 65534,
            gid: 65534,
            writable: Vec::new(),
            data_limit_bytes: None,
        };
        std::thread::spawn(move || serve(&listener, &spawner));
        (folder, AgentSpawner { socket })
    }

    #[test]
    fn the_daemon_gets_the_control_socket_and_its_end_is_told() {
        let (_folder, spawner) = agent("echo hello >&3; exit 7");
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let daemon = spawner.spawn(theirs).unwrap();
        let mut buffer = [0; 64];
        let (length, _) = sys::receive_message(ours.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello\n");
        sys::wait_any([daemon.pidfd()], None).unwrap();
        let end = daemon.reap();
        assert_eq!(
            (end.how.as_str(), end.was_killed),
            ("exit status: 7", false)
        );
    }

    #[test]
    fn a_daemon_is_killed_through_the_agent() {
        let (_folder, spawner) = agent("exec sleep 1000");
        let (_ours, theirs) = sys::seqpacket_pair().unwrap();
        let daemon = spawner.spawn(theirs).unwrap();
        daemon.kill().unwrap();
        sys::wait_any([daemon.pidfd()], None).unwrap();
        assert!(daemon.reap().was_killed);
    }

    #[test]
    fn a_daemon_outlives_the_supervisor_that_asked_for_it() {
        let (_folder, spawner) = agent("head -n 1 <&3 >&3");
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        drop(spawner.spawn(theirs).unwrap());
        sys::send_message(ours.as_fd(), b"alive\n", &[]).unwrap();
        let mut buffer = [0; 64];
        let (length, _) = sys::receive_message(ours.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"alive\n");
    }

    #[test]
    fn without_an_agent_the_error_names_the_pod_to_look_at() {
        let spawner = AgentSpawner {
            socket: "/nonexistent/agent.sock".into(),
        };
        let (_ours, theirs) = sys::seqpacket_pair().unwrap();
        let error = spawner.spawn(theirs).err().unwrap();
        assert!(error.to_string().contains("mounter pod"), "{error}");
    }
}
