//! The thread that keeps a daemon alive for a mount.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::{MountError, State};
use crate::handover::{Handover, HandoverFds, Order, Report, Word};
use crate::spawner::{DaemonProcess, DaemonSpawner};
use crate::sys;

/// How long a daemon may take until it serves. It is longer than the daemon's own limits for
/// connecting its client and asking for the root, so that the daemon's words arrive first.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// How long a daemon may take to end after its mount is gone. Nothing of it is needed any more; the
/// time is for a clean last line in its log.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// How long a daemon that is to be replaced may take to end: a little more than it gives itself. Then
/// it is killed, and its successor answers what it held.
const DRAIN_LIMIT: Duration = Duration::from_millis(150);

/// A mount's state while it lives.
pub(super) struct Watcher {
    fds: HandoverFds,
    /// What the next daemon will be told; its generation is that of the last one.
    handover: Handover,
    spawner: Arc<dyn DaemonSpawner>,
    signals: Signals,
    state: Arc<State>,
    daemon: Option<Running>,
}

/// What can reach the watching thread.
pub(super) struct Signals {
    /// Readable when the mount is to end.
    pub(super) stopped: UnixStream,
    /// Readable when there is a plea.
    pub(super) woken: UnixStream,
    /// Pleas.
    pub(super) pleas: mpsc::Receiver<Plea>,
}

/// Somebody wants the daemon replaced.
pub(super) struct Plea {
    /// Gets how long readers had to wait, or why the old daemon serves on.
    pub(super) answer: mpsc::SyncSender<Result<Duration, String>>,
}

/// A daemon that was started or found.
pub(super) struct Running {
    process: Box<dyn DaemonProcess>,
    /// Orders go out and reports come in here.
    control: OwnedFd,
    since: Instant,
}

impl Running {
    /// A daemon that serves already.
    pub(super) fn adopted(process: Box<dyn DaemonProcess>, control: OwnedFd) -> Self {
        let since = Instant::now();
        Self {
            process,
            control,
            since,
        }
    }
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

impl NotStarted {
    fn reason(self) -> String {
        match self {
            Self::Stopped => "the mount was stopped".to_owned(),
            Self::Spawn(error) => error.to_string(),
            Self::Daemon(reason) => reason,
        }
    }
}

/// What the watching thread waits for.
enum Event {
    Died,
    Stopped,
    Asked,
}

impl Watcher {
    /// A watcher that has no daemon yet.
    pub(super) fn new(
        fds: HandoverFds,
        handover: Handover,
        spawner: Arc<dyn DaemonSpawner>,
        signals: Signals,
        state: Arc<State>,
    ) -> Self {
        Self {
            fds,
            handover,
            spawner,
            signals,
            state,
            daemon: None,
        }
    }

    /// Starts the first daemon.
    pub(super) fn start(&mut self) -> Result<(), MountError> {
        let started = self.start_daemon();
        let daemon = started.map_err(|failure| match failure {
            NotStarted::Spawn(error) => MountError::Spawn(error),
            other => MountError::Daemon(other.reason()),
        })?;
        self.go_on_with(daemon);
        Ok(())
    }

    /// Takes a daemon that serves for the present one.
    pub(super) fn go_on_with(&mut self, daemon: Running) {
        let (pid, generation) = (daemon.process.pid(), self.handover.generation);
        self.state.daemon_pid.store(pid, Ordering::Release);
        self.state.restarts.store(generation, Ordering::Relaxed);
        self.daemon = Some(daemon);
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
            match self.wait_for_event(&daemon)? {
                Event::Stopped => {
                    self.state.daemon_pid.store(0, Ordering::Release);
                    end(daemon.process);
                    return Ok(());
                }
                Event::Asked => self.hear_plea(daemon, &mut backoff)?,
                Event::Died => self.replace_dead(daemon, &mut backoff)?,
            }
        }
        Ok(())
    }

