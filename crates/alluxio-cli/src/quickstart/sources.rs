//! Where a mount's bytes came from, read from its daemon's metrics.

use std::ops::Sub;

use serde::Serialize;

/// The metric that counts them.
const METRIC: &str = "alluxio_client_bytes_total";

/// Bytes by source, as the client counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sources {
    /// From the client's page cache.
    pub memory: u64,
    /// From the worker that the ring names.
    pub worker: u64,
    /// From another worker of the ring.
    pub next_worker: u64,
    /// From the under-store.
    pub ufs: u64,
}

impl Sources {
    /// Reads them from the text of a metrics endpoint.
    pub(crate) fn parse(metrics: &str) -> Self {
        let count = |source: &str| {
            let label = format!("source=\"{source}\"");
            metrics
                .lines()
                .filter(|line| line.starts_with(METRIC) && line.contains(&label))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>()
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters of bytes are whole and positive"
        )]
        let count = |source| count(source) as u64;
        Self {
            memory: count("memory"),
            worker: count("worker"),
            next_worker: count("next_worker"),
            ufs: count("ufs"),
        }
    }
}

impl Sub for Sources {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(before.memory),
            worker: self.worker.saturating_sub(before.worker),
            next_worker: self.next_worker.saturating_sub(before.next_worker),
            ufs: self.ufs.saturating_sub(before.ufs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_by_source() {
        let text = "# TYPE alluxio_client_bytes_total counter\n\
                    alluxio_client_bytes_total{source=\"ufs\"} 7\n\
                    alluxio_client_bytes_total{source=\"worker\"} 1.5e3\n";
        let expected = Sources {
            worker: 1500,
            ufs: 7,
            ..Sources::default()
        };
        assert_eq!(Sources::parse(text), expected);
        assert_eq!(expected - expected, Sources::default());
    }
}
