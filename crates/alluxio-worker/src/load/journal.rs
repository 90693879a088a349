//! The loads of a coordinator on its disk, so that they survive it.
//!
//! A file per job, `loads/<id>.json` in the page store's directory: a line with the checksum of
//! the rest, then the record. It is always replaced as a whole (written beside, synced, renamed),
//! so at whatever moment the machine dies there is the old record or the new one. A record that
//! does not match its checksum is put aside with a warning and never believed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use alluxio_wire::{LoadFailure, LoadOptions, LoadState, UfsUri};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::track::{Cursor, Sums};

/// The version of the record's form. A record of another one is put aside: its load is submitted
/// again and passes over what is cached.
const FORMAT: u32 = 1;

/// The largest record that is read: the failures that are kept, each with the longest URI and
/// reason, are some 5 MB.
const MAX_RECORD_BYTES: u64 = 16 * 1024 * 1024;

/// One job as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    format: u32,
    pub(super) id: String,
    pub(super) uri: UfsUri,
    pub(super) options: LoadOptions,
    pub(super) state: LoadState,
    pub(super) reason: Option<String>,
    /// When it was submitted, in milliseconds since 1970.
    pub(super) submitted_ms: u64,
    /// When it ended.
    pub(super) ended_ms: Option<u64>,
    /// How long it was at work, over all restarts.
    pub(super) elapsed_ms: u64,
    pub(super) cursor: Cursor,
    pub(super) sums: Sums,
    /// Whether the listing had ended, so that the totals are final.
    pub(super) listing_done: bool,
    pub(super) failures: Vec<LoadFailure>,
}

/// The directory of the records.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    directory: PathBuf,
}

impl Record {
    /// The record of a job that has just been submitted.
    pub(super) fn new(id: String, uri: UfsUri, options: LoadOptions, submitted_ms: u64) -> Self {
        Self {
            format: FORMAT,
            id,
            uri,
            options,
            state: LoadState::Running,
            reason: None,
            submitted_ms,
            ended_ms: None,
            elapsed_ms: 0,
            cursor: Cursor::default(),
            sums: Sums::default(),
            listing_done: false,
            failures: Vec::new(),
        }
    }
}

impl Journal {
    /// The journal below a page store's directory.
    pub(super) fn below(directory: &Path) -> Self {
        Self {
            directory: directory.join("loads"),
        }
    }

    /// Replaces the record of its job.
    pub(super) async fn write(&self, record: &Record) -> io::Result<()> {
        let bytes = encoded(record)?;
        let (directory, name) = (self.directory.clone(), record.id.clone());
        blocking(move || write_now(&directory, &name, &bytes)).await
    }

    /// Forgets a job.
    pub(super) async fn remove(&self, id: &str) -> io::Result<()> {
        let path = self.directory.join(format!("{id}.json"));
        blocking(move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    /// All records, oldest first.
    pub(super) async fn read_all(&self) -> io::Result<Vec<Record>> {
        let directory = self.directory.clone();
        blocking(move || read_all_now(&directory)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn encoded(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record)?;
    let mut bytes = format!("{:016x}\n", xxh3_64(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// The record, where the bytes are a whole one.
fn decoded(bytes: &[u8]) -> Option<Record> {
    let (line, json) = bytes.split_at_checked(17)?;
    let sum = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    if format!("{:016x}", xxh3_64(json)) != sum {
        return None;
    }
    let record: Record = serde_json::from_slice(json).ok()?;
    (record.format == FORMAT).then_some(record)
}

fn write_now(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let beside = directory.join(format!("{name}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(format!("{name}.json")))?;
    File::open(directory)?.sync_all()
}

fn read_all_now(directory: &Path) -> io::Result<Vec<Record>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => records.extend(read_now(&path)?),
            // Half-written at a crash; its predecessor stands.
            Some("new") => fs::remove_file(&path)?,
            _ => {}
        }
    }
    records.sort_by_key(|record| record.submitted_ms);
    Ok(records)
}

fn read_now(path: &Path) -> io::Result<Option<Record>> {
    let is_readable = fs::metadata(path)?.len() <= MAX_RECORD_BYTES;
    let record = if is_readable {
        decoded(&fs::read(path)?)
    } else {
        None
    };
    if record.is_none() {
        let aside = path.with_extension("unreadable");
        tracing::warn!(
            path = %aside.display(),
            "the record of a load is not readable and was put aside: submit the load again"
        );
        fs::rename(path, aside)?;
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn record(done: u64) -> Record {
        let uri = UfsUri::parse("s3://b/p").unwrap();
        let mut record = Record::new("job".to_owned(), uri, LoadOptions::default(), 7);
        record.sums.files_done = done;
        record
    }

    #[tokio::test]
    async fn records_are_read_back_oldest_first_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::below(folder.path());
        assert_eq!(journal.read_all().await.unwrap(), []);
        let mut later = record(2);
        later.id = "a".to_owned();
        later.submitted_ms = 9;
        journal.write(&later).await.unwrap();
        journal.write(&record(1)).await.unwrap();
        assert_eq!(
            journal.read_all().await.unwrap(),
            [record(1), later.clone()]
        );
        journal.remove("job").await.unwrap();
        journal.remove("job").await.unwrap();
        assert_eq!(journal.read_all().await.unwrap(), [later]);
    }

    /// What the disk may hold when the machine dies within the second write: the first record and
    /// any part of the second beside it, or the second one alone.
    #[tokio::test]
    async fn a_crash_at_any_byte_of_a_write_leaves_the_old_record_or_the_new_one() {
        let bytes = encoded(&record(2)).unwrap();
        for written in 0..=bytes.len() {
            let folder = tempfile::tempdir().unwrap();
            let journal = Journal::below(folder.path());
            journal.write(&record(1)).await.unwrap();
            let beside = journal.directory.join("job.new");
            fs::write(&beside, &bytes[..written]).unwrap();
            assert_eq!(journal.read_all().await.unwrap(), [record(1)]);
            assert!(!beside.exists());
            // It goes on from there.
            journal.write(&record(2)).await.unwrap();
            assert_eq!(journal.read_all().await.unwrap(), [record(2)]);
        }
    }

    #[tokio::test]
    async fn a_record_that_is_cut_is_put_aside_and_not_believed() {
        let bytes = encoded(&record(1)).unwrap();
        for kept in 0..bytes.len() {
            assert_eq!(decoded(&bytes[..kept]), None);
        }
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::below(folder.path());
        journal.write(&record(1)).await.unwrap();
        let path = journal.directory.join("job.json");
        fs::write(&path, &bytes[..40]).unwrap();
        assert_eq!(journal.read_all().await.unwrap(), []);
        assert!(path.with_extension("unreadable").exists() && !path.exists());
    }

    proptest! {
        #[test]
        fn a_spoilt_byte_is_found(at in 0_usize..4096, by in 1_u8..) {
            let mut bytes = encoded(&record(3)).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= by;
            prop_assert_eq!(decoded(&bytes), None);
        }
    }
}
