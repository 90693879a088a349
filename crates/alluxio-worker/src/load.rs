//! Distributed loads: the worker that gets the submit coordinates, the owners load.
//!
//! 1. The coordinator walks the path in the under-store and counts what it finds (`job`).
//! 2. Files are gathered into batches by their owner on the ring, and each batch is sent to its
//!    owner; what fails in passing goes to the next worker on the ring (`dispatch`).
//! 3. An owner loads the files of a batch page by page and tells each step as a line of JSON
//!    (`batch`), so that the coordinator counts bytes as they arrive and notices a dead owner.
//! 4. With `verify`, a second round reads every page back against its checksum.

mod batch;
mod dispatch;
mod job;
mod message;
mod peer;
mod report;
mod throttle;

use std::collections::HashMap;
use std::sync::Arc;

use alluxio_client::membership::Membership;
use alluxio_ufs::UfsErrorKind;
use alluxio_wire::{
    LoadOptions, LoadState, ProgressAnswer, StopAnswer, SubmitAnswer, UfsUri, WorkerId,
};
use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub(crate) use self::batch::MAX_BATCH_BYTES;
use self::batch::{Batches, Teller};
use self::dispatch::Dispatcher;
use self::job::Job;
use crate::failure::{Failure, FailureKind};
use crate::pages::Pages;

/// Jobs that are remembered. A finished job is asked for until its submitter saw the end of it;
/// the oldest finished one goes first.
const MAX_JOBS: usize = 128;

/// Jobs at work. Each lists the under-store and keeps a few batches in flight; more at one time
/// would only make each slower.
const MAX_RUNNING_JOBS: usize = 8;

/// The loads of one worker.
pub(crate) struct Loader {
    pages: Pages,
    batches: Batches,
    dispatcher: Arc<Dispatcher>,
    jobs: Mutex<HashMap<UfsUri, Arc<Job>>>,
    tasks: TaskTracker,
    /// Ends every job, also one that is submitted while the worker shuts down.
    stop: CancellationToken,
}

