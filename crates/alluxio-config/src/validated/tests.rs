//! What a configuration file may say, and what each mistake is answered with.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use super::*;

mod properties;

const FULL: &str = "
ufs: {uri: 's3://bucket/train/', endpoint_url: 'http://127.0.0.1:9000', key: K, secret: S, token: T}
cluster:
  membership:
    type: etcd
    endpoints: ['https://etcd:2379']
    username: u
    password: p
    tls: {ca_file: /ca, cert_file: /cert, key_file: /key, server_name: etcd.local}
client: {page_size: 4Mi, virtual_nodes_per_worker: 7, fallback: {policy: never}, manifest: {path: /m}}
";

fn parse(text: &str) -> Config {
    Config::from_yaml(text).unwrap()
}

fn error(text: &str) -> String {
    Config::from_yaml(text).unwrap_err().to_string()
}

#[test]
fn the_smallest_file_has_alluxios_defaults() {
    let config = parse("ufs: {uri: 's3://bucket/prefix'}");
    assert_eq!(config.client.page_size, PageSize::DEFAULT);
    assert_eq!(config.client.virtual_nodes_per_worker, 2000);
    assert_eq!(config.cluster.name, "DefaultAlluxioCluster");
    assert_eq!(config.cluster.membership, Membership::None);
    assert_eq!(config.ufs.credentials, Credentials::Environment);
    assert_eq!(config.worker.listen.port(), DEFAULT_WORKER_PORT);
}

#[test]
fn a_file_survives_writing_and_reading() {
    let config = parse(FULL);
    assert_eq!(parse(&config.to_yaml_with_secrets()), config);
}

#[test]
fn the_public_yaml_has_no_secret() {
    let yaml = parse(FULL).to_yaml();
    for secret in ["secret", "token", "password", "username", " K", " S"] {
        assert!(!yaml.contains(secret), "{secret} in {yaml}");
    }
    assert_eq!(parse(&yaml).ufs.credentials, Credentials::Environment);
}

#[test]
fn debug_output_has_no_secret() {
    let text = FULL
        .replace("secret: S", "secret: hunter2")
        .replace("password: p", "password: hunter2");
    assert!(!format!("{:?}", parse(&text)).contains("hunter2"));
}

#[test]
fn a_secrets_credentials_replace_the_files() {
    let data = BTreeMap::from([
        ("key".to_owned(), "K2".to_owned()),
        ("secret".to_owned(), "S2".to_owned()),
    ]);
    let config = parse(FULL).with_credentials(&data).unwrap();
    assert!(matches!(config.ufs.credentials, Credentials::Keys { ref key, .. } if key == "K2"));
    assert!(parse(FULL).with_credentials(&BTreeMap::new()).is_err());
}

#[test]
fn a_service_has_alluxios_port_and_survives_writing() {
    let text = "ufs: {uri: 's3://b'}\ncluster: {membership: {type: service, name: w.ns}}";
    let config = parse(text);
    let Membership::Service(service) = &config.cluster.membership else {
        panic!("a service expected");
    };
    assert_eq!(
        (service.port, service.refresh.as_secs()),
        (DEFAULT_WORKER_PORT, 10)
    );
    assert_eq!(parse(&config.to_yaml()), config);
}

#[test]
fn alluxio_property_names_are_aliases() {
    let config = parse(
        "
alluxio.dora.client.ufs.root: s3://bucket/prefix
alluxio.worker.page.store.page.size: 2MB
alluxio.user.consistent.hash.virtual.node.count.per.worker: 5
alluxio.user.dynamic.consistent.hash.ring.enabled: false
alluxio.dora.client.ufs.fallback.enabled: 'false'
alluxio.etcd.endpoints: http://a:2379, http://b:2379
alluxio.user.worker.selection.policy: alluxio.client.file.dora.MaglevHashPolicy
",
    );
    assert_eq!(config.client.page_size.bytes(), 2 << 20);
    assert_eq!(config.client.virtual_nodes_per_worker, 5);
    assert_eq!(config.client.ring_policy, RingPolicy::Maglev);
    assert_eq!(config.client.ring_membership, RingMembership::Registered);
    assert_eq!(config.client.fallback.policy, FallbackPolicy::Never);
    let Membership::Etcd(etcd) = config.cluster.membership else {
        panic!("etcd expected");
    };
    assert_eq!(etcd.endpoints, ["http://a:2379", "http://b:2379"]);
}

