//! One HTTP exchange with a worker, and how it ended.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response};
use tokio::net::TcpStream;

use super::health::Health;
use crate::error::{Error, ErrorKind, Result};
use crate::membership::WorkerEndpoint;

/// How long a connection may take: several times a lost SYN's first repeat (1 s) would be too long
/// for a reader, and one repeat must be possible.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Kept connections per worker: more of them do not raise the throughput (8 connections reach a
/// worker's limit) and each one holds a file system context there.
const MAX_IDLE_CONNECTIONS: usize = 32;
/// How long an unused connection is kept. Shorter than what firewalls forget silently (5 minutes).
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

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
    /// It broke off within the answer, or was no HTTP.
    Broken(String),
}

/// An HTTP client for workers.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    connect_timeout: Duration,
}

impl Http {
    pub(super) fn new(timeout: Duration, max_inflight: usize) -> Result<Self> {
        let connect_timeout = CONNECT_TIMEOUT.min(timeout);
        let client = Client::builder()
            .tls_backend_preconfigured(no_tls()?)
            .http1_only()
            // Workers are in this cluster; a proxy for the internet does not lead to them.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(max_inflight.min(MAX_IDLE_CONNECTIONS))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|error| cannot_start(&error))?;
        Ok(Self {
            client,
            connect_timeout,
        })
    }

    /// Sends a GET request and reads at most `limit` bytes of the body. Where the worker's host
    /// cannot be reached, the host of its container network is tried, and remembered if it answers.
    pub(super) async fn get(
        &self,
        worker: &WorkerEndpoint,
        health: &Health,
        target: &str,
        limit: u64,
        timeout: Duration,
    ) -> Exchange {
        let Some(container) = worker.container_base_url.as_deref() else {
            return self
                .get_from(&worker.base_url, target, limit, timeout)
                .await;
        };
        let by_container = health.prefers_container_host();
        let [first, second] = if by_container {
            [container, &*worker.base_url]
        } else {
            [&*worker.base_url, container]
        };
        match self.get_from(first, target, limit, timeout).await {
            Exchange::Unreachable(cause) => {
                match self.get_from(second, target, limit, timeout).await {
                    Exchange::Unreachable(_) => Exchange::Unreachable(cause),
                    answer => {
                        health.prefer_container_host(!by_container);
                        answer
                    }
                }
            }
            answer => answer,
        }
    }

    async fn get_from(&self, base: &str, target: &str, limit: u64, timeout: Duration) -> Exchange {
        let request = self.client.get(format!("{base}{target}")).timeout(timeout);
        match request.send().await {
            Ok(response) => read(response, limit).await,
            Err(error) => match before_answer(&error) {
                Exchange::EmptyClose => self.after_empty_close(base).await,
                exchange => exchange,
            },
        }
    }

    /// Tells the two reasons for a close without a byte apart: a worker that does not hold the page
    /// still listens, one that has just died while a kept connection was in use does not.
    async fn after_empty_close(&self, base: &str) -> Exchange {
        let host_and_port = base.trim_start_matches("http://");
        let connect = TcpStream::connect(host_and_port);
        match tokio::time::timeout(self.connect_timeout, connect).await {
            Ok(Ok(_listens)) => Exchange::EmptyClose,
            Ok(Err(error)) => Exchange::Unreachable(error.to_string()),
            Err(_elapsed) => Exchange::Unreachable("no connection in time".to_owned()),
        }
    }
}

/// Reads a body of at most `limit` bytes, into a buffer of its own: a piece of the connection's
/// buffer would keep all of that buffer alive as long as the page is cached.
async fn read(mut response: Response, limit: u64) -> Exchange {
    let status = response.status().as_u16();
    let announced = response.content_length();
    if status == 200 && announced.is_some_and(|length| length > limit) {
        return Exchange::TooLong {
            announced: announced.unwrap_or_default(),
        };
    }
    let capacity = usize::try_from(announced.unwrap_or_default().min(limit)).unwrap_or(0);
    let mut body = BytesMut::with_capacity(capacity);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let total = (body.len() + chunk.len()) as u64;
                if total > limit {
                    return Exchange::TooLong {
                        announced: announced.unwrap_or(total),
                    };
                }
                body.extend_from_slice(&chunk);
            }
            Ok(None) => {
                return Exchange::Answered {
                    status,
                    body: body.freeze(),
                };
            }
            Err(error) if error.is_timeout() => return Exchange::TimedOut,
            Err(error) => return Exchange::Broken(innermost(&error)),
        }
    }
}

/// Reads an error that came before any answer.
fn before_answer(error: &reqwest::Error) -> Exchange {
    if error.is_connect() {
        return Exchange::Unreachable(innermost(error));
    }
    if error.is_timeout() {
        return Exchange::TimedOut;
    }
    if causes(error).any(is_close) {
        return Exchange::EmptyClose;
    }
    Exchange::Broken(innermost(error))
}

/// Whether the peer closed or reset the connection. It resets it where it left our request unread.
fn is_close(error: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_incomplete_message();
    }
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    })
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        (*error).source()
    })
}

/// The words of the first cause, such as "Connection refused (os error 111)": those around it only
/// repeat the URL.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Workers speak plain HTTP. An empty TLS configuration of our own keeps the HTTP client from
/// asking for the process's, which a program without TLS need not have.
fn no_tls() -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| cannot_start(&error))?;
    Ok(builder
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

fn cannot_start(error: &(dyn StdError + 'static)) -> Error {
    let context = format!("the HTTP client cannot be started: {}", innermost(error));
    Error::new(ErrorKind::Unexpected, "connect", context)
}
