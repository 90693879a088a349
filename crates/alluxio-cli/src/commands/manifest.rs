//! `manifest`: take a listing of a dataset into a file, look into it, compare it with the store.

use std::path::Path;

use alluxio_client::Client;
use alluxio_client::manifest::{Change, Manifest, ManifestSummary, diff};
use alluxio_wire::FileStatus;
use anyhow::{Context, Result, bail};

use crate::args::{ManifestArguments, ManifestCreate, ManifestShow, ManifestVerify};
use crate::{dataset, output};

/// Differences told one by one; the rest are counted.
const CHANGES_SHOWN: usize = 20;

/// What `verify` counts.
#[derive(Default)]
struct Drift {
    added: usize,
    removed: usize,
    replaced: usize,
}

/// Creates, shows or verifies.
pub(crate) async fn run(arguments: ManifestArguments) -> Result<()> {
    match arguments {
        ManifestArguments::Create(arguments) => create(arguments).await,
        ManifestArguments::Show(arguments) => show(&arguments),
        ManifestArguments::Verify(arguments) => verify(arguments).await,
    }
}

async fn create(arguments: ManifestCreate) -> Result<()> {
    let target = dataset::open_live(&arguments.dataset, &arguments.path).await?;
    take(&target.client, &target.path, &arguments.output).await
}

/// Takes a manifest and tells what is in it.
pub(crate) async fn take(client: &Client, path: &str, file: &Path) -> Result<()> {
    let summary = client.take_manifest(path, file).await?;
    output::note(format!("{}: {}", file.display(), in_words(&summary)));
    Ok(())
}

fn show(arguments: &ManifestShow) -> Result<()> {
    let manifest = open(&arguments.file)?;
    let path = arguments.path.trim_matches('/');
    let status = manifest.lookup(path);
    let Some(status) = status else {
        bail!("`{path}` is not in {}", arguments.file.display());
    };
    if arguments.files && status.is_directory() {
        return manifest.below(path).try_for_each(|status| line(&status));
    }
    if path.is_empty() && !arguments.files {
        let summary = manifest.summary();
        output::line(in_words(&summary))?;
        output::line(format!("of {}", summary.root))?;
        let taken = jiff::Timestamp::from_millisecond(summary.taken_ms)?;
        output::line(format!("taken {taken:.0}"))?;
        return Ok(());
    }
    match manifest.list(path).filter(|_| status.is_directory()) {
        Some(entries) => entries.iter().try_for_each(line),
        None => line(&status),
    }
}

async fn verify(arguments: ManifestVerify) -> Result<()> {
    let before = open(&arguments.file)?;
    let target = dataset::open_live(&arguments.dataset, before.root().as_str()).await?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let now = folder.path().join("now");
    target.client.take_manifest(&target.path, &now).await?;
    let drift = report(&before, &open(&now)?);
    if drift.added + drift.removed + drift.replaced == 0 {
        let summary = in_words(&before.summary());
        return Ok(output::line(format!("unchanged: {summary}"))?);
    }
    bail!(
        "{} files were replaced, {} removed and {} added since the manifest was taken; take a new \
         one with `alluxio-dataset manifest create`",
        drift.replaced,
        drift.removed,
        drift.added
    )
}

fn report(before: &Manifest, after: &Manifest) -> Drift {
    let mut drift = Drift::default();
    for (number, change) in diff(before, after).enumerate() {
        let text = match &change {
            Change::Added(file) => {
                drift.added += 1;
                format!("added: {}", file.ufs_uri)
            }
            Change::Removed(file) => {
                drift.removed += 1;
                format!("removed: {}", file.ufs_uri)
            }
            Change::Replaced { before, after } => {
                drift.replaced += 1;
                let (old, new) = (before.version(), after.version());
                format!("replaced: {} was {old}, is {new}", after.ufs_uri)
            }
        };
        if number < CHANGES_SHOWN {
            output::note(text);
        }
    }
    drift
}

/// A command reads one manifest at a time, so the mount's limit is not its.
fn open(file: &Path) -> Result<Manifest> {
    Ok(Manifest::open(file, u64::MAX)?)
}

fn in_words(summary: &ManifestSummary) -> String {
    format!(
        "{} files in {} directories, {}",
        summary.files,
        summary.directories,
        output::size(summary.bytes)
    )
}

fn line(status: &FileStatus) -> Result<()> {
    let path = status.path.trim_start_matches('/');
    if status.is_directory() {
        return Ok(output::line(format!("{:>14}  {path}/", "-"))?);
    }
    let version = status.version();
    Ok(output::line(format!(
        "{:>14}  {path}  {version}",
        status.length
    ))?)
}
