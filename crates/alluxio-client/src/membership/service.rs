//! Workers behind a Kubernetes headless service, found by DNS.
//!
//! The service's SRV records name its pods; those of a StatefulSet keep their names for ever, so the
//! name is the worker's identity on the ring, as it is in a static list of the same names. The
//! address behind a name is resolved with it: a pod that comes back elsewhere keeps its place on the
//! ring. DNS tells of no changes, so it is asked again and again, with some jitter, that a thousand
//! clients which started together do not ask together. A DNS that does not answer costs freshness:
//! the last set stands. An answer without workers is an answer: then there are none.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use alluxio_config::ServiceConfig;
use alluxio_wire::{WorkerAddress, WorkerId};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Membership, Published, WorkerEndpoint, WorkerSet};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::RingShape;

/// How long one question may wait for its answer; a cluster's DNS answers in a millisecond.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long all questions of one reading may take.
const READING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pods whose addresses are asked for at one time.
const QUESTIONS_AT_ONCE: usize = 16;
/// More workers than the largest cluster has; a longer answer is cut there.
const MAX_WORKERS: usize = 4096;

/// The workers of a service, asked for until this is dropped.
#[derive(Debug)]
pub struct ServiceMembership {
    published: Arc<Published>,
    refresher: AbortHandle,
}

/// What the asking task owns.
struct Refresher {
    resolver: TokioResolver,
    service: ServiceConfig,
    shape: RingShape,
    published: Arc<Published>,
}

impl ServiceMembership {
    /// Asks for the workers of a service, and again from then on.
    pub async fn connect(service: &ServiceConfig, shape: RingShape) -> Result<Self> {
        let published = Arc::new(Published::new(WorkerSet::empty()));
        let refresher = Refresher {
            resolver: resolver(service).map_err(|error| failed(service, &error))?,
            service: service.clone(),
            shape,
            published: Arc::clone(&published),
        };
        refresher.refresh().await?;
        if published.snapshot().is_empty() {
            tracing::warn!(
                service = service.name,
                port = service.port,
                "the service has no workers yet: it has no SRV records of this port"
            );
        }
        let task = tokio::spawn(refresher.run());
        Ok(Self {
            published,
            refresher: task.abort_handle(),
        })
    }
}

impl Drop for ServiceMembership {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

#[async_trait]
impl Membership for ServiceMembership {
    fn snapshot(&self) -> Arc<WorkerSet> {
        self.published.snapshot()
    }

    async fn changed(&self, seen: u64) {
        self.published.changed(seen).await;
    }
}

impl Refresher {
    /// Asks for ever, and warns once when the answers stop.
    async fn run(self) {
        let mut warned = false;
        loop {
            let random = RandomState::new().build_hasher().finish();
            tokio::time::sleep(jittered(self.service.refresh, random)).await;
            match self.refresh().await {
                Ok(()) if warned => {
                    tracing::info!(service = self.service.name, "DNS answers again");
                    warned = false;
                }
                Err(error) if !warned => {
                    tracing::warn!(%error, "the workers are kept as they were known last");
                    warned = true;
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    async fn refresh(&self) -> Result<()> {
        let endpoints = match timeout(READING_TIMEOUT, self.endpoints()).await {
            Ok(endpoints) => endpoints.map_err(|error| failed(&self.service, &error))?,
            Err(_elapsed) => return Err(failed(&self.service, &NetError::Timeout)),
        };
        self.published.learn(endpoints, self.shape).await
    }

    /// The workers as DNS knows them now.
    async fn endpoints(&self) -> std::result::Result<Vec<WorkerEndpoint>, NetError> {
        let answer = match self.resolver.srv_lookup(self.service.name.as_str()).await {
            Ok(answer) => answer,
            Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let pods = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) if srv.port == self.service.port => Some(srv.target.to_ascii()),
                _ => None,
            });
        let pods: Vec<String> = pods.take(MAX_WORKERS).collect();
        let endpoints = stream::iter(pods)
            .map(|pod| self.endpoint(pod))
            .buffer_unordered(QUESTIONS_AT_ONCE);
        endpoints
            .try_filter_map(|found| async { Ok(found) })
            .try_collect()
            .await
    }

    /// A pod's endpoint; `None` where its name has gone meanwhile.
    async fn endpoint(&self, pod: String) -> std::result::Result<Option<WorkerEndpoint>, NetError> {
        let addresses = match self.resolver.lookup_ip(pod.as_str()).await {
            Ok(addresses) => addresses,
            Err(error) if error.is_no_records_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        // The least, so that an answer in another order is no change.
        let address: Option<IpAddr> = addresses.iter().min();
        let id = identity(&pod);
        Ok(address.and_then(|ip| {
            WorkerEndpoint::new(id, WorkerAddress::http(ip.to_string(), self.service.port))
        }))
    }
}

/// A pod's identity is that of its full name, as a static list would write it.
fn identity(pod: &str) -> WorkerId {
    WorkerId::from_host(&pod.trim_end_matches('.').to_ascii_lowercase())
}

/// The interval, a fifth more or less.
fn jittered(interval: Duration, random: u64) -> Duration {
    let thousandths = u32::try_from(random % 401).unwrap_or_default();
    interval * (800 + thousandths) / 1000
}

fn resolver(service: &ServiceConfig) -> std::result::Result<TokioResolver, NetError> {
    let mut builder = match service.dns_server {
        None => Resolver::builder_tokio()?,
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut to| {
                to.port = server.port();
                to
            });
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            Resolver::builder_with_config(
                ResolverConfig::from_name_servers(vec![server]),
                TokioRuntimeProvider::default(),
            )
        }
    };
    let options = builder.options_mut();
    // Each reading is to be fresh; the interval is the cache.
    options.cache_size = 0;
    options.timeout = QUESTION_TIMEOUT;
    builder.build()
}

fn failed(service: &ServiceConfig, error: &NetError) -> Error {
    let server = service.dns_server.map_or_else(
        || "the system's DNS".to_owned(),
        |server| format!("the DNS server {server}"),
    );
    let context = format!(
        "the workers of the service {} cannot be asked of {server} ({error}); check \
         cluster.membership.name and that the server can be reached from here",
        service.name
    );
    Error::new(ErrorKind::Unavailable, "join cluster", context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_fifth_more_or_less() {
        let interval = Duration::from_secs(10);
        assert_eq!(jittered(interval, 0), Duration::from_secs(8));
        assert_eq!(jittered(interval, 400), Duration::from_secs(12));
        assert_eq!(jittered(interval, 401), Duration::from_secs(8));
    }

    #[test]
    fn a_pod_has_the_identity_of_its_name_in_a_static_list() {
        let listed = WorkerId::from_host("w-0.workers.ns.svc.cluster.local");
        assert_eq!(identity("W-0.workers.ns.svc.cluster.local."), listed);
    }
}
