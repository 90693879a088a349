//! Workers over HTTP: one request, one answer, told apart as the real worker means them.
//!
//! The open-source worker has no error codes. It closes the connection without a byte for a page
//! that it does not hold, a missing file and a bad argument alike, so an empty close is "not here"
//! and says nothing about the worker's health: that is judged by connecting. Our embedded worker
//! and the enterprise worker answer with codes. Both readings meet in [`PageAnswer`].
//!
//! Connections are kept, because a new one costs the real worker a file system context of its own
//! (58 ms against 6 ms).

mod connection;
mod health;
mod http;
mod kind;
mod latency;
mod pool;
pub mod reloaded;
pub mod security;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluxio_config::{BreakerOptions, RobustOptions};
use alluxio_ufs::Buffers;
use alluxio_wire::{PageRange, route};
use bytes::Bytes;

use crate::membership::{WorkerEndpoint, WorkerSet};
use crate::metrics::Metrics;
use crate::source::OpenedFile;

pub use kind::WorkerKind;

pub(crate) use health::Breaker;
pub(crate) use kind::WorkerKinds;

#[cfg(feature = "bench")]
pub(crate) use connection::head_length;

use health::HealthBook;
use http::{Exchange, Http, Method, Request};
use security::Security;

/// Everything that an ordinary answer to `info`, `files` or `load` needs: some 200,000 entries of a
/// listing. A longer one is not read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// How long an answer that is not a page may take, unless pages may take longer: the SDK's timeout.
/// A worker that lists a large directory in a slow store takes seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long such an answer may take in all, with its turn and however steadily it comes: the most
/// that is read of one at some 1 MB/s.
const LONGEST_ANSWER: Duration = Duration::from_mins(1);

/// The workers of a cluster, as this client speaks to them.
#[derive(Debug)]
pub struct Workers {
    http: Http,
    health: HealthBook,
    timeout: Duration,
}

/// What a worker says to the request for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageAnswer {
    /// The whole page.
    Page(Bytes),
    /// It does not hold the page, and does not read it through.
    Miss,
    /// It closed the connection without a byte, and listens still: an open-source worker's miss.
    Closed,
    /// It holds another version, or the under-store does.
    Stale,
    /// It sent a page of another length: its page size is another one. Nothing was served.
    WrongLength {
        /// Bytes it sent, or said that it would.
        sent: u64,
        /// Bytes that the page has.
        expected: u64,
    },
    /// The file's name does not fit a request line, so it was not asked.
    Unaddressable,
    /// It calls the request wrong.
    Refused(u16),
    /// There is no worker to ask.
    NoWorkers,
    /// No connection.
    Unreachable(String),
    /// No answer in time.
    TimedOut,
    /// It asks for fewer requests.
    Overloaded,
    /// It failed, or broke off within its answer.
    Broken(String),
    /// It failed a moment ago and was not asked.
    Resting,
}

/// What a worker says to any other request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 and a body.
    Body(Bytes),
    /// The connection was closed without a byte: not here, or a request it cannot serve.
    Nothing,
    /// An error status, with the body.
    Refused(u16, Bytes),
    /// It could not be asked or did not finish.
    Failed(String),
}

impl Workers {
    /// Speaks to workers with at most `max_inflight` kept connections to each, and waits at most
    /// `timeout` for an answer.
    pub fn new(timeout: Duration, max_inflight: usize) -> Self {
        Self {
            http: Http::new(timeout, max_inflight),
            health: HealthBook::new(BreakerOptions::default(), None),
            timeout,
        }
    }

    /// Forgets all that is kept of workers that are no members any more: connections and health. A
    /// request under way to one ends as it would have.
    pub fn forget_all_but(&self, members: &WorkerSet) {
        let urls: HashSet<&str> = members
            .endpoints()
            .flat_map(|worker| [Some(&worker.base_url), worker.container_base_url.as_ref()])
            .flatten()
            .map(|url| &**url)
            .collect();
        self.http.retain(|url| urls.contains(url));
        self.health.retain(|id| members.get(id).is_some());
    }

    /// Which processes answer for a worker: two equal answers are the same ones.
    pub(crate) fn processes(&self, worker: &WorkerEndpoint) -> (u64, u64) {
        self.http.processes(worker)
    }

    /// The same with the bounds of a configuration, counted in `metrics`.
    #[must_use]
    pub fn bounded(mut self, options: &RobustOptions, metrics: Arc<Metrics>) -> Self {
        self.http.min_bytes_per_second = options.min_bytes_per_second;
        self.health = HealthBook::new(options.breaker, Some(metrics));
        self
    }

