//! The embedded worker's options, with every value checked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{bytes, in_range, narrow, text_or_nothing};
use crate::ConfigError;
use crate::raw::{RawPageDirectory, RawPageStore, RawWorker, RawWorkerTls, Size};

/// Where pages are kept when nobody says otherwise.
const DEFAULT_DIRECTORY: &str = "/var/lib/alluxio-dataset/pages";
/// How much is kept when nobody says otherwise: little enough for any disk.
const DEFAULT_CAPACITY: &str = "10Gi";
/// More disks than a machine has.
const MAX_DIRECTORIES: usize = 64;

/// The embedded worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Host that clients connect to.
    pub advertised_host: Option<String>,
    /// A UUID, or a name to make one from.
    pub identity: Option<String>,
    /// Where pages are kept.
    pub page_store: PageStoreConfig,
    /// Files loaded at one time.
    pub load_concurrency: usize,
    /// Connections at one time.
    pub max_connections: usize,
    /// Certificate and key, where TLS is spoken.
    pub tls: Option<WorkerTlsConfig>,
    /// A file with the token that clients must show.
    pub token_file: Option<PathBuf>,
}

/// What a worker shows of itself. The files are PEM, and read again when they change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerTlsConfig {
    /// Its certificate, and those between it and its authority.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// Where a worker keeps pages: at least one directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageStoreConfig {
    /// The first; identity and journal of loads are kept in it, too.
    pub first: PageDirectory,
    /// Further ones.
    pub others: Vec<PageDirectory>,
}

/// One directory of a page store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageDirectory {
    /// A directory of its own.
    pub path: PathBuf,
    /// The most that its pages take.
    pub capacity_bytes: u64,
}

impl PageStoreConfig {
    /// All directories, the first one first.
    pub fn directories(&self) -> impl Iterator<Item = &PageDirectory> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

pub(super) fn read(raw: RawWorker) -> Result<WorkerOptions, ConfigError> {
    let listen = raw.listen.parse().map_err(|_| {
        let reason = format!(
            "`{}` is not an address and port such as 0.0.0.0:28080",
            raw.listen
        );
        ConfigError::value("worker.listen", reason)
    })?;
    in_range(
        "worker.load_concurrency",
        u64::from(raw.load_concurrency),
        1,
        256,
    )?;
    in_range(
        "worker.max_connections",
        u64::from(raw.max_connections),
        1,
        65_536,
    )?;
    Ok(WorkerOptions {
        listen,
        advertised_host: raw.advertised_host,
        identity: raw.identity,
        page_store: page_store(raw.page_store)?,
        load_concurrency: raw.load_concurrency as usize,
        max_connections: raw.max_connections as usize,
        tls: raw.tls.map(tls).transpose()?,
        token_file: text_or_nothing("worker.token_file", raw.token_file)?.map(PathBuf::from),
    })
}

fn tls(raw: RawWorkerTls) -> Result<WorkerTlsConfig, ConfigError> {
    let file = |path: &'static str, text: String| {
        text_or_nothing(path, Some(text)).map(|text| PathBuf::from(text.unwrap_or_default()))
    };
    Ok(WorkerTlsConfig {
        cert_file: file("worker.tls.cert_file", raw.cert_file)?,
        key_file: file("worker.tls.key_file", raw.key_file)?,
    })
}

fn page_store(raw: RawPageStore) -> Result<PageStoreConfig, ConfigError> {
    const SEVERAL: &str = "worker.page_store.directories";
    if raw.directories.is_empty() {
        let capacity = raw.capacity.unwrap_or_else(|| Size::text(DEFAULT_CAPACITY));
        return Ok(PageStoreConfig {
            first: PageDirectory {
                path: raw
                    .directory
                    .unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned())
                    .into(),
                capacity_bytes: bytes("worker.page_store.capacity", &capacity)?,
            },
            others: Vec::new(),
        });
    }
    if raw.directory.is_some() || raw.capacity.is_some() {
        let reason = "directory or capacity is set beside it: give one form or the other";
        return Err(ConfigError::value(SEVERAL, reason));
    }
    let given = raw.directories.into_iter().map(|directory| {
        Ok(PageDirectory {
            path: PathBuf::from(directory.path),
            capacity_bytes: bytes(SEVERAL, &directory.capacity)?,
        })
    });
    let given = given.collect::<Result<Vec<_>, ConfigError>>()?;
    in_range(SEVERAL, given.len() as u64, 1, MAX_DIRECTORIES as u64)?;
    check_apart(SEVERAL, &given)?;
    let mut given = given.into_iter();
    let first = given
        .next()
        .ok_or_else(|| ConfigError::value(SEVERAL, "the list is empty: name at least one"))?;
    Ok(PageStoreConfig {
        first,
        others: given.collect(),
    })
}

/// Two stores in one directory, or one within the other, would remove each other's pages.
fn check_apart(field: &'static str, directories: &[PageDirectory]) -> Result<(), ConfigError> {
    let paths: BTreeSet<&Path> = directories.iter().map(|d| d.path.as_path()).collect();
    let mut sorted = paths.iter().zip(paths.iter().skip(1));
    let nested = sorted.find(|(outer, inner)| inner.starts_with(outer));
    let reason = match nested {
        Some((outer, inner)) => format!("{} lies in {}", inner.display(), outer.display()),
        None if paths.len() < directories.len() => "a directory is named twice".to_owned(),
        None if paths.contains(Path::new("")) => "a path is empty".to_owned(),
        None => return Ok(()),
    };
    let reason = format!("{reason}: give each a directory of its own, on a disk of its own");
    Err(ConfigError::value(field, reason))
}

pub(super) fn to_raw(worker: &WorkerOptions) -> RawWorker {
    let text = |path: &Path| path.display().to_string();
    RawWorker {
        listen: worker.listen.to_string(),
        advertised_host: worker.advertised_host.clone(),
        identity: worker.identity.clone(),
        page_store: to_raw_page_store(&worker.page_store),
        load_concurrency: narrow(worker.load_concurrency),
        max_connections: narrow(worker.max_connections),
        tls: worker.tls.as_ref().map(|tls| RawWorkerTls {
            cert_file: text(&tls.cert_file),
            key_file: text(&tls.key_file),
        }),
        token_file: worker.token_file.as_deref().map(text),
    }
}

fn to_raw_page_store(store: &PageStoreConfig) -> RawPageStore {
    let text = |directory: &PageDirectory| directory.path.display().to_string();
    if store.others.is_empty() {
        return RawPageStore {
            directory: Some(text(&store.first)),
            capacity: Some(Size::Bytes(store.first.capacity_bytes)),
            directories: Vec::new(),
        };
    }
    let directories = store.directories().map(|directory| RawPageDirectory {
        path: text(directory),
        capacity: Size::Bytes(directory.capacity_bytes),
    });
    RawPageStore {
        directory: None,
        capacity: None,
        directories: directories.collect(),
    }
}
