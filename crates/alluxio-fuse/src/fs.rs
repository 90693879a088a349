//! The operations of the mount: each translates one request to the tree, and its answer back.
//!
//! What the kernel may keep, and for how long:
//! - Attributes and names for the configuration's metadata TTL, "no such name" for a second. A name
//!   whose file a read finds changed is taken back at once.
//! - Pages of a file that the daemon reads, from one open to the next: an inode is one version of a file, so its pages stay
//!   right. An open that finds another version under the name says ESTALE, upon which the kernel
//!   looks the name up again and gets the other version's inode; the application sees none of it.
//! - A listing is fixed when a directory is opened; places in it are indexes.
//!
//! What changes the tree is in `fs/change.rs` and `fs/names.rs`; a file that is being written is read
//! from its copy.

mod change;
mod names;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use alluxio_client::WholeFile;
use alluxio_wire::{FileKind, FileStatus};
use bytes::Bytes;

use crate::errno::{Errno, deserves_a_warning, errno};
use crate::handles::{Handles, is_of_version};
use crate::inodes::{Fingerprint, Inodes};
use crate::metrics::WriteMetrics;
use crate::options::MountOptions;
use crate::passthrough::{MOST_AHEAD, Way, Ways};
use crate::protocol::{
    self, Attributes, DirectoryPacker, EntryKind, NAME_MAX_BYTES, OpenFlags, Operation, Range,
    Request,
};
use crate::staging::Staging;
use crate::tree::{Tree, TreeError, TreeFile};
use crate::xattrs::{self, Attribute, Sized};

/// How long the kernel may remember that a name does not exist. Programs probe for optional files
/// again and again, but one that has just been written should be seen soon.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// Places of `.` and `..` in a listing; the entries follow.
const DOTS: u64 = 2;

/// The mounted tree.
pub(crate) struct FileSystem<T: Tree> {
    tree: T,
    inodes: Inodes,
    files: Handles<Opened<T::File>>,
    directories: Handles<Arc<Vec<FileStatus>>>,
    options: MountOptions,
    ways: Ways,
    ttl: Duration,
    /// Files that are being written; none where the mount is read-only.
    staging: Option<Staging<T::Writer>>,
}

/// Where a request comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The kernel has just sent it.
    Kernel,
    /// A predecessor died with it in hand: what it asks for may have been done already.
    Predecessor,
}

/// An open file.
enum Opened<F> {
    /// It is read here.
    Read(F),
    /// The kernel reads it.
    Backed(Arc<FileStatus>),
}

impl<F: TreeFile> Opened<F> {
    fn status(&self) -> &FileStatus {
        match self {
            Self::Read(file) => file.status(),
            Self::Backed(status) => status,
        }
    }
}

/// The answer to a request: what follows its header.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    /// A structure of the protocol.
    Bytes(Vec<u8>),
    /// File content, as the cache holds it.
    Chunks(Vec<Bytes>),
    /// A file is open, which counts from here on.
    Opened {
        /// Its handle.
        handle: u64,
        /// The structure of the protocol.
        body: Vec<u8>,
    },
}

impl From<Vec<u8>> for Reply {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// What an open for reading says.
const READING: OpenFlags = OpenFlags {
    keep_cache: true,
    flush: false,
    backing_id: None,
};

/// How READDIR and READDIRPLUS differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Names,
    Attributes,
}

impl<T: Tree> FileSystem<T> {
    /// The file system over a tree, with the inodes that predecessors gave out.
    pub(crate) fn new(
        tree: T,
        inodes: Inodes,
        ways: Ways,
        options: MountOptions,
        is_first: bool,
        metrics: WriteMetrics,
    ) -> io::Result<Self> {
        let open = |of: &crate::options::Staging| {
            Staging::open(of, is_first, metrics, |inode| inodes.place(inode))
        };
        let staging = options.staging.as_ref().map(open).transpose()?;
        Ok(Self {
            ttl: tree.metadata_ttl(),
            staging,
            tree,
            inodes,
            files: Handles::new(),
            directories: Handles::new(),
            options,
            ways,
        })
    }

    /// Who reads which file.
    pub(crate) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// The tree below.
    pub(crate) fn tree(&self) -> &T {
        &self.tree
    }

