//! One load: its state, its numbers, and its rounds over the files.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluxio_ufs::UfsError;
use alluxio_wire::{FileId, FileStatus, LoadCounts, LoadFailure, LoadOptions, LoadState, UfsUri};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};
use tokio_util::sync::CancellationToken;

use super::dispatch::{Dispatcher, Round};
use super::message::{FileToLoad, Mode};
use crate::failure::Failure;

/// Failures that are kept with their reasons; all are counted.
const MAX_FAILURES: usize = 100;

/// Failed files that the second round leaves out: 32 bytes each, so about 50 MB. One beyond that
/// is verified all the same, and counts as failed twice.
const MAX_LEFT_OUT: usize = 1_000_000;

/// The most that a file filter may take when compiled; a filter for names is far below.
const MAX_FILTER_BYTES: usize = 1024 * 1024;

/// Files that are listed before loading begins, so that progress has its whole from the start:
/// some 300 bytes each, so about 300 MB. A larger load goes on listing while it loads.
const MAX_LISTED_FIRST: usize = 1_000_000;

/// One load of a path.
pub(super) struct Job {
    id: String,
    uri: UfsUri,
    options: LoadOptions,
    filter: Option<Regex>,
    began: Instant,
    stop: CancellationToken,
    phase: Mutex<Phase>,
    counts: Counts,
    failures: Mutex<Vec<LoadFailure>>,
    /// Files that are not to be verified, for they could not be loaded.
    left_out: Mutex<HashSet<FileId>>,
}

#[derive(Clone)]
struct Phase {
    state: LoadState,
    /// Why it failed as a whole.
    reason: Option<String>,
    ended: Option<Instant>,
}

/// The numbers of a load.
#[derive(Debug, Default)]
pub(super) struct Counts {
    files_total: AtomicU64,
    files_done: AtomicU64,
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    failures: AtomicU64,
}

