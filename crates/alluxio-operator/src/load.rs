//! One load, reconciled: `observe` its dataset, `plan` the next step, `apply` it at a worker, and
//! say so in the `status`.
//!
//! A load is submitted once and then only asked about. After a failure it is submitted again, at
//! growing intervals, up to its backoffLimit. Deleting it stops its jobs.

mod apply;
mod attempts;
mod cleanup;
mod observe;
mod plan;
pub mod status;

use std::sync::Arc;

use alluxio_crds::AlluxioDataLoad;
use alluxio_crds::load::LoadState;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{self, Event};

use crate::context::Context;
use crate::names;

pub use attempts::Attempts;

/// Why a reconcile failed: the step says which object, cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Step 1.
    #[error(transparent)]
    Observe(#[from] observe::ObserveError),
    /// Step 4.
    #[error(transparent)]
    Status(#[from] status::StatusError),
    /// The finalizer could not be added or removed.
    #[error("finalizer of AlluxioDataLoad {load} cannot be changed: {cause}")]
    Finalizer {
        /// `namespace/name`.
        load: String,
        /// What the API server said.
        cause: String,
    },
}

/// Reconciles a load, or stops a deleted one.
pub async fn reconcile(load: Arc<AlluxioDataLoad>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = load.namespace().unwrap_or_default();
    let loads: Api<AlluxioDataLoad> = Api::namespaced(context.client.clone(), &namespace);
    let name = qualified_name(&load);
    let ended = finalizer::finalizer(&loads, names::FINALIZER, load, |event| async {
        match event {
            Event::Apply(load) => reconcile_living(&load, &context).await,
            Event::Cleanup(load) => {
                cleanup::cleanup(&load, &context).await;
                context.attempts.forget(uid(&load));
                Ok(Action::await_change())
            }
        }
    });
    match ended.await {
        Ok(action) => Ok(action),
        Err(finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error)) => {
            Err(error)
        }
        Err(other) => Err(Error::Finalizer {
            load: name,
            cause: other.to_string(),
        }),
    }
}

/// The pipeline:
/// 1. `observe::observe` reads the dataset;
/// 2. `plan::plan` decides the next step, purely;
/// 3. `apply::apply` takes it at a worker;
/// 4. `status::status` folds what happened into the status, `status::write` patches once.
async fn reconcile_living(load: &AlluxioDataLoad, context: &Context) -> Result<Action, Error> {
    if load.state().is_final() {
        return Ok(Action::await_change());
    }
    let observed = observe::observe(context, load).await?;
    let step = plan::plan(load, &observed, Timestamp::now());
    let outcome = apply::apply(context, uid(load), step).await;
    let next = status::status(
        load,
        &outcome,
        context.limits.load_backoff,
        Timestamp::now(),
    );
    status::write(context, load, &next).await?;
    let previous = load.status.clone().unwrap_or_default();
    context.tell(load, &status::notices(&previous, &next)).await;
    Ok(match next.state {
        LoadState::Pending => Action::requeue(context.limits.unready),
        LoadState::Running | LoadState::Verifying => Action::requeue(context.limits.load_poll),
        LoadState::Succeeded | LoadState::Failed | LoadState::Stopped => {
            context.attempts.forget(uid(load));
            Action::await_change()
        }
    })
}

fn uid(load: &AlluxioDataLoad) -> &str {
    load.metadata.uid.as_deref().unwrap_or_default()
}

/// `namespace/name`, as messages name a load.
pub(crate) fn qualified_name(load: &AlluxioDataLoad) -> String {
    format!(
        "{}/{}",
        load.namespace().unwrap_or_default(),
        load.name_any()
    )
}
