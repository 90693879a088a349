//! The coordinator's side: files into batches by owner, batches to workers, again where it failed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use alluxio_client::membership::{Membership, WorkerEndpoint};
use alluxio_ufs::UfsError;
use alluxio_wire::{FileStatus, UfsUri, WorkerId};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::batch::{Batches, MAX_BATCH_FILES, Teller};
use super::job::{Counts, Job};
use super::message::{Batch, Event, FileToLoad, Mode};
use super::peer;
use crate::pages::Pages;

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

/// Events of one batch that wait for the coordinator.
const WAITING_EVENTS: usize = 64;

/// Sends files to their owners.
pub(super) struct Dispatcher {
    pages: Pages,
    members: Arc<dyn Membership>,
    own_id: WorkerId,
    batches: Batches,
}

/// One round over all files of a job.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) job: &'a Job,
    pub(super) mode: Mode,
    /// Whether files and bytes count, or failures alone.
    pub(super) counts: Option<&'a Counts>,
}

/// A file that may succeed elsewhere, and why it did not here.
struct Leftover {
    file: FileToLoad,
    reason: String,
}

/// How far one file of a batch is.
#[derive(Clone, Copy, Default)]
struct FileState {
    bytes: u64,
    is_over: bool,
}

impl Dispatcher {
    pub(super) fn new(
        pages: Pages,
        members: Arc<dyn Membership>,
        own_id: WorkerId,
        batches: Batches,
    ) -> Self {
        Self {
            pages,
            members,
            own_id,
            batches,
        }
    }

    /// The files below a path, as the under-store has them now.
    pub(super) fn walk(&self, uri: &UfsUri) -> BoxStream<'static, Result<FileStatus, UfsError>> {
        self.pages.ufs().walk(uri)
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
            let has_room = in_flight.len() < self.most_in_flight();
            tokio::select! {
                file = files.try_next(), if !is_listed && has_room => {
                    if let Some(file) = file? {
                        let owner = self.members.snapshot().owners(&file.uri, 1);
                        let group = gathering.entry(owner.first().map(|o| o.id)).or_default();
                        group.push(file);
                        if is_full(group) {
                            in_flight.push(self.deliver(round, std::mem::take(group)));
                        }
                    } else {
                        is_listed = true;
                        let last = gathering.drain().map(|(_, group)| group);
                        for group in last.filter(|group| !group.is_empty()) {
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
        let workers = self.members.snapshot().len().max(1);
        (BATCHES_PER_WORKER * workers).min(MAX_BATCHES)
    }

    /// Has each file loaded by its owner, or by a worker after it on the ring.
    async fn deliver(&self, round: Round<'_>, files: Vec<FileToLoad>) {
        let mut rest: Vec<Leftover> = files
            .into_iter()
            .map(|file| Leftover {
                file,
                reason: String::new(),
            })
            .collect();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(RETRY_WAIT).await;
            }
            let mut failed = Vec::new();
            for (worker, files) in self.by_worker(rest, attempt) {
                failed.extend(self.send(round, worker.as_ref(), files).await);
            }
            if failed.is_empty() {
                return;
            }
            rest = failed;
        }
        for leftover in rest {
            round.job.fail(&leftover.file.uri, &leftover.reason);
            round.count(Counts::file_done);
        }
    }

    /// Which worker gets which files at this attempt; `None` is this worker, where there is no
    /// other.
    fn by_worker(
        &self,
        files: Vec<Leftover>,
        attempt: usize,
    ) -> Vec<(Option<WorkerEndpoint>, Vec<FileToLoad>)> {
        let members = self.members.snapshot();
        let mut groups: BTreeMap<Option<WorkerId>, Vec<FileToLoad>> = BTreeMap::new();
        for Leftover { file, .. } in files {
            let owners = members.owners(&file.uri, attempt + 1);
            // With fewer workers than attempts, the last one is asked again.
            let worker = owners.last().map(|owner| owner.id);
            groups.entry(worker).or_default().push(file);
        }
        groups
            .into_iter()
            .map(|(id, files)| (id.and_then(|id| members.get(&id).cloned()), files))
            .collect()
    }

    /// Sends one batch and counts its events; returns the files that may succeed elsewhere.
    async fn send(
        &self,
        round: Round<'_>,
        worker: Option<&WorkerEndpoint>,
        files: Vec<FileToLoad>,
    ) -> Vec<Leftover> {
        let options = round.job.options();
        let batch = Batch {
            job: round.job.id().to_owned(),
            mode: round.mode,
            skip_if_exists: options.skip_if_exists,
            bandwidth_bytes_per_second: options.bandwidth_bytes_per_second,
            files: files.clone(),
        };
        let other = worker.filter(|worker| worker.id != self.own_id);
        let mut outcome = Outcome::new(round, files);
        match other {
            None => {
                let mut events = self.batches.begin(batch, Teller::Own);
                while let Some(event) = events.recv().await {
                    outcome.take(event);
                }
                outcome.leftovers("the batch broke off")
            }
            Some(worker) => {
                let (sender, mut events) = mpsc::channel(WAITING_EVENTS);
                let sending = async {
                    let sent = peer::send(worker, &batch, &sender).await;
                    drop(sender);
                    sent
                };
                let receiving = async {
                    while let Some(event) = events.recv().await {
                        outcome.take(event);
                    }
                };
                let (sent, ()) = tokio::join!(sending, receiving);
                if let Err(error) = &sent {
                    tracing::warn!(worker = %worker.base_url, error, "a batch of a load failed");
                }
                let reason = sent.err().unwrap_or_default();
                outcome.leftovers(&format!("worker {} {reason}", worker.base_url))
            }
        }
    }
}

impl Round<'_> {
    fn count(&self, step: impl Fn(&Counts)) {
        if let Some(counts) = self.counts {
            step(counts);
        }
    }
}

