//! Requests about loads, with Alluxio's names of their options.

use alluxio_wire::{LoadOp, LoadOptions, UfsUri};

use super::resolve;
use crate::api::query::Query;
use crate::failure::Failure;
use crate::load::Question;

/// A request about the load of a path.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::api) struct LoadRequest {
    pub(in crate::api) uri: UfsUri,
    pub(in crate::api) op: LoadOp,
    pub(in crate::api) options: LoadOptions,
    pub(in crate::api) question: Question,
}

pub(super) fn load(root: &UfsUri, query: &Query) -> Result<LoadRequest, Failure> {
    let word = query.required("opType")?;
    let op = LoadOp::parse(word).ok_or_else(|| {
        Failure::bad_request(format!(
            "opType is `{word}`; it must be submit, progress or stop"
        ))
    })?;
    let json_report = match query.get("progressFormat") {
        None | Some("TEXT") => false,
        Some("JSON") => true,
        Some(other) => {
            return Err(Failure::bad_request(format!(
                "progressFormat is `{other}`; it must be TEXT or JSON"
            )));
        }
    };
    let page_number = |name| {
        let number = query.number(name)?;
        Ok::<_, Failure>(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
    };
    Ok(LoadRequest {
        uri: resolve(root, query.required("path")?)?,
        op,
        options: LoadOptions {
            verify: query.flag("verify"),
            bandwidth_bytes_per_second: query.number("bandwidth")?.filter(|rate| *rate > 0),
            partial_listing: query.flag("partialListing"),
            metadata_only: query.flag("loadMetadataOnly"),
            skip_if_exists: query.flag("skipIfExists"),
            file_filter: query.get("fileFilterRegx").map(str::to_owned),
            verbose: query.flag("verbose"),
        },
        question: Question {
            json_report,
            verbose: query.flag("verbose"),
            failed_offset: page_number("failedOffset")?.unwrap_or_default(),
            failed_limit: page_number("failedLimit")?,
        },
    })
}
