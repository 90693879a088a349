//! An S3 server in this process, over a folder that is only read.
//!
//! Listing, buckets and signatures are s3s' and s3s-fs'; objects are served here, because s3s-fs
//! hashes a whole file for the ETag of each request where nothing was uploaded through it, and
//! sends 4 KiB at a time. The ETag here is made from modification time and length.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Range,
    StreamingBlob, Timestamp,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;

/// Most bytes read and sent at a time: tokio's own largest file read.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A running server; dropping it stops it.
pub(crate) struct S3Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Keys that the server accepts.
pub(crate) struct Keys {
    /// Access key id.
    pub key: String,
    /// Secret access key.
    pub secret: String,
}

struct Store {
    files: FileSystem,
    root: PathBuf,
}

struct Object {
    path: PathBuf,
    length: u64,
    modified: Timestamp,
    tag: ETag,
}

impl S3Server {
    /// Serves the folders below `root` as buckets on a free port of 127.0.0.1.
    pub(crate) async fn start(root: &Path, keys: &Keys) -> Result<Self> {
        let files = FileSystem::new(root)
            .map_err(|error| anyhow::anyhow!("cannot serve {}: {error:?}", root.display()))?;
        let store = Store {
            files,
            root: root.to_owned(),
        };
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(SimpleAuth::from_single(
            keys.key.clone(),
            keys.secret.clone(),
        ));
        let service = builder.build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener
            .local_addr()
            .context("the S3 server has no address")?;
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Builder::new(TokioExecutor::new());
                    // A client that hangs up is no concern of the server's.
                    let _ended = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Self { address, task })
    }

    /// The endpoint URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    async fn object(&self, bucket: &str, key: &str) -> S3Result<Object> {
        let relative = Path::new(bucket).join(key);
        let plain = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || key.ends_with('/') {
            return Err(s3_error!(NoSuchKey));
        }
        let path = self.root.join(relative);
        let metadata = tokio::fs::metadata(&path).await;
        let metadata = metadata.ok().filter(std::fs::Metadata::is_file);
        let metadata = metadata.ok_or_else(|| s3_error!(NoSuchKey))?;
        let modified = metadata
            .modified()
            .map_err(|e| s3_error!(e, InternalError))?;
        let nanos = modified
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        Ok(Object {
            path,
            length: metadata.len(),
            modified: modified.into(),
            tag: ETag::Strong(format!("{nanos:x}-{:x}", metadata.len())),
        })
    }
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let bucket = request.input.bucket.clone();
        let mut response = self.files.list_objects_v2(request).await?;
        for listed in response.output.contents.iter_mut().flatten() {
            let key = listed.key.as_deref().unwrap_or_default();
            listed.e_tag = self
                .object(&bucket, key)
                .await
                .ok()
                .map(|object| object.tag);
        }
        Ok(response)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let object = self.object(&input.bucket, &input.key).await?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(object.length).ok(),
            last_modified: Some(object.modified),
            e_tag: Some(object.tag),
            ..HeadObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.object(&input.bucket, &input.key).await?;
        if let Some(ETagCondition::ETag(wanted)) = &input.if_match
            && !object.tag.strong_cmp(wanted)
        {
            return Err(s3_error!(PreconditionFailed));
        }
        let range = match input.range {
            Some(range) => range.check(object.length)?,
            None => 0..object.length,
        };
        let content_range = input
            .range
            .map(|_: Range| format!("bytes {}-{}/{}", range.start, range.end - 1, object.length));
        let failed = |e: std::io::Error| s3_error!(e, InternalError);
        let mut file = tokio::fs::File::open(&object.path).await.map_err(failed)?;
        file.seek(SeekFrom::Start(range.start))
            .await
            .map_err(failed)?;
        let length = range.end - range.start;
        // A small object needs no large buffer; and an empty buffer would end the stream at once.
        let chunk_bytes =
            usize::try_from(length).map_or(CHUNK_BYTES, |it| it.clamp(1, CHUNK_BYTES));
        let body = ReaderStream::with_capacity(file.take(length), chunk_bytes);
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(body)),
            content_length: i64::try_from(length).ok(),
            content_range,
            last_modified: Some(object.modified),
            e_tag: Some(object.tag),
            ..GetObjectOutput::default()
        }))
    }
}
