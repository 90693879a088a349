//! One directory of the page store: pages on one disk, bounded by size, least recently used out first.
//!
//! Layout:
//!
//! ```text
//! lock                                    held while a worker uses the directory
//! identity                                the worker's ring identity (see `identity`), in the first
//! temporary/                              pages being written
//! pages-<page size>/<aa>/<file id>/<tag>/ one version of a file
//!     version.json                        which version: URI, hash or time, length
//!     <index>.page                        a page and its checksums (see `page_file`)
//! ```
//!
//! A version has a directory of its own, so bytes of two versions cannot meet. A page appears by a
//! rename, so a half-written one is never seen; it is not synced to the disk, for what a crash
//! spoils is found by the checksums and read again. What is kept is in the index, rebuilt from the
//! directory at start; a page that turns out missing or corrupt is dropped from it, and the caller
//! reads it from the under-store. A page that the disk fails to give is kept: the next read may.
//!
//! A disk that fails again and again is taken out: its index is emptied and nothing is asked of it
//! any more. Files that are short, or room, are no fault of the disk.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alluxio_config::PageDirectory;
use alluxio_wire::{FileId, FileVersion, PageSize};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::index::{Index, NoRoom, Victim};
use super::page_file::{self, Outcome};
use super::{PageKey, StoreStats, scan};
use crate::error::WorkerError;
use crate::version::Version;

/// Disk operations at one time. NVMe drives reach their best at a queue of some dozens, and more
/// blocked threads serve nobody.
const PARALLEL_DISK_OPERATIONS: usize = 64;

/// Failures in a row after which a disk is taken out: one may be a bad sector, or a page that was
/// removed behind our back.
const MAX_FAILURES: u32 = 3;

/// The pages on one disk.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    pages: PathBuf,
    temporary: PathBuf,
    capacity_bytes: u64,
    index: Mutex<Index>,
    turns: Semaphore,
    next_temporary: AtomicU64,
    evicted_pages: AtomicU64,
    corrupt_pages: AtomicU64,
    /// Failures since the last success.
    failures: AtomicU32,
    is_out: AtomicBool,
    /// Held open: the lock ends with the file.
    _lock: File,
}

/// Why a page was not kept.
#[derive(Debug, thiserror::Error)]
enum NotKept {
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl Directory {
    /// Opens the directory, makes it where it is missing, and reads back what it holds.
    pub(super) fn open(config: &PageDirectory, page_size: PageSize) -> Result<Self, WorkerError> {
        let directory = &config.path;
        let failed = |source| WorkerError::PageStore {
            directory: directory.clone(),
            source,
        };
        fs::create_dir_all(directory).map_err(failed)?;
        let lock = lock(directory)?;
        let temporary = directory.join("temporary");
        let pages = directory.join(format!("pages-{}", page_size.bytes()));
        scan::remove_leftovers(directory, &temporary, &pages).map_err(failed)?;
        fs::create_dir_all(&temporary).map_err(failed)?;
        fs::create_dir_all(&pages).map_err(failed)?;
        let (index, victims) = scan::read_back(&pages, config.capacity_bytes).map_err(failed)?;
        let store = Self {
            path: directory.clone(),
            pages,
            temporary,
            capacity_bytes: config.capacity_bytes,
            index: Mutex::new(index),
            turns: Semaphore::new(PARALLEL_DISK_OPERATIONS),
            next_temporary: AtomicU64::new(0),
            evicted_pages: AtomicU64::new(0),
            corrupt_pages: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            is_out: AtomicBool::new(false),
            _lock: lock,
        };
        store.unlink_now(&victims);
        Ok(store)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Whether the disk failed and is not asked any more.
    pub(super) fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Acquire)
    }

    /// The kept version of the file that `wanted` names.
    pub(super) fn version(&self, file: &FileId, wanted: &FileVersion) -> Option<Arc<Version>> {
        self.index
            .lock()
            .version(file, |version| version.is(wanted))
    }