/// What has come of the files of one batch.
struct Outcome<'a> {
    round: Round<'a>,
    files: Vec<FileToLoad>,
    states: Vec<FileState>,
    leftovers: Vec<Leftover>,
}

impl<'a> Outcome<'a> {
    fn new(round: Round<'a>, files: Vec<FileToLoad>) -> Self {
        Self {
            round,
            states: vec![FileState::default(); files.len()],
            files,
            leftovers: Vec::new(),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Bytes { file, bytes } => {
                if let Some(state) = self.states.get_mut(file)
                    && !state.is_over
                {
                    state.bytes += bytes;
                    self.round.count(|counts| counts.bytes_done(bytes));
                }
            }
            Event::Done { file } => {
                if self.end(file) {
                    self.round.count(Counts::file_done);
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
        let bytes = self.states[number].bytes;
        self.round.count(|counts| counts.bytes_lost(bytes));
        let file = self.files[number].clone();
        if retryable {
            self.leftovers.push(Leftover { file, reason });
        } else {
            self.round.job.fail(&file.uri, &reason);
            self.round.count(Counts::file_done);
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
        }
    }

    fn job() -> Job {
        let uri = UfsUri::parse("s3://b").unwrap();
        Job::new("1".to_owned(), uri, LoadOptions::default()).unwrap()
    }

    fn round(job: &Job) -> Round<'_> {
        Round {
            job,
            mode: Mode::Load,
            counts: Some(job.counts()),
        }
    }

    #[test]
    fn a_batch_that_breaks_off_leaves_its_files_and_no_bytes() {
        let job = job();
        let mut outcome = Outcome::new(round(&job), vec![file("a"), file("b")]);
        outcome.take(Event::Bytes { file: 0, bytes: 10 });
        outcome.take(Event::Done { file: 0 });
        outcome.take(Event::Bytes { file: 1, bytes: 4 });
        let left = outcome.leftovers("died");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file, file("b"));
        let counts = job.snapshot();
        assert_eq!((counts.files_done, counts.bytes_done), (1, 10));
        assert_eq!(counts.failure_count, 0);
    }

    #[test]
    fn a_final_failure_is_counted_and_not_tried_elsewhere() {
        let job = job();
        let mut outcome = Outcome::new(round(&job), vec![file("a"), file("b")]);
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
        let counts = job.snapshot();
        assert_eq!((counts.files_done, counts.failure_count), (1, 1));
        assert_eq!(counts.failures[0].path, "s3://b/a");
    }

    #[test]
    fn events_of_files_that_are_over_or_unknown_change_nothing() {
        let job = job();
        let mut outcome = Outcome::new(round(&job), vec![file("a")]);
        outcome.take(Event::Done { file: 0 });
        outcome.take(Event::Done { file: 0 });
        outcome.take(Event::Bytes { file: 0, bytes: 5 });
        outcome.take(Event::Done { file: 7 });
        assert_eq!(outcome.leftovers("").len(), 0);
        let counts = job.snapshot();
        assert_eq!((counts.files_done, counts.bytes_done), (1, 0));
    }
}
