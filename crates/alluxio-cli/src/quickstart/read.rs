//! Reads a whole dataset through a mount and compares every byte's sha256.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use super::data::Expected;

/// Readers at one time, as a training pod's data loader has.
pub(crate) const READERS: usize = 4;
/// Bytes read at once.
const BUFFER_BYTES: usize = 1024 * 1024;

/// What a pass over the dataset read, and how fast.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pass {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Time that the readers spent in open, read and close, divided by their number.
    pub reading: Duration,
}

impl Pass {
    /// MB (10^6 bytes) a second.
    pub(crate) fn megabytes_per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let megabytes = self.bytes as f64 / 1e6;
        megabytes / self.reading.as_secs_f64().max(1e-9)
    }
}

/// Reads all files once, and fails on the first that is not what it must be.
///
/// Hashing is not part of the time, so the figure is of the mount and not of sha256.
pub(crate) fn pass(root: &Path, expected: &[Expected], bar: &ProgressBar) -> Result<Pass> {
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Pass::default());
    let reader = || -> Result<()> {
        let mut own = Pass::default();
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(file) = expected.get(next.fetch_add(1, Ordering::Relaxed)) {
            own.reading += check(root, file, &mut buffer)?;
            own.files += 1;
            own.bytes += file.length;
            bar.inc(file.length);
        }
        if let Ok(mut total) = total.lock() {
            total.files += own.files;
            total.bytes += own.bytes;
            total.reading = total.reading.max(own.reading);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
        readers.into_iter().try_for_each(|reader| {
            reader
                .join()
                .unwrap_or_else(|_| bail!("a reader ended by a bug"))
        })
    })?;
    Ok(total.into_inner().unwrap_or_default())
}

/// Reads one file; gives the time spent in the file system.
fn check(root: &Path, expected: &Expected, buffer: &mut [u8]) -> Result<Duration> {
    let path = root.join(&expected.path);
    let describe = || format!("cannot read {}", path.display());
    let mut hasher = Sha256::new();
    let mut length = 0;
    let started = Instant::now();
    let mut file = File::open(&path).with_context(describe)?;
    let mut reading = started.elapsed();
    loop {
        let started = Instant::now();
        let count = file.read(buffer).with_context(describe)?;
        reading += started.elapsed();
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        length += count as u64;
    }
    let sum: [u8; 32] = hasher.finalize().into();
    if length != expected.length || sum != expected.sha256 {
        bail!(
            "{} differs from its source: {length} of {} bytes, sha256 {} instead of {}",
            path.display(),
            expected.length,
            hex::encode(sum),
            hex::encode(expected.sha256)
        );
    }
    Ok(reading)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::quickstart::data::survey;

    #[test]
    fn a_changed_byte_and_a_missing_byte_are_found() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(root.path().join(name), name.repeat(3_000_000)).unwrap();
        }
        let expected = survey(root.path()).unwrap();
        let read = || pass(root.path(), &expected, &ProgressBar::hidden());
        let whole = read().unwrap();
        assert_eq!((whole.files, whole.bytes), (2, 6_000_000));
        std::fs::write(root.path().join("b"), "c".repeat(3_000_000)).unwrap();
        assert!(read().unwrap_err().to_string().contains("differs"));
        std::fs::write(root.path().join("b"), "b".repeat(2_999_999)).unwrap();
        assert!(
            read()
                .unwrap_err()
                .to_string()
                .contains("2999999 of 3000000")
        );
    }
}
