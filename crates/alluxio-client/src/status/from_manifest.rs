//! The tree as a manifest tells it.
//!
//! Pinned, the manifest is the dataset: what it does not name does not exist. Live, it is a listing
//! that somebody took earlier: what it names is believed until the client meets a change, and for
//! what it does not name the store is asked.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alluxio_config::{Consistency, ManifestConfig};
use alluxio_wire::{FileStatus, FileVersion, UfsUri};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Manifest;

/// Paths that a live client remembers as changed; past them it no longer believes the manifest at
/// all. So many take some 20 MB.
const MAX_DOUBTS: usize = 100_000;
/// Files of a walk that wait for whoever takes them.
const WALK_AHEAD: usize = 1024;

/// A manifest, and how far it is believed. A clone is cheap and shares everything.
#[derive(Clone)]
pub(crate) struct FromManifest {
    inner: Arc<Inner>,
}

struct Inner {
    manifest: Manifest,
    file: PathBuf,
    root: UfsUri,
    pins: bool,
    has_doubts: AtomicBool,
    doubts: RwLock<Doubts>,
}

/// What the manifest is no longer believed about.
#[derive(Default)]
struct Doubts {
    /// Whether all below the path is meant, too.
    paths: HashMap<UfsUri, bool>,
    everything: bool,
}

/// Opens the configured manifest of the dataset at `root`.
pub(crate) async fn open_manifest(
    config: &ManifestConfig,
    consistency: Consistency,
    root: &UfsUri,
) -> Result<FromManifest> {
    let (file, limit) = (config.path.clone(), config.limit_bytes);
    let opening = tokio::task::spawn_blocking(move || Manifest::open(&file, limit));
    let manifest = opening.await.map_err(|error| super::stopped(&error))??;
    let pins = consistency == Consistency::Pinned;
    let covers_all = root.relative_to(manifest.root()).is_some();
    let covers_a_part = manifest.root().relative_to(root).is_some();
    if !covers_all && (pins || !covers_a_part) {
        let context = format!(
            "the manifest {} is of {}, and the dataset {root} is not below that; take one of the \
             dataset with `alluxio-dataset manifest create {root}`",
            config.path.display(),
            manifest.root()
        );
        return Err(Error::new(ErrorKind::InvalidInput, "connect", context));
    }
    Ok(FromManifest {
        inner: Arc::new(Inner {
            manifest,
            file: config.path.clone(),
            root: root.clone(),
            pins,
            has_doubts: AtomicBool::new(false),
            doubts: RwLock::default(),
        }),
    })
}

impl FromManifest {
    /// Whether what the manifest does not name does not exist.
    pub(super) fn pins(&self) -> bool {
        self.inner.pins
    }

    /// The answer to a lookup; `None` where the store is to be asked.
    pub(super) fn status(&self, uri: &UfsUri) -> Option<Result<FileStatus>> {
        let path = self.believed_path(uri)?;
        match self.inner.manifest.lookup(path) {
            Some(status) => Some(Ok(self.below_root(status))),
            None => self.pins().then(|| Err(self.not_named(uri, "status"))),
        }
    }

    /// The answer to a listing; `None` where the store is to be asked.
    pub(super) fn list(&self, uri: &UfsUri) -> Option<Result<Vec<FileStatus>>> {
        let path = self.believed_path(uri)?;
        if let Some(mut entries) = self.inner.manifest.list(path) {
            if self.inner.manifest.root() != &self.inner.root {
                entries = entries.into_iter().map(|s| self.below_root(s)).collect();
            }
            return Some(Ok(entries));
        }
        self.pins().then(|| {
            if self.inner.manifest.lookup(path).is_none() {
                return Err(self.not_named(uri, "list"));
            }
            let context = format!("{uri} is a file; name the directory that it lies in");
            Err(Error::new(ErrorKind::NotDirectory, "list", context))
        })
    }

    /// How many entries a directory has by the manifest.
    pub(super) fn entries_of(&self, uri: &UfsUri) -> usize {
        let path = self.inner.manifest.path_of(uri);
        path.and_then(|path| self.inner.manifest.count(path))
            .unwrap_or(0)
    }

