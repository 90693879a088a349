//! The metrics endpoint: `/metrics` in Prometheus' text format, `/healthz`, `/readyz`.
//!
//! Where the numbers come from is a [`MetricsSource`]: some registries, or an async function that
//! makes the text (an agent asks other processes for theirs and joins them with [`merge()`]).

mod merge;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use self::merge::{LabelledText, merge};
use crate::health::Health;

/// The content type of Prometheus' text format.
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long gathering may take. Prometheus gives up a scrape after 10 s by default, so a later
/// answer has no reader.
const GATHER_TIMEOUT: Duration = Duration::from_secs(8);

/// Scrapes at the same time. Two Prometheus servers and a person are three; more is a mistake or
/// an attack, and each waits with nothing in memory but its socket.
const PARALLEL_SCRAPES: usize = 4;

/// A function that makes the whole text.
type Gather = dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync;

/// Where the text of `/metrics` comes from.
#[derive(Clone)]
pub struct MetricsSource {
    gather: Arc<Gather>,
}

/// A running endpoint; dropping it stops the endpoint.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Why the endpoint could not begin.
#[derive(Debug, thiserror::Error)]
#[error(
    "metrics endpoint cannot listen on {address}: {source}; free the port or give another address"
)]
pub struct MetricsError {
    /// The address asked for.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

#[derive(Clone)]
struct Endpoint {
    source: MetricsSource,
    health: Health,
    scrapes: Arc<Semaphore>,
}

impl fmt::Debug for MetricsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSource").finish_non_exhaustive()
    }
}

impl MetricsSource {
    /// The families of all given registries, in that order.
    pub fn registries(registries: Vec<Registry>) -> Self {
        Self::from_fn(move || {
            let texts: Vec<String> = registries.iter().map(|r| encode(&r.gather())).collect();
            async move {
                let parts: Vec<LabelledText<'_>> = texts
                    .iter()
                    .map(|text| LabelledText { labels: &[], text })
                    .collect();
                merge(&parts)
            }
        })
    }

    /// A text made anew for each scrape.
    pub fn from_fn<F, Fut>(gather: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = String> + Send + 'static,
    {
        Self {
            gather: Arc::new(move || Box::pin(gather())),
        }
    }

    /// The text as it stands now.
    pub async fn text(&self) -> String {
        (self.gather)().await
    }
}

impl From<Vec<Registry>> for MetricsSource {
    fn from(registries: Vec<Registry>) -> Self {
        Self::registries(registries)
    }
}

impl From<Vec<Arc<Registry>>> for MetricsSource {
    fn from(registries: Vec<Arc<Registry>>) -> Self {
        Self::registries(registries.iter().map(|r| r.as_ref().clone()).collect())
    }
}

impl MetricsServer {
    /// The bound address (with the real port when port 0 was asked for).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the endpoint, lets running scrapes end, and returns when all is closed.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        // The task ends by itself after the signal; a panic in it has nothing left to spoil.
        let _ = (&mut self.task).await;
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds `address` and serves `/metrics`, `/healthz` and `/readyz` until the server is dropped.
pub async fn serve(
    address: SocketAddr,
    source: impl Into<MetricsSource>,
    health: Health,
) -> Result<MetricsServer, MetricsError> {
    let failed = |source| MetricsError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let routes = router(source.into(), health);
    let (stop, mut stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let until_stopped = async move {
            // A closed channel means that the server was dropped: stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let served = axum::serve(listener, routes)
            .with_graceful_shutdown(until_stopped)
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the metrics endpoint ended");
        }
    });
    Ok(MetricsServer {
        address: bound,
        stop,
        task,
    })
}

/// The three routes, for a process that serves them on a port of its own making.
pub fn router(source: MetricsSource, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Endpoint {
            source,
            health,
            scrapes: Arc::new(Semaphore::new(PARALLEL_SCRAPES)),
        })
}

/// Prometheus' text for these families; a family that cannot be written is left out and logged.
pub fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        let mut one = String::new();
        match TextEncoder::new().encode_utf8(std::slice::from_ref(family), &mut one) {
            Ok(()) => text.push_str(&one),
            Err(error) => tracing::debug!(family = family.name(), %error, "left out of /metrics"),
        }
    }
    text
}

async fn metrics(State(endpoint): State<Endpoint>) -> Response {
    let gathered = tokio::time::timeout(GATHER_TIMEOUT, async {
        let _turn = endpoint.scrapes.acquire().await;
        endpoint.source.text().await
    })
    .await;
    match gathered {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "metrics could not be gathered in time\n",
        )
            .into_response(),
    }
}

async fn healthz(State(endpoint): State<Endpoint>) -> Response {
    answer(endpoint.health.liveness())
}

async fn readyz(State(endpoint): State<Endpoint>) -> Response {
    answer(endpoint.health.readiness())
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
