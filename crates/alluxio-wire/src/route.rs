//! Paths and queries of a worker's REST, with the encoding that the real worker accepts.
//!
//! The open-source worker decodes only upper-case `%2F`, `%3A` and `%3F` and takes every other
//! byte as it stands; ordinary servers decode everything. A path is sent to `info`, `files` and
//! `load` only when both readings give the same name, else the functions here return `None` and the
//! caller asks the UFS. Pages are addressed by id, so they need no name: their `ufsFullPath`, which
//! only servers that decode everything read, is encoded in full.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::load::{LoadOp, LoadOptions, ProgressQuery};
use crate::page::PageRange;
use crate::status::FileVersion;
use crate::uri::{FileId, UfsUri};

/// The longest path and query that fits the real worker's request line of 4,096 bytes, with room
/// for the method and the HTTP version around it.
pub const MAX_TARGET_BYTES: usize = 4096 - 32;

/// What a query value keeps raw: the unreserved characters of RFC 3986.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Bytes beside letters and digits that mean themselves to the real worker, to an ordinary server
/// and to an HTTP client's own URL encoding.
const LITERAL_EVERYWHERE: &[u8] = b"-_.~!$*(),;@/:";

/// Asks whether the worker lives.
pub fn health() -> String {
    "/v1/health".to_owned()
}

/// Asks for the status of one path; `None` when the name cannot be addressed.
pub fn info(uri: &UfsUri) -> Option<String> {
    fitting(format!("/v1/info?path={}", addressable(uri)?))
}

/// Asks for the listing of a directory; `None` when the name cannot be addressed.
pub fn files(uri: &UfsUri) -> Option<String> {
    fitting(format!("/v1/files?path={}", addressable(uri)?))
}

/// Asks for a page, or a part of one. Without `uri` the worker cannot read through a miss; it is
/// left out by itself when it does not fit the request line.
pub fn page(file: &FileId, index: u64, uri: Option<&UfsUri>, range: Option<PageRange>) -> String {
    let mut query = Vec::new();
    if let Some(uri) = uri {
        query.push(format!("ufsFullPath={}", query_value(uri.as_str())));
    }
    page_target(file, index, query, range)
}

/// Like [`page`], and tells a worker that knows versions which one is wanted and how long it is.
pub fn page_of_version(
    file: &FileId,
    index: u64,
    uri: &UfsUri,
    version: &FileVersion,
    file_length: u64,
    range: Option<PageRange>,
) -> String {
    let query = vec![
        format!("ufsFullPath={}", query_value(uri.as_str())),
        format!("version={}", query_value(version.as_str())),
        format!("fileLength={file_length}"),
    ];
    page_target(file, index, query, range)
}

/// Tells a worker, by POST, that a file was written or removed, so that it forgets status and pages
/// of it; `None` when the name does not fit the request line. The embedded worker alone knows it.
pub fn invalidate(uri: &UfsUri) -> Option<String> {
    let (file, path) = (uri.file_id(), query_value(uri.as_str()));
    fitting(format!("/v1/internal/invalidate/{file}?ufsFullPath={path}"))
}

/// Submits, asks about or stops the load of a path; `None` when the name cannot be addressed.
///
/// Progress is asked for as JSON, because only that form has exact numbers.
pub fn load(uri: &UfsUri, op: LoadOp, options: &LoadOptions) -> Option<String> {
    let mut target = format!("/v1/load?path={}&opType={}", addressable(uri)?, op.as_str());
    match op {
        LoadOp::Submit => target.push_str(&submit_query(options)),
        LoadOp::Progress => target.push_str("&progressFormat=JSON"),
        LoadOp::Stop => {}
    }
    if options.verbose {
        target.push_str("&verbose=true");
    }
    fitting(target)
}

