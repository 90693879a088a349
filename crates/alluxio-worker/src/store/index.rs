//! What is kept, in memory: pages by file and version, and the order of their last use. Pure.
//!
//! Space is reserved before a page is written and given back when writing fails, so the sum of
//! what is kept and what is being written never passes the capacity.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use alluxio_wire::FileId;

use super::PageKey;
use crate::version::{Tag, Version};

/// Pages by file and version, with their sizes and last uses.
#[derive(Debug)]
pub(super) struct Index {
    capacity_bytes: u64,
    /// Bytes of kept pages and of reservations.
    used_bytes: u64,
    /// Bytes of reservations alone, which no eviction can free.
    reserved_bytes: u64,
    /// Grows by one with each use; orders `by_use`.
    clock: u64,
    files: HashMap<FileId, Vec<Kept>>,
    by_use: BTreeMap<u64, PageKey>,
    /// Pages that are being written.
    reserved: HashSet<PageKey>,
}

#[derive(Debug)]
struct Kept {
    tag: Tag,
    version: Arc<Version>,
    pages: HashMap<u64, Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    page_bytes: u64,
    disk_bytes: u64,
    last_use: u64,
}

/// Why there is no room for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NoRoom {
    #[error("the page is larger than the whole capacity of the page store")]
    TooLarge,
    #[error("the pages being written fill the page store; give it more capacity")]
    BeingWritten,
}

/// A page that was taken out of the index and is to be removed from the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Victim {
    pub(super) key: PageKey,
    /// Whether the version holds nothing more.
    pub(super) was_last_of_version: bool,
}

impl Index {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            used_bytes: 0,
            reserved_bytes: 0,
            clock: 0,
            files: HashMap::new(),
            by_use: BTreeMap::new(),
            reserved: HashSet::new(),
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    pub(super) fn pages(&self) -> u64 {
        self.by_use.len() as u64
    }

    /// The version of the file that was kept last among those that are `wanted`.
    pub(super) fn version(
        &self,
        file: &FileId,
        wanted: impl Fn(&Version) -> bool,
    ) -> Option<Arc<Version>> {
        let versions = self.files.get(file)?;
        let found = versions.iter().rev().find(|kept| wanted(&kept.version))?;
        Some(Arc::clone(&found.version))
    }

    pub(super) fn page_bytes(&self, key: &PageKey) -> Option<u64> {
        self.slot(key).map(|slot| slot.page_bytes)
    }

    /// Marks a page as used now and tells its length.
    pub(super) fn touch(&mut self, key: &PageKey) -> Option<u64> {
        self.clock += 1;
        let now = self.clock;
        let slot = self.slot_mut(key)?;
        let before = std::mem::replace(&mut slot.last_use, now);
        let page_bytes = slot.page_bytes;
        self.by_use.remove(&before);
        self.by_use.insert(now, *key);
        Some(page_bytes)
    }

    /// Makes room for a page and reserves it: `None` when the page is kept or being written, else
    /// the pages to remove, or why removing pages makes no room for it.
    pub(super) fn reserve(
        &mut self,
        key: &PageKey,
        disk_bytes: u64,
    ) -> Option<Result<Vec<Victim>, NoRoom>> {
        if self.slot(key).is_some() || self.reserved.contains(key) {
            return None;
        }
        if disk_bytes > self.capacity_bytes {
            return Some(Err(NoRoom::TooLarge));
        }
        if self.reserved_bytes + disk_bytes > self.capacity_bytes {
            return Some(Err(NoRoom::BeingWritten));
        }
        let mut victims = Vec::new();
        while self.used_bytes + disk_bytes > self.capacity_bytes {
            let Some((_, &oldest)) = self.by_use.first_key_value() else {
                break;
            };
            victims.extend(self.remove(&oldest));
        }
        self.used_bytes += disk_bytes;
        self.reserved_bytes += disk_bytes;
        self.reserved.insert(*key);
        Some(Ok(victims))
    }

    /// A reserved page that could not be written.
    pub(super) fn release(&mut self, key: &PageKey, disk_bytes: u64) {
        if self.reserved.remove(key) {
            self.used_bytes = self.used_bytes.saturating_sub(disk_bytes);
            self.reserved_bytes = self.reserved_bytes.saturating_sub(disk_bytes);
        }
    }

    /// A reserved page that has been written.
    pub(super) fn keep(
        &mut self,
        key: PageKey,
        version: Version,
        page_bytes: u64,
        disk_bytes: u64,
    ) {
        if self.reserved.remove(&key) {
            self.reserved_bytes = self.reserved_bytes.saturating_sub(disk_bytes);
        }
        self.clock += 1;
        let slot = Slot {
            page_bytes,
            disk_bytes,
            last_use: self.clock,
        };
        let versions = self.files.entry(key.file).or_default();
        let known = versions.iter().position(|kept| kept.tag == key.tag);
        let at = known.unwrap_or_else(|| {
            versions.push(Kept {
                tag: key.tag,
                version: Arc::new(version),
                pages: HashMap::new(),
            });
            versions.len() - 1
        });
        versions[at].pages.insert(key.index, slot);
        self.by_use.insert(self.clock, key);
    }

    /// Takes a page out.
    pub(super) fn remove(&mut self, key: &PageKey) -> Option<Victim> {
        let versions = self.files.get_mut(&key.file)?;
        let at = versions.iter().position(|kept| kept.tag == key.tag)?;
        let slot = versions[at].pages.remove(&key.index)?;
        let was_last_of_version = versions[at].pages.is_empty();
        if was_last_of_version {
            versions.remove(at);
        }
        if versions.is_empty() {
            self.files.remove(&key.file);
        }
        self.by_use.remove(&slot.last_use);
        self.used_bytes = self.used_bytes.saturating_sub(slot.disk_bytes);
        Some(Victim {
            key: *key,
            was_last_of_version,
        })
    }

