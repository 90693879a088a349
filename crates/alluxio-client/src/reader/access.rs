//! What to fetch beside what is asked for, by the file's access profile. Pure.
//!
//! ```text
//! adaptive     a window that grows for each of a few interleaved runs; none after a jump
//! sequential   the whole window from the first read on
//! random       nothing
//! parquet      the whole window, up to the end of the column chunk and not past it
//! safetensors  the whole window in the order of the file; after a jump up to the tensor's end
//! ```
//!
//! Where a file's chunks (of Parquet, or tensors) are not known, because its footer or header was not
//! read yet or is not one, it is read as an adaptive one.

use std::collections::VecDeque;
use std::ops::Range;

use alluxio_config::AccessProfile;
use alluxio_wire::PageSize;

use super::scatter::Scatter;
use super::window::Window;

/// Runs that are followed at one time: loaders that merge a few sorted shards of one file. Each more
/// would make it likelier that a random read looks like one that goes on.
const RUNS: usize = 4;
/// A run that was not read for so many reads of the file takes no part of the window any more.
const IDLE_READS: u64 = 32;
/// A run that was not read last goes on within this part of a page from where it was.
const NEAR_PART: u64 = 4;
/// The most that is read ahead where pages come from this node's disk: four of its runs. That hides
/// the latency of any disk. More would cost: the buffers that are read into in turn, and the reader
/// after them, would not find the processor's caches any more.
const LOCAL_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// The state of one open file.
#[derive(Debug)]
pub(super) struct Access {
    profile: AccessProfile,
    page_size: PageSize,
    /// The one that was read last is the first.
    runs: VecDeque<Run>,
    reads: u64,
    scatter: Scatter,
    /// Whether the last pages that were fetched came from this node's disk.
    is_local: bool,
    /// What is read as a whole: in order, none overlaps another.
    chunks: Vec<Range<u64>>,
}

#[derive(Debug)]
struct Run {
    window: Window,
    last_read: u64,
}

/// The profile of a file, of what the configuration says and of its name.
pub(super) fn profile_of(configured: AccessProfile, path: &str) -> AccessProfile {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    match (configured, extension) {
        (AccessProfile::Adaptive, Some("parquet")) => AccessProfile::Parquet,
        (AccessProfile::Adaptive, Some("safetensors")) => AccessProfile::Safetensors,
        _ => configured,
    }
}

impl Access {
    pub(super) fn new(profile: AccessProfile, page_size: PageSize) -> Self {
        let mut access = Self {
            profile,
            page_size,
            runs: VecDeque::new(),
            reads: 0,
            scatter: match profile {
                AccessProfile::Random => Scatter::known(),
                _ => Scatter::default(),
            },
            is_local: false,
            chunks: Vec::new(),
        };
        // A file is expected to be read from its beginning.
        access.begin_run(0);
        access
    }

    pub(super) fn profile(&self) -> AccessProfile {
        self.profile
    }

    /// How many chunks are known.
    pub(super) fn known_chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Footer or header told what is read as a whole.
    pub(super) fn set_chunks(&mut self, chunks: Vec<Range<u64>>) {
        self.chunks = chunks;
        let at = self.runs.front().map_or(0, |run| run.window.expected());
        self.runs.clear();
        self.begin_run(at);
    }

    /// Notes whether pages that were fetched came from this node's disk.
    pub(super) fn set_local(&mut self, is_local: bool) {
        self.is_local = is_local;
    }

    /// Whether a small read within one page had better bring only its own bytes.
    pub(super) fn wants_part(&mut self, offset: u64, length: u64, index: u64) -> bool {
        if self.profile == AccessProfile::Sequential || self.chunk_of(offset).is_some() {
            return false;
        }
        let is_jump = self.run_of(offset).is_none();
        self.scatter.on_read(index, length, is_jump, self.page_size)
    }

    /// Notes a read and tells which bytes to fetch ahead: none past `file_length`, and at most
    /// `limit_bytes` for all runs of the file.
    pub(super) fn on_read(
        &mut self,
        offset: u64,
        length: u64,
        file_length: u64,
        limit_bytes: u64,
    ) -> Range<u64> {
        self.reads += 1;
        let goes_on = self.run_of(offset);
        let chunk = self.chunk_of(offset);
        match goes_on {
            Some(at) => {
                let run = self.runs.remove(at);
                self.runs.extend(run);
                self.runs.rotate_right(1);
            }
            None => self.begin_run(offset),
        }
        let end = match (self.profile, chunk) {
            (AccessProfile::Parquet, Some(chunk)) => chunk.end,
            (AccessProfile::Safetensors, Some(chunk)) if goes_on.is_none() => chunk.end,
            _ => file_length,
        };
        let local_bytes = LOCAL_WINDOW_BYTES.max(2 * self.page_size.bytes());
        let limit_bytes = match self.profile {
            AccessProfile::Random => 0,
            _ if self.is_local => limit_bytes.min(local_bytes) / self.busy_runs(),
            _ => limit_bytes / self.busy_runs(),
        };
        let is_eager = self.is_eager();
        let reads = self.reads;
        let Some(run) = self.runs.front_mut() else {
            return 0..0;
        };
        run.last_read = reads;
        if goes_on.is_none() && !is_eager {
            // Whether it goes on from here is for the next read to tell.
            run.window = run.window.clone().from(offset.saturating_add(length));
            return 0..0;
        }
        run.window
            .on_read(offset, length, end.min(file_length), limit_bytes)
    }

