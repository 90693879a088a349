//! One load: its state, its numbers, and its rounds over the files.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use alluxio_ufs::UfsError;
use alluxio_wire::{FileId, FileStatus, LoadCounts, LoadFailure, LoadOptions, LoadState, UfsUri};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};
use tokio_util::sync::CancellationToken;

use super::counts::Counts;
use super::dispatch::{Dispatcher, Round};
use super::journal::{Journal, Record};
use super::message::{FileToLoad, Mode};
use super::track::{Cursor, Sums, Track};
use crate::failure::Failure;

/// Failures that are kept with their reasons; all are counted. Some 300 bytes each, 3 KiB at worst.
const MAX_FAILURES: usize = 1000;

/// The longest reason that is kept: a sentence or two, and the store's own words.
const MAX_REASON_BYTES: usize = 1000;

/// Failed files that the second round leaves out: 32 bytes each, so about 50 MB. One beyond that
/// is verified all the same, and counts as failed twice.
const MAX_LEFT_OUT: usize = 1_000_000;

/// The most that a file filter may take when compiled; a filter for names is far below.
const MAX_FILTER_BYTES: usize = 1024 * 1024;

/// Files that are listed before loading begins, so that progress has its whole from the start:
/// some 300 bytes each, so about 20 MB. A larger load goes on listing while it loads.
const MAX_LISTED_FIRST: usize = 65_536;

/// How often the journal is written while a job is at work. A restarted coordinator does at most
/// this much again, and passes over what is cached.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);

/// One load of a path.
pub(super) struct Job {
    id: String,
    uri: UfsUri,
    options: LoadOptions,
    filter: Option<Regex>,
    submitted_ms: u64,
    /// At work before this run of the worker.
    worked_before: Duration,
    began: Instant,
    stop: CancellationToken,
    phase: Mutex<Phase>,
    counts: Counts,
    track: Mutex<Track>,
    failures: Mutex<Vec<Failed>>,
    /// Files that are not to be verified, for they could not be loaded.
    left_out: Mutex<HashSet<FileId>>,
    /// One write of the record at a time, so that an older one never replaces a newer.
    writing: tokio::sync::Mutex<Option<Record>>,
}

#[derive(Clone)]
struct Phase {
    state: LoadState,
    /// Why it failed as a whole.
    reason: Option<String>,
    ended: Option<Instant>,
    ended_ms: Option<u64>,
}

/// A file that failed, and its number in the round at work; none in an earlier one.
struct Failed {
    number: Option<u64>,
    failure: LoadFailure,
}

/// A listing that goes on behind the cursor, or one that does not lead there any more.
enum Resumed<'a> {
    Behind(BoxStream<'a, Result<FileToLoad, UfsError>>),
    Elsewhere,
}

impl Job {
    pub(super) fn new(id: String, uri: UfsUri, options: LoadOptions) -> Result<Self, Failure> {
        Self::from_record(Record::new(id, uri, options, now_ms()))
    }

