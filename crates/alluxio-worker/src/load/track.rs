//! How far a round has come without a gap, so that a restarted coordinator can go on from there.
//!
//! Files end in any order, while a listing can only be continued from a place in it. So the track
//! keeps the place before which every file is over, and a fingerprint of the files up to it: the
//! same listing, taken again after a restart, gives the same fingerprint there, whatever order the
//! store lists in. When it does not, something before the place changed, and the round begins anew
//! (what is cached is then passed over).

use std::collections::VecDeque;

use alluxio_wire::UfsUri;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::message::FileToLoad;

/// A place in a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cursor {
    /// Files before it.
    pub(super) files: u64,
    /// Their names and versions, hashed in order.
    pub(super) fingerprint: u64,
}

/// What the files up to a cursor amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Sums {
    pub(super) files_total: u64,
    pub(super) files_done: u64,
    pub(super) files_skipped: u64,
    pub(super) bytes_total: u64,
    pub(super) bytes_done: u64,
    pub(super) bytes_skipped: u64,
    pub(super) failures: u64,
}

/// The track of one round.
#[derive(Debug, Default)]
pub(super) struct Track {
    cursor: Cursor,
    sums: Sums,
    /// The files behind the cursor: their hashes, and what they came to once they are over.
    open: VecDeque<(u64, Option<Sums>)>,
}

impl Cursor {
    /// The place behind one more file.
    pub(super) fn after(self, file: &FileToLoad) -> Self {
        self.behind(hash(&file.uri, file))
    }

    fn behind(self, hash: u64) -> Self {
        Self {
            files: self.files + 1,
            fingerprint: xxh3_64_with_seed(&hash.to_le_bytes(), self.fingerprint),
        }
    }
}

impl Sums {
    /// All of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            files_total: self.files_total + other.files_total,
            files_done: self.files_done + other.files_done,
            files_skipped: self.files_skipped + other.files_skipped,
            bytes_total: self.bytes_total + other.bytes_total,
            bytes_done: self.bytes_done + other.bytes_done,
            bytes_skipped: self.bytes_skipped + other.bytes_skipped,
            failures: self.failures + other.failures,
        }
    }
}

impl Track {
    /// Goes on behind a cursor.
    pub(super) fn at(cursor: Cursor, sums: Sums) -> Self {
        Self {
            cursor,
            sums,
            open: VecDeque::new(),
        }
    }

    /// Enters the listing's next file and gives its number.
    pub(super) fn enter(&mut self, file: &FileToLoad) -> u64 {
        self.open.push_back((hash(&file.uri, file), None));
        self.cursor.files + self.open.len() as u64 - 1
    }

    /// Marks a file as over and moves the cursor as far as it can go.
    pub(super) fn over(&mut self, number: u64, sums: Sums) {
        let place = number.checked_sub(self.cursor.files);
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some((_, over)) = place.and_then(|place| self.open.get_mut(place)) {
            over.get_or_insert(sums);
        }
        while let Some((hash, Some(sums))) = self.open.front().copied() {
            self.cursor = self.cursor.behind(hash);
            self.sums = self.sums.plus(sums);
            self.open.pop_front();
        }
    }

    /// The place before which every file is over.
    pub(super) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What the files before the cursor came to.
    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    /// Files that were listed and are not behind the cursor.
    pub(super) fn span(&self) -> usize {
        self.open.len()
    }
}

fn hash(uri: &UfsUri, file: &FileToLoad) -> u64 {
    let hash = xxh3_64(uri.as_str().as_bytes());
    let hash = xxh3_64_with_seed(&file.length.to_le_bytes(), hash);
    match &file.content_hash {
        Some(content) => xxh3_64_with_seed(content.as_bytes(), hash),
        None => xxh3_64_with_seed(&file.modified_ms.to_le_bytes(), hash),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn file(number: u64) -> FileToLoad {
        FileToLoad {
            uri: UfsUri::parse(&format!("s3://b/{number}")).unwrap(),
            length: number,
            modified_ms: 0,
            content_hash: None,
            number: 0,
        }
    }

    fn one(bytes: u64) -> Sums {
        Sums {
            files_done: 1,
            bytes_done: bytes,
            ..Sums::default()
        }
    }

    #[test]
    fn the_fingerprint_tells_a_changed_file() {
        let cursor = Cursor::default().after(&file(1)).after(&file(2));
        let mut changed = file(2);
        changed.content_hash = Some("new".to_owned());
        assert_ne!(cursor, Cursor::default().after(&file(1)).after(&changed));
        assert_ne!(cursor, Cursor::default().after(&file(2)).after(&file(1)));
        assert_eq!(cursor.files, 2);
    }

    #[test]
    fn a_file_that_is_over_twice_counts_once() {
        let mut track = Track::default();
        track.enter(&file(0));
        track.enter(&file(1));
        track.over(1, one(5));
        track.over(1, one(5));
        track.over(9, one(5));
        assert_eq!(track.cursor(), Cursor::default());
        track.over(0, one(7));
        track.over(0, one(7));
        assert_eq!(
            (track.cursor().files, track.sums()),
            (2, one(7).plus(one(5)))
        );
        assert_eq!(track.span(), 0);
    }

    proptest! {
        #[test]
        fn in_whatever_order_files_end_the_cursor_has_no_gap_before_it(
            order in Just((0..40_u64).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut track = Track::default();
            for number in 0..40 {
                prop_assert_eq!(track.enter(&file(number)), number);
            }
            let mut over = Vec::new();
            for number in order {
                track.over(number, one(number));
                over.push(number);
                let without_gap = (0..40).take_while(|n| over.contains(n)).count() as u64;
                prop_assert_eq!(track.cursor().files, without_gap);
                prop_assert_eq!(track.sums().bytes_done, (0..without_gap).sum::<u64>());
            }
            let walked = (0..40).fold(Cursor::default(), |at, n| at.after(&file(n)));
            prop_assert_eq!(track.cursor(), walked);
        }
    }
}
