//! Where a page comes from when it is not cached: the ring's workers, then the under-store.
//!
//! The order is fixed: the owner by the ring, the next ring workers, the UFS. Which step follows an
//! answer is decided in one place, `next_step`, for every answer and policy. That pages come from
//! the UFS is never an accident that nobody sees: it is counted by reason, held to a budget, and
//! logged when it begins and when it ended (`fallback.rs`).

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluxio_config::{FallbackPolicy, HedgeOptions};
use alluxio_ufs::Ufs;
use alluxio_wire::{FileId, FileVersion, PageRange, PageSize, UfsUri, page_length};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, ErrorKind, Result};
use crate::membership::{Membership, WorkerEndpoint};
use crate::metrics::{Metrics, PageResult};
use crate::versions::VersionedPages;
use crate::worker::PageAnswer;

mod alarm;
mod budget;
mod fallback;
mod hedge;
mod origin;
mod retries;
mod run;

pub(crate) use fallback::Fallback;
use hedge::Hedge;
pub use origin::{BytesBySource, FallbackReason, Source};
use retries::Share;
use run::FallenBack;

/// One version of a file, as it was opened.
#[derive(Debug)]
pub struct OpenedFile {
    /// The canonical URI.
    pub uri: UfsUri,
    /// The id of the URI, which names the file's pages on workers.
    pub id: FileId,
    /// The version of the bytes.
    pub version: FileVersion,
    /// The length in bytes.
    pub length: u64,
    /// Last modification in milliseconds since 1970, 0 where the store has none.
    pub modified_ms: i64,
    /// The cluster's page size.
    pub page_size: PageSize,
}

/// A page that was fetched.
#[derive(Debug, Clone)]
pub struct FetchedPage {
    /// All of the page's bytes.
    pub bytes: Bytes,
    /// Where they came from; never [`Source::Memory`].
    pub source: Source,
}

/// Reads pages of one file from this node's disk.
pub struct LocalRun {
    /// A run takes one of these, so that few are read at one time.
    pub turns: Arc<Semaphore>,
    /// Reads a page; `None` where it is not there. It blocks on the disk.
    pub read: Box<dyn FnMut(u64) -> Option<FetchedPage> + Send>,
}

/// Fetches pages.
///
/// A page is whole and of the opened version, or it is an error: a short or shifted page, or one
/// of another version, is never returned.
#[async_trait]
pub trait PageSource: Send + Sync {
    /// Fetches page `index` of `file`.
    async fn fetch(&self, file: &Arc<OpenedFile>, index: u64) -> Result<FetchedPage>;

    /// Fetches a part of a page for a reader that jumps about. `None` where it can only be had with
    /// its whole page.
    async fn fetch_part(
        &self,
        _file: &Arc<OpenedFile>,
        _index: u64,
        _part: PageRange,
    ) -> Result<Option<FetchedPage>> {
        Ok(None)
    }

    /// Whether pages of the file that follow each other cost less when they are fetched together.
    fn prefers_runs(&self, _file: &OpenedFile) -> bool {
        false
    }

    /// How many pages from the first of these are better fetched by one run; 0 where each had better
    /// be fetched by itself.
    fn run_from(&self, _file: &OpenedFile, _indices: Range<u64>) -> u64 {
        0
    }

    /// Whether a page is wanted on this node's disk, which has had no room for it yet, and is to be
    /// taken from memory.
    fn is_owed(&self, _file: &Arc<OpenedFile>, _index: u64) -> bool {
        false
    }

    /// What reads these pages, if all of them lie on this node's disk. From one thread to the next
    /// they would take longer than from there.
    fn local_run(&self, _file: &OpenedFile, _indices: Range<u64>) -> Option<LocalRun> {
        None
    }

    /// Fetches pages that follow each other and gives each as it comes, in order, up to the first
    /// error.
    fn fetch_run(
        self: Arc<Self>,
        file: Arc<OpenedFile>,
        indices: Range<u64>,
    ) -> BoxStream<'static, Result<FetchedPage>>
    where
        Self: 'static,
    {
        stream::iter(indices)
            .then(move |index| {
                let (source, file) = (Arc::clone(&self), Arc::clone(&file));
                async move { source.fetch(&file, index).await }
            })
            .boxed()
    }
}

/// Asks the workers of a page, then the under-store, as the policy allows.
pub struct WorkerThenUfs {
    membership: Arc<dyn Membership>,
    pages: VersionedPages,
    ufs: Ufs,
    routing: Routing,
    turns: Arc<Semaphore>,
    fallback: Arc<Fallback>,
    fallen_back: FallenBack,
    retries: Share,
    hedge: Option<Hedge>,
    metrics: Arc<Metrics>,
}

