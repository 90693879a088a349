//! Writing local files: beside the target first, then under its name, in one step.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluxio_wire::UfsUri;
use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{LocalStore, io_error};
use crate::error::{Subject, UfsError, UfsErrorKind};
use crate::limits::READ_ATTEMPT_TIMEOUT;
use crate::write::WriteMode;

/// How the names begin under which files are written before they get their own.
const TEMPORARY_PREFIX: &str = ".alluxio-write-";

/// And how they end.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Time for the fsync of one file. A slow disk writes some 100 MB/s, and the kernel keeps at most a
/// fifth of memory unwritten.
const SYNC_TIMEOUT: Duration = Duration::from_mins(5);

/// Entries that one step of a removal takes, so that each is done well within its time.
const ENTRIES_A_STEP: usize = 1_000;

/// A file on its way, under a name of its own.
#[derive(Debug)]
pub(crate) struct LocalWriter {
    store: LocalStore,
    file: Arc<File>,
    temporary: PathBuf,
    target: PathBuf,
    mode: WriteMode,
}

/// Whether this is the name of a file that is being written, or that a killed writer left.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX)
}

impl LocalStore {
    pub(crate) async fn writer(
        &self,
        subject: &Subject,
        uri: &UfsUri,
        mode: WriteMode,
    ) -> Result<LocalWriter, UfsError> {
        let target = PathBuf::from(uri.path());
        let created = self.change(subject, READ_ATTEMPT_TIMEOUT, {
            let target = target.clone();
            move |subject| create_temporary(subject, &target, mode)
        });
        let (file, temporary) = created.await?;
        Ok(LocalWriter {
            store: self.clone(),
            file: Arc::new(file),
            temporary,
            target,
            mode,
        })
    }

    pub(crate) async fn create_dir(&self, subject: &Subject, uri: &UfsUri) -> Result<(), UfsError> {
        let path = PathBuf::from(uri.path());
        self.change(
            subject,
            READ_ATTEMPT_TIMEOUT,
            move |subject| match fs::create_dir_all(&path) {
                Ok(()) => Ok(()),
                Err(_) if path.is_file() => Err(subject.already_exists()),
                Err(error) => Err(write_error(subject, &error)),
            },
        )
        .await
    }

    pub(crate) async fn delete_file(
        &self,
        subject: &Subject,
        uri: &UfsUri,
    ) -> Result<(), UfsError> {
        let path = PathBuf::from(uri.path());
        self.change(subject, READ_ATTEMPT_TIMEOUT, move |subject| {
            match fs::remove_file(&path) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                // Linux says EISDIR, POSIX allows EPERM.
                Err(_) if path.is_dir() => Err(subject.is_directory()),
                Err(error) => Err(write_error(subject, &error)),
            }
        })
        .await
    }

    pub(crate) async fn delete_dir(&self, subject: &Subject, uri: &UfsUri) -> Result<(), UfsError> {
        let path = PathBuf::from(uri.path());
        self.change(subject, READ_ATTEMPT_TIMEOUT, move |subject| {
            fs::remove_dir(&path).map_err(|error| write_error(subject, &error))
        })
        .await
    }

    /// In steps, each within its time: a directory of a million files takes minutes.
    pub(crate) async fn delete_below(
        &self,
        subject: &Subject,
        uri: &UfsUri,
    ) -> Result<u64, UfsError> {
        let mut removed = 0;
        let mut pending = vec![PathBuf::from(uri.path())];
        while let Some(path) = pending.last().cloned() {
            let step = self.change(subject, READ_ATTEMPT_TIMEOUT, move |subject| {
                remove_some(subject, &path)
            });
            let step = step.await?;
            removed += step.files;
            if step.is_gone {
                pending.pop();
            }
            pending.extend(step.directories);
        }
        Ok(removed)
    }

    pub(crate) async fn rename(
        &self,
        subject: &Subject,
        from: &UfsUri,
        to: &UfsUri,
        mode: WriteMode,
    ) -> Result<(), UfsError> {
        let (from, to) = (PathBuf::from(from.path()), PathBuf::from(to.path()));
        self.change(subject, READ_ATTEMPT_TIMEOUT, move |subject| {
            make_folder_of(subject, &to)?;
            put_in_place(&from, &to, mode).map_err(|error| write_error(subject, &error))?;
            sync_folder_of(&to).map_err(|error| write_error(subject, &error))
        })
        .await
    }

    /// One try on the blocking pool, within `timeout`: what changes the store is not repeated blindly.
    async fn change<T: Send + 'static>(
        &self,
        subject: &Subject,
        timeout: Duration,
        work: impl FnOnce(&Subject) -> Result<T, UfsError> + Send + 'static,
    ) -> Result<T, UfsError> {
        let owned = subject.clone();
        let running = self.blocking(subject.clone(), move || work(&owned));
        match tokio::time::timeout(timeout, running).await {
            Ok(result) => result,
            Err(_) => Err(subject.timed_out(timeout)),
        }
    }
}

