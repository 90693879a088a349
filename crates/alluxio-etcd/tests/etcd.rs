//! The client against a real etcd.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a test fails by panicking, and says in one line what it left out"
)]

mod support;

use std::net::TcpListener;
use std::time::Duration;

use alluxio_etcd::{EtcdClient, EtcdError, EtcdOptions, EtcdTls, WatchEvent};
use support::EtcdServer;

#[tokio::test]
async fn a_watch_sees_puts_deletes_and_ended_leases() {
    let Some(server) = EtcdServer::start("etcd watch").await else {
        return;
    };
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    client.put("/w/other", "x", None).await.unwrap();
    client.put("/x/not-ours", "x", None).await.unwrap();
    let listing = client.get_prefix("/w/").await.unwrap();
    assert_eq!(listing.pairs, [(b"/w/other".to_vec(), b"x".to_vec())]);

    let mut watch = client
        .watch_prefix("/w/", listing.revision + 1)
        .await
        .unwrap();
    let lease = client.lease_grant(Duration::from_mins(1)).await.unwrap();
    client.put("/w/leased", "y", Some(lease)).await.unwrap();
    assert!(client.delete("/w/other").await.unwrap());
    assert!(!client.delete("/w/other").await.unwrap());
    assert_eq!(
        client.lease_keep_alive(lease).await.unwrap(),
        Duration::from_mins(1)
    );
    client.lease_revoke(lease).await.unwrap();

    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(watch.next().await.unwrap().unwrap());
    }
    let expected = [
        WatchEvent::Put {
            key: b"/w/leased".to_vec(),
            value: b"y".to_vec(),
        },
        WatchEvent::Delete {
            key: b"/w/other".to_vec(),
        },
        WatchEvent::Delete {
            key: b"/w/leased".to_vec(),
        },
    ];
    assert_eq!(seen, expected);
    let expired = client.lease_keep_alive(lease).await;
    assert!(
        matches!(expired, Err(EtcdError::LeaseExpired)),
        "{expired:?}"
    );
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_says_so() {
    let Some(server) = EtcdServer::start("etcd compaction").await else {
        return;
    };
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    for value in ["1", "2", "3"] {
        client.put("/w/a", value, None).await.unwrap();
    }
    let revision = client.get_prefix("/w/").await.unwrap().revision;
    client.compact(revision).await.unwrap();
    let mut watch = client.watch_prefix("/w/", 1).await.unwrap();
    let ended = loop {
        match watch.next().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert!(
        matches!(ended, Err(EtcdError::Compacted(r)) if r == revision),
        "{ended:?}"
    );
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_an_error_that_names_it() {
    // Bound and never listened to again: nobody else can take the port meanwhile.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let options = EtcdOptions {
        endpoints: vec![closed.to_string()],
        user: None,
        tls: EtcdTls::default(),
    };
    let error = EtcdClient::connect(&options).await.unwrap_err().to_string();
    assert!(
        error.contains(&closed.to_string()) && error.contains("check"),
        "{error}"
    );
}
