//! Answers to the kernel, as bytes.
//!
//! Each function lays out one structure of `fuse.h`, named in its comment. The session puts the
//! header before it.

use std::time::Duration;

use super::{NAME_MAX_BYTES, OUT_HEADER_BYTES};

/// `FUSE_PASSTHROUGH`: reads of an opening may go to a registered file.
const PASSTHROUGH: u64 = 1 << 37;

/// How deep file systems may be stacked below a registered file: it lies on a disk's. At 2 it could
/// lie on an overlay, but then no overlay could lie on the mount.
const MAX_STACK_DEPTH: u32 = 1;

/// `FUSE_INIT_EXT`: the flags have a second half.
pub(super) const INIT_EXT: u32 = 1 << 30;

/// The newest minor protocol version whose layouts are declared here.
const PROTOCOL_MINOR: u32 = 45;

/// Bytes of `struct fuse_dirent` before the name.
const DIRENT_BYTES: usize = 24;

/// Bytes of `struct fuse_entry_out`.
const ENTRY_BYTES: usize = 128;

/// The size of blocks in `stat`: what `cat` and `cp` read at a time. Larger makes language
/// runtimes set aside as much for every open file.
const PREFERRED_BLOCK_BYTES: u32 = 128 << 10;

/// The unit of `st_blocks`, by POSIX.
const STAT_BLOCK_BYTES: u64 = 512;

/// What the supervisor tells the kernel at the start of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Init {
    /// The minor protocol version that both sides speak.
    pub(crate) minor: u32,
    /// The flags that both sides want.
    pub(crate) flags: u64,
    /// Largest READ, in bytes.
    pub(crate) max_read_bytes: u32,
    /// Largest WRITE, in bytes.
    pub(crate) max_write_bytes: u32,
    /// Requests that the kernel sends without a process waiting for them (read-ahead).
    pub(crate) max_background: u16,
}

/// Flags of an OPEN answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFlags {
    /// The kernel may keep the pages that it has of the file.
    pub(crate) keep_cache: bool,
    /// The registered file that the kernel reads in place of asking.
    pub(crate) backing_id: Option<u32>,
    /// The kernel tells when a descriptor is closed (FLUSH).
    pub(crate) flush: bool,
}

/// What `stat` shows of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) inode: u64,
    pub(crate) kind: EntryKind,
    pub(crate) length_bytes: u64,
    pub(crate) modified_ms: i64,
    /// Permission bits, without the type.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its time becomes the store's with the next close, so the kernel must ask each time.
    pub(crate) is_being_written: bool,
}

impl Attributes {
    /// How long the kernel may believe them.
    fn ttl(&self, of_others: Duration) -> Duration {
        if self.is_being_written {
            Duration::ZERO
        } else {
            of_others
        }
    }
}

/// File or directory, as `d_type` and `st_mode` say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
}

impl EntryKind {
    fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
        }
    }

    fn dirent_type(self) -> u32 {
        match self {
            Self::File => u32::from(libc::DT_REG),
            Self::Directory => u32::from(libc::DT_DIR),
        }
    }
}

