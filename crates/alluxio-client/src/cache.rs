//! The page cache: a page is in memory, or it is fetched once for all who wait for it.
//!
//! A fetch runs as a task of its own: a reader that gives up (an interrupted read) does not take the
//! page away from those who wait with it, and read-ahead needs nobody to wait. Memory is bounded in
//! two parts: the store by the weight of its pages, and the pages on their way by a budget of bytes
//! that a fetch takes before it starts and gives back when its page lies in the store. What readers
//! hold of evicted pages, and writers of what was not sent, counts as the store's (`account`).

mod account;
mod memory;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alluxio_wire::{FileId, FileVersion, PageRange};
use bytes::Bytes;
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::source::{BytesBySource, FetchedPage, LocalRun, OpenedFile, PageSource, Source};

pub use account::Account;
pub(crate) use account::Charge;
pub use memory::MemoryStore;

/// The budget counts in this unit, because a semaphore hands out at most 2^32 permits at once.
const BUDGET_UNIT_BYTES: u64 = 1024;
/// The part of the memory limit that pages on their way may take; the rest is the store's. A
/// quarter keeps the requests of a whole read-ahead window in flight.
const INFLIGHT_SHARE: u64 = 4;
/// The part of the memory limit that emptied buffers may take while they wait for the next pages
/// ([`alluxio_ufs::Buffers`]), and their number: about as many pages leave the store at one time as
/// there are connections that bring others.
const SPARE_SHARE: u64 = 16;
const SPARE_PAGES: u64 = 16;

/// Names a page: version of a file, and index.
#[derive(Debug, Clone)]
pub struct PageKey {
    /// The file and its version.
    pub file: Arc<OpenedFile>,
    /// The index of the page within it.
    pub index: u64,
}

/// A page in memory.
#[derive(Debug)]
pub struct Page {
    bytes: Bytes,
    origin: Source,
    /// Bytes that no reader has been handed yet.
    unread: AtomicU64,
}

/// Keeps pages.
///
/// All methods return at once: a store that must wait for a disk is a [`PageSource`] in front of
/// another. What was put may be gone at the next call; what is found is what was put under an equal
/// key.
pub trait PageStore: Send + Sync {
    /// The page, if it is here; it counts as used.
    fn get(&self, key: &PageKey) -> Option<Arc<Page>>;

    /// Keeps a page, at the cost of others.
    fn put(&self, key: PageKey, page: Arc<Page>);

    /// Drops all pages of a file, of every version.
    fn forget(&self, file: &FileId);

    /// A page was read to its end, and this node's disk or its reader has it too: getting it again is
    /// cheap or not needed, so it may leave before others.
    fn spent(&self, _key: &PageKey) {}

    /// The bytes of all pages here.
    fn bytes(&self) -> u64;

    /// The bytes of all pages alive, of which the ones here are a part.
    fn account(&self) -> &Arc<Account>;

    /// Lets pages go until all that is alive fits, or nothing is here.
    fn make_room(&self);

    /// Whether readers hold so much that what is fetched ahead would not stay.
    fn is_crowded(&self) -> bool;

    /// How much of one version of a file is here, 0 to 1.
    fn share(&self, file: &FileId, version: &FileVersion) -> f64;
}

/// A page store with its source behind it.
pub struct PageCache {
    store: Arc<dyn PageStore>,
    source: Arc<dyn PageSource>,
    fills: Mutex<HashMap<PageKey, Fill>>,
    budget: Arc<Semaphore>,
    budget_units: u32,
    runtime: Handle,
    metrics: Arc<Metrics>,
}

/// How a memory limit is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// For the store.
    pub store_bytes: u64,
    /// For pages on their way.
    pub inflight_bytes: u64,
    /// For buffers that wait for pages.
    pub spare_bytes: u64,
}

/// A page that is here or on its way.
pub(crate) enum Found {
    Here(Arc<Page>),
    Coming(Fill),
}

/// Everybody who waits for a page holds one of these.
type Fill = Shared<BoxFuture<'static, Result<Arc<Page>>>>;

