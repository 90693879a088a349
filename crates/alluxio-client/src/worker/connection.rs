//! One kept HTTP/1.1 connection to a worker, which reads a page straight into the page's buffer.
//!
//! A general HTTP client copies each body out of its connection's buffer, piece by piece. A page is
//! a megabyte whose length the head tells, so it is read where it stays: that halves the client's
//! work per page. Of HTTP it speaks what workers do: requests without a body, a length or chunks, connections kept.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use alluxio_ufs::Buffers;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::http::{Exchange, Method};
use super::security::{Security, Stream};

/// More than any worker's head; what is longer is no worker.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Header lines of an answer; workers send about five.
const MAX_HEADERS: usize = 64;
/// One read of an answer's head; small, because what it reads of the body is copied.
const HEAD_READ_BYTES: usize = 1024;

/// A connection that has no request under way.
pub(super) struct Connection {
    stream: Stream,
    /// The line of a request's head that shows the token, or nothing.
    authorization: String,
    /// What came and was not used.
    received: BytesMut,
    /// The length of a whole page that came over it. It is the page size of the very process at
    /// its other end, which a restarted worker is not.
    pub(super) page_bytes: Option<u64>,
    /// An answer came over it, so it was not refused from the start.
    pub(super) has_answered: bool,
    /// Since when it is unused.
    pub(super) idle_since: Instant,
}

/// Without the token.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("page_bytes", &self.page_bytes)
            .field("idle_since", &self.idle_since)
            .finish_non_exhaustive()
    }
}

/// What an answer's head says.
struct Head {
    status: u16,
    body: Length,
    keeps: bool,
}

/// How long an answer's body is.
enum Length {
    Bytes(u64),
    Chunks,
    UntilClose,
}

/// Why there is no answer.
enum Failure {
    /// Closed or reset.
    Closed,
    Other(String),
}

impl Connection {
    /// Connects; `address` is `host:port`.
    pub(super) async fn open(address: &str, security: &Security) -> io::Result<Self> {
        let token = security.authorization().await;
        Ok(Self {
            stream: security.connect(address).await?,
            authorization: token.map_or_else(String::new, |t| format!("authorization: {t}\r\n")),
            received: BytesMut::new(),
            page_bytes: None,
            has_answered: false,
            idle_since: Instant::now(),
        })
    }

