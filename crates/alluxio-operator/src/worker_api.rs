//! One worker's REST, as far as the control plane needs it: health, one status, load jobs.
//!
//! The open-source worker closes TCP without a byte for most errors, so an empty close is its own
//! outcome here, [`WorkerError::Closed`], and never "dead". Every request has a timeout and every
//! answer a size limit.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use alluxio_wire::{
    FileStatus, LoadOp, LoadOptions, ProgressAnswer, StopAnswer, SubmitAnswer, UfsUri, route,
    status,
};
use reqwest::StatusCode;
use serde_json::Value;

/// A worker that does not accept a connection for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A health check is answered from memory.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// A status may need the under-store, a submit the job's first listing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A worker lists up to 100 failures, and a failure with a path of the longest kind (1 KiB), and a
/// reason that repeats it, is some 3 KiB: three times that list. Whoever sends more is no worker.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// How much of a worker's error text a message repeats.
const MAX_QUOTED_BYTES: usize = 300;

/// A worker as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerEndpoint(String);

/// HTTP to workers.
#[derive(Clone, Debug)]
pub struct WorkerApi {
    http: reqwest::Client,
}

/// Why a worker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The HTTP client itself cannot be made.
    #[error("HTTP client for workers cannot be made: {0}")]
    Client(String),
    /// No connection, or no answer in time.
    #[error("worker {worker} cannot be reached: {cause}")]
    Unreachable {
        /// Which worker.
        worker: WorkerEndpoint,
        /// What the connection said.
        cause: String,
    },
    /// The connection was closed without an answer, as the open-source worker does on errors.
    #[error("worker {worker} closed the connection without an answer")]
    Closed {
        /// Which worker.
        worker: WorkerEndpoint,
    },
    /// An HTTP error, or `success: false`.
    #[error("worker {worker} refused: {message} (HTTP {code})")]
    Refused {
        /// Which worker.
        worker: WorkerEndpoint,
        /// The HTTP status.
        code: u16,
        /// What the worker said.
        message: String,
    },
    /// An answer that is not what a worker says.
    #[error("worker {worker} gave an unreadable answer: {cause}")]
    Unreadable {
        /// Which worker.
        worker: WorkerEndpoint,
        /// What is wrong with it.
        cause: String,
    },
    /// A path that the worker's REST cannot carry.
    #[error(
        "{uri} has characters that a worker's REST cannot carry: rename it, or load its parent"
    )]
    Unaddressable {
        /// The path.
        uri: UfsUri,
    },
}

impl WorkerEndpoint {
    /// The worker at `host:port`; an IPv6 host is in brackets.
    pub fn new(host: &str, port: u16) -> Self {
        Self(format!("{host}:{port}"))
    }

    /// The worker with this `host:port`, as a status remembers it.
    pub fn parse(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl WorkerError {
    /// Whether another worker may do better.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether a submit that ended so may have met a job of the same path that runs already.
    pub fn may_mean_running(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Refused { code: 409, .. })
    }
}

impl WorkerApi {
    /// Makes the HTTP client. Connections are not kept: a worker may close an idle one at the
    /// moment of a request, which would look like its "no" to that request.
    pub fn new() -> Result<Self, WorkerError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| WorkerError::Client(innermost_cause(&e)))?;
        Ok(Self { http })
    }

    /// Whether the worker answers its health check.
    pub async fn is_healthy(&self, worker: &WorkerEndpoint) -> bool {
        self.get(worker, &route::health(), HEALTH_TIMEOUT)
            .await
            .is_ok()
    }

    /// The status of one path as this worker sees it.
    pub async fn info(
        &self,
        worker: &WorkerEndpoint,
        uri: &UfsUri,
    ) -> Result<FileStatus, WorkerError> {
        let target = addressed(uri, route::info(uri))?;
        let body = self.get(worker, &target, ANSWER_TIMEOUT).await?;
        let statuses = status::parse_list(&body).map_err(|e| unreadable(worker, &e))?;
        let nothing = || unreadable(worker, &"an empty list of statuses");
        statuses.into_iter().next().ok_or_else(nothing)
    }

    /// Starts the load of one path. A worker that loads it already may close the connection.
    pub async fn submit(
        &self,
        worker: &WorkerEndpoint,
        uri: &UfsUri,
        options: &LoadOptions,
    ) -> Result<(), WorkerError> {
        let body = self.load(worker, uri, LoadOp::Submit, options).await?;
        let answer = SubmitAnswer::parse(&body).map_err(|e| unreadable(worker, &e))?;
        if answer.success {
            return Ok(());
        }
        let said = if answer.message.is_empty() {
            "no reason given"
        } else {
            &answer.message
        };
        Err(refused(worker, StatusCode::OK, quoted(said)))
    }

    /// How far the load of one path is.
    pub async fn progress(
        &self,
        worker: &WorkerEndpoint,
        uri: &UfsUri,
    ) -> Result<ProgressAnswer, WorkerError> {
        let options = LoadOptions {
            verbose: true,
            ..LoadOptions::default()
        };
        let body = self.load(worker, uri, LoadOp::Progress, &options).await?;
        ProgressAnswer::parse(&body).map_err(|e| unreadable(worker, &e))
    }

    /// Stops the load of one path; a path that is not being loaded is stopped already.
    pub async fn stop(&self, worker: &WorkerEndpoint, uri: &UfsUri) -> Result<(), WorkerError> {
        let body = self
            .load(worker, uri, LoadOp::Stop, &LoadOptions::default())
            .await?;
        StopAnswer::parse(&body).map_err(|e| unreadable(worker, &e))?;
        Ok(())
    }

    async fn load(
        &self,
        worker: &WorkerEndpoint,
        uri: &UfsUri,
        op: LoadOp,
        options: &LoadOptions,
    ) -> Result<Vec<u8>, WorkerError> {
        let target = addressed(uri, route::load(uri, op, options))?;
        self.get(worker, &target, ANSWER_TIMEOUT).await
    }

    async fn get(
        &self,
        worker: &WorkerEndpoint,
        target: &str,
        timeout: Duration,
    ) -> Result<Vec<u8>, WorkerError> {
        let request = self
            .http
            .get(format!("http://{worker}{target}"))
            .timeout(timeout);
        let mut response = request.send().await.map_err(|e| failed(worker, &e))?;
        let code = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| failed(worker, &e))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                let cause = format!("it is longer than {MAX_ANSWER_BYTES} bytes");
                return Err(unreadable(worker, &cause));
            }
            body.extend_from_slice(&chunk);
        }
        if code.is_success() {
            return Ok(body);
        }
        Err(refused(worker, code, message_of(&body)))
    }
}

