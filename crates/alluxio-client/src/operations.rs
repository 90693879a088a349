//! The file operations, as a file system offers them; paths are below the dataset's root, without a
//! leading `/`, sizes and offsets are bytes.
//!
//! | operation | answer | fails as |
//! |---|---|---|
//! | [`Client::ls`] | entries by name; of a file, its own | `NotFound` |
//! | [`Client::info`] | one status | `NotFound` |
//! | [`Client::isdir`] | whether a directory is there | |
//! | [`Client::open`] | a reader of one version | `NotFound`, `IsDirectory` |
//! | [`Client::create`] | a writer; seen at its end | `IsDirectory`, `AlreadyExists` |
//! | [`Client::mkdir`] | the directory is there | `AlreadyExists` (a file) |
//! | [`Client::rm`] | how many files went | `NotFound`, `NotEmpty`, `InvalidInput` (the root) |
//! | [`Client::touch`] | the file is there | `IsDirectory` |
//! | [`Client::head`], [`Client::tail`], [`Client::read_bytes`] | bytes, fewer where the file is shorter | `NotFound`, `IsDirectory` |
//! | [`Client::write_bytes`] | what was written | `IsDirectory`, `AlreadyExists` |
//! | [`Client::cp`], [`Client::mv`] | what was moved | `NotFound`, `IsDirectory`, `AlreadyExists`, `InvalidInput` |
//! | [`Client::upload`], [`Client::download`] | what was moved | the same, `Corrupt`, `Stale` |
//!
//! Reads may be served by workers; changes go to the under-store, whatever the fallback policy says.
//! Under the policy `never` this client's own reads see a change when the workers do.

use std::ops::Range;
use std::sync::Arc;

use alluxio_ufs::{UfsError, WriteMode};
use alluxio_wire::{FileStatus, UfsUri};
use bytes::{Bytes, BytesMut};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::reader::FileReader;

/// Bytes asked for at once: enough to let the reader fetch pages in parallel.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// What may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoveOptions {
    /// A directory with all below it; without it, a directory only when it is empty.
    pub recursive: bool,
    /// Also the dataset's root, which is refused otherwise: a path that happens to be empty must
    /// not take the dataset with it.
    pub even_root: bool,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many files.
    pub files: u64,
}

/// How a file is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TouchOptions {
    /// A file that is there becomes empty. Without it, it stays as it is, its time too: stores
    /// cannot change that alone.
    pub truncate: bool,
}

impl Client {
    /// What lies directly in a directory, sorted by name; for a file, its own status alone.
    pub async fn ls(&self, path: &str) -> Result<Arc<Vec<FileStatus>>> {
        match self.list(path).await {
            Err(error) if error.kind() == ErrorKind::NotDirectory => {
                let status = self.status(path).await?;
                Ok(Arc::new(vec![(*status).clone()]))
            }
            listed => listed,
        }
    }

    /// The status of a file or directory; the same as [`Client::status`].
    pub async fn info(&self, path: &str) -> Result<Arc<FileStatus>> {
        self.status(path).await
    }

    /// Whether there is a directory of this name; `false` where there is nothing.
    pub async fn isdir(&self, path: &str) -> Result<bool> {
        Ok(self.found(path).await?.is_some_and(|it| it.is_directory()))
    }

    /// Whether there is a file or directory of this name.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.found(path).await?.is_some())
    }

    /// Makes a directory, and those above it; one that is there is left as it is. In a store without
    /// directories it is an empty object with a `/` at the end of its name.
    pub async fn mkdir(&self, path: &str) -> Result<()> {
        let uri = self.changeable("mkdir", path)?;
        let made = self.ufs().create_dir(&uri).await;
        self.changed(&uri, None).await;
        made.map_err(|error| Error::from_ufs("mkdir", &error))
    }

    /// Removes a file or directory. In a store without directories, one that was never made goes
    /// with its last file.
    pub async fn rm(&self, path: &str, options: RemoveOptions) -> Result<Removed> {
        let uri = self.changeable("rm", path)?;
        if path.is_empty() && !(options.recursive && options.even_root) {
            let context =
                format!("{uri} is the root of the dataset; remove what is in it, or force it");
            return Err(Error::new(ErrorKind::InvalidInput, "rm", context));
        }
        let failed = |error| Error::from_ufs("rm", &error);
        let status = self.ufs().status(&uri).await.map_err(failed)?;
        let removed = if !status.is_directory() {
            let removed = self.ufs().delete_file(&uri).await.map(|()| 1);
            self.changed(&uri, Some(&status)).await;
            removed
        } else if options.recursive {
            self.remove_below(&uri).await
        } else {
            let removed = self.ufs().delete_dir(&uri).await.map(|()| 0);
            self.changed(&uri, None).await;
            removed
        };
        let files = removed.map_err(failed)?;
        Ok(Removed { files })
    }

    /// Removes a directory with all below it, and lets go what was known of that.
    pub(crate) async fn remove_below(&self, uri: &UfsUri) -> Result<u64, UfsError> {
        let known = self.known_below(uri).await;
        let removed = self.ufs().delete_below(uri).await;
        self.changed_below(uri, known).await;
        removed
    }

    /// Makes an empty file where there is none.
    pub async fn touch(&self, path: &str, options: TouchOptions) -> Result<()> {
        let mode = if options.truncate {
            WriteMode::Replace
        } else {
            WriteMode::CreateNew
        };
        match self.write_bytes(path, Bytes::new(), mode).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            written => written.map(drop),
        }
    }

    /// The first bytes of a file.
    pub async fn head(&self, path: &str, bytes: u64) -> Result<Bytes> {
        self.read_bytes(path, 0..bytes).await
    }

    /// The last bytes of a file.
    pub async fn tail(&self, path: &str, bytes: u64) -> Result<Bytes> {
        let reader = self.open(path).await?;
        let length = reader.status().length;
        read(&reader, length.saturating_sub(bytes)..length).await
    }

    /// The bytes of a range, of one version; fewer where the file ends before it does. They are held
    /// in memory: read large files by [`Client::open`].
    pub async fn read_bytes(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let reader = self.open(path).await?;
        read(&reader, range).await
    }

    async fn found(&self, path: &str) -> Result<Option<Arc<FileStatus>>> {
        match self.status(path).await {
            Ok(status) => Ok(Some(status)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotDirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

async fn read(reader: &FileReader, range: Range<u64>) -> Result<Bytes> {
    let end = range.end.min(reader.status().length);
    let mut offset = range.start.min(end);
    let mut pieces = Vec::new();
    while offset < end {
        let step = (end - offset).min(STEP_BYTES);
        let read = reader
            .read_at(offset, usize::try_from(step).unwrap_or(usize::MAX))
            .await?;
        if read.is_empty() {
            break;
        }
        offset += read.len() as u64;
        pieces.extend(read.chunks);
    }
    if pieces.len() == 1 {
        return Ok(pieces.remove(0));
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        whole.extend_from_slice(piece);
    }
    Ok(whole.freeze())
}
