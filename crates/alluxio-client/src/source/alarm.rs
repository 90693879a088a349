//! Says once, and not per read, that pages have begun to come from the under-store.
//!
//! A reason is active while it occurs at least once a minute. A line is written when one becomes
//! active; the counters tell how often it occurs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{FallbackReason, OpenedFile};

/// A reason that did not occur for so long has ended; its next occurrence is news. Longer than a
/// worker's restart, so that one outage is one line.
const QUIET: Duration = Duration::from_mins(1);

/// When each reason occurred last.
#[derive(Debug)]
pub(super) struct Alarm {
    started: Instant,
    /// Milliseconds after `started`, plus one; 0 is never.
    last: [AtomicU64; FallbackReason::ALL.len()],
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: Default::default(),
        }
    }
}

impl Alarm {
    /// Notes the reason, and logs it when it sets in.
    pub(super) fn raise(&self, reason: FallbackReason, file: &OpenedFile) {
        if reason == FallbackReason::Configured || !self.sets_in(reason, self.started.elapsed()) {
            return;
        }
        tracing::warn!(
            reason = reason.label(),
            file = %file.uri,
            "pages come from the under-store instead of the workers"
        );
    }

    fn sets_in(&self, reason: FallbackReason, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last = self.last[reason as usize].swap(now, Ordering::Relaxed);
        last == 0 || u128::from(now.saturating_sub(last)) > QUIET.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_news_once_until_it_was_quiet() {
        let alarm = Alarm::default();
        let at = |seconds| alarm.sets_in(FallbackReason::Miss, Duration::from_secs(seconds));
        let heard: Vec<bool> = [0, 1, 50, 100, 161, 162].map(at).into();
        assert_eq!(heard, [true, false, false, false, true, false]);
        assert!(alarm.sets_in(FallbackReason::Broken, Duration::from_secs(162)));
    }
}
