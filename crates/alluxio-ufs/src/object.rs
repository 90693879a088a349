//! S3 and what speaks it, over OpenDAL, with an operator per bucket.
//!
//! Three requests carry everything: HEAD (a file's status), LIST (directories) and GET with a
//! range. A status asks HEAD first, for most names are files, and LIST only when HEAD finds none;
//! a store that fails HEAD on a directory's name instead of saying 404 (s3s-fs does) is thereby
//! served too. Times are cut to whole seconds: HEAD tells no more, and a version must not depend
//! on which request told it.

mod build;
mod direct;
mod entries;
mod failure;
mod keys;
mod operators;
pub(crate) mod write;

use std::ops::Range;

use alluxio_config::{StoreKind, UfsConfig};
use alluxio_wire::{FileStatus, FileVersion, UfsUri};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use opendal::{ErrorKind, Metadata, Operator, Reader};

use self::entries::{Depth, entries};
use self::operators::Operators;
use crate::buffers::Buffers;
use crate::error::{Subject, UfsError, UfsErrorKind};
use crate::limits::{ATTEMPT_TIMEOUT, MAX_LIST_ENTRIES, READ_ATTEMPT_TIMEOUT, with_retries};
use crate::status::{self, is_version};

/// The store of `s3:` URIs.
#[derive(Clone, Debug)]
pub(crate) struct ObjectStore {
    root: UfsUri,
    teller: Teller,
    operators: Operators,
}

/// One key of one bucket, and the operation that an error will name.
struct Target<'a> {
    subject: &'a Subject,
    operator: Operator,
    uri: &'a UfsUri,
    key: String,
}

/// What a GET's answer says of the object, and how many bytes it brings.
struct Received<'a> {
    metadata: Option<&'a Metadata>,
    bytes: u64,
}

/// A GET under way.
pub(crate) struct Body {
    /// What comes.
    pub(crate) chunks: BoxStream<'static, Result<Bytes, UfsError>>,
    /// What has come and was not used yet.
    pub(crate) rest: Bytes,
}

impl ObjectStore {
    pub(crate) fn new(
        config: &UfsConfig,
        kind: StoreKind,
        buffers: &Buffers,
    ) -> Result<Self, UfsError> {
        Ok(Self {
            root: config.uri.clone(),
            teller: Teller {
                root: config.uri.clone(),
                kind,
            },
            operators: Operators::new(config, kind, buffers)?,
        })
    }

    pub(crate) async fn status(
        &self,
        subject: &Subject,
        uri: &UfsUri,
    ) -> Result<FileStatus, UfsError> {
        let target = self.target(subject, uri)?;
        if target.key.is_empty() {
            return self.status_of_bucket(&target).await;
        }
        // A web server cannot tell what is below a name; what a dataset begins with holds files.
        let is_web_root = !can_list(&target.operator) && *uri == self.root;
        // One attempt, so that a store that fails HEAD on directories is not asked four times.
        let first = match tokio::time::timeout(ATTEMPT_TIMEOUT, self.head(&target)).await {
            Ok(Ok(status)) => return Ok(status),
            Ok(Err(error)) => error,
            Err(_) => subject.timed_out(ATTEMPT_TIMEOUT),
        };
        if first.kind() == UfsErrorKind::PermissionDenied && !is_web_root {
            return Err(first);
        }
        if first.kind() == UfsErrorKind::IsDirectory || (is_web_root && !first.retryable()) {
            return Ok(status::directory(&self.root, uri, 0));
        }
        if can_list(&target.operator) && self.has_something_below(&target).await? {
            return Ok(status::directory(&self.root, uri, 0));
        }
        if !first.retryable() {
            return Err(first);
        }
        with_retries(subject, ATTEMPT_TIMEOUT, || self.head(&target)).await
    }

