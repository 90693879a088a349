//! Canonical under-store URIs and the file ids made from them.
//!
//! Alluxio addresses a cached file by the sha256 of its full UFS URI, so two spellings of one file
//! must become one string before they are hashed: `//`, `.`, `..` and a trailing `/` go, the scheme
//! is lower case, `file:/x` is `file:///x`. The scheme itself is kept: `s3a://` is another file
//! than `s3://`, as it is for Alluxio.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest URI that is accepted: S3 keys end at 1,024 bytes and Linux paths at 4,096.
pub const MAX_URI_BYTES: usize = 8 * 1024;

/// A canonical URI of a file or directory in the under-store, such as `s3://bucket/train/a.jpg`.
///
/// The path part is literal: `%`, `?` and `#` are characters of a name, not syntax.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UfsUri {
    text: String,
    scheme_end: usize,
    path_start: usize,
}

/// The sha256 of a file's canonical UFS URI, which names its pages on a worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId([u8; 32]);

/// Why a text is not a UFS URI. No message repeats an authority, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No `scheme:` at the front.
    #[error(
        "UFS URI `{0}` has no scheme: write it in full, such as s3://bucket/prefix or file:///data"
    )]
    NoScheme(String),
    /// A scheme with characters that RFC 3986 does not allow.
    #[error("UFS URI has the invalid scheme `{0}`: a scheme is letters, digits, `+`, `-` and `.`")]
    BadScheme(String),
    /// No bucket or host.
    #[error("UFS URI with scheme `{0}` has no bucket or host: write it as {0}://bucket/prefix")]
    NoAuthority(String),
    /// User name or password in the authority.
    #[error(
        "UFS URI with scheme `{0}` holds credentials before `@`: take them out and put them into \
         the credentials of the dataset (a Secret), never into the URI"
    )]
    Credentials(String),
    /// More `..` than there are directories.
    #[error("UFS URI path `{0}` leaves its root by `..`: write the path without `..`")]
    EscapesRoot(String),
    /// A NUL byte or another control character that no store can address safely.
    #[error("UFS URI holds the control character {0:?}: names cannot have it")]
    ControlCharacter(char),
    /// Longer than [`MAX_URI_BYTES`].
    #[error("UFS URI is {0} bytes long: at most {MAX_URI_BYTES} are accepted")]
    TooLong(usize),
    /// A relative path that does not name something below a directory.
    #[error("`{0}` is not a path below a directory: no empty, `.` or `..` part, no leading `/`")]
    BadRelativePath(String),
}

impl UfsUri {
    /// Parses and canonicalises a URI.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text.len() > MAX_URI_BYTES {
            return Err(UriError::TooLong(text.len()));
        }
        if let Some(c) = text
            .chars()
            .find(|c| *c == '\0' || *c == '\n' || *c == '\r')
        {
            return Err(UriError::ControlCharacter(c));
        }
        let (scheme, rest) = split_scheme(text)?;
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        check_authority(&scheme, authority)?;
        let path = canonical_path(path)?;
        Ok(Self::assemble(&scheme, authority, &path))
    }

    /// The canonical text, which is what Alluxio hashes.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme in lower case, without the colon.
    pub fn scheme(&self) -> &str {
        &self.text[..self.scheme_end]
    }

    /// Bucket, container or host; empty for `file`.
    pub fn authority(&self) -> &str {
        &self.text[self.scheme_end + 3..self.path_start]
    }

    /// The absolute path, `/` for the root of the store.
    pub fn path(&self) -> &str {
        match &self.text[self.path_start..] {
            "" => "/",
            path => path,
        }
    }

    /// The last part of the path, empty for the root of the store.
    pub fn name(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    /// The directory above, or `None` at the root of the store.
    pub fn parent(&self) -> Option<Self> {
        let path = self.path();
        let cut = path.rfind('/')?;
        (path != "/").then(|| Self::assemble(self.scheme(), self.authority(), &path[..cut]))
    }

    /// The URI of `relative` below this directory; the empty path is the directory itself.
    pub fn join(&self, relative: &str) -> Result<Self, UriError> {
        if relative.is_empty() {
            return Ok(self.clone());
        }
        let bad_part = |part: &str| matches!(part, "" | "." | "..");
        if relative.split('/').any(bad_part) {
            return Err(UriError::BadRelativePath(relative.to_owned()));
        }
        if let Some(c) = relative.chars().find(|c| matches!(c, '\0' | '\n' | '\r')) {
            return Err(UriError::ControlCharacter(c));
        }
        let base = self.path().trim_end_matches('/');
        let joined = Self::assemble(
            self.scheme(),
            self.authority(),
            &format!("{base}/{relative}"),
        );
        if joined.text.len() > MAX_URI_BYTES {
            return Err(UriError::TooLong(joined.text.len()));
        }
        Ok(joined)
    }

    /// The path from `root` to here without a leading `/`, empty at the root itself, or `None` when
    /// this is not below `root`.
    pub fn relative_to(&self, root: &Self) -> Option<&str> {
        if self.scheme() != root.scheme() || self.authority() != root.authority() {
            return None;
        }
        let rest = self
            .path()
            .strip_prefix(root.path().trim_end_matches('/'))?;
        match rest {
            "" => Some(""),
            _ => rest.strip_prefix('/'),
        }
    }

    /// The id under which workers keep this file's pages.
    pub fn file_id(&self) -> FileId {
        FileId(Sha256::digest(self.text.as_bytes()).into())
    }

    fn assemble(scheme: &str, authority: &str, canonical_path: &str) -> Self {
        let path = match canonical_path {
            "/" | "" if !authority.is_empty() => "",
            "" => "/",
            path => path,
        };
        let path_start = scheme.len() + 3 + authority.len();
        Self {
            text: format!("{scheme}://{authority}{path}"),
            scheme_end: scheme.len(),
            path_start,
        }
    }
}

