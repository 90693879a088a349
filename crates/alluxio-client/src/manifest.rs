//! A manifest: a listing of a dataset in one file, with sizes, versions and times.
//!
//! A load or `alluxio-dataset manifest create` takes it once; a mount that has it answers lookups
//! and listings from memory, with neither LIST nor HEAD, and can pin every file to the version that
//! the manifest names. The file is kept in memory as it is (some 35 bytes a file) and checked when
//! it is opened, first by its checksum, then entry by entry, so that no later read can fail.
//!
//! [`ManifestBuilder`] writes it, [`Manifest`] reads it, [`take`] makes one from a listing, and
//! [`diff`] tells two of them apart.

mod build;
mod diff;
mod format;
mod sort;
mod take;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use alluxio_wire::{FileKind, FileStatus, UfsUri};
use xxhash_rust::xxh3::xxh3_128;

pub use self::build::ManifestBuilder;
pub use self::diff::{Change, diff};
pub use self::take::take;

use self::build::split_path;
use self::format::{Block, CHECKSUM_AT, Entry, FOOTER_BYTES, Footer, Header, Malformed};
use self::format::{END_MAGIC, RESTART_INTERVAL};
use crate::error::{Error, ErrorKind, Result};

/// A manifest, open.
pub struct Manifest {
    bytes: Vec<u8>,
    header: Header,
    footer: Footer,
}

