//! Step 3: what should be done? Pure, and it cannot fail.
//!
//! A volume's source is immutable, so another configuration means another volume; that is safe only
//! while no pod uses the claim, which [`super::apply`] checks at the last moment. A load is made
//! once for each version of the load spec: the version is in its name, and the dataset's status
//! remembers the name when the object is gone.

mod volume;

use alluxio_crds::dataset::{LoadMode, LoadSpec};
use alluxio_crds::load::{AlluxioDataLoadSpec, LoadContent};
use alluxio_crds::{AlluxioDataLoad, AlluxioDataset, dataset::ObjectName};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::observe::Observed;
use super::validate::ValidDataset;
use crate::names;

pub use volume::WantedVolume;

/// What to do for one dataset, in the order of the fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The volume and its claim.
    pub volume: VolumePlan,
    /// A load to make.
    pub load: Option<AlluxioDataLoad>,
    /// Loads of our making to delete: superseded ones, which stops them, and finished ones beyond
    /// the history.
    pub delete_loads: Vec<String>,
}

/// What to do about the volume and its claim.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumePlan {
    /// Make them, or keep them as they should be.
    Apply(Box<WantedVolume>),
    /// They cannot be changed in place: replace them once no pod uses them.
    Replace {
        /// What does not fit.
        why: Misfit,
    },
    /// One of them is being deleted.
    AwaitDeletion,
    /// Something of that name is not ours.
    Conflict(Conflict),
}

/// Why a volume has to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The spec asks for another configuration than the volume carries.
    Edited,
    /// The claim it was bound to was deleted; a volume binds only once.
    Released,
    /// Someone deleted the volume; Kubernetes keeps it until its claim goes.
    Deleted,
}

/// An object that stands where ours should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Kind and name.
    pub object: String,
}

/// Decides what to do.
pub fn plan(dataset: &ValidDataset<'_>, observed: &Observed) -> Plan {
    let wanted = WantedVolume::of(dataset);
    let load = wanted_load(dataset);
    Plan {
        volume: volume_plan(dataset, wanted, observed),
        load: load
            .clone()
            .filter(|load| !was_made(dataset.object, load, observed)),
        delete_loads: loads_to_delete(dataset, load.as_ref(), observed),
    }
}

/// The load that the spec asks for, whether it was made or not.
pub fn wanted_load(dataset: &ValidDataset<'_>) -> Option<AlluxioDataLoad> {
    let spec = &dataset.object.spec.load;
    match spec.mode {
        LoadMode::None => None,
        LoadMode::Once => Some(load_of(dataset, spec)),
    }
}

/// Whether an object carries this dataset's uid, so that it may be changed or deleted.
pub fn is_ours<K: Resource>(object: &K, uid: &str) -> bool {
    object
        .labels()
        .get(names::LABEL_DATASET_UID)
        .is_some_and(|label| label == uid)
}

fn volume_plan(
    dataset: &ValidDataset<'_>,
    wanted: WantedVolume,
    observed: &Observed,
) -> VolumePlan {
    let (volume, claim) = (observed.volume.as_ref(), observed.claim.as_ref());
    let volume_leaves = volume.is_some_and(is_leaving);
    if claim.is_some_and(is_leaving) || (volume_leaves && claim.is_none()) {
        return VolumePlan::AwaitDeletion;
    }
    if let Some(conflict) = conflict(dataset, volume, claim) {
        return VolumePlan::Conflict(conflict);
    }
    if volume_leaves {
        let why = Misfit::Deleted;
        return VolumePlan::Replace { why };
    }
    match volume.and_then(|volume| volume::misfit(&wanted, volume, claim)) {
        Some(why) => VolumePlan::Replace { why },
        None => VolumePlan::Apply(Box::new(wanted)),
    }
}

fn is_leaving<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

fn conflict(
    dataset: &ValidDataset<'_>,
    volume: Option<&PersistentVolume>,
    claim: Option<&PersistentVolumeClaim>,
) -> Option<Conflict> {
    let foreign = |kind: &str, name: String| Conflict {
        object: format!("{kind} {name}"),
    };
    if let Some(volume) = volume.filter(|v| !is_ours(*v, dataset.uid)) {
        return Some(foreign("PersistentVolume", volume.name_any()));
    }
    let claim = claim.filter(|c| !is_ours(*c, dataset.uid))?;
    let name = format!("{}/{}", dataset.namespace, claim.name_any());
    Some(foreign("PersistentVolumeClaim", name))
}

/// What the load is identified by: only what changes which bytes end up where.
fn load_of(dataset: &ValidDataset<'_>, spec: &LoadSpec) -> AlluxioDataLoad {
    let identity = json!([spec.paths, spec.verification, spec.cached_files]).to_string();
    let name = names::load(dataset.name, dataset.uid, &identity);
    let mut load = AlluxioDataLoad::new(
        &name,
        AlluxioDataLoadSpec {
            dataset_ref: ObjectName {
                name: dataset.name.to_owned(),
            },
            paths: spec.paths.clone(),
            verification: spec.verification,
            cached_files: spec.cached_files,
            bandwidth_per_worker: spec.bandwidth_per_worker.clone(),
            file_filter: None,
            content: LoadContent::Data,
            backoff_limit: spec.backoff_limit,
        },
    );
    load.metadata.namespace = Some(dataset.namespace.to_owned());
    load.metadata.labels = Some(volume::labels(dataset));
    load.metadata.owner_references = dataset.object.controller_owner_ref(&()).map(|o| vec![o]);
    load
}

fn was_made(dataset: &AlluxioDataset, load: &AlluxioDataLoad, observed: &Observed) -> bool {
    let name = load.name_any();
    let exists = observed.loads.iter().any(|l| l.name_any() == name);
    exists || last_load_name(dataset).is_some_and(|last| last == name)
}

/// The load that the dataset's status remembers.
pub fn last_load_name(dataset: &AlluxioDataset) -> Option<&str> {
    let summary = dataset.status.as_ref()?.load.as_ref()?;
    Some(summary.last_load_ref.name.as_str())
}

fn loads_to_delete(
    dataset: &ValidDataset<'_>,
    wanted: Option<&AlluxioDataLoad>,
    observed: &Observed,
) -> Vec<String> {
    let wanted_name = wanted.map(ResourceExt::name_any);
    let ours = observed.loads.iter().filter(|l| is_ours(*l, dataset.uid));
    let staying = ours.filter(|load| !is_leaving(*load));
    let (finished, running): (Vec<_>, Vec<_>) = staying.partition(|l| l.state().is_final());
    let superseded = running
        .into_iter()
        .filter(|load| Some(load.name_any()) != wanted_name);
    let limit = usize::try_from(dataset.object.spec.load.history_limit).unwrap_or(0);
    let old = beyond_history(finished, limit);
    superseded.chain(old).map(ResourceExt::name_any).collect()
}

/// Finished loads without the `limit` that ended last.
fn beyond_history(
    mut finished: Vec<&AlluxioDataLoad>,
    limit: usize,
) -> impl Iterator<Item = &AlluxioDataLoad> {
    let ended = |load: &AlluxioDataLoad| load.status.as_ref()?.completion_time.clone();
    finished.sort_by_key(|load| (ended(load), load.name_any()));
    let surplus = finished.len().saturating_sub(limit);
    finished.into_iter().take(surplus)
}

#[cfg(test)]
mod tests;
