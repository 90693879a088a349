//! What follows a change of the under-store: what is known of the old file is let go, here and at
//! the workers.
//!
//! No reader depends on it. Pages are kept and asked for by version, and workers that know no
//! versions are compared with the under-store (`versions`). So it is told and not waited for long:
//! a worker that is away, or does not know the request, costs the writer a moment and never an
//! error. What is gained: room in the caches, and workers whose statuses and listings are right for
//! clients that ask nobody else (the fallback policy `never`).
//!
//! | where | what goes |
//! |---|---|
//! | metadata, of this client | status of the file, listings that it is in |
//! | memory, of this client | all pages of the file |
//! | disk cache, if this process writes it | pages of the old version |
//! | the workers that the ring names | what they have of it, by `POST /v1/internal/invalidate` |

use std::sync::Arc;
use std::time::Duration;

use alluxio_wire::{FileStatus, UfsUri, WorkerId, route};
use futures::{StreamExt, TryStreamExt, future, stream};
use moka::sync::Cache;

use crate::client::Client;
use crate::membership::{Membership, WorkerEndpoint};
use crate::worker::{Answer, Workers};

/// How long a writer waits for workers to be told. One that lives answers within milliseconds.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// Files below a directory that workers are told of when it is removed or moved: some 40 MB of
/// statuses. Beyond that only the versions protect.
const MOST_FILES: usize = 100_000;
/// Files that workers are told of side by side.
const FILES_AT_ONCE: usize = 32;
/// How long a worker that does not know the request is not asked again; it may be replaced by one
/// that does.
const IGNORANT_FOR: Duration = Duration::from_mins(10);
/// Workers of which that is remembered: more than any ring has.
const MAX_WORKERS: u64 = 10_000;

/// Tells workers of changed files.
#[derive(Debug)]
pub(crate) struct Invalidation {
    membership: Arc<dyn Membership>,
    workers: Arc<Workers>,
    /// How many workers of the ring may have been asked for one file.
    owners: usize,
    ignorant: Cache<(WorkerId, Arc<str>), ()>,
}

impl Invalidation {
    pub(crate) fn new(
        membership: &Arc<dyn Membership>,
        workers: &Arc<Workers>,
        owners: usize,
    ) -> Self {
        Self {
            membership: Arc::clone(membership),
            workers: Arc::clone(workers),
            owners,
            ignorant: Cache::builder()
                .max_capacity(MAX_WORKERS)
                .time_to_live(IGNORANT_FOR)
                .build(),
        }
    }

    /// Tells the workers that the ring names for a file.
    async fn tell(&self, uri: &UfsUri) {
        let owners = self.membership.snapshot().owners(uri, self.owners);
        // A name that does not fit a request line is not asked of workers either.
        let Some(target) = route::invalidate(uri).filter(|_| !owners.is_empty()) else {
            return;
        };
        let telling = owners.iter().map(|worker| self.tell_one(worker, &target));
        let told = tokio::time::timeout(TOLD_WITHIN, future::join_all(telling)).await;
        if told.is_err() {
            tracing::debug!(%uri, "a worker was not told of the change in time");
        }
    }

    async fn tell_one(&self, worker: &WorkerEndpoint, target: &str) {
        let key = (worker.id, Arc::clone(&worker.base_url));
        if self.workers.rests(worker) || self.ignorant.contains_key(&key) {
            return;
        }
        match self.workers.tell(worker, target).await {
            Answer::Body(_) => {}
            // Alluxio's open-source worker closes the connection; others have codes for it.
            Answer::Nothing | Answer::Refused(404 | 405 | 501, _) => {
                self.ignorant.insert(key, ());
            }
            Answer::Refused(status, _) => {
                tracing::debug!(url = %worker.base_url, status, "a worker refused to forget a file");
            }
            Answer::Failed(cause) => {
                tracing::debug!(url = %worker.base_url, cause, "a worker was not told of a change");
            }
        }
    }

    fn has_workers(&self) -> bool {
        !self.membership.snapshot().is_empty()
    }
}

impl Client {
    /// To be called after a file was written or removed, or may have been; `old` is what it was.
    pub(crate) async fn changed(&self, uri: &UfsUri, old: Option<&FileStatus>) {
        self.metadata().forget(uri);
        self.forget_pages(uri, old);
        self.invalidation().tell(uri).await;
    }

    /// The files that [`Self::changed_below`] is to be told of, once they are gone; best known
    /// before. A failure to list them is for the change itself to meet.
    pub(crate) async fn known_below(&self, uri: &UfsUri) -> Vec<FileStatus> {
        if !self.invalidation().has_workers() && !self.has_disk_cache() {
            return Vec::new();
        }
        let listed = self
            .ufs()
            .walk(uri)
            .take(MOST_FILES)
            .try_collect::<Vec<_>>();
        listed.await.unwrap_or_else(|error| {
            tracing::debug!(%error, "files that go are not known to the workers");
            Vec::new()
        })
    }

    /// To be called after a directory was removed or moved away with these files in it.
    pub(crate) async fn changed_below(&self, uri: &UfsUri, files: Vec<FileStatus>) {
        self.metadata().forget_below(uri);
        let uris = files.iter().filter_map(|old| {
            let uri = UfsUri::parse(&old.ufs_uri).ok()?;
            self.forget_pages(&uri, Some(old));
            Some(uri)
        });
        stream::iter(uris)
            .for_each_concurrent(FILES_AT_ONCE, |uri| async move {
                self.invalidation().tell(&uri).await;
            })
            .await;
    }
}
