//! A million files through the real engine: only the store and the owners are made up.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alluxio_ufs::UfsError;
use alluxio_wire::{FileKind, FileStatus, LoadOptions, LoadState, UfsUri, WorkerId};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;

use super::cluster::Cluster;
use super::dispatch::Dispatcher;
use super::job::Job;
use super::journal::Journal;
use super::message::{Batch, Event};

/// Each file of this length.
const BYTES: u64 = 1000;

/// A listing made as it is read, and three owners that load at once.
struct Generated {
    files: u64,
    listed: AtomicU64,
    loaded: AtomicU64,
    /// The most files that were listed and not yet loaded: what the engine held.
    most_held: AtomicU64,
}

impl Cluster for Arc<Generated> {
    fn walk(&self, uri: &UfsUri) -> BoxStream<'static, Result<FileStatus, UfsError>> {
        let (this, uri) = (Self::clone(self), uri.clone());
        stream::iter(0..self.files)
            .map(move |number| {
                let listed = this.listed.fetch_add(1, Ordering::Relaxed) + 1;
                let held = listed - this.loaded.load(Ordering::Relaxed).min(listed);
                this.most_held.fetch_max(held, Ordering::Relaxed);
                Ok(FileStatus {
                    kind: FileKind::File,
                    name: String::new(),
                    path: String::new(),
                    ufs_uri: format!("{uri}/images/train/{number:08}.jpg"),
                    modified_ms: 0,
                    length: BYTES,
                    content_hash: Some(format!("{number:032x}")),
                })
            })
            .boxed()
    }

    fn workers(&self) -> usize {
        3
    }

    fn owners(&self, uri: &UfsUri, count: usize) -> Vec<WorkerId> {
        let first = usize::from(uri.as_str().as_bytes()[uri.as_str().len() - 5]);
        let ids = ["a", "b", "c"].map(WorkerId::from_host);
        (0..count.min(3)).map(|n| ids[(first + n) % 3]).collect()
    }

    fn send<'a>(
        &'a self,
        _worker: Option<&'a WorkerId>,
        batch: Batch,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            for file in 0..batch.files.len() {
                self.loaded.fetch_add(1, Ordering::Relaxed);
                let (bytes, kept) = (BYTES, false);
                let _ = events.send(Event::Bytes { file, bytes, kept }).await;
                let _ = events.send(Event::Done { file }).await;
            }
            let _ = events.send(Event::End).await;
            Ok(())
        })
    }

    fn name(&self, worker: Option<&WorkerId>) -> String {
        worker.unwrap().to_string()
    }
}

async fn load(files: u64, options: LoadOptions) -> (Arc<Generated>, Job) {
    let cluster = Arc::new(Generated {
        files,
        listed: AtomicU64::new(0),
        loaded: AtomicU64::new(0),
        most_held: AtomicU64::new(0),
    });
    let folder = tempfile::tempdir().unwrap();
    let uri = UfsUri::parse("s3://bucket/dataset").unwrap();
    let job = Job::new("1".to_owned(), uri, options).unwrap();
    let dispatcher = Dispatcher::new(Arc::new(Arc::clone(&cluster)));
    job.run(&dispatcher, &Journal::below(folder.path())).await;
    (cluster, job)
}

#[tokio::test]
async fn a_million_files_are_counted_right_and_never_held_at_one_time() {
    for (files, partial_listing, most) in [(100_000, true, 10_000), (1_000_000, false, 76_000)] {
        let options = LoadOptions {
            partial_listing,
            ..LoadOptions::default()
        };
        let (cluster, job) = load(files, options).await;
        assert_eq!(job.state(), LoadState::Succeeded);
        let counts = job.snapshot(0, 10);
        assert_eq!((counts.files_total, counts.files_done), (files, files));
        assert_eq!(counts.bytes_done, files * BYTES);
        assert_eq!(counts.listing_done, Some(true));
        let held = cluster.most_held.load(Ordering::Relaxed);
        assert!(held <= most, "{held} files were held at one time");
        assert_eq!(job.span(), 0);
    }
}
