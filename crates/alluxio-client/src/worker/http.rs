//! One HTTP exchange with a worker, and how it ended.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alluxio_ufs::Buffers;
use bytes::Bytes;

use super::connection::Connection;
use super::health::Health;
use super::pool::{Kept, Pool};
use super::security::Security;
use crate::membership::WorkerEndpoint;

/// How long a connection may take: several times a lost SYN's first repeat (1 s) would be too long
/// for a reader, and one repeat must be possible.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a body must bring in a second where no configuration says otherwise, as it does by default.
const MIN_BYTES_PER_SECOND: u64 = 128 * 1024;

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
    /// Whether TLS is spoken, and which token is shown.
    pub(super) security: Security,
    /// A body that brings less within a request's timeout is given up.
    pub(super) min_bytes_per_second: u64,
    /// What pages are read into.
    pub(super) buffers: Buffers,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    /// Without a body; what is sent so may be sent twice.
    Post,
}

/// A request without a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: &'a str,
    /// The most bytes of a body that are read.
    pub(super) limit: u64,
    /// The most time without an answer, or with less of it than the least rate.
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
            security: Security::default(),
            min_bytes_per_second: MIN_BYTES_PER_SECOND,
            buffers: Buffers::default(),
        }
    }

    /// Sends a request. Where the worker's host cannot be reached, the host of its container
    /// network is tried, and remembered if it answers.
    pub(super) async fn ask(
        &self,
        worker: &WorkerEndpoint,
        health: &Health,
        request: Request<'_>,
    ) -> Exchange {
        let Some(container) = &worker.container_base_url else {
            return self.ask_at(&worker.base_url, request).await;
        };
        let by_container = health.prefers_container_host();
        let [first, second] = if by_container {
            [container, &worker.base_url]
        } else {
            [&worker.base_url, container]
        };
        match self.ask_at(first, request).await {
            Exchange::Unreachable(cause) => match self.ask_at(second, request).await {
                Exchange::Unreachable(_) => Exchange::Unreachable(cause),
                answer => {
                    health.prefer_container_host(!by_container);
                    answer
                }
            },
            answer => answer,
        }
    }

    async fn ask_at(&self, base: &Arc<str>, request: Request<'_>) -> Exchange {
        let kept = self.pool.of(base);
        let _turn = kept.turn().await;
        let exchange = self.watched(base, &kept, request).await;
        if let Exchange::EmptyClose | Exchange::Broken(_) | Exchange::Unreachable(_) = exchange {
            kept.other_process();
        }
        match exchange {
            Exchange::EmptyClose => self.after_empty_close(base, &kept).await,
            exchange => exchange,
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

    /// An exchange that is given up when, for as long as the request's timeout, it brings less than
    /// the least rate: a silent worker, and one that drips.
    async fn watched(&self, base: &Arc<str>, kept: &Kept, request: Request<'_>) -> Exchange {
        let brought = AtomicU64::new(0);
        let mut exchange = pin!(self.exchange(base, kept, request, &brought));
        let millis = u64::try_from(request.timeout.as_millis()).unwrap_or(u64::MAX);
        let least = (self.min_bytes_per_second.saturating_mul(millis) / 1000).max(1);
        let mut before = 0;
        loop {
            if let Ok(exchange) = tokio::time::timeout(request.timeout, &mut exchange).await {
                return exchange;
            }
            let now = brought.load(Ordering::Relaxed);
            if now - before < least {
                return Exchange::TimedOut;
            }
            before = now;
        }
    }

    /// One request; a second one where a kept connection was closed without a byte. Its worker may
    /// have closed it, unused for too long or restarted, while the request was on its way.
    async fn exchange(
        &self,
        base: &str,
        kept: &Kept,
        request: Request<'_>,
        brought: &AtomicU64,
    ) -> Exchange {
        let connection = match kept.take(request.known_page_bytes) {
            Some(connection) => connection,
            None if request.known_page_bytes.is_some() => return Exchange::PageSizeUnknown,
            None => match self.connect(base).await {
                Ok(connection) => connection,
                Err(exchange) => return exchange,
            },
        };
        let had_answered = connection.has_answered;
        let exchange = self.send(base, kept, connection, request, brought).await;
        if !had_answered || !matches!(exchange, Exchange::EmptyClose) {
            return exchange;
        }
        kept.other_process();
        if request.known_page_bytes.is_some() {
            return Exchange::PageSizeUnknown;
        }
        match self.connect(base).await {
            Ok(connection) => self.send(base, kept, connection, request, brought).await,
            Err(exchange) => exchange,
        }
    }

    async fn connect(&self, base: &str) -> Result<Connection, Exchange> {
        let connect = Connection::open(host_and_port(base), &self.security);
        match tokio::time::timeout(self.connect_timeout, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Exchange::Unreachable(error.to_string())),
            Err(_elapsed) => Err(Exchange::Unreachable("no connection in time".to_owned())),
        }
    }

    /// Sends a request over a connection, and keeps that for the next one where it can be used
    /// again.
    async fn send(
        &self,
        base: &str,
        kept: &Kept,
        connection: Connection,
        request: Request<'_>,
        brought: &AtomicU64,
    ) -> Exchange {
        let host = host_and_port(base);
        let line = (request.method, request.target);
        let (exchange, usable) = connection
            .ask(host, line, request.limit, &self.buffers, brought)
            .await;
        if let Some(mut connection) = usable {
            connection.has_answered = true;
            if let Exchange::Answered { status: 200, body } = &exchange
                && request.whole_page_bytes == Some(body.len() as u64)
            {
                connection.page_bytes = request.whole_page_bytes;
            }
            kept.put(connection);
        }
        exchange
    }

    /// Tells the two reasons for a close without a byte apart: a worker that does not hold the page
    /// still listens, one that has just died with the request in its hands does not. The connection
    /// that tells is kept for the next request, so that a miss costs one and not two.
    async fn after_empty_close(&self, base: &str, kept: &Kept) -> Exchange {
        match self.connect(base).await {
            Ok(listens) => {
                kept.put(listens);
                Exchange::EmptyClose
            }
            Err(exchange) => exchange,
        }
    }
}

fn host_and_port(base: &str) -> &str {
    base.trim_start_matches("http://")
}