    /// The under-store's version of the file that was kept last.
    pub(super) fn known_version(&self, file: &FileId) -> Option<Arc<Version>> {
        self.index
            .lock()
            .version(file, |version| !version.is_written())
    }

    pub(super) fn has(&self, key: &PageKey) -> bool {
        self.index.lock().page_bytes(key).is_some()
    }

    /// How many bytes the kept page has, and counts as a use of it.
    pub(super) fn touch(&self, key: &PageKey) -> Option<u64> {
        self.index.lock().touch(key)
    }

    /// The bytes of `range` of a kept page, cut at its end; `None` when the page is not here (any
    /// more), was found corrupt and is not here from now on, or cannot be read at the moment.
    pub(super) async fn read(&self, key: &PageKey, range: Range<u64>) -> Option<Bytes> {
        let page_bytes = self.index.lock().touch(key)?;
        let range = range.start.min(page_bytes)..range.end.min(page_bytes);
        let path = self.page_path(key);
        let _turn = self.turns.acquire().await.ok()?;
        let read =
            tokio::task::spawn_blocking(move || page_file::read(&path, page_bytes, range)).await;
        match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(Outcome::Bytes(bytes)) => {
                self.failures.store(0, Ordering::Relaxed);
                return Some(bytes);
            }
            Ok(Outcome::Corrupt) => {
                self.corrupt_pages.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(?key, "a page does not match its checksum, it is read again");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!(?key, "a page is gone from the disk");
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::warn!(?key, "a page became shorter while it was read");
            }
            // This says nothing of the page (too many open files, say): dropping it would empty
            // the store over a failure that passes.
            Err(error) => {
                tracing::warn!(?key, %error, "a page cannot be read from the disk now");
                self.failed(&error);
                return None;
            }
        }
        self.drop_page(key).await;
        None
    }

    /// Keeps a page; one that is kept already stays as it is.
    pub(super) async fn write(
        self: &Arc<Self>,
        key: PageKey,
        version: &Version,
        page: Bytes,
    ) -> io::Result<()> {
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let (directory, version) = (Arc::clone(self), version.clone());
        let written =
            tokio::task::spawn_blocking(move || directory.write_now(key, version, &page)).await;
        match written.map_err(io::Error::other)? {
            Ok(()) => {
                self.failures.store(0, Ordering::Relaxed);
                Ok(())
            }
            Err(NotKept::NoRoom(error)) => Err(io::Error::other(error)),
            Err(NotKept::Disk(error)) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// Drops every page of a file, and tells how many there were.
    pub(super) async fn forget(self: &Arc<Self>, file: &FileId) -> usize {
        let victims = self.index.lock().remove_file(file);
        let dropped = victims.len();
        if dropped > 0 {
            let store = Arc::clone(self);
            // They are out of the index already: files that stay behind are found at the next start.
            let _ = tokio::task::spawn_blocking(move || store.unlink_now(&victims)).await;
        }
        dropped
    }

    pub(super) fn stats(&self) -> StoreStats {
        let index = self.index.lock();
        StoreStats {
            failed_directories: u64::from(self.is_out()),
            bytes: index.used_bytes(),
            capacity_bytes: if self.is_out() {
                0
            } else {
                index.capacity_bytes()
            },
            pages: index.pages(),
            evicted_pages: self.evicted_pages.load(Ordering::Relaxed),
            corrupt_pages: self.corrupt_pages.load(Ordering::Relaxed),
        }
    }

    /// Counts a failure of the disk, and takes it out when it is one too many.
    fn failed(&self, error: &io::Error) {
        if !is_of_the_disk(error) {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures < MAX_FAILURES || self.is_out.swap(true, Ordering::AcqRel) {
            return;
        }
        self.index.lock().clear();
        let directory = self.path.display();
        tracing::error!(
            %directory, %error, failures,
            "a directory of the page store fails and is taken out: its pages are read from the \
             under-store; repair its disk and start the worker anew"
        );
    }

    fn write_now(&self, key: PageKey, version: Version, page: &[u8]) -> Result<(), NotKept> {
        let disk_bytes = page_file::disk_bytes(page.len() as u64);
        let Some(victims) = self.index.lock().reserve(&key, disk_bytes) else {
            return Ok(());
        };
        let victims = victims?;
        self.evicted_pages
            .fetch_add(victims.len() as u64, Ordering::Relaxed);
        self.unlink_now(&victims);
        let written = self.write_file_now(&key, &version, page);
        let mut index = self.index.lock();
        match &written {
            Ok(()) if self.is_out() => index.release(&key, disk_bytes),
            Ok(()) => index.keep(key, version, page.len() as u64, disk_bytes),
            Err(_) => index.release(&key, disk_bytes),
        }
        Ok(written?)
    }

    /// Temporary file, then rename. The directory may vanish in between, when the last other page
    /// of the version is evicted: then it is made again, once.
    fn write_file_now(&self, key: &PageKey, version: &Version, page: &[u8]) -> io::Result<()> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.temporary.join(number.to_string());
        let moved = page_file::write(&temporary, page).and_then(|()| {
            self.enter(&temporary, key, version).or_else(|error| {
                if error.kind() == io::ErrorKind::NotFound {
                    self.enter(&temporary, key, version)
                } else {
                    Err(error)
                }
            })
        });
        if moved.is_err() {
            // What is left of it is removed at the next start at the latest.
            let _ = fs::remove_file(&temporary);
        }
        moved
    }

    fn enter(&self, temporary: &Path, key: &PageKey, version: &Version) -> io::Result<()> {
        let directory = self.version_directory(key);
        if !directory.join(scan::VERSION_FILE).exists() {
            fs::create_dir_all(&directory)?;
            let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
            let beside = self.temporary.join(number.to_string());
            fs::write(&beside, serde_json::to_vec(version)?)?;
            fs::rename(&beside, directory.join(scan::VERSION_FILE))?;
        }
        fs::rename(temporary, self.page_path(key))
    }

    async fn drop_page(&self, key: &PageKey) {
        let Some(victim) = self.index.lock().remove(key) else {
            return;
        };
        let path = self.page_path(&victim.key);
        // Blocking for one unlink of a page that nobody wants is not worth a failure of its own.
        let _ = tokio::fs::remove_file(path).await;
    }

    fn unlink_now(&self, victims: &[Victim]) {
        for victim in victims {
            // A page that cannot be removed is found again at the next start.
            let _ = fs::remove_file(self.page_path(&victim.key));
            if victim.was_last_of_version {
                let directory = self.version_directory(&victim.key);
                let _ = fs::remove_file(directory.join(scan::VERSION_FILE));
                let _ = fs::remove_dir(&directory);
                if let Some(file) = directory.parent() {
                    let _ = fs::remove_dir(file);
                }
            }
        }
    }

    pub(super) fn version_directory(&self, key: &PageKey) -> PathBuf {
        let file = key.file.to_string();
        self.pages
            .join(&file[..2])
            .join(&file)
            .join(key.tag.directory_name())
    }

    pub(super) fn page_path(&self, key: &PageKey) -> PathBuf {
        self.version_directory(key)
            .join(format!("{}.page", key.index))
    }
}

/// Whether a failure says that the disk is broken, and not that something is short for a while.
fn is_of_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let is_short = matches!(
        error.kind(),
        Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::OutOfMemory
            | Kind::Interrupted
            | Kind::WouldBlock
    );
    // Too many open files, of this process or of the machine, have no kind of their own.
    let is_short_of_files = matches!(error.raw_os_error(), Some(23 | 24));
    !is_short && !is_short_of_files
}

/// Two workers on one directory would evict each other's pages.
fn lock(directory: &Path) -> Result<File, WorkerError> {
    let failed = |source| WorkerError::PageStore {
        directory: directory.to_owned(),
        source,
    };
    let file = File::create(directory.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WorkerError::PageStoreInUse {
            directory: directory.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
