//! What is remembered of running loads between two looks at them.
//!
//! It lives in memory: an operator that starts anew only counts polls from zero again, and takes
//! the load's first start for that of its attempt.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;

/// One entry for each running load, by its uid.
#[derive(Debug, Default)]
pub struct Attempts {
    by_load: Mutex<HashMap<String, Attempt>>,
}

#[derive(Debug, Default)]
struct Attempt {
    began: Option<Timestamp>,
    unanswered: u32,
}

impl Attempts {
    /// A worker took the load.
    pub fn began(&self, uid: &str, now: Timestamp) {
        let attempt = Attempt {
            began: Some(now),
            unanswered: 0,
        };
        self.lock().insert(uid.to_owned(), attempt);
    }

    /// The worker said how far it is; gives when the attempt began, if that is known.
    pub fn answered(&self, uid: &str) -> Option<Timestamp> {
        let mut attempts = self.lock();
        let attempt = attempts.get_mut(uid)?;
        attempt.unanswered = 0;
        attempt.began
    }

    /// The worker did not say how far it is; gives for how many polls in a row.
    pub fn unanswered(&self, uid: &str) -> u32 {
        let mut attempts = self.lock();
        let attempt = attempts.entry(uid.to_owned()).or_default();
        attempt.unanswered = attempt.unanswered.saturating_add(1);
        attempt.unanswered
    }

    /// The load has ended or is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Attempt>> {
        self.by_load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::second;

    #[test]
    fn only_polls_in_a_row_are_counted() {
        let attempts = Attempts::default();
        assert_eq!((attempts.unanswered("a"), attempts.unanswered("a")), (1, 2));
        assert_eq!(attempts.unanswered("b"), 1);
        assert_eq!(attempts.answered("a"), None);
        assert_eq!(attempts.unanswered("a"), 1);
    }

    #[test]
    fn another_attempt_begins_anew() {
        let attempts = Attempts::default();
        attempts.began("a", second(1));
        attempts.unanswered("a");
        attempts.began("a", second(9));
        assert_eq!(attempts.answered("a"), Some(second(9)));
        attempts.forget("a");
        assert_eq!(
            (attempts.answered("a"), attempts.unanswered("a")),
            (None, 1)
        );
    }
}
