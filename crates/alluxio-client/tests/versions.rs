//! Every read gives bytes of one version, or says that the file changed: with workers that know
//! versions, with workers that do not, with files replaced, cut and deleted between reads.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

mod support;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alluxio_client::{Client, ErrorKind, FallbackReason, FileReader};
use alluxio_config::Config;
use alluxio_wire::{FileKind, FileStatus, FileVersion, UfsUri, status::to_json};
use parking_lot::Mutex;
use proptest::prelude::*;
use support::{DEADLINE, PAGE, Reply, ScriptedWorker, page_path};

/// Small enough that every read asks anew.
const ASKING: &str = "metadata_ttl_seconds: 0, readahead: {max_window: 0}";
/// A time that whole seconds tell apart from its neighbours.
const FIRST_MS: u64 = 1_700_000_000_000;

/// The bytes of a version: no two versions share one at any offset for long.
fn content(version: u64, length: usize) -> Vec<u8> {
    let byte = |at: usize| {
        let mixed = (at as u64 / 7 + 1).wrapping_mul(version.wrapping_mul(2) + 1);
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).to_le_bytes()[0]
    };
    (0..length).map(byte).collect()
}

/// A dataset of which every version ever written is known.
struct Versions {
    folder: tempfile::TempDir,
    written: Mutex<Vec<Vec<u8>>>,
}

impl Versions {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            written: Mutex::default(),
        }
    }

    fn root(&self) -> UfsUri {
        UfsUri::parse(&format!("file://{}", self.folder.path().display())).unwrap()
    }

    /// Puts a new version in place at once, a second later than the one before.
    fn replace(&self, name: &str, length: usize) -> u64 {
        let mut written = self.written.lock();
        let version = written.len() as u64;
        let bytes = content(version, length);
        let part = self.folder.path().join(".part");
        std::fs::write(&part, &bytes).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(FIRST_MS + 1000 * version);
        let file = File::options().write(true).open(&part).unwrap();
        file.set_modified(modified).unwrap();
        std::fs::rename(part, self.folder.path().join(name)).unwrap();
        written.push(bytes);
        version
    }

    /// Cuts the file in place to half of its length: the inode stays, the version does not.
    fn truncate(&self, name: &str) {
        let path = self.folder.path().join(name);
        let Ok(file) = File::options().write(true).open(path) else {
            return;
        };
        let length = file.metadata().unwrap().len() / 2;
        let mut written = self.written.lock();
        let version = written.len() as u64;
        let old = file.metadata().unwrap().modified().unwrap();
        let old = old.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let old = (u64::try_from(old.as_millis()).unwrap() - FIRST_MS) / 1000;
        let bytes = written[usize::try_from(old).unwrap()].clone();
        file.set_len(length).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(FIRST_MS + 1000 * version);
        file.set_modified(modified).unwrap();
        written.push(bytes[..usize::try_from(length).unwrap()].to_vec());
    }

    fn delete(&self, name: &str) {
        let _ = std::fs::remove_file(self.folder.path().join(name));
    }

    /// The bytes of the version that a reader says it reads.
    fn of(&self, reader: &FileReader) -> Vec<u8> {
        let version = (reader.status().modified_ms.cast_unsigned() - FIRST_MS) / 1000;
        self.written.lock()[usize::try_from(version).unwrap()].clone()
    }

    async fn client(&self, worker: Option<&Worker>, options: &str) -> Client {
        let membership = worker.map_or("{type: none}".to_owned(), |worker| {
            format!(
                "{{type: static, workers: ['{}']}}",
                worker.server.host_port()
            )
        });
        let yaml = format!(
            "ufs: {{uri: '{}', anon: true}}\ncluster: {{membership: {membership}}}\n\
             client: {{page_size: 64Ki, virtual_nodes_per_worker: 50, {options}}}\n",
            self.root()
        );
        Client::connect(&Config::from_yaml(&yaml).unwrap())
            .await
            .unwrap()
    }
}

/// A worker's copy of a file.
struct Copy {
    bytes: Vec<u8>,
    status: FileStatus,
}

