//! Inode numbers, and the log that lets a successor know them.
//!
//! The kernel holds inode numbers for as long as it likes, also over the death of a daemon. So each
//! new number is appended to a log in memory shared with the supervisor, before the kernel hears of
//! it: a record {parent, version, length, name}, and the number is the record's place in the log.
//! Numbers are never used again, so how often the kernel looked one up does not matter and FORGET has
//! no work. A daemon that died in the middle of a record told nobody that number: the torn tail is
//! cut off.
//!
//! A tree may have millions of names, and each that was listed stays: an inode costs about 50 bytes
//! here beside its record in the log. Names lie one after the other in one piece of memory, and the
//! index holds numbers alone.
//!
//! Each version of a file is an inode of its own. The kernel keeps pages by inode, so this is what
//! keeps the pages of two versions apart while one is still open or mapped and the next is read. Only
//! where this mount itself writes a file, the inode goes along with the new version, since the kernel's
//! pages are of what was written; and where it renames one, with the new name. Such changes are records
//! too.

mod record;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use alluxio_wire::FileStatus;
use hashbrown::HashTable;
use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64;

use crate::protocol::ROOT_INODE;
use crate::sys;
use record::{CHANGED, MOVED, Record, parse};

/// 64 bits that stand for a version of a file; the same in every daemon. A directory has none: it
/// stays the same inode whatever is in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Fingerprint(u64);

/// Tells apart what is made within one tick of the clock.
static UNIQUE: AtomicU64 = AtomicU64::new(0);

/// All inodes that the kernel may know.
pub(crate) struct Inodes {
    table: RwLock<Table>,
}

struct Table {
    /// By number, beginning with the root.
    nodes: Vec<Node>,
    /// The names of all nodes.
    names: String,
    /// Places in `nodes`, by parent, name and version.
    index: HashTable<u32>,
    log: File,
    log_bytes: u64,
}

/// 24 bytes an inode.
struct Node {
    version: Fingerprint,
    /// Where in `names` the name begins.
    name_at: usize,
    name_bytes: u16,
    /// The parent's place in `nodes`.
    parent: u32,
}

impl Fingerprint {
    /// What a directory has in place of a version.
    pub(crate) const DIRECTORY: Self = Self(0);

    /// The fingerprint of a file's present version.
    pub(crate) fn of(status: &FileStatus) -> Self {
        if status.is_directory() {
            return Self::DIRECTORY;
        }
        Self(xxh3_64(status.version().as_str().as_bytes()).max(1))
    }

    /// The fingerprint of a version that was never anywhere else: of a file that is being made.
    pub(crate) fn unique() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanoseconds = now.map_or(0, |since| since.as_nanos());
        let count = UNIQUE.fetch_add(1, Ordering::Relaxed);
        Self(xxh3_64(format!("{nanoseconds} {count}").as_bytes()).max(1))
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
    /// Loads what all predecessors have written so far; one of them may still be writing.
    pub(crate) fn load(log: OwnedFd) -> io::Result<Self> {
        let mut table = Table {
            nodes: vec![Node {
                version: Fingerprint::DIRECTORY,
                name_at: 0,
                name_bytes: 0,
                parent: 0,
            }],
            names: String::new(),
            index: HashTable::new(),
            log: File::from(log),
            log_bytes: 0,
        };
        table.read_on()?;
        let table = RwLock::new(table);
        Ok(Self { table })
    }

    /// Loads the rest, once no predecessor writes any more, and goes on writing the log.
    pub(crate) fn take_over(&self) -> io::Result<()> {
        let mut table = self.table.write();
        let torn_bytes = table.read_on()?;
        if torn_bytes > 0 {
            tracing::info!(
                torn_bytes,
                "cut the last, unfinished record off the inode log"
            );
            table.log.set_len(table.log_bytes)?;
        }
        Ok(())
    }

    /// The number of an entry of a directory in one version, a new one where it has none yet.
    pub(crate) fn intern(&self, parent: u64, name: &str, version: Fingerprint) -> io::Result<u64> {
        let record = Record {
            parent,
            version,
            name,
        };
        if let Some(number) = self.table.read().find(&record) {
            return Ok(number);
        }
        let mut table = self.table.write();
        // Another thread may have been faster.
        if let Some(number) = table.find(&record) {
            return Ok(number);
        }
        if table.node(parent).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // The index holds 32 bits of a number, which is far above what memory holds.
        if u32::try_from(table.nodes.len()).is_err() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        table.append(&record)?;
        Ok(table.add(&record))
    }