#[test]
fn a_page_store_has_one_directory_or_several() {
    let directories = |worker: &str| {
        let config = parse(&format!("ufs: {{uri: 's3://b/p'}}\n{worker}"));
        assert_eq!(parse(&config.to_yaml()), config);
        let found = config.worker.page_store.directories();
        let told = found.map(|d| (d.path.display().to_string(), d.capacity_bytes >> 30));
        told.collect::<Vec<_>>()
    };
    let default = ("/var/lib/alluxio-dataset/pages".to_owned(), 10);
    assert_eq!(directories(""), [default]);
    assert_eq!(
        directories("worker: {page_store: {directory: '/a,b', capacity: 2Gi}}"),
        [("/a,b".to_owned(), 2)]
    );
    let two = [("/a".to_owned(), 1), ("/b".to_owned(), 2)];
    let ours = "worker: {page_store: {directories: [{path: /a, capacity: 1Gi}, {path: /b, capacity: 2Gi}]}}";
    assert_eq!(directories(ours), two);
    let alluxios =
        "alluxio.worker.page.store.dirs: /a, /b\nalluxio.worker.page.store.sizes: 1GB,2GB";
    assert_eq!(directories(alluxios), two);
}

#[test]
fn workers_are_spoken_to_by_tls_and_with_a_token_where_it_is_said() {
    let plain = parse("ufs: {uri: 's3://b/p'}");
    assert_eq!(plain.cluster.security, WorkerSecurity::default());
    let config = parse(
        "ufs: {uri: 's3://b/p'}\ncluster: {workers: {tls: {}, token_file: /t}}\nworker: {tls: \
         {cert_file: /c, key_file: /k}, token_file: /t}",
    );
    assert!(config.cluster.security.tls.is_some() && config.worker.tls.is_some());
    assert_eq!(config.cluster.security.token_file, config.worker.token_file);
    assert_eq!(parse(&config.to_yaml()), config);
}

#[test]
fn every_alias_names_a_field_that_exists() {
    for (property, field) in alias::known_properties() {
        let flag = property.ends_with(".enabled");
        let value = if flag { "true" } else { "{not: a value}" };
        let text = format!("ufs: {{uri: 's3://b/p'}}\n{property}: {value}\n");
        if flag {
            parse(&text);
            continue;
        }
        let message = error(&text);
        let reached = message.contains(field.split('.').next().unwrap());
        assert!(
            reached && !message.contains("unknown field"),
            "{property}: {message}"
        );
    }
}

#[test]
fn docs_configuration_names_every_field_and_property() {
    let docs = include_str!("../../../../docs/configuration.md");
    let config = parse(&format!(
        "{FULL}\nworker: {{advertised_host: h, identity: i, tls: {{cert_file: c, key_file: k}}, \
         token_file: t}}\nlogging: {{path: /tmp/log}}"
    ));
    let written: serde_yaml::Value = serde_yaml::from_str(&config.to_yaml_with_secrets()).unwrap();
    let mut fields = vec![
        "ufs.anon".to_owned(),
        "client.file_list".to_owned(),
        "cluster.membership.workers".to_owned(),
        "cluster.membership.name".to_owned(),
        "cluster.membership.port".to_owned(),
        "cluster.membership.refresh_seconds".to_owned(),
        "cluster.membership.dns_server".to_owned(),
        "cluster.workers.tls".to_owned(),
        "cluster.workers.tls.ca_file".to_owned(),
        "cluster.workers.tls.server_name".to_owned(),
        "cluster.workers.token_file".to_owned(),
        "worker.page_store.directories".to_owned(),
    ];
    leaves(&written, "", &mut fields);
    for field in &fields {
        assert!(docs.contains(&format!("`{field}`")), "{field}");
    }
    for (property, _) in alias::known_properties() {
        assert!(docs.contains(&format!("`{property}`")), "{property}");
    }
    assert!(fields.len() > 25, "{fields:?}");
}

fn leaves(value: &serde_yaml::Value, path: &str, found: &mut Vec<String>) {
    let Some(mapping) = value.as_mapping() else {
        return found.push(path.to_owned());
    };
    for (name, value) in mapping {
        let dot = if path.is_empty() { "" } else { "." };
        leaves(
            value,
            &format!("{path}{dot}{}", name.as_str().unwrap()),
            found,
        );
    }
}

