//! The thread that changes the folder: pages come over a bounded queue, one at a time.
//!
//! Nobody waits for it. A page for which the queue has no room is kept later if memory still has it
//! (`owed.rs`), a full disk stops the keeping for a while and an erring disk for longer; what a reader
//! is given never depends on it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::metrics::{DiskMetrics, Fill};
use super::record::{FileKey, Proof};
use super::store::{Put, Shelf, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::source::OpenedFile;

/// The byte budget bounds the queue first; this bounds what tiny pages cost beside their bytes.
const QUEUE_PAGES: usize = 1024;
/// Uses are recorded, and what is unused evicted, this often.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// A full disk may have room again soon: somebody else cleans up.
const FULL_PAUSE: Duration = Duration::from_secs(30);
/// A disk that errs is not better after seconds; one probe a minute finds out.
const BROKEN_PAUSE: Duration = Duration::from_mins(1);
const BUDGET_UNIT_BYTES: usize = 1024;

/// The way to the thread. When it is dropped, the thread ends with what it was given.
pub(super) struct Writer {
    queue: SyncSender<Command>,
    budget: Arc<Semaphore>,
    budget_units: u32,
    shelf: Arc<Shelf>,
    metrics: Arc<DiskMetrics>,
}

enum Command {
    Keep {
        file: Arc<OpenedFile>,
        index: u64,
        page: Bytes,
        _permit: OwnedSemaphorePermit,
    },
    Remove(FileKey),
    Proven(FileKey, Proof),
    Flush(oneshot::Sender<()>),
}

/// Told of each file that has come to lie here whole.
pub(super) type OnWhole = Box<dyn Fn(FileKey) + Send>;

/// The thread's own.
struct Work {
    store: Store,
    shelf: Arc<Shelf>,
    metrics: Arc<DiskMetrics>,
    on_whole: OnWhole,
    paused_until: Option<Instant>,
    /// The lock goes when the thread does.
    _lock: std::fs::File,
}

/// What an error of the disk means for the next pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Full,
    Broken,
}

impl Writer {
    /// Starts the thread. Pages that wait take at most `queue_bytes`.
    pub(super) fn start(
        store: Store,
        shelf: Arc<Shelf>,
        lock: std::fs::File,
        queue_bytes: u64,
        metrics: Arc<DiskMetrics>,
        on_whole: OnWhole,
    ) -> Result<Self> {
        let (queue, commands) = sync_channel(QUEUE_PAGES);
        let mut work = Work {
            store,
            shelf: Arc::clone(&shelf),
            metrics: Arc::clone(&metrics),
            on_whole,
            paused_until: None,
            _lock: lock,
        };
        std::thread::Builder::new()
            .name("disk-cache".to_owned())
            .spawn(move || work.run(&commands))
            .map_err(|error| {
                let context = "the disk cache's thread cannot be started";
                Error::new(ErrorKind::Unavailable, "connect", context).with_source(error)
            })?;
        let units = (queue_bytes / BUDGET_UNIT_BYTES as u64).max(1);
        let budget_units = u32::try_from(units).unwrap_or(u32::MAX);
        Ok(Self {
            queue,
            budget: Arc::new(Semaphore::new(budget_units as usize)),
            budget_units,
            shelf,
            metrics,
        })
    }

