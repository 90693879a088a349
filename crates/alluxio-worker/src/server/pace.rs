//! Patience with the other side of a connection, which must take and bring bytes when it is its turn.
//!
//! hyper waits for ever for a client that does not read its answer, or that brings the body of its
//! request byte by byte; each such client would hold a connection and a page in memory. What counts
//! is the time that we waited for the other side, by the bytes that came of it: idle connections and
//! slow disks of our own cost nobody anything.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The least that must move within the time of patience: a page of the usual size.
const LEAST_BYTES: u64 = 1024 * 1024;

/// How long the other side has been waited for since it last moved enough.
#[derive(Debug)]
pub(super) struct Pace {
    patience: Duration,
    /// Waited in intervals that are over.
    waited: Duration,
    moved_bytes: u64,
    /// Since when we wait, and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// A stream that fails when the other side takes too little of what is written.
pub(super) struct PacedStream<S> {
    stream: S,
    pace: Pace,
}

/// The data of a request's body; an error when it comes too slowly.
pub(super) struct PacedBody {
    body: Incoming,
    pace: Pace,
}

impl Pace {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            waited: Duration::ZERO,
            moved_bytes: 0,
            waiting: None,
        }
    }

    /// The other side moved bytes, or closed.
    fn moved(&mut self, bytes: u64) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        self.moved_bytes += bytes;
        if self.moved_bytes >= LEAST_BYTES {
            self.moved_bytes = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// To be polled while the other side is waited for: ready when patience is at its end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.patience.saturating_sub(self.waited);
        let (_, end) = self
            .waiting
            .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        end.as_mut().poll(cx)
    }
}

impl<S> PacedStream<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            pace: Pace::new(patience),
        }
    }

    /// The result of a write, or an error when writes have been waiting for too long.
    fn paced<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(written)) => {
                self.pace.moved(bytes(&written) as u64);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.pace.poll_end(cx));
                Poll::Ready(Err(too_slow("the client does not read its answer")))
            }
        }
    }
}

fn too_slow(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.paced(cx, written, |bytes| *bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.paced(cx, written, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.paced(cx, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.paced(cx, shut, |()| 0)
    }
}

impl PacedBody {
    pub(super) fn new(body: Incoming, patience: Duration) -> Self {
        Self {
            body,
            pace: Pace::new(patience),
        }
    }
}

impl Stream for PacedBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                ready!(self.pace.poll_end(cx));
                let error = too_slow("the body of the request comes too slowly");
                return Poll::Ready(Some(Err(error)));
            };
            let Some(frame) = frame else {
                return Poll::Ready(None);
            };
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => {
                    self.pace.moved(data.len() as u64);
                    return Poll::Ready(Some(Ok(data)));
                }
                // Trailers mean nothing here.
                Ok(Err(_)) => {}
                Err(error) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            }
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);
    const HALF: usize = 512 * 1024;

    /// Reads so many bytes each quarter of the patience.
    async fn drip(mut far: DuplexStream, bytes: usize, times: u32) {
        let mut part = vec![0; bytes];
        for _ in 0..times {
            tokio::time::sleep(PATIENCE / 4).await;
            if far.read_exact(&mut part).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_is_given_up() {
        let (near, _far) = tokio::io::duplex(4);
        let mut paced = PacedStream::new(near, PATIENCE);
        paced.write_all(b"1234").await.unwrap();
        let error = paced.write_all(b"5").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_drips_is_given_up_and_a_slow_one_waited_for() {
        for (bytes, is_enough) in [(1, false), (HALF, true)] {
            let (near, far) = tokio::io::duplex(bytes.min(64 * 1024));
            let mut paced = PacedStream::new(near, PATIENCE);
            let reading = tokio::spawn(drip(far, bytes, 8));
            let written = paced.write_all(&vec![7; 8 * bytes]).await;
            assert_eq!(written.is_ok(), is_enough, "{bytes}");
            drop(paced);
            reading.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_between_answers_costs_no_patience() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut paced = PacedStream::new(near, PATIENCE);
        for _ in 0..10 {
            tokio::time::sleep(PATIENCE * 2).await;
            let (written, read) = tokio::join!(paced.write_all(b"12345678"), async {
                let mut answer = [0; 8];
                far.read_exact(&mut answer).await
            });
            written.unwrap();
            read.unwrap();
        }
    }
}
