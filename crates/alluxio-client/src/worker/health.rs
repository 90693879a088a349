//! What is remembered of each worker: whether it fails, how long it takes, and by which of its hosts
//! it is reached.
//!
//! Its circuit breaker has three states. Closed: it is asked. Open: it cannot be reached, failed
//! several times in a row, or fails half of what it is asked; it rests, and its files go to the next
//! worker without a wait. Half open: the rest is over, and one request, only one, tries it while the
//! others go elsewhere, so that a dead worker costs one reader one timeout per rest and not each
//! reader one. An answer closes the breaker; a failure opens it for twice as long, with jitter, so
//! that many clients do not come back at one instant. An empty close is the answer of a living
//! worker and never counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluxio_config::BreakerOptions;
use alluxio_wire::WorkerId;
use parking_lot::Mutex;

use super::PageAnswer;
use super::latency::Latency;
use crate::membership::WorkerEndpoint;
use crate::metrics::Metrics;

/// The part of a rest by which it is made longer or shorter at random.
const JITTER: f64 = 0.25;
/// The share of failing answers, in thousandths, at which a worker rests though some answers are
/// good: every second page would be waited for in vain.
const TOO_MANY_FAILING: u32 = 500;
/// The weight of the last answer in that share is one part in this many, so it speaks of the last
/// few dozen answers.
const SHARE_PARTS: u32 = 16;
/// Workers that are remembered. Far above any cluster; the identities of pods that get a new one
/// with each restart would otherwise add up for ever.
const MAX_REMEMBERED: usize = 4096;

/// What is remembered of all workers.
#[derive(Debug)]
pub(super) struct HealthBook {
    rules: BreakerOptions,
    metrics: Option<Arc<Metrics>>,
    workers: Mutex<HashMap<WorkerId, Arc<Health>>>,
}

/// What is remembered of one worker.
#[derive(Debug)]
pub(super) struct Health {
    started: Instant,
    rules: BreakerOptions,
    metrics: Option<Arc<Metrics>>,
    /// Failures in a row.
    failures: AtomicU32,
    /// The share of failing answers, in thousandths.
    failing: AtomicU32,
    /// Milliseconds after `started`; 0 where the breaker is closed.
    rests_until_ms: AtomicU64,
    /// Rests since the last answer, of which each is longer.
    rests: AtomicU32,
    /// A request is trying the worker.
    half_open: AtomicBool,
    latency: Latency,
    container_host: AtomicBool,
    wrong_length_told: AtomicBool,
}

/// A state of a worker's circuit breaker, as one changes into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// The worker is asked.
    Closed,
    /// It is left alone.
    Open,
    /// One request tries it.
    HalfOpen,
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
    pub(super) fn new(rules: BreakerOptions, metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            rules,
            metrics,
            workers: Mutex::default(),
        }
    }

    /// Forgets the workers that are not wanted.
    pub(super) fn retain(&self, wanted: impl Fn(&WorkerId) -> bool) {
        self.workers.lock().retain(|id, _| wanted(id));
    }

    pub(super) fn of(&self, worker: &WorkerEndpoint) -> Arc<Health> {
        let mut workers = self.workers.lock();
        if workers.len() >= MAX_REMEMBERED && !workers.contains_key(&worker.id) {
            workers.clear();
        }
        let health = workers.entry(worker.id).or_insert_with(|| {
            let metrics = self.metrics.clone();
            Arc::new(Health::new(self.rules, metrics))
        });
        Arc::clone(health)
    }
}

