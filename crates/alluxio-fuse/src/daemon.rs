//! The daemon: an unprivileged process that serves one mount.
//!
//! It is started with one descriptor, number 3, over which it gets all the rest: the connection to
//! the kernel, what its predecessors left, and the configuration. It reports once, ready or failed,
//! and then serves until the mount is gone, whatever becomes of its supervisor: it waits for the next
//! one and hands everything back to it (see `keeper.rs`). A bug must end it at once, for then a
//! successor answers what it held; so a panic in any thread aborts the process.
//!
//! A daemon that is to replace a living one gets ready beside it, says so, and goes on when the other
//! has ended: it is the time between those two that readers wait.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use alluxio_client::ErrorKind;
use alluxio_config::{Config, ConfigError};

use crate::broker::Broker;
use crate::client_tree::ClientTree;
use crate::fs::FileSystem;
use crate::handover::{Handover, HandoverFds, Order, Report, Word};
use crate::inodes::Inodes;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::metrics::{self, Metrics};
use crate::opens::Opens;
use crate::passthrough::{self, Ways};
use crate::sandbox;
use crate::session::{Readers, Session};
use crate::sys;
use crate::tree::{Tree, TreeError};

/// How long the client may take to connect, and then how long the root's status may take. Both have
/// shorter limits of their own below; this is for the one that was forgotten.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// How long the root's listing may take before the mount is believed without it: a bucket with
/// millions of keys at its root is listed for minutes, and answers all the while.
const LISTING_LIMIT: Duration = Duration::from_secs(15);

/// How often registered files are given back that could not be before, because the supervisor was
/// being restarted. They cost disk space and nothing else.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