    pub(crate) async fn list(
        &self,
        subject: &Subject,
        uri: &UfsUri,
    ) -> Result<Vec<FileStatus>, UfsError> {
        let operator = self.operators.of(subject, uri)?;
        must_list(subject, &operator)?;
        let mut found = entries(operator, subject.clone(), uri, Depth::One)?;
        let mut statuses = Vec::new();
        let mut is_empty = true;
        while let Some(entry) = found.try_next().await? {
            // HDFS tells a file, or WebHDFS what is not there at all, as the directory's own entry.
            is_empty &= entry.key().trim_matches('/') == uri.path().trim_matches('/');
            if let Some(name) = entry.name_below(uri) {
                statuses.push(entry.status(&self.teller, &name));
            }
            if statuses.len() > MAX_LIST_ENTRIES {
                return Err(subject.invalid(
                    format!("it holds more than {MAX_LIST_ENTRIES} entries"),
                    "spread the objects over several prefixes",
                ));
            }
        }
        // Nothing below: an empty bucket, a file, or nothing at all.
        if is_empty && !self.status(subject, uri).await?.is_directory() {
            return Err(subject.not_directory());
        }
        Ok(statuses)
    }

    pub(crate) fn walk(
        &self,
        subject: Subject,
        uri: UfsUri,
    ) -> BoxStream<'static, Result<FileStatus, UfsError>> {
        let started = self.operators.of(&subject, &uri).and_then(|operator| {
            must_list(&subject, &operator)?;
            entries(operator, subject.clone(), &uri, Depth::All)
        });
        let found = match started {
            Ok(found) => found,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let store = self.clone();
        // Asked for all below a file, HDFS tells the file as if it were a directory's marker.
        let own = uri.path().trim_matches('/').to_owned();
        let found = found.try_filter(move |entry| {
            let is_own = entry.key().trim_matches('/') == own;
            futures::future::ready(!is_own)
        });
        let mut found = found.boxed().peekable();
        stream::once(async move {
            // Nothing below: the one file itself, an empty bucket, or nothing at all.
            let alone = match std::pin::Pin::new(&mut found).peek().await {
                Some(_) => None,
                None => Some(store.status(&subject, &uri).await?),
            };
            let alone = stream::iter(alone.filter(|s| !s.is_directory()).map(Ok));
            let below = found.try_filter_map(move |entry| {
                let name = entry.name_below(&uri).filter(|_| entry.is_file());
                let status = name.map(|name| entry.status(&store.teller, &name));
                async move { Ok(status) }
            });
            Ok::<_, UfsError>(alone.chain(below))
        })
        .try_flatten()
        .boxed()
    }

    pub(crate) async fn read(
        &self,
        subject: &Subject,
        uri: &UfsUri,
        range: Range<u64>,
        version: Option<&FileVersion>,
        length: Option<u64>,
    ) -> Result<Bytes, UfsError> {
        let target = self.target(subject, uri)?;
        if target.key.is_empty() {
            return Err(subject.is_directory());
        }
        let read = |range: Range<u64>| {
            let target = &target;
            with_retries(subject, READ_ATTEMPT_TIMEOUT, move || {
                self.get(target, range.clone(), version, length)
            })
        };
        let error = match read(range.clone()).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let may_be_its_end = match error.kind() {
            UfsErrorKind::Unexpected | UfsErrorKind::NotFound => true,
            // It answers 403 to an offset behind the end.
            UfsErrorKind::PermissionDenied => self.teller.kind == StoreKind::WebHdfs,
            _ => false,
        };
        if !may_be_its_end {
            return Err(error);
        }
        // The object may end before the range does, or be a directory: its status tells.
        let status = self.status(subject, uri).await?;
        if status.is_directory() {
            return Err(subject.is_directory());
        }
        if let Some(version) = version
            && !(is_version(&status, version) && length.is_none_or(|it| it == status.length))
        {
            return Err(subject.changed(version));
        }
        match range.start..range.end.min(status.length) {
            // A short or long answer, where the object has it all.
            cut if cut == range && error.kind() == UfsErrorKind::Unexpected => {
                with_retries(subject, READ_ATTEMPT_TIMEOUT, || async {
                    let got = self.get(&target, cut.clone(), version, length).await;
                    got.map_err(UfsError::into_passing)
                })
                .await
            }
            cut if cut == range => Err(error),
            cut if cut.is_empty() => Ok(Bytes::new()),
            cut => read(cut).await,
        }
    }