    /// Gives a page to be kept, if there is room in the queue.
    pub(super) fn keep(&self, file: &Arc<OpenedFile>, index: u64, page: &Bytes) {
        let units = u32::try_from(page.len().div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.clamp(1, self.budget_units);
        let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(units) else {
            return self.owe(file, index);
        };
        let keep = Command::Keep {
            file: Arc::clone(file),
            index,
            page: page.clone(),
            _permit: permit,
        };
        if self.queue.try_send(keep).is_err() {
            self.owe(file, index);
        }
    }

    fn owe(&self, file: &Arc<OpenedFile>, index: u64) {
        self.metrics.fill(Fill::NoRoom);
        self.shelf.owed.add(file, index);
    }

    /// Has a file removed; where the queue is full it leaves by age, as others do.
    pub(super) fn remove(&self, key: FileKey) {
        let _full = self.queue.try_send(Command::Remove(key));
    }

    /// Gives a proof to be recorded, if there is room in the queue: else the next process finds it.
    pub(super) fn proven(&self, key: FileKey, proof: Proof) {
        let _unrecorded = self.queue.try_send(Command::Proven(key, proof));
    }

    /// Waits until all that was given before is kept or refused.
    pub(super) async fn flush(&self) {
        let (done, told) = oneshot::channel();
        let mut command = Command::Flush(done);
        loop {
            match self.queue.try_send(command) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => command = back,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The thread ends only after the queue does.
        let _ = told.await;
    }
}

impl Work {
    fn run(&mut self, commands: &Receiver<Command>) {
        if let Err(error) = self.store.settle() {
            self.pause(&error);
        }
        self.metrics.holds(&self.shelf.index.lock());
        let mut tidied = Instant::now();
        loop {
            match self.next(commands) {
                Ok(Command::Keep {
                    file, index, page, ..
                }) => self.keep(&file, index, &page),
                Ok(Command::Remove(key)) => self.remove(&key),
                Ok(Command::Proven(key, proof)) => {
                    if let Err(error) = self.store.proven(key, proof) {
                        self.pause(&error);
                    }
                }
                Ok(Command::Flush(done)) => {
                    while self.keep_owed() {}
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if tidied.elapsed() >= TIDY_EVERY {
                tidied = Instant::now();
                self.tidy();
            }
        }
        self.tidy();
    }

    /// The next command; while there is none, pages that were owed are kept.
    fn next(&mut self, commands: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        loop {
            match commands.try_recv() {
                Ok(command) => return Ok(command),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if self.keep_owed() => {}
                Err(TryRecvError::Empty) => return commands.recv_timeout(TIDY_EVERY),
            }
        }
    }

    /// Returns whether there was a page that is owed.
    fn keep_owed(&mut self) -> bool {
        let owed = self.shelf.owed.next();
        owed.inspect(|(file, index, page)| self.keep(file, *index, page))
            .is_some()
    }

    fn keep(&mut self, file: &OpenedFile, index: u64, page: &[u8]) {
        if self
            .paused_until
            .is_some_and(|until| Instant::now() < until)
        {
            self.metrics.fill(Fill::Paused);
            return;
        }
        let mut put = self.store.put(file, index, page, now_s());
        if put
            .as_ref()
            .is_err_and(|error| trouble(error) == Trouble::Full)
        {
            let made_room = self.store.make_room();
            if made_room.is_ok_and(|made| made) {
                put = self.store.put(file, index, page, now_s());
            }
        }
        match put {
            Ok(put) => {
                self.resume();
                self.metrics.fill(match put {
                    Put::Kept => Fill::Kept,
                    Put::Whole(key) => {
                        (self.on_whole)(key);
                        Fill::Kept
                    }
                    Put::Known => Fill::Known,
                    Put::TooLarge => Fill::TooLarge,
                });
            }
            Err(error) => {
                self.metrics.fill(Fill::Failed);
                self.pause(&error);
            }
        }
        self.metrics.holds(&self.shelf.index.lock());
    }

    fn remove(&mut self, key: &FileKey) {
        if let Err(error) = self.store.remove(key) {
            self.pause(&error);
        }
        self.metrics.holds(&self.shelf.index.lock());
    }

    fn tidy(&mut self) {
        if let Err(error) = self.store.tidy(now_s()) {
            self.pause(&error);
        }
        self.metrics.holds(&self.shelf.index.lock());
    }

    fn pause(&mut self, error: &io::Error) {
        let pause = match trouble(error) {
            Trouble::Full => FULL_PAUSE,
            Trouble::Broken => BROKEN_PAUSE,
        };
        if self.paused_until.is_none() {
            tracing::warn!(
                folder = %self.shelf.dir().display(),
                error = %error,
                "the disk cache keeps nothing new for now: reads go on, from what it holds and from \
                 the workers; make room on that file system or repair it"
            );
        }
        self.paused_until = Some(Instant::now() + pause);
        self.metrics.paused(true);
    }

    fn resume(&mut self) {
        if self.paused_until.take().is_some() {
            let folder = self.shelf.dir().display();
            tracing::info!(%folder, "the disk cache keeps pages again");
            self.metrics.paused(false);
        }
    }
}

fn trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
        _ => Trouble::Broken,
    }
}

/// Seconds since 1970; a clock before that counts as then.
pub(super) fn now_s() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use alluxio_ufs::Buffers;
    use alluxio_wire::{FileVersion, PageSize, UfsUri};
    use prometheus::Registry;

    use super::super::files::{Files, LocalFiles, create_private_dir};
    use super::super::index::Marks;
    use super::super::record::FileKey;
    use super::super::store::{DataFile, Limits, Look};
    use super::*;

    const PAGE: usize = 64 * 1024;

    /// A disk that is full at times.
    struct FullAtTimes(Arc<AtomicBool>);

    impl Files for FullAtTimes {
        fn open_to_write(&self, path: &Path) -> io::Result<File> {
            LocalFiles.open_to_write(path)
        }
        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            if self.0.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            LocalFiles.write_at(file, bytes, offset)
        }
        fn sync(&self, file: &File) -> io::Result<()> {
            LocalFiles.sync(file)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            LocalFiles.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            LocalFiles.remove(path)
        }
        fn free_bytes(&self, _: &Path) -> io::Result<u64> {
            Ok(u64::MAX / 2)
        }
    }

