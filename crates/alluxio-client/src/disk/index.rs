//! What is in the cache, in memory: pages with their checksums, and which file has to leave first.
//!
//! The index is what the log says, no more: a record is applied after it was written. Its own size
//! is part of what is bounded, because a cache of millions of small files costs memory for each.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use smallvec::SmallVec;

use super::record::{FileKey, Proof, Record};

/// What a file costs on the disk beside its pages' blocks: its inode.
const FILE_OVERHEAD_BYTES: u64 = 4096;
/// File systems give out space in blocks of this size.
const BLOCK_BYTES: u64 = 4096;
/// What a file costs in memory: its entry, the map's spare room, and the allocation of its sums.
const ENTRY_MEMORY_BYTES: u64 = 168;
/// A use is worth a record this often; the order of eviction is that exact after a restart.
const USE_RECORD_EVERY_S: u64 = 600;
/// Where a page is not here. A page whose sum is 0 by chance is never found, which is no harm.
const ABSENT: u64 = 0;
/// Files for which room is made at once when a log is read. More find theirs as they come, so that
/// a log of which most is superseded costs no memory.
const MOST_ROOM: usize = 1 << 17;

/// Keys are cut from a hash already, and a log of 100,000 files asks for each twice.
#[derive(Debug, Default)]
struct KeyHasher(u64);

/// The files of a cache.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: HashMap<FileKey, CachedFile, BuildHasherDefault<KeyHasher>>,
    disk_bytes: u64,
    memory_bytes: u64,
    live_records: u64,
    /// Files that were handed out and are no longer to be read, until somebody asks for them.
    departed: Vec<FileKey>,
}

/// One version of one file.
#[derive(Debug)]
struct CachedFile {
    page_size_bytes: u64,
    length_bytes: u64,
    /// XXH3 by page index, as far as the last page that is here; most files have one page.
    sums: SmallVec<[u64; 1]>,
    resident_pages: u64,
    disk_bytes: u64,
    filled_s: u64,
    used_s: u64,
    recorded_use_s: u64,
    proof: Option<Proof>,
    /// Whether the data file was handed out: then it is not written any more.
    is_lent: bool,
}

/// A file all of whose pages are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WholeEntry {
    pub(super) length_bytes: u64,
    pub(super) proof: Option<Proof>,
}

/// Where a page lies, and what it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) sum: u64,
}