/// What a manifest tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSummary {
    /// The directory that it is of.
    pub root: UfsUri,
    /// When the listing began, in milliseconds since 1970.
    pub taken_ms: i64,
    /// Files that it names.
    pub files: u64,
    /// Directories, the root among them.
    pub directories: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Manifest {
    /// Opens a manifest of at most `limit_bytes` bytes and checks all of it. Reads a file: not for
    /// the async runtime.
    pub fn open(path: &Path, limit_bytes: u64) -> Result<Self> {
        let read = |path: &Path| {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            let mut bytes = Vec::new();
            if length <= limit_bytes {
                // What is longer than it was a moment ago is not read to its end.
                file.by_ref().take(limit_bytes).read_to_end(&mut bytes)?;
            }
            Ok((length, bytes))
        };
        let (length, bytes) = read(path).map_err(|error| failed(path, "cannot be read", &error))?;
        if length > limit_bytes {
            let context = format!(
                "the manifest {} is {length} bytes long, and client.manifest.limit allows \
                 {limit_bytes}; raise it, or take manifests of parts of the dataset",
                path.display()
            );
            return Err(Error::new(ErrorKind::InvalidInput, "manifest", context));
        }
        Self::from_bytes(bytes).map_err(|Malformed(part)| {
            let context = format!(
                "{} is not a whole manifest of this version: {part}; make it anew with \
                 `alluxio-dataset manifest create`",
                path.display()
            );
            Error::new(ErrorKind::Corrupt, "manifest", context)
        })
    }

    /// What the manifest tells of itself.
    pub fn summary(&self) -> ManifestSummary {
        ManifestSummary {
            root: self.header.root.clone(),
            taken_ms: self.header.taken_ms,
            files: self.footer.files,
            directories: self.footer.directories,
            bytes: self.footer.bytes,
        }
    }

    /// The directory that the manifest is of.
    pub fn root(&self) -> &UfsUri {
        &self.header.root
    }

    /// How many bytes of memory it takes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The path of `uri` below the manifest's root, where it is below it.
    pub fn path_of<'a>(&self, uri: &'a UfsUri) -> Option<&'a str> {
        uri.relative_to(&self.header.root)
    }

    /// The status of a path below the root; the root itself is `""`.
    pub fn lookup(&self, path: &str) -> Option<FileStatus> {
        if path.is_empty() {
            let name = self.header.root.name().to_owned();
            return Some(self.status("", directory_entry(name), true));
        }
        let (directory, name) = split_path(path);
        let (_, block) = self.block_of(directory)?;
        let entry = block.find(name, self.header.taken_ms)?;
        Some(self.status(directory, entry, false))
    }

    /// How many entries a directory has; `None` where it is none.
    pub fn count(&self, directory: &str) -> Option<usize> {
        self.block_of(directory)
            .map(|(_, block)| block.count as usize)
    }

    /// What lies directly in a directory, sorted by name; `None` where it is none.
    pub fn list(&self, directory: &str) -> Option<Vec<FileStatus>> {
        let (_, block) = self.block_of(directory)?;
        let mut statuses = Vec::with_capacity(block.count as usize);
        let mut entries = block.entries(self.header.taken_ms);
        while let Ok(Some(entry)) = entries.next() {
            statuses.push(self.status(directory, entry, false));
        }
        Some(statuses)
    }

    /// All files below a directory, directory by directory.
    pub fn below<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = FileStatus> + 'a {
        self.blocks_below(directory)
            .filter_map(|index| self.block(index).ok())
            .flat_map(move |block| {
                let mut entries = block.entries(self.header.taken_ms);
                std::iter::from_fn(move || entries.next().ok().flatten())
                    .filter(|entry| entry.kind == FileKind::File)
                    .map(move |entry| self.status(block.path, entry, false))
            })
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let footer_at = bytes
            .len()
            .checked_sub(FOOTER_BYTES)
            .ok_or(Malformed("it is too short"))?;
        let (header, header_bytes) = Header::parse(&bytes)?;
        let (footer_bytes, end) = bytes[footer_at..].split_at(CHECKSUM_AT);
        let (checksum, magic) = end.split_at(end.len() - END_MAGIC.len());
        if magic != END_MAGIC {
            return Err(Malformed("it was cut off"));
        }
        if checksum != xxh3_128(&bytes[..footer_at + CHECKSUM_AT]).to_le_bytes() {
            return Err(Malformed("its checksum is another one"));
        }
        let footer = Footer::parse(footer_bytes)?;
        let table = footer
            .directories
            .checked_mul(8)
            .and_then(|table| footer.table_offset.checked_add(table));
        if table != Some(footer_at as u64) || footer.directories == 0 {
            return Err(Malformed("its table does not fit it"));
        }
        let manifest = Self {
            bytes,
            header,
            footer,
        };
        manifest.check(header_bytes)?;
        Ok(manifest)
    }

    /// Reads all of it once, so that no later read can meet a surprise.
    fn check(&self, first_block: usize) -> Result<(), Malformed> {
        let mut previous: Option<&str> = None;
        let mut end = first_block;
        let (mut files, mut bytes) = (0, 0_u64);
        for index in 0..self.directories() {
            let range = self.block_range(index);
            if range.start != end || range.end < range.start {
                return Err(Malformed("its blocks do not follow each other"));
            }
            end = range.end;
            let block = self.block(index)?;
            if previous.map_or(!block.path.is_empty(), |previous| previous >= block.path) {
                return Err(Malformed("its directories are not sorted"));
            }
            previous = Some(block.path);
            let (more_files, more_bytes) = self.check_entries(&block, range.len())?;
            files += more_files;
            bytes = bytes.saturating_add(more_bytes);
        }
        if (files, bytes) != (self.footer.files, self.footer.bytes) {
            return Err(Malformed("its counts do not fit it"));
        }
        Ok(())
    }

    /// Files and bytes of a block whose entries are sorted, whole and where its restarts say.
    fn check_entries(
        &self,
        block: &Block<'_>,
        block_bytes: usize,
    ) -> Result<(u64, u64), Malformed> {
        let mut entries = block.entries(self.header.taken_ms);
        let whole = entries.bytes_left();
        let entries_at = block_bytes - block.tail_bytes() - whole;
        let (mut starts, mut last): (Vec<usize>, Option<String>) = (Vec::new(), None);
        let (mut count, mut files, mut bytes) = (0_u32, 0, 0_u64);
        loop {
            let start = entries_at + whole - entries.bytes_left();
            let Some(entry) = entries.next()? else { break };
            if count.is_multiple_of(RESTART_INTERVAL) {
                starts.push(start);
            }
            if last.is_some_and(|last| last >= entry.name) || entry.name.is_empty() {
                return Err(Malformed("a directory's names are not sorted"));
            }
            count += 1;
            files += u64::from(entry.kind == FileKind::File);
            bytes = bytes.saturating_add(entry.length);
            last = Some(entry.name);
        }
        if count != block.count || !block.restarts_are(&starts) {
            return Err(Malformed("a directory's counts do not fit it"));
        }
        Ok((files, bytes))
    }

    fn directories(&self) -> usize {
        usize::try_from(self.footer.directories).unwrap_or(usize::MAX)
    }

    /// Where a block is; empty past the last one.
    fn block_range(&self, index: usize) -> Range<usize> {
        let table = usize::try_from(self.footer.table_offset).unwrap_or(usize::MAX);
        let start = |index: usize| {
            if index >= self.directories() {
                return table;
            }
            let at = table + 8 * index;
            let number = self.bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
            let start = number.map_or(u64::MAX, u64::from_le_bytes);
            usize::try_from(start).unwrap_or(usize::MAX)
        };
        start(index)..start(index + 1)
    }

    fn block(&self, index: usize) -> Result<Block<'_>, Malformed> {
        let bytes = self.bytes.get(self.block_range(index));
        Block::parse(bytes.ok_or(Malformed("a block is outside of it"))?)
    }

    /// The first block whose directory does not come before what `before` tells of.
    fn partition(&self, before: impl Fn(&str) -> bool) -> usize {
        let (mut low, mut high) = (0, self.directories());
        while low < high {
            let middle = low.midpoint(high);
            match self.block(middle) {
                Ok(block) if before(block.path) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    fn block_of(&self, directory: &str) -> Option<(usize, Block<'_>)> {
        let index = self.partition(|path| path < directory);
        let block = self.block(index).ok()?;
        (block.path == directory).then_some((index, block))
    }

    /// The blocks of a directory and of those below it. Others may sort between the two: `a-b`
    /// comes after `a` and before `a/b`.
    fn blocks_below(&self, directory: &str) -> impl Iterator<Item = usize> + use<> {
        let own = self.block_of(directory).map(|(index, _)| index);
        let below = if directory.is_empty() {
            1..self.directories()
        } else {
            let prefix = format!("{directory}/");
            let first = self.partition(|path| path < prefix.as_str());
            let end = self.partition(|path| path < prefix.as_str() || path.starts_with(&prefix));
            first..end
        };
        own.into_iter().chain(below)
    }

    fn status(&self, directory: &str, entry: Entry, is_root: bool) -> FileStatus {
        let root = self.header.root.as_str();
        let path = match (is_root, directory) {
            (true, _) => "/".to_owned(),
            (false, "") => format!("/{}", entry.name),
            (false, directory) => format!("/{directory}/{}", entry.name),
        };
        let ufs_uri = if is_root {
            root.to_owned()
        } else {
            format!("{}{path}", root.trim_end_matches('/'))
        };
        FileStatus {
            kind: entry.kind,
            name: entry.name,
            path,
            ufs_uri,
            modified_ms: entry.modified_ms,
            length: entry.length,
            content_hash: entry.content_hash,
        }
    }
}

impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Manifest").field(&self.summary()).finish()
    }
}

fn directory_entry(name: String) -> Entry {
    Entry {
        name,
        kind: FileKind::Directory,
        length: 0,
        modified_ms: 0,
        content_hash: None,
    }
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied => ErrorKind::PermissionDenied,
        Io::StorageFull => ErrorKind::NoSpace,
        Io::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Unexpected,
    };
    let context = format!(
        "the manifest {} {what}: {error}; check the path and its folder",
        path.display()
    );
    Error::new(kind, "manifest", context)
}

#[cfg(test)]
mod tests;
