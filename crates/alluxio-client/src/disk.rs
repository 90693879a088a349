//! Pages on the node's disk: they outlive the process, and are many times what memory holds.
//!
//! ```text
//! <path>/<dataset>/lock            held by the one process that writes
//! <path>/<dataset>/index.log       what is here: `record.rs`, `log.rs`
//! <path>/<dataset>/data/ab/cdef…   a sparse file for each version of a remote file
//! ```
//!
//! A page lies in its data file at the offset that it has in the remote file, so that a whole file
//! can be handed to the kernel as it is. The cache stands between memory and the workers: a page
//! that is here is read and compared with its checksum, any other is fetched and given to the
//! writer on the way. It never makes a read fail: a disk that is full or errs is a miss.
//!
//! A second process of the same dataset reads what the first one keeps, and takes over the writing
//! when that one has gone.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use alluxio_config::DiskCacheConfig;
use alluxio_ufs::Buffers;
use alluxio_wire::UfsUri;
use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::Registry;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};
use crate::source::OpenedFile;

mod files;
mod index;
mod log;
mod metrics;
mod owed;
mod record;
mod source;
mod store;
mod whole;
mod writer;

use files::{LocalFiles, create_private_dir};
use index::{Index, Marks};
use metrics::DiskMetrics;
use owed::Recall;
#[cfg(feature = "bench")]
pub(crate) use record::sum_of;
use record::{FileKey, RECORD_BYTES};
use store::{DataFile, Limits, Look, Shelf, Store};
use writer::{Writer, now_s};

pub(crate) use source::DiskThenRemote;
pub use whole::{CacheKey, WholeFile};

/// A process that only reads looks this often, on a miss, at what the writer added.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// What one turn on a blocking thread reads: enough that the turn costs little beside it, and little
/// enough that a window of read-ahead is read by several threads.
const RUN_BYTES: u64 = 2 * 1024 * 1024;
/// The same where pages are small.
const RUN_PAGES: u64 = 64;

/// Memory that a disk cache is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskMemory {
    /// For pages that wait to be written.
    pub(crate) queue_bytes: u64,
    /// For the index.
    pub(crate) index_bytes: u64,
}

/// A dataset's pages on the disk. A clone is cheap and is the same cache.
#[derive(Clone)]
pub(crate) struct DiskCache {
    inner: Arc<Inner>,
}

struct Inner {
    shelf: Arc<Shelf>,
    limits: Limits,
    memory: DiskMemory,
    writer: OnceLock<Writer>,
    followed: Mutex<Followed>,
    metrics: Arc<DiskMetrics>,
    runtime: Handle,
    /// For runs that are read.
    turns: Arc<Semaphore>,
    /// Files that are being compared.
    proving: Mutex<HashSet<FileKey>>,
    /// For the writer's thread, which must not keep the cache alive.
    me: Weak<Inner>,
}

/// How far the log of another process was read.
#[derive(Debug)]
struct Followed {
    inode: u64,
    end: u64,
    at: Instant,
}

impl DiskMemory {
    /// The share of a memory limit: an eighth for pages that wait (a second of a fast disk at the
    /// default limit is far more), an eighth for the index (about 250,000 small files).
    pub(crate) fn of(limit_bytes: u64) -> Self {
        Self {
            queue_bytes: limit_bytes / 8,
            index_bytes: limit_bytes / 8,
        }
    }

    pub(crate) fn total_bytes(self) -> u64 {
        self.queue_bytes + self.index_bytes
    }
}

impl DiskCache {
    /// Opens the cache of a dataset, as its writer if nobody else is. Reads the log and no data.
    pub(crate) async fn open(
        config: &DiskCacheConfig,
        root: &UfsUri,
        memory: DiskMemory,
        buffers: Buffers,
        registry: &Registry,
    ) -> Result<Self> {
        let dir = folder_of(&config.path, root);
        let metrics = DiskMetrics::register(registry).map_err(|error| {
            let context = "metrics cannot be registered";
            Error::new(ErrorKind::Unexpected, "connect", context).with_source(error)
        })?;
        let inner = Arc::new_cyclic(|me| Inner {
            shelf: Arc::new(Shelf::new(dir.clone(), buffers)),
            limits: limits_of(config, memory),
            memory,
            writer: OnceLock::new(),
            followed: Mutex::new(Followed::nothing()),
            metrics: Arc::new(metrics),
            runtime: Handle::current(),
            turns: Arc::new(Semaphore::new(parallel_runs())),
            proving: Mutex::default(),
            me: Weak::clone(me),
        });
        let opened = Arc::clone(&inner);
        let opening = tokio::task::spawn_blocking(move || {
            create_private_dir(&opened.shelf.dir().join("data"))
                .map_err(|error| unusable(&dir, error))?;
            if opened.take_over()? {
                return Ok(());
            }
            tracing::info!(
                folder = %dir.display(),
                "another process keeps the disk cache of this dataset: its pages are read here, \
                 and none are added until it ends"
            );
            opened.follow().map_err(|error| unusable(&dir, error))
        });
        opening.await.map_err(|error| {
            let context = "opening the disk cache was stopped";
            Error::new(ErrorKind::Unexpected, "connect", context).with_source(error)
        })??;
        Ok(Self { inner })
    }

