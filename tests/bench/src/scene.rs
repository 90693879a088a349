//! What is measured on: the data, and each server when a row first asks for it.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use alluxio_wire::{UfsUri, route};
use anyhow::{Context as _, Result};
use opendal::services::S3;
use opendal::{HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;

use crate::RunArguments;
use crate::server::{Server, free_port};

/// The bucket, and the folder of the `file:` under-store.
pub(crate) const BUCKET: &str = "bucket";
/// A large file.
pub(crate) const BIG: (&str, u64) = ("big.bin", 1 << 30);
/// What the published Python SDK reads.
pub(crate) const QUARTER: (&str, u64) = ("quarter.bin", 256 << 20);
/// Fits every client's memory.
pub(crate) const HOT: (&str, u64) = ("hot.bin", 64 << 20);
/// A sparse file, larger than any memory.
pub(crate) const SPARSE: (&str, u64) = ("sparse.bin", 8 << 30);
/// Small files of a folder.
pub(crate) const SMALL: (&str, u32, usize) = ("small", 5000, 100_000);
/// A folder of many sparse files: folders, files in each, length of a file.
pub(crate) const MANY: (&str, u32, u32, u64) = ("many", 1000, 1000, 1000);
/// Very small files, more than a disk cache would hold on a busy day.
pub(crate) const TINY: (&str, u32, usize) = ("tiny", 100_000, 1000);
/// Small files of a folder, for the mount.
pub(crate) const IMAGES: (&str, u32, usize) = ("images", 10_000, 100_000);
/// Empty files in folders of a thousand, for the mount.
pub(crate) const TREE: (&str, u32, u32) = ("tree", 16, 1000);
/// The page size of all scenes.
pub(crate) const PAGE_BYTES: u64 = 1 << 20;

const ACCESS_KEY: &str = "bench";
const SECRET_KEY: &str = "bench-on-loopback";
/// A presigned URL must outlive its run.
const PRESIGNED_FOR: Duration = Duration::from_hours(1);

/// The folder and the servers of a run.
pub(crate) struct Scene {
    pub(crate) folder: PathBuf,
    pub(crate) product: PathBuf,
    pub(crate) python: PathBuf,
    worker: OnceCell<Server>,
    store: OnceCell<Server>,
    nginx: OnceCell<Server>,
    _temporary: Option<TempDir>,
}

impl Scene {
    /// Writes the data.
    pub(crate) fn prepare(arguments: &RunArguments) -> Result<Self> {
        let temporary = match &arguments.folder {
            Some(_) => None,
            None => Some(tempfile::tempdir()?),
        };
        let folder = match (&arguments.folder, &temporary) {
            (Some(folder), _) => folder.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => std::env::temp_dir(),
        };
        let product = fs::canonicalize(&arguments.product)
            .context("finding the product; run `cargo build --release -p alluxio-cli`")?;
        let scene = Self {
            folder,
            product,
            python: arguments.python.clone(),
            worker: OnceCell::new(),
            store: OnceCell::new(),
            nginx: OnceCell::new(),
            _temporary: temporary,
        };
        scene.write_data()?;
        Ok(scene)
    }

    /// A path below the folder, as text.
    pub(crate) fn at(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// The path of a file of the data.
    pub(crate) fn data_path(&self, name: &str) -> String {
        self.data().join(name).to_string_lossy().into_owned()
    }

    /// Where the files of the under-store lie.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data").join(BUCKET)
    }

    fn write_data(&self) -> Result<()> {
        fs::create_dir_all(self.data())?;
        let mut random = SmallRng::seed_from_u64(1);
        for (name, length) in [BIG, QUARTER, HOT] {
            let mut file = BufWriter::new(File::create(self.data().join(name))?);
            let mut block = vec![0; 1 << 20];
            for _ in 0..length >> 20 {
                random.fill_bytes(&mut block);
                file.write_all(&block)?;
            }
            file.flush()?;
        }
        File::create(self.data().join(SPARSE.0))?.set_len(SPARSE.1)?;
        self.write_folder(SMALL)
    }

    fn write_folder(&self, (name, count, length): (&str, u32, usize)) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(2);
        fs::create_dir_all(self.data().join(name))?;
        let mut block = vec![0; length];
        for index in 0..count {
            random.fill_bytes(&mut block);
            fs::write(self.data().join(name).join(format!("{index:05}")), &block)?;
        }
        Ok(())
    }

    /// Writes the folder of very small files.
    pub(crate) fn write_tiny(&self) -> Result<()> {
        let (name, count, length) = TINY;
        let folder = self.data().join(name);
        fs::create_dir_all(&folder)?;
        let block = vec![7; length];
        for index in 0..count {
            fs::write(folder.join(format!("{index:06}")), &block)?;
        }
        Ok(())
    }

    /// Writes the folder of many small files.
    pub(crate) fn write_images(&self) -> Result<()> {
        self.write_folder(IMAGES)
    }

    /// Writes the tree of empty files.
    pub(crate) fn write_tree(&self) -> Result<()> {
        let (name, folders, files) = TREE;
        for folder in 0..folders {
            let folder = self.data().join(name).join(format!("{folder:03}"));
            fs::create_dir_all(&folder)?;
            for file in 0..files {
                fs::write(folder.join(format!("{file:05}")), "")?;
            }
        }
        Ok(())
    }

    /// A manifest of the whole under-store.
    pub(crate) fn manifest(&self) -> Result<String> {
        let config = self.worker_config("manifest", "")?;
        let file = self.at("manifest.bin");
        let taken = Command::new(&self.product)
            .args(["manifest", "create", "--config", &config, "--output", &file])
            .output()?;
        if !taken.status.success() {
            anyhow::bail!("no manifest: {}", String::from_utf8_lossy(&taken.stderr));
        }
        Ok(file)
    }

    /// The embedded worker, with the `file:` under-store.
    pub(crate) fn worker(&self) -> Result<&Server> {
        get_or_start(&self.worker, || {
            let port = free_port()?;
            let config = format!(
                "{}cluster: {{membership: {{type: static, workers: ['127.0.0.1:{port}']}}}}\n\
                 worker: {{listen: '127.0.0.1:{port}', advertised_host: 127.0.0.1, \
                 page_store: {{directory: '{}', capacity: 8Gi}}}}\n",
                self.file_ufs(),
                self.at("pages"),
            );
            let file = self.config("worker", &config)?;
            let mut command = Command::new(&self.product);
            command.args(["worker", "--config", &file]);
            Server::start(&mut command, port, &self.folder.join("worker.log"))
        })
    }

    /// Writes the folders of a million files, unless another row has.
    pub(crate) fn write_many(&self) -> Result<()> {
        let (name, folders, files, length) = MANY;
        if self.data().join(name).exists() {
            return Ok(());
        }
        for folder in 0..folders {
            let folder = self.data().join(name).join(format!("{folder:04}"));
            fs::create_dir_all(&folder)?;
            for file in 0..files {
                File::create(folder.join(format!("{file:04}")))?.set_len(length)?;
            }
        }
        Ok(())
    }

    /// A worker of its own over [`MANY`] files, and a client's configuration for it.
    pub(crate) fn loading_worker(&self) -> Result<(Server, String)> {
        self.write_many()?;
        let port = free_port()?;
        let cluster = format!(
            "{}cluster: {{membership: {{type: static, workers: ['127.0.0.1:{port}']}}}}\n",
            self.file_ufs()
        );
        let config = format!(
            "{cluster}worker: {{listen: '127.0.0.1:{port}', advertised_host: 127.0.0.1, \
             page_store: {{directory: '{}', capacity: 256Mi}}}}\n",
            self.at("loaded-pages"),
        );
        let file = self.config("loading-worker", &config)?;
        let mut command = Command::new(&self.product);
        command.args(["worker", "--config", &file]);
        let log = self.folder.join("loading-worker.log");
        let server = Server::start(&mut command, port, &log)?;
        Ok((server, self.config("client-load", &cluster)?))
    }

    /// versitygw on the same data.
    pub(crate) fn store(&self) -> Result<&Server> {
        get_or_start(&self.store, || self.start_store(None))
    }

    /// Another versitygw on the same data, which logs each request to a file.
    pub(crate) fn counting_store(&self) -> Result<(Server, PathBuf)> {
        let log = self.folder.join("requests.log");
        let server = self.start_store(Some(&log))?;
        Ok((server, log))
    }

    fn start_store(&self, requests: Option<&Path>) -> Result<Server> {
        let port = free_port()?;
        let mut command = Command::new("versitygw");
        command
            .env("ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("ROOT_SECRET_KEY", SECRET_KEY)
            .args(["--port", &format!("127.0.0.1:{port}"), "--quiet"])
            // As S3 does; without it the gateway closes after each answer.
            .arg("--keep-alive");
        if let Some(log) = requests {
            command.arg("--access-log").arg(log);
        }
        command.arg("posix").arg(self.folder.join("data"));
        Server::start(&mut command, port, &self.folder.join("versitygw.log"))
    }

    /// nginx that serves the page-sized file `page` with sendfile.
    pub(crate) fn nginx(&self) -> Result<&Server> {
        get_or_start(&self.nginx, || {
            let port = free_port()?;
            let root = self.folder.join("nginx");
            fs::create_dir_all(&root)?;
            let first = &fs::read(self.data().join(HOT.0))?[..1 << 20];
            fs::write(root.join("page"), first)?;
            let text = format!(
                "daemon off; user root; worker_processes 2; pid {pid}; error_log {log};\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; \
                 keepalive_requests 100000000; open_file_cache max=100;\n\
                 server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n",
                pid = self.at("nginx.pid"),
                log = self.at("nginx-error.log"),
                root = root.display(),
            );
            let file = self.folder.join("nginx.conf");
            fs::write(&file, text)?;
            let mut command = Command::new("nginx");
            command
                .arg("-c")
                .arg(&file)
                .arg("-e")
                .arg(self.at("nginx-error.log"));
            Server::start(&mut command, port, &self.folder.join("nginx.log"))
        })
    }

    /// The client's configuration with the worker; further `client:` fields after it.
    pub(crate) fn worker_config(&self, name: &str, client: &str) -> Result<String> {
        let port = self.worker()?.port;
        let text = format!(
            "{}cluster: {{membership: {{type: static, workers: ['127.0.0.1:{port}']}}}}\n\
             client: {{{client}}}\n",
            self.file_ufs()
        );
        self.config(name, &text)
    }

    /// The client's configuration without workers, on the `file:` under-store.
    pub(crate) fn file_config(&self, name: &str, client: &str) -> Result<String> {
        self.config(name, &format!("{}client: {{{client}}}\n", self.file_ufs()))
    }

    /// The configuration of a mount that is written, on files below a folder, with its staging folder.
    pub(crate) fn writable_config(&self, name: &str, ufs: &str, staging: &str) -> Result<String> {
        let text = format!(
            "ufs: {{uri: 'file://{ufs}'}}\nmount: {{read_only: false, staging_path: '{staging}'}}\n"
        );
        self.config(name, &text)
    }

    /// The client's configuration without workers, on an S3 server.
    pub(crate) fn store_config(&self, name: &str, store: &Server, client: &str) -> Result<String> {
        let text = format!(
            "ufs: {{uri: 's3://{BUCKET}', endpoint: '{}', key: {ACCESS_KEY}, \
             secret: {SECRET_KEY}}}\nclient: {{{client}}}\n",
            store.url()
        );
        self.config(name, &text)
    }

    fn file_ufs(&self) -> String {
        format!("ufs: {{uri: 'file://{}'}}\n", self.data().display())
    }

    fn config(&self, name: &str, text: &str) -> Result<String> {
        let file = self.folder.join(format!("{name}.yaml"));
        fs::write(&file, text)?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// The full URI of a file of the `file:` under-store.
    pub(crate) fn uri(&self, name: &str) -> Result<UfsUri> {
        Ok(UfsUri::parse(&format!(
            "file://{}",
            self.data().join(name).display()
        ))?)
    }

    /// The worker's URL of page `{n}` of a file.
    pub(crate) fn page_url(&self, name: &str) -> Result<String> {
        let uri = self.uri(name)?;
        let route = route::page(&uri.file_id(), 0, Some(&uri), None);
        let route = route.replacen("/page/0", "/page/{n}", 1);
        Ok(format!("{}{route}", self.worker()?.url()))
    }

    /// A URL by which anyone may GET an object for a while.
    pub(crate) fn presigned(&self, name: &str) -> Result<String> {
        let store = S3::default()
            .bucket(BUCKET)
            .endpoint(&self.store()?.url())
            .region("us-east-1")
            .access_key_id(ACCESS_KEY)
            .secret_access_key(SECRET_KEY)
            .disable_config_load();
        // Signing sends nothing, but is refused without a transport.
        let transport = HttpTransporter::new(ReqwestTransport::new(reqwest::Client::new()));
        let context = OperationContext::new().with_http_transport(transport);
        let operator = Operator::new(store)?.with_context(context);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let request = runtime.block_on(operator.presign_read(name, PRESIGNED_FOR))?;
        Ok(request.uri().to_string())
    }

    /// rclone with the S3 server as the remote `:s3:`.
    pub(crate) fn rclone(&self) -> Result<Command> {
        let mut command = Command::new("rclone");
        command
            .env("RCLONE_S3_PROVIDER", "Other")
            .env("RCLONE_S3_ENDPOINT", self.store()?.url())
            .env("RCLONE_S3_ACCESS_KEY_ID", ACCESS_KEY)
            .env("RCLONE_S3_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("RCLONE_S3_REGION", "us-east-1")
            .env("RCLONE_CONFIG", self.at("rclone.conf"));
        Ok(command)
    }
}

fn get_or_start(
    cell: &OnceCell<Server>,
    start: impl FnOnce() -> Result<Server>,
) -> Result<&Server> {
    if cell.get().is_none() {
        // Just seen to be empty, and there is one thread.
        let _ = cell.set(start()?);
    }
    cell.get().context("a server that was just started")
}
