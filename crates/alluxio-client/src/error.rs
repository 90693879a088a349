//! Why a call of the client failed: a kind to act on, and a text that names object, cause, remedy.
//!
//! Callers match on [`ErrorKind`] alone: FUSE turns it into an errno, CSI into a gRPC code, each in
//! one table. An error can be cloned because many readers may wait for one page.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use alluxio_ufs::{UfsError, UfsErrorKind};

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such file or directory.
    NotFound,
    /// A file operation on a directory.
    IsDirectory,
    /// A directory operation on a file.
    NotDirectory,
    /// It exists already.
    AlreadyExists,
    /// A directory that holds something was to be removed.
    NotEmpty,
    /// The store refuses these credentials.
    PermissionDenied,
    /// The request cannot be right, whatever the state of the cluster.
    InvalidInput,
    /// The file changed since it was opened; open it again.
    Stale,
    /// Neither workers nor UFS could be reached; worth another try.
    Unavailable,
    /// The store asks for fewer requests; worth another try, later.
    Throttled,
    /// No answer in time; worth another try.
    TimedOut,
    /// Bytes or answers that are not what they claim to be.
    Corrupt,
    /// Possible in principle, not with this configuration or store.
    Unsupported,
    /// No room left.
    NoSpace,
    /// None of the above.
    Unexpected,
}

/// A failed call of the client.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    context: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The result of a call of the client.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind in `operation`; `context` names the object, the cause and the remedy.
    pub fn new(kind: ErrorKind, operation: &'static str, context: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            context: context.into(),
            source: None,
        }
    }

    /// The same with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// An error of the under-store, met in `operation`. It names its object itself.
    pub fn from_ufs(operation: &'static str, error: &UfsError) -> Self {
        Self::new(kind_of_ufs(error.kind()), operation, error.to_string())
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done, such as `read` or `list`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Whether the same call may work later without a change.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::TimedOut
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    /// The cause of the cause: the cause itself is part of this error's own text.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().and_then(|source| source.source())
    }
}

fn kind_of_ufs(kind: UfsErrorKind) -> ErrorKind {
    match kind {
        UfsErrorKind::NotFound => ErrorKind::NotFound,
        UfsErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        UfsErrorKind::IsDirectory => ErrorKind::IsDirectory,
        UfsErrorKind::NotDirectory => ErrorKind::NotDirectory,
        UfsErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        UfsErrorKind::NotEmpty => ErrorKind::NotEmpty,
        UfsErrorKind::Changed => ErrorKind::Stale,
        UfsErrorKind::Throttled => ErrorKind::Throttled,
        UfsErrorKind::TimedOut => ErrorKind::TimedOut,
        UfsErrorKind::Unavailable => ErrorKind::Unavailable,
        UfsErrorKind::InvalidInput => ErrorKind::InvalidInput,
        UfsErrorKind::Unsupported => ErrorKind::Unsupported,
        UfsErrorKind::NoSpace => ErrorKind::NoSpace,
        UfsErrorKind::Unexpected => ErrorKind::Unexpected,
    }
}
