//! Names of conditions, and the one way to build them.
//!
//! Conditions, not a phase: each says one thing, has a reason a program can match and a message a
//! person can act on. `lastTransitionTime` moves only when the status flips, so that an unchanged
//! world yields byte-for-byte the same status and no patch.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The dataset serves as its spec says: mountable, its workers answer, its under-store is not known
/// to be broken.
pub const READY: &str = "Ready";
/// A worker could look at the dataset's root in the under-store.
pub const UFS_REACHABLE: &str = "UFSReachable";
/// At least one worker answers its health check.
pub const WORKERS_AVAILABLE: &str = "WorkersAvailable";
/// The load that the spec asks for has succeeded.
pub const LOADED: &str = "Loaded";
/// The claim is bound: pods can use it.
pub const MOUNTABLE: &str = "Mountable";
/// On an `AlluxioDataLoad`: the run has succeeded.
pub const COMPLETE: &str = "Complete";

/// The longest message kept: what an event's note and a readable `kubectl describe` bear.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// What is known about one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
}

/// What one condition says, before it gets its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub truth: Truth,
    /// `CamelCase`, for programs.
    pub reason: &'static str,
    /// For people: object, cause and remedy.
    pub message: String,
}

/// Builds the conditions of one object at one generation, keeping the times of what did not flip.
#[derive(Clone, Debug)]
pub struct ConditionSet<'a> {
    previous: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    conditions: Vec<Condition>,
}

impl Truth {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl Verdict {
    /// It holds.
    pub fn holds(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            truth: Truth::True,
            reason,
            message: message.into(),
        }
    }

    /// It does not hold.
    pub fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            truth: Truth::False,
            reason,
            message: message.into(),
        }
    }

    /// Nobody can tell.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            truth: Truth::Unknown,
            reason,
            message: message.into(),
        }
    }
}

impl<'a> ConditionSet<'a> {
    /// Starts from what the object's status says now.
    pub fn new(previous: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self {
            previous,
            generation,
            now,
            conditions: Vec::new(),
        }
    }

    /// Adds one condition.
    #[must_use]
    pub fn with(mut self, type_: &str, verdict: &Verdict) -> Self {
        let status = verdict.truth.as_str();
        let unchanged = find(self.previous, type_).filter(|c| c.status == status);
        let since = unchanged.map_or(Time(self.now), |c| c.last_transition_time.clone());
        self.conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: shortened(&verdict.message),
            observed_generation: self.generation,
            last_transition_time: since,
        });
        self
    }

    /// The conditions in the order they were added.
    pub fn build(self) -> Vec<Condition> {
        self.conditions
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of this type is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == Truth::True.as_str())
}

/// A message of at most [`MAX_MESSAGE_BYTES`], cut at a character.
pub fn shortened(message: &str) -> String {
    const ELLIPSIS: &str = "...";
    if message.len() <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MAX_MESSAGE_BYTES - ELLIPSIS.len());
    format!("{}{ELLIPSIS}", &message[..end])
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(previous: &[Condition], verdict: &Verdict, now: i64) -> Condition {
        let set = ConditionSet::new(previous, Some(1), at(now)).with(READY, verdict);
        set.build().remove(0)
    }

    #[test]
    fn the_transition_time_stays_while_the_status_stays() {
        let first = ready(&[], &Verdict::fails("A", "one"), 10);
        let same = ready(
            std::slice::from_ref(&first),
            &Verdict::fails("B", "two"),
            20,
        );
        assert_eq!(same.last_transition_time, Time(at(10)));
        assert_eq!((same.reason.as_str(), same.message.as_str()), ("B", "two"));
        let flipped = ready(&[same], &Verdict::holds("C", "three"), 30);
        assert_eq!(flipped.last_transition_time, Time(at(30)));
    }

    #[test]
    fn an_unchanged_world_gives_an_identical_condition() {
        let verdict = Verdict::unknown("A", "same");
        let first = ready(&[], &verdict, 10);
        assert_eq!(ready(std::slice::from_ref(&first), &verdict, 99), first);
    }

    #[test]
    fn long_messages_end_at_a_character() {
        let short = shortened(&"é".repeat(MAX_MESSAGE_BYTES));
        assert!(short.len() <= MAX_MESSAGE_BYTES && short.ends_with("é..."));
    }
}
