//! Writing to an object store: one PUT, or parts side by side that are completed at the end.

use std::time::Duration;

use alluxio_wire::{FileStatus, UfsUri};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use opendal::options::{CopyOptions, WriteOptions};
use opendal::{Buffer, Capability, ErrorKind, Execute, Executor, Metadata, Operator, Writer};

use super::entries::{Depth, entries};
use super::{ObjectStore, keys};
use crate::error::{Subject, UfsError, UfsErrorKind};
use crate::limits::{ATTEMPT_TIMEOUT, ATTEMPTS, wait_before_attempt, with_retries};
use crate::write::{PARALLEL_PARTS, WriteMode};

/// Time for one attempt to send a part, or the whole of a small file: 16 MiB at 0.3 MB/s. Copies
/// within a store take as long: it copies gigabytes before it answers.
const WRITE_ATTEMPT_TIMEOUT: Duration = Duration::from_mins(1);

/// Time for one part of several. It is less than that of the call that waits for it, so that the
/// part is sent again, and not waited for once more.
const PART_TIMEOUT: Duration = Duration::from_secs(50);

/// Keys that one removal request names; S3 takes as many.
const DELETE_BATCH: usize = 1_000;

/// How a store makes a file visible in one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Nothing can be seen before the last request.
    AtOnce,
    /// It writes in place, so another name is written first and then renamed.
    ThenRenamed,
    /// It writes in place and cannot rename: a cut write can be seen.
    InPlace,
}

/// A file on its way into an object store.
#[derive(Debug)]
pub(crate) struct ObjectWriter {
    store: ObjectStore,
    operator: Operator,
    /// The key that is written; not the target's where that is named afterwards.
    key: String,
    target: String,
    mode: WriteMode,
    way: Way,
    /// Of a file of more than one part.
    parts: Option<PartsWriter>,
}

/// Runs the parts of a write that are sent side by side, and gives each its time.
struct PartTasks;

/// OpenDAL's writer has no Debug of its own.
struct PartsWriter(Writer);

impl Way {
    fn of(capability: Capability) -> Self {
        // Stores of parts or blocks complete them at the end; block stores tell no least size.
        let completes = capability.write_can_multi && !capability.rename;
        match (completes, capability.rename) {
            (true, _) => Self::AtOnce,
            (false, true) => Self::ThenRenamed,
            (false, false) => Self::InPlace,
        }
    }
}

impl ObjectStore {
    pub(crate) async fn writer(
        &self,
        subject: &Subject,
        uri: &UfsUri,
        mode: WriteMode,
    ) -> Result<ObjectWriter, UfsError> {
        let (operator, target) = self.writable(subject, uri)?;
        if mode == WriteMode::CreateNew {
            // Not every store heeds the condition that goes with the write.
            self.must_be_absent(subject, &operator, &target).await?;
        }
        let way = Way::of(operator.info().capability());
        let key = match way {
            Way::AtOnce | Way::InPlace => target.clone(),
            Way::ThenRenamed => beside(&target),
        };
        Ok(ObjectWriter {
            store: self.clone(),
            operator,
            key,
            target,
            mode,
            way,
            parts: None,
        })
    }

