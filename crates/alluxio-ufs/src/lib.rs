//! The under-store (UFS): where the bytes really are. Status, listing, walk, ranged read, and
//! writing (`write`).
//!
//! A [`Ufs`] is made once from a dataset's [`UfsConfig`] and cloned freely. Behind it stands one of
//! two stores that keep the same contract, checked by one conformance suite (`tests/`):
//!
//! * `object`: everything else, over OpenDAL. An operator is kept per bucket, container or host.
//! * `local`: `file:` URIs, on the blocking pool. OpenDAL's file service is not used here: it
//!   trims blanks off names (a listing then shows files that do not exist), does not follow
//!   symbolic links in listings, and reads extended attributes on the async runtime, where a hung
//!   network mount would stop every other task.
//!
//! The contract, for both:
//!
//! * Names that a URI cannot carry are left out of listings, with a debug log.
//! * A directory is what was made as one, or what has something below it.
//! * Every operation is bounded: parallel operations, time per attempt, number of attempts.
//! * A version given to a read is checked against the bytes that were read.

mod buffers;
mod error;
mod limits;
mod local;
mod object;
mod pieces;
mod status;
mod write;

use std::ops::Range;
use std::sync::Arc;

use alluxio_config::{StoreKind, UfsConfig};
use alluxio_wire::{FileStatus, FileVersion, UfsUri};
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use self::buffers::{Buffers, PageBuffer};
use self::error::{Subject, unsupported_scheme};
pub use self::error::{UfsError, UfsErrorKind};
use self::local::LocalStore;
pub use self::local::read_range;
use self::object::ObjectStore;
pub use self::status::is_version;
pub use self::write::{UfsWriter, WriteMode, WriteOptions, Written, parts_of};

/// An under-store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ufs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: UfsUri,
    store: Store,
    /// Turns for operations, so that no caller can flood the store.
    turns: Semaphore,
    /// Writes that were dropped and are being thrown away.
    aborts: TaskTracker,
    buffers: Buffers,
}

#[derive(Debug)]
enum Store {
    Local(LocalStore),
    Object(ObjectStore),
}

impl Ufs {
    /// Makes the store that `config` names. No request is sent yet; what is wrong in the
    /// configuration itself is said here.
    pub fn connect(config: &UfsConfig) -> Result<Self, UfsError> {
        Self::connect_with(config, Buffers::default())
    }

    /// The same, with the buffers that pages are read into.
    pub fn connect_with(config: &UfsConfig, buffers: Buffers) -> Result<Self, UfsError> {
        let store = match config.kind() {
            Some(StoreKind::File) => Store::Local(LocalStore::new(config.uri.clone())),
            Some(kind) => Store::Object(ObjectStore::new(config, kind, &buffers)?),
            None => return Err(unsupported_scheme(&config.uri)),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                root: config.uri.clone(),
                store,
                turns: Semaphore::new(limits::PARALLEL_OPERATIONS),
                aborts: TaskTracker::new(),
                buffers,
            }),
        })
    }

    /// The URI that this store was made for.
    pub fn root(&self) -> &UfsUri {
        &self.inner.root
    }

    /// The status of a file or directory.
    pub async fn status(&self, uri: &UfsUri) -> Result<FileStatus, UfsError> {
        let subject = self.subject("status", uri)?;
        let _turn = self.turn().await;
        match &self.inner.store {
            Store::Local(store) => store.status(&subject, uri).await,
            Store::Object(store) => store.status(&subject, uri).await,
        }
    }

    /// What lies directly in a directory, sorted by name.
    pub async fn list(&self, uri: &UfsUri) -> Result<Vec<FileStatus>, UfsError> {
        let subject = self.subject("list", uri)?;
        let _turn = self.turn().await;
        let mut statuses = match &self.inner.store {
            Store::Local(store) => store.list(&subject, uri).await?,
            Store::Object(store) => store.list(&subject, uri).await?,
        };
        status::sort_and_dedup(&mut statuses);
        Ok(statuses)
    }

    /// All files below a directory, or the one file itself. Ends at the first error.
    pub fn walk(&self, uri: &UfsUri) -> BoxStream<'static, Result<FileStatus, UfsError>> {
        let subject = match self.subject("walk", uri) {
            Ok(subject) => subject,
            Err(error) => return Box::pin(futures::stream::once(async { Err(error) })),
        };
        match &self.inner.store {
            Store::Local(store) => store.walk(subject, uri.clone()),
            Store::Object(store) => store.walk(subject, uri.clone()),
        }
    }

    /// The bytes of `range`, fewer only where the file ends before it does.
    pub async fn read_range(&self, uri: &UfsUri, range: Range<u64>) -> Result<Bytes, UfsError> {
        self.read(uri, range, None, None).await
    }

    /// The bytes of `range` of exactly this version; [`UfsErrorKind::Changed`] when the store has
    /// another one now.
    pub async fn read_range_of_version(
        &self,
        uri: &UfsUri,
        range: Range<u64>,
        version: &FileVersion,
    ) -> Result<Bytes, UfsError> {
        self.read(uri, range, Some(version), None).await
    }

    /// Like [`Self::read_range_of_version`], and [`UfsErrorKind::Changed`] also when the store says
    /// that the whole file has another length than the caller believes. It costs no request more:
    /// the answer to the read tells.
    pub async fn read_range_of_file(
        &self,
        uri: &UfsUri,
        range: Range<u64>,
        version: &FileVersion,
        length: u64,
    ) -> Result<Bytes, UfsError> {
        self.read(uri, range, Some(version), Some(length)).await
    }

    /// The bytes of `range` of exactly this version by as few requests as can be, in pieces of
    /// `piece_bytes`, the last one shorter. Ends at the first error; all pieces before it are whole.
    ///
    /// A request that breaks off is made again for what is missing, as often as the other reads
    /// are. `range` must lie within the file.
    pub fn read_pieces_of_version(
        &self,
        uri: &UfsUri,
        range: Range<u64>,
        version: &FileVersion,
        piece_bytes: u64,
    ) -> BoxStream<'static, Result<Bytes, UfsError>> {
        pieces::read(
            self.clone(),
            uri.clone(),
            range,
            version.clone(),
            piece_bytes,
        )
    }

    async fn read(
        &self,
        uri: &UfsUri,
        range: Range<u64>,
        version: Option<&FileVersion>,
        length: Option<u64>,
    ) -> Result<Bytes, UfsError> {
        let subject = self.subject("read", uri)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let _turn = self.turn().await;
        match &self.inner.store {
            // Its versions tell the length themselves.
            Store::Local(store) => store.read(&subject, uri, range, version).await,
            Store::Object(store) => store.read(&subject, uri, range, version, length).await,
        }
    }

    /// Refuses a URI of another scheme before a store misreads it.
    fn subject(&self, operation: &'static str, uri: &UfsUri) -> Result<Subject, UfsError> {
        let subject = Subject::new(operation, uri);
        if uri.scheme() == self.inner.root.scheme() {
            Ok(subject)
        } else {
            Err(subject.invalid(
                format!("it is not of the store {}", self.inner.root),
                "give a URI with the scheme of the dataset's UFS",
            ))
        }
    }

    /// Waits for a turn. The semaphore is never closed, so there is always one in the end.
    async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.inner.turns.acquire().await.ok()
    }
}
