//! The coordinator's side: files into batches by owner, batches to workers, again where it failed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use alluxio_ufs::UfsError;
use alluxio_wire::{FileStatus, UfsUri, WorkerId};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::batch::MAX_BATCH_FILES;
use super::cluster::Cluster;
use super::job::Job;
use super::message::{Batch, Event, FileToLoad, Mode, WAITING_EVENTS};
use super::track::Sums;

/// Workers that are tried for a file: its owner, then the next two on the ring. More would put
/// pages where no client looks for them.
const ATTEMPTS: usize = 3;

/// The wait before a file is tried again: a worker that restarts takes about as long.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// A batch is sent when its files have that many bytes, so that no owner waits for the listing
/// while it could load.
const BATCH_TARGET_BYTES: u64 = 64 * 1024 * 1024;

/// Batches in flight for each worker: one is loaded while the next one arrives.
const BATCHES_PER_WORKER: usize = 2;

/// Batches in flight in all; bounds the coordinator's connections and memory.
const MAX_BATCHES: usize = 64;

/// Files that may wait behind one that is not over. Beyond it, what is gathered is sent though it
/// is no full batch: it bounds the coordinator's memory, and what a restart would do again.
const MAX_SPAN: usize = 65_536;

/// Sends files to their owners.
pub(super) struct Dispatcher {
    cluster: Arc<dyn Cluster>,
}

/// One round over all files of a job.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) job: &'a Job,
    pub(super) mode: Mode,
}

/// A file that may succeed elsewhere, why it did not where it was tried, and where that was.
struct Leftover {
    file: FileToLoad,
    reason: String,
    tried: Vec<WorkerId>,
}

/// How far one file of a batch is.
#[derive(Clone, Copy, Default)]
struct FileState {
    bytes: u64,
    kept: u64,
    is_over: bool,
}

impl Dispatcher {
    pub(super) fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self { cluster }
    }

    /// The files below a path, as the under-store has them now.
    pub(super) fn walk(&self, uri: &UfsUri) -> BoxStream<'static, Result<FileStatus, UfsError>> {
        self.cluster.walk(uri)
    }

    /// Sends all files of the stream; returns when the last one is over.
    pub(super) async fn run(
        &self,
        round: Round<'_>,
        mut files: BoxStream<'_, Result<FileToLoad, UfsError>>,
    ) -> Result<(), UfsError> {
        let mut gathering: HashMap<Option<WorkerId>, Vec<FileToLoad>> = HashMap::new();
        let mut in_flight = FuturesUnordered::new();
        let mut is_listed = false;
        // Listing and sending go on side by side; a branch that is not polled stands still.
        loop {
            let has_room = in_flight.len() < self.most_in_flight()
                && (round.job.span() < 2 * MAX_SPAN || in_flight.is_empty());
            tokio::select! {
                file = files.try_next(), if !is_listed && has_room => {
                    if let Some(file) = file? {
                        let owner = self.cluster.owners(&file.uri, 1);
                        let group = gathering.entry(owner.first().copied()).or_default();
                        group.push(file);
                        if is_full(group) {
                            in_flight.push(self.deliver(round, std::mem::take(group)));
                        }
                    } else {
                        is_listed = true;
                    }
                    if is_listed || round.job.span() >= MAX_SPAN {
                        let all = gathering.drain().map(|(_, group)| group);
                        for group in all.filter(|group| !group.is_empty()) {
                            in_flight.push(self.deliver(round, group));
                        }
                    }
                }
                Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
                else => return Ok(()),
            }
        }
    }

    fn most_in_flight(&self) -> usize {
        let workers = self.cluster.workers().max(1);
        (BATCHES_PER_WORKER * workers).min(MAX_BATCHES)
    }

    /// Has each file loaded by its owner, or by a worker after it on the ring.
    async fn deliver(&self, round: Round<'_>, files: Vec<FileToLoad>) {
        let mut rest: Vec<Leftover> = files.into_iter().map(Leftover::untried).collect();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(RETRY_WAIT).await;
            }
            let mut failed = Vec::new();
            for (worker, files) in self.by_worker(rest) {
                failed.extend(self.send(round, worker.as_ref(), files).await);
            }
            if failed.is_empty() {
                return;
            }
            rest = failed;
        }
        for leftover in rest {
            round.failed(&leftover.file, &leftover.reason);
        }
    }

    /// Which worker gets which files now: the first on the ring that was not tried. Where all were,
    /// the last one again. `None` is this worker, where there is no other.
    fn by_worker(&self, files: Vec<Leftover>) -> Vec<(Option<WorkerId>, Vec<Leftover>)> {
        let mut groups: BTreeMap<Option<WorkerId>, Vec<Leftover>> = BTreeMap::new();
        for file in files {
            let owners = self.cluster.owners(&file.file.uri, file.tried.len() + 1);
            let untried = owners.iter().find(|owner| !file.tried.contains(owner));
            let worker = untried.or(owners.last()).copied();
            groups.entry(worker).or_default().push(file);
        }
        groups.into_iter().collect()
    }

    /// Sends one batch and counts its events; returns the files that may succeed elsewhere.
    async fn send(
        &self,
        round: Round<'_>,
        worker: Option<&WorkerId>,
        files: Vec<Leftover>,
    ) -> Vec<Leftover> {
        let options = round.job.options();
        let batch = Batch {
            job: round.job.id().to_owned(),
            mode: round.mode,
            skip_if_exists: options.skip_if_exists,
            bandwidth_bytes_per_second: options.bandwidth_bytes_per_second,
            files: files.iter().map(|file| file.file.clone()).collect(),
        };
        let name = self.cluster.name(worker);
        let mut outcome = Outcome::new(round, worker.copied(), &name, files);
        let (sender, mut events) = mpsc::channel(WAITING_EVENTS);
        // It drops its sender when it ends, and that ends the other one.
        let sending = self.cluster.send(worker, batch, sender);
        let receiving = async {
            while let Some(event) = events.recv().await {
                outcome.take(event);
            }
        };
        let (sent, ()) = tokio::join!(sending, receiving);
        if let Err(error) = &sent {
            tracing::warn!(worker = name, error, "a batch of a load failed");
        }
        let reason = sent.err().unwrap_or_default();
        outcome.leftovers(&format!("worker {name} {reason}"))
    }
}

