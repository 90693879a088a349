//! Load jobs: asking a cluster to load a path, how far it is, and to stop.
//!
//! Any worker takes the request: the open-source worker hands it to its coordinator, the embedded
//! worker shares the work out over the ring. The path's owner is asked, so that all questions about
//! one path reach one worker, and the next on the ring where it cannot be reached, or where it knows
//! of no such load: the ring may have changed since the submit.
//!
//! Who follows a load also outlives its coordinator: when no worker knows the load any more, it is
//! submitted again, and the worker that takes it passes over what is cached.

use std::sync::Arc;
use std::time::Duration;

use alluxio_wire::load::{
    LoadError, LoadOp, LoadOptions, LoadState, ProgressAnswer, ProgressQuery, StopAnswer,
    SubmitAnswer,
};
use alluxio_wire::{UfsUri, route};
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::membership::{Membership, WorkerEndpoint};
use crate::worker::{Answer, Workers};

/// The characters of a worker's own words that an error repeats.
const MAX_CAUSE_CHARS: usize = 400;

/// How often a load is asked for after a submit that resumes a stopped one, which the open-source
/// worker takes without a word, and how long between.
const RESUME_POLLS: usize = 10;
const RESUME_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Polls without an answer, or from workers that know nothing of the load, before something is done
/// about it: a coordinator that restarts takes a few seconds, and then goes on by itself.
const PATIENT_POLLS: usize = 10;

/// How often a followed load is submitted again in a row. A cluster that loses its coordinator more
/// often without any progress has another trouble, which the caller must hear of.
const MAX_RESUBMITS: usize = 3;

/// The load jobs of a cluster.
#[derive(Debug, Clone)]
pub struct LoadJobs {
    membership: Arc<dyn Membership>,
    workers: Arc<Workers>,
    max_worker_attempts: usize,
}

