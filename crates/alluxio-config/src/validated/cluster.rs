//! The cluster: how its workers are found, with every value checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{check_url, in_range, not_empty, text_or_nothing};
use crate::raw::{RawCluster, RawEtcdTls, RawMembership, RawWorkers, RawWorkersTls};
use crate::{ConfigError, SecretString};

/// Alluxio's default HTTP port of a worker.
pub const DEFAULT_WORKER_PORT: u16 = 28080;

/// The Alluxio cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// Its name in etcd.
    pub name: String,
    /// How its workers are found.
    pub membership: Membership,
    /// How they are spoken to.
    pub security: WorkerSecurity,
}

/// How clients, and workers among themselves, speak to workers. Files are read again when they
/// change, for the connections that are made then.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WorkerSecurity {
    /// What they are checked against, where TLS is spoken.
    pub tls: Option<WorkersTlsConfig>,
    /// A file with the token that is shown to them.
    pub token_file: Option<PathBuf>,
}

/// What workers are checked against.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WorkersTlsConfig {
    /// PEM file of the authorities that are trusted; the public ones where it is left out.
    pub ca_file: Option<PathBuf>,
    /// The name in every worker's certificate, where it is not the worker's host.
    pub server_name: Option<String>,
}

/// How workers are found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Membership {
    /// No workers.
    None,
    /// A fixed list, not empty.
    Static {
        /// The workers.
        workers: Vec<HostPort>,
    },
    /// The pods behind a Kubernetes headless service.
    Service(ServiceConfig),
    /// Alluxio's etcd.
    Etcd(EtcdConfig),
}

/// Which headless service, and how it is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceConfig {
    /// Its DNS name.
    pub name: String,
    /// The workers' HTTP port.
    pub port: u16,
    /// How often DNS is asked, a fifth more or less.
    pub refresh: Duration,
    /// The DNS server, where it is not the system's.
    pub dns_server: Option<SocketAddr>,
}

/// Which etcd, and as whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdConfig {
    /// URLs, not empty.
    pub endpoints: Vec<String>,
    /// User name; comes with a password.
    pub username: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
    /// What `https` endpoints are checked against.
    pub tls: EtcdTlsConfig,
}

/// What `https` endpoints of etcd are checked against, and what is shown to them. The files are
/// read when a connection is made, so a renewed certificate needs no restart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EtcdTlsConfig {
    /// PEM file of the authorities that are trusted; the public ones where it is left out.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the client's certificate chain and of its key.
    pub client_files: Option<(PathBuf, PathBuf)>,
    /// The name in the server's certificate, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

/// Host and port of a worker.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct HostPort {
    /// Host name or address.
    pub host: String,
    /// HTTP port.
    pub port: u16,
}

pub(super) fn read(raw: RawCluster) -> Result<ClusterConfig, ConfigError> {
    if raw.name.is_empty() || raw.name.contains('/') {
        let reason = format!(
            "`{}` is not a cluster name: it is one part of an etcd key",
            raw.name
        );
        return Err(ConfigError::value("cluster.name", reason));
    }
    let membership = match raw.membership {
        RawMembership::None => Membership::None,
        RawMembership::Static { workers } => Membership::Static {
            workers: not_empty("cluster.membership.workers", workers)?
                .iter()
                .map(|text| host_port(text))
                .collect::<Result<_, _>>()?,
        },
        RawMembership::Service {
            name,
            port,
            refresh_seconds,
            dns_server,
        } => Membership::Service(service(name, port, refresh_seconds, dns_server)?),
        RawMembership::Etcd {
            endpoints,
            username,
            password,
            tls,
        } => Membership::Etcd(etcd(endpoints, username, password, tls)?),
    };
    Ok(ClusterConfig {
        name: raw.name,
        membership,
        security: security(raw.workers)?,
    })
}

fn security(raw: RawWorkers) -> Result<WorkerSecurity, ConfigError> {
    let tls = raw.tls.map(|tls| {
        Ok::<_, ConfigError>(WorkersTlsConfig {
            ca_file: text_or_nothing("cluster.workers.tls.ca_file", tls.ca_file)?
                .map(PathBuf::from),
            server_name: text_or_nothing("cluster.workers.tls.server_name", tls.server_name)?,
        })
    });
    Ok(WorkerSecurity {
        tls: tls.transpose()?,
        token_file: text_or_nothing("cluster.workers.token_file", raw.token_file)?
            .map(PathBuf::from),
    })
}

fn service(
    name: String,
    port: u16,
    refresh_seconds: u64,
    dns_server: Option<String>,
) -> Result<ServiceConfig, ConfigError> {
    const SERVER: &str = "cluster.membership.dns_server";
    // The limit of DNS; labels are letters, digits, `-`, and `_` in `_http._tcp`.
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(is_name_byte) {
        let reason = format!(
            "`{name}` is not a DNS name: write one such as workers.alluxio.svc.cluster.local"
        );
        return Err(ConfigError::value("cluster.membership.name", reason));
    }
    in_range("cluster.membership.port", u64::from(port), 1, 65_535)?;
    in_range(
        "cluster.membership.refresh_seconds",
        refresh_seconds,
        1,
        3600,
    )?;
    let dns_server = dns_server.map(|text| {
        text.parse().map_err(|_| {
            let reason = format!("`{text}` is not an address and port such as 10.96.0.10:53");
            ConfigError::value(SERVER, reason)
        })
    });
    Ok(ServiceConfig {
        name,
        port,
        refresh: Duration::from_secs(refresh_seconds),
        dns_server: dns_server.transpose()?,
    })
}

