//! What a reader gets, and from where, when workers fail in every way they can.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use std::time::Duration;

use alluxio_client::source::OpenedFile;
use alluxio_client::worker::{PageAnswer, Workers};
use alluxio_client::{BytesBySource, Client, ErrorKind, FallbackReason, WorkerEndpoint};
use alluxio_wire::{PageSize, WorkerAddress, WorkerId};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use support::{Folder, PAGE, Reply, ScriptedWorker, nobody};

/// One page and a short one.
const LENGTH: usize = PAGE + 1000;
/// No read-ahead, so that the requests are those of the reads alone.
const PLAIN: &str = "readahead: {max_window: 0}";
const NEVER: &str = "readahead: {max_window: 0}, fallback: {policy: never}";
/// A timeout that a silent worker runs into soon.
const IMPATIENT: &str = "readahead: {max_window: 0}, fallback: {worker_timeout_milliseconds: 100}";

async fn read_all(client: &Client, folder: &Folder, name: &str) -> BytesBySource {
    let reader = client.open(name).await.unwrap();
    let read = reader.read_at(0, LENGTH).await.unwrap();
    let by_source = read.by_source;
    assert!(
        read.into_bytes() == folder.bytes(name),
        "wrong bytes of {name}"
    );
    by_source
}

/// Reads through a cluster of one worker that answers so, and expects all bytes from the UFS for
/// this reason.
async fn expect_ufs(reply: Reply, options: &str, reason: FallbackReason) {
    let folder = Folder::with(&[("a", LENGTH)]);
    let worker = ScriptedWorker::always(reply).await;
    let client = folder.client(&[worker.host_port()], options).await;
    let by_source = read_all(&client, &folder, "a").await;
    assert_eq!(
        by_source,
        BytesBySource {
            ufs: LENGTH as u64,
            ..BytesBySource::default()
        }
    );
    assert_eq!(client.bytes_by_source(), by_source);
    assert_eq!(client.metrics().fallbacks(reason), 2, "{reason:?}");
}

fn pages_asked(worker: &ScriptedWorker) -> usize {
    let targets = worker.targets();
    let pages = targets.iter().filter(|target| target.contains("/page/"));
    pages.count()
}

