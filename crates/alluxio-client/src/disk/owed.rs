//! Pages that came faster than the disk takes them.
//!
//! A page for which the writer's queue has no room is not kept. But most such pages lie in memory for
//! a while, and as long as they do nobody fetches them again: a file that is read over and over would
//! keep its holes. So they are noted, and once the writer has nothing else to do it takes them from
//! memory.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::source::OpenedFile;

/// Pages that are noted; the oldest, which memory is the most likely to have lost, makes room. As many
/// 1 MiB pages as 4 GiB of memory hold, and half a megabyte of notes.
const MOST: usize = 4096;

/// Takes a page from memory, if it is there.
pub(crate) type Recall = Box<dyn Fn(&Arc<OpenedFile>, u64) -> Option<Bytes> + Send + Sync>;

/// The notes.
#[derive(Default)]
pub(super) struct Owed {
    pages: Mutex<VecDeque<(Arc<OpenedFile>, u64)>>,
    recall: OnceLock<Recall>,
}

impl Owed {
    /// Tells where pages are taken from; until then none are.
    pub(super) fn recall_by(&self, recall: Recall) {
        // Memory does not change while the cache is open.
        let _known = self.recall.set(recall);
    }

    pub(super) fn add(&self, file: &Arc<OpenedFile>, index: u64) {
        let mut pages = self.pages.lock();
        if pages.len() >= MOST {
            pages.pop_front();
        }
        pages.push_back((Arc::clone(file), index));
    }

    /// The next page that memory still has.
    pub(super) fn next(&self) -> Option<(Arc<OpenedFile>, u64, Bytes)> {
        let recall = self.recall.get()?;
        loop {
            let (file, index) = self.pages.lock().pop_front()?;
            if let Some(page) = recall(&file, index) {
                return Some((file, index, page));
            }
        }
    }
}
