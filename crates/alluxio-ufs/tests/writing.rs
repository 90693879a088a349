//! The contract of writing, run against every store: local files, an S3 server in this process that
//! fails on demand, versitygw, and azurite.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/azurite.rs"]
mod azurite;
#[path = "support/gateway.rs"]
mod gateway;
#[allow(dead_code, reason = "shared with tests that use more")]
#[path = "support/s3.rs"]
mod s3;
#[path = "support/tools.rs"]
mod tools;

use alluxio_config::{AddressingStyle, Credentials, SecretString, UfsConfig};
use alluxio_ufs::{Ufs, UfsError, UfsErrorKind, WriteMode, WriteOptions};
use alluxio_wire::{FileStatus, UfsUri};
use azurite::Azurite;
use bytes::Bytes;
use gateway::Gateway;
use s3::{ACCESS_KEY, Fault, S3Server, SECRET_KEY};
use tempfile::TempDir;

/// More than two parts of a write.
const THREE_PARTS: usize = 20 << 20;

/// A store and what it runs on.
struct Fixture {
    ufs: Ufs,
    root: UfsUri,
    /// Of local files.
    folder: Option<TempDir>,
    server: Option<S3Server>,
    _gateway: Option<Gateway>,
    _azurite: Option<Azurite>,
}

fn uri(text: &str) -> UfsUri {
    UfsUri::parse(text).unwrap()
}

fn config(uri: &UfsUri, endpoint: Option<String>) -> UfsConfig {
    UfsConfig {
        uri: uri.clone(),
        endpoint,
        region: None,
        addressing_style: AddressingStyle::Path,
        credentials: Credentials::Keys {
            key: ACCESS_KEY.to_owned(),
            secret: SecretString::new(SECRET_KEY),
            token: None,
        },
        options: alluxio_config::StoreOptions::default(),
    }
}

fn local() -> Fixture {
    let temporary = tempfile::tempdir().unwrap();
    let root = uri(&format!("file://{}", temporary.path().display()));
    Fixture {
        ufs: Ufs::connect(&config(&root, None)).unwrap(),
        root,
        folder: Some(temporary),
        server: None,
        _gateway: None,
        _azurite: None,
    }
}

fn object_store(endpoint: String) -> Fixture {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = uri("s3://bucket/data");
    Fixture {
        ufs: Ufs::connect(&config(&root, Some(endpoint))).unwrap(),
        root,
        folder: None,
        server: None,
        _gateway: None,
        _azurite: None,
    }
}

async fn s3() -> Fixture {
    let server = S3Server::start(true).await;
    let store = object_store(server.endpoint());
    Fixture {
        server: Some(server),
        ..store
    }
}

fn versitygw() -> Option<Fixture> {
    let gateway = Gateway::start()?;
    let store = object_store(gateway.endpoint());
    Some(Fixture {
        _gateway: Some(gateway),
        ..store
    })
}

fn azurite() -> Option<Fixture> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let azurite = Azurite::start()?;
    let config = azurite.config("abfs://bucket@devstoreaccount1.dfs.core.windows.net/data");
    Some(Fixture {
        ufs: Ufs::connect(&config).unwrap(),
        root: config.uri,
        folder: None,
        server: None,
        _gateway: None,
        _azurite: Some(azurite),
    })
}

impl Fixture {
    fn at(&self, name: &str) -> UfsUri {
        self.root.join(name).unwrap()
    }

    async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> UfsUri {
        let uri = self.at(name);
        let written = self.ufs.write(&uri, bytes.into(), WriteMode::Replace).await;
        written.unwrap();
        uri
    }

    async fn read(&self, uri: &UfsUri) -> Bytes {
        self.ufs.read_range(uri, 0..u64::MAX >> 2).await.unwrap()
    }

    async fn status(&self, name: &str) -> Result<FileStatus, UfsError> {
        self.ufs.status(&self.at(name)).await
    }

    async fn names(&self, name: &str) -> Vec<String> {
        let listed = self.ufs.list(&self.at(name)).await.unwrap();
        listed.into_iter().map(|status| status.name).collect()
    }
}

fn content(length: usize, seed: u8) -> Bytes {
    (0..=250_u8)
        .cycle()
        .skip(seed.into())
        .take(length)
        .collect()
}

fn kind<T: std::fmt::Debug>(result: Result<T, UfsError>) -> UfsErrorKind {
    result.unwrap_err().kind()
}

async fn keeps_the_contract(store: &Fixture) {
    writes(store).await;
    streams(store).await;
    creates(store).await;
    // The server in this process keeps folders, and fails requests for the names of empty ones.
    if store.server.is_none() {
        directories(store).await;
        removals(store).await;
    }
    copies(store).await;
    moves(store).await;
}

