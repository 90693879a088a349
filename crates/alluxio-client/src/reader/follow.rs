//! The order in which a job will open files, given by the job: while one file is read, the beginning
//! of the next ones is fetched. Pure; `client.rs` fetches.
//!
//! Loaders shuffle their samples, so no pattern in the names tells what comes next, but they know it.
//! Several processes of a loader take turns, so "in order" allows for some disorder. A reader that
//! leaves the order is followed to where it went, and after a few such steps nothing is fetched until
//! it keeps the order again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// The longest list: some 400 MB of usual paths. A longer one is better given in parts.
pub(crate) const MAX_FILES: usize = 4_000_000;
/// Files whose beginning is fetched ahead, at most: small files of 30 ms each keep coming at 500 a
/// second.
const FILES_AHEAD: usize = 16;
/// The most that is fetched of one file; its own read-ahead goes on from there.
const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// The part of all read-ahead's memory that files ahead may take; the files being read come first.
const SHARE: u64 = 2;
/// Steps out of order before nothing is fetched any more, and in order before it is again.
const PATIENCE: u32 = 3;

/// A list and where its reader is.
#[derive(Debug)]
pub(crate) struct Order {
    paths: Vec<Arc<str>>,
    /// A path that is in the list twice counts where it is first.
    places: HashMap<Arc<str>, usize>,
    bounds: Bounds,
    /// The furthest file that was opened.
    at: Option<usize>,
    /// All before this place was told.
    told_until: usize,
    /// Steps out of order, one after the other.
    strays: u32,
    /// Steps in order since the last one out of order.
    steady: u32,
}

/// How much is fetched ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) files: usize,
    pub(crate) file_bytes: u64,
}

impl Bounds {
    /// Of the memory that all files' read-ahead together may take.
    pub(crate) fn new(readahead_total_bytes: u64, page_bytes: u64) -> Self {
        let bytes = readahead_total_bytes / SHARE;
        // At least a page of each file, and fewer files where that is too much.
        let file_bytes = (bytes / FILES_AHEAD as u64).min(FILE_BYTES).max(page_bytes);
        let files = usize::try_from(bytes / file_bytes).unwrap_or(FILES_AHEAD);
        Self {
            files: files.min(FILES_AHEAD),
            file_bytes,
        }
    }
}

impl Order {
    pub(crate) fn new(paths: Vec<String>, bounds: Bounds) -> Result<Self> {
        if paths.len() > MAX_FILES {
            let context = format!(
                "a list of {} files is longer than {MAX_FILES}: give it in parts",
                paths.len()
            );
            return Err(Error::new(ErrorKind::InvalidInput, "follow", context));
        }
        let paths: Vec<Arc<str>> = paths.into_iter().map(Arc::from).collect();
        let mut places = HashMap::with_capacity(paths.len());
        for (place, path) in paths.iter().enumerate() {
            places.entry(Arc::clone(path)).or_insert(place);
        }
        Ok(Self {
            paths,
            places,
            bounds,
            at: None,
            told_until: 0,
            strays: 0,
            steady: 0,
        })
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn path(&self, place: usize) -> Option<Arc<str>> {
        self.paths.get(place).cloned()
    }

    /// Notes that a file is opened, and tells the places whose files to fetch now.
    pub(crate) fn opened(&mut self, path: &str) -> Range<usize> {
        let Some(place) = self.places.get(path).copied() else {
            // Of a label or an index beside the samples nothing follows.
            return 0..0;
        };
        let near = self.bounds.files.max(1);
        let in_order = self.at.is_none_or(|at| place.abs_diff(at) <= near);
        if !in_order {
            self.strays = self.strays.saturating_add(1);
            self.steady = 0;
            self.at = Some(place);
            self.told_until = place + 1;
            return 0..0;
        }
        self.steady = self.steady.saturating_add(1);
        if self.steady >= PATIENCE {
            self.strays = 0;
        }
        let at = self.at.map_or(place, |at| at.max(place));
        self.at = Some(at);
        if self.is_paused() {
            self.told_until = at + 1;
            return 0..0;
        }
        let from = self.told_until.max(at + 1);
        let until = (at + 1 + self.bounds.files).min(self.paths.len()).max(from);
        self.told_until = until;
        from..until
    }

    /// Whether the file at this place is still ahead of the reader.
    pub(crate) fn is_ahead(&self, place: usize) -> bool {
        let ahead = |at: usize| place > at && place - at <= self.bounds.files;
        !self.is_paused() && self.at.is_some_and(ahead)
    }

    fn is_paused(&self) -> bool {
        self.strays >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn order(files: usize) -> Order {
        let paths = (0..files).map(|place| place.to_string()).collect();
        Order::new(paths, Bounds::new(96 * MIB, MIB)).unwrap()
    }

    fn open(order: &mut Order, place: usize) -> Range<usize> {
        order.opened(&place.to_string())
    }

    #[test]
    fn the_next_files_are_told_once_each() {
        let mut order = order(100);
        assert_eq!(open(&mut order, 0), 1..17);
        assert_eq!(open(&mut order, 1), 17..18);
        // Two processes that take turns.
        assert_eq!(open(&mut order, 3), 18..20);
        assert!(open(&mut order, 2).is_empty());
        assert!(order.opened("labels.csv").is_empty());
        assert!(order.is_ahead(19) && !order.is_ahead(3) && !order.is_ahead(20));
    }

    #[test]
    fn the_end_of_the_list_ends_it_and_another_round_begins() {
        let mut order = order(20);
        for place in 0..20 {
            let told = open(&mut order, place);
            assert!(told.is_empty() || told.end <= 20);
        }
        assert!(open(&mut order, 0).is_empty());
        assert_eq!(open(&mut order, 1), 2..18);
    }

    #[test]
    fn a_reader_that_leaves_the_order_pauses_it_and_one_that_comes_back_resumes_it() {
        let mut order = order(1000);
        assert!(!open(&mut order, 0).is_empty());
        for place in [500, 100, 900] {
            assert!(open(&mut order, place).is_empty());
        }
        assert!(open(&mut order, 901).is_empty() && !order.is_ahead(902));
        assert!(open(&mut order, 902).is_empty());
        assert_eq!(open(&mut order, 903), 904..920);
    }

    #[test]
    fn little_memory_means_fewer_files() {
        assert_eq!(
            Bounds::new(96 * MIB, MIB),
            Bounds {
                files: 16,
                file_bytes: 3 * MIB
            }
        );
        assert_eq!(
            Bounds::new(8 * MIB, MIB),
            Bounds {
                files: 4,
                file_bytes: MIB
            }
        );
        assert_eq!(Bounds::new(MIB, MIB).files, 0);
        assert_eq!(
            Bounds::new(u64::MAX, MIB),
            Bounds {
                files: 16,
                file_bytes: FILE_BYTES
            }
        );
    }

    proptest! {
        #[test]
        fn no_more_is_ahead_than_the_bounds_allow(
            opens in proptest::collection::vec(0usize..200, 1..100), memory in 0..200 * MIB,
        ) {
            let bounds = Bounds::new(memory, MIB);
            prop_assert!(bounds.files as u64 * bounds.file_bytes <= memory / SHARE);
            let paths = (0..200).map(|place| place.to_string()).collect();
            let mut order = Order::new(paths, bounds).unwrap();
            for place in opens {
                let told = open(&mut order, place);
                prop_assert!(told.len() <= bounds.files && told.end <= 200);
                let ahead = (0..200).filter(|place| order.is_ahead(*place)).count();
                prop_assert!(ahead <= bounds.files);
            }
        }
    }
}
