//! What two manifests of one directory tell differently.

use std::cmp::Ordering;

use alluxio_ufs::is_version;
use alluxio_wire::FileStatus;

use super::Manifest;

/// One file that two manifests tell differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the later one has it.
    Added(FileStatus),
    /// Only the earlier one has it.
    Removed(FileStatus),
    /// Both have it, in different versions.
    Replaced {
        /// As the earlier one has it.
        before: FileStatus,
        /// As the later one has it.
        after: FileStatus,
    },
}

/// What changed from `before` to `after`, in the order in which both are sorted.
pub fn diff<'a>(before: &'a Manifest, after: &'a Manifest) -> impl Iterator<Item = Change> + 'a {
    let mut old = before.below("").peekable();
    let mut new = after.below("").peekable();
    std::iter::from_fn(move || {
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => place(old).cmp(&place(new)),
            };
            match order {
                Ordering::Less => return old.next().map(Change::Removed),
                Ordering::Greater => return new.next().map(Change::Added),
                Ordering::Equal => {
                    let (before, after) = (old.next()?, new.next()?);
                    if !is_version(&after, &before.version()) {
                        return Some(Change::Replaced { before, after });
                    }
                }
            }
        }
    })
}

/// What a manifest is sorted by.
fn place(status: &FileStatus) -> (&str, &str) {
    super::split_path(status.path.trim_start_matches('/'))
}