async fn writes(store: &Fixture) {
    let empty = store.put("w/empty", "").await;
    assert_eq!(store.ufs.status(&empty).await.unwrap().length, 0);
    let odd = store.put("w/a b%#&=+é.jpg", "odd").await;
    assert_eq!(store.read(&odd).await, "odd");
    let file = store.at("w/deep/er/file");
    let written = store
        .ufs
        .write(&file, "first".into(), WriteMode::Replace)
        .await
        .unwrap();
    let status = store.ufs.status(&file).await.unwrap();
    assert_eq!((written.bytes, status.length), (5, 5));
    assert_eq!(written.content_hash, status.content_hash);
    store.put("w/deep/er/file", "second, longer").await;
    assert_eq!(store.read(&file).await, "second, longer");
    assert_eq!(store.names("w").await, ["a b%#&=+é.jpg", "deep", "empty"]);
}

async fn streams(store: &Fixture) {
    let file = store.put("s/file", "old").await;
    let bytes = content(THREE_PARTS, 1);
    let mut writer = store
        .ufs
        .writer(&file, WriteOptions::default())
        .await
        .unwrap();
    for start in (0..THREE_PARTS).step_by(100_000) {
        let end = THREE_PARTS.min(start + 100_000);
        writer.write(bytes.slice(start..end)).await.unwrap();
    }
    assert_eq!(
        store.read(&file).await,
        "old",
        "nothing shows before the end"
    );
    assert_eq!(store.names("s").await, ["file"]);
    let written = writer.finish().await.unwrap();
    assert_eq!(written.bytes, THREE_PARTS as u64);
    assert!(store.read(&file).await == bytes);
    let hash = store.ufs.status(&file).await.unwrap().content_hash;
    assert_eq!(written.content_hash, hash);

    let mut given_up = store
        .ufs
        .writer(&file, WriteOptions::default())
        .await
        .unwrap();
    given_up.write(content(THREE_PARTS, 2)).await.unwrap();
    given_up.abort().await;
    assert!(store.read(&file).await == bytes, "the old object stays");
    assert_eq!(store.names("s").await, ["file"]);
}

async fn creates(store: &Fixture) {
    let file = store.at("c/file");
    let create = |bytes: Bytes| store.ufs.write(&file, bytes, WriteMode::CreateNew);
    create("first".into()).await.unwrap();
    assert_eq!(
        kind(create("second".into()).await),
        UfsErrorKind::AlreadyExists
    );
    assert_eq!(store.read(&file).await, "first");
}

async fn directories(store: &Fixture) {
    let directory = store.at("d/e/f");
    store.ufs.create_dir(&directory).await.unwrap();
    store.ufs.create_dir(&directory).await.unwrap();
    assert!(store.status("d/e/f").await.unwrap().is_directory());
    assert!(store.status("d/e").await.unwrap().is_directory());
    assert_eq!(store.names("d/e/f").await, [""; 0]);
    let file = store.put("d/e/f/file", "x").await;
    assert_eq!(store.names("d/e").await, ["f"]);
    assert_eq!(
        kind(store.ufs.create_dir(&file).await),
        UfsErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(store.ufs.delete_dir(&directory).await),
        UfsErrorKind::NotEmpty
    );
    assert_eq!(
        kind(store.ufs.delete_dir(&file).await),
        UfsErrorKind::NotDirectory
    );
    store.ufs.delete_file(&file).await.unwrap();
    assert!(store.status("d/e/f").await.unwrap().is_directory());
    store.ufs.delete_dir(&directory).await.unwrap();
    assert_eq!(kind(store.status("d/e/f").await), UfsErrorKind::NotFound);
    let missing = store.ufs.delete_dir(&directory).await;
    assert_eq!(kind(missing), UfsErrorKind::NotFound);
    store.ufs.create_dir(&store.root).await.unwrap();
}

async fn removals(store: &Fixture) {
    for number in 0..12 {
        store.put(&format!("r/{}/{number}", number % 3), "x").await;
    }
    let beside = store.put("r2", "kept").await;
    let some: Vec<_> = [0, 3, 6].map(|n| store.at(&format!("r/0/{n}"))).to_vec();
    store.ufs.delete_files(&some).await.unwrap();
    store.ufs.delete_files(&some).await.unwrap();
    assert_eq!(store.names("r/0").await, ["9"]);
    assert_eq!(store.ufs.delete_below(&store.at("r")).await.unwrap(), 9);
    assert_eq!(kind(store.status("r").await), UfsErrorKind::NotFound);
    assert_eq!(store.read(&beside).await, "kept");
}

