//! What a mount measures, and the unix socket where it tells.
//!
//! The daemon has no port: whoever aggregates (the mounter's agent) connects to its socket, gets the
//! Prometheus text and sees the connection close.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

use crate::passthrough::Way;
use crate::protocol::OperationKind;

mod writing;
pub(crate) use writing::WriteMetrics;

/// Upper bounds of latencies in milliseconds: answers from memory are far below 1, the rest follows
/// the steps of the workers' own histogram (10, 40, 160, 640), so that both can be laid side by side.
const LATENCY_BUCKETS_MS: [f64; 8] = [0.1, 1.0, 10.0, 40.0, 160.0, 640.0, 2560.0, 10240.0];

/// From here on an application's wait is worth an own counter: readers' time limits are seconds.
const STALL: Duration = Duration::from_secs(1);

/// A reader of metrics that takes longer than this to take them is left.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Counters of one mount.
pub(crate) struct Metrics {
    registry: Registry,
    /// By operation, resolved once: a request must not pay for a look-up of labels.
    operations: Vec<(IntCounter, Histogram)>,
    inflight: IntGauge,
    requests_taken_over: IntGauge,
    stalls: IntCounter,
    opens: OpenMetrics,
    writing: WriteMetrics,
}

/// Counters of openings and of the files that are registered for passthrough.
#[derive(Clone)]
pub(crate) struct OpenMetrics {
    by_daemon: IntCounter,
    backed: IntCounter,
    backing_files: IntGauge,
    available: IntGauge,
}

impl OpenMetrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opens = IntCounterVec::new(
            Opts::new(
                "alluxio_fuse_opens_total",
                "Files opened, by who reads them: the kernel past the daemon (passthrough), or the \
                 daemon.",
            ),
            &["way"],
        )?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let metrics = Self {
            by_daemon: opens.with_label_values(&["daemon"]),
            backed: opens.with_label_values(&["passthrough"]),
            backing_files: gauge(
                "alluxio_fuse_backing_files",
                "Files of the disk cache that are registered with the kernel.",
            )?,
            available: gauge(
                "alluxio_fuse_passthrough_available",
                "1 where the kernel reads wholly cached files past the daemon, 0 where it cannot or \
                 there is no disk cache.",
            )?,
        };
        registry.register(Box::new(opens))?;
        Ok(metrics)
    }

    /// Whether files can be registered.
    pub(crate) fn available(&self, is_available: bool) {
        self.available.set(is_available.into());
    }

    /// Counts an opening.
    pub(crate) fn opened(&self, way: Way) {
        match way {
            Way::Daemon => self.by_daemon.inc(),
            Way::Backed(_) => self.backed.inc(),
        }
    }

    /// How many files are registered.
    pub(crate) fn registered(&self, files: usize) {
        self.backing_files
            .set(i64::try_from(files).unwrap_or(i64::MAX));
    }
}

