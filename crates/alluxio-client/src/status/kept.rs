//! Statuses and listings that are believed for a while, and the requests on their way to become so.
//!
//! * A listing answers lookups of the names in it; only for the short time of negative entries does
//!   it also answer that a name is not there.
//! * One request serves all who ask for the same thing meanwhile. It is a task of its own, so that
//!   callers may poll outside the runtime, as the FUSE session does, and may go away.
//! * What is forgotten while its request is on the way is not kept when the answer comes: a request
//!   that began before a write may tell of the time before it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluxio_wire::{FileStatus, UfsUri};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};

/// What a kept entry takes beside its texts: the key, the cache's own records and the allocator's.
const OVERHEAD_BYTES: usize = 200;
/// The part of the room that single statuses get; listings, which answer for many, get the rest.
const STATUSES_SHARE: u64 = 4;

/// How long and how much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long a status or a listing is believed.
    pub(crate) ttl: Duration,
    /// How long it is believed that a name does not exist.
    pub(crate) negative_ttl: Duration,
    /// The most that is kept, in bytes.
    pub(crate) bytes: u64,
}

/// A request to be made if nobody makes it already.
pub(super) type Fetch<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// What is kept.
pub(super) struct Kept {
    limits: Limits,
    statuses: Cache<UfsUri, Known>,
    listings: Cache<UfsUri, Listing>,
    status_flights: Flights<Arc<FileStatus>>,
    listing_flights: Flights<Arc<Vec<FileStatus>>>,
}

/// What a lookup found, and when.
#[derive(Clone)]
struct Known {
    since: Instant,
    found: Result<Arc<FileStatus>>,
}

/// What a listing found, and when.
#[derive(Clone)]
struct Listing {
    since: Instant,
    entries: Arc<Vec<FileStatus>>,
}

/// Requests on their way.
struct Flights<T> {
    by_uri: Mutex<HashMap<UfsUri, Flight<T>>>,
    next_number: AtomicU64,
}

struct Flight<T> {
    number: u64,
    answer: Shared<BoxFuture<'static, Result<T>>>,
}

impl Kept {
    pub(super) fn new(limits: Limits) -> Self {
        let for_statuses = limits.bytes / STATUSES_SHARE;
        // The least recently used goes first: with the cache's default a large listing would not
        // get in where many small things are in use.
        Self {
            limits,
            statuses: Cache::builder()
                .max_capacity(for_statuses)
                .weigher(|uri: &UfsUri, known: &Known| {
                    let status = known.found.as_deref().map_or(0, bytes_of);
                    weight(uri.as_str().len() + OVERHEAD_BYTES + status)
                })
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(limits.ttl)
                .build(),
            listings: Cache::builder()
                .max_capacity(limits.bytes - for_statuses)
                .weigher(|uri: &UfsUri, listing: &Listing| {
                    let entries: usize = listing.entries.iter().map(bytes_of).sum();
                    weight(uri.as_str().len() + OVERHEAD_BYTES + entries)
                })
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(limits.ttl)
                .build(),
            status_flights: Flights::default(),
            listing_flights: Flights::default(),
        }
    }

    /// The answer to a lookup, where one is kept: the later of what a lookup and a listing told.
    pub(super) fn status(&self, uri: &UfsUri) -> Option<Result<Arc<FileStatus>>> {
        let known = self.statuses.get(uri);
        let listing = uri.parent().and_then(|parent| self.listings.get(&parent));
        let Some(listing) = listing.filter(|listing| {
            known
                .as_ref()
                .is_none_or(|known| known.since < listing.since)
        }) else {
            return known
                .filter(|known| self.is_believed(known))
                .map(|known| known.found);
        };
        match find(&listing.entries, uri.name()) {
            Some(status) => Some(Ok(Arc::new(status.clone()))),
            None if listing.since.elapsed() < self.limits.negative_ttl => Some(Err(missing(uri))),
            None => None,
        }
    }

    /// The entries of a directory, where they are kept.
    pub(super) fn listing(&self, uri: &UfsUri) -> Option<Arc<Vec<FileStatus>>> {
        self.listings.get(uri).map(|listing| listing.entries)
    }

    /// Looks up with `fetch`, or waits for the same lookup of somebody else.
    pub(super) async fn fetch_status(
        kept: &Arc<Self>,
        runtime: &Handle,
        uri: &UfsUri,
        fetch: Fetch<Arc<FileStatus>>,
    ) -> Result<Arc<FileStatus>> {
        if kept.limits.ttl.is_zero() {
            return alone(runtime, fetch).await;
        }
        let (owner, asked) = (Arc::clone(kept), uri.clone());
        kept.status_flights
            .join(uri, |number| {
                in_a_task(runtime, async move {
                    let since = Instant::now();
                    let found = fetch.await;
                    let keep = || owner.keep_status(&asked, since, &found);
                    owner.status_flights.land(&asked, number, keep);
                    found
                })
            })
            .await
    }

    /// Lists with `fetch`, or waits for the same listing of somebody else.
    pub(super) async fn fetch_listing(
        kept: &Arc<Self>,
        runtime: &Handle,
        uri: &UfsUri,
        fetch: Fetch<Arc<Vec<FileStatus>>>,
    ) -> Result<Arc<Vec<FileStatus>>> {
        if kept.limits.ttl.is_zero() {
            return alone(runtime, fetch).await;
        }
        let (owner, asked) = (Arc::clone(kept), uri.clone());
        kept.listing_flights
            .join(uri, |number| {
                in_a_task(runtime, async move {
                    let since = Instant::now();
                    let found = fetch.await;
                    let keep = || owner.keep_listing(&asked, since, &found);
                    owner.listing_flights.land(&asked, number, keep);
                    found
                })
            })
            .await
    }

