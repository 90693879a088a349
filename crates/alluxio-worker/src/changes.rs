//! Changes of the under-store that clients ask this worker for.
//!
//! The product's own client makes them: it writes whole files or none, and tells the workers that
//! the ring names what changed, so that their pages and statuses go. What this worker keeps goes
//! first of all, when the change is made.

use std::time::Duration;

use alluxio_client::{
    Client, Existing, RemoveOptions, TouchOptions, TransferOptions, WriteOptions,
};
use alluxio_config::{Config, Consistency, FallbackPolicy, ManifestConfig};
use alluxio_wire::UfsUri;
use axum::body::BodyDataStream;
use futures::TryStreamExt;

use crate::failure::{Failure, FailureKind};
use crate::pages::Pages;

/// What a client asks to change. Paths lie below the root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// A directory is to be there.
    Mkdir(UfsUri),
    /// A file is to be there; one that is stays as it is.
    Touch(UfsUri),
    /// Is to be gone; a directory with all below it, where it is recursive.
    Remove { uri: UfsUri, recursive: bool },
    /// What this worker keeps of it is to be gone; the under-store stays as it is.
    Forget(UfsUri),
    /// Is to have another name.
    Move { from: UfsUri, to: UfsUri },
    /// Is to be there twice.
    Copy {
        from: UfsUri,
        to: UfsUri,
        recursive: bool,
        replace: bool,
    },
}

/// Who makes the changes.
#[derive(Debug)]
pub(crate) struct Changes {
    client: Client,
    pages: Pages,
}

impl Changes {
    /// Connects to the under-store and to the cluster's other workers.
    pub(crate) async fn connect(config: &Config, pages: Pages) -> alluxio_client::Result<Self> {
        Ok(Self {
            client: Client::connect(&of_changes(config)).await?,
            pages,
        })
    }

    /// Makes a change.
    pub(crate) async fn make(&self, change: &Change) -> Result<(), Failure> {
        let made = self.made(change).await;
        // Also after a failure: part of it may have been done.
        for uri in change.names() {
            self.forget(uri).await;
        }
        made
    }

    /// Writes a file of the bytes that come, whole or not at all.
    pub(crate) async fn write(
        &self,
        uri: &UfsUri,
        mut body: BodyDataStream,
        expected_bytes: Option<u64>,
    ) -> Result<(), Failure> {
        let options = WriteOptions {
            expected_bytes,
            ..WriteOptions::default()
        };
        let mut writer = self.client.create(self.path(uri)?, options).await?;
        loop {
            match body.try_next().await {
                Ok(Some(part)) => writer.write(part).await?,
                Ok(None) => break,
                Err(error) => {
                    writer.abort().await;
                    let message = format!("the body of the request broke off: {error}");
                    return Err(Failure::new(FailureKind::TooSlow, message));
                }
            }
        }
        let written = writer.finish().await;
        self.forget(uri).await;
        written?;
        Ok(())
    }

    async fn made(&self, change: &Change) -> Result<(), Failure> {
        let client = &self.client;
        match change {
            Change::Mkdir(uri) => client.mkdir(self.path(uri)?).await?,
            Change::Touch(uri) => {
                let options = TouchOptions { truncate: false };
                client.touch(self.path(uri)?, options).await?;
            }
            Change::Remove { uri, recursive } => {
                let options = RemoveOptions {
                    recursive: *recursive,
                    even_root: false,
                };
                client.rm(self.path(uri)?, options).await?;
            }
            Change::Forget(uri) => self.forget_below(uri).await?,
            Change::Move { from, to } => {
                let options = TransferOptions {
                    recursive: true,
                    ..TransferOptions::default()
                };
                client.mv(self.path(from)?, self.path(to)?, options).await?;
            }
            Change::Copy {
                from,
                to,
                recursive,
                replace,
            } => {
                let options = TransferOptions {
                    recursive: *recursive,
                    existing: if *replace {
                        Existing::Replace
                    } else {
                        Existing::Fail
                    },
                    ..TransferOptions::default()
                };
                client.cp(self.path(from)?, self.path(to)?, options).await?;
            }
        }
        Ok(())
    }

    async fn forget(&self, uri: &UfsUri) {
        self.pages.forget(&uri.file_id(), Some(uri)).await;
    }

    /// What is kept of a file, or of all files below a directory.
    async fn forget_below(&self, uri: &UfsUri) -> Result<(), Failure> {
        let mut files = self.pages.ufs().walk(uri);
        while let Some(file) = files.try_next().await? {
            if let Ok(uri) = UfsUri::parse(&file.ufs_uri) {
                self.forget(&uri).await;
            }
        }
        Ok(())
    }

    fn path<'a>(&self, uri: &'a UfsUri) -> Result<&'a str, Failure> {
        let root = self.client.root();
        uri.relative_to(root).ok_or_else(|| {
            Failure::new(
                FailureKind::Forbidden,
                format!("{uri} is outside of {root}"),
            )
        })
    }
}

impl Change {
    fn names(&self) -> Vec<&UfsUri> {
        match self {
            Self::Mkdir(uri) | Self::Touch(uri) | Self::Remove { uri, .. } | Self::Forget(uri) => {
                vec![uri]
            }
            Self::Move { from, to } | Self::Copy { from, to, .. } => vec![from, to],
        }
    }
}

/// A client that believes nothing for longer than a moment, and reads past the workers: to copy
/// through its own cache would be to read itself.
fn of_changes(config: &Config) -> Config {
    let mut own = config.clone();
    let client = &mut own.client;
    client.metadata_ttl = Duration::ZERO;
    client.negative_ttl = Duration::ZERO;
    client.manifest = None::<ManifestConfig>;
    client.consistency = Consistency::Live;
    client.disk_cache = None;
    client.file_list = None;
    client.fallback.policy = FallbackPolicy::Always;
    own
}
