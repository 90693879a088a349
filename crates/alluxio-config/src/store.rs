//! The stores that a dataset may lie in: which URI schemes are theirs, and which options they take.
//!
//! One table ([`table`]) names every option once, with the names that users know it by: fsspec's
//! (`s3fs`, `gcsfs`, `adlfs`, pyarrow's HDFS) and OpenDAL's. What the file says, in `ufs.options` or
//! beside it, is brought to the table's names here, so that whoever builds the store asks for one
//! name only. An option that a store does not have is refused with its path: a mistyped
//! `endpoint_ulr` must not end in requests to another store.

mod table;

use std::collections::BTreeMap;
use std::fmt;

pub use self::table::StoreKind;
use self::table::{Row, Takes, row_of, rows_of};
use crate::raw::RawOption;
use crate::{ConfigError, SecretString};

/// The options of one store under the table's names. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StoreOptions {
    plain: BTreeMap<String, String>,
    secret: BTreeMap<String, SecretString>,
}

/// One option as the file gives it, and where.
#[derive(Debug)]
pub(crate) struct Given {
    /// Path of the field, for an error.
    pub(crate) path: String,
    /// The name within the options, dotted below a map.
    pub(crate) name: String,
    pub(crate) value: RawOption,
}

impl StoreOptions {
    /// The value of an option, be it secret or not.
    pub fn get(&self, name: &str) -> Option<&str> {
        let plain = self.plain.get(name).map(String::as_str);
        plain.or_else(|| self.secret.get(name).map(SecretString::expose))
    }

    /// Whether a flag is set.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The entries of an option that is a map.
    pub fn map<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let below = move |key: &'a String| key.strip_prefix(name)?.strip_prefix('.');
        self.plain
            .iter()
            .filter_map(move |(key, value)| Some((below(key)?, value.as_str())))
    }

    /// Whether any of these is a secret.
    pub fn has_secrets(&self) -> bool {
        !self.secret.is_empty()
    }

    /// Sets an option that is not a secret.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.plain.insert(name.to_owned(), value.into());
        self
    }

    /// Sets an option that is a secret.
    #[must_use]
    pub fn with_secret(mut self, name: &str, value: impl Into<String>) -> Self {
        self.secret
            .insert(name.to_owned(), SecretString::new(value));
        self
    }

    /// Takes an option out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let secret = |options: &mut Self| options.secret.remove(name);
        self.plain
            .remove(name)
            .or_else(|| secret(self).map(|secret| secret.expose().to_owned()))
    }

    /// What a file would say, with or without the secrets.
    pub(crate) fn to_raw(&self, secrets: bool) -> BTreeMap<String, RawOption> {
        let text = |text: &str| RawOption::Text(text.to_owned());
        let mut raw: BTreeMap<String, RawOption> = BTreeMap::new();
        for (name, value) in &self.plain {
            match name.split_once('.') {
                None => drop(raw.insert(name.clone(), text(value))),
                Some((map, key)) => {
                    let map = raw
                        .entry(map.to_owned())
                        .or_insert_with(|| RawOption::Map(BTreeMap::new()));
                    if let RawOption::Map(map) = map {
                        map.insert(key.to_owned(), text(value));
                    }
                }
            }
        }
        if secrets {
            let secret =
                |(name, value): (&String, &SecretString)| (name.clone(), text(value.expose()));
            raw.extend(self.secret.iter().map(secret));
        }
        raw
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(&self.plain)
            .entries(&self.secret)
            .finish()
    }
}

/// The options of `ufs.options`, with fsspec's nested maps as dotted names.
pub(crate) fn flattened(options: BTreeMap<String, RawOption>) -> Vec<Given> {
    fn add(prefix: &str, options: BTreeMap<String, RawOption>, given: &mut Vec<Given>) {
        for (key, value) in options {
            let name = match prefix {
                "" => key,
                prefix => format!("{prefix}.{key}"),
            };
            match value {
                RawOption::Map(below) => add(&name, below, given),
                value => given.push(Given {
                    path: format!("ufs.options.{name}"),
                    name,
                    value,
                }),
            }
        }
    }
    let mut given = Vec::new();
    add("", options, &mut given);
    given
}

