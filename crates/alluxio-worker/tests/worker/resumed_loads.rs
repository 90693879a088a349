//! Loads that outlive a worker, lists of failures, and what a small file costs.

use alluxio_wire::{LoadOptions, LoadState, ProgressAnswer, ProgressQuery, route};
use serde_json::json;

use crate::loads::{FILES, cluster, put_files};
use crate::s3::S3Server;
use crate::support::{content, object_reads, put_object, until};

/// One page of 64 KiB in two seconds: a load that is still at work when a test gets to it.
fn slow() -> LoadOptions {
    LoadOptions {
        bandwidth_bytes_per_second: Some(32 * 1024),
        ..LoadOptions::default()
    }
}

#[tokio::test]
async fn a_coordinator_that_starts_again_goes_on_with_its_load_by_itself() {
    let server = S3Server::start(false).await;
    let (pages, bytes) = put_files(&server);
    let mut workers = cluster(&server, 2, 2).await;
    let uri = workers[0].train();
    workers[0].submit(&uri, &slow()).await;
    until("some files are loaded", || async {
        let progress = workers[0].progress(&uri).await.progress.unwrap();
        (progress.files_done > 3).then_some(())
    })
    .await;
    let coordinator = workers.remove(0).restart().await;
    let (state, counts) = coordinator.end_of(&uri).await;
    assert_eq!(state, LoadState::Succeeded, "{counts:?}");
    assert_eq!(
        (counts.files_total, counts.files_done),
        (FILES as u64, FILES as u64)
    );
    assert_eq!((counts.bytes_total, counts.bytes_done), (bytes, bytes));
    assert_eq!(
        object_reads(&server),
        pages,
        "what is cached is not read again"
    );
}

#[tokio::test]
async fn a_stopped_and_a_finished_load_are_remembered_by_the_next_start() {
    let server = S3Server::start(false).await;
    put_files(&server);
    let worker = cluster(&server, 1, 1).await.remove(0);
    let stopped = worker.train().join("1").unwrap();
    worker.submit(&stopped, &slow()).await;
    assert!(worker.stop(&stopped).await.success);
    worker.load(&LoadOptions::default()).await;
    let before = worker.progress(&worker.train()).await.progress.unwrap();
    let worker = worker.restart().await;
    assert_eq!(worker.progress(&stopped).await.state, LoadState::Stopped);
    let after = worker.progress(&worker.train()).await;
    assert_eq!(after.state, LoadState::Succeeded);
    let after = after.progress.unwrap();
    assert_eq!(after.files_done, before.files_done);
    assert_eq!(after.bytes_done, before.bytes_done);
}

#[tokio::test]
async fn files_that_changed_while_the_coordinator_was_away_are_loaded_as_they_are_now() {
    let server = S3Server::start(false).await;
    put_files(&server);
    let worker = cluster(&server, 1, 1).await.remove(0);
    let uri = worker.train();
    worker.submit(&uri, &slow()).await;
    until("some files are loaded", || async {
        let progress = worker.progress(&uri).await.progress.unwrap();
        (progress.files_done > 3).then_some(())
    })
    .await;
    let (config, folder) = (worker.config.clone(), worker.folder);
    worker.worker.shutdown().await;
    // The first file of the listing, which is loaded already.
    put_object(&server, "train/0/0.jpg", content(77, 50));
    put_object(&server, "train/0/00.jpg", content(78, 50));
    let worker = crate::support::TestWorker::start(config, folder).await;
    let (state, counts) = worker.end_of(&uri).await;
    assert_eq!(state, LoadState::Succeeded, "{counts:?}");
    assert_eq!(counts.files_total, FILES as u64 + 1);
    assert_eq!(counts.files_done, FILES as u64 + 1);
    assert_eq!(counts.bytes_total, counts.bytes_done);
    let reads = object_reads(&server);
    assert!(worker.page("train/0/0.jpg", 0).await.body == content(77, 50));
    assert!(worker.page("train/0/00.jpg", 0).await.body == content(78, 50));
    assert_eq!(object_reads(&server), reads);
}

#[tokio::test]
async fn a_worker_that_goes_away_in_the_middle_leaves_its_files_to_the_next_on_the_ring() {
    let server = S3Server::start(false).await;
    let (_, bytes) = put_files(&server);
    let mut workers = cluster(&server, 3, 3).await;
    let uri = workers[0].train();
    workers[0].submit(&uri, &slow()).await;
    until("some files are loaded", || async {
        let progress = workers[0].progress(&uri).await.progress.unwrap();
        (progress.files_done > 3).then_some(())
    })
    .await;
    drop(workers.remove(2));
    let (state, counts) = workers[0].end_of(&uri).await;
    assert_eq!(state, LoadState::Succeeded, "{counts:?}");
    assert_eq!(
        (counts.files_done, counts.bytes_done),
        (FILES as u64, bytes)
    );
    assert_eq!(counts.failure_count, 0);
}

#[tokio::test]
async fn failed_files_are_told_page_by_page() {
    let server = S3Server::start(false).await;
    let worker = cluster(&server, 1, 1).await.remove(0);
    put_object(&server, "train/good", content(0, 10));
    for number in 0..130 {
        let gone = server.bucket_folder();
        let gone = gone.join(format!("data/train/gone-{number:03}"));
        std::os::unix::fs::symlink("/nowhere", gone).unwrap();
    }
    let (state, counts) = worker.load(&LoadOptions::default()).await;
    assert_eq!((state, counts.failure_count), (LoadState::Failed, 130));
    assert_eq!(counts.failures.len(), 100, "the first answer is bounded");
    let mut found = Vec::new();
    for failed_offset in (0..150).step_by(50) {
        let query = ProgressQuery {
            failed_offset,
            failed_limit: Some(50),
            ..ProgressQuery::default()
        };
        let target = route::load_progress(&worker.train(), &query).unwrap();
        let answer = ProgressAnswer::parse(&worker.get(&target).await.body).unwrap();
        let failures = answer.progress.unwrap().failures;
        found.extend(failures.into_iter().map(|failure| failure.path));
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 130);
}

#[tokio::test]
async fn a_small_file_of_another_workers_batch_costs_one_request() {
    let server = S3Server::start(false).await;
    put_object(&server, "f", content(1, 1000));
    let worker = cluster(&server, 1, 1).await.remove(0);
    let status = worker.status("f").await;
    let file = json!({
        "uri": status.ufs_uri,
        "length": status.length,
        "modifiedMs": status.modified_ms,
        "contentHash": status.content_hash.unwrap(),
    });
    let batch = json!({"job": "x", "mode": "load", "skipIfExists": false, "files": [file]});
    let before = server.requests().len();
    let events = worker
        .post("/v1/internal/load", batch.to_string().into_bytes())
        .await;
    assert!(events.text().contains("\"done\""), "{}", events.text());
    let requests = server.requests();
    assert_eq!(requests.len() - before, 1, "{:?}", &requests[before..]);
}
