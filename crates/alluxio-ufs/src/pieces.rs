//! A long range in pieces, by one request that goes on while its pieces are used.
//!
//! A store counts and charges requests, and each one costs a round trip before its first byte. So
//! who reads a file from end to end asks for many pages at once and takes each as it comes. Only
//! whole pieces are handed out: what a broken request left unfinished is asked for again.

use std::ops::Range;

use alluxio_wire::{FileVersion, UfsUri};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::error::{Subject, UfsError};
use crate::limits::{ATTEMPTS, READ_ATTEMPT_TIMEOUT, wait_before_attempt};
use crate::object::Body;
use crate::{Store, Ufs};

/// Shorter chunks may be parts of a larger buffer of a general client, which they would keep from
/// being given back: they are copied.
const LEAST_BLOCK_BYTES: usize = 512 * 1024;

/// A range on its way.
struct Pieces {
    ufs: Ufs,
    uri: UfsUri,
    version: FileVersion,
    piece_bytes: u64,
    /// What no piece was made of yet.
    left: Range<u64>,
    /// The request under way and what has come of the next piece.
    body: Option<Body>,
    /// Attempts that made no piece, in a row.
    failures: u32,
}

/// The stream of [`Ufs::read_pieces_of_version`].
pub(crate) fn read(
    ufs: Ufs,
    uri: UfsUri,
    range: Range<u64>,
    version: FileVersion,
    piece_bytes: u64,
) -> BoxStream<'static, Result<Bytes, UfsError>> {
    let pieces = Pieces {
        ufs,
        uri,
        version,
        piece_bytes,
        left: range,
        body: None,
        failures: 0,
    };
    stream::try_unfold(pieces, |mut pieces| async move {
        let piece = pieces.next().await?;
        Ok(piece.map(|piece| (piece, pieces)))
    })
    .boxed()
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, UfsError> {
        while !self.left.is_empty() {
            let subject = self.ufs.subject("read", &self.uri)?;
            let attempt = tokio::time::timeout(READ_ATTEMPT_TIMEOUT, self.attempt(&subject));
            let error = match attempt.await {
                Ok(Ok(piece)) => {
                    self.left.start += piece.len() as u64;
                    self.failures = 0;
                    return Ok(Some(piece));
                }
                // The range lies within the file, so what is missing of it is there.
                Ok(Err(error)) => error.into_passing(),
                Err(_) => subject.timed_out(READ_ATTEMPT_TIMEOUT),
            };
            self.body = None;
            self.failures += 1;
            if self.failures >= ATTEMPTS || !error.retryable() {
                return Err(error);
            }
            tracing::debug!(%error, attempt = self.failures, "the store failed, trying again");
            wait_before_attempt(self.failures).await;
        }
        Ok(None)
    }

    /// The next piece, by the request under way or a new one.
    async fn attempt(&mut self, subject: &Subject) -> Result<Bytes, UfsError> {
        let length = self.piece_bytes.min(self.left.end - self.left.start);
        let store = match &self.ufs.inner.store {
            Store::Object(store) => store,
            Store::Local(store) => {
                let _turn = self.ufs.turn().await;
                let range = self.left.start..self.left.start + length;
                let version = Some(&self.version);
                let piece = store.read(subject, &self.uri, range, version).await?;
                return whole(piece, length, subject);
            }
        };
        let body = if let Some(body) = &mut self.body {
            body
        } else {
            let _turn = self.ufs.turn().await;
            let range = self.left.clone();
            let body = store.open(subject, &self.uri, range, &self.version).await?;
            self.body.insert(body)
        };
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        if body.rest.is_empty()
            && let Some(chunk) = body.chunks.try_next().await?
        {
            body.rest = chunk;
        }
        // A chunk of just a page's length is a block that was read as one (`object/direct.rs`).
        if wanted >= LEAST_BLOCK_BYTES && body.rest.len() == wanted {
            return Ok(std::mem::take(&mut body.rest));
        }
        let mut piece = self.ufs.inner.buffers.take(wanted);
        while piece.left() > 0 {
            if body.rest.is_empty() {
                match body.chunks.try_next().await? {
                    Some(chunk) => body.rest = chunk,
                    None => break,
                }
            }
            piece.fill_from(&mut body.rest);
        }
        whole(piece.freeze(), length, subject)
    }
}

fn whole(piece: Bytes, length: u64, subject: &Subject) -> Result<Bytes, UfsError> {
    if piece.len() as u64 == length {
        return Ok(piece);
    }
    Err(subject.unavailable(format!(
        "the answer ended after {} of {length} bytes",
        piece.len()
    )))
}
