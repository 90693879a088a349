//! The worker's record in a real etcd.

use alluxio_client::membership;
use alluxio_client::ring::RingShape;
use alluxio_config::RingMembership;
use alluxio_etcd::EtcdClient;
use alluxio_wire::{WorkerRecord, etcd as keys};
use alluxio_worker::{Worker, WorkerError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::etcd::EtcdServer;
use crate::support::{Setup, until};

const CLUSTER: &str = "DefaultAlluxioCluster";

fn setup(files: &tempfile::TempDir, endpoint: &str) -> Setup {
    let mut setup = Setup::local(files);
    setup.membership = format!("{{type: etcd, endpoints: ['http://{endpoint}']}}");
    setup
}

async fn value(client: &EtcdClient, key: &str) -> Option<WorkerRecord> {
    let listing = client.get_prefix(key).await.ok()?;
    let (_, value) = listing.pairs.first()?;
    WorkerRecord::from_json(value).ok()
}

#[tokio::test]
async fn a_worker_registers_comes_back_after_a_loss_and_leaves_at_once() {
    let Some(etcd) = EtcdServer::start("registration of a worker in etcd").await else {
        return;
    };
    let files = tempfile::tempdir().unwrap();
    let worker = setup(&files, &etcd.endpoint()).start().await;
    let client = EtcdClient::connect(&etcd.options()).await.unwrap();
    let record = worker.worker.record().clone();
    assert_eq!(record.address.http_port, worker.worker.address().port());
    let live = keys::live_key(CLUSTER, &record.id);
    let registered = keys::registered_key(CLUSTER, &record.id);
    assert_eq!(value(&client, &live).await.as_ref(), Some(&record));
    assert_eq!(value(&client, &registered).await.as_ref(), Some(&record));

    // Clients find it, and it finds itself, so that its loads reach it.
    let cluster = &worker.config.cluster;
    let members =
        membership::connect(cluster, RingMembership::Live, RingShape::consistent(100)).await;
    let found = members.unwrap().snapshot();
    assert!(found.get(&record.id).is_some());
    until("the worker sees itself", || async {
        let node = worker.get("/v1/node?path=/any").await.json();
        (node["HttpServerPort"] == record.address.http_port).then_some(())
    })
    .await;

    // The lease and the keys are lost with etcd's data: they come back by themselves.
    let etcd = etcd.forget().await;
    let client = EtcdClient::connect(&etcd.options()).await.unwrap();
    until("the live key is there again", || value(&client, &live)).await;
    until("the registered key too", || value(&client, &registered)).await;

    worker.worker.shutdown().await;
    assert_eq!(value(&client, &live).await, None);
    assert_eq!(value(&client, &registered).await, Some(record));
}

#[tokio::test]
async fn a_worker_that_stops_leaves_the_cluster_before_it_ends_its_answers() {
    let Some(etcd) = EtcdServer::start("a graceful stop in etcd").await else {
        return;
    };
    let files = tempfile::tempdir().unwrap();
    let worker = setup(&files, &etcd.endpoint()).start().await;
    let client = EtcdClient::connect(&etcd.options()).await.unwrap();
    let live = keys::live_key(CLUSTER, &worker.worker.record().id);
    assert!(value(&client, &live).await.is_some());
    // A request that has begun and waits for its body.
    let mut stream = TcpStream::connect(worker.worker.address()).await.unwrap();
    let id = worker.root().join("f").unwrap().file_id();
    let head =
        format!("POST /v1/file/{id}/page/0 HTTP/1.1\r\nhost: w\r\ncontent-length: 4\r\n\r\nab");
    stream.write_all(head.as_bytes()).await.unwrap();
    until("the request has begun", || async {
        let open = worker.metric("alluxio_worker_connections").await;
        // The other one asks for this metric.
        (open >= 2).then_some(())
    })
    .await;
    let stopping = tokio::spawn(worker.worker.shutdown());
    until("the live key is gone", || async {
        let gone = value(&client, &live).await.is_none();
        gone.then_some(())
    })
    .await;
    assert!(!stopping.is_finished());
    stream.write_all(b"cd").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_named() {
    let files = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = setup(&files, "127.0.0.1:1").config(&folder);
    let error = Worker::start(&config).await.unwrap_err();
    assert!(matches!(error, WorkerError::Membership(_)), "{error:?}");
    assert!(error.to_string().contains("cannot join the cluster"));
}

#[tokio::test]
async fn a_taken_port_and_a_taken_directory_are_named() {
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    let mut same_port = worker.config.clone();
    same_port.worker.listen = worker.worker.address();
    same_port.worker.page_store.first.path = worker.folder.path().join("other");
    let error = Worker::start(&same_port).await.unwrap_err();
    assert!(matches!(error, WorkerError::Listen { .. }), "{error}");
    let error = Worker::start(&worker.config).await.unwrap_err();
    assert!(
        matches!(error, WorkerError::PageStoreInUse { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("a directory of its own"));
}
