//! After a change, workers are told to forget the file, and one that cannot be told is no error.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use alluxio_client::{RemoveOptions, TouchOptions, TransferOptions, WriteMode};
use support::{Folder, PAGE, Reply, ScriptedWorker, nobody};

/// What a worker was told, by the paths below the root.
fn told(worker: &ScriptedWorker, folder: &Folder, names: &[&str]) -> Vec<String> {
    let targets = worker.targets();
    let posts = targets.iter().filter(|target| target.starts_with("POST "));
    let name_of = |target: &String| {
        let found = names.iter().find(|name| {
            let id = folder.root().join(name).unwrap().file_id();
            target.starts_with(&format!("POST /v1/internal/invalidate/{id}?ufsFullPath="))
        });
        (*found.unwrap_or_else(|| panic!("{target}"))).to_owned()
    };
    posts.map(name_of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_of_a_file_is_told_of_each_change() {
    let folder = Folder::with(&[]);
    let worker = ScriptedWorker::start(|_| Reply::Answer(200, Vec::new())).await;
    let client = folder.client(&[worker.host_port()], "").await;
    let put = |path: &'static str| client.write_bytes(path, "x".into(), WriteMode::Replace);
    put("a").await.unwrap();
    put("d/b").await.unwrap();
    client
        .touch("a", TouchOptions { truncate: true })
        .await
        .unwrap();
    let options = TransferOptions::default();
    client.cp("a", "c", options.clone()).await.unwrap();
    client.mv("c", "e", options.clone()).await.unwrap();
    client.rm("e", RemoveOptions::default()).await.unwrap();
    let all = RemoveOptions {
        recursive: true,
        ..RemoveOptions::default()
    };
    client.rm("d", all).await.unwrap();
    let names = ["a", "d/b", "c", "e"];
    let expected = ["a", "d/b", "a", "c", "c", "e", "e", "d/b"];
    assert_eq!(told(&worker, &folder, &names), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_know_the_request_is_not_asked_again() {
    for reply in [Reply::EmptyClose, Reply::Answer(404, Vec::new())] {
        let folder = Folder::with(&[]);
        let worker = ScriptedWorker::start(move |_| reply.clone()).await;
        let client = folder.client(&[worker.host_port()], "").await;
        for path in ["a", "b"] {
            let put = client.write_bytes(path, "x".into(), WriteMode::Replace);
            put.await.unwrap();
        }
        assert_eq!(told(&worker, &folder, &["a", "b"]), ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_away_is_no_error_to_the_writer() {
    let folder = Folder::with(&[]);
    let client = folder.client(&[nobody()], "").await;
    let put = client.write_bytes("a", "x".into(), WriteMode::Replace);
    put.await.unwrap();
    assert_eq!(client.read_bytes("a", 0..9).await.unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_what_was_written_over_leave_memory() {
    let folder = Folder::with(&[("f", PAGE)]);
    let client = folder.client(&[], "").await;
    let before = client.info("f").await.unwrap();
    client.read_bytes("f", 0..PAGE as u64).await.unwrap();
    let share = client.cached_share("f", &before.version());
    assert!(share > 0.99, "{share}");
    let put = client.write_bytes("f", "x".into(), WriteMode::Replace);
    put.await.unwrap();
    let share = client.cached_share("f", &before.version());
    assert!(share < f64::EPSILON, "{share}");
}
