//! Moving files: `cp` and `mv` within the dataset, `upload` and `download` between it and the local
//! disk.
//!
//! Every file appears under its name only when all of its bytes are there. Files move side by side,
//! at most `client.max_parallel_transfers` at a time. With [`Existing::Resume`] a transfer that was
//! cut goes on: files that are at their place already are left out.
//!
//! | | what is left out | a large file that was cut | verified by |
//! |---|---|---|---|
//! | `cp`, `mv` | same length, not older | is copied anew | length, version of the source |
//! | `upload` | same length, not older | is sent anew | length, and hash where the store tells an MD5 |
//! | `download` | same length and time (a download gives a file its source's time) | goes on with the bytes that came, whatever [`Existing`] says | version, length, and hash where the store tells an MD5 |
//!
//! Names are exact: the source becomes the target, whatever is there. To put it into a directory,
//! name the target in it.

mod download;
mod etag;
mod part;
mod tree;
mod upload;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alluxio_ufs::WriteMode;
use alluxio_wire::{FileStatus, UfsUri};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// What is done where a target file is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// The transfer fails as `AlreadyExists`.
    #[default]
    Fail,
    /// It is replaced.
    Replace,
    /// It stays where it is what an earlier transfer of the same source made, and is replaced else.
    Resume,
}

/// What is called as bytes move, from any thread; it must not block.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How a transfer is done.
#[derive(Clone, Default)]
pub struct TransferOptions {
    /// A directory with all below it.
    pub recursive: bool,
    /// What is done with files that are there.
    pub existing: Existing,
    /// Told after each file that was found, and after each piece that was moved.
    pub progress: Option<ProgressFn>,
}

/// How far a transfer is. Totals grow while the source is still being listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files found so far.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are at their place.
    pub files_done: u64,
    /// Bytes that are at their place, those that need not be moved among them.
    pub bytes_done: u64,
}

/// What a transfer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transferred {
    /// Files that are at their place now.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Files that were at their place already.
    pub files_skipped: u64,
    /// Bytes of them, and of parts that an earlier download had left.
    pub bytes_skipped: u64,
}

/// One transfer and its counts.
struct Transfer {
    client: Client,
    options: TransferOptions,
    operation: &'static str,
    counts: Counts,
    /// The store tells hashes that look like MD5s and are none; found out by reading twice.
    hashes_are_of_another_kind: AtomicBool,
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    bytes: AtomicU64,
    files_done: AtomicU64,
    bytes_done: AtomicU64,
    files_skipped: AtomicU64,
    bytes_skipped: AtomicU64,
}

impl Client {
    /// Copies a file, or with `recursive` a directory, within the dataset; in the store itself where
    /// it can. A target that lies in its own source is refused.
    pub async fn cp(&self, from: &str, to: &str, options: TransferOptions) -> Result<Transferred> {
        let transfer = Transfer::new(self, "cp", options);
        transfer.copy(from, to).await?;
        Ok(transfer.done())
    }

    /// Moves a file or directory within the dataset: in one step where the store has one; else
    /// everything is copied, and then the source is removed. A failure before that leaves the
    /// source whole.
    pub async fn mv(&self, from: &str, to: &str, options: TransferOptions) -> Result<Transferred> {
        let transfer = Transfer::new(self, "mv", options);
        transfer.rename(from, to).await?;
        Ok(transfer.done())
    }

    /// Sends a local file, or with `recursive` a directory, to the under-store; symbolic links are
    /// followed. Each file under way takes up to 48 MiB of memory.
    pub async fn upload(
        &self,
        from: &Path,
        to: &str,
        options: TransferOptions,
    ) -> Result<Transferred> {
        let transfer = Transfer::new(self, "upload", options);
        transfer.upload(from, to).await?;
        Ok(transfer.done())
    }

