//! Pages: read through, kept, of one version, once for all who wait, never corrupt.

use alluxio_wire::{FileVersion, PageRange, route};
use futures::future::join_all;

use crate::s3::{Fault, S3Server};
use crate::support::{PAGE, Setup, content, object_reads, page_files, put_object};

#[tokio::test]
async fn a_file_reads_back_page_by_page_and_then_from_the_disk() {
    let server = S3Server::start(false).await;
    let bytes = content(1, 2 * PAGE + 100);
    put_object(&server, "a/f.bin", &bytes);
    let worker = Setup::s3(&server).start().await;
    for _ in 0..2 {
        for (index, expected) in (0..).zip(bytes.chunks(PAGE)) {
            let page = worker.page("a/f.bin", index).await;
            assert_eq!(page.code, 200);
            assert!(page.body == expected, "page {index}");
        }
    }
    assert_eq!(object_reads(&server), 3);
    assert_eq!(worker.pages_kept().await, 3);
    assert_eq!(worker.metric("alluxio_worker_page_hits_total").await, 3);
    assert_eq!(worker.metric("alluxio_worker_page_misses_total").await, 3);
    let read = worker.metric("alluxio_worker_ufs_read_bytes_total").await;
    assert_eq!(read, bytes.len());
}

#[tokio::test]
async fn parts_of_a_page_follow_the_real_workers_rules() {
    let server = S3Server::start(false).await;
    let bytes = content(2, PAGE + 1000);
    put_object(&server, "f", &bytes);
    let worker = Setup::s3(&server).start().await;
    let uri = worker.root().join("f").unwrap();
    let part = |index, offset, length| {
        let range = PageRange { offset, length };
        route::page(&uri.file_id(), index, Some(&uri), Some(range))
    };
    // The first is a miss, the others hits: both must cut alike.
    for _ in 0..2 {
        let second = &bytes[PAGE..];
        assert_eq!(worker.get(&part(1, 10, 20)).await.body, second[10..30]);
        assert_eq!(worker.get(&part(1, 900, 500)).await.body, second[900..]);
        let at_end = worker.get(&part(1, 1000, 5)).await;
        assert_eq!((at_end.code, at_end.body.len()), (200, 0));
        let beyond = worker.get(&part(1, 1001, 5)).await;
        assert_eq!((beyond.code, beyond.error().as_str()), (416, "OutOfRange"));
    }
    let length_alone = route::page(&uri.file_id(), 1, Some(&uri), None) + "&length=3";
    assert_eq!(worker.get(&length_alone).await.body, bytes[PAGE..]);
}

#[tokio::test]
async fn concurrent_misses_are_one_read_of_the_store() {
    let server = S3Server::start(false).await;
    let bytes = content(3, PAGE);
    put_object(&server, "f", &bytes);
    let worker = Setup::s3(&server).start().await;
    worker.status("f").await;
    let pages = join_all((0..20).map(|_| worker.page("f", 0))).await;
    assert!(pages.iter().all(|page| page.body == bytes));
    assert_eq!(object_reads(&server), 1);
}

#[tokio::test]
async fn only_the_version_that_is_asked_for_is_served() {
    let server = S3Server::start(false).await;
    let (old, new) = (content(4, 500), content(5, 600));
    put_object(&server, "f", &old);
    let worker = Setup::s3(&server).start().await;
    let old_version = worker.status("f").await.version();
    assert!(old_version.content_hash().is_some());
    assert_eq!(worker.page_of("f", 0, &old_version, 500).await.body, old);
    put_object(&server, "f", &new);
    let new_version = worker.status("f").await.version();
    assert_eq!(worker.page_of("f", 0, &new_version, 600).await.body, new);
    // The old version's page is kept for who still reads that version, whole and unmixed.
    assert_eq!(worker.page_of("f", 0, &old_version, 500).await.body, old);
    // A version that is neither kept nor in the store is a conflict, named in JSON.
    let unknown = FileVersion::from_text("etag:unknown");
    let conflict = worker.page_of("f", 0, &unknown, 500).await;
    assert_eq!(
        (conflict.code, conflict.error().as_str()),
        (409, "Conflict")
    );
    // So is a length that the version does not have.
    let conflict = worker.page_of("f", 0, &new_version, 500).await;
    assert_eq!(conflict.code, 409);
}

#[tokio::test]
async fn a_page_of_a_version_that_the_store_has_no_more_is_a_conflict() {
    let server = S3Server::start(false).await;
    put_object(&server, "f", content(6, 2 * PAGE));
    let worker = Setup::s3(&server).start().await;
    let version = worker.status("f").await.version();
    let length = 2 * PAGE as u64;
    assert_eq!(worker.page_of("f", 0, &version, length).await.code, 200);
    put_object(&server, "f", content(7, 2 * PAGE));
    // Page 1 of the old version was never read, and cannot be any more.
    assert_eq!(worker.page_of("f", 1, &version, length).await.code, 409);
    assert_eq!(worker.page_of("f", 0, &version, length).await.code, 200);
}

