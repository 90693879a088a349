//! Changes: made to a copy first (see `staging.rs`), and in the store when a file is closed or
//! synchronised, or at once where a name is all that changes.
//!
//! - A file appears in the store whole, by its close (FLUSH) or fsync; their answer is the store's.
//! - A name is changed in the store before the application hears of it (`names.rs`).
//! - A request that a predecessor died with may have been done: what is found done is done. One that
//!   it may have answered is not done again (see `journal.rs`).
//!
//! The mount's owner and modes are all there is, so chmod and chown are heard and have no effect.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use alluxio_wire::{FileKind, FileStatus};
use tokio::sync::OwnedMutexGuard;

use super::{FileSystem, Origin, Reply, is_entry, join, report};
use crate::errno::Errno;
use crate::inodes::Fingerprint;
use crate::protocol::{self, Attributes, Change, EntryKind, OpenFlags, Range, Size};
use crate::staging::{Draft, Mark, Staging, Turn};
use crate::tree::{Tree, TreeFile, TreeWriter};

/// The upper bits of handles that were opened for writing; no version's fingerprint is known for them.
const WRITING: u64 = 0xffff_ffff_ffff_0000;

/// The upper bits of handles that were opened for reading while somebody writes.
pub(super) const READING_A_COPY: u64 = 0xffff_ffff_fffe_0000;

/// Bytes of a file that are fetched at one time before it is changed.
const FETCH_BYTES: u32 = 4 << 20;

/// What a change needs of what the store has.
#[derive(Clone, Copy)]
enum Need {
    /// All of it.
    Content,
    /// Nothing will be left of it.
    Nothing,
}

/// What an open for writing says: closing it must be told, and the kernel's pages are of what was
/// written.
const FLAGS: OpenFlags = OpenFlags {
    keep_cache: true,
    flush: true,
    backing_id: None,
};

/// Whether a handle was given by an open for writing.
pub(super) fn is_for_writing(handle: u64) -> bool {
    handle & WRITING == WRITING
}

impl<T: Tree> FileSystem<T> {
    /// Does what changes the tree.
    pub(super) async fn change(
        &self,
        staging: &Staging<T::Writer>,
        inode: u64,
        change: Change,
        origin: Origin,
    ) -> Result<Reply, Errno> {
        match change {
            Change::Create { name, flags } => {
                self.create(staging, inode, &name, flags, origin).await
            }
            Change::Write { offset, bytes, .. } => self.write(staging, inode, offset, &bytes).await,
            Change::Setattr { size } => self.set_attributes(staging, inode, size).await,
            Change::Mkdir { name } => self.make_directory(inode, &name, origin).await,
            Change::Unlink { name } => self.unlink(staging, inode, &name, origin).await,
            Change::Rmdir { name } => self.remove_directory(staging, inode, &name).await,
            Change::Rename {
                name,
                new_parent,
                new_name,
                flags,
            } => {
                let from = (inode, checked(&name)?);
                let to = (new_parent, checked(&new_name)?);
                self.rename(staging, from, to, flags, origin).await
            }
            Change::MakeSpecial => Err(libc::EPERM),
            Change::SetAttribute => Err(libc::EOPNOTSUPP),
            Change::Other => Err(libc::ENOSYS),
        }
    }

    /// The attributes of a file that is being written.
    pub(super) fn staged(&self, inode: u64) -> Option<Attributes> {
        let copy = self.staging.as_ref()?.get(inode)?;
        Some(self.copy_attributes(&copy))
    }

    /// The same by its name in a directory.
    pub(super) fn staged_at(&self, parent: u64, name: &str) -> Option<Attributes> {
        let copy = self.staging.as_ref()?.at(parent, name)?;
        Some(self.copy_attributes(&copy))
    }

    fn copy_attributes(&self, copy: &Draft<T::Writer>) -> Attributes {
        Attributes {
            inode: copy.inode(),
            kind: EntryKind::File,
            length_bytes: copy.length(),
            modified_ms: copy.modified_ms(),
            mode: self.options.shown_mode(self.options.file_mode),
            uid: self.options.uid,
            gid: self.options.gid,
            is_being_written: true,
        }
    }

