//! Distributed loads: three workers in one process, files on their owners, failures survived.

use std::collections::HashMap;

use alluxio_client::ring::HashRing;
use alluxio_wire::{
    LoadCounts, LoadOp, LoadOptions, LoadState, ProgressAnswer, StopAnswer, SubmitAnswer, UfsUri,
    WorkerId, route,
};
use serde_json::json;

use crate::s3::S3Server;
use crate::support::{
    PAGE, Setup, TestWorker, content, free_port, object_reads, page_files, put_object, until,
};

pub(crate) const FILES: usize = 30;

/// Workers of one static list, started in its order.
pub(crate) async fn cluster(server: &S3Server, started: usize, listed: usize) -> Vec<TestWorker> {
    let ports: Vec<u16> = (0..listed).map(|_| free_port()).collect();
    let names: Vec<String> = ports.iter().map(|p| format!("'127.0.0.1:{p}'")).collect();
    let mut workers = Vec::new();
    for port in &ports[..started] {
        let mut setup = Setup::s3(server);
        setup.membership = format!("{{type: static, workers: [{}]}}", names.join(", "));
        setup.port = *port;
        workers.push(setup.start().await);
    }
    workers
}

/// Files of one and of two pages; returns how many pages and bytes they have.
pub(crate) fn put_files(server: &S3Server) -> (usize, u64) {
    let (mut pages, mut bytes) = (0, 0);
    for number in 0..FILES {
        let length = if number % 3 == 0 { PAGE + 10 } else { 1000 };
        put_object(
            server,
            &format!("train/{}/{number}.jpg", number % 4),
            content(number, length),
        );
        pages += length.div_ceil(PAGE);
        bytes += length as u64;
    }
    (pages, bytes)
}

impl TestWorker {
    pub(crate) fn train(&self) -> UfsUri {
        self.root().join("train").unwrap()
    }

    pub(crate) async fn submit(&self, uri: &UfsUri, options: &LoadOptions) -> SubmitAnswer {
        let target = route::load(uri, LoadOp::Submit, options).unwrap();
        let answer = self.get(&target).await;
        assert_eq!(answer.code, 200, "{}", answer.text());
        SubmitAnswer::parse(&answer.body).unwrap()
    }

    pub(crate) async fn progress(&self, uri: &UfsUri) -> ProgressAnswer {
        let target = route::load(uri, LoadOp::Progress, &LoadOptions::default()).unwrap();
        ProgressAnswer::parse(&self.get(&target).await.body).unwrap()
    }

    pub(crate) async fn stop(&self, uri: &UfsUri) -> StopAnswer {
        let target = route::load(uri, LoadOp::Stop, &LoadOptions::default()).unwrap();
        StopAnswer::parse(&self.get(&target).await.body).unwrap()
    }

    /// Submits a load and waits for its end.
    pub(crate) async fn load(&self, options: &LoadOptions) -> (LoadState, LoadCounts) {
        let uri = self.train();
        let submitted = self.submit(&uri, options).await;
        assert!(submitted.success, "{submitted:?}");
        self.end_of(&uri).await
    }

    pub(crate) async fn end_of(&self, uri: &UfsUri) -> (LoadState, LoadCounts) {
        let end = until("the load ends", || async {
            Some(self.progress(uri).await).filter(|progress| progress.state.is_final())
        })
        .await;
        (end.state, end.progress.unwrap())
    }
}

#[tokio::test]
async fn each_worker_loads_the_files_that_it_owns() {
    let server = S3Server::start(false).await;
    let (pages, bytes) = put_files(&server);
    let workers = cluster(&server, 3, 3).await;
    let (state, counts) = workers[0].load(&LoadOptions::default()).await;
    assert_eq!(state, LoadState::Succeeded, "{counts:?}");
    let files = FILES as u64;
    assert_eq!((counts.files_total, counts.files_done), (files, files));
    assert_eq!((counts.bytes_total, counts.bytes_done), (bytes, bytes));
    assert_eq!((counts.files_skipped, counts.failure_count), (0, 0));
    assert_eq!(
        (counts.listing_done, counts.eta_seconds),
        (Some(true), None)
    );
    assert_eq!(counts.workers.iter().map(|w| w.files).sum::<u64>(), files);
    assert_eq!(counts.workers.iter().map(|w| w.bytes).sum::<u64>(), bytes);
    assert_eq!(object_reads(&server), pages);

    // The ring alone says where each page must be; reading them there reads nothing again.
    let ids: Vec<WorkerId> = workers.iter().map(|w| w.worker.record().id).collect();
    let ring = HashRing::new(&ids, 100);
    let mut pages_of: HashMap<WorkerId, usize> = HashMap::new();
    for number in 0..FILES {
        let name = format!("train/{}/{number}.jpg", number % 4);
        let uri = workers[0].root().join(&name).unwrap();
        let owner = ring.pick(uri.as_str(), 1)[0];
        let worker = workers.iter().find(|w| w.worker.record().id == owner);
        let worker = worker.unwrap();
        let length = if number % 3 == 0 { PAGE + 10 } else { 1000 };
        let bytes = content(number, length);
        for (index, expected) in (0..).zip(bytes.chunks(PAGE)) {
            assert!(worker.page(&name, index).await.body == expected);
            *pages_of.entry(owner).or_default() += 1;
        }
        let node = worker.get(&format!("/v1/node?path={uri}")).await.json();
        assert_eq!(node["HttpServerPort"], worker.worker.address().port());
    }
    assert_eq!(object_reads(&server), pages);
    for worker in &workers {
        let owned = pages_of.get(&worker.worker.record().id).copied();
        assert!(owned.is_some(), "30 files fall on all of three workers");
        assert_eq!(worker.pages_kept().await, owned.unwrap());
    }
}