    /// Measures what is being written, when somebody asks.
    pub(crate) fn measure(&self) {
        if let Some(staging) = &self.staging {
            staging.measure();
        }
    }

    /// The kernel did not take the answer to an OPEN. Nothing is open, or what a predecessor's
    /// answer opened.
    pub(crate) fn not_opened(&self, inode: u64, handle: u64, is_open: bool) {
        self.files.remove(inode, handle);
        if !is_open {
            self.ways.close(inode);
        }
    }

    /// Which entry of which directory an inode is.
    pub(crate) fn entry_of(&self, inode: u64) -> Option<(u64, String)> {
        let path = self.inodes.path(inode)?;
        let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
        Some((self.inodes.parent(inode), name.to_owned()))
    }

    /// A RELEASE has its answer, and is no longer in the journal.
    pub(crate) fn released(&self, inode: u64) {
        self.ways.close(inode);
    }

    /// Serves one request that wants an answer. `is_counted` where a predecessor began to answer an
    /// OPEN.
    pub(crate) async fn serve(
        &self,
        request: Request,
        origin: Origin,
        is_counted: bool,
    ) -> Result<Reply, Errno> {
        let inode = request.inode;
        match request.operation {
            Operation::Lookup { name } => self.lookup(inode, &name).await,
            Operation::Getattr => self.getattr(inode).await,
            Operation::Open { flags } => self.open(inode, flags, is_counted).await,
            Operation::Read(range) => self.read(inode, range).await,
            Operation::Release { handle } => {
                self.files.remove(inode, handle);
                if change::is_for_writing(handle) {
                    self.close(inode).await;
                }
                Ok(Vec::new().into())
            }
            Operation::Opendir => self.opendir(inode).await,
            Operation::Readdir(range) => self.readdir(inode, range, Detail::Names).await,
            Operation::Readdirplus(range) => self.readdir(inode, range, Detail::Attributes).await,
            Operation::Releasedir { handle } => {
                self.directories.remove(inode, handle);
                Ok(Vec::new().into())
            }
            Operation::Statfs => {
                let free = self.staging.as_ref().map_or(0, Staging::free_bytes);
                Ok(protocol::statfs(free).into())
            }
            Operation::Getxattr { name, size } => self.getxattr(inode, &name, size).await,
            Operation::Listxattr { size } => self.listxattr(inode, size).await,
            Operation::Destroy => Ok(Vec::new().into()),
            Operation::Change(change) => match &self.staging {
                None => Err(libc::EROFS),
                Some(staging) => self.change(staging, inode, change, origin).await,
            },
            Operation::Flush | Operation::Fsync if self.staging.is_some() => {
                self.flush(inode).await.map(|()| Vec::new().into())
            }
            Operation::Fsyncdir if self.staging.is_some() => Ok(Vec::new().into()),
            // A read-only mount has nothing to flush. And a READ is not given up on a
            // signal: its time is bounded below, and most signals are not the reader's end, but
            // EINTR would reach it all the same. ENOSYS makes the kernel stop asking.
            Operation::Flush
            | Operation::Fsync
            | Operation::Fsyncdir
            | Operation::Interrupt
            | Operation::Unsupported { .. } => Err(libc::ENOSYS),
            // The supervisor has answered INIT, and the rest wants no answer.
            Operation::Init { .. } | Operation::Forget | Operation::NotifyReply => Err(libc::EIO),
        }
    }

    async fn lookup(&self, parent: u64, name: &[u8]) -> Result<Reply, Errno> {
        // Names of the tree are text.
        let name = std::str::from_utf8(name).ok().filter(|name| is_entry(name));
        let Some(name) = name else {
            return Ok(protocol::negative_entry(NEGATIVE_TTL).into());
        };
        if let Some(attributes) = self.staged_at(parent, name) {
            return Ok(protocol::entry(&attributes, self.ttl).into());
        }
        let path = join(&self.path(parent)?, name);
        let status = match self.ask("look up", &path, self.tree.status(&path)).await {
            Err(libc::ENOENT) => return Ok(protocol::negative_entry(NEGATIVE_TTL).into()),
            answer => answer?,
        };
        let attributes = self.attributes(self.intern(parent, name, &status)?, &status);
        Ok(protocol::entry(&attributes, self.ttl).into())
    }

