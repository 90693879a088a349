//! Credentials for the under-store, and the key names under which a Kubernetes Secret holds them.

use std::collections::BTreeMap;

use crate::{ConfigError, SecretString};

/// How to sign in to the under-store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credentials {
    /// Unsigned requests, for public buckets. fsspec's `anon`.
    Anonymous,
    /// An access key, and a session token where the key is temporary.
    Keys {
        /// Access key id.
        key: String,
        /// Secret access key.
        secret: SecretString,
        /// Session token.
        token: Option<SecretString>,
    },
    /// What the process' environment offers (variables, profile, web identity).
    Environment,
}

/// Names of the access key id in a Secret: fsspec's, the AWS SDKs' and the common ones.
const KEY_NAMES: &[&str] = &[
    "key",
    "AWS_ACCESS_KEY_ID",
    "access_key_id",
    "accessKeyId",
    "access_key",
];
/// Names of the secret access key in a Secret.
const SECRET_NAMES: &[&str] = &[
    "secret",
    "AWS_SECRET_ACCESS_KEY",
    "secret_access_key",
    "secretAccessKey",
    "secret_key",
];
/// Names of the session token in a Secret.
const TOKEN_NAMES: &[&str] = &[
    "token",
    "AWS_SESSION_TOKEN",
    "session_token",
    "sessionToken",
];

/// Whether a Secret with these keys can give credentials; the error names what is missing.
///
/// Takes names only, so that a caller may check a Secret without reading its values.
pub fn check_secret_keys<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), ConfigError> {
    let names: Vec<&str> = names.into_iter().collect();
    let has = |wanted: &[&str]| wanted.iter().any(|name| names.contains(name));
    let missing = |what: &str, wanted: &[&str]| {
        ConfigError::value(
            "ufs.credentials",
            format!(
                "the Secret has no {what}: add one of the keys {}",
                wanted.join(", ")
            ),
        )
    };
    if !has(KEY_NAMES) {
        return Err(missing("access key id", KEY_NAMES));
    }
    if !has(SECRET_NAMES) {
        return Err(missing("secret access key", SECRET_NAMES));
    }
    Ok(())
}

impl Credentials {
    /// Takes credentials out of a Kubernetes Secret's data.
    pub fn from_secret(data: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        check_secret_keys(data.keys().map(String::as_str))?;
        let value = |names: &[&str]| {
            let found = names.iter().find_map(|name| data.get(*name));
            found
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let required = |what: &str, names: &[&str]| {
            value(names).ok_or_else(|| {
                ConfigError::value("ufs.credentials", format!("the Secret's {what} is empty"))
            })
        };
        Ok(Self::Keys {
            key: required("access key id", KEY_NAMES)?,
            secret: SecretString::new(required("secret access key", SECRET_NAMES)?),
            token: value(TOKEN_NAMES).map(SecretString::new),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn secret(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_usual_key_names_are_understood() {
        for names in [
            ["key", "secret", "token"],
            [
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_SESSION_TOKEN",
            ],
        ] {
            let data = secret(&[(names[0], "K"), (names[1], "S\n"), (names[2], "T")]);
            let expected = Credentials::Keys {
                key: "K".to_owned(),
                secret: SecretString::new("S"),
                token: Some(SecretString::new("T")),
            };
            assert_eq!(Credentials::from_secret(&data).unwrap(), expected);
        }
    }

    #[test]
    fn a_secret_without_its_keys_says_which() {
        let error = Credentials::from_secret(&secret(&[("key", "K")])).unwrap_err();
        assert!(
            error.to_string().contains("no secret access key"),
            "{error}"
        );
        let error = Credentials::from_secret(&secret(&[("key", "K"), ("secret", "")])).unwrap_err();
        assert!(error.to_string().contains("is empty"), "{error}");
    }
}
