//! A list of files that will be opened: what is fetched ahead of their reader, and when it stops.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use std::collections::HashSet;

use alluxio_client::{Client, ErrorKind};
use support::{Folder, PAGE, ScriptedWorker, until};

/// Files that are fetched ahead where memory is plenty.
const AHEAD: usize = 16;

/// Names in an order that is not theirs.
fn shuffled(files: usize) -> Vec<String> {
    (0..files)
        .map(|at| format!("f{}", at * 37 % files))
        .collect()
}

fn folder(names: &[String], length: usize) -> Folder {
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), length)).collect();
    Folder::with(&files)
}

/// How many files a worker was asked for.
fn asked(worker: &ScriptedWorker) -> usize {
    let targets = worker.targets();
    let files: HashSet<_> = targets
        .iter()
        .map(|target| target.split("/page/").next().unwrap())
        .collect();
    files.len()
}

async fn read(client: &Client, folder: &Folder, name: &str) {
    let reader = client.open(name).await.unwrap();
    let read = reader.read_at(0, folder.bytes(name).len()).await.unwrap();
    assert!(read.into_bytes() == folder.bytes(name), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_files_of_a_list_are_fetched_while_one_is_read() {
    let names = shuffled(50);
    let folder = folder(&names, 1000);
    let worker = ScriptedWorker::holding(&folder).await;
    let client = folder.client(&[worker.host_port()], "").await;
    client.follow_list(names.clone()).unwrap();
    for (place, name) in names.iter().enumerate() {
        let ahead = (place + 1 + AHEAD).min(names.len());
        read(&client, &folder, name).await;
        until("the next files were not fetched", || {
            asked(&worker) == ahead
        })
        .await;
    }
    // Each file was asked for once.
    assert_eq!(worker.targets().len(), names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_keeps_no_order_has_little_fetched_ahead() {
    let names = shuffled(400);
    let folder = folder(&names, 1000);
    let worker = ScriptedWorker::holding(&folder).await;
    let client = folder.client(&[worker.host_port()], "").await;
    client.follow_list(names.clone()).unwrap();
    for step in 0..40 {
        read(&client, &folder, &names[step * 150 % 400]).await;
    }
    assert!(asked(&worker) <= 40 + AHEAD, "{}", asked(&worker));
    // An empty list ends it.
    client.follow_list(Vec::new()).unwrap();
    let before = asked(&worker);
    read(&client, &folder, &names[399]).await;
    assert!(asked(&worker) <= before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_ahead_stay_within_their_share_of_the_memory() {
    let names = shuffled(64);
    let folder = folder(&names, 40 * PAGE);
    let worker = ScriptedWorker::holding(&folder).await;
    let options = "memory_limit: 4Mi, readahead: {max_window: 0}";
    let client = folder.client(&[worker.host_port()], options).await;
    client.follow_list(names.clone()).unwrap();
    read(&client, &folder, &names[0]).await;
    for name in &names[1..5] {
        read(&client, &folder, name).await;
        assert!(client.summary().cache.memory_bytes <= 4 << 20);
    }
    // A quarter of the store is 12 pages of 64 KiB: so many files, a page of each.
    let beyond = asked(&worker);
    assert!(beyond <= 5 + 12, "{beyond} files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_a_file_is_followed_and_its_mistakes_are_named() {
    let names = shuffled(30);
    let folder = folder(&names, 1000);
    let worker = ScriptedWorker::holding(&folder).await;
    let list = tempfile::NamedTempFile::new().unwrap();
    // Files that are gone, no paths, and blank lines do no harm.
    let text = format!("{}\nf999\n../x\n\n{}\n", names[0], names[1..].join("\n"));
    std::fs::write(list.path(), text).unwrap();
    let options = format!("file_list: '{}'", list.path().display());
    let client = folder.client(&[worker.host_port()], &options).await;
    read(&client, &folder, &names[0]).await;
    until("the list was not followed", || asked(&worker) == AHEAD - 1).await;
    let missing = folder.config(&[], "file_list: '/nowhere/list'");
    let error = Client::connect(&missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(
        text.contains("/nowhere/list") && text.contains("client.file_list"),
        "{text}"
    );
}
