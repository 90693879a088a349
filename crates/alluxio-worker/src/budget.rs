//! A bound on the bytes of pages that are in memory at one time.
//!
//! Each page that is read takes a lease of its length first, and the lease ends when the last
//! clone of its bytes is gone, which is when the slowest client has them. A request waits for a
//! lease without holding another, so there is always one that goes on.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of pages in memory. A 25 Gbit/s link holds 3 MB within one millisecond, so this keeps any
/// link busy, and leaves a pod of 512 MiB the other half.
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// What leases are counted in: the blocks that are read from the disk. A range may begin and end
/// within a block, so it takes one more than its length says.
const UNIT_BYTES: u64 = 64 * 1024;

/// The bound; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    total_units: u32,
}

/// The right to hold some bytes.
#[derive(Debug)]
pub(crate) struct Lease {
    _units: Option<OwnedSemaphorePermit>,
}

/// Bytes that give their lease back when they are dropped.
struct Leased {
    bytes: Bytes,
    _lease: Lease,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self::of(MEMORY_BYTES)
    }

    fn of(bytes: u64) -> Self {
        let total_units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        Self {
            units: Arc::new(Semaphore::new(total_units as usize)),
            total_units,
        }
    }

    /// Waits until `bytes` fit. What is larger than everything gets everything.
    pub(crate) async fn lease(&self, bytes: u64) -> Lease {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES) + 1).unwrap_or(u32::MAX);
        let units = units.min(self.total_units);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await;
        Lease {
            _units: permit.ok(),
        }
    }
}

impl Lease {
    /// Ties the lease to the bytes that it is for.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Leased {
            bytes,
            _lease: self,
        })
    }
}

impl AsRef<[u8]> for Leased {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_lease_lasts_as_long_as_any_slice_of_its_bytes() {
        let budget = Budget::of(2 * UNIT_BYTES);
        let page = budget
            .lease(UNIT_BYTES)
            .await
            .hold(Bytes::from(vec![1; 4096]));
        let slice = page.slice(10..20);
        drop(page);
        assert!(budget.lease(1).now_or_never().is_none());
        drop(slice);
        assert!(budget.lease(UNIT_BYTES).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_is_larger_than_everything_still_gets_its_turn() {
        let budget = Budget::of(2 * UNIT_BYTES);
        assert!(budget.lease(1 << 40).now_or_never().is_some());
    }
}
