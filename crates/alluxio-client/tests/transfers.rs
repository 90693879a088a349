//! Uploads and downloads: whole trees, what was cut and goes on, what changes under way.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

#[path = "../../alluxio-ufs/tests/support/gateway.rs"]
mod gateway;
mod support;

use std::path::Path;
use std::sync::Arc;

use alluxio_client::{
    Client, ErrorKind, Existing, Progress, TransferOptions, WriteMode, WriteOptions,
};
use alluxio_config::Config;
use bytes::Bytes;
use gateway::{ACCESS_KEY, BUCKET, Gateway, SECRET_KEY};
use support::{Folder, PAGE, Reply, ScriptedWorker};
use tokio::sync::Notify;

/// Several steps of a download, and two parts of an upload.
const LARGE: usize = (20 << 20) + 4_321;

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..=250_u8)
        .cycle()
        .skip(seed.into())
        .take(length)
        .collect()
}

fn tree(existing: Existing) -> TransferOptions {
    TransferOptions {
        recursive: true,
        existing,
        ..TransferOptions::default()
    }
}

fn s3(gateway: &Gateway, workers: &[String]) -> Config {
    // Fails only when a provider stands already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let membership = match workers {
        [] => "{type: none}".to_owned(),
        workers => format!("{{type: static, workers: {workers:?}}}"),
    };
    let text = format!(
        "ufs: {{uri: 's3://{BUCKET}', endpoint: '{}', region: us-east-1, key: {ACCESS_KEY}, \
         secret: {SECRET_KEY}}}\ncluster: {{membership: {membership}}}\n\
         client: {{page_size: 64Ki, verify_worker_version: false}}\n",
        gateway.endpoint()
    );
    Config::from_yaml(&text).unwrap()
}

