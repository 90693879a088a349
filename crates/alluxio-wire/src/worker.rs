//! Who a worker is: its ring identity, its address and the record it keeps in etcd.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A worker's identity, which is what the ring hashes; its address may change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId {
    /// The identity scheme's version; hashed as a little-endian 32-bit number.
    pub version: i32,
    /// The 16 identifier bytes; hashed first.
    pub identifier: [u8; 16],
}

/// Where a worker listens. Names are Alluxio's `WorkerNetAddress`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WorkerAddress {
    /// Host name or address that clients connect to.
    pub host: String,
    /// Host name within the container network, or empty.
    pub container_host: String,
    /// gRPC port, 0 where there is none.
    pub rpc_port: i32,
    /// Data port, 0 where there is none.
    pub data_port: i32,
    /// TLS gRPC port, 0 where there is none.
    pub secure_rpc_port: i32,
    /// Netty data port, 0 where there is none.
    pub netty_data_port: i32,
    /// Web UI port, 0 where there is none.
    pub web_port: i32,
    /// Unix socket for short-circuit reads, or empty.
    pub domain_socket_path: String,
    /// The HTTP port that serves pages; Alluxio's default is 28080.
    #[serde(rename = "HttpServerPort")]
    pub http_port: u16,
}

/// What a worker keeps in etcd under its live and registered keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerRecord {
    /// Ring identity.
    pub id: WorkerId,
    /// Where it listens.
    pub address: WorkerAddress,
    /// Alluxio's registration state, such as `AUTHORIZED`.
    pub state: String,
    /// Alluxio's generation number; -1 where it keeps none.
    pub generation: i64,
    /// The last part of its etcd key, `worker-<uuid>`.
    pub service_name: String,
}

/// Why a record in etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or not of this shape.
    #[error("worker record is not what Alluxio writes: {0}")]
    Json(#[from] serde_json::Error),
    /// No usable host or port.
    #[error("worker record of {0} has no host or HTTP port to connect to")]
    NoAddress(WorkerId),
}

#[derive(Serialize, Deserialize)]
struct RawIdentity {
    version: i32,
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    identifier: [u8; 16],
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRecord {
    identity: RawIdentity,
    worker_net_address: WorkerAddress,
    #[serde(default)]
    state: String,
    #[serde(default)]
    generation_number: i64,
    #[serde(default)]
    service_entity_name: String,
}

impl WorkerId {
    /// The identity of a worker that is only known by its host: the UUID version 3 of the host in
    /// the all-zero namespace, as Alluxio's clients do for a static worker list.
    pub fn from_host(host: &str) -> Self {
        Self::from_uuid(Uuid::new_v3(&Uuid::nil(), host.as_bytes()))
    }

    /// A version-1 identity with the bytes of this UUID.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self {
            version: 1,
            identifier: *uuid.as_bytes(),
        }
    }

    /// The name of its etcd record, `worker-<uuid>`.
    pub fn service_name(&self) -> String {
        format!("worker-{}", Uuid::from_bytes(self.identifier).hyphenated())
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service_name())
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/v{}", self.version)
    }
}

impl WorkerAddress {
    /// An address with only a host and an HTTP port.
    pub fn http(host: impl Into<String>, http_port: u16) -> Self {
        Self {
            host: host.into(),
            http_port,
            ..Self::default()
        }
    }

    /// Hosts to try in order: the host, then the container host where it is set and another.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let container = Some(self.container_host.as_str()).filter(|c| *c != self.host);
        [Some(self.host.as_str()), container]
            .into_iter()
            .flatten()
            .filter(|host| !host.is_empty())
    }
}

impl WorkerRecord {
    /// A record as an authorised worker writes it.
    pub fn new(id: WorkerId, address: WorkerAddress) -> Self {
        Self {
            id,
            address,
            state: "AUTHORIZED".to_owned(),
            generation: -1,
            service_name: id.service_name(),
        }
    }

    /// Reads the JSON value of an etcd key.
    pub fn from_json(value: &[u8]) -> Result<Self, RecordError> {
        let raw: RawRecord = serde_json::from_slice(value)?;
        let id = WorkerId {
            version: raw.identity.version,
            identifier: raw.identity.identifier,
        };
        let record = Self {
            id,
            address: raw.worker_net_address,
            state: raw.state,
            generation: raw.generation_number,
            service_name: raw.service_entity_name,
        };
        let reachable = record.address.hosts().next().is_some() && record.address.http_port != 0;
        reachable
            .then_some(record)
            .ok_or(RecordError::NoAddress(id))
    }

