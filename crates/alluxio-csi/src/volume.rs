//! What a volume is, read from the attributes of its PersistentVolume.
//!
//! The attributes are parsed once, here at the edge, into types that hold no wrong value. Keys of
//! other owners (the kubelet adds facts about the pod, provisioners add their identity) are left
//! alone; an unknown key under our own prefix is a mistake and named as one. Credentials are not
//! attributes: anybody may read a PersistentVolume. They come as the call's secrets.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use alluxio_config::{Config, ConfigError, Credentials};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Prefix of all our attributes.
const PREFIX: &str = "alluxio-dataset.io/";
/// The client's configuration as YAML, without credentials.
pub const CONFIG_KEY: &str = "alluxio-dataset.io/config";
/// The dataset, as `namespace/name`.
pub const DATASET_KEY: &str = "alluxio-dataset.io/dataset";
/// JSON object with `uid`, `gid`, `fileMode` and `directoryMode`, each optional.
pub const MOUNT_OPTIONS_KEY: &str = "alluxio-dataset.io/mount-options";
/// All attributes that a volume of ours may carry.
const KEYS: [&str; 3] = [CONFIG_KEY, DATASET_KEY, MOUNT_OPTIONS_KEY];
/// Set by the kubelet for a volume that is written into the pod itself.
const EPHEMERAL_KEY: &str = "csi.storage.k8s.io/ephemeral";

/// A volume of ours.
#[derive(Debug, Clone)]
pub struct Volume {
    /// The dataset that it shows.
    pub dataset: DatasetName,
    /// The client's configuration.
    pub config: Config,
    /// How files show.
    pub options: MountOptions,
    /// Equal for equal attributes; tells nothing about them.
    pub fingerprint: String,
}

/// Name of a dataset in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Who owns the files and with which modes they show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountOptions {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of folders.
    pub directory_mode: u32,
}

/// Why a volume context is not a volume of ours. Each message is cause and remedy; the caller adds
/// the volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A required attribute is missing.
    #[error(
        "volume attribute `{0}` is missing, so this is not a volume of this driver; use the claim \
         that an AlluxioDataset makes"
    )]
    Missing(&'static str),
    /// An attribute under our prefix that we do not know.
    #[error("volume attribute `{0}` is not known; remove it, or correct its name")]
    Unknown(String),
    /// A volume written into the pod.
    #[error(
        "volumes written into the pod are not supported; use the claim that an AlluxioDataset makes"
    )]
    Ephemeral,
    /// The dataset's name has another shape.
    #[error("volume attribute `{DATASET_KEY}` is {0:?}; it must be namespace/name")]
    Dataset(String),
    /// The configuration cannot be used.
    #[error("volume attribute `{CONFIG_KEY}`: {0}")]
    Config(#[source] ConfigError),
    /// Credentials where anybody can read them.
    #[error(
        "volume attribute `{CONFIG_KEY}` holds credentials; move them to a Secret and name it as \
         the volume's nodeStageSecretRef"
    )]
    CredentialsInAttributes,
    /// The node-stage secret cannot be used.
    #[error("the node-stage secret: {0}")]
    Secret(#[source] ConfigError),
    /// The dataset signs in by a Secret, and none came.
    #[error(
        "the node-stage secret is empty, and the dataset needs credentials; put the access key id \
         and the secret access key into the Secret that the dataset names. The node's own \
         credentials are never used in their place"
    )]
    NoCredentials,
    /// The mount options have another shape.
    #[error(
        "volume attribute `{MOUNT_OPTIONS_KEY}`: {0}; it must be a JSON object with uid, gid, \
         fileMode and directoryMode, the modes as octal text such as \"0444\""
    )]
    MountOptions(String),
}

