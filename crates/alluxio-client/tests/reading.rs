//! What a reader is promised: the right bytes, each fetched once, within the memory it was given.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alluxio_client::{Client, ErrorKind};
use futures::{FutureExt, StreamExt, TryStreamExt};
use support::{Folder, PAGE, Reply, ScriptedWorker, until};

fn gauge(client: &Client, name: &str) -> f64 {
    let families = client.metrics().registry().gather();
    families
        .iter()
        .find(|family| family.name() == name)
        .unwrap()
        .get_metric()[0]
        .get_gauge()
        .get_value()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_reader_keeps_leaves_memory_first() {
    const PAGES: usize = 40;
    let folder = Folder::with(&[("a", PAGES * PAGE)]);
    let worker = ScriptedWorker::holding(&folder).await;
    let mut config = folder.config(&[worker.host_port()], "memory_limit: 8Mi");
    let mut shares = Vec::new();
    for is_kept_by_reader in [false, true] {
        config.client.is_kept_by_reader = is_kept_by_reader;
        let client = Client::connect(&config).await.unwrap();
        let reader = client.open("a").await.unwrap();
        for page in 0..PAGES {
            let read = reader.read_at((page * PAGE) as u64, PAGE).await.unwrap();
            assert!(read.into_bytes() == folder.bytes("a")[page * PAGE..][..PAGE]);
        }
        shares.push(client.cached_share("a", &reader.status().version()));
    }
    assert!(shares[0] > 0.99 && shares[1] < 0.2, "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_range_has_the_files_bytes_and_is_short_only_at_the_end() {
    let length = 3 * PAGE + 123;
    let folder = Folder::with(&[("dir/a", length), ("empty", 0)]);
    let client = folder.client(&[], "").await;
    let reader = client.open("dir/a").await.unwrap();
    let offsets = [
        0,
        1,
        PAGE - 1,
        PAGE,
        PAGE + 1,
        2 * PAGE + 7,
        length - 1,
        length,
        length + 9,
    ];
    let lengths = [0, 1, 100, PAGE, 2 * PAGE + 5, 10 * PAGE];
    for offset in offsets {
        for wanted in lengths {
            let read = reader.read_at(offset as u64, wanted).await.unwrap();
            let expected = folder.bytes("dir/a").get(offset..).unwrap_or_default();
            let expected = &expected[..wanted.min(expected.len())];
            assert_eq!(read.by_source.total(), expected.len() as u64);
            assert!(
                read.into_bytes() == expected,
                "{wanted} bytes from {offset}"
            );
        }
    }
    let empty = client.open("empty").await.unwrap();
    assert!(empty.read_at(0, 10).await.unwrap().is_empty());
    assert!(
        reader
            .read_at(u64::MAX, usize::MAX)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_one_page_cost_one_request() {
    let folder = Folder::with(&[("a", PAGE)]);
    let worker = ScriptedWorker::holding(&folder).await;
    let client = folder.client(&[worker.host_port()], "").await;
    let readers = (0..64).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.open("a").await?.read_at(0, PAGE).await })
    });
    for read in futures::future::join_all(readers).await {
        assert!(read.unwrap().unwrap().into_bytes() == folder.bytes("a"));
    }
    assert_eq!(worker.targets().len(), 1);
    let sources = client.bytes_by_source();
    assert_eq!(
        (sources.worker, sources.memory),
        (PAGE as u64, 63 * PAGE as u64)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_more_than_the_memory_stays_within_it() {
    let length = 64 * PAGE;
    let folder = Folder::with(&[("big", length)]);
    let limit = 6 * PAGE;
    let client = folder.client(&[], &format!("memory_limit: {limit}")).await;
    let reader = client.open("big").await.unwrap();
    for pass in 0..2 {
        let mut offset = 0;
        while offset < length {
            let read = reader.read_at(offset as u64, 100_000).await.unwrap();
            let expected = &folder.bytes("big")[offset..(offset + 100_000).min(length)];
            offset += read.len();
            assert!(read.into_bytes() == expected, "pass {pass} before {offset}");
            #[allow(clippy::cast_precision_loss, reason = "a small number")]
            let limit = limit as f64;
            assert!(gauge(&client, "alluxio_client_memory_cache_bytes") <= limit);
        }
    }
    // One read of the whole file is larger than all memory, and still ends.
    let whole = reader.read_at(0, length).await.unwrap();
    assert!(whole.into_bytes() == folder.bytes("big"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_read_is_from_memory_and_ready_at_once() {
    let folder = Folder::with(&[("a", PAGE + 5)]);
    let client = folder.client(&[], "").await;
    let reader = client.open("a").await.unwrap();
    let first = reader.read_at(0, PAGE + 5).await.unwrap();
    assert_eq!(first.by_source.ufs, PAGE as u64 + 5);
    let version = client.status("a").await.unwrap().version();
    assert!((client.cached_share("a", &version) - 1.0).abs() < 1e-9);
    assert!(
        client.status("a").now_or_never().is_some(),
        "a known status waited"
    );
    // On a thread without a runtime, as the FUSE session polls.
    let again = std::thread::spawn(move || reader.read_at(0, PAGE + 5).now_or_never());
    let again = again
        .join()
        .unwrap()
        .expect("a read from memory waited")
        .unwrap();
    assert_eq!(again.by_source.memory, PAGE as u64 + 5);
    assert!(again.into_bytes() == folder.bytes("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_from_a_thread_without_a_runtime_ends_elsewhere() {
    let folder = Folder::with(&[("a", PAGE)]);
    let client = folder.client(&[], "").await;
    let read = async move { client.open("a").await?.read_at(0, PAGE).await };
    let thread = std::thread::spawn(|| futures::executor::block_on(read));
    let read = tokio::task::spawn_blocking(|| thread.join().unwrap())
        .await
        .unwrap();
    assert!(read.unwrap().into_bytes() == folder.bytes("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_on_finds_the_next_pages_in_memory() {
    let folder = Folder::with(&[("a", 32 * PAGE)]);
    let client = folder.client(&[], "readahead: {max_window: 1Mi}").await;
    let reader = client.open("a").await.unwrap();
    let version = reader.version().clone();
    reader.read_at(0, PAGE).await.unwrap();
    reader.read_at(PAGE as u64, PAGE).await.unwrap();
    let share = || client.cached_share("a", &version);
    until("nothing was read ahead", || share() > 2.5 / 32.0).await;
    // What was read ahead counts as fetched, and not as found in memory.
    let read = reader.read_at(2 * PAGE as u64, PAGE).await.unwrap();
    assert_eq!(read.by_source.ufs, PAGE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_one_time_are_bounded() {
    let folder = Folder::with(&[("a", 16 * PAGE)]);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let bytes = folder.bytes("a").to_vec();
    let worker = ScriptedWorker::start(move |target| {
        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        // Long enough for further requests to arrive, if there were any.
        std::thread::sleep(Duration::from_millis(5));
        running.fetch_sub(1, Ordering::SeqCst);
        let index: usize = support::page_path(target)
            .rsplit('/')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        Reply::Answer(200, bytes[index * PAGE..(index + 1) * PAGE].to_vec())
    })
    .await;
    let client = folder
        .client(&[worker.host_port()], "max_inflight_requests: 2")
        .await;
    let reader = client.open("a").await.unwrap();
    let read = reader.read_at(0, 16 * PAGE).await.unwrap();
    assert!(read.into_bytes() == folder.bytes("a"));
    assert!(seen.load(Ordering::SeqCst) <= 2);
    assert!(worker.connections() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_believed_for_the_configured_time() {
    let mut folder = Folder::with(&[("a", 10)]);
    let believing = folder
        .client(&[], "metadata_ttl_seconds: 3600, negative_ttl_seconds: 0")
        .await;
    let asking = folder.client(&[], "metadata_ttl_seconds: 0").await;
    for client in [&believing, &asking] {
        assert_eq!(client.status("a").await.unwrap().length, 10);
        assert_eq!(client.list("").await.unwrap().len(), 1);
    }
    folder.write("a", &[0; 20]);
    folder.write("b", &[]);
    assert_eq!(believing.status("a").await.unwrap().length, 10);
    assert_eq!(believing.list("").await.unwrap().len(), 1);
    assert_eq!(asking.status("a").await.unwrap().length, 20);
    assert_eq!(asking.list("").await.unwrap().len(), 2);
    // That a name is missing is believed for its own time, here none.
    assert_eq!(
        believing.status("c").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    folder.write("c", &[]);
    believing.status("c").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_finds_all_files_and_bad_paths_are_refused() {
    let folder = Folder::with(&[("a", 1), ("d/b", 1), ("d/e/c", 1)]);
    let client = folder.client(&[], "").await;
    let names: Vec<String> = client
        .walk("")
        .map_ok(|status| status.name)
        .try_collect()
        .await
        .unwrap();
    let mut names = names;
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    for path in ["../x", "/a", "a//b", "."] {
        assert_eq!(
            client.status(path).await.unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        let walked = client.walk(path).next().await.unwrap();
        assert_eq!(walked.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let opened = client.open("d").await.err().unwrap();
    assert_eq!(opened.kind(), ErrorKind::IsDirectory);
    assert_eq!(
        client.list("a").await.unwrap_err().kind(),
        ErrorKind::NotDirectory
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_metrics_are_there_under_their_names() {
    let folder = Folder::with(&[("a", PAGE)]);
    let worker = ScriptedWorker::holding(&folder).await;
    let client = folder.client(&[worker.host_port()], "").await;
    client
        .open("a")
        .await
        .unwrap()
        .read_at(0, PAGE)
        .await
        .unwrap();
    let families = client.metrics().registry().gather();
    let names: Vec<_> = families
        .iter()
        .map(|family| family.name().to_owned())
        .collect();
    let expected = [
        "alluxio_client_breaker_total",
        "alluxio_client_bytes_total",
        "alluxio_client_cache_lookups_total",
        "alluxio_client_deadline_exceeded_total",
        "alluxio_client_fallback_bytes_total",
        "alluxio_client_fallback_refused_total",
        "alluxio_client_fallback_seconds_total",
        "alluxio_client_fallback_total",
        "alluxio_client_fetched_bytes_total",
        "alluxio_client_hedges_total",
        "alluxio_client_inflight_requests",
        "alluxio_client_memory_cache_bytes",
        "alluxio_client_memory_live_bytes",
        "alluxio_client_page_latency_ms",
        "alluxio_client_page_requests_total",
        "alluxio_client_page_size_mismatch_total",
        "alluxio_client_retries_total",
        "alluxio_client_workers",
    ];
    assert_eq!(names, expected);
    let workers = || gauge(&client, "alluxio_client_workers");
    until("the gauge of workers stayed", || {
        (workers() - 1.0).abs() < 0.1
    })
    .await;
    assert!(gauge(&client, "alluxio_client_inflight_requests").abs() < 0.1);
}
