//! What lives of the memory that the limit speaks of: bytes count until the last who holds them lets
//! go, and not until the cache does.
//!
//! A reader that keeps what it was handed keeps the page alive after its eviction. So each page's
//! bytes carry a charge that ends with their last slice, and the store makes room for pages that
//! others hold as it does for its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use prometheus::IntGauge;

/// The bytes of all pages alive, in the store or held by readers, and of writes that were not sent.
#[derive(Debug, Default)]
pub struct Account {
    bytes: AtomicI64,
    gauge: Option<IntGauge>,
}

/// Bytes that count as long as this lives.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: i64,
}

/// Bytes with their charge.
struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

impl Account {
    /// An account that shows its sum in a gauge.
    pub(crate) fn shown_in(gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicI64::new(0),
            gauge: Some(gauge),
        })
    }

    /// The sum.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// The same bytes; they count until their last slice is dropped.
    pub(crate) fn charged(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let mut charge = self.charge();
        charge.set(bytes.len() as u64);
        Bytes::from_owner(Charged {
            bytes,
            _charge: charge,
        })
    }

    /// A charge of nothing yet.
    pub(crate) fn charge(self: &Arc<Self>) -> Charge {
        Charge {
            account: Arc::clone(self),
            bytes: 0,
        }
    }

    fn add(&self, bytes: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(gauge) = &self.gauge {
            gauge.add(bytes);
        }
    }
}

impl Charge {
    /// Counts so many bytes from now on.
    pub(crate) fn set(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.account.add(bytes - self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.add(-self.bytes);
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_their_last_slice_is_dropped() {
        let account: Arc<Account> = Arc::default();
        let whole = account.charged(Bytes::from(vec![7; 100]));
        let slice = whole.slice(10..20);
        assert_eq!((account.bytes(), &slice[..]), (100, &[7; 10][..]));
        drop(whole);
        assert_eq!(account.bytes(), 100);
        drop(slice);
        assert_eq!(account.bytes(), 0);
    }

    #[test]
    fn a_charge_follows_what_it_is_set_to() {
        let account: Arc<Account> = Arc::default();
        let mut charge = account.charge();
        for bytes in [10, 3, 8] {
            charge.set(bytes);
            assert_eq!(account.bytes(), bytes);
        }
        drop(charge);
        assert_eq!(account.bytes(), 0);
    }
}
