//! Uploads: from the local disk to the under-store.
//!
//! One file, step by step:
//! 1. With [`super::Existing::Resume`] the target is looked up, and left alone where it is the same.
//! 2. The file is read, hashed and sent; parts go side by side. The target stays what it was.
//! 3. A file that changed meanwhile is given up: half of each would be of no use to anybody.
//! 4. The upload is completed: the target is the new file, in one step.
//! 5. Length and, where the store tells one, hash are compared with the local file.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use alluxio_ufs::WriteOptions;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::download::blocking;
use super::etag::{ETag, Hasher, Verdict};
use super::{Transfer, local_error};
use crate::error::{Error, ErrorKind, Result};
use crate::write::Target;

/// Bytes read at once.
const READ_BYTES: usize = 4 * 1024 * 1024;
/// Files that were found and wait for their turn.
const FOUND_AHEAD: usize = 1024;

/// A local file that is to be sent.
struct LocalFile {
    path: PathBuf,
    /// Below the directory that is uploaded.
    below: String,
}

impl Transfer {
    /// The steps of `upload`: what the source is, then the one file or all below it.
    pub(super) async fn upload(&self, from: &Path, to: &str) -> Result<()> {
        let metadata = tokio::fs::metadata(from).await;
        let metadata = metadata.map_err(|error| local_error(self.operation, from, error))?;
        if !metadata.is_dir() {
            let target = self.client.target(self.operation, to).await?;
            return self.upload_file(from, target).await;
        }
        if !self.options.recursive {
            return Err(self.is_a_directory(&from.display().to_string()));
        }
        let root = self.client.changeable(self.operation, to)?;
        files_below(from.to_owned(), self.operation)
            .try_for_each_concurrent(self.client.max_parallel_transfers(), |file| {
                let root = &root;
                async move {
                    let uri = root.join(&file.below).map_err(|error| {
                        let context = format!(
                            "{} cannot be named in the store; rename it",
                            file.path.display()
                        );
                        self.error(ErrorKind::InvalidInput, context)
                            .with_source(error)
                    })?;
                    self.upload_file(&file.path, Target { uri, old: None })
                        .await
                }
            })
            .await?;
        // A directory without files would else not be there.
        let made = self.client.ufs().create_dir(&root).await;
        self.client.changed(&root, None).await;
        made.map_err(|error| self.ufs_error(&error))
    }

    async fn upload_file(&self, from: &Path, target: Target) -> Result<()> {
        let failed = |error| local_error(self.operation, from, error);
        let (file, before) = open(from.to_owned()).await.map_err(failed)?;
        if !before.is_file() {
            let context = format!(
                "{} is neither file nor directory; leave it out",
                from.display()
            );
            return Err(self.error(ErrorKind::InvalidInput, context));
        }
        let length = before.len();
        self.found(length);
        let modified_ms = before.mtime().saturating_mul(1000);
        if self.is_there(&target.uri, length, modified_ms).await? {
            self.file_skipped(length);
            return Ok(());
        }
        let uri = target.uri.clone();
        let options = WriteOptions {
            mode: self.mode(),
            expected_bytes: Some(length),
        };
        let mut writer = self.client.create_at(target, options).await?;
        let mut source = Source {
            file,
            hasher: Hasher::as_sent(length),
        };
        loop {
            let (back, read) = blocking(move || source.read()).await;
            source = back;
            let bytes = read.map_err(failed)?;
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len() as u64;
            writer.write(bytes).await?;
            self.moved(count);
        }
        let after = source.file.metadata().map_err(failed)?;
        let is_same = (after.len(), after.mtime(), after.mtime_nsec())
            == (before.len(), before.mtime(), before.mtime_nsec());
        if writer.written_bytes() != length || !is_same {
            writer.abort().await;
            let context = format!(
                "{} changed while it was sent, and {uri} was left as it was; try again",
                from.display()
            );
            return Err(self.error(ErrorKind::Stale, context));
        }
        let written = writer.finish().await?;
        self.verify_sent(source, &uri, written.content_hash.as_deref(), length)
            .await?;
        self.file_done();
        Ok(())
    }

