//! A gate before an S3 server: lets everything through, until it is told to refuse what would store
//! something.
//!
//! It knows as much of HTTP/1.1 as it must: where a request begins and ends. Answers pass as they come.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// What becomes of requests that would store something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// They are passed on.
    Passed,
    /// So many are, and from then on none, as when a bucket is full or rights are taken.
    RefusedAfter(u32),
    /// The connection ends in the middle of the body.
    Cut,
}

/// A running gate. It serves until the program ends.
pub(crate) struct Gate {
    address: SocketAddr,
    fate: Arc<Mutex<Fate>>,
}

/// A request, as far as it must be known.
struct Request {
    head: Vec<u8>,
    stores: bool,
    body_bytes: u64,
}

impl Gate {
    /// A gate before a server.
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fate = Arc::new(Mutex::new(Fate::Passed));
        let shared = Arc::clone(&fate);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let fate = Arc::clone(&shared);
                // The end of a connection is no failure, of whichever side.
                thread::spawn(move || drop(serve(&client, server, &fate)));
            }
        });
        Self { address, fate }
    }

    /// Where clients find it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this is what becomes of requests that would store something.
    pub(crate) fn set(&self, fate: Fate) {
        *self.fate.lock() = fate;
    }
}

/// Passes requests of one connection on, until it ends.
fn serve(mut client: &TcpStream, server: SocketAddr, fate: &Mutex<Fate>) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (answers, to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ended = std::io::copy(&mut &answers, &mut &to_client);
        let _gone = to_client.shutdown(Shutdown::Both);
    });
    let mut requests = BufReader::new(client);
    while let Some(request) = next_request(&mut requests)? {
        let mut body = (&mut requests).take(request.body_bytes);
        let this = if request.stores {
            next_fate(&mut fate.lock())
        } else {
            Fate::Passed
        };
        match this {
            Fate::Passed => {
                (&server).write_all(&request.head)?;
                std::io::copy(&mut body, &mut &server)?;
            }
            Fate::RefusedAfter(_) => {
                // Clients do not send before the last answer has come, so none is on its way.
                std::io::copy(&mut body, &mut std::io::sink())?;
                client.write_all(REFUSAL)?;
            }
            Fate::Cut => {
                std::io::copy(&mut body.take(request.body_bytes / 2), &mut std::io::sink())?;
                break;
            }
        }
    }
    server.shutdown(Shutdown::Both)
}

/// As S3 refuses it.
const REFUSAL: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/xml\r\n\
content-length: 72\r\n\r\n\
<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";

/// What becomes of the next one.
fn next_fate(fate: &mut Fate) -> Fate {
    match fate {
        Fate::RefusedAfter(passes @ 1..) => {
            *passes -= 1;
            Fate::Passed
        }
        other => *other,
    }
}

/// The next request; none at the connection's end.
fn next_request(from: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut head = Vec::new();
    let (mut stores, mut body_bytes) = (false, 0);
    loop {
        let begun = head.len();
        if from.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&head[begun..]).to_ascii_lowercase();
        if begun == 0 {
            stores = line.starts_with("put ") || line.starts_with("post ");
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            body_bytes = length.trim().parse().unwrap();
        }
        assert!(!line.starts_with("transfer-encoding:"), "{line}");
        if line.trim().is_empty() {
            return Ok(Some(Request {
                head,
                stores,
                body_bytes,
            }));
        }
    }
}