/// How far a cache may grow, and down to where it is emptied when it has; all in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// Bytes on the disk above which files are evicted.
    pub(super) high_disk: u64,
    /// Bytes on the disk that are left then.
    pub(super) low_disk: u64,
    /// Bytes of the index in memory above which files are evicted.
    pub(super) high_memory: u64,
    /// Bytes of the index that are left then.
    pub(super) low_memory: u64,
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(word);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Index {
    /// An empty index with room for the files of a log of so many records.
    pub(super) fn with_room(records: u64) -> Self {
        // A file has a record of its own and one for each page.
        let files = usize::try_from(records / 2).unwrap_or(MOST_ROOM);
        Self {
            files: HashMap::with_capacity_and_hasher(
                files.min(MOST_ROOM),
                BuildHasherDefault::default(),
            ),
            ..Self::default()
        }
    }

    /// Takes in a record of the log.
    pub(super) fn apply(&mut self, record: &Record) {
        match *record {
            Record::File {
                key,
                page_size_bytes,
                length_bytes,
                at_s,
            } => {
                self.remove(&key);
                self.files
                    .insert(key, CachedFile::new(page_size_bytes, length_bytes, at_s));
                self.disk_bytes += FILE_OVERHEAD_BYTES;
                self.memory_bytes += ENTRY_MEMORY_BYTES;
                self.live_records += 1;
            }
            Record::Page {
                key,
                index,
                sum,
                at_s,
            } => self.add_page(&key, index, sum, at_s),
            Record::Used { key, at_s } => {
                if let Some(file) = self.files.get_mut(&key) {
                    file.used_s = at_s;
                    file.recorded_use_s = at_s;
                }
            }
            Record::Removed { key } => self.remove(&key),
            Record::Proven { key, proof } => self.prove(&key, proof),
        }
    }

    fn prove(&mut self, key: &FileKey, proof: Proof) {
        if let Some(file) = self.files.get_mut(key).filter(|file| file.is_whole()) {
            self.live_records += u64::from(file.proof.replace(proof).is_none());
        }
    }

    /// Takes the place of another index whose lent files nobody follows any more.
    pub(super) fn succeed(&mut self, mut old: Self) {
        let lent = old.files.iter().filter(|(_, file)| file.is_lent);
        self.departed.extend(lent.map(|(key, _)| *key));
        self.departed.append(&mut old.departed);
    }

    /// The file, if all of it is here.
    pub(super) fn whole(&self, key: &FileKey) -> Option<WholeEntry> {
        let file = self.files.get(key).filter(|file| file.is_whole())?;
        Some(WholeEntry {
            length_bytes: file.length_bytes,
            proof: file.proof,
        })
    }

    /// Where each page of a whole file lies.
    pub(super) fn slots(&self, key: &FileKey) -> Option<Vec<Slot>> {
        let file = self.files.get(key).filter(|file| file.is_whole())?;
        let slot = |(sum, index): (&u64, u64)| {
            Some(Slot {
                offset: index * file.page_size_bytes,
                length: usize::try_from(file.page_length(index)?).ok()?,
                sum: *sum,
            })
        };
        file.sums.iter().zip(0..).map(slot).collect()
    }

    /// Notes that a whole file is handed out, which counts as a use; not if it has gone.
    pub(super) fn lend(&mut self, key: &FileKey, now_s: u64) -> bool {
        let Some(file) = self.files.get_mut(key).filter(|file| file.is_whole()) else {
            return false;
        };
        file.is_lent = true;
        file.used_s = file.used_s.max(now_s);
        true
    }

    /// Whether the data file was handed out.
    pub(super) fn is_lent(&self, key: &FileKey) -> bool {
        self.files.get(key).is_some_and(|file| file.is_lent)
    }

    /// Whether any data file was handed out.
    pub(super) fn lends(&self) -> bool {
        self.files.values().any(|file| file.is_lent)
    }

    /// The files that were handed out and are to be given back, each told once.
    pub(super) fn take_departed(&mut self) -> Vec<FileKey> {
        std::mem::take(&mut self.departed)
    }

    /// How much of a file is here, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub(super) fn share(&self, key: &FileKey) -> f64 {
        self.files.get(key).map_or(0.0, |file| {
            let pages = file.length_bytes.div_ceil(file.page_size_bytes.max(1));
            file.resident_pages as f64 / pages.max(1) as f64
        })
    }

    fn add_page(&mut self, key: &FileKey, index: u64, sum: u64, at_s: u64) {
        let Some(file) = self.files.get_mut(key) else {
            return;
        };
        let Some(bytes) = file.page_length(index) else {
            return;
        };
        let Ok(at) = usize::try_from(index) else {
            return;
        };
        let before = file.sums.len();
        if at >= before {
            file.sums.resize(at + 1, ABSENT);
        }
        let is_new = file.sums[at] == ABSENT;
        file.sums[at] = sum;
        file.filled_s = at_s;
        file.used_s = file.used_s.max(at_s);
        self.memory_bytes += 8 * (file.sums.len() - before) as u64;
        if is_new && sum != ABSENT {
            let blocks = bytes.next_multiple_of(BLOCK_BYTES);
            self.live_records -= u64::from(file.proof.take().is_some());
            file.resident_pages += 1;
            file.disk_bytes += blocks;
            self.disk_bytes += blocks;
            self.live_records += 1;
        }
    }

    fn remove(&mut self, key: &FileKey) {
        if let Some(file) = self.files.remove(key) {
            self.disk_bytes -= file.disk_bytes;
            self.memory_bytes -= file.memory_bytes();
            self.live_records -= 1 + file.resident_pages + u64::from(file.proof.is_some());
            if file.is_lent {
                self.departed.push(*key);
            }
        }
    }

    /// Where a page lies. It counts as used.
    pub(super) fn slot(&mut self, key: &FileKey, index: u64, now_s: u64) -> Option<Slot> {
        let file = self.files.get_mut(key)?;
        let sum = *file.sums.get(usize::try_from(index).ok()?)?;
        let length = usize::try_from(file.page_length(index)?).ok()?;
        if sum == ABSENT {
            return None;
        }
        file.used_s = file.used_s.max(now_s);
        Some(Slot {
            offset: index * file.page_size_bytes,
            length,
            sum,
        })
    }

    /// Whether a file has an entry, with pages or without.
    pub(super) fn knows(&self, key: &FileKey) -> bool {
        self.files.contains_key(key)
    }

    /// Whether a page is here; that is no use of it.
    pub(super) fn has(&self, key: &FileKey, index: u64) -> bool {
        let sums = self.files.get(key).map(|file| &file.sums);
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        sums.and_then(|sums| sums.get(at))
            .is_some_and(|sum| *sum != ABSENT)
    }

    /// Takes a page that is not what it was off the index, unless it was written anew since.
    /// Returns whether it was the one.
    pub(super) fn forget_page(&mut self, key: &FileKey, index: u64, sum: u64) -> bool {
        let Some(file) = self.files.get_mut(key) else {
            return false;
        };
        let Some(bytes) = file.page_length(index) else {
            return false;
        };
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(slot) = file.sums.get_mut(at).filter(|slot| **slot == sum) else {
            return false;
        };
        *slot = ABSENT;
        self.live_records -= u64::from(file.proof.take().is_some());
        if file.is_lent {
            self.departed.push(*key);
        }
        let blocks = bytes.next_multiple_of(BLOCK_BYTES);
        file.resident_pages -= 1;
        file.disk_bytes -= blocks;
        self.disk_bytes -= blocks;
        self.live_records -= 1;
        true
    }

    /// Bytes on the disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Files here.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Records that it takes to say what is here.
    pub(super) fn live_records(&self) -> u64 {
        self.live_records
    }

    /// The files to evict, the least recently used first: none until a high mark is passed, then as
    /// many as it takes to come down to the low ones. Ties leave by age.
    pub(super) fn over_marks(&self, marks: &Marks) -> Vec<FileKey> {
        let is_over = self.disk_bytes > marks.high_disk || self.memory_bytes > marks.high_memory;
        if !is_over {
            return Vec::new();
        }
        let disk = self.disk_bytes.saturating_sub(marks.low_disk);
        let memory = self.memory_bytes.saturating_sub(marks.low_memory);
        self.oldest(disk, memory)
    }

    /// The least recently used files that together give back so much.
    pub(super) fn oldest(&self, mut disk: u64, mut memory: u64) -> Vec<FileKey> {
        let mut by_use: Vec<_> = self
            .files
            .iter()
            .map(|(key, file)| (file.used_s, file.filled_s, *key))
            .collect();
        by_use.sort_unstable();
        let mut leaving = Vec::new();
        for (_, _, key) in by_use {
            if disk == 0 && memory == 0 {
                break;
            }
            let file = &self.files[&key];
            disk = disk.saturating_sub(file.disk_bytes);
            memory = memory.saturating_sub(file.memory_bytes());
            leaving.push(key);
        }
        leaving
    }

    /// The files that nobody filled or read since `limit_s`.
    pub(super) fn unused_since(&self, limit_s: u64) -> Vec<FileKey> {
        let unused = self.files.iter().filter(|(_, file)| file.used_s < limit_s);
        unused.map(|(key, _)| *key).collect()
    }

    /// Records of the uses that are not in the log yet. They count as recorded from now on.
    pub(super) fn take_uses(&mut self) -> Vec<Record> {
        let mut uses = Vec::new();
        for (key, file) in &mut self.files {
            if file.used_s >= file.recorded_use_s + USE_RECORD_EVERY_S {
                file.recorded_use_s = file.used_s;
                let (key, at_s) = (*key, file.used_s);
                uses.push(Record::Used { key, at_s });
            }
        }
        uses
    }

    /// The log that says what is here and nothing else.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(self.files.len() * 2);
        for (key, file) in &self.files {
            let key = *key;
            records.push(Record::File {
                key,
                page_size_bytes: file.page_size_bytes,
                length_bytes: file.length_bytes,
                at_s: file.filled_s,
            });
            let pages = file.sums.iter().zip(0..);
            records.extend(
                pages
                    .filter(|(sum, _)| **sum != ABSENT)
                    .map(|(sum, index)| Record::Page {
                        key,
                        index,
                        sum: *sum,
                        at_s: file.filled_s,
                    }),
            );
            if file.used_s > file.filled_s {
                let at_s = file.used_s;
                records.push(Record::Used { key, at_s });
            }
            if let Some(proof) = file.proof {
                records.push(Record::Proven { key, proof });
            }
        }
        records
    }
}

impl CachedFile {
    fn new(page_size_bytes: u64, length_bytes: u64, at_s: u64) -> Self {
        Self {
            page_size_bytes,
            length_bytes,
            sums: SmallVec::new(),
            resident_pages: 0,
            disk_bytes: FILE_OVERHEAD_BYTES,
            filled_s: at_s,
            used_s: at_s,
            recorded_use_s: at_s,
            proof: None,
            is_lent: false,
        }
    }

    fn is_whole(&self) -> bool {
        let pages = self.length_bytes.div_ceil(self.page_size_bytes.max(1));
        self.length_bytes > 0 && self.resident_pages == pages
    }

    fn memory_bytes(&self) -> u64 {
        ENTRY_MEMORY_BYTES + 8 * self.sums.len() as u64
    }

    /// `None` behind the file's end.
    fn page_length(&self, index: u64) -> Option<u64> {
        let start = index.checked_mul(self.page_size_bytes)?;
        let rest = self.length_bytes.checked_sub(start)?;
        Some(rest.min(self.page_size_bytes)).filter(|length| *length > 0)
    }
}

#[cfg(test)]
mod tests;
