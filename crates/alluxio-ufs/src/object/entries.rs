//! A listing as a stream of entries that rides over failures.
//!
//! A listing of a large bucket takes minutes and thousands of requests; a failure in the middle
//! must not begin it anew. So after a passing failure the listing goes on behind the last key that
//! was seen, and the count of attempts begins again with each step forward. A store that cannot begin
//! behind a key (HDFS, Azure, COS, OBS) is asked from the start, and what was seen is passed over.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use alluxio_wire::{FileStatus, UfsUri};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use opendal::options::ListOptions;
use opendal::{Entry, Lister, Operator};

use super::failure::from_opendal;
use super::{Teller, keys};
use crate::error::{Subject, UfsError};
use crate::limits::{ATTEMPT_TIMEOUT, ATTEMPTS, wait_before_attempt};

/// How far down a listing goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What lies directly in the directory.
    One,
    /// Every key below the directory.
    All,
    /// The first key below the directory, with its own marker: is there anything?
    Any,
}

/// One key or common prefix of a listing.
pub(super) struct Found(Entry);

struct Listing {
    operator: Operator,
    subject: Subject,
    prefix: String,
    depth: Depth,
    lister: Option<Lister>,
    last_key: Option<String>,
    seen: Option<Seen>,
    failures: u32,
}

/// The keys that a listing has brought: 16 bytes of hash each, so that a million of them take some
/// 35 MB. Two keys of one hash are a matter of 10^-26.
struct Seen {
    hashers: [RandomState; 2],
    hashes: HashSet<(u64, u64)>,
}

/// The entries below `uri`, the directory's own marker among them.
pub(super) fn entries(
    operator: Operator,
    subject: Subject,
    uri: &UfsUri,
    depth: Depth,
) -> Result<BoxStream<'static, Result<Found, UfsError>>, UfsError> {
    let resumes = operator.info().capability().list_with_start_after;
    let listing = Listing {
        seen: (!resumes).then(Seen::new),
        operator,
        prefix: keys::directory_prefix(&subject, uri)?,
        subject,
        depth,
        lister: None,
        last_key: None,
        failures: 0,
    };
    let next = |mut listing: Listing| async move {
        let next = listing.next().await?;
        Ok(next.map(|entry| (Found(entry), listing)))
    };
    Ok(stream::try_unfold(listing, next).boxed())
}

impl Listing {
    async fn next(&mut self) -> Result<Option<Entry>, UfsError> {
        loop {
            let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, self.attempt()).await;
            let error = match attempt {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(entry))) => {
                    if !self.is_new(entry.path()) {
                        continue;
                    }
                    self.failures = 0;
                    return Ok(Some(entry));
                }
                Ok(Err(error)) => from_opendal(&self.subject, &error),
                Err(_) => self.subject.timed_out(ATTEMPT_TIMEOUT),
            };
            self.lister = None;
            self.failures += 1;
            if self.failures >= ATTEMPTS || !error.retryable() {
                return Err(error);
            }
            tracing::debug!(%error, after = self.last_key, "the listing failed, going on behind");
            wait_before_attempt(self.failures).await;
        }
    }

    /// Whether the key was not seen before and lies below the directory: asked for what is below a
    /// file, HDFS tells the file.
    fn is_new(&mut self, key: &str) -> bool {
        let is_below = self.prefix == "/" || key.starts_with(&self.prefix);
        let is_new = is_below && self.seen.as_mut().is_none_or(|seen| seen.add(key));
        if is_new && self.seen.is_none() {
            self.last_key = Some(key.to_owned());
        }
        is_new
    }

    async fn attempt(&mut self) -> opendal::Result<Option<Entry>> {
        let lister = match &mut self.lister {
            Some(lister) => lister,
            lister => {
                let options = self.depth.options(self.last_key.clone());
                let begun = self.operator.lister_options(&self.prefix, options).await?;
                lister.insert(begun)
            }
        };
        lister.try_next().await
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            hashes: HashSet::new(),
        }
    }

    /// Remembers a key; false where it was known.
    fn add(&mut self, key: &str) -> bool {
        let [first, second] = &self.hashers;
        self.hashes
            .insert((first.hash_one(key), second.hash_one(key)))
    }
}

impl Depth {
    fn options(self, start_after: Option<String>) -> ListOptions {
        ListOptions {
            recursive: self != Self::One,
            limit: (self == Self::Any).then_some(1),
            start_after,
            ..ListOptions::default()
        }
    }
}

impl Found {
    /// The key as the store has it.
    pub(super) fn key(&self) -> &str {
        self.0.path()
    }

    /// Whether this is a key that holds bytes, not a prefix or a directory's marker.
    pub(super) fn is_file(&self) -> bool {
        !self.0.path().ends_with('/')
    }

    /// The URI below `directory`, or `None` with a debug log when no URI can carry the key. The
    /// directory's own marker is none of its entries.
    pub(super) fn name_below(&self, directory: &UfsUri) -> Option<UfsUri> {
        let key = self.0.path();
        let uri = keys::name_below(directory, key);
        let is_marker = key.trim_matches('/') == directory.path().trim_matches('/');
        if uri.is_none() && !is_marker {
            tracing::debug!(%directory, key, "left out of the listing: no URI carries this key");
        }
        uri
    }

    pub(super) fn status(&self, teller: &Teller, uri: &UfsUri) -> FileStatus {
        if self.is_file() {
            teller.status(uri, self.0.metadata())
        } else {
            teller.directory(uri)
        }
    }
}
