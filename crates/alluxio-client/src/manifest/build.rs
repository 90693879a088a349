//! Making a manifest: files in any order, sorted by directory and name, written once.
//!
//! Memory holds one run of the sort and eight bytes a directory, whatever the number of files. The
//! manifest appears under its name when all of it is on the disk; until then, and when anything
//! fails, what was there before stays.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use alluxio_wire::{FileKind, FileStatus, UfsUri};
use xxhash_rust::xxh3::Xxh3;

use super::format::{Cursor, END_MAGIC, Entry, EntryWriter, Footer, Header, Malformed, put_varint};
use super::sort::{Record, Sorter};
use super::{ManifestSummary, failed};
use crate::error::{Error, ErrorKind, Result};

/// Between the parts of a sort key: no name holds it, and it sorts before every other byte, so the
/// keys sort by directory, then by name.
const SEPARATOR: u8 = 0;
/// Ends the key of a file; sorts before a directory's, so that the file stays where both share a
/// name, as it does in a listing.
const FILE: u8 = 1;
/// Ends the key of a directory.
const DIRECTORY: u8 = 2;

/// Collects files and writes their manifest.
pub struct ManifestBuilder {
    root: UfsUri,
    taken_ms: i64,
    target: PathBuf,
    sorter: Sorter,
    /// The directory of the last file: those above it are known to the sorter.
    last_directory: Option<String>,
}

/// The file while it is written, under a name of its own that goes when this is dropped.
struct Output {
    path: PathBuf,
    writer: BufWriter<File>,
    checksum: Xxh3,
    written: u64,
}

/// What was written of the blocks.
#[derive(Default)]
struct Blocks {
    starts: Vec<u64>,
    footer: Footer,
}

impl ManifestBuilder {
    /// A manifest of what lies below `root`, to be written to `target`.
    pub fn new(root: UfsUri, target: &Path, taken_ms: i64) -> Self {
        Self {
            root,
            taken_ms,
            target: target.to_owned(),
            sorter: Sorter::new(folder_of(target)),
            last_directory: None,
        }
    }

    /// Adds a file. The directories above it are added by themselves.
    pub fn add(&mut self, status: &FileStatus) -> Result<()> {
        let uri = UfsUri::parse(&status.ufs_uri).map_err(|error| {
            let context = format!("the listing holds `{}`", status.ufs_uri);
            Error::new(ErrorKind::Corrupt, "manifest", context).with_source(error)
        })?;
        let path = uri.relative_to(&self.root).filter(|path| !path.is_empty());
        let Some(path) = path else {
            let context = format!(
                "{uri} is not below {}; a manifest is of a directory, name that",
                self.root
            );
            return Err(Error::new(ErrorKind::NotDirectory, "manifest", context));
        };
        let (directory, name) = split_path(path);
        self.add_directories(directory).map_err(|e| self.io(&e))?;
        let kind = if status.is_directory() {
            DIRECTORY
        } else {
            FILE
        };
        let payload = payload(status);
        self.sorter
            .push(&key(directory, name, kind), &payload)
            .map_err(|e| self.io(&e))
    }

    /// Sorts and writes, and puts the file in its place.
    pub fn finish(self) -> Result<ManifestSummary> {
        let target = self.target.clone();
        self.write()
            .map_err(|error| failed(&target, "cannot be written", &error))
    }

    fn io(&self, error: &io::Error) -> Error {
        failed(&self.target, "cannot be written", error)
    }

    fn add_directories(&mut self, directory: &str) -> io::Result<()> {
        if self.last_directory.as_deref() == Some(directory) {
            return Ok(());
        }
        let known = self.last_directory.replace(directory.to_owned());
        let known = known.unwrap_or_default();
        let mut path = directory;
        while !path.is_empty() && !is_at_or_above(path, &known) {
            let (above, name) = split_path(path);
            self.sorter.push(&key(above, name, DIRECTORY), &[])?;
            path = above;
        }
        Ok(())
    }

    fn write(self) -> io::Result<ManifestSummary> {
        let header = Header {
            root: self.root,
            taken_ms: self.taken_ms,
        };
        let mut sorted = self.sorter.finish()?;
        let mut output = Output::create(&self.target)?;
        output.put(&header.to_bytes())?;
        let blocks = write_blocks(&mut output, header.taken_ms, || sorted.next())?;
        output.finish(&blocks, &self.target)?;
        Ok(ManifestSummary {
            root: header.root,
            taken_ms: header.taken_ms,
            files: blocks.footer.files,
            directories: blocks.footer.directories,
            bytes: blocks.footer.bytes,
        })
    }
}

