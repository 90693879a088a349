//! Bad input of the kubelet: each is refused in words, and the driver and its mounts go on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use alluxio_csi::proto::csi::NodeStageVolumeRequest;
use tonic::Code;

use common::{Driver, can_mount};

const CONFIG: &str = "alluxio-dataset.io/config";

/// Configurations, and what the refusal must say: object, cause, remedy.
const BAD_CONFIGS: &[(&str, [&str; 3])] = &[
    (
        "ufs: {uri: 'imagenet'}",
        ["ufs.uri", "no scheme", "write it in full"],
    ),
    (
        "ufs: {uri: 's3://k:hunter2@b/d'}",
        ["ufs.uri", "credentials", "take them out"],
    ),
    (
        "ufs: {uri: 's3://b/d'}\nclient: {page_size: 0}",
        ["client.page_size", "0 bytes", "multiple of 64 KiB"],
    ),
    (
        "ufs: {uri: 's3://b/d'}\nclient: {page_size: 128Mi}",
        ["client.page_size", "134217728 bytes", "at most 64 MiB"],
    ),
    (
        "ufs: {uri: 's3://b/d'}\nclient: {virtual_nodes_per_worker: 100001}",
        ["client.virtual_nodes_per_worker", "100001", "1 to 100000"],
    ),
    (
        "ufs: {uri: 's3://b/d'}\nclient: {pagesize: 1Mi}",
        ["client", "unknown field `pagesize`", "expected one of"],
    ),
];

fn texts(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    pairs.iter().map(own).collect()
}

#[tokio::test]
async fn bad_values_are_named_with_the_remedy_and_a_good_volume_is_staged_after() {
    let driver = Driver::start(Arc::default()).await;
    let mut node = driver.node.clone();
    for (config, says) in BAD_CONFIGS {
        let mut request = driver.stage_request();
        request
            .volume_context
            .insert(CONFIG.to_owned(), (*config).to_owned());
        let refused = node.node_stage_volume(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        for part in says.iter().chain(&["volume-1", CONFIG]) {
            assert!(refused.message().contains(part), "{part}: {refused}");
        }
        assert!(!refused.message().contains("hunter2"), "{refused}");
    }
    let half_a_secret = NodeStageVolumeRequest {
        secrets: texts(&[("key", "K-of-the-test")]),
        ..driver.stage_request()
    };
    let refused = node.node_stage_volume(half_a_secret).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    for part in ["volume-1", "secret access key", "AWS_SECRET_ACCESS_KEY"] {
        assert!(refused.message().contains(part), "{part}: {refused}");
    }
    assert!(!refused.message().contains("K-of-the-test"), "{refused}");
    assert_eq!(driver.mounter.mount_count(), 0);
    if can_mount() {
        node.node_stage_volume(driver.stage_request())
            .await
            .unwrap();
        node.node_unstage_volume(driver.unstage_request())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_volume_that_is_staged_otherwise_is_told_so_and_stays_readable() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    let mut node = driver.node.clone();
    node.node_stage_volume(driver.stage_request())
        .await
        .unwrap();
    let mut other = driver.stage_request();
    other.volume_context.insert(
        CONFIG.to_owned(),
        "ufs: {uri: 's3://other/data/', anon: true}".into(),
    );
    let refused = node.node_stage_volume(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    for part in ["volume-1", "other volume attributes", "unstage it before"] {
        assert!(refused.message().contains(part), "{part}: {refused}");
    }
    let staged = std::fs::read_to_string(driver.staging().join("dataset"));
    assert_eq!(staged.unwrap(), "vision/imagenet");
    node.node_unstage_volume(driver.unstage_request())
        .await
        .unwrap();
    assert!(!driver.staging().join("dataset").exists());
}
