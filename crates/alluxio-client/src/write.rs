//! Writing a file: to the under-store, and then away with what was known of the old one
//! (`invalidation`).
//!
//! A [`FileWriter`] is written from its beginning to its end. Parts leave in the background while
//! the next ones are gathered, and memory is bounded, so a caller may feed it bytes as they come:
//! a FUSE daemon its dirty pages, a Python file object its buffers.

use alluxio_ufs::{UfsWriter, WriteMode, WriteOptions, Written};
use alluxio_wire::{FileStatus, UfsUri};
use bytes::Bytes;

use crate::cache::Charge;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// A file that is being written. It is not seen before [`FileWriter::finish`] has succeeded; dropped
/// without it, or failed, what was there before stays.
#[derive(Debug)]
pub struct FileWriter {
    client: Client,
    target: Target,
    writer: UfsWriter,
    written_bytes: u64,
    /// For what the writer holds, at the cost of cached pages.
    buffered: Charge,
}

/// A file that may be written.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) uri: UfsUri,
    /// What it is now.
    pub(crate) old: Option<FileStatus>,
}

impl Client {
    /// Opens a file for writing; the directories above it come into being with it.
    ///
    /// Fails as `IsDirectory` where a directory has the name, and with
    /// [`WriteMode::CreateNew`] as `AlreadyExists` where a file has.
    pub async fn create(&self, path: &str, options: WriteOptions) -> Result<FileWriter> {
        let target = self.target("create", path).await?;
        self.create_at(target, options).await
    }

    /// Writes a file of these bytes, in one step: readers see the old file or the new one.
    pub async fn write_bytes(&self, path: &str, bytes: Bytes, mode: WriteMode) -> Result<Written> {
        let options = WriteOptions {
            mode,
            expected_bytes: Some(bytes.len() as u64),
        };
        let mut writer = self.create(path, options).await?;
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// A file that may be written: no directory, and not the root.
    pub(crate) async fn target(&self, operation: &'static str, path: &str) -> Result<Target> {
        let uri = self.changeable(operation, path)?;
        match self.ufs().status(&uri).await {
            Ok(status) if status.is_directory() => {
                let context = format!("{uri} is a directory; name a file in it");
                Err(Error::new(ErrorKind::IsDirectory, operation, context))
            }
            Ok(status) => Ok(Target {
                uri,
                old: Some(status),
            }),
            Err(error) => match Error::from_ufs(operation, &error) {
                error if error.kind() == ErrorKind::NotFound => Ok(Target { uri, old: None }),
                error => Err(error),
            },
        }
    }

    /// The URI of what may be changed at all.
    pub(crate) fn changeable(&self, operation: &'static str, path: &str) -> Result<UfsUri> {
        let uri = self.uri(operation, path)?;
        if self.is_pinned() {
            let context = format!(
                "{uri} is of a dataset that is pinned to its manifest; change it by a \
                 configuration with client.consistency: live, and take a new manifest"
            );
            return Err(Error::new(ErrorKind::Unsupported, operation, context));
        }
        Ok(uri)
    }

    /// Begins to write a file that may be written.
    pub(crate) async fn create_at(
        &self,
        target: Target,
        options: WriteOptions,
    ) -> Result<FileWriter> {
        let writer = self.ufs().writer(&target.uri, options).await;
        Ok(FileWriter {
            client: self.clone(),
            buffered: self.cache().charge(),
            writer: writer.map_err(|error| Error::from_ufs("write", &error))?,
            target,
            written_bytes: 0,
        })
    }
}

impl FileWriter {
    /// The file that is written.
    pub fn uri(&self) -> &UfsUri {
        &self.target.uri
    }

    /// How many bytes were given so far: where the next ones go.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Adds bytes. Waits while as many parts as may (four of 8 MiB) are on their way. After an error
    /// nothing more can be written, and the file stays as it was.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        // Before it waits for parts to be sent, it holds these bytes too.
        let most = self.writer.buffered_bytes() + length;
        self.client.cache().reserve(&mut self.buffered, most);
        let written = self.writer.write(bytes).await;
        let holds = self.writer.buffered_bytes();
        self.client.cache().reserve(&mut self.buffered, holds);
        written.map_err(|error| Error::from_ufs("write", &error))?;
        self.written_bytes += length;
        Ok(())
    }

    /// Sends what is left and makes the file visible, to this client and the workers too.
    pub async fn finish(self) -> Result<Written> {
        let finished = self.writer.finish().await;
        // Also after a failure: an answer that was lost may have been a good one.
        self.client
            .changed(&self.target.uri, self.target.old.as_ref())
            .await;
        finished.map_err(|error| Error::from_ufs("write", &error))
    }

    /// Gives up; what was there before stays.
    pub async fn abort(self) {
        self.writer.abort().await;
    }
}