    /// An empty object with a `/` at the end of its key, where the store has no directories.
    pub(crate) async fn create_dir(&self, subject: &Subject, uri: &UfsUri) -> Result<(), UfsError> {
        if uri.path() == "/" {
            return self.status(subject, uri).await.map(drop);
        }
        let (operator, key) = self.writable(subject, uri)?;
        match self.status(subject, uri).await {
            Ok(status) if status.is_directory() => return Ok(()),
            Ok(_) => return Err(subject.already_exists()),
            Err(error) if error.kind() == UfsErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let marker = key + "/";
        with_retries(subject, ATTEMPT_TIMEOUT, || async {
            let made = operator.create_dir(&marker).await;
            made.map_err(|error| self.write_error(subject, &error))
        })
        .await
    }

    /// Files of one bucket.
    pub(crate) async fn delete_files(
        &self,
        subject: &Subject,
        uris: &[&UfsUri],
    ) -> Result<(), UfsError> {
        let mut keys = Vec::with_capacity(uris.len());
        let mut operator = None;
        for uri in uris {
            let (of_this, key) = self.writable(subject, uri)?;
            operator = Some(of_this);
            keys.push(key);
        }
        match operator {
            Some(operator) => self.delete_keys(subject, &operator, &keys).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn delete_dir(&self, subject: &Subject, uri: &UfsUri) -> Result<(), UfsError> {
        let (operator, key) = self.writable(subject, uri)?;
        let marker = key + "/";
        let mut found = entries(operator.clone(), subject.clone(), uri, Depth::One)?;
        let mut is_there = false;
        while let Some(entry) = found.try_next().await? {
            is_there = true;
            if entry.key() != marker {
                return Err(subject.not_empty());
            }
        }
        if is_there {
            return self.delete_keys(subject, &operator, &[marker]).await;
        }
        // A file, or nothing.
        self.status(subject, uri).await?;
        Err(subject.not_directory())
    }

    /// All keys below the directory's, in batches as the listing brings them.
    pub(crate) async fn delete_below(
        &self,
        subject: &Subject,
        uri: &UfsUri,
    ) -> Result<u64, UfsError> {
        let operator = self.operators.of(subject, uri)?;
        can_write(subject, &operator)?;
        let mut found = entries(operator.clone(), subject.clone(), uri, Depth::All)?;
        let (mut removed, mut kept) = (0, 0);
        let mut batch = Vec::new();
        while let Some(entry) = found.try_next().await? {
            if !keys::is_carried(entry.key()) {
                kept += 1;
                continue;
            }
            removed += u64::from(entry.is_file());
            batch.push(entry.key().to_owned());
            if batch.len() == DELETE_BATCH {
                self.delete_keys(subject, &operator, &batch).await?;
                batch.clear();
            }
        }
        // Directories of stores that have them go after what they held.
        batch.sort_unstable_by(|a, b| b.cmp(a));
        self.delete_keys(subject, &operator, &batch).await?;
        if kept > 0 {
            return Err(subject.error(
                UfsErrorKind::NotEmpty,
                format!("{kept} keys below it begin or end with a blank and were left"),
                "remove them with the store's own tools",
            ));
        }
        Ok(removed)
    }

    /// Copies in the store itself; `None` where it cannot.
    pub(crate) async fn copy_within(
        &self,
        subject: &Subject,
        source: &UfsUri,
        from: &FileStatus,
        to: &UfsUri,
        mode: WriteMode,
    ) -> Result<Option<crate::Written>, UfsError> {
        let (operator, target) = self.writable(subject, to)?;
        let capability = operator.info().capability();
        let in_one_store = source.authority() == to.authority();
        if !capability.copy || !in_one_store || Way::of(capability) != Way::AtOnce {
            return Ok(None);
        }
        if mode == WriteMode::CreateNew {
            self.must_be_absent(subject, &operator, &target).await?;
        }
        let options = CopyOptions {
            if_not_exists: mode == WriteMode::CreateNew && capability.copy_with_if_not_exists,
            concurrent: PARALLEL_PARTS,
            ..CopyOptions::default()
        };
        let key = keys::file_key(subject, source)?;
        with_retries(subject, WRITE_ATTEMPT_TIMEOUT, || async {
            let copied = operator.copy_options(&key, &target, options.clone()).await;
            copied.map_err(|error| self.write_error(subject, &error))
        })
        .await?;
        let copy = self.status(subject, to).await?;
        if copy.length != from.length {
            return Err(subject.changed(&from.version()));
        }
        Ok(Some(crate::Written {
            bytes: copy.length,
            content_hash: copy.content_hash,
        }))
    }

    pub(crate) fn renames_in_one_step(&self, root: &UfsUri) -> bool {
        let operator = self.operators.of(&Subject::new("rename", root), root);
        operator.is_ok_and(|operator| operator.info().capability().rename)
    }

    pub(crate) async fn rename(
        &self,
        subject: &Subject,
        from: &UfsUri,
        to: &UfsUri,
        mode: WriteMode,
    ) -> Result<(), UfsError> {
        let (operator, target) = self.writable(subject, to)?;
        if !operator.info().capability().rename || from.authority() != to.authority() {
            return Err(subject.unsupported("this store cannot rename: copy, then remove"));
        }
        if mode == WriteMode::CreateNew {
            self.must_be_absent(subject, &operator, &target).await?;
        }
        let key = keys::file_key(subject, from)?;
        // Once: after a lost answer a second try would find nothing to rename.
        match tokio::time::timeout(WRITE_ATTEMPT_TIMEOUT, operator.rename(&key, &target)).await {
            Ok(renamed) => renamed.map_err(|error| self.write_error(subject, &error)),
            Err(_) => Err(subject.timed_out(WRITE_ATTEMPT_TIMEOUT)),
        }
    }

    /// The operator and key of a file that may be written.
    fn writable(&self, subject: &Subject, uri: &UfsUri) -> Result<(Operator, String), UfsError> {
        let operator = self.operators.of(subject, uri)?;
        can_write(subject, &operator)?;
        let key = keys::file_key(subject, uri)?;
        if key.is_empty() {
            return Err(subject.is_directory());
        }
        let context = operator.context().with_executor(Executor::with(PartTasks));
        Ok((operator.with_context(context), key))
    }

    async fn must_be_absent(
        &self,
        subject: &Subject,
        operator: &Operator,
        key: &str,
    ) -> Result<(), UfsError> {
        let found = with_retries(subject, ATTEMPT_TIMEOUT, || async {
            match operator.stat(key).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(self.write_error(subject, &error)),
            }
        });
        if found.await? {
            return Err(subject.already_exists());
        }
        Ok(())
    }

    async fn delete_keys(
        &self,
        subject: &Subject,
        operator: &Operator,
        keys: &[String],
    ) -> Result<(), UfsError> {
        for batch in keys.chunks(DELETE_BATCH) {
            // A key that is gone already is well removed, so a batch can be repeated.
            with_retries(subject, WRITE_ATTEMPT_TIMEOUT, || async {
                let deleted = operator.delete_iter(batch.iter().map(String::as_str)).await;
                deleted.map_err(|error| self.write_error(subject, &error))
            })
            .await?;
        }
        Ok(())
    }

    fn write_error(&self, subject: &Subject, error: &opendal::Error) -> UfsError {
        match error.kind() {
            ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists => subject.already_exists(),
            ErrorKind::Unsupported => subject.unsupported(error.message().to_owned()),
            ErrorKind::PermissionDenied => subject.error(
                UfsErrorKind::PermissionDenied,
                format!("the store refuses the change (403): {}", error.message()),
                "give the dataset credentials that may write, such as s3:PutObject and \
                 s3:DeleteObject",
            ),
            ErrorKind::NotFound => subject.error(
                UfsErrorKind::NotFound,
                format!(
                    "the store has no such bucket or object: {}",
                    error.message()
                ),
                "check the name, and bucket and endpoint of the dataset's UFS",
            ),
            _ => self.operators.error(subject, error),
        }
    }
}

impl ObjectWriter {
    /// Sends one part beside others; waits while as many as may are on their way.
    pub(crate) async fn put(
        &mut self,
        subject: &Subject,
        part: Vec<Bytes>,
    ) -> Result<(), UfsError> {
        let repeats = self.repeats_parts();
        let store = self.store.clone();
        let writer = self.begun(subject).await?;
        let part = Buffer::from(part);
        let mut attempt = 1;
        loop {
            let sent = tokio::time::timeout(WRITE_ATTEMPT_TIMEOUT, writer.write(part.clone()));
            let error = match sent.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => store.write_error(subject, &error),
                Err(_) => subject.timed_out(WRITE_ATTEMPT_TIMEOUT),
            };
            if !repeats || attempt >= ATTEMPTS || !error.retryable() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "a part failed, trying again");
            wait_before_attempt(attempt).await;
            attempt += 1;
        }
    }

