//! An open file: a range of bytes becomes pages, missing pages are fetched side by side, and a
//! reader that goes on finds the next pages fetched already.
//!
//! A file is read at the version it was opened with. Bytes of two versions never meet in one
//! reader: when the store no longer has the version, the read fails as stale. Only a reader that has
//! handed out nothing yet may go on with the new version (`reopen`).

mod access;
mod follow;
mod layout;
mod reopen;
mod scatter;
mod window;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alluxio_config::AccessProfile;
use alluxio_wire::{FileStatus, FileVersion, PageRange, PageSize, PageSlice, split};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::cache::{Found, Page, PageCache, PageKey};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::source::{BytesBySource, OpenedFile, Source, out_of_time};
use crate::status::Metadata;

pub(crate) use follow::{Bounds, Order};

use access::{Access, profile_of};
use reopen::{MAX_REOPENS, Reopen};
#[cfg(feature = "bench")]
pub(crate) use window::Window;

/// Pages that one read waits for at one time. Eight connections reach a worker's limit, and the
/// pages of one file come from one worker; twice that hides its pauses.
const PAGES_AT_ONCE: usize = 16;

/// An open file. A clone is cheap and reads the same file, with the same read-ahead.
#[derive(Clone)]
pub struct FileReader {
    inner: Arc<Inner>,
}

struct Inner {
    file: Arc<OpenedFile>,
    status: Arc<FileStatus>,
    shared: Arc<Shared>,
    access: Mutex<Access>,
    reopen: Reopen<FileReader>,
}

/// What all readers of a client share.
pub(crate) struct Shared {
    pub(crate) cache: Arc<PageCache>,
    pub(crate) metadata: Metadata,
    /// Whether a reader may go on with a new version while it has handed out nothing.
    pub(crate) reopens: bool,
    /// Whether who reads keeps what it has read.
    pub(crate) is_kept_by_reader: bool,
    pub(crate) metrics: Arc<Metrics>,
    /// Of files that are opened without a profile of their own.
    pub(crate) access_profile: AccessProfile,
    /// Where footers and headers are looked up, and whose clock is asked.
    pub(crate) runtime: Handle,
    /// How long a page is waited for.
    pub(crate) deadline: Duration,
    /// The most that one file's read-ahead may take.
    pub(crate) readahead_max_bytes: u64,
    /// What all files' read-ahead together may take.
    pub(crate) readahead_total_bytes: u64,
    pub(crate) open_files: AtomicUsize,
    /// The order in which files will be opened, where the caller told.
    pub(crate) order: Mutex<Option<Order>>,
}

impl Shared {
    /// Whether what was just read for the first time can be had again without its source.
    fn is_kept_elsewhere(&self, before: BytesBySource, after: BytesBySource) -> bool {
        let fresh = |read: BytesBySource| {
            if self.is_kept_by_reader {
                read.total() - read.memory
            } else {
                read.disk
            }
        };
        fresh(after) > fresh(before)
    }
}

/// The bytes of one read, as slices of cached pages, and where they came from.
#[derive(Debug, Clone, Default)]
pub struct ReadBytes {
    /// The bytes, in order.
    pub chunks: Vec<Bytes>,
    /// Where they came from.
    pub by_source: BytesBySource,
}

impl FileReader {
    /// A reader of this version. Without a profile of its own, the configured one and the file's
    /// name decide.
    pub(crate) fn new(
        file: OpenedFile,
        status: Arc<FileStatus>,
        shared: Arc<Shared>,
        profile: Option<AccessProfile>,
    ) -> Self {
        shared.open_files.fetch_add(1, Ordering::Relaxed);
        let profile =
            profile.unwrap_or_else(|| profile_of(shared.access_profile, file.uri.as_str()));
        let access = Mutex::new(Access::new(profile, file.page_size));
        let reopen = Reopen::new(shared.reopens);
        let reader = Self {
            inner: Arc::new(Inner {
                file: Arc::new(file),
                status,
                shared,
                access,
                reopen,
            }),
        };
        layout::look_up(&reader, profile);
        reader
    }

    /// How the file is read.
    pub fn access_profile(&self) -> AccessProfile {
        self.current().inner.access.lock().profile()
    }

    /// The status of the version that is read: that of the opening, unless the file was opened
    /// again before the first byte (`client.on_change: reopen`).
    pub fn status(&self) -> &FileStatus {
        &self.current().inner.status
    }

    /// The version that is read.
    pub fn version(&self) -> &FileVersion {
        &self.current().inner.file.version
    }

    /// The version that is read, as the cache knows it.
    pub(crate) fn opened(&self) -> &OpenedFile {
        &self.current().inner.file
    }

    /// Column chunks or tensors that the file itself names and that are known by now: read-ahead
    /// heeds them. 0 for a file of another kind, and until footer or header was read.
    pub fn known_chunks(&self) -> usize {
        self.current().inner.access.lock().known_chunks()
    }

