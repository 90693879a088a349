//! Who is asked for a status or a listing that is not kept.
//!
//! The under-store is: the open-source worker cannot be asked for many names and never learns of a
//! change. Only under the fallback policy `never`, which forbids the under-store, are the workers
//! asked.

use std::sync::Arc;

use alluxio_ufs::Ufs;
use alluxio_wire::{FileStatus, UfsUri, route, status::parse_list};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::error::{Error, ErrorKind, Result};
use crate::membership::{Membership, WorkerEndpoint};
use crate::worker::{Answer, Workers};

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

impl MetadataSource {
    pub(super) async fn status(&self, uri: &UfsUri) -> Result<FileStatus> {
        match self {
            Self::Ufs(ufs) => ufs
                .status(uri)
                .await
                .map_err(|e| Error::from_ufs("status", &e)),
            Self::Workers(workers) => workers.status(uri).await,
        }
    }

    pub(super) async fn list(&self, uri: &UfsUri) -> Result<Vec<FileStatus>> {
        match self {
            Self::Ufs(ufs) => ufs.list(uri).await.map_err(|e| Error::from_ufs("list", &e)),
            Self::Workers(workers) => workers.list(uri).await,
        }
    }
}

/// All files below a directory. Ends at the first error.
pub(super) fn walk(
    source: &Arc<MetadataSource>,
    uri: UfsUri,
) -> BoxStream<'static, Result<FileStatus>> {
    match &**source {
        MetadataSource::Ufs(ufs) => ufs
            .walk(&uri)
            .map_err(|error| Error::from_ufs("walk", &error))
            .boxed(),
        MetadataSource::Workers(_) => walk_by_lists(Arc::clone(source), uri),
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
