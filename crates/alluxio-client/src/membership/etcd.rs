//! Workers that register in etcd, in Alluxio's own keys and format.
//!
//! First the whole prefix is read, then it is watched from the revision of that reading on, so no
//! change falls between. Whatever ends the watch (a lost connection, a restart of etcd, a
//! compaction that overtook us) is answered alike: wait a little longer each time, read the whole
//! prefix again, watch again. Meanwhile the last set stands.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use alluxio_config::RingMembership;
use alluxio_etcd::{EtcdClient, EtcdError, EtcdOptions, WatchEvent};
use alluxio_wire::{WorkerRecord, etcd as keys};
use async_trait::async_trait;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Membership, Published, WorkerEndpoint, WorkerSet};
use crate::error::{Error, ErrorKind, Result};
use crate::ring::RingShape;

/// How long the first reading may take before the mount or job that asked is told so. Long enough
/// for an election of etcd (a few seconds), short enough for a person who waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait after a watch ended: a restart of etcd takes about as long.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest wait: the set may be this much older than etcd once etcd is back.
const BACKOFF_LAST: Duration = Duration::from_secs(15);

/// The workers below one etcd prefix, watched until this is dropped.
#[derive(Debug)]
pub struct EtcdMembership {
    published: Arc<Published>,
    watcher: AbortHandle,
}

/// What the watching task owns.
struct Watcher {
    client: EtcdClient,
    options: EtcdOptions,
    prefix: String,
    shape: RingShape,
    records: BTreeMap<String, WorkerRecord>,
    /// Keys whose values could not be used and were warned of.
    unusable: HashSet<String>,
    published: Arc<Published>,
}

/// The prefix below which the wanted workers register.
pub(super) fn prefix(cluster: &str, ring: RingMembership) -> String {
    match ring {
        RingMembership::Live => keys::live_prefix(cluster),
        RingMembership::Registered => keys::registered_prefix(cluster),
    }
}

impl EtcdMembership {
    /// Reads the workers below `prefix` and watches them from then on.
    pub async fn connect(options: EtcdOptions, prefix: String, shape: RingShape) -> Result<Self> {
        let endpoints = options.endpoints.join(", ");
        let published = Arc::new(Published::new(WorkerSet::empty()));
        let first = async {
            let mut watcher = Watcher {
                client: EtcdClient::connect(&options).await.map_err(failed)?,
                options,
                prefix,
                shape,
                records: BTreeMap::new(),
                unusable: HashSet::new(),
                published: Arc::clone(&published),
            };
            let revision = watcher.list().await?;
            Ok((watcher, revision))
        };
        let (watcher, revision) = match timeout(CONNECT_TIMEOUT, first).await {
            Ok(joined) => joined?,
            Err(_) => return Err(too_slow(&endpoints)),
        };
        let task = tokio::spawn(watcher.run(revision));
        Ok(Self {
            published,
            watcher: task.abort_handle(),
        })
    }
}

impl Drop for EtcdMembership {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

#[async_trait]
impl Membership for EtcdMembership {
    fn snapshot(&self) -> Arc<WorkerSet> {
        self.published.snapshot()
    }

