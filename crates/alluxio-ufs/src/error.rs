//! Why the under-store could not do something: object, cause and remedy, and a kind to match on.

use std::fmt;
use std::time::Duration;

use alluxio_config::StoreKind;
use alluxio_wire::UfsUri;

/// Characters of a store's own words that are repeated. Some stores answer with a whole HTML page.
const MAX_CAUSE_CHARS: usize = 400;

/// What went wrong, as callers act on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UfsErrorKind {
    /// Nothing has this name.
    NotFound,
    /// The store refuses these credentials this object.
    PermissionDenied,
    /// A file was wanted, a directory is there.
    IsDirectory,
    /// A directory was wanted, a file is there.
    NotDirectory,
    /// Something has this name already.
    AlreadyExists,
    /// A directory that holds something was to be removed.
    NotEmpty,
    /// The store has another version than the one that was asked for.
    Changed,
    /// The store asks to slow down.
    Throttled,
    /// No answer in time.
    TimedOut,
    /// The store cannot be reached or fails for now.
    Unavailable,
    /// The request itself cannot be served: a bad URI or configuration.
    InvalidInput,
    /// The store cannot do this at all.
    Unsupported,
    /// The store is full, or a quota is.
    NoSpace,
    /// Anything else.
    Unexpected,
}

/// A failed operation on the under-store.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}: {cause}; {remedy}")]
pub struct UfsError {
    kind: UfsErrorKind,
    operation: &'static str,
    object: String,
    cause: String,
    remedy: String,
}

/// The operation and object that an error will name.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    operation: &'static str,
    object: String,
}

impl UfsError {
    /// What went wrong, for a decision.
    pub fn kind(&self) -> UfsErrorKind {
        self.kind
    }

    /// Whether the same request may succeed later, without a change by anyone.
    pub fn retryable(&self) -> bool {
        matches!(
            self.kind,
            UfsErrorKind::Throttled | UfsErrorKind::TimedOut | UfsErrorKind::Unavailable
        )
    }

    /// The same error as one that may pass: what a store says of a range that it is known to have is
    /// not final.
    #[must_use]
    pub(crate) fn into_passing(mut self) -> Self {
        if self.kind == UfsErrorKind::Unexpected {
            self.kind = UfsErrorKind::Unavailable;
        }
        self
    }

    /// The URI that the operation was about.
    pub fn object(&self) -> &str {
        &self.object
    }
}

impl fmt::Display for UfsErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::PermissionDenied => "permission denied",
            Self::IsDirectory => "is a directory",
            Self::NotDirectory => "not a directory",
            Self::AlreadyExists => "already exists",
            Self::NotEmpty => "not empty",
            Self::Changed => "changed",
            Self::Throttled => "throttled",
            Self::TimedOut => "timed out",
            Self::Unavailable => "unavailable",
            Self::InvalidInput => "invalid input",
            Self::Unsupported => "unsupported",
            Self::NoSpace => "no space",
            Self::Unexpected => "unexpected",
        })
    }
}

impl Subject {
    pub(crate) fn new(operation: &'static str, uri: &UfsUri) -> Self {
        Self {
            operation,
            object: uri.to_string(),
        }
    }

    pub(crate) fn error(
        &self,
        kind: UfsErrorKind,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> UfsError {
        let mut cause = cause.into();
        if let Some((cut, _)) = cause.char_indices().nth(MAX_CAUSE_CHARS) {
            cause.truncate(cut);
            cause.push('…');
        }
        UfsError {
            kind,
            operation: self.operation,
            object: self.object.clone(),
            cause,
            remedy: remedy.into(),
        }
    }

    pub(crate) fn not_found(&self) -> UfsError {
        self.error(
            UfsErrorKind::NotFound,
            "nothing has this name in the store (404)",
            "check the name, upper and lower case too, and that it was not deleted",
        )
    }

    pub(crate) fn invalid(&self, cause: impl Into<String>, remedy: &str) -> UfsError {
        self.error(UfsErrorKind::InvalidInput, cause, remedy)
    }

    pub(crate) fn unavailable(&self, cause: impl Into<String>) -> UfsError {
        self.error(
            UfsErrorKind::Unavailable,
            cause,
            "check the endpoint and the network, or try again later",
        )
    }

    pub(crate) fn timed_out(&self, after: Duration) -> UfsError {
        self.error(
            UfsErrorKind::TimedOut,
            format!("no answer within {} s", after.as_secs()),
            "check the network and the store's load",
        )
    }

    pub(crate) fn is_directory(&self) -> UfsError {
        self.error(
            UfsErrorKind::IsDirectory,
            "it is a directory",
            "name a file in it",
        )
    }

    pub(crate) fn not_directory(&self) -> UfsError {
        self.error(
            UfsErrorKind::NotDirectory,
            "it is a file",
            "name the directory that it lies in",
        )
    }

    pub(crate) fn already_exists(&self) -> UfsError {
        self.error(
            UfsErrorKind::AlreadyExists,
            "something has this name already",
            "remove it first, choose another name, or allow that it is replaced",
        )
    }

    pub(crate) fn not_empty(&self) -> UfsError {
        self.error(
            UfsErrorKind::NotEmpty,
            "the directory holds something",
            "remove it with all below it, if that is what you want",
        )
    }

    pub(crate) fn unsupported(&self, cause: impl Into<String>) -> UfsError {
        self.error(
            UfsErrorKind::Unsupported,
            cause,
            "use a store that can, such as s3:// or file://",
        )
    }

    pub(crate) fn changed(&self, wanted: &impl fmt::Display) -> UfsError {
        self.error(
            UfsErrorKind::Changed,
            format!("the store has no longer the version {wanted}"),
            "ask for the file's status again and read that version",
        )
    }
}

/// The refusal of a scheme that no store here serves.
pub(crate) fn unsupported_scheme(uri: &UfsUri) -> UfsError {
    let served: Vec<_> = StoreKind::schemes().collect();
    let remedy = format!("use one of those that are: {}", served.join(", "));
    Subject::new("use", uri).invalid(
        format!("the scheme `{}` is not supported", uri.scheme()),
        &remedy,
    )
}
