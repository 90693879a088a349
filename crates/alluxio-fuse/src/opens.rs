//! How often each inode is open, and its backing file in the kernel: memory that outlives daemons.
//!
//! The kernel refuses with EIO, in the application, to open one inode in two ways at a time: past
//! the daemon (passthrough) and through it. So whoever answers an OPEN must know what is open, also
//! right after its predecessor died. The table lies in a memfd that the supervisor keeps: one entry
//! an inode, by its number,
//!
//! | bytes | |
//! |---|---|
//! | 0–3 | openings that the kernel may hold, and in the highest bit whether they go past the daemon; counted up before OPEN is answered, down after RELEASE was |
//! | 4–7 | the number of its backing file, 0 for none; written by the supervisor alone |
//!
//! A death in between counts an opening too many and never one too few: such an inode stays in the
//! way it is read, which is slower at worst. The first entry, of no inode, has the outcome of the
//! trial whether files can be registered at all.
#![allow(
    unsafe_code,
    reason = "a mapping shared with another process has no safe form in the standard library"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// Inodes that have an entry. Memory is taken for those that were opened, so the number only bounds
/// the mapping (256 MiB of addresses); inodes beyond it are always read through the daemon.
const ENTRIES: u64 = 1 << 25;

const ENTRY_BYTES: u64 = 8;

/// Where in an entry the backing file's number is.
const BACKING_OFFSET: u64 = 4;

/// The table is searched for backing files in pieces of this size.
const SEARCH_BYTES: usize = 1 << 20;

/// The bit that tells openings past the daemon.
const PASSED: u32 = 1 << 31;

/// The table, mapped.
pub(crate) struct Opens {
    base: NonNull<u8>,
}

/// An inode's entry.
pub(crate) struct Entry<'a> {
    opens: &'a AtomicU32,
    backing_id: &'a AtomicU32,
}

// SAFETY: the mapping lives as long as the table, is not tied to a thread, and is reached by
// atomics alone.
unsafe impl Send for Opens {}
// SAFETY: as above.
unsafe impl Sync for Opens {}

/// Makes the memory of a new table.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let memory = File::from(sys::memfd(c"alluxio-opens")?);
    memory.set_len(ENTRIES * ENTRY_BYTES)?;
    let memory = OwnedFd::from(memory);
    sys::seal_size(memory.as_fd())?;
    Ok(memory)
}

/// The number of an inode's backing file in the table's memory, 0 for none.
pub(crate) fn backing_id(memory: &File, inode: u64) -> io::Result<u32> {
    let mut id = [0; 4];
    memory.read_exact_at(&mut id, backing_place(inode)?)?;
    Ok(u32::from_ne_bytes(id))
}

/// Writes the number of an inode's backing file.
pub(crate) fn set_backing_id(memory: &File, inode: u64, id: u32) -> io::Result<()> {
    memory.write_all_at(&id.to_ne_bytes(), backing_place(inode)?)
}

/// What a trial found, in the first entry: 0 before one.
pub(crate) fn outcome(memory: &File) -> io::Result<u32> {
    let mut outcome = [0; 4];
    memory.read_exact_at(&mut outcome, 0)?;
    Ok(u32::from_ne_bytes(outcome))
}

/// Notes what a trial found.
pub(crate) fn set_outcome(memory: &File, outcome: u32) -> io::Result<()> {
    memory.write_all_at(&outcome.to_ne_bytes(), 0)
}

fn backing_place(inode: u64) -> io::Result<u64> {
    if inode >= ENTRIES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(inode * ENTRY_BYTES + BACKING_OFFSET)
}

impl Opens {
    /// Maps a table; with it the inodes that have backing files.
    pub(crate) fn open(memory: BorrowedFd<'_>) -> io::Result<(Self, Vec<u64>)> {
        let file = File::from(memory.try_clone_to_owned()?);
        if file.metadata()?.len() != ENTRIES * ENTRY_BYTES {
            return Err(io::Error::other("the table of open files has another size"));
        }
        let backed = search(&file)?;
        let bytes = usize::try_from(ENTRIES * ENTRY_BYTES).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that is as large and
        // whose size is sealed.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                memory.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast());
        let base = base.ok_or_else(|| io::Error::other("mapping at address 0"))?;
        Ok((Self { base }, backed))
    }

    /// The entry of an inode, where it has one.
    pub(crate) fn entry(&self, inode: u64) -> Option<Entry<'_>> {
        let index = usize::try_from(inode).ok().filter(|_| inode < ENTRIES)?;
        // SAFETY: the entry lies inside of the mapping and is aligned; it lives as long as `self`.
        unsafe {
            let opens = self.base.cast::<u32>().add(index * 2);
            Some(Entry {
                opens: AtomicU32::from_ptr(opens.as_ptr()),
                backing_id: AtomicU32::from_ptr(opens.add(1).as_ptr()),
            })
        }
    }
}

