//! One page for one request: from the disk, else through the under-store.
//!
//! 1. Which version? The one that the request names, when it is kept here: then the under-store is
//!    not asked at all. Else the one that the under-store has now, which must be the named one.
//! 2. Which bytes of the page? Cut at its end, as the real worker does.
//! 3. On the disk: verified and served.
//! 4. Not on the disk: one read for all who wait, checked to be of that version, kept, served.

use std::ops::Range;
use std::sync::Arc;

use alluxio_ufs::Ufs;
use alluxio_wire::{FileId, FileStatus, FileVersion, UfsUri, page_length};
use bytes::Bytes;

use crate::budget::Budget;
use crate::failure::{Failure, FailureKind};
use crate::flights::Flights;
use crate::metrics::Metrics;
use crate::statuses::Statuses;
use crate::store::{PageKey, PageStore};
use crate::version::Version;

/// A request for a page or a part of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PageRequest {
    pub(crate) file: FileId,
    pub(crate) index: u64,
    /// Where the page can be read from; else only what is kept can be served.
    pub(crate) uri: Option<UfsUri>,
    /// The version that the client wants and no other.
    pub(crate) version: Option<FileVersion>,
    /// How long the client believes that version to be.
    pub(crate) file_length: Option<u64>,
    /// Where to begin within the page, and how much to take; all of it without.
    pub(crate) part: Option<(u64, Option<u64>)>,
}

/// The pages of the under-store, as this worker serves them; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ufs: Ufs,
    statuses: Statuses,
    store: Arc<PageStore>,
    flights: Arc<Flights<PageKey, Result<Bytes, Failure>>>,
    budget: Budget,
    metrics: Arc<Metrics>,
}

impl Pages {
    pub(crate) fn new(ufs: Ufs, store: Arc<PageStore>, metrics: Arc<Metrics>) -> Self {
        Self {
            inner: Arc::new(Inner {
                statuses: Statuses::new(ufs.clone()),
                ufs,
                store,
                flights: Flights::new(),
                budget: Budget::new(),
                metrics,
            }),
        }
    }

    pub(crate) fn ufs(&self) -> &Ufs {
        &self.inner.ufs
    }

    pub(crate) fn store(&self) -> &Arc<PageStore> {
        &self.inner.store
    }

    pub(crate) fn statuses(&self) -> &Statuses {
        &self.inner.statuses
    }

    /// A file's version, as the under-store has it now.
    pub(crate) async fn version_now(&self, uri: &UfsUri) -> Result<Version, Failure> {
        let status = self.inner.statuses.refreshed(uri).await?;
        version_of_file(uri, &status)
    }

    /// The bytes that the request asks for.
    pub(crate) async fn get(&self, request: &PageRequest) -> Result<Bytes, Failure> {
        let version = self.version_for(request).await?;
        let served = self.get_of_version(request, &version).await;
        match (served, &version.uri) {
            // The file changed while our status of it was still believed, and the client did not
            // name a version: it wants the one of now.
            (Err(failure), Some(uri))
                if failure.kind == FailureKind::Conflict && request.version.is_none() =>
            {
                let status = self.inner.statuses.refreshed(uri).await?;
                let version = Arc::new(version_of_file(uri, &status)?);
                self.get_of_version(request, &version).await
            }
            (served, _) => served,
        }
    }

    /// Drops what is known of a file that was changed: its pages and its status. Tells how many
    /// pages there were. A read that is under way may keep a page of the old version yet; it is
    /// served to those alone who name that version.
    pub(crate) async fn forget(&self, file: &FileId, uri: Option<&UfsUri>) -> usize {
        let kept = self.inner.store.known_version(file);
        let kept_uri = kept.as_ref().and_then(|version| version.uri.as_ref());
        for uri in uri.into_iter().chain(kept_uri) {
            self.inner.statuses.forget(uri);
        }
        self.inner.store.forget(file).await
    }

