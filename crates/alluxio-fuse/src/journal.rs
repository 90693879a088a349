//! The in-flight journal: every request that was taken from the kernel and not yet answered.
//!
//! A daemon may die at any instruction, and no application may notice. So a request is read straight
//! into a slot of memory that the supervisor holds too (a memfd), and the slot is emptied only after
//! the answer was written. Whoever takes over finds what was left in the slots and answers it.
//!
//! Layout: a page of notes and a page of blame, a word per slot each, then slots of a size that the
//! mount chooses: 8,192 bytes, or more where a WRITE must fit.
//! The answer to a change is kept in its slot before it is sent, for a change must not be done twice.
//! A slot begins with a request's header, whose first word is its length, so:
//!
//! 1. the reader writes 0 there,
//! 2. reads a request into the slot,
//! 3. serves and answers it,
//! 4. writes 0 again.
//!
//! A length other than 0 means "perhaps not answered". An answer given twice is
//! refused by the kernel with ENOENT, which harms nobody.
//!
//! A request that makes the daemon die would do so for ever: its slot counts the daemons that ended
//! with it in hand, and after a few it is answered with EIO. Daemons that somebody killed count
//! little, for whoever kills them at random hits the same innocent requests again and again.
#![allow(
    unsafe_code,
    reason = "a mapping shared with another process has no safe form in the standard library"
)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::sys;

/// Slots of a mount: requests served at one time. It equals the kernel's own limit of background
/// requests, so read-ahead alone can fill it; with READs of 1 MiB it bounds the answers being
/// written to 64 MiB.
const SLOTS: u32 = 64;

/// A page of words is 4,096 bytes, so a journal never has more slots than this.
const MAX_SLOTS: u32 = 1024;

/// What a request is blamed with when a daemon ended by itself while it was in hand.
const BLAME_OF_CRASH: u32 = 20;

/// The same where somebody killed the daemon. Not nothing: the kernel kills what eats the memory.
const BLAME_OF_KILL: u32 = 1;

/// With more blame than this, a request is taken for the cause: after more than five crashes. Small,
/// because readers wait for each attempt; more than one, because most requests are innocent.
const MAX_BLAME: u32 = 5 * BLAME_OF_CRASH;

const PAGE_BYTES: usize = 4096;

/// In a slot's note: the opening is counted.
const COUNTED: u32 = 1;

/// In a slot's note: above these bits is the length of an answer that is kept.
const ANSWER_SHIFT: u32 = 1;

/// Where in a slot an answer is kept: behind the first word, which tells that the slot is in use.
const ANSWER_AT: usize = 64;

/// No request is larger than 1 MiB and its headers.
const MAX_SLOT_PAGES: usize = 257;

/// Where the slots begin: after the pages of notes and of blame.
const SLOTS_OFFSET: usize = 2 * PAGE_BYTES;

/// The shared memory and which slots of it are free.
pub(crate) struct Journal {
    base: NonNull<u8>,
    size: Size,
    free: Mutex<Vec<u32>>,
    freed: Condvar,
}

/// How many slots there are, and how large each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    /// How many.
    pub(crate) slots: u32,
    /// Bytes of each: whole pages.
    pub(crate) slot_bytes: u32,
}

impl Size {
    /// The journal of a mount whose requests have up to so many bytes.
    pub(crate) fn for_requests(slot_bytes: u32) -> Self {
        Self {
            slots: SLOTS,
            slot_bytes,
        }
    }

    fn is_possible(self) -> bool {
        let pages = self.slot_bytes as usize / PAGE_BYTES;
        (1..=MAX_SLOTS).contains(&self.slots)
            && (2..=MAX_SLOT_PAGES).contains(&pages)
            && self.slot_bytes as usize == pages * PAGE_BYTES
    }

    fn mapping_bytes(self) -> usize {
        SLOTS_OFFSET + self.slots as usize * self.slot_bytes as usize
    }
}

/// One slot, held by whoever serves its request.
///
/// Dropping it without [`Slot::answered`] leaves the request in the journal, for a successor.
pub(crate) struct Slot {
    journal: Arc<Journal>,
    index: u32,
}

// SAFETY: the mapping lives as long as the journal, is not tied to a thread, and each slot's memory
// is reached only through the one `Slot` that holds its index; counts are atomics.
unsafe impl Send for Journal {}
// SAFETY: as above; what is shared is behind a mutex or atomic.
unsafe impl Sync for Journal {}

