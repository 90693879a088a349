//! `ls`: a directory's entries, or everything below it.

use alluxio_wire::FileStatus;
use anyhow::Result;
use futures::TryStreamExt;

use super::info::{Shown, time};
use crate::args::LsArguments;
use crate::{dataset, output};

/// Lists.
pub(crate) async fn run(arguments: LsArguments) -> Result<()> {
    let target = dataset::open(&arguments.dataset, &arguments.path).await?;
    let print = |status: &FileStatus, name: &str| -> Result<()> {
        if arguments.json {
            return output::json(&Shown::new(status, name)?);
        }
        let slash = if status.is_directory() { "/" } else { "" };
        if arguments.long {
            let length = status.length;
            let modified = time(status)?.map_or("-".to_owned(), |time| format!("{time:.0}"));
            output::line(format!("{length:>14}  {modified:>20}  {name}{slash}"))?;
        } else {
            output::line(format!("{name}{slash}"))?;
        }
        Ok(())
    };
    if !arguments.recursive {
        for entry in target.client.ls(&target.path).await?.iter() {
            print(entry, &entry.name)?;
        }
        return Ok(());
    }
    let status = target.client.info(&target.path).await?;
    if !status.is_directory() {
        return print(&status, &status.name);
    }
    let root = target.client.root().join(&target.path)?;
    let mut files = std::pin::pin!(target.client.walk(&target.path));
    while let Some(status) = files.try_next().await? {
        let uri = alluxio_wire::UfsUri::parse(&status.ufs_uri)?;
        print(&status, uri.relative_to(&root).unwrap_or(&status.ufs_uri))?;
    }
    Ok(())
}
