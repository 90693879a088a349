//! The disk before the workers: what is here is read here, what is not is kept on its way.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use alluxio_wire::PageRange;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};

use super::DiskCache;
use crate::error::Result;
use crate::metrics::{Metrics, PageResult};
use crate::source::{FetchedPage, OpenedFile, PageSource, Source};

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

#[async_trait]
impl PageSource for DiskThenRemote {
    async fn fetch(&self, file: &Arc<OpenedFile>, index: u64) -> Result<FetchedPage> {
        let started = Instant::now();
        if let Some(bytes) = self.disk.read(file, index).await {
            let source = Source::Disk;
            self.metrics.page_request(source, PageResult::Hit);
            self.metrics
                .page_came(source, bytes.len() as u64, started.elapsed());
            return Ok(FetchedPage { bytes, source });
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

    fn prefers_runs(&self, file: &OpenedFile) -> bool {
        self.remote.prefers_runs(file)
    }

    fn fetch_run(
        self: Arc<Self>,
        file: Arc<OpenedFile>,
        indices: Range<u64>,
    ) -> BoxStream<'static, Result<FetchedPage>> {
        let is_here = |index| self.disk.has(&file, index);
        let parts = split_by(indices, is_here);
        stream::iter(parts)
            .flat_map(move |(is_here, indices)| {
                let (source, file) = (Arc::clone(&self), Arc::clone(&file));
                if is_here {
                    return pages_one_by_one(source, file, indices);
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

fn pages_one_by_one(
    source: Arc<DiskThenRemote>,
    file: Arc<OpenedFile>,
    indices: Range<u64>,
) -> BoxStream<'static, Result<FetchedPage>> {
    stream::iter(indices)
        .then(move |index| {
            let (source, file) = (Arc::clone(&source), Arc::clone(&file));
            async move { source.fetch(&file, index).await }
        })
        .boxed()
}

/// Splits a range into the longest parts of one kind, in order.
fn split_by(indices: Range<u64>, is: impl Fn(u64) -> bool) -> Vec<(bool, Range<u64>)> {
    let mut parts: Vec<(bool, Range<u64>)> = Vec::new();
    for index in indices {
        let kind = is(index);
        match parts.last_mut() {
            Some((last, range)) if *last == kind => range.end = index + 1,
            _ => parts.push((kind, index..index + 1)),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_split_where_what_is_here_begins_and_ends() {
        let is_here = |index| (3..5).contains(&index);
        let parts = split_by(1..7, is_here);
        assert_eq!(parts, [(false, 1..3), (true, 3..5), (false, 5..7)]);
        assert_eq!(split_by(3..5, is_here), [(true, 3..5)]);
        assert!(split_by(3..3, is_here).is_empty());
    }
}
