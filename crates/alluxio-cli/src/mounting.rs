//! Mounts for the command line, the quickstart and the CSI driver: one supervisor in this process,
//! one unprivileged daemon per mount in another.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluxio_config::Config;
use alluxio_fuse::{DaemonSpawner, LocalSpawner, Mount, MountError, MountOptions, MountRequest};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// The subcommand that serves one mount.
const DAEMON_COMMAND: &str = "mount-daemon";
/// How long a daemon may take to write its metrics: it does so from memory.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read as metrics; a daemon writes some 20 KiB.
const MAX_METRICS_BYTES: u64 = 4 * 1024 * 1024;
/// The ending of a daemon's metrics socket.
pub(crate) const METRICS_ENDING: &str = ".metrics";

/// Who a daemon runs as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A running mount of this process; dropping it unmounts.
pub(crate) struct Mounted {
    mount: Arc<Mount>,
    metrics_socket: PathBuf,
    /// Holds the socket: a folder that only the daemon's user can write.
    _sockets: tempfile::TempDir,
}

/// The program that a daemon is: this one, so that both sides always have one version.
pub(crate) fn local_spawner(owner: Owner) -> Result<LocalSpawner> {
    Ok(LocalSpawner {
        program: std::env::current_exe().context("cannot find this program's own file")?,
        args: vec![DAEMON_COMMAND.to_owned()],
        uid: owner.uid,
        gid: owner.gid,
    })
}

/// How a dataset's files look by default.
pub(crate) fn options(source_name: &str) -> MountOptions {
    MountOptions {
        source_name: source_name.to_owned(),
        ..MountOptions::default()
    }
}

/// Whether this process can mount at all, told before any work was done.
pub(crate) fn check_possible() -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        bail!(
            "there is no /dev/fuse: load the kernel module (modprobe fuse), or give the container the device"
        );
    }
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        bail!(
            "mount(2) needs root: run with sudo. What parses remote data runs unprivileged even then"
        );
    }
    Ok(())
}

/// Lets the daemon's user pass through a folder that was made for root alone.
pub(crate) fn let_others_enter(folder: &Path) -> Result<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
    Ok(())
}

/// The name of a daemon's metrics socket: who it is, and a hash so that mounts never share one.
///
/// `_` parts it because no Kubernetes name has one; it is cut, since a socket's path is at most 107
/// bytes long.
pub(crate) fn metrics_name(namespace: &str, name: &str, mountpoint: &Path) -> String {
    const LONGEST_NAME: usize = 48;
    let hash = Sha256::digest(mountpoint.as_os_str().as_encoded_bytes());
    let mut who = format!("{namespace}_{name}");
    who.truncate(who.floor_char_boundary(LONGEST_NAME));
    format!("{who}_{}{METRICS_ENDING}", &hex::encode(hash)[..8])
}

/// Starts a mount on a blocking thread, since it waits for its daemon.
pub(crate) async fn start(
    request: MountRequest,
    spawner: Arc<dyn DaemonSpawner>,
) -> Result<Mount, MountError> {
    blocking(move || Mount::start(request, spawner)).await
}

/// Ends a mount on a blocking thread.
pub(crate) async fn unmount(mount: Arc<Mount>) -> Result<(), MountError> {
    blocking(move || mount.unmount()).await
}

/// Waits until a mount ends, on a blocking thread.
pub(crate) async fn wait(mount: Arc<Mount>) -> Result<(), MountError> {
    blocking(move || mount.wait()).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MountError> + Send + 'static,
) -> Result<T, MountError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(MountError::Daemon(error.to_string())))
}

/// Reads a daemon's metrics.
pub(crate) async fn metrics(socket: &Path) -> std::io::Result<String> {
    let read = async {
        let stream = UnixStream::connect(socket).await?;
        let mut text = String::new();
        stream
            .take(MAX_METRICS_BYTES)
            .read_to_string(&mut text)
            .await?;
        Ok(text)
    };
    tokio::time::timeout(METRICS_TIMEOUT, read).await?
}

impl Mounted {
    /// Mounts and returns when reads are served; `sockets` gets the metrics socket's folder.
    pub(crate) async fn start(
        config: &Config,
        mountpoint: &Path,
        mut options: MountOptions,
        owner: Owner,
        sockets: &Path,
    ) -> Result<Self> {
        let sockets = tempfile::Builder::new()
            .prefix("sockets-")
            .tempdir_in(sockets)?;
        chown(sockets.path(), Some(owner.uid), Some(owner.gid))
            .context("cannot give the daemon its folder")?;
        let metrics_socket = sockets
            .path()
            .join(metrics_name("local", "mount", mountpoint));
        options.metrics_socket = Some(metrics_socket.clone());
        let request = MountRequest {
            mountpoint: mountpoint.to_owned(),
            config_yaml: config.to_yaml_with_secrets(),
            options,
        };
        let mount = start(request, Arc::new(local_spawner(owner)?)).await?;
        Ok(Self {
            mount: Arc::new(mount),
            metrics_socket,
            _sockets: sockets,
        })
    }

    /// Where the files are.
    pub(crate) fn mountpoint(&self) -> &Path {
        self.mount.mountpoint()
    }

    /// The daemon's metrics as they stand.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let socket = &self.metrics_socket;
        let told = metrics(socket).await;
        told.with_context(|| format!("no metrics from {}", socket.display()))
    }

    /// Waits until somebody unmounts.
    pub(crate) async fn wait(&self) -> Result<()> {
        Ok(wait(Arc::clone(&self.mount)).await?)
    }

    /// Ends the mount and its daemon.
    pub(crate) async fn unmount(&self) -> Result<()> {
        Ok(unmount(Arc::clone(&self.mount)).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_sockets_are_short_and_never_shared() {
        let long = "n".repeat(253);
        let name = |mountpoint: &str| metrics_name("vision", &long, Path::new(mountpoint));
        assert!(name("/a").len() < 70, "{}", name("/a"));
        assert_ne!(name("/a"), name("/b"));
        assert!(name("/a").starts_with("vision_nnn"));
    }
}
