//! What a client counts, in a registry of its own: two mounts in one process do not mix.
//!
//! Labels are fixed words. Bytes are counted when they are handed to a reader, requests and their
//! latency when a page is fetched, so read-ahead that nobody used shows as the difference.

use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, Opts, Registry,
};

use crate::error::{Error, ErrorKind, Result};
use crate::source::{BytesBySource, FallbackReason, Source};

mod robust;

use robust::RobustCounters;

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
    fetched_bytes: [IntCounter; Source::ALL.len()],
    page_requests: IntCounterVec,
    /// Pages that readers asked for and that were in memory, and those that they waited for.
    lookups: [IntCounter; 2],
    fallback: [IntCounter; FallbackReason::ALL.len()],
    fallback_bytes: [IntCounter; FallbackReason::ALL.len()],
    fallback_seconds: [Counter; FallbackReason::ALL.len()],
    fallback_refused: [IntCounter; FallbackReason::ALL.len()],
    latency_ms: [Histogram; Source::ALL.len()],
    page_size_mismatches: IntCounter,
    pub(crate) robust: RobustCounters,
    pub(crate) memory_cache_bytes: IntGauge,
    pub(crate) memory_live_bytes: IntGauge,
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
        let by_source = |name: &str, help: &str| {
            let counters = counters(name, help, &["source"])?;
            let words = Source::ALL.map(Source::label);
            prometheus::Result::Ok(words.map(|word| counters.with_label_values(&[word])))
        };
        let by_reason = |name: &str, help: &str| {
            let counters = counters(name, help, &["reason"])?;
            let words = FallbackReason::ALL.map(FallbackReason::label);
            prometheus::Result::Ok(words.map(|word| counters.with_label_values(&[word])))
        };
        let lookups = counters(
            "alluxio_client_cache_lookups_total",
            "Pages that readers asked for: in memory (hit), or waited for (wait).",
            &["result"],
        )?;
        let page_requests = counters(
            "alluxio_client_page_requests_total",
            "Requests for pages, by whom was asked and how it ended.",
            &["source", "result"],
        )?;
        let mismatches = counters(
            "alluxio_client_page_size_mismatch_total",
            "Pages of a wrong length that workers sent and nobody was served.",
            &[],
        )?;
        Ok(Self {
            bytes: by_source(
                "alluxio_client_bytes_total",
                "Bytes handed to readers, by where they came from.",
            )?,
            fetched_bytes: by_source(
                "alluxio_client_fetched_bytes_total",
                "Bytes that were fetched, by whence; what readers were not handed was read ahead.",
            )?,
            page_requests,
            lookups: ["hit", "wait"].map(|result| lookups.with_label_values(&[result])),
            fallback: by_reason(
                "alluxio_client_fallback_total",
                "Pages that came from the under-store instead of a worker, by reason.",
            )?,
            fallback_bytes: by_reason(
                "alluxio_client_fallback_bytes_total",
                "Bytes that came from the under-store instead of a worker, by reason.",
            )?,
            fallback_seconds: fallback_seconds(&registry)?,
            fallback_refused: by_reason(
                "alluxio_client_fallback_refused_total",
                "Pages that were not read from the under-store: the hour's budget was spent.",
            )?,
            latency_ms: latency_ms(&registry)?,
            robust: RobustCounters::register(&registry)?,
            page_size_mismatches: mismatches.with_label_values(&[] as &[&str]),
            memory_cache_bytes: gauge(
                "alluxio_client_memory_cache_bytes",
                "Bytes of the pages cached in memory.",
            )?,
            memory_live_bytes: gauge(
                "alluxio_client_memory_live_bytes",
                "Bytes of pages, cached or held by readers, and of writes that were not sent.",
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
            let bytes = bytes.of(source);
            // Most reads have one source, and an atomic step for each of the others would cost.
            if bytes > 0 {
                self.bytes[source as usize].inc_by(bytes);
            }
        }
    }

    /// Pages of one read that were in memory, and pages that it waited for.
    pub(crate) fn looked_up(&self, hits: u64, waits: u64) {
        for (counter, pages) in self.lookups.iter().zip([hits, waits]) {
            if pages > 0 {
                counter.inc_by(pages);
            }
        }
    }

    /// Pages that readers asked for: those that were in memory, and those that they waited for.
    pub(crate) fn lookups(&self) -> (u64, u64) {
        (self.lookups[0].get(), self.lookups[1].get())
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
        self.requests_that_ended(source, result).inc();
    }

    /// Requests for pages that ended so.
    pub(crate) fn page_requests(&self, source: Source, result: PageResult) -> u64 {
        self.requests_that_ended(source, result).get()
    }

    fn requests_that_ended(&self, source: Source, result: PageResult) -> IntCounter {
        let result = match result {
            PageResult::Hit => "hit",
            PageResult::Miss => "miss",
            PageResult::Failure => "failure",
        };
        self.page_requests
            .with_label_values(&[source.label(), result])
    }

    /// A page, or a part of one, came from this source.
    pub(crate) fn page_came(&self, source: Source, bytes: u64, took: Duration) {
        self.fetched_bytes[source as usize].inc_by(bytes);
        self.latency_ms[source as usize].observe(took.as_secs_f64() * 1000.0);
    }

    /// Bytes that came from this source, read ahead or not.
    pub(crate) fn fetched_bytes(&self, source: Source) -> u64 {
        self.fetched_bytes[source as usize].get()
    }

    /// The sum of the seconds that pages of this source took.
    pub(crate) fn fetch_seconds(&self, source: Source) -> f64 {
        self.latency_ms[source as usize].get_sample_sum() / 1000.0
    }

    /// A page is asked of the under-store.
    pub(crate) fn fallback(&self, reason: FallbackReason) {
        self.fallback[reason as usize].inc();
    }

    /// It came, or it did not: of no bytes.
    pub(crate) fn fallback_ended(&self, reason: FallbackReason, bytes: u64, took: Duration) {
        self.fallback_bytes[reason as usize].inc_by(bytes);
        self.fallback_seconds[reason as usize].inc_by(took.as_secs_f64());
    }

    /// It was not asked for, because the budget is spent.
    pub(crate) fn fallback_refused(&self, reason: FallbackReason) {
        self.fallback_refused[reason as usize].inc();
    }

    /// How many pages were asked of the under-store for this reason.
    pub fn fallbacks(&self, reason: FallbackReason) -> u64 {
        self.fallback[reason as usize].get()
    }

    /// How many bytes came from the under-store for this reason.
    pub fn fallback_bytes(&self, reason: FallbackReason) -> u64 {
        self.fallback_bytes[reason as usize].get()
    }

    /// The sum of the seconds that they took.
    pub(crate) fn fallback_seconds(&self, reason: FallbackReason) -> f64 {
        self.fallback_seconds[reason as usize].get()
    }

    /// Pages that were not read because the budget was spent.
    pub(crate) fn refused(&self) -> u64 {
        self.fallback_refused.iter().map(IntCounter::get).sum()
    }

    pub(crate) fn page_size_mismatch(&self) {
        self.page_size_mismatches.inc();
    }
}

fn fallback_seconds(
    registry: &Registry,
) -> prometheus::Result<[Counter; FallbackReason::ALL.len()]> {
    let options = Opts::new(
        "alluxio_client_fallback_seconds_total",
        "Seconds that pages took from the under-store instead of a worker, by reason; those of \
         pages that came side by side add up.",
    );
    let seconds = CounterVec::new(options, &["reason"])?;
    registry.register(Box::new(seconds.clone()))?;
    Ok(FallbackReason::ALL.map(|reason| seconds.with_label_values(&[reason.label()])))
}

fn latency_ms(registry: &Registry) -> prometheus::Result<[Histogram; Source::ALL.len()]> {
    let options = HistogramOpts::new(
        "alluxio_client_page_latency_ms",
        "Milliseconds until a page was there, by where it came from.",
    );
    let buckets = options.buckets(LATENCY_BUCKETS_MS.to_vec());
    let latency = HistogramVec::new(buckets, &["source"])?;
    registry.register(Box::new(latency.clone()))?;
    Ok(Source::ALL.map(|source| latency.with_label_values(&[source.label()])))
}