impl Volume {
    /// Reads a volume context.
    pub fn parse(context: &HashMap<String, String>) -> Result<Self, VolumeError> {
        if context
            .get(EPHEMERAL_KEY)
            .is_some_and(|value| value == "true")
        {
            return Err(VolumeError::Ephemeral);
        }
        let ours: BTreeMap<&str, &str> = context
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .filter(|(key, _)| key.starts_with(PREFIX))
            .collect();
        if let Some(unknown) = ours.keys().find(|key| !KEYS.contains(key)) {
            return Err(VolumeError::Unknown((*unknown).to_owned()));
        }
        let required = |key| ours.get(key).copied().ok_or(VolumeError::Missing(key));
        let config = Config::from_yaml(required(CONFIG_KEY)?).map_err(VolumeError::Config)?;
        if config.ufs.has_secrets() {
            return Err(VolumeError::CredentialsInAttributes);
        }
        Ok(Self {
            dataset: DatasetName::parse(required(DATASET_KEY)?)?,
            config,
            options: MountOptions::parse(ours.get(MOUNT_OPTIONS_KEY).copied().unwrap_or("{}"))?,
            fingerprint: fingerprint(&ours),
        })
    }

    /// The client's configuration with the credentials of a node-stage secret.
    ///
    /// Without a secret only an anonymous dataset can be mounted: whoever may empty a Secret in a
    /// namespace must not come to read with what the node itself may.
    pub fn config_with(&self, secrets: HashMap<String, String>) -> Result<Config, VolumeError> {
        if secrets.is_empty() {
            return match self.config.ufs.credentials {
                Credentials::Environment => Err(VolumeError::NoCredentials),
                _ => Ok(self.config.clone()),
            };
        }
        let secrets: BTreeMap<String, String> = secrets.into_iter().collect();
        self.config
            .with_credentials(&secrets)
            .map_err(VolumeError::Secret)
    }
}

impl DatasetName {
    fn parse(text: &str) -> Result<Self, VolumeError> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(VolumeError::Dataset(text.to_owned())),
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The mount options as they are written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawMountOptions {
    uid: Option<u32>,
    gid: Option<u32>,
    file_mode: Option<String>,
    directory_mode: Option<String>,
}

impl Default for MountOptions {
    /// Readable by everybody, owned by root: the volume is read-only anyway.
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            file_mode: 0o444,
            directory_mode: 0o555,
        }
    }
}

impl MountOptions {
    fn parse(json: &str) -> Result<Self, VolumeError> {
        let raw: RawMountOptions = serde_json::from_str(json)
            .map_err(|error| VolumeError::MountOptions(error.to_string()))?;
        let default = Self::default();
        Ok(Self {
            uid: raw.uid.unwrap_or(default.uid),
            gid: raw.gid.unwrap_or(default.gid),
            file_mode: mode("fileMode", raw.file_mode, default.file_mode)?,
            directory_mode: mode("directoryMode", raw.directory_mode, default.directory_mode)?,
        })
    }
}

fn mode(field: &str, text: Option<String>, default: u32) -> Result<u32, VolumeError> {
    let Some(text) = text else { return Ok(default) };
    u32::from_str_radix(&text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| VolumeError::MountOptions(format!("{field} is {text:?}")))
}

