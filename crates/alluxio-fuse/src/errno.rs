//! What an application is told when something fails: the one place where an error becomes an errno.
//!
//! POSIX has fewer words than we have kinds. Where no word fits, the application gets `EIO` and the
//! log has the story; see [`TreeError`].

use alluxio_client::ErrorKind;

use crate::tree::TreeError;

/// A positive error number of the kernel.
pub(crate) type Errno = i32;

/// The error number for a failure below the mount.
pub(crate) fn errno(error: &TreeError) -> Errno {
    match error.kind {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::IsDirectory => libc::EISDIR,
        ErrorKind::NotDirectory => libc::ENOTDIR,
        ErrorKind::AlreadyExists => libc::EEXIST,
        ErrorKind::NotEmpty => libc::ENOTEMPTY,
        ErrorKind::PermissionDenied => libc::EACCES,
        ErrorKind::InvalidInput => libc::EINVAL,
        // The file was replaced while it was open: its old bytes are gone, and new ones must not
        // be mixed with what was read before.
        ErrorKind::Stale => libc::ESTALE,
        ErrorKind::TimedOut => libc::ETIMEDOUT,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        ErrorKind::NoSpace => libc::ENOSPC,
        // Retries and fallbacks are behind us already; EAGAIN would make applications spin.
        ErrorKind::Unavailable
        | ErrorKind::Throttled
        | ErrorKind::Corrupt
        | ErrorKind::Unexpected => libc::EIO,
    }
}

/// Whether the answer hides a cause that whoever runs the mount should read in the log.
pub(crate) fn deserves_a_warning(errno: Errno) -> bool {
    matches!(
        errno,
        libc::EIO | libc::ETIMEDOUT | libc::EACCES | libc::ESTALE
    )
}
