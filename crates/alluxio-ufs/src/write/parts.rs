//! Bytes as a caller brings them, cut into parts as stores want them. Pure.
//!
//! Every part but the first and last has exactly the planned size, and the last one is not smaller
//! than it unless it is the only one: what is left at the end goes with the part before. So no part
//! is below a store's least size, and a store's library never holds a rest back, which a repeated
//! attempt would lose.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The size of a part: above the 5 MiB that S3 asks for, and long enough that one connection is
/// busy for some 100 ms with it.
pub(crate) const PART_BYTES: u64 = 8 * 1024 * 1024;

/// Parts of one file that are sent side by side. A connection carries some 100 MB/s, and four of
/// them fill a 2.5 Gbit/s link; with the parts that wait a writer holds 48 MiB.
pub(crate) const PARALLEL_PARTS: usize = 4;

/// Parts of a file of known length. S3 takes 10,000; the rest is for the last, longer one.
const MOST_PARTS: u64 = 9_000;

/// Parts after which the size is doubled where the length is not known: 9,000 of them are then
/// 4 TiB, the order of S3's largest object.
const DOUBLED_AFTER: u64 = 1_000;

/// Chunks below this are gathered into one buffer: a part should not be thousands of them.
const SMALL_BYTES: usize = 64 * 1024;

/// Into how many parts a file of known length is cut, and how long all but the last are.
pub fn parts_of(length: u64) -> (u64, u64) {
    let part_bytes = part_bytes_of(length);
    ((length / part_bytes).max(1), part_bytes)
}

fn part_bytes_of(expected: u64) -> u64 {
    PART_BYTES.max(expected.div_ceil(MOST_PARTS))
}

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Parts {
    waiting: VecDeque<Bytes>,
    waiting_bytes: u64,
    /// Small chunks, at the end of what waits.
    gathered: BytesMut,
    total_bytes: u64,
    expected_bytes: Option<u64>,
    taken: u64,
}

impl Parts {
    pub(super) fn new(expected_bytes: Option<u64>) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            gathered: BytesMut::new(),
            total_bytes: 0,
            expected_bytes,
            taken: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.total_bytes += bytes.len() as u64;
        self.waiting_bytes += bytes.len() as u64;
        if bytes.len() < SMALL_BYTES {
            self.gathered.extend_from_slice(&bytes);
            if self.gathered.len() < SMALL_BYTES {
                return;
            }
        } else {
            self.gather();
            self.waiting.push_back(bytes);
            return;
        }
        self.gather();
    }

    /// All bytes that ever came.
    pub(super) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes that wait.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// The most that the parts taken last, which may be on their way, have.
    pub(super) fn most_on_their_way(&self) -> u64 {
        let taken_bytes = self.total_bytes - self.waiting_bytes;
        taken_bytes.min(PARALLEL_PARTS as u64 * self.part_bytes())
    }

    /// A part that can be sent while at least as much again stays for the last one.
    pub(super) fn next_full(&mut self) -> Option<Vec<Bytes>> {
        let size = self.part_bytes();
        if self.waiting_bytes < 2 * size {
            return None;
        }
        self.gather();
        self.taken += 1;
        Some(self.take(size))
    }

    /// What is left, at the end.
    pub(super) fn rest(&mut self) -> Vec<Bytes> {
        self.gather();
        self.take(self.waiting_bytes)
    }

    fn part_bytes(&self) -> u64 {
        match self.expected_bytes {
            Some(expected) => part_bytes_of(expected),
            None => PART_BYTES << (self.taken / DOUBLED_AFTER).min(10),
        }
    }

    fn gather(&mut self) {
        if !self.gathered.is_empty() {
            self.waiting.push_back(self.gathered.split().freeze());
        }
    }

    fn take(&mut self, bytes: u64) -> Vec<Bytes> {
        self.waiting_bytes -= bytes;
        let mut missing = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut part = Vec::new();
        while missing > 0
            && let Some(mut chunk) = self.waiting.pop_front()
        {
            if chunk.len() > missing {
                self.waiting.push_front(chunk.split_off(missing));
            }
            missing -= chunk.len();
            part.push(chunk);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(part: &[Bytes]) -> u64 {
        part.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// The sizes of all parts of a file written in chunks of one size, and whether the bytes are
    /// the same in the same order.
    fn cut(total: usize, chunk: usize, expected: Option<u64>) -> Vec<u64> {
        let bytes: Bytes = (0..=250_u8).cycle().take(total).collect();
        let mut parts = Parts::new(expected);
        let (mut sizes, mut seen) = (Vec::new(), BytesMut::new());
        let mut note = |part: Vec<Bytes>| {
            sizes.push(length(&part));
            for chunk in &part {
                seen.extend_from_slice(chunk);
            }
        };
        for start in (0..total).step_by(chunk) {
            parts.push(bytes.slice(start..total.min(start + chunk)));
            while let Some(part) = parts.next_full() {
                note(part);
            }
        }
        note(parts.rest());
        assert_eq!(seen, bytes);
        assert_eq!(parts.total_bytes(), total as u64);
        sizes
    }

    #[test]
    fn parts_keep_bytes_and_order_and_the_last_one_is_not_small() {
        let part = 8 << 20;
        assert_eq!(cut(0, 1, None), [0]);
        assert_eq!(cut(100, 7, None), [100]);
        let one_more_than_two = 2 * part + 1;
        for chunk in [4_000, 65_536, 3 << 20, 64 << 20] {
            let sizes = cut(one_more_than_two, chunk, None);
            assert_eq!(sizes, [part as u64, part as u64 + 1], "{chunk}");
            assert_eq!(cut(2 * part - 1, chunk, None), [2 * part as u64 - 1]);
        }
    }

    #[test]
    fn what_is_told_of_parts_is_how_they_are_cut() {
        let part = 8 << 20;
        for total in [
            0,
            1,
            part,
            2 * part - 1,
            2 * part,
            3 * part - 1,
            5 * part + 9,
        ] {
            let sizes = cut(total, 3 << 20, Some(total as u64));
            let (count, size) = parts_of(total as u64);
            assert_eq!(count, sizes.len() as u64, "{total}");
            assert!(sizes.iter().rev().skip(1).all(|it| *it == size), "{total}");
        }
    }

    #[test]
    fn a_file_of_any_length_fits_ten_thousand_parts() {
        let five_tib = 5_u64 << 40;
        let known = Parts::new(Some(five_tib)).part_bytes();
        assert!(five_tib / known <= MOST_PARTS);
        let mut unknown = Parts::new(None);
        let (mut bytes, mut number) = (0, 0);
        while bytes < 4_u64 << 40 {
            unknown.taken = number;
            bytes += unknown.part_bytes();
            number += 1;
        }
        assert!(number < 10_000, "{number}");
    }
}
