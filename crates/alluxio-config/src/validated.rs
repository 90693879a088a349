//! What is meant: the configuration with every value checked.

mod ufs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use alluxio_wire::{PageSize, UfsUri, parse_size};

use crate::disk_cache::{self, DiskCacheConfig};
use crate::mount::{self, MountConfig};
pub use crate::raw::{
    RawAccessProfile as AccessProfile, RawAddressingStyle as AddressingStyle,
    RawConsistency as Consistency, RawFallbackPolicy as FallbackPolicy, RawLogFormat as LogFormat,
    RawOnChange as OnChange, RawRingMembership as RingMembership, RawRingPolicy as RingPolicy,
};
use crate::raw::{RawClient, RawCluster, RawConfig, RawFallback, RawManifest, Size};
use crate::robust::{self, RobustOptions};
use crate::{ConfigError, Credentials, StoreOptions, alias};

mod cluster;
mod worker;

pub use cluster::{
    ClusterConfig, DEFAULT_WORKER_PORT, EtcdConfig, EtcdTlsConfig, HostPort, Membership,
    ServiceConfig, WorkerSecurity, WorkersTlsConfig,
};
pub use worker::{PageDirectory, PageStoreConfig, WorkerOptions, WorkerTlsConfig};

/// More virtual nodes than this make rebuilding a ring slow and its balance no better.
pub const MAX_VIRTUAL_NODES: u32 = 100_000;
/// The longest file that is read as a configuration.
const MAX_YAML_BYTES: usize = 1024 * 1024;

/// The whole configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The under-store.
    pub ufs: UfsConfig,
    /// The Alluxio cluster.
    pub cluster: ClusterConfig,
    /// The client.
    pub client: ClientOptions,
    /// The embedded worker.
    pub worker: WorkerOptions,
    /// How it is mounted.
    pub mount: MountConfig,
    /// Logs.
    pub logging: LoggingConfig,
}

/// The under-store and how to reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UfsConfig {
    /// Root of the dataset.
    pub uri: UfsUri,
    /// Endpoint URL of the store.
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: Option<String>,
    /// How the bucket is named in a request.
    pub addressing_style: AddressingStyle,
    /// How to sign in; the credentials of stores without keys are among the options.
    pub credentials: Credentials,
    /// What else the store takes.
    pub options: StoreOptions,
}

/// The client's options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientOptions {
    /// Page size of the cluster.
    pub page_size: PageSize,
    /// Points of each worker on the ring.
    pub virtual_nodes_per_worker: u32,
    /// How a file's worker is picked.
    pub ring_policy: RingPolicy,
    /// Which workers make the ring.
    pub ring_membership: RingMembership,
    /// The most that cached pages and reads in flight take.
    pub memory_limit_bytes: u64,
    /// Whether who reads keeps what it has read, as the kernel does for a mount: pages that were read to
    /// their end then leave memory before others. The mount's own choice, and no field of a file.
    pub is_kept_by_reader: bool,
    /// How long a file's status is believed.
    pub metadata_ttl: Duration,
    /// How long it is believed that a name does not exist.
    pub negative_ttl: Duration,
    /// The most that kept statuses and listings take.
    pub metadata_limit_bytes: u64,
    /// Which version of a file is read; pinned only with a manifest.
    pub consistency: Consistency,
    /// What a reader does that meets another version before it handed out a byte.
    pub on_change: OnChange,
    /// Whether workers that know no versions are asked how old their copy of a file is.
    pub verify_worker_version: bool,
    /// A listing of the dataset in a file.
    pub manifest: Option<ManifestConfig>,
    /// How files are read, where nobody says otherwise when opening one.
    pub access_profile: AccessProfile,
    /// A file with the paths of files in the order in which they will be opened.
    pub file_list: Option<PathBuf>,
    /// Pages on this node's disk.
    pub disk_cache: Option<DiskCacheConfig>,
    /// The most that is read ahead in one file.
    pub readahead_max_bytes: u64,
    /// Requests at one time.
    pub max_inflight_requests: usize,
    /// Files that a transfer moves at one time.
    pub max_parallel_transfers: usize,
    /// What bounds a read when others are slow or fail.
    pub robust: RobustOptions,
    /// When to read from the under-store directly.
    pub fallback: FallbackConfig,
}

