//! What the operator counts about itself: reconciles, failures and how long they take.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Seconds; a reconcile is some API calls (tens of milliseconds) or waits for workers that do not
/// answer (seconds).
const DURATION_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// The operator's counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
}

impl Metrics {
    /// Fresh counters in a registry of their own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let reconciles = IntCounterVec::new(
            Opts::new(
                "alluxio_operator_reconciles_total",
                "Reconciles that ended, by kind.",
            ),
            &["kind"],
        )?;
        let errors = IntCounterVec::new(
            Opts::new(
                "alluxio_operator_reconcile_errors_total",
                "Reconciles that failed, by kind.",
            ),
            &["kind"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "alluxio_operator_reconcile_seconds",
                "Duration of reconciles.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["kind"],
        )?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            registry,
            reconciles,
            errors,
            seconds,
        })
    }

    /// Where they are gathered.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, kind: &str, took: Duration, failed: bool) {
        self.reconciles.with_label_values(&[kind]).inc();
        self.seconds
            .with_label_values(&[kind])
            .observe(took.as_secs_f64());
        if failed {
            self.errors.with_label_values(&[kind]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn failures_are_counted_beside_all() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled("AlluxioDataset", Duration::from_millis(5), false);
        metrics.reconciled("AlluxioDataset", Duration::from_millis(5), true);
        let text = alluxio_telemetry::metrics::encode(&metrics.registry().gather());
        assert!(
            text.contains(r#"reconciles_total{kind="AlluxioDataset"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"reconcile_errors_total{kind="AlluxioDataset"} 1"#),
            "{text}"
        );
    }
}