    async fn verify_sent(
        &self,
        source: Source,
        uri: &alluxio_wire::UfsUri,
        hash: Option<&str>,
        length: u64,
    ) -> Result<()> {
        let verdict = hash.and_then(ETag::parse).map_or(Verdict::Unknown, |etag| {
            etag.verdict(&source.hasher.finish())
        });
        if verdict == Verdict::Same {
            return Ok(());
        }
        let stored = self.client.ufs().status(uri).await;
        let stored = stored.map_err(|error| self.ufs_error(&error))?;
        let is_whole = stored.length == length;
        let is_sent = is_whole
            && (verdict == Verdict::Unknown
                || self
                    .is_what_the_store_has(source.file, &stored, uri)
                    .await?);
        if is_sent {
            return Ok(());
        }
        let context = format!(
            "what the store has at {uri} is not what was sent; upload it again, and check this \
             machine's memory and the way to the store if it stays so"
        );
        Err(self.error(ErrorKind::Corrupt, context))
    }
}

/// A local file that is read and hashed.
struct Source {
    file: File,
    hasher: Hasher,
}

impl Source {
    /// The next bytes; none at the end.
    fn read(mut self) -> (Self, io::Result<Bytes>) {
        let mut bytes = BytesMut::zeroed(READ_BYTES);
        let mut here = 0;
        while here < bytes.len() {
            match self.file.read(&mut bytes[here..]) {
                Ok(0) => break,
                Ok(read) => here += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (self, Err(error)),
            }
        }
        bytes.truncate(here);
        self.hasher.update(&bytes);
        (self, Ok(bytes.freeze()))
    }
}

async fn open(path: PathBuf) -> io::Result<(File, Metadata)> {
    blocking(move || {
        // A pipe would make the opening wait for its other end.
        let metadata = std::fs::metadata(&path)?;
        if !metadata.is_file() {
            return Ok((File::open("/dev/null")?, metadata));
        }
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    })
    .await
}

/// All files below a local directory, as they are found; symbolic links are followed.
fn files_below(
    directory: PathBuf,
    operation: &'static str,
) -> stream::BoxStream<'static, Result<LocalFile>> {
    let (found, files) = mpsc::channel(FOUND_AHEAD);
    let walking = move || {
        let mut above = HashSet::new();
        let mut walk = Walk {
            found: &found,
            operation,
            above: &mut above,
        };
        if let Err(Some(error)) = walk.directory(&directory, "") {
            let _nobody_listens = found.blocking_send(Err(error));
        }
    };
    tokio::task::spawn_blocking(walking);
    let next = |mut files: mpsc::Receiver<_>| async move {
        let file = files.recv().await?;
        Some((file, files))
    };
    stream::unfold(files, next).boxed()
}

/// A walk through local directories, depth first.
struct Walk<'a> {
    found: &'a mpsc::Sender<Result<LocalFile>>,
    operation: &'static str,
    /// The directories that the walk is in, by device and inode: a link back into one has no end.
    above: &'a mut HashSet<(u64, u64)>,
}

impl Walk<'_> {
    /// Ends with an error, or with none where nobody listens any more.
    fn directory(&mut self, directory: &Path, below: &str) -> Result<(), Option<Error>> {
        let operation = self.operation;
        let failed = |path: &Path, error| Some(local_error(operation, path, error));
        let metadata = directory.metadata().map_err(|e| failed(directory, e))?;
        let inode = (metadata.dev(), metadata.ino());
        if !self.above.insert(inode) {
            let context = format!(
                "{} leads back to a directory above it; remove the link",
                directory.display()
            );
            return Err(Some(Error::new(
                ErrorKind::InvalidInput,
                operation,
                context,
            )));
        }
        for entry in std::fs::read_dir(directory).map_err(|e| failed(directory, e))? {
            let path = entry.map_err(|e| failed(directory, e))?.path();
            let is_directory = path.metadata().map_err(|e| failed(&path, e))?.is_dir();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| {
                let context = format!("{} is no UTF-8 name; rename it", path.display());
                Some(Error::new(ErrorKind::InvalidInput, operation, context))
            })?;
            let below = match below {
                "" => name.to_owned(),
                below => format!("{below}/{name}"),
            };
            if is_directory {
                self.directory(&path, &below)?;
            } else {
                let file = LocalFile { path, below };
                self.found.blocking_send(Ok(file)).map_err(|_| None)?;
            }
        }
        self.above.remove(&inode);
        Ok(())
    }
}
