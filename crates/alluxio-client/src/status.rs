//! What is known of files and directories: from the manifest, from what is kept, or by asking.
//!
//! A lookup goes through three steps, and ends at the first that knows:
//! 1. the manifest, where the client has one (`from_manifest`);
//! 2. what was looked up or listed a moment ago (`kept`): a listing answers lookups of its names;
//! 3. one request to the under-store for all who wait (`source`).
//!
//! A write is followed by [`Metadata::forget`] or [`Metadata::forget_below`]; an answer that was on
//! its way then is not kept.

mod from_manifest;
mod kept;
mod source;

use std::sync::Arc;
use std::time::Duration;

use alluxio_wire::{FileStatus, FileVersion, UfsUri};
use futures::stream::BoxStream;
use tokio::runtime::Handle;

pub(crate) use self::from_manifest::{FromManifest, open_manifest};
pub(crate) use self::kept::Limits;
use self::kept::{Fetch, Kept};
pub(crate) use self::source::{MetadataSource, WorkerMetadata};
use crate::error::{Error, ErrorKind, Result};

/// Entries of a manifest's directory from which on it is decoded on the blocking pool: at some
/// 200 ns each, fewer take less than a millisecond.
const LARGE_DIRECTORY: usize = 4096;

/// The client's view of the tree. A clone is cheap and shares everything.
#[derive(Clone)]
pub(crate) struct Metadata {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<MetadataSource>,
    manifest: Option<FromManifest>,
    kept: Arc<Kept>,
    /// For one status, whoever is asked and however often.
    deadline: Duration,
    runtime: Handle,
}

impl Metadata {
    pub(crate) fn new(
        source: MetadataSource,
        manifest: Option<FromManifest>,
        limits: Limits,
        deadline: Duration,
        runtime: Handle,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                source: Arc::new(source),
                manifest,
                kept: Arc::new(Kept::new(limits)),
                deadline,
                runtime,
            }),
        }
    }

    /// The status of a file or directory.
    pub(crate) async fn status(&self, uri: &UfsUri) -> Result<Arc<FileStatus>> {
        let inner = &*self.inner;
        if let Some(answer) = inner.known(uri) {
            return answer;
        }
        let asking = inner.ask(uri);
        let fetch: Fetch<_> = Box::pin(async move { asking.await.map(Arc::new) });
        Kept::fetch_status(&inner.kept, &inner.runtime, uri, fetch).await
    }

    /// The status of a file or directory, where nobody need be asked.
    pub(crate) fn known(&self, uri: &UfsUri) -> Option<Arc<FileStatus>> {
        self.inner.known(uri)?.ok()
    }

    /// What lies directly in a directory, sorted by name.
    pub(crate) async fn list(&self, uri: &UfsUri) -> Result<Arc<Vec<FileStatus>>> {
        let inner = &*self.inner;
        if let Some(answer) = self.list_of_manifest(uri).await {
            return answer;
        }
        if let Some(listing) = inner.kept.listing(uri) {
            return Ok(listing);
        }
        let (source, asked) = (Arc::clone(&inner.source), uri.clone());
        let fetch: Fetch<_> = Box::pin(async move { source.list(&asked).await.map(Arc::new) });
        Kept::fetch_listing(&inner.kept, &inner.runtime, uri, fetch).await
    }

    /// Forgets what is known of a file or directory, and the listings that it is in: it was
    /// written, or turned out to be old. Directories above it may have come into being with it.
    pub(crate) fn forget(&self, uri: &UfsUri) {
        if let Some(manifest) = &self.inner.manifest {
            manifest.doubt(uri, false);
        }
        self.inner.kept.forget(uri);
    }

    /// The same for a directory and all below it: it was removed, or moved.
    pub(crate) fn forget_below(&self, uri: &UfsUri) {
        if let Some(manifest) = &self.inner.manifest {
            manifest.doubt(uri, true);
        }
        self.inner.kept.forget_below(uri);
    }

    /// All files below a directory: of the manifest where it pins the dataset, else as the store
    /// lists them now. Ends at the first error.
    pub(crate) fn walk(&self, uri: UfsUri) -> BoxStream<'static, Result<FileStatus>> {
        match &self.inner.manifest {
            Some(manifest) if manifest.pins() => manifest.walk(&uri, &self.inner.runtime),
            _ => self.walk_store(uri),
        }
    }

    /// All files below a directory as the store lists them now, whatever a manifest says.
    pub(crate) fn walk_store(&self, uri: UfsUri) -> BoxStream<'static, Result<FileStatus>> {
        source::walk(&self.inner.source, uri)
    }

    /// A read of `version` failed because the store has it no longer: what is known of the file is
    /// forgotten, and where the manifest pins it, the error says so with all that differs.
    pub(crate) async fn explain(&self, uri: &UfsUri, version: &FileVersion, error: Error) -> Error {
        if !matches!(error.kind(), ErrorKind::Stale | ErrorKind::NotFound) {
            return error;
        }
        self.forget(uri);
        match &self.inner.manifest {
            Some(manifest) if manifest.pins() => {
                let found = self.ask_store(uri).await;
                manifest.broken_pin(uri, version, found, error.operation())
            }
            _ => error,
        }
    }

    /// The status in the store at this moment. In a task of the runtime: see [`Kept`].
    async fn ask_store(&self, uri: &UfsUri) -> Result<FileStatus> {
        let asking = self.inner.runtime.spawn(self.inner.ask(uri));
        asking.await.unwrap_or_else(|error| Err(stopped(&error)))
    }

    /// A large directory is decoded on the blocking pool; a small one takes less time than the
    /// change of threads.
    async fn list_of_manifest(&self, uri: &UfsUri) -> Option<Result<Arc<Vec<FileStatus>>>> {
        let manifest = self.inner.manifest.as_ref()?;
        if manifest.entries_of(uri) < LARGE_DIRECTORY {
            return manifest.list(uri).map(|answer| answer.map(Arc::new));
        }
        let (manifest, uri) = (manifest.clone(), uri.clone());
        let decoding = self
            .inner
            .runtime
            .spawn_blocking(move || manifest.list(&uri));
        let answer = decoding
            .await
            .unwrap_or_else(|error| Some(Err(stopped(&error))));
        answer.map(|answer| answer.map(Arc::new))
    }
}

impl Inner {
    fn known(&self, uri: &UfsUri) -> Option<Result<Arc<FileStatus>>> {
        let of_manifest = self.manifest.as_ref().and_then(|m| m.status(uri));
        match of_manifest {
            Some(answer) => Some(answer.map(Arc::new)),
            None => self.kept.status(uri),
        }
    }

    /// Asks the source for a status, within the deadline.
    fn ask(&self, uri: &UfsUri) -> impl Future<Output = Result<FileStatus>> + Send + 'static {
        let (source, uri, deadline) = (Arc::clone(&self.source), uri.clone(), self.deadline);
        async move {
            let asking = tokio::time::timeout(deadline, source.status(&uri)).await;
            asking.unwrap_or_else(|_elapsed| {
                let context = format!(
                    "the status of {uri} did not come within {} ms; look for a slow or silent \
                     store, or raise client.deadline_milliseconds",
                    deadline.as_millis()
                );
                Err(Error::new(ErrorKind::TimedOut, "status", context))
            })
        }
    }
}

fn stopped(error: &tokio::task::JoinError) -> Error {
    let context = format!("the request was stopped; the client is shutting down: {error}");
    Error::new(ErrorKind::Unexpected, "status", context)
}

#[cfg(test)]
mod tests;
