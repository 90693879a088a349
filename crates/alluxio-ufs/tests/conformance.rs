//! The contract of an under-store, run against every store: local files, and a real S3 server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "shared with the worker's tests, which use more")]
#[path = "support/s3.rs"]
mod s3;

use std::path::PathBuf;

use alluxio_config::{AddressingStyle, Credentials, SecretString, StoreOptions, UfsConfig};
use alluxio_ufs::{Ufs, UfsError, UfsErrorKind, is_version};
use alluxio_wire::{FileStatus, UfsUri};
use futures::TryStreamExt;
use s3::{ACCESS_KEY, Fault, S3Server, SECRET_KEY, put};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A store, and the folder through which a test puts files into it.
struct Fixture {
    ufs: Ufs,
    root: UfsUri,
    folder: PathBuf,
    server: Option<S3Server>,
    _temporary: Option<TempDir>,
}

fn uri(text: &str) -> UfsUri {
    UfsUri::parse(text).unwrap()
}

fn config(uri: UfsUri, endpoint: Option<String>, credentials: Credentials) -> UfsConfig {
    UfsConfig {
        uri,
        endpoint,
        region: None,
        addressing_style: AddressingStyle::Path,
        credentials,
        options: StoreOptions::default(),
    }
}

fn keys(secret: &str) -> Credentials {
    Credentials::Keys {
        key: ACCESS_KEY.to_owned(),
        secret: SecretString::new(secret),
        token: None,
    }
}

fn local() -> Fixture {
    let temporary = tempfile::tempdir().unwrap();
    let root = uri(&format!("file://{}", temporary.path().display()));
    Fixture {
        ufs: Ufs::connect(&config(root.clone(), None, Credentials::Anonymous)).unwrap(),
        root,
        folder: temporary.path().to_owned(),
        server: None,
        _temporary: Some(temporary),
    }
}

async fn s3() -> Fixture {
    s3_with("s3://bucket/data", false, Credentials::Anonymous).await
}

async fn s3_with(root: &str, signed: bool, credentials: Credentials) -> Fixture {
    // A second install is refused, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = S3Server::start(signed).await;
    let root = uri(root);
    let folder = server
        .bucket_folder()
        .join(root.path().trim_start_matches('/'));
    std::fs::create_dir_all(&folder).unwrap();
    Fixture {
        ufs: Ufs::connect(&config(root.clone(), Some(server.endpoint()), credentials)).unwrap(),
        root,
        folder,
        server: Some(server),
        _temporary: None,
    }
}

impl Fixture {
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> UfsUri {
        put(&self.folder, name, bytes);
        self.root.join(name).unwrap()
    }

    async fn walk(&self) -> Result<Vec<FileStatus>, UfsError> {
        self.ufs.walk(&self.root).try_collect().await
    }

    fn server(&self) -> &S3Server {
        self.server.as_ref().unwrap()
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, UfsError>) -> UfsErrorKind {
    result.unwrap_err().kind()
}

fn paths(statuses: &[FileStatus]) -> Vec<&str> {
    statuses.iter().map(|s| s.path.as_str()).collect()
}

/// The whole contract, one statement after the other.
async fn keeps_the_contract(store: &Fixture) {
    statuses(store).await;
    listings(store).await;
    walks(store).await;
    reads(store).await;
    versions(store).await;
}

async fn statuses(store: &Fixture) {
    let file = store.put("a/b/c.bin", [7; 10]);
    let status = store.ufs.status(&file).await.unwrap();
    assert!(!status.is_directory());
    assert_eq!((status.length, status.name.as_str()), (10, "c.bin"));
    assert_eq!(status.path, "/a/b/c.bin");
    assert_eq!(status.ufs_uri, file.as_str());
    assert!(status.modified_ms > 0);
    for directory in [&store.root, &store.root.join("a").unwrap()] {
        let status = store.ufs.status(directory).await.unwrap();
        assert!(status.is_directory(), "{directory}");
        assert_eq!(status.length, 0);
    }
    let missing = store.root.join("a/nothing").unwrap();
    let error = store.ufs.status(&missing).await.unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::NotFound);
    let message = error.to_string();
    assert!(message.contains(missing.as_str()), "{message}");
    assert!(message.contains("check the name"), "{message}");
}

