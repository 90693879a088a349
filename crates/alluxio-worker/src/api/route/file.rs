//! The enterprise worker's requests: bytes of whole files, and changes. Parameters are named as the
//! published Python SDK sends them.

use alluxio_wire::{FileId, UfsUri, parse_size};

use super::{Asked, named};
use crate::api::query::Query;
use crate::changes::Change;
use crate::failure::Failure;
use crate::ranges::{Extent, RangeRequest};

/// Bytes that `head` and `tail` give when nobody says how many: the SDK's own default.
const DEFAULT_END_BYTES: u64 = 1024;

/// Bytes of a piece of `chunk` when nobody says how many: the SDK's own default.
const DEFAULT_CHUNK_BYTES: u64 = 1024 * 1024;

/// The file that `ufsFullPath` names, which these requests cannot do without.
fn file(root: &UfsUri, id: &str, query: &Query) -> Result<(FileId, UfsUri), Failure> {
    query.required("ufsFullPath")?;
    named_in(root, id, "ufsFullPath", query)
}

fn named_in(
    root: &UfsUri,
    id: &str,
    name: &str,
    query: &Query,
) -> Result<(FileId, UfsUri), Failure> {
    query.required(name)?;
    let (file, uri) = named(root, id, name, query)?;
    let uri = uri.ok_or_else(|| Failure::bad_request(format!("`{name}` is missing")))?;
    Ok((file, uri))
}

fn bytes_of(
    root: &UfsUri,
    id: &str,
    query: &Query,
    extent: Extent,
) -> Result<RangeRequest, Failure> {
    let (file, uri) = file(root, id, query)?;
    Ok(RangeRequest { file, uri, extent })
}

pub(super) fn chunks(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    let chunk = query.number("chunkSize")?.unwrap_or(DEFAULT_CHUNK_BYTES);
    if chunk == 0 {
        return Err(Failure::bad_request(
            "chunkSize is 0; it must be at least 1",
        ));
    }
    let whole = bytes_of(root, id, query, Extent::Whole)?;
    Ok(Asked::Chunks(
        whole,
        usize::try_from(chunk).unwrap_or(usize::MAX),
    ))
}

pub(super) fn range(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    let offset = query.number("offset")?.unwrap_or_default();
    // The SDK writes -1 for all that is left.
    let length = match query.get("length") {
        Some("-1") => None,
        _ => query.number("length")?,
    };
    let extent = Extent::Range { offset, length };
    Ok(Asked::Range(bytes_of(root, id, query, extent)?))
}

pub(super) fn head(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    let extent = Extent::First(end_bytes(query)?);
    Ok(Asked::Range(bytes_of(root, id, query, extent)?))
}

pub(super) fn tail(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    let extent = Extent::Last(end_bytes(query)?);
    Ok(Asked::Range(bytes_of(root, id, query, extent)?))
}

/// A number, or one with a unit such as `1KB`.
fn end_bytes(query: &Query) -> Result<u64, Failure> {
    let bytes = query.get("numOfBytes").map(parse_size).transpose();
    let bytes = bytes.map_err(|error| Failure::bad_request(format!("numOfBytes: {error}")))?;
    Ok(bytes.unwrap_or(DEFAULT_END_BYTES))
}

pub(super) fn write(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    Ok(Asked::WriteFile(file(root, id, query)?.1))
}

pub(super) fn mkdir(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    Ok(Asked::Change(Change::Mkdir(file(root, id, query)?.1)))
}

pub(super) fn touch(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    Ok(Asked::Change(Change::Touch(file(root, id, query)?.1)))
}

pub(super) fn rm(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    let (_, uri) = file(root, id, query)?;
    if query.flag("remove_alluxio_only") {
        return Ok(Asked::Change(Change::Forget(uri)));
    }
    let recursive = query.flag("recursive") || query.flag("recursiveAlias");
    Ok(Asked::Change(Change::Remove { uri, recursive }))
}

pub(super) fn mv(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    let (from, to) = from_and_to(root, id, query)?;
    Ok(Asked::Change(Change::Move { from, to }))
}

pub(super) fn copy(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    let (from, to) = from_and_to(root, id, query)?;
    Ok(Asked::Change(Change::Copy {
        from,
        to,
        recursive: query.flag("recursive") || query.flag("recursiveAlias"),
        replace: query.flag("forced"),
    }))
}

/// The id is the source's.
fn from_and_to(root: &UfsUri, id: &str, query: &Query) -> Result<(UfsUri, UfsUri), Failure> {
    let (_, from) = named_in(root, id, "srcPath", query)?;
    let to = super::resolve(root, query.required("dstPath")?)?;
    Ok((from, to))
}
