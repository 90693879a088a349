//! What real workers do that nobody would guess, and that no reader notices. The table in
//! docs/protocol.md names the test of each quirk; those that other files have are not repeated here.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use alluxio_client::source::OpenedFile;
use alluxio_client::worker::{Answer, PageAnswer, Workers};
use alluxio_client::{FallbackReason, WorkerEndpoint};
use alluxio_wire::status::parse_list;
use alluxio_wire::{FileVersion, PageRange, PageSize, UfsUri, WorkerAddress, WorkerId};
use parking_lot::Mutex;
use support::{Folder, PAGE, Reply, ScriptedWorker, page_path};

const TRANSCRIPT: &str = include_str!("vectors/worker-transcript.jsonl");
const LENGTH: usize = 3 * PAGE + 1000;

fn endpoint(worker: &ScriptedWorker) -> WorkerEndpoint {
    let address = WorkerAddress::http("127.0.0.1", worker.address.port());
    WorkerEndpoint::new(WorkerId::from_host("w"), address).unwrap()
}

fn workers() -> Workers {
    Workers::new(Duration::from_secs(30), 4)
}

/// The recorded answer's body, as text.
fn recorded(name: &str) -> String {
    let records = TRANSCRIPT
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let record: serde_json::Value = records
        .into_iter()
        .find(|record: &serde_json::Value| record["name"] == name)
        .unwrap();
    record["response"]["body"].as_str().unwrap().to_owned()
}

fn file(length: u64) -> OpenedFile {
    let uri = UfsUri::parse("s3://bucket/key").unwrap();
    OpenedFile {
        id: uri.file_id(),
        uri,
        version: FileVersion::from_text("1"),
        length,
        modified_ms: 0,
        page_size: PageSize::new(PAGE as u64).unwrap(),
    }
}

fn with_type(content_type: &str, body: &[u8]) -> Reply {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{content_type}content-length: {}\r\n\r\n",
        body.len()
    );
    Reply::Raw([head.as_bytes(), body].concat())
}

/// The names of all tests of the workspace's crates, also of those that the page's other parts name.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                names.extend(tests_of(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    names
}

fn tests_of(source: &str) -> Vec<String> {
    let mut is_test = false;
    let named = |line: &str| {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
            return None;
        }
        let (_, rest) = line.split_once("fn ")?;
        let name = rest.split('(').next()?.to_owned();
        std::mem::take(&mut is_test).then_some(name)
    };
    source.lines().map(str::trim).filter_map(named).collect()
}

/// The words between backticks that are names of tests, and no metrics.
fn named(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        let mut letters = word.chars();
        let plain = letters.all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_'));
        plain && word.matches('_').count() > 2 && !word.starts_with("alluxio_client_")
    };
    text.split('`').filter(is_name).collect()
}

#[test]
fn every_quirk_of_the_protocols_page_has_a_test_that_exists() {
    let page = include_str!("../../../docs/protocol.md");
    let tests = tests();
    let names = named(page);
    assert!(names.len() > 45, "{names:?}");
    for name in names {
        assert!(tests.contains(name), "{name}");
    }
    for number in 1..=11 {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| {number} |")))
            .unwrap_or_else(|| panic!("quirk {number} is not told of"));
        assert!(!named(row).is_empty(), "{row}");
    }
}