    /// Whether nothing came since the last answer, so that the next one is the next request's.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.received.is_empty() && self.stream.is_quiet()
    }

    /// Sends a request, named by method and target, and reads its answer, of which the body may have `limit` bytes. Gives the
    /// connection back where it can be used again. What came of the body is told in `brought` as it
    /// comes.
    pub(super) async fn ask(
        mut self,
        host: &str,
        (method, target): (Method, &str),
        limit: u64,
        buffers: &Buffers,
        brought: &AtomicU64,
    ) -> (Exchange, Option<Self>) {
        // What is no visible ASCII would end the request line, or be read as another name.
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            let cause = format!("{target:?} cannot be written into a request line");
            return (Exchange::Broken(cause), Some(self));
        }
        let (method, length) = match method {
            Method::Get => ("GET", ""),
            Method::Post => ("POST", "content-length: 0\r\n"),
        };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\n{length}{}\r\n",
            self.authorization
        );
        let head = match self.stream.write_all(request.as_bytes()).await {
            Ok(()) => self.head().await,
            Err(error) => Err(Failure::from(error)),
        };
        let head = match head {
            Ok(head) => head,
            // Reset or closed before a byte: it left the request unanswered.
            Err(Failure::Closed) if self.received.is_empty() => {
                return (Exchange::EmptyClose, None);
            }
            Err(failure) => return (failure.into(), None),
        };
        let status = head.status;
        match self.body(&head.body, limit, buffers, brought).await {
            Ok(Some(body)) => {
                let kept = head.keeps.then_some(self);
                (Exchange::Answered { status, body }, kept)
            }
            Ok(None) => {
                let announced = match head.body {
                    Length::Bytes(length) => length,
                    Length::Chunks | Length::UntilClose => limit.saturating_add(1),
                };
                (Exchange::TooLong { announced }, None)
            }
            Err(failure) => (failure.into(), None),
        }
    }

    async fn head(&mut self) -> Result<Head, Failure> {
        loop {
            if let Some((bytes, head)) = parse(&self.received)? {
                self.received.advance(bytes);
                // Before the answer itself, a worker may say that it goes on (100).
                if head.status >= 200 {
                    return Ok(head);
                }
                continue;
            }
            if self.received.len() > MAX_HEAD_BYTES {
                return Err(Failure::Other("its answer's head has no end".to_owned()));
            }
            self.receive(HEAD_READ_BYTES).await?;
        }
    }

    /// Reads once, at most so many bytes.
    async fn receive(&mut self, at_most: usize) -> Result<(), Failure> {
        self.received.reserve(at_most);
        let mut part = (&mut self.stream).take(at_most as u64);
        match part.read_buf(&mut self.received).await? {
            0 => Err(Failure::Closed),
            _ => Ok(()),
        }
    }

    /// The body; `None` where it is longer than `limit`.
    async fn body(
        &mut self,
        length: &Length,
        limit: u64,
        buffers: &Buffers,
        brought: &AtomicU64,
    ) -> Result<Option<Bytes>, Failure> {
        match length {
            Length::Bytes(length) if *length > limit => Ok(None),
            Length::Bytes(length) => {
                let length = usize::try_from(*length)
                    .map_err(|_| Failure::Other("its answer does not fit memory".to_owned()))?;
                self.exactly(length, buffers, brought).await.map(Some)
            }
            Length::Chunks => self.chunks(limit, brought).await,
            Length::UntilClose => self.until_close(limit, brought).await,
        }
    }

    /// The next bytes, in a buffer of just their length.
    async fn exactly(
        &mut self,
        length: usize,
        buffers: &Buffers,
        brought: &AtomicU64,
    ) -> Result<Bytes, Failure> {
        let mut body = buffers.take(length);
        let here = self.received.len().min(length);
        body.fill_from(&mut self.received.split_to(here).freeze());
        while body.left() > 0 {
            let read = self.stream.read_buf(&mut body.rest()).await?;
            if read == 0 {
                return Err(Failure::Other(format!(
                    "it closed after {} of {length} bytes",
                    length - body.left()
                )));
            }
            brought.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(body.freeze())
    }

    async fn chunks(&mut self, limit: u64, brought: &AtomicU64) -> Result<Option<Bytes>, Failure> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16)
                .map_err(|_| Failure::Other("a chunk's length is no number".to_owned()))?;
            if (body.len() as u64).saturating_add(length as u64) > limit {
                return Ok(None);
            }
            if length == 0 {
                // Trailers, up to the empty line.
                while !self.line().await?.is_empty() {}
                return Ok(Some(body.freeze()));
            }
            let chunk = self.exactly(length, &Buffers::default(), brought).await?;
            body.extend_from_slice(&chunk);
            self.line().await?;
        }
    }

    /// The next line without its end.
    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = self.received.split_to(end);
                self.received.advance(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.received.len() > MAX_HEAD_BYTES {
                return Err(Failure::Other("a line of its answer has no end".to_owned()));
            }
            self.receive(HEAD_READ_BYTES).await?;
        }
    }

    async fn until_close(
        &mut self,
        limit: u64,
        brought: &AtomicU64,
    ) -> Result<Option<Bytes>, Failure> {
        loop {
            if self.received.len() as u64 > limit {
                return Ok(None);
            }
            let before = self.received.len();
            match self.receive(MAX_HEAD_BYTES).await {
                Ok(()) => {
                    let read = self.received.len() - before;
                    brought.fetch_add(read as u64, Ordering::Relaxed);
                }
                Err(Failure::Closed) => return Ok(Some(self.received.split().freeze())),
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// The head at the start of what came, and its length, once it is whole.
fn parse(received: &[u8]) -> Result<Option<(usize, Head)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let bytes = match answer.parse(received) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Failure::Other(format!("its answer is no HTTP: {error}"))),
    };
    let value = |name: &str| {
        let mut named = answer
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        named
            .next()
            .map(|header| String::from_utf8_lossy(header.value))
    };
    let status = answer.code.unwrap_or_default();
    let says =
        |name, word: &str| value(name).is_some_and(|text| text.to_ascii_lowercase().contains(word));
    let body =
        match value("content-length") {
            _ if says("transfer-encoding", "chunked") => Length::Chunks,
            _ if status < 200 || status == 204 || status == 304 => Length::Bytes(0),
            None => Length::UntilClose,
            Some(text) => Length::Bytes(text.trim().parse().map_err(|_| {
                Failure::Other(format!("its answer's length `{text}` is no number"))
            })?),
        };
    let keeps = answer.version == Some(1)
        && !says("connection", "close")
        && !matches!(body, Length::UntilClose);
    Ok(Some((
        bytes,
        Head {
            status,
            body,
            keeps,
        },
    )))
}