    /// Reads `length` bytes from `offset`; fewer only where the file ends before.
    ///
    /// Where all pages are in memory the future is ready at its first poll.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<ReadBytes> {
        let mut reopens = 0;
        loop {
            let reader = self.current();
            let error = match reader.read_version(offset, length).await {
                Ok(read) if reader.inner.reopen.settle() => return Ok(read),
                // Another read found the file changed while this one was under way.
                Ok(_) => continue,
                Err(error) => error,
            };
            if reopens == MAX_REOPENS || !reader.reopen_after(&error).await? {
                return Err(error);
            }
            reopens += 1;
        }
    }

    /// This reader, or the one of the version that took its place.
    fn current(&self) -> &Self {
        let mut reader = self;
        while let Some(replacement) = reader.inner.reopen.replacement() {
            reader = replacement;
        }
        reader
    }

    /// Goes on with the version that is there now, if the error says that the file changed and
    /// nothing was handed out yet.
    async fn reopen_after(&self, error: &Error) -> Result<bool> {
        let Inner {
            file,
            shared,
            reopen,
            ..
        } = &*self.inner;
        let changed = matches!(error.kind(), ErrorKind::Stale | ErrorKind::NotFound);
        if !changed || !shared.reopens {
            return Ok(false);
        }
        let open = async {
            let status = shared.metadata.status(&file.uri).await?;
            if status.is_directory() {
                let context = format!("{} has become a directory; name a file in it", file.uri);
                return Err(Error::new(ErrorKind::IsDirectory, "read", context));
            }
            tracing::debug!(uri = %file.uri, version = %status.version(), "changed, opened again");
            let file = OpenedFile {
                uri: file.uri.clone(),
                id: file.id,
                version: status.version(),
                length: status.length,
                modified_ms: status.modified_ms,
                page_size: file.page_size,
            };
            let profile = self.access_profile();
            Ok(Self::new(file, status, Arc::clone(shared), Some(profile)))
        };
        reopen.replace(open).await
    }

    async fn read_version(&self, offset: u64, length: usize) -> Result<ReadBytes> {
        let Inner { file, shared, .. } = &*self.inner;
        let length = length as u64;
        if let Some(read) = self.read_part(offset, length).await? {
            return Ok(read);
        }
        let mut slices = split(offset, length, file.length, file.page_size);
        let mut waiting: VecDeque<(PageSlice, Found)> = VecDeque::new();
        let mut read = ReadBytes::default();
        let (mut hits, mut waits) = (0, 0);
        if shared.cache.prefers_runs(file) {
            self.read_ahead(offset, length);
            self.start(&mut slices, &mut waiting);
        } else {
            self.start(&mut slices, &mut waiting);
            // After the pages that are waited for, so that those come first.
            self.read_ahead(offset, length);
        }
        while let Some((slice, found)) = waiting.pop_front() {
            let page = match found {
                Found::Here(page) => {
                    hits += 1;
                    page
                }
                Found::Coming(fill) => match self.arrival(fill, slice.index).await {
                    Ok(page) => {
                        waits += 1;
                        page
                    }
                    Err(error) => return Err(self.failed(error).await),
                },
            };
            let before = read.by_source;
            read.push(&page, slice, &shared.cache);
            if page.is_read() && shared.is_kept_elsewhere(before, read.by_source) {
                shared.cache.spent(&self.key(slice.index));
            }
            self.start(&mut slices, &mut waiting);
        }
        let fetched = read.by_source.total() - read.by_source.memory;
        if fetched > 0 {
            let is_local = read.by_source.disk == fetched;
            self.inner.access.lock().set_local(is_local);
        }
        shared.metrics.looked_up(hits, waits);
        shared.metrics.delivered(read.by_source);
        Ok(read)
    }

    /// A small read of a reader that jumps about, without the rest of its page.
    async fn read_part(&self, offset: u64, length: u64) -> Result<Option<ReadBytes>> {
        let Inner {
            file,
            shared,
            access,
            ..
        } = &*self.inner;
        let mut slices = split(offset, length, file.length, file.page_size);
        let (Some(slice), None) = (slices.next(), slices.next()) else {
            return Ok(None);
        };
        let is_worth_it = access.lock().wants_part(offset, slice.length, slice.index);
        if !is_worth_it {
            return Ok(None);
        }
        let part = PageRange {
            offset: slice.offset,
            length: slice.length,
        };
        let fetched = shared
            .cache
            .fetch_part(&self.key(slice.index), part)
            .await?;
        let Some(fetched) = fetched else {
            return Ok(None);
        };
        // The next read is told from where this one ended.
        access.lock().on_read(offset, length, file.length, 0);
        let mut read = ReadBytes::default();
        read.by_source.add(fetched.source, slice.length);
        read.chunks.push(fetched.bytes);
        shared.metrics.delivered(read.by_source);
        Ok(Some(read))
    }

    /// A page that is on its way, within the deadline: it may have started long after others of its
    /// run, which are waited for in turn.
    async fn arrival(
        &self,
        fill: impl Future<Output = Result<Arc<Page>>>,
        index: u64,
    ) -> Result<Arc<Page>> {
        let Inner { file, shared, .. } = &*self.inner;
        let arrival = {
            // The thread that polls may have no runtime, and so no clock.
            let _runtime = shared.runtime.enter();
            tokio::time::timeout(shared.deadline, fill)
        };
        arrival.await.unwrap_or_else(|_elapsed| {
            shared.metrics.robust.deadline_exceeded();
            Err(out_of_time(file, index, shared.deadline))
        })
    }

    /// A file that changed or went is looked up anew when it is opened again, and not after the
    /// time for which its status would have been believed.
    async fn failed(&self, error: Error) -> Error {
        let Inner { file, shared, .. } = &*self.inner;
        shared
            .metadata
            .explain(&file.uri, &file.version, error)
            .await
    }

    /// Looks for the next pages, or starts to fetch them, until as many wait as may.
    fn start(
        &self,
        slices: &mut impl Iterator<Item = PageSlice>,
        waiting: &mut VecDeque<(PageSlice, Found)>,
    ) {
        while waiting.len() < PAGES_AT_ONCE
            && let Some(slice) = slices.next()
        {
            waiting.push_back((slice, self.inner.shared.cache.get(&self.key(slice.index))));
        }
    }

    fn read_ahead(&self, offset: u64, length: u64) {
        let Inner {
            file,
            shared,
            access,
            ..
        } = &*self.inner;
        let mut access = access.lock();
        let ahead = access.on_read(offset, length, file.length, shared.readahead_limit());
        let wanted = if shared.cache.prefers_runs(file) {
            // What is waited for and what is read ahead, by one request.
            let end = offset.saturating_add(length).min(file.length);
            offset..ahead.end.max(end)
        } else {
            ahead
        };
        let wanted = pages(&wanted, file.page_size);
        let reached = shared.cache.prefetch_run(file, wanted.clone());
        if reached < wanted.end {
            access.stopped_at(reached * file.page_size.bytes());
        }
    }

    fn key(&self, index: u64) -> PageKey {
        PageKey {
            file: Arc::clone(&self.inner.file),
            index,
        }
    }
}

