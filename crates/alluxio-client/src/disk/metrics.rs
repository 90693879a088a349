//! What the disk cache counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::index::Index;

/// What became of a page that was to be kept, as the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    Kept,
    /// It was here already.
    Known,
    /// The writer is behind.
    NoRoom,
    /// The disk is full or erred a moment ago.
    Paused,
    TooLarge,
    /// The disk is full or errs.
    Failed,
}

/// The counters of one cache.
#[derive(Debug)]
pub(super) struct DiskMetrics {
    fills: IntCounterVec,
    bytes: IntGauge,
    files: IntGauge,
    pub(super) paused: IntGauge,
    pub(super) corrupt: IntCounter,
    pub(super) read_errors: IntCounter,
}

impl DiskMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let fills = IntCounterVec::new(
            Opts::new(
                "alluxio_client_disk_cache_fills_total",
                "Pages that were to be kept on the disk, by what became of them.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(fills.clone()))?;
        Ok(Self {
            fills,
            bytes: gauge(
                "alluxio_client_disk_cache_bytes",
                "Bytes that the disk cache takes.",
            )?,
            files: gauge(
                "alluxio_client_disk_cache_files",
                "File versions in the disk cache.",
            )?,
            paused: gauge(
                "alluxio_client_disk_cache_paused",
                "1 while the disk is full or errs and nothing new is kept.",
            )?,
            corrupt: counter(
                "alluxio_client_disk_cache_corrupt_total",
                "Pages that did not match their checksum; they were dropped and fetched again.",
            )?,
            read_errors: counter(
                "alluxio_client_disk_cache_read_errors_total",
                "Pages that the disk could not read; they were dropped and fetched again.",
            )?,
        })
    }

    pub(super) fn fill(&self, fill: Fill) {
        let result = match fill {
            Fill::Kept => "kept",
            Fill::Known => "known",
            Fill::NoRoom => "no_room",
            Fill::Paused => "paused",
            Fill::TooLarge => "too_large",
            Fill::Failed => "failed",
        };
        self.fills.with_label_values(&[result]).inc();
    }

    pub(super) fn holds(&self, index: &Index) {
        let narrow = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.bytes.set(narrow(index.disk_bytes()));
        self.files.set(narrow(index.len() as u64));
    }

    pub(super) fn paused(&self, is_paused: bool) {
        self.paused.set(i64::from(is_paused));
    }
}
