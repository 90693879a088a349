//! Reads while workers come and go: registered before they listen, gone and back, moved.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

#[path = "../../alluxio-etcd/tests/support/mod.rs"]
mod etcd;
mod support;

use std::time::Duration;

use alluxio_client::membership::{FixedMembership, Membership as _, WorkerSet};
use alluxio_client::ring::RingShape;
use alluxio_client::source::OpenedFile;
use alluxio_client::worker::{PageAnswer, Workers};
use alluxio_client::{BytesBySource, Client};
use alluxio_config::{Config, HostPort};
use alluxio_etcd::EtcdClient;
use alluxio_wire::{PageSize, WorkerAddress, WorkerId, WorkerRecord, etcd as keys};
use etcd::EtcdServer;
use support::{DEADLINE, Folder, PAGE, ScriptedWorker};
use tokio::net::TcpSocket;

const CLUSTER: &str = "joining";
/// So many that chance does not give one worker all of them.
const FILES: usize = 40;

fn folder() -> Folder {
    let names: Vec<String> = (0..FILES).map(|number| number.to_string()).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), PAGE)).collect();
    Folder::with(&files)
}

async fn client(etcd: &EtcdServer, folder: &Folder, ring: &str) -> Client {
    let yaml = format!(
        "ufs: {{uri: '{}', anon: true}}\n\
         cluster: {{name: {CLUSTER}, membership: {{type: etcd, endpoints: ['{}']}}}}\n\
         client: {{page_size: 64Ki, verify_worker_version: false, readahead: {{max_window: 0}},\n\
         \x20 ring_membership: {ring}, memory_limit: 256Ki}}\n",
        folder.root(),
        etcd.url(),
    );
    Client::connect(&Config::from_yaml(&yaml).unwrap())
        .await
        .unwrap()
}

fn record(name: &str, port: u16) -> WorkerRecord {
    WorkerRecord::new(
        WorkerId::from_host(name),
        WorkerAddress::http("127.0.0.1", port),
    )
}

async fn register(etcd: &EtcdClient, record: &WorkerRecord) {
    let live = keys::live_key(CLUSTER, &record.id);
    let registered = keys::registered_key(CLUSTER, &record.id);
    for key in [live, registered] {
        etcd.put(&key, record.to_json(), None).await.unwrap();
    }
}

/// Reads all files, right or not at all, and tells where their bytes came from.
async fn read_all(client: &Client, folder: &Folder) -> BytesBySource {
    let before = client.bytes_by_source();
    for number in 0..FILES {
        let name = number.to_string();
        let reader = client.open(&name).await.unwrap();
        let read = reader.read_at(0, PAGE).await.unwrap();
        assert!(
            read.into_bytes() == folder.bytes(&name),
            "wrong bytes of {name}"
        );
    }
    client.bytes_by_source().since(&before)
}

/// Reads all files again and again until their sources are as wanted.
async fn until(client: &Client, folder: &Folder, wanted: impl Fn(&BytesBySource) -> bool) {
    let wait = async {
        while !wanted(&read_all(client, folder).await) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .expect("the bytes did not come from where they should");
}

/// A port that is taken and refuses connections, until it is listened to.
fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_registers_before_its_port_opens_costs_no_read() {
    let Some(server) = EtcdServer::start("a worker that is not open yet").await else {
        return;
    };
    let etcd = EtcdClient::connect(&server.options()).await.unwrap();
    let folder = folder();
    let open = ScriptedWorker::holding(&folder).await;
    let (socket, port) = closed_port();
    register(&etcd, &record("open", open.address.port())).await;
    register(&etcd, &record("opening", port)).await;
    let client = client(&server, &folder, "live").await;
    let sources = read_all(&client, &folder).await;
    assert!(sources.worker > 0 && sources.next_worker > 0, "{sources:?}");
    assert_eq!(sources.ufs, 0);
    // When it opens, its files come from it again.
    let _opened = ScriptedWorker::holding_at(socket.listen(64).unwrap(), &folder);
    until(&client, &folder, |from| {
        from.next_worker == 0 && from.ufs == 0 && from.worker > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_follow_workers_that_join_move_and_leave() {
    let Some(server) = EtcdServer::start("workers that join and leave").await else {
        return;
    };
    let etcd = EtcdClient::connect(&server.options()).await.unwrap();
    let folder = folder();
    let client = client(&server, &folder, "live").await;
    let sources = read_all(&client, &folder).await;
    assert_eq!(sources.ufs, sources.total(), "there is no worker yet");

    let first = ScriptedWorker::holding(&folder).await;
    register(&etcd, &record("w", first.address.port())).await;
    let from_worker = |from: &BytesBySource| from.worker > 0 && from.ufs == 0;
    until(&client, &folder, from_worker).await;
    // The same identity at another address.
    let second = ScriptedWorker::holding(&folder).await;
    register(&etcd, &record("w", second.address.port())).await;
    let wait = client.workers().generation();
    drop(first);
    until(&client, &folder, |from| {
        from_worker(from) && !second.targets().is_empty()
    })
    .await;
    assert!(client.workers().generation() >= wait);

    etcd.delete(&keys::live_key(CLUSTER, &record("w", 1).id))
        .await
        .unwrap();
    until(&client, &folder, |from| from.worker == 0 && from.ufs > 0).await;
    assert!(client.workers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_worker_that_is_down_leaves_its_files_to_the_under_store() {
    let Some(server) = EtcdServer::start("registered workers").await else {
        return;
    };
    let etcd = EtcdClient::connect(&server.options()).await.unwrap();
    let folder = folder();
    let up = ScriptedWorker::holding(&folder).await;
    register(&etcd, &record("up", up.address.port())).await;
    let (_closed, port) = closed_port();
    let down = record("down", port);
    let key = keys::registered_key(CLUSTER, &down.id);
    etcd.put(&key, down.to_json(), None).await.unwrap();

    let registered = client(&server, &folder, "registered").await;
    let sources = read_all(&registered, &folder).await;
    assert!(sources.worker > 0 && sources.ufs > 0, "{sources:?}");
    assert_eq!(
        sources.next_worker, 0,
        "its files are not the next worker's"
    );
    // To a ring of live workers it is no member.
    let live = client(&server, &folder, "live").await;
    let sources = read_all(&live, &folder).await;
    assert_eq!(sources.worker, sources.total());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_workers_that_left_are_not_kept() {
    let folder = Folder::with(&[("a", PAGE)]);
    let worker = ScriptedWorker::holding(&folder).await;
    let place = HostPort {
        host: "127.0.0.1".to_owned(),
        port: worker.address.port(),
    };
    let members = FixedMembership::new(&[place], RingShape::consistent(10))
        .await
        .unwrap();
    let members = members.snapshot();
    let endpoint = members.endpoints().next().unwrap();
    let uri = folder.root().join("a").unwrap();
    let file = OpenedFile {
        id: uri.file_id(),
        uri,
        version: alluxio_wire::FileVersion::from_text("1"),
        length: PAGE as u64,
        modified_ms: 0,
        page_size: PageSize::new(PAGE as u64).unwrap(),
    };
    let workers = Workers::new(DEADLINE, 4);
    for (set, connections) in [(&*members, 1), (&*members, 1), (&WorkerSet::empty(), 1)] {
        let answer = workers.page(endpoint, &file, 0, false).await;
        assert!(matches!(answer, PageAnswer::Page(_)), "{answer}");
        assert_eq!(worker.connections(), connections);
        workers.forget_all_but(set);
    }
    workers.page(endpoint, &file, 0, false).await;
    assert_eq!(worker.connections(), 2);
}
