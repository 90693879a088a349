//! The cache's folder, as its one writer changes it and as everybody reads it.
//!
//! The order of each change makes a kill at any instruction harmless:
//!
//! - keep a page: record the file, make its data file, write the page, record the page. What is
//!   recorded is there; a data file is always recorded.
//! - evict a file: remove its data file, then record that. A file that is recorded and not there is
//!   a miss.
//!
//! After a power cut records may be there whose pages never reached the disk: every page has its
//! checksum in its record and is compared with it whenever it is read. Or the end of the log may be
//! missing, and with it the records of data files: the next writer removes those.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluxio_ufs::Buffers;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::files::Files;
use super::index::{Index, Marks};
use super::log::Log;
use super::owed::Owed;
use super::record::{FileKey, Proof, Record, sum_of};
use crate::source::OpenedFile;

/// Free space is looked up after so many bytes written, not for each page.
const LOOK_AT_SPACE_EVERY_BYTES: u64 = 64 * 1024 * 1024;

/// What readers and the writer share.
pub(super) struct Shelf {
    dir: PathBuf,
    buffers: Buffers,
    pub(super) index: Mutex<Index>,
    /// Told when a file that was handed out may have departed.
    pub(super) departures: Notify,
    /// What the writer did not keep, and memory may have.
    pub(super) owed: Owed,
}

/// A file of the cache, opened at the first page that is read of it.
pub(super) struct DataFile {
    pub(super) key: FileKey,
    opened: Option<File>,
}

/// What a look into the cache found.
#[derive(Debug)]
pub(super) enum Look {
    /// The page, compared with its checksum.
    Page(Bytes),
    /// It is not here.
    Absent,
    /// It is here and not what was written; it was dropped.
    Corrupt,
    /// It is here and could not be read; it was dropped.
    Failed(io::Error),
}

/// The writer's side.
pub(super) struct Store {
    shelf: Arc<Shelf>,
    files: Box<dyn Files>,
    log: Log,
    limits: Limits,
    since_look_bytes: u64,
}

/// How much of the disk, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) marks: Marks,
    /// Bytes of the file system that are left to others.
    pub(super) min_free_bytes: u64,
    /// Seconds after which a file that nobody uses is evicted.
    pub(super) max_unused_s: Option<u64>,
}

/// What a page was put to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Kept,
    /// Kept, and with it all of the file is here.
    Whole(FileKey),
    /// It was here already.
    Known,
    /// It is larger than the cache, or its file has too many pages for the index.
    TooLarge,
}

