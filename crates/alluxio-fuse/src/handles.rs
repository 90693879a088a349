//! Open files and directories, by the handle that the kernel carries for us.
//!
//! A handle outlives the daemon that gave it, so it must mean something to a successor whose table
//! is empty. Its upper 48 bits are the fingerprint of the version that was opened: the successor
//! opens the inode again and compares, and a reader never gets bytes of two versions. The lower 16
//! bits only tell several openings of one version apart; should they ever be equal, two readers
//! share one entry, and one that is released too early is opened again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Bits of a handle that count openings.
const COUNT_MASK: u64 = 0xffff;

/// The open things of one kind, by inode and handle.
pub(crate) struct Handles<V> {
    open: RwLock<HashMap<(u64, u64), Arc<V>>>,
    opened: AtomicU64,
}

impl<V> Handles<V> {
    /// No open things.
    pub(crate) fn new() -> Self {
        Self {
            open: RwLock::new(HashMap::new()),
            opened: AtomicU64::new(0),
        }
    }

    /// Keeps an opened thing, and gives the handle for it.
    pub(crate) fn add(&self, inode: u64, fingerprint_bits: u64, value: V) -> u64 {
        let handle = self.reserve(fingerprint_bits);
        self.restore(inode, handle, value);
        handle
    }

    /// Gives a handle for which nothing is kept yet.
    pub(crate) fn reserve(&self, fingerprint_bits: u64) -> u64 {
        let count = self.opened.fetch_add(1, Ordering::Relaxed);
        fingerprint_bits & !COUNT_MASK | count & COUNT_MASK
    }

    /// Keeps a thing under a handle that a predecessor gave.
    pub(crate) fn restore(&self, inode: u64, handle: u64, value: V) -> Arc<V> {
        let value = Arc::new(value);
        self.open
            .write()
            .insert((inode, handle), Arc::clone(&value));
        value
    }

    /// The open thing, unless a predecessor opened it.
    pub(crate) fn get(&self, inode: u64, handle: u64) -> Option<Arc<V>> {
        self.open.read().get(&(inode, handle)).cloned()
    }

    /// Any open thing of an inode. Looks through all of them, so it is for rare questions.
    pub(crate) fn any_of(&self, inode: u64) -> Option<Arc<V>> {
        let open = self.open.read();
        open.iter()
            .find(|((of, _), _)| *of == inode)
            .map(|(_, value)| Arc::clone(value))
    }

    /// Forgets a thing; one that is not known, or no longer, is fine.
    pub(crate) fn remove(&self, inode: u64, handle: u64) {
        // Dropped after the lock is given back: an open file may have much to free.
        let removed = self.open.write().remove(&(inode, handle));
        drop(removed);
    }
}

/// Whether a handle was given for the version with this fingerprint.
pub(crate) fn is_of_version(handle: u64, fingerprint_bits: u64) -> bool {
    handle & !COUNT_MASK == fingerprint_bits & !COUNT_MASK
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    #[test]
    fn openings_of_one_version_have_handles_of_their_own() {
        let handles = Handles::new();
        let version = 0xAAAA_BBBB_CCCC_DDDD;
        let first = handles.add(7, version, "first");
        let second = handles.add(7, version, "second");
        assert_ne!(first, second);
        assert!(is_of_version(first, version) && is_of_version(second, version));
        assert!(!is_of_version(first, version ^ 1 << 16));
        handles.remove(7, first);
        assert_eq!(*handles.any_of(7).unwrap(), "second");
        assert!(handles.any_of(8).is_none());
        assert!(handles.get(7, first).is_none());
        assert_eq!(*handles.get(7, second).unwrap(), "second");
    }

    #[test]
    fn a_predecessors_handle_is_unknown_until_restored_and_may_be_released_twice() {
        let handles = Handles::new();
        assert!(handles.get(7, 42).is_none());
        handles.remove(7, 42);
        handles.restore(7, 42, "again");
        assert_eq!(*handles.get(7, 42).unwrap(), "again");
        assert!(handles.get(8, 42).is_none(), "a handle is the inode's own");
        handles.remove(7, 42);
        handles.remove(7, 42);
    }
}
