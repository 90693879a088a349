//! How many bytes may come from the under-store because workers failed, in any hour. Pure.
//!
//! A cluster that dies under a thousand clients turns all of their reads into requests to one
//! store: a bill and an outage more. The budget is spent before a page is asked for, so it is kept
//! however many reads run side by side. Minutes are counted, not bytes one by one: what was spent
//! leaves the account between sixty and sixty-one minutes later.

use std::time::Duration;

/// An hour and the minute that is under way, so that no hour whatever holds more than the limit.
const MINUTES: usize = 61;
const MINUTE: Duration = Duration::from_mins(1);

/// The account of the last hour.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bytes: u64,
    /// What was spent in a minute, by the minute modulo their number.
    spent: [u64; MINUTES],
    /// The newest minute in `spent`.
    minute: u64,
    /// The minute of the last refusal, until something is granted again.
    refused_in: Option<u64>,
}

/// What asking for bytes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// They may be read. `again` where the last answer was a refusal.
    Granted { again: bool },
    /// The budget is spent. `first` where the last answer was a grant.
    Refused { first: bool, more_in: Duration },
}

impl Budget {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            spent: [0; MINUTES],
            minute: 0,
            refused_in: None,
        }
    }

    /// Takes `bytes` at the time `now` since the client was made.
    ///
    /// After a refusal all is refused until the next minute, so that short pages do not slip
    /// through between long ones and the answer changes once a minute at most.
    pub(super) fn take(&mut self, bytes: u64, now: Duration) -> Grant {
        self.advance(now);
        let is_shut = self.refused_in == Some(self.minute);
        if is_shut || self.spent().saturating_add(bytes) > self.limit_bytes {
            let first = self.refused_in.replace(self.minute).is_none();
            let more_in = self.more_in(now);
            return Grant::Refused { first, more_in };
        }
        self.spent[slot(self.minute)] += bytes;
        let again = self.refused_in.take().is_some();
        Grant::Granted { again }
    }

    /// Gives back what was taken and did not come.
    pub(super) fn give_back(&mut self, bytes: u64, now: Duration) {
        self.advance(now);
        let slot = &mut self.spent[slot(self.minute)];
        // Of a minute that has passed, the rest stays spent: the budget errs to the safe side.
        *slot = slot.saturating_sub(bytes);
    }

    /// What was spent in the hour before `now`.
    pub(super) fn spent_by(&mut self, now: Duration) -> u64 {
        self.advance(now);
        self.spent()
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn spent(&self) -> u64 {
        self.spent.iter().sum()
    }

    fn advance(&mut self, now: Duration) {
        let minute = now.as_secs() / MINUTE.as_secs();
        for passed in (self.minute + 1..=minute).take(self.spent.len()) {
            self.spent[slot(passed)] = 0;
        }
        if minute > self.minute + MINUTES as u64 {
            self.spent = [0; MINUTES];
        }
        self.minute = self.minute.max(minute);
    }

    /// When the oldest bytes leave the account.
    fn more_in(&self, now: Duration) -> Duration {
        let oldest = self.minute.saturating_sub(MINUTES as u64 - 1);
        let first_spent = (oldest..=self.minute).find(|minute| self.spent[slot(*minute)] > 0);
        let leaves = MINUTE
            * u32::try_from(first_spent.unwrap_or(self.minute) + MINUTES as u64)
                .unwrap_or(u32::MAX);
        leaves.saturating_sub(now)
    }
}

fn slot(minute: u64) -> usize {
    usize::try_from(minute % MINUTES as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minutes(count: u64) -> Duration {
        MINUTE * u32::try_from(count).unwrap_or(u32::MAX)
    }

    #[test]
    fn what_is_over_the_limit_is_refused_until_an_hour_has_passed() {
        let mut budget = Budget::new(100);
        let granted = Grant::Granted { again: false };
        assert_eq!(budget.take(60, minutes(0)), granted);
        assert_eq!(budget.take(40, minutes(5)), granted);
        let refused = |first, more_in| Grant::Refused { first, more_in };
        assert_eq!(budget.take(1, minutes(6)), refused(true, minutes(55)));
        assert_eq!(budget.take(1, minutes(60)), refused(false, minutes(1)));
        assert_eq!(budget.take(60, minutes(61)), Grant::Granted { again: true });
        assert_eq!(budget.spent_by(minutes(61)), 100);
        assert_eq!(budget.spent_by(minutes(500)), 0);
    }

    #[test]
    fn after_a_refusal_a_short_page_waits_for_the_next_minute_like_a_long_one() {
        let mut budget = Budget::new(100);
        assert!(matches!(budget.take(95, minutes(0)), Grant::Granted { .. }));
        for bytes in [10, 1] {
            assert!(matches!(
                budget.take(bytes, minutes(0)),
                Grant::Refused { .. }
            ));
        }
        assert_eq!(budget.take(1, minutes(1)), Grant::Granted { again: true });
    }

    #[test]
    fn what_did_not_come_is_given_back() {
        let mut budget = Budget::new(100);
        assert!(matches!(
            budget.take(100, minutes(3)),
            Grant::Granted { .. }
        ));
        budget.give_back(100, minutes(3));
        assert_eq!(budget.spent_by(minutes(3)), 0);
        // Not twice, and not of an earlier minute.
        budget.give_back(100, minutes(4));
        assert_eq!(budget.spent_by(minutes(4)), 0);
    }

    proptest! {
        #[test]
        fn no_hour_holds_more_than_the_limit(
            takes in proptest::collection::vec((0u64..1000, 1u64..60), 1..200), limit in 50u64..500,
        ) {
            let mut budget = Budget::new(limit);
            let (mut now, mut granted) = (0, Vec::new());
            for (seconds, bytes) in takes {
                now += seconds;
                let grant = budget.take(bytes, Duration::from_secs(now));
                if matches!(grant, Grant::Granted { .. }) {
                    granted.push((now, bytes));
                }
                let hour: u64 = granted
                    .iter()
                    .filter(|(at, _)| at + 3600 > now)
                    .map(|(_, bytes)| bytes)
                    .sum();
                prop_assert!(hour <= limit, "{hour} of {limit} at {now} s");
                prop_assert!(budget.spent_by(Duration::from_secs(now)) >= hour);
            }
        }
    }
}