impl Shelf {
    pub(super) fn new(dir: PathBuf, buffers: Buffers) -> Self {
        Self {
            dir,
            buffers,
            index: Mutex::default(),
            departures: Notify::new(),
            owed: Owed::default(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir.join("index.log")
    }

    /// The file whose bytes are those of the remote file, at their own offsets.
    pub(super) fn data_path(&self, key: &FileKey) -> PathBuf {
        let name = hex::encode(key.0);
        self.data_dir().join(&name[..2]).join(&name[2..])
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Reads a page and compares it. Blocks on the disk.
    pub(super) fn look(&self, file: &mut DataFile, index: u64, now_s: u64) -> Look {
        let key = &file.key;
        let slot = self.index.lock().slot(key, index, now_s);
        let Some(slot) = slot else {
            return Look::Absent;
        };
        let opened = match file.opened.take() {
            Some(opened) => Ok(opened),
            None => File::open(self.data_path(key)),
        };
        let mut page = self.buffers.take(slot.length);
        let read =
            opened.and_then(|opened| page.read_from(file.opened.insert(opened), slot.offset));
        let found = match read {
            Ok(()) if page.left() == 0 && sum_of(page.bytes()) == slot.sum => {
                return Look::Page(page.freeze());
            }
            Ok(()) => Look::Corrupt,
            // Evicted between the look into the index and the open, or removed by hand.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Look::Absent,
            Err(error) => Look::Failed(error),
        };
        // A page that was evicted and written anew meanwhile is not corrupt.
        let was_the_one = self.forget_page(&file.key, index, slot.sum);
        if was_the_one { found } else { Look::Absent }
    }

    /// Takes a page that is not what it was off the index; whether it was still the one.
    pub(super) fn forget_page(&self, key: &FileKey, index: u64, sum: u64) -> bool {
        let was_the_one = self.index.lock().forget_page(key, index, sum);
        self.departures.notify_one();
        was_the_one
    }
}

impl DataFile {
    pub(super) fn of(key: FileKey) -> Self {
        Self { key, opened: None }
    }
}

impl Store {
    /// Takes over a folder whose log was replayed into the shelf's index, up to this end. Looks at
    /// nothing else; [`Self::settle`] does, when there is time.
    pub(super) fn open(
        shelf: Arc<Shelf>,
        files: Box<dyn Files>,
        log_end: u64,
        limits: Limits,
    ) -> io::Result<Self> {
        let log = Log::open(&*files, shelf.log_path(), log_end)?;
        Ok(Self {
            shelf,
            files,
            log,
            limits,
            // The first page looks.
            since_look_bytes: LOOK_AT_SPACE_EVERY_BYTES,
        })
    }

    /// Keeps a page.
    pub(super) fn put(
        &mut self,
        file: &OpenedFile,
        index: u64,
        page: &[u8],
        now_s: u64,
    ) -> io::Result<Put> {
        let key = FileKey::of(file);
        let marks = self.limits.marks;
        let sums_bytes = index.saturating_add(1).saturating_mul(8);
        if page.len() as u64 > marks.low_disk || sums_bytes > marks.low_memory {
            return Ok(Put::TooLarge);
        }
        let (has_page, is_lent) = {
            let entries = self.shelf.index.lock();
            (entries.has(&key, index), entries.is_lent(&key))
        };
        if has_page {
            return Ok(Put::Known);
        }
        // Others read the data file past us: it is made anew and never mended in its place.
        if is_lent {
            self.evict(&[key])?;
        }
        let is_known = self.shelf.index.lock().knows(&key);
        self.look_at_space(page.len() as u64)?;
        if !is_known {
            self.record(&Record::File {
                key,
                page_size_bytes: file.page_size.bytes(),
                length_bytes: file.length,
                at_s: now_s,
            })?;
        }
        let data = self.files.open_to_write(&self.shelf.data_path(&key))?;
        let offset = index * file.page_size.bytes();
        self.files.write_at(&data, page, offset)?;
        self.record(&Record::Page {
            key,
            index,
            sum: sum_of(page),
            at_s: now_s,
        })?;
        let leaving = self.shelf.index.lock().over_marks(&marks);
        self.evict(&leaving)?;
        let is_whole = self.shelf.index.lock().whole(&key).is_some();
        Ok(if is_whole { Put::Whole(key) } else { Put::Kept })
    }

    /// Records that a file was compared, unless it has gone since.
    pub(super) fn proven(&mut self, key: FileKey, proof: Proof) -> io::Result<()> {
        let is_here = self.shelf.index.lock().whole(&key).is_some();
        if !is_here {
            return Ok(());
        }
        self.log
            .append(&*self.files, &Record::Proven { key, proof })
    }

    /// Removes a file that is of no use any more.
    pub(super) fn remove(&mut self, key: &FileKey) -> io::Result<()> {
        if !self.shelf.index.lock().knows(key) {
            return Ok(());
        }
        self.evict(std::slice::from_ref(key))
    }

    /// Puts in order what the process before left: data files that no record names, where a power
    /// cut or damage took the end of the log; and more than the limits, where its were wider.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.remove_strangers()?;
        let leaving = self.shelf.index.lock().over_marks(&self.limits.marks);
        self.evict(&leaving)
    }

    /// Evicts what nobody used for long, records uses, and rewrites a worn log.
    pub(super) fn tidy(&mut self, now_s: u64) -> io::Result<()> {
        if let Some(max_s) = self.limits.max_unused_s {
            let limit_s = now_s.saturating_sub(max_s);
            let unused = self.shelf.index.lock().unused_since(limit_s);
            self.evict(&unused)?;
        }
        let uses = self.shelf.index.lock().take_uses();
        for used in uses {
            self.log.append(&*self.files, &used)?;
        }
        let worn = {
            let index = self.shelf.index.lock();
            self.log
                .is_worn(index.live_records())
                .then(|| index.records())
        };
        match worn {
            Some(live) => self.log.rewrite(&*self.files, &live),
            None => Ok(()),
        }
    }

    /// Makes room after the disk was found full: a tenth of what is here, so that the next pages
    /// do not meet a full disk again. Returns whether there was something to evict.
    pub(super) fn make_room(&mut self) -> io::Result<bool> {
        let leaving = {
            let index = self.shelf.index.lock();
            index.oldest(index.disk_bytes().div_ceil(10), 0)
        };
        self.evict(&leaving)?;
        Ok(!leaving.is_empty())
    }

    /// Leaves the floor of free space to others.
    fn look_at_space(&mut self, bytes: u64) -> io::Result<()> {
        self.since_look_bytes += bytes;
        if self.since_look_bytes < LOOK_AT_SPACE_EVERY_BYTES {
            return Ok(());
        }
        let free = self.files.free_bytes(&self.shelf.dir)?;
        let lacking = (self.limits.min_free_bytes + LOOK_AT_SPACE_EVERY_BYTES).saturating_sub(free);
        if lacking > 0 {
            let leaving = {
                let index = self.shelf.index.lock();
                // Files go a batch at a time; what cannot be had so is a full disk.
                if index.disk_bytes() < lacking {
                    return Err(io::Error::from(io::ErrorKind::StorageFull));
                }
                index.oldest(lacking, 0)
            };
            self.evict(&leaving)?;
        }
        self.since_look_bytes = 0;
        Ok(())
    }

    fn evict(&mut self, keys: &[FileKey]) -> io::Result<()> {
        for key in keys {
            self.files.remove(&self.shelf.data_path(key))?;
            self.record(&Record::Removed { key: *key })?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.log.append(&*self.files, record)?;
        self.shelf.index.lock().apply(record);
        if matches!(record, Record::Removed { .. }) {
            self.shelf.departures.notify_one();
        }
        Ok(())
    }

    /// Removes data files that no record names.
    fn remove_strangers(&self) -> io::Result<()> {
        for folder in entries(&self.shelf.data_dir())? {
            for path in entries(&folder)? {
                let is_known = key_of(&path).is_some_and(|key| self.shelf.index.lock().knows(&key));
                if !is_known {
                    self.files.remove(&path)?;
                }
            }
        }
        Ok(())
    }
}

/// The entries of a folder; one that is not there, or is none, has none.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The key that a data file's path stands for.
fn key_of(path: &Path) -> Option<FileKey> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?.file_name()?.to_str()?;
    let bytes = hex::decode(format!("{folder}{name}")).ok()?;
    bytes.try_into().ok().map(FileKey)
}

#[cfg(test)]
mod tests;
