//! Pages in memory, weighed in bytes, the least recently used leaving first.
//!
//! The weight is exact and the limit is kept at every moment: a put makes room before it keeps. A
//! cache that admits by popularity or evicts in the background would do neither, and would drop
//! pages read ahead before they are read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use alluxio_wire::{FileId, FileVersion};
use parking_lot::Mutex;

use super::{Page, PageKey, PageStore};

/// What a page costs beside its bytes, so that millions of tiny files are bounded too: its entries
/// in the maps and the allocations of key and page.
const ENTRY_OVERHEAD_BYTES: u64 = 512;

/// A page store in memory.
pub struct MemoryStore {
    capacity_bytes: u64,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    by_key: HashMap<PageKey, Entry>,
    /// Oldest use first.
    by_use: BTreeMap<u64, PageKey>,
    by_file: HashMap<FileId, Vec<Resident>>,
    next_use: u64,
    bytes: u64,
    weight: u64,
}

struct Entry {
    page: Arc<Page>,
    last_use: u64,
}

/// What is here of one version of a file.
struct Resident {
    version: FileVersion,
    length: u64,
    bytes: u64,
}

impl MemoryStore {
    /// A store whose pages weigh at most `capacity_bytes`.
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            pages: Mutex::default(),
        }
    }
}

impl PageStore for MemoryStore {
    fn get(&self, key: &PageKey) -> Option<Arc<Page>> {
        self.pages.lock().touch(key)
    }

    fn put(&self, key: PageKey, page: Arc<Page>) {
        let weight = weight_of(&page);
        if weight > self.capacity_bytes {
            return;
        }
        let mut pages = self.pages.lock();
        pages.remove(&key);
        while pages.weight + weight > self.capacity_bytes && pages.evict_oldest() {}
        pages.insert(key, page);
    }

    fn bytes(&self) -> u64 {
        self.pages.lock().bytes
    }

    fn forget(&self, file: &FileId) {
        self.pages.lock().remove_file(file);
    }

    fn share(&self, file: &FileId, version: &FileVersion) -> f64 {
        let pages = self.pages.lock();
        let resident = pages
            .by_file
            .get(file)
            .into_iter()
            .flatten()
            .find(|r| r.version == *version);
        #[allow(clippy::cast_precision_loss, reason = "a share for people")]
        resident.map_or(0.0, |r| r.bytes as f64 / r.length.max(1) as f64)
    }
}

impl Pages {
    fn touch(&mut self, key: &PageKey) -> Option<Arc<Page>> {
        let now = self.next_use;
        let entry = self.by_key.get_mut(key)?;
        let before = std::mem::replace(&mut entry.last_use, now);
        let page = Arc::clone(&entry.page);
        self.next_use += 1;
        if let Some(key) = self.by_use.remove(&before) {
            self.by_use.insert(now, key);
        }
        Some(page)
    }

    fn insert(&mut self, key: PageKey, page: Arc<Page>) {
        let length = page.bytes().len() as u64;
        self.bytes += length;
        self.weight += weight_of(&page);
        self.resident(&key).bytes += length;
        let last_use = self.next_use;
        self.next_use += 1;
        self.by_use.insert(last_use, key.clone());
        self.by_key.insert(key, Entry { page, last_use });
    }

    fn remove(&mut self, key: &PageKey) {
        let Some(Entry { page, last_use }) = self.by_key.remove(key) else {
            return;
        };
        let length = page.bytes().len() as u64;
        self.by_use.remove(&last_use);
        self.bytes -= length;
        self.weight -= weight_of(&page);
        self.resident(key).bytes -= length;
        self.forget_absent(&key.file.id);
    }

