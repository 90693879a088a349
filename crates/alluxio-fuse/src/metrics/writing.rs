//! What is measured of files that are being written.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::LATENCY_BUCKETS_MS;

/// Counters of copies, from the first change to the under-store's answer.
#[derive(Clone)]
pub(crate) struct WriteMetrics {
    staged_bytes: IntGauge,
    open_files: IntGauge,
    uploads_ok: IntCounter,
    uploads_failed: IntCounter,
    upload_latency: Histogram,
    uploaded_bytes: IntCounter,
    recovered: IntGauge,
    lost: IntCounter,
}

impl WriteMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let uploads = IntCounterVec::new(
            Opts::new(
                "alluxio_fuse_uploads_total",
                "Attempts to bring a written file to the under-store, by outcome.",
            ),
            &["outcome"],
        )?;
        let metrics = Self {
            staged_bytes: IntGauge::new(
                "alluxio_fuse_staged_bytes",
                "Bytes of the files that are being written, on this node's disk.",
            )?,
            open_files: IntGauge::new(
                "alluxio_fuse_files_open_for_writing",
                "Files that are open for writing.",
            )?,
            uploads_ok: uploads.with_label_values(&["ok"]),
            uploads_failed: uploads.with_label_values(&["failed"]),
            upload_latency: Histogram::with_opts(
                HistogramOpts::new(
                    "alluxio_fuse_upload_latency_ms",
                    "Milliseconds from a close or fsync to the under-store's answer.",
                )
                .buckets(LATENCY_BUCKETS_MS.to_vec()),
            )?,
            uploaded_bytes: IntCounter::new(
                "alluxio_fuse_uploaded_bytes_total",
                "Bytes of the files that were brought to the under-store.",
            )?,
            recovered: IntGauge::new(
                "alluxio_fuse_recovered_copies",
                "Changed files that the present daemon found when it took over.",
            )?,
            lost: IntCounter::new(
                "alluxio_fuse_lost_copies_total",
                "Changed files that the under-store never got, which are kept aside.",
            )?,
        };
        let collectors: [Box<dyn Collector>; 7] = [
            Box::new(uploads),
            Box::new(metrics.staged_bytes.clone()),
            Box::new(metrics.open_files.clone()),
            Box::new(metrics.upload_latency.clone()),
            Box::new(metrics.uploaded_bytes.clone()),
            Box::new(metrics.recovered.clone()),
            Box::new(metrics.lost.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Counts an attempt: the bytes of a file that arrived, or none.
    pub(crate) fn uploaded(&self, took: Duration, bytes: Option<u64>) {
        self.upload_latency.observe(took.as_secs_f64() * 1000.0);
        match bytes {
            Some(bytes) => {
                self.uploads_ok.inc();
                self.uploaded_bytes.inc_by(bytes);
            }
            None => self.uploads_failed.inc(),
        }
    }

    /// Counts a changed file that a predecessor left.
    pub(crate) fn recovered(&self) {
        self.recovered.inc();
    }

    /// Counts a changed file that is kept aside.
    pub(crate) fn lost(&self) {
        self.lost.inc();
    }

    /// Notes what there is, when somebody asks.
    pub(crate) fn present(&self, staged_bytes: u64, open_files: usize) {
        self.staged_bytes
            .set(i64::try_from(staged_bytes).unwrap_or(i64::MAX));
        self.open_files
            .set(i64::try_from(open_files).unwrap_or(i64::MAX));
    }
}