    /// Starts another daemon in place of one that has ended, unless the mount has.
    fn replace_dead(&mut self, daemon: Running, backoff: &mut Backoff) -> Result<(), String> {
        self.state.daemon_pid.store(0, Ordering::Release);
        let served = daemon.since.elapsed();
        let end = daemon.process.reap();
        if self.is_unmounted() {
            return Ok(());
        }
        self.handover.was_predecessor_killed = end.was_killed;
        tracing::warn!(
            how = end.how,
            ?served,
            "the mount's daemon died; starting another"
        );
        self.replace(backoff, served)
    }

    fn wait_for_event(&self, daemon: &Running) -> Result<Event, String> {
        let fds = [
            daemon.process.pidfd(),
            self.signals.stopped.as_fd(),
            self.signals.woken.as_fd(),
        ];
        let waited = sys::wait_any(fds, None).map_err(|error| error.to_string())?;
        Ok(match waited {
            [_, true, _] => Event::Stopped,
            [true, ..] => Event::Died,
            _ => Event::Asked,
        })
    }

    /// Upgrades, and answers whoever asked for it.
    fn hear_plea(&mut self, daemon: Running, backoff: &mut Backoff) -> Result<(), String> {
        let mut byte = [0];
        let woken = (&self.signals.woken).read(&mut byte);
        let plea = self.signals.pleas.try_recv();
        let (Ok(_), Ok(plea)) = (woken, plea) else {
            self.daemon = Some(daemon);
            return Ok(());
        };
        self.handover.generation += 1;
        // What the old daemon leaves in hand it leaves because it was told to end.
        self.handover.was_predecessor_killed = true;
        let standby = match self.start_standby() {
            Ok(standby) => standby,
            Err(failure) => {
                let reason = failure.reason();
                tracing::warn!(reason, "the mount's daemon was not replaced");
                self.daemon = Some(daemon);
                // Whoever asked may have left.
                let _unheard = plea.answer.try_send(Err(reason));
                return Ok(());
            }
        };
        let begun = Instant::now();
        self.state.daemon_pid.store(0, Ordering::Release);
        drain(&daemon);
        let served = self.let_serve(standby);
        let pause = begun.elapsed();
        let end = daemon.process.reap();
        match served {
            Ok(successor) => {
                tracing::info!(how = end.how, ?pause, "the mount's daemon was replaced");
                self.go_on_with(successor);
                let _unheard = plea.answer.try_send(Ok(pause));
                Ok(())
            }
            Err(failure) => {
                let reason = failure.reason();
                tracing::warn!(reason, "the new daemon does not serve; starting another");
                let _unheard = plea.answer.try_send(Err(reason));
                self.replace(backoff, Duration::ZERO)
            }
        }
    }

