//! The HTTP/1.1 server: connections, their number, and how long each may be idle.
//!
//! hyper is used directly, for a bound on everything a stranger can make large or slow: the number
//! of connections, the head of a request, the wait for the next one, a reader that does not read.

mod stall;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::stall::StallGuard;
use crate::metrics::Metrics;

/// How long a connection may wait for the next request. HTTP clients drop idle connections after
/// 90 s (reqwest) or less; we must not be first, or a request meets a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a client may take no byte of an answer before its connection is closed.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

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
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    /// Ends connections that did not end by themselves.
    kill: CancellationToken,
    tasks: TaskTracker,
}

struct Listening<H> {
    listener: TcpListener,
    handler: Arc<H>,
    turns: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Serves `listener` with at most `max_connections` at one time; further ones wait in the
    /// kernel's queue.
    pub(crate) fn start<H: Handler>(
        listener: TcpListener,
        handler: Arc<H>,
        max_connections: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        let server = Self {
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let listening = Listening {
            listener,
            handler,
            turns: Arc::new(Semaphore::new(max_connections)),
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
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait())
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
            let connection = serve(stream, Arc::clone(&self.handler), self.stop.clone());
            let (kill, metrics) = (self.kill.clone(), Arc::clone(&self.metrics));
            self.tasks.spawn(async move {
                metrics.connections.inc();
                kill.run_until_cancelled(connection).await;
                metrics.connections.dec();
                drop(turn);
            });
        }
    }
}

async fn serve<H: Handler>(stream: TcpStream, handler: Arc<H>, stop: CancellationToken) {
    // An answer is written at once; waiting to fill a packet would only delay its end.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok();
    let io = TokioIo::new(StallGuard::new(stream, STALL_TIMEOUT));
    let answer = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
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
        log_end(peer, &error);
    }
}

fn log_end(peer: Option<SocketAddr>, error: &hyper::Error) {
    tracing::debug!(?peer, %error, "a connection ended early");
}
