//! What the worker counts: Alluxio's two HTTP families by their own names, and the page store.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::store::PageStore;

/// Alluxio's bounds of the latency histogram, in milliseconds; dashboards are made for them.
const LATENCY_BUCKETS_MS: [f64; 4] = [10.0, 40.0, 160.0, 640.0];

/// The worker's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    latency_ms: HistogramVec,
    results: IntCounterVec,
    /// Requests for pages that were served from the page store.
    pub(crate) hits: IntCounter,
    /// Requests for pages that had to be read from the under-store.
    pub(crate) misses: IntCounter,
    /// Bytes read from the under-store.
    pub(crate) ufs_bytes: IntCounter,
    /// Connections that are open.
    pub(crate) connections: IntGauge,
}

/// Numbers that the page store keeps itself, read when they are asked for.
struct StoreCollector {
    store: Arc<PageStore>,
    bytes: IntGauge,
    capacity_bytes: IntGauge,
    pages: IntGauge,
    evicted: IntCounter,
    corrupt: IntCounter,
    failed_directories: IntGauge,
    directory_bytes: IntGaugeVec,
    directory_capacity_bytes: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new(store: Arc<PageStore>) -> prometheus::Result<Self> {
        let latency_ms = HistogramVec::new(
            HistogramOpts::new(
                "alluxio_http_server_call_latency_ms",
                "Milliseconds from a request's head to the head of its answer.",
            )
            .buckets(LATENCY_BUCKETS_MS.to_vec()),
            &["method", "success"],
        )?;
        let results = IntCounterVec::new(
            Opts::new("alluxio_http_server_result_total", "Answered requests."),
            &["method", "state"],
        )?;
        let hits = counter(
            "alluxio_worker_page_hits_total",
            "Pages served from the disk.",
        )?;
        let misses = counter(
            "alluxio_worker_page_misses_total",
            "Pages that were not on the disk.",
        )?;
        let ufs_bytes = counter(
            "alluxio_worker_ufs_read_bytes_total",
            "Bytes read from the under-store.",
        )?;
        let connections = gauge("alluxio_worker_connections", "Open HTTP connections.")?;
        let registry = Registry::new();
        registry.register(Box::new(latency_ms.clone()))?;
        registry.register(Box::new(results.clone()))?;
        registry.register(Box::new(hits.clone()))?;
        registry.register(Box::new(misses.clone()))?;
        registry.register(Box::new(ufs_bytes.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(StoreCollector::new(store)?))?;
        Ok(Self {
            registry,
            latency_ms,
            results,
            hits,
            misses,
            ufs_bytes,
            connections,
        })
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts one answer of the endpoint `method`.
    pub(crate) fn answered(&self, method: &str, status: u16, took: Duration) {
        let success = if status < 400 { "true" } else { "false" };
        self.latency_ms
            .with_label_values(&[method, success])
            .observe(took.as_secs_f64() * 1000.0);
        self.results
            .with_label_values(&[method, state(status)])
            .inc();
    }
}

/// The word for the label `state`.
fn state(status: u16) -> &'static str {
    match status {
        0..400 => "success",
        400..500 => "client_error",
        _ => "server_error",
    }
}

fn counter(name: &str, help: &str) -> prometheus::Result<IntCounter> {
    IntCounter::with_opts(Opts::new(name, help))
}

fn gauge(name: &str, help: &str) -> prometheus::Result<IntGauge> {
    IntGauge::with_opts(Opts::new(name, help))
}

fn gauges_of_directories(name: &str, help: &str) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), &["directory"])
}

impl StoreCollector {
    fn new(store: Arc<PageStore>) -> prometheus::Result<Self> {
        Ok(Self {
            store,
            bytes: gauge(
                "alluxio_worker_page_store_bytes",
                "Bytes of the disk that pages take.",
            )?,
            capacity_bytes: gauge(
                "alluxio_worker_page_store_capacity_bytes",
                "Bytes of the disk that pages may take.",
            )?,
            pages: gauge("alluxio_worker_page_store_pages", "Pages on the disk.")?,
            evicted: counter(
                "alluxio_worker_page_store_evicted_pages_total",
                "Pages that were removed for others.",
            )?,
            corrupt: counter(
                "alluxio_worker_page_store_corrupt_pages_total",
                "Pages that did not match their checksum.",
            )?,
            failed_directories: gauge(
                "alluxio_worker_page_store_failed_directories",
                "Directories that failed and are left out.",
            )?,
            directory_bytes: gauges_of_directories(
                "alluxio_worker_page_store_directory_bytes",
                "Bytes that pages take in a directory.",
            )?,
            directory_capacity_bytes: gauges_of_directories(
                "alluxio_worker_page_store_directory_capacity_bytes",
                "Bytes that pages may take in a directory; 0 when it has failed.",
            )?,
        })
    }

    fn parts(&self) -> [&dyn Collector; 8] {
        [
            &self.bytes,
            &self.capacity_bytes,
            &self.pages,
            &self.evicted,
            &self.corrupt,
            &self.failed_directories,
            &self.directory_bytes,
            &self.directory_capacity_bytes,
        ]
    }
}

impl Collector for StoreCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stats = self.store.stats();
        let signed = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.bytes.set(signed(stats.bytes));
        self.capacity_bytes.set(signed(stats.capacity_bytes));
        self.pages.set(signed(stats.pages));
        self.failed_directories
            .set(signed(stats.failed_directories));
        for (path, stats) in self.store.stats_of_each() {
            let label = path.display().to_string();
            let of = |gauges: &IntGaugeVec, value| {
                gauges.with_label_values(&[&label]).set(signed(value));
            };
            of(&self.directory_bytes, stats.bytes);
            of(&self.directory_capacity_bytes, stats.capacity_bytes);
        }
        for (counter, value) in [
            (&self.evicted, stats.evicted_pages),
            (&self.corrupt, stats.corrupt_pages),
        ] {
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        let parts = self.parts();
        parts.into_iter().flat_map(Collector::collect).collect()
    }
}
