//! From a request's method and target to what is asked for. Pure.

mod file;
mod load;

use alluxio_wire::{FileId, FileVersion, UfsUri};
use axum::http::{Method, Uri};

pub(super) use self::load::LoadRequest;
use super::query::Query;
use crate::changes::Change;
use crate::failure::{Failure, FailureKind};
use crate::pages::PageRequest;
use crate::ranges::RangeRequest;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Health,
    Ready,
    Metrics,
    Info(UfsUri),
    Files(UfsUri),
    Page(PageRequest),
    WritePage {
        file: FileId,
        index: u64,
    },
    Load(LoadRequest),
    /// Which worker owns a file.
    Node(UfsUri),
    /// What this worker serves.
    UfsInfo,
    /// Bytes of a file, over as many pages as they lie on.
    Range(RangeRequest),
    /// A whole file, in pieces of at most so many bytes.
    Chunks(RangeRequest, usize),
    /// A change of the under-store.
    Change(Change),
    /// A file that is written to the under-store.
    WriteFile(UfsUri),
    /// Files that another worker wants loaded here.
    LoadBatch,
    /// A file was changed: what is kept of it is dropped.
    Invalidate {
        file: FileId,
        uri: Option<UfsUri>,
    },
}

/// Reads a request. The endpoint's name comes first, for the metrics, also when the rest is wrong.
pub(super) fn read(
    root: &UfsUri,
    method: &Method,
    uri: &Uri,
) -> (&'static str, Result<Asked, Failure>) {
    let path = without_version(uri.path());
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let is_get = matches!(*method, Method::GET | Method::HEAD);
    let is_put = matches!(*method, Method::POST | Method::PUT);
    let query = || Query::parse(uri.query());
    let get = |ask: &dyn Fn(&Query) -> Result<Asked, Failure>| {
        if is_get {
            query().and_then(|query| ask(&query))
        } else {
            Err(wrong_method(method))
        }
    };
    let put = |ask: &dyn Fn(&Query) -> Result<Asked, Failure>| {
        if is_put {
            query().and_then(|query| ask(&query))
        } else {
            Err(wrong_method(method))
        }
    };
    let path_of = |query: &Query| resolve(root, query.required("path")?);
    match parts.as_slice() {
        ["health" | "healthz"] => ("health", get(&|_| Ok(Asked::Health))),
        ["readyz"] => ("readyz", get(&|_| Ok(Asked::Ready))),
        ["metrics"] => ("metrics", get(&|_| Ok(Asked::Metrics))),
        ["info"] => ("info", get(&|q| Ok(Asked::Info(path_of(q)?)))),
        ["files"] => ("files", get(&|q| Ok(Asked::Files(path_of(q)?)))),
        ["node"] => ("node", get(&|q| Ok(Asked::Node(path_of(q)?)))),
        ["load"] => ("load", get(&|q| load::load(root, q).map(Asked::Load))),
        ["ufsInfo"] => ("ufs_info", get(&|_| Ok(Asked::UfsInfo))),
        ["file", id, "page", index] if is_put => ("write_page", write_page(id, index)),
        ["file", id, "page", index] => (
            "get_page",
            get(&|q| get_page(root, id, index, q).map(Asked::Page)),
        ),
        ["chunk", id] if is_put => ("write_chunk", put(&|q| file::write(root, id, q))),
        ["chunk", id] => ("chunk", get(&|q| file::chunks(root, id, q))),
        ["range", id] => ("range", get(&|q| file::range(root, id, q))),
        ["head", id] => ("head", get(&|q| file::head(root, id, q))),
        ["tail", id] => ("tail", get(&|q| file::tail(root, id, q))),
        ["mkdir", id] => ("mkdir", put(&|q| file::mkdir(root, id, q))),
        ["touch", id] => ("touch", put(&|q| file::touch(root, id, q))),
        ["rm", id] => ("rm", put(&|q| file::rm(root, id, q))),
        ["mv", id] => ("mv", put(&|q| file::mv(root, id, q))),
        ["copy", id] => ("copy", put(&|q| file::copy(root, id, q))),
        ["internal", "load"] => ("load_batch", put(&|_| Ok(Asked::LoadBatch))),
        ["internal", "invalidate", id] => ("invalidate", put(&|q| invalidate(root, id, q))),
        _ => (
            "unknown",
            Err(Failure::not_found(format!(
                "there is no endpoint `{}`; there are health, info, files, file/<id>/page/<n>, \
                 chunk|range|head|tail/<id>, mkdir|touch|rm|mv|copy/<id>, load, node, ufsInfo and \
                 /metrics",
                uri.path()
            ))),
        ),
    }
}

