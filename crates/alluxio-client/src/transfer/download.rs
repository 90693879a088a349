//! Downloads: from the dataset to the local disk.
//!
//! One file, step by step:
//! 1. What has the name is looked at: left alone, replaced, or taken for the same.
//! 2. A part beside it is opened; bytes of the same version that a stopped download left stay.
//! 3. The rest is read at that version and written in order; the reader fetches ahead in parallel.
//! 4. Length and, where the store tells one, hash are compared with what lies on the disk.
//! 5. The part gets the file's name and time.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alluxio_config::AccessProfile;
use alluxio_wire::{FileStatus, UfsUri};
use futures::TryStreamExt;

use super::etag::{ETag, Hasher, Verdict, hash_file};
use super::part::{Part, PartError};
use super::{Existing, Transfer, local_error};
use crate::error::{Error, ErrorKind, Result};
use crate::reader::FileReader;

/// Bytes asked for at once: enough to let the reader fetch pages in parallel.
const STEP_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of one piece where a file is read once more to be compared.
const COMPARED_BYTES: u64 = 8 * 1024 * 1024;

impl Transfer {
    /// The steps of `download`: the source's status, then the one file or all below it.
    pub(super) async fn download(&self, from: &str, to: &Path) -> Result<()> {
        let source = self.client.uri(self.operation, from)?;
        // A version that is gone cannot be read.
        if !self.client.is_pinned() {
            self.client.metadata().forget(&source);
        }
        let status = self.client.status(from).await?;
        if !status.is_directory() {
            return self
                .download_file(FileStatus::clone(&status), to.to_owned())
                .await;
        }
        if !self.options.recursive {
            return Err(self.is_a_directory(source.as_str()));
        }
        let made = tokio::fs::create_dir_all(to).await;
        made.map_err(|error| local_error(self.operation, to, error))?;
        self.client
            .metadata()
            .walk(source.clone())
            .try_for_each_concurrent(self.client.max_parallel_transfers(), |file| {
                let source = &source;
                async move {
                    let to = self.place_below(source, &file, to)?;
                    self.download_file(file, to).await
                }
            })
            .await
    }

    /// Where a file below `source` goes. Names are those of others: they do not lead elsewhere.
    fn place_below(&self, source: &UfsUri, file: &FileStatus, to: &Path) -> Result<PathBuf> {
        let uri = UfsUri::parse(&file.ufs_uri).ok();
        let below = uri.as_ref().and_then(|uri| uri.relative_to(source));
        let place = below.map(Path::new).filter(|below| {
            let mut components = below.components();
            components.all(|part| matches!(part, Component::Normal(_)))
        });
        place.map(|below| to.join(below)).ok_or_else(|| {
            let context = format!("{} has no name below {}", file.ufs_uri, to.display());
            self.error(ErrorKind::InvalidInput, context)
        })
    }

    async fn download_file(&self, source: FileStatus, to: PathBuf) -> Result<()> {
        self.found(source.length);
        if self.is_here(&source, &to).await? {
            self.file_skipped(source.length);
            return Ok(());
        }
        let (reader, uri) = self.reader_of(&source)?;
        let identity = identity(&source);
        let length = source.length;
        let (part_of, named) = (to.clone(), identity.clone());
        let part = blocking(move || Part::open(&part_of, &named, length)).await;
        let mut part = part.map_err(|error| self.part_error(error, &to))?;
        self.resumed(part.written_bytes());
        while part.written_bytes() < length {
            let read = reader.read_at(part.written_bytes(), STEP_BYTES).await?;
            // A reader may go on with another version as long as it has handed out nothing.
            if read.is_empty() || reader.status().version() != source.version() {
                return Err(self.stale(&source));
            }
            let bytes = read.len() as u64;
            let (back, written) = blocking(move || {
                let written = part.write(&read.chunks);
                (part, written)
            })
            .await;
            part = back;
            written.map_err(|error| local_error(self.operation, &to, error))?;
            self.moved(bytes);
        }
        let part = self.verified(part, &source, &uri).await?;
        let may_replace = self.options.existing != Existing::Fail;
        let modified_ms = source.modified_ms;
        let finished = blocking(move || part.finish(modified_ms, may_replace)).await;
        finished.map_err(|error| self.part_error(error, &to))?;
        self.file_done();
        Ok(())
    }

    fn reader_of(&self, source: &FileStatus) -> Result<(FileReader, UfsUri)> {
        let uri = UfsUri::parse(&source.ufs_uri).map_err(|error| {
            let context = format!("the store tells a name that is none: {}", source.ufs_uri);
            self.error(ErrorKind::Corrupt, context).with_source(error)
        })?;
        let status = Arc::new(source.clone());
        let profile = Some(AccessProfile::Sequential);
        Ok((self.client.open_found(uri.clone(), status, profile), uri))
    }

