//! The index log: what is in the cache, in the order in which it came to be.
//!
//! A record is written at the place after the last whole one, so the torn end that a killed writer
//! leaves is written over by the next. A log of which most is superseded is written anew beside the
//! old one, brought to the disk, and put in its place by a rename.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::record::{RECORD_BYTES, Record};

/// Takes the place of record 0. Another format is another first line.
const HEADER: &[u8; RECORD_BYTES] = b"alluxio-dataset disk cache, index log, format 1\n";

/// Superseded records are let be up to this number, 3 MiB: rewriting costs more than reading them.
const SPARE_RECORDS: u64 = 65_536;

/// The log of a cache's one writer.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    records: u64,
}

/// What a log held.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// In the order in which they were written.
    pub(super) records: Vec<Record>,
    /// Bytes of the log up to the end of the last whole record.
    pub(super) end: u64,
    /// Records were there that could not be read, so data files may be there that none names.
    pub(super) is_damaged: bool,
}

/// Reads a log from an offset that an earlier replay ended at, 0 for all of it. A log that is not
/// there is empty.
pub(super) fn replay(path: &Path, from: u64) -> io::Result<Replay> {
    let bytes = match read_from(path, from) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Replay::default()),
        Err(error) => return Err(error),
    };
    let (whole, _torn) = bytes.as_chunks::<RECORD_BYTES>();
    let mut rest = whole;
    if from == 0 {
        match whole.split_first() {
            Some((first, others)) if first == HEADER => rest = others,
            _ => {
                return Ok(Replay {
                    is_damaged: !bytes.is_empty(),
                    ..Replay::default()
                });
            }
        }
    }
    let records: Vec<Record> = rest.iter().filter_map(Record::decode).collect();
    Ok(Replay {
        is_damaged: records.len() < rest.len(),
        end: from + (whole.len() * RECORD_BYTES) as u64,
        records,
    })
}

fn read_from(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    if from == 0 {
        return fs::read(path);
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Log {
    /// Opens the log to go on after `replay`.
    pub(super) fn open(files: &dyn Files, path: PathBuf, replay: &Replay) -> io::Result<Self> {
        // Nothing of a log in another format stays behind the new header.
        if replay.end == 0 {
            files.remove(&path)?;
        }
        let file = files.open_to_write(&path)?;
        if replay.end == 0 {
            files.write_at(&file, HEADER, 0)?;
        }
        Ok(Self {
            path,
            file,
            records: (replay.end / RECORD_BYTES as u64).max(1) - 1,
        })
    }

    /// Adds a record. After an error the log is as before.
    pub(super) fn append(&mut self, files: &dyn Files, record: &Record) -> io::Result<()> {
        let place = (self.records + 1) * RECORD_BYTES as u64;
        files.write_at(&self.file, &record.encode(), place)?;
        self.records += 1;
        Ok(())
    }

    /// Whether more of the log is superseded than it is worth.
    pub(super) fn is_worn(&self, live_records: u64) -> bool {
        self.records > 2 * live_records + SPARE_RECORDS
    }

    /// Writes the log anew with nothing but `live`. After an error the old one goes on.
    pub(super) fn rewrite(&mut self, files: &dyn Files, live: &[Record]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        files.remove(&beside)?;
        let file = files.open_to_write(&beside)?;
        let mut bytes = Vec::with_capacity((live.len() + 1) * RECORD_BYTES);
        bytes.extend_from_slice(HEADER);
        for record in live {
            bytes.extend_from_slice(&record.encode());
        }
        files.write_at(&file, &bytes, 0)?;
        files.sync(&file)?;
        files.rename(&beside, &self.path)?;
        self.file = file;
        self.records = live.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::LocalFiles;
    use super::super::record::FileKey;
    use super::*;

    fn used(at_s: u64) -> Record {
        let key = FileKey([1; 16]);
        Record::Used { key, at_s }
    }

    fn log_with(path: &Path, records: u64) -> Log {
        let mut log = Log::open(&LocalFiles, path.to_owned(), &Replay::default()).unwrap();
        for at_s in 0..records {
            log.append(&LocalFiles, &used(at_s)).unwrap();
        }
        log
    }

    #[test]
    fn a_log_is_read_as_it_was_written_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        assert_eq!(replay(&path, 0).unwrap().records, []);
        drop(log_with(&path, 2));
        let first = replay(&path, 0).unwrap();
        assert_eq!(first.records, [used(0), used(1)]);
        let mut log = Log::open(&LocalFiles, path.clone(), &first).unwrap();
        log.append(&LocalFiles, &used(2)).unwrap();
        assert_eq!(replay(&path, first.end).unwrap().records, [used(2)]);
        assert_eq!(replay(&path, 0).unwrap().records.len(), 3);
    }

    #[test]
    fn a_torn_end_is_written_over_and_a_damaged_record_stepped_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        drop(log_with(&path, 3));
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        bytes[RECORD_BYTES + 3] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let torn = replay(&path, 0).unwrap();
        assert_eq!(torn.records, [used(1)]);
        assert!(torn.is_damaged);
        let mut log = Log::open(&LocalFiles, path.clone(), &torn).unwrap();
        log.append(&LocalFiles, &used(9)).unwrap();
        assert_eq!(replay(&path, 0).unwrap().records, [used(1), used(9)]);
    }

    #[test]
    fn a_log_of_another_format_is_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        fs::write(&path, [b'x'; 200]).unwrap();
        let other = replay(&path, 0).unwrap();
        assert!(other.records.is_empty() && other.is_damaged && other.end == 0);
    }

    #[test]
    fn rewriting_keeps_what_is_live_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        let mut log = log_with(&path, 10);
        log.rewrite(&LocalFiles, &[used(7)]).unwrap();
        log.append(&LocalFiles, &used(8)).unwrap();
        assert_eq!(replay(&path, 0).unwrap().records, [used(7), used(8)]);
        assert!(!dir.path().join("index.new").exists());
    }
}
