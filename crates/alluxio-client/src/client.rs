//! The client: the one place where the parts are joined.
//!
//! ```text
//! FileReader -> PageCache [-> DiskCache] -> WorkerThenUfs -> Workers (picked by HashRing on a WorkerSet)
//!                                                         -> Ufs
//! Metadata   -> Ufs (or Workers, under the policy `never`)
//! LoadJobs   -> Workers
//! ```

mod disk;
mod list;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use alluxio_config::{
    AccessProfile, ClientOptions, Config, Consistency, FallbackPolicy,
    Membership as ConfiguredMembership, OnChange, RingMembership,
};
use alluxio_ufs::{Buffers, Ufs};
use alluxio_wire::{FileStatus, FileVersion, PageSize, UfsUri, WorkerAddress};
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::cache::{Account, MemoryPlan, MemoryStore, PageCache};
use crate::disk::{DiskCache, DiskMemory, DiskThenRemote};
use crate::error::{Error, ErrorKind, Result};
use crate::invalidation::Invalidation;
use crate::load::LoadJobs;
use crate::manifest::{self, ManifestSummary};
use crate::membership::{self, Membership, WorkerSet};
use crate::metrics::Metrics;
use crate::reader::{FileReader, Shared};
use crate::ring::RingShape;
use crate::source::{BytesBySource, Fallback, OpenedFile, PageSource, Routing, WorkerThenUfs};
use crate::status::{self, Metadata, MetadataSource, WorkerMetadata};
use crate::summary::{self, Summary};
use crate::versions::VersionedPages;
use crate::worker::Workers;
use crate::worker::security::Security;

/// Read-ahead of all files together takes at most this part of the page store, so that it does not
/// push out pages that it fetched itself a moment ago.
const READAHEAD_SHARE: u64 = 2;

/// A client of one dataset. A clone is cheap and shares everything.
///
/// Paths are relative to the dataset's root, without a leading `/`; the root itself is `""`.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    root: UfsUri,
    /// Where writes go.
    ufs: Ufs,
    max_parallel_transfers: usize,
    is_pinned: bool,
    page_size: PageSize,
    membership: Arc<dyn Membership>,
    metadata: Metadata,
    readers: Arc<Shared>,
    loads: LoadJobs,
    invalidation: Invalidation,
    disk: Option<DiskCache>,
    metrics: Arc<Metrics>,
    fallback: Arc<Fallback>,
    /// Names the configuration in summaries.
    fingerprint: String,
    connected: Instant,
    /// Bounds how many files ahead are looked up at one time.
    ahead: Arc<Semaphore>,
    /// Follows the membership for the gauge of workers.
    gauge: AbortHandle,
}