    /// Makes sure that a page of this version is on the disk and intact; tells its length.
    pub(crate) async fn ensure(
        &self,
        version: &Arc<Version>,
        index: u64,
        trust_index: bool,
    ) -> Result<u64, Failure> {
        let length = self.length_of(version, index);
        let Some(uri) = &version.uri else {
            return Ok(0);
        };
        let key = PageKey {
            file: uri.file_id(),
            tag: version.tag(),
            index,
        };
        if trust_index && self.inner.store.has(&key) {
            return Ok(length);
        }
        let lease = self.inner.budget.lease(length).await;
        if self.inner.store.read(&key, 0..length).await.is_none() {
            // The read takes a lease of its own.
            drop(lease);
            self.fill(key, version, length).await?;
        }
        Ok(length)
    }

    async fn version_for(&self, request: &PageRequest) -> Result<Arc<Version>, Failure> {
        let store = &self.inner.store;
        if let Some(wanted) = &request.version
            && let Some(kept) = store.version(&request.file, wanted)
        {
            return Ok(kept);
        }
        let kept = store.known_version(&request.file);
        let kept_uri = kept.as_ref().and_then(|version| version.uri.clone());
        let Some(uri) = request.uri.clone().or(kept_uri) else {
            return match request.version {
                // What clients wrote is of no version.
                Some(_) => Err(not_here(request)),
                None => Ok(Arc::new(Version::written())),
            };
        };
        let mut status = self.inner.statuses.get(&uri).await?;
        if let Some(wanted) = &request.version {
            if !alluxio_ufs::is_version(&status, wanted) {
                status = self.inner.statuses.refreshed(&uri).await?;
            }
            if !alluxio_ufs::is_version(&status, wanted) {
                return Err(Failure::new(
                    FailureKind::Conflict,
                    format!(
                        "{uri} is of the version {} now, {wanted} was asked for; ask for its \
                         status again",
                        status.version()
                    ),
                ));
            }
        }
        Ok(Arc::new(version_of_file(&uri, &status)?))
    }

    async fn get_of_version(
        &self,
        request: &PageRequest,
        version: &Arc<Version>,
    ) -> Result<Bytes, Failure> {
        let key = PageKey {
            file: request.file,
            tag: version.tag(),
            index: request.index,
        };
        check_length(request, version)?;
        let length = if version.is_written() {
            let kept = self.inner.store.touch(&key);
            kept.ok_or_else(|| not_here(request))?
        } else {
            self.length_of(version, request.index)
        };
        let range = cut(request, length)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let lease = self.inner.budget.lease(range.end - range.start).await;
        if let Some(bytes) = self.inner.store.read(&key, range.clone()).await {
            self.inner.metrics.hits.inc();
            return Ok(lease.hold(bytes));
        }
        drop(lease);
        self.inner.metrics.misses.inc();
        let page = self.fill(key, version, length).await?;
        let to_usize = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(page.slice(to_usize(range.start)..to_usize(range.end)))
    }

    /// Reads a page from the under-store, once for all who want it now, and keeps it.
    async fn fill(
        &self,
        key: PageKey,
        version: &Arc<Version>,
        length: u64,
    ) -> Result<Bytes, Failure> {
        let flights = Arc::clone(&self.inner.flights);
        let landed = flights.join(key, || {
            let (inner, version) = (Arc::clone(&self.inner), Arc::clone(version));
            async move { inner.fill_now(key, &version, length).await }
        });
        landed.await.unwrap_or_else(|| {
            Err(Failure::new(
                FailureKind::Internal,
                "reading the page ended without a result",
            ))
        })
    }

    fn length_of(&self, version: &Version, index: u64) -> u64 {
        page_length(index, version.length, self.inner.store.page_size())
    }
}

