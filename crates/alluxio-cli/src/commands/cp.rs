//! `cp`: from a dataset to local disk, several files at a time, each whole or not at all.

use std::path::{Path, PathBuf};

use alluxio_client::Client;
use alluxio_wire::{FileStatus, UfsUri};
use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::AsyncWriteExt;

use crate::args::CpArguments;
use crate::commands::cat::STEP_BYTES;
use crate::{dataset, output};

/// Files at one time: enough to hide a store's latency for small files; each has its own buffer.
const PARALLEL_FILES: usize = 8;

/// One file to copy.
struct Job {
    path: String,
    destination: PathBuf,
}

/// Copies.
pub(crate) async fn run(arguments: CpArguments) -> Result<()> {
    let target = dataset::open(&arguments.dataset, &arguments.source).await?;
    let client = &target.client;
    let status = client.status(&target.path).await?;
    let bar = progress_bar(arguments.quiet);
    if status.is_directory() && !arguments.recursive {
        bail!(
            "{} is a directory: copy it with --recursive",
            status.ufs_uri
        );
    }
    let jobs = jobs(client, &target.path, &status, &arguments.destination);
    let copied = jobs
        .map(|job| async {
            let (job, length) = job?;
            bar.inc_length(length);
            copy(client, &job, arguments.force, &bar).await?;
            Ok::<_, anyhow::Error>(length)
        })
        .buffer_unordered(PARALLEL_FILES)
        .try_fold((0_u64, 0_u64), |(files, bytes), length| async move {
            Ok((files + 1, bytes + length))
        })
        .await;
    bar.finish_and_clear();
    let (files, bytes) = copied?;
    if !arguments.quiet {
        output::note(format!("copied {files} files, {}", output::size(bytes)));
    }
    Ok(())
}

/// The files to copy, with their lengths, as they are found.
fn jobs<'a>(
    client: &'a Client,
    path: &'a str,
    status: &'a FileStatus,
    destination: &'a Path,
) -> stream::BoxStream<'a, Result<(Job, u64)>> {
    if !status.is_directory() {
        let destination = if destination.is_dir() {
            destination.join(&status.name)
        } else {
            destination.to_owned()
        };
        let job = Job {
            path: path.to_owned(),
            destination,
        };
        return stream::iter([Ok((job, status.length))]).boxed();
    }
    let root = client.root().clone();
    client
        .walk(path)
        .map(move |found| {
            let found = found?;
            let uri = UfsUri::parse(&found.ufs_uri)?;
            let from_root = uri.relative_to(&root).context("a listing left its root")?;
            let below = from_root.strip_prefix(path).unwrap_or(from_root);
            let job = Job {
                path: from_root.to_owned(),
                destination: destination.join(below.trim_start_matches('/')),
            };
            Ok((job, found.length))
        })
        .boxed()
}

/// Writes beside the destination and renames, so that no half file has the final name.
async fn copy(client: &Client, job: &Job, force: bool, bar: &ProgressBar) -> Result<()> {
    let destination = &job.destination;
    let describe = || format!("cannot copy {} to {}", job.path, destination.display());
    if !force && tokio::fs::try_exists(destination).await? {
        bail!("{} exists: replace it with --force", destination.display());
    }
    let directory = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    tokio::fs::create_dir_all(directory)
        .await
        .with_context(describe)?;
    let name = destination
        .file_name()
        .context("the destination has no file name")?;
    let mut part_name = std::ffi::OsString::from(".");
    part_name.push(name);
    part_name.push(".part");
    let part = directory.join(part_name);
    let written = write(client, &job.path, &part, bar).await;
    if let Err(error) = written {
        // The first error is the one to tell; a leftover part is overwritten by the next try.
        let _ignored = tokio::fs::remove_file(&part).await;
        return Err(error).with_context(describe);
    }
    tokio::fs::rename(&part, destination)
        .await
        .with_context(describe)
}

async fn write(client: &Client, path: &str, part: &Path, bar: &ProgressBar) -> Result<()> {
    let reader = client.open(path).await?;
    let mut file = tokio::fs::File::create(part).await?;
    let mut offset = 0;
    loop {
        let read = reader.read_at(offset, STEP_BYTES).await?;
        if read.is_empty() {
            break;
        }
        for chunk in &read.chunks {
            file.write_all(chunk).await?;
        }
        offset += read.len() as u64;
        bar.inc(read.len() as u64);
    }
    file.flush().await?;
    let expected = reader.status().length;
    if offset != expected {
        bail!("{path} ended after {offset} of {expected} bytes: it changed while it was copied");
    }
    Ok(())
}

fn progress_bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    bar.set_style(style());
    bar
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}
