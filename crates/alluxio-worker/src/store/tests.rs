//! The page store on a real disk: kept, evicted, restarted, spoilt.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::PathBuf;

use alluxio_wire::{FileKind, FileStatus, UfsUri};
use tempfile::TempDir;

use super::*;

const KIB: u64 = 1024;

fn config(folder: &TempDir, capacity_bytes: u64) -> PageStoreConfig {
    PageStoreConfig {
        first: directory(folder, "store", capacity_bytes),
        others: Vec::new(),
    }
}

fn directory(folder: &TempDir, name: &str, capacity_bytes: u64) -> PageDirectory {
    PageDirectory {
        path: folder.path().join(name),
        capacity_bytes,
    }
}

/// A store over two directories, `a` and `b`.
async fn open_two(folder: &TempDir, capacity_bytes: u64) -> Arc<PageStore> {
    let config = PageStoreConfig {
        first: directory(folder, "a", capacity_bytes),
        others: vec![directory(folder, "b", capacity_bytes)],
    };
    let page_size = PageSize::new(64 * KIB).unwrap();
    PageStore::open(&config, page_size).await.unwrap()
}

/// How many pages each directory holds.
fn pages_of_each(store: &PageStore) -> Vec<u64> {
    store
        .stats_of_each()
        .map(|(_, stats)| stats.pages)
        .collect()
}

async fn open(folder: &TempDir, capacity_bytes: u64) -> Arc<PageStore> {
    let page_size = PageSize::new(64 * KIB).unwrap();
    PageStore::open(&config(folder, capacity_bytes), page_size)
        .await
        .unwrap()
}

fn uri() -> UfsUri {
    UfsUri::parse("s3://b/file").unwrap()
}

fn version(hash: &str) -> Version {
    let status = FileStatus {
        kind: FileKind::File,
        name: "file".to_owned(),
        path: "/file".to_owned(),
        ufs_uri: uri().to_string(),
        modified_ms: 1000,
        length: 200 * KIB,
        content_hash: Some(hash.to_owned()),
    };
    Version::of(&uri(), &status)
}

fn key(version: &Version, index: u64) -> PageKey {
    PageKey {
        file: uri().file_id(),
        tag: version.tag(),
        index,
    }
}

async fn put(store: &Arc<PageStore>, hash: &str, index: u64, page: &'static [u8]) -> PageKey {
    let version = version(hash);
    let key = key(&version, index);
    let page = Bytes::from_static(page);
    store.write(key, &version, page).await.unwrap();
    key
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn versions_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 1024 * KIB).await;
    let old = put(&store, "old", 0, b"old bytes").await;
    let new = put(&store, "new", 0, b"new").await;
    assert_eq!(store.read(&old, 0..100).await.unwrap(), "old bytes");
    assert_eq!(store.read(&new, 0..100).await.unwrap(), "new");
    let wanted = FileVersion::from_text("etag:old");
    let found = store.version(&uri().file_id(), &wanted).unwrap();
    assert_eq!(found.tag(), old.tag);
    let latest = store.known_version(&uri().file_id()).unwrap();
    assert_eq!(latest.tag(), new.tag);
}

#[tokio::test]
async fn a_page_that_is_kept_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 1024 * KIB).await;
    put(&store, "v", 0, b"first").await;
    let key = put(&store, "v", 0, b"second").await;
    assert_eq!(store.read(&key, 1..3).await.unwrap(), "ir");
    assert_eq!(store.stats().pages, 1);
}

#[tokio::test]
async fn the_store_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 1024 * KIB).await;
    let key = put(&store, "v", 2, b"bytes").await;
    let before = store.stats();
    drop(store);
    let store = open(&folder, 1024 * KIB).await;
    assert_eq!(store.stats(), before);
    assert_eq!(store.read(&key, 0..5).await.unwrap(), "bytes");
    let found = store.known_version(&uri().file_id()).unwrap();
    assert_eq!(*found, version("v"));
}

