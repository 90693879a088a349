//! `mount`: a supervisor here, a daemon without rights beside it.
//!
//! Where a mount stands already whose supervisor is gone, this process becomes its supervisor. On
//! SIGHUP the daemon is replaced by one of the program's present file.

use std::path::{Path, PathBuf};

use alluxio_config::{Config, LogFormat};
use alluxio_fuse::daemon::Daemon;
use alluxio_fuse::{CONTROL_FD, Found, find_abandoned_at};
use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::MountArguments;
use crate::mounting::{self, Mounted, Owner, Surroundings};
use crate::{dataset, logs, output, signals};

/// Mounts, until a signal or somebody's `umount`.
pub(crate) async fn run(arguments: MountArguments) -> Result<()> {
    let (mut config, mountpoint) = places(&arguments)?;
    config.mount.read_only &= !arguments.read_write;
    let config = config;
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
    let (uri, place) = (&config.ufs.uri, mountpoint.display());
    let mounted = match standing(&arguments.run_folder, &mountpoint).await? {
        Some(found) if found.source_name() != uri.as_str() => {
            let other = found.source_name();
            bail!("{place} shows {other} and its supervisor is gone; `umount {place}` first");
        }
        Some(found) => {
            output::note(format!(
                "{uri} is mounted at {place} already, without a supervisor: taking it over"
            ));
            Mounted::adopt(&config, found, owner).await
        }
        None => {
            let surroundings = Surroundings {
                owner,
                sockets: sockets.path(),
                run_folder: Some(arguments.run_folder.clone()),
            };
            Mounted::start(&config, &mountpoint, options, surroundings).await
        }
    };
    let mounted = mounted.with_context(|| format!("cannot mount {uri}"))?;
    output::note(format!(
        "{uri} is mounted at {place}; Ctrl-C or `umount {place}` ends it"
    ));
    tokio::select! {
        over = mounted.wait() => over,
        () = ended => mounted.unmount().await,
        never = upgrade_when_asked(&mounted) => never,
    }
}

/// The mount at a path that has lost its supervisor.
async fn standing(run_folder: &Path, mountpoint: &Path) -> Result<Option<Found>> {
    let Ok(mountpoint) = mountpoint.canonicalize() else {
        // Not there, or dead: the attempt to mount says what is wrong.
        return Ok(None);
    };
    let run_folder = run_folder.to_owned();
    let find = move || find_abandoned_at(&run_folder, &mountpoint);
    let found = tokio::task::spawn_blocking(find).await?;
    Ok(found.filter(|found| found.is_mounted().unwrap_or(false)))
}

/// Replaces the daemon at each SIGHUP.
async fn upgrade_when_asked(mounted: &Mounted) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    while hangup.recv().await.is_some() {
        match mounted.upgrade().await {
            Ok(pause) => {
                let pause_ms = pause.as_millis();
                output::note(format!(
                    "the daemon was replaced; readers waited {pause_ms} ms"
                ));
            }
            Err(error) => tracing::warn!(%error, "the daemon was not replaced"),
        }
    }
    std::future::pending().await
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