    /// Sends the rest, completes the file, and tells its hash.
    pub(crate) async fn finish(
        &mut self,
        subject: &Subject,
        rest: Vec<Bytes>,
        total_bytes: u64,
    ) -> Result<Option<String>, UfsError> {
        let written = if self.parts.is_none() {
            self.write_once(subject, rest).await?
        } else {
            self.put(subject, rest).await?;
            self.complete(subject).await?
        };
        if self.way == Way::ThenRenamed {
            self.rename(subject).await?;
        }
        tracing::debug!(key = self.target, total_bytes, "written");
        let hash = written.etag().map(keys::unquoted);
        Ok(hash.filter(|hash| !hash.is_empty()).map(str::to_owned))
    }

    pub(crate) async fn abort(mut self, subject: &Subject) -> Result<(), UfsError> {
        if let Some(PartsWriter(writer)) = &mut self.parts {
            match writer.abort().await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(error) => return Err(self.store.write_error(subject, &error)),
            }
        }
        if self.way == Way::ThenRenamed {
            let key = std::slice::from_ref(&self.key);
            self.store.delete_keys(subject, &self.operator, key).await?;
        }
        Ok(())
    }

    fn options(&self) -> WriteOptions {
        let capability = self.operator.info().capability();
        let is_new = self.mode == WriteMode::CreateNew && self.way != Way::ThenRenamed;
        WriteOptions {
            if_not_exists: is_new && capability.write_with_if_not_exists,
            concurrent: PARALLEL_PARTS,
            ..WriteOptions::default()
        }
    }

    /// Whether a failed part can be sent again: where parts have numbers, and not where bytes are
    /// appended to what is there.
    fn repeats_parts(&self) -> bool {
        self.way == Way::AtOnce
    }

    /// A small file by one request. It is repeated, unless it must be the first: after a lost
    /// answer, a second try would find the first one's file and call it somebody else's.
    async fn write_once(&self, subject: &Subject, rest: Vec<Bytes>) -> Result<Metadata, UfsError> {
        let (options, bytes) = (self.options(), Buffer::from(rest));
        let once = || async {
            let written = self
                .operator
                .write_options(&self.key, bytes.clone(), options.clone())
                .await;
            written.map_err(|error| self.store.write_error(subject, &error))
        };
        if !options.if_not_exists {
            return with_retries(subject, WRITE_ATTEMPT_TIMEOUT, once).await;
        }
        match tokio::time::timeout(WRITE_ATTEMPT_TIMEOUT, once()).await {
            Ok(written) => written,
            Err(_) => Err(subject.timed_out(WRITE_ATTEMPT_TIMEOUT)),
        }
    }

    async fn begun(&mut self, subject: &Subject) -> Result<&mut Writer, UfsError> {
        if self.parts.is_none() {
            let begun = self.operator.writer_options(&self.key, self.options());
            let writer = begun
                .await
                .map_err(|error| self.store.write_error(subject, &error))?;
            self.parts = Some(PartsWriter(writer));
        }
        match &mut self.parts {
            Some(PartsWriter(writer)) => Ok(writer),
            None => Err(subject.invalid("the write has ended", "begin it anew")),
        }
    }

    /// Waits for the parts under way, then completes. No part waits in the library (see `parts`),
    /// so a repeated try loses none.
    async fn complete(&mut self, subject: &Subject) -> Result<Metadata, UfsError> {
        let (repeats, store) = (self.repeats_parts(), self.store.clone());
        let writer = self.begun(subject).await?;
        let mut attempt = 1;
        loop {
            let closed = tokio::time::timeout(WRITE_ATTEMPT_TIMEOUT, writer.close());
            let error = match closed.await {
                Ok(Ok(metadata)) => return Ok(metadata),
                Ok(Err(error)) => store.write_error(subject, &error),
                Err(_) => subject.timed_out(WRITE_ATTEMPT_TIMEOUT),
            };
            if !repeats || attempt >= ATTEMPTS || !error.retryable() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "completing failed, trying again");
            wait_before_attempt(attempt).await;
            attempt += 1;
        }
    }

    async fn rename(&self, subject: &Subject) -> Result<(), UfsError> {
        let renaming = self.operator.rename(&self.key, &self.target);
        match tokio::time::timeout(WRITE_ATTEMPT_TIMEOUT, renaming).await {
            Ok(renamed) => renamed.map_err(|error| self.store.write_error(subject, &error)),
            Err(_) => Err(subject.timed_out(WRITE_ATTEMPT_TIMEOUT)),
        }
    }
}

