//! Which workers there are, where they listen, and the ring they form.
//!
//! Readers take a [`WorkerSet`] snapshot for each pick and never wait for a change; whoever learns
//! of a change publishes the next snapshot whole. A set that cannot be refreshed stays as it was:
//! a silent etcd costs freshness, not reads.

mod etcd;
mod fixed;
mod service;

use std::collections::HashMap;
use std::sync::Arc;

use alluxio_config::{ClusterConfig, Membership as Source, RingMembership};
use alluxio_wire::{UfsUri, WorkerAddress, WorkerId};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::{HashRing, RingShape};

pub use etcd::EtcdMembership;
pub use fixed::FixedMembership;
pub use service::ServiceMembership;

/// One worker: who it is and where it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerEndpoint {
    /// Ring identity.
    pub id: WorkerId,
    /// Where it listens.
    pub address: Arc<WorkerAddress>,
    /// `http://host:port` of the REST server, without a path.
    pub base_url: Arc<str>,
    /// The same by the host of the container network, tried where the first cannot be reached.
    pub container_base_url: Option<Arc<str>>,
}

/// The workers at one moment and their ring.
#[derive(Debug, Clone)]
pub struct WorkerSet {
    generation: u64,
    ring: Arc<HashRing>,
    endpoints: HashMap<WorkerId, WorkerEndpoint>,
}

/// A source of worker sets.
///
/// `snapshot` never waits and never fails: it is the last set that was learnt. Generations grow by
/// one for each set that differs from the one before, so a caller that has seen generation `n` may
/// wait for `changed(n)` without missing a change.
#[async_trait]
pub trait Membership: Send + Sync + std::fmt::Debug {
    /// The workers as they are known now.
    fn snapshot(&self) -> Arc<WorkerSet>;

    /// Waits until the snapshot's generation is another than `seen`.
    async fn changed(&self, seen: u64);
}

/// Joins the cluster as a watcher, in the way the configuration says.
///
/// Fails where the source of members cannot be reached in bounded time; later failures only leave
/// the snapshot as it is.
pub async fn connect(
    cluster: &ClusterConfig,
    ring: RingMembership,
    shape: RingShape,
) -> Result<Arc<dyn Membership>> {
    match &cluster.membership {
        Source::None => Ok(Arc::new(FixedMembership::none())),
        Source::Static { workers } => Ok(Arc::new(FixedMembership::new(workers, shape).await?)),
        Source::Service(service) => Ok(Arc::new(ServiceMembership::connect(service, shape).await?)),
        Source::Etcd(config) => {
            let prefix = etcd::prefix(&cluster.name, ring);
            Ok(Arc::new(
                EtcdMembership::connect(config.into(), prefix, shape).await?,
            ))
        }
    }
}

impl WorkerEndpoint {
    /// The endpoint of a worker at this address; `None` where the address has no host or port.
    pub fn new(id: WorkerId, address: WorkerAddress) -> Option<Self> {
        let url = |host: &str| Arc::from(base_url(host, address.http_port));
        let mut urls = address.hosts().map(url);
        let base_url = urls.next().filter(|_| address.http_port != 0)?;
        let container_base_url = urls.next();
        drop(urls);
        Some(Self {
            id,
            address: Arc::new(address),
            base_url,
            container_base_url,
        })
    }
}

