//! Workers for tests: started on loopback ports over temporary directories, asked by a real client.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use alluxio_config::Config;
use alluxio_wire::{FileStatus, FileVersion, UfsUri, route, status};
use alluxio_worker::{Worker, WorkerError};
use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use crate::s3::{S3Server, put};

pub(crate) const KIB: usize = 1024;
/// The page size of the tests: the smallest, so that small files have several pages.
pub(crate) const PAGE: usize = 64 * KIB;

/// How long a state may take to come about; far above what it takes, for loaded machines.
const PATIENCE: Duration = Duration::from_mins(1);

/// A worker, its directory, and what a client needs to ask it.
pub(crate) struct TestWorker {
    pub(crate) worker: Worker,
    pub(crate) config: Config,
    pub(crate) client: reqwest::Client,
    pub(crate) folder: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The `error` of a failure, which must be JSON with a message.
    pub(crate) fn error(&self) -> String {
        assert_eq!(self.content_type, "application/json", "{self:?}");
        let body = self.json();
        assert!(!body["message"].as_str().unwrap().is_empty());
        body["error"].as_str().unwrap().to_owned()
    }
}

/// The part of a configuration that differs between tests, as YAML.
pub(crate) struct Setup {
    pub(crate) ufs: String,
    pub(crate) membership: String,
    pub(crate) port: u16,
    pub(crate) capacity: String,
    pub(crate) max_connections: u32,
    /// Further lines below `worker:` and below `cluster:`.
    pub(crate) worker_lines: String,
    pub(crate) cluster_lines: String,
}

impl Setup {
    /// Files below a local folder.
    pub(crate) fn local(folder: &TempDir) -> Self {
        Self::of(format!("uri: file://{}", folder.path().display()))
    }

    /// Objects below `s3://bucket/data`.
    pub(crate) fn s3(server: &S3Server) -> Self {
        Self::of(format!(
            "uri: s3://bucket/data\n  endpoint: {}\n  anon: true",
            server.endpoint()
        ))
    }

    fn of(ufs: String) -> Self {
        Self {
            ufs,
            membership: "{type: none}".to_owned(),
            port: 0,
            capacity: "64Mi".to_owned(),
            max_connections: 64,
            worker_lines: String::new(),
            cluster_lines: String::new(),
        }
    }

    pub(crate) fn config(&self, folder: &TempDir) -> Config {
        let yaml = format!(
            "ufs:\n  {}\ncluster:\n  membership: {}\n{}client:\n  page_size: 64Ki\n  \
             virtual_nodes_per_worker: 100\nworker:\n  listen: 127.0.0.1:{}\n  \
             load_concurrency: 4\n  max_connections: {}\n  page_store:\n    directory: {}\n    \
             capacity: {}\n{}",
            self.ufs,
            self.membership,
            self.cluster_lines,
            self.port,
            self.max_connections,
            folder.path().join("store").display(),
            self.capacity,
            self.worker_lines,
        );
        Config::from_yaml(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
    }

    pub(crate) async fn start(&self) -> TestWorker {
        let folder = tempfile::tempdir().unwrap();
        TestWorker::start(self.config(&folder), folder).await
    }
}

impl TestWorker {
    pub(crate) async fn start(config: Config, folder: TempDir) -> Self {
        // A second install is refused, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A page that a worker was reading when it ended holds the directory until it has come.
        let worker = until("the page store is free", || async {
            match Worker::start(&config).await {
                Err(WorkerError::PageStoreInUse { .. }) => None,
                started => Some(started.unwrap()),
            }
        })
        .await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            worker,
            config,
            client,
            folder,
        }
    }

    /// Shuts down and starts again on the same directory.
    pub(crate) async fn restart(self) -> Self {
        self.worker.shutdown().await;
        Self::start(self.config, self.folder).await
    }

    pub(crate) fn root(&self) -> &UfsUri {
        &self.config.ufs.uri
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.worker.address())
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        answer(self.client.get(self.url(target))).await
    }

    pub(crate) async fn post(&self, target: &str, body: Vec<u8>) -> Answer {
        answer(self.client.post(self.url(target)).body(body)).await
    }

    /// A page of a file below the root, as a client that knows no version asks.
    pub(crate) async fn page(&self, name: &str, index: u64) -> Answer {
        let uri = self.root().join(name).unwrap();
        self.get(&route::page(&uri.file_id(), index, Some(&uri), None))
            .await
    }

    /// A page of one version.
    pub(crate) async fn page_of(
        &self,
        name: &str,
        index: u64,
        version: &FileVersion,
        length: u64,
    ) -> Answer {
        let uri = self.root().join(name).unwrap();
        let id = uri.file_id();
        self.get(&route::page_of_version(
            &id, index, &uri, version, length, None,
        ))
        .await
    }

    pub(crate) async fn status(&self, name: &str) -> FileStatus {
        let uri = self.root().join(name).unwrap();
        let answer = self.get(&route::info(&uri).unwrap()).await;
        assert_eq!(answer.code, 200, "{answer:?}");
        status::parse_list(&answer.body).unwrap().remove(0)
    }

    /// The value of a metric line that begins so.
    pub(crate) async fn metric(&self, line: &str) -> usize {
        let text = self.get("/metrics").await.text();
        let found = text.lines().find(|l| l.starts_with(line));
        found.map_or(0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
    }

    pub(crate) async fn pages_kept(&self) -> usize {
        self.metric("alluxio_worker_page_store_pages").await
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let content_type = response.headers().get("content-type");
    Answer {
        code: response.status().as_u16(),
        content_type: content_type
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        body: response.bytes().await.unwrap(),
    }
}

/// Asks again and again until the answer is there.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that was free a moment ago, and is given to nobody else in this process: the kernel would
/// give the same one to two tests that ask at one time.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// Bytes that differ by position and by file.
pub(crate) fn content(seed: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from((at * 7 + seed * 13 + at / 251) % 256).unwrap())
        .collect()
}

/// Puts an object below the workers' root.
pub(crate) fn put_object(server: &S3Server, name: &str, bytes: impl AsRef<[u8]>) {
    put(&server.bucket_folder().join("data"), name, bytes);
}

/// How many GETs of objects the store has seen (a listing is a GET of the bucket).
pub(crate) fn object_reads(server: &S3Server) -> usize {
    let is_read = |line: &&String| line.starts_with("GET") && !line.contains("list-type");
    server.requests().iter().filter(is_read).count()
}

/// The files of pages below a worker's directory.
pub(crate) fn page_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(page_files(&path));
        } else if path.extension().is_some_and(|e| e == "page") {
            found.push(path);
        }
    }
    found
}