impl Execute for PartTasks {
    fn execute(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn timeout(&self) -> Option<BoxFuture<'static, ()>> {
        Some(tokio::time::sleep(PART_TIMEOUT).boxed())
    }
}

impl std::fmt::Debug for PartsWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PartsWriter")
    }
}

fn can_write(subject: &Subject, operator: &Operator) -> Result<(), UfsError> {
    let info = operator.info();
    if info.capability().write {
        return Ok(());
    }
    Err(subject.unsupported(format!("the store `{}` can only be read", info.scheme())))
}

/// A name in the same directory that nobody has.
fn beside(key: &str) -> String {
    let (folder, slash) = match key.rsplit_once('/') {
        Some((folder, _)) => (folder, "/"),
        None => ("", ""),
    };
    let random = rand::random::<u64>();
    format!("{folder}{slash}.alluxio-write-{random:016x}.tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_writes_in_place_gets_another_name_first() {
        let of = |write_can_multi, rename| {
            Way::of(Capability {
                write: true,
                write_can_multi,
                rename,
                ..Capability::default()
            })
        };
        assert_eq!(of(true, false), Way::AtOnce);
        assert_eq!(of(true, true), Way::ThenRenamed);
        assert_eq!(of(false, true), Way::ThenRenamed);
        assert_eq!(of(false, false), Way::InPlace);
    }

    #[test]
    fn the_other_name_lies_in_the_same_directory() {
        assert!(beside("a/b/c").starts_with("a/b/.alluxio-write-"));
        assert!(beside("c").starts_with(".alluxio-write-"));
    }
}