async fn copies(store: &Fixture) {
    store.put("k/source", content(THREE_PARTS, 3)).await;
    let source = store.status("k/source").await.unwrap();
    let target = store.at("k/to/target");
    let mut most_held = 0_u64;
    for _ in 0..2 {
        let holds = |bytes: u64| most_held = bytes.max(most_held);
        let copying = store
            .ufs
            .copy(&source, &target, WriteMode::Replace, holds)
            .await;
        assert_eq!(copying.unwrap().bytes, THREE_PARTS as u64);
    }
    // What a store copies itself does not pass through this process.
    let passes = store.folder.is_some();
    assert_eq!(most_held > 0, passes, "{most_held}");
    assert!(most_held <= 48 << 20, "{most_held}");
    assert!(store.read(&target).await == content(THREE_PARTS, 3));
    let again = store
        .ufs
        .copy(&source, &target, WriteMode::CreateNew, |_| {})
        .await;
    assert_eq!(kind(again), UfsErrorKind::AlreadyExists);
    store.put("k/source", "shorter").await;
    let second = store.at("k/2");
    let changed = store.ufs.copy(&source, &second, WriteMode::Replace, |_| {});
    assert_eq!(kind(changed.await), UfsErrorKind::Changed);
}

async fn moves(store: &Fixture) {
    let from = store.put("m/from/file", "x").await;
    let (directory, to) = (store.at("m/from"), store.at("m/deep/to"));
    if !store.ufs.renames_in_one_step() {
        let refused = store.ufs.rename(&from, &to, WriteMode::Replace).await;
        assert_eq!(kind(refused), UfsErrorKind::Unsupported);
        return;
    }
    store
        .ufs
        .rename(&directory, &to, WriteMode::CreateNew)
        .await
        .unwrap();
    assert_eq!(store.read(&to.join("file").unwrap()).await, "x");
    assert_eq!(kind(store.status("m/from").await), UfsErrorKind::NotFound);
    let other = store.put("m/other", "y").await;
    let onto = store.put("m/onto", "z").await;
    let refused = store.ufs.rename(&other, &onto, WriteMode::CreateNew).await;
    assert_eq!(kind(refused), UfsErrorKind::AlreadyExists);
    store
        .ufs
        .rename(&other, &onto, WriteMode::Replace)
        .await
        .unwrap();
    assert_eq!(store.read(&onto).await, "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_files_keep_the_contract_of_writing() {
    let store = local();
    keeps_the_contract(&store).await;
    let folder = store.folder.as_ref().unwrap().path().join("s");
    let left = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(left, 1, "nothing of an aborted write is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract_of_writing() {
    keeps_the_contract(&s3().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versitygw_keeps_the_contract_of_writing() {
    let Some(store) = versitygw() else { return };
    keeps_the_contract(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azurite_keeps_the_contract_of_writing() {
    let Some(store) = tokio::task::spawn_blocking(azurite).await.unwrap() else {
        return;
    };
    keeps_the_contract(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_in_passing_is_sent_again() {
    let store = s3().await;
    let bytes = content(THREE_PARTS, 4);
    let slow = Fault::Answer(503, "SlowDown");
    // The upload begins, then parts fail one after the other.
    let faults = [slow, Fault::None, slow, slow, Fault::None, slow];
    store.server.as_ref().unwrap().inject(faults);
    let file = store.put("f", bytes.clone()).await;
    assert!(store.read(&file).await == bytes);
    store.server.as_ref().unwrap().inject([slow, slow]);
    assert_eq!(store.read(&store.put("g", "small").await).await, "small");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_leaves_the_old_object() {
    let store = s3().await;
    let file = store.put("f", "old").await;
    let server = store.server.as_ref().unwrap();
    let refused = Fault::Answer(403, "AccessDenied");
    for faults in [
        vec![refused],
        vec![Fault::None, refused],
        vec![Fault::None, Fault::None, Fault::None, refused],
    ] {
        server.inject(faults);
        let bytes = content(THREE_PARTS, 5);
        let error = store.ufs.write(&file, bytes, WriteMode::Replace).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), UfsErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("s3:PutObject"), "{error}");
        server.clear_faults();
        assert_eq!(store.read(&file).await, "old");
    }
    let aborted = |line: &&String| line.starts_with("DELETE") && line.contains("uploadId");
    let requests = server.requests();
    assert_eq!(requests.iter().filter(aborted).count(), 2, "{requests:?}");
}

#[tokio::test]
async fn a_file_above_and_the_root_cannot_be_written() {
    let store = local();
    store.put("file", "x").await;
    let below = store.at("file/below");
    let write = |uri: UfsUri| {
        let ufs = store.ufs.clone();
        async move { ufs.write(&uri, "y".into(), WriteMode::Replace).await }
    };
    assert_eq!(kind(write(below).await), UfsErrorKind::NotDirectory);
    let root = store.root.clone();
    assert_eq!(kind(write(root).await), UfsErrorKind::IsDirectory);
    let (bucket, whole) = (s3().await, uri("s3://bucket"));
    let write = bucket.ufs.write(&whole, "y".into(), WriteMode::Replace);
    assert_eq!(kind(write.await), UfsErrorKind::IsDirectory);
}