impl Health {
    fn new(rules: BreakerOptions, metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            started: Instant::now(),
            rules,
            metrics,
            failures: AtomicU32::new(0),
            failing: AtomicU32::new(0),
            rests_until_ms: AtomicU64::new(0),
            rests: AtomicU32::new(0),
            half_open: AtomicBool::new(false),
            latency: Latency::default(),
            container_host: AtomicBool::new(false),
            wrong_length_told: AtomicBool::new(false),
        }
    }

    /// Whether the worker is to be left alone now. Of those who ask when a rest has ended, one is
    /// told no and tries the worker; for the others the rest goes on until it has an answer.
    pub(super) fn is_resting(&self) -> bool {
        self.is_resting_at(self.now_ms())
    }

    /// Whether the worker is left alone now, without becoming the one who tries it.
    pub(super) fn rests(&self) -> bool {
        self.now_ms() < self.rests_until_ms.load(Ordering::Acquire)
    }

    fn is_resting_at(&self, now_ms: u64) -> bool {
        let until = self.rests_until_ms.load(Ordering::Acquire);
        if until == 0 || now_ms < until {
            return until != 0;
        }
        // If the one who tries gives up without an answer, another one tries after this.
        let next = now_ms + millis(self.rules.rest);
        let taken =
            self.rests_until_ms
                .compare_exchange(until, next, Ordering::AcqRel, Ordering::Acquire);
        if taken.is_ok() {
            self.half_open.store(true, Ordering::Release);
            self.count(Breaker::HalfOpen);
        }
        taken.is_err()
    }

    /// Learns from an answer, and says so when the breaker changes its state.
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
        let jitter = || rand::random_range(1.0 - JITTER..=1.0 + JITTER);
        let change = self.learn(sign_of(answer), self.now_ms(), jitter);
        let Some(change) = change else {
            return;
        };
        self.count(change);
        let rests = self.rests.load(Ordering::Relaxed);
        match change {
            Breaker::Open if rests <= 1 => tracing::warn!(
                worker = %worker.id, url = %worker.base_url, %answer,
                "worker is left alone for a while"
            ),
            Breaker::Open => tracing::debug!(
                worker = %worker.id, url = %worker.base_url, %answer, rests,
                "worker was tried and fails still"
            ),
            Breaker::Closed => {
                tracing::info!(worker = %worker.id, url = %worker.base_url, "worker answers again");
            }
            Breaker::HalfOpen => {}
        }
    }

    /// Learns from a sign; returns the state that the breaker changes into.
    fn learn(&self, sign: Sign, now_ms: u64, jitter: impl FnOnce() -> f64) -> Option<Breaker> {
        match sign {
            Sign::None => None,
            Sign::Alive => self.answered(),
            Sign::Failing => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                let failing = self.share(1000);
                let opens = failures >= self.rules.failures || failing >= TOO_MANY_FAILING;
                self.failed(opens, now_ms, jitter)
            }
            Sign::Dead => self.failed(true, now_ms, jitter),
        }
    }

    fn answered(&self) -> Option<Breaker> {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.failing.load(Ordering::Relaxed) != 0 {
            self.share(0);
        }
        if self.rests_until_ms.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.half_open.store(false, Ordering::Release);
        self.rests.store(0, Ordering::Relaxed);
        self.failing.store(0, Ordering::Relaxed);
        let until = self.rests_until_ms.swap(0, Ordering::AcqRel);
        (until != 0).then_some(Breaker::Closed)
    }

    fn failed(&self, opens: bool, now_ms: u64, jitter: impl FnOnce() -> f64) -> Option<Breaker> {
        let is_open = self.rests_until_ms.load(Ordering::Acquire) != 0;
        // A request that was sent before the breaker opened tells nothing new.
        let tried = self.half_open.swap(false, Ordering::AcqRel);
        if is_open && !tried || !is_open && !opens {
            return None;
        }
        let before = self.rests.fetch_add(1, Ordering::Relaxed);
        let rest = rest(&self.rules, before, jitter());
        self.rests_until_ms
            .store(now_ms + millis(rest).max(1), Ordering::Release);
        Some(Breaker::Open)
    }

    /// Takes one answer into the share of failing ones, and gives the share.
    fn share(&self, failing: u32) -> u32 {
        let before = self.failing.load(Ordering::Relaxed);
        let after = (before * (SHARE_PARTS - 1) + failing) / SHARE_PARTS;
        self.failing.store(after, Ordering::Relaxed);
        after
    }

    fn count(&self, state: Breaker) {
        if let Some(metrics) = &self.metrics {
            metrics.robust.breaker(state);
        }
    }

    /// How long its pages take.
    pub(super) fn latency(&self) -> &Latency {
        &self.latency
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

/// The rest after so many before it: doubled each time up to the longest, and then shifted at
/// random.
fn rest(rules: &BreakerOptions, before: u32, jitter: f64) -> Duration {
    let doubled = rules
        .rest
        .saturating_mul(2u32.saturating_pow(before.min(31)));
    doubled.min(rules.max_rest).mul_f64(jitter)
}

impl Breaker {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for it in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
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
        // What a close without a byte means depends on what the worker is; see `versions.rs`.
        PageAnswer::Closed
        | PageAnswer::Unaddressable
        | PageAnswer::NoWorkers
        | PageAnswer::Resting => Sign::None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST_MS: u64 = 3000;

    fn health() -> Health {
        Health::new(BreakerOptions::default(), None)
    }

    fn learn(health: &Health, sign: Sign, now_ms: u64) -> Option<Breaker> {
        health.learn(sign, now_ms, || 1.0)
    }

    #[test]
    fn a_dead_worker_rests_and_is_then_tried_by_one() {
        let health = health();
        assert!(!health.is_resting_at(10));
        assert_eq!(learn(&health, Sign::Dead, 10), Some(Breaker::Open));
        assert!(health.is_resting_at(10 + REST_MS - 1));
        assert!(!health.is_resting_at(10 + REST_MS));
        assert!(health.is_resting_at(10 + REST_MS));
        // And if that one never comes back, by another.
        assert!(!health.is_resting_at(10 + 2 * REST_MS));
    }

    #[test]
    fn an_answer_ends_the_rest() {
        let health = health();
        learn(&health, Sign::Dead, 10);
        assert_eq!(learn(&health, Sign::Alive, 11), Some(Breaker::Closed));
        assert_eq!(learn(&health, Sign::Alive, 11), None);
        assert!(!health.is_resting_at(12));
    }

    #[test]
    fn a_failing_worker_rests_after_the_third_failure_in_a_row() {
        let health = health();
        let signs = [
            Sign::Failing,
            Sign::Failing,
            Sign::Alive,
            Sign::Failing,
            Sign::Failing,
        ];
        assert!(signs.iter().all(|sign| learn(&health, *sign, 1).is_none()));
        assert_eq!(learn(&health, Sign::Failing, 1), Some(Breaker::Open));
    }

    #[test]
    fn a_worker_that_fails_every_second_time_rests_too() {
        let health = health();
        let opened = (0..100).any(|_| {
            learn(&health, Sign::Alive, 1);
            learn(&health, Sign::Failing, 1) == Some(Breaker::Open)
        });
        assert!(opened);
    }

    #[test]
    fn a_worker_that_fails_now_and_then_does_not_rest() {
        let health = health();
        for answer in 0..1000 {
            let sign = [Sign::Failing, Sign::Alive, Sign::Alive, Sign::Alive][answer % 4];
            assert_eq!(learn(&health, sign, 1), None);
        }
    }

    #[test]
    fn each_trial_that_fails_doubles_the_rest_up_to_the_longest() {
        let health = health();
        learn(&health, Sign::Dead, 1);
        let (mut now, mut rests) = (1, Vec::new());
        for _ in 0..7 {
            let until = health.rests_until_ms.load(Ordering::Relaxed);
            rests.push((until - now) / 1000);
            now = until;
            assert!(!health.is_resting_at(now));
            assert_eq!(learn(&health, Sign::Failing, now), Some(Breaker::Open));
        }
        assert_eq!(rests, [3, 6, 12, 24, 48, 60, 60]);
        learn(&health, Sign::Alive, now);
        learn(&health, Sign::Dead, now);
        assert!(!health.is_resting_at(now + REST_MS));
    }

    #[test]
    fn what_was_sent_before_the_rest_does_not_lengthen_it() {
        let health = health();
        learn(&health, Sign::Dead, 10);
        assert_eq!(learn(&health, Sign::Dead, 500), None);
        assert!(!health.is_resting_at(10 + REST_MS));
    }

    #[test]
    fn jitter_spreads_a_rest_to_both_sides() {
        let rules = BreakerOptions::default();
        assert!(rest(&rules, 0, 0.75) < rules.rest && rest(&rules, 0, 1.25) > rules.rest);
        assert_eq!(rest(&rules, u32::MAX, 1.0), rules.max_rest);
    }

    #[test]
    fn an_empty_close_is_a_sign_only_once_it_is_known_what_it_means() {
        assert_eq!(sign_of(&PageAnswer::Closed), Sign::None);
        assert_eq!(sign_of(&PageAnswer::Miss), Sign::Alive);
        assert_eq!(sign_of(&PageAnswer::Broken(String::new())), Sign::Failing);
    }

    #[test]
    fn states_are_in_the_order_of_the_counters() {
        for (index, state) in Breaker::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index);
        }
    }
}