/// Asks how far a load is, in the form and with the failures that `query` wants.
pub fn load_progress(uri: &UfsUri, query: &ProgressQuery) -> Option<String> {
    // Only the embedded worker knows the last two, so they are left out where they say nothing.
    let offset = Some(query.failed_offset).filter(|offset| *offset > 0);
    let parts = [
        Some(format!("/v1/load?path={}", addressable(uri)?)),
        Some("opType=progress".to_owned()),
        Some(format!("progressFormat={}", query.format.as_str())),
        query.verbose.then(|| "verbose=true".to_owned()),
        offset.map(|offset| format!("failedOffset={offset}")),
        query
            .failed_limit
            .map(|limit| format!("failedLimit={limit}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    fitting(parts.join("&"))
}

/// Encodes a query value in full, for servers that decode it in full.
pub fn query_value(text: &str) -> String {
    utf8_percent_encode(text, QUERY_VALUE).to_string()
}

fn submit_query(options: &LoadOptions) -> String {
    let flags = [
        ("verify", options.verify),
        ("partialListing", options.partial_listing),
        ("loadMetadataOnly", options.metadata_only),
        ("skipIfExists", options.skip_if_exists),
    ];
    let set = flags.iter().filter(|(_, set)| *set);
    let mut query: Vec<String> = set.map(|(name, _)| format!("&{name}=true")).collect();
    if let Some(bandwidth) = options.bandwidth_bytes_per_second {
        query.push(format!("&bandwidth={bandwidth}"));
    }
    if let Some(filter) = &options.file_filter {
        query.push(format!("&fileFilterRegx={}", query_value(filter)));
    }
    query.concat()
}

fn page_target(
    file: &FileId,
    index: u64,
    mut query: Vec<String>,
    range: Option<PageRange>,
) -> String {
    if let Some(PageRange { offset, length }) = range {
        query.push(format!("offset={offset}&length={length}"));
    }
    let base = format!("/v1/file/{file}/page/{index}");
    let full = match query.as_slice() {
        [] => return base,
        _ => format!("{base}?{}", query.join("&")),
    };
    fitting(full).unwrap_or_else(|| page_target(file, index, Vec::new(), range))
}

fn addressable(uri: &UfsUri) -> Option<&str> {
    let literal = |b: &u8| b.is_ascii_alphanumeric() || LITERAL_EVERYWHERE.contains(b);
    uri.as_str()
        .as_bytes()
        .iter()
        .all(literal)
        .then(|| uri.as_str())
}

fn fitting(target: String) -> Option<String> {
    (target.len() <= MAX_TARGET_BYTES).then_some(target)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn uri(text: &str) -> UfsUri {
        UfsUri::parse(text).unwrap()
    }

    #[test]
    fn plain_names_are_sent_raw_as_the_real_worker_takes_them() {
        let target = info(&uri("file:///srv/ufs/semi;colon.txt")).unwrap();
        assert_eq!(target, "/v1/info?path=file:///srv/ufs/semi;colon.txt");
    }

    #[test]
    fn names_that_the_real_worker_would_misread_are_left_to_the_ufs() {
        for name in [
            "with space",
            "tab\tname",
            "am&per",
            "eq=ual",
            "q?mark",
            "back\\slash",
            "umlé",
            "pct%2Fslash",
            "pct%41",
            "ha#sh",
            "<html>",
            "quo'te\"d",
            "plus+plus",
        ] {
            let uri = uri(&format!("s3://b/{name}"));
            assert_eq!(info(&uri), None, "{name}");
            assert_eq!(files(&uri), None, "{name}");
            assert_eq!(load(&uri, LoadOp::Submit, &LoadOptions::default()), None);
        }
    }

    #[test]
    fn pages_carry_every_name_encoded_in_full() {
        let uri = uri("s3://b/q?a&b=é+c %41");
        let target = page(&uri.file_id(), 3, Some(&uri), None);
        let query = target.split_once("/page/3?ufsFullPath=").unwrap().1;
        assert_eq!(query, "s3%3A%2F%2Fb%2Fq%3Fa%26b%3D%C3%A9%2Bc%20%2541");
    }

    #[test]
    fn ranges_and_versions_are_query_parameters() {
        let uri = uri("s3://b/k");
        let range = Some(PageRange {
            offset: 5,
            length: 10,
        });
        let id = uri.file_id();
        assert_eq!(
            page(&id, 0, None, range),
            format!("/v1/file/{id}/page/0?offset=5&length=10")
        );
        let version = FileVersion::from_text("etag:a b");
        let target = page_of_version(&id, 0, &uri, &version, 9, range);
        assert!(target.ends_with("&version=etag%3Aa%20b&fileLength=9&offset=5&length=10"));
    }

    #[test]
    fn a_request_line_over_4096_bytes_is_never_made() {
        let long = uri(&format!("s3://b/{}", "é".repeat(1000)));
        let target = page(&long.file_id(), 0, Some(&long), None);
        assert_eq!(target, format!("/v1/file/{}/page/0", long.file_id()));
        assert_eq!(info(&uri(&format!("s3://b/{}", "x".repeat(4096)))), None);
    }

    #[test]
    fn a_changed_file_is_named_by_id_and_by_its_whole_name() {
        let uri = uri("s3://b/a b");
        let (id, target) = (uri.file_id(), invalidate(&uri).unwrap());
        let expected = format!("/v1/internal/invalidate/{id}?ufsFullPath=s3%3A%2F%2Fb%2Fa%20b");
        assert_eq!(target, expected);
    }

    #[test]
    fn load_options_have_alluxios_names() {
        let options = LoadOptions {
            verify: true,
            bandwidth_bytes_per_second: Some(1000),
            partial_listing: true,
            metadata_only: true,
            skip_if_exists: true,
            file_filter: Some(".*\\.jpg".to_owned()),
            verbose: true,
        };
        let submit = load(&uri("s3://b/p"), LoadOp::Submit, &options).unwrap();
        assert_eq!(
            submit,
            "/v1/load?path=s3://b/p&opType=submit&verify=true&partialListing=true\
             &loadMetadataOnly=true&skipIfExists=true&bandwidth=1000&fileFilterRegx=.%2A%5C.jpg\
             &verbose=true"
        );
        let progress = load(&uri("s3://b/p"), LoadOp::Progress, &LoadOptions::default());
        assert_eq!(
            progress.unwrap(),
            "/v1/load?path=s3://b/p&opType=progress&progressFormat=JSON"
        );
    }
}
