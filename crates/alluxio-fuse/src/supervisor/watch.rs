//! The thread that keeps a daemon alive for a mount.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::{MountError, State};
use crate::handover::{Handover, HandoverFds, Report};
use crate::journal;
use crate::options::MountOptions;
use crate::spawner::{DaemonProcess, DaemonSpawner};
use crate::sys;

/// How long a daemon may take until it serves. It is longer than the daemon's own limits for
/// connecting its client and asking for the root, so that the daemon's words arrive first.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// How long a daemon may take to end after its mount is gone. Nothing of it is needed any more; the
/// time is for a clean last line in its log.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// A mount's state while it lives.
pub(super) struct Watcher {
    fds: HandoverFds,
    options: MountOptions,
    spawner: Arc<dyn DaemonSpawner>,
    /// Readable when the mount is to end.
    stopped: UnixStream,
    state: Arc<State>,
    /// How many daemons were started before the next one.
    generation: u32,
    daemon: Option<Running>,
}

/// A daemon that serves.
struct Running {
    process: Box<dyn DaemonProcess>,
    since: Instant,
}

/// Why a daemon did not come to serve.
enum NotStarted {
    /// The mount is to end.
    Stopped,
    /// It could not be started.
    Spawn(io::Error),
    /// It ended, or said that it cannot.
    Daemon(String),
}

impl Watcher {
    /// Starts the first daemon.
    pub(super) fn new(
        fds: HandoverFds,
        options: MountOptions,
        spawner: Arc<dyn DaemonSpawner>,
        stopped: UnixStream,
        state: Arc<State>,
    ) -> Result<Self, MountError> {
        let mut watcher = Self {
            fds,
            options,
            spawner,
            stopped,
            state,
            generation: 0,
            daemon: None,
        };
        match watcher.start_daemon() {
            Ok(daemon) => watcher.daemon = Some(daemon),
            Err(NotStarted::Spawn(error)) => return Err(MountError::Spawn(error)),
            Err(NotStarted::Daemon(reason)) => return Err(MountError::Daemon(reason)),
            Err(NotStarted::Stopped) => {
                return Err(MountError::Daemon("the mount was stopped".to_owned()));
            }
        }
        Ok(watcher)
    }

    /// Goes on in a thread of its own.
    pub(super) fn watch(self) -> io::Result<()> {
        std::thread::Builder::new()
            .name("mount-watch".to_owned())
            .spawn(move || {
                let state = Arc::clone(&self.state);
                let end = self.run();
                if let Err(reason) = &end {
                    tracing::error!(reason, "the mount has ended");
                }
                state.end(end);
            })
            .map(drop)
    }

    /// Replaces daemons until the mount ends. The connection ends with `self`.
    fn run(mut self) -> Result<(), String> {
        let mut backoff = Backoff::default();
        while let Some(daemon) = self.daemon.take() {
            if !self.wait_for_death(&daemon)? {
                self.end(daemon.process);
                return Ok(());
            }
            self.state.daemon_pid.store(0, Ordering::Release);
            let served = daemon.since.elapsed();
            let how = daemon.process.reap();
            if self.is_unmounted() {
                return Ok(());
            }
            tracing::warn!(how, ?served, "the mount's daemon died; starting another");
            self.replace(&mut backoff, served)?;
        }
        Ok(())
    }

    /// Waits for the daemon's death; false when the mount is to end first.
    fn wait_for_death(&self, daemon: &Running) -> Result<bool, String> {
        let fds = [daemon.process.pidfd(), self.stopped.as_fd()];
        let [died, stopped] = sys::wait_any(fds, None).map_err(|error| error.to_string())?;
        Ok(died && !stopped)
    }

    /// Starts daemons until one serves, the mount is gone, or it is hopeless.
    fn replace(&mut self, backoff: &mut Backoff, served: Duration) -> Result<(), String> {
        let mut pause = backoff.after(served);
        let begun = Instant::now();
        loop {
            if self.pause(pause) || self.is_unmounted() {
                return Ok(());
            }
            self.generation += 1;
            let reason = match self.start_daemon() {
                Ok(daemon) => {
                    self.daemon = Some(daemon);
                    self.state
                        .restarts
                        .store(self.generation, Ordering::Relaxed);
                    return Ok(());
                }
                Err(NotStarted::Stopped) => return Ok(()),
                Err(NotStarted::Spawn(error)) => error.to_string(),
                Err(NotStarted::Daemon(reason)) => reason,
            };
            if Backoff::is_hopeless(begun.elapsed()) {
                return Err(format!("no daemon could be started any more: {reason}"));
            }
            tracing::warn!(reason, "the mount has no daemon yet; trying again");
            pause = backoff.after(Duration::ZERO);
        }
    }

    /// Starts a daemon and waits until it serves.
    fn start_daemon(&self) -> Result<Running, NotStarted> {
        let (control, daemons_end) = sys::seqpacket_pair().map_err(NotStarted::Spawn)?;
        let process = self.spawner.spawn(daemons_end).map_err(NotStarted::Spawn)?;
        let options = self.options.clone();
        let handover = Handover::new(self.generation, journal::SLOTS, options);
        // A daemon that is dead already does not take it; what it says or how it ended tells more.
        let _taken = handover.send(control.as_fd(), &self.fds);
        let fds = [control.as_fd(), process.pidfd(), self.stopped.as_fd()];
        let waited = sys::wait_any(fds, Some(READY_LIMIT));
        let failure = match waited {
            Ok([_, _, true]) => NotStarted::Stopped,
            Ok([false, false, false]) => NotStarted::Daemon(format!(
                "it was not ready within {} seconds",
                READY_LIMIT.as_secs()
            )),
            Ok(_) => match Report::receive(control.as_fd()) {
                Ok(Some(Report::Ready)) => {
                    self.state
                        .daemon_pid
                        .store(process.pid(), Ordering::Release);
                    let since = Instant::now();
                    return Ok(Running { process, since });
                }
                Ok(Some(Report::Failed { reason })) => NotStarted::Daemon(reason),
                Ok(None) => {
                    let how = self.end(process);
                    return Err(NotStarted::Daemon(format!(
                        "it ended before it was ready ({how}); its own log tells why"
                    )));
                }
                Err(error) => NotStarted::Daemon(format!("it said nothing useful: {error}")),
            },
            Err(error) => NotStarted::Spawn(error),
        };
        self.end(process);
        Err(failure)
    }

    /// Lets a daemon end by itself for a moment, then kills it; how it ended.
    fn end(&self, process: Box<dyn DaemonProcess>) -> String {
        self.state.daemon_pid.store(0, Ordering::Release);
        if !has_ended_within(&*process, EXIT_LIMIT) {
            if let Err(error) = process.kill() {
                tracing::error!(pid = process.pid(), %error, "cannot kill the mount's daemon");
            }
            if !has_ended_within(&*process, EXIT_LIMIT) {
                return "it cannot be killed".to_owned();
            }
        }
        process.reap()
    }

    /// Waits; true when the mount is to end.
    fn pause(&self, pause: Duration) -> bool {
        sys::wait_any([self.stopped.as_fd()], Some(pause)).is_ok_and(|[stopped]| stopped)
    }

    fn is_unmounted(&self) -> bool {
        sys::is_disconnected(self.fds.device.as_fd()).unwrap_or(false)
    }
}

fn has_ended_within(process: &dyn DaemonProcess, limit: Duration) -> bool {
    sys::wait_any([process.pidfd()], Some(limit)).is_ok_and(|[ended]| ended)
}
