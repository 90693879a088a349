//! Whether a reader scatters: jumps about and takes a little each time. Pure.
//!
//! A page of a megabyte for four kilobytes of it costs its time on the wire. But a reader that
//! comes back to a page had better have had it whole, so pages that were touched a few times are
//! fetched whole after all.

use std::collections::VecDeque;

use alluxio_wire::PageSize;

/// Jumps in a row before parts are asked for: a footer and a header are two, and what follows them
/// is often read to its end.
const JUMPS: u32 = 3;
/// A read of more than this part of a page is worth the page.
const PART_OF_A_PAGE: u64 = 8;
/// Reads of one page by parts before it is fetched whole.
const TOUCHES: usize = 3;
/// Reads that are remembered: enough to see a reader that works on a few dozen pages in turn.
const REMEMBERED: usize = 128;

/// What is remembered of one reader's small reads.
#[derive(Debug, Default)]
pub(super) struct Scatter {
    jumps: u32,
    /// Whether the reader is known to jump about from the first read on.
    is_known: bool,
    /// Pages of the last reads by parts, the newest last.
    pages: VecDeque<u64>,
}

impl Scatter {
    /// Of a reader that is known to jump about.
    pub(super) fn known() -> Self {
        Self {
            is_known: true,
            ..Self::default()
        }
    }

    /// Notes a read of `length` bytes within a page, and tells whether to fetch only them.
    pub(super) fn on_read(
        &mut self,
        index: u64,
        length: u64,
        is_jump: bool,
        page_size: PageSize,
    ) -> bool {
        if !is_jump && !self.is_known {
            self.jumps = 0;
            return false;
        }
        self.jumps = self.jumps.saturating_add(1);
        let is_settled = self.is_known || self.jumps > JUMPS;
        if !is_settled || length > page_size.bytes() / PART_OF_A_PAGE {
            return false;
        }
        let touches = self.pages.iter().filter(|page| **page == index).count();
        if self.pages.len() == REMEMBERED {
            self.pages.pop_front();
        }
        self.pages.push_back(index);
        touches < TOUCHES
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn page_size() -> PageSize {
        PageSize::new(1 << 20).unwrap()
    }

    #[test]
    fn parts_are_fetched_after_some_jumps_and_not_after_going_on() {
        let mut scatter = Scatter::default();
        let mut jump = |is_jump| scatter.on_read(7, 4096, is_jump, page_size());
        assert_eq!(
            [true, true, true, true].map(&mut jump),
            [false, false, false, true]
        );
        assert_eq!([false, true].map(&mut jump), [false, false]);
    }

    #[test]
    fn a_reader_that_is_known_to_scatter_gets_parts_at_once() {
        let mut scatter = Scatter::known();
        assert!(scatter.on_read(0, 4096, false, page_size()));
        assert!(!scatter.on_read(1, 200_000, true, page_size()));
    }

    #[test]
    fn a_large_part_is_worth_its_page() {
        let mut scatter = Scatter::default();
        let told: Vec<_> = (0..9)
            .map(|page| scatter.on_read(page, 200_000, true, page_size()))
            .collect();
        assert!(told.iter().all(|part| !part));
    }

    #[test]
    fn a_page_that_is_touched_again_and_again_is_fetched_whole() {
        let mut scatter = Scatter::default();
        let told: Vec<_> = (0..20)
            .map(|_| scatter.on_read(7, 4096, true, page_size()))
            .collect();
        let parts = told.iter().filter(|part| **part).count();
        assert_eq!(parts, TOUCHES);
        assert!(!told[19]);
    }
}