/// Makes the memory of a new journal.
pub(crate) fn create(size: Size) -> io::Result<OwnedFd> {
    let memory = sys::memfd(c"alluxio-in-flight")?;
    let memory = File::from(memory);
    memory.set_len(size.mapping_bytes() as u64)?;
    let memory = OwnedFd::from(memory);
    sys::seal_size(std::os::fd::AsFd::as_fd(&memory))?;
    Ok(memory)
}

impl Journal {
    /// Maps a journal, and gives the slots that a predecessor left behind.
    pub(crate) fn open(memory: BorrowedFd<'_>, size: Size) -> io::Result<(Arc<Self>, Vec<Slot>)> {
        if !size.is_possible() {
            return Err(io::Error::other(format!("journal with {size:?}")));
        }
        let journal = Arc::new(Self {
            base: map(memory, size.mapping_bytes())?,
            size,
            free: Mutex::new(Vec::new()),
            freed: Condvar::new(),
        });
        let (left, free) = (0..size.slots).partition(|&index| journal.length(index) != 0);
        *journal.free.lock() = free;
        let left: Vec<u32> = left;
        let left = left.into_iter().map(|index| Slot {
            journal: Arc::clone(&journal),
            index,
        });
        let left = left.collect();
        Ok((journal, left))
    }

    /// A free slot; waits while there is none, which leaves further requests with the kernel.
    pub(crate) fn take(self: &Arc<Self>) -> Slot {
        let mut free = self.free.lock();
        loop {
            if let Some(index) = free.pop() {
                let journal = Arc::clone(self);
                return Slot { journal, index };
            }
            self.freed.wait(&mut free);
        }
    }

    /// Waits until nothing is under way; false when the time is over first.
    pub(crate) fn wait_idle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut free = self.free.lock();
        while free.len() < self.size.slots as usize {
            if self.freed.wait_until(&mut free, deadline).timed_out() {
                return free.len() == self.size.slots as usize;
            }
        }
        true
    }

    /// How many requests were taken and not yet answered.
    pub(crate) fn in_flight(&self) -> usize {
        let indexes = 0..self.size.slots;
        indexes.filter(|index| self.length(*index) != 0).count()
    }

    fn slot(&self, index: u32) -> NonNull<u8> {
        debug_assert!(index < self.size.slots, "slot {index} of {:?}", self.size);
        // SAFETY: an index is below `slots`, so the slot lies inside of the mapping.
        unsafe {
            self.base
                .add(SLOTS_OFFSET + index as usize * self.size.slot_bytes as usize)
        }
    }

    /// The length word of a slot.
    fn length_word(&self, index: u32) -> &AtomicU32 {
        // SAFETY: a slot begins at a page, so the word is aligned; it lives as long as `self`.
        unsafe { AtomicU32::from_ptr(self.slot(index).as_ptr().cast()) }
    }

    fn length(&self, index: u32) -> u32 {
        self.length_word(index).load(Ordering::Acquire)
    }

    /// What a slot's request is blamed with.
    fn blame(&self, index: u32) -> &AtomicU32 {
        self.word(1, index)
    }

    /// What is noted of a slot's request: whether the opening that it asks for is in the table of open
    /// files, and how long its answer is where that is kept.
    fn counted(&self, index: u32) -> &AtomicU32 {
        self.word(0, index)
    }

    /// A slot's word in one of the first pages.
    fn word(&self, page: usize, index: u32) -> &AtomicU32 {
        debug_assert!(index < self.size.slots, "slot {index} of {:?}", self.size);
        // SAFETY: both pages have room for MAX_SLOTS words, and are aligned.
        unsafe {
            let words = self.base.add(page * PAGE_BYTES).cast::<u32>().as_ptr();
            AtomicU32::from_ptr(words.add(index as usize))
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping, and no slot outlives the journal.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size.mapping_bytes()) };
    }
}

impl Slot {
    /// Reads the next request of the kernel into the slot.
    ///
    /// The kernel takes a request off its queue before it copies it out; a page that is not there
    /// while a fatal signal is pending would lose the request. Writing to every page brings them in.
    pub(crate) fn receive(&mut self, mut device: &File) -> io::Result<()> {
        self.journal
            .length_word(self.index)
            .store(0, Ordering::SeqCst);
        self.journal.counted(self.index).store(0, Ordering::SeqCst);
        let buffer = self.buffer();
        for page in buffer.chunks_mut(PAGE_BYTES).skip(1) {
            page[0] = 0;
        }
        device.read(buffer).map(drop)
    }

