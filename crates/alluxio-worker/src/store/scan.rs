//! What the directory holds at start: leftovers out, pages into the index.
//!
//! The time of a page's file stands in for its last use. What does not look like a page of a
//! readable version is removed; this directory is the worker's alone.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use alluxio_wire::FileId;

use super::index::{Index, Victim};
use super::{PageKey, page_file};
use crate::version::Version;

/// The file that tells a directory's version.
pub(super) const VERSION_FILE: &str = "version.json";

struct FoundPage {
    written: SystemTime,
    key: PageKey,
    version: Version,
    page_bytes: u64,
}

/// Removes half-written pages and pages of another page size, which nobody can ask for any more.
pub(super) fn remove_leftovers(directory: &Path, temporary: &Path, pages: &Path) -> io::Result<()> {
    if temporary.exists() {
        fs::remove_dir_all(temporary)?;
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_pages = entry.file_name().to_string_lossy().starts_with("pages-");
        if is_pages && entry.path() != pages {
            tracing::info!(directory = %entry.path().display(), "removing pages of another size");
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Reads the directory into an index, and says which pages no longer fit the capacity.
pub(super) fn read_back(pages: &Path, capacity_bytes: u64) -> io::Result<(Index, Vec<Victim>)> {
    let mut found = Vec::new();
    for group in fs::read_dir(pages)? {
        for file in directories_in(&group?)? {
            for version in directories_in(&file)? {
                found.extend(pages_of_version(&file, &version)?);
            }
        }
    }
    found.sort_by_key(|page| (page.written, page.key));
    let mut index = Index::new(capacity_bytes);
    let mut victims = Vec::new();
    for page in found {
        let disk_bytes = page_file::disk_bytes(page.page_bytes);
        match index.reserve(&page.key, disk_bytes) {
            Some(Ok(evicted)) => {
                victims.extend(evicted);
                index.keep(page.key, page.version, page.page_bytes, disk_bytes);
            }
            Some(Err(_)) | None => victims.push(Victim {
                key: page.key,
                was_last_of_version: false,
            }),
        }
    }
    Ok((index, victims))
}

/// The directories in a directory; anything else in it is removed.
fn directories_in(parent: &DirEntry) -> io::Result<Vec<DirEntry>> {
    if !parent.file_type()?.is_dir() {
        fs::remove_file(parent.path())?;
        return Ok(Vec::new());
    }
    fs::read_dir(parent.path())?.collect()
}

fn pages_of_version(file: &DirEntry, directory: &DirEntry) -> io::Result<Vec<FoundPage>> {
    let Some((id, version)) = version_of(file, directory) else {
        remove_unreadable(directory)?;
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.path())? {
        let entry = entry?;
        if entry.file_name() == VERSION_FILE {
            continue;
        }
        match page_of(&entry, id, &version)? {
            Some(page) => found.push(page),
            None => fs::remove_file(entry.path())?,
        }
    }
    Ok(found)
}

/// File id and version, where the names and the version file agree.
fn version_of(file: &DirEntry, directory: &DirEntry) -> Option<(FileId, Version)> {
    let id: FileId = file.file_name().to_str()?.parse().ok()?;
    let text = fs::read(directory.path().join(VERSION_FILE)).ok()?;
    let version: Version = serde_json::from_slice(&text).ok()?;
    let named_right = *directory.file_name() == *version.tag().directory_name();
    let is_of_file = version.uri.as_ref().is_none_or(|uri| uri.file_id() == id);
    (named_right && is_of_file).then_some((id, version))
}

fn page_of(entry: &DirEntry, file: FileId, version: &Version) -> io::Result<Option<FoundPage>> {
    let name = entry.file_name();
    let number = name.to_str().and_then(|name| name.strip_suffix(".page"));
    let Some(index) = number.and_then(|number| number.parse().ok()) else {
        return Ok(None);
    };
    let metadata = entry.metadata()?;
    Ok(
        page_file::page_bytes(metadata.len()).map(|page_bytes| FoundPage {
            written: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            key: PageKey {
                file,
                tag: version.tag(),
                index,
            },
            version: version.clone(),
            page_bytes,
        }),
    )
}

fn remove_unreadable(directory: &DirEntry) -> io::Result<()> {
    tracing::warn!(directory = %directory.path().display(), "removing what is no version's pages");
    if directory.file_type()?.is_dir() {
        fs::remove_dir_all(directory.path())
    } else {
        fs::remove_file(directory.path())
    }
}
