//! The endpoint over real HTTP, spoken by hand: no client library is needed for three GETs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use prometheus::{IntCounter, Opts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (code, body)
}

fn registry_with(name: &str, value: u64) -> Registry {
    let registry = Registry::new();
    let counter = IntCounter::with_opts(Opts::new(name, "A test's counter.")).unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    counter.inc_by(value);
    registry
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[tokio::test]
async fn serves_the_families_of_all_registries() {
    let registries = vec![registry_with("first", 1), registry_with("second", 2)];
    let server = serve(loopback(), registries, Health::ready())
        .await
        .unwrap();
    let (code, body) = get(server.address(), "/metrics").await;
    assert_eq!(code, 200);
    assert!(body.contains("# TYPE first counter\nfirst 1\n"), "{body}");
    assert!(body.contains("# TYPE second counter\nsecond 2\n"), "{body}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_function_may_make_the_text() {
    let source = MetricsSource::from_fn(|| async { "x 1\n".to_owned() });
    let server = serve(loopback(), source, Health::ready()).await.unwrap();
    assert_eq!(
        get(server.address(), "/metrics").await,
        (200, "x 1\n".to_owned())
    );
}

#[tokio::test]
async fn readiness_and_liveness_follow_the_health() {
    let health = Health::starting();
    let registries: Vec<Arc<Registry>> = Vec::new();
    let server = serve(loopback(), registries, health.clone()).await.unwrap();
    let address = server.address();
    assert_eq!(get(address, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(
        get(address, "/readyz").await,
        (503, "starting\n".to_owned())
    );
    health.set_ready();
    assert_eq!(get(address, "/readyz").await, (200, "ok\n".to_owned()));
    health.set_failed("disk gone");
    assert_eq!(
        get(address, "/healthz").await,
        (503, "disk gone\n".to_owned())
    );
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let server = serve(loopback(), vec![Registry::new()], Health::ready())
        .await
        .unwrap();
    let error = serve(server.address(), vec![Registry::new()], Health::ready())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(&server.address().to_string()),
        "{error}"
    );
}
