//! `mounter`: starts daemons for the CSI node plugin, in a pod without any privilege, and offers
//! the metrics of all of them as one.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use alluxio_config::LogFormat;
use alluxio_fuse::agent;
use alluxio_telemetry::health::Health;
use alluxio_telemetry::metrics::{self, LabelledText, MetricsSource};
use anyhow::{Context, Result};

use crate::args::{MounterArguments, UNPRIVILEGED_ID};
use crate::mounting::{self, METRICS_ENDING, Owner};
use crate::{logs, signals};

/// Serves until a signal; the daemons go with the pod.
pub(crate) async fn run(arguments: MounterArguments) -> Result<()> {
    let service = &arguments.service;
    logs::start(&service.log, None, log_format(service.log_json))?;
    let ended = signals::end()?;
    let listener = listen(&arguments.socket)
        .with_context(|| format!("cannot listen on {}", arguments.socket.display()))?;
    // Without root the daemons run as this process does, whatever is named here.
    let spawner = mounting::local_spawner(Owner {
        uid: UNPRIVILEGED_ID,
        gid: UNPRIVILEGED_ID,
    })?;
    let health = Health::ready();
    let folder = arguments
        .socket
        .parent()
        .unwrap_or(Path::new("/"))
        .to_owned();
    let gathered = folder.clone();
    let source = MetricsSource::from_fn(move || gather(gathered.clone()));
    let _server = match service.metrics_listen {
        Some(address) => Some(metrics::serve(address, source, health).await?),
        None => None,
    };
    tracing::info!(socket = %arguments.socket.display(), "mounter is ready");
    let serving = tokio::task::spawn_blocking(move || agent::serve(&listener, &spawner));
    let result = tokio::select! {
        failed = serving => Ok(failed??),
        () = ended => Ok(()),
    };
    // The daemons end with this pod, and a socket that nobody serves is only litter on the node.
    for socket in sockets(&folder).into_iter().chain([arguments.socket]) {
        let _gone = std::fs::remove_file(socket);
    }
    result
}

/// How log lines look in a pod.
pub(crate) fn log_format(json: bool) -> LogFormat {
    if json {
        LogFormat::Json
    } else {
        LogFormat::Text
    }
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    // The plugin is root; the agent checks who connects besides.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Asks every daemon that has a socket in the folder; one that is gone has its socket removed, one
/// that is slow is left out this time.
async fn gather(folder: PathBuf) -> String {
    let asked = sockets(&folder).into_iter().map(|socket| async move {
        let told = mounting::metrics(&socket).await;
        (socket, told)
    });
    let mut texts = Vec::new();
    for (socket, told) in futures::future::join_all(asked).await {
        match told {
            Ok(text) => texts.push((dataset_of(&socket), text)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // Another scrape may have been faster.
                let _gone = std::fs::remove_file(&socket);
            }
            Err(error) => {
                tracing::warn!(socket = %socket.display(), %error, "a mount tells no metrics");
            }
        }
    }
    let labels: Vec<_> = texts
        .iter()
        .map(|(dataset, _)| [("dataset", dataset.as_str())])
        .collect();
    let parts: Vec<_> = texts
        .iter()
        .zip(&labels)
        .map(|((_, text), labels)| LabelledText { labels, text })
        .collect();
    metrics::merge(&parts)
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sockets: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(METRICS_ENDING))
        .collect();
    sockets.sort();
    sockets
}

/// `namespace_name_hash.metrics` -> `namespace/name`.
fn dataset_of(socket: &Path) -> String {
    let name = socket.file_stem().unwrap_or_default().to_string_lossy();
    let dataset = name
        .rsplit_once('_')
        .map_or(name.as_ref(), |(dataset, _)| dataset);
    dataset.replacen('_', "/", 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_socket_tells_its_dataset() {
        let name = mounting::metrics_name("vision", "imagenet", Path::new("/x"));
        assert_eq!(dataset_of(&Path::new("/run").join(name)), "vision/imagenet");
    }

    #[tokio::test]
    async fn a_daemon_that_is_gone_leaves_no_socket() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join(format!("a_b_c{METRICS_ENDING}"));
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(gather(folder.path().to_owned()).await, "");
        assert!(!socket.exists());
    }
}
