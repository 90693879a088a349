//! The owner's side of a load: the files of a batch onto the disk, telling each step.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use alluxio_wire::page_length;
use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::message::{Batch, Event, FileToLoad, Mode, WAITING_EVENTS};
use super::throttle::Throttle;
use crate::api::resolve;
use crate::failure::{Failure, FailureKind};
use crate::pages::Pages;
use crate::store::PageKey;
use crate::version::Version;

/// Files in one batch: enough that the request costs nothing beside their bytes, few enough that
/// little is sent again when a worker dies.
pub(super) const MAX_BATCH_FILES: usize = 64;

/// The body of a batch: that many files with the longest URIs, escaped.
pub(crate) const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Pages of one file that are read at one time: hides the latency of an object store, and lets
/// files be loaded side by side all the same.
const PARALLEL_PAGES: usize = 4;

/// How often an owner says that it is at work, though no page came: far below the silence after
/// which the coordinator takes it for dead, for a page may wait for its bandwidth for long.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(20);

/// Loads batches; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Batches {
    pages: Pages,
    /// Files that are loaded at one time, over all batches.
    turns: Arc<Semaphore>,
    concurrency: usize,
    throttles: Arc<Mutex<HashMap<String, Arc<Throttle>>>>,
    tasks: TaskTracker,
    /// Interrupts all batches; their coordinators send the rest elsewhere.
    stop: CancellationToken,
}

/// Who told the versions of a batch's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    /// This worker, from its own listing.
    Own,
    /// Another one, or who claims to be one: the under-store is asked before a page is kept.
    Stranger,
}

/// The coordinator went away: nobody wants the rest.
struct Unwanted;

/// What the files of one batch have in common.
#[derive(Clone, Copy)]
struct Source<'a> {
    batch: &'a Batch,
    teller: Teller,
    throttle: Option<&'a Throttle>,
}

