//! Changing the under-store: write, delete, make directories, copy, move.
//!
//! A file appears whole or not at all: what was there before stays readable until the last byte of
//! the new one is safe, and stays when the write fails or its process is killed. How that is done
//! is the store's part:
//!
//! * `object`: one PUT, or a multipart upload that is completed at the end. Stores that write in
//!   place but can rename (HDFS) get a name beside the target first. An upload whose process was
//!   killed leaves invisible parts, which a lifecycle rule of the bucket should expire.
//! * `local`: a file beside the target, fsync, rename, fsync of the directory. A killed process
//!   leaves a hidden file `.alluxio-write-*.tmp`, which no listing shows.
//!
//! Directories above a new file come into being with it, in every store. Memory is bounded: a writer
//! holds at most two parts that were not sent and [`PARALLEL_PARTS`] that are being sent.

mod parts;

use alluxio_wire::{FileStatus, UfsUri};
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::runtime::Handle;

pub(crate) use self::parts::PARALLEL_PARTS;
use self::parts::Parts;
pub use self::parts::parts_of;
use crate::error::{Subject, UfsError};
use crate::limits::READ_ATTEMPT_TIMEOUT;
use crate::local::write::LocalWriter;
use crate::object::write::ObjectWriter;
use crate::{Store, Ufs};

/// Bytes of one piece of a copy that goes through this process: as many as one part of a write.
const COPY_PIECE_BYTES: u64 = parts::PART_BYTES;

/// What a write does where something has the name already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WriteMode {
    /// A file of this name is replaced, in one step.
    #[default]
    Replace,
    /// A file of this name is left alone, and the write fails as
    /// [`UfsErrorKind::AlreadyExists`](crate::UfsErrorKind::AlreadyExists). Two writers at one time
    /// cannot both succeed where the store has conditional writes (S3, OSS, COS, GCS, Azure, local
    /// files); elsewhere the name is looked up before.
    CreateNew,
}

/// How a file is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteOptions {
    /// What is done with a file of this name.
    pub mode: WriteMode,
    /// How many bytes will come, where that is known: it decides the size of the parts. Without it
    /// parts grow as the file does.
    pub expected_bytes: Option<u64>,
}

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// How many bytes the file has.
    pub bytes: u64,
    /// The store's hash of the new content (its ETag), where it told one.
    pub content_hash: Option<String>,
}

/// A file on its way into the store. Nothing of it can be seen before [`UfsWriter::finish`] has
/// succeeded. Dropped without it, what was sent is thrown away.
#[derive(Debug)]
pub struct UfsWriter {
    ufs: Ufs,
    subject: Subject,
    parts: Parts,
    /// `None` once it was finished, or failed.
    sink: Option<Sink>,
}

#[derive(Debug)]
enum Sink {
    Local(LocalWriter),
    Object(Box<ObjectWriter>),
}

impl Ufs {
    /// Begins to write a file.
    pub async fn writer(&self, uri: &UfsUri, options: WriteOptions) -> Result<UfsWriter, UfsError> {
        let subject = self.subject("write", uri)?;
        let _turn = self.turn().await;
        let sink = match &self.inner.store {
            Store::Local(store) => Sink::Local(store.writer(&subject, uri, options.mode).await?),
            Store::Object(store) => {
                Sink::Object(Box::new(store.writer(&subject, uri, options.mode).await?))
            }
        };
        Ok(UfsWriter {
            ufs: self.clone(),
            subject,
            parts: Parts::new(options.expected_bytes),
            sink: Some(sink),
        })
    }

