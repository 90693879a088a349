//! The status of a file or directory, as a worker's `info` and `files` write it.
//!
//! Alluxio writes an array in both cases (`info`: of one), with Gson's escapes (`\u003d` for `=`),
//! which any JSON parser undoes. Listings are unsorted, and a name with `\` arrives split, so the
//! full URI in `mUfsPath` is what counts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A file or a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A regular file: it has a length and pages.
    File,
    /// A directory, or a common prefix in an object store.
    Directory,
}

/// What is known of a file or directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileStatus {
    /// File or directory.
    pub kind: FileKind,
    /// The last part of the path.
    pub name: String,
    /// The path below the worker's UFS root, with a leading `/`.
    pub path: String,
    /// The full UFS URI.
    pub ufs_uri: String,
    /// Last modification in milliseconds since 1970, 0 where the store has none.
    pub modified_ms: i64,
    /// Length in bytes, 0 for a directory.
    pub length: u64,
    /// The store's hash of the content (an ETag without its quotes), where it has one.
    pub content_hash: Option<String>,
}

/// Names one version of a file's bytes; two equal versions of one URI have equal bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileVersion(String);

/// Why a worker's answer is not a list of statuses.
#[derive(Debug, thiserror::Error)]
#[error("worker's status answer is not what Alluxio writes: {0}")]
pub struct StatusError(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    clippy::struct_field_names,
    reason = "the names are Alluxio's: mType, mName, ..."
)]
struct RawStatus {
    m_type: FileKind,
    m_name: String,
    m_path: String,
    m_ufs_path: String,
    #[serde(default)]
    m_last_modification_time_ms: i64,
    #[serde(default)]
    m_length: u64,
    #[serde(default)]
    m_human_readable_file_size: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    m_content_hash: Option<String>,
}

impl FileStatus {
    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// The version of the bytes: the content hash where there is one, else mtime and length.
    pub fn version(&self) -> FileVersion {
        match self.content_hash.as_deref().filter(|hash| !hash.is_empty()) {
            Some(hash) => FileVersion(format!("etag:{hash}")),
            None => FileVersion(format!("mtime:{}:{}", self.modified_ms, self.length)),
        }
    }
}

impl FileVersion {
    /// The version with this text, as [`FileVersion::as_str`] gave it.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text of the version, printable ASCII where the store's hash is.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether other bytes have another version. Without a hash and a modification time, bytes of
    /// the same length look alike, so such a file is not kept beyond a process.
    pub fn tells_changes(&self) -> bool {
        !self.0.starts_with("mtime:0:")
    }

    /// The content hash, where the version was made from one.
    pub fn content_hash(&self) -> Option<&str> {
        self.0.strip_prefix("etag:")
    }
}

impl fmt::Display for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses the body of `info` or `files`.
pub fn parse_list(body: &[u8]) -> Result<Vec<FileStatus>, StatusError> {
    let raw: Vec<RawStatus> = serde_json::from_slice(body)?;
    Ok(raw.into_iter().map(from_raw).collect())
}

/// Writes the body of `info` or `files`.
pub fn to_json(statuses: &[FileStatus]) -> String {
    let raw: Vec<RawStatus> = statuses.iter().map(to_raw).collect();
    serde_json::to_string(&raw).unwrap_or_default()
}

/// A number of bytes as Alluxio writes it for people: `6B`, `1024.00KB`, `20.00MB`.
///
/// A unit is used until five thousand of it are reached (`FormatUtils.getSizeFromBytes`).
pub fn human_size(bytes: u64) -> String {
    const LARGEST_IN_UNIT: f64 = 5.0 * 1024.0;
    #[allow(
        clippy::cast_precision_loss,
        reason = "two decimals for people lose nothing that matters"
    )]
    let mut size = bytes as f64;
    if size <= LARGEST_IN_UNIT {
        return format!("{bytes}B");
    }
    for unit in ["KB", "MB", "GB", "TB"] {
        size /= 1024.0;
        if size <= LARGEST_IN_UNIT {
            return format!("{size:.2}{unit}");
        }
    }
    format!("{:.2}PB", size / 1024.0)
}

fn from_raw(raw: RawStatus) -> FileStatus {
    FileStatus {
        kind: raw.m_type,
        name: raw.m_name,
        path: raw.m_path,
        ufs_uri: raw.m_ufs_path,
        modified_ms: raw.m_last_modification_time_ms,
        length: raw.m_length,
        content_hash: raw.m_content_hash,
    }
}

fn to_raw(status: &FileStatus) -> RawStatus {
    RawStatus {
        m_type: status.kind,
        m_name: status.name.clone(),
        m_path: status.path.clone(),
        m_ufs_path: status.ufs_uri.clone(),
        m_last_modification_time_ms: status.modified_ms,
        m_length: status.length,
        m_human_readable_file_size: human_size(status.length),
        m_content_hash: status.content_hash.clone(),
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

    const BIG_FILE: &str = r#"[{"mType":"file","mName":"big0.bin","mPath":"/load/big0.bin","mUfsPath":"file:///srv/ufs/load/big0.bin","mLastModificationTimeMs":1795348595867,"mLength":20971520,"mHumanReadableFileSize":"20.00MB"}]"#;

    #[test]
    fn a_recorded_status_round_trips_to_the_byte() {
        let statuses = parse_list(BIG_FILE.as_bytes()).unwrap();
        assert_eq!(statuses[0].length, 20 << 20);
        assert_eq!(to_json(&statuses), BIG_FILE);
    }

    #[test]
    fn gson_escapes_are_undone() {
        let body = BIG_FILE.replace("big0", r"eq\u003dual");
        assert_eq!(parse_list(body.as_bytes()).unwrap()[0].name, "eq=ual.bin");
    }

    #[test]
    fn sizes_for_people_are_alluxios() {
        let sizes = [(6, "6B"), (1_048_577, "1024.00KB"), (8_912_897, "8.50MB")];
        for (bytes, text) in sizes {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn a_version_is_the_hash_or_time_and_length() {
        let mut status = parse_list(BIG_FILE.as_bytes()).unwrap().remove(0);
        assert_eq!(status.version().as_str(), "mtime:1795348595867:20971520");
        assert_eq!(status.version().content_hash(), None);
        status.content_hash = Some("abc".to_owned());
        assert_eq!(status.version().content_hash(), Some("abc"));
        status.content_hash = Some(String::new());
        assert_eq!(status.version().content_hash(), None);
    }

    #[test]
    fn other_shapes_are_refused() {
        for body in ["", "{}", "worker is active", r#"[{"mType":"socket"}]"#] {
            assert!(parse_list(body.as_bytes()).is_err(), "{body}");
        }
    }
}