    /// Whether the local file is what a download would make; an error where it may not be replaced.
    async fn is_here(&self, source: &FileStatus, to: &Path) -> Result<bool> {
        let here = match tokio::fs::metadata(to).await {
            Ok(here) => here,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(local_error(self.operation, to, error)),
        };
        if here.is_dir() {
            let context = format!("{} is a directory; name a file in it", to.display());
            return Err(self.error(ErrorKind::IsDirectory, context));
        }
        match self.options.existing {
            Existing::Fail => Err(self.exists(to)),
            Existing::Replace => Ok(false),
            Existing::Resume => {
                let since = here.modified().ok().and_then(|modified| {
                    modified
                        .duration_since(std::time::SystemTime::UNIX_EPOCH)
                        .ok()
                });
                let same_second = |since: std::time::Duration| {
                    i64::try_from(since.as_secs()) == Ok(source.modified_ms.div_euclid(1000))
                };
                Ok(here.len() == source.length && since.is_some_and(same_second))
            }
        }
    }

    /// The part, if it is what the store has.
    async fn verified(&self, part: Part, source: &FileStatus, uri: &UfsUri) -> Result<Part> {
        let hash = source.content_hash.as_deref();
        let Some(etag) = hash.and_then(ETag::parse) else {
            return Ok(part);
        };
        let (part, verdict) = blocking(move || {
            let verdict = part.compare(&etag);
            (part, verdict)
        })
        .await;
        let failed = |error| local_error(self.operation, Path::new(uri.as_str()), error);
        if verdict.map_err(failed)? != Verdict::Differs {
            return Ok(part);
        }
        let file = part.file().map_err(failed)?;
        if self.is_what_the_store_has(file, source, uri).await? {
            return Ok(part);
        }
        let discarded = blocking(move || part.discard()).await;
        discarded.map_err(failed)?;
        Err(self.corrupt(uri))
    }

    /// A hash that differs is of other bytes, or of another kind (`etag`): reading the object once
    /// more tells. Where it is of another kind, further files of this transfer are not read twice.
    pub(super) async fn is_what_the_store_has(
        &self,
        file: std::fs::File,
        stored: &FileStatus,
        uri: &UfsUri,
    ) -> Result<bool> {
        if self.hashes_are_of_another_kind.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let here = blocking(move || hash_file(&file, Hasher::whole())).await;
        let here =
            here.map_err(|error| local_error(self.operation, Path::new(uri.as_str()), error))?;
        let (version, range) = (stored.version(), 0..stored.length);
        let ufs = self.client.ufs();
        let mut pieces = ufs.read_pieces_of_version(uri, range, &version, COMPARED_BYTES);
        let mut there = Hasher::whole();
        while let Some(piece) = pieces.try_next().await.map_err(|e| self.ufs_error(&e))? {
            there = blocking(move || {
                there.update(&piece);
                there
            })
            .await;
        }
        let is_same = here == there.finish();
        if is_same {
            tracing::info!(%uri, "the store's hashes are no MD5s: files are verified by length");
            self.hashes_are_of_another_kind
                .store(true, Ordering::Relaxed);
        }
        Ok(is_same)
    }

    fn part_error(&self, error: PartError, to: &Path) -> Error {
        match error {
            PartError::Exists => self.exists(to),
            PartError::Io(error) => local_error(self.operation, to, error),
            PartError::Busy => {
                let context = format!(
                    "another download to {} is under way; wait for it, or choose another name",
                    to.display()
                );
                self.error(ErrorKind::Unavailable, context)
            }
        }
    }

    fn exists(&self, to: &Path) -> Error {
        let context = format!(
            "{} exists; replace it, resume, or choose another name",
            to.display()
        );
        self.error(ErrorKind::AlreadyExists, context)
    }

    fn stale(&self, source: &FileStatus) -> Error {
        let context = format!("{} changed while it was read; try again", source.ufs_uri);
        self.error(ErrorKind::Stale, context)
    }

    fn corrupt(&self, uri: &UfsUri) -> Error {
        let context = format!(
            "what came of {uri} is not what the store's hash is of, and was thrown away; try again, \
             and check this machine's memory and disk if it stays so"
        );
        self.error(ErrorKind::Corrupt, context)
    }
}

/// Names the version that a part is of.
fn identity(source: &FileStatus) -> String {
    format!(
        "{}\n{}\n{}\n",
        source.ufs_uri,
        source.version(),
        source.length
    )
}

/// Runs what waits for the disk where that blocks nobody. The task is not stopped, and does not
/// panic.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends: whoever waits does so no longer.
        Err(_cancelled) => std::future::pending().await,
    }
}