    /// Bytes of a file that is being written.
    pub(super) fn read_staged(&self, inode: u64, range: Range) -> Result<Option<Vec<u8>>, Errno> {
        let Some(copy) = self.staging.as_ref().and_then(|s| s.get(inode)) else {
            return Ok(None);
        };
        let bytes = copy.read(range.offset, range.size as usize);
        bytes.map(Some).map_err(|error| local(&error))
    }

    /// A listing with the files that are being written, whose sizes are not the store's.
    pub(super) fn with_staged(
        &self,
        inode: u64,
        listing: Arc<Vec<FileStatus>>,
    ) -> Arc<Vec<FileStatus>> {
        let staged = self.staging.as_ref().map(|s| s.below(inode));
        let staged = staged.unwrap_or_default();
        if staged.is_empty() {
            return listing;
        }
        let mut merged = (*listing).clone();
        for (name, copy) in staged {
            let place = merged.binary_search_by(|status| status.name.as_str().cmp(&name));
            if let Err(place) = place {
                let status = FileStatus {
                    kind: FileKind::File,
                    name: name.to_string(),
                    path: String::new(),
                    ufs_uri: String::new(),
                    modified_ms: copy.modified_ms(),
                    length: copy.length(),
                    content_hash: None,
                };
                merged.insert(place, status);
            }
        }
        Arc::new(merged)
    }

    /// Opens a file that is there.
    pub(super) async fn open_for_writing(&self, inode: u64, flags: u32) -> Result<Reply, Errno> {
        let staging = self.staging.as_ref().ok_or(libc::EROFS)?;
        if staging.get(inode).is_none() {
            let status = match self.status(inode).await {
                // The kernel believes in a name that is no more. Told so, it looks it up again, and
                // makes the file where that is asked for.
                Err(libc::ENOENT) => return Err(libc::ESTALE),
                status => status?,
            };
            if status.is_directory() {
                return Err(libc::EISDIR);
            }
            if !self.is_of_version(inode, &status) {
                return Err(libc::ESTALE);
            }
        }
        if flags & libc::O_TRUNC.cast_unsigned() != 0 {
            self.set_length(staging, inode, 0).await?;
        }
        staging.opened(inode);
        let handle = self.files.reserve(WRITING);
        Ok(protocol::opened(handle, FLAGS).into())
    }

    /// Makes a file and opens it, or opens the one that is there.
    async fn create(
        &self,
        staging: &Staging<T::Writer>,
        parent: u64,
        name: &[u8],
        flags: u32,
        origin: Origin,
    ) -> Result<Reply, Errno> {
        let name = checked(name)?;
        let exclusive = flags & libc::O_EXCL.cast_unsigned() != 0 && origin == Origin::Kernel;
        let path = join(&self.path(parent)?, name);
        let copy = match staging.at(parent, name) {
            Some(_) if exclusive => return Err(libc::EEXIST),
            Some(copy) => copy,
            None => match self.found(&path).await? {
                Some(_) if exclusive => return Err(libc::EEXIST),
                Some(status) if status.is_directory() => return Err(libc::EISDIR),
                Some(status) => {
                    let inode = self.intern(parent, name, &status)?;
                    self.fetch(staging, inode).await?
                }
                None => {
                    let made = self.inodes.intern(parent, name, Fingerprint::unique());
                    let inode = made.map_err(|error| local(&error))?;
                    let place = (parent, name.into());
                    let created = staging.create(inode, place);
                    created.map_err(|error| local(&error))?
                }
            },
        };
        if flags & libc::O_TRUNC.cast_unsigned() != 0 {
            self.set_length(staging, copy.inode(), 0).await?;
        }
        staging.opened(copy.inode());
        let handle = self.files.reserve(WRITING);
        let attributes = self.copy_attributes(&copy);
        Ok(protocol::created(&attributes, self.ttl, handle, FLAGS).into())
    }

