//! What may be written in the file: units, defaults, and nothing unknown.
//!
//! Every field here has the default that a user would expect, so the smallest file is
//! `ufs: {uri: "s3://bucket/prefix"}`. [`crate::Config`] is made from it by `validated`.

use std::collections::BTreeMap;

mod worker;

pub use self::worker::{RawPageDirectory, RawPageStore, RawWorker, RawWorkerTls};
use crate::disk_cache::RawDiskCache;
use crate::mount::RawMount;
pub use crate::robust::{RawBreaker, RawHedge};
use serde::{Deserialize, Serialize};

/// A number of bytes, written as a number or as a text with a unit (`1MB`, `512Mi`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// A number with a unit; units count in 1,024s.
    Text(String),
}

/// The file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// The under-store.
    pub ufs: RawUfs,
    /// The Alluxio cluster; without it everything comes from the under-store.
    #[serde(default)]
    pub cluster: RawCluster,
    /// The client.
    #[serde(default)]
    pub client: RawClient,
    /// The embedded worker, read by `alluxio-dataset worker` only.
    #[serde(default)]
    pub worker: RawWorker,
    /// How it is mounted.
    #[serde(default)]
    pub mount: RawMount,
    /// Logs.
    #[serde(default)]
    pub logging: RawLogging,
}

/// The under-store and how to reach it. Option names are fsspec's, with the AWS words as aliases.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawUfs {
    /// Root of the dataset, such as `s3://bucket/prefix`.
    pub uri: String,
    /// Endpoint of the store, such as `https://s3.eu-west-1.amazonaws.com`.
    #[serde(
        default,
        alias = "endpoint_url",
        skip_serializing_if = "Option::is_none"
    )]
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `path` (http://host/bucket/key) or `virtual` (http://bucket.host/key).
    #[serde(default)]
    pub addressing_style: RawAddressingStyle,
    /// Unsigned requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anon: bool,
    /// Access key id.
    #[serde(
        default,
        alias = "access_key_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub key: Option<String>,
    /// Secret access key.
    #[serde(
        default,
        alias = "secret_access_key",
        skip_serializing_if = "Option::is_none"
    )]
    pub secret: Option<String>,
    /// Session token.
    #[serde(
        default,
        alias = "session_token",
        skip_serializing_if = "Option::is_none"
    )]
    pub token: Option<String>,
    /// What else the store takes, by fsspec's names or OpenDAL's; which those are is in `store`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, RawOption>,
}

/// The value of an option of a store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RawOption {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Number(u64),
    /// A text.
    Text(String),
    /// Options below this one, such as fsspec's `client_kwargs`.
    Map(BTreeMap<String, RawOption>),
}

impl std::fmt::Debug for RawOption {
    /// Which options are secrets is known later only, so none is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// How a bucket is named in a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawAddressingStyle {
    /// In the path; every store takes it.
    #[default]
    Path,
    /// In the host name.
    Virtual,
}

/// The Alluxio cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCluster {
    /// Its name in etcd.
    pub name: String,
    /// How its workers are found.
    pub membership: RawMembership,
    /// How clients and other workers speak to them.
    #[serde(skip_serializing_if = "RawWorkers::is_default")]
    pub workers: RawWorkers,
}

/// How clients speak to workers; all workers of a cluster are spoken to alike.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWorkers {
    /// Speak TLS; `{}` trusts the public authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RawWorkersTls>,
    /// A file with the token that is shown to workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

/// What workers are checked against.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWorkersTls {
    /// PEM file of the authorities that are trusted; the public ones where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The name in every worker's certificate, where it is not the worker's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl RawWorkers {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How workers are found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RawMembership {
    /// No workers: everything comes from the under-store.
    #[default]
    None,
    /// A fixed list.
    Static {
        /// `host` or `host:port`; the port defaults to 28080.
        workers: Vec<String>,
    },
    /// The pods behind a Kubernetes headless service.
    Service {
        /// Its DNS name, such as `workers.alluxio.svc.cluster.local`.
        name: String,
        /// The workers' HTTP port; SRV records of other ports are left out.
        #[serde(default = "default_service_port")]
        port: u16,
        /// How often DNS is asked, a fifth more or less.
        #[serde(default = "default_service_refresh")]
        refresh_seconds: u64,
        /// `address:port` of the DNS server, where it is not the system's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dns_server: Option<String>,
    },
    /// Alluxio's etcd.
    Etcd {
        /// URLs such as `http://etcd:2379`.
        endpoints: Vec<String>,
        /// User name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        /// Password.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<String>,
        /// What `https` endpoints are checked against.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<RawEtcdTls>,
    },
}

