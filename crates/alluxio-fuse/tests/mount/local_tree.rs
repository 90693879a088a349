//! A folder of this machine as the tree below a mount.

use std::fs::{self, File, Metadata};
use std::future::{Ready, ready};
use std::io::{self, ErrorKind as IoKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use alluxio_client::ErrorKind;
use alluxio_fuse::{NoWriter, Placement, Tree, TreeError, TreeFile};
use alluxio_wire::{FileKind, FileStatus};
use bytes::Bytes;

/// The folder.
pub(crate) struct LocalTree {
    root: PathBuf,
}

/// A file that no daemon survives reading.
pub(crate) const POISON: &str = "poison";

/// A file that tells, line by line, what its daemon could do of what it must not; zeros follow.
pub(crate) const ESCAPE: &str = "escape";

/// An open file of it.
pub(crate) struct LocalFile {
    file: Arc<File>,
    status: FileStatus,
}

impl LocalTree {
    /// The tree of a configuration, which is nothing but the folder's path here.
    pub(crate) fn connect(config: String) -> Ready<Result<Self, TreeError>> {
        let root = PathBuf::from(config);
        let reached = fs::metadata(&root).map_err(|error| tree_error(&error));
        ready(reached.map(|_| Self { root }))
    }

    fn status_of(&self, path: &str) -> Result<FileStatus, TreeError> {
        let metadata = fs::metadata(self.root.join(path)).map_err(|error| tree_error(&error))?;
        Ok(status(path, &metadata))
    }
}

impl Tree for LocalTree {
    type File = LocalFile;
    type Writer = NoWriter;

    async fn status(&self, path: &str) -> Result<Arc<FileStatus>, TreeError> {
        self.status_of(path).map(Arc::new)
    }

    async fn list(&self, path: &str) -> Result<Arc<Vec<FileStatus>>, TreeError> {
        let list = || -> io::Result<Vec<FileStatus>> {
            fs::read_dir(self.root.join(path))?
                .map(|entry| {
                    let entry = entry?;
                    let name = entry.file_name().into_string();
                    let name = name.map_err(|_| io::Error::from(IoKind::InvalidFilename))?;
                    Ok(status(&format!("{path}/{name}"), &entry.metadata()?))
                })
                .collect()
        };
        let mut entries = list().map_err(|error| tree_error(&error))?;
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Arc::new(entries))
    }

    async fn open(&self, path: &str) -> Result<LocalFile, TreeError> {
        let file = File::open(self.root.join(path)).map_err(|error| tree_error(&error))?;
        Ok(LocalFile {
            file: Arc::new(file),
            status: self.status_of(path)?,
        })
    }

    async fn placement(&self, _path: &str, _status: &FileStatus) -> Placement {
        Placement {
            cached_percent: 25.0,
            worker: Some("worker-0:28080".to_owned()),
        }
    }

    fn metadata_ttl(&self) -> Duration {
        Duration::from_mins(1)
    }
}

impl TreeFile for LocalFile {
    fn status(&self) -> &FileStatus {
        &self.status
    }

    /// Small reads are answered on the spot, large ones wait in the pool: both ways of the session.
    async fn read_at(&self, offset: u64, length: u32) -> Result<Vec<Bytes>, TreeError> {
        if self.status.name == POISON {
            std::process::abort();
        }
        if self.status.name == ESCAPE {
            return Ok(vec![Bytes::from(attempts(length as usize))]);
        }
        let file = Arc::clone(&self.file);
        let read = move || read_full(&file, offset, length as usize);
        let bytes = if length <= 16 << 10 {
            read()
        } else {
            tokio::task::spawn_blocking(read)
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        let mut bytes = Bytes::from(bytes.map_err(|error| tree_error(&error))?);
        // Pages of the real cache come in several pieces.
        let rest = bytes.split_off(bytes.len() / 2);
        Ok(vec![bytes, rest])
    }
}

/// What a daemon that was taken over would try, with what came of it.
fn attempts(length: usize) -> Vec<u8> {
    let outside = std::env::temp_dir().join("alluxio-escape");
    let mut tried = Vec::new();
    let mut note = |what: &str, failure: Option<io::Error>| {
        let code = failure.map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        tried.extend_from_slice(format!("{what} {code}\n").as_bytes());
    };
    note("write", fs::write(&outside, "x").err());
    note("read-secret", fs::read("/etc/shadow").err());
    note(
        "run",
        std::process::Command::new("/bin/true").status().err(),
    );
    // SAFETY: numbers alone, or a null pointer that the kernel refuses.
    unsafe {
        let mut call = |what: &str, result: libc::c_long| {
            let failure = (result < 0).then(io::Error::last_os_error);
            note(what, failure);
        };
        call("unshare", libc::unshare(libc::CLONE_NEWUSER).into());
        let ptrace = libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, libc::getppid(), 0, 0);
        call("ptrace", ptrace);
        call("bpf", libc::syscall(libc::SYS_bpf, 0, 0, 0));
        call("become-root", libc::syscall(libc::SYS_setuid, 0));
    }
    tried.resize(length, 0);
    tried
}

fn read_full(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn status(path: &str, metadata: &Metadata) -> FileStatus {
    let modified = metadata.modified().ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ms = modified.map_or(0, |since| since.as_millis());
    FileStatus {
        kind: if metadata.is_dir() {
            FileKind::Directory
        } else {
            FileKind::File
        },
        name: path.rsplit('/').next().unwrap_or_default().to_owned(),
        path: format!("/{path}"),
        ufs_uri: format!("file:///{path}"),
        modified_ms: i64::try_from(modified_ms).unwrap_or(i64::MAX),
        length: if metadata.is_dir() { 0 } else { metadata.len() },
        content_hash: None,
    }
}

fn tree_error(error: &io::Error) -> TreeError {
    let kind = match error.kind() {
        IoKind::NotFound => ErrorKind::NotFound,
        IoKind::PermissionDenied => ErrorKind::PermissionDenied,
        IoKind::IsADirectory => ErrorKind::IsDirectory,
        IoKind::NotADirectory => ErrorKind::NotDirectory,
        _ => ErrorKind::Unexpected,
    };
    TreeError {
        kind,
        message: error.to_string(),
    }
}
