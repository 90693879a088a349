//! Local files and directories (`file:`), each operation on the blocking pool.
//!
//! Symbolic links are followed, as Alluxio's own local under-store does. A walk does not enter a
//! directory that it is in already, so a link to a parent ends there.

pub(crate) mod write;

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluxio_wire::{FileStatus, FileVersion, UfsUri};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::Semaphore;

use crate::buffers::Buffers;
use crate::error::{Subject, UfsError, UfsErrorKind};
use crate::limits::{
    ATTEMPT_TIMEOUT, MAX_LIST_ENTRIES, PARALLEL_OPERATIONS, READ_ATTEMPT_TIMEOUT, with_retries,
};
use crate::status::{self, is_version, sort_and_dedup};

/// The store of `file:` URIs.
#[derive(Clone, Debug)]
pub(crate) struct LocalStore {
    root: Arc<UfsUri>,
    /// Turns for threads of the blocking pool, those of abandoned calls among them.
    turns: Arc<Semaphore>,
}

/// A directory of a walk and those above it, by device and inode.
struct Ancestor {
    identity: (u64, u64),
    above: Option<Arc<Ancestor>>,
}

/// A directory that a walk has yet to list.
struct Pending {
    uri: UfsUri,
    above: Option<Arc<Ancestor>>,
}

impl LocalStore {
    pub(crate) fn new(root: UfsUri) -> Self {
        Self {
            root: Arc::new(root),
            turns: Arc::new(Semaphore::new(PARALLEL_OPERATIONS)),
        }
    }

    pub(crate) async fn status(
        &self,
        subject: &Subject,
        uri: &UfsUri,
    ) -> Result<FileStatus, UfsError> {
        let uri = uri.clone();
        self.attempts(subject, ATTEMPT_TIMEOUT, move |store, subject| {
            store.status_now(subject, &uri)
        })
        .await
    }

    pub(crate) async fn list(
        &self,
        subject: &Subject,
        uri: &UfsUri,
    ) -> Result<Vec<FileStatus>, UfsError> {
        // A directory of a million entries takes longer than a status, and is read once.
        let uri = uri.clone();
        self.attempts(subject, READ_ATTEMPT_TIMEOUT, move |store, subject| {
            store.list_now(subject, &uri)
        })
        .await
    }

    pub(crate) async fn read(
        &self,
        subject: &Subject,
        uri: &UfsUri,
        range: Range<u64>,
        version: Option<&FileVersion>,
    ) -> Result<Bytes, UfsError> {
        let (uri, version) = (uri.clone(), version.cloned());
        self.attempts(subject, READ_ATTEMPT_TIMEOUT, move |store, subject| {
            store.read_now(subject, &uri, range.clone(), version.as_ref())
        })
        .await
    }