impl Metrics {
    /// Metrics of a daemon that is the `restarts`th successor.
    pub(crate) fn new(restarts: u32) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "alluxio_fuse_requests_total",
                "Requests of the kernel that this mount has answered, by operation.",
            ),
            &["op"],
        )?;
        let latency = HistogramVec::new(
            HistogramOpts::new(
                "alluxio_fuse_request_latency_ms",
                "Milliseconds from taking a request off the kernel to its answer, by operation.",
            )
            .buckets(LATENCY_BUCKETS_MS.to_vec()),
            &["op"],
        )?;
        let daemon_restarts = IntGauge::new(
            "alluxio_fuse_daemon_restarts",
            "How often the mount's daemon died and was replaced.",
        )?;
        daemon_restarts.set(restarts.into());
        let inflight = IntGauge::new(
            "alluxio_fuse_inflight_requests",
            "Requests of the kernel that this mount has taken and not yet answered.",
        )?;
        let requests_taken_over = IntGauge::new(
            "alluxio_fuse_requests_taken_over",
            "Requests that the present daemon found unanswered when it took over.",
        )?;
        let stalls = IntCounter::new(
            "alluxio_fuse_stalls_total",
            "Requests that waited for more than a second for their answer.",
        )?;
        let operations = OperationKind::NAMES
            .iter()
            .map(|op| {
                (
                    requests.with_label_values(&[op]),
                    latency.with_label_values(&[op]),
                )
            })
            .collect();
        let registry = Registry::new();
        let opens = OpenMetrics::register(&registry)?;
        let writing = WriteMetrics::register(&registry)?;
        let collectors: [Box<dyn Collector>; 6] = [
            Box::new(requests),
            Box::new(latency),
            Box::new(daemon_restarts),
            Box::new(inflight.clone()),
            Box::new(requests_taken_over.clone()),
            Box::new(stalls.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(Self {
            registry,
            operations,
            inflight,
            requests_taken_over,
            stalls,
            opens,
            writing,
        })
    }

    /// The counters of openings.
    pub(crate) fn opens(&self) -> OpenMetrics {
        self.opens.clone()
    }

    /// The counters of files that are being written.
    pub(crate) fn writing(&self) -> WriteMetrics {
        self.writing.clone()
    }

    /// Notes how many requests a predecessor left.
    pub(crate) fn taken_over(&self, requests: usize) {
        self.requests_taken_over
            .set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, operation: OperationKind, begun: Instant) {
        if let Some((requests, latency)) = self.operations.get(operation as usize) {
            let took = begun.elapsed();
            requests.inc();
            latency.observe(took.as_secs_f64() * 1000.0);
            if took >= STALL {
                self.stalls.inc();
            }
        }
    }

    /// Notes how many requests are under way, when somebody asks.
    pub(crate) fn set_inflight(&self, requests: usize) {
        self.inflight
            .set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// The mount's metrics.
    pub(crate) fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

/// Prometheus text of metrics; one that cannot be written is left out, with a line in the log.
pub(crate) fn encode(families: &[prometheus::proto::MetricFamily]) -> String {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(families, &mut text) {
        tracing::warn!(%error, "cannot write metrics");
    }
    String::from_utf8(text).unwrap_or_default()
}

/// Offers a text to whoever connects to a unix socket, from a thread of its own.
pub(crate) fn serve(
    socket: &Path,
    mut text: impl FnMut() -> String + Send + 'static,
) -> io::Result<()> {
    // What a predecessor left.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    let accept = move || {
        for connection in listener.incoming() {
            let told = connection.and_then(|connection| tell(connection, &text()));
            if let Err(error) = told {
                tracing::debug!(%error, "metrics were not taken");
            }
        }
    };
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(accept)
        .map(drop)
}

fn tell(mut connection: UnixStream, text: &str) -> io::Result<()> {
    connection.set_write_timeout(Some(WRITE_LIMIT))?;
    connection.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use std::io::Read;

    use super::*;

    #[test]
    fn every_operation_has_its_metrics() {
        let metrics = Metrics::new(3).unwrap();
        metrics.answered(OperationKind::Read, Instant::now());
        metrics.answered(OperationKind::Other, Instant::now());
        let text = encode(&metrics.gather());
        assert!(text.contains("alluxio_fuse_requests_total{op=\"read\"} 1"));
        assert!(text.contains("alluxio_fuse_requests_total{op=\"other\"} 1"));
        assert!(text.contains("alluxio_fuse_request_latency_ms_count{op=\"read\"} 1"));
        assert!(text.contains("alluxio_fuse_daemon_restarts 3"));
        assert!(text.contains("alluxio_fuse_stalls_total 0"));
        assert!(text.contains("alluxio_fuse_opens_total{way=\"passthrough\"} 0"));
    }

    #[test]
    fn an_upload_is_counted_by_its_outcome() {
        let metrics = Metrics::new(0).unwrap();
        let writing = metrics.writing();
        writing.uploaded(Duration::from_millis(30), Some(1000));
        writing.uploaded(Duration::from_millis(3), None);
        writing.present(7, 2);
        let text = encode(&metrics.gather());
        for line in [
            "alluxio_fuse_uploads_total{outcome=\"ok\"} 1",
            "alluxio_fuse_uploads_total{outcome=\"failed\"} 1",
            "alluxio_fuse_upload_latency_ms_bucket{le=\"10\"} 1",
            "alluxio_fuse_upload_latency_ms_bucket{le=\"40\"} 2",
            "alluxio_fuse_uploaded_bytes_total 1000",
            "alluxio_fuse_staged_bytes 7",
            "alluxio_fuse_files_open_for_writing 2",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
        }
    }

    #[test]
    fn a_connection_gets_the_text_of_its_moment_also_after_a_predecessor() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("metrics.sock");
        drop(UnixListener::bind(&socket).unwrap());
        let mut asked = 0;
        let count = move || {
            asked += 1;
            format!("asked {asked}\n")
        };
        serve(&socket, count).unwrap();
        for expected in ["asked 1\n", "asked 2\n"] {
            let mut text = String::new();
            let mut connection = UnixStream::connect(&socket).unwrap();
            connection.read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }
}