/// The pages that a range of bytes touches.
fn pages(bytes: &Range<u64>, page_size: PageSize) -> Range<u64> {
    if bytes.is_empty() {
        return 0..0;
    }
    bytes.start / page_size.bytes()..bytes.end.div_ceil(page_size.bytes())
}

impl Shared {
    /// Starts to fetch the beginning of a file that will be opened soon, as far as there is room.
    pub(crate) fn prefetch_beginning(&self, file: &Arc<OpenedFile>, bytes: u64) {
        let wanted = pages(&(0..bytes.min(file.length)), file.page_size);
        self.cache.prefetch_run(file, wanted);
    }

    /// Each open file's part of what read-ahead may take, so that many of them do not push each
    /// other's pages out before they are read.
    fn readahead_limit(&self) -> u64 {
        let files = self.open_files.load(Ordering::Relaxed).max(1) as u64;
        self.readahead_max_bytes
            .min(self.readahead_total_bytes / files)
    }
}

impl Inner {
    /// Bytes of the file for the client itself: not counted as handed out, and within the file.
    async fn look(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end.saturating_sub(range.start);
        let mut bytes = Vec::new();
        for slice in split(range.start, length, self.file.length, self.file.page_size) {
            let key = PageKey {
                file: Arc::clone(&self.file),
                index: slice.index,
            };
            let page = match self.shared.cache.get(&key) {
                Found::Here(page) => page,
                Found::Coming(fill) => fill.await?,
            };
            bytes.extend_from_slice(&slice_of(&page, slice));
        }
        Ok(bytes)
    }

    /// Starts to fetch a range, as far as there is room. Bounded by the read-ahead of the file.
    fn prefetch(&self, range: Range<u64>) {
        let end = range
            .end
            .min(range.start.saturating_add(self.shared.readahead_limit()));
        let wanted = pages(&(range.start..end), self.file.page_size);
        self.shared.cache.prefetch_run(&self.file, wanted);
    }
}

/// The bytes of a slice. A page is whole, so the slice lies within it; it fits the memory, so it
/// fits a usize.
fn slice_of(page: &Page, slice: PageSlice) -> Bytes {
    let at = |bytes: u64| {
        usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(page.bytes().len())
    };
    page.bytes()
        .slice(at(slice.offset)..at(slice.offset + slice.length))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ReadBytes {
    /// How many bytes were read.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether nothing was read: the offset is at the end of the file or past it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in one piece, copied only where there are several chunks.
    pub fn into_bytes(mut self) -> Bytes {
        if self.chunks.len() == 1 {
            return self.chunks.remove(0);
        }
        let mut whole = BytesMut::with_capacity(self.len());
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
        whole.freeze()
    }

    fn push(&mut self, page: &Page, slice: PageSlice, cache: &PageCache) {
        let chunk = cache.handed_out(page, slice_of(page, slice));
        self.chunks.push(chunk);
        let origin = page.hand_out(slice.length);
        for source in Source::ALL {
            self.by_source.add(source, origin.of(source));
        }
    }
}
