//! What is counted of requests that failed or were slow: repetitions, second requests, deadlines,
//! and the workers' circuit breakers.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::worker::Breaker;

/// The counters.
#[derive(Debug)]
pub(crate) struct RobustCounters {
    breaker: [IntCounter; Breaker::ALL.len()],
    /// That the second worker was first, and that it was not.
    hedges: [IntCounter; 2],
    /// That were made, and that the share did not allow.
    retries: [IntCounter; 2],
    deadlines: IntCounter,
}

impl RobustCounters {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let breaker = counters(
            "alluxio_client_breaker_total",
            "Changes of a worker's circuit breaker, by the state that it changed into.",
            &["state"],
        )?;
        let hedges = counters(
            "alluxio_client_hedges_total",
            "Pages that a second worker was asked for because the first was slow: who was first.",
            &["result"],
        )?;
        let retries = counters(
            "alluxio_client_retries_total",
            "Failed requests that were made again at the next worker, or had no share left.",
            &["result"],
        )?;
        let deadlines = counters(
            "alluxio_client_deadline_exceeded_total",
            "Pages that did not come within the deadline.",
            &[],
        )?;
        Ok(Self {
            breaker: Breaker::ALL.map(|state| breaker.with_label_values(&[state.label()])),
            hedges: ["won", "lost"].map(|result| hedges.with_label_values(&[result])),
            retries: ["made", "refused"].map(|result| retries.with_label_values(&[result])),
            deadlines: deadlines.with_label_values(&[] as &[&str]),
        })
    }

    /// A second worker was asked for a page; whether its page came first.
    pub(crate) fn hedge(&self, won: bool) {
        self.hedges[usize::from(!won)].inc();
    }

    /// A failed request was to be made again; whether the share allowed it.
    pub(crate) fn retry(&self, made: bool) {
        self.retries[usize::from(!made)].inc();
    }

    pub(crate) fn deadline_exceeded(&self) {
        self.deadlines.inc();
    }

    pub(crate) fn breaker(&self, state: Breaker) {
        self.breaker[state as usize].inc();
    }
}