impl Init {
    /// What we want of what the kernel offers.
    ///
    /// ASYNC_READ and PARALLEL_DIROPS: several requests on one inode at a time. BIG_WRITES is how
    /// kernels before 7.28 allow large messages at all; MAX_PAGES allows 1 MiB of READ.
    /// DO_READDIRPLUS with AUTO: attributes with the listing where they are wanted.
    /// PASSTHROUGH: the kernel may read files of the disk cache by itself.
    /// Not AUTO_INVAL_DATA, which asks for attributes while a file is read: an inode is one version
    /// of a file here, so its pages never have to go. ATOMIC_O_TRUNC: an open that empties the file
    /// says so, and nothing of the old content need be fetched. Not WRITEBACK_CACHE: what was written
    /// must lie with the daemon, whose death it survives, before the application goes on.
    pub(crate) fn negotiate(
        kernel_minor: u32,
        offered: u64,
        max_read_bytes: u32,
        max_write_bytes: u32,
    ) -> Self {
        const ASYNC_READ: u64 = 1;
        const ATOMIC_O_TRUNC: u64 = 1 << 3;
        const BIG_WRITES: u64 = 1 << 5;
        const DO_READDIRPLUS: u64 = 1 << 13;
        const READDIRPLUS_AUTO: u64 = 1 << 14;
        const PARALLEL_DIROPS: u64 = 1 << 18;
        const MAX_PAGES: u64 = 1 << 22;
        let wanted = ASYNC_READ
            | ATOMIC_O_TRUNC
            | BIG_WRITES
            | DO_READDIRPLUS
            | READDIRPLUS_AUTO
            | PARALLEL_DIROPS
            | MAX_PAGES
            | PASSTHROUGH
            | u64::from(INIT_EXT);
        Self {
            minor: kernel_minor.min(PROTOCOL_MINOR),
            flags: wanted & offered,
            max_read_bytes,
            max_write_bytes,
            max_background: 64,
        }
    }

    /// Whether reads may go to registered files.
    pub(crate) fn has_passthrough(&self) -> bool {
        self.flags & PASSTHROUGH != 0
    }
}

/// `struct fuse_out_header`. A positive errno is sent as the negative the kernel wants.
pub(crate) fn header(unique: u64, errno: i32, body_bytes: usize) -> [u8; OUT_HEADER_BYTES] {
    let mut bytes = [0; OUT_HEADER_BYTES];
    // A body is at most a READ's 1 MiB, so its length always fits.
    let length = u32::try_from(OUT_HEADER_BYTES + body_bytes).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(-errno).to_ne_bytes());
    bytes[8..].copy_from_slice(&unique.to_ne_bytes());
    bytes
}

/// `struct fuse_init_out`.
pub(crate) fn init(init: &Init) -> Vec<u8> {
    const PAGE_BYTES: u32 = 4096;
    let congestion_threshold = init.max_background / 4 * 3;
    let max_pages = u16::try_from(init.max_read_bytes / PAGE_BYTES).unwrap_or(u16::MAX);
    let [low, high] = [init.flags & 0xffff_ffff, init.flags >> 32]
        .map(|half| u32::try_from(half).unwrap_or_default());
    let mut body = Body::with_capacity(64);
    body.u32(7).u32(init.minor).u32(init.max_read_bytes);
    body.u32(low).u16(init.max_background);
    body.u16(congestion_threshold).u32(init.max_write_bytes);
    // Times have a granularity of a nanosecond; no DAX alignment.
    body.u32(1).u16(max_pages).u16(0);
    // Flags, stacking depth, no request timeout, reserved words.
    let depth = if init.has_passthrough() {
        MAX_STACK_DEPTH
    } else {
        0
    };
    body.u32(high).u32(depth).zeros(24);
    body.0
}

/// `struct fuse_attr_out`.
pub(crate) fn attributes(attributes: &Attributes, ttl: Duration) -> Vec<u8> {
    let ttl = attributes.ttl(ttl);
    let mut body = Body::with_capacity(104);
    body.u64(ttl.as_secs()).u32(ttl.subsec_nanos()).u32(0);
    body.attributes(attributes);
    body.0
}

/// `struct fuse_entry_out`.
pub(crate) fn entry(attributes: &Attributes, ttl: Duration) -> Vec<u8> {
    let mut body = Body::with_capacity(ENTRY_BYTES);
    body.entry(attributes, ttl);
    body.0
}

/// `struct fuse_entry_out` that says "no such name, and do not ask again for a while".
pub(crate) fn negative_entry(ttl: Duration) -> Vec<u8> {
    let mut body = Body::with_capacity(ENTRY_BYTES);
    body.u64(0).u64(0).u64(ttl.as_secs()).u64(0);
    body.u32(ttl.subsec_nanos()).zeros(ENTRY_BYTES - 36);
    body.0
}

