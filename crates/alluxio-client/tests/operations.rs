//! The file operations over local files, as a caller sees them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use alluxio_client::{
    Client, ErrorKind, Existing, RemoveOptions, Result, TouchOptions, TransferOptions, WriteMode,
    WriteOptions,
};
use alluxio_config::Config;
use bytes::Bytes;
use tempfile::TempDir;

async fn dataset(client: &str) -> (TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("file://{}", folder.path().display());
    let text = format!("ufs: {{uri: '{uri}'}}\nclient: {{{client}}}\n");
    let config = Config::from_yaml(&text).unwrap();
    let client = Client::connect(&config).await.unwrap();
    (folder, client)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn put(client: &Client, path: &str, bytes: &'static str) {
    let written = client.write_bytes(path, bytes.into(), WriteMode::Replace);
    written.await.unwrap();
}

async fn names(client: &Client, path: &str) -> Vec<String> {
    let listed = client.ls(path).await.unwrap();
    listed.iter().map(|status| status.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_seen_at_once_whatever_was_believed() {
    let (_folder, client) = dataset("").await;
    assert!(!client.exists("d/f").await.unwrap());
    assert_eq!(names(&client, "").await, [""; 0]);
    put(&client, "d/f", "first").await;
    assert_eq!(names(&client, "").await, ["d"]);
    assert_eq!(names(&client, "d/f").await, ["f"]);
    assert_eq!(client.read_bytes("d/f", 0..100).await.unwrap(), "first");
    put(&client, "d/f", "second one").await;
    assert_eq!(client.info("d/f").await.unwrap().length, 10);
    assert_eq!(client.head("d/f", 6).await.unwrap(), "second");
    assert_eq!(client.tail("d/f", 3).await.unwrap(), "one");
    assert_eq!(client.tail("d/f", 99).await.unwrap(), "second one");
    let mut writer = client.create("d/f", WriteOptions::default()).await.unwrap();
    writer.write(Bytes::from("third")).await.unwrap();
    assert_eq!(client.head("d/f", 6).await.unwrap(), "second");
    writer.finish().await.unwrap();
    assert_eq!(client.head("d/f", 6).await.unwrap(), "third");
    let again = client.write_bytes("d/f", "x".into(), WriteMode::CreateNew);
    assert_eq!(kind(again.await), ErrorKind::AlreadyExists);
    let onto = client.write_bytes("d", "x".into(), WriteMode::Replace);
    assert_eq!(kind(onto.await), ErrorKind::IsDirectory);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_made_and_removed_and_the_root_is_guarded() {
    let (_folder, client) = dataset("").await;
    let (plain, all) = (
        RemoveOptions::default(),
        RemoveOptions {
            recursive: true,
            even_root: false,
        },
    );
    client.mkdir("a/b").await.unwrap();
    client.mkdir("a/b").await.unwrap();
    assert!(client.isdir("a/b").await.unwrap() && !client.isdir("x").await.unwrap());
    client
        .touch("a/b/f", TouchOptions::default())
        .await
        .unwrap();
    assert_eq!(kind(client.mkdir("a/b/f").await), ErrorKind::AlreadyExists);
    put(&client, "a/b/f", "kept").await;
    client
        .touch("a/b/f", TouchOptions::default())
        .await
        .unwrap();
    assert_eq!(client.info("a/b/f").await.unwrap().length, 4);
    client
        .touch("a/b/f", TouchOptions { truncate: true })
        .await
        .unwrap();
    assert_eq!(client.info("a/b/f").await.unwrap().length, 0);
    assert_eq!(kind(client.rm("a", plain).await), ErrorKind::NotEmpty);
    assert_eq!(kind(client.rm("nope", all).await), ErrorKind::NotFound);
    for options in [plain, all] {
        assert_eq!(kind(client.rm("", options).await), ErrorKind::InvalidInput);
    }
    assert_eq!(client.rm("a", all).await.unwrap().files, 1);
    assert!(!client.exists("a/b/f").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_moves_take_whole_trees_and_resume() {
    let (_folder, client) = dataset("max_parallel_transfers: 2").await;
    for name in ["s/1", "s/x/2", "s/x/y/3"] {
        put(&client, name, "bytes").await;
    }
    let flat = TransferOptions::default();
    let all = TransferOptions {
        recursive: true,
        ..TransferOptions::default()
    };
    assert_eq!(
        kind(client.cp("s", "t", flat.clone()).await),
        ErrorKind::IsDirectory
    );
    let copied = client.cp("s", "t", all.clone()).await.unwrap();
    assert_eq!(
        (copied.files, copied.bytes, copied.files_skipped),
        (3, 15, 0)
    );
    assert_eq!(
        kind(client.cp("s", "t", all.clone()).await),
        ErrorKind::AlreadyExists
    );
    client.rm("t/x/2", RemoveOptions::default()).await.unwrap();
    let resume = TransferOptions {
        existing: Existing::Resume,
        ..all.clone()
    };
    let resumed = client.cp("s", "t", resume).await.unwrap();
    assert_eq!((resumed.files, resumed.files_skipped), (3, 2));
    assert_eq!(client.read_bytes("t/x/2", 0..9).await.unwrap(), "bytes");
    for (from, to) in [("s", "s/x/z"), ("s/x", "s"), ("s", "s")] {
        let nested = client.cp(from, to, all.clone()).await;
        assert_eq!(kind(nested), ErrorKind::InvalidInput, "{from} {to}");
    }
    client.mv("t", "m/t", all.clone()).await.unwrap();
    assert!(!client.exists("t").await.unwrap());
    assert_eq!(client.read_bytes("m/t/1", 0..9).await.unwrap(), "bytes");
    assert_eq!(
        kind(client.mv("m/t/1", "s/1", flat).await),
        ErrorKind::AlreadyExists
    );
}
