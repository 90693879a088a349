//! The worker's record in etcd: a live key under a lease, and a registered key that stays.
//!
//! Clients route by the live keys, so the live key must vanish soon after the worker does, and must
//! come back by itself after etcd was away or the lease was lost. A graceful shutdown deletes it at
//! once.

use std::time::Duration;

use alluxio_config::{ClusterConfig, Membership};
use alluxio_etcd::{EtcdClient, EtcdError, EtcdOptions, LeaseId};
use alluxio_wire::{WorkerRecord, etcd as keys};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the live key outlives its worker. Readers of a dead worker's files wait for nobody
/// meanwhile (they go to the next worker on the ring), so short is good; but a pause of the worker
/// or an election of etcd, of some seconds, must not move files over the ring.
const LEASE_TTL: Duration = Duration::from_secs(10);

/// The lease is kept alive this often: two calls may fail before it ends.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(3);

/// The wait after a failure. Etcd is asked by a few hundred workers at most, each once a second.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A registered worker.
#[derive(Debug)]
pub(crate) struct Registration {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Keeper {
    client: EtcdClient,
    options: EtcdOptions,
    live_key: String,
    registered_key: String,
    value: String,
}

/// Registers the worker where its cluster has an etcd; `None` where there is nothing to register.
pub(crate) async fn register(
    cluster: &ClusterConfig,
    record: &WorkerRecord,
) -> Result<Option<Registration>, EtcdError> {
    let Membership::Etcd(etcd) = &cluster.membership else {
        return Ok(None);
    };
    let options = EtcdOptions::from(etcd);
    let keeper = Keeper {
        client: EtcdClient::connect(&options).await?,
        options,
        live_key: keys::live_key(&cluster.name, &record.id),
        registered_key: keys::registered_key(&cluster.name, &record.id),
        value: record.to_json(),
    };
    let lease = keeper.put_keys().await?;
    tracing::info!(key = keeper.live_key, "registered in etcd");
    let stop = CancellationToken::new();
    let task = tokio::spawn(keeper.keep(lease, stop.clone()));
    Ok(Some(Registration { stop, task }))
}

impl Registration {
    /// Deletes the live key and stops keeping it.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        // The task ends after one bounded call; a panic in it leaves the lease to end by itself.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Keeper {
    async fn put_keys(&self) -> Result<LeaseId, EtcdError> {
        let value = || self.value.clone();
        let lease = self.client.lease_grant(LEASE_TTL).await?;
        self.client.put(&self.registered_key, value(), None).await?;
        self.client
            .put(&self.live_key, value(), Some(lease))
            .await?;
        Ok(lease)
    }

    async fn keep(mut self, mut lease: LeaseId, stop: CancellationToken) {
        while stop
            .run_until_cancelled(self.keep_until_lost(lease))
            .await
            .is_some()
        {
            match stop.run_until_cancelled(self.put_keys_again()).await {
                Some(next) => lease = next,
                None => break,
            }
        }
        if let Err(error) = self.client.lease_revoke(lease).await {
            tracing::warn!(%error, "the live key in etcd could not be deleted and ends by itself");
        }
    }

    /// Keeps the lease alive until etcd says that it is gone, or cannot be asked for longer than
    /// the lease lasts.
    async fn keep_until_lost(&self, lease: LeaseId) {
        let mut last_kept = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(KEEP_ALIVE_EVERY).await;
            match self.client.lease_keep_alive(lease).await {
                Ok(_) => last_kept = tokio::time::Instant::now(),
                Err(EtcdError::LeaseExpired) => {
                    tracing::warn!("the lease in etcd has ended, registering again");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the lease in etcd could not be kept alive");
                    if last_kept.elapsed() > LEASE_TTL {
                        return;
                    }
                }
            }
        }
    }

    /// Registers again and again until it succeeds, warning once.
    async fn put_keys_again(&mut self) -> LeaseId {
        let mut warned = false;
        loop {
            match self.put_keys().await {
                Ok(lease) => {
                    tracing::info!(key = self.live_key, "registered in etcd again");
                    return lease;
                }
                Err(error) if !warned => {
                    tracing::warn!(%error, "cannot register in etcd, trying on");
                    warned = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY_EVERY).await;
            // A new connection takes up certificates that were renewed.
            if let Ok(client) = EtcdClient::connect(&self.options).await {
                self.client = client;
            }
        }
    }
}
