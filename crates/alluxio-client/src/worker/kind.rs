//! Which of the kinds of worker one is, learnt from its answers and not from the user.
//!
//! Alluxio's open-source worker has no `node` endpoint and closes the connection where the others
//! answer. It is asked once a process: by identity and address, and again when a connection was
//! ended or refused from the other side, since a restarted worker may be another one. So a worker
//! that was replaced is not believed to check versions because its predecessor did.

use std::sync::Arc;
use std::time::Duration;

use alluxio_wire::WorkerId;
use moka::future::Cache;

use super::{Answer, Workers};
use crate::membership::WorkerEndpoint;

/// Workers that are remembered: more than any ring has.
const MAX_WORKERS: u64 = 10_000;
/// How long an open-source worker is taken for one; longer would only waste what its successor can.
const TTL: Duration = Duration::from_mins(10);
/// Asks which worker owns a file; any path does.
const NODE: &str = "/v1/node?path=/";

/// What a worker does beyond pages, statuses and loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerKind {
    /// Alluxio's open-source worker: it knows no versions, no error codes, and does not read
    /// through.
    OpenSource,
    /// The enterprise worker's surface, which our embedded worker has too: it reads through, and has
    /// codes to say what is wrong.
    Enterprise,
}

/// The kinds of the workers that were met.
#[derive(Debug)]
pub(crate) struct WorkerKinds {
    kinds: Cache<(WorkerId, Arc<str>), Known>,
}

/// A kind, and the processes that it is of.
#[derive(Debug, Clone, Copy)]
struct Known {
    kind: WorkerKind,
    processes: (u64, u64),
}

impl WorkerKinds {
    pub(crate) fn new() -> Self {
        Self {
            kinds: Cache::builder()
                .max_capacity(MAX_WORKERS)
                .time_to_live(TTL)
                .build(),
        }
    }

    /// The kind of a worker that was met, unless another process may have its address since.
    pub(crate) async fn known(
        &self,
        workers: &Workers,
        worker: &WorkerEndpoint,
    ) -> Option<WorkerKind> {
        let known = self.kinds.get(&key(worker)).await?;
        // An open-source worker ends a connection with each miss, and to take another one for it is
        // no harm.
        let holds =
            known.kind == WorkerKind::OpenSource || known.processes == workers.processes(worker);
        holds.then_some(known.kind)
    }

    /// The kind of a worker, asked if it is not known; one request for all who wait.
    pub(crate) async fn learn(
        &self,
        workers: &Workers,
        worker: &WorkerEndpoint,
        timeout: Duration,
    ) -> Result<WorkerKind, String> {
        if let Some(kind) = self.known(workers, worker).await {
            return Ok(kind);
        }
        self.kinds.invalidate(&key(worker)).await;
        let asking = async {
            let processes = workers.processes(worker);
            let kind = ask(workers, worker, timeout).await?;
            tracing::debug!(worker = %worker.id, url = %worker.base_url, ?kind, "a worker's kind");
            Ok(Known { kind, processes })
        };
        let known = self.kinds.try_get_with(key(worker), asking).await;
        known
            .map(|known| known.kind)
            .map_err(|cause: Arc<String>| (*cause).clone())
    }
}

async fn ask(
    workers: &Workers,
    worker: &WorkerEndpoint,
    timeout: Duration,
) -> Result<WorkerKind, String> {
    let asking = workers.ask(worker, NODE);
    match tokio::time::timeout(timeout, asking).await {
        Ok(Answer::Body(_) | Answer::Refused(..)) => Ok(WorkerKind::Enterprise),
        Ok(Answer::Nothing) => Ok(WorkerKind::OpenSource),
        Ok(Answer::Failed(cause)) => Err(cause),
        Err(_elapsed) => Err("did not tell its kind in time".to_owned()),
    }
}

fn key(worker: &WorkerEndpoint) -> (WorkerId, Arc<str>) {
    (worker.id, Arc::clone(&worker.base_url))
}
