//! Membership by DNS against a small DNS server of our own: joins, leaves, moves, silence.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/dns.rs"]
mod dns;

use std::sync::Arc;
use std::time::Duration;

use alluxio_client::membership::{self, FixedMembership, Membership, WorkerSet};
use alluxio_client::ring::RingShape;
use alluxio_client::{ErrorKind, Result};
use alluxio_config::{
    ClusterConfig, HostPort, Membership as Source, RingMembership, ServiceConfig, WorkerSecurity,
};
use alluxio_wire::WorkerId;
use dns::DnsServer;

const SERVICE: &str = "workers.test.svc.cluster.local";
const PORT: u16 = 28080;
/// Far longer than any step takes; only a failure waits for it.
const DEADLINE: Duration = Duration::from_mins(1);

async fn join(dns: &DnsServer) -> Result<Arc<dyn Membership>> {
    let cluster = ClusterConfig {
        name: "c".to_owned(),
        membership: Source::Service(ServiceConfig {
            name: SERVICE.to_owned(),
            port: PORT,
            refresh: Duration::from_millis(50),
            dns_server: Some(dns.address),
        }),
        security: WorkerSecurity::default(),
    };
    membership::connect(&cluster, RingMembership::Live, RingShape::consistent(100)).await
}

fn pod(number: u32) -> String {
    format!("w-{number}.{SERVICE}")
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
async fn pods_of_a_service_join_move_and_leave() {
    let dns = DnsServer::start().await;
    dns.set_pod(SERVICE, &pod(0), PORT, [10, 0, 0, 1]);
    let membership = join(&dns).await.unwrap();
    assert_eq!(membership.snapshot().len(), 1);
    dns.set_pod(SERVICE, &pod(1), PORT, [10, 0, 0, 2]);
    let two = until(&membership, |set| set.len() == 2).await;

    // The same pod at another address keeps its place on the ring.
    dns.set_pod(SERVICE, &pod(1), PORT, [10, 0, 0, 9]);
    let moved = until(&membership, |set| set.find("10.0.0.9", PORT).is_some()).await;
    assert_eq!(moved.ring(), two.ring());
    let id = WorkerId::from_host(&pod(1));
    assert_eq!(&*moved.get(&id).unwrap().base_url, "http://10.0.0.9:28080");
    assert_eq!(moved.find(&pod(1), PORT).unwrap().id, id);

    dns.remove_pod(SERVICE, &pod(0));
    let one = until(&membership, |set| set.len() == 1).await;
    assert!(one.get(&id).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_makes_the_ring_of_a_static_list_of_its_pods() {
    let dns = DnsServer::start().await;
    for number in 0..5 {
        let ip = [10, 0, 0, u8::try_from(number).unwrap()];
        dns.set_pod(SERVICE, &pod(number), PORT, ip);
    }
    let listed = |number| HostPort {
        host: pod(number),
        port: PORT,
    };
    let list: Vec<_> = (0..5).map(listed).collect();
    let fixed = FixedMembership::new(&list, RingShape::consistent(100))
        .await
        .unwrap();
    let by_dns = join(&dns).await.unwrap();
    assert_eq!(
        by_dns.snapshot().ring().fingerprint(),
        fixed.snapshot().ring().fingerprint()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_other_ports_and_of_no_address_are_left_out() {
    let dns = DnsServer::start().await;
    dns.set_pod(SERVICE, &pod(0), PORT, [10, 0, 0, 1]);
    dns.set_pod(SERVICE, &pod(1), 29999, [10, 0, 0, 2]);
    dns.set_pod_without_address(SERVICE, &pod(2), PORT);
    let set = join(&dns).await.unwrap().snapshot();
    assert_eq!(set.len(), 1);
    assert!(set.find(&pod(0), PORT).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_pods_is_joined_and_fills() {
    let dns = DnsServer::start().await;
    let membership = join(&dns).await.unwrap();
    assert!(membership.snapshot().is_empty());
    dns.set_pod(SERVICE, &pod(0), PORT, [10, 0, 0, 1]);
    until(&membership, |set| set.len() == 1).await;
    dns.remove_pod(SERVICE, &pod(0));
    until(&membership, WorkerSet::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dns_that_fails_costs_no_worker_and_no_change() {
    let dns = DnsServer::start().await;
    dns.set_pod(SERVICE, &pod(0), PORT, [10, 0, 0, 1]);
    let membership = join(&dns).await.unwrap();
    let generation = membership.snapshot().generation();
    dns.fail(true);
    dns.questions(3).await;
    assert_eq!(membership.snapshot().generation(), generation);
    assert_eq!(membership.snapshot().len(), 1);
    dns.set_pod(SERVICE, &pod(1), PORT, [10, 0, 0, 2]);
    dns.fail(false);
    until(&membership, |set| set.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dns_that_fails_at_the_start_is_an_error_that_names_service_and_server() {
    let dns = DnsServer::start().await;
    dns.fail(true);
    let error = tokio::time::timeout(DEADLINE, join(&dns))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    let names = [
        SERVICE,
        &dns.address.to_string(),
        "check cluster.membership.name",
    ];
    assert!(names.iter().all(|name| text.contains(name)), "{text}");
}
