//! How many requests lookups, listings and reads cost, counted at a real S3 server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

#[path = "../../alluxio-ufs/tests/support/s3.rs"]
mod s3;

use alluxio_client::{Client, ErrorKind};
use alluxio_config::Config;
use futures::StreamExt;
use futures::TryStreamExt;
use s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, put};

/// Keys that one LIST request tells.
const LISTED_AT_ONCE: usize = 1000;

async fn client(server: &S3Server, options: &str) -> Client {
    let yaml = format!(
        "ufs: {{uri: 's3://{BUCKET}/data', endpoint: '{}', key: {ACCESS_KEY}, secret: \
         {SECRET_KEY}}}\nclient: {{{options}}}\n",
        server.endpoint()
    );
    tls_provider();
    Client::connect(&Config::from_yaml(&yaml).unwrap())
        .await
        .unwrap()
}

/// What the program does in its first lines; a second time changes nothing.
fn tls_provider() {
    let _installed = rustls::crypto::ring::default_provider().install_default();
}

/// Requests by kind since the first `from`: LISTs, HEADs, GETs.
fn counted(server: &S3Server, from: usize) -> (usize, usize, usize) {
    let requests = server.requests();
    let since = &requests[from..];
    let count = |is: &dyn Fn(&str) -> bool| since.iter().filter(|r| is(r)).count();
    let lists = count(&|r| r.starts_with("GET") && r.contains("list-type="));
    let heads = count(&|r| r.starts_with("HEAD"));
    (lists, heads, since.len() - lists - heads)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_listed_are_read_with_one_request_each() {
    let (server, files) = (S3Server::start(true).await, 5000);
    for number in 0..files {
        let name = format!("data/f{number:05}");
        put(&server.bucket_folder(), &name, number.to_string());
    }
    let client = client(&server, "").await;
    let listed = client.list("").await.unwrap();
    assert_eq!(listed.len(), files);
    let read = |name: String| {
        let client = client.clone();
        async move {
            let bytes = client
                .open(&name)
                .await?
                .read_at(0, 100)
                .await?
                .into_bytes();
            let number: usize = name[1..].parse().unwrap();
            assert_eq!(bytes, number.to_string().as_bytes());
            Ok::<_, alluxio_client::Error>(())
        }
    };
    let names = listed.iter().map(|status| status.name.clone());
    let reads = futures::stream::iter(names).map(read).buffer_unordered(16);
    reads.try_collect::<()>().await.unwrap();
    let (lists, heads, gets) = counted(&server, 0);
    assert_eq!((heads, gets), (0, files));
    assert!(lists <= files.div_ceil(LISTED_AT_ONCE) + 1, "{lists}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_name_below_a_listed_directory_costs_nothing() {
    let server = S3Server::start(true).await;
    put(&server.bucket_folder(), "data/a", "x");
    let client = client(&server, "negative_ttl_seconds: 3600").await;
    client.list("").await.unwrap();
    let before = server.requests().len();
    for _ in 0..3 {
        let error = client.status("b").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(server.requests().len(), before);
    // One that is written, and told of, is found.
    put(&server.bucket_folder(), "data/b", "new");
    client.forget("b").unwrap();
    assert_eq!(client.status("b").await.unwrap().length, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_serves_lookups_and_listings_without_a_request() {
    let server = S3Server::start(true).await;
    for number in 0..2500 {
        let name = format!("data/d{}/e/f{number}", number % 7);
        put(&server.bucket_folder(), &name, number.to_string());
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m");
    let summary = client(&server, "").await.take_manifest("", &file).await;
    assert_eq!(summary.unwrap().files, 2500);
    for consistency in ["live", "pinned"] {
        let before = server.requests().len();
        let options = format!(
            "consistency: {consistency}, manifest: {{path: '{}'}}",
            file.display()
        );
        let client = client(&server, &options).await;
        let mut directories = vec![String::new()];
        let mut files = Vec::new();
        while let Some(directory) = directories.pop() {
            assert!(client.status(&directory).await.unwrap().is_directory());
            for entry in client.list(&directory).await.unwrap().iter() {
                let path = entry.path[1..].to_owned();
                if entry.is_directory() {
                    directories.push(path);
                } else {
                    assert_eq!(*client.status(&path).await.unwrap(), *entry);
                    files.push(path);
                }
            }
        }
        assert_eq!(files.len(), 2500);
        assert_eq!(server.requests().len(), before, "{consistency}");
        let read = client.open("d3/e/f10").await.unwrap().read_at(0, 9).await;
        assert_eq!(read.unwrap().into_bytes(), "10");
        assert_eq!(counted(&server, before), (0, 0, 1), "{consistency}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_manifest_is_not_believed_about_what_changed_and_does_not_hide_what_is_new() {
    let server = S3Server::start(true).await;
    let objects = server.bucket_folder();
    for name in ["a", "d/b", "d/c"] {
        put(&objects, &format!("data/{name}"), "first");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m");
    client(&server, "")
        .await
        .take_manifest("", &file)
        .await
        .unwrap();
    let options = format!("manifest: {{path: '{}'}}", file.display());
    let client = client(&server, &options).await;
    put(&objects, "data/d/b", "second and longer");
    put(&objects, "data/d/new", "new");
    let old = client.open("d/b").await.unwrap();
    assert_eq!(
        old.read_at(0, 99).await.unwrap_err().kind(),
        ErrorKind::Stale
    );
    let new = client.open("d/b").await.unwrap().read_at(0, 99).await;
    assert_eq!(new.unwrap().into_bytes(), "second and longer");
    assert_eq!(client.status("d/new").await.unwrap().length, 3);
    let names = client.list("d").await.unwrap();
    let names: Vec<_> = names.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "new"]);
    // What did not change is still answered by the manifest.
    let before = server.requests().len();
    assert_eq!(client.status("d/c").await.unwrap().length, 5);
    assert_eq!(server.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_dataset_is_refused() {
    let server = S3Server::start(true).await;
    put(&server.bucket_folder(), "data/x/a", "1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m");
    client(&server, "")
        .await
        .take_manifest("x", &file)
        .await
        .unwrap();
    let yaml = |uri: &str, consistency: &str| {
        let manifest = format!(
            "{{consistency: {consistency}, manifest: {{path: '{}'}}}}",
            file.display()
        );
        Config::from_yaml(&format!(
            "ufs: {{uri: '{uri}', anon: true}}\nclient: {manifest}\n"
        ))
        .unwrap()
    };
    for (uri, consistency) in [
        ("s3://bucket/other", "live"),
        ("s3://bucket/data", "pinned"),
    ] {
        let error = Client::connect(&yaml(uri, consistency)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error.to_string().contains("manifest create s3://bucket/"),
            "{error}"
        );
    }
    for (uri, consistency) in [
        ("s3://bucket/data", "live"),
        ("s3://bucket/data/x", "pinned"),
    ] {
        Client::connect(&yaml(uri, consistency)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_read_costs_few_requests() {
    let server = S3Server::start(true).await;
    let content: Vec<u8> = (0..48u32 << 20).map(|i| (i % 251) as u8).collect();
    std::fs::create_dir_all(server.bucket_folder().join("data")).unwrap();
    std::fs::write(server.bucket_folder().join("data/big"), &content).unwrap();
    let client = client(&server, "memory_limit: 64Mi").await;
    let reader = client.open("big").await.unwrap();
    let before = server.requests().len();
    let mut offset = 0;
    while offset < content.len() {
        let read = reader.read_at(offset as u64, 1 << 20).await.unwrap();
        let bytes = read.into_bytes();
        assert!(
            bytes == content[offset..offset + bytes.len()],
            "at {offset}"
        );
        offset += bytes.len();
    }
    let (_, heads, gets) = counted(&server, before);
    assert_eq!(heads, 0);
    // A request a page would be 48.
    assert!(gets <= 16, "{gets} GETs");
}
