//! Requests that change the tree: what a mount that can be written serves, and another refuses.

use super::{DecodeError, Fields};

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Makes a file in a directory and opens it.
    Create {
        /// The name, as bytes.
        name: Vec<u8>,
        /// `open(2)` flags.
        flags: u32,
    },
    /// Bytes for an open file.
    Write {
        /// The handle that the file was opened with.
        handle: u64,
        /// Where they go.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Sets attributes; only the length means something here.
    Setattr {
        /// The new length.
        size: Option<Size>,
    },
    /// Makes a directory in a directory.
    Mkdir {
        /// The name, as bytes.
        name: Vec<u8>,
    },
    /// Removes a file.
    Unlink {
        /// The name, as bytes.
        name: Vec<u8>,
    },
    /// Removes a directory.
    Rmdir {
        /// The name, as bytes.
        name: Vec<u8>,
    },
    /// Gives a file or directory another name.
    Rename {
        /// The name, as bytes.
        name: Vec<u8>,
        /// The directory that it goes to.
        new_parent: u64,
        /// Its name there.
        new_name: Vec<u8>,
        /// `renameat2(2)` flags.
        flags: u32,
    },
    /// Links, symbolic links, devices, sockets: there are none.
    MakeSpecial,
    /// Extended attributes of the caller's own: there are none.
    SetAttribute,
    /// Anything else: the kernel or the caller does it in another way.
    Other,
}

/// A new length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// In bytes.
    pub(crate) bytes: u64,
}

/// Decodes the body of a change.
pub(super) fn decode(opcode: u32, mut body: Fields<'_>) -> Result<Change, DecodeError> {
    Ok(match opcode {
        4 => decode_setattr(body)?,
        // struct fuse_mkdir_in: mode and umask, both the mount's own here.
        9 => {
            body.skip(8)?;
            Change::Mkdir { name: body.name()? }
        }
        10 => Change::Unlink { name: body.name()? },
        11 => Change::Rmdir { name: body.name()? },
        12 => decode_rename(body, false)?,
        45 => decode_rename(body, true)?,
        16 => decode_write(body)?,
        // struct fuse_create_in: flags, mode, umask, open flags.
        35 => {
            let flags = body.u32()?;
            body.skip(12)?;
            Change::Create {
                name: body.name()?,
                flags,
            }
        }
        6 | 8 | 13 | 51 => Change::MakeSpecial,
        21 | 24 => Change::SetAttribute,
        _ => Change::Other,
    })
}

/// `struct fuse_setattr_in`.
fn decode_setattr(mut body: Fields<'_>) -> Result<Change, DecodeError> {
    const SIZE_IS_VALID: u32 = 1 << 3;
    let valid = body.u32()?;
    body.skip(12)?;
    let bytes = body.u64()?;
    let size = (valid & SIZE_IS_VALID != 0).then_some(Size { bytes });
    Ok(Change::Setattr { size })
}

/// `struct fuse_rename_in` or `fuse_rename2_in`, then two names.
fn decode_rename(mut body: Fields<'_>, has_flags: bool) -> Result<Change, DecodeError> {
    let new_parent = body.u64()?;
    let flags = if has_flags { body.u32()? } else { 0 };
    if has_flags {
        body.skip(4)?;
    }
    let name = body.name()?;
    // The NUL after the first name.
    body.skip(name.len() + 1)?;
    let new_name = body.name()?;
    Ok(Change::Rename {
        name,
        new_parent,
        new_name,
        flags,
    })
}

/// `struct fuse_write_in`, then the bytes.
fn decode_write(mut body: Fields<'_>) -> Result<Change, DecodeError> {
    let handle = body.u64()?;
    let offset = body.u64()?;
    let size = body.u32()? as usize;
    body.skip(20)?;
    let Some(bytes) = body.rest.get(..size) else {
        return Err(body.error("bytes to be written are missing"));
    };
    Ok(Change::Write {
        handle,
        offset,
        bytes: bytes.to_vec(),
    })
}
