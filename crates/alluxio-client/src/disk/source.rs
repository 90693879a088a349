//! The disk before the workers: what is here is read here, what is not is kept on its way.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use alluxio_wire::PageRange;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::{DiskCache, RUN_BYTES, RUN_PAGES};
use crate::error::Result;
use crate::metrics::{Metrics, PageResult};
use crate::source::{FetchedPage, LocalRun, OpenedFile, PageSource, Source};

/// A page source with a disk cache before another.
pub(crate) struct DiskThenRemote {
    disk: DiskCache,
    remote: Arc<dyn PageSource>,
    metrics: Arc<Metrics>,
}

impl DiskThenRemote {
    /// Joins the two.
    pub(crate) fn new(disk: DiskCache, remote: Arc<dyn PageSource>, metrics: Arc<Metrics>) -> Self {
        Self {
            disk,
            remote,
            metrics,
        }
    }
}

/// A page from the disk, counted.
fn found(metrics: &Metrics, bytes: Bytes, started: Instant) -> FetchedPage {
    let source = Source::Disk;
    metrics.page_request(source, PageResult::Hit);
    metrics.page_came(source, bytes.len() as u64, started.elapsed());
    FetchedPage { bytes, source }
}

#[async_trait]
impl PageSource for DiskThenRemote {
    async fn fetch(&self, file: &Arc<OpenedFile>, index: u64) -> Result<FetchedPage> {
        let started = Instant::now();
        if let Some(bytes) = self.disk.read(file, index).await {
            return Ok(found(&self.metrics, bytes, started));
        }
        self.metrics.page_request(Source::Disk, PageResult::Miss);
        let fetched = self.remote.fetch(file, index).await?;
        self.disk.keep(file, index, &fetched.bytes);
        Ok(fetched)
    }

    /// A page that is here has to be read whole to be compared, so it is better got whole.
    async fn fetch_part(
        &self,
        file: &Arc<OpenedFile>,
        index: u64,
        part: PageRange,
    ) -> Result<Option<FetchedPage>> {
        if self.disk.has(file, index) {
            return Ok(None);
        }
        self.remote.fetch_part(file, index, part).await
    }

    fn prefers_runs(&self, _: &OpenedFile) -> bool {
        true
    }

    /// Pages that are here, as many as one turn reads, or as many of the others as the remote source
    /// prefers.
    fn run_from(&self, file: &OpenedFile, indices: Range<u64>) -> u64 {
        let pages = (RUN_BYTES / file.page_size.bytes()).clamp(1, RUN_PAGES);
        let near = indices.start..indices.end.min(indices.start + pages);
        match self.disk.parts(file, near).first() {
            Some((true, here)) => here.end - here.start,
            _ => self.remote.run_from(file, indices),
        }
    }

    fn is_owed(&self, file: &Arc<OpenedFile>, index: u64) -> bool {
        self.disk.owes(file, index)
    }

    fn local_run(&self, file: &OpenedFile, indices: Range<u64>) -> Option<LocalRun> {
        let [(true, _)] = self.disk.parts(file, indices)[..] else {
            return None;
        };
        let mut read = self.disk.reader(file);
        let metrics = Arc::clone(&self.metrics);
        Some(LocalRun {
            turns: self.disk.turns(),
            read: Box::new(move |index| {
                let started = Instant::now();
                read(index).map(|bytes| found(&metrics, bytes, started))
            }),
        })
    }

    fn fetch_run(
        self: Arc<Self>,
        file: Arc<OpenedFile>,
        indices: Range<u64>,
    ) -> BoxStream<'static, Result<FetchedPage>> {
        let parts = self.disk.parts(&file, indices);
        stream::iter(parts)
            .flat_map(move |(is_here, indices)| {
                let (source, file) = (Arc::clone(&self), Arc::clone(&file));
                if is_here {
                    // Between pages that are not here; a run of nothing else is a local one.
                    return stream::iter(indices)
                        .then(move |index| {
                            let (source, file) = (Arc::clone(&source), Arc::clone(&file));
                            async move { source.fetch(&file, index).await }
                        })
                        .boxed();
                }
                let run = Arc::clone(&source.remote).fetch_run(Arc::clone(&file), indices.clone());
                run.zip(stream::iter(indices))
                    .map(move |(fetched, index)| {
                        fetched.inspect(|page| source.disk.keep(&file, index, &page.bytes))
                    })
                    .boxed()
            })
            .boxed()
    }
}