/// A worker that keeps copies until it is told to load anew.
struct Worker {
    server: ScriptedWorker,
    copies: Arc<Mutex<HashMap<String, Copy>>>,
    root: UfsUri,
    folder: PathBuf,
}

impl Worker {
    /// Like the open-source worker: closes the connection for all that it does not have, ignores
    /// the version that it is told.
    async fn open_source(versions: &Versions) -> Self {
        Self::start(versions, false).await
    }

    /// Like the embedded worker: has codes, and refuses another version.
    async fn embedded(versions: &Versions) -> Self {
        Self::start(versions, true).await
    }

    async fn start(versions: &Versions, knows_versions: bool) -> Self {
        let copies: Arc<Mutex<HashMap<String, Copy>>> = Arc::default();
        let held = Arc::clone(&copies);
        let server =
            ScriptedWorker::start(move |target| answer(&held.lock(), target, knows_versions)).await;
        Self {
            server,
            copies,
            root: versions.root(),
            folder: versions.folder.path().to_owned(),
        }
    }

    /// Takes a copy of the file as it is now.
    fn load(&self, name: &str) {
        let path = self.folder.join(name);
        let Ok(bytes) = std::fs::read(&path) else {
            return;
        };
        let uri = self.root.join(name).unwrap();
        let status = FileStatus {
            kind: FileKind::File,
            name: name.to_owned(),
            path: format!("/{name}"),
            ufs_uri: uri.to_string(),
            modified_ms: modified_ms(&path),
            length: bytes.len() as u64,
            content_hash: None,
        };
        let copy = Copy { bytes, status };
        self.copies.lock().insert(uri.file_id().to_string(), copy);
    }

    fn asked(&self, what: &str) -> usize {
        let targets = self.server.targets();
        targets
            .iter()
            .filter(|target| target.contains(what))
            .count()
    }
}