impl Client {
    /// Connects to the cluster and the under-store of a configuration. To be called on a
    /// multi-thread runtime that outlives the client: fetches run there.
    pub async fn connect(config: &Config) -> Result<Self> {
        let options = &config.client;
        let metrics = Arc::new(Metrics::new()?);
        let routing = routing(config)?;
        let plan = memory_plan(options);
        let buffers = Buffers::new(options.page_size.bytes(), plan.pages.spare_bytes);
        let ufs = Ufs::connect_with(&config.ufs, buffers.clone())
            .map_err(|error| Error::from_ufs("connect", &error))?;
        let shape = RingShape::of(options);
        let membership =
            membership::connect(&config.cluster, options.ring_membership, shape).await?;
        let timeout = options.fallback.worker_timeout;
        let workers = Workers::new(timeout, routing.max_inflight_requests)
            .bounded(&options.robust, Arc::clone(&metrics))
            .secured(Security::load(&config.cluster.security)?)
            .with_buffers(buffers.clone());
        let workers = Arc::new(workers);
        // Under the policy `never` versions are the workers' own: there is nothing to compare.
        let verifies = options.verify_worker_version && routing.policy != FallbackPolicy::Never;
        let pages = VersionedPages::new(
            Arc::clone(&workers),
            verifies,
            timeout,
            options.metadata_ttl,
        );
        let source = Arc::new(WorkerThenUfs::new(
            Arc::clone(&membership),
            pages,
            ufs.clone(),
            routing,
            Arc::clone(&metrics),
        ));
        let fallback = source.fallback();
        let (source, disk) = with_disk(config, source, plan.disk, buffers, &metrics).await?;
        let memory = plan.pages;
        let cache = page_cache(memory, source, disk.as_ref(), &metrics);
        let asked = metadata_source(routing, &membership, &workers, &ufs);
        let metadata = metadata(config, asked).await?;
        let readers = shared(
            options,
            cache,
            metadata.clone(),
            Arc::clone(&metrics),
            memory.store_bytes,
        );
        let loads = load_jobs(config, &membership, &workers);
        let gauge = tokio::spawn(follow(
            Arc::clone(&membership),
            Arc::clone(&workers),
            Arc::clone(&metrics),
        ));
        let client = Self {
            inner: Arc::new(Inner {
                root: config.ufs.uri.clone(),
                ufs,
                max_parallel_transfers: options.max_parallel_transfers,
                is_pinned: options.consistency == Consistency::Pinned,
                page_size: options.page_size,
                metadata,
                invalidation: Invalidation::new(&membership, &workers, routing.max_worker_attempts),
                membership,
                readers: Arc::new(readers),
                loads,
                disk,
                metrics,
                fallback,
                fingerprint: summary::fingerprint(config),
                connected: Instant::now(),
                ahead: Arc::new(Semaphore::new(list::LOOKUPS_AHEAD)),
                gauge: gauge.abort_handle(),
            }),
        };
        if let Some(list) = &options.file_list {
            client.follow_file(list).await?;
        }
        Ok(client)
    }

    /// The root of the dataset.
    pub fn root(&self) -> &UfsUri {
        &self.inner.root
    }

    /// The status of a file or directory, not older than the configured time.
    pub async fn status(&self, path: &str) -> Result<Arc<FileStatus>> {
        self.inner.metadata.status(&self.uri("status", path)?).await
    }

    /// What lies directly in a directory, sorted by name.
    pub async fn list(&self, path: &str) -> Result<Arc<Vec<FileStatus>>> {
        self.inner.metadata.list(&self.uri("list", path)?).await
    }

