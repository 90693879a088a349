//! A listing as a stream of entries that rides over failures.
//!
//! A listing of a large bucket takes minutes and thousands of requests; a failure in the middle
//! must not begin it anew. So after a passing failure the listing goes on behind the last key that
//! was seen, and the count of attempts begins again with each step forward.

use alluxio_wire::{FileStatus, UfsUri};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use opendal::options::ListOptions;
use opendal::{Entry, Lister, Operator};

use super::operators::from_opendal;
use super::{file_status, keys};
use crate::error::{Subject, UfsError};
use crate::limits::{ATTEMPT_TIMEOUT, ATTEMPTS, wait_before_attempt};
use crate::status;

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
    failures: u32,
}

/// The entries below `uri`, the directory's own marker among them.
pub(super) fn entries(
    operator: Operator,
    subject: Subject,
    uri: &UfsUri,
    depth: Depth,
) -> Result<BoxStream<'static, Result<Found, UfsError>>, UfsError> {
    let listing = Listing {
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
                Ok(Ok(entry)) => {
                    self.failures = 0;
                    if let Some(entry) = &entry {
                        self.last_key = Some(entry.path().to_owned());
                    }
                    return Ok(entry);
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

    pub(super) fn status(&self, root: &UfsUri, uri: &UfsUri) -> FileStatus {
        if self.is_file() {
            file_status(root, uri, self.0.metadata())
        } else {
            status::directory(root, uri, 0)
        }
    }
}