/// TLS towards etcd. All files are PEM.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawEtcdTls {
    /// The authorities that are trusted; the public ones where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The client's certificate, and those between it and its authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// The client's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// The name in the server's certificate, where it is not the endpoint's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// The client's options.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawClient {
    /// Must equal the workers' page size.
    pub page_size: Size,
    /// Must equal every other client's of the cluster, or they split the cache.
    pub virtual_nodes_per_worker: u32,
    /// How a file's worker is picked; must equal every other client's of the cluster.
    pub ring_policy: RawRingPolicy,
    /// `live` workers make the ring, or all `registered` ones.
    pub ring_membership: RawRingMembership,
    /// The most that cached pages and reads in flight take.
    pub memory_limit: Size,
    /// How long a file's status is believed.
    pub metadata_ttl_seconds: u64,
    /// How long it is believed that a name does not exist.
    pub negative_ttl_seconds: u64,
    /// The most that kept statuses and listings take, beside the memory limit.
    pub metadata_limit: Size,
    /// `live` reads what the store has when a file is opened, `pinned` what the manifest names.
    pub consistency: RawConsistency,
    /// What a reader does that meets another version before it handed out a byte.
    pub on_change: RawOnChange,
    /// Whether workers that know no versions are asked how old their copy of a file is.
    pub verify_worker_version: bool,
    /// A listing of the dataset in a file.
    pub manifest: RawManifest,
    /// How files are read, where nobody says otherwise when opening one.
    pub access_profile: RawAccessProfile,
    /// A file with the paths of files in the order in which they will be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_list: Option<String>,
    /// Pages on this node's disk.
    pub disk_cache: RawDiskCache,
    /// Read-ahead.
    pub readahead: RawReadahead,
    /// Requests to workers and under-store at one time.
    pub max_inflight_requests: u32,
    /// Files that a copy, move, upload or download moves at one time.
    pub max_parallel_transfers: u32,
    /// The most that one page may take, whatever it waits for.
    pub deadline_milliseconds: u64,
    /// An answer that comes slower is given up.
    pub min_bytes_per_second: Size,
    /// The most of all requests that repeat a failed one.
    pub retry_percent: u32,
    /// Bytes on their way at one time; 0 is what the memory limit allows.
    pub max_inflight_bytes: Size,
    /// When a worker that fails is left alone.
    pub breaker: RawBreaker,
    /// A second request for a page whose worker is slow.
    pub hedge: RawHedge,
    /// When to read from the under-store directly.
    pub fallback: RawFallback,
}

/// How a file's worker is picked: Alluxio's selection policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawRingPolicy {
    /// Each worker at many points of a ring; Alluxio's default.
    #[default]
    Consistent,
    /// Each worker at one place of a ring.
    Ketama,
    /// Buckets by the number of workers alone.
    Jump,
    /// A table that workers fill in turn.
    Maglev,
    /// Each worker at one point, several hashes of a file.
    MultiProbe,
}

/// Which workers make the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawRingMembership {
    /// Those alive now.
    #[default]
    Live,
    /// All that ever registered; a file of a worker that is down comes from the under-store.
    Registered,
}

/// Which version of a file is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawConsistency {
    /// The one that the under-store has when the file is opened.
    #[default]
    Live,
    /// The one that the manifest names, or none.
    Pinned,
}

/// What happens when a file turns out to have changed since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawOnChange {
    /// The read fails as stale.
    #[default]
    Fail,
    /// A reader that has handed out nothing yet goes on with the new version.
    Reopen,
}

/// How files are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawAccessProfile {
    /// Found out from the reads; files named `*.parquet` and `*.safetensors` have their own profile.
    #[default]
    Adaptive,
    /// From the first byte to the last: the whole window from the first read on.
    Sequential,
    /// Here and there: nothing is read ahead, small reads bring parts of pages.
    Random,
    /// The footer first, then column chunks; nothing is read ahead past a chunk.
    Parquet,
    /// The header first, then tensors in the order of the file.
    Safetensors,
}

/// A listing of the dataset in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawManifest {
    /// The file, as `alluxio-dataset manifest create` writes it; none where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The longest file that is taken; all of it is kept in memory.
    pub limit: Size,
}

/// Read-ahead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawReadahead {
    /// The most that is read ahead in one file; 0 turns it off.
    pub max_window: Size,
}

/// When and how to read from the under-store directly.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawFallback {
    /// `never`, `on_worker_failure` or `always`.
    pub policy: RawFallbackPolicy,
    /// How long one worker may take to answer.
    pub worker_timeout_milliseconds: u64,
    /// Ring workers to try before the under-store.
    pub max_worker_attempts: u32,
    /// The most that comes from the under-store in an hour because no worker served it; 0 is no
    /// limit.
    pub max_bytes_per_hour: Size,
}

