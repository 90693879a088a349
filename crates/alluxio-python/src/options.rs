//! The configuration as Python's half hands it over: the file's document as JSON, without the URI.

use std::collections::BTreeMap;

use alluxio_config::raw::RawClient;
use alluxio_config::{Config, StoreKind, alias};
use alluxio_wire::UfsUri;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::Value;

/// Fields without a default, which the defaults therefore do not show.
const WITHOUT_DEFAULT: &[&str] = &[
    "client.file_list",
    "client.disk_cache.path",
    "client.manifest.path",
];

/// Every name that `options` may have, and the field that it sets: Alluxio's properties, and the
/// fields of `client` by their dotted paths.
#[pyfunction]
pub(crate) fn option_names() -> BTreeMap<String, String> {
    let own = |(name, field): (&str, &str)| (name.to_owned(), field.to_owned());
    let mut names: BTreeMap<_, _> = alias::known_properties().map(own).collect();
    names.extend(WITHOUT_DEFAULT.iter().map(|&name| own((name, name))));
    let defaults = serde_json::to_value(RawClient::default()).unwrap_or_default();
    add_leaves("client", &defaults, &mut names);
    names
}

/// The URI schemes that the client serves itself.
#[pyfunction]
pub(crate) fn schemes() -> Vec<&'static str> {
    StoreKind::schemes().collect()
}

fn add_leaves(path: &str, value: &Value, names: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                add_leaves(&format!("{path}.{name}"), value, names);
            }
        }
        _ => drop(names.insert(path.to_owned(), path.to_owned())),
    }
}

/// A document of the configuration, and what it means for each root.
pub(crate) struct Template(Value);

impl Template {
    pub(crate) fn parse(document: &str) -> PyResult<Self> {
        let document = serde_json::from_str(document)
            .map_err(|error| PyValueError::new_err(format!("the configuration: {error}")))?;
        Ok(Self(document))
    }

    /// The configuration of the dataset at `root`.
    pub(crate) fn config(&self, root: &UfsUri) -> PyResult<Config> {
        let mut document = self.0.clone();
        document["ufs"]["uri"] = Value::from(root.as_str());
        // JSON is YAML too.
        Config::from_yaml(&document.to_string())
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }
}
