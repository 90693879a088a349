//! What falls back to the under-store is told, and held to its budget.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use alluxio_client::{ErrorKind, FallbackReason, Source};
use futures::future::join_all;
use support::{Folder, PAGE, Reply, ScriptedWorker};

const FILE: &str = "a";
const PAGES: usize = 8;

fn options(budget_pages: usize) -> String {
    format!(
        "readahead: {{max_window: 0}}, fallback: {{max_bytes_per_hour: {}}}",
        budget_pages * PAGE
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_tells_bytes_requests_and_time_by_source_and_reason() {
    let folder = Folder::with(&[(FILE, PAGES * PAGE)]);
    let holding = ScriptedWorker::holding(&folder).await;
    let missing = ScriptedWorker::always(Reply::EmptyClose).await;
    for (worker, source, misses) in [(&holding, Source::Worker, 0), (&missing, Source::Ufs, 8)] {
        let client = folder.client(&[worker.host_port()], &options(0)).await;
        let reader = client.open(FILE).await.unwrap();
        for pass in 0..2 {
            let read = reader.read_at(0, PAGES * PAGE).await.unwrap();
            assert!(read.into_bytes() == folder.bytes(FILE), "pass {pass}");
        }
        let summary = client.summary();
        let bytes = (PAGES * PAGE) as u64;
        let of = |source| summary.source(source).unwrap();
        assert_eq!(of(source).delivered_bytes, bytes);
        assert_eq!(of(source).fetched_bytes, bytes);
        assert_eq!(of(source).requests, PAGES as u64);
        assert!(of(source).seconds > 0.0);
        assert_eq!(of(Source::Memory).delivered_bytes, bytes);
        assert_eq!(of(Source::Worker).misses, misses);
        assert_eq!((summary.cache.hits, summary.cache.waits), (8, 8));
        assert_eq!(summary.fallback.budget, None);
        let reason = summary.reason(FallbackReason::Miss);
        assert_eq!(reason.map_or(0, |reason| reason.pages), misses);
        assert_eq!(
            reason.map_or(0, |reason| reason.bytes),
            misses * PAGE as u64
        );
        assert!(reason.is_none_or(|reason| reason.seconds > 0.0));
        let active = summary.fallback.active;
        assert_eq!(active.contains(&FallbackReason::Miss), misses > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_holds_however_many_read_side_by_side() {
    const BUDGET_PAGES: usize = 5;
    let folder = Folder::with(&[(FILE, PAGES * PAGE)]);
    let worker = ScriptedWorker::always(Reply::EmptyClose).await;
    let client = folder
        .client(&[worker.host_port()], &options(BUDGET_PAGES))
        .await;
    let reader = client.open(FILE).await.unwrap();
    let reads = join_all((0..PAGES).map(|page| {
        let reader = reader.clone();
        tokio::spawn(async move { reader.read_at((page * PAGE) as u64, PAGE).await })
    }));
    let (mut served, mut refused) = (0, 0);
    for (page, read) in reads.await.into_iter().enumerate() {
        match read.unwrap() {
            Ok(read) => {
                let expected = &folder.bytes(FILE)[page * PAGE..(page + 1) * PAGE];
                assert!(read.into_bytes() == expected);
                served += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
                let text = error.to_string();
                for part in ["/a", "miss", "budget", "client.fallback.max_bytes_per_hour"] {
                    assert!(text.contains(part), "{part} in {text}");
                }
                refused += 1;
            }
        }
    }
    assert_eq!((served, refused), (BUDGET_PAGES, PAGES - BUDGET_PAGES));
    let budget = client.summary().fallback.budget.unwrap();
    assert_eq!(budget.spent_bytes, (BUDGET_PAGES * PAGE) as u64);
    assert_eq!(budget.refused_pages, refused as u64);
    // What is in memory costs nothing.
    assert!(client.bytes_by_source().ufs == (BUDGET_PAGES * PAGE) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_workers_serve_and_what_is_configured_costs_no_budget() {
    let folder = Folder::with(&[(FILE, PAGES * PAGE)]);
    let worker = ScriptedWorker::holding(&folder).await;
    for workers in [vec![], vec![worker.host_port()]] {
        let client = folder.client(&workers, &options(1)).await;
        let reader = client.open(FILE).await.unwrap();
        let read = reader.read_at(0, PAGES * PAGE).await.unwrap();
        assert!(read.into_bytes() == folder.bytes(FILE));
        assert_eq!(client.summary().fallback.budget.unwrap().spent_bytes, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_the_configuration_changes_with_it() {
    let folder = Folder::with(&[(FILE, 1)]);
    let version = async |options: &str| folder.client(&[], options).await.summary().config_version;
    assert_eq!(version("").await, version("").await);
    assert_ne!(version("").await, version(&options(1)).await);
}
