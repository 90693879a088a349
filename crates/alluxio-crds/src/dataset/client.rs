//! How clients of a dataset read: pages, ring, memory, fallback, logs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{quantity::ByteQuantity, rules};

/// How clients read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::client()))]
pub struct ClientSpec {
    /// The workers' page size (alluxio.worker.page.store.page.size): a multiple of 64Ki, at most
    /// 64Mi.
    #[serde(default = "default_page_size")]
    #[schemars(extend("x-kubernetes-validations" = rules::page_size()))]
    pub page_size: ByteQuantity,
    /// Points of each worker on the ring; all clients of the workers must agree.
    #[serde(default = "default_virtual_nodes")]
    #[schemars(extend("x-kubernetes-validations" = rules::virtual_nodes()))]
    pub virtual_nodes_per_worker: i32,
    /// Which workers are on the ring: those alive now, or all that ever registered.
    #[serde(default)]
    pub ring_membership: RingMembership,
    /// How long a file's size and a listing are believed; 0 asks every time.
    #[serde(
        rename = "metadataTTLSeconds",
        default = "default_metadata_ttl_seconds"
    )]
    #[schemars(range(min = 0, max = 86400))]
    pub metadata_ttl_seconds: i32,
    /// Memory for pages in each mount.
    #[serde(default = "default_memory_limit")]
    #[schemars(extend("x-kubernetes-validations" = rules::positive_bytes()))]
    pub memory_limit: ByteQuantity,
    /// How far to read ahead.
    #[serde(default)]
    pub readahead: ReadaheadSpec,
    /// When to read from the under-store instead of from workers.
    #[serde(default)]
    pub fallback: FallbackSpec,
    /// What the mount's process logs.
    #[serde(default)]
    pub logging: LoggingSpec,
}

/// Which workers are on the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RingMembership {
    /// Workers that are alive now.
    #[default]
    Live,
    /// All workers that ever registered; the owner of a page may be down.
    Registered,
}

/// How far to read ahead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadaheadSpec {
    /// The largest window of one open file; 0 turns read-ahead off.
    #[serde(default = "default_readahead_window")]
    #[schemars(extend("x-kubernetes-validations" = rules::bytes()))]
    pub max_window: ByteQuantity,
}

/// When to read from the under-store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackSpec {
    /// Never, OnWorkerFailure, or Always (workers are not asked).
    #[serde(default)]
    pub policy: FallbackPolicy,
    /// How long a worker may take before the next one, or the under-store, is asked.
    #[serde(default = "default_worker_timeout_milliseconds")]
    #[schemars(range(min = 10, max = 600_000))]
    pub worker_timeout_milliseconds: i32,
}

/// When to read from the under-store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FallbackPolicy {
    /// A read fails when the workers fail.
    Never,
    /// When the workers of a page fail.
    #[default]
    OnWorkerFailure,
    /// Every read.
    Always,
}

/// What the mount's process logs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoggingSpec {
    /// The least severe message that is written.
    #[serde(default)]
    pub level: LogLevel,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what may fail.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

impl Default for ClientSpec {
    fn default() -> Self {
        Self {
            page_size: default_page_size(),
            virtual_nodes_per_worker: default_virtual_nodes(),
            ring_membership: RingMembership::default(),
            metadata_ttl_seconds: default_metadata_ttl_seconds(),
            memory_limit: default_memory_limit(),
            readahead: ReadaheadSpec::default(),
            fallback: FallbackSpec::default(),
            logging: LoggingSpec::default(),
        }
    }
}

impl Default for ReadaheadSpec {
    fn default() -> Self {
        Self {
            max_window: default_readahead_window(),
        }
    }
}

impl Default for FallbackSpec {
    fn default() -> Self {
        Self {
            policy: FallbackPolicy::default(),
            worker_timeout_milliseconds: default_worker_timeout_milliseconds(),
        }
    }
}

/// Alluxio's own default page size.
fn default_page_size() -> ByteQuantity {
    ByteQuantity::new("1Mi")
}

/// Alluxio's own default; the Python SDK's 5 would split the cache.
const fn default_virtual_nodes() -> i32 {
    2000
}

/// A minute: training data changes rarely, and a stale size is caught by its version.
const fn default_metadata_ttl_seconds() -> i32 {
    60
}

/// 512 pages of the default size: a few dozen parallel readers with their windows.
fn default_memory_limit() -> ByteQuantity {
    ByteQuantity::new("512Mi")
}

/// Hides the latency of a worker at several GiB/s without filling the memory limit at once.
fn default_readahead_window() -> ByteQuantity {
    ByteQuantity::new("64Mi")
}

/// Well above a cold page from S3, well below what a training loop calls a hang.
const fn default_worker_timeout_milliseconds() -> i32 {
    2000
}
