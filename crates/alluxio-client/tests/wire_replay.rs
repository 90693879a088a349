//! Every recorded answer of a real worker, replayed: parsed or rejected as the protocol says.
//!
//! A small server gives the recorded answer to the recorded target, and closes the connection
//! without a byte where the real worker did. Large page bodies are recorded by length and first
//! bytes; the replay fills them up with zeros.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use alluxio_client::source::OpenedFile;
use alluxio_client::worker::{Answer, PageAnswer, Workers};
use alluxio_client::{Client, ErrorKind, WorkerEndpoint};
use alluxio_config::Config;
use alluxio_wire::load::{LoadOptions, LoadState, ProgressAnswer, StopAnswer, SubmitAnswer};
use alluxio_wire::status::parse_list;
use alluxio_wire::{FileVersion, PageSize, UfsUri, WorkerAddress, WorkerId};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use support::{Reply, ScriptedWorker, page_path};

const TRANSCRIPT: &str = include_str!("vectors/worker-transcript.jsonl");
/// The page size of the recorded cluster.
const PAGE: u64 = 1024 * 1024;

#[derive(Deserialize, Clone)]
struct Record {
    name: String,
    request: Request,
    response: Option<Response>,
}

#[derive(Deserialize, Clone)]
struct Request {
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, String)>,
}

#[derive(Deserialize, Clone)]
struct Response {
    status: u16,
    body: Option<String>,
    body_b64: Option<String>,
    body_prefix_b64: Option<String>,
    body_len: Option<usize>,
}

impl Response {
    fn body(&self) -> Vec<u8> {
        let mut bytes = match (&self.body, &self.body_b64, &self.body_prefix_b64) {
            (Some(text), _, _) => text.clone().into_bytes(),
            (_, Some(base64), _) | (_, _, Some(base64)) => decode_base64(base64),
            _ => Vec::new(),
        };
        bytes.resize(self.body_len.unwrap_or(bytes.len()), 0);
        bytes
    }
}

impl Record {
    fn reply(&self) -> Reply {
        match &self.response {
            None => Reply::EmptyClose,
            Some(response) => Reply::Answer(response.status, response.body()),
        }
    }

    /// What a client of ours would send too: a plain GET.
    fn is_plain_get(&self) -> bool {
        self.request.method == "GET"
            && self.request.version == "HTTP/1.1"
            && self.request.headers.iter().all(|(name, _)| name == "Host")
    }
}

