//! Alluxio's REST: endpoints, codes, bounds.

use alluxio_wire::{FileKind, UfsUri, status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{KIB, PAGE, Setup, answer, content, until};

#[tokio::test]
async fn health_answers_as_alluxio_does() {
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    for target in ["/v1/health", "/health", "/v9/health", "/v1/health/"] {
        let answer = worker.get(target).await;
        assert_eq!(
            (answer.code, answer.text().as_str()),
            (200, "worker is active")
        );
    }
    assert_eq!(worker.get("/readyz").await.code, 200);
}

#[tokio::test]
async fn statuses_have_alluxios_shape() {
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir(files.path().join("dir")).unwrap();
    std::fs::write(files.path().join("dir/b c=1.txt"), "hello").unwrap();
    let worker = Setup::local(&files).start().await;
    let info = worker.get("/v1/info?path=/dir/b%20c%3D1.txt").await;
    assert_eq!(
        (info.code, info.content_type.as_str()),
        (200, "application/json")
    );
    let fields = info.json();
    assert_eq!(fields[0]["mType"], "file");
    assert_eq!(fields[0]["mName"], "b c=1.txt");
    assert_eq!(fields[0]["mPath"], "/dir/b c=1.txt");
    assert_eq!(fields[0]["mLength"], 5);
    assert_eq!(fields[0]["mHumanReadableFileSize"], "5B");
    let root = worker.root().to_string();
    for path in ["/", root.as_str(), ""] {
        let listing = worker.get(&format!("/v1/files?path={path}")).await;
        if path.is_empty() {
            assert_eq!(listing.error(), "BadRequest");
            continue;
        }
        let statuses = status::parse_list(&listing.body).unwrap();
        assert_eq!(statuses.len(), 1);
        assert_eq!(
            (statuses[0].kind, statuses[0].path.as_str()),
            (FileKind::Directory, "/dir")
        );
    }
    let of_file = worker.get("/v1/files?path=/dir/b%20c%3D1.txt").await;
    assert_eq!(of_file.json(), fields);
}

#[tokio::test]
async fn failures_are_codes_with_json() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("f"), "x").unwrap();
    let worker = Setup::local(&files).start().await;
    let root = worker.root().clone();
    let id = root.join("f").unwrap().file_id();
    let outside = UfsUri::parse("file:///etc/passwd").unwrap();
    for (target, code, error) in [
        ("/v1/info?path=/nothing".to_owned(), 404, "NotFound"),
        ("/v1/files?path=/nothing".to_owned(), 404, "NotFound"),
        ("/v1/nope".to_owned(), 404, "NotFound"),
        (
            "/v1/info?path=file:///etc/passwd".to_owned(),
            403,
            "Forbidden",
        ),
        (
            format!(
                "/v1/file/{}/page/0?ufsFullPath={outside}",
                outside.file_id()
            ),
            403,
            "Forbidden",
        ),
        (format!("/v1/file/{id}/page/0"), 404, "NotFound"),
        (
            format!("/v1/file/{id}/page/0?ufsFullPath={root}/g"),
            400,
            "BadRequest",
        ),
        (
            format!("/v1/file/{}/page/0?ufsFullPath={root}", root.file_id()),
            400,
            "BadRequest",
        ),
        (
            format!("/v1/file/{id}/page/1?ufsFullPath={root}/f"),
            416,
            "OutOfRange",
        ),
        (
            "/v1/load?path=/&opType=submit&fileFilterRegx=(".to_owned(),
            400,
            "BadRequest",
        ),
    ] {
        let answer = worker.get(&target).await;
        assert_eq!(
            (answer.code, answer.error().as_str()),
            (code, error),
            "{target}"
        );
    }
    let deleted = answer(worker.client.delete(worker.url("/v1/health"))).await;
    assert_eq!(
        (deleted.code, deleted.error().as_str()),
        (405, "MethodNotAllowed")
    );
}