/// What is seen of a load that is followed.
#[derive(Debug)]
pub enum Followed<'a> {
    /// How far it is.
    Progress(&'a ProgressAnswer),
    /// No worker answers, or none knows it, for the moment.
    Waiting(&'a str),
    /// Its coordinator is gone; another worker took it over.
    Resubmitted(&'a SubmitAnswer),
}

impl LoadJobs {
    pub(crate) fn new(
        membership: Arc<dyn Membership>,
        workers: Arc<Workers>,
        max_worker_attempts: usize,
    ) -> Self {
        Self {
            membership,
            workers,
            max_worker_attempts,
        }
    }

    /// Starts to load a path, or joins the job that loads it already.
    ///
    /// The open-source worker closes the connection for a job that runs, and for one that was
    /// stopped, which it starts again; the job's state then tells what happened.
    pub async fn submit(&self, path: &UfsUri, options: &LoadOptions) -> Result<SubmitAnswer> {
        if let Some(body) = self.ask_to_load(path, options).await? {
            return SubmitAnswer::parse(&body).map_err(|e| unreadable("submit load", path, e));
        }
        let mut progress = self.progress(path).await?;
        let was_stopped = progress.state == LoadState::Stopped;
        // The real worker closes on the submit of a stopped job, and resumes it in a while.
        for _ in 0..RESUME_POLLS {
            if progress.state != LoadState::Stopped {
                break;
            }
            tokio::time::sleep(RESUME_POLL_INTERVAL).await;
            progress = self.progress(path).await?;
        }
        let taken = |what: &str| SubmitAnswer {
            success: true,
            job_id: String::new(),
            path: path.to_string(),
            message: format!("Load '{path}' {what}."),
        };
        match progress.state {
            LoadState::Running | LoadState::Verifying if !was_stopped => {
                Ok(taken("is running already"))
            }
            LoadState::Running | LoadState::Verifying | LoadState::Succeeded if was_stopped => {
                Ok(taken("was stopped and goes on"))
            }
            state => {
                let context = format!(
                    "the worker did not take the job, and the load of {path} is {state}; check the \
                     path and the options, a bandwidth or filter that Alluxio cannot read ends so"
                );
                Err(Error::new(ErrorKind::InvalidInput, "submit load", context))
            }
        }
    }

    /// Follows a load to its end, and tells each step of it.
    ///
    /// With `resubmit`, a load that no worker knows any more, for its coordinator is gone, is
    /// submitted again; without, that is an error which says so.
    pub async fn follow(
        &self,
        path: &UfsUri,
        resubmit: Option<&LoadOptions>,
        poll_interval: Duration,
        mut see: impl FnMut(Followed<'_>),
    ) -> Result<ProgressAnswer> {
        let (mut waited, mut resubmits, mut was_known) = (0, 0, false);
        loop {
            let missing = match self.progress(path).await {
                Ok(answer) if answer.is_unknown() && (was_known || resubmit.is_some()) => {
                    lost(path)
                }
                Ok(answer) => {
                    see(Followed::Progress(&answer));
                    if answer.state.is_final() {
                        return Ok(answer);
                    }
                    (waited, was_known) = (0, true);
                    tokio::time::sleep(poll_interval).await;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => error,
                Err(error) => return Err(error),
            };
            waited += 1;
            see(Followed::Waiting(&missing.to_string()));
            if waited >= PATIENT_POLLS {
                let Some(options) = resubmit.filter(|_| resubmits < MAX_RESUBMITS) else {
                    return Err(missing);
                };
                (waited, resubmits) = (0, resubmits + 1);
                match self.submit(path, options).await {
                    Ok(answer) => see(Followed::Resubmitted(&answer)),
                    Err(error) => see(Followed::Waiting(&error.to_string())),
                }
            }
            tokio::time::sleep(poll_interval).await;
        }
    }

    /// How far a load is. A path that was never loaded is answered as failed, by the workers
    /// themselves.
    pub async fn progress(&self, path: &UfsUri) -> Result<ProgressAnswer> {
        let query = ProgressQuery {
            verbose: true,
            ..ProgressQuery::default()
        };
        self.progress_with(path, &query).await
    }

    /// How far a load is, in the form and with the failures that are asked for.
    pub async fn progress_with(
        &self,
        path: &UfsUri,
        query: &ProgressQuery,
    ) -> Result<ProgressAnswer> {
        const OPERATION: &str = "ask for load";
        let target = addressed(OPERATION, path, route::load_progress(path, query))?;
        let mut unknown = None;
        let mut failure = None;
        for worker in self.owners(path) {
            match self.ask_one(OPERATION, path, &worker, &target).await {
                Ok(Some(body)) => {
                    let answer = ProgressAnswer::parse(&body)
                        .map_err(|error| unreadable(OPERATION, path, error))?;
                    if !answer.is_unknown() {
                        return Ok(answer);
                    }
                    unknown.get_or_insert(answer);
                }
                Ok(None) => failure = Some(closed(OPERATION, path)),
                Err(error) => failure = Some(error),
            }
        }
        unknown.ok_or_else(|| failure.unwrap_or_else(|| no_worker(OPERATION, path)))
    }

    /// Ends a load. What is loaded stays.
    pub async fn stop(&self, path: &UfsUri) -> Result<StopAnswer> {
        const OPERATION: &str = "stop load";
        let options = LoadOptions::default();
        let target = addressed(OPERATION, path, route::load(path, LoadOp::Stop, &options))?;
        let mut not_running = None;
        let mut failure = None;
        for worker in self.owners(path) {
            match self.ask_one(OPERATION, path, &worker, &target).await {
                Ok(Some(body)) => {
                    let answer = StopAnswer::parse(&body)
                        .map_err(|error| unreadable(OPERATION, path, error))?;
                    if answer.success {
                        return Ok(answer);
                    }
                    not_running.get_or_insert(answer);
                }
                Ok(None) => failure = Some(closed(OPERATION, path)),
                Err(error) => failure = Some(error),
            }
        }
        not_running.ok_or_else(|| failure.unwrap_or_else(|| no_worker(OPERATION, path)))
    }

    /// The body of the first worker's answer to a submit, or `None` where it closed the connection.
    async fn ask_to_load(&self, path: &UfsUri, options: &LoadOptions) -> Result<Option<Bytes>> {
        const OPERATION: &str = "submit load";
        let target = addressed(OPERATION, path, route::load(path, LoadOp::Submit, options))?;
        let mut failure = no_worker(OPERATION, path);
        for worker in self.owners(path) {
            match self.ask_one(OPERATION, path, &worker, &target).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => failure = error,
                answered => return answered,
            }
        }
        Err(failure)
    }

    fn owners(&self, path: &UfsUri) -> Vec<WorkerEndpoint> {
        self.membership
            .snapshot()
            .owners(path, self.max_worker_attempts)
    }

    /// One worker's answer; an error of the kind Unavailable where another one may do better.
    async fn ask_one(
        &self,
        operation: &'static str,
        path: &UfsUri,
        worker: &WorkerEndpoint,
        target: &str,
    ) -> Result<Option<Bytes>> {
        let failure = match self.workers.ask(worker, target).await {
            Answer::Body(body) => return Ok(Some(body)),
            // The second is the embedded worker's word for the same: the job runs already.
            Answer::Nothing | Answer::Refused(409, _) => return Ok(None),
            Answer::Refused(status @ 400..=499, body) => {
                return Err(refused(operation, path, status, &body));
            }
            Answer::Refused(status, _) => format!("answered with status {status}"),
            Answer::Failed(cause) => cause,
        };
        let context = format!(
            "no worker took the request for {path}: {} {failure}",
            worker.base_url
        );
        Err(Error::new(ErrorKind::Unavailable, operation, context))
    }
}

fn addressed(operation: &'static str, path: &UfsUri, target: Option<String>) -> Result<String> {
    target.ok_or_else(|| {
        let context = format!(
            "workers cannot be asked for the name {path}: load the directory above it instead"
        );
        Error::new(ErrorKind::Unsupported, operation, context)
    })
}

fn no_worker(operation: &'static str, path: &UfsUri) -> Error {
    let context = format!("there is no worker to ask for {path}; check cluster.membership");
    Error::new(ErrorKind::Unavailable, operation, context)
}

fn closed(operation: &'static str, path: &UfsUri) -> Error {
    let context =
        format!("the worker closed the connection when it was asked about {path}; see its log");
    Error::new(ErrorKind::Unavailable, operation, context)
}

fn lost(path: &UfsUri) -> Error {
    let context = format!(
        "no worker knows the load of {path} any more: its coordinator is gone. Submit it again, \
         what is cached is passed over; or start that worker again, and it goes on by itself"
    );
    Error::new(ErrorKind::Unavailable, "ask for load", context)
}

fn refused(operation: &'static str, path: &UfsUri, status: u16, body: &[u8]) -> Error {
    let words: String = String::from_utf8_lossy(body)
        .chars()
        .take(MAX_CAUSE_CHARS)
        .collect();
    let kind = match status {
        404 => ErrorKind::NotFound,
        _ => ErrorKind::InvalidInput,
    };
    Error::new(
        kind,
        operation,
        format!("the worker refused {path} with status {status}: {words}"),
    )
}

fn unreadable(operation: &'static str, path: &UfsUri, error: LoadError) -> Error {
    let context = format!("a worker's answer about {path} cannot be read");
    Error::new(ErrorKind::Corrupt, operation, context).with_source(error)
}
