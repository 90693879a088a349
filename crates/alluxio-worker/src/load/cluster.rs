//! What a load needs of the world around it: a listing, the ring, and owners that take batches.

use std::sync::Arc;

use alluxio_client::membership::{Membership, WorkerEndpoint};
use alluxio_client::worker::security::Security;
use alluxio_ufs::UfsError;
use alluxio_wire::{FileStatus, UfsUri, WorkerId};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use super::batch::{Batches, Teller};
use super::message::{Batch, Event};
use super::peer;
use crate::pages::Pages;

/// The cluster as a load's coordinator sees it.
pub(super) trait Cluster: Send + Sync {
    /// The files below a path, as the under-store has them now.
    fn walk(&self, uri: &UfsUri) -> BoxStream<'static, Result<FileStatus, UfsError>>;

    /// How many workers there are.
    fn workers(&self) -> usize;

    /// The workers that may load a file, its owner first; none where this worker is alone.
    fn owners(&self, uri: &UfsUri, count: usize) -> Vec<WorkerId>;

    /// Has a worker load a batch, and passes on its events. An error, in words, when it broke off.
    /// Without a worker it is this one.
    fn send<'a>(
        &'a self,
        worker: Option<&'a WorkerId>,
        batch: Batch,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// A worker's host and port.
    fn name(&self, worker: Option<&WorkerId>) -> String;
}

/// The ring that this worker is on.
pub(super) struct Ring {
    pages: Pages,
    members: Arc<dyn Membership>,
    own_id: WorkerId,
    batches: Batches,
    security: Security,
}

impl Ring {
    pub(super) fn new(
        pages: Pages,
        members: Arc<dyn Membership>,
        own_id: WorkerId,
        batches: Batches,
        security: Security,
    ) -> Self {
        Self {
            pages,
            members,
            own_id,
            batches,
            security,
        }
    }

    async fn load_here(&self, batch: Batch, events: mpsc::Sender<Event>) -> Result<(), String> {
        let mut own = self.batches.begin(batch, Teller::Own);
        let mut last = None;
        while let Some(event) = own.recv().await {
            last = Some(event.clone());
            if events.send(event).await.is_err() {
                return Err("the load was stopped".to_owned());
            }
        }
        match last {
            Some(Event::End) => Ok(()),
            _ => Err("broke off before the end of the batch".to_owned()),
        }
    }
}

impl Cluster for Ring {
    fn walk(&self, uri: &UfsUri) -> BoxStream<'static, Result<FileStatus, UfsError>> {
        self.pages.ufs().walk(uri)
    }

    fn workers(&self) -> usize {
        self.members.snapshot().len()
    }

    fn owners(&self, uri: &UfsUri, count: usize) -> Vec<WorkerId> {
        let owners = self.members.snapshot().owners(uri, count);
        owners.into_iter().map(|owner| owner.id).collect()
    }

    fn send<'a>(
        &'a self,
        worker: Option<&'a WorkerId>,
        batch: Batch,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let Some(other) = worker.filter(|id| **id != self.own_id) else {
                return self.load_here(batch, events).await;
            };
            let endpoint: Option<WorkerEndpoint> = self.members.snapshot().get(other).cloned();
            match endpoint {
                Some(endpoint) => peer::send(&endpoint, &self.security, &batch, &events).await,
                None => Err("has left the cluster".to_owned()),
            }
        })
    }

    fn name(&self, worker: Option<&WorkerId>) -> String {
        let id = worker.unwrap_or(&self.own_id);
        let members = self.members.snapshot();
        members.get(id).map_or_else(
            || id.to_string(),
            |endpoint| endpoint.base_url.trim_start_matches("http://").to_owned(),
        )
    }
}
