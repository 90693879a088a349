//! Small reads here and there bring little more than their own bytes, and never those of another
//! place.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use std::collections::HashMap;

use support::{Folder, PAGE, Reply, ScriptedWorker};

const PAGES: usize = 200;
/// A small read, and how far from one another they lie: no page is touched twice, none follows the
/// one before.
const SMALL: usize = 512;
const STRIDE_PAGES: usize = 73;
const FILE: &str = "a";

/// The number behind `name=` in a target.
fn number(target: &str, name: &str) -> Option<usize> {
    let value = target
        .split(['?', '&'])
        .find_map(|part| part.strip_prefix(name))?;
    value.strip_prefix('=')?.parse().ok()
}

/// A worker with pages of `page_bytes` that answers for parts as the real ones do.
async fn worker(folder: &Folder, page_bytes: usize) -> ScriptedWorker {
    let id = folder.root().join(FILE).unwrap().file_id();
    let pages: HashMap<String, Vec<u8>> = folder
        .bytes(FILE)
        .chunks(page_bytes)
        .enumerate()
        .map(|(index, page)| (format!("/v1/file/{id}/page/{index}"), page.to_vec()))
        .collect();
    ScriptedWorker::start(move |target| {
        let Some(page) = pages.get(support::page_path(target)) else {
            return Reply::EmptyClose;
        };
        match (number(target, "offset"), number(target, "length")) {
            (Some(offset), Some(length)) => {
                let end = (offset + length).min(page.len());
                Reply::Answer(200, page[offset.min(end)..end].to_vec())
            }
            _ => Reply::Answer(200, page.clone()),
        }
    })
    .await
}

/// Reads here and there, compares each read, and returns the targets that the worker was asked for.
async fn scattered_reads(worker_page_bytes: usize) -> Vec<String> {
    let folder = Folder::with(&[(FILE, PAGES * PAGE)]);
    let worker = worker(&folder, worker_page_bytes).await;
    let client = folder.client(&[worker.host_port()], "").await;
    let reader = client.open(FILE).await.unwrap();
    for turn in 1..60 {
        let offset = (turn * STRIDE_PAGES % PAGES) * PAGE + turn * 7;
        let read = reader.read_at(offset as u64, SMALL).await.unwrap();
        let expected = &folder.bytes(FILE)[offset..offset + SMALL];
        assert!(read.into_bytes() == expected, "other bytes at {offset}");
    }
    worker.targets()
}

#[tokio::test(flavor = "multi_thread")]
async fn scattered_reads_ask_for_parts_of_pages() {
    let targets = scattered_reads(PAGE).await;
    let parts = targets
        .iter()
        .filter(|target| target.contains("offset="))
        .count();
    assert!(parts > 40, "{parts} parts of {} requests", targets.len());
}

/// Such a worker would answer for the part of a page with other bytes of the right length.
#[tokio::test(flavor = "multi_thread")]
async fn no_part_is_asked_of_a_worker_of_another_page_size() {
    for other in [PAGE / 2, PAGE * 2] {
        let targets = scattered_reads(other).await;
        assert!(targets.iter().all(|target| !target.contains("offset=")));
    }
}
