//! One file that is being written.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use alluxio_wire::FileStatus;
use bytes::Bytes;

use crate::tree::{TreeError, TreeWriter};

/// What is sent at one time: the part of a multipart upload.
const PIECE_BYTES: u64 = 8 << 20;

/// Characters of a file's name that its copy is called by.
const LONGEST_NAME: usize = 100;

/// The state of a copy, as its name tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// It is being fetched.
    Part,
    /// It is what the store has.
    Clean,
    /// It has changes that the store has not.
    Dirty,
    /// Its file was removed.
    Unlinked,
}

impl Mark {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Part, "part"),
        (Self::Clean, "clean"),
        (Self::Dirty, "dirty"),
        (Self::Unlinked, "unlinked"),
    ];

    fn ending(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(mark, _)| *mark == self)
            .map_or("", |(_, end)| end)
    }
}

/// Where the copy of an inode lies in a state. The name that the file has now is for a person who
/// should find it in `lost`.
fn path(folder: &Path, inode: u64, name: &str, mark: Mark) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().take(LONGEST_NAME).map(plain).collect();
    folder.join(format!("{inode}-{name}.{}", mark.ending()))
}

/// A copy's inode and state by its name.
pub(super) fn parse(path: &Path) -> Option<(u64, Mark)> {
    let (inode, _) = path.file_stem()?.to_str()?.split_once('-')?;
    let inode = inode.parse().ok()?;
    let ending = path.extension()?.to_str()?;
    let (mark, _) = Mark::ALL.iter().find(|(_, of)| *of == ending)?;
    Some((inode, *mark))
}

/// A file that is being written. What all may ask at any time is here; what changes is done by one
/// at a time, with the [`Turn`].
pub(crate) struct Draft<W> {
    inode: u64,
    file: Arc<File>,
    length: AtomicU64,
    modified_ms: AtomicI64,
    /// Counts the bytes of all copies; this one's are given back when it goes.
    used_bytes: Arc<AtomicU64>,
    turn: Arc<tokio::sync::Mutex<Turn<W>>>,
}

/// The right to change a copy.
pub(crate) struct Turn<W> {
    path: PathBuf,
    mark: Mark,
    /// Whether the copy was let go while this turn was waited for: what is done to it is lost.
    is_over: bool,
    /// An upload that has begun while the file is still being written from its beginning to its end.
    stream: Stream<W>,
}

/// How much of a copy is on its way already.
enum Stream<W> {
    /// The file was fetched or was not written in sequence: it is sent as a whole when it is done.
    Not,
    /// So many bytes from its beginning were sent, to the file at a path.
    Sent(u64, Option<(String, W)>),
}

impl<W> Drop for Draft<W> {
    fn drop(&mut self) {
        let length = *self.length.get_mut();
        self.used_bytes.fetch_sub(length, Ordering::AcqRel);
    }
}

impl<W: TreeWriter> Draft<W> {
    pub(super) fn create(
        folder: &Path,
        (inode, name): (u64, &str),
        mark: Mark,
        used_bytes: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let path = path(folder, inode, name, mark);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.mode(0o600).open(&path)?;
        let stream = match mark {
            Mark::Dirty => Stream::Sent(0, None),
            _ => Stream::Not,
        };
        let copy = Self::new(
            inode,
            file,
            used_bytes,
            Turn {
                path,
                mark,
                is_over: false,
                stream,
            },
        );
        copy.touch();
        Ok(copy)
    }

    pub(super) fn reopen(
        path: &Path,
        inode: u64,
        mark: Mark,
        used_bytes: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let metadata = file.metadata()?;
        used_bytes.fetch_add(metadata.len(), Ordering::AcqRel);
        let turn = Turn {
            path: path.to_owned(),
            mark,
            is_over: false,
            stream: Stream::Not,
        };
        let copy = Self::new(inode, file, used_bytes, turn);
        copy.length.store(metadata.len(), Ordering::Release);
        copy.modified_ms
            .store(milliseconds(metadata.modified()?), Ordering::Release);
        Ok(copy)
    }

    fn new(inode: u64, file: File, used_bytes: Arc<AtomicU64>, turn: Turn<W>) -> Self {
        Self {
            inode,
            file: Arc::new(file),
            length: AtomicU64::new(0),
            modified_ms: AtomicI64::new(0),
            used_bytes,
            turn: Arc::new(tokio::sync::Mutex::new(turn)),
        }
    }

    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Bytes at present.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// The last change, in milliseconds of Unix time.
    pub(crate) fn modified_ms(&self) -> i64 {
        self.modified_ms.load(Ordering::Acquire)
    }

