//! Why a call to etcd failed, with the endpoints that were asked and what to do about it.

use std::path::Path;

use tonic::{Code, Status};

use crate::tls;

/// Why a call to etcd failed.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// An empty list of endpoints.
    #[error("no etcd endpoint is given; write at least one host:port")]
    NoEndpoint,
    /// Not an address.
    #[error("etcd endpoint `{0}` is not an address; write host:2379 or http://host:2379")]
    BadEndpoint(String),
    /// A PEM file that cannot be used.
    #[error("etcd's TLS file {path}: {reason}; check the fields below tls and the file's rights")]
    TlsFile {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// No name for a server.
    #[error("tls.server_name `{0}` is no host name; write the name in etcd's certificate")]
    BadServerName(String),
    /// A client certificate that does not go with its key.
    #[error(
        "etcd's client certificate {certificate} and key {key} do not go together ({message}); \
         write the two files of one pair"
    )]
    ClientCertificate {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// The cause.
        message: String,
    },
    /// The two sides do not trust each other.
    #[error("no TLS connection to etcd at {endpoints} ({message}); {remedy}")]
    Tls {
        /// Who was asked.
        endpoints: String,
        /// The cause.
        message: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No answer in time.
    #[error(
        "etcd at {endpoints} did not answer {path} in time; check the endpoints and that they can \
         be reached from here"
    )]
    TimedOut {
        /// Who was asked.
        endpoints: String,
        /// What was asked.
        path: &'static str,
    },
    /// A wrong password, or a user without the right.
    #[error(
        "etcd at {endpoints} refused {path} ({message}); check user name and password, and the \
         user's right to the keys"
    )]
    Refused {
        /// Who was asked.
        endpoints: String,
        /// What was asked.
        path: &'static str,
        /// etcd's words.
        message: String,
        /// etcd's code.
        code: Code,
    },
    /// Any other failure.
    #[error(
        "etcd at {endpoints} failed {path} ({message}); check the endpoints (https:// where etcd \
         speaks TLS) and that they can be reached from here"
    )]
    Failed {
        /// Who was asked.
        endpoints: String,
        /// What was asked.
        path: &'static str,
        /// The cause.
        message: String,
        /// etcd's code.
        code: Code,
    },
    /// The history that a watch wanted is gone; read the keys again.
    #[error("the watched history was compacted up to revision {0}; the keys must be read again")]
    Compacted(i64),
    /// The lease ended; grant another and put the keys again.
    #[error("the lease expired; its keys are gone")]
    LeaseExpired,
}

impl EtcdError {
    pub(crate) fn from_status(endpoints: String, path: &'static str, status: &Status) -> Self {
        if let Some(error) = tls::below(status) {
            return Self::tls(endpoints, error);
        }
        let (code, message) = (status.code(), cause(status));
        match code {
            // A wrong password is an InvalidArgument to etcd.
            Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
                Self::Refused {
                    endpoints,
                    path,
                    message,
                    code,
                }
            }
            _ => Self::Failed {
                endpoints,
                path,
                message,
                code,
            },
        }
    }

    pub(crate) fn tls(endpoints: String, error: &rustls::Error) -> Self {
        Self::Tls {
            endpoints,
            message: error.to_string(),
            remedy: tls::remedy(error),
        }
    }

    pub(crate) fn file(path: &Path, reason: String) -> Self {
        Self::TlsFile {
            path: path.display().to_string(),
            reason,
        }
    }

    /// etcd's own code, where it answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } | Self::Failed { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// The message with what lies below it, such as "Connection refused".
fn cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut below = std::error::Error::source(status);
    while let Some(error) = below {
        text = format!("{text}: {error}");
        below = error.source();
    }
    text
}
