//! Distributed loads: the worker that gets the submit coordinates, the owners load.
//!
//! 1. The coordinator walks the path in the under-store and counts what it finds (`job`).
//! 2. Files are gathered into batches by their owner on the ring, and each batch is sent to its
//!    owner; what fails in passing goes to the next worker on the ring (`dispatch`).
//! 3. An owner loads the files of a batch page by page and tells each step as a line of JSON
//!    (`batch`), so that the coordinator counts bytes as they arrive and notices a dead owner.
//! 4. With `verify`, a second round reads every page back against its checksum.
//! 5. How far a job is, is written down (`track`, `journal`): a coordinator that starts again goes
//!    on with the jobs that were at work, and remembers those that have ended.

mod batch;
mod cluster;
mod counts;
mod dispatch;
mod job;
mod journal;
#[cfg(test)]
mod many_files;
mod message;
mod peer;
mod report;
mod throttle;
mod track;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluxio_client::membership::Membership;
use alluxio_client::worker::security::Security;
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
use self::cluster::Ring;
use self::dispatch::Dispatcher;
use self::job::{Job, now_ms};
use self::journal::Journal;
use crate::failure::{Failure, FailureKind};
use crate::pages::Pages;

/// Jobs that are remembered. A finished job is asked for until its submitter saw the end of it;
/// the oldest finished one goes first.
const MAX_JOBS: usize = 128;

/// Jobs at work. Each lists the under-store and keeps a few batches in flight; more at one time
/// would only make each slower.
const MAX_RUNNING_JOBS: usize = 8;

/// How long a finished job is remembered: over a weekend, for who looks on Monday.
const REMEMBERED_FOR: Duration = Duration::from_hours(72);

/// The most failures in one answer; with longer ones it would pass what clients read.
const MAX_FAILURES_TOLD: usize = 100;

/// The loads of one worker.
pub(crate) struct Loader {
    pages: Pages,
    batches: Batches,
    dispatcher: Arc<Dispatcher>,
    journal: Journal,
    jobs: Mutex<HashMap<UfsUri, Arc<Job>>>,
    tasks: TaskTracker,
    /// Interrupts every job when the worker shuts down.
    stop: CancellationToken,
}

/// The loads of the journal that were at work when the worker ended.
pub(crate) struct Recalled(Vec<Arc<Job>>);

/// A question for progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) json_report: bool,
    pub(crate) verbose: bool,
    /// Failures to pass over, and how many to tell then.
    pub(crate) failed_offset: usize,
    pub(crate) failed_limit: Option<usize>,
}