#[tokio::test]
async fn a_dead_owner_is_passed_over_to_the_next_on_the_ring() {
    let server = S3Server::start(false).await;
    let (pages, bytes) = put_files(&server);
    // Three are listed, two run.
    let workers = cluster(&server, 2, 3).await;
    let (state, counts) = workers[0].load(&LoadOptions::default()).await;
    assert_eq!(state, LoadState::Succeeded, "{counts:?}");
    assert_eq!(
        (counts.files_done, counts.bytes_done),
        (FILES as u64, bytes)
    );
    assert_eq!(counts.failure_count, 0);
    let kept = workers[0].pages_kept().await + workers[1].pages_kept().await;
    assert_eq!(kept, pages);
}

#[tokio::test]
async fn a_second_load_reads_nothing_again() {
    let server = S3Server::start(false).await;
    let (pages, bytes) = put_files(&server);
    let workers = cluster(&server, 3, 3).await;
    workers[0].load(&LoadOptions::default()).await;
    for skip_if_exists in [false, true] {
        let options = LoadOptions {
            skip_if_exists,
            partial_listing: true,
            ..LoadOptions::default()
        };
        let (state, counts) = workers[1].load(&options).await;
        assert_eq!((state, counts.bytes_done), (LoadState::Succeeded, bytes));
        assert_eq!(
            (counts.files_skipped, counts.bytes_skipped),
            (FILES as u64, bytes)
        );
    }
    assert_eq!(object_reads(&server), pages);
}

#[tokio::test]
async fn a_changed_file_is_loaded_in_its_new_version() {
    let server = S3Server::start(false).await;
    put_files(&server);
    let workers = cluster(&server, 1, 1).await;
    workers[0].load(&LoadOptions::default()).await;
    let before = object_reads(&server);
    put_object(&server, "train/0/0.jpg", content(99, 100));
    let options = LoadOptions {
        skip_if_exists: true,
        ..LoadOptions::default()
    };
    workers[0].load(&options).await;
    assert_eq!(object_reads(&server), before + 1);
}

#[tokio::test]
async fn verify_reads_every_page_and_mends_what_is_spoilt() {
    let server = S3Server::start(false).await;
    let (pages, bytes) = put_files(&server);
    let workers = cluster(&server, 2, 2).await;
    workers[0].load(&LoadOptions::default()).await;
    for worker in &workers {
        let kept = page_files(worker.folder.path());
        std::fs::write(&kept[0], "spoilt").unwrap();
    }
    // The first round believes the index; it is the second one that reads.
    let options = LoadOptions {
        skip_if_exists: true,
        verify: true,
        ..LoadOptions::default()
    };
    let (state, counts) = workers[0].load(&options).await;
    assert_eq!(state, LoadState::Succeeded);
    assert_eq!(
        (counts.files_done, counts.bytes_done),
        (FILES as u64, bytes)
    );
    assert_eq!(object_reads(&server), pages + 2);
    for worker in &workers {
        let corrupt = worker.metric("alluxio_worker_page_store_corrupt_pages_total");
        assert_eq!(corrupt.await, 1);
    }
}

#[tokio::test]
async fn metadata_only_and_the_filter_leave_out_what_they_say() {
    let server = S3Server::start(false).await;
    put_files(&server);
    let workers = cluster(&server, 1, 1).await;
    let metadata = LoadOptions {
        metadata_only: true,
        ..LoadOptions::default()
    };
    let (state, counts) = workers[0].load(&metadata).await;
    assert_eq!(
        (state, counts.files_done),
        (LoadState::Succeeded, FILES as u64)
    );
    assert_eq!((object_reads(&server), counts.bytes_total), (0, 0));
    let filter = LoadOptions {
        file_filter: Some("/train/1/.*\\.jpg$".to_owned()),
        ..LoadOptions::default()
    };
    let (state, counts) = workers[0].load(&filter).await;
    // Numbers 1, 5, 9, ... 29.
    assert_eq!((state, counts.files_total), (LoadState::Succeeded, 8));
}

