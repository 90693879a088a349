//! What a client counts, in a registry of its own: two mounts in one process do not mix.
//!
//! Labels are fixed words. Bytes are counted when they are handed to a reader, requests and their
//! latency when a page is fetched, so read-ahead that nobody used shows as the difference.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::error::{Error, ErrorKind, Result};
use crate::source::{BytesBySource, FallbackReason, Source};

/// Alluxio's own buckets (10, 40, 160, 640), so that one dashboard shows both sides, and one below
/// for pages that come from a worker's memory.
const LATENCY_BUCKETS_MS: [f64; 5] = [1.0, 10.0, 40.0, 160.0, 640.0];

/// How one request for a page ended, as the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageResult {
    /// The page came.
    Hit,
    /// The worker does not hold it.
    Miss,
    /// Anything else.
    Failure,
}

/// The client's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    bytes: [IntCounter; Source::ALL.len()],
    page_requests: IntCounterVec,
    fallback: [IntCounter; FallbackReason::ALL.len()],
    latency_ms: [Histogram; Source::ALL.len()],
    page_size_mismatches: IntCounter,
    pub(crate) memory_cache_bytes: IntGauge,
    pub(crate) workers: IntGauge,
    pub(crate) inflight_requests: IntGauge,
}

impl Metrics {
    /// Metrics in a new registry.
    pub fn new() -> Result<Self> {
        Self::register(Registry::new()).map_err(|error| {
            Error::new(
                ErrorKind::Unexpected,
                "connect",
                "metrics cannot be registered",
            )
            .with_source(error)
        })
    }

    /// The registry, to be gathered by a metrics endpoint.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn register(registry: Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let bytes = counters(
            "alluxio_client_bytes_total",
            "Bytes handed to readers, by where they came from.",
            &["source"],
        )?;
        let page_requests = counters(
            "alluxio_client_page_requests_total",
            "Requests for pages, by whom was asked and how it ended.",
            &["source", "result"],
        )?;
        let fallback = counters(
            "alluxio_client_fallback_total",
            "Pages that came from the under-store instead of a worker, by reason.",
            &["reason"],
        )?;
        let mismatches = counters(
            "alluxio_client_page_size_mismatch_total",
            "Pages of a wrong length that workers sent and nobody was served.",
            &[],
        )?;
        let latency = HistogramVec::new(
            HistogramOpts::new(
                "alluxio_client_page_latency_ms",
                "Milliseconds until a page was there, by where it came from.",
            )
            .buckets(LATENCY_BUCKETS_MS.to_vec()),
            &["source"],
        )?;
        registry.register(Box::new(latency.clone()))?;
        Ok(Self {
            bytes: Source::ALL.map(|source| bytes.with_label_values(&[source.label()])),
            page_requests,
            fallback: FallbackReason::ALL.map(|r| fallback.with_label_values(&[r.label()])),
            latency_ms: Source::ALL.map(|source| latency.with_label_values(&[source.label()])),
            page_size_mismatches: mismatches.with_label_values(&[] as &[&str]),
            memory_cache_bytes: gauge(
                "alluxio_client_memory_cache_bytes",
                "Bytes of the pages cached in memory.",
            )?,
            workers: gauge("alluxio_client_workers", "Workers on the ring.")?,
            inflight_requests: gauge(
                "alluxio_client_inflight_requests",
                "Pages that are being fetched.",
            )?,
            registry,
        })
    }

    pub(crate) fn delivered(&self, bytes: BytesBySource) {
        for source in Source::ALL {
            self.bytes[source as usize].inc_by(bytes.of(source));
        }
    }

    /// What readers were handed since the client was made.
    pub(crate) fn bytes_by_source(&self) -> BytesBySource {
        let mut bytes = BytesBySource::default();
        for source in Source::ALL {
            bytes.add(source, self.bytes[source as usize].get());
        }
        bytes
    }

    pub(crate) fn page_request(&self, source: Source, result: PageResult) {
        let result = match result {
            PageResult::Hit => "hit",
            PageResult::Miss => "miss",
            PageResult::Failure => "failure",
        };
        self.page_requests
            .with_label_values(&[source.label(), result])
            .inc();
    }

    pub(crate) fn page_latency(&self, source: Source, took: Duration) {
        self.latency_ms[source as usize].observe(took.as_secs_f64() * 1000.0);
    }

    pub(crate) fn fallback(&self, reason: FallbackReason) {
        self.fallback[reason as usize].inc();
    }

    /// How many pages came from the under-store for this reason.
    pub fn fallbacks(&self, reason: FallbackReason) -> u64 {
        self.fallback[reason as usize].get()
    }

    pub(crate) fn page_size_mismatch(&self) {
        self.page_size_mismatches.inc();
    }
}