    /// The same over connections of this kind.
    #[must_use]
    pub fn secured(mut self, security: Security) -> Self {
        self.http.security = security;
        self
    }

    /// The same with the buffers that pages are read into.
    #[must_use]
    pub fn with_buffers(mut self, buffers: Buffers) -> Self {
        self.http.buffers = buffers;
        self
    }

    /// Whether a worker is left alone at the moment.
    pub(crate) fn rests(&self, worker: &WorkerEndpoint) -> bool {
        self.health.of(worker).rests()
    }

    /// The time that one page in twenty of a worker exceeds; none before enough of them came.
    pub(crate) fn usual_latency(&self, worker: &WorkerEndpoint) -> Option<Duration> {
        self.health.of(worker).latency().usual()
    }

    /// Notes that a page of a worker took longer than this and was given up.
    pub(crate) fn was_slower(&self, worker: &WorkerEndpoint, than: Duration) {
        self.health.of(worker).latency().learn(than);
    }

    /// Asks a worker for a page of an opened file. A worker that failed a moment ago is not asked,
    /// unless it is the `last_resort`.
    pub async fn page(
        &self,
        worker: &WorkerEndpoint,
        file: &OpenedFile,
        index: u64,
        last_resort: bool,
    ) -> PageAnswer {
        let target =
            route::page_of_version(&file.id, index, &file.uri, &file.version, file.length, None);
        // Too long: without the name and the version a worker might serve another version.
        if !target.contains("ufsFullPath=") {
            return PageAnswer::Unaddressable;
        }
        let health = self.health.of(worker);
        if !last_resort && health.is_resting() {
            return PageAnswer::Resting;
        }
        let expected = file.page_length(index);
        let page_bytes = file.page_size.bytes();
        let request = Request {
            method: Method::Get,
            target: &target,
            limit: expected,
            timeout: self.timeout,
            // A short last page tells nothing of the page size.
            whole_page_bytes: Some(page_bytes).filter(|bytes| *bytes == expected),
            known_page_bytes: None,
        };
        let started = Instant::now();
        let exchange = self.http.ask(worker, &health, request).await;
        let answer = page_answer(exchange, expected);
        if let PageAnswer::Page(_) = answer {
            health.latency().learn(started.elapsed());
        }
        health.note(worker, &answer);
        answer
    }

    /// Notes what an answer turned out to mean.
    pub(crate) fn meant(&self, worker: &WorkerEndpoint, answer: &PageAnswer) {
        self.health.of(worker).note(worker, answer);
    }

    /// Asks a worker for a part of a page. `None` where it cannot be had so: the worker's page size
    /// is not known, or its answer is not that part; the whole page is then to be asked for.
    ///
    /// A worker of another page size would answer with other bytes of the same length, so the part
    /// is asked for over a connection alone that has brought a whole page.
    pub async fn part(
        &self,
        worker: &WorkerEndpoint,
        file: &OpenedFile,
        index: u64,
        part: PageRange,
    ) -> Option<Bytes> {
        let (uri, version) = (&file.uri, &file.version);
        let target = route::page_of_version(&file.id, index, uri, version, file.length, Some(part));
        let health = self.health.of(worker);
        if !target.contains("ufsFullPath=") || health.is_resting() {
            return None;
        }
        let request = Request {
            method: Method::Get,
            target: &target,
            limit: part.length,
            timeout: self.timeout,
            whole_page_bytes: None,
            known_page_bytes: Some(file.page_size.bytes()),
        };
        match self.http.ask(worker, &health, request).await {
            Exchange::Answered { status: 200, body } if body.len() as u64 == part.length => {
                Some(body)
            }
            // What it means is found out by asking for the page.
            _ => None,
        }
    }

    /// Sends any other GET request to a worker.
    pub async fn ask(&self, worker: &WorkerEndpoint, target: &str) -> Answer {
        self.exchange(worker, Method::Get, target).await
    }

    /// Sends a POST request without a body, which the worker may be told twice.
    pub(crate) async fn tell(&self, worker: &WorkerEndpoint, target: &str) -> Answer {
        self.exchange(worker, Method::Post, target).await
    }

