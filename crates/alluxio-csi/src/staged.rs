//! What is remembered of a staged volume, beside its staging path.
//!
//! A restarted driver must tell "staged so already" from "staged with other parameters", and the
//! mount itself cannot say. A small file beside the staging path can. It holds a fingerprint of the
//! parameters, never the parameters and no secret; it goes with the mount, since the kubelet expects
//! to remove an empty folder afterwards.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The shape of the file; a file of another shape is taken as none.
const SHAPE: u32 = 1;

/// What is known of a staged volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StagedRecord {
    shape: u32,
    /// The volume.
    pub volume_id: String,
    /// The dataset, for people who look.
    pub dataset: String,
    /// Fingerprint of the volume's attributes.
    pub fingerprint: String,
}

impl StagedRecord {
    /// The record of a volume with attributes of this fingerprint.
    pub fn new(volume_id: &str, dataset: String, fingerprint: &str) -> Self {
        let (volume_id, fingerprint) = (volume_id.to_owned(), fingerprint.to_owned());
        Self {
            shape: SHAPE,
            volume_id,
            dataset,
            fingerprint,
        }
    }

    /// The record beside `staging_path`; none where it is missing or not readable as one. Blocks.
    pub fn read(staging_path: &Path) -> io::Result<Option<Self>> {
        match fs::read(record_path(staging_path)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)
                .ok()
                .filter(Self::has_known_shape)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the record beside `staging_path`, whole or not at all. Blocks.
    pub fn write(&self, staging_path: &Path) -> io::Result<()> {
        let path = record_path(staging_path);
        let fresh = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&fresh)?
            .write_all(&serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }

    /// Removes the record beside `staging_path`, if there is one. Blocks.
    pub fn remove(staging_path: &Path) -> io::Result<()> {
        match fs::remove_file(record_path(staging_path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn has_known_shape(&self) -> bool {
        self.shape == SHAPE
    }
}

/// Beside the staging path, not in it: there it would be hidden below the mount.
fn record_path(staging_path: &Path) -> PathBuf {
    let name = staging_path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    staging_path.with_file_name(format!(".{name}.alluxio-dataset.json"))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_record_survives_and_only_root_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let staging = dir.path().join("globalmount");
        assert_eq!(StagedRecord::read(&staging).unwrap(), None);
        let record = StagedRecord::new("v", "ns/name".into(), "abc");
        record.write(&staging).unwrap();
        assert_eq!(StagedRecord::read(&staging).unwrap(), Some(record));
        let mode = fs::metadata(record_path(&staging))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn removing_leaves_the_folder_empty() {
        let dir = tempfile::tempdir().unwrap();
        let staging = dir.path().join("globalmount");
        StagedRecord::new("v", "ns/name".into(), "abc")
            .write(&staging)
            .unwrap();
        StagedRecord::remove(&staging).unwrap();
        StagedRecord::remove(&staging).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_torn_record_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let staging = dir.path().join("globalmount");
        fs::write(record_path(&staging), b"{\"shape\":1,\"volu").unwrap();
        assert_eq!(StagedRecord::read(&staging).unwrap(), None);
    }
}
