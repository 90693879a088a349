//! `stat`: what is known of one path, and which worker holds it.

use anyhow::Result;

use crate::args::PathArguments;
use crate::{dataset, output};

/// Shows.
pub(crate) async fn run(arguments: PathArguments) -> Result<()> {
    let target = dataset::open(&arguments.dataset, &arguments.path).await?;
    let status = target.client.status(&target.path).await?;
    let kind = if status.is_directory() {
        "directory"
    } else {
        "file"
    };
    let modified = jiff::Timestamp::from_millisecond(status.modified_ms)?;
    let mut lines = vec![
        ("uri", status.ufs_uri.clone()),
        ("kind", kind.to_owned()),
        ("modified", modified.to_string()),
    ];
    if !status.is_directory() {
        let uri = alluxio_wire::UfsUri::parse(&status.ufs_uri)?;
        let size = format!("{} ({})", status.length, output::size(status.length));
        let worker = target.client.worker_of(&target.path);
        let worker = worker.map_or("none: read from the under-store".to_owned(), |address| {
            format!("{}:{}", address.host, address.http_port)
        });
        lines.push(("size", size));
        lines.push(("version", status.version().to_string()));
        lines.push(("file id", uri.file_id().to_string()));
        lines.push(("worker", worker));
    }
    for (name, value) in lines {
        output::line(format!("{name:<9} {value}"))?;
    }
    Ok(())
}
