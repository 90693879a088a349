//! A bound on bytes a second, shared by all batches of one load on this worker.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What may pass at once after a pause: a second's worth.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket, kept as the moment up to which the bytes so far are paid for.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    paid_until: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            paid_until: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` may be read. In any time no more pass than that time at the rate, the
    /// burst, and the one page that is larger than what is left.
    pub(super) async fn pass(&self, bytes: u64) {
        let begin = {
            let mut paid_until = self.paid_until.lock();
            let now = Instant::now();
            let oldest = now.checked_sub(BURST).unwrap_or(now);
            let begin = (*paid_until).max(oldest);
            *paid_until = begin + self.cost(bytes);
            begin
        };
        tokio::time::sleep_until(begin).await;
    }

    /// Whether nobody waits here and the burst is whole again, so that a new one would be no other.
    pub(super) fn is_idle(&self) -> bool {
        self.paid_until.lock().elapsed() >= BURST
    }

    fn cost(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts what passes in ten seconds of Tokio's clock, which stands still but for sleeps.
    async fn passed_in_ten_seconds(throttle: Throttle, page: u64, readers: usize) -> u64 {
        let throttle = Arc::new(throttle);
        let passed = Arc::new(AtomicU64::new(0));
        let readers = (0..readers).map(|_| {
            let (throttle, passed) = (Arc::clone(&throttle), Arc::clone(&passed));
            async move {
                loop {
                    throttle.pass(page).await;
                    passed.fetch_add(page, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        let all = futures::future::join_all(readers);
        let ten_seconds = Duration::from_millis(9999);
        let _endless = tokio::time::timeout(ten_seconds, all).await;
        passed.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_bytes_pass_than_the_rate_however_many_read() {
        for (page, readers) in [(500, 1), (500, 16), (70, 3)] {
            let passed = passed_in_ten_seconds(Throttle::new(1000), page, readers).await;
            // Ten seconds' worth and one page; and not less than was allowed.
            assert!(passed <= 10_000 + page, "{passed}");
            assert!(passed >= 10_000 - page, "{passed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_up_one_second_and_no_more() {
        let throttle = Throttle::new(1000);
        throttle.pass(1).await;
        assert!(!throttle.is_idle());
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(throttle.is_idle());
        let passed = passed_in_ten_seconds(throttle, 100, 4).await;
        assert!((10_900..=11_100).contains(&passed), "{passed}");
    }
}