/// A listing of the dataset in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestConfig {
    /// The file.
    pub path: PathBuf,
    /// The longest that is taken.
    pub limit_bytes: u64,
}

/// When and how to read from the under-store directly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FallbackConfig {
    /// When.
    pub policy: FallbackPolicy,
    /// How long one worker may take to answer.
    pub worker_timeout: Duration,
    /// Ring workers to try before.
    pub max_worker_attempts: u32,
    /// The most that comes from there in an hour because no worker served it.
    pub max_bytes_per_hour: Option<u64>,
}

/// Logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggingConfig {
    /// Level or filters.
    pub level: String,
    /// File to append to.
    pub path: Option<PathBuf>,
    /// How lines look.
    pub format: LogFormat,
}

impl Config {
    /// Reads the YAML file's text.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_YAML_BYTES {
            return Err(shape(
                ".",
                format!("the text is over {MAX_YAML_BYTES} bytes"),
            ));
        }
        let document =
            serde_yaml::from_str(text).map_err(|e: serde_yaml::Error| shape(".", e.to_string()))?;
        let document = alias::resolve(document)?;
        let raw: RawConfig = serde_path_to_error::deserialize(document)
            .map_err(|e| shape(&e.path().to_string(), e.inner().to_string()))?;
        Self::try_from(raw)
    }

    /// Writes the YAML without any secret: keys, tokens and passwords are left out.
    pub fn to_yaml(&self) -> String {
        self.write(false)
    }

    /// Writes the YAML with secrets, for a channel that only its reader sees.
    pub fn to_yaml_with_secrets(&self) -> String {
        self.write(true)
    }

    /// The same configuration with the credentials of a Kubernetes Secret's data.
    pub fn with_credentials(&self, data: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        config.ufs = config.ufs.with_credentials(data)?;
        Ok(config)
    }

    fn write(&self, secrets: bool) -> String {
        serde_yaml::to_string(&to_raw(self, secrets)).unwrap_or_default()
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        let cluster = cluster::read(raw.cluster)?;
        let is_service = matches!(cluster.membership, Membership::Service(_));
        if is_service && raw.client.ring_membership == RingMembership::Registered {
            let reason = "DNS knows no registered workers: with cluster.membership.type service \
                          leave it live";
            return Err(ConfigError::value("client.ring_membership", reason));
        }
        let client = client(&raw.client)?;
        Ok(Self {
            ufs: ufs::validated(raw.ufs)?,
            cluster,
            mount: mount::validate(&raw.mount, &client)?,
            client,
            worker: worker::read(raw.worker)?,
            logging: LoggingConfig {
                level: raw.logging.level,
                path: raw.logging.path.map(PathBuf::from),
                format: raw.logging.format,
            },
        })
    }
}

