//! `ring`: who owns what, and what would move if workers came or went. Nothing is changed.

use alluxio_client::ring::HashRing;
use alluxio_client::{Client, WorkerSet};
use alluxio_wire::{UfsUri, WorkerId};
use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt as _;
use serde::Serialize;

use crate::args::RingArguments;
use crate::{dataset, output};

/// Alluxio's HTTP port.
const DEFAULT_PORT: u16 = 28080;
/// Owners of a file that are shown: more are never asked for it.
const OWNERS: usize = 4;

/// What is shown.
#[derive(Debug, Serialize)]
struct Report {
    fingerprint: String,
    policy: &'static str,
    virtual_nodes_per_worker: u32,
    workers: Vec<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owners: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<DryRun>,
}

/// A worker and its part of all files, 0 to 1.
#[derive(Debug, Serialize)]
struct Share {
    worker: String,
    share: f64,
}

/// What another set of workers would own.
#[derive(Debug, Serialize)]
struct DryRun {
    fingerprint: String,
    workers: usize,
    /// The part of all names that another worker would own, 0 to 1.
    moved_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<FolderChange>,
}

/// The files of a folder that another worker would own.
#[derive(Debug, Default, Serialize)]
struct FolderChange {
    files: u64,
    moved_files: u64,
    bytes: u64,
    moved_bytes: u64,
}

/// Shows.
pub(crate) async fn run(arguments: RingArguments) -> Result<()> {
    let path = arguments.path.as_deref().unwrap_or_default();
    let target = dataset::open(&arguments.dataset, path).await?;
    let set = target.client.workers();
    if set.is_empty() {
        bail!("the cluster has no workers; name some with --workers, --etcd or --config");
    }
    let status = match &arguments.path {
        Some(_) => Some(target.client.status(&target.path).await?),
        None => None,
    };
    let mut report = report(&set);
    if let Some(status) = status.as_ref().filter(|status| !status.is_directory()) {
        let uri = UfsUri::parse(&status.ufs_uri)?;
        let owners = set.owners(&uri, OWNERS);
        report.owners = Some(owners.iter().map(|owner| name(&set, &owner.id)).collect());
    }
    if !arguments.add.is_empty() || !arguments.remove.is_empty() {
        let after = changed(&set, &arguments)?;
        let folder = match &status {
            Some(_) => Some(moved(&target.client, &target.path, set.ring(), &after).await?),
            None => None,
        };
        report.dry_run = Some(DryRun {
            fingerprint: after.fingerprint(),
            workers: after.workers().len(),
            moved_share: set.ring().moved_share(&after),
            folder,
        });
    }
    if arguments.json {
        output::line(serde_json::to_string_pretty(&report)?)?;
        return Ok(());
    }
    for line in lines(&report, &arguments) {
        output::line(line)?;
    }
    Ok(())
}

fn report(set: &WorkerSet) -> Report {
    let ring = set.ring();
    let mut workers: Vec<_> = ring
        .shares()
        .into_iter()
        .map(|(id, share)| Share {
            worker: name(set, &id),
            share,
        })
        .collect();
    workers.sort_by(|a, b| a.worker.cmp(&b.worker));
    Report {
        fingerprint: ring.fingerprint(),
        policy: ring.shape().policy.label(),
        virtual_nodes_per_worker: ring.shape().virtual_nodes,
        workers,
        owners: None,
        dry_run: None,
    }
}

/// The ring after workers joined and left.
fn changed(set: &WorkerSet, arguments: &RingArguments) -> Result<HashRing> {
    let mut ids = set.ring().workers().to_vec();
    for text in &arguments.remove {
        let (host, port) = host_and_port(text)?;
        let leaving = set.find(host, port).with_context(|| {
            format!(
                "no worker listens at {host}:{port}; `alluxio-dataset ring` shows those there are"
            )
        })?;
        ids.retain(|id| *id != leaving.id);
    }
    for text in &arguments.add {
        let (host, port) = host_and_port(text)?;
        if set.find(host, port).is_some() {
            bail!("the worker {host}:{port} is on the ring already");
        }
        ids.push(WorkerId::from_host(host));
    }
    ids.sort_unstable_by_key(|id| (id.identifier, id.version));
    Ok(HashRing::of_shape(&ids, set.ring().shape()))
}

async fn moved(
    client: &Client,
    path: &str,
    before: &HashRing,
    after: &HashRing,
) -> Result<FolderChange> {
    let mut moved = FolderChange::default();
    let mut files = client.walk(path);
    while let Some(file) = files.try_next().await? {
        moved.files += 1;
        moved.bytes += file.length;
        let uri = UfsUri::parse(&file.ufs_uri)?;
        if before.pick(uri.as_str(), 1) != after.pick(uri.as_str(), 1) {
            moved.moved_files += 1;
            moved.moved_bytes += file.length;
        }
    }
    Ok(moved)
}

fn lines(report: &Report, arguments: &RingArguments) -> Vec<String> {
    let mut lines = vec![format!(
        "ring {}: {}, {} virtual nodes a worker, {} workers",
        report.fingerprint,
        report.policy,
        report.virtual_nodes_per_worker,
        report.workers.len()
    )];
    for Share { worker, share } in &report.workers {
        lines.push(format!("  {:>5.1} %  {worker}", share * 100.0));
    }
    if let Some(owners) = &report.owners {
        let path = arguments.path.as_deref().unwrap_or_default();
        lines.push(format!("{path} is owned by {}", owners.join(", then ")));
    }
    if let Some(run) = &report.dry_run {
        let mut what = Vec::new();
        if !arguments.add.is_empty() {
            what.push(format!("{} added", arguments.add.join(", ")));
        }
        if !arguments.remove.is_empty() {
            what.push(format!("{} removed", arguments.remove.join(", ")));
        }
        lines.push(format!(
            "with {}: ring {} of {} workers, {:.1} % of files change their owner",
            what.join(" and "),
            run.fingerprint,
            run.workers,
            run.moved_share * 100.0
        ));
        if let Some(folder) = &run.folder {
            lines.push(format!(
                "  here {} of {} files, {} of {}",
                folder.moved_files,
                folder.files,
                output::size(folder.moved_bytes),
                output::size(folder.bytes)
            ));
        }
    }
    lines
}

/// A worker by its address, or by its identity while it has none.
fn name(set: &WorkerSet, id: &WorkerId) -> String {
    match set.get(id) {
        Some(worker) => format!("{}:{}", worker.address.host, worker.address.http_port),
        None => id.to_string(),
    }
}

fn host_and_port(text: &str) -> Result<(&str, u16)> {
    match text.rsplit_once(':') {
        Some((host, port)) => {
            let port = port
                .parse()
                .with_context(|| format!("`{text}` is not host[:port]"))?;
            Ok((host, port))
        }
        None => Ok((text, DEFAULT_PORT)),
    }
}