/// Brings what was given to the table's names; refuses what this store does not take, and what is
/// given twice.
pub(crate) fn resolve(kind: StoreKind, given: Vec<Given>) -> Result<StoreOptions, ConfigError> {
    let mut options = StoreOptions::default();
    for Given { path, name, value } in given {
        let refused = |reason: String| ConfigError::Shape {
            path: path.clone(),
            reason,
        };
        let Some((row, key)) = row_of(kind, &name) else {
            return Err(refused(format!(
                "{kind} has no such option; it takes {}",
                names_of(kind)
            )));
        };
        let text = text_of(row, &value).map_err(&refused)?;
        if options.get(&key).is_some() {
            let reason = format!("`{}` is set already by another name of it", row.name);
            return Err(refused(format!("{reason}: keep one of them")));
        }
        options = match row.takes {
            Takes::Secret => options.with_secret(&key, text),
            _ => options.with(&key, text),
        };
    }
    Ok(options)
}

/// The credentials that a Kubernetes Secret's data holds for a store which takes them as options.
pub(crate) fn from_secret(
    kind: StoreKind,
    data: &BTreeMap<String, String>,
) -> Result<StoreOptions, ConfigError> {
    let is_credential = |row: &&Row| row.takes == Takes::Secret || row.in_secret;
    let mut given = Vec::new();
    for (name, value) in data {
        let known = row_of(kind, name).is_some_and(|(row, _)| is_credential(&row));
        if known && !value.trim().is_empty() {
            given.push(Given {
                path: format!("ufs.credentials.{name}"),
                name: name.clone(),
                value: RawOption::Text(value.trim().to_owned()),
            });
        }
    }
    if given.is_empty() {
        let names: Vec<_> = rows_of(kind)
            .filter(is_credential)
            .map(|r| r.name)
            .collect();
        let reason = match names.as_slice() {
            [] => format!("{kind} takes no credentials: leave the Secret out"),
            names => format!(
                "the Secret has no credentials for {kind}: add some of the keys {}",
                names.join(", ")
            ),
        };
        return Err(ConfigError::value("ufs.credentials", reason));
    }
    resolve(kind, given)
}

impl StoreOptions {
    /// These, and those of `other` in place of what has the same name.
    pub(crate) fn merged(mut self, other: Self) -> Self {
        for name in other.plain.keys().chain(other.secret.keys()) {
            self.take(name);
        }
        self.plain.extend(other.plain);
        self.secret.extend(other.secret);
        self
    }
}

fn names_of(kind: StoreKind) -> String {
    let names: Vec<_> = rows_of(kind)
        .filter(|row| !matches!(row.takes, Takes::Refused(_)))
        .map(|row| row.name)
        .collect();
    names.join(", ")
}

fn text_of(row: &Row, value: &RawOption) -> Result<String, String> {
    let text = match value {
        RawOption::Flag(flag) => flag.to_string(),
        RawOption::Number(number) => number.to_string(),
        RawOption::Text(text) => text.clone(),
        RawOption::Map(_) => return Err("a single value is wanted here".to_owned()),
    };
    let is_right = match row.takes {
        Takes::Refused(reason) => return Err(reason.to_owned()),
        Takes::Flag => matches!(text.as_str(), "true" | "false"),
        Takes::Text | Takes::Secret | Takes::Map => !text.is_empty(),
    };
    let wanted = match row.takes {
        Takes::Flag => "true or false is wanted here",
        _ => "it is empty: give it a value or leave it out",
    };
    // The value itself is not repeated: it may be a secret in the wrong place.
    if is_right {
        Ok(text)
    } else {
        Err(wanted.to_owned())
    }
}

#[cfg(test)]
mod tests;
