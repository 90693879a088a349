//! The client's errors as Python's own exceptions: one exhaustive `match`.
//!
//! Each one carries errno, text and path as the exceptions of `open()` do: `error.errno`,
//! `error.strerror`, `error.filename`. The text names operation, object, cause and remedy.
//!
//! | kind | exception | errno |
//! |---|---|---|
//! | `NotFound` | `FileNotFoundError` | ENOENT |
//! | `IsDirectory` | `IsADirectoryError` | EISDIR |
//! | `NotDirectory` | `NotADirectoryError` | ENOTDIR |
//! | `AlreadyExists` | `FileExistsError` | EEXIST |
//! | `NotEmpty` | `OSError` | ENOTEMPTY |
//! | `PermissionDenied` | `PermissionError` | EACCES |
//! | `InvalidInput` | `ValueError` | |
//! | `Stale` | `OSError` | ESTALE |
//! | `Unavailable` | `ConnectionError` | EHOSTUNREACH |
//! | `Throttled` | `OSError` | EBUSY |
//! | `TimedOut` | `TimeoutError` | ETIMEDOUT |
//! | `Corrupt`, `Unexpected` | `OSError` | EIO |
//! | `Unsupported` | `OSError` | EOPNOTSUPP |
//! | `NoSpace` | `OSError` | ENOSPC |

use alluxio_client::{Error, ErrorKind};
use pyo3::PyErr;
use pyo3::exceptions::{
    PyConnectionError, PyFileExistsError, PyFileNotFoundError, PyIsADirectoryError,
    PyNotADirectoryError, PyOSError, PyPermissionError, PyTimeoutError, PyValueError,
};

/// Linux' numbers of errors.
mod errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EIO: i32 = 5;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EBUSY: i32 = 16;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ENOTDIR: i32 = 20;
    pub(super) const EISDIR: i32 = 21;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const ENOTEMPTY: i32 = 39;
    pub(super) const EOPNOTSUPP: i32 = 95;
    pub(super) const ETIMEDOUT: i32 = 110;
    pub(super) const EHOSTUNREACH: i32 = 113;
    pub(super) const ESTALE: i32 = 116;
}

/// The exception for an error met at `path`.
pub(crate) fn exception(path: &str, error: &Error) -> PyErr {
    let text = error.to_string();
    let of = |number: i32| (number, text.clone(), path.to_owned());
    match error.kind() {
        ErrorKind::NotFound => PyFileNotFoundError::new_err(of(errno::ENOENT)),
        ErrorKind::IsDirectory => PyIsADirectoryError::new_err(of(errno::EISDIR)),
        ErrorKind::NotDirectory => PyNotADirectoryError::new_err(of(errno::ENOTDIR)),
        ErrorKind::AlreadyExists => PyFileExistsError::new_err(of(errno::EEXIST)),
        ErrorKind::NotEmpty => PyOSError::new_err(of(errno::ENOTEMPTY)),
        ErrorKind::PermissionDenied => PyPermissionError::new_err(of(errno::EACCES)),
        ErrorKind::InvalidInput => PyValueError::new_err(text),
        ErrorKind::Stale => PyOSError::new_err(of(errno::ESTALE)),
        ErrorKind::Unavailable => PyConnectionError::new_err(of(errno::EHOSTUNREACH)),
        ErrorKind::Throttled => PyOSError::new_err(of(errno::EBUSY)),
        ErrorKind::TimedOut => PyTimeoutError::new_err(of(errno::ETIMEDOUT)),
        ErrorKind::Corrupt | ErrorKind::Unexpected => PyOSError::new_err(of(errno::EIO)),
        ErrorKind::Unsupported => PyOSError::new_err(of(errno::EOPNOTSUPP)),
        ErrorKind::NoSpace => PyOSError::new_err(of(errno::ENOSPC)),
    }
}