#[test]
fn the_same_thing_twice_is_refused() {
    let text = "ufs: {uri: 's3://b/p'}\nclient: {page_size: 1MB}\nalluxio.worker.page.store.page.size: 1MB";
    let message = error(text);
    assert!(
        message.contains("both") && message.contains("client.page_size"),
        "{message}"
    );
}

/// A file, the field that its error must name, and the words that it must have.
const BAD_UFS: &[(&str, &str, &str)] = &[
    ("ufs: {}", "ufs", "uri"),
    ("ufs: {uri: nope}", "ufs.uri", "no scheme"),
    ("ufs: {uri: 's3://k:hunter2@b/p'}", "ufs.uri", "credentials"),
    ("ufs: {uri: 's3://b', key: K}", "ufs.secret", "set both"),
    (
        "ufs: {uri: 's3://b', anon: true, key: K}",
        "ufs.anon",
        "keep one",
    ),
    (
        "ufs: {uri: 's3://b', endpoint: 'minio:9000'}",
        "ufs.endpoint",
        "not a URL",
    ),
];

/// The same for what follows a good `ufs`.
const BAD_REST: &[(&str, &str, &str)] = &[
    (
        "client: {page_size: 0}",
        "client.page_size",
        "multiple of 64 KiB",
    ),
    (
        "client: {page_size: 3000Ki}",
        "client.page_size",
        "multiple of 64 KiB",
    ),
    (
        "client: {page_size: 128Mi}",
        "client.page_size",
        "at most 64 MiB",
    ),
    ("client: {page_size: big}", "client.page_size", "not a size"),
    (
        "client: {virtual_nodes_per_worker: 0}",
        "client.virtual_nodes_per_worker",
        "1 to 100000",
    ),
    (
        "client: {virtual_nodes_per_worker: 100001}",
        "client.virtual_nodes_per_worker",
        "out of range",
    ),
    (
        "client: {memory_limit: 1Mi}",
        "client.memory_limit",
        "four pages",
    ),
    (
        "client: {fallback: {policy: sometimes}}",
        "client.fallback.policy",
        "unknown variant",
    ),
    ("client: {pagesize: 1MB}", "client", "unknown field"),
    (
        "cluster: {membership: {type: static, workers: []}}",
        "cluster.membership.workers",
        "empty",
    ),
    (
        "cluster: {membership: {type: static, workers: ['a:b']}}",
        "cluster.membership.workers",
        "host:port",
    ),
    (
        "cluster: {membership: {type: etcd, endpoints: [x]}}",
        "cluster.membership.endpoints",
        "URL",
    ),
    (
        "cluster: {membership: {type: etcd, endpoints: ['https://x'], username: u}}",
        "cluster.membership.username",
        "set both or none",
    ),
    (
        "cluster: {membership: {type: etcd, endpoints: ['https://x', 'http://y'], tls: {ca_file: /c}}}",
        "cluster.membership.endpoints",
        "write https://",
    ),
    (
        "cluster: {membership: {type: etcd, endpoints: ['https://x'], tls: {cert_file: /c}}}",
        "cluster.membership.tls.key_file",
        "set both",
    ),
    (
        "cluster: {membership: {type: etcd, endpoints: ['https://x'], tls: {key_file: /k}}}",
        "cluster.membership.tls.cert_file",
        "set both",
    ),
    (
        "cluster: {membership: {type: etcd, endpoints: ['https://x'], tls: {ca_file: ''}}}",
        "cluster.membership.tls.ca_file",
        "empty",
    ),
    (
        "cluster: {membership: {type: service, name: 'a b'}}",
        "cluster.membership.name",
        "DNS name",
    ),
    (
        "cluster: {membership: {type: service, name: w, port: 0}}",
        "cluster.membership.port",
        "1 to 65535",
    ),
    (
        "cluster: {membership: {type: service, name: w, refresh_seconds: 0}}",
        "cluster.membership.refresh_seconds",
        "1 to 3600",
    ),
    (
        "cluster: {membership: {type: service, name: w, dns_server: dns}}",
        "cluster.membership.dns_server",
        "address and port",
    ),
    (
        "cluster: {membership: {type: service, name: w}}\nclient: {ring_membership: registered}",
        "client.ring_membership",
        "leave it live",
    ),
    ("cluster: {name: a/b}", "cluster.name", "etcd key"),
    ("worker: {listen: here}", "worker.listen", "address"),
    (
        "worker: {page_store: {directory: /a, directories: [{path: /b, capacity: 1Gi}]}}",
        "worker.page_store.directories",
        "one form or the other",
    ),
    (
        "worker: {page_store: {directories: [{path: /a, capacity: 1}, {path: /a/b, capacity: 1}]}}",
        "worker.page_store.directories",
        "/a/b lies in /a",
    ),
    (
        "worker: {page_store: {directories: [{path: /a, capacity: 1}, {path: /a, capacity: 1}]}}",
        "worker.page_store.directories",
        "named twice",
    ),
    (
        "worker: {tls: {cert_file: '', key_file: k}}",
        "worker.tls.cert_file",
        "empty",
    ),
    (
        "cluster: {workers: {token_file: ''}}",
        "cluster.workers.token_file",
        "empty",
    ),
    (
        "alluxio.worker.page.store.dirs: /a,/b\nalluxio.worker.page.store.sizes: 1GB",
        "alluxio.worker.page.store.sizes",
        "1 sizes are given for 2 directories",
    ),
    (
        "alluxio.user.nonsense: 1",
        "alluxio.user.nonsense",
        "not known",
    ),
    (
        "alluxio.user.worker.selection.policy: LocalFirstPolicy",
        "selection.policy",
        "not known",
    ),
];

