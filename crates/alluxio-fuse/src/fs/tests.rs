//! The operations over a tree in memory: no kernel, no client.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use alluxio_client::ErrorKind;
use parking_lot::Mutex;

use super::*;
use crate::inodes;
use crate::metrics::Metrics;
use crate::protocol::ROOT_INODE;
use crate::tree::Placement;

/// Paths with the content of files; directories are what lies above them.
#[derive(Default)]
struct MemoryTree(Arc<Mutex<BTreeMap<String, String>>>);

struct MemoryFile {
    status: FileStatus,
    content: String,
}

fn status_of(path: &str, content: Option<&str>) -> FileStatus {
    FileStatus {
        kind: content.map_or(FileKind::Directory, |_| FileKind::File),
        name: path.rsplit('/').next().unwrap().to_owned(),
        path: format!("/{path}"),
        ufs_uri: format!("s3://bucket/{path}"),
        modified_ms: 0,
        length: content.map_or(0, |content| content.len() as u64),
        content_hash: content.map(str::to_owned),
    }
}

fn not_found(path: &str) -> TreeError {
    TreeError {
        kind: ErrorKind::NotFound,
        message: format!("no file {path}"),
    }
}

impl Tree for MemoryTree {
    type File = MemoryFile;
    type Writer = crate::tree::NoWriter;

    async fn status(&self, path: &str) -> Result<Arc<FileStatus>, TreeError> {
        let files = self.0.lock();
        let below = format!("{path}/");
        let status = match files.get(path) {
            Some(content) => status_of(path, Some(content)),
            None if path.is_empty() || files.keys().any(|file| file.starts_with(&below)) => {
                status_of(path, None)
            }
            None => return Err(not_found(path)),
        };
        Ok(Arc::new(status))
    }

    async fn list(&self, path: &str) -> Result<Arc<Vec<FileStatus>>, TreeError> {
        let files = self.0.lock();
        let below = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let mut entries = BTreeMap::new();
        for (file, content) in files.iter() {
            if let Some(rest) = file.strip_prefix(&below) {
                let (name, is_file) = rest
                    .split_once('/')
                    .map_or((rest, true), |(d, _)| (d, false));
                let status = status_of(&format!("{below}{name}"), is_file.then_some(content));
                entries.insert(name.to_owned(), status);
            }
        }
        Ok(Arc::new(entries.into_values().collect()))
    }

    async fn open(&self, path: &str) -> Result<MemoryFile, TreeError> {
        let files = self.0.lock();
        let content = files.get(path).ok_or_else(|| not_found(path))?;
        Ok(MemoryFile {
            status: status_of(path, Some(content)),
            content: content.clone(),
        })
    }

    async fn placement(&self, _path: &str, _status: &FileStatus) -> Placement {
        Placement {
            cached_percent: 50.0,
            worker: None,
        }
    }

    fn metadata_ttl(&self) -> Duration {
        Duration::from_mins(1)
    }
}

impl TreeFile for MemoryFile {
    fn status(&self) -> &FileStatus {
        &self.status
    }

    async fn read_at(&self, offset: u64, length: u32) -> Result<Vec<Bytes>, TreeError> {
        let start = usize::try_from(offset).unwrap().min(self.content.len());
        let end = (start + length as usize).min(self.content.len());
        Ok(vec![Bytes::copy_from_slice(
            &self.content.as_bytes()[start..end],
        )])
    }
}

/// A mount's file system and what can be changed behind its back.
struct Mounted {
    fs: FileSystem<MemoryTree>,
    files: Arc<Mutex<BTreeMap<String, String>>>,
    log: std::os::fd::OwnedFd,
}

fn mounted(files: &[(&str, &str)]) -> Mounted {
    let files = files
        .iter()
        .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
        .collect();
    let files = Arc::new(Mutex::new(files));
    let log = inodes::create_log().unwrap();
    Mounted {
        fs: file_system(&files, &log),
        files,
        log,
    }
}

fn file_system(
    files: &Arc<Mutex<BTreeMap<String, String>>>,
    log: &std::os::fd::OwnedFd,
) -> FileSystem<MemoryTree> {
    let inodes = Inodes::load(log.try_clone().unwrap()).unwrap();
    FileSystem::new(
        MemoryTree(Arc::clone(files)),
        inodes,
        Ways::without_broker(),
        MountOptions::default(),
        true,
        Metrics::new(0).unwrap().writing(),
    )
    .unwrap()
}