    /// Tells where pages lie in memory that came faster than the disk took them.
    pub(crate) fn recall_by(&self, recall: Recall) {
        self.inner.shelf.owed.recall_by(recall);
    }

    /// The page, if it is here and what it was.
    pub(crate) async fn read(&self, file: &Arc<OpenedFile>, index: u64) -> Option<Bytes> {
        let key = FileKey::of(file);
        let inner = Arc::clone(&self.inner);
        if inner.is_writer() && !inner.shelf.index.lock().has(&key, index) {
            return None;
        }
        let reading = self
            .inner
            .runtime
            .spawn_blocking(move || inner.look(&mut DataFile::of(key), index));
        // A read that was stopped is a miss.
        reading.await.ok().flatten()
    }

    /// What reads a file's pages, on a thread that may block; `None` is one that is not here.
    pub(crate) fn reader(&self, file: &OpenedFile) -> impl FnMut(u64) -> Option<Bytes> + use<> {
        let inner = Arc::clone(&self.inner);
        let mut file = DataFile::of(FileKey::of(file));
        move |index| inner.look(&mut file, index)
    }

    /// For runs that are read.
    pub(crate) fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.turns)
    }

    /// Gives a page to the writer, which keeps it if it can.
    pub(crate) fn keep(&self, file: &Arc<OpenedFile>, index: u64, page: &Bytes) {
        if let Some(writer) = self.inner.writer.get()
            && file.version.tells_changes()
        {
            writer.keep(file, index, page);
        }
    }

    /// Whether a page is here, as far as the index says.
    pub(crate) fn has(&self, file: &OpenedFile, index: u64) -> bool {
        self.inner.shelf.index.lock().has(&FileKey::of(file), index)
    }

    /// Whether a page is to be taken from memory once the writer has time.
    pub(crate) fn owes(&self, file: &Arc<OpenedFile>, index: u64) -> bool {
        self.inner.shelf.owed.has(file, index)
    }

    /// Gives back the room of a version that is of no use any more, unless another process has it to
    /// give, or the writer has more to do than it can.
    pub(crate) fn forget(&self, file: &OpenedFile) {
        let key = FileKey::of(file);
        if let Some(writer) = self.inner.writer.get()
            && self.inner.shelf.index.lock().knows(&key)
        {
            writer.remove(key);
        }
    }

    /// Splits pages into the longest parts that are here or are not, in order.
    pub(crate) fn parts(&self, file: &OpenedFile, indices: Range<u64>) -> Vec<(bool, Range<u64>)> {
        let key = FileKey::of(file);
        let index = self.inner.shelf.index.lock();
        split_by(indices, |page| index.has(&key, page))
    }

    /// Waits until the pages given so far are kept or refused.
    pub(crate) async fn flush(&self) {
        if let Some(writer) = self.inner.writer.get() {
            writer.flush().await;
        }
    }
}

impl Inner {
    fn is_writer(&self) -> bool {
        self.writer.get().is_some()
    }

    fn look(&self, file: &mut DataFile, index: u64) -> Option<Bytes> {
        let key = file.key;
        if !self.is_writer() && !self.shelf.index.lock().has(&key, index) {
            self.catch_up();
        }
        match self.shelf.look(file, index, now_s()) {
            Look::Page(bytes) => Some(bytes),
            Look::Absent => None,
            Look::Corrupt => {
                self.metrics.corrupt.inc();
                tracing::warn!(
                    file = %self.shelf.data_path(&key).display(),
                    page = index,
                    "a page of the disk cache does not match its checksum: it is fetched again"
                );
                None
            }
            Look::Failed(error) => {
                self.metrics.read_errors.inc();
                tracing::warn!(
                    file = %self.shelf.data_path(&key).display(),
                    page = index,
                    error = %error,
                    "a page of the disk cache cannot be read: it is fetched again"
                );
                None
            }
        }
    }