    /// All files below a directory; ends at the first error.
    pub fn walk(&self, path: &str) -> BoxStream<'static, Result<FileStatus>> {
        match self.uri("walk", path) {
            Ok(uri) => self.inner.metadata.walk(uri),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    /// Opens a file at the version that its status tells, to be read as configuration and name say.
    pub async fn open(&self, path: &str) -> Result<FileReader> {
        self.open_with(path, None).await
    }

    /// Opens a file that will be read in a way that the caller knows.
    pub async fn open_as(&self, path: &str, profile: AccessProfile) -> Result<FileReader> {
        self.open_with(path, Some(profile)).await
    }

    async fn open_with(&self, path: &str, profile: Option<AccessProfile>) -> Result<FileReader> {
        let uri = self.uri("open", path)?;
        let status = self.inner.metadata.status(&uri).await?;
        if status.is_directory() {
            let context = format!("{uri} is a directory; name a file in it");
            return Err(Error::new(ErrorKind::IsDirectory, "open", context));
        }
        self.fetch_ahead_of(path);
        Ok(self.open_found(uri, status, profile))
    }

    /// Opens a file at a version that is known already, such as from a listing.
    pub(crate) fn open_found(
        &self,
        uri: UfsUri,
        status: Arc<FileStatus>,
        profile: Option<AccessProfile>,
    ) -> FileReader {
        let file = self.inner.opened(uri, &status);
        FileReader::new(file, status, Arc::clone(&self.inner.readers), profile)
    }

    /// Takes a manifest of a directory as the store lists it now, and puts it into the file
    /// `target`; what was there stays until all of it is written.
    pub async fn take_manifest(&self, path: &str, target: &Path) -> Result<ManifestSummary> {
        let uri = self.uri("manifest", path)?;
        let listing = self.inner.metadata.walk_store(uri.clone());
        manifest::take(uri, listing, target).await
    }

    /// Forgets what is known of a file or directory: it was just written or removed.
    pub fn forget(&self, path: &str) -> Result<()> {
        self.inner.metadata.forget(&self.uri("forget", path)?);
        Ok(())
    }

    /// Forgets what is known of a directory and of all below it.
    pub fn forget_below(&self, path: &str) -> Result<()> {
        self.inner.metadata.forget_below(&self.uri("forget", path)?);
        Ok(())
    }

    /// How much of one version of a file is in memory, 0 to 1.
    pub fn cached_share(&self, path: &str, version: &FileVersion) -> f64 {
        let uri = self.inner.root.join(path);
        uri.map_or(0.0, |uri| {
            self.inner.readers.cache.share(&uri.file_id(), version)
        })
    }

    /// The worker that the ring names for a file, if there is one.
    pub fn worker_of(&self, path: &str) -> Option<WorkerAddress> {
        let uri = self.inner.root.join(path).ok()?;
        let owners = self.workers().owners(&uri, 1);
        owners.first().map(|worker| (*worker.address).clone())
    }

    /// The workers as they are known now.
    pub fn workers(&self) -> Arc<WorkerSet> {
        self.inner.membership.snapshot()
    }

    /// The cluster's load jobs.
    pub fn loads(&self) -> LoadJobs {
        self.inner.loads.clone()
    }

    /// Where the bytes that readers were handed came from, since the client was made.
    pub fn bytes_by_source(&self) -> BytesBySource {
        self.inner.metrics.bytes_by_source()
    }

    /// What the client did since it was made: bytes, requests and time by source, what fell back to
    /// the under-store and why.
    pub fn summary(&self) -> Summary {
        let inner = &self.inner;
        Summary {
            dataset: inner.root.to_string(),
            config_version: inner.fingerprint.clone(),
            seconds: inner.connected.elapsed().as_secs_f64(),
            sources: summary::sources(&inner.metrics),
            cache: summary::cache(&inner.metrics),
            fallback: summary::fallback(&inner.metrics, &inner.fallback),
        }
    }

    /// Waits until the pages fetched so far lie in the disk cache, as far as it keeps them, and what
    /// was sent by writers that were dropped is thrown away. A process that ends without it loses the
    /// one, and leaves the other in the store, where nobody sees it.
    pub async fn flush(&self) {
        self.inner.ufs.settle().await;
        if let Some(disk) = &self.inner.disk {
            disk.flush().await;
        }
    }

    /// The client's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Whether [`Client::mv`] is one step in this dataset's store, also for a directory.
    pub fn renames_in_one_step(&self) -> bool {
        self.inner.ufs.renames_in_one_step()
    }

    pub(crate) fn ufs(&self) -> &Ufs {
        &self.inner.ufs
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.inner.metadata
    }

    pub(crate) fn invalidation(&self) -> &Invalidation {
        &self.inner.invalidation
    }

    pub(crate) fn has_disk_cache(&self) -> bool {
        self.inner.disk.is_some()
    }

    /// Drops a file's pages in memory, and those of the version that it had on the disk.
    pub(crate) fn forget_pages(&self, uri: &UfsUri, old: Option<&FileStatus>) {
        self.inner.readers.cache.forget(&uri.file_id());
        if let (Some(disk), Some(old)) = (&self.inner.disk, old) {
            disk.forget(&self.inner.opened(uri.clone(), old));
        }
    }

    pub(crate) fn cache(&self) -> &PageCache {
        &self.inner.readers.cache
    }

    pub(crate) fn max_parallel_transfers(&self) -> usize {
        self.inner.max_parallel_transfers
    }

    /// Whether the dataset is what a manifest names, and so cannot be changed through this client.
    pub(crate) fn is_pinned(&self) -> bool {
        self.inner.is_pinned
    }

    pub(crate) fn uri(&self, operation: &'static str, path: &str) -> Result<UfsUri> {
        self.inner.root.join(path).map_err(|error| {
            let context = format!("`{path}` is not a path below {}", self.inner.root);
            Error::new(ErrorKind::InvalidInput, operation, context).with_source(error)
        })
    }
}

impl Inner {
    fn opened(&self, uri: UfsUri, status: &FileStatus) -> OpenedFile {
        OpenedFile {
            id: uri.file_id(),
            uri,
            version: status.version(),
            length: status.length,
            modified_ms: status.modified_ms,
            page_size: self.page_size,
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("root", &self.inner.root)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.gauge.abort();
    }
}

/// What all readers share.
fn shared(
    options: &ClientOptions,
    cache: Arc<PageCache>,
    metadata: Metadata,
    metrics: Arc<Metrics>,
    store_bytes: u64,
) -> Shared {
    Shared {
        cache,
        metadata,
        // What is pinned does not become another version by being opened again.
        reopens: options.on_change == OnChange::Reopen && options.consistency == Consistency::Live,
        is_kept_by_reader: options.is_kept_by_reader,
        metrics,
        access_profile: options.access_profile,
        runtime: Handle::current(),
        deadline: options.robust.deadline,
        readahead_max_bytes: options.readahead_max_bytes,
        readahead_total_bytes: store_bytes / READAHEAD_SHARE,
        open_files: AtomicUsize::new(0),
        order: Mutex::new(None),
    }
}

/// Manifest, kept metadata, and whom to ask else.
async fn metadata(config: &Config, source: MetadataSource) -> Result<Metadata> {
    let options = &config.client;
    let manifest = match &options.manifest {
        None => None,
        Some(manifest) => {
            Some(status::open_manifest(manifest, options.consistency, &config.ufs.uri).await?)
        }
    };
    let limits = status::Limits {
        ttl: options.metadata_ttl,
        negative_ttl: options.negative_ttl,
        bytes: options.metadata_limit_bytes,
    };
    let deadline = options.robust.deadline;
    Ok(Metadata::new(
        source,
        manifest,
        limits,
        deadline,
        Handle::current(),
    ))
}

/// Loads by the workers of a cluster.
fn load_jobs(
    config: &Config,
    membership: &Arc<dyn Membership>,
    workers: &Arc<Workers>,
) -> LoadJobs {
    LoadJobs::new(
        Arc::clone(membership),
        Arc::clone(workers),
        config.client.fallback.max_worker_attempts as usize,
    )
}

/// Pages in memory, before their source. The disk cache takes from there what it could not keep at once.
fn page_cache(
    memory: MemoryPlan,
    source: Arc<dyn PageSource>,
    disk: Option<&DiskCache>,
    metrics: &Arc<Metrics>,
) -> Arc<PageCache> {
    let account = Account::shown_in(metrics.memory_live_bytes.clone());
    let cache = PageCache::new(
        Arc::new(MemoryStore::of_account(memory.store_bytes, account)),
        source,
        memory.inflight_bytes,
        Handle::current(),
        Arc::clone(metrics),
    );
    if let Some(disk) = disk {
        let memory = Arc::downgrade(&cache);
        disk.recall_by(Box::new(move |file, index| {
            memory.upgrade()?.kept(file, index)
        }));
    }
    cache
}

/// Who is asked for statuses and listings.
fn metadata_source(
    routing: Routing,
    membership: &Arc<dyn Membership>,
    workers: &Arc<Workers>,
    ufs: &Ufs,
) -> MetadataSource {
    match routing.policy {
        FallbackPolicy::Never => MetadataSource::Workers(WorkerMetadata {
            membership: Arc::clone(membership),
            workers: Arc::clone(workers),
            max_worker_attempts: routing.max_worker_attempts,
        }),
        FallbackPolicy::OnWorkerFailure | FallbackPolicy::Always => {
            MetadataSource::Ufs(ufs.clone())
        }
    }
}

/// What the memory limit is divided into.
#[derive(Clone, Copy)]
struct Shares {
    disk: Option<DiskMemory>,
    pages: MemoryPlan,
}

fn memory_plan(options: &ClientOptions) -> Shares {
    let limit_bytes = options.memory_limit_bytes;
    let disk = options
        .disk_cache
        .as_ref()
        .map(|_| DiskMemory::of(limit_bytes));
    let pages = MemoryPlan::new(
        limit_bytes - disk.map_or(0, DiskMemory::total_bytes),
        options.page_size.bytes(),
        most_pages_in_flight(options),
    );
    Shares { disk, pages }
}

/// Puts the disk cache before the workers, if there is one.
async fn with_disk(
    config: &Config,
    source: Arc<dyn PageSource>,
    memory: Option<DiskMemory>,
    buffers: Buffers,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<dyn PageSource>, Option<DiskCache>)> {
    let (Some(disk), Some(memory)) = (&config.client.disk_cache, memory) else {
        return Ok((source, None));
    };
    let (root, registry) = (&config.ufs.uri, metrics.registry());
    let disk = DiskCache::open(disk, root, memory, buffers, registry).await?;
    let source = DiskThenRemote::new(disk.clone(), source, Arc::clone(metrics));
    Ok((Arc::new(source), Some(disk)))
}

/// How many pages may be on their way: as many as requests, and no more bytes than are allowed.
fn most_pages_in_flight(options: &ClientOptions) -> usize {
    let by_bytes = options.robust.max_inflight_bytes.map(|bytes| {
        let pages = (bytes / options.page_size.bytes()).max(1);
        usize::try_from(pages).unwrap_or(usize::MAX)
    });
    let requests = options.max_inflight_requests;
    by_bytes.map_or(requests, |pages| pages.min(requests))
}

/// Who is asked for pages, and in which number.
fn routing(config: &Config) -> Result<Routing> {
    let options = &config.client;
    let has_cluster = config.cluster.membership != ConfiguredMembership::None;
    if !has_cluster && options.fallback.policy == FallbackPolicy::Never {
        let context = format!(
            "the dataset {} has neither workers nor, by the fallback policy `never`, an \
             under-store to read from; configure cluster.membership or another policy",
            config.ufs.uri
        );
        return Err(Error::new(ErrorKind::InvalidInput, "connect", context));
    }
    Ok(Routing {
        policy: options.fallback.policy,
        has_cluster,
        // On a ring of all registered workers the owner may be down for good; by definition its
        // files then come from the under-store.
        max_worker_attempts: match options.ring_membership {
            RingMembership::Live => options.fallback.max_worker_attempts as usize,
            RingMembership::Registered => 1,
        },
        max_inflight_requests: options.max_inflight_requests,
        max_fallback_bytes_per_hour: options.fallback.max_bytes_per_hour,
        worker_timeout: options.fallback.worker_timeout,
        deadline: options.robust.deadline,
        retry_percent: options.robust.retry_percent,
        hedge: options.robust.hedge,
    })
}

/// Keeps the gauge of workers, and forgets those that left, as the membership changes.
async fn follow(membership: Arc<dyn Membership>, workers: Arc<Workers>, metrics: Arc<Metrics>) {
    loop {
        let set = membership.snapshot();
        workers.forget_all_but(&set);
        metrics
            .workers
            .set(i64::try_from(set.len()).unwrap_or(i64::MAX));
        membership.changed(set.generation()).await;
    }
}
