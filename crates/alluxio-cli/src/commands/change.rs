//! `write-bytes`, `touch`, `mkdir` and `rm`: changes of one name after the other.

use alluxio_client::{Client, ErrorKind, RemoveOptions, TouchOptions, WriteMode, WriteOptions};
use anyhow::{Context, Result, bail};
use tokio::io::AsyncReadExt;

use super::transfer::with_remedy;
use crate::args::{MkdirArguments, RmArguments, TouchArguments, WriteArguments};
use crate::{dataset, output};

/// Bytes taken from standard input at once.
const STEP_BYTES: u64 = 1024 * 1024;

/// A file of what comes by standard input.
pub(crate) async fn write_bytes(arguments: WriteArguments) -> Result<()> {
    let target = dataset::open(&arguments.dataset, &arguments.path).await?;
    let mode = if arguments.force {
        WriteMode::Replace
    } else {
        WriteMode::CreateNew
    };
    let options = WriteOptions {
        mode,
        expected_bytes: None,
    };
    let written = fill(&target.client, &target.path, options).await;
    // Away with the parts of a write that failed.
    target.client.flush().await;
    written
}

async fn fill(client: &Client, path: &str, options: WriteOptions) -> Result<()> {
    let writer = client.create(path, options).await;
    let mut writer = writer.map_err(with_remedy)?;
    let mut input = tokio::io::stdin().take(STEP_BYTES);
    loop {
        // A pipe gives little at a time, and what waits to be sent should be full.
        let mut bytes = Vec::new();
        let read = input.read_to_end(&mut bytes).await;
        read.context("standard input cannot be read")?;
        let is_end = (bytes.len() as u64) < STEP_BYTES;
        writer.write(bytes.into()).await?;
        if is_end {
            break;
        }
        input.set_limit(STEP_BYTES);
    }
    writer.finish().await.map_err(with_remedy)?;
    Ok(())
}

/// Files that exist afterwards.
pub(crate) async fn touch(arguments: TouchArguments) -> Result<()> {
    let (client, paths) = dataset::open_all(&arguments.dataset, &arguments.paths).await?;
    let options = TouchOptions {
        truncate: arguments.truncate,
    };
    for path in &paths {
        client.touch(path, options).await?;
    }
    Ok(())
}

/// Directories that exist afterwards.
pub(crate) async fn mkdir(arguments: MkdirArguments) -> Result<()> {
    let (client, paths) = dataset::open_all(&arguments.dataset, &arguments.paths).await?;
    for path in &paths {
        client.mkdir(path).await?;
    }
    Ok(())
}

/// What is gone afterwards.
pub(crate) async fn rm(arguments: RmArguments) -> Result<()> {
    let (client, paths) = dataset::open_all(&arguments.dataset, &arguments.paths).await?;
    let mut files = 0;
    for path in &paths {
        match remove(&client, path, &arguments).await {
            Ok(removed) => files += removed,
            Err(error) if arguments.force && is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if !arguments.quiet {
        output::note(format!("removed {files} files"));
    }
    Ok(())
}

async fn remove(client: &Client, path: &str, arguments: &RmArguments) -> Result<u64> {
    if path.is_empty() && !arguments.even_root {
        bail!(
            "{} is the root of the dataset: remove what is in it, or all of it with --recursive \
             --even-root",
            client.root()
        );
    }
    if !arguments.recursive && !arguments.dir && client.info(path).await?.is_directory() {
        let uri = client.root().join(path)?;
        bail!("{uri} is a directory: remove it with --recursive, or with --dir if it is empty");
    }
    let options = RemoveOptions {
        recursive: arguments.recursive,
        even_root: arguments.even_root,
    };
    Ok(client.rm(path, options).await?.files)
}

fn is_missing(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<alluxio_client::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::NotFound)
}