impl Drop for Opens {
    fn drop(&mut self) {
        let bytes = usize::try_from(ENTRIES * ENTRY_BYTES).unwrap_or(usize::MAX);
        // SAFETY: base and length are those of the mapping, and no entry outlives the table.
        unsafe { libc::munmap(self.base.as_ptr().cast(), bytes) };
    }
}

impl Entry<'_> {
    /// Openings that the kernel may hold.
    pub(crate) fn opens(&self) -> u32 {
        self.opens.load(Ordering::Acquire) & !PASSED
    }

    /// Whether what is open goes past the daemon.
    pub(crate) fn is_passed(&self) -> bool {
        self.opens.load(Ordering::Acquire) & PASSED != 0
    }

    /// The backing file, if there is one.
    pub(crate) fn backing_id(&self) -> Option<u32> {
        Some(self.backing_id.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    /// Counts an opening, which is of the same way as others that are open.
    pub(crate) fn count(&self, is_passed: bool) {
        let way = if is_passed { PASSED } else { 0 };
        let more = |opens: u32| Some(((opens & !PASSED) + 1) | way);
        // The function always gives a value.
        let _before = self
            .opens
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
    }

    /// Counts an opening's end; how many are left. With the last one the way is open to choice.
    pub(crate) fn uncount(&self) -> u32 {
        let fewer = |opens: u32| match (opens & !PASSED).saturating_sub(1) {
            0 => Some(0),
            left => Some(left | opens & PASSED),
        };
        let before = self
            .opens
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
        let before = before.unwrap_or_else(|before| before) & !PASSED;
        before.saturating_sub(1)
    }
}

/// The inodes that have backing files. What was never touched takes no memory, and is stepped over.
fn search(file: &File) -> io::Result<Vec<u64>> {
    let mut backed = Vec::new();
    let mut piece = vec![0; SEARCH_BYTES];
    let mut at = 0;
    while let Some(data) = sys::seek_data(file.as_fd(), at)? {
        let start = data / ENTRY_BYTES * ENTRY_BYTES;
        let read = file.read_at(&mut piece, start)?;
        if read == 0 {
            break;
        }
        let (entries, _) = piece[..read].as_chunks::<8>();
        let with_id = entries.iter().zip(start / ENTRY_BYTES..);
        let with_id = with_id.filter(|(entry, _)| entry[4..] != [0; 4]);
        backed.extend(with_id.map(|(_, inode)| inode));
        at = start + read as u64;
    }
    Ok(backed)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    #[test]
    fn a_successor_finds_what_is_open_and_what_is_backed() {
        let memory = create().unwrap();
        let (opens, backed) = Opens::open(memory.as_fd()).unwrap();
        assert!(backed.is_empty());
        for inode in [2, 70_000, ENTRIES - 1] {
            opens.entry(inode).unwrap().count(inode == 70_000);
        }
        let supervisors = File::from(memory.try_clone().unwrap());
        set_backing_id(&supervisors, 70_000, 9).unwrap();
        set_backing_id(&supervisors, ENTRIES - 1, 7).unwrap();
        assert_eq!(opens.entry(70_000).unwrap().backing_id(), Some(9));
        drop(opens);

        let (opens, backed) = Opens::open(memory.as_fd()).unwrap();
        assert_eq!(backed, [70_000, ENTRIES - 1]);
        let entry = opens.entry(2).unwrap();
        assert_eq!(
            (entry.opens(), entry.is_passed(), entry.backing_id()),
            (1, false, None)
        );
        entry.count(false);
        assert_eq!(
            (entry.uncount(), entry.uncount(), entry.uncount()),
            (1, 0, 0)
        );
        let entry = opens.entry(70_000).unwrap();
        assert_eq!((entry.opens(), entry.is_passed()), (1, true));
        entry.count(true);
        assert_eq!((entry.uncount(), entry.is_passed()), (1, true));
        assert_eq!((entry.uncount(), entry.is_passed()), (0, false));
        assert_eq!(backing_id(&supervisors, 70_000).unwrap(), 9);
    }

    #[test]
    fn inodes_beyond_the_table_have_no_entry() {
        let memory = create().unwrap();
        let (opens, _) = Opens::open(memory.as_fd()).unwrap();
        assert!(opens.entry(ENTRIES).is_none() && opens.entry(u64::MAX).is_none());
        let supervisors = File::from(memory);
        assert!(set_backing_id(&supervisors, ENTRIES, 1).is_err());
        assert!(backing_id(&supervisors, u64::MAX).is_err());
    }

    #[test]
    fn a_table_of_another_size_is_refused() {
        let memory = sys::memfd(c"small").unwrap();
        assert!(Opens::open(memory.as_fd()).is_err());
    }
}