    async fn getattr(&self, inode: u64) -> Result<Reply, Errno> {
        if let Some(attributes) = self.staged(inode) {
            return Ok(protocol::attributes(&attributes, self.ttl).into());
        }
        let attributes = match self.status(inode).await {
            Ok(status) if self.is_of_version(inode, &status) => self.attributes(inode, &status),
            // Whoever has the old version open may still ask how long it is. For others the kernel
            // looks the name up again, and makes the file where that is asked for.
            Ok(_) | Err(libc::ENOENT) => {
                let open = self.files.any_of(inode).ok_or(libc::ESTALE)?;
                self.attributes(inode, open.status())
            }
            Err(errno) => return Err(errno),
        };
        Ok(protocol::attributes(&attributes, self.ttl).into())
    }

    async fn open(&self, inode: u64, flags: u32, is_counted: bool) -> Result<Reply, Errno> {
        if flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32 {
            return self.open_for_writing(inode, flags).await;
        }
        if self.staged(inode).is_some() {
            // What the file will be is not known yet, so neither is its version.
            let handle = self.files.reserve(change::READING_A_COPY);
            return Ok(protocol::opened(handle, READING).into());
        }
        let path = self.path(inode)?;
        if self.ways.is_backed(inode)
            && let Some(reply) = self.open_backed(inode, &path, is_counted).await?
        {
            return Ok(reply);
        }
        let file = self.ask("open", &path, self.tree.open(&path)).await?;
        if !self.is_of_version(inode, file.status()) {
            return Err(libc::ESTALE);
        }
        let whole = if self.ways.is_on() && self.ways.is_free(inode) {
            self.tree.whole(&file).await
        } else {
            None
        };
        let way = self.choose_way(inode, is_counted, whole);
        let file = match way {
            Way::Daemon => Opened::Read(file),
            // What the kernel reads has no part in read-ahead.
            Way::Backed(_) => Opened::Backed(Arc::new(file.status().clone())),
        };
        Ok(self.opened(inode, file, way))
    }

    fn choose_way(&self, inode: u64, is_counted: bool, whole: Option<WholeFile>) -> Way {
        if whole.is_none() {
            return self.ways.open(inode, is_counted, None, &[]);
        }
        let directory = self.inodes.parent(inode);
        let turn = self.ways.look_ahead(directory);
        let ahead = match turn {
            Some(_) => self.neighbours(directory, inode),
            None => Vec::new(),
        };
        self.ways.open(inode, is_counted, whole, &ahead)
    }

    /// Files of a directory that were listed after another, as far as they are whole and nobody has
    /// them open.
    fn neighbours(&self, directory: u64, inode: u64) -> Vec<(u64, WholeFile)> {
        let of_directory = |next: &u64| self.inodes.parent(*next) == directory;
        (inode + 1..=inode + MOST_AHEAD as u64)
            .take_while(of_directory)
            .filter(|next| self.ways.is_free(*next) && self.staged(*next).is_none())
            .filter_map(|next| {
                let (status, whole) = self.tree.whole_at_hand(&self.inodes.path(next)?)?;
                self.is_of_version(next, &status).then_some((next, whole))
            })
            .collect()
    }

    /// Opens a file that is registered already; none where it no longer is.
    async fn open_backed(
        &self,
        inode: u64,
        path: &str,
        is_counted: bool,
    ) -> Result<Option<Reply>, Errno> {
        let status = self.ask("open", path, self.tree.status(path)).await?;
        if !self.is_of_version(inode, &status) {
            return Err(libc::ESTALE);
        }
        let way = self.ways.open_backed(inode, is_counted);
        Ok(way.map(|way| self.opened(inode, Opened::Backed(status), way)))
    }

    fn opened(&self, inode: u64, file: Opened<T::File>, way: Way) -> Reply {
        let version = Fingerprint::of(file.status());
        let handle = self.files.add(inode, version.bits(), file);
        let flags = match way {
            Way::Daemon => OpenFlags {
                backing_id: None,
                ..READING
            },
            Way::Backed(id) => OpenFlags {
                keep_cache: false,
                backing_id: Some(id),
                ..READING
            },
        };
        let body = protocol::opened(handle, flags);
        Reply::Opened { handle, body }
    }

