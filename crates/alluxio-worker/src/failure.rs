//! Why a request cannot be served, and the one table to HTTP codes.

use alluxio_ufs::{UfsError, UfsErrorKind};
use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde::Serialize;

/// Why a request cannot be served; clones go to all who wait for the same page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

/// What went wrong, as a client acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The request makes no sense.
    BadRequest,
    /// No token, or a wrong one.
    Unauthorized,
    /// Outside the worker's under-store, or refused by it.
    Forbidden,
    /// No such file, page or endpoint.
    NotFound,
    /// An endpoint that does not know this method.
    MethodNotAllowed,
    /// The under-store has another version, or the job runs already.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body did not come, or too slowly.
    TooSlow,
    /// Past the end of the page.
    OutOfRange,
    /// Too much is going on already.
    Busy,
    /// The under-store cannot be reached.
    BadGateway,
    /// Somebody did not answer in time.
    TimedOut,
    /// A bug, or a broken disk.
    Internal,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    message: &'a str,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(FailureKind::BadRequest, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// Whether the same may succeed later or elsewhere.
    pub(crate) fn retryable(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Busy
                | FailureKind::BadGateway
                | FailureKind::TimedOut
                | FailureKind::Internal
        )
    }

    pub(crate) fn response(&self) -> Response<Body> {
        let (status, error) = self.kind.status_and_word();
        let body = ErrorBody {
            error,
            message: &self.message,
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap_or_default()));
        *response.status_mut() = status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            let scheme = header::HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl FailureKind {
    fn status_and_word(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::NotFound => (StatusCode::NOT_FOUND, "NotFound"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::Conflict => (StatusCode::CONFLICT, "Conflict"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "TooLarge"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "TooSlow"),
            Self::OutOfRange => (StatusCode::RANGE_NOT_SATISFIABLE, "OutOfRange"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Busy"),
            Self::BadGateway => (StatusCode::BAD_GATEWAY, "UnderStoreUnavailable"),
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "TimedOut"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
        }
    }
}

impl From<alluxio_client::Error> for Failure {
    fn from(error: alluxio_client::Error) -> Self {
        use alluxio_client::ErrorKind as Kind;
        let kind = match error.kind() {
            Kind::NotFound => FailureKind::NotFound,
            Kind::PermissionDenied => FailureKind::Forbidden,
            Kind::IsDirectory | Kind::NotDirectory | Kind::InvalidInput | Kind::Unsupported => {
                FailureKind::BadRequest
            }
            Kind::AlreadyExists | Kind::NotEmpty | Kind::Stale => FailureKind::Conflict,
            Kind::Throttled => FailureKind::Busy,
            Kind::TimedOut => FailureKind::TimedOut,
            Kind::Unavailable => FailureKind::BadGateway,
            Kind::Corrupt | Kind::NoSpace | Kind::Unexpected => FailureKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<UfsError> for Failure {
    fn from(error: UfsError) -> Self {
        let kind = match error.kind() {
            UfsErrorKind::NotFound => FailureKind::NotFound,
            UfsErrorKind::PermissionDenied => FailureKind::Forbidden,
            UfsErrorKind::IsDirectory
            | UfsErrorKind::NotDirectory
            | UfsErrorKind::InvalidInput
            | UfsErrorKind::Unsupported => FailureKind::BadRequest,
            UfsErrorKind::Changed | UfsErrorKind::AlreadyExists | UfsErrorKind::NotEmpty => {
                FailureKind::Conflict
            }
            UfsErrorKind::Throttled => FailureKind::Busy,
            UfsErrorKind::TimedOut => FailureKind::TimedOut,
            UfsErrorKind::Unavailable => FailureKind::BadGateway,
            UfsErrorKind::NoSpace | UfsErrorKind::Unexpected => FailureKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