impl LocalWriter {
    pub(crate) async fn put(
        &mut self,
        subject: &Subject,
        part: Vec<Bytes>,
    ) -> Result<(), UfsError> {
        let file = Arc::clone(&self.file);
        self.store
            .change(subject, SYNC_TIMEOUT, move |subject| {
                let mut file = &*file;
                part.iter()
                    .try_for_each(|chunk| file.write_all(chunk))
                    .map_err(|error| write_error(subject, &error))
            })
            .await
    }

    /// There is no hash of the content.
    pub(crate) async fn finish(
        &mut self,
        subject: &Subject,
        rest: Vec<Bytes>,
    ) -> Result<Option<String>, UfsError> {
        self.put(subject, rest).await?;
        let file = Arc::clone(&self.file);
        let (temporary, target, mode) = (self.temporary.clone(), self.target.clone(), self.mode);
        let placed = self.store.change(subject, SYNC_TIMEOUT, move |subject| {
            file.sync_all()
                .and_then(|()| put_in_place(&temporary, &target, mode))
                .and_then(|()| sync_folder_of(&target))
                .map_err(|error| write_error(subject, &error))
        });
        placed.await.map(|()| None)
    }

    pub(crate) async fn abort(self, subject: &Subject) -> Result<(), UfsError> {
        let temporary = self.temporary.clone();
        self.store
            .change(
                subject,
                READ_ATTEMPT_TIMEOUT,
                move |subject| match fs::remove_file(&temporary) {
                    Ok(()) => Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    Err(error) => Err(write_error(subject, &error)),
                },
            )
            .await
    }
}

/// What one step of a removal did.
struct Step {
    files: u64,
    /// To be removed first.
    directories: Vec<PathBuf>,
    is_gone: bool,
}

/// Removes the files directly in a directory, and the directory once it is empty; or a file.
fn remove_some(subject: &Subject, path: &Path) -> Result<Step, UfsError> {
    let failed = |error: io::Error| write_error(subject, &error);
    let mut step = Step {
        files: 0,
        directories: Vec::new(),
        is_gone: false,
    };
    if !fs::symlink_metadata(path).map_err(failed)?.is_dir() {
        fs::remove_file(path).map_err(failed)?;
        step.files = 1;
        step.is_gone = true;
        return Ok(step);
    }
    for entry in fs::read_dir(path).map_err(failed)?.take(ENTRIES_A_STEP) {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            step.directories.push(entry.path());
        } else {
            fs::remove_file(entry.path()).map_err(failed)?;
            step.files += 1;
        }
    }
    if step.directories.is_empty() && step.files == 0 {
        fs::remove_dir(path).map_err(failed)?;
        step.is_gone = true;
    }
    Ok(step)
}