/// How many workers are asked, and whether the under-store is.
#[derive(Debug, Clone, Copy)]
pub struct Routing {
    /// When the under-store may be asked.
    pub policy: FallbackPolicy,
    /// Whether the configuration names a cluster at all.
    pub has_cluster: bool,
    /// Ring workers to ask before the under-store.
    pub max_worker_attempts: usize,
    /// Pages that are fetched at one time.
    pub max_inflight_requests: usize,
    /// The most that comes from the under-store in an hour because no worker served it.
    pub max_fallback_bytes_per_hour: Option<u64>,
    /// How long one worker may take to answer.
    pub worker_timeout: Duration,
    /// For one page, whatever it waits for.
    pub deadline: Duration,
    /// Requests that repeat a failed one at another worker, at most, in percent of all.
    pub retry_percent: u32,
    /// A second request for a page whose worker is slow.
    pub hedge: Option<HedgeOptions>,
}

/// An answer, and the place on the ring of the worker that gave it.
type Asked = (usize, PageAnswer);

/// A page that is being fetched, as long as this lives.
struct InFlight<'a>(&'a Metrics);

/// What comes after a worker's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The page is there.
    Serve,
    /// Ask the next worker on the ring.
    NextWorker,
    /// Ask the under-store.
    Ufs(FallbackReason),
    /// The policy leaves nobody to ask.
    Fail(ErrorKind),
}

/// The fallback decision.
fn next_step(policy: FallbackPolicy, answer: &PageAnswer, another_worker: bool) -> Step {
    use FallbackReason as Reason;
    let (may_ask_another, reason, kind) = match answer {
        PageAnswer::Page(_) => return Step::Serve,
        // Not the worker's failure: another worker would say the same, the under-store knows.
        PageAnswer::Miss | PageAnswer::Closed => (false, Reason::Miss, ErrorKind::Unavailable),
        PageAnswer::Stale => (false, Reason::Stale, ErrorKind::Stale),
        PageAnswer::WrongLength { .. } => (false, Reason::PageSize, ErrorKind::Corrupt),
        PageAnswer::Unaddressable => (false, Reason::Unaddressable, ErrorKind::Unsupported),
        PageAnswer::Refused(_) => (false, Reason::Refused, ErrorKind::Unexpected),
        PageAnswer::NoWorkers => (false, Reason::NoWorkers, ErrorKind::Unavailable),
        // The worker's failure: the next worker on the ring takes over.
        PageAnswer::Unreachable(_) => (true, Reason::Unreachable, ErrorKind::Unavailable),
        PageAnswer::TimedOut => (true, Reason::TimedOut, ErrorKind::TimedOut),
        PageAnswer::Overloaded => (true, Reason::Overloaded, ErrorKind::Throttled),
        PageAnswer::Broken(_) => (true, Reason::Broken, ErrorKind::Unavailable),
        PageAnswer::Resting => (true, Reason::Resting, ErrorKind::Unavailable),
    };
    match policy {
        FallbackPolicy::Always => Step::Ufs(Reason::Configured),
        _ if may_ask_another && another_worker => Step::NextWorker,
        FallbackPolicy::OnWorkerFailure => Step::Ufs(reason),
        FallbackPolicy::Never => Step::Fail(kind),
    }
}

