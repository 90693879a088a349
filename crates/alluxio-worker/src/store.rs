//! The page store: pages on disk, bounded by size, least recently used out first.
//!
//! Layout below the configured directory:
//!
//! ```text
//! lock                                    held while a worker uses the directory
//! identity                                the worker's ring identity (see `identity`)
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

mod index;
mod page_file;
mod scan;

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alluxio_config::PageStoreConfig;
use alluxio_wire::{FileId, FileVersion, PageSize};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::index::{Index, Victim};
use self::page_file::Outcome;
use crate::error::WorkerError;
use crate::version::{Tag, Version};

/// Disk operations at one time. NVMe drives reach their best at a queue of some dozens, and more
/// blocked threads serve nobody.
const PARALLEL_DISK_OPERATIONS: usize = 64;

/// Names one page of one version of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct PageKey {
    pub(crate) file: FileId,
    pub(crate) tag: Tag,
    pub(crate) index: u64,
}

/// What the store holds and what it has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct StoreStats {
    pub(crate) bytes: u64,
    pub(crate) capacity_bytes: u64,
    pub(crate) pages: u64,
    pub(crate) evicted_pages: u64,
    pub(crate) corrupt_pages: u64,
}

/// The pages on this worker's disk.
#[derive(Debug)]
pub(crate) struct PageStore {
    pages: PathBuf,
    temporary: PathBuf,
    page_size: PageSize,
    index: Mutex<Index>,
    turns: Semaphore,
    next_temporary: AtomicU64,
    evicted_pages: AtomicU64,
    corrupt_pages: AtomicU64,
    /// Held open: the lock ends with the file.
    _lock: File,
}

impl PageStore {
    /// Opens the directory, makes it where it is missing, and reads back what it holds.
    pub(crate) async fn open(
        config: &PageStoreConfig,
        page_size: PageSize,
    ) -> Result<Arc<Self>, WorkerError> {
        let config = config.clone();
        let directory = config.directory.clone();
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&config, page_size)).await;
        match opened {
            Ok(store) => store.map(Arc::new),
            Err(error) => Err(WorkerError::PageStore {
                directory,
                source: io::Error::other(error),
            }),
        }
    }

    fn open_now(config: &PageStoreConfig, page_size: PageSize) -> Result<Self, WorkerError> {
        let directory = &config.directory;
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
            pages,
            temporary,
            page_size,
            index: Mutex::new(index),
            turns: Semaphore::new(PARALLEL_DISK_OPERATIONS),
            next_temporary: AtomicU64::new(0),
            evicted_pages: AtomicU64::new(0),
            corrupt_pages: AtomicU64::new(0),
            _lock: lock,
        };
        store.unlink_now(&victims);
        Ok(store)
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The kept version of the file that `wanted` names.
    pub(crate) fn version(&self, file: &FileId, wanted: &FileVersion) -> Option<Arc<Version>> {
        self.index
            .lock()
            .version(file, |version| version.is(wanted))
    }

    /// The under-store's version of the file that was kept last.
    pub(crate) fn latest_version(&self, file: &FileId) -> Option<Arc<Version>> {
        self.index
            .lock()
            .version(file, |version| !version.is_written())
    }

    pub(crate) fn has(&self, key: &PageKey) -> bool {
        self.index.lock().page_bytes(key).is_some()
    }

    /// How many bytes the kept page has, and counts as a use of it.
    pub(crate) fn touch(&self, key: &PageKey) -> Option<u64> {
        self.index.lock().touch(key)
    }

    /// The bytes of `range` of a kept page, cut at its end; `None` when the page is not here (any
    /// more), was found corrupt and is not here from now on, or cannot be read at the moment.
    pub(crate) async fn read(&self, key: &PageKey, range: Range<u64>) -> Option<Bytes> {
        let page_bytes = self.index.lock().touch(key)?;
        let range = range.start.min(page_bytes)..range.end.min(page_bytes);
        let path = self.page_path(key);
        let _turn = self.turns.acquire().await.ok()?;
        let read =
            tokio::task::spawn_blocking(move || page_file::read(&path, page_bytes, range)).await;
        match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(Outcome::Bytes(bytes)) => return Some(bytes),
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
                return None;
            }
        }
        self.drop_page(key).await;
        None
    }

    /// Keeps a page; one that is kept already stays as it is.
    pub(crate) async fn write(
        self: &Arc<Self>,
        key: PageKey,
        version: &Version,
        page: Bytes,
    ) -> io::Result<()> {
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        let (store, version) = (Arc::clone(self), version.clone());
        tokio::task::spawn_blocking(move || store.write_now(key, version, &page))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Drops every page of a file, and tells how many there were.
    pub(crate) async fn forget(self: &Arc<Self>, file: &FileId) -> usize {
        let victims = self.index.lock().remove_file(file);
        let dropped = victims.len();
        if dropped > 0 {
            let store = Arc::clone(self);
            // They are out of the index already: files that stay behind are found at the next start.
            let _ = tokio::task::spawn_blocking(move || store.unlink_now(&victims)).await;
        }
        dropped
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let index = self.index.lock();
        StoreStats {
            bytes: index.used_bytes(),
            capacity_bytes: index.capacity_bytes(),
            pages: index.pages(),
            evicted_pages: self.evicted_pages.load(Ordering::Relaxed),
            corrupt_pages: self.corrupt_pages.load(Ordering::Relaxed),
        }
    }

    fn write_now(&self, key: PageKey, version: Version, page: &[u8]) -> io::Result<()> {
        let disk_bytes = page_file::disk_bytes(page.len() as u64);
        let Some(victims) = self.index.lock().reserve(&key, disk_bytes) else {
            return Ok(());
        };
        let victims = victims.map_err(io::Error::other)?;
        self.evicted_pages
            .fetch_add(victims.len() as u64, Ordering::Relaxed);
        self.unlink_now(&victims);
        let written = self.write_file_now(&key, &version, page);
        let mut index = self.index.lock();
        match &written {
            Ok(()) => index.keep(key, version, page.len() as u64, disk_bytes),
            Err(_) => index.release(&key, disk_bytes),
        }
        written
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

    fn version_directory(&self, key: &PageKey) -> PathBuf {
        let file = key.file.to_string();
        self.pages
            .join(&file[..2])
            .join(&file)
            .join(key.tag.directory_name())
    }

    fn page_path(&self, key: &PageKey) -> PathBuf {
        self.version_directory(key)
            .join(format!("{}.page", key.index))
    }
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

#[cfg(test)]
mod tests;