fn create_temporary(
    subject: &Subject,
    target: &Path,
    mode: WriteMode,
) -> Result<(File, PathBuf), UfsError> {
    let failed = |error: io::Error| write_error(subject, &error);
    make_folder_of(subject, target)?;
    let existing = fs::metadata(target).ok();
    if existing.as_ref().is_some_and(fs::Metadata::is_dir) {
        return Err(subject.is_directory());
    }
    if existing.is_some() && mode == WriteMode::CreateNew {
        return Err(subject.already_exists());
    }
    let name = format!(
        "{TEMPORARY_PREFIX}{:016x}{TEMPORARY_SUFFIX}",
        rand::random::<u64>()
    );
    let temporary = folder_of(target).join(name);
    let file = File::create_new(&temporary).map_err(failed)?;
    if let Some(existing) = existing
        && let Err(error) = file.set_permissions(existing.permissions())
    {
        // Who may not change the mode may write all the same.
        tracing::debug!(%error, ?target, "the new file does not get the old one's mode");
    }
    Ok((file, temporary))
}

/// Gives `from` the name `to`, in one step.
fn put_in_place(from: &Path, to: &Path, mode: WriteMode) -> io::Result<()> {
    match mode {
        WriteMode::Replace => fs::rename(from, to),
        WriteMode::CreateNew => match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // A file system without this step has hard links, which never replace anything.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(from, to)?;
                fs::remove_file(from)
            }
            Err(error) => Err(error.into()),
        },
    }
}

fn make_folder_of(subject: &Subject, path: &Path) -> Result<(), UfsError> {
    fs::create_dir_all(folder_of(path)).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => subject.error(
            UfsErrorKind::NotDirectory,
            "a file has the name of a directory above it",
            "choose another name, or remove that file",
        ),
        _ => write_error(subject, &error),
    })
}

/// A name is only safe from a crash when the directory that holds it is.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn write_error(subject: &Subject, error: &io::Error) -> UfsError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => subject.already_exists(),
        io::ErrorKind::DirectoryNotEmpty => subject.not_empty(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => subject.error(
            UfsErrorKind::NoSpace,
            error.to_string(),
            "make room on the disk, or raise the quota",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => subject.error(
            UfsErrorKind::PermissionDenied,
            error.to_string(),
            "let the user that this process runs as write there",
        ),
        io::ErrorKind::CrossesDevices => subject
            .unsupported("the two names are on different file systems, which no rename crosses"),
        _ => io_error(subject, error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn uri_of(path: &Path) -> UfsUri {
        UfsUri::parse(&format!("file://{}", path.display())).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_removal_takes_links_and_not_what_they_lead_to() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("kept"), "x").unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        symlink(other.path(), folder.path().join("d/link")).unwrap();
        for number in 0..2 * ENTRIES_A_STEP {
            fs::write(folder.path().join(format!("d/{number}")), "").unwrap();
        }
        let store = LocalStore::new(uri_of(folder.path()));
        let uri = uri_of(&folder.path().join("d"));
        let subject = Subject::new("remove", &uri);
        let removed = store.delete_below(&subject, &uri).await.unwrap();
        assert_eq!(removed, 2 * ENTRIES_A_STEP as u64 + 1);
        assert_eq!(names(folder.path()), [""; 0]);
        assert_eq!(names(other.path()), ["kept"]);
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_keeps_its_mode_and_what_is_being_written_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let store = LocalStore::new(uri_of(folder.path()));
        let (uri, root) = (uri_of(&path), uri_of(folder.path()));
        let subject = Subject::new("write", &uri);
        let mut writer = store
            .writer(&subject, &uri, WriteMode::Replace)
            .await
            .unwrap();
        writer.put(&subject, vec![Bytes::from("ne")]).await.unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        assert_eq!(store.list(&subject, &root).await.unwrap().len(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let rest = vec![Bytes::from("w")];
        writer.finish(&subject, rest).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode_bits(), 0o640);
        assert_eq!(names(folder.path()), ["f"]);
    }

    trait ModeBits {
        fn mode_bits(&self) -> u32;
    }

    impl ModeBits for fs::Metadata {
        fn mode_bits(&self) -> u32 {
            self.permissions().mode() & 0o777
        }
    }
}