#[tokio::test]
async fn a_version_from_a_listing_without_hashes_finds_the_same_pages() {
    let server = S3Server::start(false).await;
    let bytes = content(8, 100);
    put_object(&server, "f", &bytes);
    let worker = Setup::s3(&server).start().await;
    let listing = worker.get("/v1/files?path=/").await;
    let listed = alluxio_wire::status::parse_list(&listing.body).unwrap();
    let by_time = listed[0].version();
    assert_eq!(
        by_time.content_hash(),
        None,
        "this store lists without hashes"
    );
    let by_hash = worker.status("f").await.version();
    assert_eq!(worker.page_of("f", 0, &by_hash, 100).await.body, bytes);
    assert_eq!(worker.page_of("f", 0, &by_time, 100).await.body, bytes);
    assert_eq!(object_reads(&server), 1);
    assert_eq!(worker.pages_kept().await, 1);
}

#[tokio::test]
async fn who_names_no_version_gets_the_current_one_after_a_status() {
    let server = S3Server::start(false).await;
    put_object(&server, "f", "first");
    let worker = Setup::s3(&server).start().await;
    assert_eq!(worker.page("f", 0).await.text(), "first");
    put_object(&server, "f", "second");
    worker.status("f").await;
    assert_eq!(worker.page("f", 0).await.text(), "second");
    // By id alone too: the worker knows which file it is.
    let id = worker.root().join("f").unwrap().file_id();
    let by_id = worker.get(&format!("/v1/file/{id}/page/0")).await;
    assert_eq!(by_id.text(), "second");
}

#[tokio::test]
async fn pages_survive_a_restart() {
    let server = S3Server::start(false).await;
    let bytes = content(9, 3 * PAGE);
    put_object(&server, "f", &bytes);
    let worker = Setup::s3(&server).start().await;
    let version = worker.status("f").await.version();
    let identity = worker.worker.record().id;
    worker.page_of("f", 2, &version, 3 * PAGE as u64).await;
    let worker = worker.restart().await;
    assert_eq!(worker.worker.record().id, identity);
    let page = worker.page_of("f", 2, &version, 3 * PAGE as u64).await;
    assert!(page.body == bytes[2 * PAGE..]);
    assert_eq!(object_reads(&server), 1);
}

#[tokio::test]
async fn a_corrupt_page_is_read_again_and_never_served() {
    let server = S3Server::start(false).await;
    let bytes = content(10, PAGE);
    put_object(&server, "f", &bytes);
    let worker = Setup::s3(&server).start().await;
    worker.page("f", 0).await;
    let kept = page_files(worker.folder.path());
    let mut spoilt = std::fs::read(&kept[0]).unwrap();
    spoilt[PAGE / 2] ^= 1;
    std::fs::write(&kept[0], spoilt).unwrap();
    assert!(worker.page("f", 0).await.body == bytes);
    assert_eq!(object_reads(&server), 2);
    let corrupt = worker.metric("alluxio_worker_page_store_corrupt_pages_total");
    assert_eq!(corrupt.await, 1);
    assert!(worker.page("f", 0).await.body == bytes);
    assert_eq!(object_reads(&server), 2);
}

#[tokio::test]
async fn the_store_keeps_to_its_capacity() {
    let server = S3Server::start(false).await;
    put_object(&server, "f", content(11, 10 * PAGE));
    let mut setup = Setup::s3(&server);
    // A page takes 17 units of 4 KiB with its checksum: three fit.
    setup.capacity = (3 * 17 * 4096).to_string();
    let worker = setup.start().await;
    for index in 0..10 {
        assert_eq!(worker.page("f", index).await.code, 200);
    }
    assert_eq!(worker.pages_kept().await, 3);
    let evicted = worker.metric("alluxio_worker_page_store_evicted_pages_total");
    assert_eq!(evicted.await, 7);
    assert_eq!(page_files(worker.folder.path()).len(), 3);
}

#[tokio::test]
async fn a_page_larger_than_the_store_is_served_all_the_same() {
    let server = S3Server::start(false).await;
    let bytes = content(12, PAGE);
    put_object(&server, "f", &bytes);
    let mut setup = Setup::s3(&server);
    setup.capacity = "4096".to_owned();
    let worker = setup.start().await;
    assert!(worker.page("f", 0).await.body == bytes);
    assert_eq!(worker.pages_kept().await, 0);
}

#[tokio::test]
async fn failures_of_the_store_become_codes() {
    let server = S3Server::start(false).await;
    put_object(&server, "f", "x");
    let worker = Setup::s3(&server).start().await;
    for (status, code, expected) in [
        (403, "AccessDenied", 403),
        (503, "SlowDown", 503),
        (500, "InternalError", 502),
    ] {
        server.inject([Fault::Answer(status, code); 10]);
        let answer = worker.page("f", 0).await;
        assert_eq!(answer.code, expected, "{}", answer.text());
        answer.error();
        server.clear_faults();
    }
    assert_eq!(worker.page("f", 0).await.text(), "x");
}