fn etcd(
    endpoints: Vec<String>,
    username: Option<String>,
    password: Option<String>,
    tls: Option<RawEtcdTls>,
) -> Result<EtcdConfig, ConfigError> {
    let endpoints = not_empty("cluster.membership.endpoints", endpoints)?;
    for endpoint in &endpoints {
        check_url("cluster.membership.endpoints", endpoint)?;
    }
    if username.is_some() != password.is_some() {
        let reason = "username and password come together: set both or none";
        return Err(ConfigError::value("cluster.membership.username", reason));
    }
    let is_tls = |url: &String| url.starts_with("https://");
    if tls.is_some() && !endpoints.iter().all(is_tls) {
        let reason = "tls is set and an endpoint is not https://: write https:// for each, or \
                      leave tls out";
        return Err(ConfigError::value("cluster.membership.endpoints", reason));
    }
    Ok(EtcdConfig {
        endpoints,
        username,
        password: password.map(SecretString::new),
        tls: tls.map_or_else(|| Ok(EtcdTlsConfig::default()), etcd_tls)?,
    })
}

fn etcd_tls(raw: RawEtcdTls) -> Result<EtcdTlsConfig, ConfigError> {
    const CA: &str = "cluster.membership.tls.ca_file";
    const CERTIFICATE: &str = "cluster.membership.tls.cert_file";
    const KEY: &str = "cluster.membership.tls.key_file";
    const NAME: &str = "cluster.membership.tls.server_name";
    let client_files = match (
        text_or_nothing(CERTIFICATE, raw.cert_file)?,
        text_or_nothing(KEY, raw.key_file)?,
    ) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        (Some(_), None) => {
            return Err(ConfigError::value(
                KEY,
                "missing: cert_file is set, set both",
            ));
        }
        (None, Some(_)) => {
            let reason = "missing: key_file is set, set both";
            return Err(ConfigError::value(CERTIFICATE, reason));
        }
    };
    Ok(EtcdTlsConfig {
        ca_file: text_or_nothing(CA, raw.ca_file)?.map(PathBuf::from),
        client_files,
        server_name: text_or_nothing(NAME, raw.server_name)?,
    })
}

fn host_port(text: &str) -> Result<HostPort, ConfigError> {
    let bad = || {
        let reason = format!("`{text}` is not a worker: write host or host:port");
        ConfigError::value("cluster.membership.workers", reason)
    };
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address has more colons and needs its brackets before a port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().map_err(|_| bad())?)
        }
        Some(_) => return Err(bad()),
        None => (text, DEFAULT_WORKER_PORT),
    };
    if host.is_empty() || host.contains('/') || port == 0 {
        return Err(bad());
    }
    Ok(HostPort {
        host: host.to_owned(),
        port,
    })
}

/// What gives this membership when it is read; without secrets, unless they are wanted.
pub(super) fn to_raw_membership(membership: &Membership, secrets: bool) -> RawMembership {
    match membership {
        Membership::None => RawMembership::None,
        Membership::Static { workers } => RawMembership::Static {
            workers: workers
                .iter()
                .map(|w| format!("{}:{}", w.host, w.port))
                .collect(),
        },
        Membership::Service(service) => RawMembership::Service {
            name: service.name.clone(),
            port: service.port,
            refresh_seconds: service.refresh.as_secs(),
            dns_server: service.dns_server.map(|server| server.to_string()),
        },
        Membership::Etcd(etcd) => RawMembership::Etcd {
            endpoints: etcd.endpoints.clone(),
            username: etcd.username.clone().filter(|_| secrets),
            password: etcd
                .password
                .as_ref()
                .filter(|_| secrets)
                .map(|password| password.expose().to_owned()),
            tls: to_raw_tls(&etcd.tls),
        },
    }
}

fn to_raw_tls(tls: &EtcdTlsConfig) -> Option<RawEtcdTls> {
    let text = |path: &PathBuf| path.display().to_string();
    (*tls != EtcdTlsConfig::default()).then(|| RawEtcdTls {
        ca_file: tls.ca_file.as_ref().map(text),
        cert_file: tls.client_files.as_ref().map(|(file, _)| text(file)),
        key_file: tls.client_files.as_ref().map(|(_, file)| text(file)),
        server_name: tls.server_name.clone(),
    })
}

pub(super) fn to_raw_workers(security: &WorkerSecurity) -> RawWorkers {
    let text = |path: &PathBuf| path.display().to_string();
    RawWorkers {
        tls: security.tls.as_ref().map(|tls| RawWorkersTls {
            ca_file: tls.ca_file.as_ref().map(text),
            server_name: tls.server_name.clone(),
        }),
        token_file: security.token_file.as_ref().map(text),
    }
}
