//! `cat`, `head`, `tail` and `read-bytes`: bytes to standard output, in bounded memory.

use std::ops::Range;

use alluxio_client::Client;
use alluxio_wire::parse_size;
use anyhow::Result;

use crate::args::{CatArguments, EndArguments, ReadArguments};
use crate::{dataset, output, report};

/// Bytes asked for at once: enough to let the reader fetch pages in parallel.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Writes the files, one after the other.
pub(crate) async fn run(arguments: CatArguments) -> Result<()> {
    let (client, paths) = dataset::open_all(&arguments.dataset, &arguments.paths).await?;
    let written = async {
        for path in &paths {
            write(&client, path, |_| 0..u64::MAX).await?;
        }
        Ok(())
    };
    let written = written.await;
    client.flush().await;
    // What was read before a failure is often why one asks for the report.
    if arguments.report {
        let summary = client.summary();
        output::note(if arguments.json {
            serde_json::to_string(&summary)?
        } else {
            report::text(&summary)
        });
    }
    written
}

/// The first bytes.
pub(crate) async fn head(arguments: EndArguments) -> Result<()> {
    let bytes = parse_size(&arguments.bytes)?;
    let target = dataset::open(&arguments.dataset, &arguments.path).await?;
    write(&target.client, &target.path, |_| 0..bytes).await
}

/// The last bytes.
pub(crate) async fn tail(arguments: EndArguments) -> Result<()> {
    let bytes = parse_size(&arguments.bytes)?;
    let target = dataset::open(&arguments.dataset, &arguments.path).await?;
    let last = |length: u64| length.saturating_sub(bytes)..length;
    write(&target.client, &target.path, last).await
}

/// The bytes of a range.
pub(crate) async fn range(arguments: ReadArguments) -> Result<()> {
    let offset = parse_size(&arguments.offset)?;
    let length = arguments.length.as_deref().map(parse_size).transpose()?;
    let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
    let target = dataset::open(&arguments.dataset, &arguments.path).await?;
    write(&target.client, &target.path, |_| offset..end).await
}

/// Writes the range that is wanted of a file of so many bytes.
async fn write(client: &Client, path: &str, wanted: impl FnOnce(u64) -> Range<u64>) -> Result<()> {
    let reader = client.open(path).await?;
    let Range { start, end } = wanted(reader.status().length);
    let mut offset = start;
    while offset < end {
        let step = usize::try_from(STEP_BYTES.min(end - offset))?;
        let read = reader.read_at(offset, step).await?;
        if read.is_empty() {
            break;
        }
        offset += read.len() as u64;
        for chunk in &read.chunks {
            output::bytes(chunk)?;
        }
    }
    Ok(())
}
