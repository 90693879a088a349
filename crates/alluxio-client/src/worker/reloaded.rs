//! What is read from files that others renew: certificates, keys, tokens.
//!
//! The files are looked at again when the value is wanted, at most every few seconds, and read only
//! when they have changed. What cannot be used leaves the last good value in place, with a warning:
//! a certificate and its key are two files, and renewing them takes two steps.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often files are looked at. Certificates are renewed days before their end.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The longest file that is read: a bundle of all public authorities has 250 KB.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The longest token: a line of a request's head.
const MAX_TOKEN_BYTES: usize = 4096;

/// A value of some files, the last good one; cheap to clone.
pub struct Reloaded<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> io::Result<T> + Send + Sync>,
    look_every: Duration,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    /// What the files were like when they were read, or found to be of no use.
    seen: Vec<Option<Stamp>>,
    looked: Instant,
}

/// Differs when a file was written or replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the value once; fails when it cannot be used from the start.
    pub fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> io::Result<T> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::looked_at_every(LOOK_EVERY, files, read)
    }

    fn looked_at_every(
        look_every: Duration,
        files: Vec<PathBuf>,
        read: impl Fn() -> io::Result<T> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let state = State {
            seen: stamps(&files),
            value: Arc::new(read()?),
            looked: Instant::now(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                files,
                read: Box::new(read),
                look_every,
                state: Mutex::new(state),
            }),
        })
    }

    /// The value of the files as they are now, or were a few seconds ago.
    pub async fn current(&self) -> Arc<T> {
        {
            let mut state = self.inner.state.lock();
            if state.looked.elapsed() < self.inner.look_every {
                return Arc::clone(&state.value);
            }
            // Others go on with the old value meanwhile.
            state.looked = Instant::now();
        }
        let inner = Arc::clone(&self.inner);
        let looked = tokio::task::spawn_blocking(move || inner.look()).await;
        looked.unwrap_or_else(|_| Arc::clone(&self.inner.state.lock().value))
    }
}

impl<T> Inner<T> {
    fn look(&self) -> Arc<T> {
        let now = stamps(&self.files);
        if self.state.lock().seen == now {
            return Arc::clone(&self.state.lock().value);
        }
        let read = (self.read)();
        let mut state = self.state.lock();
        state.seen = now;
        match read {
            Ok(value) => {
                tracing::info!(files = ?self.files, "files have changed and are used anew");
                state.value = Arc::new(value);
            }
            Err(error) => {
                tracing::warn!(files = ?self.files, %error, "files have changed and cannot be \
                    used; what they held before is used on");
            }
        }
        Arc::clone(&state.value)
    }
}

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

/// Names the files alone: what they hold is secret.
impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloaded").field(&self.inner.files).finish()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |found: Metadata| Stamp {
        modified: (found.mtime(), found.mtime_nsec()),
        bytes: found.len(),
        inode: found.ino(),
    };
    let looked = files.iter().map(|file| std::fs::metadata(file).ok());
    looked.map(|found| found.map(stamp)).collect()
}

/// The bytes of a file; an error names it.
pub fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("{} cannot be read: {error}", file.display()),
        )
    };
    let bytes = std::fs::metadata(file).map_err(named)?.len();
    if bytes > MAX_FILE_BYTES {
        let reason = format!("{bytes} bytes are more than the {MAX_FILE_BYTES} that are read");
        return Err(named(io::Error::other(reason)));
    }
    std::fs::read(file).map_err(named)
}

/// The token in a file, without the end of its line. No message repeats a part of it.
pub fn read_token(file: &Path) -> io::Result<String> {
    let bytes = read_file(file)?;
    let token = bytes.trim_ascii();
    let is_one = !token.is_empty()
        && token.len() <= MAX_TOKEN_BYTES
        && token.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(token) {
        Ok(token) if is_one => Ok(token.to_owned()),
        _ => Err(io::Error::other(format!(
            "{} holds no token: it is one word of visible ASCII, at most {MAX_TOKEN_BYTES} bytes",
            file.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    #[tokio::test]
    async fn a_file_that_changes_is_read_anew_and_a_spoilt_one_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "first\n").unwrap();
        let path = file.clone();
        let read = move || read_token(&path);
        let token = Reloaded::looked_at_every(Duration::ZERO, vec![file.clone()], read).unwrap();
        assert_eq!(*token.current().await, "first");
        std::fs::write(&file, "second").unwrap();
        assert_eq!(*token.current().await, "second");
        std::fs::write(&file, "two words").unwrap();
        assert_eq!(*token.current().await, "second");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(*token.current().await, "second");
        std::fs::write(&file, "again").unwrap();
        assert_eq!(*token.current().await, "again");
        assert!(!format!("{token:?}").contains("again"));
    }

    #[test]
    fn what_is_no_token_is_refused_without_a_word_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for spoilt in ["", " \n", "two words", "b\u{e9}b\u{e9}", &"x".repeat(4097)] {
            std::fs::write(&file, spoilt).unwrap();
            let error = read_token(&file).unwrap_err().to_string();
            assert!(error.contains("holds no token"), "{error}");
            assert!(spoilt.trim().is_empty() || !error.contains(spoilt.trim()));
        }
        let missing = read_token(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none cannot be read"));
    }
}