    /// The fetch of what the last read was told ended at `offset`, for lack of room.
    pub(super) fn stopped_at(&mut self, offset: u64) {
        if let Some(run) = self.runs.front_mut() {
            run.window.stopped_at(offset);
        }
    }

    fn is_eager(&self) -> bool {
        match self.profile {
            AccessProfile::Sequential => true,
            AccessProfile::Parquet | AccessProfile::Safetensors => !self.chunks.is_empty(),
            AccessProfile::Adaptive | AccessProfile::Random => false,
        }
    }

    fn begin_run(&mut self, offset: u64) {
        let page_bytes = self.page_size.bytes();
        let window = if self.is_eager() {
            Window::eager(page_bytes)
        } else {
            Window::new(page_bytes)
        };
        let most = match self.profile {
            AccessProfile::Sequential => 1,
            _ => RUNS,
        };
        self.runs.truncate(most - 1);
        self.runs.push_front(Run {
            window: window.from(offset),
            last_read: self.reads,
        });
    }

    fn run_of(&self, offset: u64) -> Option<usize> {
        let newest = self.runs.front()?;
        if newest.window.goes_on(offset) {
            return Some(0);
        }
        // Disorder is that of the kernel's own read-ahead of one run. To allow for it in each of
        // them would make a random read of a small file one that goes on.
        let near = self.page_size.bytes() / NEAR_PART;
        let is_near = |run: &Run| offset.abs_diff(run.window.expected()) <= near;
        self.runs.iter().position(is_near)
    }

    /// Runs that read ahead and are read, at least one.
    fn busy_runs(&self) -> u64 {
        let is_busy = |run: &&Run| run.window.is_open() && self.reads - run.last_read <= IDLE_READS;
        // The first one is about to.
        1 + self.runs.iter().skip(1).filter(is_busy).count() as u64
    }