impl Inner {
    async fn fill_now(
        &self,
        key: PageKey,
        version: &Version,
        length: u64,
    ) -> Result<Bytes, Failure> {
        let lease = self.budget.lease(length).await;
        // Another flight may have landed between our look at the disk and this one's start.
        if let Some(page) = self.store.read(&key, 0..length).await {
            return Ok(lease.hold(page));
        }
        let Some(uri) = &version.uri else {
            return Err(Failure::not_found("the page is not here any more"));
        };
        let start = key.index.saturating_mul(self.store.page_size().bytes());
        let range = start..start + length;
        let (text, length_told) = (version.text(), version.length);
        let read = self.ufs.read_range_of_file(uri, range, text, length_told);
        let page = read.await?;
        self.metrics.ufs_bytes.inc_by(page.len() as u64);
        if page.len() as u64 != length {
            return Err(Failure::new(
                FailureKind::Conflict,
                format!(
                    "{uri} gave {} bytes for a page of {length}: it is being written; ask for its \
                     status again",
                    page.len()
                ),
            ));
        }
        let page = lease.hold(page);
        if let Err(error) = self.store.write(key, version, page.clone()).await {
            // The bytes are good all the same; only the next reader pays.
            tracing::warn!(%uri, page = key.index, %error, "a page cannot be kept");
        }
        Ok(page)
    }
}

fn not_here(request: &PageRequest) -> Failure {
    Failure::not_found(format!(
        "page {} of file {} is not here, and without ufsFullPath it cannot be read from the \
         under-store",
        request.index, request.file
    ))
}

fn version_of_file(uri: &UfsUri, status: &FileStatus) -> Result<Version, Failure> {
    if status.is_directory() {
        return Err(Failure::bad_request(format!(
            "{uri} is a directory and has no pages"
        )));
    }
    Ok(Version::of(uri, status))
}

/// A client that believes in another length would take a short page for the end of the file.
fn check_length(request: &PageRequest, version: &Version) -> Result<(), Failure> {
    match request.file_length {
        Some(believed) if !version.is_written() && believed != version.length => Err(Failure::new(
            FailureKind::Conflict,
            format!(
                "the file has {} bytes in this version, not {believed}; ask for its status \
                     again",
                version.length
            ),
        )),
        _ => Ok(()),
    }
}

/// The range of the page that is asked for: cut at the page's end, an error beyond it.
fn cut(request: &PageRequest, page_bytes: u64) -> Result<Range<u64>, Failure> {
    let out_of_range = |what: String| Failure::new(FailureKind::OutOfRange, what);
    if page_bytes == 0 {
        return Err(out_of_range(format!(
            "page {} lies beyond the end of the file",
            request.index
        )));
    }
    match request.part {
        None => Ok(0..page_bytes),
        Some((offset, _)) if offset > page_bytes => Err(out_of_range(format!(
            "offset {offset} lies beyond the {page_bytes} bytes of the page"
        ))),
        Some((offset, length)) => {
            let end = offset.saturating_add(length.unwrap_or(u64::MAX));
            Ok(offset..end.min(page_bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn part(offset: u64, length: Option<u64>) -> PageRequest {
        PageRequest {
            file: FileId::from_bytes([0; 32]),
            index: 0,
            uri: None,
            version: None,
            file_length: None,
            part: Some((offset, length)),
        }
    }

    #[test]
    fn ranges_are_cut_at_the_end_of_the_page_as_the_real_worker_does() {
        let of_100 = |offset, length| cut(&part(offset, length), 100);
        assert_eq!(of_100(10, Some(20)).unwrap(), 10..30);
        assert_eq!(of_100(90, Some(20)).unwrap(), 90..100);
        assert_eq!(of_100(90, None).unwrap(), 90..100);
        assert_eq!(of_100(100, Some(1)).unwrap(), 100..100);
        assert_eq!(of_100(0, Some(u64::MAX)).unwrap(), 0..100);
        let beyond = of_100(101, Some(1)).unwrap_err();
        assert_eq!(beyond.kind, FailureKind::OutOfRange);
        let no_page = cut(&part(0, None), 0).unwrap_err();
        assert_eq!(no_page.kind, FailureKind::OutOfRange);
    }
}
