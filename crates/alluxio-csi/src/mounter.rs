//! The seam between the driver and whatever mounts: FUSE in the product, a tmpfs in tests.
//!
//! The driver calls a [`Mounter`] from a task that survives its caller, bounds each call with a
//! deadline (a call that passes it is dropped), and looks into the kernel's mount table afterwards,
//! so an implementation need not be trusted to have done what it says.

use std::path::{Path, PathBuf};

use alluxio_config::Config;
use async_trait::async_trait;

use crate::host;
use crate::volume::{DatasetName, MountOptions};

/// Everything that is needed to mount one volume.
#[derive(Debug, Clone)]
pub struct VolumeMount {
    /// The volume's name in the cluster.
    pub volume_id: String,
    /// The dataset that it shows.
    pub dataset: DatasetName,
    /// An existing folder on which to mount.
    pub mountpoint: PathBuf,
    /// The client's configuration, credentials included; its Debug does not show them.
    pub config: Config,
    /// Who owns the files and with which modes they show.
    pub options: MountOptions,
}

/// How full a mounted volume is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes free.
    pub available_bytes: u64,
    /// Files and folders that fit.
    pub total_inodes: u64,
    /// Files and folders that exist.
    pub used_inodes: u64,
    /// Files and folders that still fit.
    pub available_inodes: u64,
}

/// What kind of failure a mounter reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountErrorKind {
    /// The configuration cannot work.
    InvalidConfig,
    /// The under-store or the kernel refused.
    PermissionDenied,
    /// Something needed does not answer now; a retry may help.
    Unavailable,
    /// It took too long.
    TimedOut,
    /// The mount is there and its server is gone.
    Dead,
    /// Anything else.
    Internal,
}

/// Why a mounter failed. The message names object, cause and remedy, and no secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct MountError {
    /// What kind of failure this is.
    pub kind: MountErrorKind,
    /// Object, cause and remedy.
    pub message: String,
}

/// Mounts and unmounts volumes on this node.
#[async_trait]
pub trait Mounter: Send + Sync + 'static {
    /// Mounts `volume` on its mountpoint and returns when reads are served there. Dropping the
    /// future must leave nothing behind that [`Mounter::unmount`] cannot clear.
    async fn mount(&self, volume: &VolumeMount) -> Result<(), MountError>;

    /// Ends the mount at `mountpoint` and what serves it. A path that is not mounted, or that this
    /// process never mounted, is no error.
    async fn unmount(&self, mountpoint: &Path) -> Result<(), MountError>;

    /// How full the volume mounted at `path` is; [`MountErrorKind::Dead`] where its server is gone.
    async fn usage(&self, path: &Path) -> Result<VolumeUsage, MountError> {
        host::usage(path, host::Patience::default()).await
    }

    /// What users should know of a mount although it serves, such as that it is slower than it could
    /// be; `device` is its `MAJ:MIN`, as the mount table has it.
    async fn remark(&self, _device: &str) -> Option<String> {
        None
    }

    /// Whether a mount could be made now.
    async fn ready(&self) -> bool {
        true
    }
}

impl MountError {
    /// An error of `kind` whose message names object, cause and remedy.
    pub fn new(kind: MountErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}
