//! Who this worker is on the ring, and under which host clients find it.
//!
//! The identity decides which files a worker owns, so it must outlive a restart: it comes from the
//! configuration, else from the static list that names this worker, else from a file beside the
//! pages, which is written once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use alluxio_client::membership::WorkerSet;
use alluxio_config::WorkerOptions;
use alluxio_wire::WorkerId;
use uuid::Uuid;

use crate::error::WorkerError;

/// An address of the documentation network (RFC 5737), used to ask the kernel which of its own
/// addresses faces outwards. Nothing is sent.
const ADDRESS_OUTSIDE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The worker's identity.
pub(crate) async fn identity(
    options: &WorkerOptions,
    members: &WorkerSet,
    host: &str,
    port: u16,
) -> Result<WorkerId, WorkerError> {
    if let Some(given) = &options.identity {
        return Ok(named(given));
    }
    if let Some(listed) = members.find(host, port) {
        return Ok(listed.id);
    }
    kept(&options.page_store.first.path).await
}

/// The host that clients connect to: as configured, else the address listened on, else the one
/// that faces outwards.
pub(crate) fn advertised_host(options: &WorkerOptions, bound: SocketAddr) -> String {
    if let Some(host) = &options.advertised_host {
        return host.clone();
    }
    if !bound.ip().is_unspecified() {
        return bound.ip().to_string();
    }
    let outward = outward_address();
    if outward.is_none() {
        tracing::warn!(
            "no address of this machine faces outwards, so 127.0.0.1 is registered and clients on \
             other machines will not reach this worker; set worker.advertised_host"
        );
    }
    outward
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .to_string()
}

/// A UUID is taken as it is; of any other name one is made, as Alluxio does of a host.
fn named(given: &str) -> WorkerId {
    match Uuid::parse_str(given) {
        Ok(uuid) => WorkerId::from_uuid(uuid),
        Err(_) => WorkerId::from_host(given),
    }
}

/// The identity beside the pages; made and written at the first start.
async fn kept(directory: &Path) -> Result<WorkerId, WorkerError> {
    let path = directory.join("identity");
    let failed = |source| WorkerError::PageStore {
        directory: directory.to_owned(),
        source,
    };
    match tokio::fs::read_to_string(&path).await {
        Ok(text) => match Uuid::parse_str(text.trim()) {
            Ok(uuid) => Ok(WorkerId::from_uuid(uuid)),
            Err(error) => Err(failed(std::io::Error::other(format!(
                "its file `identity` holds no UUID ({error}); write one into it or remove it"
            )))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let uuid = Uuid::new_v4();
            write_atomically(&path, &uuid.to_string())
                .await
                .map_err(failed)?;
            Ok(WorkerId::from_uuid(uuid))
        }
        Err(error) => Err(failed(error)),
    }
}

async fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = PathBuf::from(path);
    beside.set_extension("new");
    tokio::fs::write(&beside, text).await?;
    tokio::fs::rename(&beside, path).await
}

fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ADDRESS_OUTSIDE).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    #[test]
    fn a_uuid_is_an_identity_and_any_other_name_makes_one() {
        let id = named("00000001-1111-4222-8333-444444444441");
        assert_eq!(
            id.service_name(),
            "worker-00000001-1111-4222-8333-444444444441"
        );
        assert_eq!(named("worker-0"), WorkerId::from_host("worker-0"));
    }

    #[tokio::test]
    async fn an_identity_is_kept_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let first = kept(folder.path()).await.unwrap();
        assert_eq!(kept(folder.path()).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_spoilt_identity_is_not_replaced_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("identity"), "oops").unwrap();
        let error = kept(folder.path()).await.unwrap_err();
        assert!(error.to_string().contains("holds no UUID"), "{error}");
    }
}
