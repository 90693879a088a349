//! Step 2: is what the user asked for possible?
//!
//! The spec becomes a configuration, and the Secret it names must exist with the keys a client
//! needs. What fails here ends as a condition and waits for the user; it is not retried in a hurry.

use std::fmt::Display;

use alluxio_config::{Config, credentials};
use alluxio_crds::AlluxioDataset;
use alluxio_crds::dataset::CredentialsType;

use super::client_config;
use super::observe::{Observed, SecretState};

/// A dataset whose spec and Secret can work.
#[derive(Clone, Debug)]
pub struct ValidDataset<'a> {
    /// The object.
    pub object: &'a AlluxioDataset,
    /// metadata.namespace.
    pub namespace: &'a str,
    /// metadata.name.
    pub name: &'a str,
    /// metadata.uid.
    pub uid: &'a str,
    /// What the client will be told, without secrets.
    pub config: Config,
}

/// Why a dataset cannot work as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDataset {
    /// A field has an impossible value.
    #[error("AlluxioDataset {dataset}: {field}: {reason}")]
    Field {
        /// `namespace/name`.
        dataset: String,
        /// Path of the field.
        field: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The Secret does not exist.
    #[error(
        "AlluxioDataset {dataset}: Secret {secret} does not exist in its namespace: create it \
         with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or correct \
         spec.ufs.credentials.secretRef"
    )]
    SecretMissing {
        /// `namespace/name`.
        dataset: String,
        /// The Secret's name.
        secret: String,
    },
    /// The Secret lacks a key.
    #[error("AlluxioDataset {dataset}: Secret {secret}: {reason}")]
    SecretIncomplete {
        /// `namespace/name`.
        dataset: String,
        /// The Secret's name.
        secret: String,
        /// Which key is missing.
        reason: String,
    },
    /// An object without namespace, name or uid, which no API server sends.
    #[error("AlluxioDataset {dataset} has no namespace, name or uid: apply it to a cluster")]
    Nameless {
        /// As far as it has a name.
        dataset: String,
    },
}

impl InvalidDataset {
    /// A field of this dataset has an impossible value.
    pub fn field(dataset: &AlluxioDataset, field: &str, reason: impl Display) -> Self {
        Self::Field {
            dataset: dataset.qualified_name(),
            field: field.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// The reason of the condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } | Self::Nameless { .. } => "InvalidSpec",
            Self::SecretMissing { .. } => "SecretMissing",
            Self::SecretIncomplete { .. } => "SecretIncomplete",
        }
    }
}

/// Checks spec and Secret.
pub fn validate<'a>(
    object: &'a AlluxioDataset,
    observed: &Observed,
) -> Result<ValidDataset<'a>, InvalidDataset> {
    let config = client_config(object)?;
    check_secret(object, &observed.secret)?;
    let nameless = || InvalidDataset::Nameless {
        dataset: object.qualified_name(),
    };
    let metadata = &object.metadata;
    Ok(ValidDataset {
        object,
        namespace: metadata.namespace.as_deref().ok_or_else(nameless)?,
        name: metadata.name.as_deref().ok_or_else(nameless)?,
        uid: metadata.uid.as_deref().ok_or_else(nameless)?,
        config,
    })
}

/// The name of the Secret that the spec refers to.
pub fn secret_name(object: &AlluxioDataset) -> Option<&str> {
    let credentials = &object.spec.ufs.credentials;
    let wanted = credentials.kind == CredentialsType::SecretRef;
    let name = credentials.secret_ref.as_ref().map(|r| r.name.as_str());
    name.filter(|_| wanted)
}

fn check_secret(object: &AlluxioDataset, state: &SecretState) -> Result<(), InvalidDataset> {
    let Some(secret) = secret_name(object) else {
        return Ok(());
    };
    let dataset = object.qualified_name();
    let secret = secret.to_owned();
    match state {
        SecretState::Keys(keys) => credentials::check_secret_keys(keys.iter().map(String::as_str))
            .map_err(|e| InvalidDataset::SecretIncomplete {
                dataset,
                secret,
                reason: e.to_string(),
            }),
        SecretState::Missing | SecretState::NotNeeded => {
            Err(InvalidDataset::SecretMissing { dataset, secret })
        }
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
    use crate::samples::{a_dataset, observed};

    fn with_secret(state: SecretState) -> Result<(), InvalidDataset> {
        let dataset = a_dataset().with_secret("keys").into();
        validate(
            &dataset,
            &Observed {
                secret: state,
                ..observed()
            },
        )
        .map(|_| ())
    }

    #[test]
    fn a_missing_secret_is_named_with_its_keys() {
        let error = with_secret(SecretState::Missing).unwrap_err();
        assert_eq!(error.reason(), "SecretMissing");
        let text = error.to_string();
        assert!(
            text.contains("Secret keys") && text.contains("AWS_SECRET_ACCESS_KEY"),
            "{text}"
        );
    }

    #[test]
    fn a_secret_without_a_key_says_which() {
        let keys = SecretState::Keys(vec!["AWS_ACCESS_KEY_ID".to_owned()]);
        let error = with_secret(keys).unwrap_err();
        assert_eq!(error.reason(), "SecretIncomplete");
        assert!(error.to_string().contains("secret access key"), "{error}");
    }

    #[test]
    fn a_complete_secret_is_enough() {
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(str::to_owned);
        with_secret(SecretState::Keys(keys.to_vec())).unwrap();
    }

    #[test]
    fn an_anonymous_dataset_needs_no_secret() {
        let dataset = a_dataset().into();
        let valid = validate(&dataset, &observed()).unwrap();
        assert_eq!(
            (valid.namespace, valid.name, valid.uid),
            ("vision", "imagenet", "uid-1")
        );
    }
}
