//! Inode numbers, and the log that lets a successor know them.
//!
//! The kernel holds inode numbers for as long as it likes, also over the death of a daemon. So each
//! new number is appended to a log in memory shared with the supervisor, before the kernel hears of
//! it: a record {parent, length, name}, and the number is the record's place in the log. Numbers are
//! never used again, so how often the kernel looked one up does not matter and FORGET has no work.
//! A daemon that died in the middle of a record told nobody that number: the torn tail is cut off.
//!
//! Beside a name an inode has two fingerprints of versions, which only this daemon's memory holds:
//! of the attributes that the kernel was told, and of the file as it was last opened.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alluxio_wire::FileStatus;
use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64;

use crate::protocol::ROOT_INODE;
use crate::sys;

/// Bytes of a record before the name: the parent's number (8) and the name's length (2).
const RECORD_HEADER_BYTES: usize = 10;

/// The number of the first record; 1 is the root, which needs none.
const FIRST_LOGGED_INODE: u64 = ROOT_INODE + 1;

/// 64 bits that stand for a version of a file; the same in every daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fingerprint(u64);

/// All inodes that the kernel may know.
pub(crate) struct Inodes {
    table: RwLock<Table>,
}

struct Table {
    /// By number, beginning with the root.
    nodes: Vec<Node>,
    /// By parent and name.
    children: HashMap<u64, HashMap<Arc<str>, u64>>,
    log: File,
    log_bytes: u64,
}

struct Node {
    parent: u64,
    name: Arc<str>,
    /// Fingerprint of the attributes last told to the kernel, 0 where none.
    told: AtomicU64,
    /// Fingerprint of the file as last opened, 0 where none.
    opened: AtomicU64,
}

impl Fingerprint {
    /// The fingerprint of a file's present version.
    pub(crate) fn of(status: &FileStatus) -> Self {
        // 0 means "none" where fingerprints are kept.
        Self(xxh3_64(status.version().as_str().as_bytes()).max(1))
    }

    /// The bits.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

/// Makes the memory of a new log.
pub(crate) fn create_log() -> io::Result<OwnedFd> {
    let log = sys::memfd(c"alluxio-inodes")?;
    sys::set_append(std::os::fd::AsFd::as_fd(&log))?;
    Ok(log)
}

impl Inodes {
    /// Loads the log of all predecessors, and goes on writing it.
    pub(crate) fn load(log: OwnedFd) -> io::Result<Self> {
        let log = File::from(log);
        let held_bytes = usize::try_from(log.metadata()?.len())
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut bytes = vec![0; held_bytes];
        log.read_exact_at(&mut bytes, 0)?;
        let (records, whole_bytes) = parse(&bytes);
        if whole_bytes < bytes.len() {
            tracing::info!(
                torn_bytes = bytes.len() - whole_bytes,
                "cut the last, unfinished record off the inode log"
            );
            log.set_len(whole_bytes as u64)?;
        }
        let mut table = Table {
            nodes: vec![Node::new(ROOT_INODE, "".into())],
            children: HashMap::new(),
            log,
            log_bytes: whole_bytes as u64,
        };
        for (parent, name) in records {
            table.add(parent, name.into());
        }
        let table = RwLock::new(table);
        Ok(Self { table })
    }

    /// The number of an entry of a directory, a new one where it has none yet.
    pub(crate) fn intern(&self, parent: u64, name: &str) -> io::Result<u64> {
        if let Some(number) = self.table.read().find(parent, name) {
            return Ok(number);
        }
        let mut table = self.table.write();
        // Another thread may have been faster.
        if let Some(number) = table.find(parent, name) {
            return Ok(number);
        }
        if table.node(parent).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        table.append(parent, name)?;
        Ok(table.add(parent, name.into()))
    }

    /// The path of an inode from the root, without a leading `/`.
    pub(crate) fn path(&self, number: u64) -> Option<String> {
        let table = self.table.read();
        let mut names = Vec::new();
        let mut at = number;
        while at != ROOT_INODE {
            let node = table.node(at)?;
            names.push(&*node.name);
            at = node.parent;
        }
        names.reverse();
        Some(names.join("/"))
    }

    /// The number of a directory's parent; the root's is the root.
    pub(crate) fn parent(&self, number: u64) -> u64 {
        let table = self.table.read();
        table.node(number).map_or(ROOT_INODE, |node| node.parent)
    }

    /// Notes that the kernel is being told the attributes of this version.
    pub(crate) fn tell(&self, number: u64, version: Fingerprint) {
        if let Some(node) = self.table.read().node(number) {
            node.told.store(version.0, Ordering::Relaxed);
        }
    }

    /// Whether the attributes that the kernel has are those of this version.
    pub(crate) fn was_told(&self, number: u64, version: Fingerprint) -> bool {
        let table = self.table.read();
        let node = table.node(number);
        node.is_some_and(|node| node.told.load(Ordering::Relaxed) == version.0)
    }

    /// Notes that this version is opened; true where it is the one that was opened last.
    pub(crate) fn open(&self, number: u64, version: Fingerprint) -> bool {
        let table = self.table.read();
        let node = table.node(number);
        node.is_some_and(|node| node.opened.swap(version.0, Ordering::Relaxed) == version.0)
    }
}

impl Table {
    fn node(&self, number: u64) -> Option<&Node> {
        let index = usize::try_from(number.checked_sub(ROOT_INODE)?).ok()?;
        self.nodes.get(index)
    }

