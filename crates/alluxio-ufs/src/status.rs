//! Statuses as both stores make them, and the question whether one is of a given version.

use alluxio_wire::{FileKind, FileStatus, FileVersion, UfsUri};

/// Whether `status` is of `version`.
///
/// A store may tell an ETag in one answer and leave it out in another (a listing, often): then two
/// statuses of the same bytes give two versions. So where the given version was made without a
/// hash, time and length decide, also when this status has a hash.
pub fn is_version(status: &FileStatus, version: &FileVersion) -> bool {
    if status.version() == *version {
        return true;
    }
    let without_hash = FileStatus {
        content_hash: None,
        ..status.clone()
    };
    without_hash.version() == *version
}

/// A file's status. The path below `root` is what Alluxio calls the file's path.
pub(crate) fn file(
    root: &UfsUri,
    uri: &UfsUri,
    length: u64,
    modified_ms: i64,
    content_hash: Option<String>,
) -> FileStatus {
    FileStatus {
        kind: FileKind::File,
        length,
        content_hash,
        ..directory(root, uri, modified_ms)
    }
}

/// A directory's status; `modified_ms` is 0 where the store keeps no time for it.
pub(crate) fn directory(root: &UfsUri, uri: &UfsUri, modified_ms: i64) -> FileStatus {
    let path = match uri.relative_to(root) {
        Some(relative) => format!("/{relative}"),
        None => uri.path().to_owned(),
    };
    FileStatus {
        kind: FileKind::Directory,
        name: uri.name().to_owned(),
        path,
        ufs_uri: uri.to_string(),
        modified_ms,
        length: 0,
        content_hash: None,
    }
}

/// Sorts by name. Where a file and a directory share a name, the file stays, as it does when its
/// status is asked for.
pub(crate) fn sort_and_dedup(statuses: &mut Vec<FileStatus>) {
    statuses.sort_by(|a, b| {
        let rank = |s: &FileStatus| s.is_directory();
        a.name.cmp(&b.name).then(rank(a).cmp(&rank(b)))
    });
    statuses.dedup_by(|later, first| later.name == first.name);
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    fn uri(text: &str) -> UfsUri {
        UfsUri::parse(text).unwrap()
    }

    #[test]
    fn paths_are_below_the_root() {
        let root = uri("s3://b/data");
        assert_eq!(directory(&root, &uri("s3://b/data/x/y"), 0).path, "/x/y");
        assert_eq!(directory(&root, &root, 0).path, "/");
        assert_eq!(directory(&root, &uri("s3://b/other"), 0).path, "/other");
    }

    #[test]
    fn a_version_without_a_hash_is_compared_by_time_and_length() {
        let root = uri("s3://b");
        let listed = file(&root, &uri("s3://b/k"), 5, 1000, None);
        let asked = file(&root, &uri("s3://b/k"), 5, 1000, Some("e1".to_owned()));
        let rewritten = file(&root, &uri("s3://b/k"), 5, 2000, Some("e2".to_owned()));
        assert!(is_version(&asked, &asked.version()));
        assert!(is_version(&asked, &listed.version()));
        assert!(!is_version(&rewritten, &listed.version()));
        assert!(!is_version(&rewritten, &asked.version()));
        assert!(!is_version(&listed, &asked.version()));
    }

    #[test]
    fn a_file_wins_over_a_directory_of_its_name() {
        let root = uri("s3://b");
        let mut both = vec![
            directory(&root, &uri("s3://b/z"), 0),
            directory(&root, &uri("s3://b/a"), 0),
            file(&root, &uri("s3://b/a"), 1, 0, None),
        ];
        sort_and_dedup(&mut both);
        let seen: Vec<_> = both
            .iter()
            .map(|s| (s.name.as_str(), s.is_directory()))
            .collect();
        assert_eq!(seen, [("a", false), ("z", true)]);
    }
}