#[tokio::test]
async fn a_clients_own_pages_are_kept_apart_from_the_stores() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("f"), "of the store").unwrap();
    let worker = Setup::local(&files).start().await;
    let uri = worker.root().join("f").unwrap();
    let target = format!("/v1/file/{}/page/0", uri.file_id());
    let written = worker.post(&target, b"hello page".to_vec()).await;
    assert_eq!(written.json()["success"], true);
    assert_eq!(worker.get(&target).await.text(), "hello page");
    assert_eq!(
        worker
            .get(&format!("{target}?offset=6&length=99"))
            .await
            .text(),
        "page"
    );
    // A page that exists stays, and the answer is success all the same, as on the real worker.
    let again = answer(worker.client.put(worker.url(&target)).body("HELLO")).await;
    assert_eq!(again.json()["success"], true);
    assert_eq!(worker.get(&target).await.text(), "hello page");
    // Who names the file gets the store's bytes, never a client's.
    assert_eq!(worker.page("f", 0).await.text(), "of the store");
    let empty = worker
        .post(&target.replace("page/0", "page/2"), Vec::new())
        .await;
    assert_eq!((empty.code, &empty.json()["success"]), (200, &false.into()));
    let large = worker.post(&target, vec![0; PAGE + 1]).await;
    assert_eq!((large.code, large.error().as_str()), (413, "TooLarge"));
}

#[tokio::test]
async fn without_a_ring_every_file_is_this_workers() {
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    let node = worker.get("/v1/node?path=/any").await.json();
    assert_eq!(node["Host"], "127.0.0.1");
    assert_eq!(node["HttpServerPort"], worker.worker.address().port());
}

#[tokio::test]
async fn metrics_have_alluxios_names_buckets_and_labels() {
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    worker.get("/v1/health").await;
    worker.get("/v1/info?path=/nothing").await;
    let text = worker.get("/metrics").await.text();
    for line in [
        "# TYPE alluxio_http_server_call_latency_ms histogram",
        "alluxio_http_server_call_latency_ms_count{method=\"health\",success=\"true\"} 1",
        "alluxio_http_server_call_latency_ms_count{method=\"info\",success=\"false\"} 1",
        "alluxio_http_server_result_total{method=\"health\",state=\"success\"} 1",
        "alluxio_http_server_result_total{method=\"info\",state=\"client_error\"} 1",
        "alluxio_worker_page_store_capacity_bytes 67108864",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    for bound in ["10", "40", "160", "640", "+Inf"] {
        let bucket = format!(
            "alluxio_http_server_call_latency_ms_bucket{{method=\"health\",success=\"true\",\
             le=\"{bound}\"}}"
        );
        assert!(text.contains(&bucket), "{bucket}");
    }
}

/// Sends raw bytes and reads until `count` answers have come or the other side closes.
async fn raw(stream: &mut TcpStream, request: &str, count: usize) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answers = String::new();
    let mut buffer = vec![0; 64 * KIB];
    while answers.matches("worker is active").count() < count {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            n => answers.push_str(&String::from_utf8_lossy(&buffer[..n])),
        }
    }
    answers
}

const HEALTH: &str = "GET /v1/health HTTP/1.1\r\nhost: w\r\n\r\n";

#[tokio::test]
async fn connections_are_kept_and_pipelined() {
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    let mut stream = TcpStream::connect(worker.worker.address()).await.unwrap();
    for _ in 0..3 {
        assert!(
            raw(&mut stream, HEALTH, 1)
                .await
                .starts_with("HTTP/1.1 200")
        );
    }
    let both = raw(&mut stream, &HEALTH.repeat(2), 2).await;
    assert_eq!(both.matches("200 OK").count(), 2);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    let mut stream = TcpStream::connect(worker.worker.address()).await.unwrap();
    let long = format!(
        "GET /v1/health HTTP/1.1\r\nhost: w\r\nx: {}\r\n\r\n",
        "y".repeat(60 * KIB)
    );
    assert!(raw(&mut stream, &long, 1).await.starts_with("HTTP/1.1 431"));
    assert_eq!(worker.get("/v1/health").await.code, 200);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let files = tempfile::tempdir().unwrap();
    let mut setup = Setup::local(&files);
    setup.max_connections = 1;
    let worker = setup.start().await;
    let mut first = TcpStream::connect(worker.worker.address()).await.unwrap();
    raw(&mut first, HEALTH, 1).await;
    let mut second = TcpStream::connect(worker.worker.address()).await.unwrap();
    let waiting = tokio::spawn(async move { raw(&mut second, HEALTH, 1).await });
    // The first goes on being served while the second waits.
    assert!(raw(&mut first, HEALTH, 1).await.contains("200 OK"));
    assert!(!waiting.is_finished());
    drop(first);
    assert!(waiting.await.unwrap().contains("200 OK"));
}

#[tokio::test]
async fn a_shutdown_closes_the_port_and_frees_the_directory() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("f"), content(1, 10)).unwrap();
    let worker = Setup::local(&files).start().await;
    let address = worker.worker.address();
    assert_eq!(worker.page("f", 0).await.code, 200);
    worker.worker.shutdown().await;
    until("the port is closed", || async {
        TcpStream::connect(address).await.err()
    })
    .await;
}
