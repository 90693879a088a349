//! Taking a manifest: a listing as it streams in, sorted and written on the blocking pool.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use alluxio_wire::{FileStatus, UfsUri};
use futures::stream::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::{ManifestBuilder, ManifestSummary};
use crate::error::{Error, ErrorKind, Result};

/// Files that go to the builder at one time: what one LIST request tells.
const BATCH: usize = 1000;
/// Batches that wait for the builder, so that the listing goes on while a run is sorted.
const BATCHES_WAITING: usize = 8;

/// Writes the manifest of a listing of `root`. Where the listing fails, or this is dropped before
/// its end, the file that was there before stays.
pub async fn take(
    root: UfsUri,
    listing: impl Stream<Item = Result<FileStatus>> + Send,
    target: &Path,
) -> Result<ManifestSummary> {
    let (sender, mut batches) = mpsc::channel::<Result<Vec<FileStatus>>>(BATCHES_WAITING);
    let mut builder = ManifestBuilder::new(root, target, now_ms());
    let building = tokio::task::spawn_blocking(move || {
        while let Some(batch) = batches.blocking_recv() {
            for status in batch? {
                builder.add(&status)?;
            }
        }
        Ok(builder)
    });
    let mut listing = std::pin::pin!(listing.ready_chunks(BATCH));
    while let Some(chunk) = listing.next().await {
        // An error ends the listing; the builder ends with it.
        if sender.send(chunk.into_iter().collect()).await.is_err() {
            break;
        }
    }
    drop(sender);
    let builder = building.await.map_err(|error| stopped(&error))??;
    // Only here, past every point at which the caller may have gone.
    tokio::task::spawn_blocking(move || builder.finish())
        .await
        .map_err(|error| stopped(&error))?
}

fn stopped(error: &tokio::task::JoinError) -> Error {
    let context = format!("the manifest was not written: {error}; try again");
    Error::new(ErrorKind::Unexpected, "manifest", context)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}