/// `/v1/x` and `/v9/x` are `/x`: the real worker takes any version and none.
fn without_version(path: &str) -> &str {
    let rest = path.trim_start_matches('/');
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    let is_version = first
        .strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if is_version { after } else { rest }
}

fn wrong_method(method: &Method) -> Failure {
    Failure::new(
        FailureKind::MethodNotAllowed,
        format!("the method {method} is not served here"),
    )
}

/// The URI of a path parameter: a full URI, or a path below the worker's root. Nothing outside the
/// root is served, or a worker would be a door to all that its credentials open.
pub(crate) fn resolve(root: &UfsUri, text: &str) -> Result<UfsUri, Failure> {
    let is_full = text.contains("://") || text.starts_with("file:/");
    let full = if is_full {
        text.to_owned()
    } else {
        format!("{}/{}", root.as_str().trim_end_matches('/'), text)
    };
    let uri = UfsUri::parse(&full).map_err(|error| Failure::bad_request(error.to_string()))?;
    if uri.relative_to(root).is_some() {
        Ok(uri)
    } else {
        Err(Failure::new(
            FailureKind::Forbidden,
            format!("{uri} is outside of {root}, which is all that this worker serves"),
        ))
    }
}

fn file_id(file: &str) -> Result<FileId, Failure> {
    file.parse().map_err(|_| {
        Failure::bad_request(format!(
            "`{file}` is no file id: it is the sha256 of the file's UFS URI, 64 hex digits"
        ))
    })
}

/// A file by its id, and by its URI in `name` where that is given. The id must be the one that is
/// made of the URI, or of the text that stands for it: the Python SDK hashes what its user wrote.
fn named(
    root: &UfsUri,
    id: &str,
    name: &str,
    query: &Query,
) -> Result<(FileId, Option<UfsUri>), Failure> {
    let file = file_id(id)?;
    let Some(text) = query.get(name) else {
        return Ok((file, None));
    };
    let uri = resolve(root, text)?;
    let own = uri.file_id();
    if file == own || file == FileId::of_text(text) {
        return Ok((own, Some(uri)));
    }
    Err(Failure::bad_request(format!(
        "the file id {file} is not the sha256 of {uri}, which is {own}"
    )))
}

fn invalidate(root: &UfsUri, id: &str, query: &Query) -> Result<Asked, Failure> {
    let (file, uri) = named(root, id, "ufsFullPath", query)?;
    Ok(Asked::Invalidate { file, uri })
}

fn file_and_index(file: &str, index: &str) -> Result<(FileId, u64), Failure> {
    let file = file_id(file)?;
    let index = index
        .parse()
        .map_err(|_| Failure::bad_request(format!("`{index}` is no page number")))?;
    Ok((file, index))
}

fn write_page(file: &str, index: &str) -> Result<Asked, Failure> {
    let (file, index) = file_and_index(file, index)?;
    Ok(Asked::WritePage { file, index })
}

fn get_page(root: &UfsUri, id: &str, index: &str, query: &Query) -> Result<PageRequest, Failure> {
    let (_, index) = file_and_index(id, index)?;
    let (file, uri) = named(root, id, "ufsFullPath", query)?;
    // `length` alone is ignored, as the real worker does.
    let length = query.number("length")?;
    let part = query.number("offset")?.map(|offset| (offset, length));
    Ok(PageRequest {
        file,
        index,
        uri,
        version: query.get("version").map(FileVersion::from_text),
        file_length: query.number("fileLength")?,
        part,
    })
}

#[cfg(test)]
mod tests;