    /// The memory that holds the request; what follows the request is left from earlier ones.
    pub(crate) fn request(&self) -> &[u8] {
        // SAFETY: as in `buffer`, for reading.
        unsafe {
            std::slice::from_raw_parts(
                self.journal.slot(self.index).as_ptr(),
                self.journal.size.slot_bytes as usize,
            )
        }
    }

    /// Blames the request with the end of one more daemon that had it in hand; whether it is now
    /// taken for the cause.
    pub(crate) fn blame(&self, was_daemon_killed: bool) -> bool {
        let more = if was_daemon_killed {
            BLAME_OF_KILL
        } else {
            BLAME_OF_CRASH
        };
        let blame = self.journal.blame(self.index);
        blame.fetch_add(more, Ordering::Relaxed) + more > MAX_BLAME
    }

    /// Notes that the opening which the request asks for is counted: a successor must not count it
    /// again.
    pub(crate) fn set_counted(&self) {
        self.journal
            .counted(self.index)
            .store(COUNTED, Ordering::SeqCst);
    }

    /// Keeps the answer to a change in place of the request. Whoever finds it sends it and does nothing
    /// else: when it was sent before, the application has gone on, and what was right then would undo
    /// what it did since.
    pub(crate) fn keep_answer(&mut self, answer: &[u8]) {
        let Ok(length) = u32::try_from(answer.len()) else {
            return;
        };
        let Some(room) = self.buffer().get_mut(ANSWER_AT..ANSWER_AT + answer.len()) else {
            return;
        };
        room.copy_from_slice(answer);
        let note = self.journal.counted(self.index);
        note.fetch_or(length << ANSWER_SHIFT, Ordering::SeqCst);
    }

    /// The answer that a predecessor kept.
    pub(crate) fn kept_answer(&self) -> Option<&[u8]> {
        let note = self.journal.counted(self.index).load(Ordering::SeqCst);
        match (note >> ANSWER_SHIFT) as usize {
            0 => None,
            length => self.request().get(ANSWER_AT..ANSWER_AT + length),
        }
    }

    /// Whether a predecessor counted the opening that the request asks for.
    pub(crate) fn is_counted(&self) -> bool {
        self.journal.counted(self.index).load(Ordering::SeqCst) & COUNTED != 0
    }

    /// The request has its answer: empties the slot and gives it back.
    pub(crate) fn answered(self) {
        let Self { journal, index } = &self;
        journal.blame(*index).store(0, Ordering::Relaxed);
        journal.length_word(*index).store(0, Ordering::Release);
        journal.free.lock().push(*index);
        journal.freed.notify_one();
    }

    /// Gives back a slot into which nothing was received.
    pub(crate) fn unused(self) {
        self.answered();
    }

    fn buffer(&mut self) -> &mut [u8] {
        // SAFETY: the slot lies inside of the mapping, this `Slot` is the only one with its index,
        // and the supervisor, which maps nothing, never looks inside.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.journal.slot(self.index).as_ptr(),
                self.journal.size.slot_bytes as usize,
            )
        }
    }
}

