//! What requests are taken for, and which are refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use alluxio_wire::{PageRange, ProgressQuery, route};

use alluxio_wire::{LoadOp, LoadOptions};

use super::*;
use crate::load::Question;
use crate::ranges::Extent;

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

#[test]
fn the_sdks_requests_for_files_are_understood() {
    let file = uri("s3://bucket/data/a/b");
    let id = file.file_id();
    let ask_of = |name: &str, rest: &str| ask(&format!("/v1/{name}/{id}?ufsFullPath={file}{rest}"));
    let bytes = |extent| RangeRequest {
        file: id,
        uri: file.clone(),
        extent,
    };
    assert_eq!(
        ask_of("chunk", "&chunkSize=4096"),
        Ok(Asked::Chunks(bytes(Extent::Whole), 4096))
    );
    let rest = Extent::Range {
        offset: 5,
        length: None,
    };
    assert_eq!(
        ask_of("range", "&offset=5&length=-1"),
        Ok(Asked::Range(bytes(rest)))
    );
    assert_eq!(
        ask_of("head", "&numOfBytes=10"),
        Ok(Asked::Range(bytes(Extent::First(10))))
    );
    assert_eq!(
        ask_of("tail", "&numOfBytes=1KB"),
        Ok(Asked::Range(bytes(Extent::Last(1024))))
    );
    assert_eq!(
        ask_of("tail", ""),
        Ok(Asked::Range(bytes(Extent::Last(1024))))
    );
    for (target, word) in [
        (format!("/v1/chunk/{id}"), "`ufsFullPath`"),
        (
            format!("/v1/chunk/{id}?ufsFullPath={file}&chunkSize=0"),
            "chunkSize",
        ),
        (
            format!("/v1/range/{id}?ufsFullPath={file}&length=-2"),
            "`length`",
        ),
        (
            format!("/v1/head/{id}?ufsFullPath={file}&numOfBytes=many"),
            "numOfBytes",
        ),
        (
            format!("/v1/head/{id}?ufsFullPath=/other"),
            "not the sha256",
        ),
    ] {
        let failure = ask(&target).unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadRequest, "{target}");
        assert!(failure.message.contains(word), "{target}: {failure:?}");
    }
}

#[test]
fn the_sdks_changes_are_understood_and_stay_below_the_root() {
    let post = |target: &str| read(&root(), &Method::POST, &target.parse().unwrap()).1;
    let (from, to) = (uri("s3://bucket/data/a"), uri("s3://bucket/data/b"));
    let id = from.file_id();
    let change = |name: &str, rest: &str| {
        let target = format!("/v1/{name}/{id}?{rest}");
        match post(&target) {
            Ok(Asked::Change(change)) => change,
            other => panic!("{target}: {other:?}"),
        }
    };
    let one = format!("ufsFullPath={from}");
    assert_eq!(change("mkdir", &one), Change::Mkdir(from.clone()));
    assert_eq!(change("touch", &one), Change::Touch(from.clone()));
    let remove = |recursive| Change::Remove {
        uri: from.clone(),
        recursive,
    };
    let options = "recursive=True&recursiveAlias=False&remove_alluxio_only=False";
    assert_eq!(change("rm", &format!("{one}&{options}")), remove(true));
    assert_eq!(change("rm", &one), remove(false));
    assert_eq!(
        change("rm", &format!("{one}&remove_alluxio_only=True")),
        Change::Forget(from.clone())
    );
    let two = format!("srcPath={from}&dstPath={to}");
    let moved = Change::Move {
        from: from.clone(),
        to: to.clone(),
    };
    assert_eq!(change("mv", &two), moved);
    let copied = Change::Copy {
        from: from.clone(),
        to,
        recursive: true,
        replace: false,
    };
    assert_eq!(
        change(
            "copy",
            &format!("{two}&recursive=True&forced=False&preserve=True")
        ),
        copied
    );
    for target in [
        format!("/v1/rm/{id}?ufsFullPath=s3://bucket/other"),
        format!("/v1/mv/{id}?srcPath={from}&dstPath=s3://bucket/other"),
        format!("/v1/copy/{id}?srcPath={from}&dstPath=/../other"),
        format!("/v1/chunk/{id}?ufsFullPath=s3://other/data/a"),
    ] {
        assert_eq!(
            post(&target).unwrap_err().kind,
            FailureKind::Forbidden,
            "{target}"
        );
    }
    let by_get = ask(&format!("/v1/rm/{id}?{one}")).unwrap_err();
    assert_eq!(by_get.kind, FailureKind::MethodNotAllowed);
}

#[test]
fn an_id_of_a_path_as_somebody_wrote_it_names_the_file_too() {
    let written = "s3://bucket/data//a/";
    let id = FileId::of_text(written);
    let file = uri(written);
    assert_ne!(id, file.file_id());
    let Ok(Asked::Page(request)) = ask(&format!("/v1/file/{id}/page/0?ufsFullPath={written}"))
    else {
        panic!("not read as a page");
    };
    assert_eq!((request.file, request.uri), (file.file_id(), Some(file)));
}
