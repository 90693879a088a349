//! Workers that are listed in the configuration, or none.
//!
//! A listed worker's identity is made from its host, as Alluxio's clients do. A host that is listed
//! with several ports would be one worker to them; here such workers are told apart by host and
//! port, which is of use on one machine and changes nothing for a list of hosts.

use std::sync::Arc;

use alluxio_config::HostPort;
use alluxio_wire::{WorkerAddress, WorkerId};
use async_trait::async_trait;

use super::{Membership, WorkerEndpoint, WorkerSet};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::RingShape;

/// A set of workers that never changes.
#[derive(Debug)]
pub struct FixedMembership {
    set: Arc<WorkerSet>,
}

impl FixedMembership {
    /// No workers: everything comes from the UFS.
    pub fn none() -> Self {
        Self {
            set: Arc::new(WorkerSet::empty()),
        }
    }

    /// The listed workers.
    pub async fn new(workers: &[HostPort], shape: RingShape) -> Result<Self> {
        let endpoints = endpoints(workers)?;
        let set = WorkerSet::build(&WorkerSet::empty(), endpoints, shape).await?;
        Ok(Self { set: Arc::new(set) })
    }
}

#[async_trait]
impl Membership for FixedMembership {
    fn snapshot(&self) -> Arc<WorkerSet> {
        Arc::clone(&self.set)
    }

    async fn changed(&self, seen: u64) {
        if self.set.generation() == seen {
            std::future::pending::<()>().await;
        }
    }
}

fn endpoints(workers: &[HostPort]) -> Result<Vec<WorkerEndpoint>> {
    let endpoint = |worker: &HostPort| {
        let address = WorkerAddress::http(worker.host.clone(), worker.port);
        WorkerEndpoint::new(identity(worker, workers), address).ok_or_else(|| {
            let context = format!(
                "worker `{}:{}` of the static list has no host or port; write host:port",
                worker.host, worker.port
            );
            Error::new(ErrorKind::InvalidInput, "join cluster", context)
        })
    };
    workers.iter().map(endpoint).collect()
}

fn identity(worker: &HostPort, all: &[HostPort]) -> WorkerId {
    let shared = all
        .iter()
        .any(|w| w.host == worker.host && w.port != worker.port);
    if shared {
        WorkerId::from_host(&format!("{}:{}", worker.host, worker.port))
    } else {
        WorkerId::from_host(&worker.host)
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

    fn listed(host: &str, port: u16) -> HostPort {
        HostPort {
            host: host.to_owned(),
            port,
        }
    }

    #[tokio::test]
    async fn a_listed_workers_identity_is_its_hosts() {
        let membership =
            FixedMembership::new(&[listed("a", 1), listed("b", 1)], RingShape::consistent(5))
                .await
                .unwrap();
        let set = membership.snapshot();
        assert_eq!(set.find("a", 1).unwrap().id, WorkerId::from_host("a"));
        assert_eq!(set.ring().shape().virtual_nodes, 5);
    }

    #[tokio::test]
    async fn workers_of_one_host_are_told_apart_by_port() {
        let list = [
            listed("a", 1),
            listed("a", 2),
            listed("b", 1),
            listed("b", 1),
        ];
        let set = FixedMembership::new(&list, RingShape::consistent(5))
            .await
            .unwrap()
            .snapshot();
        assert_eq!(set.len(), 3);
        assert_eq!(set.find("a", 2).unwrap().id, WorkerId::from_host("a:2"));
        assert_eq!(set.find("b", 1).unwrap().id, WorkerId::from_host("b"));
    }

    #[tokio::test]
    async fn an_entry_without_host_is_refused_by_name() {
        let error = FixedMembership::new(&[listed("", 9)], RingShape::consistent(5))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("`:9`"), "{error}");
    }
}
