//! What is known of files and directories, believed for a while.
//!
//! Statuses and listings come from the under-store: the open-source worker cannot be asked for many
//! names and never learns of a change. Only under the fallback policy `never`, which forbids the
//! under-store, are the workers asked. Failures are not kept: a file that was missing a moment ago
//! may be there now.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alluxio_ufs::Ufs;
use alluxio_wire::{FileStatus, UfsUri, route, status::parse_list};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use moka::future::Cache;
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};
use crate::membership::{Membership, WorkerEndpoint};
use crate::worker::{Answer, Workers};

/// Statuses that are kept: some 50 MB at 500 bytes each.
const MAX_STATUSES: u64 = 100_000;
/// Entries of listings that are kept, as many again.
const MAX_LISTED_ENTRIES: u64 = 100_000;

/// Where statuses and listings come from.
pub(crate) enum MetadataSource {
    /// The under-store.
    Ufs(Ufs),
    /// The workers, where the policy forbids the under-store.
    Workers(WorkerMetadata),
}

/// Asks the workers of a path, in the order of the ring.
pub(crate) struct WorkerMetadata {
    pub(crate) membership: Arc<dyn Membership>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) max_worker_attempts: usize,
}

/// The metadata cache.
#[derive(Clone)]
pub(crate) struct Metadata {
    source: Arc<MetadataSource>,
    runtime: Handle,
    ttl: Duration,
    statuses: Cache<UfsUri, Arc<FileStatus>>,
    listings: Cache<UfsUri, Arc<Vec<FileStatus>>>,
}

impl Metadata {
    pub(crate) fn new(source: MetadataSource, ttl: Duration, runtime: Handle) -> Self {
        let entries = |_: &UfsUri, listing: &Arc<Vec<FileStatus>>| {
            u32::try_from(listing.len() + 1).unwrap_or(u32::MAX)
        };
        Self {
            source: Arc::new(source),
            runtime,
            ttl,
            statuses: Cache::builder()
                .max_capacity(MAX_STATUSES)
                .time_to_live(ttl)
                .build(),
            listings: Cache::builder()
                .max_capacity(MAX_LISTED_ENTRIES)
                .weigher(entries)
                .time_to_live(ttl)
                .build(),
        }
    }

    /// The status of a file or directory.
    pub(crate) async fn status(&self, uri: &UfsUri) -> Result<Arc<FileStatus>> {
        let (source, asked) = (Arc::clone(&self.source), uri.clone());
        let fetch = async move { source.status(&asked).await.map(Arc::new) };
        self.through(&self.statuses, uri, fetch).await
    }

    /// What lies directly in a directory, sorted by name.
    pub(crate) async fn list(&self, uri: &UfsUri) -> Result<Arc<Vec<FileStatus>>> {
        let (source, asked) = (Arc::clone(&self.source), uri.clone());
        let fetch = async move { source.list(&asked).await.map(Arc::new) };
        self.through(&self.listings, uri, fetch).await
    }

    /// Forgets what is known of a file, and the listing that it is in: it turned out to be old.
    pub(crate) async fn forget(&self, uri: &UfsUri) {
        self.statuses.invalidate(uri).await;
        if let Some(directory) = uri.parent() {
            self.listings.invalidate(&directory).await;
        }
    }

    /// All files below a directory, past the cache. Ends at the first error.
    pub(crate) fn walk(&self, uri: UfsUri) -> BoxStream<'static, Result<FileStatus>> {
        match &*self.source {
            MetadataSource::Ufs(ufs) => ufs
                .walk(&uri)
                .map_err(|error| Error::from_ufs("walk", &error))
                .boxed(),
            MetadataSource::Workers(_) => walk_by_lists(Arc::clone(&self.source), uri),
        }
    }

    /// The cached value, or one fetch for all who ask meanwhile. The fetch is a task of its own, so
    /// that this can be polled outside the runtime, as the FUSE session does.
    async fn through<T: Clone + Send + Sync + 'static>(
        &self,
        cache: &Cache<UfsUri, T>,
        uri: &UfsUri,
        fetch: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let fetch = async {
            self.runtime.spawn(fetch).await.unwrap_or_else(|error| {
                let context = "the request was stopped; the client is shutting down";
                Err(Error::new(ErrorKind::Unexpected, "status", context).with_source(error))
            })
        };
        if self.ttl.is_zero() {
            return fetch.await;
        }
        cache
            .try_get_with_by_ref(uri, fetch)
            .await
            .map_err(|error| (*error).clone())
    }
}