fn split_scheme(text: &str) -> Result<(String, &str), UriError> {
    let no_scheme = || UriError::NoScheme(text.to_owned());
    let colon = text.find(':').ok_or_else(no_scheme)?;
    let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
    if scheme.is_empty() || scheme.contains('/') {
        return Err(no_scheme());
    }
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !valid {
        return Err(UriError::BadScheme(scheme.to_owned()));
    }
    if !rest.starts_with('/') {
        return Err(UriError::NoAuthority(scheme.to_ascii_lowercase()));
    }
    Ok((scheme.to_ascii_lowercase(), rest))
}

/// Azure's `container@account` is an address; any other `x@host` is a user, and `x:y@` a password.
fn check_authority(scheme: &str, authority: &str) -> Result<(), UriError> {
    if let Some((user, _)) = authority.rsplit_once('@') {
        let azure = matches!(scheme, "abfs" | "abfss" | "wasb" | "wasbs");
        if !azure || user.contains(':') {
            return Err(UriError::Credentials(scheme.to_owned()));
        }
    }
    match (scheme, authority) {
        ("file" | "memory", "") => Ok(()),
        (_, "") => Err(UriError::NoAuthority(scheme.to_owned())),
        _ => Ok(()),
    }
}

fn canonical_path(path: &str) -> Result<String, UriError> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts
                    .pop()
                    .ok_or_else(|| UriError::EscapesRoot(path.to_owned()))?;
            }
            _ => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

impl FileId {
    /// The id with these 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The id that somebody made of a path without canonicalising it, as the Python SDK does.
    pub fn of_text(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({self})")
    }
}

impl FromStr for FileId {
    type Err = hex::FromHexError;

    /// Takes 64 lower-case or upper-case hex digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for UfsUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for UfsUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UfsUri({})", self.text)
    }
}

impl FromStr for UfsUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for UfsUri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        Self::parse(&text)
    }
}

impl From<UfsUri> for String {
    fn from(uri: UfsUri) -> Self {
        uri.text
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        UfsUri::parse(text).unwrap().to_string()
    }

    #[test]
    fn spellings_of_one_file_become_one_string() {
        for spelling in [
            "file:///srv/ufs/hello.txt",
            "file:/srv/ufs/hello.txt",
            "file:///srv/ufs//hello.txt",
            "file:///srv/ufs/dir/../hello.txt",
            "file:///srv/ufs/./hello.txt/",
            "FILE:///srv/ufs/hello.txt",
        ] {
            assert_eq!(canonical(spelling), "file:///srv/ufs/hello.txt");
        }
        assert_eq!(canonical("s3://b/"), "s3://b");
        assert_eq!(canonical("s3://b"), "s3://b");
        assert_eq!(canonical("file:///"), "file:///");
    }

    #[test]
    fn a_file_id_is_what_the_recorded_worker_uses() {
        let uri = UfsUri::parse("file:///srv/ufs/pages/2.5pages.bin").unwrap();
        let recorded = "0014410f62aea1ced2229230d436de40579905e73f8827bb26aff8fae78d69e1";
        assert_eq!(uri.file_id().to_string(), recorded);
        assert_eq!(recorded.parse::<FileId>().unwrap(), uri.file_id());
    }

    #[test]
    fn the_scheme_is_part_of_the_identity() {
        let id = |text| UfsUri::parse(text).unwrap().file_id();
        assert_ne!(id("s3://b/k"), id("s3a://b/k"));
    }

