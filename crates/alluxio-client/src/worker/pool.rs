//! Kept connections, a bounded number to each worker, the one used last first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::connection::Connection;

/// Connections per worker: more of them do not raise the throughput (8 reach a worker's limit; the
/// rest hide the latency of pages that it reads through), and each one holds a file system context
/// there.
const MAX_CONNECTIONS: usize = 32;
/// How long an unused connection is kept. Shorter than what firewalls forget silently (5 minutes).
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// The connections to each worker that have no request under way.
#[derive(Debug)]
pub(super) struct Pool {
    workers: Mutex<HashMap<Arc<str>, Arc<Kept>>>,
    max_connections: usize,
    /// Numbers the processes at the other ends; see [`Kept::process`].
    processes: Arc<AtomicU64>,
}

/// The connections to one worker.
#[derive(Debug)]
pub(super) struct Kept {
    /// As many as there may be connections, so that none is closed only for want of a place.
    turns: Semaphore,
    idle: Mutex<Vec<Connection>>,
    /// Another number from each sign on that another process may listen there.
    process: AtomicU64,
    processes: Arc<AtomicU64>,
}

impl Pool {
    /// Has no more connections to a worker than requests may be under way.
    pub(super) fn new(max_inflight: usize) -> Self {
        Self {
            workers: Mutex::default(),
            max_connections: max_inflight.min(MAX_CONNECTIONS),
            processes: Arc::default(),
        }
    }

    /// Forgets the workers that are not wanted, by their URLs; what is under way to them ends first.
    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.workers.lock().retain(|url, _| wanted(url));
    }

    /// The connections to a worker, by its URL.
    pub(super) fn of(&self, worker: &Arc<str>) -> Arc<Kept> {
        let mut workers = self.workers.lock();
        let kept = workers.entry(Arc::clone(worker)).or_insert_with(|| {
            Arc::new(Kept {
                turns: Semaphore::new(self.max_connections),
                idle: Mutex::default(),
                process: AtomicU64::new(self.processes.fetch_add(1, Ordering::Relaxed)),
                processes: Arc::clone(&self.processes),
            })
        });
        Arc::clone(kept)
    }
}

impl Kept {
    /// Waits until a request may be sent. The semaphore is never closed, so there is always a turn
    /// in the end.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// A connection that is open still; with `page_bytes` only one that brought such a page.
    pub(super) fn take(&self, page_bytes: Option<u64>) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let now = Instant::now();
        idle.retain_mut(|connection| {
            let is_young = now.duration_since(connection.idle_since) < IDLE_TIMEOUT;
            let is_quiet = connection.is_quiet();
            if !is_quiet {
                self.other_process();
            }
            is_young && is_quiet
        });
        let fits =
            |connection: &Connection| page_bytes.is_none() || connection.page_bytes == page_bytes;
        let place = idle.iter().rposition(fits)?;
        Some(idle.remove(place))
    }

    /// Which process listens there, as far as its connections tell: two equal numbers are one
    /// process. A worker that ends a connection may be gone, and another have its address.
    pub(super) fn process(&self) -> u64 {
        self.process.load(Ordering::Acquire)
    }

    /// A connection was ended or refused from the other side.
    pub(super) fn other_process(&self) {
        let next = self.processes.fetch_add(1, Ordering::Relaxed);
        self.process.store(next, Ordering::Release);
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, mut connection: Connection) {
        connection.idle_since = Instant::now();
        self.idle.lock().push(connection);
    }
}
