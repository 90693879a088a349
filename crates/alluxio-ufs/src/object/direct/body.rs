//! An answer's body in blocks of a page's length.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use opendal::{Buffer, Error, ErrorKind};
use tokio_util::io::poll_read_buf;

use super::pool::{Connection, Pool};
use crate::buffers::{Buffers, PageBuffer};

/// The length of blocks where no page's length is known: the usual page's.
const BLOCK_BYTES: usize = 1024 * 1024;

/// The stream of blocks. When it ends, its connection is kept for the next request; when it is
/// dropped before, the connection is closed.
pub(super) struct Blocks {
    connection: Option<Connection>,
    home: Option<(Arc<Pool>, String)>,
    buffers: Buffers,
    block_bytes: usize,
    /// Bytes of the body that were not handed out yet.
    left: u64,
    block: Option<PageBuffer>,
}

impl Blocks {
    /// A body of `length` bytes, of which the first may have been received already.
    pub(super) fn new(
        connection: Connection,
        length: u64,
        buffers: Buffers,
        home: Option<(Arc<Pool>, String)>,
    ) -> Self {
        let block_bytes = match buffers.page_bytes() {
            0 => BLOCK_BYTES,
            bytes => bytes,
        };
        let mut blocks = Self {
            connection: Some(connection),
            home,
            buffers,
            block_bytes,
            left: length,
            block: None,
        };
        // An empty body would never be asked for its end.
        if length == 0 {
            blocks.end();
        }
        blocks
    }

    fn end(&mut self) {
        if let (Some(connection), Some((pool, authority))) =
            (self.connection.take(), self.home.take())
        {
            pool.put(&authority, connection);
        }
    }

    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buffer>>> {
        let Some(connection) = self.connection.as_mut().filter(|_| self.left > 0) else {
            return Poll::Ready(Ok(None));
        };
        let length = usize::try_from(self.left).unwrap_or(usize::MAX);
        let buffers = &self.buffers;
        let block = self
            .block
            .get_or_insert_with(|| buffers.take(length.min(self.block_bytes)));
        if !connection.received.is_empty() {
            let here = connection.received.len().min(block.left());
            block.fill_from(&mut connection.received.split_to(here).freeze());
        }
        while block.left() > 0 {
            let stream = Pin::new(&mut connection.stream);
            if ready!(poll_read_buf(stream, cx, &mut block.rest()))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let block = self.block.take().map(PageBuffer::freeze);
        self.left -= block.as_ref().map_or(0, |block| block.len() as u64);
        if self.left == 0 {
            self.end();
        }
        Poll::Ready(Ok(block.map(Buffer::from)))
    }
}

impl Stream for Blocks {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let block = ready!(self.poll_block(cx));
        Poll::Ready(block.transpose().map(|block| {
            block.map_err(|error| {
                // What is left of the answer is lost with the connection.
                self.connection = None;
                Error::new(ErrorKind::Unexpected, "read data from http response")
                    .with_operation("direct::fetch")
                    .set_temporary()
                    .set_source(error)
            })
        }))
    }
}