    /// Fetches a file, or with `recursive` a directory, to the local disk: from caches and workers
    /// where they have it. A large file goes on where an earlier download of its version was cut,
    /// by the part `.NAME.alluxio-part` that it left.
    pub async fn download(
        &self,
        from: &str,
        to: &Path,
        options: TransferOptions,
    ) -> Result<Transferred> {
        let transfer = Transfer::new(self, "download", options);
        transfer.download(from, to).await?;
        Ok(transfer.done())
    }
}

impl Transfer {
    fn new(client: &Client, operation: &'static str, options: TransferOptions) -> Self {
        Self {
            client: client.clone(),
            options,
            operation,
            counts: Counts::default(),
            hashes_are_of_another_kind: AtomicBool::new(false),
        }
    }

    fn done(&self) -> Transferred {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Transferred {
            files: of(&self.counts.files_done),
            bytes: of(&self.counts.bytes_done),
            files_skipped: of(&self.counts.files_skipped),
            bytes_skipped: of(&self.counts.bytes_skipped),
        }
    }

    fn found(&self, bytes: u64) {
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn moved(&self, bytes: u64) {
        self.counts.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// Bytes that an earlier transfer brought.
    fn resumed(&self, bytes: u64) {
        self.counts
            .bytes_skipped
            .fetch_add(bytes, Ordering::Relaxed);
        self.moved(bytes);
    }

    fn file_done(&self) {
        self.counts.files_done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    fn file_skipped(&self, bytes: u64) {
        self.counts.files_skipped.fetch_add(1, Ordering::Relaxed);
        self.resumed(bytes);
        self.file_done();
    }

    fn tell(&self) {
        if let Some(progress) = &self.options.progress {
            let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
            progress(Progress {
                files: of(&self.counts.files),
                bytes: of(&self.counts.bytes),
                files_done: of(&self.counts.files_done),
                bytes_done: of(&self.counts.bytes_done),
            });
        }
    }

    fn mode(&self) -> WriteMode {
        match self.options.existing {
            Existing::Fail => WriteMode::CreateNew,
            Existing::Replace | Existing::Resume => WriteMode::Replace,
        }
    }

    /// Whether a file of the dataset is at its place already.
    async fn is_there(&self, target: &UfsUri, length: u64, modified_ms: i64) -> Result<bool> {
        if self.options.existing != Existing::Resume {
            return Ok(false);
        }
        match self.client.ufs().status(target).await {
            Ok(status) => Ok(is_same(&status, length, modified_ms)),
            Err(error) => match self.ufs_error(&error) {
                error if error.kind() == ErrorKind::NotFound => Ok(false),
                error => Err(error),
            },
        }
    }

    fn ufs_error(&self, error: &alluxio_ufs::UfsError) -> Error {
        Error::from_ufs(self.operation, error)
    }

    fn error(&self, kind: ErrorKind, context: impl Into<String>) -> Error {
        Error::new(kind, self.operation, context)
    }

    fn is_a_directory(&self, what: &str) -> Error {
        let context = format!("{what} is a directory; ask for it with all below it (recursive)");
        self.error(ErrorKind::IsDirectory, context)
    }
}

/// An error of the local disk.
fn local_error(operation: &'static str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        io::ErrorKind::IsADirectory => ErrorKind::IsDirectory,
        io::ErrorKind::NotADirectory => ErrorKind::NotDirectory,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => ErrorKind::InvalidInput,
        _ => ErrorKind::Unexpected,
    };
    let context = format!("the local path {}", path.display());
    Error::new(kind, operation, context).with_source(error)
}

/// Whether a target is what a transfer of such a source would make.
fn is_same(target: &FileStatus, length: u64, modified_ms: i64) -> bool {
    // Stores tell whole seconds.
    let seconds = |ms: i64| ms.div_euclid(1000);
    !target.is_directory()
        && target.length == length
        && seconds(target.modified_ms) >= seconds(modified_ms)
}

impl std::fmt::Debug for TransferOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransferOptions")
            .field("recursive", &self.recursive)
            .field("existing", &self.existing)
            .finish_non_exhaustive()
    }
}
