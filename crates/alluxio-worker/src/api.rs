//! Alluxio's REST, as this worker answers it: a request is read, served, counted.
//!
//! | endpoint | answer |
//! |---|---|
//! | `health`, `/healthz`, `/readyz` | whether it lives and whether it may get work |
//! | `info?path=`, `files?path=` | statuses in Alluxio's JSON |
//! | `file/{id}/page/{n}` GET | a page or a part, read through the under-store on a miss |
//! | `file/{id}/page/{n}` POST, PUT | keeps a page of the client's own, apart from the under-store's |
//! | `load?path=&opType=` | submits, describes and stops a distributed load |
//! | `node?path=` | the worker that owns a file |
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
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, Response, header};
use bytes::Bytes;
use hyper::body::Incoming;
use serde::Serialize;

pub(crate) use self::route::resolve;
use self::route::{Asked, LoadRequest};
use crate::failure::{Failure, FailureKind};
use crate::load::{Loader, MAX_BATCH_BYTES};
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::server::Handler;
use crate::store::PageKey;
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
    pub(crate) members: Arc<dyn Membership>,
    pub(crate) record: WorkerRecord,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Health,
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
#[serde(rename_all = "PascalCase")]
struct Node<'a> {
    host: &'a str,
    http_server_port: u16,
}

impl Handler for Api {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        let root = self.pages.ufs().root();
        let (name, asked) = route::read(root, request.method(), request.uri());
        let answered = match asked {
            Ok(asked) => self.answer_in_time(asked, request.map(Body::new)).await,
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
    to_bytes(request.into_body(), most).await.map_err(|_| {
        Failure::new(
            FailureKind::TooLarge,
            format!("the body broke off or is longer than the {most} bytes that are taken here"),
        )
    })
}