impl MemoryPlan {
    /// Divides `limit_bytes`. No more is set aside for pages on their way than `max_inflight` pages
    /// can take, and always one page.
    pub fn new(limit_bytes: u64, page_bytes: u64, max_inflight: usize) -> Self {
        let wanted =
            (limit_bytes / INFLIGHT_SHARE).min(page_bytes.saturating_mul(max_inflight as u64));
        let inflight_bytes = wanted.max(page_bytes);
        // Whole pages: a part of a buffer is of no use.
        let spare_pages = (limit_bytes / SPARE_SHARE / page_bytes.max(1)).min(SPARE_PAGES);
        let spare_bytes = spare_pages * page_bytes;
        Self {
            store_bytes: limit_bytes.saturating_sub(inflight_bytes + spare_bytes),
            inflight_bytes,
            spare_bytes,
        }
    }
}

impl PageCache {
    /// A cache in front of `source`. Its tasks run on `runtime`.
    pub fn new(
        store: Arc<dyn PageStore>,
        source: Arc<dyn PageSource>,
        inflight_bytes: u64,
        runtime: Handle,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let budget_units = units(inflight_bytes).max(1);
        Arc::new(Self {
            store,
            source,
            fills: Mutex::default(),
            budget: Arc::new(Semaphore::new(budget_units as usize)),
            budget_units,
            runtime,
            metrics,
        })
    }

    /// The page, or a fill that is on its way: the one that is, or a new one.
    pub(crate) fn get(self: &Arc<Self>, key: &PageKey) -> Found {
        if let Some(page) = self.store.get(key) {
            return Found::Here(page);
        }
        let mut fills = self.fills.lock();
        if let Some(fill) = fills.get(key) {
            return Found::Coming(fill.clone());
        }
        // A fill may have ended between the look into the store and the lock.
        if let Some(page) = self.store.get(key) {
            return Found::Here(page);
        }
        let fill = self.start(key.clone(), None);
        fills.insert(key.clone(), fill.clone());
        Found::Coming(fill)
    }

    /// Starts to fetch a page that nobody waits for. Returns whether it is here or on its way; not,
    /// where the budget is spent on pages that somebody waits for.
    pub(crate) fn prefetch(self: &Arc<Self>, key: &PageKey) -> bool {
        if self.store.is_crowded() {
            return false;
        }
        let mut fills = self.fills.lock();
        if fills.contains_key(key) || self.store.get(key).is_some() {
            return true;
        }
        let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(self.units_of(key)) else {
            return false;
        };
        let fill = self.start(key.clone(), Some(permit));
        fills.insert(key.clone(), fill);
        true
    }

    /// Starts to fetch pages that follow each other, together where the source prefers it. Returns
    /// the index up to which pages are here or on their way.
    pub(crate) fn prefetch_run(
        self: &Arc<Self>,
        file: &Arc<OpenedFile>,
        indices: Range<u64>,
    ) -> u64 {
        let key = |index| PageKey {
            file: Arc::clone(file),
            index,
        };
        if self.store.is_crowded() {
            return indices.start;
        }
        let mut index = indices.start;
        while index < indices.end {
            if self.is_known(&key(index)) {
                index += 1;
                continue;
            }
            let pages = self.source.run_from(file, index..indices.end);
            if pages == 0 {
                if !self.prefetch(&key(index)) {
                    return index;
                }
                index += 1;
                continue;
            }
            let end = index.saturating_add(pages).min(indices.end);
            let reached = self.prefetch_together((index..end).map(key));
            if reached < end {
                return reached;
            }
            index = end;
        }
        indices.end
    }

    fn is_known(&self, key: &PageKey) -> bool {
        self.fills.lock().contains_key(key) || self.store.get(key).is_some()
    }

    /// Starts one run, or several where some of the pages are known. Returns the index up to which
    /// there was room.
    fn prefetch_together(self: &Arc<Self>, keys: impl Iterator<Item = PageKey>) -> u64 {
        let mut run = Vec::new();
        let mut reached = 0;
        let mut fills = self.fills.lock();
        for key in keys {
            let index = key.index;
            if fills.contains_key(&key) || self.store.get(&key).is_some() {
                self.start_run(std::mem::take(&mut run));
            } else {
                let permit = Arc::clone(&self.budget).try_acquire_many_owned(self.units_of(&key));
                let Ok(permit) = permit else {
                    self.start_run(run);
                    return index;
                };
                let (teller, told) = oneshot::channel();
                fills.insert(key.clone(), fill_of(told));
                let cache = Arc::clone(self);
                run.push(RunPage {
                    end: FillEnd { cache, key },
                    teller,
                    _permit: permit,
                });
            }
            reached = index + 1;
        }
        self.start_run(run);
        reached
    }

