//! Mounts for the command line, the quickstart and the CSI driver: one supervisor in this process,
//! one unprivileged daemon per mount in another.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluxio_config::Config;
use alluxio_fuse::{
    DaemonSpawner, Found, LocalSpawner, Mount, MountError, MountOptions, MountRequest, Staging,
    find_abandoned,
};
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
/// What a daemon may have in private memory beside twice its cache: stacks, buffers and what the
/// allocator sets aside without using it. A daemon in order stays far below; the limit is for a bug.
const DATA_LIMIT_BASE_BYTES: u64 = 4 << 30;
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
    metrics_socket: Option<PathBuf>,
    /// Holds the socket: a folder that only the daemon's user can write. A mount that was taken over
    /// has it from its first supervisor.
    _sockets: Option<tempfile::TempDir>,
}

/// What a mount needs beside what it shows.
pub(crate) struct Surroundings<'a> {
    /// Who its daemon runs as.
    pub owner: Owner,
    /// Gets the folder of the metrics socket.
    pub sockets: &'a Path,
    /// Where the next supervisor would find the mount.
    pub run_folder: Option<PathBuf>,
}

/// The program that a daemon is: this one, so that both sides always have one version.
pub(crate) fn local_spawner(owner: Owner) -> Result<LocalSpawner> {
    Ok(LocalSpawner {
        program: own_program()?,
        args: vec![DAEMON_COMMAND.to_owned()],
        uid: owner.uid,
        gid: owner.gid,
        writable: Vec::new(),
        data_limit_bytes: None,
    })
}

/// The same for one dataset, whose configuration says what its daemon may write and needs in memory.
fn spawner_for(
    config: &Config,
    owner: Owner,
    sockets: &Path,
    staging: Option<&Staging>,
) -> Result<LocalSpawner> {
    let log = config.logging.path.as_deref().and_then(Path::parent);
    let cache = config.client.disk_cache.as_ref().map(|c| c.path.as_path());
    let staging = staging.map(|staging| staging.folder.as_path());
    // An under-store on this machine is written like any other.
    let uri = &config.ufs.uri;
    let is_local = staging.is_some() && uri.scheme() == "file";
    let store = is_local.then(|| Path::new("/").join(uri.path().trim_start_matches('/')));
    let folders = [Some(sockets), log, cache, staging, store.as_deref()];
    let folders = folders.into_iter().flatten();
    let writable = folders.filter(|folder| folder.is_dir());
    Ok(LocalSpawner {
        writable: writable.map(Path::to_owned).collect(),
        data_limit_bytes: Some(
            DATA_LIMIT_BASE_BYTES.saturating_add(config.client.memory_limit_bytes * 2),
        ),
        ..local_spawner(owner)?
    })
}

/// This program's file as it is now: after an upgrade in place, Linux names the old one "deleted".
fn own_program() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let name = program.to_string_lossy();
    Ok(match name.strip_suffix(" (deleted)") {
        Some(replaced) if Path::new(replaced).exists() => replaced.into(),
        _ => program,
    })
}

/// Mounts that a supervisor left behind, found by their daemons.
pub(crate) async fn abandoned(run_folder: PathBuf) -> Result<Vec<Found>> {
    let found = tokio::task::spawn_blocking(move || find_abandoned(&run_folder)).await?;
    found.context("cannot look for mounts that lost their supervisor")
}

/// Replaces a mount's daemon by one of the program as it is now.
pub(crate) async fn upgrade(mount: Arc<Mount>) -> Result<Duration, MountError> {
    blocking(move || mount.upgrade()).await
}

/// How a dataset's files look by default.
pub(crate) fn options(source_name: &str) -> MountOptions {
    MountOptions {
        source_name: source_name.to_owned(),
        ..MountOptions::default()
    }
}

/// Where files of a mount that can be written lie meanwhile: a folder of its own below `all`.
pub(crate) fn staging(config: &Config, all: &Path, mountpoint: &Path) -> Option<Staging> {
    let mount = &config.mount;
    let hash = Sha256::digest(mountpoint.as_os_str().as_encoded_bytes());
    (!mount.read_only).then(|| Staging {
        folder: all.join(&hex::encode(hash)[..16]),
        capacity_bytes: mount.staging_capacity_bytes,
    })
}

/// Makes that folder, for the daemon's user alone.
fn make_staging(staging: &Staging, owner: Owner) -> Result<()> {
    let folder = staging.folder.display();
    let made = std::fs::create_dir_all(&staging.folder)
        .and_then(|()| chown(&staging.folder, Some(owner.uid), Some(owner.gid)))
        .and_then(|()| {
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(&staging.folder, mode)
        });
    made.with_context(|| format!("cannot make the staging folder {folder}"))
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

/// Goes on with a mount that was found.
pub(crate) async fn adopt(
    found: Found,
    spawner: Arc<dyn DaemonSpawner>,
) -> Result<Mount, MountError> {
    blocking(move || Mount::adopt(found, spawner)).await
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
    /// Mounts and returns when reads are served.
    pub(crate) async fn start(
        config: &Config,
        mountpoint: &Path,
        mut options: MountOptions,
        surroundings: Surroundings<'_>,
    ) -> Result<Self> {
        let owner = surroundings.owner;
        let sockets = tempfile::Builder::new()
            .prefix("sockets-")
            .tempdir_in(surroundings.sockets)?;
        chown(sockets.path(), Some(owner.uid), Some(owner.gid))
            .context("cannot give the daemon its folder")?;
        let metrics_socket = sockets
            .path()
            .join(metrics_name("local", "mount", mountpoint));
        options.metrics_socket = Some(metrics_socket.clone());
        options.staging = staging(config, &config.mount.staging_path, mountpoint);
        if let Some(staging) = &options.staging {
            make_staging(staging, owner)?;
        }
        let spawner = spawner_for(config, owner, sockets.path(), options.staging.as_ref())?;
        let request = MountRequest {
            mountpoint: mountpoint.to_owned(),
            config_yaml: config.to_yaml_with_secrets(),
            options,
            run_folder: surroundings.run_folder,
        };
        let mount = start(request, Arc::new(spawner)).await?;
        Ok(Self {
            mount: Arc::new(mount),
            metrics_socket: Some(metrics_socket),
            _sockets: Some(sockets),
        })
    }

    /// Goes on with a mount that was found, whose daemon serves what `config` says.
    pub(crate) async fn adopt(config: &Config, found: Found, owner: Owner) -> Result<Self> {
        let is_of_this_version = found.daemon_version() == env!("CARGO_PKG_VERSION");
        let sockets = found.metrics_socket().and_then(Path::parent);
        let sockets = sockets.unwrap_or(Path::new("/nonexistent"));
        let staging = staging(config, &config.mount.staging_path, found.mountpoint());
        let spawner = spawner_for(config, owner, sockets, staging.as_ref())?;
        let mount = adopt(found, Arc::new(spawner)).await?;
        let adopted = Self {
            metrics_socket: mount.options().metrics_socket.clone(),
            mount: Arc::new(mount),
            _sockets: None,
        };
        if !is_of_this_version {
            adopted.upgrade().await?;
        }
        Ok(adopted)
    }

    /// Replaces the daemon by one of this program's present file.
    pub(crate) async fn upgrade(&self) -> Result<Duration> {
        Ok(upgrade(Arc::clone(&self.mount)).await?)
    }

    /// Where the files are.
    pub(crate) fn mountpoint(&self) -> &Path {
        self.mount.mountpoint()
    }

    /// The daemon's metrics as they stand.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let socket = self.metrics_socket.as_deref();
        let socket = socket.context("this mount has no metrics socket")?;
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