fn write_blocks(
    output: &mut Output,
    taken_ms: i64,
    mut next: impl FnMut() -> io::Result<Option<Record>>,
) -> io::Result<Blocks> {
    let mut blocks = Blocks::default();
    let (mut writer, mut piece) = (EntryWriter::default(), Vec::new());
    // The root has a block even when nothing is below it.
    let mut directory = String::new();
    let mut last_name: Option<String> = None;
    blocks.begin(output);
    writer.begin(&mut piece, "");
    while let Some((key, payload)) = next()? {
        let (in_directory, name, kind) = split_key(&key).map_err(malformed)?;
        if in_directory != directory {
            writer.end(&mut piece);
            output.flush_piece(&mut piece)?;
            blocks.begin(output);
            in_directory.clone_into(&mut directory);
            writer.begin(&mut piece, &directory);
            last_name = None;
        }
        if last_name.as_deref() == Some(name) {
            continue;
        }
        let entry = entry(name, kind, &payload).map_err(malformed)?;
        writer
            .push(&mut piece, &entry, taken_ms)
            .map_err(malformed)?;
        output.flush_piece(&mut piece)?;
        if entry.kind == FileKind::File {
            blocks.footer.files += 1;
            blocks.footer.bytes = blocks.footer.bytes.saturating_add(entry.length);
        }
        last_name = Some(entry.name);
    }
    writer.end(&mut piece);
    output.flush_piece(&mut piece)?;
    blocks.footer.table_offset = output.written;
    Ok(blocks)
}

impl Blocks {
    fn begin(&mut self, output: &Output) {
        self.starts.push(output.written);
        self.footer.directories += 1;
    }
}

impl Output {
    fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let name = format!(".{name}.{}.part", std::process::id());
        let path = folder_of(target).join(name);
        Ok(Self {
            writer: BufWriter::new(File::create(&path)?),
            path,
            checksum: Xxh3::new(),
            written: 0,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.written += bytes.len() as u64;
        self.writer.write_all(bytes)
    }

    fn flush_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.put(piece)?;
        piece.clear();
        Ok(())
    }

    /// Table and footer; then the file takes the target's name.
    fn finish(mut self, blocks: &Blocks, target: &Path) -> io::Result<()> {
        for start in &blocks.starts {
            self.put(&start.to_le_bytes())?;
        }
        self.put(&blocks.footer.to_bytes())?;
        let checksum = self.checksum.digest128();
        self.writer.write_all(&checksum.to_le_bytes())?;
        self.writer.write_all(END_MAGIC)?;
        self.writer.flush()?;
        self.writer.get_ref().sync_all()?;
        fs::rename(&self.path, target)?;
        File::open(folder_of(target))?.sync_all()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Gone already where it took its name.
        let _ = fs::remove_file(&self.path);
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The directory and the name of a path.
pub(super) fn split_path(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_at_or_above(directory: &str, path: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn key(directory: &str, name: &str, kind: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(directory.len() + name.len() + 3);
    key.extend(directory.as_bytes());
    key.push(SEPARATOR);
    key.extend(name.as_bytes());
    key.extend([SEPARATOR, kind]);
    key
}

fn split_key(key: &[u8]) -> Result<(&str, &str, u8), Malformed> {
    let mut parts = key.split(|byte| *byte == SEPARATOR);
    let mut part = || parts.next().ok_or(Malformed("a run was cut off"));
    let (directory, name, kind) = (part()?, part()?, part()?);
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Malformed("a name is not UTF-8"));
    let kind = kind.first().ok_or(Malformed("a run was cut off"))?;
    Ok((text(directory)?, text(name)?, *kind))
}

fn payload(status: &FileStatus) -> Vec<u8> {
    let mut payload = Vec::new();
    put_varint(&mut payload, status.length);
    payload.extend(status.modified_ms.to_le_bytes());
    // An empty hash is none: see `FileStatus::version`.
    let hash = status.content_hash.as_deref().unwrap_or_default();
    put_varint(&mut payload, hash.len() as u64);
    payload.extend(hash.as_bytes());
    payload
}

fn entry(name: &str, kind: u8, payload: &[u8]) -> Result<Entry, Malformed> {
    let mut entry = Entry {
        name: name.to_owned(),
        kind: FileKind::Directory,
        length: 0,
        modified_ms: 0,
        content_hash: None,
    };
    // A directory has no payload but where the listing told its time.
    if payload.is_empty() {
        return Ok(entry);
    }
    let mut cursor = Cursor(payload);
    entry.length = cursor.varint()?;
    entry.modified_ms = cursor.fixed_u64()?.cast_signed();
    let hash = cursor.text()?;
    entry.content_hash = (!hash.is_empty()).then(|| hash.to_owned());
    if kind == FILE {
        entry.kind = FileKind::File;
    }
    Ok(entry)
}

fn malformed(part: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, part.0)
}