fn shape(path: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Shape {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn client(raw: &RawClient) -> Result<ClientOptions, ConfigError> {
    let page_size = PageSize::new(bytes("client.page_size", &raw.page_size)?)
        .map_err(|e| ConfigError::value("client.page_size", e.to_string()))?;
    let memory_limit_bytes = bytes("client.memory_limit", &raw.memory_limit)?;
    // Below four pages a reader cannot hold one page, fill the next and read one ahead.
    let least = 4 * page_size.bytes();
    if memory_limit_bytes < least {
        let reason = format!(
            "{memory_limit_bytes} bytes is less than four pages of {page_size}: give at least \
             {least} bytes"
        );
        return Err(ConfigError::value("client.memory_limit", reason));
    }
    let nodes = raw.virtual_nodes_per_worker;
    in_range(
        "client.virtual_nodes_per_worker",
        u64::from(nodes),
        1,
        u64::from(MAX_VIRTUAL_NODES),
    )?;
    let inflight = raw.max_inflight_requests;
    in_range("client.max_inflight_requests", u64::from(inflight), 1, 4096)?;
    let transfers = raw.max_parallel_transfers;
    in_range(
        "client.max_parallel_transfers",
        u64::from(transfers),
        1,
        256,
    )?;
    in_range(
        "client.metadata_ttl_seconds",
        raw.metadata_ttl_seconds,
        0,
        7 * 24 * 3600,
    )?;
    // A name that is made within an hour and not seen would look like a lost file.
    in_range(
        "client.negative_ttl_seconds",
        raw.negative_ttl_seconds,
        0,
        3600,
    )?;
    Ok(ClientOptions {
        page_size,
        virtual_nodes_per_worker: nodes,
        ring_policy: raw.ring_policy,
        ring_membership: raw.ring_membership,
        memory_limit_bytes,
        is_kept_by_reader: false,
        metadata_ttl: Duration::from_secs(raw.metadata_ttl_seconds),
        negative_ttl: Duration::from_secs(raw.negative_ttl_seconds),
        metadata_limit_bytes: bytes("client.metadata_limit", &raw.metadata_limit)?,
        consistency: raw.consistency,
        on_change: raw.on_change,
        verify_worker_version: raw.verify_worker_version,
        manifest: manifest(raw)?,
        access_profile: raw.access_profile,
        file_list: match raw.file_list.as_deref() {
            Some("") => {
                let reason = "it is empty: name a file, or leave the field out";
                return Err(ConfigError::value("client.file_list", reason));
            }
            list => list.map(PathBuf::from),
        },
        disk_cache: disk_cache::validate(&raw.disk_cache)?,
        readahead_max_bytes: bytes("client.readahead.max_window", &raw.readahead.max_window)?,
        max_inflight_requests: inflight as usize,
        robust: robust::read(raw, page_size)?,
        fallback: fallback(&raw.fallback, page_size)?,
        max_parallel_transfers: transfers as usize,
    })
}

fn manifest(raw: &RawClient) -> Result<Option<ManifestConfig>, ConfigError> {
    let limit_bytes = bytes("client.manifest.limit", &raw.manifest.limit)?;
    match raw.manifest.path.as_deref() {
        Some("") => Err(ConfigError::value(
            "client.manifest.path",
            "it is empty: name a file, or leave the field out",
        )),
        Some(path) => Ok(Some(ManifestConfig {
            path: PathBuf::from(path),
            limit_bytes,
        })),
        None if raw.consistency == Consistency::Pinned => Err(ConfigError::value(
            "client.consistency",
            "pinned needs a manifest: set client.manifest.path, made by `alluxio-dataset manifest \
             create`",
        )),
        None => Ok(None),
    }
}

fn fallback(raw: &RawFallback, page_size: PageSize) -> Result<FallbackConfig, ConfigError> {
    let millis = raw.worker_timeout_milliseconds;
    in_range(
        "client.fallback.worker_timeout_milliseconds",
        millis,
        1,
        600_000,
    )?;
    let attempts = raw.max_worker_attempts;
    in_range(
        "client.fallback.max_worker_attempts",
        u64::from(attempts),
        1,
        16,
    )?;
    let path = "client.fallback.max_bytes_per_hour";
    let budget = bytes(path, &raw.max_bytes_per_hour)?;
    // A page is asked for as a whole, so a smaller budget would refuse every one.
    if (1..page_size.bytes()).contains(&budget) {
        let reason = format!(
            "{budget} bytes is less than a page of {page_size}, so nothing could ever be read: \
             give more, 0 for no limit, or set client.fallback.policy to never"
        );
        return Err(ConfigError::value(path, reason));
    }
    Ok(FallbackConfig {
        policy: raw.policy,
        worker_timeout: Duration::from_millis(millis),
        max_worker_attempts: attempts,
        max_bytes_per_hour: Some(budget).filter(|budget| *budget > 0),
    })
}

pub(crate) fn bytes(path: &'static str, size: &Size) -> Result<u64, ConfigError> {
    match size {
        Size::Bytes(bytes) => Ok(*bytes),
        Size::Text(text) => parse_size(text).map_err(|e| ConfigError::value(path, e.to_string())),
    }
}

pub(crate) fn in_range(
    path: &'static str,
    value: u64,
    least: u64,
    most: u64,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let reason = format!("{value} is out of range: give {least} to {most}");
    Err(ConfigError::value(path, reason))
}

fn not_empty<T>(path: &'static str, list: Vec<T>) -> Result<Vec<T>, ConfigError> {
    if list.is_empty() {
        return Err(ConfigError::value(
            path,
            "the list is empty: name at least one",
        ));
    }
    Ok(list)
}

/// A text that was left out may be; an empty one is a slip.
fn text_or_nothing(
    path: &'static str,
    text: Option<String>,
) -> Result<Option<String>, ConfigError> {
    match text {
        Some(text) if text.is_empty() => Err(ConfigError::value(
            path,
            "it is empty: give a value, or leave the field out",
        )),
        text => Ok(text),
    }
}

fn check_url(path: &'static str, url: &str) -> Result<(), ConfigError> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
        Some(authority) if authority.contains('@') => {
            let reason = "the URL holds credentials: take them out of it";
            Err(ConfigError::value(path, reason))
        }
        Some(authority) if !authority.is_empty() => Ok(()),
        _ => Err(ConfigError::value(
            path,
            "not a URL such as http://host:port",
        )),
    }
}

fn to_raw(config: &Config, secrets: bool) -> RawConfig {
    RawConfig {
        ufs: ufs::to_raw(&config.ufs, secrets),
        cluster: RawCluster {
            name: config.cluster.name.clone(),
            membership: cluster::to_raw_membership(&config.cluster.membership, secrets),
            workers: cluster::to_raw_workers(&config.cluster.security),
        },
        client: to_raw_client(&config.client),
        worker: worker::to_raw(&config.worker),
        mount: mount::to_raw(&config.mount),
        logging: crate::raw::RawLogging {
            level: config.logging.level.clone(),
            path: config
                .logging
                .path
                .as_ref()
                .map(|p| p.display().to_string()),
            format: config.logging.format,
        },
    }
}

fn to_raw_client(client: &ClientOptions) -> RawClient {
    let mut raw = RawClient {
        page_size: Size::Bytes(client.page_size.bytes()),
        virtual_nodes_per_worker: client.virtual_nodes_per_worker,
        ring_policy: client.ring_policy,
        ring_membership: client.ring_membership,
        memory_limit: Size::Bytes(client.memory_limit_bytes),
        metadata_ttl_seconds: client.metadata_ttl.as_secs(),
        negative_ttl_seconds: client.negative_ttl.as_secs(),
        metadata_limit: Size::Bytes(client.metadata_limit_bytes),
        consistency: client.consistency,
        on_change: client.on_change,
        verify_worker_version: client.verify_worker_version,
        manifest: to_raw_manifest(client.manifest.as_ref()),
        access_profile: client.access_profile,
        file_list: client
            .file_list
            .as_ref()
            .map(|list| list.display().to_string()),
        disk_cache: disk_cache::to_raw(client.disk_cache.as_ref()),
        readahead: crate::raw::RawReadahead {
            max_window: Size::Bytes(client.readahead_max_bytes),
        },
        max_inflight_requests: narrow(client.max_inflight_requests),
        max_parallel_transfers: narrow(client.max_parallel_transfers),
        fallback: RawFallback {
            policy: client.fallback.policy,
            worker_timeout_milliseconds: u64::try_from(client.fallback.worker_timeout.as_millis())
                .unwrap_or(u64::MAX),
            max_worker_attempts: client.fallback.max_worker_attempts,
            max_bytes_per_hour: Size::Bytes(client.fallback.max_bytes_per_hour.unwrap_or(0)),
        },
        ..RawClient::default()
    };
    robust::write(&client.robust, &mut raw);
    raw
}

fn to_raw_manifest(manifest: Option<&ManifestConfig>) -> RawManifest {
    manifest.map_or_else(RawManifest::default, |manifest| RawManifest {
        path: Some(manifest.path.display().to_string()),
        limit: Size::Bytes(manifest.limit_bytes),
    })
}

/// Counts were read from 32-bit fields, so they fit back.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
