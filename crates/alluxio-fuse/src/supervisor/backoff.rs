//! When a dead daemon is replaced: at once, unless daemons keep dying.

use std::time::Duration;

/// A daemon that served for less has not really lived: at most about ten starts a second.
const SHORT_LIFE: Duration = Duration::from_millis(100);

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause: readers wait for it, so it is short for a person; it is long for a machine.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// After so long without a daemon that serves, the mount is given up and readers get an error in
/// place of a wait without end. A mounter pod that must fetch its image is back sooner.
const GIVE_UP_AFTER: Duration = Duration::from_mins(10);

/// Counts what went wrong in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause before a daemon is started in place of one that served for so long.
    pub(super) fn after(&mut self, served: Duration) -> Duration {
        if served >= SHORT_LIFE {
            self.failures = 0;
            return Duration::ZERO;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(20));
        self.failures += 1;
        pause.min(LONGEST_PAUSE)
    }

    /// Whether to give up, when none has served for so long.
    pub(super) fn is_hopeless(without_service: Duration) -> bool {
        without_service >= GIVE_UP_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_lived_is_replaced_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            assert_eq!(backoff.after(SHORT_LIFE), Duration::ZERO);
        }
    }

    #[test]
    fn daemons_that_die_at_birth_are_replaced_ever_more_slowly() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..100).map(|_| backoff.after(Duration::ZERO)).collect();
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[99], LONGEST_PAUSE);
        assert_eq!(backoff.after(SHORT_LIFE), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO), FIRST_PAUSE);
    }
}
