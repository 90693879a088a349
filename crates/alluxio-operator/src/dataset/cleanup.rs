//! After a dataset is deleted: stop and delete its loads, then its claim and its volume.
//!
//! Nothing here may wait forever. Each stage has a deadline counted from the deletion; when it has
//! passed, an event says what was left and the finalizer goes. What is left needs us no more:
//! Kubernetes itself finishes the claim and the volume when the last pod ends.

use alluxio_crds::AlluxioDataLoad;
use alluxio_crds::AlluxioDataset;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;

use super::observe::loads_of;
use super::plan::is_ours;
use super::{Error, apply, deleting_for};
use crate::context::{Context, Notice};
use crate::names;

/// Why deletion waits.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Loads are being stopped.
    #[error("AlluxioDataset {dataset} waits for its loads to stop: {loads}")]
    Loads {
        /// `namespace/name`.
        dataset: String,
        /// Their names.
        loads: String,
    },
    /// The claim or the volume is still there.
    #[error("AlluxioDataset {dataset} waits for its claim and volume to go; used by pods: {pods}")]
    Volume {
        /// `namespace/name`.
        dataset: String,
        /// Some of the pods that use the claim.
        pods: String,
    },
}

/// One look at a deleted dataset. `Ok` removes the finalizer.
pub(super) async fn cleanup(dataset: &AlluxioDataset, context: &Context) -> Result<Action, Error> {
    let waited = deleting_for(dataset, Timestamp::now()).unwrap_or_default();
    let loads = delete_loads(dataset, context).await?;
    if !loads.is_empty() {
        if waited < context.limits.loads_gone {
            let dataset = dataset.qualified_name();
            return Err(CleanupError::Loads { dataset, loads }.into());
        }
        let note = format!("loads that did not stop in time are left to themselves: {loads}");
        context
            .tell(dataset, &[Notice::warning("LoadsNotStopped", note)])
            .await;
    }
    if delete_volume(dataset, context).await? == Remains::Something {
        let namespace = dataset.namespace().unwrap_or_default();
        let pods = apply::pods_using(context, &namespace, &dataset.name_any()).await?;
        if waited < context.limits.volume_gone {
            return Err(blocked(dataset, context, pods).await);
        }
        let note = format!(
            "claim and volume are still there (used by pods: {pods}); Kubernetes removes them when \
             the last pod has ended"
        );
        context
            .tell(dataset, &[Notice::warning("VolumeLeftBehind", note)])
            .await;
    }
    context
        .surveys
        .forget(dataset.metadata.uid.as_deref().unwrap_or_default());
    Ok(Action::await_change())
}

#[derive(PartialEq, Eq)]
enum Remains {
    Nothing,
    Something,
}

/// Deletes what is not being deleted yet; gives the names of what is still there. Users' own loads
/// too: without the dataset nobody could follow their jobs, or stop them.
async fn delete_loads(dataset: &AlluxioDataset, context: &Context) -> Result<String, Error> {
    let namespace = dataset.namespace().unwrap_or_default();
    let listed = loads_of(context, &namespace, &dataset.name_any()).await;
    let loads = listed.map_err(|source| super::observe::ObserveError::Read {
        what: "the list of AlluxioDataLoads",
        dataset: dataset.qualified_name(),
        source,
    })?;
    let api: Api<AlluxioDataLoad> = Api::namespaced(context.client.clone(), &namespace);
    for load in loads
        .iter()
        .filter(|load| load.metadata.deletion_timestamp.is_none())
    {
        apply::delete(&api, "AlluxioDataLoad", &load.name_any()).await?;
    }
    Ok(loads
        .iter()
        .map(ResourceExt::name_any)
        .collect::<Vec<_>>()
        .join(", "))
}

/// Claim first: Kubernetes frees a volume only when its claim is gone. What is not ours stays.
async fn delete_volume(dataset: &AlluxioDataset, context: &Context) -> Result<Remains, Error> {
    let namespace = dataset.namespace().unwrap_or_default();
    let (name, uid) = (dataset.name_any(), dataset.uid().unwrap_or_default());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let volume_name = names::volume(&namespace, &name, &uid);
    let failed = |what| {
        let dataset = dataset.qualified_name();
        move |source| super::observe::ObserveError::Read {
            what,
            dataset,
            source,
        }
    };
    let claim = claims
        .get_opt(&name)
        .await
        .map_err(failed("the PersistentVolumeClaim"))?;
    let volume = volumes
        .get_opt(&volume_name)
        .await
        .map_err(failed("the PersistentVolume"))?;
    let claim = claim.filter(|claim| is_ours(claim, &uid));
    let volume = volume.filter(|volume| is_ours(volume, &uid));
    if claim
        .as_ref()
        .is_some_and(|c| c.metadata.deletion_timestamp.is_none())
    {
        apply::delete(&claims, "PersistentVolumeClaim", &name).await?;
    }
    if volume
        .as_ref()
        .is_some_and(|v| v.metadata.deletion_timestamp.is_none())
    {
        apply::delete(&volumes, "PersistentVolume", &volume_name).await?;
    }
    let nothing = claim.is_none() && volume.is_none();
    Ok(if nothing {
        Remains::Nothing
    } else {
        Remains::Something
    })
}

/// The event repeats itself as one series, so it may be told at each look.
async fn blocked(dataset: &AlluxioDataset, context: &Context, pods: String) -> Error {
    if !pods.is_empty() {
        let note = format!("deletion waits for pods that use the claim: {pods}");
        context
            .tell(dataset, &[Notice::warning("DeletionBlocked", note)])
            .await;
    }
    CleanupError::Volume {
        dataset: dataset.qualified_name(),
        pods,
    }
    .into()
}