    /// All pages of a file. It looks at every page here, which for a full store of 1 MiB pages is
    /// some thousands, and only where something of the file is here.
    fn remove_file(&mut self, file: &FileId) {
        if !self.by_file.contains_key(file) {
            return;
        }
        let is_of_it = |key: &&PageKey| key.file.id == *file;
        let keys: Vec<_> = self.by_key.keys().filter(is_of_it).cloned().collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// Returns whether there was a page to evict.
    fn evict_oldest(&mut self) -> bool {
        let oldest = self.by_use.first_key_value().map(|(_, key)| key.clone());
        oldest.inspect(|key| self.remove(key)).is_some()
    }

    fn resident(&mut self, key: &PageKey) -> &mut Resident {
        let versions = self.by_file.entry(key.file.id).or_default();
        let known = versions.iter().position(|r| r.version == key.file.version);
        let at = known.unwrap_or_else(|| {
            versions.push(Resident {
                version: key.file.version.clone(),
                length: key.file.length,
                bytes: 0,
            });
            versions.len() - 1
        });
        &mut versions[at]
    }

    fn forget_absent(&mut self, file: &FileId) {
        if let Some(versions) = self.by_file.get_mut(file) {
            versions.retain(|resident| resident.bytes > 0);
            if versions.is_empty() {
                self.by_file.remove(file);
            }
        }
    }
}

fn weight_of(page: &Page) -> u64 {
    page.bytes().len() as u64 + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_wire::{PageSize, UfsUri};
    use bytes::Bytes;

    use super::*;
    use crate::source::{OpenedFile, Source};

    const PAGE: usize = 1000;

    fn file(version: &str) -> Arc<OpenedFile> {
        let uri = UfsUri::parse("file:///a").unwrap();
        Arc::new(OpenedFile {
            id: uri.file_id(),
            uri,
            version: FileVersion::from_text(version),
            length: 10 * PAGE as u64,
            modified_ms: 0,
            page_size: PageSize::DEFAULT,
        })
    }

    fn put(store: &MemoryStore, file: &Arc<OpenedFile>, index: u64) {
        let key = PageKey {
            file: Arc::clone(file),
            index,
        };
        store.put(
            key,
            Arc::new(Page::new(Bytes::from(vec![0; PAGE]), Source::Ufs)),
        );
    }

    fn has(store: &MemoryStore, file: &Arc<OpenedFile>, index: u64) -> bool {
        store
            .get(&PageKey {
                file: Arc::clone(file),
                index,
            })
            .is_some()
    }

    /// Room for this many pages.
    fn store(pages: u64) -> MemoryStore {
        MemoryStore::new(pages * (PAGE as u64 + ENTRY_OVERHEAD_BYTES))
    }

    #[test]
    fn the_least_recently_used_page_leaves_first() {
        let (store, file) = (store(2), file("1"));
        put(&store, &file, 0);
        put(&store, &file, 1);
        assert!(has(&store, &file, 0));
        put(&store, &file, 2);
        assert!(!has(&store, &file, 1));
        assert!(has(&store, &file, 0) && has(&store, &file, 2));
        assert_eq!(store.bytes(), 2 * PAGE as u64);
    }

    #[test]
    fn the_limit_counts_what_a_page_costs_beside_its_bytes() {
        let store = MemoryStore::new(10 * ENTRY_OVERHEAD_BYTES);
        let file = file("1");
        for index in 0..100 {
            let page = Arc::new(Page::new(Bytes::new(), Source::Ufs));
            store.put(
                PageKey {
                    file: Arc::clone(&file),
                    index,
                },
                page,
            );
        }
        assert_eq!(store.pages.lock().by_key.len(), 10);
    }

    #[test]
    fn a_page_above_the_limit_is_not_kept_and_evicts_nothing() {
        let (store, file) = (store(2), file("1"));
        put(&store, &file, 0);
        let huge = Arc::new(Page::new(Bytes::from(vec![0; 10 * PAGE]), Source::Ufs));
        store.put(
            PageKey {
                file: Arc::clone(&file),
                index: 1,
            },
            huge,
        );
        assert!(has(&store, &file, 0) && !has(&store, &file, 1));
    }

    #[test]
    fn versions_of_a_file_are_kept_apart_and_their_shares_known() {
        let (store, old, new) = (store(3), file("1"), file("2"));
        put(&store, &old, 0);
        put(&store, &old, 1);
        assert!(!has(&store, &new, 0));
        assert!((store.share(&old.id, &old.version) - 0.2).abs() < 1e-9);
        assert!(store.share(&new.id, &new.version) < 1e-9);
        for index in 0..3 {
            put(&store, &new, index);
        }
        assert!(store.share(&old.id, &old.version) < 1e-9);
        assert!((store.share(&new.id, &new.version) - 0.3).abs() < 1e-9);
        assert_eq!(store.pages.lock().by_file[&new.id].len(), 1);
    }

    #[test]
    fn putting_a_page_twice_counts_it_once() {
        let (store, file) = (store(3), file("1"));
        put(&store, &file, 0);
        put(&store, &file, 0);
        assert_eq!(store.bytes(), PAGE as u64);
        assert_eq!(store.pages.lock().by_use.len(), 1);
    }

    #[test]
    fn a_file_that_is_forgotten_leaves_in_every_version() {
        let store = MemoryStore::new(1 << 20);
        let (one, two) = (file("v1"), file("v2"));
        for index in 0..3 {
            put(&store, &one, index);
            put(&store, &two, index);
        }
        store.forget(&one.id);
        assert_eq!(store.bytes(), 0);
        let share = store.share(&one.id, &one.version);
        assert!(share < f64::EPSILON, "{share}");
    }
}