    /// Forgets a file or directory and all above it, for those may have come into being with it.
    pub(super) fn forget(&self, uri: &UfsUri) {
        let mut next = Some(uri.clone());
        while let Some(uri) = next {
            self.status_flights.forget(|flying| *flying == uri);
            self.listing_flights.forget(|flying| *flying == uri);
            self.statuses.invalidate(&uri);
            self.listings.invalidate(&uri);
            next = uri.parent();
        }
    }

    /// Forgets a directory, all below it and all above it.
    pub(super) fn forget_below(&self, uri: &UfsUri) {
        let is_below = |known: &UfsUri| known.relative_to(uri).is_some();
        self.status_flights.forget(is_below);
        self.listing_flights.forget(is_below);
        for (known, _) in self.statuses.iter().filter(|(known, _)| is_below(known)) {
            self.statuses.invalidate(&*known);
        }
        for (known, _) in self.listings.iter().filter(|(known, _)| is_below(known)) {
            self.listings.invalidate(&*known);
        }
        self.forget(uri);
    }

    /// How many bytes are kept, once what is due to go has gone.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.statuses.weighted_size() + self.listings.weighted_size()
    }

    #[cfg(test)]
    pub(super) fn settle(&self) {
        self.statuses.run_pending_tasks();
        self.listings.run_pending_tasks();
    }

    fn is_believed(&self, known: &Known) -> bool {
        known.found.is_ok() || known.since.elapsed() < self.limits.negative_ttl
    }

    fn keep_status(&self, uri: &UfsUri, since: Instant, found: &Result<Arc<FileStatus>>) {
        let is_answer = match found {
            Ok(_) => true,
            // Any other failure says nothing of the file.
            Err(error) => {
                error.kind() == ErrorKind::NotFound && !self.limits.negative_ttl.is_zero()
            }
        };
        if is_answer {
            let found = found.clone();
            self.statuses.insert(uri.clone(), Known { since, found });
        }
    }

    fn keep_listing(&self, uri: &UfsUri, since: Instant, found: &Result<Arc<Vec<FileStatus>>>) {
        if let Ok(entries) = found {
            let entries = Arc::clone(entries);
            self.listings
                .insert(uri.clone(), Listing { since, entries });
        }
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self {
            by_uri: Mutex::default(),
            next_number: AtomicU64::new(0),
        }
    }
}

impl<T: Clone> Flights<T> {
    /// The request on its way, or the one that `start` begins.
    fn join(
        &self,
        uri: &UfsUri,
        start: impl FnOnce(u64) -> BoxFuture<'static, Result<T>>,
    ) -> Shared<BoxFuture<'static, Result<T>>> {
        let mut flights = self.by_uri.lock();
        // One whose task was stopped before it could land is not waited for again.
        if let Some(flight) = flights.get(uri)
            && flight.answer.peek().is_none()
        {
            return flight.answer.clone();
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let answer = start(number).shared();
        let waiting = answer.clone();
        flights.insert(uri.clone(), Flight { number, answer });
        waiting
    }

    /// The request ended: its answer is kept, unless it was forgotten meanwhile. Both under the
    /// lock, so that whoever forgets comes before or after.
    fn land(&self, uri: &UfsUri, number: u64, keep: impl FnOnce()) {
        let mut flights = self.by_uri.lock();
        if flights
            .get(uri)
            .is_some_and(|flight| flight.number == number)
        {
            keep();
            flights.remove(uri);
        }
    }

    fn forget(&self, is_forgotten: impl Fn(&UfsUri) -> bool) {
        self.by_uri.lock().retain(|uri, _| !is_forgotten(uri));
    }
}

/// Nothing is kept, so each caller's own request must be later than the call.
async fn alone<T: Send + 'static>(runtime: &Handle, fetch: Fetch<T>) -> Result<T> {
    in_a_task(runtime, fetch).await
}

fn in_a_task<T: Send + 'static>(
    runtime: &Handle,
    fetch: impl Future<Output = Result<T>> + Send + 'static,
) -> BoxFuture<'static, Result<T>> {
    let task = runtime.spawn(fetch);
    async move {
        task.await
            .unwrap_or_else(|error| Err(super::stopped(&error)))
    }
    .boxed()
}

fn find<'a>(entries: &'a [FileStatus], name: &str) -> Option<&'a FileStatus> {
    let found = entries.binary_search_by(|entry| entry.name.as_str().cmp(name));
    found.ok().map(|index| &entries[index])
}

fn missing(uri: &UfsUri) -> Error {
    let context = format!("{uri} does not exist: it is not in the listing of a moment ago");
    Error::new(ErrorKind::NotFound, "status", context)
}

fn bytes_of(status: impl std::borrow::Borrow<FileStatus>) -> usize {
    let status = status.borrow();
    size_of::<FileStatus>()
        + status.name.len()
        + status.path.len()
        + status.ufs_uri.len()
        + status.content_hash.as_ref().map_or(0, String::len)
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
