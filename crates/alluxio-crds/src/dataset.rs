//! `AlluxioDataset`: a folder of an under-store, the workers that cache it, and how pods see it.
//!
//! The spec is what a user writes; every field does something, and a field that could be left out
//! has the default that Alluxio has. Unknown fields are refused by serde as well as by the API
//! server, so that the quickstart and `kubectl apply` take the same YAML.

#![allow(
    clippy::duplicated_attributes,
    reason = "each printcolumn() has its own name and type; the lint sees one flat list"
)]

mod client;
mod status;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{quantity::ByteQuantity, rules};

pub use client::{
    ClientSpec, FallbackPolicy, FallbackSpec, LogLevel, LoggingSpec, ReadaheadSpec, RingMembership,
};
pub use status::{
    AlluxioDatasetStatus, CacheStatus, LoadReference, LoadSummary, RingStatus, UfsStatus,
};

/// What the dataset is and how it is read.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "data.alluxio.io",
    version = "v1alpha1",
    kind = "AlluxioDataset",
    namespaced,
    status = "AlluxioDatasetStatus",
    derive = "PartialEq",
    shortname = "ads",
    category = "alluxio",
    doc = "A folder of an under-store (S3, files) that pods read through Alluxio's workers. \
           It becomes a PersistentVolumeClaim of the same name.",
    printcolumn(name = "URI", type_ = "string", json_path = ".spec.ufs.uri"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Loaded %",
        type_ = "integer",
        json_path = ".status.cache.percent",
        description = "Share of the dataset's bytes that the last load brought into the workers"
    ),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.ufs.files"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.ufs.size"),
    printcolumn(
        name = "Workers",
        type_ = "integer",
        json_path = ".status.ring.liveWorkers",
        description = "Workers that answer their health check"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::dataset()))]
pub struct AlluxioDatasetSpec {
    /// Where the files are.
    pub ufs: UfsSpec,
    /// Which workers cache them.
    pub cluster: ClusterSpec,
    /// How clients read.
    #[serde(default)]
    pub client: ClientSpec,
    /// Whether the workers load the files ahead of the first read.
    #[serde(default)]
    pub load: LoadSpec,
    /// How the files look in a pod.
    #[serde(default)]
    pub mount: MountSpec,
    /// What happens to cached pages when the dataset is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The under-store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::ufs()))]
pub struct UfsSpec {
    /// The folder that is the dataset's root: s3://bucket/path, s3a://bucket/path or file:///path.
    /// Immutable. It never holds credentials.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::ufs_uri()))]
    pub uri: String,
    /// For S3: which server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
    /// How the under-store is told who reads.
    #[serde(default)]
    pub credentials: CredentialsSpec,
}

/// Which S3 server, and how it wants to be spoken to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Spec {
    /// Such as `https://minio.storage:9000`; AWS when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = rules::s3_endpoint()))]
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Path is `http://host/bucket/key` and works with every server; Virtual is
    /// `http://bucket.host/key`.
    #[serde(default)]
    pub addressing_style: AddressingStyle,
}

/// Where the bucket's name goes in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressingStyle {
    /// `http://host/bucket/key`.
    #[default]
    Path,
    /// `http://bucket.host/key`.
    Virtual,
}

/// How the under-store is told who reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::credentials()))]
pub struct CredentialsSpec {
    /// Anonymous, or the keys in a Secret.
    #[serde(rename = "type", default)]
    pub kind: CredentialsType,
    /// A Secret in the dataset's namespace with the keys AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY, and optionally AWS_SESSION_TOKEN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectName>,
}

/// Where credentials come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialsType {
    /// No credentials are sent.
    #[default]
    Anonymous,
    /// A Secret holds them.
    SecretRef,
}

/// The name of an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectName {
    /// metadata.name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// The Alluxio cluster's name (alluxio.cluster.name), under which workers register in etcd.
    #[serde(default = "default_cluster_name")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    )]
    pub name: String,
    /// How the workers are found.
    pub membership: MembershipSpec,
}

/// How the workers are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::membership()))]
pub struct MembershipSpec {
    /// Static: a list. Etcd: as Alluxio's workers register. None: no workers, all is read from the
    /// under-store.
    #[serde(rename = "type")]
    pub kind: MembershipType,
    /// For type Static.
    #[serde(rename = "static", default, skip_serializing_if = "Option::is_none")]
    pub static_list: Option<StaticMembership>,
    /// For type Etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdMembership>,
}

/// How the workers are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MembershipType {
    /// A list in the spec.
    Static,
    /// Their own registration in etcd.
    Etcd,
    /// There are none.
    None,
}

/// A list of workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticMembership {
    /// host or host:port; the port is 28080 when left out. The host is the worker's identity on
    /// the ring.
    #[schemars(
        length(min = 1, max = 256),
        inner(length(min = 1, max = 259)),
        extend("x-kubernetes-list-type" = "set"),
        extend("x-kubernetes-validations" = rules::static_workers())
    )]
    pub workers: Vec<String>,
}

