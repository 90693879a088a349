//! One HTTP exchange with a worker, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::connection::Connection;
use super::health::Health;
use super::pool::{Kept, Pool};
use crate::membership::WorkerEndpoint;

/// How long a connection may take: several times a lost SYN's first repeat (1 s) would be too long
/// for a reader, and one repeat must be possible.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Exchange {
    /// A whole answer.
    Answered {
        /// The status code.
        status: u16,
        /// The whole body.
        body: Bytes,
    },
    /// A successful answer that is longer than wanted; it was not read to the end.
    TooLong {
        /// Its length as announced, or what was read of it.
        announced: u64,
    },
    /// The connection was closed before a byte of an answer came.
    EmptyClose,
    /// There was no connection.
    Unreachable(String),
    /// It took too long.
    TimedOut,
    /// No connection is known to lead to a worker of the page size that the request means.
    PageSizeUnknown,
    /// It broke off within the answer, or was no HTTP.
    Broken(String),
}

/// An HTTP client for workers.
#[derive(Debug)]
pub(super) struct Http {
    pool: Pool,
    connect_timeout: Duration,
}

/// A GET request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Get<'a> {
    /// Path and query.
    pub(super) target: &'a str,
    /// The most bytes of a body that are read.
    pub(super) limit: u64,
    /// The most time that it takes.
    pub(super) timeout: Duration,
    /// The request is for a whole page of this length, and its answer tells the worker's page size.
    pub(super) whole_page_bytes: Option<u64>,
    /// The request means anything only to a worker of this page size: it is sent over no connection
    /// but one that has brought such a page.
    pub(super) known_page_bytes: Option<u64>,
}

impl Http {
    pub(super) fn new(timeout: Duration, max_inflight: usize) -> Self {
        Self {
            pool: Pool::new(max_inflight),
            connect_timeout: CONNECT_TIMEOUT.min(timeout),
        }
    }

    /// Sends a GET request. Where the worker's host cannot be reached, the host of its container
    /// network is tried, and remembered if it answers.
    pub(super) async fn get(
        &self,
        worker: &WorkerEndpoint,
        health: &Health,
        request: Get<'_>,
    ) -> Exchange {
        let Some(container) = &worker.container_base_url else {
            return self.get_from(&worker.base_url, request).await;
        };
        let by_container = health.prefers_container_host();
        let [first, second] = if by_container {
            [container, &worker.base_url]
        } else {
            [&worker.base_url, container]
        };
        match self.get_from(first, request).await {
            Exchange::Unreachable(cause) => match self.get_from(second, request).await {
                Exchange::Unreachable(_) => Exchange::Unreachable(cause),
                answer => {
                    health.prefer_container_host(!by_container);
                    answer
                }
            },
            answer => answer,
        }
    }

    async fn get_from(&self, base: &Arc<str>, request: Get<'_>) -> Exchange {
        let kept = self.pool.of(base);
        let _turn = kept.turn().await;
        let exchange = self.exchange(base, &kept, request);
        let exchange = tokio::time::timeout(request.timeout, exchange).await;
        if let Ok(Exchange::EmptyClose | Exchange::Broken(_) | Exchange::Unreachable(_)) = exchange
        {
            kept.other_process();
        }
        match exchange {
            Ok(Exchange::EmptyClose) => self.after_empty_close(base).await,
            Ok(exchange) => exchange,
            Err(_elapsed) => Exchange::TimedOut,
        }
    }

    /// Which processes answer for a worker, by both of its hosts; see [`Kept::process`].
    pub(super) fn processes(&self, worker: &WorkerEndpoint) -> (u64, u64) {
        let container = worker.container_base_url.as_ref();
        let of = |base| self.pool.of(base).process();
        (of(&worker.base_url), container.map_or(0, of))
    }

    /// Forgets the connections to workers that are not wanted, by their URLs.
    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.pool.retain(wanted);
    }

    async fn exchange(&self, base: &str, kept: &Kept, request: Get<'_>) -> Exchange {
        let connection = match kept.take(request.known_page_bytes) {
            Some(connection) => connection,
            None if request.known_page_bytes.is_some() => return Exchange::PageSizeUnknown,
            None => match self.connect(base).await {
                Ok(connection) => connection,
                Err(exchange) => return exchange,
            },
        };
        let host = host_and_port(base);
        let (exchange, usable) = connection.get(host, request.target, request.limit).await;
        if let Some(mut connection) = usable {
            if let Exchange::Answered { status: 200, body } = &exchange
                && request.whole_page_bytes == Some(body.len() as u64)
            {
                connection.page_bytes = request.whole_page_bytes;
            }
            kept.put(connection);
        }
        exchange
    }

    async fn connect(&self, base: &str) -> Result<Connection, Exchange> {
        let connect = Connection::open(host_and_port(base));
        match tokio::time::timeout(self.connect_timeout, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Exchange::Unreachable(error.to_string())),
            Err(_elapsed) => Err(Exchange::Unreachable("no connection in time".to_owned())),
        }
    }

    /// Tells the two reasons for a close without a byte apart: a worker that does not hold the page
    /// still listens, one that has just died while a kept connection was in use does not.
    async fn after_empty_close(&self, base: &str) -> Exchange {
        let connect = TcpStream::connect(host_and_port(base));
        match tokio::time::timeout(self.connect_timeout, connect).await {
            Ok(Ok(_listens)) => Exchange::EmptyClose,
            Ok(Err(error)) => Exchange::Unreachable(error.to_string()),
            Err(_elapsed) => Exchange::Unreachable("no connection in time".to_owned()),
        }
    }
}

fn host_and_port(base: &str) -> &str {
    base.trim_start_matches("http://")
}
