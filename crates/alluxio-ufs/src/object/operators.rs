//! OpenDAL operators, one a bucket, and the connections that they share.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use alluxio_config::{Credentials, StoreKind, UfsConfig};
use alluxio_wire::UfsUri;
use http::{Request, Response};
use opendal::{
    Buffer, ErrorKind, HttpBody, HttpTransport, HttpTransporter, OperationContext, Operator,
};
use opendal_http_transport_reqwest::ReqwestTransport;
use parking_lot::Mutex;
use reqwest::redirect::{Attempt, Policy};

use super::build;
use super::direct::{Direct, Fetched};
use super::failure::{IsFolder, from_opendal, with_words};
use crate::buffers::Buffers;
use crate::error::{Subject, UfsError, UfsErrorKind};
use crate::limits::{CONNECT_TIMEOUT, PARALLEL_OPERATIONS};

/// Buckets that are remembered. A dataset has one; a few more may come by hand.
const MAX_BUCKETS: usize = 64;

/// Redirects that are followed: a name node sends to a data node, a web server to its new name and
/// from there to a mirror. More is a circle.
const MAX_REDIRECTS: usize = 5;

type ByBucket = Arc<Mutex<HashMap<String, Operator>>>;

/// What `memory:` URIs name is the process', as fsspec has it: who connects twice sees one store.
static MEMORY: LazyLock<ByBucket> = LazyLock::new(ByBucket::default);

/// The operators of a configuration; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Operators {
    config: Arc<UfsConfig>,
    kind: StoreKind,
    transport: HttpTransporter,
    by_bucket: ByBucket,
}

impl Operators {
    pub(super) fn new(
        config: &UfsConfig,
        kind: StoreKind,
        buffers: &Buffers,
    ) -> Result<Self, UfsError> {
        let subject = Subject::new("use", &config.uri);
        let operators = Self {
            config: Arc::new(config.clone()),
            kind,
            transport: transport(&subject, kind, buffers)?,
            by_bucket: match kind {
                StoreKind::Memory => Arc::clone(&MEMORY),
                _ => Arc::default(),
            },
        };
        // What is wrong with the configuration should be said now, not at the first read.
        operators.of(&subject, &config.uri)?;
        Ok(operators)
    }

    /// The operator of the URI's bucket.
    pub(super) fn of(&self, subject: &Subject, uri: &UfsUri) -> Result<Operator, UfsError> {
        let bucket = uri.authority();
        if let Some(operator) = self.by_bucket.lock().get(bucket) {
            return Ok(operator.clone());
        }
        let context = OperationContext::new().with_http_transport(self.transport.clone());
        let operator = build::operator(subject, &self.config, uri, self.kind)?;
        let operator = operator.with_context(context);
        let mut by_bucket = self.by_bucket.lock();
        // What is in memory is nowhere else.
        if by_bucket.len() >= MAX_BUCKETS && self.kind != StoreKind::Memory {
            by_bucket.clear();
        }
        let kept = by_bucket.entry(bucket.to_owned()).or_insert(operator);
        Ok(kept.clone())
    }

    /// An error of this store, with the hint that no credentials were sent where that is so.
    pub(super) fn error(&self, subject: &Subject, error: &opendal::Error) -> UfsError {
        match (error.kind(), &self.config.credentials) {
            (ErrorKind::PermissionDenied, Credentials::Anonymous) => subject.error(
                UfsErrorKind::PermissionDenied,
                with_words("the store refuses it without credentials (403)", error),
                "give the dataset credentials that may read and list the bucket",
            ),
            _ => from_opendal(subject, error),
        }
    }
}

/// The general client, and the direct way for what goes it.
struct Transport {
    general: ReqwestTransport,
    direct: Option<Direct>,
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        if let Some(direct) = self.direct.as_ref().filter(|it| it.takes(&request))
            && let Fetched::Answer(answer) = direct.fetch(&request).await?
        {
            return Ok(answer);
        }
        self.general.fetch(request).await
    }
}

/// One pool of connections for all buckets.
fn transport(
    subject: &Subject,
    kind: StoreKind,
    buffers: &Buffers,
) -> Result<HttpTransporter, UfsError> {
    // Without this the HTTP client would panic.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(subject.invalid(
            "no TLS provider is installed in this process",
            "install rustls' ring provider at the start of main",
        ));
    }
    let (redirects, direct) = match kind {
        StoreKind::WebHdfs | StoreKind::Http => (Policy::custom(follow), None),
        // A signature is for one host, and a session token must not reach another one.
        _ => (Policy::none(), Some(Direct::new(buffers.clone()))),
    };
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(PARALLEL_OPERATIONS)
        .redirect(redirects)
        .build()
        .map_err(|error| {
            subject.invalid(
                format!("the HTTP client cannot be made: {error}"),
                "check the system's CA certificates and the proxy settings",
            )
        })?;
    Ok(HttpTransporter::new(Transport {
        general: ReqwestTransport::new(client),
        direct,
    }))
}

/// Follows a few redirects, never from TLS to plain text. The client itself takes the password off
/// requests that go to another host.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let Some(from) = attempt.previous().last() else {
        return attempt.follow();
    };
    let to = attempt.url();
    if to.path() == format!("{}/", from.path()) && to.host() == from.host() {
        return attempt.error(IsFolder);
    }
    if from.scheme() == "https" && to.scheme() != "https" {
        return attempt.error("the server redirects from https to http");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("the server redirects in a circle");
    }
    attempt.follow()
}