#[tokio::test]
async fn what_does_not_fit_goes_from_the_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    // A small page takes one unit of the disk, 4 KiB: two of them fit.
    let store = open(&folder, 8 * KIB).await;
    let first = put(&store, "v", 0, b"0").await;
    put(&store, "v", 1, b"1").await;
    put(&store, "w", 2, b"2").await;
    assert!(!store.has(&first));
    let stats = store.stats();
    assert_eq!(
        (stats.pages, stats.bytes, stats.evicted_pages),
        (2, 8 * KIB, 1)
    );
    put(&store, "w", 3, b"3").await;
    let left = files_below(&folder.path().join("store/pages-65536"));
    let pages = |p: &&PathBuf| p.extension().is_some_and(|e| e == "page");
    assert_eq!(left.iter().filter(pages).count(), 2);
    // The directory of version v is gone with its last page.
    assert_eq!(left.len(), 3, "{left:?}");
}

#[tokio::test]
async fn a_smaller_capacity_is_kept_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 1024 * KIB).await;
    for index in 0..4 {
        put(&store, "v", index, b"page").await;
    }
    drop(store);
    let store = open(&folder, 8 * KIB).await;
    assert_eq!(store.stats().pages, 2);
}

#[tokio::test]
async fn a_corrupt_page_is_never_served_and_may_be_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 1024 * KIB).await;
    let key = put(&store, "v", 0, b"good bytes").await;
    let path = store.directories[0].1.page_path(&key);
    let mut spoilt = fs::read(&path).unwrap();
    spoilt[3] ^= 0xff;
    fs::write(&path, spoilt).unwrap();
    assert_eq!(store.read(&key, 0..10).await, None);
    assert_eq!(store.stats().corrupt_pages, 1);
    assert!(!path.exists());
    put(&store, "v", 0, b"good bytes").await;
    assert_eq!(store.read(&key, 0..10).await.unwrap(), "good bytes");
}

#[tokio::test]
async fn a_page_outlives_a_read_that_the_disk_failed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 1024 * KIB).await;
    let key = put(&store, "v", 0, b"bytes").await;
    let (path, aside) = (
        store.directories[0].1.page_path(&key),
        folder.path().join("aside"),
    );
    fs::rename(&path, &aside).unwrap();
    // A link to itself fails to open, for root too, and not because the file is missing.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert_eq!(store.read(&key, 0..5).await, None);
    assert!(store.has(&key));
    fs::rename(&aside, &path).unwrap();
    assert_eq!(store.read(&key, 0..5).await.unwrap(), "bytes");
    fs::remove_file(&path).unwrap();
    assert_eq!(store.read(&key, 0..5).await, None);
    assert!(!store.has(&key));
}

#[tokio::test]
async fn what_is_no_page_is_removed_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 1024 * KIB).await;
    let key = put(&store, "v", 0, b"bytes").await;
    let directory = store.directories[0].1.version_directory(&key);
    drop(store);
    let root = folder.path().join("store");
    for path in [
        directory.join("1.page"),
        directory.join("note.txt"),
        root.join("pages-65536/stray"),
        root.join("temporary/7"),
    ] {
        fs::write(path, "x").unwrap();
    }
    fs::create_dir_all(root.join("pages-131072/aa")).unwrap();
    fs::create_dir_all(root.join("pages-65536/aa/no-id/no-tag")).unwrap();
    let store = open(&folder, 1024 * KIB).await;
    assert_eq!(store.stats().pages, 1);
    let left = files_below(&root);
    // The lock, the version and its page.
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(!root.join("pages-131072").exists());
}

