//! `info` and `isdir`: what is known of one path, and which worker holds it.

use alluxio_client::Client;
use alluxio_wire::{FileStatus, UfsUri};
use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::args::PathArguments;
use crate::exit::Ended;
use crate::{dataset, output};

/// A file or directory, as JSON tells it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    /// As it was asked for, or below what was.
    name: &'a str,
    uri: &'a str,
    /// `file` or `directory`.
    kind: &'static str,
    size_bytes: u64,
    /// Not of a common prefix, for which object stores have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// What is known beside it of one file.
#[derive(Debug, Serialize)]
struct Known<'a> {
    #[serde(flatten)]
    shown: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_id: Option<String>,
    /// The one that the ring names.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
}

/// Shows.
pub(crate) async fn run(arguments: PathArguments) -> Result<()> {
    let target = dataset::open(&arguments.dataset, &arguments.path).await?;
    let status = target.client.info(&target.path).await?;
    let known = known(&target.client, &target.path, &status)?;
    if arguments.json {
        return output::json(&known);
    }
    let shown = &known.shown;
    let modified = shown.modified.map(|time| time.to_string());
    let mut lines = vec![
        ("uri", shown.uri.to_owned()),
        ("kind", shown.kind.to_owned()),
        ("modified", modified.unwrap_or_else(|| "-".to_owned())),
    ];
    if let (Some(version), Some(id)) = (&shown.version, &known.file_id) {
        let worker = known.worker.clone();
        let size = format!("{} ({})", shown.size_bytes, output::size(shown.size_bytes));
        lines.push(("size", size));
        lines.push(("version", version.clone()));
        lines.push(("file id", id.clone()));
        lines.push((
            "worker",
            worker.unwrap_or_else(|| "none: read from the under-store".to_owned()),
        ));
    }
    for (name, value) in lines {
        output::line(format!("{name:<9} {value}"))?;
    }
    Ok(())
}

/// Tells whether a path is a directory, by word and exit code.
pub(crate) async fn is_directory(arguments: PathArguments) -> Result<()> {
    // What cannot be found out must not look like a no.
    let failed = |error: anyhow::Error| Ended {
        message: format!("{error:#}"),
        code: 2,
    };
    let found = async {
        let target = dataset::open(&arguments.dataset, &arguments.path).await?;
        Ok(target.client.isdir(&target.path).await?)
    };
    let is_directory = found.await.map_err(failed)?;
    output::line(is_directory)?;
    if is_directory {
        return Ok(());
    }
    let message = String::new();
    Err(Ended { message, code: 1 }.into())
}

impl<'a> Shown<'a> {
    /// An entry under the name that it is shown by.
    pub(crate) fn new(status: &'a FileStatus, name: &'a str) -> Result<Self> {
        let is_directory = status.is_directory();
        Ok(Self {
            name,
            uri: &status.ufs_uri,
            kind: if is_directory { "directory" } else { "file" },
            size_bytes: status.length,
            modified: time(status)?,
            version: (!is_directory).then(|| status.version().to_string()),
        })
    }
}

/// When it was modified, where the store tells.
pub(crate) fn time(status: &FileStatus) -> Result<Option<Timestamp>> {
    Ok(match status.modified_ms {
        0 => None,
        time => Some(Timestamp::from_millisecond(time)?),
    })
}

fn known<'a>(client: &Client, path: &'a str, status: &'a FileStatus) -> Result<Known<'a>> {
    let name = if path.is_empty() { &status.name } else { path };
    let shown = Shown::new(status, name)?;
    if status.is_directory() {
        return Ok(Known {
            shown,
            file_id: None,
            worker: None,
        });
    }
    let uri = UfsUri::parse(&status.ufs_uri)?;
    let worker = client.worker_of(path);
    Ok(Known {
        shown,
        file_id: Some(uri.file_id().to_string()),
        worker: worker.map(|address| format!("{}:{}", address.host, address.http_port)),
    })
}