    async fn read(&self, inode: u64, range: Range) -> Result<Reply, Errno> {
        if let Some(bytes) = self.read_staged(inode, range)? {
            return Ok(bytes.into());
        }
        let opened = match self.files.get(inode, range.handle) {
            Some(opened)
                if matches!(*opened, Opened::Read(_))
                    && self.is_present(inode, opened.status()) =>
            {
                opened
            }
            _ => self.reopen(inode, range.handle).await?,
        };
        let Opened::Read(file) = &*opened else {
            return Err(libc::EIO);
        };
        let bytes = file.read_at(range.offset, range.size).await;
        let chunks = bytes.map_err(|error| {
            let path = self.inodes.path(inode).unwrap_or_default();
            report("read", &path, &error)
        })?;
        Ok(Reply::Chunks(chunks))
    }

    /// Opens a file again that a predecessor opened, at the version it had then.
    async fn reopen(&self, inode: u64, handle: u64) -> Result<Arc<Opened<T::File>>, Errno> {
        let path = self.path(inode)?;
        let file = self.ask("open again", &path, self.tree.open(&path)).await?;
        let is_right = if self.staging.is_some() {
            self.is_of_version(inode, file.status())
        } else {
            is_of_version(handle, Fingerprint::of(file.status()).bits())
        };
        if !is_right {
            tracing::warn!(path, "the file was replaced while it was open");
            return Err(libc::ESTALE);
        }
        Ok(self.files.restore(inode, handle, Opened::Read(file)))
    }

    async fn opendir(&self, inode: u64) -> Result<Reply, Errno> {
        let listing = self.list(inode).await?;
        let handle = self.directories.add(inode, 0, listing);
        let flags = OpenFlags {
            keep_cache: false,
            ..READING
        };
        Ok(protocol::opened(handle, flags).into())
    }

    async fn readdir(&self, inode: u64, range: Range, detail: Detail) -> Result<Reply, Errno> {
        let listing = if let Some(listing) = self.directories.get(inode, range.handle) {
            listing
        } else {
            // A predecessor opened it.
            let listing = self.list(inode).await?;
            self.directories.restore(inode, range.handle, listing)
        };
        self.pack(inode, &listing, range, detail).map(Reply::from)
    }

    /// As many entries as fit, from the place that the kernel asks for.
    fn pack(
        &self,
        inode: u64,
        listing: &[FileStatus],
        range: Range,
        detail: Detail,
    ) -> Result<Vec<u8>, Errno> {
        let mut packer = DirectoryPacker::new(range.size);
        let dots = [(".", inode), ("..", self.inodes.parent(inode))];
        for (place, (name, number)) in (0..DOTS).zip(dots).skip_while(|(p, _)| *p < range.offset) {
            let fits = match detail {
                Detail::Names => packer.plain(number, EntryKind::Directory, place + 1, name),
                Detail::Attributes => packer.plus_dots(number, place + 1, name),
            };
            if !fits {
                return Ok(packer.finish());
            }
        }
        let first = usize::try_from(range.offset.saturating_sub(DOTS)).map_err(|_| libc::EINVAL)?;
        for (place, status) in (DOTS..).zip(listing).skip(first) {
            // A store may have names that no file system can show.
            if !is_entry(&status.name) {
                continue;
            }
            let attributes = match self.staged_at(inode, &status.name) {
                Some(attributes) => attributes,
                None => self.attributes(self.intern(inode, &status.name, status)?, status),
            };
            let number = attributes.inode;
            let fits = match detail {
                Detail::Names => packer.plain(number, entry_kind(status), place + 1, &status.name),
                Detail::Attributes => packer.plus(&attributes, self.ttl, place + 1, &status.name),
            };
            if !fits {
                break;
            }
        }
        Ok(packer.finish())
    }