    /// Starts one GET of a range of this version and waits for its first bytes.
    pub(crate) async fn open(
        &self,
        subject: &Subject,
        uri: &UfsUri,
        range: Range<u64>,
        version: &FileVersion,
    ) -> Result<Body, UfsError> {
        let target = self.target(subject, uri)?;
        if target.key.is_empty() {
            return Err(subject.is_directory());
        }
        let failed = self.failure_of(subject, Some(version));
        let reader = self.reader(&target, Some(version)).await.map_err(&failed)?;
        let range_bytes = range.end - range.start;
        let stream = reader.clone().into_bytes_stream(range).await;
        let mut chunks = stream.map_err(&failed)?.boxed();
        let io_failed = {
            let (subject, version) = (subject.clone(), version.clone());
            let store = self.clone();
            move |error: std::io::Error| match error.downcast::<opendal::Error>() {
                Ok(error) => store.failure_of(&subject, Some(&version))(error),
                Err(error) => subject.unavailable(error.to_string()),
            }
        };
        let first = chunks.try_next().await.map_err(&io_failed)?;
        let received = Received {
            metadata: reader.metadata(),
            bytes: range_bytes,
        };
        self.check_version(&target, &received, version, None)
            .await?;
        Ok(Body {
            chunks: chunks.map_err(io_failed).boxed(),
            rest: first.unwrap_or_default(),
        })
    }

    fn target<'a>(&self, subject: &'a Subject, uri: &'a UfsUri) -> Result<Target<'a>, UfsError> {
        Ok(Target {
            subject,
            operator: self.operators.of(subject, uri)?,
            uri,
            key: keys::file_key(subject, uri)?,
        })
    }

    async fn head(&self, target: &Target<'_>) -> Result<FileStatus, UfsError> {
        let stat = target.operator.stat(&target.key).await;
        let metadata = stat.map_err(|error| self.operators.error(target.subject, &error))?;
        Ok(self.teller.status(target.uri, &metadata))
    }

    /// One GET. A strong ETag goes along as If-Match; what came back is checked in any case, for
    /// not every store heeds the condition.
    async fn get(
        &self,
        target: &Target<'_>,
        range: Range<u64>,
        version: Option<&FileVersion>,
        length: Option<u64>,
    ) -> Result<Bytes, UfsError> {
        let failed = self.failure_of(target.subject, version);
        let reader = self.reader(target, version).await.map_err(&failed)?;
        let bytes = reader.read(range).await.map_err(&failed)?.to_bytes();
        if let Some(version) = version {
            let received = Received {
                metadata: reader.metadata(),
                bytes: bytes.len() as u64,
            };
            self.check_version(target, &received, version, length)
                .await?;
        }
        Ok(bytes)
    }

    async fn reader(
        &self,
        target: &Target<'_>,
        version: Option<&FileVersion>,
    ) -> opendal::Result<Reader> {
        let mut request = target.operator.reader_with(&target.key);
        let can = target.operator.info().capability();
        match version.and_then(FileVersion::content_hash) {
            Some(hash) if self.teller.is_generation(hash) => {
                request = request.if_version_match(hash);
            }
            Some(etag) if can.read_with_if_match && !etag.starts_with("W/") => {
                request = request.if_match(&format!("\"{etag}\""));
            }
            _ => {}
        }
        request.await
    }

