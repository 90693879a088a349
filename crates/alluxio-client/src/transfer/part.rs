//! A file on its way to the local disk: beside its place, under a name that says so.
//!
//! ```text
//! .NAME.alluxio-part      the bytes so far, from the beginning
//! .NAME.alluxio-part.of   of which file and version they are; of large files alone
//! ```
//!
//! It gets its name only when it is whole, in one step and after it has reached the disk. What a
//! stopped download left is taken over by the next one of the same version, and written over by any
//! other. A lock keeps two downloads apart; it goes with the process.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

use super::etag::{ETag, Verdict};

/// Files up to this length are fetched in one or two requests: there is nothing to go on with.
const RESUMED_FROM_BYTES: u64 = 8 * 1024 * 1024;
/// The longest name that Linux' file systems take.
const MAX_NAME_BYTES: usize = 255;
/// A part that was renamed by another download while this one waited is opened again, this often.
const OPEN_ATTEMPTS: usize = 8;

/// The bytes of a download that is not done.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
    written_bytes: u64,
}

/// Why a part cannot be used.
#[derive(Debug)]
pub(super) enum PartError {
    /// Another download of the same name is under way.
    Busy,
    /// A file has the name already.
    Exists,
    /// The disk.
    Io(io::Error),
}

impl Part {
    /// Opens the part of a download; what is here of the same `identity` is taken over.
    pub(super) fn open(target: &Path, identity: &str, length: u64) -> Result<Self, PartError> {
        let directory = directory_of(target);
        std::fs::create_dir_all(directory)?;
        let path = directory.join(part_name(target.file_name().unwrap_or_default()));
        let file = open_locked(&path)?;
        let mut part = Self {
            file,
            path,
            target: target.to_owned(),
            written_bytes: 0,
        };
        part.take_over(identity, length)?;
        Ok(part)
    }

    /// How many bytes are here.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Adds bytes.
    pub(super) fn write(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for chunk in chunks {
            self.file.write_all(chunk)?;
            self.written_bytes += chunk.len() as u64;
        }
        Ok(())
    }

    /// Compares what lies on the disk with the hash that the store tells.
    pub(super) fn compare(&self, etag: &ETag) -> io::Result<Verdict> {
        etag.compare(&self.file, self.written_bytes)
    }

    /// Another handle of the bytes.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the whole file its name and the time of its source.
    pub(super) fn finish(self, modified_ms: i64, may_replace: bool) -> Result<(), PartError> {
        // An object store has no time for some objects.
        if let Ok(ms) = u64::try_from(modified_ms)
            && ms > 0
        {
            let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
            self.file.set_modified(modified)?;
        }
        self.file.sync_all()?;
        rename(&self.path, &self.target, may_replace)?;
        remove_if_there(&identity_path(&self.path))?;
        File::open(directory_of(&self.target))?.sync_all()?;
        Ok(())
    }

    /// Throws the bytes away: they are not what they should be.
    pub(super) fn discard(self) -> io::Result<()> {
        remove_if_there(&self.path)?;
        remove_if_there(&identity_path(&self.path))
    }

    fn take_over(&mut self, identity: &str, length: u64) -> io::Result<()> {
        let known_as = identity_path(&self.path);
        let here = self.file.metadata()?.len();
        let is_large = length > RESUMED_FROM_BYTES;
        let is_same = is_large && std::fs::read_to_string(&known_as).is_ok_and(|it| it == identity);
        if is_same && here <= length {
            self.written_bytes = self.file.seek(SeekFrom::End(0))?;
            return Ok(());
        }
        // In this order: bytes are never here under the identity of others.
        remove_if_there(&known_as)?;
        self.file.set_len(0)?;
        if is_large {
            std::fs::write(&known_as, identity)?;
        }
        Ok(())
    }
}

impl From<io::Error> for PartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens and locks the file that has the name now: the one that had it may have been given its
/// final name while its lock was waited for.
fn open_locked(path: &Path) -> Result<File, PartError> {
    for _ in 0..OPEN_ATTEMPTS {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PartError::Busy),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let opened = file.metadata()?;
        let is_named = std::fs::symlink_metadata(path)
            .is_ok_and(|it| (it.dev(), it.ino()) == (opened.dev(), opened.ino()));
        if is_named {
            return Ok(file);
        }
    }
    Err(PartError::Busy)
}

fn rename(from: &Path, to: &Path, may_replace: bool) -> Result<(), PartError> {
    if may_replace {
        return Ok(std::fs::rename(from, to)?);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(PartError::Exists),
        // Some network file systems have no such step.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_ok() => Err(PartError::Exists),
        Err(Errno::INVAL | Errno::NOSYS) => Ok(std::fs::rename(from, to)?),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn part_name(name: &OsStr) -> OsString {
    let around = |middle: &OsStr| {
        let mut part = OsString::from(".");
        part.push(middle);
        part.push(".alluxio-part");
        part
    };
    let part = around(name);
    if part.len() + ".of".len() <= MAX_NAME_BYTES {
        return part;
    }
    let hash = xxh3_64(name.as_encoded_bytes());
    around(OsStr::new(&format!("{hash:016x}")))
}

fn identity_path(part: &Path) -> PathBuf {
    let mut path = part.as_os_str().to_owned();
    path.push(".of");
    path.into()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    const LARGE: u64 = RESUMED_FROM_BYTES + 1;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_part_is_taken_over_by_the_same_version_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("f");
        let open = |identity, length| Part::open(&target, identity, length).unwrap();
        let mut part = open("v1", LARGE);
        part.write(&["abc".into()]).unwrap();
        drop(part);
        assert_eq!(open("v1", LARGE).written_bytes(), 3);
        assert_eq!(open("v2", LARGE).written_bytes(), 0);
        let mut small = open("v2", 3);
        small.write(&["abc".into()]).unwrap();
        drop(small);
        assert_eq!(open("v2", 3).written_bytes(), 0, "not of a small file");
        assert_eq!(names(folder.path()), [".f.alluxio-part"]);
    }

    #[test]
    fn a_file_appears_whole_with_the_time_of_its_source_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("d/f");
        let mut part = Part::open(&target, "v1", LARGE).unwrap();
        part.write(&["ab".into(), "c".into()]).unwrap();
        assert!(!target.exists());
        part.finish(1_000_000_000_123, false).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"abc");
        let modified = target.metadata().unwrap().modified().unwrap();
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 1_000_000_000);
        assert_eq!(names(&folder.path().join("d")), ["f"]);
        let again = Part::open(&target, "v2", 1).unwrap();
        assert!(matches!(again.finish(0, false), Err(PartError::Exists)));
        assert_eq!(std::fs::read(&target).unwrap(), b"abc");
        Part::open(&target, "v2", 1)
            .unwrap()
            .finish(0, true)
            .unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"");
    }

    #[test]
    fn two_downloads_of_one_name_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("f");
        let first = Part::open(&target, "v1", LARGE).unwrap();
        let second = Part::open(&target, "v1", LARGE);
        assert!(matches!(second, Err(PartError::Busy)));
        first.discard().unwrap();
        assert_eq!(names(folder.path()), [""; 0]);
        Part::open(&target, "v1", LARGE).unwrap();
    }

    #[test]
    fn a_long_name_has_a_part_too() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("é".repeat(127));
        Part::open(&target, "v1", LARGE)
            .unwrap()
            .finish(0, false)
            .unwrap();
        assert!(target.exists());
    }
}
