//! What real stores send and a strict client stumbles over, in canned answers of an S3 server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::convert::Infallible;

use alluxio_config::{Credentials, UfsConfig};
use alluxio_ufs::{Ufs, UfsErrorKind, is_version};
use alluxio_wire::UfsUri;
use bytes::Bytes;
use futures::TryStreamExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const MODIFIED: &str = "Mon, 01 Jan 2024 00:00:00 GMT";

/// One object of a listing, with what some gateways leave empty or out.
fn object(key: &str, etag: &str) -> String {
    format!(
        "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.123Z</LastModified>{etag}\
         <ChecksumAlgorithm></ChecksumAlgorithm><ChecksumType/><Size>5</Size><StorageClass/>\
         </Contents>"
    )
}

/// The listing of `d/`, flat or by its `/`.
fn listing(flat: bool) -> String {
    let etag = "<ETag>&quot;e1&quot;</ETag>";
    let mut objects = String::new();
    for key in ["d/", "d/ok"] {
        objects += &object(key, etag);
    }
    objects += &object("d/plain", "");
    if flat {
        for key in ["d//x", "d/./y", "d/../z", "d/folder/", "d/folder/deep"] {
            objects += &object(key, etag);
        }
    } else {
        for prefix in ["d//", "d/./", "d/../", "d/folder/"] {
            for part in [
                "<CommonPrefixes><Prefix>",
                prefix,
                "</Prefix></CommonPrefixes>",
            ] {
                objects += part;
            }
        }
    }
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><Prefix>d/</Prefix><KeyCount/>\
         <IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"
    )
}

fn answer(request: &Request<Incoming>) -> Response<s3s::Body> {
    let of = |status| Response::builder().status(status);
    let query = request.uri().query().unwrap_or_default();
    if query.contains("list-type=2") {
        let body = listing(!query.contains("delimiter"));
        return of(200).body(s3s::Body::from(body)).unwrap();
    }
    let etag = match request.uri().path() {
        "/b/d/ok" => Some("\"e1\""),
        "/b/d/plain" => None,
        _ => return of(404).body(s3s::Body::from(Bytes::new())).unwrap(),
    };
    let is_get = request.method() == hyper::Method::GET;
    let body = s3s::Body::from(Bytes::from_static(if is_get { b"bytes" } else { b"" }));
    let mut response = of(if is_get { 206 } else { 200 })
        .header(header::LAST_MODIFIED, MODIFIED)
        .header(header::CONTENT_LENGTH, 5);
    if is_get {
        response = response.header(header::CONTENT_RANGE, "bytes 0-4/5");
    }
    if let Some(etag) = etag {
        response = response.header(header::ETAG, etag);
    }
    response.body(body).unwrap()
}

async fn store() -> Ufs {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(answer(&request))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    let root = UfsUri::parse("s3://b/d").unwrap();
    Ufs::connect(&UfsConfig {
        endpoint: Some(endpoint),
        ..UfsConfig::new(root, Credentials::Anonymous)
    })
    .unwrap()
}

#[tokio::test]
async fn a_listing_with_empty_elements_markers_and_odd_keys_is_read() {
    let ufs = store().await;
    let listed = ufs.list(ufs.root()).await.unwrap();
    let seen: Vec<_> = listed
        .iter()
        .map(|s| (s.name.as_str(), s.is_directory()))
        .collect();
    assert_eq!(seen, [("folder", true), ("ok", false), ("plain", false)]);
}

#[tokio::test]
async fn a_walk_leaves_out_markers_and_keys_that_no_uri_carries() {
    let ufs = store().await;
    let walked: Vec<_> = ufs.walk(ufs.root()).try_collect().await.unwrap();
    let paths: Vec<_> = walked.iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, ["/ok", "/plain", "/folder/deep"]);
}

#[tokio::test]
async fn an_object_without_an_etag_is_read_by_time_and_length() {
    let ufs = store().await;
    let file = ufs.root().join("plain").unwrap();
    let status = ufs.status(&file).await.unwrap();
    assert_eq!((status.length, status.content_hash.as_deref()), (5, None));
    let listed = ufs.list(ufs.root()).await.unwrap();
    assert!(is_version(&status, &listed[2].version()));
    let version = status.version();
    let read = ufs.read_range_of_version(&file, 0..5, &version).await;
    assert_eq!(read.unwrap(), "bytes");
    let mut other = status;
    other.modified_ms += 1000;
    let version = other.version();
    let read = ufs.read_range_of_version(&file, 0..5, &version).await;
    assert_eq!(read.unwrap_err().kind(), UfsErrorKind::Changed);
}
