//! `cat`: files' bytes to standard output, in bounded memory.

use alluxio_client::Client;
use anyhow::{Context, Result};

use crate::args::CatArguments;
use crate::dataset::Target;
use crate::{dataset, output, report};

/// Bytes asked for at once: enough to let the reader fetch pages in parallel.
pub(crate) const STEP_BYTES: usize = 4 * 1024 * 1024;

/// Writes the files, one after the other.
pub(crate) async fn run(arguments: CatArguments) -> Result<()> {
    let mut paths = arguments.paths.iter();
    let first = paths.next().context("no file given")?;
    let target = dataset::open(&arguments.dataset, first).await?;
    let written = rest(&arguments, &target, paths).await;
    target.client.flush().await;
    // What was read before a failure is often why one asks for the report.
    if arguments.report {
        let summary = target.client.summary();
        output::note(if arguments.json {
            serde_json::to_string(&summary)?
        } else {
            report::text(&summary)
        });
    }
    written
}

/// The first file is the one that told the dataset.
async fn rest(
    arguments: &CatArguments,
    target: &Target,
    paths: impl Iterator<Item = &String>,
) -> Result<()> {
    write(&target.client, &target.path).await?;
    for path in paths {
        let (config, path) = dataset::resolve(&arguments.dataset, path)?;
        let root = target.client.root();
        if config.ufs.uri != *root {
            anyhow::bail!("{path} is not below {root}: read one prefix at a time, or use --config");
        }
        write(&target.client, &path).await?;
    }
    Ok(())
}

async fn write(client: &Client, path: &str) -> Result<()> {
    let reader = client.open(path).await?;
    let mut offset = 0;
    loop {
        let read = reader.read_at(offset, STEP_BYTES).await?;
        if read.is_empty() {
            return Ok(());
        }
        offset += read.len() as u64;
        for chunk in &read.chunks {
            output::bytes(chunk)?;
        }
    }
}