impl Mounted {
    /// The answer to an operation. The tree never waits, so neither may the file system.
    fn ask(&self, inode: u64, operation: Operation) -> Result<Reply, Errno> {
        let request = Request {
            unique: 1,
            inode,
            operation,
        };
        let answer = pin!(self.fs.serve(request, Origin::Kernel, false));
        match answer.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("waits although all is in memory"),
        }
    }

    fn body(&self, inode: u64, operation: Operation) -> Vec<u8> {
        match self.ask(inode, operation).unwrap() {
            Reply::Bytes(bytes) | Reply::Opened { body: bytes, .. } => bytes,
            Reply::Chunks(chunks) => chunks.concat(),
        }
    }

    fn lookup(&self, parent: u64, name: &str) -> u64 {
        let name = name.as_bytes().to_vec();
        u64_at(&self.body(parent, Operation::Lookup { name }), 0)
    }

    /// Opens a file: its handle.
    fn open(&self, inode: u64) -> Result<u64, Errno> {
        let reply = self.ask(inode, Operation::Open { flags: 0 })?;
        let Reply::Opened { handle, body } = reply else {
            panic!("no structure");
        };
        assert_eq!(u64_at(&body, 0), handle);
        assert_eq!(body[8] & 2, 2, "pages are kept");
        Ok(handle)
    }

    /// The size that the kernel is told of an inode.
    fn size(&self, inode: u64) -> Result<u64, Errno> {
        match self.ask(inode, Operation::Getattr)? {
            Reply::Bytes(bytes) => Ok(u64_at(&bytes, 16 + 8)),
            _ => panic!("no structure"),
        }
    }

    fn read(&self, inode: u64, handle: u64) -> Result<String, Errno> {
        let all = range(handle, 0, 4096);
        self.ask(inode, Operation::Read(all))
            .map(|reply| match reply {
                Reply::Chunks(chunks) => String::from_utf8(chunks.concat()).unwrap(),
                _ => panic!("no content"),
            })
    }

    fn write(&self, path: &str, content: &str) {
        self.files
            .lock()
            .insert(path.to_owned(), content.to_owned());
    }

    /// The daemon dies, and another takes over.
    fn take_over(&mut self) {
        self.fs = file_system(&self.files, &self.log);
    }

    /// Names of a directory, read `size` bytes at a time.
    fn names(&self, inode: u64, handle: u64, size: u32) -> Vec<String> {
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let bytes = self.body(inode, Operation::Readdir(range(handle, offset, size)));
            if bytes.is_empty() {
                return names;
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                offset = u64_at(rest, 8);
                let length = u32::from_ne_bytes(rest[16..20].try_into().unwrap()) as usize;
                names.push(String::from_utf8(rest[24..24 + length].to_vec()).unwrap());
                rest = &rest[(24 + length).next_multiple_of(8)..];
            }
        }
    }
}