    async fn getxattr(&self, inode: u64, name: &[u8], room: u32) -> Result<Reply, Errno> {
        // `ls` and every exec ask for attributes of others: no question to the tree for those.
        let attribute = Attribute::of_name(name).ok_or(libc::ENODATA)?;
        if self.staged(inode).is_some() {
            return Err(libc::ENODATA);
        }
        let status = self.status(inode).await?;
        if status.is_directory() {
            return Err(libc::ENODATA);
        }
        let placement = self.tree.placement(&self.path(inode)?, &status).await;
        let value = attribute.value(&status, &placement).ok_or(libc::ENODATA)?;
        xattrs::sized(value.into_bytes(), room).map(xattr_reply)
    }

    async fn listxattr(&self, inode: u64, room: u32) -> Result<Reply, Errno> {
        if self.staged(inode).is_some() {
            return xattrs::sized(Vec::new(), room).map(xattr_reply);
        }
        let status = self.status(inode).await?;
        let names = if status.is_directory() {
            Vec::new()
        } else {
            xattrs::names(&self.tree.placement(&self.path(inode)?, &status).await)
        };
        xattrs::sized(names, room).map(xattr_reply)
    }

    async fn status(&self, inode: u64) -> Result<Arc<FileStatus>, Errno> {
        let path = self.path(inode)?;
        self.ask("stat", &path, self.tree.status(&path)).await
    }

    async fn list(&self, inode: u64) -> Result<Arc<Vec<FileStatus>>, Errno> {
        let path = self.path(inode)?;
        let listing = self.ask("list", &path, self.tree.list(&path)).await?;
        Ok(self.with_staged(inode, listing))
    }

    /// Whether an open file is still what its inode is: this mount may have written another version.
    fn is_present(&self, inode: u64, status: &FileStatus) -> bool {
        self.staging.is_none() || self.is_of_version(inode, status)
    }

    /// Asks the tree, and turns its failure into an errno with a line in the log.
    async fn ask<A>(
        &self,
        operation: &str,
        path: &str,
        question: impl Future<Output = Result<A, TreeError>>,
    ) -> Result<A, Errno> {
        question
            .await
            .map_err(|error| report(operation, path, &error))
    }

    fn path(&self, inode: u64) -> Result<String, Errno> {
        self.inodes.path(inode).ok_or(libc::ESTALE)
    }

    /// The inode of a directory's entry in the version that its status tells.
    fn intern(&self, parent: u64, name: &str, status: &FileStatus) -> Result<u64, Errno> {
        let interned = self.inodes.intern(parent, name, Fingerprint::of(status));
        interned.map_err(|error| {
            tracing::error!(name, %error, "cannot note a new inode");
            error.raw_os_error().unwrap_or(libc::EIO)
        })
    }

    fn is_of_version(&self, inode: u64, status: &FileStatus) -> bool {
        self.inodes.is_of_version(inode, Fingerprint::of(status))
    }

    fn attributes(&self, inode: u64, status: &FileStatus) -> Attributes {
        Attributes {
            inode,
            kind: entry_kind(status),
            length_bytes: status.length,
            modified_ms: status.modified_ms,
            mode: self.options.shown_mode(if status.is_directory() {
                self.options.directory_mode
            } else {
                self.options.file_mode
            }),
            uid: self.options.uid,
            gid: self.options.gid,
            is_being_written: false,
        }
    }
}

fn entry_kind(status: &FileStatus) -> EntryKind {
    match status.kind {
        FileKind::File => EntryKind::File,
        FileKind::Directory => EntryKind::Directory,
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        return name.to_owned();
    }
    format!("{directory}/{name}")
}

/// Whether a name can be an entry of a directory.
fn is_entry(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= NAME_MAX_BYTES as usize
        && !name.bytes().any(|byte| byte == b'/' || byte == 0)
}

fn xattr_reply(answer: Sized) -> Reply {
    match answer {
        Sized::Size(size) => protocol::xattr_size(size).into(),
        Sized::Value(value) => value.into(),
    }
}

/// The errno for a failure; the log gets the story where the number hides it.
fn report(operation: &str, path: &str, error: &TreeError) -> Errno {
    let errno = errno(error);
    if deserves_a_warning(errno) {
        tracing::warn!(path, errno, %error, "cannot {operation}");
    } else {
        tracing::debug!(path, errno, %error, "cannot {operation}");
    }
    errno
}

#[cfg(test)]
mod tests;
