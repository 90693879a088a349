//! The embedded worker's part of the file.

use serde::{Deserialize, Serialize};

use super::Size;

/// The embedded worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWorker {
    /// Address and port to listen on.
    pub listen: String,
    /// Host that clients connect to; this machine's own where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised_host: Option<String>,
    /// A UUID, or any name to make one from; kept in the page store where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Where pages are kept.
    pub page_store: RawPageStore,
    /// Files that one worker loads at one time.
    pub load_concurrency: u32,
    /// Connections at one time; more wait.
    pub max_connections: u32,
    /// Speak TLS, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RawWorkerTls>,
    /// A file with the token that clients must show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

/// What a worker shows of itself. Both files are PEM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawWorkerTls {
    /// Its certificate, and those between it and its authority.
    pub cert_file: String,
    /// Its key.
    pub key_file: String,
}

/// Where a worker keeps pages: one directory, or several.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPageStore {
    /// A directory of its own; `/var/lib/alluxio-dataset/pages` where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The most that its pages take; 10Gi where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Size>,
    /// Several directories, on disks of their own, in place of the two above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<RawPageDirectory>,
}

/// One directory of several.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPageDirectory {
    /// A directory of its own.
    pub path: String,
    /// The most that its pages take.
    pub capacity: Size,
}

impl Default for RawWorker {
    fn default() -> Self {
        Self {
            // Alluxio's HTTP port.
            listen: "0.0.0.0:28080".to_owned(),
            advertised_host: None,
            identity: None,
            page_store: RawPageStore::default(),
            // Keeps one object store connection pool busy without crowding out reads.
            load_concurrency: 8,
            max_connections: 1024,
            tls: None,
            token_file: None,
        }
    }
}
