//! What the tests share: a worker that answers as it is told, and datasets in a folder.

pub(crate) mod proxy;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alluxio_client::Client;
use alluxio_config::Config;
use alluxio_wire::UfsUri;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Page size of the tests.
pub(crate) const PAGE: usize = 64 * 1024;
/// Far longer than any step takes; only a failure waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// What a scripted worker does with one request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A status and a whole body.
    Answer(u16, Vec<u8>),
    /// The head of an answer of so many bytes, these bytes, and the end of the connection.
    BreaksOff(usize, Vec<u8>),
    /// These bytes, head and all.
    Raw(Vec<u8>),
    /// Closes the connection without a byte.
    EmptyClose,
    /// Never answers.
    Silence,
}

type Script = dyn Fn(&str) -> Reply + Send + Sync;

/// A worker that answers as a script says, and keeps the targets that it was asked for.
pub(crate) struct ScriptedWorker {
    pub(crate) address: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl ScriptedWorker {
    /// Answers each request target with what the script returns for it.
    pub(crate) async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_at(listener, script)
    }

    /// The same where somebody listens already.
    pub(crate) fn start_at(
        listener: TcpListener,
        script: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let targets = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let script: Arc<Script> = Arc::new(script);
        let (kept, counted) = (Arc::clone(&targets), Arc::clone(&connections));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&kept)));
            }
        });
        Self {
            address,
            targets,
            connections,
            server,
        }
    }

    /// Holds all files of the folder, and answers for pages as a real worker does.
    pub(crate) async fn holding(folder: &Folder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::holding_at(listener, folder)
    }

    /// The same where somebody listens already.
    pub(crate) fn holding_at(listener: TcpListener, folder: &Folder) -> Self {
        let pages = folder.pages();
        Self::start_at(listener, move |target| match pages.get(page_path(target)) {
            Some(page) => Reply::Answer(200, page.clone()),
            None => Reply::EmptyClose,
        })
    }

    /// Answers every request alike.
    pub(crate) async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    /// `host:port`.
    pub(crate) fn host_port(&self) -> String {
        self.address.to_string()
    }

    /// The targets that were asked for.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.targets.lock().clone()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedWorker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, targets: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut buffer).await {
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        // Anything but a GET stands out among the targets.
        let target = match head.split(' ').next() {
            Some("GET") => target,
            other => format!("{} {target}", other.unwrap_or_default()),
        };
        targets.lock().push(target.clone());
        match script(&target) {
            Reply::Answer(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let whole = [head.into_bytes(), body].concat();
                if stream.write_all(&whole).await.is_err() {
                    return;
                }
            }
            Reply::BreaksOff(announced, body) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {announced}\r\n\r\n");
                let part = [head.into_bytes(), body].concat();
                let _ = stream.write_all(&part).await;
                return;
            }
            Reply::Raw(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::EmptyClose => return,
            Reply::Silence => std::future::pending().await,
        }
    }
}

/// The next request's head. Requests here have no body.
async fn next_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            let head = std::mem::replace(buffer, rest);
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Waits until something has come about.
pub(crate) async fn until(what: &str, reached: impl Fn() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}");
}

/// The part of a page's target that names the page.
pub(crate) fn page_path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// An address where nobody listens.
pub(crate) fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

/// A dataset in a temporary folder, removed when dropped.
pub(crate) struct Folder {
    directory: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
}

impl Folder {
    /// A folder with these files: name and length.
    pub(crate) fn with(files: &[(&str, usize)]) -> Self {
        let mut folder = Self {
            directory: tempfile::tempdir().unwrap(),
            files: Vec::new(),
        };
        for (name, length) in files {
            folder.write(name, &content(name, *length));
        }
        folder
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self.files.retain(|(known, _)| known != name);
        self.files.push((name.to_owned(), bytes.to_vec()));
    }

    /// Where a file is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        let file = self.files.iter().find(|(known, _)| known == name);
        &file.unwrap().1
    }

    /// The root as a URI.
    pub(crate) fn root(&self) -> UfsUri {
        UfsUri::parse(&format!("file://{}", self.directory.path().display())).unwrap()
    }

    /// All pages by their path on a worker.
    fn pages(&self) -> HashMap<String, Vec<u8>> {
        let mut pages = HashMap::new();
        for (name, bytes) in &self.files {
            let id = self.root().join(name).unwrap().file_id();
            for (index, page) in bytes.chunks(PAGE).enumerate() {
                pages.insert(format!("/v1/file/{id}/page/{index}"), page.to_vec());
            }
        }
        pages
    }

    /// A configuration of this dataset; `client` is YAML below `client:`.
    pub(crate) fn config(&self, workers: &[String], client: &str) -> Config {
        let membership = match workers {
            [] => "{type: none}".to_owned(),
            workers => format!("{{type: static, workers: {workers:?}}}"),
        };
        // Scripted workers count what they are asked for; the tests of versions turn this on.
        let verify = if client.contains("verify_worker_version") {
            ""
        } else {
            "verify_worker_version: false, "
        };
        let yaml = format!(
            "ufs: {{uri: '{}', anon: true}}\ncluster: {{membership: {membership}}}\n\
             client: {{page_size: 64Ki, virtual_nodes_per_worker: 50, {verify}{client}}}\n",
            self.root(),
        );
        Config::from_yaml(&yaml).unwrap()
    }

    /// A client of this dataset.
    pub(crate) async fn client(&self, workers: &[String], client: &str) -> Client {
        Client::connect(&self.config(workers, client))
            .await
            .unwrap()
    }
}

/// Bytes that differ between files and between pages.
pub(crate) fn content(name: &str, length: usize) -> Vec<u8> {
    let mut state = name.bytes().fold(0x9e37_79b9_u32, |state, byte| {
        state.rotate_left(5) ^ u32::from(byte)
    });
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
