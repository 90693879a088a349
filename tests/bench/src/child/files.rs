//! Reads and writes of files by their path: what an application does, on a mount and on the disk alike.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::fs::{Advice, fadvise};

use super::local::STEP_BYTES;
use super::{Taken, Watch};
use crate::figure::median;

const PAGE_BYTES: u64 = 1 << 20;

/// Lets the kernel forget a file's pages.
fn evict(path: &Path) -> Result<()> {
    let file = open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// One file from its beginning to its end, 1 MiB at a time; in halves where there are two readers.
pub(super) fn sequential(path: &Path, is_cold: bool, readers: u64) -> Result<Taken> {
    if is_cold {
        evict(path)?;
    }
    let watch = Watch::start();
    let length = fs::metadata(path)?.len();
    let part = length.div_ceil(readers);
    let read = |reader: u64| -> Result<u64> {
        let file = open(path)?;
        let mut buffer = vec![0; STEP_BYTES];
        let (mut offset, end) = (reader * part, ((reader + 1) * part).min(length));
        while offset < end {
            match file.read_at(&mut buffer, offset)? {
                0 => break,
                count => offset += count as u64,
            }
            black_box(&buffer);
        }
        Ok(offset - reader * part)
    };
    let read = &read;
    let bytes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|reader| scope.spawn(move || read(reader)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Ok(0)))
            .sum::<Result<u64>>()
    })?;
    Ok(watch.stop(bytes, bytes / PAGE_BYTES))
}

/// One file in order, from the bytes of another, until the file system has it safe. What is read comes
/// from the page cache on both sides.
pub(super) fn write(from: &Path, path: &Path) -> Result<Taken> {
    let from = open(from)?;
    let mut buffer = vec![0; STEP_BYTES];
    let mut bytes = 0;
    let watch = Watch::start();
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    loop {
        match from.read_at(&mut buffer, bytes)? {
            0 => break,
            count => {
                file.write_all_at(&buffer[..count], bytes)?;
                bytes += count as u64;
            }
        }
    }
    // A close tells what became of the upload as well, but std's does not hear it.
    file.sync_all()?;
    drop(file);
    Ok(watch.stop(bytes, bytes / PAGE_BYTES))
}

/// Each file of a folder opened, read whole and closed, by several threads.
pub(super) fn folder(folder: &Path, threads: usize, is_cold: bool) -> Result<Taken> {
    let paths = files(folder)?;
    if is_cold {
        paths.iter().try_for_each(|path| evict(path))?;
    }
    let next = AtomicUsize::new(0);
    let read = || -> Result<u64> {
        let mut bytes = 0;
        let mut buffer = vec![0; STEP_BYTES];
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = open(path)?;
            // Each is shorter than the buffer.
            bytes += file.read_at(&mut buffer, 0)? as u64;
            black_box(&buffer);
        }
        Ok(bytes)
    };
    let (read, watch) = (&read, Watch::start());
    let bytes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Ok(0)))
            .sum::<Result<u64>>()
    })?;
    Ok(watch.stop(bytes, paths.len() as u64))
}

/// The first byte of each file of a folder, one after the other.
pub(super) fn first_bytes(folder: &Path) -> Result<Taken> {
    let paths = files(folder)?;
    let watch = Watch::start();
    let mut seconds = Vec::with_capacity(paths.len());
    for path in &paths {
        let begun = Instant::now();
        let file = open(path)?;
        file.read_exact_at(&mut [0], 0)?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    let taken = watch.stop(paths.len() as u64, paths.len() as u64);
    Ok(Taken {
        p50_seconds: median(seconds),
        ..taken
    })
}

/// Every file below a folder, with its attributes.
pub(super) fn find(folder: &Path) -> Result<Taken> {
    let watch = Watch::start();
    let (mut folders, mut found, mut bytes) = (vec![folder.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                found += 1;
                bytes += metadata.len();
            }
        }
    }
    Ok(watch.stop(bytes, found))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}
