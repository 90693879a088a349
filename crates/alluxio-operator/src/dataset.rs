//! One dataset, reconciled: [`observe`] what is there, [`validate`] what is asked for, [`plan`] what
//! to do, [`apply`] it, and say so in the [`status`].

pub mod apply;
mod cleanup;
mod config;
pub mod observe;
pub mod plan;
pub mod status;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use alluxio_crds::conditions::{READY, is_true};
use alluxio_crds::{AlluxioDataset, AlluxioDatasetStatus};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{self, Event};
use kube::{Resource, ResourceExt};

use crate::context::Context;
use crate::names;
use apply::VolumeOutcome;
use status::Outcome;

pub use config::client_config;
pub use validate::InvalidDataset;

/// Between looks at volumes that are being replaced or deleted.
const SOON: Duration = Duration::from_secs(1);

/// Why a reconcile failed: the step says which object, cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Step 1.
    #[error(transparent)]
    Observe(#[from] observe::ObserveError),
    /// Step 4.
    #[error(transparent)]
    Apply(#[from] apply::ApplyError),
    /// Step 5.
    #[error(transparent)]
    Status(#[from] status::StatusError),
    /// Deletion waits for something.
    #[error(transparent)]
    Cleanup(#[from] cleanup::CleanupError),
    /// The finalizer could not be added or removed.
    #[error("finalizer of AlluxioDataset {dataset} cannot be changed: {cause}")]
    Finalizer {
        /// `namespace/name`.
        dataset: String,
        /// What the API server said.
        cause: String,
    },
}

/// Reconciles a dataset, or cleans up after a deleted one.
pub async fn reconcile(
    dataset: Arc<AlluxioDataset>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let namespace = dataset.namespace().unwrap_or_default();
    let datasets: Api<AlluxioDataset> = Api::namespaced(context.client.clone(), &namespace);
    let name = dataset.qualified_name();
    let ended = finalizer::finalizer(&datasets, names::FINALIZER, dataset, |event| async {
        match event {
            Event::Apply(dataset) => reconcile_living(&dataset, &context).await,
            Event::Cleanup(dataset) => cleanup::cleanup(&dataset, &context).await,
        }
    });
    match ended.await {
        Ok(action) => Ok(action),
        Err(finalizer::Error::CleanupFailed(Error::Cleanup(waiting))) => {
            tracing::info!(dataset = name, %waiting, "deletion waits");
            Ok(Action::requeue(SOON))
        }
        Err(finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error)) => {
            Err(error)
        }
        Err(other) => Err(Error::Finalizer {
            dataset: name,
            cause: other.to_string(),
        }),
    }
}

/// The pipeline:
/// 1. [`observe::observe`] reads Secret keys, volume, claim, loads and surveys the workers;
/// 2. [`validate::validate`] turns the spec into a configuration, or into a reason why not;
/// 3. [`plan::plan`] decides, purely;
/// 4. [`apply::apply`] does it, server-side, in a fixed order;
/// 5. [`status::status`] computes conditions and numbers, [`status::write`] patches once.
///
/// A validation failure goes to step 5 at once.
async fn reconcile_living(dataset: &AlluxioDataset, context: &Context) -> Result<Action, Error> {
    let observed = Box::pin(observe::observe(context, dataset)).await?;
    let (next, pause) = match validate::validate(dataset, &observed) {
        Err(error) => {
            let outcome = Outcome::Invalid(&error);
            let next = status::status(dataset, &observed, &outcome, Timestamp::now());
            (next, context.limits.unready)
        }
        Ok(valid) => {
            let wanted_load = plan::wanted_load(&valid).map(|load| load.name_any());
            let plan = plan::plan(&valid, &observed);
            let applied = apply::apply(context, &valid, plan).await?;
            let outcome = Outcome::Applied {
                applied: &applied,
                wanted_load: wanted_load.as_deref(),
            };
            let next = status::status(dataset, &observed, &outcome, Timestamp::now());
            let pause = pause(context, &applied.volume, &next);
            (next, pause)
        }
    };
    status::write(context, dataset, &next).await?;
    let previous = dataset.status.clone().unwrap_or_default();
    context
        .tell(dataset, &status::notices(&previous, &next))
        .await;
    Ok(Action::requeue(pause))
}

fn pause(context: &Context, volume: &VolumeOutcome, next: &AlluxioDatasetStatus) -> Duration {
    match volume {
        VolumeOutcome::Replacing => SOON,
        VolumeOutcome::InPlace(_) if is_true(&next.conditions, READY) => context.limits.steady,
        _ => context.limits.unready,
    }
}

/// Whether an object is being deleted, and for how long.
pub(crate) fn deleting_for<K: Resource>(object: &K, now: Timestamp) -> Option<Duration> {
    let since = object.meta().deletion_timestamp.as_ref()?;
    Some(Duration::try_from(now.duration_since(since.0)).unwrap_or_default())
}
