//! How long a worker usually takes: an estimate of the 95th percentile in one word.
//!
//! A histogram a worker would tell more, and cost more: this is learned from with each page. The
//! estimate steps up by 19 parts on a longer time and down by one on a shorter one, so it rests
//! where one time in twenty is longer.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Times that are seen before the estimate counts; fewer hold no 95th percentile.
const LEAST_TIMES: u32 = 32;
/// A step is this part of the estimate: a few hundred pages after a change it is right again.
const STEP_PART: u64 = 256;
/// Steps up for one step down: the ratio of 95 to 5.
const STEPS_UP: u64 = 19;

/// The times of one worker. Two that learn at one instant may lose a step, which does not matter.
#[derive(Debug, Default)]
pub(super) struct Latency {
    times: AtomicU32,
    estimate_us: AtomicU64,
}

impl Latency {
    /// Learns from one page.
    pub(super) fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let known = self.estimate_us.load(Ordering::Relaxed);
        let times = self.times.load(Ordering::Relaxed);
        if times < LEAST_TIMES {
            self.times.store(times + 1, Ordering::Relaxed);
        }
        let next = estimate(known, took, times);
        self.estimate_us.store(next, Ordering::Relaxed);
    }

    /// The time that one page in twenty exceeds; none before enough of them came.
    pub(super) fn usual(&self) -> Option<Duration> {
        let is_known = self.times.load(Ordering::Relaxed) >= LEAST_TIMES;
        is_known.then(|| Duration::from_micros(self.estimate_us.load(Ordering::Relaxed)))
    }
}

/// The next estimate: the longest of the first times, then steps.
fn estimate(known: u64, took: u64, times: u32) -> u64 {
    if times < LEAST_TIMES {
        return known.max(took);
    }
    let step = known / STEP_PART + 1;
    if took > known {
        known.saturating_add(STEPS_UP * step).min(took)
    } else {
        known.saturating_sub(step).max(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_of_a_worker_that_gave_few_pages() {
        let latency = Latency::default();
        for _ in 1..LEAST_TIMES {
            latency.learn(Duration::from_millis(3));
        }
        assert_eq!(latency.usual(), None);
        latency.learn(Duration::from_millis(2));
        assert_eq!(latency.usual(), Some(Duration::from_millis(3)));
    }

    #[test]
    fn it_rests_where_one_time_in_twenty_is_longer() {
        let latency = Latency::default();
        // 1 to 1000 ms in an order without a run, many times over.
        for i in 0..50_000u64 {
            latency.learn(Duration::from_millis(1 + i * 389 % 1000));
        }
        let usual = latency.usual().unwrap_or_default().as_millis();
        assert!((880..=1000).contains(&usual), "{usual} ms");
    }

    #[test]
    fn it_follows_a_worker_that_became_fast_or_slow() {
        let latency = Latency::default();
        let ms = |count, ms| (0..count).for_each(|_| latency.learn(Duration::from_millis(ms)));
        ms(100, 100);
        ms(2000, 1);
        assert!(latency.usual() <= Some(Duration::from_millis(2)));
        ms(200, 100);
        assert!(latency.usual() >= Some(Duration::from_millis(50)));
    }
}
