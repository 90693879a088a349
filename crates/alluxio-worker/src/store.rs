//! The page store: pages on this worker's disks.
//!
//! It has one directory or several, each on a disk of its own, with a capacity and an eviction of its
//! own (`directory`). A page's place follows from its file and number, weighed by the capacities
//! (`place`), so no table says where a page is. After capacities or directories were changed some
//! pages lie elsewhere: they are found by looking into the other indexes, which are in memory.
//!
//! A directory that fails is left out, and new pages go to the others.

mod directory;
mod index;
mod page_file;
mod place;
mod scan;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use alluxio_config::{PageDirectory, PageStoreConfig};
use alluxio_wire::{FileId, FileVersion, PageSize};
use bytes::Bytes;

use self::directory::Directory;
use self::place::Weighed;
use crate::error::WorkerError;
use crate::version::{Tag, Version};

/// Names one page of one version of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct PageKey {
    pub(crate) file: FileId,
    pub(crate) tag: Tag,
    pub(crate) index: u64,
}

/// What the store holds and what it has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct StoreStats {
    pub(crate) bytes: u64,
    pub(crate) capacity_bytes: u64,
    pub(crate) pages: u64,
    pub(crate) evicted_pages: u64,
    pub(crate) corrupt_pages: u64,
    pub(crate) failed_directories: u64,
}

/// The pages on this worker's disks.
#[derive(Debug)]
pub(crate) struct PageStore {
    directories: Vec<(Weighed, Arc<Directory>)>,
    page_size: PageSize,
    /// Directories that could not be opened.
    unopened: u64,
}

impl PageStore {
    /// Opens the directories, makes those that are missing, and reads back what they hold.
    ///
    /// The first one must open: it holds the worker's identity. One of the others that does not is
    /// left out; one that another worker uses is a mistake.
    pub(crate) async fn open(
        config: &PageStoreConfig,
        page_size: PageSize,
    ) -> Result<Arc<Self>, WorkerError> {
        let mut directories = vec![open(&config.first, page_size).await?];
        for other in &config.others {
            match open(other, page_size).await {
                Ok(opened) => directories.push(opened),
                Err(error @ WorkerError::PageStoreInUse { .. }) => return Err(error),
                Err(error) => tracing::error!(
                    %error, directory = %other.path.display(),
                    "a directory of the page store is left out"
                ),
            }
        }
        let weighed = directories.into_iter().map(|directory| {
            let weighed = Weighed::new(directory.path(), directory.capacity_bytes());
            (weighed, directory)
        });
        let directories: Vec<_> = weighed.collect();
        Ok(Arc::new(Self {
            unopened: (1 + config.others.len() - directories.len()) as u64,
            directories,
            page_size,
        }))
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The kept version of the file that `wanted` names.
    pub(crate) fn version(&self, file: &FileId, wanted: &FileVersion) -> Option<Arc<Version>> {
        self.working()
            .find_map(|directory| directory.version(file, wanted))
    }

    /// A version of the file that the under-store had.
    pub(crate) fn known_version(&self, file: &FileId) -> Option<Arc<Version>> {
        self.working()
            .find_map(|directory| directory.known_version(file))
    }

    pub(crate) fn has(&self, key: &PageKey) -> bool {
        self.holder(key).is_some()
    }

    /// How many bytes the kept page has, and counts as a use of it.
    pub(crate) fn touch(&self, key: &PageKey) -> Option<u64> {
        self.holder(key)?.touch(key)
    }

    /// The bytes of `range` of a kept page, cut at its end; `None` when the page is not here (any
    /// more), was found corrupt and is not here from now on, or cannot be read at the moment.
    pub(crate) async fn read(&self, key: &PageKey, range: Range<u64>) -> Option<Bytes> {
        self.holder(key)?.read(key, range).await
    }

    /// Keeps a page; one that is kept already stays as it is.
    pub(crate) async fn write(
        &self,
        key: PageKey,
        version: &Version,
        page: Bytes,
    ) -> io::Result<()> {
        if self.has(&key) {
            return Ok(());
        }
        match self.place_of(&key) {
            Some(directory) => directory.write(key, version, page).await,
            None => Err(io::Error::other(
                "every directory of the page store has failed",
            )),
        }
    }

    /// Drops every page of a file, and tells how many there were.
    pub(crate) async fn forget(&self, file: &FileId) -> usize {
        let mut dropped = 0;
        for directory in self.working() {
            dropped += directory.forget(file).await;
        }
        dropped
    }

    /// What all directories hold together.
    pub(crate) fn stats(&self) -> StoreStats {
        let all = self.directories.iter().map(|(_, directory)| directory);
        let mut sum = StoreStats {
            failed_directories: self.unopened,
            ..StoreStats::default()
        };
        for stats in all.map(|directory| directory.stats()) {
            sum.bytes += stats.bytes;
            sum.capacity_bytes += stats.capacity_bytes;
            sum.pages += stats.pages;
            sum.evicted_pages += stats.evicted_pages;
            sum.corrupt_pages += stats.corrupt_pages;
            sum.failed_directories += stats.failed_directories;
        }
        sum
    }

    /// The directories by their paths, with what each holds.
    pub(crate) fn stats_of_each(&self) -> impl Iterator<Item = (&Path, StoreStats)> {
        let all = self.directories.iter();
        all.map(|(_, directory)| (directory.path(), directory.stats()))
    }

    fn working(&self) -> impl Iterator<Item = &Arc<Directory>> {
        let all = self.directories.iter().map(|(_, directory)| directory);
        all.filter(|directory| !directory.is_out())
    }

    /// Where a page lies: mostly in its place.
    fn holder(&self, key: &PageKey) -> Option<&Arc<Directory>> {
        if let [(_, only)] = self.directories.as_slice() {
            return only.has(key).then_some(only);
        }
        let place = self.place_of(key)?;
        if place.has(key) {
            return Some(place);
        }
        self.working().find(|directory| directory.has(key))
    }

    /// Where a page is to be kept.
    fn place_of(&self, key: &PageKey) -> Option<&Arc<Directory>> {
        let working = self.directories.iter().filter(|(_, d)| !d.is_out());
        place::pick(working.map(|(weighed, d)| (weighed, d)), key)
    }
}

async fn open(config: &PageDirectory, page_size: PageSize) -> Result<Arc<Directory>, WorkerError> {
    let (config, path) = (config.clone(), config.path.clone());
    let opened = tokio::task::spawn_blocking(move || Directory::open(&config, page_size)).await;
    match opened {
        Ok(directory) => directory.map(Arc::new),
        Err(error) => Err(WorkerError::PageStore {
            directory: path,
            source: io::Error::other(error),
        }),
    }
}

#[cfg(test)]
mod tests;
