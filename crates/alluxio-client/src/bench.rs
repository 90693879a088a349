//! Inner functions, for `tests/bench` alone (feature `bench`), called as the client calls them. No
//! interface of the crate.

use crate::reader::Window;
use crate::{disk, ring, worker};

/// The hash of the rings.
pub fn murmur3(bytes: &[u8]) -> i32 {
    ring::murmur3_32(bytes)
}

/// The checksum of a page of the disk cache.
pub fn page_checksum(page: &[u8]) -> u64 {
    disk::sum_of(page)
}

/// The bytes that are read ahead of so many reads, each of a page, that go through a file.
pub fn move_window(page_bytes: u64, file_bytes: u64, reads: u64) -> u64 {
    let mut window = Window::new(page_bytes);
    let mut ahead = |read| {
        let told = window.on_read(read * page_bytes, page_bytes, file_bytes, 64 * page_bytes);
        told.end - told.start
    };
    (0..reads).map(&mut ahead).sum()
}

/// The length of the head of a worker's answer, once it is whole.
pub fn parse_head(received: &[u8]) -> Option<usize> {
    worker::head_length(received)
}
