//! Versions of a file as a worker keeps them, and the tag that names one on disk.

use alluxio_ufs::is_version;
use alluxio_wire::{FileKind, FileStatus, FileVersion, UfsUri};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// The text of the version under which pages are kept that clients wrote themselves. No store's
/// version reads so, hence such pages are never served as a store's.
const WRITTEN: &str = "written";

/// One version of one file, as the under-store told it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Version {
    /// The file's UFS URI; unknown for pages that clients wrote by id alone.
    pub(crate) uri: Option<UfsUri>,
    /// The version's own text.
    text: FileVersion,
    modified_ms: i64,
    /// The whole file's length in bytes.
    pub(crate) length: u64,
}

/// Names a version in a directory name and in keys: a hash of its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct Tag(u128);

impl Version {
    /// The version that this status tells.
    pub(crate) fn of(uri: &UfsUri, status: &FileStatus) -> Self {
        Self {
            uri: Some(uri.clone()),
            text: status.version(),
            modified_ms: status.modified_ms,
            length: status.length,
        }
    }

    /// The version of pages that clients wrote by id.
    pub(crate) fn written() -> Self {
        Self {
            uri: None,
            text: FileVersion::from_text(WRITTEN),
            modified_ms: 0,
            length: 0,
        }
    }

    pub(crate) fn is_written(&self) -> bool {
        self.text.as_str() == WRITTEN
    }

    pub(crate) fn text(&self) -> &FileVersion {
        &self.text
    }

    pub(crate) fn tag(&self) -> Tag {
        Tag(xxh3_128(self.text.as_str().as_bytes()))
    }

    /// Whether `wanted` names this version, also when it was made from a status without a hash.
    pub(crate) fn is(&self, wanted: &FileVersion) -> bool {
        if self.is_written() {
            return false;
        }
        let status = FileStatus {
            kind: FileKind::File,
            name: String::new(),
            path: String::new(),
            ufs_uri: String::new(),
            modified_ms: self.modified_ms,
            length: self.length,
            content_hash: self.text.content_hash().map(str::to_owned),
        };
        is_version(&status, wanted)
    }
}

impl Tag {
    /// The name of the version's directory.
    pub(crate) fn directory_name(self) -> String {
        format!("{:032x}", self.0)
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

    fn version(hash: Option<&str>, modified_ms: i64) -> Version {
        let uri = UfsUri::parse("s3://b/k").unwrap();
        let status = FileStatus {
            kind: FileKind::File,
            name: "k".to_owned(),
            path: "/k".to_owned(),
            ufs_uri: uri.to_string(),
            modified_ms,
            length: 7,
            content_hash: hash.map(str::to_owned),
        };
        Version::of(&uri, &status)
    }

    #[test]
    fn a_version_is_known_by_its_hash_and_by_its_time() {
        let hashed = version(Some("e"), 5);
        assert!(hashed.is(&FileVersion::from_text("etag:e")));
        assert!(hashed.is(version(None, 5).text()));
        assert!(!hashed.is(version(None, 6).text()));
        assert!(!hashed.is(&FileVersion::from_text("etag:other")));
        assert_ne!(hashed.tag(), version(Some("f"), 5).tag());
    }

    #[test]
    fn written_pages_are_of_no_version_that_can_be_asked_for() {
        let written = Version::written();
        assert!(!written.is(&FileVersion::from_text(WRITTEN)));
        assert!(!written.is(&FileVersion::from_text("mtime:0:0")));
    }
}