    /// Starts daemons until one serves, the mount is gone, or it is hopeless.
    fn replace(&mut self, backoff: &mut Backoff, served: Duration) -> Result<(), String> {
        let mut pause = backoff.after(served);
        let begun = Instant::now();
        loop {
            if self.pause(pause) || self.is_unmounted() {
                return Ok(());
            }
            self.handover.generation += 1;
            let reason = match self.start_daemon() {
                Ok(daemon) => {
                    self.go_on_with(daemon);
                    return Ok(());
                }
                Err(NotStarted::Stopped) => return Ok(()),
                Err(failure) => failure.reason(),
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
        self.spawn(false).and_then(|daemon| self.ready(daemon))
    }

    /// Starts a daemon beside the one that serves, and waits until it could.
    fn start_standby(&self) -> Result<Running, NotStarted> {
        let daemon = self.spawn(true)?;
        match self.report_of(&daemon) {
            Ok(Report::Standby) => Ok(daemon),
            Ok(Report::Failed { reason }) => Err(dismiss(daemon, reason)),
            Ok(Report::Ready) => Err(dismiss(daemon, "it did not wait".to_owned())),
            Err(failure) => Err(failed(daemon, failure)),
        }
    }

    /// Lets a standby serve, now that its predecessor has ended.
    fn let_serve(&self, standby: Running) -> Result<Running, NotStarted> {
        // One that has died is found out by its report.
        let _unheard = Order::Serve.send(standby.control.as_fd());
        self.ready(standby)
    }

    fn spawn(&self, standby: bool) -> Result<Running, NotStarted> {
        let (control, daemons_end) = sys::seqpacket_pair().map_err(NotStarted::Spawn)?;
        let process = self.spawner.spawn(daemons_end).map_err(NotStarted::Spawn)?;
        let mut handover = self.handover.clone();
        handover.standby = standby;
        // A daemon that is dead already does not take it; what it says or how it ended tells more.
        let _taken = handover.send(control.as_fd(), &self.fds);
        Ok(Running::adopted(process, control))
    }

    /// Waits until a daemon says that it serves.
    fn ready(&self, mut daemon: Running) -> Result<Running, NotStarted> {
        match self.report_of(&daemon) {
            Ok(Report::Ready) => {
                daemon.since = Instant::now();
                Ok(daemon)
            }
            Ok(Report::Failed { reason }) => Err(dismiss(daemon, reason)),
            Ok(Report::Standby) => Err(dismiss(daemon, "it waits for a turn".to_owned())),
            Err(failure) => Err(failed(daemon, failure)),
        }
    }

    /// The next thing that a daemon says.
    fn report_of(&self, daemon: &Running) -> Result<Report, Option<NotStarted>> {
        let fds = [
            daemon.control.as_fd(),
            daemon.process.pidfd(),
            self.signals.stopped.as_fd(),
        ];
        match sys::wait_any(fds, Some(READY_LIMIT)) {
            Ok([_, _, true]) => Err(Some(NotStarted::Stopped)),
            Ok([false, false, false]) => Err(Some(NotStarted::Daemon(format!(
                "it was not ready within {} seconds",
                READY_LIMIT.as_secs()
            )))),
            Ok(_) => match Report::receive(daemon.control.as_fd()) {
                Ok(Some(report)) => Ok(report),
                // How it ended tells more.
                Ok(None) => Err(None),
                Err(error) => Err(Some(NotStarted::Daemon(format!(
                    "it said nothing useful: {error}"
                )))),
            },
            Err(error) => Err(Some(NotStarted::Spawn(error))),
        }
    }

    /// Waits; true when the mount is to end.
    fn pause(&self, pause: Duration) -> bool {
        sys::wait_any([self.signals.stopped.as_fd()], Some(pause)).is_ok_and(|[stopped]| stopped)
    }

    fn is_unmounted(&self) -> bool {
        sys::is_disconnected(self.fds.device.as_fd()).unwrap_or(false)
    }
}

fn has_ended_within(process: &dyn DaemonProcess, limit: Duration) -> bool {
    sys::wait_any([process.pidfd()], Some(limit)).is_ok_and(|[ended]| ended)
}

/// Makes a daemon end: by itself with its work done, or else by force.
fn drain(daemon: &Running) {
    // One that is dead already does not mind.
    let _unheard = Order::Drain.send(daemon.control.as_fd());
    if !has_ended_within(&*daemon.process, DRAIN_LIMIT) {
        tracing::info!("the old daemon still has requests in hand; its successor answers them");
        if let Err(error) = daemon.process.kill() {
            tracing::error!(%error, "cannot kill the mount's daemon");
        }
        has_ended_within(&*daemon.process, EXIT_LIMIT);
    }
}

/// Ends a daemon that did not come to serve; none as the failure means that it ended by itself.
fn failed(daemon: Running, failure: Option<NotStarted>) -> NotStarted {
    let how = end(daemon.process);
    failure.unwrap_or_else(|| {
        NotStarted::Daemon(format!(
            "it ended before it was ready ({how}); its own log tells why"
        ))
    })
}

fn dismiss(daemon: Running, reason: String) -> NotStarted {
    failed(daemon, Some(NotStarted::Daemon(reason)))
}

/// Lets a daemon end by itself for a moment, then kills it; how it ended.
fn end(process: Box<dyn DaemonProcess>) -> String {
    if !has_ended_within(&*process, EXIT_LIMIT) {
        if let Err(error) = process.kill() {
            tracing::error!(pid = process.pid(), %error, "cannot kill the mount's daemon");
        }
        if !has_ended_within(&*process, EXIT_LIMIT) {
            return "it cannot be killed".to_owned();
        }
    }
    process.reap().how
}