    fn work(dir: &Path, is_full: &Arc<AtomicBool>) -> Work {
        create_private_dir(dir).unwrap();
        let shelf = Arc::new(Shelf::new(dir.to_owned(), Buffers::default()));
        let limits = Limits {
            marks: Marks {
                high_disk: 1 << 30,
                low_disk: 1 << 30,
                high_memory: 1 << 20,
                low_memory: 1 << 20,
            },
            min_free_bytes: 0,
            max_unused_s: None,
        };
        let files = Box::new(FullAtTimes(Arc::clone(is_full)));
        Work {
            store: Store::open(Arc::clone(&shelf), files, 0, limits).unwrap(),
            shelf,
            metrics: Arc::new(DiskMetrics::register(&Registry::new()).unwrap()),
            on_whole: Box::new(|_| ()),
            paused_until: None,
            _lock: tempfile::tempfile().unwrap(),
        }
    }

    fn file() -> Arc<OpenedFile> {
        let uri = UfsUri::parse("s3://bucket/a").unwrap();
        Arc::new(OpenedFile {
            id: uri.file_id(),
            uri,
            version: FileVersion::from_text("etag:1"),
            length: 8 * PAGE as u64,
            modified_ms: 0,
            page_size: PageSize::new(PAGE as u64).unwrap(),
        })
    }

    fn has(work: &Work, file: &OpenedFile, index: u64) -> bool {
        let mut data = DataFile::of(FileKey::of(file));
        let look = work.shelf.look(&mut data, index, 1);
        matches!(look, Look::Page(_))
    }

    #[tokio::test]
    async fn pages_that_came_too_fast_are_kept_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut work = work(&dir.path().join("cache"), &Arc::default());
        let file = file();
        let in_memory = |index: u64| (index != 2).then(|| Bytes::from(vec![7; PAGE]));
        work.shelf
            .owed
            .recall_by(Box::new(move |_, index| in_memory(index)));
        let (queue, commands) = sync_channel(0);
        let writer = Writer {
            queue,
            budget: Arc::new(Semaphore::new(1)),
            budget_units: 1,
            shelf: Arc::clone(&work.shelf),
            metrics: Arc::clone(&work.metrics),
        };
        // Nobody takes from the queue yet.
        for index in 0..4 {
            writer.keep(&file, index, &Bytes::from(vec![7; PAGE]));
        }
        let thread = std::thread::spawn(move || {
            work.run(&commands);
            work
        });
        writer.flush().await;
        drop(writer);
        let work = thread.join().unwrap();
        let kept: Vec<u64> = (0..8).filter(|index| has(&work, &file, *index)).collect();
        assert_eq!(kept, [0, 1, 3]);
    }

    #[test]
    fn a_full_disk_turns_the_keeping_off_and_on_again_and_what_is_here_is_read() {
        let (dir, is_full) = (tempfile::tempdir().unwrap(), Arc::default());
        let mut work = work(&dir.path().join("cache"), &is_full);
        let file = file();
        let page = vec![7; PAGE];
        work.keep(&file, 0, &page);
        is_full.store(true, Ordering::Relaxed);
        // Nothing else can be evicted but what is being added to.
        work.keep(&file, 1, &page);
        assert!(work.paused_until.is_some() && work.metrics.paused.get() == 1);
        is_full.store(false, Ordering::Relaxed);
        // Not before the pause is over: the disk is left in peace.
        work.keep(&file, 2, &page);
        assert!(!has(&work, &file, 2));
        work.paused_until = Some(Instant::now());
        work.keep(&file, 3, &page);
        assert!(has(&work, &file, 3) && work.paused_until.is_none());
        assert_eq!(work.metrics.paused.get(), 0);
    }
}
