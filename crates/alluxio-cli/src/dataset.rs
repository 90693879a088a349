//! From arguments to a connected client and a path below its dataset.

use std::path::Path;

use alluxio_client::Client;
use alluxio_config::raw::{
    RawClient, RawCluster, RawConfig, RawLogging, RawMembership, RawUfs, RawWorker, Size,
};
use alluxio_config::{Config, Consistency, Credentials, SecretString};
use alluxio_wire::UfsUri;
use anyhow::{Context, Result, bail};

use crate::args::DatasetArguments;

/// A client and the path below its root that the user means.
pub(crate) struct Target {
    /// The connected client.
    pub client: Client,
    /// Path below the client's root, empty for the root.
    pub path: String,
}

/// Connects to the dataset that holds `path`.
pub(crate) async fn open(arguments: &DatasetArguments, path: &str) -> Result<Target> {
    let (config, path) = resolve(arguments, path)?;
    connect(&config, path).await
}

/// Connects to the dataset that holds all of `paths`, which are of one store.
pub(crate) async fn open_all(
    arguments: &DatasetArguments,
    paths: &[String],
) -> Result<(Client, Vec<String>)> {
    let (config, paths) = resolve_all(arguments, paths)?;
    let target = connect(&config, String::new()).await?;
    Ok((target.client, paths))
}

/// Like [`open`], past the manifest that the configuration may name: for those who make it or judge it,
/// and so need not have it yet.
pub(crate) async fn open_live(arguments: &DatasetArguments, path: &str) -> Result<Target> {
    let (mut config, path) = resolve(arguments, path)?;
    config.client.manifest = None;
    config.client.consistency = Consistency::Live;
    connect(&config, path).await
}

async fn connect(config: &Config, path: String) -> Result<Target> {
    let logging = &config.logging;
    crate::logs::start(&logging.level, logging.path.as_deref(), logging.format)?;
    let client = Client::connect(config)
        .await
        .with_context(|| format!("cannot open the dataset {}", config.ufs.uri))?;
    Ok(Target { client, path })
}

/// The configuration and the path below its root that arguments mean.
///
/// A full URI without `--config` is opened at its parent, so that a single file has a dataset
/// around it; the root of a bucket is opened as it is.
pub(crate) fn resolve(arguments: &DatasetArguments, path: &str) -> Result<(Config, String)> {
    let (config, mut paths) = resolve_all(arguments, &[path])?;
    Ok((config, paths.pop().unwrap_or_default()))
}

/// The same of several paths: URIs without `--config` are opened at the nearest directory above all
/// of them.
fn resolve_all(
    arguments: &DatasetArguments,
    paths: &[impl AsRef<str>],
) -> Result<(Config, Vec<String>)> {
    let parsed = paths.iter().map(|path| {
        let path = path.as_ref();
        let uri = path.contains("://").then(|| UfsUri::parse(path));
        uri.transpose()
    });
    let uris: Vec<Option<UfsUri>> = parsed.collect::<Result<_, _>>()?;
    let mut config = match &arguments.config {
        Some(file) => read(file)?,
        None => Config::try_from(raw(arguments, root_of(paths, &uris)?))?,
    };
    config.logging.level = match &arguments.log {
        Some(level) => level.clone(),
        // A person at a terminal wants answers; a configuration file says otherwise if need be.
        None if arguments.config.is_none() => "warn".to_owned(),
        None => config.logging.level,
    };
    let root = &config.ufs.uri;
    let below = paths.iter().zip(&uris).map(|(path, uri)| match uri {
        None => Ok(path.as_ref().trim_matches('/').to_owned()),
        Some(uri) => uri
            .relative_to(root)
            .with_context(|| format!("{uri} is not below the dataset's root {root}"))
            .map(str::to_owned),
    });
    let below = below.collect::<Result<_>>()?;
    Ok((config, below))
}

/// The nearest directory above all of them.
fn root_of(paths: &[impl AsRef<str>], uris: &[Option<UfsUri>]) -> Result<UfsUri> {
    let mut root: Option<UfsUri> = None;
    for (path, uri) in paths.iter().zip(uris) {
        let path = path.as_ref();
        let Some(uri) = uri else {
            bail!(
                "`{path}` is a path below a dataset: name the dataset with --config FILE, or write \
                 the full URI such as s3://bucket/{path}"
            );
        };
        let parent = uri.parent().unwrap_or_else(|| uri.clone());
        root = Some(match root {
            None => parent,
            Some(root) => above_both(&root, &parent).with_context(|| {
                format!(
                    "{uri} and {root} are of two stores: download from one, upload to the other"
                )
            })?,
        });
    }
    root.context("no path is given")
}