    /// Writes the JSON value of an etcd key, with the fields and order that Alluxio writes.
    pub fn to_json(&self) -> String {
        let raw = RawRecord {
            identity: RawIdentity {
                version: self.id.version,
                identifier: self.id.identifier,
            },
            worker_net_address: self.address.clone(),
            state: self.state.clone(),
            generation_number: self.generation,
            service_entity_name: self.service_name.clone(),
        };
        serde_json::to_string(&raw).unwrap_or_default()
    }
}

fn to_hex<S: Serializer>(identifier: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(identifier))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut identifier = [0; 16];
    hex::decode_to_slice(&text, &mut identifier).map_err(|_| {
        serde::de::Error::custom(format!("identifier `{text}` is not 32 hex digits"))
    })?;
    Ok(identifier)
}

/// The etcd keys of a cluster's workers.
pub mod etcd {
    use super::WorkerId;

    /// Below it, a key with a lease for each live worker.
    pub fn live_prefix(cluster: &str) -> String {
        format!("/ServiceDiscovery/{cluster}/")
    }

    /// Below it, a key without a lease for each worker that ever registered.
    pub fn registered_prefix(cluster: &str) -> String {
        format!("/DHT/{cluster}/AUTHORIZED/")
    }

    /// The live key of one worker.
    pub fn live_key(cluster: &str, id: &WorkerId) -> String {
        live_prefix(cluster) + &id.service_name()
    }

    /// The registered key of one worker.
    pub fn registered_key(cluster: &str, id: &WorkerId) -> String {
        registered_prefix(cluster) + &id.service_name()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    const ETCD_KEYS: &str = include_str!("../tests/vectors/etcd-keys.json");

    #[derive(Deserialize)]
    struct Recorded {
        key: String,
        value: String,
        lease: bool,
    }

    #[test]
    fn recorded_etcd_records_round_trip_to_the_byte() {
        let recorded: Vec<Recorded> = serde_json::from_str(ETCD_KEYS).unwrap();
        let mut seen = 0;
        for entry in recorded.iter().filter(|e| e.key.contains("/worker-")) {
            let record = WorkerRecord::from_json(entry.value.as_bytes()).unwrap();
            assert_eq!(record.to_json(), entry.value);
            let cluster = "DefaultAlluxioCluster";
            let key = if entry.lease {
                etcd::live_key(cluster, &record.id)
            } else {
                etcd::registered_key(cluster, &record.id)
            };
            assert_eq!(key, entry.key);
            seen += 1;
        }
        assert_eq!(seen, 6);
    }

    #[test]
    fn a_static_identity_is_uuid3_of_the_host() {
        let id = WorkerId::from_host("worker-fmvjygixyt-8993");
        assert_eq!(
            hex::encode(id.identifier),
            "3ea949829acc3c9fbd1f9389a67a0757"
        );
        assert_eq!(id.version, 1);
    }

    #[test]
    fn records_that_cannot_be_used_are_refused() {
        let record = |identity: &str, address: &str| {
            format!(r#"{{"Identity":{identity},"WorkerNetAddress":{address}}}"#)
        };
        let good = r#"{"version":1,"identifier":"00000001111142228333444444444441"}"#;
        let short = r#"{"version":1,"identifier":"00"}"#;
        let address = r#"{"Host":"h","HttpServerPort":1}"#;
        let parse = |text: String| WorkerRecord::from_json(text.as_bytes());
        assert!(parse(record(good, address)).is_ok());
        assert!(matches!(
            parse(record(short, address)),
            Err(RecordError::Json(_))
        ));
        assert!(matches!(
            parse(record(good, r#"{"Host":"","HttpServerPort":1}"#)),
            Err(RecordError::NoAddress(_))
        ));
        assert!(matches!(
            parse("not json".to_owned()),
            Err(RecordError::Json(_))
        ));
    }

    #[test]
    fn the_container_host_is_tried_second() {
        let mut address = WorkerAddress::http("node", 28080);
        address.container_host = "pod".to_owned();
        assert_eq!(address.hosts().collect::<Vec<_>>(), ["node", "pod"]);
    }
}