#[test]
fn errors_name_the_path_of_the_bad_field() {
    let check = |text: &str, path: &str, reason: &str| {
        let message = error(text);
        assert!(
            message.contains(path) && message.contains(reason),
            "{text}: {message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    };
    for (text, path, reason) in BAD_UFS {
        check(text, path, reason);
    }
    for (rest, path, reason) in BAD_REST {
        check(&format!("ufs: {{uri: 's3://b/p'}}\n{rest}"), path, reason);
    }
}

#[test]
fn workers_are_hosts_with_an_optional_port() {
    let text = "ufs: {uri: 's3://b'}\ncluster: {membership: {type: static, workers: [a, 'b:1', '[::1]:2']}}";
    let Membership::Static { workers } = parse(text).cluster.membership else {
        panic!("static expected");
    };
    let pairs: Vec<_> = workers.iter().map(|w| (w.host.as_str(), w.port)).collect();
    assert_eq!(pairs, [("a", 28080), ("b", 1), ("[::1]", 2)]);
}

#[test]
fn versions_and_manifest_are_read_with_their_defaults() {
    let client = parse("ufs: {uri: 's3://b'}").client;
    assert_eq!(client.consistency, Consistency::Live);
    assert_eq!(client.on_change, OnChange::Fail);
    assert!(client.verify_worker_version && client.manifest.is_none());
    let pinned = "ufs: {uri: 's3://b'}
client: {consistency: pinned, on_change: reopen, manifest: {path: /m, limit: 1Mi}}";
    let config = parse(pinned);
    assert_eq!(config.client.consistency, Consistency::Pinned);
    assert_eq!(
        config.client.manifest.as_ref().unwrap().limit_bytes,
        1 << 20
    );
    assert_eq!(parse(&config.to_yaml()), config);
}

#[test]
fn pinned_without_a_manifest_names_what_is_missing() {
    let text = error("ufs: {uri: 's3://b'}\nclient: {consistency: pinned}");
    for part in [
        "client.consistency",
        "client.manifest.path",
        "manifest create",
    ] {
        assert!(text.contains(part), "no {part} in: {text}");
    }
    let text = error("ufs: {uri: 's3://b'}\nclient: {negative_ttl_seconds: 3601}");
    assert!(text.contains("client.negative_ttl_seconds"), "{text}");
    let text = error("ufs: {uri: 's3://b'}\nclient: {manifest: {path: ''}}");
    assert!(text.contains("client.manifest.path"), "{text}");
}

#[test]
fn a_fallback_budget_is_at_least_a_page() {
    let budget = |value: &str| {
        Config::from_yaml(&format!(
            "{{ufs: {{uri: 's3://b/p'}}, client: {{fallback: {{max_bytes_per_hour: {value}}}}}}}"
        ))
    };
    let limit = |value| budget(value).unwrap().client.fallback.max_bytes_per_hour;
    assert_eq!((limit("0"), limit("1Mi")), (None, Some(1 << 20)));
    let message = budget("1000").unwrap_err().to_string();
    assert!(
        message.contains("client.fallback.max_bytes_per_hour"),
        "{message}"
    );
}
