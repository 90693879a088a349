//! What the operator says about a dataset.
//!
//! Every number here was reported by a worker or counted by the operator; what nobody reported is
//! left out rather than guessed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::load::LoadState;

/// What the operator knows about a dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlluxioDatasetStatus {
    /// The generation of the spec that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, UFSReachable, WorkersAvailable, Loaded, Mountable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map"),
        extend("x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// The under-store's files, as the last load of the whole dataset counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufs: Option<UfsStatus>,
    /// The workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStatus>,
    /// What the last load brought into the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheStatus>,
    /// The last load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadSummary>,
}

/// The under-store's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UfsStatus {
    /// How many files.
    pub files: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Their bytes for people, such as 137.9Gi.
    #[schemars(length(max = 32))]
    pub size: String,
}

/// The workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingStatus {
    /// How many are members.
    pub workers: i32,
    /// How many of them answer their health check.
    pub live_workers: i32,
    /// Points of each on the ring.
    pub virtual_nodes_per_worker: i32,
}

/// What the last load brought into the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    /// Bytes loaded or found cached.
    pub bytes: i64,
    /// Their share of what was to be loaded.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
}

/// The last load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadSummary {
    /// The AlluxioDataLoad; it may have been pruned since.
    pub last_load_ref: LoadReference,
    /// How far it is, or how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LoadState>,
    /// When a load of this dataset last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
}

/// The name of an AlluxioDataLoad in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadReference {
    /// metadata.name.
    #[schemars(length(max = 253))]
    pub name: String,
}