/// Options whose transfer can be cut once some bytes have moved.
fn cut_after_some_bytes(options: &TransferOptions) -> (TransferOptions, Arc<Notify>) {
    let moved = Arc::new(Notify::new());
    let told = Arc::clone(&moved);
    let progress = move |progress: Progress| {
        if progress.bytes_done > 0 {
            told.notify_one();
        }
    };
    let options = TransferOptions {
        progress: Some(Arc::new(progress)),
        ..options.clone()
    };
    (options, moved)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// A tree goes up and comes down again, and what is at its place is left out.
async fn goes_up_and_comes_down(client: &Client) {
    let local = tempfile::tempdir().unwrap();
    let files = [
        ("a", 5),
        ("d/empty", 0),
        ("d/é b", 100_000),
        ("d/e/large", LARGE),
    ];
    for (name, length) in files {
        let path = local.path().join("up").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes(length, 1)).unwrap();
    }
    let (up, down) = (local.path().join("up"), local.path().join("down"));
    let plain = client.upload(&up, "t", TransferOptions::default()).await;
    assert_eq!(plain.unwrap_err().kind(), ErrorKind::IsDirectory);
    let sent = client.upload(&up, "t", tree(Existing::Fail)).await.unwrap();
    assert_eq!((sent.files, sent.files_skipped), (4, 0));
    assert_eq!(sent.bytes, 100_005 + LARGE as u64);
    let again = client.upload(&up, "t", tree(Existing::Fail)).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let again = client.upload(&up, "t", tree(Existing::Resume)).await;
    assert_eq!(again.unwrap().files_skipped, 4);
    std::fs::write(up.join("a"), "longer").unwrap();
    let again = client.upload(&up, "t", tree(Existing::Resume)).await;
    assert_eq!(again.unwrap().files_skipped, 3);

    let came = client.download("t", &down, tree(Existing::Fail)).await;
    assert_eq!(came.unwrap().files, 4);
    for (name, length) in &files[1..] {
        let here = std::fs::read(down.join(name)).unwrap();
        assert!(here == bytes(*length, 1), "{name}");
    }
    assert_eq!(std::fs::read(down.join("a")).unwrap(), b"longer");
    assert_eq!(names(&down.join("d")), ["e", "empty", "é b"]);
    let again = client.download("t", &down, tree(Existing::Fail)).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    std::fs::remove_file(down.join("d/empty")).unwrap();
    std::fs::write(down.join("a"), "edited").unwrap();
    // Times are compared by the second, in which all of this may happen.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    let edited = std::fs::File::options().write(true).open(down.join("a"));
    edited.unwrap().set_modified(later).unwrap();
    let again = client.download("t", &down, tree(Existing::Resume)).await;
    assert_eq!(
        again.unwrap().files_skipped,
        2,
        "neither the lost nor the edited file"
    );
    assert_eq!(std::fs::read(down.join("a")).unwrap(), b"longer");
    let one = local.path().join("one");
    let options = TransferOptions::default();
    client.download("t/a", &one, options.clone()).await.unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), b"longer");
    let missing = client.download("t/nope", &one, options.clone()).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    let missing = client.upload(&up.join("nope"), "x", options).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_up_and_comes_down_by_local_files() {
    let folder = Folder::with(&[]);
    goes_up_and_comes_down(&folder.client(&[], "").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_up_and_comes_down_by_versitygw() {
    let Some(gateway) = Gateway::start() else {
        return;
    };
    let client = Client::connect(&s3(&gateway, &[])).await.unwrap();
    goes_up_and_comes_down(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_was_cut_goes_on_and_another_version_begins_anew() {
    let mut folder = Folder::with(&[("large", LARGE)]);
    let client = folder.client(&[], "").await;
    let local = tempfile::tempdir().unwrap();
    let target = local.path().join("large");
    let cut = || async {
        let (options, moved) = cut_after_some_bytes(&TransferOptions::default());
        tokio::select! {
            biased;
            () = moved.notified() => {}
            done = client.download("large", &target, options) => panic!("not cut: {done:?}"),
        }
        assert!(!target.exists(), "no part has the final name");
    };
    let rest = || client.download("large", &target, TransferOptions::default());
    cut().await;
    let went_on = rest().await.unwrap();
    assert!(went_on.bytes_skipped > 0, "{went_on:?}");
    assert_eq!(went_on.bytes, LARGE as u64);
    assert!(std::fs::read(&target).unwrap() == folder.bytes("large"));
    assert_eq!(names(local.path()), ["large"]);

    std::fs::remove_file(&target).unwrap();
    cut().await;
    folder.write("large", &bytes(LARGE, 9));
    assert_eq!(rest().await.unwrap().bytes_skipped, 0);
    assert!(std::fs::read(&target).unwrap() == bytes(LARGE, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_sent_is_not_stored() {
    let Some(gateway) = Gateway::start() else {
        return;
    };
    let client = Client::connect(&s3(&gateway, &[])).await.unwrap();
    let old = client.write_bytes("f", "old".into(), WriteMode::Replace);
    old.await.unwrap();
    let local = tempfile::tempdir().unwrap();
    let path = local.path().join("f");
    std::fs::write(&path, bytes(LARGE, 2)).unwrap();
    let changed = path.clone();
    let progress = move |_| std::fs::write(&changed, "other").unwrap();
    let options = TransferOptions {
        existing: Existing::Replace,
        progress: Some(Arc::new(progress)),
        ..TransferOptions::default()
    };
    let sent = client.upload(&path, "f", options).await;
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::Stale);
    assert_eq!(client.read_bytes("f", 0..99).await.unwrap(), "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_given_up_leaves_the_old_object() {
    let Some(gateway) = Gateway::start() else {
        return;
    };
    let client = Client::connect(&s3(&gateway, &[])).await.unwrap();
    let old = client.write_bytes("f", "old".into(), WriteMode::Replace);
    old.await.unwrap();
    let begun = || async {
        let writer = client.create("f", WriteOptions::default()).await;
        let mut writer = writer.unwrap();
        for _ in 0..20 {
            writer.write(Bytes::from(vec![7; 1 << 20])).await.unwrap();
        }
        assert_eq!(writer.written_bytes(), 20 << 20);
        writer
    };
    begun().await.abort().await;
    assert_eq!(client.read_bytes("f", 0..99).await.unwrap(), "old");
    drop(begun().await);
    let local = tempfile::tempdir().unwrap();
    let path = local.path().join("f");
    std::fs::write(&path, bytes(LARGE, 2)).unwrap();
    let (options, moved) = cut_after_some_bytes(&tree(Existing::Replace));
    tokio::select! {
        biased;
        () = moved.notified() => {}
        done = client.upload(&path, "f", options) => panic!("not cut: {done:?}"),
    }
    assert_eq!(client.read_bytes("f", 0..99).await.unwrap(), "old");
    begun().await.finish().await.unwrap();
    assert_eq!(client.info("f").await.unwrap().length, 20 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_the_store_hashed_never_get_the_name() {
    let Some(gateway) = Gateway::start() else {
        return;
    };
    // A worker that knows no versions and has other bytes of the same length.
    let worker = ScriptedWorker::start(|target| {
        if target.contains("/page/") {
            Reply::Answer(200, vec![7; PAGE])
        } else {
            Reply::EmptyClose
        }
    });
    let worker = worker.await;
    let config = s3(&gateway, &[worker.host_port()]);
    let client = Client::connect(&config).await.unwrap();
    let put = client.write_bytes("f", bytes(PAGE, 1).into(), WriteMode::Replace);
    put.await.unwrap();
    let local = tempfile::tempdir().unwrap();
    let target = local.path().join("f");
    let came = client.download("f", &target, TransferOptions::default());
    let error = came.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(names(local.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_lead_back_and_names_that_cannot_be_sent_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;

    let (folder, local) = (Folder::with(&[]), tempfile::tempdir().unwrap());
    let client = folder.client(&[], "").await;
    let back = local.path().join("back");
    std::fs::create_dir(&back).unwrap();
    std::os::unix::fs::symlink("..", back.join("up")).unwrap();
    let sent = client.upload(&back, "t", tree(Existing::Fail)).await;
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::InvalidInput);
    let odd = local.path().join("odd");
    std::fs::create_dir(&odd).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    std::fs::write(odd.join(name), "x").unwrap();
    let error = client.upload(&odd, "t", tree(Existing::Fail)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("UTF-8"), "{error}");
}
