//! Pages that follow each other, by one request to the under-store.
//!
//! Where the configuration names no worker, all runs are such. Where pages of a file fell back, the
//! next run asks a worker for its first page only: if that falls back too, so would the others, and
//! they come by one request instead of one each.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alluxio_ufs::UfsError;
use alluxio_wire::FileId;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    FallbackReason, FetchedPage, OpenedFile, PageSource, Source, WorkerThenUfs, out_of_time,
};
use crate::error::{Error, Result};
use crate::metrics::PageResult;

/// The most that one request to the under-store brings: half of the default read-ahead window, so
/// that two run side by side, and at least 32 requests a GiB.
pub(super) const RUN_BYTES: u64 = 32 * 1024 * 1024;
/// Files that are remembered as fallen back. Far more than are read at one time; when there are
/// more, all are forgotten, and the next page of each tells anew.
const MAX_FALLEN_BACK: usize = 4096;
/// Pages of a run that workers are asked for at one time, once the first one came from a worker:
/// eight connections reach a worker's limit.
const PAGES_AT_ONCE: usize = 8;

/// Files of which the last page came from the under-store instead of a worker, and why.
#[derive(Debug, Default)]
pub(super) struct FallenBack {
    files: Mutex<HashMap<FileId, FallbackReason>>,
    /// Their number; 0 nearly always, and then no lock is taken.
    count: AtomicUsize,
}

impl FallenBack {
    pub(super) fn add(&self, file: &FileId, reason: FallbackReason) {
        let mut files = self.files.lock();
        if files.len() >= MAX_FALLEN_BACK {
            files.clear();
        }
        files.insert(*file, reason);
        self.count.store(files.len(), Ordering::Relaxed);
    }

    pub(super) fn remove(&self, file: &FileId) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut files = self.files.lock();
            files.remove(file);
            self.count.store(files.len(), Ordering::Relaxed);
        }
    }

    pub(super) fn reason(&self, file: &FileId) -> Option<FallbackReason> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.files.lock().get(file).copied()
    }
}

/// Pages of one request to the under-store.
struct Run {
    source: Arc<WorkerThenUfs>,
    file: Arc<OpenedFile>,
    reason: FallbackReason,
    pieces: BoxStream<'static, std::result::Result<Bytes, UfsError>>,
    left: Range<u64>,
}

/// The stream of [`PageSource::fetch_run`].
pub(super) fn fetch(
    source: Arc<WorkerThenUfs>,
    file: Arc<OpenedFile>,
    indices: Range<u64>,
) -> BoxStream<'static, Result<FetchedPage>> {
    if source.asks_no_worker() {
        return from_ufs(source, file, indices, FallbackReason::Configured);
    }
    let Range { start, end } = indices;
    let first = {
        let (source, file) = (Arc::clone(&source), Arc::clone(&file));
        async move { source.fetch(&file, start).await }
    };
    stream::once(first)
        .flat_map(move |first| {
            let rest = start + 1..end;
            let rest = match (&first, source.fallen_back.reason(&file.id)) {
                (Err(_), _) => stream::empty().boxed(),
                (Ok(_), Some(reason)) => {
                    from_ufs(Arc::clone(&source), Arc::clone(&file), rest, reason)
                }
                (Ok(_), None) => side_by_side(Arc::clone(&source), Arc::clone(&file), rest),
            };
            stream::iter([first]).chain(rest)
        })
        .boxed()
}

/// The pages one by one, a few at a time.
fn side_by_side(
    source: Arc<WorkerThenUfs>,
    file: Arc<OpenedFile>,
    indices: Range<u64>,
) -> BoxStream<'static, Result<FetchedPage>> {
    stream::iter(indices)
        .map(move |index| {
            let (source, file) = (Arc::clone(&source), Arc::clone(&file));
            async move { source.fetch(&file, index).await }
        })
        .buffered(PAGES_AT_ONCE)
        .boxed()
}

fn from_ufs(
    source: Arc<WorkerThenUfs>,
    file: Arc<OpenedFile>,
    indices: Range<u64>,
    reason: FallbackReason,
) -> BoxStream<'static, Result<FetchedPage>> {
    let page_bytes = file.page_size.bytes();
    let end = (indices.end * page_bytes).min(file.length);
    let pieces = source.ufs.read_pieces_of_version(
        &file.uri,
        indices.start * page_bytes..end,
        &file.version,
        page_bytes,
    );
    let run = Run {
        source,
        file,
        reason,
        pieces,
        left: indices,
    };
    stream::try_unfold(run, Run::next).boxed()
}

impl Run {
    /// The next page. It holds a turn only while it is waited for: a reader that takes its pages
    /// slowly keeps nobody else from theirs.
    async fn next(mut self) -> Result<Option<(FetchedPage, Self)>> {
        let Some(index) = self.left.next() else {
            return Ok(None);
        };
        let deadline = self.source.routing.deadline;
        let Ok(page) = tokio::time::timeout(deadline, self.page(index)).await else {
            self.source.metrics.robust.deadline_exceeded();
            return Err(out_of_time(&self.file, index, deadline));
        };
        Ok(page?.map(|page| (page, self)))
    }

    async fn page(&mut self, index: u64) -> Result<Option<FetchedPage>> {
        let source = &self.source;
        let _turn = source.turn().await;
        let length = self.file.page_length(index);
        let leave = source.fallback.leave(self.reason, &self.file, length)?;
        let started = Instant::now();
        let Some(piece) = self.pieces.next().await else {
            return Ok(None);
        };
        leave.ended(piece.is_ok());
        let result = match &piece {
            Ok(_) => PageResult::Hit,
            Err(_) => PageResult::Failure,
        };
        source.metrics.page_request(Source::Ufs, result);
        let bytes = piece.map_err(|error| Error::from_ufs("read", &error))?;
        let took = started.elapsed();
        source
            .metrics
            .page_came(Source::Ufs, bytes.len() as u64, took);
        let source = Source::Ufs;
        Ok(Some(FetchedPage { bytes, source }))
    }
}