    async fn exchange(&self, worker: &WorkerEndpoint, method: Method, target: &str) -> Answer {
        let health = self.health.of(worker);
        let timeout = self.timeout.max(ANSWER_TIMEOUT);
        let request = Request {
            method,
            target,
            limit: MAX_ANSWER_BYTES,
            timeout,
            whole_page_bytes: None,
            known_page_bytes: None,
        };
        let asking = self.http.ask(worker, &health, request);
        let answer = tokio::time::timeout(LONGEST_ANSWER, asking).await;
        match answer.unwrap_or(Exchange::TimedOut) {
            Exchange::Answered { status: 200, body } => Answer::Body(body),
            Exchange::Answered { status, body } => Answer::Refused(status, body),
            Exchange::EmptyClose => Answer::Nothing,
            Exchange::TooLong { announced } => Answer::Failed(format!(
                "its answer of {announced} bytes is longer than the {MAX_ANSWER_BYTES} that are \
                 read"
            )),
            Exchange::Unreachable(cause) => Answer::Failed(format!("cannot be reached: {cause}")),
            Exchange::TimedOut => {
                Answer::Failed(format!("did not answer within {} s", timeout.as_secs()))
            }
            Exchange::Broken(cause) => Answer::Failed(format!("broke off: {cause}")),
            Exchange::PageSizeUnknown => Answer::Failed("was not asked".to_owned()),
        }
    }
}

/// Reads the end of an exchange as the answer to the request for a page of `expected` bytes.
fn page_answer(exchange: Exchange, expected: u64) -> PageAnswer {
    match exchange {
        Exchange::Answered { status: 200, body } if body.len() as u64 == expected => {
            PageAnswer::Page(body)
        }
        Exchange::Answered { status: 200, body } => PageAnswer::WrongLength {
            sent: body.len() as u64,
            expected,
        },
        Exchange::TooLong { announced } => PageAnswer::WrongLength {
            sent: announced,
            expected,
        },
        Exchange::Answered { status, .. } => match status {
            404 | 410 => PageAnswer::Miss,
            409 | 412 => PageAnswer::Stale,
            408 | 504 => PageAnswer::TimedOut,
            429 | 503 => PageAnswer::Overloaded,
            400..=499 => PageAnswer::Refused(status),
            _ => PageAnswer::Broken(format!("status {status}")),
        },
        Exchange::EmptyClose => PageAnswer::Closed,
        Exchange::Unreachable(cause) => PageAnswer::Unreachable(cause),
        Exchange::TimedOut => PageAnswer::TimedOut,
        Exchange::PageSizeUnknown => PageAnswer::Resting,
        Exchange::Broken(cause) => PageAnswer::Broken(cause),
    }
}

impl fmt::Display for PageAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(bytes) => write!(f, "sent {} bytes", bytes.len()),
            Self::Miss => f.write_str("does not hold it and does not read through"),
            Self::Closed => f.write_str("closed the connection without an answer"),
            Self::Stale => f.write_str("has another version of the file"),
            Self::WrongLength { sent, expected } => {
                write!(
                    f,
                    "sent {sent} bytes instead of {expected}: its page size is another one"
                )
            }
            Self::Unaddressable => f.write_str("cannot be asked for so long a name"),
            Self::Refused(status) => write!(f, "refused the request with status {status}"),
            Self::NoWorkers => f.write_str("is on the ring"),
            Self::Unreachable(cause) => write!(f, "cannot be reached ({cause})"),
            Self::TimedOut => f.write_str("did not answer in time"),
            Self::Overloaded => f.write_str("is overloaded"),
            Self::Broken(cause) => write!(f, "failed ({cause})"),
            Self::Resting => f.write_str("failed a moment ago"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &'static str) -> Exchange {
        Exchange::Answered {
            status,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn only_a_whole_page_is_a_page() {
        let page = PageAnswer::Page(Bytes::from_static(b"abc"));
        assert_eq!(page_answer(answered(200, "abc"), 3), page);
        let short = PageAnswer::WrongLength {
            sent: 3,
            expected: 4,
        };
        assert_eq!(page_answer(answered(200, "abc"), 4), short);
        let long = PageAnswer::WrongLength {
            sent: 9,
            expected: 3,
        };
        assert_eq!(page_answer(Exchange::TooLong { announced: 9 }, 3), long);
    }

    #[test]
    fn an_empty_close_and_a_404_are_misses() {
        assert_eq!(page_answer(Exchange::EmptyClose, 3), PageAnswer::Closed);
        assert_eq!(page_answer(answered(404, "{}"), 3), PageAnswer::Miss);
    }

    #[test]
    fn codes_are_read_as_what_they_ask_for() {
        let answers = [
            (409, PageAnswer::Stale),
            (504, PageAnswer::TimedOut),
            (429, PageAnswer::Overloaded),
            (503, PageAnswer::Overloaded),
            (400, PageAnswer::Refused(400)),
            (500, PageAnswer::Broken("status 500".to_owned())),
        ];
        for (status, answer) in answers {
            assert_eq!(page_answer(answered(status, "abc"), 3), answer);
        }
    }
}