    /// Forgets everything, also what is being written.
    pub(super) fn clear(&mut self) {
        *self = Self {
            clock: self.clock,
            ..Self::new(self.capacity_bytes)
        };
    }

    /// Takes all pages of all versions of a file out.
    pub(super) fn remove_file(&mut self, file: &FileId) -> Vec<Victim> {
        let versions = self.files.get(file).map_or(&[][..], Vec::as_slice);
        let keys: Vec<PageKey> = versions
            .iter()
            .flat_map(|kept| {
                let tag = kept.tag;
                kept.pages.keys().map(move |&index| PageKey {
                    file: *file,
                    tag,
                    index,
                })
            })
            .collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn slot(&self, key: &PageKey) -> Option<&Slot> {
        let versions = self.files.get(&key.file)?;
        let kept = versions.iter().find(|kept| kept.tag == key.tag)?;
        kept.pages.get(&key.index)
    }

    fn slot_mut(&mut self, key: &PageKey) -> Option<&mut Slot> {
        let versions = self.files.get_mut(&key.file)?;
        let kept = versions.iter_mut().find(|kept| kept.tag == key.tag)?;
        kept.pages.get_mut(&key.index)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 10;

    fn key(file: u8, index: u64) -> PageKey {
        PageKey {
            file: FileId::from_bytes([file; 32]),
            tag: Version::written().tag(),
            index,
        }
    }

    fn put(index: &mut Index, key: PageKey) -> Vec<Victim> {
        let victims = index.reserve(&key, PAGE).unwrap().unwrap();
        index.keep(key, Version::written(), PAGE, PAGE);
        victims
    }

    #[test]
    fn the_page_that_was_not_used_for_longest_goes_first() {
        let mut index = Index::new(3 * PAGE);
        for number in 0..3 {
            assert_eq!(put(&mut index, key(1, number)), []);
        }
        index.touch(&key(1, 0));
        let victims = put(&mut index, key(2, 0));
        let gone: Vec<_> = victims.iter().map(|v| v.key).collect();
        assert_eq!(gone, [key(1, 1)]);
        assert!(index.page_bytes(&key(1, 0)).is_some());
    }

    #[test]
    fn the_last_page_takes_its_version_along() {
        let mut index = Index::new(2 * PAGE);
        put(&mut index, key(1, 0));
        put(&mut index, key(1, 1));
        assert!(!index.remove(&key(1, 0)).unwrap().was_last_of_version);
        assert!(index.remove(&key(1, 1)).unwrap().was_last_of_version);
        assert_eq!(index.version(&FileId::from_bytes([1; 32]), |_| true), None);
        assert_eq!((index.used_bytes(), index.pages()), (0, 0));
    }

    #[test]
    fn a_file_is_taken_out_with_all_its_versions_and_no_other() {
        let mut index = Index::new(5 * PAGE);
        for page in [key(1, 0), key(1, 7), key(2, 0)] {
            put(&mut index, page);
        }
        let gone = index.remove_file(&FileId::from_bytes([1; 32]));
        assert_eq!(gone.len(), 2);
        assert_eq!(gone.iter().filter(|v| v.was_last_of_version).count(), 1);
        assert_eq!((index.used_bytes(), index.pages()), (PAGE, 1));
        assert_eq!(index.remove_file(&FileId::from_bytes([1; 32])), []);
    }

    #[test]
    fn a_page_is_reserved_once_and_a_too_large_one_never() {
        let mut index = Index::new(2 * PAGE);
        assert!(index.reserve(&key(1, 0), PAGE).unwrap().is_ok());
        assert!(index.reserve(&key(1, 0), PAGE).is_none());
        index.release(&key(1, 0), PAGE);
        assert_eq!(index.used_bytes(), 0);
        assert!(index.reserve(&key(1, 0), 3 * PAGE).unwrap().is_err());
    }

    #[test]
    fn where_reservations_fill_it_no_page_is_let_in_and_none_is_put_out() {
        let mut index = Index::new(3 * PAGE);
        put(&mut index, key(1, 0));
        for number in 1..3 {
            assert_eq!(index.reserve(&key(1, number), PAGE), Some(Ok(Vec::new())));
        }
        let no_room = index.reserve(&key(1, 3), 2 * PAGE);
        assert_eq!(no_room, Some(Err(NoRoom::BeingWritten)));
        assert_eq!((index.used_bytes(), index.pages()), (3 * PAGE, 1));
        index.release(&key(1, 1), PAGE);
        index.keep(key(1, 2), Version::written(), PAGE, PAGE);
        let victims = index.reserve(&key(1, 3), 2 * PAGE).unwrap().unwrap();
        assert_eq!((index.used_bytes(), victims.len()), (3 * PAGE, 1));
    }

    proptest! {
        #[test]
        fn kept_and_reserved_never_pass_the_capacity(
            steps in prop::collection::vec((0u8..4, 0u64..6, any::<bool>()), 0..80)
        ) {
            let mut index = Index::new(5 * PAGE);
            for (file, number, fails) in steps {
                let key = key(file, number);
                if let Some(Ok(_)) = index.reserve(&key, PAGE) {
                    prop_assert!(index.used_bytes() <= index.capacity_bytes());
                    if fails {
                        index.release(&key, PAGE);
                    } else {
                        index.keep(key, Version::written(), PAGE, PAGE);
                    }
                }
                prop_assert_eq!(index.used_bytes(), index.pages() * PAGE);
            }
        }
    }
}
