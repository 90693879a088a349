//! Alluxio's REST, as this worker answers it: a request is read, served, counted.
//!
//! | endpoint | answer |
//! |---|---|
//! | `health`, `/healthz`, `/readyz` | whether it lives and whether it may get work |
//! | `info?path=`, `files?path=` | statuses in Alluxio's JSON |
//! | `file/{id}/page/{n}` GET | a page or a part, read through the under-store on a miss |
//! | `file/{id}/page/{n}` POST, PUT | keeps a page of the client's own, apart from the under-store's |
//! | `chunk/{id}?ufsFullPath=&chunkSize=` GET | a whole file, chunked |
//! | `chunk/{id}?ufsFullPath=` POST | writes a file to the under-store |
//! | `range/{id}?ufsFullPath=&offset=&length=`, `head|tail/{id}?ufsFullPath=&numOfBytes=` | bytes of a file |
//! | `mkdir|touch|rm/{id}?ufsFullPath=`, `mv|copy/{id}?srcPath=&dstPath=` POST | changes the under-store |
//! | `load?path=&opType=` | submits, describes and stops a distributed load |
//! | `node?path=` | the worker that owns a file |
//! | `ufsInfo` | the root and the page size |
//! | `internal/load` POST | files that the coordinator of a load wants loaded here |
//! | `internal/invalidate/{id}?ufsFullPath=` POST | drops the pages and the status of a changed file |
//! | `/metrics` | Prometheus' text |
//!
//! Any prefix `/vN` or none. Failures are proper codes with a JSON body `{error, message}`.
//!
//! Optional parameters beyond Alluxio's for a page: `version`, so that no other version is served
//! (409 when the under-store has another one now), and `fileLength`, which must agree with it.

mod query;
mod route;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alluxio_client::membership::Membership;
use alluxio_telemetry::health::Health;
use alluxio_telemetry::metrics::{TEXT_FORMAT, encode};
use alluxio_ufs::UfsErrorKind;
use alluxio_wire::{FileId, FileStatus, LoadOp, UfsUri, WorkerRecord, status};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use serde::Serialize;

pub(crate) use self::route::resolve;
use self::route::{Asked, LoadRequest};
use crate::changes::Changes;
use crate::failure::{Failure, FailureKind};
use crate::load::{Loader, MAX_BATCH_BYTES};
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::ranges;
use crate::server::Handler;
use crate::store::PageKey;
use crate::token::Token;
use crate::version::Version;

/// How long an answer may take to begin. A page read through a slow store takes four attempts of
/// 30 s at the very worst; no client waits longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(130);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

/// The REST of one worker.
pub(crate) struct Api {
    pub(crate) pages: Pages,
    pub(crate) loader: Loader,
    pub(crate) changes: Changes,
    pub(crate) members: Arc<dyn Membership>,
    pub(crate) record: WorkerRecord,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Health,
    /// What clients must show, where anything.
    pub(crate) token: Option<Token>,
}

#[derive(Serialize)]
struct Written<'a> {
    success: bool,
    message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invalidated {
    success: bool,
    dropped_pages: usize,
}

#[derive(Serialize)]
struct Done {
    success: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UfsInfo<'a> {
    ufs_uri: &'a str,
    page_size_bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Node<'a> {
    host: &'a str,
    http_server_port: u16,
}

impl Handler for Api {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let began = Instant::now();
        let root = self.pages.ufs().root();
        let (name, asked) = route::read(root, request.method(), request.uri());
        let answered = match self.admit(asked, request.headers()).await {
            // How long these take is the client's doing: a file may be of any size. The pace of the
            // body and the under-store's own timeouts bound them.
            Ok(asked @ (Asked::WriteFile(_) | Asked::Change(_))) => {
                self.answer(asked, request).await
            }
            Ok(asked) => self.answer_in_time(asked, request).await,
            Err(failure) => Err(failure),
        };
        let response = answered.unwrap_or_else(|failure| {
            tracing::debug!(endpoint = name, ?failure, "a request failed");
            failure.response()
        });
        let status = response.status().as_u16();
        self.metrics.answered(name, status, began.elapsed());
        response
    }
}

impl Api {
    /// Who shows no token learns nothing but whether the worker lives.
    async fn admit(
        &self,
        asked: Result<Asked, Failure>,
        headers: &HeaderMap,
    ) -> Result<Asked, Failure> {
        match (&self.token, &asked) {
            (None, _) | (_, Ok(Asked::Health | Asked::Ready)) => {}
            (Some(token), _) => token.check(headers).await?,
        }
        asked
    }