#[tokio::test]
async fn a_running_load_can_be_asked_for_and_stopped_and_begun_again() {
    let server = S3Server::start(false).await;
    put_files(&server);
    let workers = cluster(&server, 2, 2).await;
    let uri = workers[0].train();
    // At one byte a second the first pages pass and the others wait for hours.
    let slow = LoadOptions {
        bandwidth_bytes_per_second: Some(1),
        ..LoadOptions::default()
    };
    workers[0].submit(&uri, &slow).await;
    let running = until("the load has found its files", || async {
        let progress = workers[0].progress(&uri).await;
        let total = progress.progress.as_ref().unwrap().files_total;
        (total == FILES as u64).then_some(progress)
    })
    .await;
    assert_eq!(running.state, LoadState::Running);
    let again = route::load(&uri, LoadOp::Submit, &slow).unwrap();
    let conflict = workers[0].get(&again).await;
    assert_eq!(
        (conflict.code, conflict.error().as_str()),
        (409, "Conflict")
    );
    assert!(conflict.text().contains("RUNNING already"));

    assert!(workers[0].stop(&uri).await.success);
    assert!(!workers[0].stop(&uri).await.success);
    assert_eq!(workers[0].progress(&uri).await.state, LoadState::Stopped);
    let (state, _) = workers[0].load(&LoadOptions::default()).await;
    assert_eq!(state, LoadState::Succeeded);
}

#[tokio::test]
async fn a_load_of_one_file_and_of_nothing_are_told_apart() {
    let server = S3Server::start(false).await;
    put_files(&server);
    let workers = cluster(&server, 1, 1).await;
    let file = workers[0].root().join("train/1/1.jpg").unwrap();
    assert!(
        workers[0]
            .submit(&file, &LoadOptions::default())
            .await
            .success
    );
    let (state, counts) = workers[0].end_of(&file).await;
    assert_eq!((state, counts.files_total), (LoadState::Succeeded, 1));

    let missing = workers[0].root().join("nothing").unwrap();
    let refused = workers[0].submit(&missing, &LoadOptions::default()).await;
    assert_eq!((refused.success, refused.job_id.as_str()), (false, "NONE"));
    let unknown = workers[0].progress(&missing).await;
    assert_eq!((unknown.state, unknown.progress), (LoadState::Failed, None));
    assert!(!workers[0].stop(&missing).await.success);
}

#[tokio::test]
async fn a_file_that_cannot_be_loaded_fails_the_load_by_name_and_no_other() {
    let server = S3Server::start(false).await;
    put_files(&server);
    let workers = cluster(&server, 2, 2).await;
    // Listed, but not readable: a link to nowhere is an object that is gone when it is read.
    let gone = server.bucket_folder().join("data/train/gone.jpg");
    std::os::unix::fs::symlink("/nowhere", gone).unwrap();
    for verify in [false, true] {
        let options = LoadOptions {
            verify,
            ..LoadOptions::default()
        };
        let (state, counts) = workers[0].load(&options).await;
        assert_eq!(state, LoadState::Failed);
        assert_eq!(counts.files_total, FILES as u64 + 1);
        assert_eq!(counts.files_done, FILES as u64 + 1);
        // Once, also where a second round reads what the first one loaded.
        assert_eq!(counts.failure_count, 1);
        assert!(counts.failures[0].path.ends_with("train/gone.jpg"));
        assert!(counts.failures[0].reason.contains("404"), "{counts:?}");
    }
}

#[tokio::test]
async fn a_strangers_batch_is_bounded_and_stays_below_the_root() {
    let server = S3Server::start(false).await;
    put_files(&server);
    let workers = cluster(&server, 1, 1).await;
    let batch = |uris: Vec<String>| {
        let file = |uri| json!({"uri": uri, "length": 1, "modifiedMs": 0, "contentHash": null});
        let files: Vec<_> = uris.into_iter().map(file).collect();
        json!({"job": "x", "mode": "load", "skipIfExists": false, "files": files})
            .to_string()
            .into_bytes()
    };
    let target = "/v1/internal/load";
    let outside = batch(vec!["s3://other/secret".to_owned()]);
    let refused = workers[0].post(target, outside).await;
    assert_eq!((refused.code, refused.error().as_str()), (403, "Forbidden"));
    let many = batch(vec!["s3://bucket/data/x".to_owned(); 65]);
    assert_eq!(workers[0].post(target, many).await.code, 413);
    assert_eq!(workers[0].post(target, b"oops".to_vec()).await.code, 400);
    assert_eq!(workers[0].get(target).await.code, 405);
}

#[tokio::test]
async fn a_strangers_batch_with_a_wrong_length_keeps_no_short_pages() {
    let server = S3Server::start(false).await;
    put_object(&server, "f", content(1, PAGE + 10));
    let worker = cluster(&server, 1, 1).await.remove(0);
    let status = worker.status("f").await;
    assert!(status.content_hash.is_some());
    let file = json!({
        "uri": status.ufs_uri,
        "length": 10,
        "modifiedMs": status.modified_ms,
        "contentHash": status.content_hash,
    });
    let batch = json!({"job": "x", "mode": "load", "skipIfExists": false, "files": [file]});
    let body = batch.to_string().into_bytes();
    let events = worker.post("/v1/internal/load", body).await;
    assert!(events.text().contains("\"done\""), "{}", events.text());
    assert_eq!(worker.pages_kept().await, 2);
    let length = status.length;
    let page = worker.page_of("f", 0, &status.version(), length).await;
    assert_eq!(page.code, 200, "{}", page.text());
    assert!(page.body == content(1, PAGE + 10)[..PAGE]);
}
