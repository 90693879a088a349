//! The mount's own tree: the embedded client's dataset.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use alluxio_client::{
    CacheKey, Client, Error, ErrorKind, Existing, FileReader, FileWriter, RemoveOptions,
    TransferOptions, WholeFile, WriteMode, WriteOptions,
};
use alluxio_config::{Config, OnChange};
use alluxio_wire::FileStatus;
use bytes::Bytes;
use prometheus::proto::MetricFamily;

use crate::tree::{Placement, Tree, TreeError, TreeFile, TreeWriter};

/// A dataset, read through the client.
pub struct ClientTree {
    client: Client,
    metadata_ttl: Duration,
}

impl ClientTree {
    /// Connects by a configuration, as YAML with its secrets.
    pub async fn connect(config_yaml: &str) -> Result<Self, TreeError> {
        let mut config = Config::from_yaml(config_yaml).map_err(|error| TreeError {
            kind: ErrorKind::InvalidInput,
            message: error.to_string(),
        })?;
        // Every version is an inode of its own, whose size and pages the kernel keeps: a file that
        // changed must be looked up again, by name.
        config.client.on_change = OnChange::Fail;
        // The kernel does, in memory that it can take back.
        config.client.is_kept_by_reader = true;
        Ok(Self {
            client: Client::connect(&config).await?,
            metadata_ttl: config.client.metadata_ttl,
        })
    }
}

impl ClientTree {
    /// A directory may have been there for the sake of its files alone.
    fn forget_parent(&self, path: &str) -> Result<(), TreeError> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        Ok(self.client.forget(parent)?)
    }
}

impl Tree for ClientTree {
    type File = FileReader;
    type Writer = ClientWriter;

    async fn status(&self, path: &str) -> Result<Arc<FileStatus>, TreeError> {
        Ok(self.client.status(path).await?)
    }

    async fn list(&self, path: &str) -> Result<Arc<Vec<FileStatus>>, TreeError> {
        Ok(self.client.list(path).await?)
    }

    async fn open(&self, path: &str) -> Result<FileReader, TreeError> {
        Ok(self.client.open(path).await?)
    }

    async fn whole(&self, file: &FileReader) -> Option<WholeFile> {
        self.client.whole_file(file).await
    }

    fn whole_at_hand(&self, path: &str) -> Option<(Arc<FileStatus>, WholeFile)> {
        self.client.whole_file_at_hand(path)
    }

    async fn departed(&self) -> Vec<CacheKey> {
        self.client.departed_files().await
    }

    fn sample(&self) -> Option<io::Result<File>> {
        self.client.disk_cache_sample()
    }

    async fn create(&self, path: &str, length: Option<u64>) -> Result<ClientWriter, TreeError> {
        let options = WriteOptions {
            mode: WriteMode::Replace,
            expected_bytes: length,
        };
        Ok(ClientWriter {
            writer: self.client.create(path, options).await?,
            client: self.client.clone(),
            path: path.to_owned(),
        })
    }

    async fn make_directory(&self, path: &str) -> Result<(), TreeError> {
        Ok(self.client.mkdir(path).await?)
    }

    async fn remove_file(&self, path: &str) -> Result<(), TreeError> {
        // A directory is never removed by this name: the kernel has looked at what it is.
        self.client.rm(path, RemoveOptions::default()).await?;
        self.forget_parent(path)
    }

    async fn remove_directory(&self, path: &str) -> Result<(), TreeError> {
        self.client.rm(path, RemoveOptions::default()).await?;
        self.forget_parent(path)
    }

    async fn rename(&self, from: &str, to: &str, is_directory: bool) -> Result<(), TreeError> {
        if is_directory && !self.client.renames_in_one_step() {
            return Err(TreeError {
                kind: ErrorKind::Unsupported,
                message: format!(
                    "{from} is a directory, which this store cannot rename in one step"
                ),
            });
        }
        let options = TransferOptions {
            recursive: is_directory,
            existing: Existing::Replace,
            ..TransferOptions::default()
        };
        self.client.mv(from, to, options).await?;
        self.forget_parent(from)
    }

    async fn placement(&self, path: &str, status: &FileStatus) -> Placement {
        let worker = self.client.worker_of(path);
        let in_memory = self.client.cached_share(path, &status.version());
        let on_disk = self.client.disk_share(path, status);
        Placement {
            cached_percent: 100.0 * in_memory.max(on_disk),
            worker: worker.map(|address| format!("{}:{}", address.host, address.http_port)),
        }
    }

    fn metadata_ttl(&self) -> Duration {
        self.metadata_ttl
    }

    fn metric_families(&self) -> Vec<MetricFamily> {
        self.client.metrics().registry().gather()
    }
}

/// A file on its way to the under-store.
pub struct ClientWriter {
    client: Client,
    path: String,
    writer: FileWriter,
}

impl TreeWriter for ClientWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), TreeError> {
        Ok(self.writer.write(bytes).await?)
    }

    async fn finish(self) -> Result<Arc<FileStatus>, TreeError> {
        self.writer.finish().await?;
        Ok(self.client.status(&self.path).await?)
    }
}

impl TreeFile for FileReader {
    fn status(&self) -> &FileStatus {
        FileReader::status(self)
    }

    async fn read_at(&self, offset: u64, length: u32) -> Result<Vec<Bytes>, TreeError> {
        let read = FileReader::read_at(self, offset, length as usize).await?;
        Ok(read.chunks)
    }
}

impl From<Error> for TreeError {
    fn from(error: Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}