fn range(handle: u64, offset: u64, size: u32) -> Range {
    Range {
        handle,
        offset,
        size,
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn a_path_is_walked_to_its_bytes() {
    let mount = mounted(&[("train/a", "alpha"), ("train/b", "beta")]);
    let train = mount.lookup(ROOT_INODE, "train");
    let file = mount.lookup(train, "b");
    let handle = mount.open(file).unwrap();
    assert_eq!(mount.read(file, handle).unwrap(), "beta");
}

#[test]
fn what_is_missing_is_remembered_as_missing() {
    let mount = mounted(&[("a", "")]);
    for name in ["b", "..", "a/b"] {
        assert_eq!(mount.lookup(ROOT_INODE, name), 0, "{name}");
    }
    let not_text = vec![0xff, 0xfe];
    let answer = mount.body(ROOT_INODE, Operation::Lookup { name: not_text });
    assert_eq!(u64_at(&answer, 0), 0);
    assert_eq!(
        u64_at(&answer, 16),
        1,
        "seconds that the kernel remembers it"
    );
}

#[test]
fn two_versions_are_two_inodes_and_the_old_one_stays_readable() {
    let mount = mounted(&[("f", "one")]);
    let old = mount.lookup(ROOT_INODE, "f");
    let reader = mount.open(old).unwrap();
    mount.write("f", "two and longer");
    assert_eq!(
        mount.open(old),
        Err(libc::ESTALE),
        "the kernel looks it up again"
    );
    let new = mount.lookup(ROOT_INODE, "f");
    assert_ne!(new, old);
    let second = mount.open(new).unwrap();
    assert_eq!(mount.read(new, second).unwrap(), "two and longer");
    assert_eq!(mount.read(old, reader).unwrap(), "one");
    assert_eq!((mount.size(old), mount.size(new)), (Ok(3), Ok(14)));
    let handle = reader;
    mount.ask(old, Operation::Release { handle }).unwrap();
    assert_eq!(mount.size(old), Err(libc::ESTALE), "nobody has it any more");
}

#[test]
fn a_successor_goes_on_with_inodes_and_handles() {
    let mut mount = mounted(&[("d/f", "content")]);
    let folder = mount.lookup(ROOT_INODE, "d");
    let file = mount.lookup(folder, "f");
    let handle = mount.open(file).unwrap();
    mount.take_over();
    assert_eq!(mount.read(file, handle).unwrap(), "content");
    assert_eq!(mount.lookup(folder, "f"), file);
    mount.open(file).unwrap();
}

#[test]
fn a_successor_never_mixes_two_versions_in_one_handle() {
    let mut mount = mounted(&[("f", "old")]);
    let file = mount.lookup(ROOT_INODE, "f");
    let handle = mount.open(file).unwrap();
    mount.write("f", "new");
    mount.take_over();
    assert_eq!(mount.read(file, handle), Err(libc::ESTALE));
}

#[test]
fn a_listing_is_fixed_when_it_is_opened() {
    let mount = mounted(&[("a", ""), ("b", ""), ("d/x", "")]);
    let handle = u64_at(&mount.body(ROOT_INODE, Operation::Opendir), 0);
    mount.write("0", "new");
    // 40 bytes hold one entry, so every entry is asked for by its place.
    assert_eq!(
        mount.names(ROOT_INODE, handle, 40),
        [".", "..", "a", "b", "d"]
    );
    let handle = u64_at(&mount.body(ROOT_INODE, Operation::Opendir), 0);
    assert_eq!(
        mount.names(ROOT_INODE, handle, 4096),
        [".", "..", "0", "a", "b", "d"]
    );
}

#[test]
fn a_directory_that_a_predecessor_opened_is_listed_again() {
    let mut mount = mounted(&[("a", ""), ("b", "")]);
    let handle = u64_at(&mount.body(ROOT_INODE, Operation::Opendir), 0);
    mount.take_over();
    assert_eq!(mount.names(ROOT_INODE, handle, 40), [".", "..", "a", "b"]);
}

#[test]
fn a_plus_listing_saves_the_lookups() {
    let mount = mounted(&[("a", "12345")]);
    let handle = u64_at(&mount.body(ROOT_INODE, Operation::Opendir), 0);
    let plus = Operation::Readdirplus(range(handle, DOTS, 4096));
    let entry = mount.body(ROOT_INODE, plus);
    let file = mount.lookup(ROOT_INODE, "a");
    assert_eq!(u64_at(&entry, 0), file);
    assert_eq!(u64_at(&entry, 40 + 8), 5, "size");
    mount.open(file).unwrap();
}

#[test]
fn changes_are_refused_as_on_a_read_only_disk() {
    let mount = mounted(&[("a", "")]);
    let file = mount.lookup(ROOT_INODE, "a");
    let write = libc::O_RDWR as u32;
    let refused = [
        Operation::Change(protocol::Change::Other),
        Operation::Open { flags: write },
    ];
    for operation in refused {
        assert_eq!(mount.ask(file, operation), Err(libc::EROFS));
    }
    for operation in [Operation::Flush, Operation::Unsupported { opcode: 52 }] {
        assert_eq!(mount.ask(file, operation), Err(libc::ENOSYS));
    }
}

#[test]
fn attributes_of_others_are_not_there() {
    let mount = mounted(&[("a", "x")]);
    let file = mount.lookup(ROOT_INODE, "a");
    let ask = |name: &[u8], size| {
        let name = name.to_vec();
        mount.ask(file, Operation::Getxattr { name, size })
    };
    assert_eq!(ask(b"security.capability", 100), Err(libc::ENODATA));
    assert_eq!(ask(b"user.alluxio.worker", 100), Err(libc::ENODATA));
    assert_eq!(ask(b"user.alluxio.cached", 100), Ok(b"50".to_vec().into()));
    assert_eq!(ask(b"user.alluxio.cached", 1), Err(libc::ERANGE));
    let name = b"user.alluxio.cached".to_vec();
    let of_root = mount.ask(ROOT_INODE, Operation::Getxattr { name, size: 9 });
    assert_eq!(of_root, Err(libc::ENODATA));
}

#[test]
fn an_inode_that_was_never_given_is_stale() {
    let mount = mounted(&[]);
    assert_eq!(mount.ask(99, Operation::Getattr), Err(libc::ESTALE));
    assert_eq!(mount.ask(99, Operation::Opendir), Err(libc::ESTALE));
}