#[tokio::test]
async fn a_directory_serves_one_worker() {
    let folder = tempfile::tempdir().unwrap();
    let _store = open(&folder, 1024 * KIB).await;
    let page_size = PageSize::new(64 * KIB).unwrap();
    let error = PageStore::open(&config(&folder, 1024 * KIB), page_size)
        .await
        .unwrap_err();
    assert!(
        matches!(error, WorkerError::PageStoreInUse { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_page_larger_than_the_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, KIB).await;
    let version = version("v");
    let error = store
        .write(key(&version, 0), &version, Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("larger than the whole capacity"));
    assert_eq!(store.stats().bytes, 0);
}

#[tokio::test]
async fn two_directories_share_the_pages_and_keep_them_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_two(&folder, 1024 * KIB).await;
    let mut keys = Vec::new();
    for index in 0..32 {
        keys.push(put(&store, "v", index, b"page").await);
    }
    let before = pages_of_each(&store);
    assert!(before.iter().all(|pages| *pages > 4), "{before:?}");
    assert_eq!(before.iter().sum::<u64>(), 32);
    drop(store);
    let store = open_two(&folder, 1024 * KIB).await;
    assert_eq!(pages_of_each(&store), before);
    for key in &keys {
        assert_eq!(store.read(key, 0..4).await.unwrap(), "page");
    }
    assert_eq!(store.forget(&uri().file_id()).await, 32);
    assert_eq!(store.stats().pages, 0);
}

#[tokio::test]
async fn each_directory_evicts_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_two(&folder, 8 * KIB).await;
    for index in 0..32 {
        put(&store, "v", index, b"page").await;
    }
    assert_eq!(pages_of_each(&store), [2, 2]);
    assert_eq!(store.stats().evicted_pages, 28);
}

#[tokio::test]
async fn a_page_that_lies_elsewhere_is_found_after_the_capacities_changed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_two(&folder, 1024 * KIB).await;
    for index in 0..16 {
        put(&store, "v", index, b"page").await;
    }
    drop(store);
    let config = PageStoreConfig {
        first: directory(&folder, "b", 1024 * KIB),
        others: vec![directory(&folder, "a", 64 * 1024 * KIB)],
    };
    let page_size = PageSize::new(64 * KIB).unwrap();
    let store = PageStore::open(&config, page_size).await.unwrap();
    for index in 0..16 {
        let key = put(&store, "v", index, b"other").await;
        assert_eq!(store.read(&key, 0..9).await.unwrap(), "page");
    }
    assert_eq!(store.stats().pages, 16);
}

#[tokio::test]
async fn a_directory_that_fails_is_taken_out_and_the_others_serve() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_two(&folder, 1024 * KIB).await;
    for index in 0..16 {
        put(&store, "v", index, b"page").await;
    }
    let of_a = pages_of_each(&store)[0];
    // A file in the place of a folder fails every write, for root too.
    let broken = folder.path().join("b");
    fs::remove_dir_all(&broken).unwrap();
    fs::write(&broken, "").unwrap();
    let version = version("w");
    let mut failures = 0;
    for index in 0..64 {
        let page = Bytes::from_static(b"more");
        let written = store.write(key(&version, index), &version, page).await;
        failures += u32::from(written.is_err());
    }
    assert_eq!(failures, 3);
    let stats = store.stats();
    assert_eq!(stats.failed_directories, 1);
    assert_eq!((stats.pages, pages_of_each(&store)[1]), (of_a + 61, 0));
    assert_eq!(stats.capacity_bytes, 1024 * KIB);
}

#[tokio::test]
async fn a_directory_that_cannot_be_opened_is_left_out_unless_it_is_the_first() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("b"), "no folder").unwrap();
    let store = open_two(&folder, 1024 * KIB).await;
    put(&store, "v", 0, b"page").await;
    assert_eq!(store.stats().failed_directories, 1);
    assert_eq!(pages_of_each(&store), [1]);
    drop(store);
    let page_size = PageSize::new(64 * KIB).unwrap();
    let first = PageStoreConfig {
        first: directory(&folder, "b", KIB),
        others: Vec::new(),
    };
    assert!(PageStore::open(&first, page_size).await.is_err());
    // Two stores on one directory are a mistake, not a failing disk.
    let _other = open(&folder, KIB).await;
    let taken = PageStoreConfig {
        first: directory(&folder, "c", KIB),
        others: vec![directory(&folder, "store", KIB)],
    };
    let error = PageStore::open(&taken, page_size).await.unwrap_err();
    assert!(
        matches!(error, WorkerError::PageStoreInUse { .. }),
        "{error}"
    );
}
