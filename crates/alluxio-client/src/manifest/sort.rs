//! Sorting what does not fit in memory: sorted runs in files, merged when they are read.
//!
//! A record is a key and a payload. Runs lie beside the manifest that is being made, so that they
//! need no other disk, and have no name: they are gone when the process is, however it ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Records that are sorted in memory at one time: some 250,000 files. A million files then make
/// four runs, and a hundred million 400.
const RUN_BYTES: usize = 32 * 1024 * 1024;
/// What is read of a run at one time.
const READ_BYTES: usize = 64 * 1024;
/// Keeps the names of this process' runs apart for the moment in which they have one.
static RUNS_MADE: AtomicU64 = AtomicU64::new(0);

/// Takes records in any order and gives them back sorted by their keys.
pub(super) struct Sorter {
    directory: PathBuf,
    run_bytes: usize,
    /// Records after each other, each with its two lengths before it.
    arena: Vec<u8>,
    starts: Vec<usize>,
    runs: Vec<File>,
}

/// A key with its payload.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// A key, the run that it is from, and its payload.
type Head = (Vec<u8>, usize, Vec<u8>);

/// The records of all runs, sorted by key; equal keys in the order in which they were given.
pub(super) struct Sorted {
    runs: Vec<BufReader<File>>,
    /// The next record of each run that has one, with the number of the run.
    heads: BinaryHeap<Reverse<Head>>,
}

impl Sorter {
    /// Puts its runs into `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        Self::with_run_bytes(directory, RUN_BYTES)
    }

    fn with_run_bytes(directory: &Path, run_bytes: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            run_bytes,
            arena: Vec::new(),
            starts: Vec::new(),
            runs: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, key: &[u8], payload: &[u8]) -> io::Result<()> {
        self.starts.push(self.arena.len());
        for part in [key, payload] {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            self.arena.extend(length.to_le_bytes());
        }
        self.arena.extend(key);
        self.arena.extend(payload);
        if self.arena.len() >= self.run_bytes {
            self.spill()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Sorted> {
        self.spill()?;
        let mut sorted = Sorted {
            runs: Vec::new(),
            heads: BinaryHeap::new(),
        };
        for mut run in self.runs {
            run.seek(SeekFrom::Start(0))?;
            sorted.runs.push(BufReader::with_capacity(READ_BYTES, run));
            sorted.advance(sorted.runs.len() - 1)?;
        }
        Ok(sorted)
    }

    fn spill(&mut self) -> io::Result<()> {
        let arena = &self.arena;
        self.starts.sort_by_key(|start| key_at(arena, *start));
        let mut run = BufWriter::new(self.nameless_file()?);
        for start in &self.starts {
            let (key, payload) = lengths_at(arena, *start);
            run.write_all(&arena[*start..*start + 8 + key + payload])?;
        }
        self.runs.push(run.into_inner()?);
        self.arena.clear();
        self.starts.clear();
        Ok(())
    }

    fn nameless_file(&self) -> io::Result<File> {
        let number = RUNS_MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!(".manifest-run-{}-{number}", std::process::id());
        let path = self.directory.join(name);
        // One that was left by a process of the same number that died right here.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }
}

impl Sorted {
    /// The record with the smallest key of those that are left.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let Some(Reverse((key, run, payload))) = self.heads.pop() else {
            return Ok(None);
        };
        self.advance(run)?;
        Ok(Some((key, payload)))
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        let reader = &mut self.runs[run];
        let mut lengths = [0; 8];
        match reader.read_exact(&mut lengths) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let (key, payload) = lengths_at(&lengths, 0);
        let mut record = (vec![0; key], vec![0; payload]);
        reader.read_exact(&mut record.0)?;
        reader.read_exact(&mut record.1)?;
        self.heads.push(Reverse((record.0, run, record.1)));
        Ok(())
    }
}

fn lengths_at(arena: &[u8], start: usize) -> (usize, usize) {
    let length = |at: usize| {
        let bytes = arena.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes) as usize
    };
    (length(start), length(start + 4))
}

fn key_at(arena: &[u8], start: usize) -> &[u8] {
    let (key, _) = lengths_at(arena, start);
    &arena[start + 8..start + 8 + key]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn records_come_back_sorted_and_stable(
            keys in prop::collection::vec("[a-c]{0,3}", 0..80),
            run_bytes in 1..400_usize,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut sorter = Sorter::with_run_bytes(directory.path(), run_bytes);
            for (i, key) in keys.iter().enumerate() {
                sorter.push(key.as_bytes(), &[u8::try_from(i).unwrap()]).unwrap();
            }
            prop_assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
            let mut sorted = sorter.finish().unwrap();
            let mut expected: Vec<_> = keys.iter().enumerate().collect();
            expected.sort_by_key(|(_, key)| *key);
            for (i, key) in expected {
                let (found, payload) = sorted.next().unwrap().unwrap();
                prop_assert_eq!((found.as_slice(), payload[0] as usize), (key.as_bytes(), i));
            }
            prop_assert!(sorted.next().unwrap().is_none());
        }
    }
}