/// Maps shared memory with all of its pages present.
fn map(memory: BorrowedFd<'_>, bytes: usize) -> io::Result<NonNull<u8>> {
    let held_bytes = File::from(memory.try_clone_to_owned()?).metadata()?.len();
    if held_bytes < bytes as u64 {
        return Err(io::Error::other(format!(
            "journal has {held_bytes} bytes where {bytes} are needed"
        )));
    }
    // SAFETY: a new mapping at an address of the kernel's choice, of a file that is large enough
    // and whose size is sealed.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            memory.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapping at address 0"))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    const SIZE: Size = Size {
        slots: SLOTS,
        slot_bytes: 8192,
    };

    /// A daemon's view of the journal, fed from a plain file in place of the kernel.
    fn receive(slot: &mut Slot, request: &[u8]) {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(request).unwrap();
        io::Seek::rewind(&mut source).unwrap();
        slot.receive(&source).unwrap();
    }

    fn request(tag: u8) -> Vec<u8> {
        let mut bytes = vec![tag; 48];
        bytes[..4].copy_from_slice(&48u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_successor_finds_what_was_not_answered() {
        let memory = create(SIZE).unwrap();
        let (journal, left) = Journal::open(memory.as_fd(), SIZE).unwrap();
        assert!(left.is_empty());
        let mut answered = journal.take();
        receive(&mut answered, &request(1));
        answered.answered();
        let mut dropped = journal.take();
        receive(&mut dropped, &request(2));
        drop((dropped, journal));

        let (journal, left) = Journal::open(memory.as_fd(), SIZE).unwrap();
        assert_eq!((left.len(), journal.in_flight()), (1, 1));
        assert_eq!(&left[0].request()[..48], request(2));
    }

    #[test]
    fn a_successor_learns_what_was_counted_and_the_next_request_begins_anew() {
        let memory = create(SIZE).unwrap();
        let (journal, _) = Journal::open(memory.as_fd(), Size { slots: 1, ..SIZE }).unwrap();
        let mut slot = journal.take();
        receive(&mut slot, &request(1));
        assert!(!slot.is_counted());
        slot.set_counted();
        drop((slot, journal));
        let (journal, mut left) = Journal::open(memory.as_fd(), Size { slots: 1, ..SIZE }).unwrap();
        let slot = left.pop().unwrap();
        assert!(slot.is_counted());
        slot.answered();
        let mut next = journal.take();
        receive(&mut next, &request(2));
        assert!(!next.is_counted());
    }

    #[test]
    fn a_successor_finds_the_answer_to_a_change_and_not_the_change() {
        let memory = create(SIZE).unwrap();
        let (journal, _) = Journal::open(memory.as_fd(), SIZE).unwrap();
        let mut slot = journal.take();
        receive(&mut slot, &request(1));
        assert_eq!(slot.kept_answer(), None);
        slot.keep_answer(b"done");
        drop((slot, journal));
        let (journal, mut left) = Journal::open(memory.as_fd(), SIZE).unwrap();
        let slot = left.pop().unwrap();
        assert_eq!(slot.kept_answer(), Some(&b"done"[..]));
        assert!(!slot.is_counted());
        slot.answered();
        let mut next = journal.take();
        receive(&mut next, &request(2));
        assert_eq!(next.kept_answer(), None);
    }

    #[test]
    fn blame_grows_over_daemons_and_ends_with_the_answer() {
        let memory = create(SIZE).unwrap();
        let (journal, _) = Journal::open(memory.as_fd(), SIZE).unwrap();
        receive(&mut journal.take(), &request(1));
        for _ in 0..5 {
            let (_journal, left) = Journal::open(memory.as_fd(), SIZE).unwrap();
            assert!(!left[0].blame(false));
        }
        let (_journal, mut left) = Journal::open(memory.as_fd(), SIZE).unwrap();
        let slot = left.pop().unwrap();
        assert!(slot.blame(true), "the sixth daemon");
        let index = slot.index;
        slot.answered();
        let (journal, left) = Journal::open(memory.as_fd(), SIZE).unwrap();
        assert!(left.is_empty());
        assert_eq!(journal.blame(index).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_kills_daemons_at_random_does_not_make_requests_fail() {
        let memory = create(SIZE).unwrap();
        let (journal, _) = Journal::open(memory.as_fd(), SIZE).unwrap();
        let mut slot = journal.take();
        receive(&mut slot, &request(1));
        assert!((0..100).all(|_| !slot.blame(true)));
        assert!(slot.blame(true), "what eats the memory is given up too");
    }

    #[test]
    fn a_reader_waits_for_a_slot_and_gets_the_one_given_back() {
        let memory = create(SIZE).unwrap();
        let two = Size { slots: 2, ..SIZE };
        let (journal, _) = Journal::open(memory.as_fd(), two).unwrap();
        let (first, _second) = (journal.take(), journal.take());
        let index = first.index;
        let waiter = std::thread::spawn({
            let journal = Arc::clone(&journal);
            move || journal.take().index
        });
        first.answered();
        assert_eq!(waiter.join().unwrap(), index);
    }

    #[test]
    fn a_journal_is_idle_once_all_slots_are_back() {
        let memory = create(SIZE).unwrap();
        let two = Size { slots: 2, ..SIZE };
        let (journal, _) = Journal::open(memory.as_fd(), two).unwrap();
        let (first, second) = (journal.take(), journal.take());
        second.unused();
        assert!(!journal.wait_idle(Duration::ZERO));
        let waiter = std::thread::spawn({
            let journal = Arc::clone(&journal);
            move || journal.wait_idle(Duration::from_mins(1))
        });
        first.answered();
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn a_journal_that_is_too_small_is_refused() {
        let memory = sys::memfd(c"small").unwrap();
        assert!(Journal::open(memory.as_fd(), SIZE).is_err());
        let memory = create(SIZE).unwrap();
        for (slots, slot_bytes) in [(0, 8192), (SLOTS + 1, 8192), (1, 4096), (1, 8193)] {
            let size = Size { slots, slot_bytes };
            assert!(Journal::open(memory.as_fd(), size).is_err(), "{size:?}");
        }
    }
}
