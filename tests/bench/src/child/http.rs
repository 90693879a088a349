//! The bare HTTP side: one thread a kept connection, one buffer, no more than GET and read.
//!
//! This is the limit that a client can come near: it splits nothing, keeps nothing, checks only
//! that the body is as long as was told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Taken, Watch};
use crate::figure::median;

/// As long as any answer on loopback may take before the run is worthless.
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than any answer's head.
const HEAD_LIMIT_BYTES: usize = 16 * 1024;
/// Bytes of a small ranged read.
const SMALL_BYTES: u64 = 4096;

/// One kept connection.
struct Connection {
    stream: TcpStream,
    host: String,
    body: Vec<u8>,
}

impl Connection {
    fn open(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            host: host.to_owned(),
            body: vec![0; 1 << 20],
        })
    }

    /// GETs `target` with further header lines and returns the body's length.
    fn get(&mut self, target: &str, headers: &str) -> Result<u64> {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n",
            self.host
        );
        self.stream.write_all(request.as_bytes())?;
        let mut head = Vec::with_capacity(1024);
        let mut at = 0;
        let end = loop {
            head.resize(at + 4096, 0);
            let read = self.stream.read(&mut head[at..])?;
            if read == 0 || at > HEAD_LIMIT_BYTES {
                bail!("no answer to GET {target}");
            }
            at += read;
            if let Some(end) = head[..at].windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        let code = text.split_whitespace().nth(1).unwrap_or_default();
        if !matches!(code, "200" | "206") {
            bail!("GET {target}: {}", text.lines().next().unwrap_or_default());
        }
        let length: u64 = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|value| value.trim().parse().ok())
            .with_context(|| format!("GET {target}: no length"))?;
        let mut left = length.saturating_sub((at - end) as u64);
        while left > 0 {
            let room = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.body.len());
            let read = self.stream.read(&mut self.body[..room])?;
            if read == 0 {
                bail!("GET {target} broke off");
            }
            left -= read as u64;
        }
        Ok(length)
    }
}

/// `http://host:port/target` in two.
fn split(url: &str) -> Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").context("a bare URL is http")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    Ok(rest.split_at(slash))
}

/// Takes `count` turns over `connections` threads.
fn spread(
    host: &str,
    connections: u64,
    count: u64,
    turn: impl Fn(&mut Connection, u64) -> Result<u64> + Sync,
) -> Result<Taken> {
    let mut opened = (0..connections)
        .map(|_| Connection::open(host))
        .collect::<Result<Vec<_>>>()?;
    let next = AtomicU64::new(0);
    let bytes = AtomicU64::new(0);
    let watch = Watch::start();
    std::thread::scope(|scope| {
        let threads: Vec<_> = opened
            .iter_mut()
            .map(|connection| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            return Ok(());
                        }
                        bytes.fetch_add(turn(connection, index)?, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| bail!("a connection's thread panicked"))
        })
    })?;
    Ok(watch.stop(bytes.load(Ordering::Relaxed), count))
}

pub(super) fn pages(url: &str, count: u64, connections: u64) -> Result<Taken> {
    let (host, target) = split(url)?;
    spread(host, connections, count, |connection, index| {
        connection.get(&target.replace("{n}", &index.to_string()), "")
    })
}

pub(super) fn object(url: &str, length: u64, range: u64, connections: u64) -> Result<Taken> {
    let (host, target) = split(url)?;
    spread(
        host,
        connections,
        length.div_ceil(range),
        |connection, index| {
            let start = index * range;
            let end = (start + range).min(length) - 1;
            connection.get(target, &format!("Range: bytes={start}-{end}\r\n"))
        },
    )
}

pub(super) fn ranges(url: &str, pages: u64, count: u64) -> Result<Taken> {
    let (host, target) = split(url)?;
    let mut connection = Connection::open(host)?;
    let places = super::local::places(pages, count);
    let mut latencies = Vec::with_capacity(places.len());
    let mut bytes = 0;
    let watch = Watch::start();
    for (page, offset) in &places {
        let target = target.replace("{n}", &page.to_string());
        let started = Instant::now();
        bytes += connection.get(
            &format!("{target}&offset={offset}&length={SMALL_BYTES}"),
            "",
        )?;
        latencies.push(started.elapsed().as_secs_f64());
    }
    let mut taken = watch.stop(bytes, count);
    taken.p50_seconds = median(latencies);
    Ok(taken)
}
