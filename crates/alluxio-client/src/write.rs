//! Writing a file: to the under-store, and then away with what was known of the old one.
//!
//! Pages of the old version need not be hunted down: the memory cache and the workers are asked for
//! pages of a version, and the new file has another one. What must go is what this client believes
//! of the name: its status, and the listings it is in.

use alluxio_ufs::{UfsWriter, WriteMode, WriteOptions, Written};
use alluxio_wire::UfsUri;
use bytes::Bytes;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// A file that is being written. It is not seen before [`FileWriter::finish`] has succeeded; dropped
/// without it, or failed, what was there before stays.
#[derive(Debug)]
pub struct FileWriter {
    client: Client,
    uri: UfsUri,
    writer: UfsWriter,
}

impl Client {
    /// Opens a file for writing; the directories above it come into being with it.
    ///
    /// Fails as `IsDirectory` where a directory has the name, and with
    /// [`WriteMode::CreateNew`] as `AlreadyExists` where a file has.
    pub async fn create(&self, path: &str, options: WriteOptions) -> Result<FileWriter> {
        let uri = self.target("create", path).await?;
        self.create_at(uri, options).await
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

    /// The URI of a file that may be written: no directory, and not the root.
    pub(crate) async fn target(&self, operation: &'static str, path: &str) -> Result<UfsUri> {
        let uri = self.changeable(operation, path)?;
        match self.ufs().status(&uri).await {
            Ok(status) if status.is_directory() => {
                let context = format!("{uri} is a directory; name a file in it");
                Err(Error::new(ErrorKind::IsDirectory, operation, context))
            }
            Ok(_) => Ok(uri),
            Err(error) => match Error::from_ufs(operation, &error) {
                error if error.kind() == ErrorKind::NotFound => Ok(uri),
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
    pub(crate) async fn create_at(&self, uri: UfsUri, options: WriteOptions) -> Result<FileWriter> {
        let writer = self.ufs().writer(&uri, options).await;
        Ok(FileWriter {
            client: self.clone(),
            writer: writer.map_err(|error| Error::from_ufs("write", &error))?,
            uri,
        })
    }
}

impl FileWriter {
    /// The file that is written.
    pub fn uri(&self) -> &UfsUri {
        &self.uri
    }

    /// Adds bytes. Waits while as many parts as may (four of 8 MiB) are on their way.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let written = self.writer.write(bytes).await;
        written.map_err(|error| Error::from_ufs("write", &error))
    }

    /// Sends what is left and makes the file visible, to this client too.
    pub async fn finish(self) -> Result<Written> {
        let finished = self.writer.finish().await;
        // Also after a failure: an answer that was lost may have been a good one.
        self.client.metadata().forget(&self.uri);
        finished.map_err(|error| Error::from_ufs("write", &error))
    }

    /// Gives up; what was there before stays.
    pub async fn abort(self) {
        self.writer.abort().await;
    }
}