    async fn answer_in_time(
        &self,
        asked: Asked,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.answer(asked, request)).await {
            Ok(answered) => answered,
            Err(_) => Err(Failure::new(
                FailureKind::TimedOut,
                format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
            )),
        }
    }

    async fn answer(
        &self,
        asked: Asked,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        match asked {
            Asked::Health => match self.health.liveness() {
                Ok(()) => Ok(answer(TEXT, "worker is active")),
                Err(reason) => Err(Failure::new(FailureKind::Busy, reason)),
            },
            Asked::Ready => match self.health.readiness() {
                Ok(()) => Ok(answer(TEXT, "ok\n")),
                Err(reason) => Err(Failure::new(FailureKind::Busy, reason)),
            },
            Asked::Metrics => {
                let families = self.metrics.registry().gather();
                Ok(answer(TEXT_FORMAT, encode(&families)))
            }
            Asked::Info(uri) => {
                let status = self.pages.statuses().refreshed(&uri).await?;
                Ok(answer(JSON, status::to_json(&[status.as_ref().clone()])))
            }
            Asked::Files(uri) => Ok(answer(JSON, status::to_json(&self.files(&uri).await?))),
            Asked::Page(page) => Ok(answer(BYTES, self.pages.get(&page).await?)),
            Asked::WritePage { file, index } => {
                let body = self.page_body(request).await?;
                self.write_page(file, index, body).await
            }
            Asked::Load(load) => self.load(load).await,
            Asked::Node(uri) => Ok(self.node(&uri)),
            Asked::UfsInfo => Ok(self.ufs_info()),
            Asked::Range(range) => {
                let bytes = ranges::read(&self.pages, &range).await?;
                let mut response = answer(BYTES, Body::from_stream(bytes.pieces));
                let length = HeaderValue::from(bytes.length);
                response
                    .headers_mut()
                    .insert(header::CONTENT_LENGTH, length);
                Ok(response)
            }
            Asked::Chunks(whole, most) => {
                let bytes = ranges::read(&self.pages, &whole).await?;
                let pieces = ranges::in_pieces(bytes.pieces, most);
                Ok(answer(BYTES, Body::from_stream(pieces)))
            }
            Asked::Change(change) => {
                self.changes.make(&change).await?;
                Ok(json(&Done { success: true }))
            }
            Asked::WriteFile(uri) => {
                let length = request.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
                let body = request.into_body().into_data_stream();
                self.changes.write(&uri, body, length).await?;
                Ok(json(&Done { success: true }))
            }
            Asked::Invalidate { file, uri } => Ok(json(&Invalidated {
                success: true,
                dropped_pages: self.pages.forget(&file, uri.as_ref()).await,
            })),
            Asked::LoadBatch => {
                let body = read_body(request, MAX_BATCH_BYTES).await?;
                let events = self.loader.begin_batch(&body)?;
                Ok(answer("application/x-ndjson", Body::from_stream(events)))
            }
        }
    }

    /// A directory's listing; a file's is the file itself, as Alluxio has it.
    async fn files(&self, uri: &UfsUri) -> Result<Vec<FileStatus>, Failure> {
        match self.pages.ufs().list(uri).await {
            Ok(statuses) => Ok(statuses),
            Err(error) if error.kind() == UfsErrorKind::NotDirectory => {
                let status = self.pages.statuses().refreshed(uri).await?;
                Ok(vec![status.as_ref().clone()])
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn page_body(&self, request: Request<Body>) -> Result<Bytes, Failure> {
        let page_bytes = self.pages.store().page_size().bytes();
        read_body(request, usize::try_from(page_bytes).unwrap_or(usize::MAX)).await
    }

    /// Keeps a page of the client's own, which only a request without `ufsFullPath` gets back: a
    /// client's word is not the under-store's. A page that is kept stays, as on the real worker.
    async fn write_page(
        &self,
        file: FileId,
        index: u64,
        body: Bytes,
    ) -> Result<Response<Body>, Failure> {
        if body.is_empty() {
            let refused = Written {
                success: false,
                message: "Failed to write page",
            };
            return Ok(json(&refused));
        }
        let version = Version::written();
        let key = PageKey {
            file,
            tag: version.tag(),
            index,
        };
        let written = self.pages.store().write(key, &version, body).await;
        written.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
        Ok(json(&Written {
            success: true,
            message: "Page written successfully",
        }))
    }

    async fn load(&self, request: LoadRequest) -> Result<Response<Body>, Failure> {
        let uri = &request.uri;
        match request.op {
            LoadOp::Submit => {
                let submitted = self.loader.submit(uri, request.options).await?;
                Ok(json(&submitted))
            }
            LoadOp::Stop => Ok(json(&self.loader.stop(uri).await)),
            LoadOp::Progress => {
                let progress = self.loader.progress(uri, request.question);
                Ok(answer(JSON, progress.to_json()))
            }
        }
    }

    fn ufs_info(&self) -> Response<Body> {
        json(&UfsInfo {
            ufs_uri: self.pages.ufs().root().as_str(),
            page_size_bytes: self.pages.store().page_size().bytes(),
        })
    }

    /// The owner by the ring; this worker where there is no ring.
    fn node(&self, uri: &UfsUri) -> Response<Body> {
        let owner = self.members.snapshot().owners(uri, 1).into_iter().next();
        let address = owner.map_or_else(
            || self.record.address.clone(),
            |owner| owner.address.as_ref().clone(),
        );
        json(&Node {
            host: &address.host,
            http_server_port: address.http_port,
        })
    }
}

fn answer(content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn json(value: &impl Serialize) -> Response<Body> {
    answer(JSON, serde_json::to_vec(value).unwrap_or_default())
}

async fn read_body(request: Request<Body>, most: usize) -> Result<Bytes, Failure> {
    let mut parts = request.into_body().into_data_stream();
    let mut body = BytesMut::new();
    let broken = |error: axum::Error| {
        let message = format!("the body of the request broke off: {error}");
        Failure::new(FailureKind::TooSlow, message)
    };
    while let Some(part) = parts.try_next().await.map_err(broken)? {
        if body.len() + part.len() > most {
            let message = format!("the body is longer than the {most} bytes that are taken here");
            return Err(Failure::new(FailureKind::TooLarge, message));
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}
