//! Pages that came faster than the disk takes them.
//!
//! A page for which the writer's queue has no room is not kept. But most such pages lie in memory for
//! a while, and as long as they do nobody fetches them again: a file that is read over and over would
//! keep its holes. So they are noted, and once the writer has nothing else to do it takes them from
//! memory.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::cache::PageKey;
use crate::source::OpenedFile;

/// Pages that are noted; the oldest, which memory is the most likely to have lost, makes room. As many
/// 1 MiB pages as 4 GiB of memory hold, and half a megabyte of notes.
const MOST: usize = 4096;

/// Takes a page from memory, if it is there.
pub(crate) type Recall = Box<dyn Fn(&Arc<OpenedFile>, u64) -> Option<Bytes> + Send + Sync>;

/// The notes.
#[derive(Default)]
pub(super) struct Owed {
    pages: Mutex<Pages>,
    recall: OnceLock<Recall>,
}

/// The pages, each once.
#[derive(Default)]
struct Pages {
    in_order: VecDeque<PageKey>,
    noted: HashSet<PageKey>,
}

impl Pages {
    fn pop(&mut self) -> Option<PageKey> {
        let oldest = self.in_order.pop_front()?;
        self.noted.remove(&oldest);
        Some(oldest)
    }
}

impl Owed {
    /// Tells where pages are taken from; until then none are.
    pub(super) fn recall_by(&self, recall: Recall) {
        // Memory does not change while the cache is open.
        let _known = self.recall.set(recall);
    }

    pub(super) fn add(&self, file: &Arc<OpenedFile>, index: u64) {
        let key = key(file, index);
        let mut pages = self.pages.lock();
        if !pages.noted.insert(key.clone()) {
            return;
        }
        pages.in_order.push_back(key);
        if pages.in_order.len() > MOST {
            pages.pop();
        }
    }

    /// Whether a page is noted: memory should not let it go before its time.
    pub(super) fn has(&self, file: &Arc<OpenedFile>, index: u64) -> bool {
        self.pages.lock().noted.contains(&key(file, index))
    }

    /// The next page that memory still has.
    pub(super) fn next(&self) -> Option<(Arc<OpenedFile>, u64, Bytes)> {
        let recall = self.recall.get()?;
        loop {
            let PageKey { file, index } = self.pages.lock().pop()?;
            if let Some(page) = recall(&file, index) {
                return Some((file, index, page));
            }
        }
    }
}

fn key(file: &Arc<OpenedFile>, index: u64) -> PageKey {
    let file = Arc::clone(file);
    PageKey { file, index }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use alluxio_wire::{FileVersion, PageSize, UfsUri};

    use super::*;

    #[test]
    fn each_page_is_noted_once_and_the_oldest_makes_room() {
        let uri = UfsUri::parse("s3://bucket/a").unwrap();
        let file = Arc::new(OpenedFile {
            id: uri.file_id(),
            uri,
            version: FileVersion::from_text("etag:1"),
            length: 1 << 40,
            modified_ms: 0,
            page_size: PageSize::DEFAULT,
        });
        let owed = Owed::default();
        assert!(owed.next().is_none());
        owed.recall_by(Box::new(|_, index| (index != 3).then(Bytes::new)));
        for index in [1, 1].into_iter().chain(2..=MOST as u64 + 1) {
            owed.add(&file, index);
        }
        assert!(!owed.has(&file, 1) && owed.has(&file, 2));
        let next = || owed.next().map(|(_, index, _)| index);
        // The third one is no longer in memory.
        assert_eq!([next(), next()], [Some(2), Some(4)]);
        assert!(!owed.has(&file, 2) && !owed.has(&file, 3));
        assert_eq!(std::iter::from_fn(next).count(), MOST - 3);
    }
}
