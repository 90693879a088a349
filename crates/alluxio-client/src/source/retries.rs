//! How often a failed request may be made again: a share of all requests, kept as a bucket.
//!
//! Each request puts a part of a token into the bucket, each repetition takes a whole one out. So
//! while everything works a failure is always tried elsewhere, and when everything fails the rest
//! of the cluster is asked little more than ever instead of twice as much.

use std::sync::atomic::{AtomicU64, Ordering};

/// Tokens that the bucket holds at most, and at first: a short failure of one worker among many
/// pages in flight is ridden over as a whole.
const FULL_TOKENS: u64 = 64;
/// The parts of a token, so that a share in percent is whole.
const PARTS: u64 = 100;

/// The bucket. One serves repetitions, another one hedged requests.
#[derive(Debug)]
pub(super) struct Share {
    percent: u64,
    full: u64,
    parts: AtomicU64,
}

impl Share {
    /// Lets `percent` of the requests be repeated; the bucket is full at first.
    pub(super) fn of_retries(percent: u32) -> Self {
        // A share of nothing is nothing from the start.
        let full = if percent == 0 { 0 } else { FULL_TOKENS * PARTS };
        Self {
            percent: u64::from(percent),
            full,
            parts: AtomicU64::new(full),
        }
    }

    /// The same; the bucket is empty at first, so that the share holds at every moment.
    pub(super) fn of_hedges(percent: u32) -> Self {
        Self {
            percent: u64::from(percent),
            full: FULL_TOKENS * PARTS,
            parts: AtomicU64::new(0),
        }
    }

    /// A first request is made.
    pub(super) fn request(&self) {
        // Full most of the time, and then nothing is written that other cores read.
        if self.parts.load(Ordering::Relaxed) < self.full {
            let more = |parts: u64| Some((parts + self.percent).min(self.full));
            let _ = self
                .parts
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Whether one more may be made; it is then counted.
    pub(super) fn take(&self) -> bool {
        let less = |parts: u64| parts.checked_sub(PARTS);
        self.parts
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_ridden_over_and_then_the_share_holds() {
        let share = Share::of_retries(10);
        let taken = |requests: usize| {
            let one = |_: &usize| {
                share.request();
                share.take()
            };
            (0..requests).filter(one).count()
        };
        assert!((64..=71).contains(&taken(64 + 8)));
        let later = taken(1000);
        assert!((95..=105).contains(&later), "{later}");
    }

    #[test]
    fn no_more_than_the_share_is_ever_hedged() {
        let share = Share::of_hedges(5);
        let mut taken = 0;
        for request in 1..=1000 {
            share.request();
            taken += u64::from(share.take());
            assert!(taken * 100 <= request * 5, "{taken} of {request}");
        }
        assert_eq!(taken, 50);
    }

    #[test]
    fn a_share_of_nothing_allows_nothing() {
        let share = Share::of_retries(0);
        share.request();
        assert!(!share.take());
    }
}