    /// The job of a record: at work again where it was at work.
    pub(super) fn from_record(record: Record) -> Result<Self, Failure> {
        let filter = record.options.file_filter.as_deref().map(compile);
        let now = Instant::now();
        let is_over = record.state.is_final();
        let left_out = record.failures.iter().filter(|_| record.options.verify);
        let left_out = left_out.filter_map(|f| Some(UfsUri::parse(&f.path).ok()?.file_id()));
        Ok(Self {
            filter: filter.transpose()?,
            submitted_ms: record.submitted_ms,
            worked_before: Duration::from_millis(record.elapsed_ms),
            began: now,
            stop: CancellationToken::new(),
            phase: Mutex::new(Phase {
                state: record.state,
                reason: record.reason,
                ended: is_over.then_some(now),
                ended_ms: record.ended_ms,
            }),
            counts: Counts::from(record.sums, record.listing_done),
            track: Mutex::new(Track::at(record.cursor, record.sums)),
            left_out: Mutex::new(left_out.collect()),
            failures: Mutex::new(record.failures.into_iter().map(Failed::earlier).collect()),
            id: record.id,
            uri: record.uri,
            options: record.options,
            writing: tokio::sync::Mutex::default(),
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

    pub(super) fn submitted_ms(&self) -> u64 {
        self.submitted_ms
    }

    /// When it ended, in milliseconds since 1970.
    pub(super) fn ended_ms(&self) -> Option<u64> {
        self.phase.lock().ended_ms
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
        self.worked_before + (ended.unwrap_or_else(Instant::now) - self.began)
    }

    /// The numbers as they stand, with `limit` failures from `offset` on.
    pub(super) fn snapshot(&self, offset: usize, limit: usize) -> LoadCounts {
        let sums = self.counts.sums();
        let failures = self.failures.lock();
        let page = failures.iter().skip(offset).take(limit);
        let listing_done = self.counts.is_listed();
        let bytes_per_second = self.counts.bytes_per_second();
        let rest = sums.bytes_total.saturating_sub(sums.bytes_done);
        let is_over = self.state().is_final();
        let eta = rest.checked_div(bytes_per_second);
        LoadCounts {
            files_total: sums.files_total,
            files_done: sums.files_done,
            bytes_total: sums.bytes_total,
            bytes_done: sums.bytes_done,
            failure_count: sums.failures,
            failures: page.map(|failed| failed.failure.clone()).collect(),
            files_skipped: sums.files_skipped,
            bytes_skipped: sums.bytes_skipped,
            listing_done: Some(listing_done),
            elapsed_ms: Some(millis(self.elapsed())),
            bytes_per_second: Some(bytes_per_second),
            eta_seconds: eta.filter(|_| listing_done && !is_over),
            workers: self.counts.workers(),
        }
    }

    /// Interrupts the job, before or after it began, when `all` is cancelled.
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
    pub(super) fn fail(&self, file: &FileToLoad, reason: &str) {
        self.counts.failed();
        if self.options.verify {
            let mut left_out = self.left_out.lock();
            if left_out.len() < MAX_LEFT_OUT {
                left_out.insert(file.uri.file_id());
            }
        }
        let mut failures = self.failures.lock();
        if failures.len() < MAX_FAILURES {
            failures.push(Failed {
                number: Some(file.number),
                failure: LoadFailure {
                    path: file.uri.to_string(),
                    reason: reason[..reason.floor_char_boundary(MAX_REASON_BYTES)].to_owned(),
                },
            });
        }
    }

    #[cfg(test)]
    pub(super) fn enter_for_test(&self, file: &FileToLoad) -> u64 {
        self.track.lock().enter(file)
    }

    /// Marks a file as over, with what it came to.
    pub(super) fn over(&self, file: &FileToLoad, sums: Sums) {
        self.track.lock().over(file.number, sums);
    }

    /// Files that were listed and that the cursor has not passed.
    pub(super) fn span(&self) -> usize {
        self.track.lock().span()
    }

    /// Writes the job down, unless that was done in the same words.
    pub(super) async fn write(&self, journal: &Journal) -> io::Result<()> {
        let mut written = self.writing.lock().await;
        let mut record = self.record();
        if let Some(last) = written.as_ref() {
            // Time alone is no news.
            let elapsed_ms = std::mem::replace(&mut record.elapsed_ms, last.elapsed_ms);
            if *last == record {
                return Ok(());
            }
            record.elapsed_ms = elapsed_ms;
        }
        journal.write(&record).await?;
        *written = Some(record);
        Ok(())
    }

    /// The job as far as it has come without a gap.
    fn record(&self) -> Record {
        let phase = self.phase.lock().clone();
        let (cursor, sums) = {
            let track = self.track.lock();
            (track.cursor(), track.sums())
        };
        let options = self.options.clone();
        let mut record = Record::new(
            self.id.clone(),
            self.uri.clone(),
            options,
            self.submitted_ms,
        );
        let is_over = phase.state.is_final();
        let is_passed =
            |failed: &&Failed| failed.number.is_none_or(|n| is_over || n < cursor.files);
        let failures = self.failures.lock();
        let passed = failures.iter().filter(is_passed);
        record.failures = passed.map(|failed| failed.failure.clone()).collect();
        record.state = phase.state;
        record.reason = phase.reason;
        record.ended_ms = phase.ended_ms;
        record.elapsed_ms = millis(self.elapsed());
        record.cursor = cursor;
        // What a restart would not count again.
        record.sums = if is_over { self.counts.sums() } else { sums };
        record.listing_done =
            self.counts.is_listed() && (is_over || phase.state == LoadState::Verifying);
        record
    }

    /// Loads, verifies where asked to, and ends in a final state; or is interrupted by the
    /// worker's own end, and then stays in the state it is in, for the next start.
    pub(super) async fn run(&self, dispatcher: &Dispatcher, journal: &Journal) {
        let checkpoints = async {
            loop {
                tokio::time::sleep(CHECKPOINT_EVERY).await;
                self.write_or_warn(journal).await;
            }
        };
        let rounds = self.stop.run_until_cancelled(self.rounds(dispatcher));
        let ended = tokio::select! {
            ended = rounds => ended,
            () = checkpoints => None,
        };
        let end = match ended {
            None => None,
            Some(Err(error)) => Some((LoadState::Failed, Some(error.to_string()))),
            Some(Ok(())) => Some(match self.counts.failures() {
                0 => (LoadState::Succeeded, None),
                failed => (
                    LoadState::Failed,
                    Some(format!("{failed} files could not be loaded")),
                ),
            }),
        };
        if let Some((state, reason)) = end {
            tracing::info!(uri = %self.uri, %state, reason, "a load has ended");
            self.end(state, reason);
        }
        self.write_or_warn(journal).await;
    }

    async fn write_or_warn(&self, journal: &Journal) {
        if let Err(error) = self.write(journal).await {
            tracing::warn!(
                uri = %self.uri,
                %error,
                "the journal of a load cannot be written: a restart would not go on with it"
            );
        }
    }

    async fn rounds(&self, dispatcher: &Dispatcher) -> Result<(), UfsError> {
        if self.state() != LoadState::Verifying {
            let mode = if self.options.metadata_only {
                Mode::Metadata
            } else {
                Mode::Load
            };
            let files = self.round(dispatcher, mode).await?;
            let files = if self.options.partial_listing {
                files
            } else {
                list_first(files).await?
            };
            dispatcher.run(Round { job: self, mode }, files).await?;
            if self.options.metadata_only || !self.options.verify || !self.begin_verifying() {
                return Ok(());
            }
        }
        let mode = Mode::Verify;
        let files = self.round(dispatcher, mode).await?;
        dispatcher.run(Round { job: self, mode }, files).await
    }

    /// The files of a round that are yet to be done, each entered as it is listed.
    async fn round<'a>(
        &'a self,
        dispatcher: &Dispatcher,
        mode: Mode,
    ) -> Result<BoxStream<'a, Result<FileToLoad, UfsError>>, UfsError> {
        let cursor = self.track.lock().cursor();
        let all = || self.files(dispatcher);
        let files = match resume(all(), cursor).await? {
            Resumed::Behind(files) => files,
            Resumed::Elsewhere => {
                tracing::info!(uri = %self.uri, "the files changed: the load begins anew");
                self.begin_anew(mode);
                all()
            }
        };
        let entered = files
            .map_ok(move |file| self.entered(file, mode))
            .try_filter_map(move |file| std::future::ready(Ok(self.unless_left_out(file, mode))));
        let end = stream::once(async move {
            if mode != Mode::Verify {
                self.counts.listed();
            }
            Ok(None)
        });
        let files = entered.map_ok(Some).chain(end);
        Ok(files.try_filter_map(|f| std::future::ready(Ok(f))).boxed())
    }

    /// Counts a listed file and gives it its number.
    fn entered(&self, mut file: FileToLoad, mode: Mode) -> FileToLoad {
        file.number = self.track.lock().enter(&file);
        if mode != Mode::Verify {
            self.counts.found(mode.bytes_of(&file));
        }
        file
    }

    /// A file that failed to load would only fail to verify, and count, once more.
    fn unless_left_out(&self, file: FileToLoad, mode: Mode) -> Option<FileToLoad> {
        if mode == Mode::Verify && self.is_left_out(&file.uri) {
            self.over(&file, Sums::default());
            return None;
        }
        Some(file)
    }

    fn begin_anew(&self, mode: Mode) {
        let mut track = self.track.lock();
        if mode == Mode::Verify {
            *track = Track::at(Cursor::default(), track.sums());
            return;
        }
        *track = Track::default();
        self.counts.restart();
        self.failures.lock().clear();
        self.left_out.lock().clear();
    }

    /// The files to load, as the under-store has them now.
    fn files<'a>(&'a self, dispatcher: &Dispatcher) -> BoxStream<'a, Result<FileToLoad, UfsError>> {
        dispatcher
            .walk(&self.uri)
            .try_filter_map(move |status| async move { Ok(self.wanted(&status)) })
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
            for failed in self.failures.lock().iter_mut() {
                failed.number = None;
            }
            *self.track.lock() = Track::at(Cursor::default(), self.counts.sums());
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
            ended_ms: Some(now_ms()),
        };
        true
    }
}