impl WorkerThenUfs {
    /// Joins the parts.
    pub fn new(
        membership: Arc<dyn Membership>,
        pages: VersionedPages,
        ufs: Ufs,
        routing: Routing,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            membership,
            pages,
            ufs,
            routing,
            turns: Arc::new(Semaphore::new(routing.max_inflight_requests)),
            fallback: Fallback::new(routing.max_fallback_bytes_per_hour, Arc::clone(&metrics)),
            fallen_back: FallenBack::default(),
            retries: Share::of_retries(routing.retry_percent),
            hedge: routing
                .hedge
                .map(|options| Hedge::new(options, routing.worker_timeout)),
            metrics,
        }
    }

    /// What is known of pages that came from the under-store.
    pub(crate) fn fallback(&self) -> Arc<Fallback> {
        Arc::clone(&self.fallback)
    }

    async fn fetch_in_turn(&self, file: &OpenedFile, index: u64) -> Result<FetchedPage> {
        if self.asks_no_worker() {
            return self.read_ufs(file, index, FallbackReason::Configured).await;
        }
        let owners = self
            .membership
            .snapshot()
            .owners(&file.uri, self.routing.max_worker_attempts);
        self.retries.request();
        let mut rank = 0;
        loop {
            let (by, answer) = self.ask_from(&owners, rank, file, index).await;
            let another = by + 1 < owners.len();
            let mut step = next_step(self.routing.policy, &answer, another);
            if step == Step::NextWorker && !self.may_ask_another(&answer) {
                step = next_step(self.routing.policy, &answer, false);
            }
            match (step, answer) {
                (_, PageAnswer::Page(bytes)) => {
                    self.fallen_back.remove(&file.id);
                    let source = source_of(by);
                    return Ok(FetchedPage { bytes, source });
                }
                (Step::Serve | Step::NextWorker, _) => rank = by + 1,
                (Step::Ufs(reason), _) => {
                    self.fallen_back.add(&file.id, reason);
                    return self.read_ufs(file, index, reason).await;
                }
                (Step::Fail(kind), answer) => {
                    let worker = owners
                        .get(by)
                        .map_or("no worker", |worker| &worker.base_url);
                    return Err(not_served(kind, file, index, worker, &answer));
                }
            }
        }
    }

    /// Asks the worker at this place on the ring; if it is the first and slow, the next one too.
    async fn ask_from(
        &self,
        owners: &[WorkerEndpoint],
        rank: usize,
        file: &OpenedFile,
        index: u64,
    ) -> Asked {
        let Some(worker) = owners.get(rank) else {
            return (rank, PageAnswer::NoWorkers);
        };
        let another = owners.get(rank + 1);
        let last_resort = self.routing.policy == FallbackPolicy::Never && another.is_none();
        let mut answer = pin!(self.ask(worker, rank, file, index, last_resort));
        let (0, Some(hedge), Some(next)) = (rank, &self.hedge, another) else {
            return (rank, answer.await);
        };
        let Some(delay) = hedge.delay(self.pages.workers().usual_latency(worker)) else {
            return (rank, answer.await);
        };
        let started = Instant::now();
        if let Ok(answer) = tokio::time::timeout(delay, &mut answer).await {
            return (rank, answer);
        }
        if self.pages.workers().rests(next) || !hedge.take() {
            return (rank, answer.await);
        }
        // On the heap, so that the many fetches that need none are no larger for it.
        let mut other = Box::pin(self.ask(next, rank + 1, file, index, false));
        let (won, asked) = tokio::select! {
            biased;
            answer = &mut answer => match next_step(self.routing.policy, &answer, true) {
                Step::NextWorker => (false, (rank + 1, other.await)),
                _ => (false, (rank, answer)),
            },
            second = &mut other => match second {
                PageAnswer::Page(_) => (true, (rank + 1, second)),
                _ => (false, (rank, answer.await)),
            },
        };
        self.metrics.robust.hedge(won);
        if won {
            self.pages.workers().was_slower(worker, started.elapsed());
        }
        asked
    }

    /// Asks one worker, and counts how it ended.
    async fn ask(
        &self,
        worker: &WorkerEndpoint,
        rank: usize,
        file: &OpenedFile,
        index: u64,
        last_resort: bool,
    ) -> PageAnswer {
        let started = Instant::now();
        let answer = self.pages.page(worker, file, index, last_resort).await;
        self.count(source_of(rank), &answer, started);
        answer
    }

    /// Whether another worker may be asked after this answer: always where nobody was asked yet.
    fn may_ask_another(&self, answer: &PageAnswer) -> bool {
        if *answer == PageAnswer::Resting {
            return true;
        }
        let may = self.retries.take();
        self.metrics.robust.retry(may);
        may
    }

    /// Waits for a turn, and counts who has one.
    async fn turn(&self) -> (Option<SemaphorePermit<'_>>, InFlight<'_>) {
        // The semaphore is never closed.
        let turn = self.turns.acquire().await.ok();
        self.metrics.inflight_requests.inc();
        (turn, InFlight(&self.metrics))
    }

    /// Within the deadline, or not at all.
    async fn in_time<T>(
        &self,
        file: &OpenedFile,
        index: u64,
        fetching: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let deadline = self.routing.deadline;
        let fetched = tokio::time::timeout(deadline, fetching).await;
        fetched.unwrap_or_else(|_elapsed| {
            self.metrics.robust.deadline_exceeded();
            Err(out_of_time(file, index, deadline))
        })
    }

    fn asks_no_worker(&self) -> bool {
        !self.routing.has_cluster || self.routing.policy == FallbackPolicy::Always
    }

    async fn read_ufs(
        &self,
        file: &OpenedFile,
        index: u64,
        reason: FallbackReason,
    ) -> Result<FetchedPage> {
        let start = index * file.page_size.bytes();
        let length = page_length(index, file.length, file.page_size);
        let leave = self.fallback.leave(reason, file, length)?;
        let started = Instant::now();
        let range = start..start + length;
        let read = self
            .ufs
            .read_range_of_version(&file.uri, range, &file.version)
            .await;
        leave.ended(read.is_ok());
        let result = if read.is_ok() {
            PageResult::Hit
        } else {
            PageResult::Failure
        };
        self.metrics.page_request(Source::Ufs, result);
        let bytes = read.map_err(|error| Error::from_ufs("read", &error))?;
        if bytes.len() as u64 != length {
            return Err(Error::new(
                ErrorKind::Stale,
                "read",
                format!(
                    "{} gave {} bytes where version {} has {length}; the file changed, open it \
                     again",
                    file.uri,
                    bytes.len(),
                    file.version
                ),
            ));
        }
        self.metrics
            .page_came(Source::Ufs, length, started.elapsed());
        Ok(FetchedPage {
            bytes,
            source: Source::Ufs,
        })
    }

    fn count(&self, source: Source, answer: &PageAnswer, started: Instant) {
        let result = match answer {
            PageAnswer::Page(bytes) => {
                self.metrics
                    .page_came(source, bytes.len() as u64, started.elapsed());
                PageResult::Hit
            }
            PageAnswer::Miss | PageAnswer::Closed => PageResult::Miss,
            PageAnswer::WrongLength { .. } => {
                self.metrics.page_size_mismatch();
                PageResult::Failure
            }
            // Nobody was asked.
            PageAnswer::Resting | PageAnswer::Unaddressable | PageAnswer::NoWorkers => return,
            _ => PageResult::Failure,
        };
        self.metrics.page_request(source, result);
    }
}