impl WorkerSet {
    /// No workers at all.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            ring: Arc::new(HashRing::new(&[], 1)),
            endpoints: HashMap::new(),
        }
    }

    /// A set of these workers. The ring of `previous` is taken over when its workers are the same.
    ///
    /// The ring is built on a thread of its own: a big one takes seconds.
    async fn build(
        previous: &Self,
        endpoints: Vec<WorkerEndpoint>,
        shape: RingShape,
    ) -> Result<Self> {
        let endpoints: HashMap<_, _> = endpoints.into_iter().map(|e| (e.id, e)).collect();
        let same_workers = endpoints.len() == previous.endpoints.len()
            && endpoints
                .keys()
                .all(|id| previous.endpoints.contains_key(id))
            && previous.ring.shape() == shape;
        let ring = if same_workers {
            Arc::clone(&previous.ring)
        } else {
            let mut ids: Vec<_> = endpoints.keys().copied().collect();
            // The order of etcd's keys, which some policies count workers in.
            ids.sort_unstable_by_key(|id| (id.identifier, id.version));
            let build = tokio::task::spawn_blocking(move || HashRing::of_shape(&ids, shape));
            let stopped = |error| {
                Error::new(
                    ErrorKind::Unexpected,
                    "join cluster",
                    "building the ring was stopped",
                )
                .with_source(error)
            };
            Arc::new(build.await.map_err(stopped)?)
        };
        Ok(Self {
            generation: previous.generation + 1,
            ring,
            endpoints,
        })
    }

    /// The workers that should hold a file: at most `count`, the owner first.
    pub fn owners(&self, file: &UfsUri, count: usize) -> Vec<WorkerEndpoint> {
        let picked = self.ring.pick(file.as_str(), count);
        picked
            .iter()
            .filter_map(|id| self.endpoints.get(id).cloned())
            .collect()
    }

    /// The ring of these workers.
    pub fn ring(&self) -> &HashRing {
        &self.ring
    }

    /// Counts the sets of one membership; grows with each change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The workers, in no order.
    pub fn endpoints(&self) -> impl Iterator<Item = &WorkerEndpoint> {
        self.endpoints.values()
    }

    /// The worker with this identity.
    pub fn get(&self, id: &WorkerId) -> Option<&WorkerEndpoint> {
        self.endpoints.get(id)
    }

    /// The worker that listens there, by which a worker of a static list finds its own identity.
    pub fn find(&self, host: &str, http_port: u16) -> Option<&WorkerEndpoint> {
        let listens = |e: &&WorkerEndpoint| {
            // A service's workers listen at addresses and are named by their hosts.
            let is_host = e.address.hosts().any(|h| h == host) || e.id == WorkerId::from_host(host);
            e.address.http_port == http_port && is_host
        };
        self.endpoints.values().find(listens)
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is no worker.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

/// The current set and the bell that rings when it changes.
#[derive(Debug)]
struct Published {
    current: ArcSwap<WorkerSet>,
    generation: watch::Sender<u64>,
}

impl Published {
    fn new(set: WorkerSet) -> Self {
        let generation = watch::Sender::new(set.generation);
        Self {
            current: ArcSwap::from_pointee(set),
            generation,
        }
    }

    /// Publishes the set of these workers if it differs from the one before. Nobody else publishes.
    async fn learn(&self, endpoints: Vec<WorkerEndpoint>, shape: RingShape) -> Result<()> {
        let current = self.snapshot();
        let same = endpoints.len() == current.len()
            && endpoints.iter().all(|e| current.get(&e.id) == Some(e));
        if !same || current.generation() == 0 {
            let set = WorkerSet::build(&current, endpoints, shape).await?;
            tracing::info!(
                workers = set.len(),
                ring = set.ring().fingerprint(),
                "workers changed"
            );
            self.publish(set);
        }
        Ok(())
    }

    fn publish(&self, set: WorkerSet) {
        let generation = set.generation;
        self.current.store(Arc::new(set));
        self.generation.send_replace(generation);
    }

    fn snapshot(&self) -> Arc<WorkerSet> {
        self.current.load_full()
    }

    async fn changed(&self, seen: u64) {
        let mut generations = self.generation.subscribe();
        // The sender lives in `self`, so the wait cannot end for lack of one.
        let _ = generations.wait_for(|generation| *generation != seen).await;
    }
}

/// The URL of a host and port, with the brackets that an IPv6 address needs.
fn base_url(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("http://[{host}]:{port}")
    } else {
        format!("http://{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn endpoint(host: &str) -> WorkerEndpoint {
        WorkerEndpoint::new(WorkerId::from_host(host), WorkerAddress::http(host, 28080)).unwrap()
    }

    #[test]
    fn an_endpoint_has_a_url_for_each_host() {
        let mut address = WorkerAddress::http("fd00::1", 28080);
        address.container_host = "pod-1".to_owned();
        let endpoint = WorkerEndpoint::new(WorkerId::from_host("w"), address).unwrap();
        assert_eq!(&*endpoint.base_url, "http://[fd00::1]:28080");
        assert_eq!(
            endpoint.container_base_url.as_deref(),
            Some("http://pod-1:28080")
        );
        let nowhere = WorkerAddress::http("w", 0);
        assert_eq!(WorkerEndpoint::new(WorkerId::from_host("w"), nowhere), None);
    }

    #[tokio::test]
    async fn a_set_names_owners_in_ring_order_and_finds_workers_by_address() {
        let endpoints = ["a", "b", "c"].map(endpoint).to_vec();
        let set = WorkerSet::build(&WorkerSet::empty(), endpoints, RingShape::consistent(100))
            .await
            .unwrap();
        let file = UfsUri::parse("s3://bucket/key").unwrap();
        let owners: Vec<_> = set.owners(&file, 2).into_iter().map(|e| e.id).collect();
        assert_eq!(owners, set.ring().pick("s3://bucket/key", 2));
        assert_eq!(set.find("b", 28080), Some(&endpoint("b")));
        assert_eq!(set.find("b", 1), None);
    }

    #[tokio::test]
    async fn a_moved_worker_keeps_the_ring_and_makes_a_new_generation() {
        let first = WorkerSet::build(
            &WorkerSet::empty(),
            vec![endpoint("a")],
            RingShape::consistent(10),
        )
        .await
        .unwrap();
        let moved = WorkerAddress::http("elsewhere", 28080);
        let moved = WorkerEndpoint::new(WorkerId::from_host("a"), moved).unwrap();
        let second = WorkerSet::build(&first, vec![moved], RingShape::consistent(10))
            .await
            .unwrap();
        assert!(Arc::ptr_eq(&first.ring, &second.ring));
        assert_eq!(second.generation(), first.generation() + 1);
        assert_eq!(
            &*second.endpoints().next().unwrap().base_url,
            "http://elsewhere:28080"
        );
    }

    #[tokio::test]
    async fn a_change_is_not_missed_by_who_waits_late() {
        let published = Published::new(WorkerSet::empty());
        let next = WorkerSet::build(
            &WorkerSet::empty(),
            vec![endpoint("a")],
            RingShape::consistent(10),
        )
        .await
        .unwrap();
        published.publish(next);
        published.changed(0).await;
        assert_eq!(published.snapshot().len(), 1);
    }
}