    /// Directory by directory, depth first, so that memory holds one directory a level.
    pub(crate) fn walk(
        &self,
        subject: Subject,
        uri: UfsUri,
    ) -> BoxStream<'static, Result<FileStatus, UfsError>> {
        let start = vec![Pending { uri, above: None }];
        let batches = stream::try_unfold((self.clone(), subject, start), |state| async move {
            let (store, subject, mut pending) = state;
            let Some(next) = pending.pop() else {
                return Ok::<_, UfsError>(None);
            };
            let visited = store
                .attempts(&subject, READ_ATTEMPT_TIMEOUT, move |visitor, subject| {
                    visitor.visit_now(subject, &next.uri, next.above.clone())
                })
                .await?;
            let (files, directories) = visited;
            pending.extend(directories.into_iter().rev());
            Ok(Some((files, (store, subject, pending))))
        });
        batches
            .map(|batch| match batch {
                Ok(files) => stream::iter(files.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .flatten()
            .boxed()
    }

    /// Tries `work` on the blocking pool, and again where it failed in passing.
    async fn attempts<T: Send + 'static>(
        &self,
        subject: &Subject,
        timeout: Duration,
        work: impl Fn(&Self, &Subject) -> Result<T, UfsError> + Send + Sync + 'static,
    ) -> Result<T, UfsError> {
        let work = Arc::new(work);
        with_retries(subject, timeout, || {
            let (store, owned, work) = (self.clone(), subject.clone(), Arc::clone(&work));
            self.blocking(subject.clone(), move || work(&store, &owned))
        })
        .await
    }

    /// Runs `work` on the blocking pool. Its turn goes with it: a call that hangs beyond its
    /// timeout still has a thread, and must count until it gives it back.
    async fn blocking<T: Send + 'static>(
        &self,
        subject: Subject,
        work: impl FnOnce() -> Result<T, UfsError> + Send + 'static,
    ) -> Result<T, UfsError> {
        // The semaphore is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let running = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        match running.await {
            Ok(result) => result,
            Err(error) => Err(subject.error(
                UfsErrorKind::Unexpected,
                format!("the task reading it ended: {error}"),
                "try again",
            )),
        }
    }

    fn status_now(&self, subject: &Subject, uri: &UfsUri) -> Result<FileStatus, UfsError> {
        let metadata = fs::metadata(uri.path()).map_err(|e| io_error(subject, &e))?;
        self.status_from(uri, &metadata).ok_or_else(|| {
            subject.invalid(
                "it is neither a file nor a directory",
                "name a regular file; pipes, sockets and devices are not served",
            )
        })
    }

    fn list_now(&self, subject: &Subject, uri: &UfsUri) -> Result<Vec<FileStatus>, UfsError> {
        let mut statuses = Vec::new();
        for entry in fs::read_dir(uri.path()).map_err(|e| io_error(subject, &e))? {
            let path = entry.map_err(|e| io_error(subject, &e))?.path();
            if let Some(status) = self.status_of_entry(uri, &path) {
                statuses.push(status);
            }
            if statuses.len() > MAX_LIST_ENTRIES {
                return Err(subject.invalid(
                    format!("it holds more than {MAX_LIST_ENTRIES} entries"),
                    "spread the files over several directories",
                ));
            }
        }
        Ok(statuses)
    }

    /// One entry, or `None` with a debug log where it cannot be served.
    fn status_of_entry(&self, parent: &UfsUri, path: &Path) -> Option<FileStatus> {
        let left_out = |reason: &str| {
            tracing::debug!(path = %path.display(), reason, "left out of the listing");
            None
        };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return left_out("its name is not UTF-8");
        };
        if write::is_temporary(name) {
            return left_out("it is being written");
        }
        let Ok(uri) = parent.join(name) else {
            return left_out("a URI cannot carry its name");
        };
        match fs::metadata(path) {
            Err(error) => left_out(&error.to_string()),
            Ok(metadata) => match self.status_from(&uri, &metadata) {
                None => left_out("it is neither a file nor a directory"),
                status => status,
            },
        }
    }

    /// The files directly in a directory, sorted, and the directories to visit.
    fn visit_now(
        &self,
        subject: &Subject,
        uri: &UfsUri,
        above: Option<Arc<Ancestor>>,
    ) -> Result<(Vec<FileStatus>, Vec<Pending>), UfsError> {
        let metadata = fs::metadata(uri.path()).map_err(|e| io_error(subject, &e))?;
        if metadata.is_file() {
            return Ok((vec![self.status_now(subject, uri)?], Vec::new()));
        }
        let identity = (metadata.dev(), metadata.ino());
        if Ancestor::is_among(above.as_deref(), identity) {
            tracing::debug!(%uri, "left out of the walk: a link to a directory above it");
            return Ok((Vec::new(), Vec::new()));
        }
        let here = Some(Arc::new(Ancestor { identity, above }));
        let mut entries = self.list_now(subject, uri)?;
        sort_and_dedup(&mut entries);
        let (directories, files): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(FileStatus::is_directory);
        let pending = directories
            .iter()
            .filter_map(|directory| uri.join(&directory.name).ok())
            .map(|uri| Pending {
                uri,
                above: here.clone(),
            })
            .collect();
        Ok((files, pending))
    }

    fn read_now(
        &self,
        subject: &Subject,
        uri: &UfsUri,
        range: Range<u64>,
        version: Option<&FileVersion>,
    ) -> Result<Bytes, UfsError> {
        let file = File::open(uri.path()).map_err(|e| io_error(subject, &e))?;
        let length = self.check_open_file(subject, uri, &file, version)?;
        let end = range.end.min(length);
        let bytes =
            read_range(&file, range.start.min(end)..end).map_err(|e| io_error(subject, &e))?;
        // A writer may have come while we read: then the bytes may be of two versions.
        self.check_open_file(subject, uri, &file, version)?;
        Ok(bytes)
    }

    /// The length of the open file; an error when it is a directory or of another version.
    fn check_open_file(
        &self,
        subject: &Subject,
        uri: &UfsUri,
        file: &File,
        version: Option<&FileVersion>,
    ) -> Result<u64, UfsError> {
        let metadata = file.metadata().map_err(|e| io_error(subject, &e))?;
        if metadata.is_dir() {
            return Err(subject.is_directory());
        }
        match (version, self.status_from(uri, &metadata)) {
            (Some(version), Some(status)) if !is_version(&status, version) => {
                Err(subject.changed(version))
            }
            _ => Ok(metadata.len()),
        }
    }

    fn status_from(&self, uri: &UfsUri, metadata: &Metadata) -> Option<FileStatus> {
        let modified_ms = metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000;
        if metadata.is_dir() {
            Some(status::directory(&self.root, uri, modified_ms))
        } else if metadata.is_file() {
            let length = metadata.len();
            Some(status::file(&self.root, uri, length, modified_ms, None))
        } else {
            None
        }
    }
}

