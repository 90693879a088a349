//! `AlluxioDataLoad`: one run of a load, from submission to its end.
//!
//! Its spec never changes; whoever wants another run makes another object. Deleting it stops the
//! run. The operator makes one for a dataset with `load.mode: Once`; a user may make more.

#![allow(
    clippy::duplicated_attributes,
    reason = "each printcolumn() has its own name and type; the lint sees one flat list"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::{CachedFiles, ObjectName, Verification, default_backoff_limit, default_paths};
use crate::{quantity::ByteQuantity, rules};

/// How many failures a status lists; the rest is counted.
pub const MAX_LISTED_FAILURES: usize = 20;

/// What to load.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "data.alluxio.io",
    version = "v1alpha1",
    kind = "AlluxioDataLoad",
    namespaced,
    status = "AlluxioDataLoadStatus",
    derive = "PartialEq",
    shortname = "adl",
    category = "alluxio",
    doc = "One run of loading a dataset's files into Alluxio's workers. Deleting it stops the run.",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.filesDone"),
    printcolumn(
        name = "Bytes %",
        type_ = "integer",
        json_path = ".status.bytesPercent"
    ),
    printcolumn(
        name = "ETA",
        type_ = "integer",
        json_path = ".status.etaSeconds",
        description = "Seconds until it is done at its average speed so far"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::load()))]
pub struct AlluxioDataLoadSpec {
    /// The AlluxioDataset in the same namespace.
    pub dataset_ref: ObjectName,
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
    /// Only files whose path matches this regular expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub file_filter: Option<String>,
    /// What is loaded of each file.
    #[serde(default)]
    pub content: LoadContent,
    /// How often a failed run is tried again.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 0, max = 20))]
    pub backoff_limit: i32,
}

/// What is loaded of each file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadContent {
    /// Its pages.
    #[default]
    Data,
    /// Its name, size and version only.
    Metadata,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadState {
    /// Not submitted yet.
    #[default]
    Pending,
    /// The workers load.
    Running,
    /// The workers check what they loaded.
    Verifying,
    /// All is loaded.
    Succeeded,
    /// Given up after `backoffLimit`.
    Failed,
    /// Stopped by someone else.
    Stopped,
}

/// What the operator knows about a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlluxioDataLoadStatus {
    /// The generation of the spec that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map"),
        extend("x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// How far it is, or how it ended.
    #[serde(default)]
    pub state: LoadState,
    /// What happened last, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// The worker that was given the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub worker: Option<String>,
    /// How often it was submitted again after a failure.
    #[serde(default)]
    pub retries: i32,
    /// After a failure: when it is submitted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// Files done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_done: Option<i64>,
    /// Files found so far; all of them once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_total: Option<i64>,
    /// Bytes done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    /// Bytes found so far; all of them once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// bytesDone of bytesTotal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub bytes_percent: Option<i32>,
    /// Average speed since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// Time left at that speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// The first failures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LISTED_FAILURES), extend("x-kubernetes-list-type" = "atomic"))]
    pub failures: Vec<FileFailure>,
    /// How many files failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_count: Option<i64>,
    /// When it was first submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// A file that could not be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileFailure {
    /// Its path in the under-store.
    #[schemars(length(max = 2048))]
    pub path: String,
    /// Why.
    #[schemars(length(max = 1024))]
    pub reason: String,
}

impl LoadState {
    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }
}

impl AlluxioDataLoad {
    /// How far the run is; a load without status is not submitted yet.
    pub fn state(&self) -> LoadState {
        self.status.as_ref().map_or(LoadState::Pending, |s| s.state)
    }

    /// Whether it loads everything of its dataset, so that its counts are the dataset's.
    pub fn covers_dataset(&self) -> bool {
        let whole = self.spec.paths.iter().any(|path| path == "/");
        whole && self.spec.file_filter.is_none() && self.spec.content == LoadContent::Data
    }
}