async fn listings(store: &Fixture) {
    for name in ["l/z", "l/sub/deep", "l/B", "l/a b%#&=+é.jpg"] {
        store.put(name, name);
    }
    let listed = store
        .ufs
        .list(&store.root.join("l").unwrap())
        .await
        .unwrap();
    let seen: Vec<_> = listed
        .iter()
        .map(|s| (s.name.as_str(), s.is_directory()))
        .collect();
    assert_eq!(
        seen,
        [
            ("B", false),
            ("a b%#&=+é.jpg", false),
            ("sub", true),
            ("z", false)
        ]
    );
    for status in listed.iter().filter(|s| !s.is_directory()) {
        let alone = store.ufs.status(&uri(&status.ufs_uri)).await.unwrap();
        assert!(
            is_version(&alone, &status.version()),
            "{status:?} {alone:?}"
        );
    }
    let missing = store.root.join("nothing").unwrap();
    assert_eq!(kind(store.ufs.list(&missing).await), UfsErrorKind::NotFound);
    let file = store.root.join("l/z").unwrap();
    assert_eq!(
        kind(store.ufs.list(&file).await),
        UfsErrorKind::NotDirectory
    );
}

async fn walks(store: &Fixture) {
    store.put("w/x/1", "1");
    store.put("w/x/y/2", "2");
    store.put("w/3", "3");
    let start = store.root.join("w").unwrap();
    let found: Vec<_> = store.ufs.walk(&start).try_collect().await.unwrap();
    let mut names = paths(&found);
    names.sort_unstable();
    assert_eq!(names, ["/w/3", "/w/x/1", "/w/x/y/2"]);
    let file = start.join("3").unwrap();
    let alone: Vec<_> = store.ufs.walk(&file).try_collect().await.unwrap();
    assert_eq!(paths(&alone), ["/w/3"]);
    let missing = store.root.join("nothing").unwrap();
    let walked: Result<Vec<_>, _> = store.ufs.walk(&missing).try_collect().await;
    assert_eq!(kind(walked), UfsErrorKind::NotFound);
}

async fn reads(store: &Fixture) {
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let file = store.put("r/file", &bytes);
    let empty = store.put("r/empty", "");
    let read = |range| store.ufs.read_range(&file, range);
    assert_eq!(read(0..100_000).await.unwrap(), bytes);
    assert_eq!(read(10..20).await.unwrap(), bytes[10..20]);
    assert_eq!(read(5..5).await.unwrap(), "");
    assert_eq!(read(99_990..200_000).await.unwrap(), bytes[99_990..]);
    assert_eq!(read(100_000..100_001).await.unwrap(), "");
    assert_eq!(store.ufs.read_range(&empty, 0..10).await.unwrap(), "");
    let missing = store.root.join("r/nothing").unwrap();
    assert_eq!(
        kind(store.ufs.read_range(&missing, 0..1).await),
        UfsErrorKind::NotFound
    );
    let directory = store.root.join("r").unwrap();
    assert_eq!(
        kind(store.ufs.read_range(&directory, 0..1).await),
        UfsErrorKind::IsDirectory
    );
}

async fn versions(store: &Fixture) {
    let file = store.put("v", "first");
    let version = store.ufs.status(&file).await.unwrap().version();
    let read = || store.ufs.read_range_of_version(&file, 0..5, &version);
    assert_eq!(read().await.unwrap(), "first");
    store.put("v", "second");
    let error = read().await.unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::Changed);
    assert!(error.to_string().contains(file.as_str()), "{error}");
}

#[tokio::test]
async fn local_files_keep_the_contract() {
    keeps_the_contract(&local()).await;
}

#[tokio::test]
async fn s3_keeps_the_contract() {
    keeps_the_contract(&s3().await).await;
}

#[tokio::test]
async fn s3_keeps_the_contract_at_the_root_of_a_bucket_with_keys() {
    keeps_the_contract(&s3_with("s3://bucket", true, keys(SECRET_KEY)).await).await;
}

#[tokio::test]
async fn an_empty_bucket_is_a_directory_and_a_missing_one_is_named() {
    let store = s3_with("s3://bucket", false, Credentials::Anonymous).await;
    assert!(store.ufs.status(&store.root).await.unwrap().is_directory());
    assert_eq!(store.ufs.list(&store.root).await.unwrap(), []);
    assert_eq!(store.walk().await.unwrap(), []);
    let missing = uri("s3://no-such-bucket/x");
    let error = store.ufs.list(&missing).await.unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::NotFound);
    assert!(
        error.to_string().contains("bucket does not exist"),
        "{error}"
    );
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_told_apart() {
    let wrong = s3_with("s3://bucket", true, keys("not-the-secret")).await;
    let file = wrong.put("f", "x");
    for result in [
        wrong.ufs.status(&file).await.map(drop),
        wrong.ufs.list(&wrong.root).await.map(drop),
        wrong.ufs.read_range(&file, 0..1).await.map(drop),
        wrong.walk().await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), UfsErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("s3:GetObject"), "{error}");
        assert!(!error.to_string().contains("not-the-secret"), "{error}");
    }
    let none = s3_with("s3://bucket", true, Credentials::Anonymous).await;
    let error = none.ufs.status(&none.put("f", "x")).await.unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::PermissionDenied);
    assert!(error.to_string().contains("without credentials"), "{error}");
}