    /// Notes that an inode has another version now, by a write of this mount.
    pub(crate) fn change(&self, number: u64, version: Fingerprint) -> io::Result<()> {
        self.note(&Record {
            parent: CHANGED,
            version,
            name: &number.to_string(),
        })
    }

    /// Notes that an inode has another place now, by a rename of this mount.
    pub(crate) fn rename(&self, number: u64, parent: u64, name: &str) -> io::Result<()> {
        self.note(&Record {
            parent: MOVED,
            version: Fingerprint(parent),
            name: &format!("{number}/{name}"),
        })
    }

    fn note(&self, record: &Record<'_>) -> io::Result<()> {
        let mut table = self.table.write();
        if !record.is_possible(table.nodes.len()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        table.append(record)?;
        table.apply(record);
        Ok(())
    }

    /// A directory's number and the name in it by which an inode is reached.
    pub(crate) fn place(&self, number: u64) -> Option<(u64, Arc<str>)> {
        let table = self.table.read();
        let node = table.node(number)?;
        Some((u64::from(node.parent) + ROOT_INODE, table.name(node).into()))
    }

    /// The youngest inode that has a name in a directory, in whichever version. Looks through all of
    /// them, so it is for rare questions.
    pub(crate) fn latest(&self, parent: u64, name: &str) -> Option<u64> {
        let table = self.table.read();
        let parent = u32::try_from(parent.checked_sub(ROOT_INODE)?).ok()?;
        let is_it = |node: &Node| node.parent == parent && table.name(node) == name;
        let place = table.nodes.iter().rposition(is_it)?;
        Some(place as u64 + ROOT_INODE)
    }

    /// The number of an entry in a version, if it has one.
    pub(crate) fn find(&self, parent: u64, name: &str, version: Fingerprint) -> Option<u64> {
        let record = Record {
            parent,
            version,
            name,
        };
        self.table.read().find(&record)
    }

    /// The path of an inode from the root, without a leading `/`.
    pub(crate) fn path(&self, number: u64) -> Option<String> {
        let table = self.table.read();
        let mut names = Vec::new();
        let mut at = number;
        while at != ROOT_INODE {
            let node = table.node(at)?;
            names.push(table.name(node));
            at = u64::from(node.parent) + ROOT_INODE;
        }
        names.reverse();
        Some(names.join("/"))
    }

    /// The number of a directory's parent; the root's is the root.
    pub(crate) fn parent(&self, number: u64) -> u64 {
        let table = self.table.read();
        let parent = table.node(number).map_or(0, |node| node.parent);
        u64::from(parent) + ROOT_INODE
    }

    /// Whether an inode is of this version.
    pub(crate) fn is_of_version(&self, number: u64, version: Fingerprint) -> bool {
        let table = self.table.read();
        table
            .node(number)
            .is_some_and(|node| node.version == version)
    }
}

impl Table {
    /// Takes in the whole records that were written since; how many bytes are behind them.
    fn read_on(&mut self) -> io::Result<usize> {
        let new_bytes = self.log.metadata()?.len().saturating_sub(self.log_bytes);
        let new_bytes =
            usize::try_from(new_bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut bytes = vec![0; new_bytes];
        self.log.read_exact_at(&mut bytes, self.log_bytes)?;
        let (records, whole_bytes) = parse(&bytes, self.nodes.len());
        for record in &records {
            self.apply(record);
        }
        self.log_bytes += whole_bytes as u64;
        Ok(bytes.len() - whole_bytes)
    }

    fn node(&self, number: u64) -> Option<&Node> {
        let index = usize::try_from(number.checked_sub(ROOT_INODE)?).ok()?;
        self.nodes.get(index)
    }

    fn name(&self, node: &Node) -> &str {
        let end = node.name_at + usize::from(node.name_bytes);
        &self.names[node.name_at..end]
    }

    /// Takes in a record that is possible.
    fn apply(&mut self, record: &Record<'_>) {
        match (record.parent, record.changed()) {
            (CHANGED, Some((number, _))) => self.relink(number, |node, _| {
                node.version = record.version;
            }),
            (MOVED, Some((number, name))) => self.relink(number, |node, names| {
                node.parent = place_of(record.version.0);
                node.name_at = names.len();
                node.name_bytes = u16::try_from(name.len()).unwrap_or(u16::MAX);
                names.push_str(name);
            }),
            _ => {
                self.add(record);
            }
        }
    }

    /// Changes a node, and the place in the index by which it is found. An older inode that was found
    /// by the same is not found any more.
    fn relink(&mut self, number: u64, change: impl FnOnce(&mut Node, &mut String)) {
        let place = place_of(number);
        let old = self.key(place).hash();
        if let Ok(found) = self.index.find_entry(old, |at| *at == place) {
            found.remove();
        }
        change(&mut self.nodes[place as usize], &mut self.names);
        let key = self.key(place);
        let (hash, twin) = (key.hash(), self.find(&key));
        if let Some(twin) = twin.map(place_of)
            && let Ok(found) = self.index.find_entry(hash, |at| *at == twin)
        {
            found.remove();
        }
        self.index_at(place);
    }

    /// By what a node is found.
    fn key(&self, place: u32) -> Record<'_> {
        key(&self.nodes, &self.names, place)
    }

