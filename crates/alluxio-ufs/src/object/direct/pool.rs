//! Kept connections to stores, the one used last first.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::limits::PARALLEL_OPERATIONS;

/// How long an unused connection is kept: what the general client does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// A connection and what came over it and was not used.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) received: BytesMut,
}

/// Connections without a request under way, by host and port.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<String, Vec<(Instant, Connection)>>>,
}

impl Pool {
    /// A connection that is open still.
    pub(super) fn take(&self, authority: &str) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let connections = idle.get_mut(authority)?;
        while let Some((since, connection)) = connections.pop() {
            if since.elapsed() < IDLE_TIMEOUT && connection.is_quiet() {
                return Some(connection);
            }
        }
        // None was left, and the host may never be asked again.
        idle.remove(authority);
        None
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, authority: &str, connection: Connection) {
        let mut idle = self.idle.lock();
        if let Some(connections) = idle.get_mut(authority) {
            if connections.len() < PARALLEL_OPERATIONS {
                connections.push((Instant::now(), connection));
            }
            return;
        }
        idle.insert(authority.to_owned(), vec![(Instant::now(), connection)]);
    }
}

impl Connection {
    /// Whether nothing came since the last answer, so that the next one is the next request's.
    fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let nothing = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.received.is_empty() && self.stream.try_read(&mut byte).as_ref().is_err_and(nothing)
    }
}
