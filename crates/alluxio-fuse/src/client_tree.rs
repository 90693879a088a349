//! The mount's own tree: the embedded client's dataset.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use alluxio_client::{CacheKey, Client, Error, ErrorKind, FileReader, WholeFile};
use alluxio_config::{Config, OnChange};
use alluxio_wire::FileStatus;
use bytes::Bytes;
use prometheus::proto::MetricFamily;

use crate::tree::{Placement, Tree, TreeError, TreeFile};

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
        Ok(Self {
            client: Client::connect(&config).await?,
            metadata_ttl: config.client.metadata_ttl,
        })
    }
}

impl Tree for ClientTree {
    type File = FileReader;

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

    async fn departed(&self) -> Vec<CacheKey> {
        self.client.departed_files().await
    }

    fn sample(&self) -> Option<io::Result<File>> {
        self.client.disk_cache_sample()
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
