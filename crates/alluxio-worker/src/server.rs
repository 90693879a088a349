//! The HTTP/1.1 server: connections, their number, and how long each may be idle.
//!
//! hyper is used directly, for a bound on everything a stranger can make large or slow: the number
//! of connections, the head of a request, the wait for the next one, a reader that does not read.

mod pace;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::pace::{PacedBody, PacedStream};
pub(crate) use self::tls::Tls;
use crate::metrics::Metrics;

/// How long a connection may wait for the next request, until its head is whole. HTTP clients drop
/// idle connections after 90 s (reqwest) or less; we must not be first, or a request meets a closing
/// connection. A head that drips ends here, too.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a client is waited for in all while it takes a MiB of an answer: slower than 17 KiB/s is
/// no reader, and each one holds a page in memory.
const READER_PATIENCE: Duration = Duration::from_mins(1);

/// The same for a client that brings the body of its request.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take: two round trips and some arithmetic.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request: a URI of 8 KiB, every byte percent-encoded, and some headers.
const MAX_HEAD_BYTES: usize = 48 * 1024;

/// The most headers; browsers send some 20.
const MAX_HEADERS: usize = 64;

/// How long answers that have begun may take after a shutdown was asked for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait after accept failed, when files are short: they come back as connections close.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request; failures are answers too.
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// How much and how long others may claim.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Connections at one time; further ones wait in the kernel's queue.
    max_connections: usize,
    idle_timeout: Duration,
    reader_patience: Duration,
    body_patience: Duration,
    handshake_timeout: Duration,
    drain_timeout: Duration,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    drain_timeout: Duration,
    stop: CancellationToken,
    /// Ends connections that did not end by themselves.
    kill: CancellationToken,
    tasks: TaskTracker,
}

struct Listening<H> {
    listener: TcpListener,
    handler: Arc<H>,
    tls: Option<Tls>,
    limits: Limits,
    turns: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Limits {
    pub(crate) fn new(max_connections: usize) -> Self {
        Self {
            max_connections,
            idle_timeout: IDLE_TIMEOUT,
            reader_patience: READER_PATIENCE,
            body_patience: BODY_PATIENCE,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }
}

impl Server {
    /// Serves `listener`, within the limits.
    pub(crate) fn start<H: Handler>(
        listener: TcpListener,
        handler: Arc<H>,
        tls: Option<Tls>,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let server = Self {
            drain_timeout: limits.drain_timeout,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let listening = Listening {
            listener,
            handler,
            tls,
            turns: Arc::new(Semaphore::new(limits.max_connections)),
            limits,
            metrics,
            stop: server.stop.clone(),
            kill: server.kill.clone(),
            tasks: server.tasks.clone(),
        };
        server.tasks.spawn(listening.accept());
        server
    }

    /// Takes no more requests, lets running ones end, and returns when all connections are closed.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.drain_timeout, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("closing connections whose answers did not end in time");
            self.kill.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

impl<H: Handler> Listening<H> {
    async fn accept(self) {
        let stop = self.stop.clone();
        // The listener is dropped with `self` at the end, which frees the port.
        stop.run_until_cancelled(self.accept_for_ever()).await;
    }

    async fn accept_for_ever(self) {
        loop {
            let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let connection = self.serve(stream);
            let (kill, metrics) = (self.kill.clone(), Arc::clone(&self.metrics));
            self.tasks.spawn(async move {
                metrics.connections.inc();
                kill.run_until_cancelled(connection).await;
                metrics.connections.dec();
                drop(turn);
            });
        }
    }

    /// One connection, from its handshake to its end.
    fn serve(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + use<H> {
        // An answer is written at once; waiting to fill a packet would only delay its end.
        let _ = stream.set_nodelay(true);
        let peer = stream.peer_addr().ok();
        let (tls, limits) = (self.tls.clone(), self.limits.clone());
        let (handler, stop) = (Arc::clone(&self.handler), self.stop.clone());
        async move {
            let Some(tls) = tls else {
                return serve(stream, peer, handler, &limits, stop).await;
            };
            let shaken = tokio::time::timeout(limits.handshake_timeout, tls.accept(stream));
            match shaken.await {
                Ok(Ok(stream)) => serve(stream, peer, handler, &limits, stop).await,
                Ok(Err(error)) => tracing::debug!(?peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(?peer, "a TLS handshake did not end in time"),
            }
        }
    }
}

async fn serve<H, S>(
    stream: S,
    peer: Option<SocketAddr>,
    handler: Arc<H>,
    limits: &Limits,
    stop: CancellationToken,
) where
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(PacedStream::new(stream, limits.reader_patience));
    let patience = limits.body_patience;
    let answer = service_fn(move |request: Request<_>| {
        let handler = Arc::clone(&handler);
        let request = request.map(|body: Incoming| {
            if body.is_end_stream() {
                Body::empty()
            } else {
                Body::from_stream(PacedBody::new(body, patience))
            }
        });
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_header_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(io, answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(?peer, %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
