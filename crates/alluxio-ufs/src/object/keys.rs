//! Keys of a bucket and URIs: which key a URI has, and which keys a URI can carry. Pure.

use alluxio_wire::UfsUri;

use crate::error::{Subject, UfsError};

/// The key of a file; empty for the bucket itself.
pub(super) fn file_key(subject: &Subject, uri: &UfsUri) -> Result<String, UfsError> {
    let key = uri.path().trim_start_matches('/');
    if is_carried(key) {
        Ok(key.to_owned())
    } else {
        Err(subject.invalid(
            "its key begins or ends with a blank, which the store's library takes off",
            "rename the object",
        ))
    }
}

/// The prefix of a directory as OpenDAL wants it: `/` for the bucket, else with a `/` at the end.
pub(super) fn directory_prefix(subject: &Subject, uri: &UfsUri) -> Result<String, UfsError> {
    let key = file_key(subject, uri)?;
    Ok(key + "/")
}

/// The name of `key` below `directory` when a URI can carry it: no empty, `.` or `..` part, no
/// blank at its ends. A `/` at the end, of a directory, is not part of the name.
pub(super) fn name_below(directory: &UfsUri, key: &str) -> Option<UfsUri> {
    let prefix = match directory.path().trim_start_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let name = key.strip_prefix(&prefix)?;
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.is_empty() || !is_carried(key.strip_suffix('/').unwrap_or(key)) {
        return None;
    }
    directory.join(name).ok()
}

/// An ETag without its quotes; the `W/` of a weak one stays.
pub(super) fn unquoted(etag: &str) -> &str {
    etag.strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(etag)
}

/// Whether OpenDAL keeps the key as it is: it trims blanks off both ends.
pub(super) fn is_carried(key: &str) -> bool {
    key.trim() == key
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn below(directory: &str, key: &str) -> Option<String> {
        let directory = UfsUri::parse(directory).unwrap();
        name_below(&directory, key).map(|uri| uri.to_string())
    }

    #[test]
    fn keys_below_a_directory_become_uris() {
        let found = |key| below("s3://b/d", key);
        assert_eq!(found("d/a b%?#.jpg").unwrap(), "s3://b/d/a b%?#.jpg");
        assert_eq!(found("d/sub/").unwrap(), "s3://b/d/sub");
        assert_eq!(found("d/sub/x").unwrap(), "s3://b/d/sub/x");
        assert_eq!(below("s3://b", "k").unwrap(), "s3://b/k");
    }

    #[test]
    fn keys_that_no_uri_carries_are_left_out() {
        for key in [
            "d/", "d//", "d//x", "d/./x", "d/../x", "d/x\ny", "d/x ", "d/x /", "other/x",
        ] {
            assert_eq!(below("s3://b/d", key), None, "{key:?}");
        }
        assert_eq!(below("s3://b", " x"), None);
    }

    #[test]
    fn a_blank_at_the_end_of_a_key_is_refused_with_its_reason() {
        let uri = UfsUri::parse("s3://b/d/x ").unwrap();
        let error = file_key(&Subject::new("read", &uri), &uri).unwrap_err();
        assert!(error.to_string().contains("ends with a blank"), "{error}");
    }

    #[test]
    fn etags_lose_their_quotes_only() {
        assert_eq!(unquoted("\"abc-2\""), "abc-2");
        assert_eq!(unquoted("abc"), "abc");
        assert_eq!(unquoted("W/\"abc\""), "W/\"abc\"");
    }
}
