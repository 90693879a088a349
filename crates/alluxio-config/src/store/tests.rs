#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use super::StoreKind;
use crate::{Config, Credentials};

fn config(ufs: &str) -> Result<Config, String> {
    Config::from_yaml(&format!("ufs: {ufs}")).map_err(|error| error.to_string())
}

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn options_are_taken_by_the_names_of_fsspec_and_of_opendal() {
    let fsspec = "{uri: 's3://b', options: {key: K, secret: S, token: T, client_kwargs: \
                  {endpoint_url: 'http://minio:9000', region_name: eu-west-1}, config_kwargs: {s3: \
                  {addressing_style: virtual}}}}";
    let opendal = "{uri: 's3://b', options: {access_key_id: K, secret_access_key: S, \
                   session_token: T, endpoint: 'http://minio:9000', region: eu-west-1, \
                   enable_virtual_host_style: true}}";
    let fields = "{uri: 's3://b', key: K, secret: S, token: T, endpoint: 'http://minio:9000', \
                  region: eu-west-1, addressing_style: virtual}";
    let wanted = config(fields).unwrap();
    assert_eq!(config(fsspec).unwrap().ufs, wanted.ufs);
    assert_eq!(config(opendal).unwrap().ufs, wanted.ufs);
}

#[test]
fn what_s3fs_sends_along_with_writes_has_opendals_names_too() {
    let fsspec = "{uri: 's3://b', options: {s3_additional_kwargs: {StorageClass: STANDARD_IA, \
                  ACL: private, ServerSideEncryption: 'aws:kms', SSEKMSKeyId: k}}}";
    let opendal = "{uri: 's3://b', options: {default_storage_class: STANDARD_IA, default_acl: \
                   private, server_side_encryption: 'aws:kms', \
                   server_side_encryption_aws_kms_key_id: k}}";
    assert_eq!(config(fsspec).unwrap().ufs, config(opendal).unwrap().ufs);
}

#[test]
fn an_unknown_option_is_refused_with_its_path_and_what_there_is() {
    for (ufs, path) in [
        (
            "{uri: 's3://b', options: {endpoint_ulr: x}}",
            "ufs.options.endpoint_ulr",
        ),
        (
            "{uri: 's3://b', options: {client_kwargs: {verify: false}}}",
            "ufs.options.client_kwargs.verify",
        ),
        (
            "{uri: 'http://h/x', options: {region: x}}",
            "ufs.options.region",
        ),
        ("{uri: 'file:///x', endpoint: 'http://h'}", "ufs.endpoint"),
        ("{uri: 'gs://b', key: K, secret: S}", "ufs.key"),
    ] {
        let error = config(ufs).unwrap_err();
        assert!(error.contains(&format!("`{path}`")), "{error}");
        assert!(error.contains("it takes anon"), "{error}");
    }
}

#[test]
fn an_option_given_twice_or_of_another_shape_is_refused() {
    let twice = "{uri: 's3://b', endpoint: 'http://a', options: {endpoint_url: 'http://b'}}";
    assert!(config(twice).unwrap_err().contains("keep one of them"));
    let flag = config("{uri: 's3://b', options: {requester_pays: maybe}}").unwrap_err();
    assert!(flag.contains("`ufs.options.requester_pays`"), "{flag}");
    assert!(flag.contains("true or false"), "{flag}");
}

#[test]
fn what_cannot_be_had_is_refused_with_what_to_do_instead() {
    let kerberos = config("{uri: 'hdfs://nn', options: {kerb_ticket: /tmp/x}}").unwrap_err();
    assert!(kerberos.contains("delegation token"), "{kerberos}");
    let user = config("{uri: 'hdfs://nn', options: {user: bob}}").unwrap_err();
    assert!(user.contains("HADOOP_USER_NAME"), "{user}");
    let oss = config("{uri: 'oss://b'}").unwrap_err();
    assert!(oss.contains("`ufs.endpoint`"), "{oss}");
    let ftp = config("{uri: 'ftp://h/x'}").unwrap_err();
    assert!(
        ftp.contains("`ufs.uri`") && ftp.contains("webhdfs"),
        "{ftp}"
    );
}

#[test]
fn gcsfs_tokens_mean_what_they_mean_there() {
    let of = |token: &str| {
        config(&format!("{{uri: 'gs://b', options: {{token: '{token}'}}}}"))
            .unwrap()
            .ufs
    };
    assert_eq!(of("anon").credentials, Credentials::Anonymous);
    assert_eq!(of("google_default").credentials, Credentials::Environment);
    assert_eq!(of("google_default").options.get("token"), None);
    let path = of("/secrets/sa.json");
    assert_eq!(
        path.options.get("credential_path"),
        Some("/secrets/sa.json")
    );
    assert_eq!(of("ya29.x").options.get("token"), Some("ya29.x"));
}

#[test]
fn secret_options_are_neither_shown_nor_written_unasked() {
    let given = "{uri: 'az://c', options: {account_name: a, account_key: aHVzaA==}}";
    let config = config(given).unwrap();
    assert!(config.ufs.has_secrets());
    for text in [format!("{config:?}"), config.to_yaml()] {
        assert!(!text.contains("aHVzaA=="), "{text}");
        assert!(text.contains("account_name"), "{text}");
    }
    let again = Config::from_yaml(&config.to_yaml_with_secrets()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn maps_survive_being_written() {
    let given = "{uri: 'hdfs://nn', options: {extra_conf: {dfs.replication: 2}}}";
    let config = config(given).unwrap();
    let found: Vec<_> = config.ufs.options.map("extra_conf").collect();
    assert_eq!(found, [("dfs.replication", "2")]);
    assert_eq!(Config::from_yaml(&config.to_yaml()).unwrap(), config);
}

#[test]
fn a_secret_gives_each_store_its_own_credentials() {
    let azure = config("{uri: 'abfs://c@a.dfs.core.windows.net/x'}").unwrap();
    let with = azure.with_credentials(&data(&[("account_key", "a2V5\n"), ("other", "x")]));
    assert_eq!(with.unwrap().ufs.options.get("account_key"), Some("a2V5"));
    let error = azure
        .with_credentials(&data(&[("other", "x")]))
        .unwrap_err();
    assert!(error.to_string().contains("account_key"), "{error}");
    let s3 = config("{uri: 's3a://b'}").unwrap();
    let with = s3.with_credentials(&data(&[("key", "K"), ("secret", "S")]));
    assert!(matches!(
        with.unwrap().ufs.credentials,
        Credentials::Keys { .. }
    ));
}

#[test]
fn every_scheme_has_its_store() {
    for scheme in StoreKind::schemes() {
        assert!(StoreKind::of_scheme(scheme).is_some(), "{scheme}");
    }
    assert_eq!(StoreKind::of_scheme("abfss"), Some(StoreKind::Azure));
    assert_eq!(StoreKind::of_scheme("ftp"), None);
}
