//! How far to read ahead of a reader: pure, from the offsets that it asks for.
//!
//! A reader that goes through a file gets a window ahead of it, twice as long each time that it has
//! eaten into it, up to a limit. A reader that jumps gets none until it has gone on from
//! where it jumped to. The kernel sends the reads of its own read-ahead side by side and not always
//! in order, so "goes on" allows for some disorder.

use std::ops::Range;

/// How far from the expected offset a read may be and still go on: the kernel has at most a few
/// reads of 128 KiB to 1 MiB in flight per file.
const DISORDER_BYTES: u64 = 2 * 1024 * 1024;
/// The first window in pages: the page after the one being read, and one to be fetched beside it.
const FIRST_WINDOW_PAGES: u64 = 2;

/// The window is filled up when less than this part of it is left, in eighths. An under-store is
/// asked for what is missing by one request: of the default window that is 24 MiB, so two or three
/// requests are under way at any time and do not end together, and a GiB takes some 45 of them.
const FILL_BELOW_EIGHTHS: u64 = 5;

/// The read-ahead state of one open file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    page_bytes: u64,
    /// Where the reader is expected next; the end of the furthest read of this run.
    expected: u64,
    /// 0 until the reader has gone on.
    size_bytes: u64,
    /// All before this offset is fetched or was asked for.
    asked_until: u64,
    /// Whether the whole window is wanted from the first read on, and after each jump.
    is_eager: bool,
}

impl Window {
    pub(crate) fn new(page_bytes: u64) -> Self {
        Self {
            page_bytes,
            expected: 0,
            size_bytes: 0,
            asked_until: 0,
            is_eager: false,
        }
    }

    /// The window of a reader that is known to go on from wherever it begins.
    pub(super) fn eager(page_bytes: u64) -> Self {
        Self {
            is_eager: true,
            ..Self::new(page_bytes)
        }
    }

    /// The same, of a reader that is expected at `offset`.
    pub(super) fn from(mut self, offset: u64) -> Self {
        self.expected = offset;
        self.asked_until = offset;
        self
    }

    /// Notes a read of `length` bytes from `offset` and tells which bytes of the file to fetch
    /// ahead, none past `file_length`. `limit_bytes` bounds the window at this moment; 0 turns
    /// read-ahead off.
    pub(crate) fn on_read(
        &mut self,
        offset: u64,
        length: u64,
        file_length: u64,
        limit_bytes: u64,
    ) -> Range<u64> {
        let end = offset.saturating_add(length).min(file_length);
        if !self.goes_on(offset) {
            // A jump: forget the run, and wait whether it goes on from here.
            self.expected = end;
            self.asked_until = end;
            self.size_bytes = 0;
            if !self.is_eager {
                return end..end;
            }
        }
        self.expected = self.expected.max(end);
        if limit_bytes < self.page_bytes {
            return end..end;
        }
        self.asked_until = self.asked_until.max(self.expected);
        let ahead = self.asked_until - self.expected;
        if ahead > self.size_bytes / 8 * FILL_BELOW_EIGHTHS {
            return end..end;
        }
        let first = FIRST_WINDOW_PAGES * self.page_bytes;
        self.size_bytes = if self.is_eager {
            limit_bytes
        } else {
            (self.size_bytes * 2).clamp(first.min(limit_bytes), limit_bytes)
        };
        let from = self.asked_until;
        let until = self
            .expected
            .saturating_add(self.size_bytes)
            .min(file_length)
            .max(from);
        self.asked_until = until;
        from..until
    }

    /// Where the reader is expected next.
    pub(super) fn expected(&self) -> u64 {
        self.expected
    }

    /// Whether the reader has gone on.
    pub(super) fn is_open(&self) -> bool {
        self.size_bytes > 0
    }

    /// The fetch of what was told ended at `offset`, for lack of room; it will be told again.
    pub(super) fn stopped_at(&mut self, offset: u64) {
        self.asked_until = self.asked_until.min(offset).max(self.expected);
    }

