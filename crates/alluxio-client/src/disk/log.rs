//! The index log: what is in the cache, in the order in which it came to be.
//!
//! A record is written at the place after the last whole one, so the torn end that a killed writer
//! leaves is written over by the next. A log of which most is superseded is written anew beside the
//! old one, brought to the disk, and put in its place by a rename.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::files::Files;
use super::record::{RECORD_BYTES, Record};

/// Takes the place of record 0. Another format is another first line.
const HEADER: &[u8; RECORD_BYTES] = b"alluxio-dataset disk cache, index log, format 1\n";

/// Superseded records are let be up to this number, 3 MiB: rewriting costs more than reading them.
const SPARE_RECORDS: u64 = 65_536;

/// A log is read in pieces of so many records, 768 KiB: as fast as in one, and no more memory at a
/// start than later.
const RECORDS_AT_ONCE: usize = 16_384;

/// The log of a cache's one writer.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    records: u64,
}

/// Reads a log from an offset that an earlier replay ended at, 0 for all of it, and gives its records
/// in the order in which they were written, those that are damaged left out. Returns where the last
/// whole one ends; 0 where this is no log, or none is there.
pub(super) fn replay(path: &Path, from: u64, mut apply: impl FnMut(&Record)) -> io::Result<u64> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(from))?;
    let mut end = from;
    let mut buffer = vec![0; RECORDS_AT_ONCE * RECORD_BYTES];
    // Of a record that was not read to its end.
    let mut torn = 0;
    loop {
        let read = match file.read(&mut buffer[torn..]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (mut whole, rest) = buffer[..torn + read].as_chunks::<RECORD_BYTES>();
        let bytes = whole.len() * RECORD_BYTES;
        torn = rest.len();
        if end == 0
            && let Some((first, others)) = whole.split_first()
        {
            if first != HEADER {
                return Ok(0);
            }
            whole = others;
        }
        for record in whole.iter().filter_map(Record::decode) {
            apply(&record);
        }
        end += bytes as u64;
        buffer.copy_within(bytes..bytes + torn, 0);
    }
    Ok(end)
}

impl Log {
    /// Opens the log to go on where a replay ended.
    pub(super) fn open(files: &dyn Files, path: PathBuf, end: u64) -> io::Result<Self> {
        // Nothing of a log in another format stays behind the new header.
        if end == 0 {
            files.remove(&path)?;
        }
        let file = files.open_to_write(&path)?;
        if end == 0 {
            files.write_at(&file, HEADER, 0)?;
        }
        Ok(Self {
            path,
            file,
            records: (end / RECORD_BYTES as u64).max(1) - 1,
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
    use std::fs;

    use super::super::files::LocalFiles;
    use super::super::record::FileKey;
    use super::*;

    fn records(path: &Path, from: u64) -> (Vec<Record>, u64) {
        let mut records = Vec::new();
        let end = replay(path, from, |record| records.push(*record)).unwrap();
        (records, end)
    }

    fn used(at_s: u64) -> Record {
        let key = FileKey([1; 16]);
        Record::Used { key, at_s }
    }

    fn log_with(path: &Path, records: u64) -> Log {
        let mut log = Log::open(&LocalFiles, path.to_owned(), 0).unwrap();
        for at_s in 0..records {
            log.append(&LocalFiles, &used(at_s)).unwrap();
        }
        log
    }

    #[test]
    fn a_log_is_read_as_it_was_written_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        assert_eq!(records(&path, 0).0, []);
        drop(log_with(&path, 2));
        let (found, end) = records(&path, 0);
        assert_eq!(found, [used(0), used(1)]);
        let mut log = Log::open(&LocalFiles, path.clone(), end).unwrap();
        log.append(&LocalFiles, &used(2)).unwrap();
        assert_eq!(records(&path, end).0, [used(2)]);
        assert_eq!(records(&path, 0).0.len(), 3);
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
        let (found, end) = records(&path, 0);
        assert_eq!(found, [used(1)]);
        let mut log = Log::open(&LocalFiles, path.clone(), end).unwrap();
        log.append(&LocalFiles, &used(9)).unwrap();
        assert_eq!(records(&path, 0).0, [used(1), used(9)]);
    }

    #[test]
    fn a_log_longer_than_one_piece_is_read_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        let live: Vec<_> = (0..2 * RECORDS_AT_ONCE as u64 + 77).map(used).collect();
        log_with(&path, 0).rewrite(&LocalFiles, &live).unwrap();
        let (found, end) = records(&path, 0);
        assert!(found == live);
        assert_eq!(end, path.metadata().unwrap().len());
        assert_eq!(records(&path, end - 48).0, live[live.len() - 1..]);
    }

    #[test]
    fn a_log_of_another_format_is_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        for length in [1, 47, 48, 200] {
            fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(records(&path, 0), (Vec::new(), 0));
        }
    }

    #[test]
    fn rewriting_keeps_what_is_live_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.log");
        let mut log = log_with(&path, 10);
        log.rewrite(&LocalFiles, &[used(7)]).unwrap();
        log.append(&LocalFiles, &used(8)).unwrap();
        assert_eq!(records(&path, 0).0, [used(7), used(8)]);
        assert!(!dir.path().join("index.new").exists());
    }
}