#[async_trait]
impl PageSource for WorkerThenUfs {
    async fn fetch(&self, file: &Arc<OpenedFile>, index: u64) -> Result<FetchedPage> {
        let fetching = Box::pin(async {
            let _turn = self.turn().await;
            self.fetch_in_turn(file, index).await
        });
        self.in_time(file, index, fetching).await
    }

    async fn fetch_part(
        &self,
        file: &Arc<OpenedFile>,
        index: u64,
        part: PageRange,
    ) -> Result<Option<FetchedPage>> {
        // The under-store's latency is that of a page, and a worker that cannot serve is found out
        // by asking for the page, as ever.
        if self.asks_no_worker() {
            return Ok(None);
        }
        let owners = self.membership.snapshot().owners(&file.uri, 1);
        let Some(owner) = owners.first() else {
            return Ok(None);
        };
        let fetching = async {
            let _turn = self.turn().await;
            let started = Instant::now();
            let bytes = self.pages.part(owner, file, index, part).await;
            Ok((bytes, started))
        };
        let (bytes, started) = self.in_time(file, index, fetching).await?;
        Ok(bytes.map(|bytes| {
            self.metrics.page_request(Source::Worker, PageResult::Hit);
            self.metrics
                .page_came(Source::Worker, bytes.len() as u64, started.elapsed());
            FetchedPage {
                bytes,
                source: Source::Worker,
            }
        }))
    }

    /// A worker is asked page by page; the under-store gives as much as it is asked for.
    fn prefers_runs(&self, file: &OpenedFile) -> bool {
        self.asks_no_worker()
            || self.routing.policy == FallbackPolicy::OnWorkerFailure
                && self.fallen_back.reason(&file.id).is_some()
    }

    fn run_from(&self, file: &OpenedFile, _: Range<u64>) -> u64 {
        if self.prefers_runs(file) {
            (run::RUN_BYTES / file.page_size.bytes()).max(1)
        } else {
            0
        }
    }

    fn fetch_run(
        self: Arc<Self>,
        file: Arc<OpenedFile>,
        indices: Range<u64>,
    ) -> BoxStream<'static, Result<FetchedPage>> {
        run::fetch(self, file, indices)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.inflight_requests.dec();
    }
}

/// Whose page it is that the worker at this place on the ring gave.
fn source_of(rank: usize) -> Source {
    match rank {
        0 => Source::Worker,
        _ => Source::NextWorker,
    }
}

pub(crate) fn out_of_time(file: &OpenedFile, index: u64, deadline: Duration) -> Error {
    let context = format!(
        "page {index} of {} did not come within {} ms, neither from workers nor from the \
         under-store; look for slow or silent ones, or raise client.deadline_milliseconds",
        file.uri,
        deadline.as_millis()
    );
    Error::new(ErrorKind::TimedOut, "read", context)
}

fn not_served(
    kind: ErrorKind,
    file: &OpenedFile,
    index: u64,
    worker: &str,
    answer: &PageAnswer,
) -> Error {
    let context = format!(
        "page {index} of {}: {worker} {answer}, and the fallback policy `never` leaves no other \
         source; repair the worker, load the file, or set client.fallback.policy to \
         on_worker_failure",
        file.uri
    );
    Error::new(kind, "read", context)
}

impl OpenedFile {
    /// The last page of the file is short, and so is a page past it: of no bytes.
    pub fn page_length(&self, index: u64) -> u64 {
        page_length(index, self.length, self.page_size)
    }
}

#[cfg(test)]
mod tests;