impl Loader {
    pub(crate) fn new(
        pages: Pages,
        members: Arc<dyn Membership>,
        own_id: WorkerId,
        concurrency: usize,
    ) -> Self {
        let batches = Batches::new(pages.clone(), concurrency);
        let dispatcher = Dispatcher::new(pages.clone(), members, own_id, batches.clone());
        Self {
            pages,
            batches,
            dispatcher: Arc::new(dispatcher),
            jobs: Mutex::new(HashMap::new()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Begins the load of a path.
    pub(crate) async fn submit(
        &self,
        uri: &UfsUri,
        options: LoadOptions,
    ) -> Result<SubmitAnswer, Failure> {
        match self.pages.ufs().status(uri).await {
            Ok(_) => {}
            Err(error) if error.kind() == UfsErrorKind::NotFound => {
                return Ok(SubmitAnswer {
                    success: false,
                    job_id: "NONE".to_owned(),
                    path: uri.to_string(),
                    message: format!("Failed to submit load job '{uri}': {error}"),
                });
            }
            Err(error) => return Err(error.into()),
        }
        let id = Uuid::new_v4().to_string();
        let job = Job::new(id, uri.clone(), options)?.stopped_by(&self.stop);
        let job = Arc::new(job);
        enter(&mut self.jobs.lock(), &job)?;
        let (running, dispatcher) = (Arc::clone(&job), Arc::clone(&self.dispatcher));
        self.tasks
            .spawn(async move { running.run(&dispatcher).await });
        Ok(SubmitAnswer {
            success: true,
            job_id: job.id().to_owned(),
            path: uri.to_string(),
            message: format!(
                "Load '{uri}' is successfully submitted. JobId: {}\n",
                job.id()
            ),
        })
    }

    /// Tells how far a load is.
    pub(crate) fn progress(
        &self,
        uri: &UfsUri,
        json_report: bool,
        verbose: bool,
    ) -> ProgressAnswer {
        match self.job(uri) {
            Some(job) => report::progress(&job, json_report, verbose),
            None => ProgressAnswer {
                state: LoadState::Failed,
                path: uri.to_string(),
                message: format!("Load for path '{uri}' cannot be found."),
                progress: None,
            },
        }
    }

    /// Ends a running load.
    pub(crate) fn stop(&self, uri: &UfsUri) -> StopAnswer {
        let stopped = self.job(uri).is_some_and(|job| job.stop());
        let message = if stopped {
            format!("Load '{uri}' is successfully stopped.\n")
        } else {
            format!(
                "Cannot find load job for path {uri}, it might have already been stopped or \
                 finished\n"
            )
        };
        StopAnswer {
            success: stopped,
            path: uri.to_string(),
            message,
        }
    }

    /// Loads files for the coordinator of a load; the stream tells how they fare, line by line.
    pub(crate) fn begin_batch(
        &self,
        body: &[u8],
    ) -> Result<impl Stream<Item = Result<Bytes, std::io::Error>> + use<>, Failure> {
        let batch = self.batches.read(body)?;
        Ok(message::lines(self.batches.begin(batch, Teller::Stranger)))
    }

    /// Ends all loads, without waiting for their ends.
    pub(crate) fn stop_all(&self) {
        self.stop.cancel();
        for job in self.jobs.lock().values() {
            job.stop();
        }
    }

    /// Ends all loads.
    pub(crate) async fn shutdown(&self) {
        self.stop_all();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn job(&self, uri: &UfsUri) -> Option<Arc<Job>> {
        self.jobs.lock().get(uri).cloned()
    }
}

/// Takes a job into the table, or says why not.
fn enter(jobs: &mut HashMap<UfsUri, Arc<Job>>, job: &Arc<Job>) -> Result<(), Failure> {
    if let Some(known) = jobs.get(job.uri())
        && !known.state().is_final()
    {
        return Err(Failure::new(
            FailureKind::Conflict,
            format!(
                "the load of {} is {} already as job {}; ask for its progress, or stop it first",
                job.uri(),
                known.state(),
                known.id()
            ),
        ));
    }
    let running = jobs.values().filter(|job| !job.state().is_final()).count();
    if running >= MAX_RUNNING_JOBS {
        return Err(Failure::new(
            FailureKind::Busy,
            format!("{running} loads run on this worker already; wait for one to end"),
        ));
    }
    if jobs.len() >= MAX_JOBS {
        let finished = jobs.values().filter(|job| job.state().is_final());
        let oldest = finished
            .min_by_key(|job| job.began())
            .map(|j| j.uri().clone());
        if let Some(oldest) = oldest {
            jobs.remove(&oldest);
        }
    }
    jobs.insert(job.uri().clone(), Arc::clone(job));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_client::membership;
    use alluxio_client::ring::RingShape;
    use alluxio_config::Config;
    use alluxio_ufs::Ufs;
    use tempfile::TempDir;

    use super::*;
    use crate::metrics::Metrics;
    use crate::store::PageStore;

    /// The loader of a worker alone, over the local files below a folder.
    async fn loader(folder: &TempDir) -> (Loader, UfsUri) {
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let yaml = format!(
            "ufs:\n  uri: file://{}\ncluster:\n  membership: {{type: none}}\nworker:\n  \
             page_store:\n    directory: {}\n    capacity: 64Mi\n",
            data.display(),
            folder.path().join("store").display(),
        );
        let config = Config::from_yaml(&yaml).unwrap();
        let store = PageStore::open(&config.worker.page_store, config.client.page_size);
        let store = store.await.unwrap();
        let metrics = Arc::new(Metrics::new(Arc::clone(&store)).unwrap());
        let pages = Pages::new(Ufs::connect(&config.ufs).unwrap(), store, metrics);
        let ring = config.client.ring_membership;
        let members = membership::connect(&config.cluster, ring, RingShape::consistent(100));
        let members = members.await.unwrap();
        let loader = Loader::new(pages, members, WorkerId::from_host("alone"), 4);
        (loader, config.ufs.uri)
    }

    #[tokio::test]
    async fn a_load_that_is_submitted_during_the_shutdown_ends_too() {
        let folder = tempfile::tempdir().unwrap();
        let (loader, root) = loader(&folder).await;
        loader.stop_all();
        let submitted = loader.submit(&root, LoadOptions::default()).await.unwrap();
        assert!(submitted.success, "{submitted:?}");
        loader.tasks.close();
        loader.tasks.wait().await;
        assert_eq!(loader.job(&root).unwrap().state(), LoadState::Stopped);
    }

    fn job(path: usize) -> Arc<Job> {
        let uri = UfsUri::parse(&format!("s3://b/{path}")).unwrap();
        Arc::new(Job::new(path.to_string(), uri, LoadOptions::default()).unwrap())
    }

    #[test]
    fn a_running_job_is_named_to_who_submits_it_again() {
        let mut jobs = HashMap::new();
        enter(&mut jobs, &job(1)).unwrap();
        let failure = enter(&mut jobs, &job(1)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Conflict);
        assert!(failure.message.contains("is RUNNING already as job 1"));
    }

    #[test]
    fn a_finished_job_makes_room_for_the_same_path() {
        let mut jobs = HashMap::new();
        let first = job(1);
        enter(&mut jobs, &first).unwrap();
        assert!(first.stop());
        enter(&mut jobs, &job(1)).unwrap();
        assert_eq!(jobs.len(), 1);
    }

    #[test]
    fn running_and_remembered_jobs_are_bounded() {
        let mut jobs = HashMap::new();
        for path in 0..300 {
            let job = job(path);
            enter(&mut jobs, &job).unwrap();
            job.stop();
        }
        assert_eq!(jobs.len(), MAX_JOBS);
        for path in 300..300 + MAX_RUNNING_JOBS {
            enter(&mut jobs, &job(path)).unwrap();
        }
        let failure = enter(&mut jobs, &job(999)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Busy);
    }
}
