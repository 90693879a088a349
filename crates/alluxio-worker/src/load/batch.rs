//! The owner's side of a load: the files of a batch onto the disk, telling each step.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::message::{Batch, Event, FileToLoad, Mode};
use super::throttle::Throttle;
use crate::api::resolve;
use crate::failure::{Failure, FailureKind};
use crate::pages::Pages;
use crate::version::Version;

/// Files in one batch: enough that the request costs nothing beside their bytes, few enough that
/// little is sent again when a worker dies.
pub(super) const MAX_BATCH_FILES: usize = 64;

/// The body of a batch: that many files with the longest URIs, escaped.
pub(crate) const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Pages of one file that are read at one time: hides the latency of an object store, and lets
/// files be loaded side by side all the same.
const PARALLEL_PAGES: usize = 4;

/// Events that wait for a slow coordinator before loading waits too.
const WAITING_EVENTS: usize = 64;

/// Loads batches; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Batches {
    pages: Pages,
    /// Files that are loaded at one time, over all batches.
    turns: Arc<Semaphore>,
    concurrency: usize,
    throttles: Arc<Mutex<HashMap<String, Weak<Throttle>>>>,
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
        tokio::spawn(async move {
            tokio::select! {
                () = this.run(batch, teller, &events) => {}
                () = events.closed() => tracing::debug!("nobody wants the rest of a batch"),
            }
        });
        receiver
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
        let Source {
            batch,
            teller,
            throttle,
        } = source;
        if batch.mode == Mode::Metadata {
            let status = self.pages.statuses().refreshed(&file.uri).await;
            return Ok(status.map(drop).map_err(Failure::from));
        }
        let version = match self.version(file, teller).await {
            Ok(version) => version,
            Err(failure) => return Ok(Err(failure)),
        };
        let page_size = self.pages.store().page_size();
        let trust_index = batch.skip_if_exists && batch.mode == Mode::Load;
        let loaded = stream::iter(0..page_size.pages_of(version.length))
            .map(|index| {
                let version = &version;
                async move {
                    if let Some(throttle) = throttle {
                        throttle.pass(page_size.bytes().min(version.length)).await;
                    }
                    self.pages.ensure(version, index, trust_index).await
                }
            })
            .buffer_unordered(PARALLEL_PAGES)
            .map_err(Ok)
            .try_for_each(|bytes| async move {
                let event = Event::Bytes {
                    file: number,
                    bytes,
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

    /// The version as a status tells it. A listing of some stores has no hash, and a version made
    /// without one would not be found by clients that have it. A stranger's is believed where it
    /// is the kept one: with a wrong length it would spoil the file for who reads that version.
    async fn version(&self, file: &FileToLoad, teller: Teller) -> Result<Arc<Version>, Failure> {
        let told_whole = file.content_hash.is_some() || file.uri.scheme() == "file";
        if told_whole {
            let told = Version::of(&file.uri, &file.status());
            let kept = self.pages.store().version(&file.uri.file_id(), told.text());
            match (teller, kept) {
                (Teller::Own, _) => return Ok(Arc::new(told)),
                (Teller::Stranger, Some(kept)) if *kept == told => return Ok(kept),
                (Teller::Stranger, _) => {}
            }
        }
        let status = self.pages.statuses().refreshed(&file.uri).await?;
        Ok(Arc::new(Version::of(&file.uri, &status)))
    }

    /// The throttle of a job, made by its first batch and gone with its last.
    fn throttle(&self, job: &str, bytes_per_second: u64) -> Arc<Throttle> {
        let mut throttles = self.throttles.lock();
        throttles.retain(|_, throttle| throttle.strong_count() > 0);
        if let Some(throttle) = throttles.get(job).and_then(Weak::upgrade) {
            return throttle;
        }
        let throttle = Arc::new(Throttle::new(bytes_per_second));
        throttles.insert(job.to_owned(), Arc::downgrade(&throttle));
        throttle
    }
}
