//! Maglev hashing: workers fill a table of prime length in turn, each along its own permutation.

use alluxio_wire::WorkerId;

use super::hash_of;
use super::murmur3::murmur3_32;

/// Behind a key's attempt; Alluxio writes its seeds as signed decimal numbers.
pub(super) const INDEX_SEED: i32 = 0xDEAD_BEEF_u32.cast_signed();
const OFFSET_SEED: i32 = 0xDEAD_BABE_u32.cast_signed();
const SKIP_SEED: i32 = 0xDEAD_DEAD_u32.cast_signed();
/// Alluxio's default length of the table, a prime far above the number of workers.
const TABLE_LENGTH: i32 = 65537;
/// CRC-32C's polynomial, reflected.
const CASTAGNOLI: u32 = 0x82f6_3b78;

/// For each position an index into the ring's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MaglevTable(Vec<Option<u32>>);

/// Where a worker stands in its permutation, and how far it goes in a turn.
struct Permutation {
    current: i32,
    skip: i32,
}

impl MaglevTable {
    /// Fills the table by workers in Java's order.
    pub(super) fn new(workers: &[WorkerId]) -> Self {
        let mut table = vec![None; TABLE_LENGTH as usize];
        let mut permutations: Vec<_> = workers.iter().map(Permutation::new).collect();
        let mut empty = table.len();
        // After as many turns each permutation has come to all positions.
        for _ in 0..TABLE_LENGTH {
            for (worker, permutation) in (0u32..).zip(&mut permutations) {
                let place = &mut table[permutation.next()];
                if place.is_none() {
                    *place = Some(worker);
                    empty -= 1;
                }
            }
            if empty == 0 {
                break;
            }
        }
        Self(table)
    }

    pub(super) fn look_up(&self, hash: i32) -> Option<u32> {
        self.0[(hash % TABLE_LENGTH).unsigned_abs() as usize]
    }
}

impl Permutation {
    fn new(worker: &WorkerId) -> Self {
        let hash = hash_of(worker);
        let offset = murmur3_32(format!("{hash}{OFFSET_SEED}").as_bytes());
        let skip = crc32c(format!("{hash}{SKIP_SEED}").as_bytes()).cast_signed();
        Self {
            current: offset % TABLE_LENGTH,
            skip: skip % (TABLE_LENGTH - 1) + 1,
        }
    }

    /// Both parts may be negative, as Java's remainders are.
    fn next(&mut self) -> usize {
        self.current = (self.current + self.skip) % TABLE_LENGTH;
        self.current.unsigned_abs() as usize
    }
}

/// CRC-32C of a few bytes, bit by bit: it runs once a worker.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (CASTAGNOLI & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_value_of_crc_32c_holds() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
