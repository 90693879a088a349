//! Pages in memory, weighed in bytes, the least recently used leaving first.
//!
//! The weight is exact and the limit is kept at every moment: a put makes room before it keeps, also
//! for pages that left and that readers still hold. A
//! cache that admits by popularity or evicts in the background would do neither, and would drop
//! pages read ahead before they are read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alluxio_wire::{FileId, FileVersion};
use parking_lot::Mutex;

use super::{Account, Page, PageKey, PageStore};

/// What a page costs beside its bytes, so that millions of tiny files are bounded too: its entries
/// in the maps and the allocations of key and page.
const ENTRY_OVERHEAD_BYTES: u64 = 512;

/// The part of a store that pages may take which were read to their end and are kept elsewhere too. The
/// kernel most likely has them in memory already, and who reads on through a file gets its next
/// pages into memory that is warm. It is enough for readers that look back a little.
const SPENT_SHARE: u64 = 32;

/// Where readers hold more than this part of the capacity, what is fetched ahead might not stay.
const CROWDED_PART: u64 = 2;

/// A page store in memory.
pub struct MemoryStore {
    capacity_bytes: u64,
    account: Arc<Account>,
    pages: Mutex<Pages>,
    /// The bytes of all pages here, for those who look without the lock.
    bytes: AtomicU64,
}

#[derive(Default)]
struct Pages {
    by_key: HashMap<PageKey, Entry>,
    /// Oldest use first.
    by_use: BTreeMap<u64, PageKey>,
    by_file: HashMap<FileId, Vec<Resident>>,
    /// Pages that were spent, in that order, with their weights. Some may have left already.
    spent: VecDeque<(PageKey, u64)>,
    spent_weight: u64,
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
        Self::of_account(capacity_bytes, Arc::default())
    }

    /// A store whose pages, and all else in the account, weigh at most `capacity_bytes`. What others
    /// hold beyond that is theirs; the store is empty then.
    pub(crate) fn of_account(capacity_bytes: u64, account: Arc<Account>) -> Self {
        Self {
            capacity_bytes,
            account,
            pages: Mutex::default(),
            bytes: AtomicU64::new(0),
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
        let length = page.bytes().len() as u64;
        // The page is alive already, if it is charged, and not here.
        let fits = |pages: &Pages| {
            let others = self.held_beside(pages.bytes).max(length);
            pages.weight + others + ENTRY_OVERHEAD_BYTES <= self.capacity_bytes
        };
        while !fits(&pages) && pages.evict_oldest() {}
        if fits(&pages) {
            pages.insert(key, page);
        }
        self.bytes.store(pages.bytes, Ordering::Relaxed);
    }

    fn spent(&self, key: &PageKey) {
        let mut pages = self.pages.lock();
        pages.spend(key, self.capacity_bytes / SPENT_SHARE);
        self.bytes.store(pages.bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn account(&self) -> &Arc<Account> {
        &self.account
    }

    fn make_room(&self) {
        let mut pages = self.pages.lock();
        let fits =
            |pages: &Pages| pages.weight + self.held_beside(pages.bytes) <= self.capacity_bytes;
        while !fits(&pages) && pages.evict_oldest() {}
        self.bytes.store(pages.bytes, Ordering::Relaxed);
    }

    fn is_crowded(&self) -> bool {
        self.held_beside(self.bytes()) > self.capacity_bytes / CROWDED_PART
    }

    fn forget(&self, file: &FileId) {
        let mut pages = self.pages.lock();
        pages.remove_file(file);
        self.bytes.store(pages.bytes, Ordering::Relaxed);
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

impl MemoryStore {
    /// Bytes that are alive beside those here.
    fn held_beside(&self, bytes: u64) -> u64 {
        self.account.bytes().saturating_sub(bytes)
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

    /// Notes a spent page, and evicts those that were spent before it down to a weight.
    fn spend(&mut self, key: &PageKey, most_weight: u64) {
        let Some(entry) = self.by_key.get(key) else {
            return;
        };
        let weight = weight_of(&entry.page);
        self.spent.push_back((key.clone(), weight));
        self.spent_weight += weight;
        while self.spent_weight > most_weight
            && let Some((oldest, weight)) = self.spent.pop_front()
        {
            self.spent_weight -= weight;
            // One that left and came back is spent only when it was read again.
            let is_read = |entry: &Entry| entry.page.is_read();
            if self.by_key.get(&oldest).is_some_and(is_read) {
                self.remove(&oldest);
            }
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

    #[test]
    fn what_was_read_to_its_end_and_is_kept_elsewhere_leaves_first() {
        let store = store(64);
        let file = file("1");
        let key = |index| PageKey {
            file: Arc::clone(&file),
            index,
        };
        for index in 0..10 {
            let page = Arc::new(Page::new(Bytes::from(vec![0; PAGE]), Source::Worker));
            let _ = page.hand_out(if index == 9 { 1 } else { PAGE as u64 });
            store.put(key(index), Arc::clone(&page));
            if index >= 2 && page.is_read() {
                store.spent(&key(index));
            }
        }
        let here: Vec<_> = (0..10).filter(|index| has(&store, &file, *index)).collect();
        assert_eq!(here, [0, 1, 7, 8, 9]);
        assert_eq!(store.pages.lock().spent.len(), 2);
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
    fn pages_that_readers_hold_count_after_their_eviction() {
        let (store, file) = (store(4), file("1"));
        let put = |index| {
            let bytes = store.account().charged(Bytes::from(vec![0; PAGE]));
            let key = PageKey {
                file: Arc::clone(&file),
                index,
            };
            store.put(key, Arc::new(Page::new(bytes.clone(), Source::Ufs)));
            bytes
        };
        let mut held: Vec<_> = (0..3).map(&put).collect();
        assert_eq!((store.bytes(), store.account().bytes()), (3000, 3000));
        for index in 3..40 {
            drop(put(index));
            assert!(store.account().bytes() <= 5 * PAGE as u64);
        }
        // The three that are held left as the oldest, and leave room for two.
        assert_eq!(store.bytes(), 2 * PAGE as u64);
        held.extend((50..60).map(&put));
        assert_eq!((store.bytes(), store.is_crowded()), (0, true));
        held.clear();
        for index in 3..40 {
            drop(put(index));
        }
        assert_eq!(
            (store.bytes(), store.is_crowded()),
            (4 * PAGE as u64, false)
        );
    }

    #[test]
    fn what_others_buffer_costs_pages() {
        let (store, file) = (store(4), file("1"));
        for index in 0..4 {
            let bytes = store.account().charged(Bytes::from(vec![0; PAGE]));
            let key = PageKey {
                file: Arc::clone(&file),
                index,
            };
            store.put(key, Arc::new(Page::new(bytes, Source::Ufs)));
        }
        let mut charge = store.account().charge();
        charge.set(3 * PAGE as u64);
        store.make_room();
        assert_eq!(store.account().bytes(), 5 * PAGE as u64);
        assert!(has(&store, &file, 3) && has(&store, &file, 2) && !has(&store, &file, 1));
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