/// A digest of our attributes. Lengths are part of it, so that no two contexts run together.
fn fingerprint(ours: &BTreeMap<&str, &str>) -> String {
    let mut digest = Sha256::new();
    for text in ours.iter().flat_map(|(key, value)| [key, value]) {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    const YAML: &str = "ufs: {uri: 's3://bucket/data/', anon: true}";

    fn context(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let base = [(CONFIG_KEY, YAML), (DATASET_KEY, "ns/name")];
        let all = base.iter().chain(pairs);
        all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn error_of(context: &HashMap<String, String>) -> String {
        Volume::parse(context).unwrap_err().to_string()
    }

    #[test]
    fn a_nodes_own_credentials_never_stand_in_for_an_empty_secret() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let context = HashMap::from([
            pair(CONFIG_KEY, "ufs: {uri: 's3://bucket/data/'}"),
            pair(DATASET_KEY, "vision/imagenet"),
        ]);
        let volume = Volume::parse(&context).unwrap();
        let refused = volume.config_with(HashMap::new()).unwrap_err();
        assert!(matches!(refused, VolumeError::NoCredentials));
        let secret = HashMap::from([pair("key", "K"), pair("secret", "S")]);
        let config = volume.config_with(secret).unwrap();
        assert!(matches!(config.ufs.credentials, Credentials::Keys { .. }));
    }

    #[test]
    fn a_volume_of_ours_is_read_whole() {
        let options = r#"{"uid": 7, "gid": 8, "fileMode": "0440", "directoryMode": "550"}"#;
        let volume = Volume::parse(&context(&[(MOUNT_OPTIONS_KEY, options)])).unwrap();
        assert_eq!(volume.dataset.to_string(), "ns/name");
        assert_eq!(volume.config.ufs.uri.as_str(), "s3://bucket/data");
        let expected = MountOptions {
            uid: 7,
            gid: 8,
            file_mode: 0o440,
            directory_mode: 0o550,
        };
        assert_eq!(volume.options, expected);
    }

    #[test]
    fn a_context_that_is_not_ours_says_what_to_use_instead() {
        let message = error_of(&HashMap::from([("other/driver".into(), "x".into())]));
        assert!(
            message.contains(CONFIG_KEY) && message.contains("AlluxioDataset"),
            "{message}"
        );
    }

    #[test]
    fn keys_of_others_are_left_alone_and_do_not_change_the_fingerprint() {
        let plain = Volume::parse(&context(&[])).unwrap();
        let pod = Volume::parse(&context(&[("csi.storage.k8s.io/pod.name", "p")])).unwrap();
        assert_eq!(plain.fingerprint, pod.fingerprint);
        let other = Volume::parse(&context(&[(MOUNT_OPTIONS_KEY, "{\"uid\":1}")])).unwrap();
        assert_ne!(plain.fingerprint, other.fingerprint);
    }

    #[test]
    fn a_mistyped_key_of_ours_is_named() {
        let message = error_of(&context(&[("alluxio-dataset.io/mountoptions", "{}")]));
        assert!(
            message.contains("alluxio-dataset.io/mountoptions"),
            "{message}"
        );
    }

    #[test]
    fn a_bad_configuration_names_its_field() {
        let mut bad = context(&[]);
        bad.insert(
            CONFIG_KEY.into(),
            "ufs: {uri: 's3://b/d/'}\nclient: {pageSize: 3}".into(),
        );
        let message = error_of(&bad);
        assert!(message.contains(CONFIG_KEY), "{message}");
    }

    #[test]
    fn modes_that_are_no_modes_are_refused() {
        for bad in [
            r#"{"fileMode": "0999"}"#,
            r#"{"directoryMode": "1777"}"#,
            r#"{"mode": 1}"#,
        ] {
            let message = error_of(&context(&[(MOUNT_OPTIONS_KEY, bad)]));
            assert!(message.contains(MOUNT_OPTIONS_KEY), "{message}");
        }
    }

    #[test]
    fn inline_volumes_and_half_names_are_refused() {
        assert!(error_of(&context(&[(EPHEMERAL_KEY, "true")])).contains("pod"));
        for bad in ["name", "/name", "ns/", "a/b/c"] {
            let mut context = context(&[]);
            context.insert(DATASET_KEY.into(), bad.into());
            assert!(error_of(&context).contains("namespace/name"));
        }
    }

    #[test]
    fn secrets_are_merged_and_do_not_show() {
        let volume = Volume::parse(&context(&[])).unwrap();
        let secrets = HashMap::from([
            ("key".to_owned(), "AKIA".to_owned()),
            ("secret".to_owned(), "hunter2".to_owned()),
        ]);
        let config = volume.config_with(secrets).unwrap();
        assert!(matches!(config.ufs.credentials, Credentials::Keys { .. }));
        assert!(!format!("{config:?}").contains("hunter2"));
        let half = HashMap::from([("key".to_owned(), "AKIA".to_owned())]);
        let message = volume.config_with(half).unwrap_err().to_string();
        assert!(message.contains("node-stage secret"), "{message}");
    }
}