    fn index_at(&mut self, place: u32) {
        let (nodes, names) = (&self.nodes, &self.names);
        let hash_of = |place: &u32| key(nodes, names, *place).hash();
        self.index.insert_unique(hash_of(&place), place, hash_of);
    }

    fn find(&self, record: &Record<'_>) -> Option<u64> {
        let is_it = |place: &u32| {
            let node = &self.nodes[*place as usize];
            u64::from(node.parent) + ROOT_INODE == record.parent
                && node.version == record.version
                && self.name(node) == record.name
        };
        let place = self.index.find(record.hash(), is_it)?;
        Some(u64::from(*place) + ROOT_INODE)
    }

    /// Takes in an inode; the log has checked that parent, name and number fit.
    fn add(&mut self, record: &Record<'_>) -> u64 {
        let place = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Node {
            version: record.version,
            name_at: self.names.len(),
            name_bytes: u16::try_from(record.name.len()).unwrap_or(u16::MAX),
            parent: place_of(record.parent),
        });
        self.names.push_str(record.name);
        self.index_at(place);
        u64::from(place) + ROOT_INODE
    }

    /// Writes a record in one call; a half-written one, where memory is short, is taken back.
    fn append(&mut self, record: &Record<'_>) -> io::Result<()> {
        let record = record.to_bytes()?;
        if let Err(error) = self.log.write_all(&record) {
            self.log.set_len(self.log_bytes)?;
            return Err(error);
        }
        self.log_bytes += record.len() as u64;
        Ok(())
    }
}

/// Where in the table an inode is that is known.
fn place_of(number: u64) -> u32 {
    u32::try_from(number - ROOT_INODE).unwrap_or(u32::MAX)
}