impl Leftover {
    fn untried(file: FileToLoad) -> Self {
        Self {
            file,
            reason: String::new(),
            tried: Vec::new(),
        }
    }
}

impl Round<'_> {
    /// Whether files and bytes count, or failures alone.
    fn counts(self) -> bool {
        self.mode != Mode::Verify
    }

    /// A file that nobody could load.
    fn failed(self, file: &FileToLoad, reason: &str) {
        self.job.fail(file, reason);
        let mut sums = Sums {
            failures: 1,
            ..Sums::default()
        };
        if self.counts() {
            self.job.counts().file_done(false);
            sums.files_total = 1;
            sums.files_done = 1;
            sums.bytes_total = self.mode.bytes_of(file);
        }
        self.job.over(file, sums);
    }

    /// A file that is loaded; `kept` bytes of it were before.
    fn done(self, file: &FileToLoad, kept: u64) {
        let bytes = self.mode.bytes_of(file);
        let skipped = bytes > 0 && kept == bytes;
        let mut sums = Sums::default();
        if self.counts() {
            self.job.counts().file_done(skipped);
            sums = Sums {
                files_total: 1,
                files_done: 1,
                files_skipped: u64::from(skipped),
                bytes_total: bytes,
                bytes_done: bytes,
                bytes_skipped: kept,
                failures: 0,
            };
        }
        self.job.over(file, sums);
    }
}

/// What has come of the files of one batch.
struct Outcome<'a> {
    round: Round<'a>,
    worker: Option<WorkerId>,
    name: &'a str,
    files: Vec<Leftover>,
    states: Vec<FileState>,
    leftovers: Vec<Leftover>,
}

impl<'a> Outcome<'a> {
    fn new(
        round: Round<'a>,
        worker: Option<WorkerId>,
        name: &'a str,
        files: Vec<Leftover>,
    ) -> Self {
        Self {
            round,
            worker,
            name,
            states: vec![FileState::default(); files.len()],
            files,
            leftovers: Vec::new(),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Bytes { file, bytes, kept } => self.count(file, bytes, kept),
            Event::Done { file } => {
                if self.end(file) {
                    // What a newer, shorter version lacks counts all the same: the file is whole.
                    self.count_now(file, u64::MAX, false);
                    let loaded = &self.files[file].file;
                    self.round.done(loaded, self.states[file].kept);
                    self.round.job.counts().by_worker(self.name, 1, 0);
                }
            }
            Event::Failed {
                file,
                reason,
                retryable,
            } => {
                if self.end(file) {
                    self.failed(file, reason, retryable);
                }
            }
            Event::End => {}
        }
    }

    fn count(&mut self, file: usize, bytes: u64, kept: bool) {
        if self.states.get(file).is_some_and(|state| !state.is_over) {
            self.count_now(file, bytes, kept);
        }
    }