    /// Writes a file of these bytes.
    pub async fn write(
        &self,
        uri: &UfsUri,
        bytes: Bytes,
        mode: WriteMode,
    ) -> Result<Written, UfsError> {
        let options = WriteOptions {
            mode,
            expected_bytes: Some(bytes.len() as u64),
        };
        let mut writer = self.writer(uri, options).await?;
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// Makes a directory, and those above it. One that is there already is left as it is; where a
    /// file has the name this fails as `AlreadyExists`.
    pub async fn create_dir(&self, uri: &UfsUri) -> Result<(), UfsError> {
        let subject = self.subject("make the directory", uri)?;
        let _turn = self.turn().await;
        match &self.inner.store {
            Store::Local(store) => store.create_dir(&subject, uri).await,
            Store::Object(store) => store.create_dir(&subject, uri).await,
        }
    }

    /// Removes a file; well done too where nothing has its name. A directory is refused by local
    /// stores; an object store removes the object of exactly this key.
    pub async fn delete_file(&self, uri: &UfsUri) -> Result<(), UfsError> {
        let subject = self.subject("remove", uri)?;
        let _turn = self.turn().await;
        match &self.inner.store {
            Store::Local(store) => store.delete_file(&subject, uri).await,
            Store::Object(store) => store.delete_files(&subject, &[uri]).await,
        }
    }

    /// Removes many files, by as few requests as the store allows. Ends at the first error; some of
    /// the files are gone then.
    pub async fn delete_files(&self, uris: &[UfsUri]) -> Result<(), UfsError> {
        let Some(first) = uris.first() else {
            return Ok(());
        };
        match &self.inner.store {
            Store::Local(_) => {
                for uri in uris {
                    self.delete_file(uri).await?;
                }
                Ok(())
            }
            Store::Object(store) => {
                let subject = self.subject("remove", first)?;
                let uris: Vec<_> = uris.iter().collect();
                let _turn = self.turn().await;
                store.delete_files(&subject, &uris).await
            }
        }
    }

    /// Removes an empty directory; `NotEmpty` where it holds something.
    pub async fn delete_dir(&self, uri: &UfsUri) -> Result<(), UfsError> {
        let subject = self.subject("remove the directory", uri)?;
        let _turn = self.turn().await;
        match &self.inner.store {
            Store::Local(store) => store.delete_dir(&subject, uri).await,
            Store::Object(store) => store.delete_dir(&subject, uri).await,
        }
    }

    /// Removes a directory with all below it, and tells how many files those were. Symbolic links
    /// are removed, not followed. Ends at the first error; what was removed before is gone.
    pub async fn delete_below(&self, uri: &UfsUri) -> Result<u64, UfsError> {
        let subject = self.subject("remove all below", uri)?;
        let _turn = self.turn().await;
        match &self.inner.store {
            Store::Local(store) => store.delete_below(&subject, uri).await,
            Store::Object(store) => store.delete_below(&subject, uri).await,
        }
    }

    /// Copies one file of which `from` is the status, in the store itself where it can, else
    /// through this process, which then is told each time how many bytes it `holds`. `Changed` where
    /// the source is of another version by then.
    pub async fn copy(
        &self,
        from: &FileStatus,
        to: &UfsUri,
        mode: WriteMode,
        mut holds: impl FnMut(u64) + Send,
    ) -> Result<Written, UfsError> {
        let subject = self.subject("copy to", to)?;
        let source = UfsUri::parse(&from.ufs_uri)
            .map_err(|error| subject.invalid(error.to_string(), "copy from a file of the store"))?;
        if let Store::Object(store) = &self.inner.store {
            let _turn = self.turn().await;
            let copied = store.copy_within(&subject, &source, from, to, mode).await?;
            if let Some(written) = copied {
                return Ok(written);
            }
        }
        let options = WriteOptions {
            mode,
            expected_bytes: Some(from.length),
        };
        let mut writer = self.writer(to, options).await?;
        let version = from.version();
        let range = 0..from.length;
        let mut pieces = self.read_pieces_of_version(&source, range, &version, COPY_PIECE_BYTES);
        while let Some(piece) = pieces.try_next().await? {
            holds(writer.buffered_bytes() + piece.len() as u64);
            writer.write(piece).await?;
        }
        writer.finish().await
    }

    /// Waits until what was sent of dropped writers is thrown away, or could not be; at most as long
    /// as one attempt. A process that ends without it leaves parts in the store, which nobody sees.
    pub async fn settle(&self) {
        let aborts = &self.inner.aborts;
        aborts.close();
        aborts.wait().await;
        aborts.reopen();
    }

    /// Whether [`Self::rename`] takes one step, also for directories with all below them.
    pub fn renames_in_one_step(&self) -> bool {
        match &self.inner.store {
            Store::Local(_) => true,
            Store::Object(store) => store.renames_in_one_step(&self.inner.root),
        }
    }

    /// Gives a file or directory another name, in one step; `Unsupported` where the store has no
    /// such step (see [`Self::renames_in_one_step`]): copy, then delete.
    pub async fn rename(
        &self,
        from: &UfsUri,
        to: &UfsUri,
        mode: WriteMode,
    ) -> Result<(), UfsError> {
        let subject = self.subject("rename", from)?;
        let _to = self.subject("rename to", to)?;
        let _turn = self.turn().await;
        match &self.inner.store {
            Store::Local(store) => store.rename(&subject, from, to, mode).await,
            Store::Object(store) => store.rename(&subject, from, to, mode).await,
        }
    }
}

impl UfsWriter {
    /// Adds bytes to the file. Waits while as many parts as may are on their way.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), UfsError> {
        self.parts.push(bytes);
        while let Some(part) = self.parts.next_full() {
            self.put(part).await?;
        }
        Ok(())
    }