    #[test]
    fn credentials_in_a_uri_are_refused_and_not_repeated() {
        for text in [
            "s3://AKIA:hunter2@b/k",
            "https://me@host/x",
            "abfs://a:hunter2@acct/x",
        ] {
            let error = UfsUri::parse(text).unwrap_err();
            assert!(matches!(error, UriError::Credentials(_)), "{error:?}");
            assert!(!error.to_string().contains("hunter2"));
        }
        assert_eq!(
            UfsUri::parse("abfs://c@acct/x").unwrap().authority(),
            "c@acct"
        );
    }

    #[test]
    fn bad_uris_say_what_is_wrong() {
        let error = |text: &str| UfsUri::parse(text).unwrap_err();
        assert!(matches!(error("bucket/key"), UriError::NoScheme(_)));
        assert!(matches!(error("/data"), UriError::NoScheme(_)));
        assert!(matches!(error("s3:///key"), UriError::NoAuthority(_)));
        assert!(matches!(error("s3:bucket"), UriError::NoAuthority(_)));
        assert!(matches!(error("3s://b/k"), UriError::BadScheme(_)));
        assert!(matches!(error("file:///../etc"), UriError::EscapesRoot(_)));
        assert!(matches!(
            error("s3://b/a\0b"),
            UriError::ControlCharacter('\0')
        ));
        let long = format!("s3://b/{}", "x".repeat(MAX_URI_BYTES));
        assert!(matches!(error(&long), UriError::TooLong(_)));
    }

    #[test]
    fn refusals_name_object_cause_and_remedy() {
        for (text, says) in [
            (
                "bucket/key",
                ["`bucket/key`", "no scheme", "write it in full"],
            ),
            ("s3:///key", ["`s3`", "no bucket", "s3://bucket/prefix"]),
            (
                "3s://b/k",
                ["`3s`", "invalid scheme", "a scheme is letters"],
            ),
            (
                "file:///../etc",
                ["/../etc", "leaves its root", "write the path without"],
            ),
            ("s3://k:p@b/x", ["`s3`", "credentials", "take them out"]),
        ] {
            let message = UfsUri::parse(text).unwrap_err().to_string();
            for part in says {
                assert!(message.contains(part), "{text}: no {part} in: {message}");
            }
        }
    }

    #[test]
    fn parts_and_parents_follow_the_path() {
        let uri = UfsUri::parse("s3://b/train/a?b#c%41.jpg").unwrap();
        assert_eq!(
            (uri.scheme(), uri.authority(), uri.path(), uri.name()),
            ("s3", "b", "/train/a?b#c%41.jpg", "a?b#c%41.jpg")
        );
        let parent = uri.parent().unwrap();
        assert_eq!(parent.as_str(), "s3://b/train");
        let root = parent.parent().unwrap();
        assert_eq!(
            (root.as_str(), root.path(), root.name()),
            ("s3://b", "/", "")
        );
        assert_eq!(root.parent(), None);
        let file = UfsUri::parse("file:///a").unwrap();
        assert_eq!(file.parent().unwrap().as_str(), "file:///");
    }

    #[test]
    fn relative_paths_stay_below_their_directory() {
        let root = UfsUri::parse("s3://b/train").unwrap();
        let file = root.join("n01/a b.jpg").unwrap();
        assert_eq!(file.as_str(), "s3://b/train/n01/a b.jpg");
        assert_eq!(file.relative_to(&root), Some("n01/a b.jpg"));
        assert_eq!(root.relative_to(&root), Some(""));
        let sibling = UfsUri::parse("s3://b/training/x").unwrap();
        assert_eq!(sibling.relative_to(&root), None);
        for bad in ["../x", "a//b", "/a", "a/", "a/./b"] {
            assert!(root.join(bad).is_err(), "{bad}");
        }
        let bucket = UfsUri::parse("s3://b").unwrap();
        assert_eq!(bucket.join("k").unwrap().as_str(), "s3://b/k");
        assert_eq!(file.relative_to(&bucket), Some("train/n01/a b.jpg"));
    }

    proptest! {
        #[test]
        fn canonical_form_is_a_fixed_point(text in "(s3|file|hdfs)://[a-z@:]{0,4}/[a-c/.é%? ]{0,24}") {
            if let Ok(uri) = UfsUri::parse(&text) {
                prop_assert_eq!(UfsUri::parse(uri.as_str()).unwrap(), uri);
            }
        }

        #[test]
        fn join_then_relative_to_gives_the_path_back(parts in prop::collection::vec("[a-zé%#?& ]{1,6}", 1..5)) {
            let root = UfsUri::parse("s3://b/p").unwrap();
            let relative = parts.join("/");
            let joined = root.join(&relative).unwrap();
            prop_assert_eq!(joined.relative_to(&root), Some(relative.as_str()));
        }
    }
}