impl Batches {
    pub(super) fn new(pages: Pages, concurrency: usize) -> Self {
        Self {
            pages,
            turns: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            throttles: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Reads another worker's batch. It is checked like any stranger's request.
    pub(super) fn read(&self, body: &[u8]) -> Result<Batch, Failure> {
        let batch: Batch = serde_json::from_slice(body)
            .map_err(|error| Failure::bad_request(format!("the batch is not readable: {error}")))?;
        if batch.files.len() > MAX_BATCH_FILES {
            return Err(Failure::new(
                FailureKind::TooLarge,
                format!("a batch has at most {MAX_BATCH_FILES} files"),
            ));
        }
        for file in &batch.files {
            resolve(self.pages.ufs().root(), file.uri.as_str())?;
        }
        Ok(batch)
    }

    /// Begins to load; the events tell how it goes, and dropping the receiver ends it.
    pub(super) fn begin(&self, batch: Batch, teller: Teller) -> mpsc::Receiver<Event> {
        let (events, receiver) = mpsc::channel(WAITING_EVENTS);
        let this = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = this.run(batch, teller, &events) => {}
                () = signs_of_life(&events) => {}
                () = this.stop.cancelled() => tracing::debug!("a batch ends with the worker"),
                () = events.closed() => tracing::debug!("nobody wants the rest of a batch"),
            }
        });
        receiver
    }

    /// Interrupts all batches, without waiting for their ends.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Interrupts all batches and waits for their ends.
    pub(super) async fn shutdown(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn run(&self, batch: Batch, teller: Teller, events: &mpsc::Sender<Event>) {
        let throttle = batch
            .bandwidth_bytes_per_second
            .map(|rate| self.throttle(&batch.job, rate));
        let source = Source {
            batch: &batch,
            teller,
            throttle: throttle.as_deref(),
        };
        let wanted: Result<(), Unwanted> =
            stream::iter(source.batch.files.iter().enumerate().map(Ok))
                .try_for_each_concurrent(self.concurrency, |(number, file)| async move {
                    // The semaphore is never closed.
                    let _turn = self.turns.acquire().await;
                    let loaded = self.load(source, number, file, events).await?;
                    let event = match loaded {
                        Ok(()) => Event::Done { file: number },
                        Err(failure) => Event::Failed {
                            file: number,
                            retryable: failure.retryable(),
                            reason: failure.message,
                        },
                    };
                    events.send(event).await.map_err(|_| Unwanted)
                })
                .await;
        if wanted.is_ok() {
            // When it cannot be sent, nobody is there to miss it.
            let _ = events.send(Event::End).await;
        }
    }

    /// The outer error ends the batch, the inner one this file.
    async fn load(
        &self,
        source: Source<'_>,
        number: usize,
        file: &FileToLoad,
        events: &mpsc::Sender<Event>,
    ) -> Result<Result<(), Failure>, Unwanted> {
        let Source { batch, teller, .. } = source;
        if batch.mode == Mode::Metadata {
            let status = self.pages.statuses().refreshed(&file.uri).await;
            return Ok(status.map(drop).map_err(Failure::from));
        }
        let version = match self.version(file, teller).await {
            Ok(version) => version,
            Err(failure) => return Ok(Err(failure)),
        };
        let loaded = self.pages_of(source, number, &version, events).await?;
        match loaded {
            // The file has changed since it was listed, or its teller was wrong about it.
            Err(failure) if failure.kind == FailureKind::Conflict => {
                match self.pages.statuses().refreshed(&file.uri).await {
                    Ok(status) => {
                        let version = Arc::new(Version::of(&file.uri, &status));
                        self.pages_of(source, number, &version, events).await
                    }
                    Err(error) => Ok(Err(error.into())),
                }
            }
            loaded => Ok(loaded),
        }
    }

    /// Has all pages of this version on the disk.
    async fn pages_of(
        &self,
        source: Source<'_>,
        number: usize,
        version: &Arc<Version>,
        events: &mpsc::Sender<Event>,
    ) -> Result<Result<(), Failure>, Unwanted> {
        let Source {
            batch, throttle, ..
        } = source;
        let page_size = self.pages.store().page_size();
        let trust_index = batch.skip_if_exists && batch.mode == Mode::Load;
        let loaded = stream::iter(0..page_size.pages_of(version.length))
            .map(|index| async move {
                let kept = self.is_kept(version, index);
                // Bandwidth is what is read from the under-store, so what is here costs none.
                if let Some(throttle) = throttle
                    && !kept
                {
                    let bytes = page_length(index, version.length, page_size);
                    throttle.pass(bytes).await;
                }
                let bytes = self.pages.ensure(version, index, trust_index).await?;
                Ok((bytes, kept))
            })
            .buffer_unordered(PARALLEL_PAGES)
            .map_err(Ok)
            .try_for_each(|(bytes, kept)| async move {
                let event = Event::Bytes {
                    file: number,
                    bytes,
                    kept,
                };
                events.send(event).await.map_err(|_| Err(Unwanted))
            })
            .await;
        match loaded {
            Ok(()) => Ok(Ok(())),
            Err(Ok(failure)) => Ok(Err(failure)),
            Err(Err(unwanted)) => Err(unwanted),
        }
    }

    fn is_kept(&self, version: &Version, index: u64) -> bool {
        version.uri.as_ref().is_some_and(|uri| {
            self.pages.store().has(&PageKey {
                file: uri.file_id(),
                tag: version.tag(),
                index,
            })
        })
    }

    /// The version as a status tells it. A listing of some stores has no hash, and a version made
    /// without one would not be found by clients that have it. A stranger's, with a hash, is
    /// believed as far as each read from the under-store confirms it: its hash by the store's
    /// answer, its length by that answer's whole length. That saves a request a file.
    async fn version(&self, file: &FileToLoad, teller: Teller) -> Result<Arc<Version>, Failure> {
        let told = Version::of(&file.uri, &file.status());
        if file.content_hash.is_some() || file.uri.scheme() == "file" {
            let kept = self.pages.store().version(&file.uri.file_id(), told.text());
            match (teller, kept) {
                (Teller::Own, _) => return Ok(Arc::new(told)),
                (Teller::Stranger, Some(kept)) if *kept == told => return Ok(kept),
                (Teller::Stranger, None) if file.content_hash.is_some() => {
                    return Ok(Arc::new(told));
                }
                (Teller::Stranger, _) => {}
            }
        }
        let status = self.pages.statuses().refreshed(&file.uri).await?;
        Ok(Arc::new(Version::of(&file.uri, &status)))
    }

    /// The throttle of a job. It outlives the batch, or each batch would begin with a free burst.
    fn throttle(&self, job: &str, bytes_per_second: u64) -> Arc<Throttle> {
        let mut throttles = self.throttles.lock();
        throttles.retain(|_, throttle| Arc::strong_count(throttle) > 1 || !throttle.is_idle());
        let throttle = throttles
            .entry(job.to_owned())
            .or_insert_with(|| Arc::new(Throttle::new(bytes_per_second)));
        Arc::clone(throttle)
    }
}

/// Says from time to time that there is somebody; never ends.
async fn signs_of_life(events: &mpsc::Sender<Event>) {
    loop {
        tokio::time::sleep(SIGN_OF_LIFE_EVERY).await;
        // A full channel says the same.
        let _ = events.try_send(Event::Bytes {
            file: 0,
            bytes: 0,
            kept: false,
        });
    }
}