/// When to read from the under-store directly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawFallbackPolicy {
    /// Fail instead.
    Never,
    /// When no ring worker could serve.
    #[default]
    OnWorkerFailure,
    /// Never ask workers.
    Always,
}

/// Logs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLogging {
    /// `error`, `warn`, `info`, `debug`, `trace`, or filters such as `info,alluxio_client=debug`.
    pub level: String,
    /// File to append to; standard error where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `text` or `json`.
    pub format: RawLogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawLogFormat {
    /// For people.
    #[default]
    Text,
    /// For log collectors.
    Json,
}

impl RawRingPolicy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Consistent,
        Self::Ketama,
        Self::Jump,
        Self::Maglev,
        Self::MultiProbe,
    ];

    /// The word for it in a configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::Ketama => "ketama",
            Self::Jump => "jump",
            Self::Maglev => "maglev",
            Self::MultiProbe => "multi_probe",
        }
    }

    /// The class that Alluxio's Java client has for it.
    pub fn alluxio_class(self) -> &'static str {
        match self {
            Self::Consistent => "ConsistentHashPolicy",
            Self::Ketama => "KetamaHashPolicy",
            Self::Jump => "JumpHashPolicy",
            Self::Maglev => "MaglevHashPolicy",
            Self::MultiProbe => "MultiProbeHashPolicy",
        }
    }
}

impl Size {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Alluxio's HTTP port.
fn default_service_port() -> u16 {
    28080
}

/// Twice the time for which a cluster's DNS keeps an answer (5 s): more would bring no news sooner.
fn default_service_refresh() -> u64 {
    10
}

impl Default for RawCluster {
    fn default() -> Self {
        Self {
            // Alluxio's own default name.
            name: "DefaultAlluxioCluster".to_owned(),
            membership: RawMembership::None,
            workers: RawWorkers::default(),
        }
    }
}

impl Default for RawClient {
    fn default() -> Self {
        Self {
            // Alluxio's defaults for both; clients that disagree split the cache.
            page_size: Size::text("1Mi"),
            virtual_nodes_per_worker: 2000,
            ring_policy: RawRingPolicy::Consistent,
            ring_membership: RawRingMembership::Live,
            // Room for a read-ahead window of 64 MiB for each of a few readers.
            memory_limit: Size::text("256Mi"),
            metadata_ttl_seconds: 60,
            // What Linux' NFS client takes is 30 s; a job that waits for a marker file should see
            // it at once, and a loop that probes for a missing name still costs a request a second.
            negative_ttl_seconds: 1,
            // Some 150,000 files of usual names.
            metadata_limit: Size::text("64Mi"),
            consistency: RawConsistency::Live,
            on_change: RawOnChange::Fail,
            verify_worker_version: true,
            manifest: RawManifest::default(),
            access_profile: RawAccessProfile::Adaptive,
            file_list: None,
            disk_cache: RawDiskCache::default(),
            readahead: RawReadahead::default(),
            // Fills a 25 Gbit/s link with 1 MiB pages at 20 ms latency; bounds sockets and memory.
            max_inflight_requests: 64,
            // Hides a store's latency; where bytes go through the client, 48 MiB of parts a file.
            max_parallel_transfers: 8,
            // Half of what Linux waits before it reports a hung task, and above two attempts at a
            // store that is silent.
            deadline_milliseconds: 60_000,
            // A page of 1 MiB in 8 s; the slowest link that anybody reads data sets over.
            min_bytes_per_second: Size::text("128Ki"),
            // What the usual retry budgets of RPC systems are: a failing store is not asked more
            // than a tenth more than a sound one.
            retry_percent: 10,
            max_inflight_bytes: Size::Bytes(0),
            breaker: RawBreaker::default(),
            hedge: RawHedge::default(),
            fallback: RawFallback::default(),
        }
    }
}

impl Default for RawManifest {
    fn default() -> Self {
        Self {
            path: None,
            // Some 6,000,000 files at 40 bytes each.
            limit: Size::text("256Mi"),
        }
    }
}

impl Default for RawReadahead {
    fn default() -> Self {
        Self {
            // 64 pages of the default size: hides an object store's 30 ms at 2 GB/s.
            max_window: Size::text("64Mi"),
        }
    }
}

impl Default for RawFallback {
    fn default() -> Self {
        Self {
            policy: RawFallbackPolicy::OnWorkerFailure,
            // A worker that reads through a 1 MiB page from a slow store answers within 2 s.
            worker_timeout_milliseconds: 2000,
            // The owner and its successor; a third is unlikely to have the page.
            max_worker_attempts: 2,
            // Reads that go on matter more than requests saved, unless somebody says otherwise.
            max_bytes_per_hour: Size::Bytes(0),
        }
    }
}

impl Default for RawLogging {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            path: None,
            format: RawLogFormat::Text,
        }
    }
}
