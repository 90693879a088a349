//! Load jobs, with options and answers as JSON: Python's half has the types that users see.

use alluxio_client::{Client, Error, ErrorKind};
use alluxio_wire::{LoadCounts, LoadOptions, LoadState, ProgressQuery, UfsUri};
use pyo3::PyResult;
use pyo3::exceptions::PyValueError;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of Alluxio's own request"
)]
struct Asked {
    verify: bool,
    bandwidth_bytes_per_second: Option<u64>,
    partial_listing: bool,
    metadata_only: bool,
    skip_if_exists: bool,
    file_filter: Option<String>,
}

#[derive(Serialize)]
struct Told {
    state: LoadState,
    path: String,
    message: String,
    is_unknown: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<LoadCounts>,
}

pub(crate) fn options(json: &str) -> PyResult<LoadOptions> {
    let asked: Asked = serde_json::from_str(json)
        .map_err(|error| PyValueError::new_err(format!("options of a load: {error}")))?;
    Ok(LoadOptions {
        verify: asked.verify,
        bandwidth_bytes_per_second: asked.bandwidth_bytes_per_second,
        partial_listing: asked.partial_listing,
        metadata_only: asked.metadata_only,
        skip_if_exists: asked.skip_if_exists,
        file_filter: asked.file_filter,
        verbose: true,
    })
}

pub(crate) async fn submit(
    client: &Client,
    path: &str,
    options: &LoadOptions,
) -> Result<String, Error> {
    let uri = uri(client, path)?;
    json(&client.loads().submit(&uri, options).await?)
}

pub(crate) async fn progress(client: &Client, path: &str, verbose: bool) -> Result<String, Error> {
    let query = ProgressQuery {
        verbose,
        ..ProgressQuery::default()
    };
    let uri = uri(client, path)?;
    let answer = client.loads().progress_with(&uri, &query).await?;
    json(&Told {
        state: answer.state,
        is_unknown: answer.is_unknown(),
        path: answer.path,
        message: answer.message,
        progress: answer.progress,
    })
}

pub(crate) async fn stop(client: &Client, path: &str) -> Result<String, Error> {
    json(&client.loads().stop(&uri(client, path)?).await?)
}

/// Loads are of whole URIs.
fn uri(client: &Client, path: &str) -> Result<UfsUri, Error> {
    let joined = client.root().join(path);
    joined.map_err(|error| Error::new(ErrorKind::InvalidInput, "load", error.to_string()))
}

fn json(answer: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(answer).map_err(|error| {
        Error::new(
            ErrorKind::Unexpected,
            "load",
            "the answer cannot be written",
        )
        .with_source(error)
    })
}
