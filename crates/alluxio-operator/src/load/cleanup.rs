//! After a load is deleted: stop its jobs, within a few seconds or not at all.
//!
//! A cluster that is gone cannot be told to stop, and must not keep the object: an event says so
//! and the finalizer goes.

use alluxio_crds::AlluxioDataLoad;

use super::observe::{self, Observed};
use super::{apply, plan};
use crate::context::{Context, Notice};
use crate::worker_api::WorkerEndpoint;

/// Stops a deleted load as well as can be done.
pub(super) async fn cleanup(load: &AlluxioDataLoad, context: &Context) {
    let worker = load
        .status
        .as_ref()
        .and_then(|status| status.worker.as_deref());
    let Some(worker) = worker.filter(|_| !load.state().is_final()) else {
        return;
    };
    let worker = WorkerEndpoint::parse(worker);
    let stopped = tokio::time::timeout(context.limits.stop, stop(load, context, &worker)).await;
    let notice = match stopped {
        Ok(Ok(())) => Notice::normal("LoadStopped", format!("worker {worker} stopped the load")),
        Ok(Err(why)) => Notice::warning("LoadNotStopped", format!("load left to itself: {why}")),
        Err(_) => {
            let seconds = context.limits.stop.as_secs();
            let note = format!("load left to itself: workers did not answer in {seconds} s");
            Notice::warning("LoadNotStopped", note)
        }
    };
    context.tell(load, &[notice]).await;
}

async fn stop(
    load: &AlluxioDataLoad,
    context: &Context,
    worker: &WorkerEndpoint,
) -> Result<(), String> {
    let observed = observe::observe(context, load)
        .await
        .map_err(|e| e.to_string())?;
    let config = match observed {
        Observed::Dataset(config) => config,
        Observed::NotLoadable(why) => return Err(why),
    };
    let paths = plan::paths(load, &config.ufs.uri)?;
    let stopped = apply::stop(&context.workers, worker, &config, &paths).await;
    stopped.map_err(|e| e.to_string())
}
