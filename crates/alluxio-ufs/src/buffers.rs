//! Buffers of a page's length that are used again.
//!
//! A new buffer of a megabyte costs its reader 256 page faults and as many cleared pages, which is a
//! third of what a page from a near server costs at all. A buffer that held a page which has left
//! the memory cache has its memory already, so a few of them are kept for the next pages. Those that
//! wait are bounded in bytes, and who makes [`Buffers`] charges them to its own limit.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, buf::Limit};
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

/// Shorter pages come from the allocator: they are its everyday work and have no faults to save.
const LEAST_PAGE_BYTES: usize = 64 * 1024;

/// Buffers of one length; a clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Buffers {
    idle: Arc<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    page_bytes: usize,
    most: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// A buffer that is being filled. Once it is [frozen](Self::freeze) and all of its bytes' owners are
/// gone, the next page is read into it.
#[derive(Debug)]
pub struct PageBuffer {
    bytes: Vec<u8>,
    wanted: usize,
    /// Where the buffer goes; none where it has another length.
    home: Option<Arc<Idle>>,
}

impl Buffers {
    /// Buffers for pages of this length, of which those that wait take at most `idle_bytes`.
    pub fn new(page_bytes: u64, idle_bytes: u64) -> Self {
        let page_bytes = usize::try_from(page_bytes).unwrap_or(usize::MAX);
        let idle_bytes = usize::try_from(idle_bytes).unwrap_or(usize::MAX);
        let most = match page_bytes {
            LEAST_PAGE_BYTES.. => idle_bytes / page_bytes,
            _ => 0,
        };
        let buffers = Mutex::new(Vec::with_capacity(most));
        Self {
            idle: Arc::new(Idle {
                page_bytes,
                most,
                buffers,
            }),
        }
    }

    /// The length of the buffers that are used again; 0 where none are.
    pub(crate) fn page_bytes(&self) -> usize {
        match self.idle.most {
            0 => 0,
            _ => self.idle.page_bytes,
        }
    }

    /// A buffer for so many bytes, not more.
    pub fn take(&self, length: usize) -> PageBuffer {
        let is_page = self.idle.most > 0 && length == self.idle.page_bytes;
        let home = is_page.then(|| Arc::clone(&self.idle));
        let used = home.as_ref().and_then(|home| home.buffers.lock().pop());
        PageBuffer {
            bytes: used.unwrap_or_else(|| Vec::with_capacity(length)),
            wanted: length,
            home,
        }
    }
}

impl PageBuffer {
    /// Bytes that are here.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.wanted.min(self.bytes.len())]
    }

    /// Bytes that are still wanted.
    pub fn left(&self) -> usize {
        self.wanted.saturating_sub(self.bytes.len())
    }

    /// Takes as much as it wants off the front of `bytes`.
    pub fn fill_from(&mut self, bytes: &mut Bytes) {
        let taken = bytes.split_to(bytes.len().min(self.left()));
        self.bytes.extend_from_slice(&taken);
    }

    /// Where the bytes that are still wanted go, without being cleared before.
    pub fn rest(&mut self) -> Limit<&mut Vec<u8>> {
        let left = self.left();
        (&mut self.bytes).limit(left)
    }

    /// Reads what is still wanted of a file whose bytes from `offset` on the buffer holds, or as much as
    /// there is. It blocks on the disk. The memory is not cleared before, which for a page would take
    /// half as long as to read it.
    pub fn read_from(&mut self, file: &File, offset: u64) -> io::Result<()> {
        while self.left() > 0 {
            let at = offset + self.bytes.len() as u64;
            // What the allocator gave beyond the wanted may be filled too, and is no part of the page.
            match rustix::io::pread(file, spare_capacity(&mut self.bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The bytes, to be shared.
    pub fn freeze(mut self) -> Bytes {
        self.bytes.truncate(self.wanted);
        if self.home.is_some() {
            return Bytes::from_owner(self);
        }
        Bytes::from(std::mem::take(&mut self.bytes))
    }
}

impl AsRef<[u8]> for PageBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else {
            return;
        };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut buffers = home.buffers.lock();
        if buffers.len() < home.most {
            buffers.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = LEAST_PAGE_BYTES;

    fn filled(buffers: &Buffers, length: usize) -> Bytes {
        let mut buffer = buffers.take(length);
        let mut bytes = Bytes::from(vec![7; length + 3]);
        buffer.fill_from(&mut bytes);
        assert_eq!((buffer.left(), bytes.len()), (0, 3));
        buffer.freeze()
    }

    #[test]
    fn the_next_page_is_read_into_the_buffer_of_one_that_nobody_has_any_more() {
        let buffers = Buffers::new(PAGE as u64, 4 * PAGE as u64);
        let first = filled(&buffers, PAGE);
        let (place, part) = (first.as_ptr(), first.slice(10..20));
        drop(first);
        // A part of it is still had.
        assert_ne!(filled(&buffers, PAGE).as_ptr(), place);
        drop(part);
        let next = buffers.take(PAGE);
        assert!(next.bytes().is_empty() && next.left() == PAGE);
        assert_eq!(next.bytes.as_ptr(), place);
    }

    #[test]
    fn no_more_wait_than_may() {
        let buffers = Buffers::new(PAGE as u64, 2 * PAGE as u64 + 1);
        let pages: Vec<_> = (0..5).map(|_| filled(&buffers, PAGE)).collect();
        drop(pages);
        assert_eq!(buffers.idle.buffers.lock().len(), 2);
    }

    #[test]
    fn a_page_of_another_length_takes_its_memory_with_it() {
        let buffers = Buffers::new(PAGE as u64, 2 * PAGE as u64);
        drop(filled(&buffers, PAGE - 1));
        drop(filled(&buffers, 0));
        assert!(buffers.idle.buffers.lock().is_empty());
        drop(filled(&Buffers::default(), 0));
    }

    #[test]
    fn what_is_read_beyond_the_wanted_is_refused() {
        let mut buffer = Buffers::default().take(5);
        buffer.rest().put_slice(&[1; 3]);
        assert_eq!(buffer.rest().remaining_mut(), 2);
    }
}
