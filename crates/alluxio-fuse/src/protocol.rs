//! The kernel's messages: what a request says and how an answer is written.
//!
//! Source: `include/uapi/linux/fuse.h` of Linux 6.18 (protocol 7.45). Names and layouts are those
//! of the header; all numbers are in the machine's own byte order. The kernel is trusted, but what
//! lies in the journal after a crash is not, so every field is read with a bounds check, and a
//! message that does not add up is an error and never a panic. Requests are decoded into owned
//! values, so that one may outlive the thread that read it.
//!
//! Answers are in `protocol/reply.rs`.

mod changes;
mod reply;

pub(crate) use changes::{Change, Size};
pub(crate) use reply::{
    Attributes, DirectoryPacker, EntryKind, Init, OpenFlags, attributes, created, entry, header,
    init, invalid_entry, negative_entry, opened, statfs, written, xattr_size,
};

/// Bytes of `struct fuse_in_header`.
pub(crate) const IN_HEADER_BYTES: usize = 40;

/// Bytes of `struct fuse_out_header`.
pub(crate) const OUT_HEADER_BYTES: usize = 16;

/// `FUSE_MIN_READ_BUFFER`: the smallest buffer that the kernel hands requests into.
///
/// It is enough for every request of a read-only mount: the longest is a FORGET batch, which the
/// kernel fits into the buffer it is given.
pub(crate) const REQUEST_BUFFER_BYTES: u32 = 8192;

/// The least `max_write` that the kernel takes: what a read-only mount says.
const LEAST_WRITE_BYTES: u32 = 4096;

/// The most that one WRITE carries on a mount that can be written: every slot of the journal has room
/// for it, and larger ones gained nothing against a local disk.
const WRITE_BYTES: u32 = 128 << 10;

/// Room before the bytes of a WRITE: the two headers, to a whole page.
const WRITE_HEADER_BYTES: u32 = 4096;

/// How large a WRITE may be, and how large the buffer for requests must be.
pub(crate) fn request_sizes(writable: bool) -> (u32, u32) {
    if writable {
        (WRITE_BYTES, WRITE_HEADER_BYTES + WRITE_BYTES)
    } else {
        (LEAST_WRITE_BYTES, REQUEST_BUFFER_BYTES)
    }
}

/// `FUSE_NAME_MAX`: the longest name that the kernel takes in an answer.
pub(crate) const NAME_MAX_BYTES: u32 = 1024;

/// The inode number of the root, which every mount begins with.
pub(crate) const ROOT_INODE: u64 = 1;

/// The request could not be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel message is broken: {what}")]
pub(crate) struct DecodeError {
    what: &'static str,
    /// Names the request to answer, where the header could be read so far.
    pub(crate) unique: Option<u64>,
}

/// One request of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Names the request; the answer carries it back.
    pub(crate) unique: u64,
    /// The inode that is asked.
    pub(crate) inode: u64,
    /// What is asked.
    pub(crate) operation: Operation,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The first message of a connection.
    Init {
        /// The kernel's minor protocol version.
        minor: u32,
        /// What the kernel offers, all 64 flags.
        flags: u64,
    },
    /// The entry with this name in a directory.
    Lookup {
        /// The name, as bytes.
        name: Vec<u8>,
    },
    /// The kernel no longer holds inodes (FORGET, BATCH_FORGET). No answer.
    Forget,
    /// The kernel would rather not wait for a request.
    Interrupt,
    /// The kernel answers a notification. No answer.
    NotifyReply,
    /// An inode's attributes.
    Getattr,
    /// Open a file.
    Open {
        /// `open(2)` flags.
        flags: u32,
    },
    /// Bytes of an open file.
    Read(Range),
    /// The last descriptor of an open file is gone.
    Release {
        /// The handle that OPEN gave.
        handle: u64,
    },
    /// One descriptor of an open file was closed.
    Flush,
    /// What was written to a file must last (FSYNC).
    Fsync,
    /// The same of a directory, whose changes last at once (FSYNCDIR).
    Fsyncdir,
    /// Open a directory.
    Opendir,
    /// Entries of an open directory, names alone.
    Readdir(Range),
    /// Entries of an open directory with attributes.
    Readdirplus(Range),
    /// The last descriptor of an open directory is gone.
    Releasedir {
        /// The handle that OPENDIR gave.
        handle: u64,
    },
    /// Figures of the whole file system.
    Statfs,
    /// One extended attribute.
    Getxattr {
        /// The attribute's name, as bytes.
        name: Vec<u8>,
        /// Room for the value; 0 asks for its size.
        size: u32,
    },
    /// The names of the extended attributes.
    Listxattr {
        /// Room for the names; 0 asks for their size.
        size: u32,
    },
    /// The file system ends.
    Destroy,
    /// A change, which a read-only mount refuses.
    Change(Change),
    /// Anything else; the kernel falls back on its own behaviour and does not ask again.
    Unsupported {
        /// The operation's number.
        opcode: u32,
    },
}

/// The part of READ, READDIR and READDIRPLUS that is used (`struct fuse_read_in`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The handle that was given when the inode was opened.
    pub(crate) handle: u64,
    /// Bytes, or for a directory the place that an earlier entry named.
    pub(crate) offset: u64,
    /// Most bytes of the answer.
    pub(crate) size: u32,
}

/// The operations as metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum OperationKind {
    Lookup,
    Getattr,
    Open,
    Read,
    Release,
    Opendir,
    Readdir,
    Readdirplus,
    Releasedir,
    Statfs,
    Xattr,
    Write,
    Flush,
    Change,
    Other,
}

impl OperationKind {
    /// Whether to do it twice may undo what was done in between; an open may empty its file.
    pub(crate) fn changes_the_tree(self) -> bool {
        matches!(self, Self::Open | Self::Write | Self::Change)
    }

