//! The embedded worker: Alluxio's REST over a local page store, for the quickstart, for tests and
//! for small installations.
//!
//! A [`Worker`] is a page store on disk (`store`), the way of a page through it (`pages`), the REST
//! that clients speak (`api`, over `server`), distributed loads (`load`), and a record in etcd
//! (`register`). It serves what lies below its under-store's root and nothing else.

mod api;
mod budget;
mod changes;
mod error;
mod failure;
mod flights;
mod identity;
mod load;
mod metrics;
mod pages;
mod ranges;
mod register;
mod server;
mod statuses;
mod store;
mod token;
mod version;

use std::net::SocketAddr;
use std::sync::Arc;

use alluxio_client::membership::{self, Membership};
use alluxio_client::ring::RingShape;
use alluxio_client::worker::security::Security;
use alluxio_config::{Config, WorkerOptions};
use alluxio_telemetry::health::Health;
use alluxio_ufs::Ufs;
use alluxio_wire::{WorkerAddress, WorkerRecord};
use prometheus::Registry;
use tokio::net::TcpListener;

pub use self::error::WorkerError;

use self::api::Api;
use self::changes::Changes;
use self::load::Loader;
use self::metrics::Metrics;
use self::pages::Pages;
use self::register::Registration;
use self::server::{Limits, Server, Tls};
use self::store::PageStore;
use self::token::Token;

/// A running worker. Dropping it ends it at once; [`Worker::shutdown`] ends it gracefully.
pub struct Worker {
    address: SocketAddr,
    api: Arc<Api>,
    server: Server,
    registration: Option<Registration>,
}

impl Worker {
    /// Starts a worker: opens its page store, joins its cluster, listens, and registers.
    ///
    /// Clients find it only when it can serve them: it registers last.
    pub async fn start(config: &Config) -> Result<Self, WorkerError> {
        let options = &config.worker;
        let ufs = Ufs::connect(&config.ufs)?;
        let (tls, token) = secrets(options)?;
        let security = Security::load(&config.cluster.security)?;
        let store = PageStore::open(&options.page_store, config.client.page_size).await?;
        let (listener, address) = listen(options.listen).await?;
        let members = membership::connect(
            &config.cluster,
            config.client.ring_membership,
            RingShape::of(&config.client),
        )
        .await?;
        let record = record(config, members.as_ref(), address).await?;
        // Every name is registered once, in a registry of its own, so it cannot be taken.
        let metrics = Metrics::new(Arc::clone(&store))
            .map_err(|error| std::io::Error::other(error.to_string()))
            .map_err(|source| WorkerError::Listen { address, source })?;
        let metrics = Arc::new(metrics);
        let pages = Pages::new(ufs, store, Arc::clone(&metrics));
        let api = Arc::new(Api {
            loader: Loader::new(
                pages.clone(),
                Arc::clone(&members),
                record.id,
                options.load_concurrency,
                &options.page_store.first.path,
                security,
            ),
            changes: Changes::connect(config, pages.clone()).await?,
            pages,
            members,
            record,
            metrics: Arc::clone(&metrics),
            health: Health::starting(),
            token,
        });
        let recalled = api.loader.recall().await;
        let limits = Limits::new(options.max_connections);
        let server = Server::start(listener, Arc::clone(&api), tls, limits, metrics);
        let registration = register::register(&config.cluster, &api.record).await?;
        api.loader.go_on(recalled);
        api.health.set_ready();
        tracing::info!(%address, worker = %api.record.id, "worker started");
        Ok(Self {
            address,
            api,
            server,
            registration,
        })
    }

    /// The address that it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who it is and where clients find it.
    pub fn record(&self) -> &WorkerRecord {
        &self.api.record
    }

    /// Its metrics, which `/metrics` on its own port serves too.
    pub fn metrics_registry(&self) -> &Registry {
        self.api.metrics.registry()
    }

    /// Its health, which `/readyz` on its own port tells too.
    pub fn health(&self) -> &Health {
        &self.api.health
    }

    /// Leaves the cluster, ends its loads, lets answers that have begun end, and stops.
    pub async fn shutdown(mut self) {
        self.api.health.set_not_ready("shutting down");
        if let Some(registration) = self.registration.take() {
            registration.end().await;
        }
        self.api.loader.shutdown().await;
        self.server.shutdown().await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The server and the registration end by their own drops.
        self.api.loader.stop_all();
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("address", &self.address)
            .field("record", &self.api.record)
            .finish_non_exhaustive()
    }
}

/// What the server shows, and what it asks for.
fn secrets(options: &WorkerOptions) -> Result<(Option<Tls>, Option<Token>), WorkerError> {
    let tls = options.tls.as_ref().map(Tls::load).transpose();
    let token = options.token_file.clone().map(Token::load).transpose();
    let failed = |field| move |source| WorkerError::Secret { field, source };
    Ok((
        tls.map_err(failed("worker.tls"))?,
        token.map_err(failed("worker.token_file"))?,
    ))
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), WorkerError> {
    let failed = |source| WorkerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn record(
    config: &Config,
    members: &dyn Membership,
    address: SocketAddr,
) -> Result<WorkerRecord, WorkerError> {
    let host = identity::advertised_host(&config.worker, address);
    let members = members.snapshot();
    let id = identity::identity(&config.worker, &members, &host, address.port()).await?;
    Ok(WorkerRecord::new(
        id,
        WorkerAddress::http(host, address.port()),
    ))
}