/// `struct fuse_open_out`.
pub(crate) fn opened(handle: u64, flags: OpenFlags) -> Vec<u8> {
    let mut body = Body::with_capacity(16);
    body.opened(handle, flags);
    body.0
}

/// The answer to CREATE: `struct fuse_entry_out`, then `struct fuse_open_out`.
pub(crate) fn created(
    attributes: &Attributes,
    ttl: Duration,
    handle: u64,
    flags: OpenFlags,
) -> Vec<u8> {
    let mut body = Body::with_capacity(ENTRY_BYTES + 16);
    body.entry(attributes, ttl);
    body.opened(handle, flags);
    body.0
}

/// `struct fuse_write_out`.
pub(crate) fn written(bytes: u32) -> Vec<u8> {
    let mut body = Body::with_capacity(8);
    body.u32(bytes).u32(0);
    body.0
}

/// `struct fuse_statfs_out`. How much a dataset holds is not known without walking all of it, so the
/// total is what is free: what may be written at one time, and 0 on a read-only mount, which `df` takes
/// for "not a disk".
pub(crate) fn statfs(free_bytes: u64) -> Vec<u8> {
    let mut body = Body::with_capacity(80);
    let blocks = free_bytes / u64::from(PREFERRED_BLOCK_BYTES);
    body.u64(blocks).u64(blocks).u64(blocks).zeros(16);
    body.u32(PREFERRED_BLOCK_BYTES).u32(NAME_MAX_BYTES);
    body.u32(PREFERRED_BLOCK_BYTES).zeros(28);
    body.0
}

/// A notification that an entry of a directory is not what it was: `struct
/// fuse_notify_inval_entry_out`, after a header that answers no request.
pub(crate) fn invalid_entry(parent: u64, name: &str) -> Vec<u8> {
    const INVAL_ENTRY: i32 = 3;
    let mut body = Body::with_capacity(16 + name.len() + 1);
    body.u64(parent).length(name.len()).u32(0);
    body.0.extend_from_slice(name.as_bytes());
    body.zeros(1);
    // Where an answer has a negative error number, a notification has its positive code.
    let mut message = header(0, -INVAL_ENTRY, body.0.len()).to_vec();
    message.append(&mut body.0);
    message
}

/// `struct fuse_getxattr_out`.
pub(crate) fn xattr_size(size: u32) -> Vec<u8> {
    let mut body = Body::with_capacity(8);
    body.u32(size).u32(0);
    body.0
}

/// Fills a READDIR or READDIRPLUS answer up to the size that the kernel asked for.
pub(crate) struct DirectoryPacker {
    body: Body,
    limit_bytes: usize,
}

impl DirectoryPacker {
    /// An empty answer of at most `limit_bytes`.
    pub(crate) fn new(limit_bytes: u32) -> Self {
        // The kernel asks for at most a READ's size; never trust that with memory.
        let limit_bytes = (limit_bytes as usize).min(1 << 20);
        Self {
            body: Body::with_capacity(limit_bytes),
            limit_bytes,
        }
    }

    /// Adds a `struct fuse_dirent`; false when there is no room for it.
    pub(crate) fn plain(&mut self, inode: u64, kind: EntryKind, next: u64, name: &str) -> bool {
        if !self.has_room(0, name) {
            return false;
        }
        self.body.dirent(inode, kind, next, name);
        true
    }

    /// Adds a `struct fuse_direntplus`; false when there is no room for it.
    pub(crate) fn plus(
        &mut self,
        attributes: &Attributes,
        ttl: Duration,
        next: u64,
        name: &str,
    ) -> bool {
        if !self.has_room(ENTRY_BYTES, name) {
            return false;
        }
        self.body.entry(attributes, ttl);
        self.body
            .dirent(attributes.inode, attributes.kind, next, name);
        true
    }