    /// All files below a directory, or the one file itself.
    pub(super) fn walk(
        &self,
        uri: &UfsUri,
        runtime: &Handle,
    ) -> BoxStream<'static, Result<FileStatus>> {
        match self.status(uri) {
            Some(Ok(status)) if !status.is_directory() => {
                return stream::iter([Ok(status)]).boxed();
            }
            Some(Err(error)) => return stream::iter([Err(error)]).boxed(),
            _ => {}
        }
        let (this, uri) = (self.clone(), uri.clone());
        let (sender, files) = mpsc::channel(WALK_AHEAD);
        runtime.spawn_blocking(move || {
            let manifest = &this.inner.manifest;
            for file in manifest.below(manifest.path_of(&uri).unwrap_or_default()) {
                // Whoever walked has gone.
                if sender.blocking_send(Ok(this.below_root(file))).is_err() {
                    return;
                }
            }
        });
        let next = |mut files: mpsc::Receiver<_>| async move {
            files.recv().await.map(|file| (file, files))
        };
        stream::unfold(files, next).boxed()
    }

    /// A live client asks the store about this path, those above it and, if `below`, those below
    /// it from now on. A pin stays: what was pinned is not less pinned because it changed.
    pub(super) fn doubt(&self, uri: &UfsUri, below: bool) {
        if self.pins() || self.inner.manifest.path_of(uri).is_none() {
            return;
        }
        let mut doubts = self.inner.doubts.write();
        let all_below = doubts.paths.entry(uri.clone()).or_default();
        *all_below |= below;
        let mut above = uri.parent();
        while let Some(directory) = above.filter(|d| self.inner.manifest.path_of(d).is_some()) {
            above = directory.parent();
            doubts.paths.entry(directory).or_default();
        }
        if doubts.paths.len() > MAX_DOUBTS && !doubts.everything {
            doubts.everything = true;
            doubts.paths = HashMap::new();
            tracing::warn!(
                manifest = %self.inner.file.display(),
                "more than {MAX_DOUBTS} paths differ from the manifest; the store is asked for \
                 everything until a new manifest is given"
            );
        }
        self.inner.has_doubts.store(true, Ordering::Release);
    }

    /// The error of a read whose pinned version the store does not have.
    pub(super) fn broken_pin(
        &self,
        uri: &UfsUri,
        pinned: &FileVersion,
        found: Result<FileStatus>,
        operation: &'static str,
    ) -> Error {
        let found = match found {
            Ok(status) => format!("the store has version {}", status.version()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                "the store has it no longer".to_owned()
            }
            Err(_) => "the store's version is not known".to_owned(),
        };
        let context = format!(
            "{uri} changed: the manifest {} pins version {pinned} and {found}; put the file back, \
             take a new manifest with `alluxio-dataset manifest create`, or set client.consistency \
             to live",
            self.inner.file.display()
        );
        Error::new(ErrorKind::Stale, operation, context)
    }

    /// The path in the manifest, unless the store is to be asked about it.
    fn believed_path<'a>(&self, uri: &'a UfsUri) -> Option<&'a str> {
        let path = self.inner.manifest.path_of(uri)?;
        (!self.is_doubted(uri)).then_some(path)
    }

    fn is_doubted(&self, uri: &UfsUri) -> bool {
        if !self.inner.has_doubts.load(Ordering::Acquire) {
            return false;
        }
        let doubts = self.inner.doubts.read();
        if doubts.everything || doubts.paths.contains_key(uri) {
            return true;
        }
        let mut above = uri.parent();
        while let Some(directory) = above {
            if doubts.paths.get(&directory) == Some(&true) {
                return true;
            }
            above = directory.parent();
        }
        false
    }

    /// A status' path is below the dataset's root, which need not be the manifest's.
    fn below_root(&self, mut status: FileStatus) -> FileStatus {
        let root = self.inner.root.as_str().trim_end_matches('/');
        if self.inner.manifest.root() != &self.inner.root
            && let Some(path) = status.ufs_uri.strip_prefix(root)
        {
            status.path = if path.is_empty() { "/" } else { path }.to_owned();
        }
        status
    }

    fn not_named(&self, uri: &UfsUri, operation: &'static str) -> Error {
        let context = format!(
            "{uri} is not in the manifest {}, which client.consistency pins the dataset to; take a \
             new manifest if it should be",
            self.inner.file.display()
        );
        Error::new(ErrorKind::NotFound, operation, context)
    }
}
