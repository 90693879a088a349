//! A proxy before a real server that does to its answers what networks and failing servers do.
//!
//! It speaks HTTP/1.1 as far as it must to know where an answer begins and ends, so that a fault is
//! put before it, at its first, middle or last byte, and into its head.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::next_head;

/// Between two bytes of an answer that drips: a page of 64 KiB would take an hour.
const DRIP: Duration = Duration::from_millis(50);
/// How much longer an answer claims to be than it was, or how much shorter.
const WRONG_BY: usize = 7;

/// What is done to one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It comes this much later.
    Late(Duration),
    /// The connection is reset there.
    Reset(Place),
    /// The connection ends there, in order.
    Cut(Place),
    /// A whole answer with fewer bytes.
    Shorter,
    /// A whole answer with more bytes.
    Longer,
    /// This status in its place.
    Status(u16),
    /// From there on nothing comes, and the connection stays.
    Silent(Place),
    /// From there on the bytes come one by one.
    Drips(Place),
}

/// A place in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before its first byte.
    Answer,
    /// Before the first byte of its body.
    Body,
    /// In the middle of the body.
    Middle,
    /// Before the last byte.
    End,
}

/// Says what is done to an answer, by the number of answers before it that it was asked about.
pub(crate) type Schedule = dyn Fn(usize) -> Fault + Send + Sync;

/// A running proxy. It ends when dropped, with all of its connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    /// Whether a request's answer is one to meddle with, by its first line.
    concerns: fn(&str) -> bool,
    schedule: Mutex<Arc<Schedule>>,
    answers: AtomicUsize,
}

/// An answer of the server.
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Proxy {
    /// A proxy before `upstream` that meddles with the answers to the requests that it `concerns`.
    pub(crate) async fn start(upstream: SocketAddr, concerns: fn(&str) -> bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            concerns,
            schedule: Mutex::new(Arc::new(|_| Fault::None)),
            answers: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&accepting)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            shared,
            server,
        }
    }

    /// From now on this is done to answers, counted anew.
    pub(crate) fn inject(&self, schedule: impl Fn(usize) -> Fault + Send + Sync + 'static) {
        let mut current = self.shared.schedule.lock();
        *current = Arc::new(schedule);
        self.shared.answers.store(0, Ordering::SeqCst);
    }

    /// How many answers the schedule was asked about.
    pub(crate) fn answers(&self) -> usize {
        self.shared.answers.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn fault_for(&self, request: &str) -> Fault {
        if !(self.concerns)(request) {
            return Fault::None;
        }
        let schedule = self.schedule.lock();
        schedule(self.answers.fetch_add(1, Ordering::SeqCst))
    }
}

/// Carries requests and answers until one side ends. An error is the end of the connection, which
/// is what the other side would see too.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else {
        return;
    };
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    while let Some(request) = next_head(&mut client, &mut asked).await {
        if server.write_all(request.as_bytes()).await.is_err() {
            return;
        }
        let Some(answer) = next_answer(&mut server, &mut answered, &request).await else {
            return;
        };
        let fault = shared.fault_for(request.lines().next().unwrap_or_default());
        if give(&mut client, answer, fault).await.is_none() {
            return;
        }
    }
}

/// The server's whole answer; nothing where it ended the connection.
async fn next_answer(
    server: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &str,
) -> Option<Answer> {
    let head = next_head(server, buffer).await?;
    let lower = head.to_ascii_lowercase();
    assert!(
        !lower.contains("transfer-encoding"),
        "the servers of these tests tell the length: {head}"
    );
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |text| text.trim().parse().unwrap());
    let length = if request.starts_with("HEAD") {
        0
    } else {
        length
    };
    while buffer.len() < length {
        if server.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let rest = buffer.split_off(length);
    let body = std::mem::replace(buffer, rest);
    Some(Answer { head, body })
}

/// Gives an answer with its fault. Nothing where the connection has ended with it.
async fn give(client: &mut TcpStream, answer: Answer, fault: Fault) -> Option<()> {
    let Answer { head, mut body } = answer;
    let whole = |head: &str, body: &[u8]| [head.as_bytes(), body].concat();
    let at = |place: Place| match place {
        Place::Answer => 0,
        Place::Body => head.len(),
        Place::Middle => head.len() + body.len() / 2,
        Place::End => head.len() + body.len().saturating_sub(1),
    };
    let bytes = whole(&head, &body);
    match fault {
        Fault::None => client.write_all(&bytes).await.ok(),
        Fault::Late(time) => {
            tokio::time::sleep(time).await;
            client.write_all(&bytes).await.ok()
        }
        Fault::Reset(place) => {
            client.write_all(&bytes[..at(place)]).await.ok()?;
            client.set_zero_linger().ok()?;
            None
        }
        Fault::Cut(place) => {
            client.write_all(&bytes[..at(place)]).await.ok()?;
            None
        }
        Fault::Shorter | Fault::Longer => {
            let length = match fault {
                Fault::Shorter => body.len().saturating_sub(WRONG_BY),
                _ => body.len() + WRONG_BY,
            };
            body.resize(length, b'x');
            client
                .write_all(&whole(&of_length(&head, length), &body))
                .await
                .ok()
        }
        Fault::Status(status) => {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            client.write_all(head.as_bytes()).await.ok()
        }
        Fault::Silent(place) => {
            client.write_all(&bytes[..at(place)]).await.ok()?;
            gone(client).await;
            None
        }
        Fault::Drips(place) => {
            client.write_all(&bytes[..at(place)]).await.ok()?;
            drip(client, &bytes[at(place)..]).await;
            None
        }
    }
}

/// The head with another length.
fn of_length(head: &str, length: usize) -> String {
    let lines = head.split_inclusive("\r\n").map(|line| {
        if line.to_ascii_lowercase().starts_with("content-length:") {
            format!("content-length: {length}\r\n")
        } else {
            line.to_owned()
        }
    });
    lines.collect()
}

/// Waits until the client has closed the connection.
async fn gone(client: &mut TcpStream) {
    let mut unread = [0; 1024];
    while client.read(&mut unread).await.is_ok_and(|read| read > 0) {}
}

/// One byte now and then, until all are given or the client has closed the connection.
async fn drip(client: &mut TcpStream, bytes: &[u8]) {
    let (mut from, mut to) = client.split();
    let dripping = async {
        for byte in bytes {
            tokio::time::sleep(DRIP).await;
            if to.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let mut unread = [0; 1024];
    let ended = async { while from.read(&mut unread).await.is_ok_and(|read| read > 0) {} };
    tokio::select! {
        () = dripping => {}
        () = ended => {}
    }
}
