//! Load jobs: asking a cluster to load a path, how far it is, and to stop.
//!
//! Any worker takes the request: the open-source worker hands it to its coordinator, the embedded
//! worker shares the work out over the ring. The path's owner is asked, so that all questions about
//! one path reach one worker, and the next on the ring where it cannot be reached.

use std::sync::Arc;

use alluxio_wire::load::{
    LoadError, LoadOp, LoadOptions, LoadState, ProgressAnswer, StopAnswer, SubmitAnswer,
};
use alluxio_wire::{UfsUri, route};
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::membership::Membership;
use crate::worker::{Answer, Workers};

/// The characters of a worker's own words that an error repeats.
const MAX_CAUSE_CHARS: usize = 400;

/// The load jobs of a cluster.
#[derive(Debug, Clone)]
pub struct LoadJobs {
    membership: Arc<dyn Membership>,
    workers: Arc<Workers>,
    max_worker_attempts: usize,
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
        if let Some(body) = self
            .ask("submit load", path, LoadOp::Submit, options)
            .await?
        {
            return SubmitAnswer::parse(&body).map_err(|e| unreadable("submit load", path, e));
        }
        let progress = self.progress(path).await?;
        match progress.state {
            LoadState::Running | LoadState::Verifying => Ok(SubmitAnswer {
                success: true,
                job_id: String::new(),
                path: path.to_string(),
                message: format!("Load '{path}' is running already."),
            }),
            state => {
                let context = format!(
                    "the worker did not take the job, and the load of {path} is {state}; check the \
                     path and the options, a bandwidth or filter that Alluxio cannot read ends so"
                );
                Err(Error::new(ErrorKind::InvalidInput, "submit load", context))
            }
        }
    }

    /// How far a load is. A path that was never loaded is answered as failed, by the workers
    /// themselves.
    pub async fn progress(&self, path: &UfsUri) -> Result<ProgressAnswer> {
        let options = LoadOptions {
            verbose: true,
            ..LoadOptions::default()
        };
        let body = self
            .ask_something("ask for load", path, LoadOp::Progress, &options)
            .await?;
        ProgressAnswer::parse(&body).map_err(|e| unreadable("ask for load", path, e))
    }

    /// Ends a load. What is loaded stays.
    pub async fn stop(&self, path: &UfsUri) -> Result<StopAnswer> {
        let options = LoadOptions::default();
        let body = self
            .ask_something("stop load", path, LoadOp::Stop, &options)
            .await?;
        StopAnswer::parse(&body).map_err(|e| unreadable("stop load", path, e))
    }

    async fn ask_something(
        &self,
        operation: &'static str,
        path: &UfsUri,
        op: LoadOp,
        options: &LoadOptions,
    ) -> Result<Bytes> {
        self.ask(operation, path, op, options)
            .await?
            .ok_or_else(|| {
                let context = format!(
                    "the worker closed the connection when it was asked about {path}; see its log"
                );
                Error::new(ErrorKind::Unavailable, operation, context)
            })
    }

    /// The body of the first answer, or `None` where a worker closed the connection.
    async fn ask(
        &self,
        operation: &'static str,
        path: &UfsUri,
        op: LoadOp,
        options: &LoadOptions,
    ) -> Result<Option<Bytes>> {
        let Some(target) = route::load(path, op, options) else {
            let context = format!(
                "workers cannot be asked for the name {path}: load the directory above it instead"
            );
            return Err(Error::new(ErrorKind::Unsupported, operation, context));
        };
        let owners = self
            .membership
            .snapshot()
            .owners(path, self.max_worker_attempts);
        let mut failure = "there is no worker; check cluster.membership".to_owned();
        for worker in &owners {
            failure = match self.workers.ask(worker, &target).await {
                Answer::Body(body) => return Ok(Some(body)),
                Answer::Nothing => return Ok(None),
                // The embedded worker's word for the same: the job runs already.
                Answer::Refused(409, _) if op == LoadOp::Submit => return Ok(None),
                Answer::Refused(status @ 400..=499, body) => {
                    return Err(refused(operation, path, status, &body));
                }
                Answer::Refused(status, _) => {
                    format!("{} answered with status {status}", worker.base_url)
                }
                Answer::Failed(cause) => format!("{} {cause}", worker.base_url),
            };
        }
        let context = format!("no worker took the request for {path}: {failure}");
        Err(Error::new(ErrorKind::Unavailable, operation, context))
    }
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
