//! A second request for a page whose worker is slow: to the next worker, after what the first one
//! usually takes, and for a small share of the pages only.
//!
//! Both are asked for the same version, and either one's page is whole and of that version or it is
//! none, so it does not matter whose comes first. The other request is dropped, and its connection
//! closed. Any other answer of the second worker is no answer: the first one is then waited for.

use std::time::Duration;

use alluxio_config::HedgeOptions;

use super::retries::Share;

/// The longest delay as a part of a worker's time to answer: after that the time is better left to
/// the fallback.
const LONGEST_PART: u32 = 2;

/// When and how often a second request is made.
#[derive(Debug)]
pub(super) struct Hedge {
    share: Share,
    min_delay: Duration,
    max_delay: Duration,
}

impl Hedge {
    pub(super) fn new(options: HedgeOptions, worker_timeout: Duration) -> Self {
        let max_delay = worker_timeout / LONGEST_PART;
        Self {
            share: Share::of_hedges(options.max_percent),
            min_delay: options.min_delay.min(max_delay),
            max_delay,
        }
    }

    /// A page is asked for; how long its worker is waited for alone, by what it usually takes. None
    /// where that is not known.
    pub(super) fn delay(&self, usual: Option<Duration>) -> Option<Duration> {
        self.share.request();
        usual.map(|usual| usual.clamp(self.min_delay, self.max_delay))
    }

    /// Whether a second request may be made now; it is then counted.
    pub(super) fn take(&self) -> bool {
        self.share.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_what_is_usual_within_bounds() {
        let options = HedgeOptions {
            max_percent: 5,
            min_delay: Duration::from_millis(10),
        };
        let hedge = Hedge::new(options, Duration::from_secs(2));
        let delay = |ms| hedge.delay(Some(Duration::from_millis(ms)));
        assert_eq!(delay(1), Some(Duration::from_millis(10)));
        assert_eq!(delay(50), Some(Duration::from_millis(50)));
        assert_eq!(delay(5000), Some(Duration::from_secs(1)));
        assert_eq!(hedge.delay(None), None);
    }
}