#[tokio::test]
async fn passing_faults_are_ridden_over() {
    let store = s3().await;
    let file = store.put("f", "bytes");
    let slow = Fault::Answer(503, "SlowDown");
    let broken = Fault::Answer(500, "InternalError");
    store.server().inject([slow, broken]);
    assert_eq!(store.ufs.read_range(&file, 0..5).await.unwrap(), "bytes");
    store.server().inject([broken, broken]);
    assert_eq!(store.ufs.list(&store.root).await.unwrap().len(), 1);
    store.server().inject([broken, slow]);
    assert_eq!(store.ufs.status(&file).await.unwrap().length, 5);
}

#[tokio::test]
async fn lasting_faults_end_in_a_kind_after_four_attempts() {
    let store = s3().await;
    let file = store.put("f", "bytes");
    store.server().inject([Fault::Answer(503, "SlowDown"); 4]);
    let error = store.ufs.read_range(&file, 0..5).await.unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::Throttled);
    assert!(error.retryable());
    assert_eq!(store.server().requests().len(), 4);
    store
        .server()
        .inject([Fault::Answer(500, "InternalError"); 4]);
    let error = store.ufs.list(&store.root).await.unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::Unavailable);
    assert_eq!(store.server().requests().len(), 8);
}

#[tokio::test]
async fn a_long_walk_goes_on_behind_a_fault_without_losing_or_doubling_a_file() {
    let store = s3().await;
    // More than the 1,000 keys of one page of a listing.
    for number in 0..1100 {
        store.put(&format!("d/{number:04}"), "");
    }
    store
        .server()
        .inject([Fault::None, Fault::Answer(500, "InternalError")]);
    let found = store.walk().await.unwrap();
    let expected: Vec<String> = (0..1100).map(|n| format!("/d/{n:04}")).collect();
    assert_eq!(paths(&found), expected);
}

#[tokio::test]
async fn a_dead_store_is_unavailable_and_named() {
    let store = s3().await;
    let dead = config(
        store.root.clone(),
        Some("http://127.0.0.1:1".to_owned()),
        Credentials::Anonymous,
    );
    let ufs = Ufs::connect(&dead).unwrap();
    let error = ufs.status(&store.root).await.unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("check the endpoint"), "{error}");
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let other = s3().await;
    let file = other.put("f", "bytes");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let target = format!("{}/bucket/data/f", other.server().endpoint());
    let redirecting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A request without a body; its head fits into one segment.
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: {target}\r\ncontent-length: \
                 0\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let credentials = keys(SECRET_KEY);
    let ufs = Ufs::connect(&config(other.root.clone(), Some(endpoint), credentials)).unwrap();
    let error = ufs.read_range(&file, 0..5).await.unwrap_err();
    assert_eq!(other.server().requests(), Vec::<String>::new(), "{error}");
    redirecting.abort();
}

#[test]
fn other_schemes_are_refused_with_what_is_served() {
    let ftp = config(uri("ftp://h/x"), None, Credentials::Anonymous);
    let error = Ufs::connect(&ftp).unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::InvalidInput);
    for named in ["ftp://h/x", "s3", "abfs", "webhdfs"] {
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_uri_of_another_scheme_is_refused() {
    let store = local();
    let error = store.ufs.status(&uri("s3://b/k")).await.unwrap_err();
    assert_eq!(error.kind(), UfsErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_dotted_bucket_in_virtual_style_is_refused_early() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let virtual_style = UfsConfig {
        addressing_style: AddressingStyle::Virtual,
        ..config(uri("s3://my.bucket"), None, Credentials::Anonymous)
    };
    let error = Ufs::connect(&virtual_style).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("set the addressing style to path"),
        "{error}"
    );
}

#[test]
fn secrets_are_not_shown_by_debug() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ufs = Ufs::connect(&config(uri("s3://b"), None, keys("hush-hush"))).unwrap();
    assert!(!format!("{ufs:?}").contains("hush-hush"));
}
