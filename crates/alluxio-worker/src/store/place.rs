//! Which of several directories a page belongs to. Pure.
//!
//! Weighted rendezvous hashing: each directory draws a number for the page, the larger the more it
//! may hold, and the largest wins. Each gets pages in proportion to its capacity, and taking one out
//! moves its own pages alone.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::PageKey;

/// A directory's part in the draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighed {
    seed: u64,
    weight: f64,
}

impl Weighed {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a capacity that is wrong by one part in 2^53 is right enough"
    )]
    pub(super) fn new(path: &Path, capacity_bytes: u64) -> Self {
        Self {
            seed: xxh3_64(path.as_os_str().as_bytes()),
            weight: capacity_bytes.max(1) as f64,
        }
    }

    /// What it draws for a page: `-weight / ln(u)` of a `u` in (0, 1).
    #[allow(
        clippy::cast_precision_loss,
        reason = "53 bits of the hash are taken, which a float holds"
    )]
    fn draw(&self, key: &PageKey) -> f64 {
        let mut page = [0; 40];
        page[..32].copy_from_slice(key.file.as_bytes());
        page[32..].copy_from_slice(&key.index.to_le_bytes());
        let bits = xxh3_64_with_seed(&page, self.seed) >> 11;
        let fraction = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
        -self.weight / fraction.ln()
    }
}

/// The one of some directories that a page belongs to.
pub(super) fn pick<'a, D>(
    directories: impl Iterator<Item = (&'a Weighed, D)>,
    key: &PageKey,
) -> Option<D> {
    let drawn = directories.map(|(weighed, directory)| (weighed.draw(key), directory));
    let most = drawn.max_by(|(one, _), (other, _)| one.total_cmp(other));
    most.map(|(_, directory)| directory)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_wire::FileId;

    use super::*;
    use crate::version::Version;

    const PAGES: u64 = 30_000;

    fn key(index: u64) -> PageKey {
        PageKey {
            file: FileId::from_bytes([7; 32]),
            tag: Version::written().tag(),
            index,
        }
    }

    fn three() -> [Weighed; 3] {
        [("/a", 1), ("/b", 2), ("/c", 3)]
            .map(|(path, gib)| Weighed::new(Path::new(path), gib << 30))
    }

    #[test]
    fn directories_get_pages_by_their_capacities() {
        let directories = three();
        let mut counts = [0_u64; 3];
        for index in 0..PAGES {
            counts[pick(directories.iter().zip(0..), &key(index)).unwrap()] += 1;
        }
        for (count, share) in counts.into_iter().zip([1, 2, 3]) {
            let expected = PAGES * share / 6;
            assert!(count.abs_diff(expected) < PAGES / 100, "{counts:?}");
        }
    }

    #[test]
    fn taking_one_out_moves_its_own_pages_alone() {
        let directories = three();
        for index in 0..1000 {
            let before = pick(directories.iter().zip(0..), &key(index)).unwrap();
            let after = pick(directories.iter().zip(0..).take(2), &key(index)).unwrap();
            assert!(before == after || before == 2);
        }
        assert_eq!(pick(std::iter::empty::<(&Weighed, u8)>(), &key(0)), None);
    }
}
