//! The disk cache, as a reader meets it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use alluxio_client::{BytesBySource, Client};
use support::{Folder, PAGE};

async fn read(client: &Client, name: &str, length: usize) -> Vec<u8> {
    let reader = client.open(name).await.unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let read = reader.read_at(bytes.len() as u64, length).await.unwrap();
        assert!(!read.is_empty());
        read.chunks
            .iter()
            .for_each(|chunk| bytes.extend_from_slice(chunk));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_reads_from_the_disk_and_a_new_version_from_its_store() {
    let length = 40 * PAGE + 99;
    let mut folder = Folder::with(&[("a", length)]);
    let cache = tempfile::tempdir().unwrap();
    let options = format!(
        "disk_cache: {{path: {}, min_free: 0}}",
        cache.path().display()
    );
    let first = folder.client(&[], &options).await;
    assert_eq!(read(&first, "a", length).await, folder.bytes("a"));
    first.flush().await;
    drop(first);

    let second = folder.client(&[], &options).await;
    assert_eq!(read(&second, "a", length).await, folder.bytes("a"));
    let expected = BytesBySource {
        disk: length as u64,
        ..BytesBySource::default()
    };
    assert_eq!(second.bytes_by_source(), expected);
    drop(second);

    folder.write("a", &vec![7; length]);
    let third = folder.client(&[], &options).await;
    assert_eq!(read(&third, "a", length).await, vec![7; length]);
    assert_eq!(third.bytes_by_source().disk, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_error_to_the_reader() {
    let length = 40 * PAGE;
    let folder = Folder::with(&[("a", length)]);
    // There is no disk with this much to leave to others.
    let cache = tempfile::tempdir().unwrap();
    let path = cache.path().display();
    let options = format!("disk_cache: {{path: {path}, min_free: 1000Ti}}");
    let client = folder.client(&[], &options).await;
    assert_eq!(read(&client, "a", length).await, folder.bytes("a"));
    client.flush().await;
    let families = client.metrics().registry().gather();
    let paused = families
        .iter()
        .find(|family| family.name() == "alluxio_client_disk_cache_paused")
        .unwrap();
    assert!((paused.get_metric()[0].get_gauge().get_value() - 1.0).abs() < 1e-9);
}
