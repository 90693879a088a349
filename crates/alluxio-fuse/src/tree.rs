//! What the mount shows: a tree of files that can be asked for a status, a listing and bytes.
//!
//! The file system's operations are adapters over [`Tree`], so they can be tested over a folder on
//! this machine, with neither workers nor a kernel in the loop. The mount's own implementation,
//! over the embedded client, is in `client_tree.rs`.

use std::fs::File;
use std::future::{Future, pending, ready};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use alluxio_client::{CacheKey, ErrorKind, WholeFile};
use alluxio_wire::FileStatus;
use bytes::Bytes;
use prometheus::proto::MetricFamily;

/// Why the tree could not answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TreeError {
    /// What kind of failure; decides what the application is told.
    pub kind: ErrorKind,
    /// Object, cause and remedy, for the log.
    pub message: String,
}

impl From<io::Error> for TreeError {
    /// A failure of this machine's own disk.
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Unexpected,
        };
        Self {
            kind,
            message: error.to_string(),
        }
    }
}

/// Where a file's bytes are, for the extended attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// How much of the file is in the mount's own cache, 0 to 100.
    pub cached_percent: f64,
    /// The worker that the ring names for the file; none where the UFS is read directly.
    pub worker: Option<String>,
}

/// A tree, which may be one that can be changed. Paths are relative to the root, without a leading `/`; the root is `""`.
///
/// A future that can answer from memory must be ready at its first poll: the session polls once on
/// the kernel's own thread, and only an answer that must wait goes to the asynchronous pool.
pub trait Tree: Send + Sync + 'static {
    /// An open file.
    type File: TreeFile;
    /// A file that is being written; [`NoWriter`] in a tree that cannot be changed.
    type Writer: TreeWriter;

    /// What is known of a file or directory.
    fn status(&self, path: &str)
    -> impl Future<Output = Result<Arc<FileStatus>, TreeError>> + Send;

    /// The entries of a directory, sorted by name.
    fn list(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Arc<Vec<FileStatus>>, TreeError>> + Send;

    /// Opens a file at its present version.
    fn open(&self, path: &str) -> impl Future<Output = Result<Self::File, TreeError>> + Send;

    /// An open file's bytes as one file of this machine, where all of them are here and right.
    fn whole(&self, _file: &Self::File) -> impl Future<Output = Option<WholeFile>> + Send {
        ready(None)
    }

    /// The same of a file that is not open, where it takes no waiting; with what is known of the file.
    fn whole_at_hand(&self, _path: &str) -> Option<(Arc<FileStatus>, WholeFile)> {
        None
    }

    /// Waits for files that [`Tree::whole`] gave and that are to be given back.
    fn departed(&self) -> impl Future<Output = Vec<CacheKey>> + Send {
        pending()
    }

    /// An empty file where those of [`Tree::whole`] lie; none where it never gives one.
    fn sample(&self) -> Option<io::Result<File>> {
        None
    }

    /// Begins a file of so many bytes; what is there under the name stays until it is finished.
    fn create(
        &self,
        path: &str,
        _length: Option<u64>,
    ) -> impl Future<Output = Result<Self::Writer, TreeError>> + Send {
        ready(Err(read_only(path)))
    }

    /// Makes a directory; one that is there is left as it is.
    fn make_directory(&self, path: &str) -> impl Future<Output = Result<(), TreeError>> + Send {
        ready(Err(read_only(path)))
    }

    /// Removes a file.
    fn remove_file(&self, path: &str) -> impl Future<Output = Result<(), TreeError>> + Send {
        ready(Err(read_only(path)))
    }

    /// Removes an empty directory.
    fn remove_directory(&self, path: &str) -> impl Future<Output = Result<(), TreeError>> + Send {
        ready(Err(read_only(path)))
    }

    /// Gives a file or a directory another name, and replaces a file that has it. A directory is only
    /// renamed where that is one step; elsewhere it is `Unsupported`.
    fn rename(
        &self,
        from: &str,
        _to: &str,
        _is_directory: bool,
    ) -> impl Future<Output = Result<(), TreeError>> + Send {
        ready(Err(read_only(from)))
    }

    /// Where the bytes of a file are.
    fn placement(&self, path: &str, status: &FileStatus) -> impl Future<Output = Placement> + Send;

    /// How long a status may be taken for true; also what the kernel is told.
    fn metadata_ttl(&self) -> Duration;

    /// Metrics of what is below the mount.
    fn metric_families(&self) -> Vec<MetricFamily> {
        Vec::new()
    }
}

fn read_only(path: &str) -> TreeError {
    TreeError {
        kind: ErrorKind::Unsupported,
        message: format!("{path} is in a tree that cannot be changed"),
    }
}

/// A file on its way into the tree. It is not seen before it is finished; dropped, it leaves what was
/// there before.
pub trait TreeWriter: Send + 'static {
    /// Adds bytes; waits while too many are on their way.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), TreeError>> + Send;

    /// Makes the file visible, whole; its status then.
    fn finish(self) -> impl Future<Output = Result<Arc<FileStatus>, TreeError>> + Send;
}

/// The writer of a tree that cannot be changed.
#[derive(Debug)]
pub enum NoWriter {}

impl TreeWriter for NoWriter {
    async fn write(&mut self, _bytes: Bytes) -> Result<(), TreeError> {
        match *self {}
    }

    async fn finish(self) -> Result<Arc<FileStatus>, TreeError> {
        match self {}
    }
}

/// An open file: one version of its bytes, whatever happens to the path.
pub trait TreeFile: Send + Sync + 'static {
    /// The status that the file was opened with.
    fn status(&self) -> &FileStatus;

    /// The bytes from `offset`, `length` of them or what there is up to the end of the file.
    fn read_at(
        &self,
        offset: u64,
        length: u32,
    ) -> impl Future<Output = Result<Vec<Bytes>, TreeError>> + Send;
}