impl Ancestor {
    fn is_among(mut chain: Option<&Self>, identity: (u64, u64)) -> bool {
        while let Some(ancestor) = chain {
            if ancestor.identity == identity {
                return true;
            }
            chain = ancestor.above.as_deref();
        }
        false
    }
}

/// The bytes of an open file in a range, or those up to the file's end.
pub fn read_range(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let wanted = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut buffer = Buffers::default().take(wanted);
    buffer.read_from(file, range.start)?;
    Ok(buffer.freeze())
}

fn io_error(subject: &Subject, error: &io::Error) -> UfsError {
    match error.kind() {
        io::ErrorKind::NotFound => subject.not_found(),
        io::ErrorKind::PermissionDenied => subject.error(
            UfsErrorKind::PermissionDenied,
            error.to_string(),
            "let the user that this process runs as read it",
        ),
        io::ErrorKind::IsADirectory => subject.is_directory(),
        io::ErrorKind::NotADirectory => subject.not_directory(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => subject.invalid(
            error.to_string(),
            "give a path that the file system can have",
        ),
        // A network file system that is away or has been mounted anew.
        io::ErrorKind::StaleNetworkFileHandle
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::TimedOut => subject.unavailable(error.to_string()),
        _ => subject.error(
            UfsErrorKind::Unexpected,
            error.to_string(),
            "check the disk and the kernel's log",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use futures::TryStreamExt;

    use super::*;

    fn uri_of(path: &Path) -> UfsUri {
        UfsUri::parse(&format!("file://{}", path.display())).unwrap()
    }

    fn names(statuses: &[FileStatus]) -> Vec<&str> {
        statuses.iter().map(|s| s.path.as_str()).collect()
    }

    async fn walk(root: &UfsUri) -> Vec<FileStatus> {
        let store = LocalStore::new(root.clone());
        let subject = Subject::new("walk", root);
        store
            .walk(subject, root.clone())
            .try_collect()
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_link_to_a_parent_ends_the_walk_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/f"), "x").unwrap();
        symlink(folder.path(), folder.path().join("d/up")).unwrap();
        symlink(folder.path().join("d/f"), folder.path().join("link")).unwrap();
        let found = walk(&uri_of(folder.path())).await;
        assert_eq!(names(&found), ["/link", "/d/f"]);
    }

    #[tokio::test]
    async fn what_cannot_be_served_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("good "), "x").unwrap();
        fs::write(folder.path().join("line\nbreak"), "x").unwrap();
        fs::write(folder.path().join(OsStr::from_bytes(b"\xff")), "x").unwrap();
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        let found = walk(&uri_of(folder.path())).await;
        assert_eq!(names(&found), ["/good "]);
    }

    #[tokio::test]
    async fn a_call_that_hangs_keeps_its_turn_when_nobody_waits_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(uri_of(folder.path()));
        let subject = Subject::new("read", &uri_of(folder.path()));
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let hung = store.blocking(subject, move || {
            begun.send(()).unwrap();
            // Returns when the sender is dropped.
            let _ = released.recv();
            Ok(())
        });
        tokio::select! {
            _ = hung => panic!("it does not hang"),
            begun = has_begun => begun.unwrap(),
        }
        // The waiting future is dropped, as by a timeout.
        assert_eq!(store.turns.available_permits(), PARALLEL_OPERATIONS - 1);
        drop(release);
        let all = u32::try_from(PARALLEL_OPERATIONS).unwrap();
        let back = tokio::time::timeout(ATTEMPT_TIMEOUT, store.turns.acquire_many(all));
        assert!(back.await.is_ok(), "the turn came back with the thread");
    }

    #[tokio::test]
    async fn a_version_by_time_and_length_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "old").unwrap();
        let uri = uri_of(&path);
        let store = LocalStore::new(uri_of(folder.path()));
        let subject = Subject::new("read", &uri);
        let version = store.status(&subject, &uri).await.unwrap().version();
        let read = |version: FileVersion| {
            let (store, subject, uri) = (store.clone(), subject.clone(), uri.clone());
            async move { store.read(&subject, &uri, 0..9, Some(&version)).await }
        };
        assert_eq!(read(version.clone()).await.unwrap(), "old");
        fs::write(&path, "newer").unwrap();
        let error = read(version).await.unwrap_err();
        assert_eq!(error.kind(), UfsErrorKind::Changed);
    }
}