impl Counts {
    fn found(&self, bytes: u64) {
        self.files_total.fetch_add(1, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes_done(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were counted and are not loaded after all.
    pub(super) fn bytes_lost(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Job {
    pub(super) fn new(id: String, uri: UfsUri, options: LoadOptions) -> Result<Self, Failure> {
        let filter = options.file_filter.as_deref().map(compile).transpose()?;
        Ok(Self {
            id,
            uri,
            options,
            filter,
            began: Instant::now(),
            stop: CancellationToken::new(),
            phase: Mutex::new(Phase {
                state: LoadState::Running,
                reason: None,
                ended: None,
            }),
            counts: Counts::default(),
            failures: Mutex::default(),
            left_out: Mutex::default(),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn uri(&self) -> &UfsUri {
        &self.uri
    }

    pub(super) fn options(&self) -> &LoadOptions {
        &self.options
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn state(&self) -> LoadState {
        self.phase.lock().state
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Why it failed as a whole, where it did.
    pub(super) fn reason(&self) -> Option<String> {
        self.phase.lock().reason.clone()
    }

    /// How long it has been at work.
    pub(super) fn elapsed(&self) -> Duration {
        let ended = self.phase.lock().ended;
        ended.unwrap_or_else(Instant::now) - self.began
    }

    /// The numbers as they stand.
    pub(super) fn snapshot(&self) -> LoadCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LoadCounts {
            files_total: read(&self.counts.files_total),
            files_done: read(&self.counts.files_done),
            bytes_total: read(&self.counts.bytes_total),
            bytes_done: read(&self.counts.bytes_done),
            failure_count: read(&self.counts.failures),
            failures: self.failures.lock().clone(),
        }
    }

    /// Ends the job, before or after it began, when `all` is cancelled.
    pub(super) fn stopped_by(mut self, all: &CancellationToken) -> Self {
        self.stop = all.child_token();
        self
    }

    /// Ends the job; false when it had ended before.
    pub(super) fn stop(&self) -> bool {
        let stopped = self.end(LoadState::Stopped, None);
        self.stop.cancel();
        stopped
    }

    /// Counts a file that could not be loaded.
    pub(super) fn fail(&self, uri: &UfsUri, reason: &str) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        if self.options.verify {
            let mut left_out = self.left_out.lock();
            if left_out.len() < MAX_LEFT_OUT {
                left_out.insert(uri.file_id());
            }
        }
        let mut failures = self.failures.lock();
        if failures.len() < MAX_FAILURES {
            failures.push(LoadFailure {
                path: uri.to_string(),
                reason: reason.to_owned(),
            });
        }
    }

    /// Loads, verifies where asked to, and ends in a final state.
    pub(super) async fn run(&self, dispatcher: &Dispatcher) {
        let rounds = self.stop.run_until_cancelled(self.rounds(dispatcher));
        let (state, reason) = match rounds.await {
            None => (LoadState::Stopped, None),
            Some(Err(error)) => (LoadState::Failed, Some(error.to_string())),
            Some(Ok(())) => match self.counts.failures.load(Ordering::Relaxed) {
                0 => (LoadState::Succeeded, None),
                failed => (
                    LoadState::Failed,
                    Some(format!("{failed} files could not be loaded")),
                ),
            },
        };
        tracing::info!(uri = %self.uri, %state, reason, "a load has ended");
        self.end(state, reason);
    }

    async fn rounds(&self, dispatcher: &Dispatcher) -> Result<(), UfsError> {
        let files = if self.options.partial_listing {
            self.found(dispatcher)
        } else {
            list_first(self.found(dispatcher)).await?
        };
        let mode = if self.options.metadata_only {
            Mode::Metadata
        } else {
            Mode::Load
        };
        let round = Round {
            job: self,
            mode,
            counts: Some(self.counts()),
        };
        dispatcher.run(round, files).await?;
        if self.options.verify && !self.options.metadata_only && self.begin_verifying() {
            let round = Round {
                job: self,
                mode: Mode::Verify,
                counts: None,
            };
            dispatcher.run(round, self.loaded(dispatcher)).await?;
        }
        Ok(())
    }

    /// The files to load, each counted as it is found.
    fn found<'a>(&'a self, dispatcher: &Dispatcher) -> BoxStream<'a, Result<FileToLoad, UfsError>> {
        let files = self.files(dispatcher);
        let count = |file: &FileToLoad| {
            let bytes = if self.options.metadata_only {
                0
            } else {
                file.length
            };
            self.counts.found(bytes);
        };
        files.inspect_ok(count).boxed()
    }

    /// The files to load, as the under-store has them now.
    fn files<'a>(&'a self, dispatcher: &Dispatcher) -> BoxStream<'a, Result<FileToLoad, UfsError>> {
        dispatcher
            .walk(&self.uri)
            .try_filter_map(move |status| async move { Ok(self.wanted(&status)) })
            .boxed()
    }

    /// The files to verify: those that failed to load would only fail, and count, once more.
    fn loaded<'a>(
        &'a self,
        dispatcher: &Dispatcher,
    ) -> BoxStream<'a, Result<FileToLoad, UfsError>> {
        self.files(dispatcher)
            .try_filter(|file| std::future::ready(!self.is_left_out(&file.uri)))
            .boxed()
    }

    fn is_left_out(&self, uri: &UfsUri) -> bool {
        let left_out = self.left_out.lock();
        !left_out.is_empty() && left_out.contains(&uri.file_id())
    }

    fn wanted(&self, status: &FileStatus) -> Option<FileToLoad> {
        let matches = |filter: &Regex| filter.is_match(&status.ufs_uri);
        if !self.filter.as_ref().is_none_or(matches) {
            return None;
        }
        let uri = UfsUri::parse(&status.ufs_uri).ok()?;
        Some(FileToLoad::new(status, uri))
    }

    /// False when the job was stopped meanwhile.
    fn begin_verifying(&self) -> bool {
        let mut phase = self.phase.lock();
        let runs = phase.state == LoadState::Running;
        if runs {
            phase.state = LoadState::Verifying;
        }
        runs
    }

    /// The first end counts; false when there was one before.
    fn end(&self, state: LoadState, reason: Option<String>) -> bool {
        let mut phase = self.phase.lock();
        if phase.state.is_final() {
            return false;
        }
        *phase = Phase {
            state,
            reason,
            ended: Some(Instant::now()),
        };
        true
    }
}

/// Lists all files before the first one is loaded, up to a bound.
async fn list_first(
    mut files: BoxStream<'_, Result<FileToLoad, UfsError>>,
) -> Result<BoxStream<'_, Result<FileToLoad, UfsError>>, UfsError> {
    let mut listed = Vec::new();
    while listed.len() < MAX_LISTED_FIRST {
        match files.try_next().await? {
            Some(file) => listed.push(Ok(file)),
            None => break,
        }
    }
    Ok(stream::iter(listed).chain(files).boxed())
}

fn compile(filter: &str) -> Result<Regex, Failure> {
    let compiled = RegexBuilder::new(filter)
        .size_limit(MAX_FILTER_BYTES)
        .build();
    compiled.map_err(|error| {
        Failure::bad_request(format!(
            "fileFilterRegx `{filter}` is not a usable regular expression: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;
    use crate::failure::FailureKind;

    fn job(options: LoadOptions) -> Result<Job, Failure> {
        let uri = UfsUri::parse("s3://b/p").unwrap();
        Job::new("1".to_owned(), uri, options)
    }

    #[test]
    fn a_job_ends_once() {
        let job = job(LoadOptions::default()).unwrap();
        assert!(job.stop());
        assert!(!job.stop());
        assert!(!job.end(LoadState::Succeeded, None));
        assert_eq!(job.state(), LoadState::Stopped);
    }

    #[test]
    fn a_bad_filter_is_refused_by_name() {
        let options = LoadOptions {
            file_filter: Some("(".to_owned()),
            ..LoadOptions::default()
        };
        let Err(failure) = job(options) else {
            panic!("the filter was taken");
        };
        assert_eq!(failure.kind, FailureKind::BadRequest);
        assert!(failure.message.contains("fileFilterRegx `(`"));
    }

    #[test]
    fn failures_are_counted_beyond_those_that_are_kept() {
        let job = job(LoadOptions::default()).unwrap();
        for number in 0..150 {
            let uri = UfsUri::parse(&format!("s3://b/p/{number}")).unwrap();
            job.fail(&uri, "gone");
        }
        let counts = job.snapshot();
        assert_eq!(counts.failure_count, 150);
        assert_eq!(counts.failures.len(), MAX_FAILURES);
    }
}
