//! `mount`: a supervisor here, a daemon without rights beside it.

use std::path::{Path, PathBuf};

use alluxio_config::{Config, LogFormat};
use alluxio_fuse::CONTROL_FD;
use alluxio_fuse::daemon::Daemon;
use anyhow::{Context, Result, bail};

use crate::args::MountArguments;
use crate::mounting::{self, Mounted, Owner};
use crate::{dataset, logs, output, signals};

/// Mounts, until a signal or somebody's `umount`.
pub(crate) async fn run(arguments: MountArguments) -> Result<()> {
    let (config, mountpoint) = places(&arguments)?;
    let logging = &config.logging;
    logs::start(&logging.level, logging.path.as_deref(), logging.format)?;
    mounting::check_possible()?;
    let ended = signals::end()?;
    let mut options = mounting::options(config.ufs.uri.as_str());
    (options.uid, options.gid) = (arguments.uid, arguments.gid);
    (options.file_mode, options.directory_mode) = (arguments.file_mode, arguments.directory_mode);
    let owner = Owner {
        uid: arguments.daemon_uid,
        gid: arguments.daemon_uid,
    };
    let sockets = tempfile::Builder::new()
        .prefix("alluxio-dataset-")
        .tempdir()?;
    mounting::let_others_enter(sockets.path())?;
    let mounted = Mounted::start(&config, &mountpoint, options, owner, sockets.path())
        .await
        .with_context(|| format!("cannot mount {}", config.ufs.uri))?;
    let (uri, place) = (&config.ufs.uri, mountpoint.display());
    output::note(format!(
        "{uri} is mounted at {place}; Ctrl-C or `umount {place}` ends it"
    ));
    tokio::select! {
        over = mounted.wait() => over,
        () = ended => mounted.unmount().await,
    }
}

/// What to mount, and where.
fn places(arguments: &MountArguments) -> Result<(Config, PathBuf)> {
    let (uri, mountpoint) = match arguments.places.as_slice() {
        [uri, mountpoint] => (Some(uri), mountpoint),
        [mountpoint] if arguments.dataset.config.is_some() => (None, mountpoint),
        _ => bail!("name the dataset's URI and the mount point, or the mount point and --config"),
    };
    let (mut config, path) = match uri {
        Some(uri) => dataset::resolve(&arguments.dataset, uri)?,
        None => dataset::resolve(&arguments.dataset, "")?,
    };
    config.ufs.uri = config.ufs.uri.join(&path)?;
    // The daemon has another environment: what this one offers is taken along.
    config.ufs.credentials = dataset::from_environment(config.ufs.credentials);
    Ok((config, Path::new(mountpoint).to_owned()))
}

/// The daemon's main: it serves what its supervisor hands over, and reports its own failures to it.
pub(crate) fn daemon() -> Result<()> {
    let daemon = Daemon::receive(CONTROL_FD)?;
    if let Ok(config) = daemon.config() {
        let logging = &config.logging;
        // A file that this user cannot write is no reason not to serve.
        if logs::start(&logging.level, logging.path.as_deref(), logging.format).is_err() {
            logs::start(&logging.level, None, LogFormat::Text)?;
        }
    }
    Ok(daemon.run()?)
}
