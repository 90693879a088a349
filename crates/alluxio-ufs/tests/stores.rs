//! The contract of an under-store, over stores that files are put into by our own writes: HDFS by both
//! of its protocols (a real cluster), Azure and Google's by their stand-ins, memory, and a plain web
//! server, which can only be read.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/azurite.rs"]
mod azurite;
#[path = "support/fake_gcs.rs"]
mod fake_gcs;
#[path = "support/minidfs.rs"]
mod minidfs;
#[path = "support/tools.rs"]
mod tools;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use alluxio_config::{Credentials, UfsConfig};
use alluxio_ufs::{Ufs, UfsError, UfsErrorKind, WriteMode, is_version};
use alluxio_wire::{FileStatus, UfsUri};
use azurite::Azurite;
use bytes::Bytes;
use fake_gcs::FakeGcs;
use futures::TryStreamExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use minidfs::MiniDfs;
use tokio::net::TcpListener;

fn uri(text: &str) -> UfsUri {
    UfsUri::parse(text).unwrap()
}

fn connect(root: &str) -> Ufs {
    // A second install is refused, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ufs::connect(&UfsConfig::new(uri(root), Credentials::Anonymous)).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T, UfsError>) -> UfsErrorKind {
    result.unwrap_err().kind()
}

fn paths(statuses: &[FileStatus]) -> Vec<&str> {
    let mut paths: Vec<_> = statuses.iter().map(|s| s.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

/// Puts a file where both see it, and tells its name in the first.
async fn put(ufs: &Ufs, through: &Ufs, name: &str, bytes: impl Into<Bytes>) -> UfsUri {
    let file = through.root().join(name).unwrap();
    let written = through.write(&file, bytes.into(), WriteMode::Replace);
    written.await.unwrap();
    ufs.root().join(name).unwrap()
}

/// The contract of `ufs`, where `through` is a way to write into the same store.
async fn keeps_the_contract(ufs: &Ufs, through: &Ufs) {
    statuses_and_listings(ufs, through).await;
    reads(ufs, through).await;
    versions(ufs, through).await;
}

async fn statuses_and_listings(ufs: &Ufs, through: &Ufs) {
    let below = |name: &str| ufs.root().join(name).unwrap();
    for name in ["d/z", "d/sub/deep", "d/a b%#&=+é.jpg"] {
        put(ufs, through, name, name.to_owned()).await;
    }
    let file = ufs.status(&below("d/z")).await.unwrap();
    assert!(!file.is_directory());
    assert_eq!((file.length, file.path.as_str()), (3, "/d/z"));
    for directory in [ufs.root(), &below("d"), &below("d/sub")] {
        assert!(ufs.status(directory).await.unwrap().is_directory());
    }
    assert_eq!(kind(ufs.status(&below("no")).await), UfsErrorKind::NotFound);
    assert_eq!(kind(ufs.list(&below("no")).await), UfsErrorKind::NotFound);
    let listed = ufs.list(&below("d")).await.unwrap();
    let seen: Vec<_> = listed
        .iter()
        .map(|s| (s.name.as_str(), s.is_directory()))
        .collect();
    let wanted = [("a b%#&=+é.jpg", false), ("sub", true), ("z", false)];
    assert_eq!(seen, wanted);
    for status in listed.iter().filter(|s| !s.is_directory()) {
        let alone = ufs.status(&uri(&status.ufs_uri)).await.unwrap();
        assert!(is_version(&alone, &status.version()), "{alone:?}");
    }
    assert_eq!(
        kind(ufs.list(&below("d/z")).await),
        UfsErrorKind::NotDirectory
    );
    let walked: Vec<_> = ufs.walk(&below("d")).try_collect().await.unwrap();
    assert_eq!(paths(&walked), ["/d/a b%#&=+é.jpg", "/d/sub/deep", "/d/z"]);
    let alone: Vec<_> = ufs.walk(&below("d/z")).try_collect().await.unwrap();
    assert_eq!(paths(&alone), ["/d/z"]);
}

async fn reads(ufs: &Ufs, through: &Ufs) {
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let file = put(ufs, through, "r/file", bytes.clone()).await;
    let read = |range| ufs.read_range(&file, range);
    assert_eq!(read(0..300_000).await.unwrap(), bytes);
    assert_eq!(read(10..20).await.unwrap(), bytes[10..20]);
    assert_eq!(read(299_990..400_000).await.unwrap(), bytes[299_990..]);
    assert_eq!(read(300_000..300_001).await.unwrap(), "");
    let version = ufs.status(&file).await.unwrap().version();
    let pieces = ufs.read_pieces_of_version(&file, 7..250_000, &version, 100_000);
    let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
    assert_eq!(pieces.concat(), bytes[7..250_000]);
    let missing = ufs.root().join("r/nothing").unwrap();
    assert_eq!(
        kind(ufs.read_range(&missing, 0..1).await),
        UfsErrorKind::NotFound
    );
    let directory = ufs.root().join("r").unwrap();
    assert_eq!(
        kind(ufs.read_range(&directory, 0..1).await),
        UfsErrorKind::IsDirectory
    );
}

async fn versions(ufs: &Ufs, through: &Ufs) {
    let file = put(ufs, through, "v", "first").await;
    let version = ufs.status(&file).await.unwrap().version();
    let read = || ufs.read_range_of_version(&file, 0..5, &version);
    assert_eq!(read().await.unwrap(), "first");
    put(ufs, through, "v", "second").await;
    assert_eq!(kind(read().await), UfsErrorKind::Changed);
    let pieces = ufs.read_pieces_of_version(&file, 0..5, &version, 5);
    let pieces: Result<Vec<_>, _> = pieces.try_collect().await;
    assert_eq!(kind(pieces), UfsErrorKind::Changed);
}

#[tokio::test]
async fn memory_keeps_the_contract_and_is_one_for_the_process() {
    let ufs = connect("memory://contract/data");
    keeps_the_contract(&ufs, &ufs).await;
    let again = connect("memory://contract/data");
    assert_eq!(
        again
            .status(&uri("memory://contract/data/v"))
            .await
            .unwrap()
            .length,
        6
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hdfs_keeps_the_contract_by_both_protocols() {
    let Some(cluster) = tokio::task::spawn_blocking(MiniDfs::start).await.unwrap() else {
        return;
    };
    let hdfs = connect(&format!("hdfs://127.0.0.1:{}/data", cluster.rpc_port));
    keeps_the_contract(&hdfs, &hdfs).await;
    let web = connect(&format!("webhdfs://127.0.0.1:{}/data", cluster.http_port));
    keeps_the_contract(&web, &hdfs).await;
    let writing = connect(&format!("webhdfs://127.0.0.1:{}/web", cluster.http_port));
    keeps_the_contract(&writing, &writing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_the_contract_by_both_spellings_and_kinds_of_credentials() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(azurite) = tokio::task::spawn_blocking(Azurite::start).await.unwrap() else {
        return;
    };
    for config in [
        azurite.config("abfss://bucket@devstoreaccount1.dfs.core.windows.net/a"),
        azurite.config("az://bucket/b"),
        azurite.config_by_string("abfs://bucket/c"),
    ] {
        let ufs = Ufs::connect(&config).unwrap();
        keeps_the_contract(&ufs, &ufs).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_keeps_the_contract() {
    let Some(server) = FakeGcs::start() else {
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    for scheme in ["gs", "gcs"] {
        let root = uri(&format!("{scheme}://bucket/{scheme}"));
        let config = UfsConfig {
            endpoint: Some(server.endpoint()),
            ..UfsConfig::new(root, Credentials::Anonymous)
        };
        let ufs = Ufs::connect(&config).unwrap();
        keeps_the_contract(&ufs, &ufs).await;
    }
}

/// What the web server has: one file, and how it tells its version.
#[derive(Clone, Default)]
struct Page {
    bytes: Vec<u8>,
    etag: Option<&'static str>,
    modified: Option<&'static str>,
    without_ranges: bool,
}

async fn web_server(page: Arc<Mutex<Page>>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let root = format!("http://{}/files", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let page = Arc::clone(&page);
            let answer = service_fn(move |request: Request<Incoming>| {
                let page = page.lock().unwrap().clone();
                async move { Ok::<_, Infallible>(page.answer(&request)) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
        }
    });
    root
}

impl Page {
    fn answer(&self, request: &Request<Incoming>) -> Response<s3s::Body> {
        let of = |status| Response::builder().status(status);
        let empty = || s3s::Body::from(Bytes::new());
        match request.uri().path() {
            "/files/a%20b" => {}
            "/files/moved" => {
                let to = of(302).header(header::LOCATION, "/files/a%20b");
                return to.body(empty()).unwrap();
            }
            "/files/folder" => {
                let to = of(301).header(header::LOCATION, "/files/folder/");
                return to.body(empty()).unwrap();
            }
            _ => return of(404).body(empty()).unwrap(),
        }
        let asked = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
        let is_other = |wanted: &str| self.etag.is_some_and(|etag| etag != wanted);
        if asked(header::IF_MATCH).is_some_and(is_other) {
            return of(412).body(empty()).unwrap();
        }
        let total = self.bytes.len();
        let range = asked(header::RANGE).filter(|_| !self.without_ranges);
        let range = range.map(|text| {
            let (start, end) = text
                .strip_prefix("bytes=")
                .unwrap()
                .split_once('-')
                .unwrap();
            let end = end.parse().map_or(total, |end: usize| total.min(end + 1));
            start.parse::<usize>().unwrap()..end
        });
        let mut response = match &range {
            Some(range) if range.start >= total => return of(416).body(empty()).unwrap(),
            Some(range) => of(206).header(
                header::CONTENT_RANGE,
                format!("bytes {}-{}/{total}", range.start, range.end - 1),
            ),
            None => of(200).header(header::CONTENT_LENGTH, total),
        };
        if let Some(etag) = self.etag {
            response = response.header(header::ETAG, etag);
        }
        if let Some(modified) = self.modified {
            response = response.header(header::LAST_MODIFIED, modified);
        }
        let range = range.unwrap_or(0..total);
        let body = Bytes::copy_from_slice(&self.bytes[range]);
        response.body(s3s::Body::from(body)).unwrap()
    }
}

#[tokio::test]
async fn a_web_server_is_read_and_its_folders_are_not_taken_for_files() {
    let page = Page {
        bytes: (0..=255).cycle().take(10_000).collect(),
        etag: Some("\"one\""),
        ..Page::default()
    };
    let bytes = page.bytes.clone();
    let page = Arc::new(Mutex::new(page));
    let ufs = connect(&web_server(Arc::clone(&page)).await);
    let file = ufs.root().join("a b").unwrap();
    let status = ufs.status(&file).await.unwrap();
    assert_eq!(status.length, 10_000);
    assert_eq!(status.content_hash.as_deref(), Some("one"));
    let version = status.version();
    let read = ufs.read_range_of_version(&file, 5..15, &version).await;
    assert_eq!(read.unwrap(), bytes[5..15]);
    let moved = ufs.root().join("moved").unwrap();
    assert_eq!(ufs.read_range(&moved, 5..15).await.unwrap(), bytes[5..15]);
    for folder in [ufs.root().clone(), ufs.root().join("folder").unwrap()] {
        assert!(
            ufs.status(&folder).await.unwrap().is_directory(),
            "{folder}"
        );
        let error = ufs.list(&folder).await.unwrap_err();
        assert_eq!(error.kind(), UfsErrorKind::Unsupported);
        assert!(error.to_string().contains("manifest"), "{error}");
    }
    page.lock().unwrap().etag = Some("\"two\"");
    let read = ufs.read_range_of_version(&file, 5..15, &version).await;
    assert_eq!(kind(read), UfsErrorKind::Changed);
}

#[tokio::test]
async fn a_web_server_without_etags_is_checked_by_time_and_length() {
    let page = Arc::new(Mutex::new(Page {
        bytes: b"first".to_vec(),
        modified: Some("Mon, 01 Jan 2024 00:00:00 GMT"),
        ..Page::default()
    }));
    let ufs = connect(&web_server(Arc::clone(&page)).await);
    let file = ufs.root().join("a b").unwrap();
    let version = ufs.status(&file).await.unwrap().version();
    let read = || ufs.read_range_of_version(&file, 0..5, &version);
    assert_eq!(read().await.unwrap(), "first");
    page.lock().unwrap().modified = Some("Mon, 01 Jan 2024 00:00:01 GMT");
    assert_eq!(kind(read().await), UfsErrorKind::Changed);
}

#[tokio::test]
async fn a_web_server_that_knows_no_ranges_never_gives_other_bytes() {
    let page = Arc::new(Mutex::new(Page {
        bytes: (0..=255).collect(),
        etag: Some("\"one\""),
        without_ranges: true,
        ..Page::default()
    }));
    let bytes = page.lock().unwrap().bytes.clone();
    let ufs = connect(&web_server(page).await);
    let file = ufs.root().join("a b").unwrap();
    match ufs.read_range(&file, 5..15).await {
        Ok(read) => assert_eq!(read, bytes[5..15]),
        Err(error) => assert!(error.to_string().contains("a b"), "{error}"),
    }
}