    /// Counts bytes of a file, up to the length it was listed with: it may have grown meanwhile.
    fn count_now(&mut self, file: usize, bytes: u64, kept: bool) {
        if !self.round.counts() {
            return;
        }
        let state = &mut self.states[file];
        let length = self.round.mode.bytes_of(&self.files[file].file);
        let bytes = bytes.min(length - state.bytes);
        if bytes == 0 {
            return;
        }
        state.bytes += bytes;
        state.kept += if kept { bytes } else { 0 };
        let counts = self.round.job.counts();
        counts.bytes_done(bytes, kept);
        counts.by_worker(self.name, 0, bytes);
    }

    /// Marks a file as over; false when it was already, or is none of this batch.
    fn end(&mut self, file: usize) -> bool {
        match self.states.get_mut(file) {
            Some(state) if !state.is_over => {
                state.is_over = true;
                true
            }
            _ => false,
        }
    }

    /// Takes back the bytes that were counted: they will be counted again, or the file failed.
    fn failed(&mut self, number: usize, reason: String, retryable: bool) {
        let FileState { bytes, kept, .. } = self.states[number];
        if self.round.counts() {
            self.round.job.counts().bytes_lost(bytes, kept);
        }
        let failed = &self.files[number];
        if retryable {
            self.leftovers.push(Leftover {
                file: failed.file.clone(),
                reason,
                tried: failed.tried.iter().copied().chain(self.worker).collect(),
            });
        } else {
            self.round.failed(&failed.file, &reason);
        }
    }

    /// The files to try elsewhere; those that nothing was heard of are among them.
    fn leftovers(mut self, reason: &str) -> Vec<Leftover> {
        for number in 0..self.files.len() {
            if self.end(number) {
                self.failed(number, reason.to_owned(), true);
            }
        }
        self.leftovers
    }
}

fn is_full(batch: &[FileToLoad]) -> bool {
    let bytes: u64 = batch.iter().map(|file| file.length).sum();
    batch.len() >= MAX_BATCH_FILES || bytes >= BATCH_TARGET_BYTES
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_wire::LoadOptions;

    use super::*;

    fn file(name: &str) -> FileToLoad {
        FileToLoad {
            uri: UfsUri::parse(&format!("s3://b/{name}")).unwrap(),
            length: 10,
            modified_ms: 0,
            content_hash: None,
            number: 0,
        }
    }

    fn outcome<'a>(round: Round<'a>, names: &[&str]) -> Outcome<'a> {
        let files = names.iter().map(|name| {
            let mut file = file(name);
            file.number = round.job.enter_for_test(&file);
            Leftover::untried(file)
        });
        Outcome::new(round, None, "w:1", files.collect())
    }

    fn bytes(file: usize, bytes: u64) -> Event {
        let kept = false;
        Event::Bytes { file, bytes, kept }
    }

    fn job() -> Job {
        let uri = UfsUri::parse("s3://b").unwrap();
        Job::new("1".to_owned(), uri, LoadOptions::default()).unwrap()
    }

    fn round(job: &Job) -> Round<'_> {
        Round {
            job,
            mode: Mode::Load,
        }
    }

    #[test]
    fn a_batch_that_breaks_off_leaves_its_files_and_no_bytes() {
        let job = job();
        let mut outcome = outcome(round(&job), &["a", "b"]);
        outcome.take(bytes(0, 10));
        outcome.take(Event::Done { file: 0 });
        outcome.take(bytes(1, 4));
        let left = outcome.leftovers("died");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file.uri, file("b").uri);
        let counts = job.snapshot(0, 10);
        assert_eq!((counts.files_done, counts.bytes_done), (1, 10));
        assert_eq!(counts.failure_count, 0);
    }

    #[test]
    fn a_final_failure_is_counted_and_not_tried_elsewhere() {
        let job = job();
        let mut outcome = outcome(round(&job), &["a", "b"]);
        let failed = |file, retryable| Event::Failed {
            file,
            reason: "gone".to_owned(),
            retryable,
        };
        outcome.take(failed(0, false));
        outcome.take(failed(1, true));
        outcome.take(Event::End);
        let left = outcome.leftovers("");
        assert_eq!(left.len(), 1);
        let counts = job.snapshot(0, 10);
        assert_eq!((counts.files_done, counts.failure_count), (1, 1));
        assert_eq!(counts.failures[0].path, "s3://b/a");
    }

    #[test]
    fn events_of_files_that_are_over_or_unknown_change_nothing() {
        let job = job();
        let mut outcome = outcome(round(&job), &["a"]);
        outcome.take(Event::Done { file: 0 });
        outcome.take(Event::Done { file: 0 });
        outcome.take(bytes(0, 5));
        outcome.take(Event::Done { file: 7 });
        assert_eq!(outcome.leftovers("").len(), 0);
        let counts = job.snapshot(0, 10);
        assert_eq!((counts.files_done, counts.bytes_done), (1, 10));
    }
}
