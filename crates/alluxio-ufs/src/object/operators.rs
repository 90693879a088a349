//! OpenDAL operators, one a bucket, and what OpenDAL's errors mean.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;

use alluxio_config::{AddressingStyle, Credentials, UfsConfig};
use alluxio_wire::UfsUri;
use opendal::services::S3;
use opendal::{ErrorKind, HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use parking_lot::Mutex;

use crate::error::{Subject, UfsError, UfsErrorKind};
use crate::limits::{CONNECT_TIMEOUT, PARALLEL_OPERATIONS};

/// Buckets that are remembered. A dataset has one; a few more may come by hand.
const MAX_BUCKETS: usize = 64;

/// The region for stores that have none of their own; also AWS' default.
const DEFAULT_REGION: &str = "us-east-1";

/// The operators of a configuration; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Operators {
    config: Arc<UfsConfig>,
    transport: HttpTransporter,
    by_bucket: Arc<Mutex<HashMap<String, Operator>>>,
}

impl Operators {
    pub(super) fn new(config: &UfsConfig) -> Result<Self, UfsError> {
        let subject = Subject::new("use", &config.uri);
        let operators = Self {
            config: Arc::new(config.clone()),
            transport: transport(&subject)?,
            by_bucket: Arc::default(),
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
        let operator = self.build(subject, bucket)?;
        let mut by_bucket = self.by_bucket.lock();
        if by_bucket.len() >= MAX_BUCKETS {
            by_bucket.clear();
        }
        by_bucket.insert(bucket.to_owned(), operator.clone());
        Ok(operator)
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

    fn build(&self, subject: &Subject, bucket: &str) -> Result<Operator, UfsError> {
        let config = &self.config;
        if config.addressing_style == AddressingStyle::Virtual && bucket.contains('.') {
            return Err(subject.invalid(
                format!("the bucket name `{bucket}` has a dot and the addressing style is virtual"),
                "set the addressing style to path",
            ));
        }
        let region = config.region.as_deref().unwrap_or(DEFAULT_REGION);
        let mut builder = S3::default().bucket(bucket).region(region);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if config.addressing_style == AddressingStyle::Virtual {
            builder = builder.enable_virtual_host_style();
        }
        // Only `Environment` may look around for credentials: a dataset with keys of its own or
        // with none must not pick up the node's.
        builder = match &config.credentials {
            Credentials::Environment => builder,
            Credentials::Anonymous => builder
                .skip_signature()
                .disable_config_load()
                .disable_ec2_metadata(),
            Credentials::Keys { key, secret, token } => {
                let builder = builder
                    .access_key_id(key)
                    .secret_access_key(secret.expose())
                    .disable_config_load()
                    .disable_ec2_metadata();
                match token {
                    Some(token) => builder.session_token(token.expose()),
                    None => builder,
                }
            }
        };
        let operator = Operator::new(builder).map_err(|error| {
            subject.invalid(
                words_of(&error),
                "check bucket, endpoint and region of the dataset's UFS",
            )
        })?;
        let context = OperationContext::new().with_http_transport(self.transport.clone());
        Ok(operator.with_context(context))
    }
}

/// One pool of connections for all buckets.
fn transport(subject: &Subject) -> Result<HttpTransporter, UfsError> {
    // Without this the HTTP client would panic.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(subject.invalid(
            "no TLS provider is installed in this process",
            "install rustls' ring provider at the start of main",
        ));
    }
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(PARALLEL_OPERATIONS)
        // A signature is for one host, and a session token must not reach another one.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| {
            subject.invalid(
                format!("the HTTP client cannot be made: {error}"),
                "check the system's CA certificates and the proxy settings",
            )
        })?;
    Ok(HttpTransporter::new(ReqwestTransport::new(client)))
}

/// What an OpenDAL error means.
pub(super) fn from_opendal(subject: &Subject, error: &opendal::Error) -> UfsError {
    match error.kind() {
        ErrorKind::NotFound => subject.not_found(),
        ErrorKind::PermissionDenied => subject.error(
            UfsErrorKind::PermissionDenied,
            with_words("the store refuses it (403)", error),
            "check the dataset's credentials and that they allow s3:GetObject and s3:ListBucket",
        ),
        // While a request runs, OpenDAL says this of a bucket that does not exist.
        ErrorKind::ConfigInvalid => subject.error(
            UfsErrorKind::NotFound,
            with_words("the bucket does not exist (404)", error),
            "check bucket, endpoint and region of the dataset's UFS",
        ),
        ErrorKind::IsADirectory => subject.is_directory(),
        ErrorKind::NotADirectory => subject.not_directory(),
        ErrorKind::RateLimited => subject.error(
            UfsErrorKind::Throttled,
            words_of(error),
            "lower the load on the store, or ask its owner for more",
        ),
        _ if error.is_temporary() => subject.unavailable(words_of(error)),
        _ => subject.error(
            UfsErrorKind::Unexpected,
            words_of(error),
            "check endpoint and region of the dataset's UFS, and what the store logs",
        ),
    }
}

/// A cause, and the store's own words for it where it sent any: an answer to HEAD has none.
fn with_words(cause: &str, error: &opendal::Error) -> String {
    match words_of(error) {
        words if words.is_empty() => cause.to_owned(),
        words => format!("{cause}: {words}"),
    }
}

/// The error's own words and those of its causes, without request context.
fn words_of(error: &opendal::Error) -> String {
    let mut words = error.message().to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}
