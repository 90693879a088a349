//! The server against clients that are slow, greedy or in a hurry, on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use axum::body::to_bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::store::PageStore;

/// So short that no test waits long, and long enough for a busy machine to send a line.
const SHORT: Duration = Duration::from_millis(200);

/// Far longer than any answer takes.
const LONG: Duration = Duration::from_mins(1);

/// More than the kernel keeps for one connection.
const MUCH: usize = 64 * 1024 * 1024;

/// Answers with the path; `/body` with the body's length or its failure, `/much` with a long one,
/// `/later` when it is told to.
#[derive(Default)]
struct Echo {
    go: Notify,
    was_asked: Notify,
}

impl Handler for Echo {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let answer = match path.as_str() {
            "/body" => match to_bytes(request.into_body(), MUCH).await {
                Ok(body) => format!("{} bytes", body.len()),
                Err(error) => format!("failed: {error}"),
            },
            "/much" => "x".repeat(MUCH),
            "/later" => {
                self.was_asked.notify_one();
                self.go.notified().await;
                path
            }
            _ => path,
        };
        Response::new(Body::from(answer))
    }
}

struct Scene {
    _folder: tempfile::TempDir,
    echo: Arc<Echo>,
    server: Server,
    metrics: Arc<Metrics>,
    address: SocketAddr,
}

/// A server with generous limits but for those that the test changes.
async fn scene(change: impl FnOnce(&mut Limits)) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "{{ufs: {{uri: 'file:///'}}, worker: {{page_store: {{directory: '{}'}}}}}}",
        folder.path().display()
    );
    let config = alluxio_config::Config::from_yaml(&yaml).unwrap();
    let store = PageStore::open(&config.worker.page_store, config.client.page_size);
    let metrics = Arc::new(Metrics::new(store.await.unwrap()).unwrap());
    let mut limits = Limits {
        max_connections: 16,
        idle_timeout: LONG,
        reader_patience: LONG,
        body_patience: LONG,
        handshake_timeout: LONG,
        drain_timeout: LONG,
    };
    change(&mut limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = Arc::new(Echo::default());
    let handler = Arc::clone(&echo);
    let server = Server::start(listener, handler, None, limits, Arc::clone(&metrics));
    Scene {
        _folder: folder,
        echo,
        server,
        metrics,
        address,
    }
}

impl Scene {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until so many connections are open.
    async fn until_connected(&self, connections: i64) {
        let until = tokio::time::timeout(LONG, async {
            while self.metrics.connections.get() != connections {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        until.await.unwrap();
    }
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// What comes until the server closes; a reset is a close.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _reset = tokio::time::timeout(LONG, stream.read_to_end(&mut all))
        .await
        .unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let scene = scene(|_| {}).await;
    let mut stream = scene.connect().await;
    let request = |n: u32, more: &str| format!("GET /{n} HTTP/1.1\r\nhost: w\r\n{more}\r\n");
    let all: String = (0..50).map(|n| request(n, "")).collect();
    send(&mut stream, &all).await;
    send(&mut stream, &request(50, "connection: close\r\n")).await;
    let answers = until_closed(&mut stream).await;
    let bodies = answers.split("\r\n\r\n").skip(1);
    let told: Vec<_> = bodies
        .map(|body| body.split("HTTP").next().unwrap().to_owned())
        .collect();
    let expected: Vec<_> = (0..=50).map(|n| format!("/{n}")).collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_head_that_drips_and_an_idle_connection_are_closed() {
    let scene = scene(|limits| limits.idle_timeout = SHORT).await;
    let mut idle = scene.connect().await;
    let mut drips = scene.connect().await;
    let dripping = tokio::spawn(async move {
        for byte in "GET /x HTTP/1.1\r\nx: "
            .bytes()
            .chain(std::iter::repeat(b'y'))
        {
            if drips.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(SHORT / 20).await;
        }
    });
    assert_eq!(until_closed(&mut idle).await, "");
    tokio::time::timeout(LONG, dripping).await.unwrap().unwrap();
    scene.until_connected(0).await;
}

#[tokio::test]
async fn a_body_that_drips_fails_and_a_whole_one_is_taken() {
    let scene = scene(|limits| limits.body_patience = SHORT).await;
    let head = "POST /body HTTP/1.1\r\nhost: w\r\ncontent-length: 10\r\n\r\n";
    let mut whole = scene.connect().await;
    send(&mut whole, &format!("{head}0123456789")).await;
    let mut answer = vec![0; 4096];
    let read = whole.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).ends_with("10 bytes"));
    let mut drips = scene.connect().await;
    send(&mut drips, &format!("{head}012")).await;
    let answer = until_closed(&mut drips).await;
    assert!(answer.contains("comes too slowly"), "{answer}");
}

#[tokio::test]
async fn who_does_not_read_is_closed_and_who_reads_is_not() {
    let scene = scene(|limits| limits.reader_patience = SHORT).await;
    let much = "GET /much HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n";
    let mut lazy = scene.connect().await;
    send(&mut lazy, much).await;
    scene.until_connected(1).await;
    scene.until_connected(0).await;
    assert!(until_closed(&mut lazy).await.len() < MUCH);
    let mut reads = scene.connect().await;
    send(&mut reads, much).await;
    assert!(until_closed(&mut reads).await.len() > MUCH);
}

#[tokio::test]
async fn a_shutdown_lets_answers_end_and_closes_what_does_not() {
    let later = "GET /later HTTP/1.1\r\nhost: w\r\n\r\n";
    let patient = scene(|_| {}).await;
    let mut stream = patient.connect().await;
    send(&mut stream, later).await;
    patient.echo.was_asked.notified().await;
    let (answer, ()) = tokio::join!(until_closed(&mut stream), async {
        let stopping = patient.server.shutdown();
        patient.echo.go.notify_one();
        stopping.await;
    });
    assert!(answer.ends_with("/later"), "{answer}");
    let hurried = scene(|limits| limits.drain_timeout = SHORT).await;
    let mut stream = hurried.connect().await;
    send(&mut stream, later).await;
    hurried.echo.was_asked.notified().await;
    hurried.server.shutdown().await;
    assert_eq!(until_closed(&mut stream).await, "");
}
