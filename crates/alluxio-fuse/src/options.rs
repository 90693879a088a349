//! What a caller asks for: a mount point, a configuration, and how the files should look.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A mount to be made.
#[derive(Clone)]
pub struct MountRequest {
    /// An existing directory.
    pub mountpoint: PathBuf,
    /// The client's configuration, secrets included; it travels in sealed memory.
    pub config_yaml: String,
    /// How the files should look.
    pub options: MountOptions,
    /// A folder for root alone (made where it is missing) with a socket for each mount, at which the
    /// next supervisor finds the daemon should this one die; none where a mount needs no next one.
    pub run_folder: Option<PathBuf>,
}

/// How the mounted files should look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// Owner of every file and directory.
    pub uid: u32,
    /// Group of every file and directory.
    pub gid: u32,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of directories.
    pub directory_mode: u32,
    /// Whether users other than the one that mounts may look inside.
    pub allow_other: bool,
    /// What `mount` and `df` show as the source, such as the UFS URI.
    pub source_name: String,
    /// Where the daemon should offer its metrics: a unix socket, as a path that the daemon sees.
    pub metrics_socket: Option<PathBuf>,
    /// Where files lie while they are written; without it the mount is read-only.
    pub staging: Option<Staging>,
}

/// Where files lie while they are written, until they are whole in the under-store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    /// A folder of this mount alone, as the daemon sees it; its user must be able to write in it. What
    /// a mount that ended without its end left in it is kept aside in `lost`.
    pub folder: PathBuf,
    /// The most bytes that lie there at one time; who writes more gets `ENOSPC`.
    pub capacity_bytes: u64,
}

impl MountOptions {
    /// Whether files can be written.
    pub fn is_writable(&self) -> bool {
        self.staging.is_some()
    }

    /// Permission bits as they show: a mount that can be written gives its owner the right to.
    pub(crate) fn shown_mode(&self, mode: u32) -> u32 {
        const OWNER_WRITES: u32 = 0o200;
        if self.is_writable() {
            mode | OWNER_WRITES
        } else {
            mode
        }
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            file_mode: 0o444,
            directory_mode: 0o555,
            allow_other: true,
            source_name: "alluxio-dataset".to_owned(),
            metrics_socket: None,
            staging: None,
        }
    }
}

impl fmt::Debug for MountRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountRequest")
            .field("mountpoint", &self.mountpoint)
            .field("config_yaml", &"[redacted]")
            .field("options", &self.options)
            .field("run_folder", &self.run_folder)
            .finish()
    }
}
