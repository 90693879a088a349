//! `mount`: whether files can be written, and where they lie meanwhile.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ConfigError;
use crate::raw::Size;
use crate::validated::{ClientOptions, Consistency, FallbackPolicy, bytes};

/// Less than this does not hold two parts of an upload.
const LEAST_BYTES: u64 = 16 * 1024 * 1024;

/// How a dataset is mounted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMount {
    /// Whether every change is refused.
    pub read_only: bool,
    /// Folder of this node for files while they are written; each mount has one of its own below it.
    pub staging_path: String,
    /// The most that files of one mount take there at one time.
    pub staging_capacity: Size,
}

/// How a dataset is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountConfig {
    /// Whether every change is refused.
    pub read_only: bool,
    /// Folder for files while they are written; each mount has one of its own below it.
    pub staging_path: PathBuf,
    /// The most that files of one mount take there at one time.
    pub staging_capacity_bytes: u64,
}

impl Default for RawMount {
    fn default() -> Self {
        Self {
            // Who only reads loses nothing by a mistake.
            read_only: true,
            staging_path: "/var/lib/alluxio-dataset/staging".to_owned(),
            // As the disk cache: fits beside images and logs on the smallest node disk.
            staging_capacity: Size::text("10Gi"),
        }
    }
}

pub(crate) fn validate(raw: &RawMount, client: &ClientOptions) -> Result<MountConfig, ConfigError> {
    if !raw.read_only {
        is_possible(client)?;
    }
    let staging_capacity_bytes = bytes("mount.staging_capacity", &raw.staging_capacity)?;
    if staging_capacity_bytes < LEAST_BYTES {
        return Err(ConfigError::value(
            "mount.staging_capacity",
            format!("{staging_capacity_bytes} bytes is less than 16Mi: give more"),
        ));
    }
    let path = &raw.staging_path;
    if !path.starts_with('/') {
        return Err(ConfigError::value(
            "mount.staging_path",
            format!("`{path}` is not an absolute path: name a folder from `/` on"),
        ));
    }
    Ok(MountConfig {
        read_only: raw.read_only,
        staging_path: PathBuf::from(path),
        staging_capacity_bytes,
    })
}

/// What is written is looked up in the under-store at once.
fn is_possible(client: &ClientOptions) -> Result<(), ConfigError> {
    let reason = if client.consistency == Consistency::Pinned {
        "a dataset that is pinned to its manifest cannot be written: set client.consistency to live, \
         or leave the mount read-only"
    } else if client.fallback.policy == FallbackPolicy::Never {
        "with client.fallback.policy never nobody asks the under-store, which writing needs: choose \
         on_worker_failure or always, or leave the mount read-only"
    } else {
        return Ok(());
    };
    Err(ConfigError::value("mount.read_only", reason))
}

pub(crate) fn to_raw(config: &MountConfig) -> RawMount {
    RawMount {
        read_only: config.read_only,
        staging_path: config.staging_path.display().to_string(),
        staging_capacity: Size::Bytes(config.staging_capacity_bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use crate::Config;

    #[test]
    fn a_mount_is_read_only_unless_it_is_asked_for_and_survives_being_handed_on() {
        let config = Config::from_yaml("ufs: {uri: 's3://b/'}").unwrap();
        assert!(config.mount.read_only);
        let text = "ufs: {uri: 's3://b/'}\nmount: {read_only: false, staging_path: /s, \
                    staging_capacity: 1Gi}";
        let config = Config::from_yaml(text).unwrap();
        assert!(!config.mount.read_only);
        assert_eq!(config.mount.staging_capacity_bytes, 1 << 30);
        assert_eq!(Config::from_yaml(&config.to_yaml()).unwrap(), config);
    }

    #[test]
    fn what_cannot_be_written_is_mounted_read_only_or_not_at_all() {
        for client in [
            "consistency: pinned, manifest: {path: /m}",
            "fallback: {policy: never}",
        ] {
            let of =
                |mount| format!("ufs: {{uri: 's3://b/'}}\nclient: {{{client}}}\nmount: {mount}");
            assert!(Config::from_yaml(&of("{read_only: true}")).is_ok());
            let error = Config::from_yaml(&of("{read_only: false}")).unwrap_err();
            assert!(error.to_string().contains("mount.read_only"), "{error}");
        }
    }

    #[test]
    fn a_mistake_is_named() {
        for (field, value) in [("staging_path", "s"), ("staging_capacity", "1Mi")] {
            let text = format!("ufs: {{uri: 's3://b/'}}\nmount: {{{field}: '{value}'}}");
            let error = Config::from_yaml(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("mount.{field}")), "{error}");
        }
    }
}
