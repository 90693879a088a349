//! Alluxio's property names, accepted in place of our fields.
//!
//! Somebody who has an `alluxio-site.properties` may write its lines at the top level of our YAML:
//! `alluxio.worker.page.store.page.size: 1MB`. Each known property is moved to the field it means
//! before the file is read; setting both is an error, and so is a property nobody here knows.

use serde_yaml::{Mapping, Value};

use crate::{ConfigError, RingPolicy};

/// Alluxio property -> path of the field. Names are from Alluxio 3.x' property keys.
const PROPERTIES: &[(&str, &str)] = &[
    ("alluxio.worker.page.store.page.size", "client.page_size"),
    (
        "alluxio.user.consistent.hash.virtual.node.count.per.worker",
        "client.virtual_nodes_per_worker",
    ),
    (
        "alluxio.user.worker.selection.policy.consistent.hash.virtual.node.count.per.worker",
        "client.virtual_nodes_per_worker",
    ),
    (POLICY, "client.ring_policy"),
    (
        "alluxio.user.dynamic.consistent.hash.ring.enabled",
        "client.ring_membership",
    ),
    (
        "alluxio.dora.client.ufs.fallback.enabled",
        "client.fallback.policy",
    ),
    ("alluxio.dora.client.ufs.root", "ufs.uri"),
    ("alluxio.cluster.name", "cluster.name"),
    ("alluxio.etcd.endpoints", "cluster.membership.endpoints"),
    ("alluxio.etcd.username", "cluster.membership.username"),
    ("alluxio.etcd.password", "cluster.membership.password"),
    ("alluxio.worker.hostname", "worker.advertised_host"),
    (DIRECTORIES, "worker.page_store.directory"),
    (SIZES, "worker.page_store.capacity"),
];

/// Paths with commas between them.
const DIRECTORIES: &str = "alluxio.worker.page.store.dirs";
/// As many as there are directories.
const SIZES: &str = "alluxio.worker.page.store.sizes";

/// Its values are names of classes.
const POLICY: &str = "alluxio.user.worker.selection.policy";

/// Every property that is understood, with the field it sets.
pub fn known_properties() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROPERTIES.iter().copied()
}

/// Moves Alluxio's properties from the top level to the fields they mean.
pub(crate) fn resolve(mut document: Value) -> Result<Value, ConfigError> {
    let Value::Mapping(root) = &mut document else {
        return Ok(document);
    };
    let names: Vec<String> = root
        .keys()
        .filter_map(Value::as_str)
        .filter(|name| name.starts_with("alluxio."))
        .map(str::to_owned)
        .collect();
    let lists_directories = names
        .iter()
        .any(|name| name == DIRECTORIES || name == SIZES);
    for property in names {
        let value = root.remove(property.as_str()).unwrap_or_default();
        let field = PROPERTIES.iter().find(|(name, _)| *name == property);
        let (_, field) = field.ok_or_else(|| ConfigError::UnknownProperty(property.clone()))?;
        insert(root, field, translate(&property, value)?).map_err(|()| ConfigError::Twice {
            property: property.clone(),
            field: (*field).to_owned(),
        })?;
        if property.starts_with("alluxio.etcd.") {
            // Properties name no kind of membership; whoever gives etcd's address means etcd.
            let _already_set = insert(root, "cluster.membership.type", "etcd".into());
        }
    }
    if lists_directories {
        several_directories(root)?;
    }
    Ok(document)
}

/// Alluxio's lists of directories and of sizes, with commas, are pairs here.
fn several_directories(root: &mut Mapping) -> Result<(), ConfigError> {
    let worker = root.get_mut("worker").and_then(Value::as_mapping_mut);
    let store = worker.and_then(|worker| worker.get_mut("page_store"));
    let Some(store) = store.and_then(Value::as_mapping_mut) else {
        return Ok(());
    };
    let list = |name: &str| {
        let text = store.get(name).and_then(Value::as_str).unwrap_or_default();
        let parts = text.split(',').map(|part| part.trim().to_owned());
        parts.collect::<Vec<_>>()
    };
    let (paths, sizes) = (list("directory"), list("capacity"));
    if paths.len() == 1 && sizes.len() == 1 {
        return Ok(());
    }
    if paths.len() != sizes.len() {
        return Err(ConfigError::Shape {
            path: SIZES.to_owned(),
            reason: format!(
                "{} sizes are given for {} directories: give each directory its own",
                sizes.len(),
                paths.len()
            ),
        });
    }
    let pairs = paths.into_iter().zip(sizes).map(|(path, size)| {
        let pair = [("path", path), ("capacity", size)];
        let pair = pair.map(|(name, text)| (Value::from(name), Value::from(text)));
        Value::Mapping(pair.into_iter().collect())
    });
    let pairs = pairs.collect::<Vec<_>>();
    store.remove("directory");
    store.remove("capacity");
    store.insert("directories".into(), Value::Sequence(pairs));
    Ok(())
}

/// Booleans and lists of Alluxio become the words that our fields take.
fn translate(property: &str, value: Value) -> Result<Value, ConfigError> {
    let flag = |yes: &str, no: &str| {
        let text = match &value {
            Value::Bool(flag) => flag.to_string(),
            other => other.as_str().unwrap_or_default().to_ascii_lowercase(),
        };
        match text.as_str() {
            "true" => Ok(yes.into()),
            "false" => Ok(no.into()),
            _ => Err(ConfigError::Shape {
                path: property.to_owned(),
                reason: "must be true or false".to_owned(),
            }),
        }
    };
    match property {
        POLICY => policy(&value),
        "alluxio.user.dynamic.consistent.hash.ring.enabled" => flag("live", "registered"),
        "alluxio.dora.client.ufs.fallback.enabled" => flag("on_worker_failure", "never"),
        "alluxio.etcd.endpoints" => Ok(match value.as_str() {
            Some(list) => list.split(',').map(|e| Value::from(e.trim())).collect(),
            None => value,
        }),
        _ => Ok(value),
    }
}

/// A policy by its class, with or without packages, or by its word.
fn policy(value: &Value) -> Result<Value, ConfigError> {
    let text = value.as_str().unwrap_or_default();
    let name = text.rsplit('.').next().unwrap_or_default();
    let named = |policy: &RingPolicy| {
        name == policy.alluxio_class() || name.eq_ignore_ascii_case(policy.label())
    };
    match RingPolicy::ALL.iter().find(|policy| named(policy)) {
        Some(policy) => Ok(policy.label().into()),
        None => Err(ConfigError::Shape {
            path: POLICY.to_owned(),
            reason: format!(
                "`{text}` is not known; give one of {}, as workers and all clients do",
                RingPolicy::ALL.map(RingPolicy::alluxio_class).join(", ")
            ),
        }),
    }
}

/// Sets the field at a dotted path unless something is there.
fn insert(root: &mut Mapping, path: &str, value: Value) -> Result<(), ()> {
    match path.split_once('.') {
        None if root.contains_key(path) => Err(()),
        None => {
            root.insert(path.into(), value);
            Ok(())
        }
        Some((head, rest)) => {
            let inner = root
                .entry(head.into())
                .or_insert_with(|| Value::Mapping(Mapping::new()));
            match inner {
                Value::Mapping(inner) => insert(inner, rest, value),
                _ => Err(()),
            }
        }
    }
}