    fn find(&self, parent: u64, name: &str) -> Option<u64> {
        self.children.get(&parent)?.get(name).copied()
    }

    fn add(&mut self, parent: u64, name: Arc<str>) -> u64 {
        self.nodes.push(Node::new(parent, Arc::clone(&name)));
        let number = self.nodes.len() as u64;
        self.children
            .entry(parent)
            .or_default()
            .insert(name, number);
        number
    }

    /// Writes a record in one call; a half-written one, where memory is short, is taken back.
    fn append(&mut self, parent: u64, name: &str) -> io::Result<()> {
        let record = record(parent, name)?;
        if let Err(error) = self.log.write_all(&record) {
            self.log.set_len(self.log_bytes)?;
            return Err(error);
        }
        self.log_bytes += record.len() as u64;
        Ok(())
    }
}

impl Node {
    fn new(parent: u64, name: Arc<str>) -> Self {
        Self {
            parent,
            name,
            told: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        }
    }
}

fn record(parent: u64, name: &str) -> io::Result<Vec<u8>> {
    let length = u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
    let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + name.len());
    record.extend_from_slice(&parent.to_le_bytes());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(name.as_bytes());
    Ok(record)
}

/// The records of a log, and how many bytes of it are whole records.
fn parse(bytes: &[u8]) -> (Vec<(u64, &str)>, usize) {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some((parent, name, after)) = parse_record(rest) {
        // A parent was told before its child, so its record comes first.
        if !(ROOT_INODE..FIRST_LOGGED_INODE + records.len() as u64).contains(&parent) {
            break;
        }
        records.push((parent, name));
        rest = after;
    }
    (records, bytes.len() - rest.len())
}

fn parse_record(bytes: &[u8]) -> Option<(u64, &str, &[u8])> {
    let (parent, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let name = std::str::from_utf8(name).ok()?;
    (!name.is_empty()).then_some((u64::from_le_bytes(*parent), name, rest))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_wire::FileKind;
    use proptest::prelude::*;

    use super::*;

    fn empty() -> (Inodes, File) {
        let log = create_log().unwrap();
        let copy = File::from(log.try_clone().unwrap());
        (Inodes::load(log).unwrap(), copy)
    }

    fn reload(log: &File) -> Inodes {
        Inodes::load(log.try_clone().unwrap().into()).unwrap()
    }

    fn version(hash: &str) -> Fingerprint {
        Fingerprint::of(&FileStatus {
            kind: FileKind::File,
            name: String::new(),
            path: String::new(),
            ufs_uri: String::new(),
            modified_ms: 0,
            length: 0,
            content_hash: Some(hash.to_owned()),
        })
    }

    #[test]
    fn a_successor_gives_every_name_the_same_number() {
        let (inodes, log) = empty();
        let train = inodes.intern(ROOT_INODE, "train").unwrap();
        let image = inodes.intern(train, "ä 1.jpg").unwrap();
        assert_eq!((train, image), (2, 3));
        assert_eq!(inodes.intern(train, "ä 1.jpg").unwrap(), image);

        let successor = reload(&log);
        assert_eq!(successor.path(image).unwrap(), "train/ä 1.jpg");
        assert_eq!(successor.path(ROOT_INODE).unwrap(), "");
        assert_eq!(successor.intern(ROOT_INODE, "train").unwrap(), train);
        assert_eq!(successor.parent(image), train);
        assert_eq!(successor.intern(ROOT_INODE, "test").unwrap(), 4);
    }

    #[test]
    fn a_torn_tail_is_cut_off_wherever_it_was_torn() {
        let whole = [record(1, "a").unwrap(), record(2, "b").unwrap()].concat();
        let torn = record(1, "never told").unwrap();
        for kept in 0..torn.len() {
            let (_, mut log) = empty();
            log.write_all(&whole).unwrap();
            log.write_all(&torn[..kept]).unwrap();
            let inodes = reload(&log);
            assert_eq!(log.metadata().unwrap().len(), whole.len() as u64);
            assert_eq!(inodes.intern(1, "next").unwrap(), 4);
            assert_eq!(reload(&log).path(4).unwrap(), "next");
        }
    }

    #[test]
    fn unknown_numbers_have_no_path_and_no_children() {
        let (inodes, _log) = empty();
        assert_eq!(inodes.path(0), None);
        assert_eq!(inodes.path(99), None);
        assert!(inodes.intern(99, "x").is_err());
    }

    #[test]
    fn versions_are_told_and_opened_apart() {
        let (inodes, _log) = empty();
        let (old, new) = (version("a"), version("b"));
        let file = inodes.intern(ROOT_INODE, "f").unwrap();
        assert!(!inodes.was_told(file, old));
        inodes.tell(file, old);
        assert!(inodes.was_told(file, old) && !inodes.was_told(file, new));
        assert!(!inodes.open(file, old), "the first open knows of no pages");
        assert!(inodes.open(file, old));
        assert!(!inodes.open(file, new));
        assert!(inodes.open(file, new));
    }

    proptest! {
        #[test]
        fn any_log_loads_up_to_its_whole_records(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let (records, whole) = parse(&bytes);
            let again: Vec<u8> = records
                .iter()
                .flat_map(|(parent, name)| record(*parent, name).unwrap())
                .collect();
            prop_assert_eq!(&bytes[..whole], &again[..]);
        }
    }
}
