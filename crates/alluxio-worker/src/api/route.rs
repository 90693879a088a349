//! From a request's method and target to what is asked for. Pure.

use alluxio_wire::{FileId, FileVersion, LoadOp, LoadOptions, UfsUri};
use axum::http::{Method, Uri};

use super::query::Query;
use crate::failure::{Failure, FailureKind};
use crate::load::Question;
use crate::pages::PageRequest;

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
    /// Files that another worker wants loaded here.
    LoadBatch,
    /// A file was changed: what is kept of it is dropped.
    Invalidate {
        file: FileId,
        uri: Option<UfsUri>,
    },
}

/// A request about the load of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoadRequest {
    pub(super) uri: UfsUri,
    pub(super) op: LoadOp,
    pub(super) options: LoadOptions,
    pub(super) question: Question,
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
    let path_of = |query: &Query| resolve(root, query.required("path")?);
    match parts.as_slice() {
        ["health" | "healthz"] => ("health", get(&|_| Ok(Asked::Health))),
        ["readyz"] => ("readyz", get(&|_| Ok(Asked::Ready))),
        ["metrics"] => ("metrics", get(&|_| Ok(Asked::Metrics))),
        ["info"] => ("info", get(&|q| Ok(Asked::Info(path_of(q)?)))),
        ["files"] => ("files", get(&|q| Ok(Asked::Files(path_of(q)?)))),
        ["node"] => ("node", get(&|q| Ok(Asked::Node(path_of(q)?)))),
        ["load"] => ("load", get(&|q| load(root, q).map(Asked::Load))),
        ["file", file, "page", index] if is_put => ("write_page", write_page(file, index)),
        ["file", file, "page", index] => (
            "get_page",
            get(&|q| get_page(root, file, index, q).map(Asked::Page)),
        ),
        ["internal", "load"] if is_put => ("load_batch", Ok(Asked::LoadBatch)),
        ["internal", "load"] => ("load_batch", Err(wrong_method(method))),
        ["internal", "invalidate", file] if is_put => (
            "invalidate",
            query().and_then(|q| invalidate(root, file, &q)),
        ),
        ["internal", "invalidate", _] => ("invalidate", Err(wrong_method(method))),
        _ => (
            "unknown",
            Err(Failure::not_found(format!(
                "there is no endpoint `{}`; there are health, info, files, file/<id>/page/<n>, \
                 load, node and /metrics",
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

/// The file's URI by `ufsFullPath`, where it is given; it must be the one that the id is made of.
fn uri_of(root: &UfsUri, file: FileId, query: &Query) -> Result<Option<UfsUri>, Failure> {
    let Some(path) = query.get("ufsFullPath") else {
        return Ok(None);
    };
    let uri = resolve(root, path)?;
    if uri.file_id() == file {
        Ok(Some(uri))
    } else {
        Err(Failure::bad_request(format!(
            "the file id {file} is not the sha256 of {uri}, which is {}",
            uri.file_id()
        )))
    }
}

fn invalidate(root: &UfsUri, file: &str, query: &Query) -> Result<Asked, Failure> {
    let file = file_id(file)?;
    let uri = uri_of(root, file, query)?;
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

fn get_page(root: &UfsUri, file: &str, index: &str, query: &Query) -> Result<PageRequest, Failure> {
    let (file, index) = file_and_index(file, index)?;
    let uri = uri_of(root, file, query)?;
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

fn load(root: &UfsUri, query: &Query) -> Result<LoadRequest, Failure> {
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

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_wire::{PageRange, ProgressQuery, route};

    use super::*;

    fn root() -> UfsUri {
        UfsUri::parse("s3://bucket/data").unwrap()
    }

    fn ask(target: &str) -> Result<Asked, Failure> {
        read(&root(), &Method::GET, &target.parse().unwrap()).1
    }

    fn uri(text: &str) -> UfsUri {
        UfsUri::parse(text).unwrap()
    }

    #[test]
    fn any_version_and_none_are_served() {
        for target in [
            "/v1/health",
            "/health",
            "/v9/health",
            "/v1/health/",
            "/healthz",
        ] {
            assert_eq!(ask(target), Ok(Asked::Health), "{target}");
        }
        for target in ["/v1", "/v1/", "/v1/nope", "/vx/health", "/"] {
            assert_eq!(
                ask(target).unwrap_err().kind,
                FailureKind::NotFound,
                "{target}"
            );
        }
    }

    #[test]
    fn paths_are_full_uris_or_below_the_root() {
        for path in [
            "s3://bucket/data/a/b",
            "s3%3A%2F%2Fbucket%2Fdata%2Fa%2Fb",
            "/a/b",
            "a//b/",
            "/a/x/../b",
        ] {
            assert_eq!(
                ask(&format!("/v1/info?path={path}")),
                Ok(Asked::Info(uri("s3://bucket/data/a/b"))),
                "{path}"
            );
        }
        assert_eq!(ask("/v1/files?path=/"), Ok(Asked::Files(root())));
    }

    #[test]
    fn nothing_outside_the_root_is_served() {
        for path in [
            "s3://bucket/database",
            "s3://other/data/a",
            "s3://bucket",
            "../secret",
            "file:///etc/passwd",
        ] {
            let failure = ask(&format!("/v1/info?path={path}")).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Forbidden, "{path}");
        }
    }

    #[test]
    fn the_clients_own_targets_are_understood() {
        let file = uri("s3://bucket/data/naïve name?&.bin");
        let version = FileVersion::from_text("etag:ab\"c");
        let range = PageRange {
            offset: 5,
            length: 7,
        };
        let id = file.file_id();
        let target = route::page_of_version(&id, 3, &file, &version, 99, Some(range));
        let expected = PageRequest {
            file: id,
            index: 3,
            uri: Some(file),
            version: Some(version),
            file_length: Some(99),
            part: Some((5, Some(7))),
        };
        assert_eq!(ask(&target), Ok(Asked::Page(expected)));
        let options = LoadOptions {
            verify: true,
            bandwidth_bytes_per_second: Some(1000),
            partial_listing: true,
            metadata_only: true,
            skip_if_exists: true,
            file_filter: Some(".*\\.jpg$".to_owned()),
            verbose: true,
        };
        let target = route::load(&root(), LoadOp::Submit, &options).unwrap();
        let expected = LoadRequest {
            uri: root(),
            op: LoadOp::Submit,
            options,
            question: Question {
                json_report: false,
                verbose: true,
                failed_offset: 0,
                failed_limit: None,
            },
        };
        assert_eq!(ask(&target), Ok(Asked::Load(expected)));
        let query = ProgressQuery {
            failed_offset: 100,
            failed_limit: Some(50),
            ..ProgressQuery::default()
        };
        let target = route::load_progress(&root(), &query).unwrap();
        let Ok(Asked::Load(request)) = ask(&target) else {
            panic!("not read as a load");
        };
        let expected = Question {
            json_report: true,
            verbose: false,
            failed_offset: 100,
            failed_limit: Some(50),
        };
        assert_eq!(request.question, expected);
    }

    #[test]
    fn a_length_without_an_offset_is_ignored() {
        let id = uri("s3://bucket/data/x").file_id();
        let Ok(Asked::Page(request)) = ask(&format!("/v1/file/{id}/page/0?length=5")) else {
            panic!("not read as a page");
        };
        assert_eq!(request.part, None);
    }

    #[test]
    fn wrong_requests_say_what_is_wrong() {
        let id = uri("s3://bucket/data/x").file_id();
        for (target, kind, word) in [
            ("/v1/info".to_owned(), FailureKind::BadRequest, "`path`"),
            (
                "/v1/info?path=".to_owned(),
                FailureKind::BadRequest,
                "`path`",
            ),
            (
                "/v1/file/xyz/page/0".to_owned(),
                FailureKind::BadRequest,
                "no file id",
            ),
            (
                format!("/v1/file/{id}/page/-1"),
                FailureKind::BadRequest,
                "`-1`",
            ),
            (
                format!("/v1/file/{id}/page/0?ufsFullPath=/y"),
                FailureKind::BadRequest,
                "not the sha256",
            ),
            (
                format!("/v1/file/{id}/page/0?offset=x"),
                FailureKind::BadRequest,
                "`offset`",
            ),
            (
                "/v1/load?path=/&opType=frobnicate".to_owned(),
                FailureKind::BadRequest,
                "frobnicate",
            ),
            (
                "/v1/load?path=/&opType=submit&bandwidth=abc".to_owned(),
                FailureKind::BadRequest,
                "`bandwidth`",
            ),
            (
                "/v1/load?path=/&opType=progress&progressFormat=json".to_owned(),
                FailureKind::BadRequest,
                "TEXT or JSON",
            ),
        ] {
            let failure = ask(&target).unwrap_err();
            assert_eq!(failure.kind, kind, "{target}");
            assert!(failure.message.contains(word), "{target}: {failure:?}");
        }
        let (name, result) = read(&root(), &Method::DELETE, &"/v1/info".parse().unwrap());
        assert_eq!(name, "info");
        assert_eq!(result.unwrap_err().kind, FailureKind::MethodNotAllowed);
    }
}