    /// Fetches the pages of a run in a task of its own.
    fn start_run(self: &Arc<Self>, run: Vec<RunPage>) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return;
        };
        let file = Arc::clone(&first.end.key.file);
        let indices = first.end.key.index..last.end.key.index + 1;
        if let Some(local) = self.source.local_run(&file, indices.clone()) {
            self.runtime.spawn(Arc::clone(self).read_here(run, local));
            return;
        }
        let mut pages = Arc::clone(&self.source).fetch_run(file, indices);
        self.runtime.spawn(async move {
            let mut failed = None;
            for page in run {
                let fetched = match &failed {
                    None => pages.next().await.unwrap_or_else(|| Err(stopped())),
                    Some(error) => Err(Error::clone(error)),
                };
                failed = fetched.as_ref().err().cloned();
                page.tell(fetched);
            }
        });
    }

    /// Reads the pages of a run on a thread that may block, which tells those who wait itself.
    async fn read_here(self: Arc<Self>, run: Vec<RunPage>, mut local: LocalRun) {
        // The semaphore is never closed.
        let turn = Arc::clone(&local.turns).acquire_owned().await.ok();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            for page in run {
                let key = &page.end.key;
                let fetched = match (local.read)(key.index) {
                    Some(here) => Ok(here),
                    None => self
                        .runtime
                        .block_on(self.source.fetch(&key.file, key.index)),
                };
                page.tell(fetched);
            }
        });
    }

    fn keep(&self, key: &PageKey, fetched: FetchedPage) -> Arc<Page> {
        let bytes = self.store.account().charged(fetched.bytes);
        let page = Arc::new(Page::new(bytes, fetched.source));
        self.store.put(key.clone(), Arc::clone(&page));
        self.note_bytes();
        page
    }

    fn note_bytes(&self) {
        let bytes = i64::try_from(self.store.bytes()).unwrap_or(i64::MAX);
        self.metrics.memory_cache_bytes.set(bytes);
    }

    /// A part of a page that is neither here nor on its way, past the cache; `None` where the page
    /// itself is to be got.
    pub(crate) async fn fetch_part(
        &self,
        key: &PageKey,
        part: PageRange,
    ) -> Result<Option<FetchedPage>> {
        if self.store.get(key).is_some() || self.fills.lock().contains_key(key) {
            return Ok(None);
        }
        let fetched = self.source.fetch_part(&key.file, key.index, part).await?;
        Ok(fetched.map(|fetched| FetchedPage {
            bytes: self.store.account().charged(fetched.bytes),
            ..fetched
        }))
    }

    /// A part of a page for a reader. Where readers hold much already, a small part is copied, so that
    /// it does not keep all of its page.
    pub(crate) fn handed_out(&self, page: &Page, part: Bytes) -> Bytes {
        if part.len() * 2 > page.bytes.len() || !self.store.is_crowded() {
            return part;
        }
        self.store.account().charged(Bytes::copy_from_slice(&part))
    }

    /// A charge for bytes that others than the cache buffer, of nothing yet.
    pub(crate) fn charge(&self) -> Charge {
        self.store.account().charge()
    }

    /// Counts so many bytes with a charge, at the cost of pages.
    pub(crate) fn reserve(&self, charge: &mut Charge, bytes: u64) {
        charge.set(bytes);
        self.store.make_room();
        self.note_bytes();
    }

    /// Notes that a page was read to its end that somebody else keeps.
    pub(crate) fn spent(&self, key: &PageKey) {
        if !self.source.is_owed(&key.file, key.index) {
            self.store.spent(key);
        }
    }

    /// A page, if it is in memory.
    pub(crate) fn kept(&self, file: &Arc<OpenedFile>, index: u64) -> Option<Bytes> {
        let file = Arc::clone(file);
        let page = self.store.get(&PageKey { file, index })?;
        Some(page.bytes().clone())
    }

    /// Whether pages of the file that follow each other are better asked for together.
    pub(crate) fn prefers_runs(&self, file: &OpenedFile) -> bool {
        self.source.prefers_runs(file)
    }

    /// How much of one version of a file is in memory, 0 to 1.
    pub fn share(&self, file: &FileId, version: &FileVersion) -> f64 {
        self.store.share(file, version)
    }

    /// Drops all pages of a file, of every version. Those on their way may come after.
    pub(crate) fn forget(&self, file: &FileId) {
        self.store.forget(file);
        self.note_bytes();
    }

    fn start(self: &Arc<Self>, key: PageKey, permit: Option<OwnedSemaphorePermit>) -> Fill {
        let cache = Arc::clone(self);
        let task = self.runtime.spawn(async move {
            let ended = FillEnd { cache, key };
            ended.cache.fill(&ended.key, permit).await
        });
        let fill = async move {
            task.await
                .unwrap_or_else(|error| Err(stopped().with_source(error)))
        };
        fill.boxed().shared()
    }

    async fn fill(&self, key: &PageKey, permit: Option<OwnedSemaphorePermit>) -> Result<Arc<Page>> {
        let _permit = match permit {
            Some(permit) => Some(permit),
            // The semaphore is never closed.
            None => self
                .budget
                .clone()
                .acquire_many_owned(self.units_of(key))
                .await
                .ok(),
        };
        let fetched = self.source.fetch(&key.file, key.index).await?;
        Ok(self.keep(key, fetched))
    }

    /// A page larger than the whole budget waits until it is alone.
    fn units_of(&self, key: &PageKey) -> u32 {
        units(key.file.page_length(key.index)).clamp(1, self.budget_units)
    }
}

