//! Membership against a real etcd: joins, leaves, moves, bad records, restarts of etcd.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a test fails by panicking, and says in one line what it left out"
)]

#[path = "../../alluxio-etcd/tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use alluxio_client::membership::{self, Membership, WorkerSet};
use alluxio_client::ring::RingShape;
use alluxio_client::{ErrorKind, Result};
use alluxio_config::{
    ClusterConfig, EtcdConfig, EtcdTlsConfig, Membership as Source, RingMembership, WorkerSecurity,
};
use alluxio_etcd::EtcdClient;
use alluxio_wire::{WorkerAddress, WorkerId, WorkerRecord, etcd};
use support::EtcdServer;

const CLUSTER: &str = "test-cluster";
/// Far longer than any step takes; only a failure waits for it.
const DEADLINE: Duration = Duration::from_mins(1);

async fn join(server: &EtcdServer, ring: RingMembership) -> Result<Arc<dyn Membership>> {
    join_at(format!("http://{}", server.endpoint()), ring).await
}

async fn join_at(endpoint: String, ring: RingMembership) -> Result<Arc<dyn Membership>> {
    let cluster = ClusterConfig {
        name: CLUSTER.to_owned(),
        membership: Source::Etcd(EtcdConfig {
            endpoints: vec![endpoint],
            username: None,
            password: None,
            tls: EtcdTlsConfig::default(),
        }),
        security: WorkerSecurity::default(),
    };
    membership::connect(&cluster, ring, RingShape::consistent(100)).await
}

fn record(host: &str, port: u16) -> WorkerRecord {
    WorkerRecord::new(WorkerId::from_host(host), WorkerAddress::http(host, port))
}

async fn register(client: &EtcdClient, record: &WorkerRecord) {
    let key = etcd::live_key(CLUSTER, &record.id);
    client.put(&key, record.to_json(), None).await.unwrap();
}

/// Waits for a set that is as wanted.
async fn until(
    membership: &Arc<dyn Membership>,
    wanted: impl Fn(&WorkerSet) -> bool,
) -> Arc<WorkerSet> {
    let wait = async {
        loop {
            let set = membership.snapshot();
            if wanted(&set) {
                return set;
            }
            membership.changed(set.generation()).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .expect("the workers did not become as wanted")
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_join_move_and_leave_without_a_restart() {
    let Some(server) = EtcdServer::start("membership changes").await else {
        return;
    };
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    register(&client, &record("first", 1)).await;

    let membership = join(&server, RingMembership::Live).await.unwrap();
    assert_eq!(membership.snapshot().len(), 1);
    register(&client, &record("second", 1)).await;
    let two = until(&membership, |set| set.len() == 2).await;

    let moved = WorkerRecord::new(record("second", 1).id, WorkerAddress::http("other", 9));
    register(&client, &moved).await;
    let after = until(&membership, |set| set.find("other", 9).is_some()).await;
    assert_eq!(after.ring(), two.ring());

    client
        .delete(&etcd::live_key(CLUSTER, &moved.id))
        .await
        .unwrap();
    let one = until(&membership, |set| set.len() == 1).await;
    assert!(one.find("first", 1).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_with_its_lease() {
    let Some(server) = EtcdServer::start("membership leases").await else {
        return;
    };
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    let lease = client.lease_grant(Duration::from_mins(1)).await.unwrap();
    let record = record("leased", 1);
    let key = etcd::live_key(CLUSTER, &record.id);
    client
        .put(&key, record.to_json(), Some(lease))
        .await
        .unwrap();
    let membership = join(&server, RingMembership::Live).await.unwrap();
    assert_eq!(membership.snapshot().len(), 1);
    client.lease_revoke(lease).await.unwrap();
    until(&membership, WorkerSet::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registered_ring_keeps_workers_that_are_down() {
    let Some(server) = EtcdServer::start("registered members").await else {
        return;
    };
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    let down = record("down", 1);
    client
        .put(
            &etcd::registered_key(CLUSTER, &down.id),
            down.to_json(),
            None,
        )
        .await
        .unwrap();
    let live = join(&server, RingMembership::Live).await.unwrap();
    let registered = join(&server, RingMembership::Registered).await.unwrap();
    assert_eq!((live.snapshot().len(), registered.snapshot().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_left_out() {
    let Some(server) = EtcdServer::start("unreadable records").await else {
        return;
    };
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    register(&client, &record("good", 1)).await;
    let broken = etcd::live_prefix(CLUSTER) + "worker-broken";
    client.put(&broken, "{", None).await.unwrap();
    let membership = join(&server, RingMembership::Live).await.unwrap();
    assert_eq!(membership.snapshot().len(), 1);
    client
        .put(&broken, record("mended", 1).to_json(), None)
        .await
        .unwrap();
    until(&membership, |set| set.find("mended", 1).is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_etcd_costs_no_worker_and_no_change() {
    let Some(mut server) = EtcdServer::start("restart of etcd").await else {
        return;
    };
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    register(&client, &record("first", 1)).await;
    let membership = join(&server, RingMembership::Live).await.unwrap();
    server.stop();
    assert_eq!(membership.snapshot().len(), 1);
    server.restart().await;
    let client = EtcdClient::connect(&server.options()).await.unwrap();
    register(&client, &record("second", 1)).await;
    // History is gone as well, so that going on from the old revision is no way out.
    let revision = client.get_prefix("/").await.unwrap().revision;
    client.compact(revision).await.unwrap();
    until(&membership, |set| set.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_not_there_is_an_error_that_names_it_and_the_remedy() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let joining = join_at(format!("http://{closed}"), RingMembership::Live);
    let error = tokio::time::timeout(DEADLINE, joining)
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&closed.to_string()) && text.contains("check the endpoints"),
        "{text}"
    );
}