    fn failure_of<'a>(
        &'a self,
        subject: &'a Subject,
        version: Option<&'a FileVersion>,
    ) -> impl Fn(opendal::Error) -> UfsError + 'a {
        move |error| match version {
            Some(version) if error.kind() == ErrorKind::ConditionNotMatch => {
                subject.changed(version)
            }
            _ => self.operators.error(subject, &error),
        }
    }

    /// Compares the version, and the length where one is known, with what the answer says; a store
    /// that does not say is asked again.
    async fn check_version(
        &self,
        target: &Target<'_>,
        received: &Received<'_>,
        version: &FileVersion,
        length: Option<u64>,
    ) -> Result<(), UfsError> {
        let mut status = match received.metadata {
            Some(metadata) => self.teller.status(target.uri, metadata),
            None => self.head(target).await?,
        };
        let is_so_long = |s: &FileStatus| length.is_none_or(|length| s.length == length);
        // A store that leaves the whole length out of its answer tells the part's instead.
        if !is_so_long(&status) && status.length == received.bytes {
            status = self.head(target).await?;
        }
        if is_version(&status, version) && is_so_long(&status) {
            return Ok(());
        }
        Err(target.subject.changed(version))
    }

    /// An empty bucket is a directory; a LIST tells whether there is a bucket at all.
    async fn status_of_bucket(&self, target: &Target<'_>) -> Result<FileStatus, UfsError> {
        if can_list(&target.operator) {
            self.has_something_below(target).await?;
        }
        Ok(status::directory(&self.root, target.uri, 0))
    }

    async fn has_something_below(&self, target: &Target<'_>) -> Result<bool, UfsError> {
        let (operator, subject) = (target.operator.clone(), target.subject.clone());
        let mut first = entries(operator, subject, target.uri, Depth::Any)?;
        Ok(first.try_next().await?.is_some())
    }
}

fn can_list(operator: &Operator) -> bool {
    operator.info().capability().list
}

fn must_list(subject: &Subject, operator: &Operator) -> Result<(), UfsError> {
    if can_list(operator) {
        return Ok(());
    }
    Err(subject.error(
        UfsErrorKind::Unsupported,
        "a web server cannot tell which files it has",
        "name the files one by one, or give the client a manifest of them",
    ))
}

/// What a store of this kind says of a key, as a status.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    root: UfsUri,
    kind: StoreKind,
}

impl Teller {
    /// The status of a file or, in stores that have directories, of one.
    pub(super) fn status(&self, uri: &UfsUri, metadata: &Metadata) -> FileStatus {
        if metadata.is_dir() {
            return status::directory(&self.root, uri, 0);
        }
        let time = metadata
            .last_modified()
            .map(opendal::raw::Timestamp::into_inner);
        // Where there is no hash the time is the version, to the last digit that there is. Where
        // there is one, HEAD tells whole seconds and a listing more: a version must not depend on
        // which of them told it.
        let is_exact = matches!(self.kind, StoreKind::Hdfs | StoreKind::WebHdfs);
        let modified_ms = time.map(|time| {
            if is_exact {
                time.as_millisecond()
            } else {
                time.as_second() * 1000
            }
        });
        status::file(
            &self.root,
            uri,
            metadata.content_length(),
            modified_ms.unwrap_or(0),
            self.hash(metadata),
        )
    }

    pub(super) fn directory(&self, uri: &UfsUri) -> FileStatus {
        status::directory(&self.root, uri, 0)
    }

    /// Google's ETags differ between its interfaces; the generation is the same in all.
    fn hash(&self, metadata: &Metadata) -> Option<String> {
        let generation = metadata.version().filter(|_| self.kind == StoreKind::Gcs);
        let etag = metadata.etag().map(keys::unquoted);
        let hash = generation.or(etag).filter(|hash| !hash.is_empty());
        hash.map(str::to_owned)
    }

    /// Whether the hash is what Google calls a generation.
    fn is_generation(&self, hash: &str) -> bool {
        self.kind == StoreKind::Gcs && hash.bytes().all(|byte| byte.is_ascii_digit())
    }
}