/// By what a node is found.
fn key<'a>(nodes: &[Node], names: &'a str, place: u32) -> Record<'a> {
    let node = &nodes[place as usize];
    let end = node.name_at + usize::from(node.name_bytes);
    Record {
        parent: u64::from(node.parent) + ROOT_INODE,
        version: node.version,
        name: &names[node.name_at..end],
    }
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
        let inodes = Inodes::load(log.try_clone().unwrap().into()).unwrap();
        inodes.take_over().unwrap();
        inodes
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

    const FOLDER: Fingerprint = Fingerprint::DIRECTORY;

    fn folder(parent: u64, name: &str) -> Vec<u8> {
        let record = Record {
            parent,
            version: FOLDER,
            name,
        };
        record.to_bytes().unwrap()
    }

    #[test]
    fn a_successor_gives_every_name_the_same_number() {
        let (inodes, log) = empty();
        let train = inodes.intern(ROOT_INODE, "train", FOLDER).unwrap();
        let image = inodes.intern(train, "ä 1.jpg", version("a")).unwrap();
        assert_eq!((train, image), (2, 3));
        assert_eq!(
            inodes.intern(train, "ä 1.jpg", version("a")).unwrap(),
            image
        );

        let successor = reload(&log);
        assert_eq!(successor.path(image).unwrap(), "train/ä 1.jpg");
        assert_eq!(successor.path(ROOT_INODE).unwrap(), "");
        assert_eq!(
            successor.intern(ROOT_INODE, "train", FOLDER).unwrap(),
            train
        );
        assert_eq!(
            successor.intern(train, "ä 1.jpg", version("a")).unwrap(),
            image
        );
        assert!(successor.is_of_version(image, version("a")));
        assert_eq!(successor.parent(image), train);
        assert_eq!(successor.intern(ROOT_INODE, "test", FOLDER).unwrap(), 4);
    }

    #[test]
    fn each_version_of_a_file_is_an_inode_of_its_own() {
        let (inodes, log) = empty();
        let intern = |hash| inodes.intern(ROOT_INODE, "f", version(hash)).unwrap();
        let (old, new) = (intern("a"), intern("b"));
        assert_ne!(old, new);
        assert_eq!((intern("a"), intern("b")), (old, new));
        assert_eq!(inodes.path(old), inodes.path(new));
        let successor = reload(&log);
        assert!(successor.is_of_version(old, version("a")));
        assert!(!successor.is_of_version(old, version("b")));
        assert!(!successor.is_of_version(99, version("a")));
    }

    #[test]
    fn a_torn_tail_is_cut_off_wherever_it_was_torn() {
        let whole = [folder(1, "a"), folder(2, "b")].concat();
        let torn = folder(1, "never told");
        for kept in 0..torn.len() {
            let (_, mut log) = empty();
            log.write_all(&whole).unwrap();
            log.write_all(&torn[..kept]).unwrap();
            let inodes = reload(&log);
            assert_eq!(log.metadata().unwrap().len(), whole.len() as u64);
            assert_eq!(inodes.intern(1, "next", FOLDER).unwrap(), 4);
            assert_eq!(reload(&log).path(4).unwrap(), "next");
        }
    }

    #[test]
    fn a_standby_catches_up_with_its_predecessor() {
        let (inodes, log) = empty();
        let train = inodes.intern(ROOT_INODE, "train", FOLDER).unwrap();
        let standby = Inodes::load(log.try_clone().unwrap().into()).unwrap();
        let image = inodes.intern(train, "1.jpg", version("a")).unwrap();
        assert_eq!(standby.path(image), None);
        standby.take_over().unwrap();
        assert_eq!(standby.path(image).unwrap(), "train/1.jpg");
        assert_eq!(standby.intern(train, "2.jpg", version("a")).unwrap(), 4);
        assert_eq!(reload(&log).path(4).unwrap(), "train/2.jpg");
    }

    #[test]
    fn an_inode_goes_along_with_what_this_mount_writes_and_renames() {
        let (inodes, log) = empty();
        let folder = inodes.intern(ROOT_INODE, "d", FOLDER).unwrap();
        let made = Fingerprint::unique();
        assert_ne!(made, Fingerprint::unique());
        let file = inodes.intern(ROOT_INODE, "new", made).unwrap();
        inodes.change(file, version("a")).unwrap();
        inodes.rename(file, folder, "f").unwrap();
        assert!(inodes.change(99, version("a")).is_err());
        assert!(inodes.rename(file, 99, "f").is_err());
        for inodes in [inodes, reload(&log)] {
            assert_eq!(inodes.path(file).unwrap(), "d/f");
            assert!(inodes.is_of_version(file, version("a")));
            assert_eq!(inodes.find(folder, "f", version("a")), Some(file));
            assert_eq!(inodes.latest(folder, "f"), Some(file));
            assert_eq!(inodes.latest(folder, "new"), None);
            assert_eq!(inodes.find(ROOT_INODE, "new", made), None);
            assert_eq!(inodes.find(ROOT_INODE, "new", version("a")), None);
            assert_eq!(inodes.intern(folder, "f", version("a")).unwrap(), file);
            // The old name is free for another file.
            let next = inodes.intern(ROOT_INODE, "new", version("a")).unwrap();
            assert_eq!(next, 4);
        }
    }

    #[test]
    fn unknown_numbers_have_no_path_and_no_children() {
        let (inodes, _log) = empty();
        assert_eq!(inodes.path(0), None);
        assert_eq!(inodes.path(99), None);
        assert!(inodes.intern(99, "x", FOLDER).is_err());
    }

    proptest! {
        #[test]
        fn any_log_loads_up_to_its_whole_records(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let (records, whole) = parse(&bytes, 1);
            let again: Vec<u8> = records
                .iter()
                .flat_map(|record| record.to_bytes().unwrap())
                .collect();
            prop_assert_eq!(&bytes[..whole], &again[..]);
        }
    }
}