    async fn write(
        &self,
        staging: &Staging<T::Writer>,
        inode: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Reply, Errno> {
        let length = u32::try_from(bytes.len()).map_err(|_| libc::EINVAL)?;
        if offset.checked_add(u64::from(length)).is_none() {
            return Err(libc::EFBIG);
        }
        let (copy, mut turn) = self.turn_of(staging, inode, Need::Content).await?;
        let growth = copy.growth(offset, u64::from(length));
        let written = staging.with_room(growth, || copy.write(&mut turn, offset, bytes));
        written.map_err(|error| local(&error))?;
        if turn.state() == Mark::Dirty {
            let path = self.path(inode)?;
            let sent = copy
                .send_ahead(&mut turn, &path, || self.tree.create(&path, None))
                .await;
            if let Err(error) = sent {
                // All of it is sent again when the file is closed, and that answer counts.
                tracing::info!(path, %error, "an upload that had begun was given up");
                turn.give_up_stream();
            }
        }
        Ok(protocol::written(length).into())
    }

    /// Only a length is set; the rest is the mount's own.
    async fn set_attributes(
        &self,
        staging: &Staging<T::Writer>,
        inode: u64,
        size: Option<Size>,
    ) -> Result<Reply, Errno> {
        if let Some(Size { bytes }) = size {
            self.set_length(staging, inode, bytes).await?;
            if !staging.is_open(inode) {
                // By truncate(2): no close will follow.
                let flushed = self.flush(inode).await;
                self.close(inode).await;
                flushed?;
            }
        }
        self.getattr(inode).await
    }

    async fn set_length(
        &self,
        staging: &Staging<T::Writer>,
        inode: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let need = if length == 0 {
            Need::Nothing
        } else {
            Need::Content
        };
        let (copy, mut turn) = self.turn_of(staging, inode, need).await?;
        let growth = copy.growth(0, length);
        let set = staging.with_room(growth, || copy.set_length(&mut turn, length));
        set.map_err(|error| local(&error))
    }

    /// The copy of a file of which nothing will be left, so that it need not be fetched.
    async fn empty(
        &self,
        staging: &Staging<T::Writer>,
        inode: u64,
    ) -> Result<Arc<Draft<T::Writer>>, Errno> {
        let _turn = staging.turn_to_fetch(inode).await;
        if let Some(copy) = staging.get(inode) {
            return Ok(copy);
        }
        let place = self.inodes.place(inode).ok_or(libc::ESTALE)?;
        let created = staging.create(inode, place);
        created.map_err(|error| local(&error))
    }

    /// The copy of a file, made where there is none, and the right to change it.
    async fn turn_of(
        &self,
        staging: &Staging<T::Writer>,
        inode: u64,
        need: Need,
    ) -> Result<(Arc<Draft<T::Writer>>, OwnedMutexGuard<Turn<T::Writer>>), Errno> {
        loop {
            let copy = match (staging.get(inode), need) {
                (Some(copy), _) => copy,
                (None, Need::Nothing) => self.empty(staging, inode).await?,
                (None, Need::Content) => self.fetch(staging, inode).await?,
            };
            let turn = copy.turn().await;
            // Somebody who had it open as the last one may have closed it meanwhile.
            if !turn.is_over() {
                return Ok((copy, turn));
            }
        }
    }

    pub(super) async fn fetch(
        &self,
        staging: &Staging<T::Writer>,
        inode: u64,
    ) -> Result<Arc<Draft<T::Writer>>, Errno> {
        let _turn = staging.turn_to_fetch(inode).await;
        if let Some(copy) = staging.get(inode) {
            return Ok(copy);
        }
        let path = self.path(inode)?;
        let file = self.ask("open", &path, self.tree.open(&path)).await?;
        if !self.is_of_version(inode, file.status()) {
            return Err(libc::ESTALE);
        }
        let length = file.status().length;
        let place = self.inodes.place(inode).ok_or(libc::ESTALE)?;
        let begun = staging.with_room(length, || staging.begin(inode, &place.1, length));
        let copy = begun.map_err(|error| local(&error))?;
        if let Err(errno) = fill(&copy, &file, &path).await {
            staging.discard(&copy).await;
            return Err(errno);
        }
        let adopted = staging.adopt(copy, place).await;
        adopted.map_err(|error| local(&error))
    }

    /// Brings what was written to the store; nothing, where nothing was.
    pub(super) async fn flush(&self, inode: u64) -> Result<(), Errno> {
        let Some(copy) = self.staging.as_ref().and_then(|s| s.get(inode)) else {
            return Ok(());
        };
        let mut turn = copy.turn().await;
        self.send(&copy, &mut turn).await
    }

    pub(super) async fn send(
        &self,
        copy: &Draft<T::Writer>,
        turn: &mut Turn<T::Writer>,
    ) -> Result<(), Errno> {
        if turn.is_over() || turn.state() != Mark::Dirty {
            return Ok(());
        }
        let path = self.path(copy.inode())?;
        let begun = Instant::now();
        let sent = copy
            .send(turn, &path, |length| self.tree.create(&path, Some(length)))
            .await;
        if let Some(staging) = &self.staging {
            let bytes = sent.as_ref().ok().map(|status| status.length);
            staging.metrics().uploaded(begun.elapsed(), bytes);
        }
        let status = sent.map_err(|error| {
            tracing::warn!(path, %error, "a file could not be brought to the under-store");
            report("write", &path, &error)
        })?;
        // Only then is the copy what the store has: a successor of a daemon that dies in between sends
        // it once more, and never finds an inode of a version that it does not know.
        self.adopt_version(copy.inode(), &status)?;
        copy.adopt_time(&status);
        turn.mark(Mark::Clean).map_err(|error| local(&error))
    }

    /// The inode goes along with the version that this mount has made of it.
    pub(super) fn adopt_version(&self, inode: u64, status: &FileStatus) -> Result<(), Errno> {
        let changed = self.inodes.change(inode, Fingerprint::of(status));
        changed.map_err(|error| local(&error))
    }

    /// A descriptor for writing is gone. With the last one, the store serves the file again.
    pub(super) async fn close(&self, inode: u64) {
        let Some(staging) = &self.staging else { return };
        if !staging.closed(inode) {
            return;
        }
        let Some(copy) = staging.get(inode) else {
            return;
        };
        let mut turn = copy.turn().await;
        if turn.is_over() {
            return;
        }
        // What a mapping changed after the close; and what could not be sent then, once more. Nobody
        // hears of a failure any more, and the copy is kept aside.
        if let Err(errno) = self.send(&copy, &mut turn).await {
            tracing::error!(inode, errno, "changes did not reach the under-store");
            // The kernel's pages are of what is lost: under another version the next look-up gives
            // another inode, whose pages are the store's.
            if let Err(error) = self.inodes.change(inode, Fingerprint::unique()) {
                tracing::error!(inode, %error, "cannot note that");
            }
        }
        if staging.is_open(inode) {
            // Again, meanwhile.
            return;
        }
        if let Err(error) = staging.release(&copy, &mut turn) {
            tracing::error!(inode, %error, "cannot let go of a copy");
        }
    }
}

/// Fetches all of a file.
async fn fill<W: TreeWriter>(
    copy: &Draft<W>,
    file: &impl TreeFile,
    path: &str,
) -> Result<(), Errno> {
    let mut offset = 0;
    while offset < copy.length() {
        let read = file.read_at(offset, FETCH_BYTES).await;
        let chunks = read.map_err(|error| report("fetch", path, &error))?;
        let begun = offset;
        for chunk in chunks {
            let filled = copy.fill(offset, &chunk);
            filled.map_err(|error| local(&error))?;
            offset += chunk.len() as u64;
        }
        if offset == begun {
            tracing::error!(path, offset, "the file ended before its length");
            return Err(libc::EIO);
        }
    }
    Ok(())
}

/// A name that may be given: what a listing would show again.
pub(super) fn checked(name: &[u8]) -> Result<&str, Errno> {
    let name = std::str::from_utf8(name).map_err(|_| libc::EILSEQ)?;
    if !is_entry(name) || name.trim() != name {
        return Err(libc::EINVAL);
    }
    Ok(name)
}

/// The errno for a failure of this machine's own disk.
pub(super) fn local(error: &io::Error) -> Errno {
    tracing::warn!(%error, "a file that is being written");
    error.raw_os_error().unwrap_or(libc::EIO)
}
