//! A bound on bytes a second, shared by all batches of one load on this worker.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets bytes pass at a rate.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    /// When the bytes that were let pass so far are paid for.
    paid_until: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            paid_until: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` may be read. They are paid for after they passed, so the first ones do
    /// not wait, and over time no more than the rate goes through.
    pub(super) async fn pass(&self, bytes: u64) {
        let begin = {
            let mut paid_until = self.paid_until.lock();
            let begin = (*paid_until).max(Instant::now());
            *paid_until = begin + self.cost(bytes);
            begin
        };
        tokio::time::sleep_until(begin).await;
    }

    fn cost(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_the_rate_and_not_faster() {
        let throttle = Throttle::new(1000);
        let began = Instant::now();
        for _ in 0..5 {
            throttle.pass(500).await;
        }
        // Tokio's clock stands still but for sleeps, so this is exact: four pages were waited for.
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }
}