fn transcript() -> Vec<Record> {
    TRANSCRIPT
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn named(names: &[&str]) -> Vec<Record> {
    let all = transcript();
    let find = |name: &&str| all.iter().find(|r| r.name == *name).unwrap().clone();
    names.iter().map(find).collect()
}

/// The real worker decodes these three escapes and no other.
fn decoded(target: &str) -> String {
    target
        .replace("%2F", "/")
        .replace("%3A", ":")
        .replace("%3F", "?")
}

/// A worker whose next answer is set by the test.
async fn replayer() -> (ScriptedWorker, Arc<Mutex<Reply>>) {
    let next = Arc::new(Mutex::new(Reply::EmptyClose));
    let told = Arc::clone(&next);
    (
        ScriptedWorker::start(move |_| told.lock().clone()).await,
        next,
    )
}

fn endpoint(worker: &ScriptedWorker) -> WorkerEndpoint {
    let address = WorkerAddress::http("127.0.0.1", worker.address.port());
    WorkerEndpoint::new(WorkerId::from_host("w"), address).unwrap()
}

fn workers() -> Workers {
    Workers::new(Duration::from_secs(30), 4)
}

fn file(id: &str, length: u64) -> OpenedFile {
    OpenedFile {
        id: id.parse().unwrap(),
        uri: UfsUri::parse("file:///srv/ufs/x").unwrap(),
        version: FileVersion::from_text("1"),
        length,
        modified_ms: 0,
        page_size: PageSize::new(PAGE).unwrap(),
    }
}

/// `/v1/file/{id}/page/{index}` of a record that asks for a whole page with a possible id.
fn whole_page(target: &str) -> Option<(String, u64)> {
    if target.contains("offset") || target.contains("length") {
        return None;
    }
    let parts: Vec<_> = page_path(target).split('/').collect();
    let ["", "v1", "file", id, "page", index] = parts[..] else {
        return None;
    };
    let is_id = id.len() == 64 && !id.contains(|c: char| c.is_ascii_uppercase());
    is_id.then_some(())?;
    Some((id.to_owned(), index.parse().ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_page_is_served_or_a_miss_and_never_cut() {
    let (worker, next) = replayer().await;
    let (workers, endpoint) = (workers(), endpoint(&worker));
    let (mut served, mut missed) = (0, 0);
    for record in transcript().iter().filter(|record| record.is_plain_get()) {
        let Some((id, index)) = whole_page(&record.request.target) else {
            continue;
        };
        *next.lock() = record.reply();
        let length = record
            .response
            .as_ref()
            .map_or(PAGE, |r| r.body().len() as u64);
        let opened = file(&id, index * PAGE + length);
        let answer = workers.page(&endpoint, &opened, index, false).await;
        let asked = worker.targets().pop().unwrap();
        assert_eq!(page_path(&asked), page_path(&record.request.target));
        let Some(response) = &record.response else {
            assert_eq!(answer, PageAnswer::Closed, "{}", record.name);
            missed += 1;
            continue;
        };
        assert_eq!(answer, PageAnswer::Page(Bytes::from(response.body())));
        served += 1;
        if length < PAGE {
            // A client that believes in another length gets no byte of it.
            let longer = file(&id, index * PAGE + length + 1);
            let answer = workers.page(&endpoint, &longer, index, false).await;
            let wrong = PageAnswer::WrongLength {
                sent: length,
                expected: length + 1,
            };
            assert_eq!(answer, wrong, "{}", record.name);
        }
    }
    assert_eq!((served, missed), (SERVED_PAGES, MISSED_PAGES));
}

/// Recorded whole pages that the worker sent.
const SERVED_PAGES: usize = 17;
/// Recorded whole pages that it did not hold.
const MISSED_PAGES: usize = 31;

#[tokio::test(flavor = "multi_thread")]
async fn every_other_recorded_answer_arrives_as_it_was_sent() {
    let (worker, next) = replayer().await;
    let (workers, endpoint) = (workers(), endpoint(&worker));
    let mut unsendable = Vec::new();
    let mut compared = 0;
    for record in transcript().iter().filter(|record| record.is_plain_get()) {
        let target = &record.request.target;
        *next.lock() = record.reply();
        let answer = if target.starts_with('/') {
            workers.ask(&endpoint, target).await
        } else {
            Answer::Failed(String::new())
        };
        // An HTTP client escapes or cuts some bytes; then another question was asked.
        if worker.targets().pop().as_ref() != Some(target) {
            unsendable.push(record.name.clone());
            continue;
        }
        let expected = match &record.response {
            None => Answer::Nothing,
            Some(response) => Answer::Body(Bytes::from(response.body())),
        };
        assert!(answer == expected, "{}", record.name);
        check_shape(&record.name, &answer);
        compared += 1;
    }
    assert_eq!(compared, COMPARED);
    assert_eq!(unsendable, UNSENDABLE);
    assert_eq!(transcript().len(), COMPARED + UNSENDABLE.len() + NOT_OURS);
}

/// Recorded answers to a plain GET that a URL can express.
const COMPARED: usize = 169;
/// Targets that no HTTP client sends as they stand; such names are asked of the under-store.
const UNSENDABLE: [&str; 6] = [
    "health-absolute-uri",
    "name-raw:emoji😀.txt",
    "name-raw:umlé.txt",
    "name-raw:日本語.txt",
    "bad-no-slash",
    "bad-raw-space",
];
/// Records of requests that this client never makes: writes, other methods, other versions of
/// HTTP, headers that it does not send.
const NOT_OURS: usize = 24;

/// Reads an answer as what its record's name says it is.
fn check_shape(name: &str, answer: &Answer) {
    let Answer::Body(body) = answer else { return };
    let kind = name.split('-').next().unwrap();
    match (kind, name) {
        ("info" | "name", _) => assert_eq!(parse_list(body).unwrap().len(), 1, "{name}"),
        ("files", _) => drop(parse_list(body).unwrap()),
        ("load", _) if name.starts_with("load-submit") => {
            assert!(SubmitAnswer::parse(body).unwrap().success, "{name}");
        }
        ("load", _) if name.starts_with("load-stop") => {
            let stopped = StopAnswer::parse(body).unwrap().success;
            assert_eq!(stopped, name == "load-stop-running", "{name}");
        }
        ("load", _) => {
            let progress = ProgressAnswer::parse(body).unwrap();
            let known = !name.contains("missing") && !name.contains("unknown");
            assert_eq!(progress.progress.is_some(), known, "{name}");
            assert!(known || progress.state == LoadState::Failed, "{name}");
        }
        _ => {}
    }
}

/// A client of the recorded cluster that may ask workers alone, and the worker that answers from
/// these records: each target the first time with its first record, then with the next.
async fn client_of(names: &[&str]) -> (Client, ScriptedWorker) {
    let records = Mutex::new(named(names));
    let worker = ScriptedWorker::start(move |target| {
        let mut records = records.lock();
        let matching: Vec<usize> = (0..records.len())
            .filter(|at| decoded(&records[*at].request.target) == decoded(target))
            .collect();
        match matching[..] {
            [] => Reply::EmptyClose,
            [only] => records[only].reply(),
            [first, ..] => records.remove(first).reply(),
        }
    })
    .await;
    let yaml = format!(
        "ufs: {{uri: 'file:///srv/ufs'}}\n\
         cluster: {{membership: {{type: static, workers: ['{}']}}}}\n\
         client: {{fallback: {{policy: never}}, metadata_ttl_seconds: 0}}\n",
        worker.host_port()
    );
    let client = Client::connect(&Config::from_yaml(&yaml).unwrap())
        .await
        .unwrap();
    (client, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ufs_statuses_and_listings_are_the_workers() {
    let names = ["info-file-raw", "info-dir", "files-dir", "info-empty-file"];
    let (client, _worker) = client_of(&names).await;
    let status = client.status("hello.txt").await.unwrap();
    assert_eq!(
        (status.length, status.ufs_uri.as_str()),
        (6, "file:///srv/ufs/hello.txt")
    );
    let listing = client.list("dir").await.unwrap();
    let names: Vec<_> = listing.iter().map(|status| status.name.as_str()).collect();
    assert!(
        names.is_sorted() && names.contains(&"b.txt") && names.contains(&"sub"),
        "{names:?}"
    );
    let empty = client.open("pages/empty.bin").await.unwrap();
    assert!(empty.read_at(0, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ufs_what_workers_do_not_know_is_missing() {
    let names = ["info-missing-parent", "files-missing", "info-file-raw"];
    let (client, _worker) = client_of(&names).await;
    let status = client.status("no/such/file").await.unwrap_err();
    assert_eq!(status.kind(), ErrorKind::NotFound);
    // A real worker lists a missing directory as an empty one.
    assert_eq!(
        client.list("no-such-dir").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        client.list("hello.txt").await.unwrap_err().kind(),
        ErrorKind::NotDirectory
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_ufs_a_name_that_workers_misread_is_an_error_and_not_another_file() {
    let (client, worker) = client_of(&["info-dir", "files-dir"]).await;
    for name in [
        "with space.txt",
        "ha#sh.txt",
        "q?mark.txt",
        "umlé.txt",
        "am&per.txt",
    ] {
        let error = client.status(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
    }
    assert!(worker.targets().is_empty());
    let walked: Result<Vec<_>, _> = client.walk("dir").try_collect().await;
    assert_eq!(walked.unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(client.walk("dir").next().await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_submitted_followed_and_stopped() {
    let (client, _worker) =
        client_of(&["load-submit-dir", "load-progress-done-json-verbose"]).await;
    let path = client.root().join("pages").unwrap();
    let loads = client.loads();
    let submitted = loads.submit(&path, &LoadOptions::default()).await.unwrap();
    assert_eq!(submitted.job_id, "74a051c0-b16f-4d70-b8ed-aadefe376281");
    let progress = loads.progress(&path).await.unwrap();
    assert_eq!(progress.state, LoadState::Succeeded);
    let counts = progress.progress.unwrap();
    assert_eq!((counts.files_done, counts.bytes_done), (7, 8_912_897));

    let (client, _worker) = client_of(&["load-stop-running", "load-stop-again"]).await;
    let path = client.root().join("load").unwrap();
    assert!(client.loads().stop(&path).await.unwrap().success);
    assert!(!client.loads().stop(&path).await.unwrap().success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submit_that_is_closed_on_joins_the_job_that_runs() {
    let (client, _worker) =
        client_of(&["load-submit-again-at-once", "load-progress-running-json"]).await;
    let path = client.root().join("load").unwrap();
    let joined = client
        .loads()
        .submit(&path, &LoadOptions::default())
        .await
        .unwrap();
    assert!(
        joined.success && joined.message.contains("running already"),
        "{joined:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submit_that_is_closed_on_with_no_job_is_an_error() {
    let (client, _worker) = client_of(&["load-progress-done-json-verbose"]).await;
    let path = client.root().join("pages").unwrap();
    let error = client
        .loads()
        .submit(&path, &LoadOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("file:///srv/ufs/pages"),
        "{error}"
    );
}

/// The few bodies here are short, so a table is enough.
fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0u32;
    let mut count = 0;
    let mut bytes = Vec::new();
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|letter| *letter == byte).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}