    async fn changed(&self, seen: u64) {
        self.published.changed(seen).await;
    }
}

impl Watcher {
    /// Watches from `revision` on, and starts over for ever when the watch ends.
    async fn run(mut self, mut revision: i64) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            if self.watch(revision + 1).await {
                backoff = BACKOFF_FIRST;
            }
            revision = self.list_until_answered(&mut backoff).await;
        }
    }

    /// Reads the prefix again and again, later each time, warning once.
    async fn list_until_answered(&mut self, backoff: &mut Duration) -> i64 {
        let mut warned = false;
        loop {
            tokio::time::sleep(*backoff).await;
            *backoff = (*backoff * 2).min(BACKOFF_LAST);
            match self.reconnect_and_list(warned).await {
                Ok(revision) => {
                    if warned {
                        let endpoints = self.options.endpoints.join(", ");
                        tracing::info!(endpoints, "etcd answers again");
                    }
                    return revision;
                }
                Err(error) if !warned => {
                    tracing::warn!(%error, "the workers are kept as they were known last");
                    warned = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Reads the prefix; once that has failed, over a connection of its own, which takes up
    /// certificates that were renewed in the meantime.
    async fn reconnect_and_list(&mut self, reconnects: bool) -> Result<i64> {
        if reconnects {
            self.client = EtcdClient::connect(&self.options).await.map_err(failed)?;
        }
        self.list().await
    }

    /// Reads the whole prefix and publishes it; returns the revision of that reading.
    async fn list(&mut self) -> Result<i64> {
        let listing = self.client.get_prefix(&self.prefix).await.map_err(failed)?;
        self.records.clear();
        for (key, value) in &listing.pairs {
            self.put(key, value);
        }
        self.publish().await?;
        Ok(listing.revision)
    }

    /// Follows changes until the watch ends; returns whether it ever answered.
    async fn watch(&mut self, from: i64) -> bool {
        let mut answered = false;
        let ended = match self.client.watch_prefix(&self.prefix, from).await {
            Err(error) => error.to_string(),
            Ok(mut watch) => loop {
                match watch.next().await {
                    Ok(Some(events)) => answered = self.apply(events).await,
                    Ok(None) => break "cancelled".to_owned(),
                    Err(error) => break error.to_string(),
                }
            },
        };
        tracing::debug!(ended, prefix = self.prefix, "the watch of etcd ended");
        answered
    }

    /// Applies the changes of one answer and publishes what they make.
    async fn apply(&mut self, events: Vec<WatchEvent>) -> bool {
        for event in events {
            match event {
                WatchEvent::Put { key, value } => self.put(&key, &value),
                WatchEvent::Delete { key } => self.delete(&key),
            }
        }
        self.publish().await.is_ok()
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        let key = String::from_utf8_lossy(key).into_owned();
        match WorkerRecord::from_json(value) {
            Ok(record) => {
                self.unusable.remove(&key);
                self.records.insert(key, record);
            }
            Err(error) => {
                self.records.remove(&key);
                if self.unusable.insert(key.clone()) {
                    tracing::warn!(%key, %error, "a record in etcd is left out of the ring");
                }
            }
        }
    }

    fn delete(&mut self, key: &[u8]) {
        let key = String::from_utf8_lossy(key);
        self.unusable.remove(&*key);
        self.records.remove(&*key);
    }

    /// Publishes the set if it differs from the one before.
    async fn publish(&self) -> Result<()> {
        let record = |r: &WorkerRecord| WorkerEndpoint::new(r.id, r.address.clone());
        let endpoints: Vec<_> = self.records.values().filter_map(record).collect();
        self.published.learn(endpoints, self.shape).await
    }
}

fn too_slow(endpoints: &str) -> Error {
    let context = format!(
        "etcd at {endpoints} did not answer within {} s; check the endpoints and that they can be \
         reached from here",
        CONNECT_TIMEOUT.as_secs(),
    );
    Error::new(ErrorKind::Unavailable, "join cluster", context)
}

fn failed(error: EtcdError) -> Error {
    let kind = match &error {
        EtcdError::NoEndpoint
        | EtcdError::BadEndpoint(_)
        | EtcdError::TlsFile { .. }
        | EtcdError::BadServerName(_)
        | EtcdError::ClientCertificate { .. } => ErrorKind::InvalidInput,
        EtcdError::TimedOut { .. } => ErrorKind::TimedOut,
        EtcdError::Refused { .. } | EtcdError::Tls { .. } => ErrorKind::PermissionDenied,
        EtcdError::Failed { .. } | EtcdError::Compacted(_) | EtcdError::LeaseExpired => {
            ErrorKind::Unavailable
        }
    };
    Error::new(kind, "join cluster", "the workers cannot be read").with_source(error)
}