    /// Reads what the writer added, or becomes the writer if there is none.
    fn catch_up(&self) {
        if self.followed.lock().at.elapsed() < FOLLOW_EVERY {
            return;
        }
        // What fails here is tried again at the next miss, a second later.
        if !self.take_over().unwrap_or(false)
            && let Err(error) = self.follow()
        {
            tracing::debug!(error = %error, "the disk cache's log cannot be read");
        }
    }

    /// Becomes the writer, unless another process is.
    fn take_over(&self) -> Result<bool> {
        let dir = self.shelf.dir();
        let Some(lock) = lock(dir).map_err(|error| unusable(dir, error))? else {
            return Ok(false);
        };
        let mut followed = self.followed.lock();
        if self.is_writer() {
            return Ok(true);
        }
        let path = self.shelf.log_path();
        let log_bytes = path.metadata().map_or(0, |log| log.len());
        let mut index = Index::with_room(log_bytes / RECORD_BYTES as u64);
        let end = log::replay(&path, 0, |record| index.apply(record))
            .map_err(|error| unusable(dir, error))?;
        self.metrics.holds(&index);
        self.replace_index(index);
        let store = Store::open(
            Arc::clone(&self.shelf),
            Box::new(LocalFiles),
            end,
            self.limits,
        )
        .map_err(|error| unusable(dir, error))?;
        let writer = Writer::start(
            store,
            Arc::clone(&self.shelf),
            lock,
            self.memory.queue_bytes,
            Arc::clone(&self.metrics),
            self.on_whole(),
        )?;
        followed.at = Instant::now();
        Ok(self.writer.set(writer).is_ok())
    }

    fn follow(&self) -> io::Result<()> {
        let mut followed = self.followed.lock();
        followed.at = Instant::now();
        let path = self.shelf.log_path();
        // A log that was written anew is another file.
        let inode = match path.metadata() {
            Ok(metadata) => metadata.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if inode != followed.inode {
            self.replace_index(Index::default());
            *followed = Followed {
                inode,
                ..Followed::nothing()
            };
        }
        let mut index = self.shelf.index.lock();
        let end = log::replay(&path, followed.end, |record| index.apply(record))?;
        followed.end = followed.end.max(end);
        self.metrics.holds(&index);
        drop(index);
        self.shelf.departures.notify_one();
        Ok(())
    }

    fn replace_index(&self, index: Index) {
        let mut current = self.shelf.index.lock();
        let old = std::mem::replace(&mut *current, index);
        current.succeed(old);
        drop(current);
        self.shelf.departures.notify_one();
    }
}

/// Runs that are read at one time: two a core, and enough for a disk that serves several requests at
/// a time. More would read pages that nobody gets to yet before those that somebody waits for.
fn parallel_runs() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * cores).max(4)
}

/// Splits a range into the longest parts of one kind, in order.
fn split_by(indices: Range<u64>, is: impl Fn(u64) -> bool) -> Vec<(bool, Range<u64>)> {
    let mut parts: Vec<(bool, Range<u64>)> = Vec::new();
    for index in indices {
        let kind = is(index);
        match parts.last_mut() {
            Some((last, range)) if *last == kind => range.end = index + 1,
            _ => parts.push((kind, index..index + 1)),
        }
    }
    parts
}

impl Followed {
    fn nothing() -> Self {
        Self {
            inode: 0,
            end: 0,
            at: Instant::now(),
        }
    }
}

/// The folder of a dataset: its root's name would not do, it may be long and hold any character.
fn folder_of(path: &Path, root: &UfsUri) -> PathBuf {
    let hash = Sha256::digest(root.to_string());
    path.join(hex::encode(&hash[..8]))
}

/// Takes the lock, unless another process has it. It goes with the process, however that ends.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn limits_of(config: &DiskCacheConfig, memory: DiskMemory) -> Limits {
    let percent = |of: u64, percent: u8| of / 100 * u64::from(percent);
    Limits {
        marks: Marks {
            high_disk: percent(config.capacity_bytes, config.high_watermark_percent),
            low_disk: percent(config.capacity_bytes, config.low_watermark_percent),
            high_memory: memory.index_bytes,
            low_memory: percent(memory.index_bytes, config.low_watermark_percent),
        },
        min_free_bytes: config.min_free_bytes,
        max_unused_s: config.max_unused.map(|unused| unused.as_secs()),
    }
}

fn unusable(dir: &Path, error: io::Error) -> Error {
    let context = format!(
        "the disk cache folder {} cannot be used; give client.disk_cache.path a folder that this \
         process may write, or leave it out",
        dir.display()
    );
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "connect", context).with_source(error)
}

#[cfg(test)]
mod tests;
