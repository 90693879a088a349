//! What can go wrong in a Node call, and the gRPC code that says so.
//!
//! The code decides what the kubelet does next: it retries most of them, but `Aborted` and
//! `DeadlineExceeded` also make it keep a volume as "uncertain" and unmount it later, which is right
//! for a call that may still be running. The table is one exhaustive match, so a new variant cannot
//! be added without deciding its code.

use std::io;
use std::path::PathBuf;

use tonic::{Code, Status};

use crate::mounter::{MountError, MountErrorKind};
use crate::volume::VolumeError;

/// Why a Node call failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A field that the interface requires is empty.
    #[error("request has no {field}: the interface requires it; the caller must set it")]
    MissingField {
        /// The field's name in the interface.
        field: &'static str,
    },
    /// A path that is not absolute.
    #[error("{field} {path}: not an absolute path without '..'; give the path as the host sees it")]
    BadPath {
        /// The field's name in the interface.
        field: &'static str,
        /// What was given.
        path: PathBuf,
    },
    /// The volume context is not one of ours, or broken.
    #[error("volume {volume}: {source}")]
    Volume {
        /// The volume.
        volume: String,
        /// What is wrong with it.
        source: VolumeError,
    },
    /// The volume cannot be used in the way asked for.
    #[error("volume {volume}: {cause}; {remedy}")]
    Capability {
        /// The volume.
        volume: String,
        /// What cannot be done.
        cause: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// Another call for the same volume or path is running.
    #[error("volume {volume}: another call for it is still running; retry when it has ended")]
    Busy {
        /// The volume.
        volume: String,
    },
    /// Something else is mounted at the staging path.
    #[error(
        "volume {volume}: {path} is staged already with {difference}; unstage it before staging \
         it anew"
    )]
    StagedDifferently {
        /// The volume.
        volume: String,
        /// The staging path.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// Something else is mounted at the target path.
    #[error(
        "volume {volume}: something else is mounted at {path}; unpublish it before publishing there"
    )]
    PublishedDifferently {
        /// The volume.
        volume: String,
        /// The target path.
        path: PathBuf,
    },
    /// The volume is not staged where the call says.
    #[error("volume {volume}: not staged at {path} ({cause}); call NodeStageVolume first")]
    NotStaged {
        /// The volume.
        volume: String,
        /// The staging path.
        path: PathBuf,
        /// What was found instead.
        cause: &'static str,
    },
    /// Nothing is mounted at the path.
    #[error("volume {volume}: nothing is mounted at {path}; publish the volume there first")]
    NotFound {
        /// The volume.
        volume: String,
        /// The path.
        path: PathBuf,
    },
    /// The mounter could not mount or unmount.
    #[error("volume {volume}: {source}")]
    Mount {
        /// The volume.
        volume: String,
        /// What the mounter said.
        source: MountError,
    },
    /// A system call failed.
    #[error("{path}: {operation} failed: {source}; see the node's kernel log")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call did not return in time.
    #[error("{path}: {operation} did not return within {seconds} s; the mount may be hung")]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// How long it was waited for.
        seconds: f64,
    },
    /// Too many system calls hang already.
    #[error(
        "{path}: {operation} was not tried: {stuck} calls hang on other mounts of this node; find \
         the hung mounts in the log"
    )]
    TooManyStuck {
        /// What was to be tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// How many hang.
        stuck: usize,
    },
    /// Unmounting said it worked, and the kernel's table says it did not.
    #[error("volume {volume}: {path} is still mounted after unmounting it; see the node's log")]
    StillMounted {
        /// The volume.
        volume: String,
        /// The path.
        path: PathBuf,
    },
    /// The task that served the call ended without an answer.
    #[error("the call ended without an answer: {cause}; this is a bug")]
    Lost {
        /// What became of it.
        cause: String,
    },
}

impl NodeError {
    /// The gRPC code of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::MissingField { .. }
            | Self::BadPath { .. }
            | Self::Volume { .. }
            | Self::Capability { .. } => Code::InvalidArgument,
            Self::Busy { .. } => Code::Aborted,
            Self::StagedDifferently { .. } | Self::PublishedDifferently { .. } => {
                Code::AlreadyExists
            }
            Self::NotStaged { .. } => Code::FailedPrecondition,
            Self::NotFound { .. } => Code::NotFound,
            Self::TimedOut { .. } => Code::DeadlineExceeded,
            Self::TooManyStuck { .. } => Code::Unavailable,
            Self::System { .. } | Self::StillMounted { .. } | Self::Lost { .. } => Code::Internal,
            Self::Mount { source, .. } => match source.kind {
                MountErrorKind::InvalidConfig => Code::InvalidArgument,
                MountErrorKind::PermissionDenied => Code::PermissionDenied,
                MountErrorKind::Unavailable => Code::Unavailable,
                MountErrorKind::TimedOut => Code::DeadlineExceeded,
                MountErrorKind::Dead | MountErrorKind::Internal => Code::Internal,
            },
        }
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        Status::new(error.code(), error.to_string())
    }
}
