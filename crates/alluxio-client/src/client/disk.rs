//! What lies in the disk cache, for whoever reads it there past the client.

use std::fs::File;
use std::future::pending;
use std::io;
use std::sync::Arc;

use alluxio_wire::FileStatus;

use super::Client;
use crate::disk::{CacheKey, DiskCache, WholeFile};
use crate::reader::FileReader;

impl Client {
    /// How much of the version that a status tells is in the disk cache, 0 to 1.
    pub fn disk_share(&self, path: &str, status: &FileStatus) -> f64 {
        let uri = self.inner.root.join(path).ok();
        let share = |(disk, uri): (&DiskCache, _)| disk.share(&self.inner.opened(uri, status));
        self.inner.disk.as_ref().zip(uri).map_or(0.0, share)
    }

    /// The open file's bytes as one file of the disk cache, if all of them are there and every page
    /// was compared with its checksum. Files up to 16 MiB are compared on the spot, larger ones in
    /// the background and handed out the next time.
    pub async fn whole_file(&self, reader: &FileReader) -> Option<WholeFile> {
        self.inner.disk.as_ref()?.whole(reader.opened()).await
    }

    /// The same for a file that is not open, as long as nobody need be asked for its status and nothing
    /// compared; with that status.
    pub fn whole_file_at_hand(&self, path: &str) -> Option<(Arc<FileStatus>, WholeFile)> {
        let disk = self.inner.disk.as_ref()?;
        let uri = self.inner.root.join(path).ok()?;
        let status = self.inner.metadata.known(&uri)?;
        let whole = disk.whole_at_hand(&self.inner.opened(uri, &status))?;
        Some((status, whole))
    }

    /// Waits for files that [`Client::whole_file`] handed out and that are no longer to be read
    /// there: they were evicted, or are being fetched anew. Their disk space is free when nobody
    /// holds them any more. For one caller at a time.
    pub async fn departed_files(&self) -> Vec<CacheKey> {
        match &self.inner.disk {
            Some(disk) => disk.departed().await,
            None => pending().await,
        }
    }

    /// A new empty file without a name, where the disk cache's files lie; none without a cache.
    pub fn disk_cache_sample(&self) -> Option<io::Result<File>> {
        self.inner.disk.as_ref().map(DiskCache::sample)
    }
}
