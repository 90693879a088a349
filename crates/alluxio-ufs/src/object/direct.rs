//! GETs of ranges over plain HTTP/1.1, read straight into the buffers that are handed out.
//!
//! A general HTTP client reads into a buffer of its connection and hands out parts of it, so each
//! byte is copied once more into its page, and the parts are many. Where a store is reached without
//! TLS, as inside a data centre, that is a good part of what a byte costs. Here the body comes in
//! blocks of a page's length, counted from its first byte, which become pages as they are. OpenDAL
//! still makes and signs the request and reads the answer's head.
//!
//! Everything else stays the general client's: TLS, proxies, redirects, other methods, and servers
//! that do not say how long an answer is.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, RANGE, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpRedirect};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::body::Blocks;
use self::pool::{Connection, Pool};
use crate::buffers::Buffers;
use crate::limits::CONNECT_TIMEOUT;

mod body;
mod pool;

/// More than any store's head; what is longer is none.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Header lines of an answer; S3 sends about twenty, and one for each of an object's own.
const MAX_HEADERS: usize = 256;
/// One read of an answer's head; small, because what it reads of the body is copied.
const HEAD_READ_BYTES: usize = 2048;
/// Servers that are remembered as not saying lengths; when there are more, all are forgotten.
const MAX_WITHOUT_LENGTHS: usize = 64;
/// Variables that tell a general client to go by a proxy.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// The client; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Direct {
    pool: Arc<Pool>,
    buffers: Buffers,
    has_proxy: bool,
    without_lengths: Arc<Mutex<HashSet<String>>>,
}

/// What came of a request.
pub(super) enum Fetched {
    /// An answer whose body has a known length.
    Answer(Response<HttpBody>),
    /// The answer does not say its length: the general client is to ask.
    LengthUnknown,
}

struct Head {
    status: StatusCode,
    headers: HeaderMap,
    is_kept: bool,
}

impl Direct {
    /// Reads into these buffers.
    pub(super) fn new(buffers: Buffers) -> Self {
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            pool: Arc::default(),
            buffers,
            has_proxy: PROXIES.iter().any(is_set),
            without_lengths: Arc::default(),
        }
    }

    /// Whether a request is one of those that go this way.
    pub(super) fn takes(&self, request: &Request<Buffer>) -> bool {
        let (uri, headers) = (request.uri(), request.headers());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        !self.has_proxy
            && request.method() == Method::GET
            && uri.scheme() == Some(&Scheme::HTTP)
            && !authority.is_empty()
            && !authority.contains('@')
            && headers.contains_key(RANGE)
            && !headers.contains_key(TRANSFER_ENCODING)
            && request.body().is_empty()
            && request.extensions().get::<HttpRedirect>().is_none()
            && !self.without_lengths.lock().contains(authority)
    }

    /// Sends a request and waits for its answer's head.
    pub(super) async fn fetch(&self, request: &Request<Buffer>) -> opendal::Result<Fetched> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Unexpected, "send http request")
                .with_operation("direct::fetch")
                .with_context("url", request.uri().to_string())
                .set_temporary()
                .set_source(error)
        };
        let authority = request.uri().authority().map_or("", |it| it.as_str());
        let kept = self.pool.take(authority);
        let was_kept = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => connect(request).await.map_err(failed)?,
        };
        let asked = match ask(connection, request).await {
            // The server may have closed a kept connection while the request was on its way.
            Err(error) if was_kept && is_closed(&error) => {
                let connection = connect(request).await.map_err(failed)?;
                ask(connection, request).await
            }
            asked => asked,
        };
        let (connection, head) = asked.map_err(failed)?;
        let Some(length) = length_of(&head) else {
            let mut without = self.without_lengths.lock();
            if without.len() >= MAX_WITHOUT_LENGTHS {
                without.clear();
            }
            without.insert(authority.to_owned());
            return Ok(Fetched::LengthUnknown);
        };
        let home = head
            .is_kept
            .then(|| (Arc::clone(&self.pool), authority.to_owned()));
        let blocks = Blocks::new(connection, length, self.buffers.clone(), home);
        let mut answer = Response::new(HttpBody::new(blocks, Some(length)));
        *answer.status_mut() = head.status;
        *answer.version_mut() = Version::HTTP_11;
        *answer.headers_mut() = head.headers;
        answer.extensions_mut().insert(request.uri().clone());
        Ok(Fetched::Answer(answer))
    }
}

/// The body's length; none where the head does not tell it.
fn length_of(head: &Head) -> Option<u64> {
    if head.headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    if matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        return Some(0);
    }
    let length = head.headers.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.trim().parse().ok()
}

async fn connect(request: &Request<Buffer>) -> io::Result<Connection> {
    let uri = request.uri();
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connecting = TcpStream::connect((host, port));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(Connection {
        stream,
        received: BytesMut::new(),
    })
}

/// Sends the request and reads the answer's head.
async fn ask(
    mut connection: Connection,
    request: &Request<Buffer>,
) -> io::Result<(Connection, Head)> {
    connection.stream.write_all(&head_of(request)).await?;
    loop {
        if let Some(head) = parse(&mut connection.received)? {
            // Before the answer itself, a server may say that it goes on (100).
            if !head.status.is_informational() {
                return Ok((connection, head));
            }
            continue;
        }
        if connection.received.len() > MAX_HEAD_BYTES {
            return Err(invalid("the answer's head has no end"));
        }
        connection.received.reserve(HEAD_READ_BYTES);
        let mut part = (&mut connection.stream).take(HEAD_READ_BYTES as u64);
        if part.read_buf(&mut connection.received).await? == 0 {
            let kind = if connection.received.is_empty() {
                io::ErrorKind::ConnectionReset
            } else {
                io::ErrorKind::UnexpectedEof
            };
            return Err(io::Error::from(kind));
        }
    }
}

/// The bytes of a request without a body.
fn head_of(request: &Request<Buffer>) -> Vec<u8> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("GET {target} HTTP/1.1\r\n").into_bytes();
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    };
    if !request.headers().contains_key(HOST) {
        let authority = uri.authority().map_or("", |it| it.as_str());
        line("host", authority.as_bytes());
    }
    for (name, value) in request.headers() {
        line(name.as_str(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Takes a whole head off the front of what came.
fn parse(received: &mut BytesMut) -> io::Result<Option<Head>> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut lines);
    let bytes = match answer.parse(received) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(&format!("the answer is no HTTP: {error}"))),
    };
    let status = StatusCode::from_u16(answer.code.unwrap_or_default())
        .map_err(|_| invalid("the answer has no status"))?;
    let mut headers = HeaderMap::with_capacity(answer.headers.len());
    for line in &*answer.headers {
        let name = HeaderName::from_bytes(line.name.as_bytes());
        let value = HeaderValue::from_bytes(line.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(invalid("a header line of the answer is none"));
        };
        headers.append(name, value);
    }
    let closes = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("close"));
    let is_kept = answer.version == Some(1) && !closes;
    received.advance(bytes);
    Ok(Some(Head {
        status,
        headers,
        is_kept,
    }))
}

fn invalid(cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

/// Whether the connection was closed before a byte of the answer came.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests;