    /// Waits for the right to change it.
    pub(crate) async fn turn(&self) -> tokio::sync::OwnedMutexGuard<Turn<W>> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Bytes from a place on, up to the end of the file.
    pub(crate) fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let rest = self.length().saturating_sub(offset);
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(length);
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self
                .file
                .read_at(&mut bytes[filled..], offset + filled as u64)?
            {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// How many bytes more it will have with so many from a place on.
    pub(crate) fn growth(&self, offset: u64, bytes: u64) -> u64 {
        offset.saturating_add(bytes).saturating_sub(self.length())
    }

    /// Writes, with room reserved for the growth.
    pub(crate) fn write(&self, turn: &mut Turn<W>, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset > self.length() {
            // A hole, which may be filled later: not in sequence.
            turn.give_up_stream();
        }
        turn.change(offset)?;
        self.file.write_all_at(bytes, offset)?;
        let end = offset + bytes.len() as u64;
        self.length.fetch_max(end, Ordering::AcqRel);
        self.touch();
        Ok(())
    }

    /// Gives a copy that is to be fetched its length.
    pub(super) fn lengthen(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    /// Fills a copy that is being fetched.
    pub(crate) fn fill(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Cuts it, or lengthens it by zeros for which room is reserved.
    pub(crate) fn set_length(&self, turn: &mut Turn<W>, length: u64) -> io::Result<()> {
        let old = self.length();
        turn.change(length.min(old))?;
        self.file.set_len(length)?;
        self.length.store(length, Ordering::Release);
        self.used_bytes
            .fetch_sub(old.saturating_sub(length), Ordering::AcqRel);
        self.touch();
        Ok(())
    }

    /// Sends what is whole of a file that is written in sequence.
    pub(crate) async fn send_ahead<F>(
        &self,
        turn: &mut Turn<W>,
        path: &str,
        create: impl FnOnce() -> F,
    ) -> Result<(), TreeError>
    where
        F: Future<Output = Result<W, TreeError>>,
    {
        let Stream::Sent(sent, writer) = &mut turn.stream else {
            return Ok(());
        };
        if self.length() - *sent < PIECE_BYTES {
            return Ok(());
        }
        if writer.is_none() {
            *writer = Some((path.to_owned(), create().await?));
        }
        if let Some((_, writer)) = writer {
            while self.length() - *sent >= PIECE_BYTES {
                writer.write(self.piece(*sent)?).await?;
                *sent += PIECE_BYTES;
            }
        }
        Ok(())
    }

    /// Sends all that was not sent, and makes the file visible. It stays marked as changed until the
    /// caller has noted what it is now; after a failure the next attempt begins anew.
    pub(crate) async fn send<F>(
        &self,
        turn: &mut Turn<W>,
        path: &str,
        create: impl FnOnce(u64) -> F,
    ) -> Result<Arc<FileStatus>, TreeError>
    where
        F: Future<Output = Result<W, TreeError>>,
    {
        let length = self.length();
        let (mut sent, mut writer) = match std::mem::replace(&mut turn.stream, Stream::Not) {
            // Unless the file has had another name meanwhile.
            Stream::Sent(sent, Some((to, writer))) if to == path => (sent, writer),
            _ => (0, create(length).await?),
        };
        while sent < length {
            let piece = self.piece(sent)?;
            sent += piece.len() as u64;
            writer.write(piece).await?;
        }
        writer.finish().await
    }

    fn piece(&self, offset: u64) -> io::Result<Bytes> {
        let piece = self.read(offset, usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX))?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(piece.into())
    }

    /// Takes the store's time for what it now has, which is what `stat` tells once the copy is gone.
    pub(crate) fn adopt_time(&self, status: &FileStatus) {
        self.modified_ms
            .store(status.modified_ms, Ordering::Release);
    }

    fn touch(&self) {
        self.modified_ms
            .store(milliseconds(SystemTime::now()), Ordering::Release);
    }
}

impl<W> Turn<W> {
    /// Its state.
    pub(crate) fn state(&self) -> Mark {
        self.mark
    }

    /// Whether the copy was let go meanwhile.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Says so to those who wait for a turn.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it another state, which a successor of this daemon will find.
    pub(crate) fn mark(&mut self, mark: Mark) -> io::Result<()> {
        if mark == self.mark {
            return Ok(());
        }
        let path = self.path.with_extension(mark.ending());
        fs::rename(&self.path, &path)?;
        (self.path, self.mark) = (path, mark);
        Ok(())
    }

    /// Forgets an upload that had begun.
    pub(crate) fn give_up_stream(&mut self) {
        self.stream = Stream::Not;
    }

    /// Says, before it happens, that bytes from a place on will be others.
    fn change(&mut self, offset: u64) -> io::Result<()> {
        match &self.stream {
            // What was sent stays as it is.
            Stream::Sent(sent, _) if offset >= *sent => {}
            // Dropped, the upload that has begun comes to nothing.
            _ => self.stream = Stream::Not,
        }
        if self.mark == Mark::Clean {
            self.mark(Mark::Dirty)?;
        }
        Ok(())
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let milliseconds = since.map_or(0, |since| since.as_millis());
    i64::try_from(milliseconds).unwrap_or(i64::MAX)
}
