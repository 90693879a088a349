//! `ls`: a directory's entries, or everything below it.

use alluxio_wire::FileStatus;
use anyhow::Result;
use futures::TryStreamExt;

use crate::args::LsArguments;
use crate::{dataset, output};

/// Lists.
pub(crate) async fn run(arguments: LsArguments) -> Result<()> {
    let target = dataset::open(&arguments.dataset, &arguments.path).await?;
    let print = |status: &FileStatus, name: &str| -> Result<()> {
        let slash = if status.is_directory() { "/" } else { "" };
        if arguments.long {
            let length = status.length;
            // An object store has no time for a common prefix.
            let modified = match status.modified_ms {
                0 => "-".to_owned(),
                time => format!("{:.0}", jiff::Timestamp::from_millisecond(time)?),
            };
            output::line(format!("{length:>14}  {modified:>20}  {name}{slash}"))?;
        } else {
            output::line(format!("{name}{slash}"))?;
        }
        Ok(())
    };
    let status = target.client.status(&target.path).await?;
    if !status.is_directory() {
        return print(&status, &status.name);
    }
    if !arguments.recursive {
        for entry in target.client.list(&target.path).await?.iter() {
            print(entry, &entry.name)?;
        }
        return Ok(());
    }
    let root = target.client.root().join(&target.path)?;
    let mut files = std::pin::pin!(target.client.walk(&target.path));
    while let Some(status) = files.try_next().await? {
        let uri = alluxio_wire::UfsUri::parse(&status.ufs_uri)?;
        print(&status, uri.relative_to(&root).unwrap_or(&status.ufs_uri))?;
    }
    Ok(())
}