/// The length of a head, once it is whole.
#[cfg(feature = "bench")]
pub(crate) fn head_length(received: &[u8]) -> Option<usize> {
    let parsed = parse(received).ok().flatten();
    parsed.map(|(bytes, _)| bytes)
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<Failure> for Exchange {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::Broken("it closed within its answer".to_owned()),
            Failure::Other(cause) => Self::Broken(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a GET to a server that answers with these bytes and closes.
    async fn answered(answer: &'static [u8], limit: u64) -> (Exchange, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /v1/health HTTP/1.1\r\nhost: w\r\n"));
            stream.write_all(answer).await.unwrap();
        });
        let connection = Connection::open(&address, &Security::default())
            .await
            .unwrap();
        let (exchange, kept) = connection
            .ask(
                "w",
                (Method::Get, "/v1/health"),
                limit,
                &Buffers::default(),
                &AtomicU64::new(0),
            )
            .await;
        server.await.unwrap();
        (exchange, kept.is_some())
    }

    fn body_of(exchange: &Exchange) -> &[u8] {
        match exchange {
            Exchange::Answered { status: 200, body } => body,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_body_of_known_length_leaves_the_connection_usable() {
        let (exchange, kept) =
            answered(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 3).await;
        assert_eq!(body_of(&exchange), b"abc");
        assert!(kept);
    }

    #[tokio::test]
    async fn chunks_are_put_together_and_trailers_left_out() {
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
            2;x=y\r\nab\r\n1\r\nc\r\n0\r\nt: u\r\n\r\n";
        let (exchange, kept) = answered(answer, 3).await;
        assert_eq!(body_of(&exchange), b"abc");
        assert!(kept);
        assert!(matches!(
            answered(answer, 2).await.0,
            Exchange::TooLong { .. }
        ));
    }

    #[tokio::test]
    async fn a_body_without_a_length_ends_with_the_connection() {
        let (exchange, kept) = answered(b"HTTP/1.0 200 OK\r\n\r\nabc", 9).await;
        assert_eq!(body_of(&exchange), b"abc");
        assert!(!kept);
    }

    #[tokio::test]
    async fn what_is_cut_or_no_http_is_broken_and_nothing_at_all_an_empty_close() {
        let cut = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", 9).await;
        assert!(matches!(cut, (Exchange::Broken(_), false)));
        let half_a_head = answered(b"HTTP/1.1 200 OK\r\ncont", 9).await;
        assert!(matches!(half_a_head, (Exchange::Broken(_), false)));
        assert!(matches!(
            answered(b"SSH-2.0\r\n", 9).await,
            (Exchange::Broken(_), false)
        ));
        assert!(matches!(
            answered(b"", 9).await,
            (Exchange::EmptyClose, false)
        ));
    }

    #[tokio::test]
    async fn a_longer_body_than_wanted_is_not_read() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabcdefghi";
        let (exchange, kept) = answered(answer, 3).await;
        assert!(matches!(exchange, Exchange::TooLong { announced: 9 }));
        assert!(!kept);
    }
}