    fn chunk_of(&self, offset: u64) -> Option<Range<u64>> {
        let after = self.chunks.partition_point(|chunk| chunk.end <= offset);
        let chunk = self.chunks.get(after)?;
        (chunk.start <= offset).then(|| chunk.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 1 << 20;
    const FILE: u64 = 1000 * PAGE;
    const PROFILES: [AccessProfile; 5] = [
        AccessProfile::Adaptive,
        AccessProfile::Sequential,
        AccessProfile::Random,
        AccessProfile::Parquet,
        AccessProfile::Safetensors,
    ];

    fn access(profile: AccessProfile) -> Access {
        Access::new(profile, PageSize::new(PAGE).unwrap())
    }

    fn with_chunks(profile: AccessProfile) -> Access {
        let mut access = access(profile);
        access.set_chunks(vec![4 * PAGE..20 * PAGE, 20 * PAGE..500 * PAGE]);
        access
    }

    #[test]
    fn names_choose_a_profile_only_where_the_configuration_leaves_it_open() {
        use AccessProfile::{Adaptive, Parquet, Random, Safetensors};
        assert_eq!(profile_of(Adaptive, "d/a.parquet"), Parquet);
        assert_eq!(profile_of(Adaptive, "a.safetensors"), Safetensors);
        for path in ["parquet", "a.parquet/b", "a.parquet.crc", ""] {
            assert_eq!(profile_of(Adaptive, path), Adaptive, "{path}");
        }
        assert_eq!(profile_of(Random, "a.parquet"), Random);
    }

    #[test]
    fn a_sequential_reader_has_the_whole_window_at_once() {
        let mut access = access(AccessProfile::Sequential);
        let ahead = access.on_read(0, PAGE, FILE, 64 * PAGE);
        assert_eq!(ahead, PAGE..65 * PAGE);
        let ahead = access.on_read(700 * PAGE, PAGE, FILE, 64 * PAGE);
        assert_eq!(ahead, 701 * PAGE..765 * PAGE);
    }

    #[test]
    fn little_is_read_ahead_from_the_nodes_own_disk() {
        let mut access = access(AccessProfile::Sequential);
        access.set_local(true);
        let ahead = access.on_read(0, PAGE, FILE, 64 * PAGE);
        assert_eq!(ahead, PAGE..9 * PAGE);
        access.set_local(false);
        let ahead = access.on_read(PAGE, 7 * PAGE, FILE, 64 * PAGE);
        assert_eq!(ahead, 9 * PAGE..72 * PAGE);
    }

    #[test]
    fn a_random_reader_gets_parts_and_nothing_ahead() {
        let mut access = access(AccessProfile::Random);
        for page in 0..50 {
            assert!(access.wants_part(page * PAGE, 4096, page));
            assert!(
                access
                    .on_read(page * PAGE, PAGE, FILE, 64 * PAGE)
                    .is_empty()
            );
        }
    }

    #[test]
    fn interleaved_runs_each_have_a_window_and_share_the_limit() {
        let mut access = access(AccessProfile::Adaptive);
        let starts = [0, 300 * PAGE, 600 * PAGE];
        let mut ahead_of = [0; 3];
        for step in 0..40 {
            for (start, ahead_of) in starts.iter().zip(&mut ahead_of) {
                let offset = start + step * PAGE;
                let ahead = access.on_read(offset, PAGE, FILE, 60 * PAGE);
                assert!(ahead.is_empty() || ahead.start >= offset + PAGE);
                *ahead_of = ahead.end.max(*ahead_of);
            }
        }
        for (start, ahead_of) in starts.iter().zip(ahead_of) {
            let window = ahead_of - (start + 39 * PAGE);
            assert!((5 * PAGE..=21 * PAGE).contains(&window), "{window}");
        }
    }

    #[test]
    fn nothing_is_fetched_past_a_column_chunk() {
        let mut access = with_chunks(AccessProfile::Parquet);
        let ahead = access.on_read(4 * PAGE, 100, FILE, 64 * PAGE);
        assert_eq!(ahead, 4 * PAGE + 100..20 * PAGE);
        let ahead = access.on_read(19 * PAGE, PAGE, FILE, 64 * PAGE);
        assert!(ahead.is_empty(), "{ahead:?}");
        let mut access = with_chunks(AccessProfile::Parquet);
        let ahead = access.on_read(400 * PAGE, 100, FILE, 64 * PAGE);
        assert_eq!(ahead, 400 * PAGE + 100..464 * PAGE + 100);
    }

    #[test]
    fn tensors_are_fetched_in_order_and_after_a_jump_up_to_the_tensors_end() {
        let mut access = with_chunks(AccessProfile::Safetensors);
        let ahead = access.on_read(15 * PAGE, PAGE, FILE, 64 * PAGE);
        assert_eq!(ahead, 16 * PAGE..20 * PAGE);
        let ahead = access.on_read(16 * PAGE, PAGE, FILE, 64 * PAGE);
        assert_eq!(ahead, 20 * PAGE..81 * PAGE);
    }

    #[test]
    fn without_chunks_parquet_and_safetensors_are_read_as_adaptive() {
        for profile in [AccessProfile::Parquet, AccessProfile::Safetensors] {
            let mut access = access(profile);
            assert!(access.on_read(300 * PAGE, PAGE, FILE, 64 * PAGE).is_empty());
            let ahead = access.on_read(301 * PAGE, PAGE, FILE, 64 * PAGE);
            assert_eq!(ahead, 302 * PAGE..304 * PAGE);
        }
    }

    proptest! {
        #[test]
        fn what_is_fetched_ahead_is_within_file_and_limit(
            reads in proptest::collection::vec((0..2 * FILE, 0..8 * PAGE), 1..80),
            limit in 0..64 * PAGE, profile in 0..PROFILES.len(), has_chunks: bool,
        ) {
            let profile = PROFILES[profile];
            let mut access = if has_chunks { with_chunks(profile) } else { access(profile) };
            for (offset, length) in reads {
                let chunk = access.chunk_of(offset);
                let ahead = access.on_read(offset, length, FILE, limit);
                if ahead.is_empty() {
                    continue;
                }
                prop_assert!(profile != AccessProfile::Random && limit >= PAGE);
                prop_assert!(ahead.end <= FILE && ahead.end - ahead.start <= limit);
                if let (AccessProfile::Parquet, Some(chunk)) = (profile, chunk) {
                    prop_assert!(ahead.end <= chunk.end);
                }
            }
        }

        #[test]
        fn no_offset_or_length_is_too_large(offset: u64, length: u64, profile in 0..PROFILES.len()) {
            let mut access = access(PROFILES[profile]);
            for _ in 0..3 {
                let ahead = access.on_read(offset, length, FILE, 64 * PAGE);
                prop_assert!(ahead.is_empty() || ahead.end <= FILE);
            }
        }
    }
}