#[test]
fn gsons_escapes_in_a_listing_are_the_characters_they_stand_for() {
    let body = recorded("files-names");
    assert!(
        body.contains("\\u0026") && body.contains("\\u003d"),
        "{body}"
    );
    let names: Vec<_> = parse_list(body.as_bytes())
        .unwrap()
        .into_iter()
        .map(|status| status.name)
        .collect();
    for name in ["am&per.txt", "eq=ual.txt", "quo'te\"d.txt"] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} in {names:?}"
        );
    }
    assert!(!names.is_sorted(), "the recorded listing is unsorted");
    assert!(names.iter().all(|name| !name.contains('?')), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_type_tells_nothing() {
    let page = vec![7; PAGE];
    for content_type in [
        "",
        "content-type: text/plain\r\n",
        "content-type: application/json\r\n",
    ] {
        let reply = with_type(content_type, &page);
        let worker = ScriptedWorker::always(reply).await;
        let answer = workers()
            .page(&endpoint(&worker), &file(PAGE as u64), 0, false)
            .await;
        assert_eq!(answer, PageAnswer::Page(page.clone().into()));
        let asked = workers().ask(&endpoint(&worker), "/v1/load?path=x").await;
        assert_eq!(asked, Answer::Body(page.clone().into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_workers_leave_out_are_listed_and_read_from_the_under_store() {
    let names = ["q?mark.txt", "back\\slash.txt", "plain.txt"];
    let folder = Folder::with(&names.map(|name| (name, LENGTH)));
    // As the open-source worker does: neither name is known to info, nor by its page.
    let worker = ScriptedWorker::always(Reply::EmptyClose).await;
    let options = "verify_worker_version: true";
    let client = folder.client(&[worker.host_port()], options).await;
    let listed = client.list("").await.unwrap();
    let mut expected = names;
    expected.sort_unstable();
    assert!(listed.iter().map(|status| &*status.name).eq(expected));
    for name in names {
        let reader = client.open(name).await.unwrap();
        let read = reader.read_at(0, LENGTH).await.unwrap();
        assert_eq!(read.by_source.ufs, LENGTH as u64, "{name}");
        assert!(read.into_bytes() == folder.bytes(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_a_worker_cuts_or_leaves_out_is_not_taken() {
    let page = vec![7; PAGE];
    let part = PageRange {
        offset: PAGE as u64 - 6,
        length: 6,
    };
    // Cut at the page's end, empty at it, the whole page in place of a part, an empty close.
    let answers = [
        Reply::Answer(200, vec![7; 5]),
        Reply::Answer(200, Vec::new()),
        Reply::Answer(200, page.clone()),
        Reply::EmptyClose,
    ];
    for answer in answers {
        let whole = page.clone();
        let worker = ScriptedWorker::start(move |target| {
            if target.contains("offset=") {
                answer.clone()
            } else {
                Reply::Answer(200, whole.clone())
            }
        })
        .await;
        let (workers, endpoint, file) = (workers(), endpoint(&worker), file(2 * PAGE as u64));
        // A part is asked for over a connection alone that has shown the page size.
        assert_eq!(workers.part(&endpoint, &file, 0, part).await, None);
        assert!(worker.targets().is_empty());
        workers.page(&endpoint, &file, 0, false).await;
        assert_eq!(workers.part(&endpoint, &file, 0, part).await, None);
        assert_eq!(
            worker.targets().len(),
            2,
            "asked for the part, and not served"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_smaller_pages_serves_no_byte_and_is_counted() {
    let folder = Folder::with(&[("a", 4 * LENGTH)]);
    // Pages of 64 KiB for a client that believes in 256 KiB: each a prefix, or the bytes of another
    // place.
    let worker = ScriptedWorker::holding(&folder).await;
    let config = folder.config(&[worker.host_port()], "");
    let yaml = config.to_yaml().replace("65536", "262144");
    let config = alluxio_config::Config::from_yaml(&yaml).unwrap();
    let client = alluxio_client::Client::connect(&config).await.unwrap();
    let reader = client.open("a").await.unwrap();
    for (offset, length) in [(0, 4 * LENGTH), (PAGE + 7, 100), (4 * LENGTH - 10, 10)] {
        let read = reader.read_at(offset as u64, length).await.unwrap();
        assert_eq!(read.by_source.worker, 0);
        assert!(read.into_bytes() == folder.bytes("a")[offset..offset + length]);
    }
    assert!(client.metrics().fallbacks(FallbackReason::PageSize) >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_writes_no_page() {
    let folder = Folder::with(&[("a", LENGTH)]);
    let missing = ScriptedWorker::always(Reply::EmptyClose).await;
    let options = "verify_worker_version: true";
    let client = folder.client(&[missing.host_port()], options).await;
    let reader = client.open("a").await.unwrap();
    reader.read_at(0, LENGTH).await.unwrap();
    let targets = missing.targets();
    assert!(targets.len() >= 4, "{targets:?}");
    // The support writes another method before the target.
    assert!(
        targets
            .iter()
            .all(|target| page_path(target).starts_with("/v1/")),
        "{targets:?}"
    );
}

/// Between the look at a kept connection and the write the worker may have closed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_was_closed_meanwhile_is_no_miss() {
    let folder = Folder::with(&[("a", LENGTH)]);
    let (bytes, closed) = (folder.bytes("a").to_vec(), Mutex::new(HashSet::new()));
    let worker = ScriptedWorker::start(move |target| {
        let index: usize = page_path(target)
            .rsplit('/')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        // Page 0 leaves a kept connection; on it each further page is first asked for in vain.
        if index > 0 && closed.lock().insert(index) {
            return Reply::EmptyClose;
        }
        let page = bytes.chunks(PAGE).nth(index).unwrap();
        Reply::Answer(200, page.to_vec())
    })
    .await;
    let options = "readahead: {max_window: 0}";
    let client = folder.client(&[worker.host_port()], options).await;
    let reader = client.open("a").await.unwrap();
    for offset in (0..LENGTH).step_by(PAGE) {
        let read = reader.read_at(offset as u64, 100).await.unwrap();
        assert_eq!(read.by_source.worker, 100, "from {offset}");
        assert!(read.into_bytes() == folder.bytes("a")[offset..offset + 100]);
    }
    assert_eq!(
        worker.targets().len(),
        7,
        "three pages of four were asked for twice"
    );
    assert_eq!(client.metrics().fallbacks(FallbackReason::Miss), 0);
}
