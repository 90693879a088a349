//! Extended attributes of files: they tell where a file's bytes are, to `getfattr -d`.

use alluxio_wire::FileStatus;

use crate::errno::Errno;
use crate::tree::Placement;

/// One of the attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attribute {
    /// Percent of the file in the mount's own cache; 100 only when all of it is.
    Cached,
    /// `worker` or `ufs`: where bytes that are not cached come from.
    Source,
    /// The version of the bytes.
    Version,
    /// The worker that the ring names for the file.
    Worker,
}

impl Attribute {
    const ALL: [Self; 4] = [Self::Cached, Self::Source, Self::Version, Self::Worker];

    /// The attribute of this name, where it is one of ours.
    pub(crate) fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|attribute| attribute.name().as_bytes() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cached => "user.alluxio.cached",
            Self::Source => "user.alluxio.source",
            Self::Version => "user.alluxio.version",
            Self::Worker => "user.alluxio.worker",
        }
    }

    /// The value for a file; none where the file has no such attribute.
    pub(crate) fn value(self, status: &FileStatus, placement: &Placement) -> Option<String> {
        match self {
            Self::Cached => Some(format!("{}", placement.cached_percent.floor())),
            Self::Source if placement.worker.is_some() => Some("worker".to_owned()),
            Self::Source => Some("ufs".to_owned()),
            Self::Version => Some(status.version().to_string()),
            Self::Worker => placement.worker.clone(),
        }
    }
}

/// The names of a file's attributes, each ended by a NUL as listxattr(2) wants them.
pub(crate) fn names(placement: &Placement) -> Vec<u8> {
    let mut names = Vec::new();
    for attribute in Attribute::ALL {
        if attribute != Attribute::Worker || placement.worker.is_some() {
            names.extend_from_slice(attribute.name().as_bytes());
            names.push(0);
        }
    }
    names
}

/// What GETXATTR and LISTXATTR answer.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Sized {
    /// The caller asked for the size alone.
    Size(u32),
    /// The value.
    Value(Vec<u8>),
}

/// The answer for a caller with this much room.
pub(crate) fn sized(value: Vec<u8>, room: u32) -> Result<Sized, Errno> {
    let size = u32::try_from(value.len()).map_err(|_| libc::E2BIG)?;
    match room {
        0 => Ok(Sized::Size(size)),
        room if room < size => Err(libc::ERANGE),
        _ => Ok(Sized::Value(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(worker: Option<&str>, cached_percent: f64) -> Placement {
        Placement {
            cached_percent,
            worker: worker.map(str::to_owned),
        }
    }

    fn file() -> FileStatus {
        FileStatus {
            kind: alluxio_wire::FileKind::File,
            name: "f".to_owned(),
            path: "/f".to_owned(),
            ufs_uri: "s3://b/f".to_owned(),
            modified_ms: 5,
            length: 9,
            content_hash: Some("abc".to_owned()),
        }
    }

    #[test]
    fn a_file_on_the_ring_names_its_worker() {
        let placement = placement(Some("10.0.0.1:28080"), 99.7);
        let values = Attribute::ALL.map(|attribute| attribute.value(&file(), &placement));
        let expected = ["99", "worker", "etag:abc", "10.0.0.1:28080"];
        assert_eq!(values, expected.map(|value| Some(value.to_owned())));
        let listed = names(&placement);
        assert_eq!(listed.split(|&byte| byte == 0).count(), 4 + 1);
    }

    #[test]
    fn a_file_without_a_worker_comes_from_the_ufs() {
        let placement = placement(None, 100.0);
        let value = |attribute: Attribute| attribute.value(&file(), &placement);
        assert_eq!(value(Attribute::Source).as_deref(), Some("ufs"));
        assert_eq!(value(Attribute::Cached).as_deref(), Some("100"));
        assert_eq!(value(Attribute::Worker), None);
        assert!(!names(&placement).ends_with(b"worker\0"));
    }

    #[test]
    fn names_of_others_are_not_ours() {
        assert_eq!(Attribute::of_name(b"security.capability"), None);
        assert_eq!(
            Attribute::of_name(b"user.alluxio.cached"),
            Some(Attribute::Cached)
        );
    }

    #[test]
    fn callers_may_ask_for_the_size_first() {
        assert_eq!(sized(b"abc".to_vec(), 0), Ok(Sized::Size(3)));
        assert_eq!(sized(b"abc".to_vec(), 2), Err(libc::ERANGE));
        assert_eq!(sized(b"abc".to_vec(), 3), Ok(Sized::Value(b"abc".to_vec())));
    }
}
