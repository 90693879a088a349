//! A dataset's spec as the client's configuration: pure, and without secrets.
//!
//! The operator writes the result into the volume, the quickstart hands it to its client. The API
//! server's rules have refused most of what can be wrong here; this is the second lock, for specs
//! that no API server has seen, and it names the field the user wrote, not the one in the file.

use alluxio_config::mount::RawMount;
use alluxio_config::raw::{
    RawClient, RawCluster, RawConfig, RawFallback, RawLogging, RawMembership, RawReadahead, RawUfs,
    RawWorker, Size,
};
use alluxio_config::{AddressingStyle, Config, ConfigError, FallbackPolicy, RingMembership};
use alluxio_crds::AlluxioDataset;
use alluxio_crds::ByteQuantity;
use alluxio_crds::dataset as spec;

use super::validate::InvalidDataset;

/// Turns a dataset's spec into the client's configuration. Credentials of a Secret are not in it:
/// whoever has them adds them with `Config::with_credentials`.
pub fn client_config(dataset: &AlluxioDataset) -> Result<Config, InvalidDataset> {
    let raw = raw(dataset)?;
    Config::try_from(raw).map_err(|error| in_words_of_the_spec(dataset, &error))
}

fn raw(dataset: &AlluxioDataset) -> Result<RawConfig, InvalidDataset> {
    let spec = &dataset.spec;
    Ok(RawConfig {
        ufs: ufs(dataset)?,
        cluster: RawCluster {
            name: spec.cluster.name.clone(),
            membership: membership(dataset)?,
            ..RawCluster::default()
        },
        client: client(dataset)?,
        worker: RawWorker::default(),
        mount: mount(dataset)?,
        logging: RawLogging {
            level: level(spec.client.logging.level).to_owned(),
            ..RawLogging::default()
        },
    })
}

fn ufs(dataset: &AlluxioDataset) -> Result<RawUfs, InvalidDataset> {
    let ufs = &dataset.spec.ufs;
    let s3 = ufs.s3.clone().unwrap_or_default();
    let secret = match (ufs.credentials.kind, &ufs.credentials.secret_ref) {
        (spec::CredentialsType::SecretRef, Some(_)) => true,
        (spec::CredentialsType::Anonymous, None) => false,
        _ => {
            let reason = "type SecretRef needs secretRef, and type Anonymous must not have it";
            return Err(InvalidDataset::field(
                dataset,
                "spec.ufs.credentials",
                reason,
            ));
        }
    };
    let scheme = ufs.uri.split(':').next().unwrap_or_default();
    if !matches!(scheme, "s3" | "s3a" | "file") {
        let reason =
            "unsupported scheme: write s3://bucket/path, s3a://bucket/path or file:///path";
        return Err(InvalidDataset::field(dataset, "spec.ufs.uri", reason));
    }
    if scheme == "file" && (secret || ufs.s3.is_some()) {
        let reason = "file:// URIs take neither s3 nor credentials: remove them";
        return Err(InvalidDataset::field(dataset, "spec.ufs", reason));
    }
    Ok(RawUfs {
        uri: ufs.uri.clone(),
        endpoint: s3.endpoint,
        region: s3.region,
        addressing_style: match s3.addressing_style {
            spec::AddressingStyle::Path => AddressingStyle::Path,
            spec::AddressingStyle::Virtual => AddressingStyle::Virtual,
        },
        anon: !secret,
        key: None,
        secret: None,
        token: None,
        options: std::collections::BTreeMap::new(),
    })
}

fn membership(dataset: &AlluxioDataset) -> Result<RawMembership, InvalidDataset> {
    let membership = &dataset.spec.cluster.membership;
    match (membership.kind, &membership.static_list, &membership.etcd) {
        (spec::MembershipType::None, None, None) => Ok(RawMembership::None),
        (spec::MembershipType::Static, Some(list), None) => Ok(RawMembership::Static {
            workers: list.workers.clone(),
        }),
        (spec::MembershipType::Etcd, None, Some(etcd)) => Ok(RawMembership::Etcd {
            endpoints: etcd.endpoints.clone(),
            username: None,
            password: None,
            tls: None,
        }),
        _ => {
            let reason = "type Static needs static.workers alone, type Etcd needs etcd.endpoints \
                          alone, type None needs neither";
            Err(InvalidDataset::field(
                dataset,
                "spec.cluster.membership",
                reason,
            ))
        }
    }
}

fn client(dataset: &AlluxioDataset) -> Result<RawClient, InvalidDataset> {
    let client = &dataset.spec.client;
    let bytes = |field, quantity: &ByteQuantity| match quantity.bytes() {
        Ok(bytes) => Ok(Size::Bytes(bytes)),
        Err(error) => Err(InvalidDataset::field(dataset, field, error)),
    };
    let fallback = &client.fallback;
    let timeout = fallback.worker_timeout_milliseconds;
    Ok(RawClient {
        page_size: bytes("spec.client.pageSize", &client.page_size)?,
        virtual_nodes_per_worker: count(client.virtual_nodes_per_worker),
        ring_membership: match client.ring_membership {
            spec::RingMembership::Live => RingMembership::Live,
            spec::RingMembership::Registered => RingMembership::Registered,
        },
        memory_limit: bytes("spec.client.memoryLimit", &client.memory_limit)?,
        metadata_ttl_seconds: u64::from(count(client.metadata_ttl_seconds)),
        readahead: RawReadahead {
            max_window: bytes(
                "spec.client.readahead.maxWindow",
                &client.readahead.max_window,
            )?,
        },
        fallback: RawFallback {
            policy: match fallback.policy {
                spec::FallbackPolicy::Never => FallbackPolicy::Never,
                spec::FallbackPolicy::OnWorkerFailure => FallbackPolicy::OnWorkerFailure,
                spec::FallbackPolicy::Always => FallbackPolicy::Always,
            },
            worker_timeout_milliseconds: u64::from(count(timeout)),
            ..RawFallback::default()
        },
        ..RawClient::default()
    })
}