    /// Whether a read from `offset` goes on from the reads before.
    pub(super) fn goes_on(&self, offset: u64) -> bool {
        offset.abs_diff(self.expected) <= DISORDER_BYTES.max(self.page_bytes / 4)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 1024 * 1024;
    const FILE: u64 = 1000 * PAGE;

    fn windows(reads: &[(u64, u64)], limit: u64) -> Vec<Range<u64>> {
        let mut window = Window::new(PAGE);
        reads
            .iter()
            .map(|(offset, length)| window.on_read(*offset, *length, FILE, limit))
            .collect()
    }

    #[test]
    fn the_window_doubles_on_sequential_reads_up_to_the_limit() {
        let mut window = Window::new(PAGE);
        let mut sizes = Vec::new();
        for page in 0..100 {
            let _ = window.on_read(page * PAGE, PAGE, FILE, 16 * PAGE);
            sizes.push(window.size_bytes / PAGE);
        }
        sizes.dedup();
        assert_eq!(sizes, [2, 4, 8, 16]);
    }

    #[test]
    fn a_jump_resets_the_window_and_going_on_opens_it_again() {
        let far = 500 * PAGE;
        let told = windows(
            &[(0, PAGE), (PAGE, PAGE), (far, PAGE), (far + PAGE, PAGE)],
            64 * PAGE,
        );
        assert_eq!(told[0], PAGE..3 * PAGE);
        assert!(told[2].is_empty());
        assert_eq!(told[3], far + 2 * PAGE..far + 4 * PAGE);
    }

    #[test]
    fn reads_in_slight_disorder_are_a_run() {
        let step = 128 * 1024;
        let told = windows(
            &[(0, step), (2 * step, step), (step, step), (3 * step, step)],
            64 * PAGE,
        );
        assert!(!told[0].is_empty());
        let mut window = Window::new(PAGE);
        for offset in [0, 2, 1, 3, 5, 4] {
            let _ = window.on_read(offset * step, step, FILE, 64 * PAGE);
            assert!(window.size_bytes > 0);
        }
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let reads: Vec<_> = (1..50)
            .map(|i| ((i * 7919 % 900) * PAGE + 3 * PAGE, 4096))
            .collect();
        assert!(windows(&reads, 64 * PAGE).iter().all(Range::is_empty));
    }

    #[test]
    fn an_eager_window_is_whole_at_once_and_after_each_jump() {
        let mut window = Window::eager(PAGE);
        let first = window.on_read(0, PAGE, FILE, 16 * PAGE);
        assert_eq!(first, PAGE..17 * PAGE);
        let far = 500 * PAGE;
        let jumped = window.on_read(far, 10, FILE, 16 * PAGE);
        assert_eq!(jumped, far + 10..far + 10 + 16 * PAGE);
        // Off is off.
        assert!(window.on_read(3 * PAGE, 10, FILE, 0).is_empty());
    }

    #[test]
    fn the_end_of_the_file_ends_the_window() {
        let mut window = Window::new(PAGE);
        let told = window.on_read(0, PAGE, 2 * PAGE + 5, 64 * PAGE);
        assert_eq!(told, PAGE..2 * PAGE + 5);
        assert!(
            window
                .on_read(PAGE, PAGE + 5, 2 * PAGE + 5, 64 * PAGE)
                .is_empty()
        );
    }

    #[test]
    fn no_limit_means_no_read_ahead() {
        assert!(
            windows(&[(0, PAGE), (PAGE, PAGE)], 0)
                .iter()
                .all(Range::is_empty)
        );
    }

    #[test]
    fn what_found_no_room_is_told_again() {
        let mut window = Window::new(PAGE);
        assert_eq!(window.on_read(0, PAGE, FILE, 64 * PAGE), PAGE..3 * PAGE);
        window.stopped_at(2 * PAGE);
        let told = window.on_read(PAGE, PAGE, FILE, 64 * PAGE);
        assert_eq!(told.start, 2 * PAGE);
    }

    proptest! {
        #[test]
        fn nothing_is_told_twice_in_a_run_nor_past_file_or_limit(
            lengths in proptest::collection::vec(1u64..3 * PAGE, 1..60), limit in PAGE..64 * PAGE,
        ) {
            let mut window = Window::new(PAGE);
            let (mut offset, mut told_until) = (0, 0);
            for length in lengths {
                let told = window.on_read(offset, length, FILE, limit);
                offset += length;
                if !told.is_empty() {
                    prop_assert!(told.start >= told_until);
                    prop_assert!(told.end <= FILE && told.end <= offset + limit);
                    told_until = told.end;
                }
            }
        }
    }
}
