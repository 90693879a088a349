//! One record of the index log: 48 bytes that prove themselves.
//!
//! All records have one length, so a damaged one is stepped over and the next is read; the last
//! record of a key wins. Little endian throughout:
//!
//! | bytes | `File` | `Page` | `Used` | `Removed` | `Proven` |
//! |---|---|---|---|---|---|
//! | 0–15 | key | key | key | key | key |
//! | 16–22 | page size | index | 0 | 0 | the boot |
//! | 23 | 1 | 2 | 3 | 4 | 5 |
//! | 24–31 | length | XXH3 of the page | 0 | 0 | the data file's change time |
//! | 32–39 | seconds since 1970 | the same | the same | 0 | 0 |
//! | 40–47 | XXH3 of bytes 0–39 | the same | the same | the same | the same |

use sha2::{Digest, Sha256};
use twox_hash::XxHash3_64;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::source::OpenedFile;

/// The length of a record.
pub(super) const RECORD_BYTES: usize = 48;
const CHECKED_BYTES: usize = 40;
/// Bits 56–63 of the second word are the kind; page sizes and indices are far below 2^56.
const KIND_SHIFT: u32 = 56;
/// So that a block of zeros, or a record of another program, is not one of ours.
const SEED: u64 = u64::from_le_bytes(*b"addcach1");

/// Names one version of one file, read in pages of one size.
///
/// It is cut from a SHA-256, so that names and versions chosen with ill intent do not meet in one
/// key and no file is served as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileKey(pub(super) [u8; 16]);

/// What the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// A data file is about to be made.
    File {
        key: FileKey,
        page_size_bytes: u64,
        length_bytes: u64,
        at_s: u64,
    },
    /// A page lies in it, whole.
    Page {
        key: FileKey,
        index: u64,
        sum: u64,
        at_s: u64,
    },
    /// It was read.
    Used { key: FileKey, at_s: u64 },
    /// Its data file is gone.
    Removed { key: FileKey },
    /// All of it is there, and every page was compared.
    Proven { key: FileKey, proof: Proof },
}

/// When every page of a data file was compared with its checksum.
///
/// It holds as long as nobody changed the file, which its change time tells, and as long as the
/// machine was not started anew: until then what was compared is what is read, by way of the page
/// cache or of a disk that got it from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    /// 56 bits that stand for this start of the machine.
    pub(super) boot: u64,
    /// The data file's change time in nanoseconds since 1970.
    pub(super) changed_ns: u64,
}

impl FileKey {
    /// The key of an opened file.
    pub(super) fn of(file: &OpenedFile) -> Self {
        let mut hash = Sha256::new();
        hash.update(file.id.as_bytes());
        hash.update(file.length.to_le_bytes());
        hash.update(file.page_size.bytes().to_le_bytes());
        hash.update(file.version.as_str());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }
}

/// The checksum of a page's bytes, XXH3, by the library that uses the widest registers that the
/// processor has: at half the time it is still a tenth of what a page from the disk costs.
pub(crate) fn sum_of(page: &[u8]) -> u64 {
    XxHash3_64::oneshot(page)
}

impl Record {
    /// The bytes of the record.
    pub(super) fn encode(&self) -> [u8; RECORD_BYTES] {
        let (key, kind, small, value, at_s) = match *self {
            Self::File {
                key,
                page_size_bytes,
                length_bytes,
                at_s,
            } => (key, 1, page_size_bytes, length_bytes, at_s),
            Self::Page {
                key,
                index,
                sum,
                at_s,
            } => (key, 2, index, sum, at_s),
            Self::Used { key, at_s } => (key, 3, 0, 0, at_s),
            Self::Removed { key } => (key, 4, 0, 0, 0),
            Self::Proven { key, proof } => (key, 5, proof.boot, proof.changed_ns, 0),
        };
        let mut bytes = [0; RECORD_BYTES];
        bytes[..16].copy_from_slice(&key.0);
        bytes[16..24].copy_from_slice(&(small | kind << KIND_SHIFT).to_le_bytes());
        bytes[24..32].copy_from_slice(&value.to_le_bytes());
        bytes[32..40].copy_from_slice(&at_s.to_le_bytes());
        let check = xxh3_64_with_seed(&bytes[..CHECKED_BYTES], SEED);
        bytes[40..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// The record, unless the bytes are not what was written.
    pub(super) fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        if word(CHECKED_BYTES) != xxh3_64_with_seed(&bytes[..CHECKED_BYTES], SEED) {
            return None;
        }
        let mut key = FileKey([0; 16]);
        key.0.copy_from_slice(&bytes[..16]);
        let small = word(16) & ((1 << KIND_SHIFT) - 1);
        let at_s = word(32);
        match word(16) >> KIND_SHIFT {
            1 => Some(Self::File {
                key,
                page_size_bytes: small,
                length_bytes: word(24),
                at_s,
            }),
            2 => Some(Self::Page {
                key,
                index: small,
                sum: word(24),
                at_s,
            }),
            3 => Some(Self::Used { key, at_s }),
            4 => Some(Self::Removed { key }),
            5 => Some(Self::Proven {
                key,
                proof: Proof {
                    boot: small,
                    changed_ns: word(24),
                },
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FileKey = FileKey([7; 16]);

    fn all() -> [Record; 5] {
        [
            Record::File {
                key: KEY,
                page_size_bytes: 1 << 20,
                length_bytes: u64::MAX,
                at_s: 1,
            },
            Record::Page {
                key: KEY,
                index: (1 << KIND_SHIFT) - 1,
                sum: u64::MAX,
                at_s: 2,
            },
            Record::Used { key: KEY, at_s: 3 },
            Record::Removed { key: KEY },
            Record::Proven {
                key: KEY,
                proof: Proof {
                    boot: (1 << KIND_SHIFT) - 1,
                    changed_ns: u64::MAX,
                },
            },
        ]
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        for record in all() {
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_found() {
        for record in all() {
            for bit in 0..RECORD_BYTES * 8 {
                let mut bytes = record.encode();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&bytes), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(Record::decode(&[0; RECORD_BYTES]), None);
    }
}
