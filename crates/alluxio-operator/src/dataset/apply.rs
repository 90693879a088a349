//! Step 4: do it. Server-side apply with one field manager, in a fixed order: volume, claim, load,
//! and what is left over last.
//!
//! Each step may be repeated: a crash between two of them is healed by the next reconcile.

use alluxio_crds::AlluxioDataLoad;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};

use super::observe::PAGE;
use super::plan::{Conflict, Misfit, Plan, VolumePlan, WantedVolume};
use super::validate::ValidDataset;
use crate::context::Context;
use crate::names;

/// How many pods a message names.
const NAMED_PODS: usize = 3;

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The volume and its claim.
    pub volume: VolumeOutcome,
    /// The load that was made now.
    pub load_made: Option<AlluxioDataLoad>,
}

/// What became of volume and claim.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeOutcome {
    /// They are as they should be; the claim as the API server gave it back.
    InPlace(Box<PersistentVolumeClaim>),
    /// They are being replaced.
    Replacing,
    /// They should be replaced, and pods use them.
    EditPending {
        /// Some of the pods.
        pods: String,
    },
    /// The volume was deleted and should be made anew, and pods use it.
    VolumeDeleted {
        /// Some of the pods.
        pods: String,
    },
    /// Something of that name is not ours.
    Conflict(Conflict),
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused.
    #[error("{what} {name} cannot be {verb}: {source}")]
    Api {
        /// Applied, deleted, listed.
        verb: &'static str,
        /// The kind.
        what: &'static str,
        /// The name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
}

/// Carries out a plan.
pub async fn apply(
    context: &Context,
    dataset: &ValidDataset<'_>,
    plan: Plan,
) -> Result<Applied, ApplyError> {
    let volume = apply_volume(context, dataset, plan.volume).await?;
    let loads: Api<AlluxioDataLoad> = Api::namespaced(context.client.clone(), dataset.namespace);
    let load_made = match plan.load {
        Some(load) => Some(server_side(&loads, "AlluxioDataLoad", &load).await?),
        None => None,
    };
    for name in &plan.delete_loads {
        delete(&loads, "AlluxioDataLoad", name).await?;
    }
    Ok(Applied { volume, load_made })
}

/// Some of the pods that use a claim and have not ended; empty when there are none.
pub async fn pods_using(
    context: &Context,
    namespace: &str,
    claim: &str,
) -> Result<String, ApplyError> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let mut using = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = pods
            .list(&page)
            .await
            .map_err(failed("listed", "Pods in", namespace))?;
        using.extend(
            list.items
                .iter()
                .filter(|pod| uses(pod, claim))
                .map(ResourceExt::name_any),
        );
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) if using.len() <= NAMED_PODS => page = page.continue_token(&token),
            _ => break,
        }
    }
    let more = if using.len() > NAMED_PODS {
        " and more"
    } else {
        ""
    };
    using.truncate(NAMED_PODS);
    Ok(format!("{}{more}", using.join(", ")))
}

/// Deletes an object; one that is gone already is deleted.
pub async fn delete<K>(api: &Api<K>, what: &'static str, name: &str) -> Result<(), ApplyError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(failed("deleted", what, name)(source)),
    }
}

fn uses(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let mut claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    !ended && claims.any(|source| source.claim_name == claim)
}

async fn apply_volume(
    context: &Context,
    dataset: &ValidDataset<'_>,
    plan: VolumePlan,
) -> Result<VolumeOutcome, ApplyError> {
    match plan {
        VolumePlan::Apply(wanted) => {
            let claim = put_in_place(context, dataset.namespace, &wanted).await?;
            Ok(VolumeOutcome::InPlace(Box::new(claim)))
        }
        VolumePlan::Replace { why } => replace(context, dataset, why).await,
        VolumePlan::AwaitDeletion => Ok(VolumeOutcome::Replacing),
        VolumePlan::Conflict(conflict) => Ok(VolumeOutcome::Conflict(conflict)),
    }
}

async fn put_in_place(
    context: &Context,
    namespace: &str,
    wanted: &WantedVolume,
) -> Result<PersistentVolumeClaim, ApplyError> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    server_side(&volumes, "PersistentVolume", &wanted.volume).await?;
    server_side(&claims, "PersistentVolumeClaim", &wanted.claim).await
}

/// Deletes volume and claim, for the next reconcile to make them anew. A pod that appears between
/// the check and the deletion is safe: the API server keeps a claim as long as a pod uses it.
async fn replace(
    context: &Context,
    dataset: &ValidDataset<'_>,
    why: Misfit,
) -> Result<VolumeOutcome, ApplyError> {
    let pods = pods_using(context, dataset.namespace, dataset.name).await?;
    match why {
        Misfit::Edited if !pods.is_empty() => return Ok(VolumeOutcome::EditPending { pods }),
        Misfit::Deleted if !pods.is_empty() => return Ok(VolumeOutcome::VolumeDeleted { pods }),
        Misfit::Edited | Misfit::Deleted | Misfit::Released => {}
    }
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(context.client.clone(), dataset.namespace);
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let volume_name = names::volume(dataset.namespace, dataset.name, dataset.uid);
    delete(&claims, "PersistentVolumeClaim", dataset.name).await?;
    delete(&volumes, "PersistentVolume", &volume_name).await?;
    Ok(VolumeOutcome::Replacing)
}

async fn server_side<K>(api: &Api<K>, what: &'static str, object: &K) -> Result<K, ApplyError>
where
    K: kube::Resource + Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let name = object.name_any();
    let params = PatchParams::apply(names::MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .map_err(failed("applied", what, &name))
}

fn failed(
    verb: &'static str,
    what: &'static str,
    name: &str,
) -> impl FnOnce(kube::Error) -> ApplyError {
    let name = name.to_owned();
    move |source| ApplyError::Api {
        verb,
        what,
        name,
        source,
    }
}
