//! What a client did, for the caller who wants to know where its bytes came from and at which
//! price. The same numbers as the metrics, in one value.

use alluxio_config::Config;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::metrics::{Metrics, PageResult};
use crate::source::{Fallback, FallbackReason, Source};

/// What a client did since it was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The root of the dataset.
    pub dataset: String,
    /// Names the configuration: equal where all options but the secrets are equal.
    pub config_version: String,
    /// Since the client was made.
    pub seconds: f64,
    /// Where bytes came from: memory, disk, worker, next worker, under-store.
    pub sources: Vec<SourceSummary>,
    /// What the page cache did.
    pub cache: CacheSummary,
    /// What came from the under-store instead of a worker.
    pub fallback: FallbackSummary,
}

/// What came from one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceSummary {
    /// Which.
    pub source: Source,
    /// Bytes that readers were handed.
    pub delivered_bytes: u64,
    /// Bytes that were fetched; those that readers were not handed were read ahead.
    pub fetched_bytes: u64,
    /// Requests for pages or parts of them. Pages that were asked for together count each.
    pub requests: u64,
    /// Requests that were answered by "I do not hold it".
    pub misses: u64,
    /// Requests that failed.
    pub failures: u64,
    /// The sum of the time that pages took; those that came side by side add up.
    pub seconds: f64,
}

/// What the page cache did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CacheSummary {
    /// Pages that readers asked for and that were in memory, read ahead or kept.
    pub hits: u64,
    /// Pages that readers waited for.
    pub waits: u64,
    /// Bytes in memory now.
    pub memory_bytes: u64,
    /// The same with the pages that readers hold beside the cache, and with writes that were not sent.
    pub live_bytes: u64,
}

/// What came from the under-store instead of a worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FallbackSummary {
    /// The reasons for which pages come from there at the moment; `configured` is never one.
    pub active: Vec<FallbackReason>,
    /// Each reason that occurred.
    pub reasons: Vec<ReasonSummary>,
    /// The budget, where there is one.
    pub budget: Option<BudgetSummary>,
}

/// What came from the under-store for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReasonSummary {
    /// Which.
    pub reason: FallbackReason,
    /// Pages that were asked for.
    pub pages: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// The sum of the time that it took.
    pub seconds: f64,
}

/// The budget of bytes that may fall back in an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BudgetSummary {
    /// `client.fallback.max_bytes_per_hour`.
    pub limit_bytes_per_hour: u64,
    /// Spent in the last hour.
    pub spent_bytes: u64,
    /// Pages that were refused since the client was made.
    pub refused_pages: u64,
}

impl Summary {
    /// What came from one source.
    pub fn source(&self, source: Source) -> Option<&SourceSummary> {
        self.sources.iter().find(|summary| summary.source == source)
    }

    /// What fell back for one reason, if anything did.
    pub fn reason(&self, reason: FallbackReason) -> Option<&ReasonSummary> {
        let mut reasons = self.fallback.reasons.iter();
        reasons.find(|summary| summary.reason == reason)
    }
}

/// A short name of the configuration, without its secrets.
pub(crate) fn fingerprint(config: &Config) -> String {
    format!("{:016x}", xxh3_64(config.to_yaml().as_bytes()))
}

pub(crate) fn sources(metrics: &Metrics) -> Vec<SourceSummary> {
    let delivered = metrics.bytes_by_source();
    let summary = |source| {
        let ended = |result| metrics.page_requests(source, result);
        let (misses, failures) = (ended(PageResult::Miss), ended(PageResult::Failure));
        SourceSummary {
            source,
            delivered_bytes: delivered.of(source),
            fetched_bytes: metrics.fetched_bytes(source),
            requests: ended(PageResult::Hit) + misses + failures,
            misses,
            failures,
            seconds: metrics.fetch_seconds(source),
        }
    };
    Source::ALL.map(summary).into()
}

pub(crate) fn cache(metrics: &Metrics) -> CacheSummary {
    let (hits, waits) = metrics.lookups();
    CacheSummary {
        hits,
        waits,
        memory_bytes: u64::try_from(metrics.memory_cache_bytes.get()).unwrap_or_default(),
        live_bytes: u64::try_from(metrics.memory_live_bytes.get()).unwrap_or_default(),
    }
}

pub(crate) fn fallback(metrics: &Metrics, fallback: &Fallback) -> FallbackSummary {
    let summary = |reason| ReasonSummary {
        reason,
        pages: metrics.fallbacks(reason),
        bytes: metrics.fallback_bytes(reason),
        seconds: metrics.fallback_seconds(reason),
    };
    let occurred = FallbackReason::ALL.map(summary);
    FallbackSummary {
        active: fallback.active(),
        reasons: occurred.into_iter().filter(|r| r.pages > 0).collect(),
        budget: fallback.budget(),
    }
}