    /// Every kind with its name, in the order of the discriminants.
    pub(crate) const NAMES: [&'static str; 15] = [
        "lookup",
        "getattr",
        "open",
        "read",
        "release",
        "opendir",
        "readdir",
        "readdirplus",
        "releasedir",
        "statfs",
        "xattr",
        "write",
        "flush",
        "change",
        "other",
    ];
}

impl Operation {
    /// The operation as metrics name it.
    pub(crate) fn kind(&self) -> OperationKind {
        match self {
            Self::Lookup { .. } => OperationKind::Lookup,
            Self::Getattr => OperationKind::Getattr,
            Self::Open { .. } => OperationKind::Open,
            Self::Read(_) => OperationKind::Read,
            Self::Release { .. } => OperationKind::Release,
            Self::Opendir => OperationKind::Opendir,
            Self::Readdir(_) => OperationKind::Readdir,
            Self::Readdirplus(_) => OperationKind::Readdirplus,
            Self::Releasedir { .. } => OperationKind::Releasedir,
            Self::Statfs => OperationKind::Statfs,
            Self::Getxattr { .. } | Self::Listxattr { .. } => OperationKind::Xattr,
            Self::Change(Change::Write { .. }) => OperationKind::Write,
            Self::Flush | Self::Fsync => OperationKind::Flush,
            Self::Change(_) => OperationKind::Change,
            _ => OperationKind::Other,
        }
    }

    /// Whether the kernel waits for an answer.
    pub(crate) fn wants_answer(&self) -> bool {
        !matches!(self, Self::Forget | Self::NotifyReply)
    }
}

/// Decodes a request from a buffer that holds at least it.
pub(crate) fn decode(buffer: &[u8]) -> Result<Request, DecodeError> {
    let mut header = Fields::new(buffer, None);
    let length = header.u32()? as usize;
    let opcode = header.u32()?;
    let unique = header.u64()?;
    let inode = header.u64()?;
    let body = (IN_HEADER_BYTES..=buffer.len())
        .contains(&length)
        .then(|| &buffer[IN_HEADER_BYTES..length])
        .ok_or(DecodeError {
            what: "length is outside of the buffer",
            unique: Some(unique),
        })?;
    let operation = decode_operation(opcode, Fields::new(body, Some(unique)))?;
    Ok(Request {
        unique,
        inode,
        operation,
    })
}

/// `enum fuse_opcode`. Numbers that are not here are answered with ENOSYS.
fn decode_operation(opcode: u32, mut body: Fields<'_>) -> Result<Operation, DecodeError> {
    Ok(match opcode {
        1 => Operation::Lookup { name: body.name()? },
        2 | 42 => Operation::Forget,
        3 => Operation::Getattr,
        14 => Operation::Open { flags: body.u32()? },
        15 => Operation::Read(body.range()?),
        17 => Operation::Statfs,
        18 => Operation::Release {
            handle: body.u64()?,
        },
        22 => {
            let size = body.u32()?;
            body.skip(4)?;
            let name = body.name()?;
            Operation::Getxattr { name, size }
        }
        23 => Operation::Listxattr { size: body.u32()? },
        25 => Operation::Flush,
        26 => decode_init(body)?,
        27 => Operation::Opendir,
        28 => Operation::Readdir(body.range()?),
        29 => Operation::Releasedir {
            handle: body.u64()?,
        },
        36 => Operation::Interrupt,
        38 => Operation::Destroy,
        41 => Operation::NotifyReply,
        44 => Operation::Readdirplus(body.range()?),
        20 => Operation::Fsync,
        30 => Operation::Fsyncdir,
        4 | 6 | 8..=13 | 16 | 21 | 24 | 35 | 43 | 45 | 47 | 51 | 53 => {
            Operation::Change(changes::decode(opcode, body)?)
        }
        opcode => Operation::Unsupported { opcode },
    })
}

/// `struct fuse_init_in`; the second half of the flags came with protocol 7.36.
fn decode_init(mut body: Fields<'_>) -> Result<Operation, DecodeError> {
    let major = body.u32()?;
    let minor = body.u32()?;
    body.skip(4)?;
    let low = body.u32()?;
    let high = if low & reply::INIT_EXT != 0 {
        body.u32()?
    } else {
        0
    };
    if major != 7 {
        return Err(body.error("protocol is not 7"));
    }
    let flags = u64::from(low) | u64::from(high) << 32;
    Ok(Operation::Init { minor, flags })
}

/// Takes fields off the front of a message.
struct Fields<'a> {
    rest: &'a [u8],
    unique: Option<u64>,
}

impl<'a> Fields<'a> {
    fn new(rest: &'a [u8], unique: Option<u64>) -> Self {
        Self { rest, unique }
    }

    fn error(&self, what: &'static str) -> DecodeError {
        DecodeError {
            what,
            unique: self.unique,
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.error("a field is missing"))?;
        self.rest = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_ne_bytes)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.rest = self
            .rest
            .get(bytes..)
            .ok_or_else(|| self.error("a field is missing"))?;
        Ok(())
    }

    /// A name up to its NUL.
    fn name(&mut self) -> Result<Vec<u8>, DecodeError> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or_else(|| self.error("a name has no end"))?;
        let (name, _) = self.rest.split_at(end);
        if name.is_empty() {
            return Err(self.error("a name is empty"));
        }
        Ok(name.to_vec())
    }

    fn range(&mut self) -> Result<Range, DecodeError> {
        Ok(Range {
            handle: self.u64()?,
            offset: self.u64()?,
            size: self.u32()?,
        })
    }
}

#[cfg(test)]
mod tests;