impl MetadataSource {
    async fn status(&self, uri: &UfsUri) -> Result<FileStatus> {
        match self {
            Self::Ufs(ufs) => ufs
                .status(uri)
                .await
                .map_err(|e| Error::from_ufs("status", &e)),
            Self::Workers(workers) => workers.status(uri).await,
        }
    }

    async fn list(&self, uri: &UfsUri) -> Result<Vec<FileStatus>> {
        match self {
            Self::Ufs(ufs) => ufs.list(uri).await.map_err(|e| Error::from_ufs("list", &e)),
            Self::Workers(workers) => workers.list(uri).await,
        }
    }
}

impl WorkerMetadata {
    async fn status(&self, uri: &UfsUri) -> Result<FileStatus> {
        let body = self.ask("status", uri, route::info(uri)).await?;
        let mut statuses = parse_list(&body).map_err(|e| unreadable("status", uri, e))?;
        match (statuses.pop(), statuses.is_empty()) {
            (Some(status), true) => Ok(status),
            _ => Err(missing("status", uri)),
        }
    }

    /// A listing alone does not tell an empty directory from a missing one, nor a file from a
    /// directory that holds one file.
    async fn list(&self, uri: &UfsUri) -> Result<Vec<FileStatus>> {
        if !self.status(uri).await?.is_directory() {
            let context = format!("{uri} is a file; name the directory that it lies in");
            return Err(Error::new(ErrorKind::NotDirectory, "list", context));
        }
        let body = self.ask("list", uri, route::files(uri)).await?;
        let mut statuses = parse_list(&body).map_err(|e| unreadable("list", uri, e))?;
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(statuses)
    }

    async fn ask(
        &self,
        operation: &'static str,
        uri: &UfsUri,
        target: Option<String>,
    ) -> Result<bytes::Bytes> {
        let Some(target) = target else {
            let context = format!(
                "workers cannot be asked for the name {uri}, and the fallback policy `never` \
                 forbids to ask the under-store; set client.fallback.policy to on_worker_failure"
            );
            return Err(Error::new(ErrorKind::Unsupported, operation, context));
        };
        let owners = self
            .membership
            .snapshot()
            .owners(uri, self.max_worker_attempts);
        let mut failure = "there is no worker".to_owned();
        for worker in &owners {
            match self.workers.ask(worker, &target).await {
                Answer::Body(body) => return Ok(body),
                Answer::Nothing | Answer::Refused(404, _) => return Err(missing(operation, uri)),
                Answer::Refused(status, _) => failure = refused(worker, status),
                Answer::Failed(cause) => failure = format!("{} {cause}", worker.base_url),
            }
        }
        let context = format!("no worker could tell of {uri}: {failure}; repair the workers");
        Err(Error::new(ErrorKind::Unavailable, operation, context))
    }
}

fn refused(worker: &WorkerEndpoint, status: u16) -> String {
    format!("{} answered with status {status}", worker.base_url)
}

fn missing(operation: &'static str, uri: &UfsUri) -> Error {
    let context = format!("the workers know no {uri}; check the name");
    Error::new(ErrorKind::NotFound, operation, context)
}

fn unreadable(
    operation: &'static str,
    uri: &UfsUri,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let context = format!("a worker's answer about {uri} cannot be read");
    Error::new(ErrorKind::Corrupt, operation, context).with_source(error)
}

/// Lists directory after directory, depth first.
fn walk_by_lists(
    source: Arc<MetadataSource>,
    root: UfsUri,
) -> BoxStream<'static, Result<FileStatus>> {
    stream::try_unfold(
        (source, vec![root]),
        |(source, mut directories)| async move {
            let Some(directory) = directories.pop() else {
                return Ok(None);
            };
            let (below, files): (Vec<_>, Vec<_>) = source
                .list(&directory)
                .await?
                .into_iter()
                .partition(FileStatus::is_directory);
            for status in below.iter().rev() {
                let uri = UfsUri::parse(&status.ufs_uri);
                directories.push(uri.map_err(|error| unreadable("walk", &directory, error))?);
            }
            let files = stream::iter(files.into_iter().map(Ok));
            Ok::<_, Error>(Some((files, (source, directories))))
        },
    )
    .try_flatten()
    .boxed()
}
