//! What is remembered of each worker: whether it fails, and by which of its hosts it is reached.
//!
//! A worker that cannot be reached, or failed several times in a row, rests: for a short while its
//! files go to the next worker without a wait. Then one request tries it, and only one, so that a
//! dead worker costs one reader one timeout per rest and not each reader one. An empty close is the
//! answer of a living worker and never counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluxio_wire::WorkerId;
use parking_lot::Mutex;

use super::PageAnswer;
use crate::membership::WorkerEndpoint;

/// How long a worker rests: about the time that a restarted process takes to listen again.
const REST: Duration = Duration::from_secs(3);
/// Failures in a row, other than a failed connect, after which a worker rests. One broken answer
/// among good ones is an accident.
const FAILURES_BEFORE_REST: u32 = 3;
/// Workers that are remembered. Far above any cluster; the identities of pods that get a new one
/// with each restart would otherwise add up for ever.
const MAX_REMEMBERED: usize = 4096;

/// What is remembered of all workers.
#[derive(Debug, Default)]
pub(super) struct HealthBook {
    workers: Mutex<HashMap<WorkerId, Arc<Health>>>,
}

/// What is remembered of one worker.
#[derive(Debug)]
pub(super) struct Health {
    started: Instant,
    failures: AtomicU32,
    /// Milliseconds after `started`; 0, or in the past, when the worker does not rest.
    rests_until_ms: AtomicU64,
    container_host: AtomicBool,
    wrong_length_told: AtomicBool,
}

/// What an answer tells about the health of who gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Alive,
    Failing,
    Dead,
    None,
}

impl HealthBook {
    /// Forgets the workers that are not wanted.
    pub(super) fn retain(&self, wanted: impl Fn(&WorkerId) -> bool) {
        self.workers.lock().retain(|id, _| wanted(id));
    }

    pub(super) fn of(&self, worker: &WorkerEndpoint) -> Arc<Health> {
        let mut workers = self.workers.lock();
        if workers.len() >= MAX_REMEMBERED && !workers.contains_key(&worker.id) {
            workers.clear();
        }
        Arc::clone(
            workers
                .entry(worker.id)
                .or_insert_with(|| Arc::new(Health::new())),
        )
    }
}

impl Health {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            failures: AtomicU32::new(0),
            rests_until_ms: AtomicU64::new(0),
            container_host: AtomicBool::new(false),
            wrong_length_told: AtomicBool::new(false),
        }
    }

    /// Whether the worker is to be left alone now. Of those who ask when a rest has ended, one is
    /// told no and tries the worker; for the others the rest goes on until it has an answer.
    pub(super) fn is_resting(&self) -> bool {
        self.is_resting_at(self.now_ms())
    }

    fn is_resting_at(&self, now_ms: u64) -> bool {
        let until = self.rests_until_ms.load(Ordering::Acquire);
        if until == 0 || now_ms < until {
            return until != 0;
        }
        let next = now_ms + millis(REST);
        let taken =
            self.rests_until_ms
                .compare_exchange(until, next, Ordering::AcqRel, Ordering::Acquire);
        taken.is_err()
    }

    /// Learns from an answer, and says so when the worker begins or ceases to rest.
    pub(super) fn note(&self, worker: &WorkerEndpoint, answer: &PageAnswer) {
        if let PageAnswer::WrongLength { .. } = answer
            && !self.wrong_length_told.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                worker = %worker.id, url = %worker.base_url, %answer,
                "page size of worker and client differ: set client.page_size to the worker's \
                 alluxio.worker.page.store.page.size; its pages are not used"
            );
        }
        let was_resting = self.rests_until_ms.load(Ordering::Acquire) != 0;
        let rests = self.learn(sign_of(answer), self.now_ms());
        match (was_resting, rests) {
            (false, true) => tracing::warn!(
                worker = %worker.id, url = %worker.base_url, %answer,
                "worker is left alone for a while"
            ),
            (true, false) => {
                tracing::info!(worker = %worker.id, url = %worker.base_url, "worker answers again");
            }
            _ => {}
        }
    }

    /// Learns from a sign; returns whether the worker rests from now on.
    fn learn(&self, sign: Sign, now_ms: u64) -> bool {
        let failures = match sign {
            Sign::Alive => {
                self.failures.store(0, Ordering::Relaxed);
                self.rests_until_ms.store(0, Ordering::Release);
                return false;
            }
            Sign::None => return self.rests_until_ms.load(Ordering::Acquire) != 0,
            Sign::Failing => self.failures.fetch_add(1, Ordering::Relaxed) + 1,
            Sign::Dead => FAILURES_BEFORE_REST,
        };
        let rests = failures >= FAILURES_BEFORE_REST;
        if rests {
            self.rests_until_ms
                .store(now_ms + millis(REST), Ordering::Release);
        }
        rests
    }

    pub(super) fn prefers_container_host(&self) -> bool {
        self.container_host.load(Ordering::Relaxed)
    }

    pub(super) fn prefer_container_host(&self, prefer: bool) {
        self.container_host.store(prefer, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }
}

fn sign_of(answer: &PageAnswer) -> Sign {
    match answer {
        PageAnswer::Page(_)
        | PageAnswer::Miss
        | PageAnswer::Stale
        | PageAnswer::WrongLength { .. }
        | PageAnswer::Refused(_) => Sign::Alive,
        PageAnswer::TimedOut | PageAnswer::Overloaded | PageAnswer::Broken(_) => Sign::Failing,
        PageAnswer::Unreachable(_) => Sign::Dead,
        PageAnswer::Unaddressable | PageAnswer::NoWorkers | PageAnswer::Resting => Sign::None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST_MS: u64 = 3000;

    #[test]
    fn a_dead_worker_rests_and_is_then_tried_by_one() {
        let health = Health::new();
        assert!(!health.is_resting_at(10));
        assert!(health.learn(Sign::Dead, 10));
        assert!(health.is_resting_at(10 + REST_MS - 1));
        assert!(!health.is_resting_at(10 + REST_MS));
        assert!(health.is_resting_at(10 + REST_MS));
    }

    #[test]
    fn an_answer_ends_the_rest() {
        let health = Health::new();
        health.learn(Sign::Dead, 10);
        assert!(!health.learn(Sign::Alive, 11));
        assert!(!health.is_resting_at(12));
    }

    #[test]
    fn a_failing_worker_rests_after_the_third_failure_in_a_row() {
        let health = Health::new();
        let signs = [
            Sign::Failing,
            Sign::Failing,
            Sign::Alive,
            Sign::Failing,
            Sign::Failing,
        ];
        assert!(signs.iter().all(|sign| !health.learn(*sign, 1)));
        assert!(health.learn(Sign::Failing, 1));
    }

    #[test]
    fn an_empty_close_is_the_sign_of_a_living_worker() {
        assert_eq!(sign_of(&PageAnswer::Miss), Sign::Alive);
    }
}