/// The nearest directory above two, or one of them.
fn above_both(one: &UfsUri, other: &UfsUri) -> Option<UfsUri> {
    let mut above = one.clone();
    while other.relative_to(&above).is_none() {
        above = above.parent()?;
    }
    Some(above)
}

/// Reads a configuration file.
pub(crate) fn read(file: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration {}", file.display()))?;
    Config::from_yaml(&text).with_context(|| format!("in {}", file.display()))
}

/// The file that these arguments stand for.
pub(crate) fn raw(arguments: &DatasetArguments, root: UfsUri) -> RawConfig {
    let membership = if arguments.etcd.is_empty() {
        match arguments.workers.clone() {
            workers if workers.is_empty() => RawMembership::None,
            workers => RawMembership::Static { workers },
        }
    } else {
        RawMembership::Etcd {
            endpoints: arguments.etcd.clone(),
            username: None,
            password: None,
            tls: None,
        }
    };
    RawConfig {
        ufs: RawUfs {
            uri: root.into(),
            endpoint: arguments.endpoint.clone(),
            region: arguments.region.clone(),
            addressing_style: alluxio_config::AddressingStyle::default(),
            anon: arguments.anon,
            key: None,
            secret: None,
            token: None,
            options: std::collections::BTreeMap::new(),
        },
        cluster: RawCluster {
            membership,
            ..RawCluster::default()
        },
        client: RawClient {
            page_size: Size::Text(arguments.page_size.clone()),
            ..RawClient::default()
        },
        worker: RawWorker::default(),
        mount: alluxio_config::mount::RawMount::default(),
        logging: RawLogging::default(),
    }
}

/// Credentials that another process, with another environment, can use.
pub(crate) fn from_environment(credentials: Credentials) -> Credentials {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let keys = (
        variable("AWS_ACCESS_KEY_ID"),
        variable("AWS_SECRET_ACCESS_KEY"),
    );
    match (credentials, keys) {
        (Credentials::Environment, (Some(key), Some(secret))) => Credentials::Keys {
            key,
            secret: SecretString::new(secret),
            token: variable("AWS_SESSION_TOKEN").map(SecretString::new),
        },
        (credentials, _) => credentials,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_full_uri_is_opened_at_its_parent() {
        let (config, path) = resolve(&DatasetArguments::default_for_tests(), "s3://b/p/f").unwrap();
        assert_eq!((config.ufs.uri.as_str(), path.as_str()), ("s3://b/p", "f"));
        let (config, path) = resolve(&DatasetArguments::default_for_tests(), "s3://b").unwrap();
        assert_eq!((config.ufs.uri.as_str(), path.as_str()), ("s3://b", ""));
    }

    #[test]
    fn several_uris_are_opened_at_what_is_above_all_of_them() {
        let arguments = DatasetArguments::default_for_tests();
        let paths = ["s3://b/p/x/f", "s3://b/p/y", "s3://b/p/x"];
        let (config, below) = resolve_all(&arguments, &paths).unwrap();
        assert_eq!(config.ufs.uri.as_str(), "s3://b/p");
        assert_eq!(below, ["x/f", "y", "x"]);
        let error = resolve_all(&arguments, &["s3://b/x", "s3://c/x"]).unwrap_err();
        assert!(error.to_string().contains("two stores"), "{error}");
    }

    #[test]
    fn a_path_without_a_dataset_names_the_remedy() {
        let error = resolve(&DatasetArguments::default_for_tests(), "images").unwrap_err();
        assert!(error.to_string().contains("--config"), "{error}");
    }

    #[test]
    fn a_uri_outside_the_configured_dataset_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ufs: {uri: 's3://b/p'}").unwrap();
        let arguments = DatasetArguments {
            config: Some(file.path().to_owned()),
            ..DatasetArguments::default_for_tests()
        };
        let (_, path) = resolve(&arguments, "s3://b/p/x/y").unwrap();
        assert_eq!(path, "x/y");
        let error = resolve(&arguments, "s3://b/q").unwrap_err();
        assert!(error.to_string().contains("not below"), "{error}");
    }

    impl DatasetArguments {
        fn default_for_tests() -> Self {
            Self {
                page_size: "1Mi".to_owned(),
                ..Self::default()
            }
        }
    }
}
