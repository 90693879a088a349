//! What the log keeps: a record for each inode, and for each change of one.

use std::io;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Fingerprint;
use crate::protocol::ROOT_INODE;

/// Bytes of a record before the name: the parent's number (8), the version's fingerprint (8) and the
/// name's length (2).
pub(super) const RECORD_HEADER_BYTES: usize = 18;

/// In place of a parent, in the record of an inode that has another version now: the version is the new
/// one, the name the inode's number.
pub(super) const CHANGED: u64 = u64::MAX;

/// In place of a parent, in the record of an inode that has another place now: the version is the number
/// of the new parent, the name the inode's number, a `/` and the new name.
pub(super) const MOVED: u64 = u64::MAX - 1;

/// What the log keeps of an inode.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Record<'a> {
    pub(super) parent: u64,
    pub(super) version: Fingerprint,
    pub(super) name: &'a str,
}

impl<'a> Record<'a> {
    pub(super) fn hash(&self) -> u64 {
        let seed = self.parent ^ self.version.0.rotate_left(32);
        xxh3_64_with_seed(self.name.as_bytes(), seed)
    }

    pub(super) fn to_bytes(self) -> io::Result<Vec<u8>> {
        let length = u16::try_from(self.name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
        let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + self.name.len());
        bytes.extend_from_slice(&self.parent.to_le_bytes());
        bytes.extend_from_slice(&self.version.0.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        Ok(bytes)
    }

    /// Of a record that changes an inode: its number, and the rest of the name.
    pub(super) fn changed(&self) -> Option<(u64, &'a str)> {
        let (number, name) = self.name.split_once('/').unwrap_or((self.name, ""));
        Some((number.parse().ok()?, name))
    }

    /// Whether all inodes that the record speaks of are among the first `known` ones.
    pub(super) fn is_possible(&self, known: usize) -> bool {
        let known = ROOT_INODE..ROOT_INODE + known as u64;
        let changed = self.changed().map(|(number, _)| number);
        let is_known = |number: u64| known.contains(&number);
        match self.parent {
            CHANGED => changed.is_some_and(is_known),
            MOVED => changed.is_some_and(is_known) && is_known(self.version.0),
            parent => is_known(parent),
        }
    }

    /// The first record, and what follows it.
    fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (parent, rest) = bytes.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| !name.is_empty())?;
        let record = Self {
            parent: u64::from_le_bytes(*parent),
            version: Fingerprint(u64::from_le_bytes(*version)),
            name,
        };
        Some((record, rest))
    }
}

/// The records of a piece of a log behind `known` inodes, and how many bytes are whole records.
pub(super) fn parse(bytes: &[u8], known: usize) -> (Vec<Record<'_>>, usize) {
    let (mut records, mut known) = (Vec::new(), known);
    let mut rest = bytes;
    while let Some((record, after)) = Record::parse(rest) {
        // A parent was told before its child, so its record comes first.
        if !record.is_possible(known) {
            break;
        }
        known += usize::from(!matches!(record.parent, CHANGED | MOVED));
        records.push(record);
        rest = after;
    }
    (records, bytes.len() - rest.len())
}