fn addressed(uri: &UfsUri, target: Option<String>) -> Result<String, WorkerError> {
    target.ok_or_else(|| WorkerError::Unaddressable { uri: uri.clone() })
}

fn failed(worker: &WorkerEndpoint, error: &reqwest::Error) -> WorkerError {
    let worker = worker.clone();
    if error.is_timeout() {
        return WorkerError::Unreachable {
            worker,
            cause: "no answer in time".to_owned(),
        };
    }
    if error.is_connect() || error.is_builder() {
        return WorkerError::Unreachable {
            worker,
            cause: innermost_cause(error),
        };
    }
    WorkerError::Closed { worker }
}

fn refused(worker: &WorkerEndpoint, code: StatusCode, message: String) -> WorkerError {
    WorkerError::Refused {
        worker: worker.clone(),
        code: code.as_u16(),
        message,
    }
}

fn unreadable(worker: &WorkerEndpoint, cause: &dyn fmt::Display) -> WorkerError {
    WorkerError::Unreadable {
        worker: worker.clone(),
        cause: cause.to_string(),
    }
}

/// What an error comes from in the end: what is around it says that a request failed, and its URL,
/// and the caller's message says both already.
fn innermost_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut last = error.to_string();
    while let Some(inner) = cause {
        last = inner.to_string();
        cause = inner.source();
    }
    last
}

/// The sentence in an error body: its JSON `message` or `error`, else the text itself.
fn message_of(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let field = |name: &str| json.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let text = field("message").or_else(|| field("error"));
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    if text.trim().is_empty() {
        "no reason given".to_owned()
    } else {
        quoted(text.trim())
    }
}

fn quoted(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_QUOTED_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A worker that answers one request with these bytes and closes.
    async fn a_worker_that_says(answer: &'static [u8]) -> WorkerEndpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            stream.write_all(answer).await.unwrap();
        });
        WorkerEndpoint::new("127.0.0.1", port)
    }

    async fn submitted_to(worker: &WorkerEndpoint) -> WorkerError {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = WorkerApi::new().unwrap();
        let path = UfsUri::parse("s3://b/p").unwrap();
        api.submit(worker, &path, &LoadOptions::default())
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn an_empty_close_is_not_taken_for_a_dead_worker() {
        let error = submitted_to(&a_worker_that_says(b"").await).await;
        assert!(matches!(error, WorkerError::Closed { .. }), "{error:?}");
        assert!(error.may_mean_running() && !error.is_unreachable());
    }

    #[tokio::test]
    async fn a_conflict_may_mean_that_the_job_runs() {
        let answer =
            b"HTTP/1.1 409 Conflict\r\ncontent-length: 27\r\n\r\n{\"message\":\"runs already\"}\n";
        let error = submitted_to(&a_worker_that_says(answer).await).await;
        assert!(error.may_mean_running(), "{error:?}");
        assert!(
            error.to_string().contains("runs already (HTTP 409)"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable() {
        // Port 1 on loopback refuses at once.
        let error = submitted_to(&WorkerEndpoint::new("127.0.0.1", 1)).await;
        assert!(error.is_unreachable(), "{error:?}");
    }

    #[tokio::test]
    async fn a_path_that_does_not_exist_is_refused_in_the_workers_words() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 49\r\n\r\n{\"success\":false,\"jobId\":\"NONE\",\"message\":\"none\"}";
        let error = submitted_to(&a_worker_that_says(answer).await).await;
        assert!(
            matches!(&error, WorkerError::Refused { message, .. } if message == "none"),
            "{error:?}"
        );
    }

    #[test]
    fn a_workers_own_words_are_taken_from_its_json() {
        assert_eq!(
            message_of(br#"{"error":"NotFound","message":"no such bucket"}"#),
            "no such bucket"
        );
        assert_eq!(message_of(br#"{"error":"denied","x":1}"#), "denied");
        assert_eq!(message_of(b"plain words\n"), "plain words");
        assert_eq!(message_of(b""), "no reason given");
    }

    #[test]
    fn long_answers_are_quoted_in_part() {
        assert!(message_of("é".repeat(1000).as_bytes()).len() <= MAX_QUOTED_BYTES);
    }
}