impl Failed {
    fn earlier(failure: LoadFailure) -> Self {
        Self {
            number: None,
            failure,
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Passes over the files before the cursor, if the listing still begins with the same ones.
async fn resume(
    mut files: BoxStream<'_, Result<FileToLoad, UfsError>>,
    cursor: Cursor,
) -> Result<Resumed<'_>, UfsError> {
    let mut at = Cursor::default();
    while at.files < cursor.files {
        match files.try_next().await? {
            Some(file) => at = at.after(&file),
            None => return Ok(Resumed::Elsewhere),
        }
    }
    Ok(if at == cursor {
        Resumed::Behind(files)
    } else {
        Resumed::Elsewhere
    })
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("uri", &self.uri)
            .field("state", &self.state())
            .finish_non_exhaustive()
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
        for number in 0..1500 {
            let file = FileToLoad {
                uri: UfsUri::parse(&format!("s3://b/p/{number}")).unwrap(),
                length: 0,
                modified_ms: 0,
                content_hash: None,
                number,
            };
            job.fail(&file, &"é".repeat(MAX_REASON_BYTES));
        }
        let counts = job.snapshot(0, usize::MAX);
        assert_eq!(counts.failure_count, 1500);
        assert_eq!(counts.failures.len(), MAX_FAILURES);
        assert!(counts.failures[0].reason.len() <= MAX_REASON_BYTES);
        let page = job.snapshot(990, 100);
        assert_eq!(page.failures[0].path, "s3://b/p/990");
        assert_eq!(page.failures.len(), 10);
    }
}