/// Why a daemon ended other than by its mount's end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No connection was handed over.
    #[error(
        "no mount was handed over on descriptor 3: {0}; a daemon is started by `alluxio-dataset \
         mount` or by the mounter, not by hand"
    )]
    Handover(#[source] io::Error),
    /// What predecessors left cannot be used.
    #[error("cannot take over the mount: {0}")]
    TakeOver(#[source] io::Error),
    /// The folder for files that are being written cannot be used.
    #[error(
        "cannot use the staging folder: {0}; it must be a folder that the mount's user can write in"
    )]
    Staging(#[source] io::Error),
    /// The process could not be confined.
    #[error("cannot give up what a daemon must not do: {0}")]
    Sandbox(#[source] io::Error),
    /// The tree below the mount could not be reached.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Metrics could not be made.
    #[error("cannot count requests: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The connection to the kernel failed.
    #[error("the connection to the kernel failed: {0}")]
    Session(#[source] io::Error),
}

/// A daemon that has its connection, and serves nothing yet.
pub struct Daemon {
    control: OwnedFd,
    handover: Handover,
    fds: HandoverFds,
    config_yaml: String,
}

/// Serves the mount that is handed over on a descriptor, until it ends. The process should end then.
///
/// It blocks, and has an asynchronous runtime of its own: call it from any thread.
pub fn run(control_fd: RawFd) -> Result<(), DaemonError> {
    Daemon::receive(control_fd)?.run()
}

impl Daemon {
    /// Receives the hand-over on a descriptor that nothing else in this process owns.
    pub fn receive(control_fd: RawFd) -> Result<Self, DaemonError> {
        let control = sys::adopt(control_fd).map_err(DaemonError::Handover)?;
        // Seen in `ps`: the program was started through a descriptor, so it is named like a number.
        let _unnamed = std::fs::write("/proc/self/comm", "alluxio-mount");
        // The daemons of other datasets run as the same user, and this one is about to learn secrets.
        sys::hide_memory().map_err(DaemonError::Handover)?;
        let (handover, fds) = Handover::receive(control.as_fd()).map_err(DaemonError::Handover)?;
        let config_yaml = read_config(&fds.config).map_err(DaemonError::Handover)?;
        Ok(Self {
            control,
            handover,
            fds,
            config_yaml,
        })
    }

    /// The client's configuration, for a caller that sets up its log by it.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::from_yaml(&self.config_yaml)
    }

    /// Serves the tree that the configuration names, until the mount ends.
    pub fn run(self) -> Result<(), DaemonError> {
        self.serve(|config_yaml| async move { ClientTree::connect(&config_yaml).await })
    }

    /// Serves a tree, until the mount ends. The process should end then: its threads may still wait.
    pub fn serve<T, C, F>(self, connect: C) -> Result<(), DaemonError>
    where
        T: Tree,
        C: FnOnce(String) -> F + Send,
        F: Future<Output = Result<T, TreeError>> + Send,
    {
        abort_on_panic();
        // Threads that are started later inherit it.
        sandbox::confine().map_err(DaemonError::Sandbox)?;
        // A thread of its own has no runtime around it, whatever the caller has.
        let served = thread::scope(|scope| scope.spawn(|| self.serve_here(connect)).join());
        served.unwrap_or_else(|_| Err(DaemonError::Session(io::Error::other("panic"))))
    }

    fn serve_here<T, C, F>(self, connect: C) -> Result<(), DaemonError>
    where
        T: Tree,
        C: FnOnce(String) -> F,
        F: Future<Output = Result<T, TreeError>>,
    {
        let control = self.control.try_clone().map_err(DaemonError::Handover)?;
        let served = self.prepare(connect).and_then(|prepared| match prepared {
            Some(prepared) => prepared.run(control.as_fd()),
            None => Ok(()),
        });
        if let Err(error) = &served {
            tracing::error!(%error, "the daemon ends");
            let _unheard = Report::failed(&error.to_string()).send(control.as_fd());
        }
        served
    }

    /// All that must succeed before the daemon is ready; none when it is not needed any more.
    fn prepare<T, C, F>(self, connect: C) -> Result<Option<Prepared<T>>, DaemonError>
    where
        T: Tree,
        C: FnOnce(String) -> F,
        F: Future<Output = Result<T, TreeError>>,
    {
        let generation = self.handover.generation;
        let kept = self.fds.try_clone().map_err(DaemonError::TakeOver)?;
        let inodes = Inodes::load(self.fds.inode_log).map_err(DaemonError::TakeOver)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(DaemonError::TakeOver)?;
        let tree = runtime.block_on(reach(connect(self.config_yaml), generation))?;
        if self.handover.standby && !wait_for_turn(self.control.as_fd())? {
            return Ok(None);
        }
        inodes.take_over().map_err(DaemonError::TakeOver)?;
        let opens = Opens::open(self.fds.opens.as_fd()).map_err(DaemonError::TakeOver)?;
        let (journal, left) = Journal::open(self.fds.journal.as_fd(), self.handover.journal)
            .map_err(DaemonError::TakeOver)?;
        tracing::info!(
            generation,
            left_requests = left.len(),
            is_root_read_only = sandbox::is_root_read_only(),
            "serving"
        );
        let metrics = Metrics::new(generation)?;
        metrics.taken_over(left.len());
        let broker = Broker::new(self.fds.broker.asking, generation);
        let options = self.handover.options.clone();
        // A file that may change is not one with the cache's.
        let is_on = !options.is_writable() && has_passthrough(&broker, &tree, generation);
        let ways = Ways::new(opens, broker, is_on, metrics.opens());
        let writing = metrics.writing();
        let fs = FileSystem::new(tree, inodes, ways, options, generation == 0, writing);
        let session = Arc::new(Session {
            device: File::from(self.fds.device),
            journal,
            fs: fs.map_err(DaemonError::Staging)?,
            metrics,
            runtime: runtime.handle().clone(),
            readers: Readers::default(),
            was_predecessor_killed: self.handover.was_predecessor_killed,
        });
        offer_metrics(self.handover.options.metrics_socket.as_deref(), &session);
        let keeper = Keeper {
            control: self.control,
            handover: self.handover,
            fds: kept,
        };
        Ok(Some(Prepared {
            session,
            left,
            runtime,
            keeper,
        }))
    }
}

/// Tells the supervisor that all is ready, and waits until the predecessor has ended; false when the
/// supervisor has gone, for then the predecessor serves on.
fn wait_for_turn(control: BorrowedFd<'_>) -> Result<bool, DaemonError> {
    Report::Standby
        .send(control)
        .map_err(DaemonError::Handover)?;
    let order = Order::receive(control).map_err(DaemonError::Handover)?;
    Ok(order == Some(Order::Serve))
}

/// Offers metrics. A mount without them is better than none.
fn offer_metrics<T: Tree>(socket: Option<&Path>, session: &Arc<Session<T>>) {
    let Some(socket) = socket else { return };
    let counted = Arc::clone(session);
    let text = move || metrics_text(&counted);
    if let Err(error) = metrics::serve(socket, text) {
        tracing::warn!(socket = %socket.display(), %error, "no metrics of this mount");
    }
}

/// A daemon that can serve.
struct Prepared<T: Tree> {
    session: Arc<Session<T>>,
    left: Vec<crate::journal::Slot>,
    runtime: tokio::runtime::Runtime,
    keeper: Keeper,
}

impl<T: Tree> Prepared<T> {
    fn run(self, control: BorrowedFd<'_>) -> Result<(), DaemonError> {
        // A supervisor that died meanwhile does not matter.
        let _unheard = Report::Ready.send(control);
        self.runtime.spawn(follow_cache(Arc::clone(&self.session)));
        let drained = Arc::clone(&self.session);
        let keep = move || self.keeper.run(|| drained.drain());
        thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(keep)
            .map_err(DaemonError::TakeOver)?;
        let ended = self.session.run(self.left).map_err(DaemonError::Session);
        // Nobody waits for what is still under way.
        self.runtime.shutdown_background();
        ended
    }
}

/// Connects the tree. The first daemon of a mount also looks at the root, so that a wrong bucket or
/// key is told to whoever mounts. A successor does not: its readers should wait no longer than they
/// must, and what is broken now worked when the mount was made.
async fn reach<T: Tree>(
    connect: impl Future<Output = Result<T, TreeError>>,
    generation: u32,
) -> Result<T, TreeError> {
    let tree = limit("connect the client", CONNECT_LIMIT, connect).await??;
    if generation == 0 {
        let root = limit("look at the root", CONNECT_LIMIT, tree.status("")).await??;
        if !root.is_directory() {
            return Err(TreeError {
                kind: ErrorKind::NotDirectory,
                message: format!("{} is a file; mount the folder it is in", root.ufs_uri),
            });
        }
        match limit("list the root", LISTING_LIMIT, tree.list("")).await {
            Ok(listing) => drop(listing?),
            Err(slow) => tracing::warn!(%slow, "mounting all the same"),
        }
    }
    Ok(tree)
}

async fn limit<A>(
    what: &str,
    limit: Duration,
    question: impl Future<Output = A>,
) -> Result<A, TreeError> {
    let answer = tokio::time::timeout(limit, question).await;
    answer.map_err(|_| TreeError {
        kind: ErrorKind::TimedOut,
        message: format!("cannot {what} within {} seconds", limit.as_secs()),
    })
}

/// Whether wholly cached files can be passed through, by trying; told in the log once a mount.
fn has_passthrough<T: Tree>(broker: &Broker, tree: &T, generation: u32) -> bool {
    let Some(sample) = tree.sample() else {
        return false;
    };
    let tried = passthrough::try_out(broker, sample);
    if let Err(reason) = &tried
        && generation == 0
    {
        tracing::warn!(
            reason,
            "wholly cached files are read through the daemon, which is slower and as right"
        );
    }
    tried.is_ok()
}

/// Gives back registered files that predecessors left, what departs from the cache, and what could
/// not be given back before.
async fn follow_cache<T: Tree>(session: Arc<Session<T>>) {
    let fs = &session.fs;
    loop {
        tokio::task::block_in_place(|| fs.ways().give_back_leaving());
        let departed = tokio::time::timeout(GIVE_BACK_EVERY, fs.tree().departed()).await;
        let departed = departed.unwrap_or_default();
        tokio::task::block_in_place(|| fs.ways().departed(&departed));
    }
}

fn read_config(config: &OwnedFd) -> io::Result<String> {
    let config = File::from(config.try_clone()?);
    let length = usize::try_from(config.metadata()?.len()).map_err(io::Error::other)?;
    let mut yaml = vec![0; length];
    config.read_exact_at(&mut yaml, 0)?;
    String::from_utf8(yaml).map_err(|_| io::Error::other("configuration is not text"))
}

fn metrics_text<T: Tree>(session: &Session<T>) -> String {
    session.metrics.set_inflight(session.journal.in_flight());
    session.fs.measure();
    let mut families = session.metrics.gather();
    families.extend(session.fs.tree().metric_families());
    metrics::encode(&families)
}

/// Lets a panic in any thread end the process, after the usual words.
fn abort_on_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
}
