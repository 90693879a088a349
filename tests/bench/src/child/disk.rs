//! The disk cache: filling it, reading from it, opening it, and the plain read beside it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use alluxio_client::Client;
use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};

use super::client::{connect, runtime, sequential};
use super::local::STEP_BYTES;
use super::{Taken, Watch};

/// How often a file is read before all of it lies on the disk: a reader that is faster than the disk
/// leaves pages out.
const FILLS: usize = 20;
/// Small files that are read before the writer is waited for: its queue has room for them.
const FILES_AT_A_TIME: usize = 500;

/// Reads a file until all of it comes from the disk.
pub(super) fn fill(config: &Path, path: &str) -> Result<Taken> {
    for _ in 0..FILLS {
        let (runtime, client) = connect(config)?;
        let is_there = runtime.block_on(async {
            let (bytes, from_disk) = sequential(&client.open(path).await?).await?;
            client.flush().await;
            anyhow::Ok(bytes == from_disk)
        })?;
        if is_there {
            return Ok(Taken::default());
        }
    }
    bail!("{path} is not whole on the disk after {FILLS} reads")
}

/// Reads a file of which all is on the disk.
pub(super) fn file(config: &Path, path: &str) -> Result<Taken> {
    let (runtime, client) = connect(config)?;
    runtime.block_on(async {
        let reader = client.open(path).await?;
        let watch = Watch::start();
        let (bytes, from_disk) = sequential(&reader).await?;
        let taken = watch.stop(bytes, bytes / STEP_BYTES as u64);
        if from_disk != reader.status().length {
            bail!("{from_disk} of {bytes} bytes came from the disk");
        }
        Ok(taken)
    })
}

/// The limit: the same bytes by the system call alone, into one buffer.
pub(super) fn plain(file: &Path) -> Result<Taken> {
    let file = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut block = vec![0; STEP_BYTES];
    let mut offset = 0;
    let watch = Watch::start();
    loop {
        let read = file.read_at(&mut block, offset)? as u64;
        if read == 0 {
            return Ok(watch.stop(offset, offset / STEP_BYTES as u64));
        }
        offset += read;
    }
}

/// Reads all files of a folder into the disk cache.
pub(super) fn fill_folder(config: &Path, path: &str) -> Result<Taken> {
    let (runtime, client) = connect(config)?;
    runtime.block_on(async {
        let listed = client.list(path).await?;
        for some in listed.chunks(FILES_AT_A_TIME) {
            futures::stream::iter(some)
                .map(|status| read_small(&client, format!("{path}/{}", status.name)))
                .buffer_unordered(8)
                .try_for_each(|_| async { Ok(()) })
                .await?;
            client.flush().await;
        }
        Ok(Taken::default())
    })
}

/// Opens a client whose disk cache holds so many files.
pub(super) fn open(config: &Path, path: &str, files: u64) -> Result<Taken> {
    let (runtime, config) = runtime(config)?;
    runtime.block_on(async {
        let watch = Watch::start();
        let client = Client::connect(&config).await?;
        let taken = watch.stop(0, 1);
        let held = client
            .metrics()
            .registry()
            .gather()
            .iter()
            .find(|family| family.name() == "alluxio_client_disk_cache_files")
            .and_then(|family| {
                family
                    .get_metric()
                    .first()
                    .map(|m| m.get_gauge().get_value())
            })
            .context("the client tells no number of files in its disk cache")?;
        #[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
        if (held - files as f64).abs() > 0.5 {
            bail!("the disk cache holds {held} files instead of {files}");
        }
        if read_small(&client, path.to_owned()).await? == 0 {
            bail!("{path} did not come from the disk");
        }
        Ok(taken)
    })
}

/// Reads a file and tells how many bytes of it came from the disk.
async fn read_small(client: &Client, path: String) -> Result<u64> {
    let (_, from_disk) = sequential(&client.open(&path).await?).await?;
    Ok(from_disk)
}