/// Takes a fill off the list however it ends, after its page was put into the store.
struct FillEnd {
    cache: Arc<PageCache>,
    key: PageKey,
}

/// A page of a run that was not told yet.
struct RunPage {
    end: FillEnd,
    teller: oneshot::Sender<Result<Arc<Page>>>,
    _permit: OwnedSemaphorePermit,
}

impl RunPage {
    /// Puts the page into the store and tells who waits; that nobody does is fine.
    fn tell(self, fetched: Result<FetchedPage>) {
        let page = fetched.map(|fetched| self.end.cache.keep(&self.end.key, fetched));
        let _ = self.teller.send(page);
    }
}

fn fill_of(told: oneshot::Receiver<Result<Arc<Page>>>) -> Fill {
    let told = async move { told.await.unwrap_or_else(|_| Err(stopped())) };
    told.boxed().shared()
}

fn stopped() -> Error {
    let context = "the fetch of a page was stopped; the client is shutting down";
    Error::new(ErrorKind::Unexpected, "read", context)
}

impl Drop for FillEnd {
    fn drop(&mut self) {
        self.cache.fills.lock().remove(&self.key);
    }
}

impl Page {
    /// A page that came from `origin` and that nobody has read yet.
    pub fn new(bytes: Bytes, origin: Source) -> Self {
        Self {
            unread: AtomicU64::new(bytes.len() as u64),
            bytes,
            origin,
        }
    }

    /// The page's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether all of its bytes were handed out.
    pub(crate) fn is_read(&self) -> bool {
        self.unread.load(Ordering::Relaxed) == 0
    }

    /// Notes that `length` bytes are handed out, and tells where they came from: as many bytes as
    /// the page has came from where it was fetched, all further ones from memory. So a file read
    /// once counts as fetched, whether in small reads or large, read ahead or not.
    pub(crate) fn hand_out(&self, length: u64) -> BytesBySource {
        let take = |unread: u64| Some(unread - unread.min(length));
        let unread = self
            .unread
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .unwrap_or_default();
        let fresh = unread.min(length);
        let mut bytes = BytesBySource::default();
        bytes.add(self.origin, fresh);
        bytes.add(Source::Memory, length - fresh);
        bytes
    }
}

impl PartialEq for PageKey {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
            && (Arc::ptr_eq(&self.file, &other.file)
                || (self.file.id == other.file.id && self.file.version == other.file.version))
    }
}

impl Eq for PageKey {}

impl Hash for PageKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The id is a hash already; versions of one file are few.
        self.file.id.as_bytes()[..8].hash(state);
        self.index.hash(state);
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