    /// Adds `.` or `..` to a READDIRPLUS answer: their entry is empty, so that the kernel takes no
    /// reference to them.
    pub(crate) fn plus_dots(&mut self, inode: u64, next: u64, name: &str) -> bool {
        if !self.has_room(ENTRY_BYTES, name) {
            return false;
        }
        self.body.zeros(ENTRY_BYTES);
        self.body.dirent(inode, EntryKind::Directory, next, name);
        true
    }

    /// The answer.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.body.0
    }

    fn has_room(&self, before: usize, name: &str) -> bool {
        let record_bytes = before + (DIRENT_BYTES + name.len()).next_multiple_of(8);
        self.body.0.len() + record_bytes <= self.limit_bytes
    }
}

/// Appends fields to an answer.
struct Body(Vec<u8>);

impl Body {
    fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// A length of at most an answer's, so that it always fits.
    fn length(&mut self, length: usize) -> &mut Self {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX))
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn zeros(&mut self, bytes: usize) -> &mut Self {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    /// `struct fuse_attr`.
    fn attributes(&mut self, of: &Attributes) {
        let seconds = of.modified_ms.div_euclid(1000);
        // 0 to 999 milliseconds, so it always fits.
        let nanoseconds = of.modified_ms.rem_euclid(1000) * 1_000_000;
        let nanoseconds = u32::try_from(nanoseconds).unwrap_or_default();
        self.u64(of.inode).u64(of.length_bytes);
        self.u64(of.length_bytes.div_ceil(STAT_BLOCK_BYTES));
        self.i64(seconds).i64(seconds).i64(seconds);
        self.u32(nanoseconds).u32(nanoseconds).u32(nanoseconds);
        // One link, also for a directory: how many directories it holds is not known without a
        // listing, and 1 is the number that says so to `find`.
        self.u32(of.kind.mode_bits() | of.mode & 0o7777).u32(1);
        self.u32(of.uid).u32(of.gid).u32(0);
        self.u32(PREFERRED_BLOCK_BYTES).u32(0);
    }

    /// `struct fuse_open_out`.
    fn opened(&mut self, handle: u64, flags: OpenFlags) {
        const KEEP_CACHE: u32 = 1 << 1;
        const NOFLUSH: u32 = 1 << 5;
        const PASSTHROUGH: u32 = 1 << 7;
        let passthrough = flags.backing_id.map_or(0, |_| PASSTHROUGH);
        let keep = if flags.keep_cache { KEEP_CACHE } else { 0 };
        let flush = if flags.flush { 0 } else { NOFLUSH };
        self.u64(handle).u32(flush | keep | passthrough);
        self.u32(flags.backing_id.unwrap_or_default());
    }

    /// `struct fuse_entry_out`. The generation is always 0: an inode number is never used again.
    fn entry(&mut self, of: &Attributes, ttl: Duration) {
        let of_attributes = of.ttl(ttl);
        self.u64(of.inode).u64(0);
        self.u64(ttl.as_secs()).u64(of_attributes.as_secs());
        self.u32(ttl.subsec_nanos());
        self.u32(of_attributes.subsec_nanos());
        self.attributes(of);
    }

    /// `struct fuse_dirent`, padded to 8 bytes.
    fn dirent(&mut self, inode: u64, kind: EntryKind, next: u64, name: &str) {
        self.u64(inode).u64(next);
        self.length(name.len()).u32(kind.dirent_type());
        self.0.extend_from_slice(name.as_bytes());
        self.zeros(self.0.len().next_multiple_of(8) - self.0.len());
    }
}

/// A request as the kernel writes it, for tests.
#[cfg(test)]
pub(crate) fn request(opcode: u32, unique: u64, inode: u64, body: &[u8]) -> Vec<u8> {
    use super::IN_HEADER_BYTES;
    let mut bytes = Body::with_capacity(IN_HEADER_BYTES + body.len());
    bytes.length(IN_HEADER_BYTES + body.len()).u32(opcode);
    bytes.u64(unique).u64(inode).zeros(16);
    bytes.0.extend_from_slice(body);
    bytes.0
}