/// Workers that register themselves in etcd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EtcdMembership {
    /// http://host:port of etcd's members.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 512)),
        extend("x-kubernetes-list-type" = "set"),
        extend("x-kubernetes-validations" = rules::etcd_endpoints())
    )]
    pub endpoints: Vec<String>,
}

/// Whether the workers load the files ahead of the first read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadSpec {
    /// None: pages are cached at the first read. Once: loaded once, and again when paths,
    /// verification or cachedFiles change.
    #[serde(default)]
    pub mode: LoadMode,
    /// Folders or files below the dataset's root.
    #[serde(default = "default_paths")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 1024)),
        extend("x-kubernetes-list-type" = "set"),
        extend("x-kubernetes-validations" = rules::paths())
    )]
    pub paths: Vec<String>,
    /// Whether the workers check what they loaded.
    #[serde(default)]
    pub verification: Verification,
    /// What happens to files that are cached already.
    #[serde(default)]
    pub cached_files: CachedFiles,
    /// Bytes per second that each worker may read from the under-store; unlimited when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::positive_bytes()))]
    pub bandwidth_per_worker: Option<ByteQuantity>,
    /// How often a failed load is tried again.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub backoff_limit: i32,
    /// How many finished AlluxioDataLoads of this dataset are kept.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub history_limit: i32,
}

/// When to load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadMode {
    /// Pages are cached at the first read.
    #[default]
    None,
    /// Once for this spec.
    Once,
}

/// What is checked after loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verification {
    /// Nothing.
    #[default]
    None,
    /// That the cached size of every file is its size.
    Size,
}

/// What happens to files that are cached already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CachedFiles {
    /// They are left as they are.
    #[default]
    Skip,
    /// They are read again.
    Reload,
}

/// How the files look in a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MountSpec {
    /// How pods may mount it.
    #[serde(default = "default_access_modes")]
    #[schemars(length(min = 1, max = 1), extend("x-kubernetes-list-type" = "set"))]
    pub access_modes: Vec<AccessMode>,
    /// The owner of all files.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_294_u32))]
    pub uid: i64,
    /// The group of all files.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_294_u32))]
    pub gid: i64,
    /// Octal permissions of files.
    #[serde(default = "default_file_mode")]
    #[schemars(length(max = 4), regex(pattern = "^0?[0-7]{3}$"))]
    pub file_mode: String,
    /// Octal permissions of directories.
    #[serde(default = "default_directory_mode")]
    #[schemars(length(max = 4), regex(pattern = "^0?[0-7]{3}$"))]
    pub directory_mode: String,
    /// For ReadWriteMany: the most that files take on a node's disk while they are written. It must hold
    /// the largest file; more ends in ENOSPC.
    #[serde(default = "default_staging_capacity")]
    #[schemars(extend("x-kubernetes-validations" = rules::positive_bytes()))]
    pub staging_capacity: ByteQuantity,
}

/// How pods may mount a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// Many nodes, read only.
    ReadOnlyMany,
    /// Many nodes, which write: a file is seen by others once it is closed, and of two who write one
    /// file the last to close it wins.
    ReadWriteMany,
}

impl MountSpec {
    /// Whether pods may change the dataset.
    pub fn is_writable(&self) -> bool {
        self.access_modes.contains(&AccessMode::ReadWriteMany)
    }
}

/// What happens to cached pages when the dataset is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The workers keep them until they need the space.
    #[default]
    RetainCache,
}

impl AlluxioDataset {
    /// `namespace/name`, as messages and volume attributes name a dataset.
    pub fn qualified_name(&self) -> String {
        let metadata = &self.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        format!(
            "{namespace}/{}",
            metadata.name.as_deref().unwrap_or_default()
        )
    }
}

impl Default for LoadSpec {
    fn default() -> Self {
        Self {
            mode: LoadMode::default(),
            paths: default_paths(),
            verification: Verification::default(),
            cached_files: CachedFiles::default(),
            bandwidth_per_worker: None,
            backoff_limit: default_backoff_limit(),
            history_limit: default_history_limit(),
        }
    }
}

impl Default for MountSpec {
    fn default() -> Self {
        Self {
            access_modes: default_access_modes(),
            uid: 0,
            gid: 0,
            file_mode: default_file_mode(),
            directory_mode: default_directory_mode(),
            staging_capacity: default_staging_capacity(),
        }
    }
}

/// Alluxio's own default cluster name.
fn default_cluster_name() -> String {
    "DefaultAlluxioCluster".to_owned()
}

/// The whole dataset.
pub(crate) fn default_paths() -> Vec<String> {
    vec!["/".to_owned()]
}

/// Enough for a rolling restart of workers.
pub(crate) const fn default_backoff_limit() -> i32 {
    3
}

/// The last few runs, to compare.
const fn default_history_limit() -> i32 {
    3
}

fn default_access_modes() -> Vec<AccessMode> {
    vec![AccessMode::ReadOnlyMany]
}

/// Readable by every user of a pod.
fn default_file_mode() -> String {
    "0444".to_owned()
}

/// Fits beside images and logs on the smallest node disk.
fn default_staging_capacity() -> ByteQuantity {
    ByteQuantity::new("10Gi")
}

/// Listable by every user of a pod.
fn default_directory_mode() -> String {
    "0555".to_owned()
}