fn mount(dataset: &AlluxioDataset) -> Result<RawMount, InvalidDataset> {
    let mount = &dataset.spec.mount;
    let capacity = mount
        .staging_capacity
        .bytes()
        .map_err(|error| InvalidDataset::field(dataset, "spec.mount.stagingCapacity", error))?;
    Ok(RawMount {
        read_only: !mount.is_writable(),
        staging_capacity: Size::Bytes(capacity),
        ..RawMount::default()
    })
}

/// A negative number becomes 0, which every range that forbids negative numbers forbids as well
/// or takes as "off".
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

const fn level(level: spec::LogLevel) -> &'static str {
    match level {
        spec::LogLevel::Error => "error",
        spec::LogLevel::Warn => "warn",
        spec::LogLevel::Info => "info",
        spec::LogLevel::Debug => "debug",
        spec::LogLevel::Trace => "trace",
    }
}

fn in_words_of_the_spec(dataset: &AlluxioDataset, error: &ConfigError) -> InvalidDataset {
    match error {
        ConfigError::Value { path, reason } => {
            InvalidDataset::field(dataset, &spec_path(path), reason)
        }
        other => InvalidDataset::field(dataset, "spec", other),
    }
}

/// `client.page_size` of the file is `spec.client.pageSize` of the object.
fn spec_path(path: &str) -> String {
    match path {
        "cluster.membership.workers" => "spec.cluster.membership.static.workers".to_owned(),
        "cluster.membership.endpoints" => "spec.cluster.membership.etcd.endpoints".to_owned(),
        "mount.read_only" => "spec.mount.accessModes".to_owned(),
        "ufs.endpoint" => "spec.ufs.s3.endpoint".to_owned(),
        "client.metadata_ttl_seconds" => "spec.client.metadataTTLSeconds".to_owned(),
        _ => format!("spec.{}", camel_case(path)),
    }
}

fn camel_case(path: &str) -> String {
    let mut after_underscore = false;
    let letters = path.chars().filter_map(|c| {
        let upper = std::mem::replace(&mut after_underscore, c == '_');
        (c != '_').then(|| if upper { c.to_ascii_uppercase() } else { c })
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_config::{Credentials, Membership};

    use super::*;
    use crate::samples::a_dataset;

    fn refusal(dataset: &AlluxioDataset) -> String {
        client_config(dataset).unwrap_err().to_string()
    }

    #[test]
    fn a_spec_becomes_the_clients_configuration() {
        let config = client_config(&a_dataset().with_secret("keys").into()).unwrap();
        assert_eq!(config.ufs.uri.as_str(), "s3://ml/imagenet");
        assert_eq!(config.ufs.credentials, Credentials::Environment);
        assert_eq!(config.client.page_size.bytes(), 1 << 20);
        assert!(
            matches!(&config.cluster.membership, Membership::Static { workers } if workers.len() == 2)
        );
        assert_eq!(Config::from_yaml(&config.to_yaml()).unwrap(), config);
    }

    #[test]
    fn without_a_secret_requests_are_anonymous() {
        let config = client_config(&a_dataset().into()).unwrap();
        assert_eq!(config.ufs.credentials, Credentials::Anonymous);
    }

    #[test]
    fn every_bad_value_is_named_as_the_user_wrote_it() {
        let cases: Vec<(AlluxioDataset, &str)> = vec![
            (a_dataset().at("ftp://x/y").into(), "spec.ufs.uri"),
            (a_dataset().at("s3:///y").into(), "spec.ufs.uri"),
            (
                a_dataset().with_pages_of("0").into(),
                "spec.client.pageSize",
            ),
            (
                a_dataset().with_pages_of("96Ki").into(),
                "spec.client.pageSize",
            ),
            (
                a_dataset().with_pages_of("128Mi").into(),
                "spec.client.pageSize",
            ),
            (
                a_dataset().with_pages_of("1MB").into(),
                "spec.client.pageSize",
            ),
            (
                a_dataset().with_virtual_nodes(0).into(),
                "spec.client.virtualNodesPerWorker",
            ),
            (
                a_dataset().with_virtual_nodes(100_001).into(),
                "spec.client.virtualNodesPerWorker",
            ),
            (
                a_dataset().with_virtual_nodes(-1).into(),
                "spec.client.virtualNodesPerWorker",
            ),
            (
                a_dataset().on_workers(&["h:x"]).into(),
                "spec.cluster.membership.static.workers",
            ),
            (
                a_dataset().written().never_from_the_ufs().into(),
                "spec.mount.accessModes",
            ),
            (
                a_dataset().on_etcd("etcd:2379").into(),
                "spec.cluster.membership.etcd.endpoints",
            ),
        ];
        for (dataset, field) in cases {
            let text = refusal(&dataset);
            assert!(text.contains(field), "{text}");
            assert!(
                text.starts_with("AlluxioDataset vision/imagenet: "),
                "{text}"
            );
        }
    }

    #[test]
    fn credentials_in_a_uri_are_not_repeated() {
        let text = refusal(&a_dataset().at("s3://AKIA:hunter2@ml/imagenet").into());
        assert!(
            text.contains("credentials") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