async fn expect_failure(reply: Reply, kind: ErrorKind) {
    let folder = Folder::with(&[("a", LENGTH)]);
    let info = format!(
        r#"[{{"mType":"file","mName":"a","mPath":"/a","mUfsPath":"{}/a","mLength":{LENGTH}}}]"#,
        folder.root()
    );
    let worker = ScriptedWorker::start(move |target| {
        if target.starts_with("/v1/info") {
            Reply::Answer(200, info.clone().into_bytes())
        } else {
            reply.clone()
        }
    })
    .await;
    let options = "readahead: {max_window: 0}, \
                   fallback: {policy: never, worker_timeout_milliseconds: 100}";
    let client = folder.client(&[worker.host_port()], options).await;
    let reader = client.open("a").await.unwrap();
    let error = reader.read_at(0, 10).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    let named = text.contains("/a") && text.contains(&worker.host_port());
    assert!(named && text.contains("client.fallback.policy"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_holds_the_file_serves_it_over_one_kept_connection() {
    let folder = Folder::with(&[("a", LENGTH)]);
    let worker = ScriptedWorker::holding(&folder).await;
    let client = folder.client(&[worker.host_port()], PLAIN).await;
    let reader = client.open("a").await.unwrap();
    for page in [0, 1] {
        let read = reader.read_at(page * PAGE as u64, 1000).await.unwrap();
        assert_eq!(read.by_source.worker, 1000);
    }
    assert_eq!(worker.connections(), 1);
    let version = client.status("a").await.unwrap().version();
    let target = &worker.targets()[0];
    assert!(target.contains("ufsFullPath=file%3A%2F%2F"), "{target}");
    assert!(target.contains(&format!("version={}", version.as_str().replace(':', "%3A"))));
    assert!(target.contains(&format!("fileLength={LENGTH}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_close_is_a_miss_and_not_a_death() {
    let folder = Folder::with(&[("a", LENGTH)]);
    let misses = ScriptedWorker::always(Reply::EmptyClose).await;
    let also_misses = ScriptedWorker::always(Reply::EmptyClose).await;
    let workers = [misses.host_port(), also_misses.host_port()];
    let client = folder.client(&workers, PLAIN).await;
    for _ in 0..4 {
        let reader = client.open("a").await.unwrap();
        let read = reader.read_at(0, LENGTH).await.unwrap();
        assert!(read.into_bytes() == folder.bytes("a"));
    }
    // Each page was asked of its owner alone, and the owner is not left alone after it.
    assert_eq!(pages_asked(&misses) + pages_asked(&also_misses), 2);
    assert!(misses.targets().is_empty() || also_misses.targets().is_empty());
    assert_eq!(client.metrics().fallbacks(FallbackReason::Miss), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_with_a_request_in_its_hands_is_no_miss() {
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 10)).collect();
    let folder = Folder::with(&files);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dying = listener.local_addr().unwrap();
    let dies = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 64]).await.unwrap();
        // As the kernel does for a killed process: nobody listens any more, then connections close.
        drop(listener);
    });
    let next = ScriptedWorker::holding(&folder).await;
    let workers = [dying.to_string(), next.host_port()];
    let client = folder.client(&workers, PLAIN).await;
    let owned = |name: &&String| client.worker_of(name).unwrap().http_port == dying.port();
    let name = names.iter().find(owned).unwrap();
    let read = client
        .open(name)
        .await
        .unwrap()
        .read_at(0, 10)
        .await
        .unwrap();
    dies.await.unwrap();
    assert_eq!(read.by_source.next_worker, 10);
    assert_eq!(client.metrics().fallbacks(FallbackReason::Miss), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_close_of_a_worker_that_answers_misses_is_a_death() {
    let names: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 10)).collect();
    let folder = Folder::with(&files);
    // It listens still, as a killed process does until the kernel comes to its listener.
    let dying = ScriptedWorker::start(|target| match target {
        "/v1/node?path=/" => Reply::Answer(200, b"{}".to_vec()),
        _ => Reply::EmptyClose,
    });
    let (dying, next) = (dying.await, ScriptedWorker::holding(&folder).await);
    let workers = [dying.host_port(), next.host_port()];
    let client = folder.client(&workers, PLAIN).await;
    for name in &names {
        let reader = client.open(name).await.unwrap();
        let read = reader.read_at(0, 10).await.unwrap();
        assert_eq!(read.by_source.ufs, 0, "{name}");
    }
    let on_the_next = client.bytes_by_source().next_worker / 10;
    assert!(on_the_next > 0);
    // After three failures in a row it is left alone.
    let asked = pages_asked(&dying) as u64;
    assert!(
        asked < on_the_next,
        "asked {asked} times for {on_the_next} files"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_does_not_make_a_worker_rest() {
    let files: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let named: Vec<_> = files.iter().map(|name| (name.as_str(), 10)).collect();
    let folder = Folder::with(&named);
    let worker = ScriptedWorker::always(Reply::EmptyClose).await;
    let client = folder.client(&[worker.host_port()], PLAIN).await;
    for name in &files {
        let read = client
            .open(name)
            .await
            .unwrap()
            .read_at(0, 10)
            .await
            .unwrap();
        assert!(read.into_bytes() == folder.bytes(name));
    }
    assert_eq!(pages_asked(&worker), files.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_files_come_from_the_next_worker() {
    // So many that chance does not give one worker all of them.
    let files: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let named: Vec<_> = files.iter().map(|name| (name.as_str(), LENGTH)).collect();
    let folder = Folder::with(&named);
    let worker = ScriptedWorker::holding(&folder).await;
    let workers = [nobody(), worker.host_port()];
    let client = folder
        .client(
            &workers,
            NEVER.replace("never", "on_worker_failure").as_str(),
        )
        .await;
    let mut total = BytesBySource::default();
    for name in &files {
        let by_source = read_all(&client, &folder, name).await;
        total.worker += by_source.worker;
        total.next_worker += by_source.next_worker;
        assert_eq!((by_source.ufs, by_source.total()), (0, LENGTH as u64));
        // Its owner tells from which of both it came.
        let owner = client.worker_of(name).unwrap().http_port;
        assert_eq!(by_source.worker > 0, owner == worker.address.port());
    }
    assert!(
        total.worker > 0 && total.next_worker > 0,
        "both own files: {total:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_living_worker_everything_comes_from_the_ufs() {
    let folder = Folder::with(&[("a", LENGTH)]);
    let client = folder.client(&[nobody(), nobody()], PLAIN).await;
    assert_eq!(read_all(&client, &folder, "a").await.ufs, LENGTH as u64);
    let counted = client.metrics().fallbacks(FallbackReason::Unreachable)
        + client.metrics().fallbacks(FallbackReason::Resting);
    assert_eq!(counted, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_within_a_page_is_a_failed_worker() {
    expect_ufs(
        Reply::BreaksOff(1000, vec![1; 100]),
        PLAIN,
        FallbackReason::Broken,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_is_a_failed_worker() {
    expect_ufs(
        Reply::Answer(500, b"{}".to_vec()),
        PLAIN,
        FallbackReason::Broken,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_worker_is_passed_over() {
    expect_ufs(
        Reply::Answer(503, Vec::new()),
        PLAIN,
        FallbackReason::Overloaded,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_worker_is_waited_for_in_bounds() {
    expect_ufs(Reply::Silence, IMPATIENT, FallbackReason::TimedOut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_another_version_is_not_believed() {
    expect_ufs(
        Reply::Answer(409, b"{}".to_vec()),
        PLAIN,
        FallbackReason::Stale,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_page_is_never_served_and_counted() {
    let folder = Folder::with(&[("a", LENGTH)]);
    let worker = ScriptedWorker::always(Reply::Answer(200, vec![9; PAGE / 2])).await;
    let client = folder.client(&[worker.host_port()], PLAIN).await;
    assert_eq!(read_all(&client, &folder, "a").await.ufs, LENGTH as u64);
    assert_eq!(client.metrics().fallbacks(FallbackReason::PageSize), 2);
    let families = client.metrics().registry().gather();
    let mismatches = families
        .iter()
        .find(|family| family.name() == "alluxio_client_page_size_mismatch_total")
        .unwrap();
    assert!((mismatches.get_metric()[0].get_counter().get_value() - 2.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_fits_no_request_line_comes_from_the_ufs() {
    let part = "é".repeat(100);
    let name = [part.as_str(); 10].join("/");
    let folder = Folder::with(&[(&name, LENGTH)]);
    let worker = ScriptedWorker::holding(&folder).await;
    let client = folder.client(&[worker.host_port()], PLAIN).await;
    assert_eq!(read_all(&client, &folder, &name).await.ufs, LENGTH as u64);
    assert_eq!(client.metrics().fallbacks(FallbackReason::Unaddressable), 2);
    assert!(worker.targets().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_always_asks_no_worker() {
    let folder = Folder::with(&[("a", LENGTH)]);
    let worker = ScriptedWorker::holding(&folder).await;
    let options = PLAIN.to_owned() + ", fallback: {policy: always}";
    let client = folder.client(&[worker.host_port()], &options).await;
    assert_eq!(read_all(&client, &folder, "a").await.ufs, LENGTH as u64);
    assert!(worker.targets().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_without_workers_is_read_from_the_ufs() {
    let folder = Folder::with(&[("a", LENGTH)]);
    let client = folder.client(&[], PLAIN).await;
    assert_eq!(read_all(&client, &folder, "a").await.ufs, LENGTH as u64);
    assert_eq!(client.worker_of("a"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_the_policy_never_is_refused() {
    let folder = Folder::with(&[]);
    let error = Client::connect(&folder.config(&[], NEVER))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("cluster.membership"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_never_fails_with_object_cause_and_remedy() {
    let failures = [
        (Reply::EmptyClose, ErrorKind::Unavailable),
        (Reply::Answer(500, Vec::new()), ErrorKind::Unavailable),
        (Reply::Answer(503, Vec::new()), ErrorKind::Throttled),
        (Reply::Answer(409, Vec::new()), ErrorKind::Stale),
        (Reply::Answer(200, vec![0; 7]), ErrorKind::Corrupt),
        (Reply::BreaksOff(PAGE, Vec::new()), ErrorKind::Unavailable),
        (Reply::Silence, ErrorKind::TimedOut),
    ];
    for (reply, kind) in failures {
        expect_failure(reply, kind).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_two_versions_never_mix() {
    let mut folder = Folder::with(&[("a", 2 * PAGE)]);
    let client = folder
        .client(&[], &(PLAIN.to_owned() + ", metadata_ttl_seconds: 3600"))
        .await;
    let reader = client.open("a").await.unwrap();
    reader.read_at(0, 10).await.unwrap();
    folder.write("a", &vec![1; 2 * PAGE + 1]);
    let error = reader.read_at(PAGE as u64, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    // What was read before is still of the version that was opened.
    reader.read_at(0, 10).await.unwrap();
    // Opened again, it is the new version, though the old status was to be believed for an hour.
    let fresh = client
        .open("a")
        .await
        .unwrap()
        .read_at(0, 10)
        .await
        .unwrap();
    assert!(fresh.into_bytes() == [1; 10][..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_deleted_after_open_is_an_error() {
    let folder = Folder::with(&[("a", PAGE)]);
    let client = folder.client(&[], PLAIN).await;
    let reader = client.open("a").await.unwrap();
    std::fs::remove_file(folder.path("a")).unwrap();
    assert_eq!(
        reader.read_at(0, 1).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_host_is_used_where_the_host_cannot_be_reached() {
    let folder = Folder::with(&[("a", 10)]);
    let worker = ScriptedWorker::holding(&folder).await;
    // Nothing listens on this address of the loopback network.
    let mut address = WorkerAddress::http("127.255.255.254", worker.address.port());
    address.container_host = "127.0.0.1".to_owned();
    let endpoint = WorkerEndpoint::new(WorkerId::from_host("w"), address).unwrap();
    let uri = folder.root().join("a").unwrap();
    let file = OpenedFile {
        id: uri.file_id(),
        uri,
        version: alluxio_wire::FileVersion::from_text("1"),
        length: 10,
        modified_ms: 0,
        page_size: PageSize::new(PAGE as u64).unwrap(),
    };
    let workers = Workers::new(Duration::from_secs(10), 8);
    for _ in 0..2 {
        let answer = workers.page(&endpoint, &file, 0, false).await;
        assert!(matches!(answer, PageAnswer::Page(_)), "{answer}");
    }
}
