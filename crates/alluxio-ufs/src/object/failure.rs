//! What OpenDAL's errors mean.

use std::error::Error as _;
use std::fmt;

use hdfs_native::HdfsError;
use opendal::ErrorKind;

use crate::error::{Subject, UfsError, UfsErrorKind};

/// A web server that sends a folder's name on to the same name with a `/`. It travels as the cause
/// of an error, because a redirect that is not followed is an error to OpenDAL.
#[derive(Debug)]
pub(super) struct IsFolder;

impl fmt::Display for IsFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is a folder of a web server")
    }
}

impl std::error::Error for IsFolder {}

/// What an OpenDAL error means.
pub(super) fn from_opendal(subject: &Subject, error: &opendal::Error) -> UfsError {
    if cause::<IsFolder>(error).is_some() {
        return subject.is_directory();
    }
    if let Some(cause) = cause::<HdfsError>(error)
        && let Some(error) = from_hdfs(subject, cause)
    {
        return error;
    }
    match error.kind() {
        ErrorKind::NotFound => subject.not_found(),
        ErrorKind::PermissionDenied => subject.error(
            UfsErrorKind::PermissionDenied,
            with_words("the store refuses it (403)", error),
            "check the dataset's credentials and that they allow s3:GetObject and s3:ListBucket, \
             or what the store calls reading and listing",
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
        _ if error.is_temporary() => subject.unavailable(match words_of(error) {
            words if words.is_empty() => "the store failed and did not say why (5xx)".to_owned(),
            words => words,
        }),
        _ => subject.error(
            UfsErrorKind::Unexpected,
            words_of(error),
            "check endpoint and region of the dataset's UFS, and what the store logs",
        ),
    }
}

/// What a name node or data node said: OpenDAL takes nearly all of it as unexpected and final.
fn from_hdfs(subject: &Subject, error: &HdfsError) -> Option<UfsError> {
    match error {
        HdfsError::RPCError(class, words) | HdfsError::FatalRPCError(class, words) => {
            from_java(subject, class, words)
        }
        HdfsError::IOError(_)
        | HdfsError::DataTransferError(_)
        | HdfsError::ChecksumError
        | HdfsError::OperationFailed(_) => Some(subject.unavailable(error.to_string())),
        HdfsError::SASLError(_) => Some(subject.error(
            UfsErrorKind::PermissionDenied,
            format!("the cluster wants another way to sign in: {error}"),
            "Kerberos is not supported: use a cluster with simple authentication, or webhdfs:// \
             with a delegation token",
        )),
        _ => None,
    }
}

fn from_java(subject: &Subject, class: &str, words: &str) -> Option<UfsError> {
    let name = class.rsplit('.').next().unwrap_or(class);
    // The rest of it is a stack trace.
    let words = words.lines().next().unwrap_or_default().to_owned();
    match name {
        "AccessControlException" => Some(subject.error(
            UfsErrorKind::PermissionDenied,
            words,
            "check the user (HADOOP_USER_NAME) and the permissions of the path",
        )),
        "FileNotFoundException" | "PathIsNotDirectoryException" | "ParentNotDirectoryException" => {
            Some(subject.not_found())
        }
        "StandbyException" | "RetriableException" | "SafeModeException" => {
            Some(subject.unavailable(words))
        }
        _ => None,
    }
}

/// A cause and the store's own words for it where it sent any: an answer to HEAD has none.
pub(super) fn with_words(cause: &str, error: &opendal::Error) -> String {
    match words_of(error) {
        words if words.is_empty() => cause.to_owned(),
        words => format!("{cause}: {words}"),
    }
}

/// The error's own words and those of its causes, without request context.
pub(super) fn words_of(error: &opendal::Error) -> String {
    let mut words = error.message().to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

fn cause<T: std::error::Error + 'static>(error: &opendal::Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}