fn modified_ms(path: &Path) -> i64 {
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn answer(copies: &HashMap<String, Copy>, target: &str, knows_versions: bool) -> Reply {
    let missing = || {
        if knows_versions {
            Reply::Answer(404, b"{}".to_vec())
        } else {
            Reply::EmptyClose
        }
    };
    if let Some(path) = target.strip_prefix("/v1/info?path=") {
        let copy = copies.values().find(|copy| copy.status.ufs_uri == path);
        return copy.map_or_else(missing, |copy| {
            Reply::Answer(
                200,
                to_json(std::slice::from_ref(&copy.status)).into_bytes(),
            )
        });
    }
    let mut parts = page_path(target)
        .trim_start_matches("/v1/file/")
        .split("/page/");
    let (Some(id), Some(index)) = (parts.next(), parts.next()) else {
        return missing();
    };
    let Some(copy) = copies.get(id) else {
        return missing();
    };
    let version = FileVersion::as_str(&copy.status.version()).replace(':', "%3A");
    if knows_versions && !target.contains(&format!("version={version}&")) {
        return Reply::Answer(409, b"{}".to_vec());
    }
    match copy.bytes.chunks(PAGE).nth(index.parse().unwrap()) {
        Some(page) => Reply::Answer(200, page.to_vec()),
        None => missing(),
    }
}

async fn read(reader: &FileReader, offset: usize, length: usize) -> Result<Vec<u8>, ErrorKind> {
    let read = reader.read_at(offset as u64, length);
    let read = tokio::time::timeout(DEADLINE, read).await.unwrap();
    read.map(|read| read.into_bytes().to_vec())
        .map_err(|e| e.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_page_of_an_open_source_worker_is_not_served() {
    let versions = Versions::new();
    let worker = Worker::open_source(&versions).await;
    versions.replace("a", 3 * PAGE);
    worker.load("a");
    versions.replace("a", 3 * PAGE);
    let client = versions.client(Some(&worker), ASKING).await;
    let new = client.open("a").await.unwrap();
    assert!(read(&new, 0, 3 * PAGE).await.unwrap() == content(1, 3 * PAGE));
    assert_eq!(client.bytes_by_source().worker, 0);
    assert!(client.metrics().fallbacks(FallbackReason::Stale) > 0);
    // Loaded anew, the worker serves again.
    worker.load("a");
    let client = versions.client(Some(&worker), ASKING).await;
    let new = client.open("a").await.unwrap();
    assert!(read(&new, 0, 3 * PAGE).await.unwrap() == content(1, 3 * PAGE));
    assert_eq!(client.bytes_by_source().ufs, 0);
    // What the comparison is for: without it the old bytes would have come.
    worker
        .copies
        .lock()
        .values_mut()
        .for_each(|copy| copy.bytes = content(0, 3 * PAGE));
    let options = format!("{ASKING}, verify_worker_version: false");
    let trusting = versions.client(Some(&worker), &options).await;
    let old = trusting.open("a").await.unwrap();
    assert!(read(&old, 0, 3 * PAGE).await.unwrap() == content(0, 3 * PAGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_asked_for_its_copys_version_once_a_file() {
    let versions = Versions::new();
    let worker = Worker::open_source(&versions).await;
    for name in ["a", "b"] {
        versions.replace(name, 4 * PAGE);
        worker.load(name);
    }
    let client = versions.client(Some(&worker), "").await;
    for name in ["a", "b", "a"] {
        let reader = client.open(name).await.unwrap();
        let expected = versions.of(&reader);
        assert!(read(&reader, 0, 4 * PAGE).await.unwrap() == expected);
    }
    assert_eq!(client.bytes_by_source().ufs, 0);
    assert_eq!((worker.asked("/v1/info"), worker.asked("/page/")), (2, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_the_version_is_not_asked_for_it() {
    let versions = Versions::new();
    let worker = Worker::embedded(&versions).await;
    versions.replace("a", 2 * PAGE);
    worker.load("a");
    let client = versions.client(Some(&worker), "").await;
    let reader = client.open("a").await.unwrap();
    assert!(read(&reader, 0, 2 * PAGE).await.unwrap() == content(0, 2 * PAGE));
    assert_eq!(
        (worker.asked("/v1/info"), client.bytes_by_source().ufs),
        (0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_asked_for_its_kind_once_and_again_after_a_restart() {
    let versions = Versions::new();
    versions.replace("a", 4 * PAGE);
    let old = std::fs::read(versions.folder.path().join("a")).unwrap();
    // First it checks versions; then it is an open-source worker with an old copy of the file.
    let (restarted, copy) = (Arc::new(Mutex::new(0)), old.clone());
    let stage = Arc::clone(&restarted);
    let server = ScriptedWorker::start(move |target| {
        let mut stage = stage.lock();
        let page = page_path(target)
            .rsplit('/')
            .next()
            .and_then(|index| index.parse().ok());
        match (*stage, page) {
            // The process ends: its kept connection is closed.
            (1, _) => {
                *stage = 2;
                Reply::EmptyClose
            }
            (0, None) => Reply::Answer(200, b"{}".to_vec()),
            (_, None) => Reply::EmptyClose,
            (_, Some(index)) => Reply::Answer(200, copy.chunks(PAGE).nth(index).unwrap().to_vec()),
        }
    })
    .await;
    let worker = Worker {
        server,
        copies: Arc::default(),
        root: versions.root(),
        folder: versions.folder.path().to_owned(),
    };
    let client = versions.client(Some(&worker), ASKING).await;
    let reader = client.open("a").await.unwrap();
    for page in 0..3 {
        assert!(read(&reader, page * PAGE, PAGE).await.unwrap() == old[page * PAGE..][..PAGE]);
    }
    assert_eq!(worker.asked("/v1/node"), 1);
    assert_eq!(client.bytes_by_source().worker, 3 * PAGE as u64);

    versions.replace("a", 4 * PAGE);
    *restarted.lock() = 1;
    let reader = client.open("a").await.unwrap();
    let new = versions.of(&reader);
    for page in 0..4 {
        assert!(read(&reader, page * PAGE, PAGE).await.unwrap() == new[page * PAGE..][..PAGE]);
    }
    // Once more, and that over a connection that had answered: its empty close is tried anew.
    assert_eq!(worker.asked("/v1/node"), 3);
    assert_eq!(client.bytes_by_source().worker, 3 * PAGE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_info_cannot_address_comes_from_the_under_store() {
    let versions = Versions::new();
    let worker = Worker::open_source(&versions).await;
    for name in ["plain", "with blank"] {
        versions.replace(name, PAGE);
        worker.load(name);
    }
    let client = versions.client(Some(&worker), "").await;
    for name in ["plain", "with blank"] {
        let reader = client.open(name).await.unwrap();
        let expected = versions.of(&reader);
        assert!(read(&reader, 0, PAGE).await.unwrap() == expected);
    }
    assert_eq!(client.metrics().fallbacks(FallbackReason::Unaddressable), 1);
    assert_eq!(client.bytes_by_source().worker, PAGE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_with_a_new_version_only_before_its_first_byte() {
    let versions = Versions::new();
    versions.replace("a", 3 * PAGE);
    let options = "on_change: reopen, readahead: {max_window: 0}";
    let client = versions.client(None, options).await;
    let (untouched, begun) = (
        client.open("a").await.unwrap(),
        client.open("a").await.unwrap(),
    );
    assert!(read(&begun, 0, 10).await.unwrap() == content(0, 10));
    versions.replace("a", 2 * PAGE);
    assert_eq!(read(&begun, 2 * PAGE, 10).await, Err(ErrorKind::Stale));
    assert!(read(&untouched, PAGE, PAGE).await.unwrap() == content(1, 2 * PAGE)[PAGE..]);
    assert_eq!(untouched.status().length, 2 * PAGE as u64);
    versions.replace("a", 2 * PAGE);
    assert_eq!(read(&untouched, 0, 10).await, Err(ErrorKind::Stale));
    // Without the policy the first byte is no different from any other.
    let failing = versions.client(None, "readahead: {max_window: 0}").await;
    let reader = failing.open("a").await.unwrap();
    versions.replace("a", 2 * PAGE);
    assert_eq!(read(&reader, 0, 10).await, Err(ErrorKind::Stale));
    // A file that went cannot be opened again.
    let reader = client.open("a").await.unwrap();
    versions.delete("a");
    assert_eq!(read(&reader, 0, 10).await, Err(ErrorKind::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_side_by_side_agree_on_one_version() {
    let versions = Versions::new();
    versions.replace("a", 8 * PAGE);
    let options = "on_change: reopen, readahead: {max_window: 0}";
    for _ in 0..20 {
        let client = versions.client(None, options).await;
        let reader = client.open("a").await.unwrap();
        // Half of the pages of the old version are in memory.
        let old = client.open("a").await.unwrap();
        read(&old, 0, 4 * PAGE).await.unwrap();
        versions.replace("a", 8 * PAGE);
        let reads = (0..8).map(|page| {
            let reader = reader.clone();
            tokio::spawn(async move { (page, read(&reader, page * PAGE, PAGE).await) })
        });
        let reads = futures::future::join_all(reads).await;
        let expected = versions.of(&reader);
        let mut read = 0;
        for joined in reads {
            let (page, bytes) = joined.unwrap();
            match bytes {
                Ok(bytes) => assert!(bytes == expected[page * PAGE..][..PAGE], "page {page}"),
                Err(kind) => assert_eq!(kind, ErrorKind::Stale, "page {page}"),
            }
            read += 1;
        }
        assert_eq!(read, 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_file_is_read_in_the_manifests_version_or_not_at_all() {
    let versions = Versions::new();
    let worker = Worker::embedded(&versions).await;
    versions.replace("a", 2 * PAGE);
    versions.replace("b", 2 * PAGE);
    worker.load("a");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m");
    let live = versions.client(None, "").await;
    live.take_manifest("", &file).await.unwrap();
    versions.replace("a", 2 * PAGE);
    versions.replace("b", 2 * PAGE);
    let options = format!(
        "consistency: pinned, on_change: reopen, manifest: {{path: '{}'}}",
        file.display()
    );
    let pinned = versions.client(Some(&worker), &options).await;
    // The worker still has the pinned version of the one; nobody has the other's.
    let a = pinned.open("a").await.unwrap();
    assert!(read(&a, 0, 2 * PAGE).await.unwrap() == content(0, 2 * PAGE));
    let b = pinned.open("b").await.unwrap();
    let error = b.read_at(0, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    let (was, is) = (FIRST_MS + 1000, FIRST_MS + 3000);
    let file = file.display().to_string();
    for part in [
        "/b changed",
        &was.to_string(),
        &is.to_string(),
        &file,
        "manifest create",
    ] {
        assert!(error.to_string().contains(part), "no {part} in: {error}");
    }
    versions.delete("b");
    let error = b.read_at(0, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert!(error.to_string().contains("has it no longer"), "{error}");
}

/// What happens between reads.
#[derive(Debug, Clone)]
enum Step {
    Replace(usize),
    Truncate,
    Delete,
    Load,
    Open,
    Read {
        reader: usize,
        offset: usize,
        length: usize,
    },
    ReadDuringReplace {
        reader: usize,
        offset: usize,
        length: usize,
    },
}

const LENGTHS: [usize; 4] = [100, PAGE, 2 * PAGE + 7, 2 * PAGE];

fn step() -> impl Strategy<Value = Step> {
    let range = (0..4_usize, 0..3 * PAGE, 1..2 * PAGE);
    prop_oneof![
        2 => prop::sample::select(&LENGTHS[..]).prop_map(Step::Replace),
        1 => Just(Step::Truncate),
        1 => Just(Step::Delete),
        2 => Just(Step::Load),
        3 => Just(Step::Open),
        6 => range.clone().prop_map(|(reader, offset, length)| Step::Read { reader, offset, length }),
        1 => range.prop_map(|(reader, offset, length)| Step::ReadDuringReplace { reader, offset, length }),
    ]
}

/// Runs the steps; every read must give one version's bytes, always the same one's of a reader.
async fn run(steps: &[Step], knows_versions: bool, options: &str) {
    let versions = Versions::new();
    let worker = Worker::start(&versions, knows_versions).await;
    let client = versions.client(Some(&worker), options).await;
    versions.replace("f", 2 * PAGE);
    let mut readers: Vec<FileReader> = Vec::new();
    for step in steps {
        match step {
            Step::Replace(length) => drop(versions.replace("f", *length)),
            Step::Truncate => versions.truncate("f"),
            Step::Delete => versions.delete("f"),
            Step::Load => worker.load("f"),
            Step::Open => match client.open("f").await {
                Ok(reader) => readers.push(reader),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            },
            Step::Read {
                reader,
                offset,
                length,
            } => {
                let Some(reader) = readers.iter().rev().nth(*reader) else {
                    continue;
                };
                let bytes = read(reader, *offset, *length).await;
                check(&versions, reader, *offset, *length, bytes);
            }
            Step::ReadDuringReplace {
                reader,
                offset,
                length,
            } => {
                let Some(reader) = readers.iter().rev().nth(*reader) else {
                    continue;
                };
                let reading = read(reader, *offset, *length);
                let replacing = async { versions.replace("f", 2 * PAGE) };
                let (bytes, _) = tokio::join!(reading, replacing);
                check(&versions, reader, *offset, *length, bytes);
            }
        }
    }
}

fn check(
    versions: &Versions,
    reader: &FileReader,
    offset: usize,
    length: usize,
    bytes: Result<Vec<u8>, ErrorKind>,
) {
    let whole = versions.of(reader);
    let expected = whole.get(offset..).unwrap_or_default();
    match bytes {
        Ok(bytes) => assert!(bytes == expected[..length.min(expected.len())]),
        Err(kind) => assert!(
            matches!(kind, ErrorKind::Stale | ErrorKind::NotFound),
            "{kind:?}"
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_read_is_of_one_version_or_fails(
        steps in prop::collection::vec(step(), 1..40),
        knows_versions in any::<bool>(),
        reopens in any::<bool>(),
    ) {
        // A worker that ignores versions is asked about its copy with each page, so that it may be
        // loaded anew under an open reader; one that knows them needs no such help.
        let ttl = if knows_versions { 3600 } else { 0 };
        let policy = if reopens { "reopen" } else { "fail" };
        let options = format!("metadata_ttl_seconds: {ttl}, on_change: {policy}");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(&steps, knows_versions, &options));
    }
}