    /// Sends what is left and makes the file visible.
    pub async fn finish(mut self) -> Result<Written, UfsError> {
        let rest = self.parts.rest();
        let bytes = self.parts.total_bytes();
        let turn = self.ufs.inner.turns.acquire().await.ok();
        let finished = match &mut self.sink {
            None => Err(failed_before(&self.subject)),
            Some(Sink::Local(writer)) => writer.finish(&self.subject, rest).await,
            Some(Sink::Object(writer)) => writer.finish(&self.subject, rest, bytes).await,
        };
        drop(turn);
        match finished {
            Ok(content_hash) => {
                self.sink = None;
                Ok(Written {
                    bytes,
                    content_hash,
                })
            }
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    /// The most that the writer holds in memory now: what waits for a whole part, and the parts that
    /// may be on their way.
    pub fn buffered_bytes(&self) -> u64 {
        match &self.sink {
            Some(Sink::Object(_)) => self.parts.waiting_bytes() + self.parts.most_on_their_way(),
            Some(Sink::Local(_)) => self.parts.waiting_bytes(),
            None => 0,
        }
    }

    /// Throws away what was sent.
    pub async fn abort(mut self) {
        if let Some(sink) = self.sink.take() {
            sink.abort(&self.subject).await;
        }
    }

    async fn put(&mut self, part: Vec<Bytes>) -> Result<(), UfsError> {
        let put = {
            let _turn = self.ufs.inner.turns.acquire().await.ok();
            match &mut self.sink {
                None => Err(failed_before(&self.subject)),
                Some(Sink::Local(writer)) => writer.put(&self.subject, part).await,
                Some(Sink::Object(writer)) => writer.put(&self.subject, part).await,
            }
        };
        if put.is_err()
            && let Some(sink) = self.sink.take()
        {
            sink.abort(&self.subject).await;
        }
        put
    }
}

impl Drop for UfsWriter {
    /// Aborting takes requests, so it goes on in the background.
    fn drop(&mut self) {
        if let (Some(sink), Ok(runtime)) = (self.sink.take(), Handle::try_current()) {
            let subject = self.subject.clone();
            let abort = async move { sink.abort(&subject).await };
            self.ufs.inner.aborts.spawn_on(abort, &runtime);
        }
    }
}

impl Sink {
    /// The target is as it was in any case, so a failure is only worth a log.
    async fn abort(self, subject: &Subject) {
        let aborted = tokio::time::timeout(READ_ATTEMPT_TIMEOUT, async {
            match self {
                Self::Local(writer) => writer.abort(subject).await,
                Self::Object(writer) => writer.abort(subject).await,
            }
        });
        match aborted.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "parts of a failed write may be left"),
            Err(_) => tracing::warn!(?subject, "parts of a failed write may be left: no answer"),
        }
    }
}

fn failed_before(subject: &Subject) -> UfsError {
    subject.invalid(
        "an earlier part of this write has failed",
        "begin the write anew",
    )
}