impl Loader {
    /// The loads of a worker that keeps its journal in `directory`.
    pub(crate) fn new(
        pages: Pages,
        members: Arc<dyn Membership>,
        own_id: WorkerId,
        concurrency: usize,
        directory: &Path,
        security: Security,
    ) -> Self {
        let batches = Batches::new(pages.clone(), concurrency);
        let ring = Ring::new(pages.clone(), members, own_id, batches.clone(), security);
        Self {
            pages,
            batches,
            dispatcher: Arc::new(Dispatcher::new(Arc::new(ring))),
            journal: Journal::below(directory),
            jobs: Mutex::new(HashMap::new()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Remembers the loads of the journal; those that were at work when this worker ended are
    /// returned, for [`Loader::go_on`].
    ///
    /// Comes before the first request, so that nobody is told that his load is unknown.
    pub(crate) async fn recall(&self) -> Recalled {
        let mut unfinished = Vec::new();
        let records = match self.journal.read_all().await {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(%error, "the journal of loads cannot be read: submit them again");
                return Recalled(unfinished);
            }
        };
        for record in records {
            if !self.is_below_root(&record.uri) {
                tracing::warn!(uri = %record.uri, "a load of another dataset is left alone");
                continue;
            }
            let (uri, state) = (record.uri.clone(), record.state);
            let job = match Job::from_record(record) {
                Ok(job) => Arc::new(job.stopped_by(&self.stop)),
                Err(failure) => {
                    tracing::warn!(%uri, ?failure, "a load cannot go on");
                    continue;
                }
            };
            // The newest of a path comes last.
            let earlier = self.jobs.lock().insert(uri.clone(), Arc::clone(&job));
            if let Some(earlier) = earlier {
                unfinished.retain(|job| !Arc::ptr_eq(job, &earlier));
                self.forget(&[earlier]).await;
            }
            if !state.is_final() {
                unfinished.push(job);
            }
        }
        let expired = expire(&mut self.jobs.lock(), now_ms());
        self.forget(&expired).await;
        Recalled(unfinished)
    }

    /// Goes on with recalled loads. Comes after registration: a load's files go over the ring,
    /// which is to have this worker on it.
    pub(crate) fn go_on(&self, recalled: Recalled) {
        for job in recalled.0 {
            tracing::info!(uri = %job.uri(), id = job.id(), "going on with a load");
            self.run(job);
        }
    }

    fn is_below_root(&self, uri: &UfsUri) -> bool {
        uri.relative_to(self.pages.ufs().root()).is_some()
    }

    fn run(&self, job: Arc<Job>) {
        let (dispatcher, journal) = (Arc::clone(&self.dispatcher), self.journal.clone());
        self.tasks
            .spawn(async move { job.run(&dispatcher, &journal).await });
    }

    async fn forget(&self, jobs: &[Arc<Job>]) {
        for job in jobs {
            if let Err(error) = self.journal.remove(job.id()).await {
                tracing::warn!(uri = %job.uri(), %error, "a finished load stays in the journal");
            }
        }
    }

    /// Begins the load of a path.
    pub(crate) async fn submit(
        &self,
        uri: &UfsUri,
        options: LoadOptions,
    ) -> Result<SubmitAnswer, Failure> {
        self.refuse_at_the_end()?;
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
        let left = enter(&mut self.jobs.lock(), &job)?;
        // Written down before the answer: a job that was taken survives this worker.
        if let Err(error) = job.write(&self.journal).await {
            tracing::warn!(%uri, %error, "the journal cannot be written: a restart forgets the load");
        }
        self.forget(&left).await;
        if let Err(failure) = self.refuse_at_the_end() {
            self.jobs.lock().remove(uri);
            self.forget(&[job]).await;
            return Err(failure);
        }
        self.run(Arc::clone(&job));
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
    pub(crate) fn progress(&self, uri: &UfsUri, question: Question) -> ProgressAnswer {
        let job = self.job(uri).filter(|job| !is_expired(job, now_ms()));
        match job {
            Some(job) => report::progress(&job, question),
            None => ProgressAnswer {
                state: LoadState::Failed,
                path: uri.to_string(),
                message: format!("Load for path '{uri}' cannot be found."),
                progress: None,
            },
        }
    }

    /// Ends a running load.
    pub(crate) async fn stop(&self, uri: &UfsUri) -> StopAnswer {
        let job = self.job(uri);
        let stopped = job.as_ref().is_some_and(|job| job.stop());
        if let (true, Some(job)) = (stopped, job)
            && let Err(error) = job.write(&self.journal).await
        {
            tracing::warn!(%uri, %error, "the journal cannot be written: a restart forgets the stop");
        }
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

    /// Interrupts all loads, without waiting for their ends. They go on at the next start.
    pub(crate) fn stop_all(&self) {
        self.stop.cancel();
        self.batches.stop();
    }

    /// Interrupts all loads, and returns when they are written down and no task of theirs is left.
    pub(crate) async fn shutdown(&self) {
        self.stop_all();
        self.tasks.close();
        self.tasks.wait().await;
        self.batches.shutdown().await;
    }

    /// A load that began now would stand still until the next start: another worker takes it.
    fn refuse_at_the_end(&self) -> Result<(), Failure> {
        if !self.stop.is_cancelled() {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::Busy,
            "this worker is shutting down; submit the load to another one",
        ))
    }

    fn job(&self, uri: &UfsUri) -> Option<Arc<Job>> {
        self.jobs.lock().get(uri).cloned()
    }
}

/// Takes a job into the table, or says why not; gives back the jobs that left it.
fn enter(jobs: &mut HashMap<UfsUri, Arc<Job>>, job: &Arc<Job>) -> Result<Vec<Arc<Job>>, Failure> {
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
    let mut left = expire(jobs, now_ms());
    if jobs.len() >= MAX_JOBS {
        let finished = jobs.values().filter(|job| job.state().is_final());
        let oldest = finished
            .min_by_key(|job| job.submitted_ms())
            .map(|j| j.uri().clone());
        left.extend(oldest.and_then(|oldest| jobs.remove(&oldest)));
    }
    left.extend(jobs.insert(job.uri().clone(), Arc::clone(job)));
    Ok(left)
}

/// Takes out the jobs that ended long ago.
fn expire(jobs: &mut HashMap<UfsUri, Arc<Job>>, now_ms: u64) -> Vec<Arc<Job>> {
    let expired = jobs.values().filter(|job| is_expired(job, now_ms)).cloned();
    let expired: Vec<_> = expired.collect();
    for job in &expired {
        jobs.remove(job.uri());
    }
    expired
}

fn is_expired(job: &Job, now_ms: u64) -> bool {
    let remembered_ms = u64::try_from(REMEMBERED_FOR.as_millis()).unwrap_or(u64::MAX);
    job.ended_ms()
        .is_some_and(|ended| now_ms.saturating_sub(ended) > remembered_ms)
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
        let loader = Loader::new(
            pages,
            members,
            WorkerId::from_host("alone"),
            4,
            folder.path(),
            Security::default(),
        );
        (loader, config.ufs.uri)
    }

    #[tokio::test]
    async fn a_load_that_is_submitted_during_the_shutdown_is_refused_and_not_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (loader, root) = loader(&folder).await;
        loader.stop_all();
        let refused = loader.submit(&root, LoadOptions::default()).await;
        assert_eq!(refused.unwrap_err().kind, FailureKind::Busy);
        assert!(loader.job(&root).is_none());
        assert_eq!(loader.journal.read_all().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_shutdown_leaves_a_load_at_work_for_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (loader, root) = loader(&folder).await;
        let data = folder.path().join("data");
        std::fs::write(data.join("a"), vec![1; 100_000]).unwrap();
        std::fs::write(data.join("b"), vec![2; 100_000]).unwrap();
        let options = LoadOptions {
            bandwidth_bytes_per_second: Some(1),
            ..LoadOptions::default()
        };
        assert!(loader.submit(&root, options).await.unwrap().success);
        loader.shutdown().await;
        assert_eq!(loader.job(&root).unwrap().state(), LoadState::Running);
        let records = loader.journal.read_all().await.unwrap();
        assert_eq!(records[0].state, LoadState::Running);
    }

    #[tokio::test]
    async fn finished_jobs_are_forgotten_after_a_while() {
        let mut jobs = HashMap::new();
        let old = job(1);
        enter(&mut jobs, &old).unwrap();
        let long = now_ms() + 73 * 3_600_000;
        assert!(expire(&mut jobs, long).is_empty(), "it runs");
        old.stop();
        assert!(expire(&mut jobs, now_ms()).is_empty());
        assert_eq!(expire(&mut jobs, long).len(), 1);
        assert!(jobs.is_empty());
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
