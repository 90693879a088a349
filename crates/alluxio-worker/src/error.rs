//! Why a worker could not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use alluxio_etcd::EtcdError;
use alluxio_ufs::UfsError;

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The address cannot be listened on.
    #[error(
        "worker cannot listen on {address}: {source}; free the port or set worker.listen to \
         another one"
    )]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The page store's directory cannot be used.
    #[error(
        "page store {directory} cannot be used: {source}; set worker.page_store to a \
         directory that this user may write to",
        directory = directory.display()
    )]
    PageStore {
        /// The directory as configured.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another worker has the page store's directory.
    #[error(
        "page store {directory} is in use by another worker; give each worker a directory of its \
         own in worker.page_store",
        directory = directory.display()
    )]
    PageStoreInUse {
        /// The directory as configured.
        directory: PathBuf,
    },
    /// A certificate, a key or a token cannot be used.
    #[error("worker cannot start: {source}; check {field}")]
    Secret {
        /// The field that names the file.
        field: &'static str,
        /// Why; it names the file.
        source: std::io::Error,
    },
    /// The under-store's configuration is not usable.
    #[error(transparent)]
    Ufs(#[from] UfsError),
    /// The cluster's members cannot be learnt.
    #[error("worker cannot join the cluster: {0}")]
    Membership(#[from] alluxio_client::Error),
    /// The worker cannot register.
    #[error("worker cannot register in etcd: {0}; check cluster.membership and that etcd runs")]
    Register(#[from] EtcdError),
}
