//! The Node service over its socket, with real mounts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use alluxio_csi::MountErrorKind;
use alluxio_csi::mountinfo::MountTable;
use alluxio_csi::proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeGetCapabilitiesRequest,
    NodeGetInfoRequest, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodeStageVolumeRequest, ProbeRequest,
};
use tonic::{Code, Status};

use common::{DEADLINE, Driver, Fault, TestMounter, can_mount, can_mount_fuse, text};

async fn stats(driver: &Driver, path: String) -> Result<NodeGetVolumeStatsResponse, Status> {
    let request = NodeGetVolumeStatsRequest {
        volume_id: "volume-1".into(),
        volume_path: path,
        ..Default::default()
    };
    driver
        .node
        .clone()
        .node_get_volume_stats(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Stages and publishes.
async fn mount(driver: &Driver) {
    let mut node = driver.node.clone();
    node.node_stage_volume(driver.stage_request())
        .await
        .unwrap();
    node.node_publish_volume(driver.publish_request())
        .await
        .unwrap();
}

/// Unpublishes and unstages, each twice, and sees nothing left.
async fn unmount(driver: &Driver) {
    let mut node = driver.node.clone();
    for _ in 0..2 {
        node.node_unpublish_volume(driver.unpublish_request())
            .await
            .unwrap();
        assert!(!driver.target().exists());
    }
    for _ in 0..2 {
        node.node_unstage_volume(driver.unstage_request())
            .await
            .unwrap();
    }
    assert_eq!(driver.mounts(), Vec::<std::path::PathBuf>::new());
    assert_eq!(driver.beside_staging(), ["globalmount"]);
}

#[tokio::test]
async fn a_volume_is_staged_published_read_and_taken_away() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    mount(&driver).await;
    let shown = std::fs::read_to_string(driver.target().join("dataset")).unwrap();
    assert_eq!(shown, "vision/imagenet");
    let refused = std::fs::write(driver.target().join("new"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let table = MountTable::read().unwrap();
    let bound = table.at(&driver.target().canonicalize().unwrap()).unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(
            bound.options.split(',').any(|o| o == option),
            "{option}: {}",
            bound.options
        );
    }
    let seen = driver.mounter.seen.lock().unwrap()[0].clone();
    assert_eq!(
        (seen.volume_id.as_str(), seen.options.uid),
        ("volume-1", 1000)
    );
    assert_eq!(
        (seen.options.file_mode, seen.options.directory_mode),
        (0o440, 0o555)
    );
    unmount(&driver).await;
}

#[tokio::test]
async fn calls_said_again_change_nothing_even_after_a_restart() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    mount(&driver).await;
    mount(&driver).await;
    assert_eq!(driver.mounter.mount_count(), 1);
    assert_eq!(driver.mounts().len(), 2);
    let driver = driver.restart(Arc::default()).await;
    mount(&driver).await;
    assert_eq!(driver.mounter.mount_count(), 0);
    assert_eq!(driver.mounts().len(), 2);
    unmount(&driver).await;
}

#[tokio::test]
async fn a_staging_path_with_other_parameters_is_already_taken() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    mount(&driver).await;
    let driver = driver.restart(Arc::default()).await;
    let mut node = driver.node.clone();
    let mut other = driver.stage_request();
    other
        .volume_context
        .insert("alluxio-dataset.io/dataset".into(), "vision/other".into());
    let refused = node.node_stage_volume(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    let other = NodeStageVolumeRequest {
        volume_id: "volume-2".into(),
        ..driver.stage_request()
    };
    let refused = node.node_stage_volume(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert!(refused.message().contains("volume-1"), "{refused}");
    // A new secret is not another parameter: keys are changed while volumes are in use.
    let secrets = [("key", "K"), ("secret", "S")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let rotated = NodeStageVolumeRequest {
        secrets: secrets.into(),
        ..driver.stage_request()
    };
    node.node_stage_volume(rotated).await.unwrap();
    assert_eq!(std::fs::read_dir(driver.target()).unwrap().count(), 1);
    unmount(&driver).await;
}

#[tokio::test]
async fn two_pods_share_one_mount() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    mount(&driver).await;
    let second = driver.folder.path().join("pod/mounts/second");
    let request = NodePublishVolumeRequest {
        target_path: text(&second),
        ..driver.publish_request()
    };
    driver
        .node
        .clone()
        .node_publish_volume(request)
        .await
        .unwrap();
    assert_eq!(driver.mounter.mount_count(), 1);
    driver
        .node
        .clone()
        .node_unpublish_volume(driver.unpublish_request())
        .await
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(second.join("dataset")).unwrap(),
        "vision/imagenet"
    );
    let mut request = driver.unpublish_request();
    request.target_path = text(&second);
    driver
        .node
        .clone()
        .node_unpublish_volume(request)
        .await
        .unwrap();
    unmount(&driver).await;
}

#[tokio::test]
async fn a_pod_may_write_where_the_dataset_and_the_pod_say_so() {
    if !can_mount() {
        return;
    }
    let writable = "ufs: {uri: 's3://bucket/data/', anon: true}\nmount: {read_only: false}";
    for (is_writable, readonly, expected) in [
        (true, false, false),
        (true, true, true),
        (false, false, true),
    ] {
        let driver = Driver::start(Arc::default()).await;
        let mut stage = driver.stage_request();
        let mut publish = driver.publish_request();
        publish.readonly = readonly;
        if is_writable {
            for context in [&mut stage.volume_context, &mut publish.volume_context] {
                context.insert("alluxio-dataset.io/config".into(), writable.into());
            }
        }
        driver.node.clone().node_stage_volume(stage).await.unwrap();
        // A second time changes nothing.
        for _ in 0..2 {
            let mut node = driver.node.clone();
            node.node_publish_volume(publish.clone()).await.unwrap();
        }
        let table = MountTable::read().unwrap();
        let target = driver.target().canonicalize().unwrap();
        let bound = table.at(&target).unwrap();
        assert_eq!(bound.is_read_only(), expected, "{is_writable} {readonly}");
        unmount(&driver).await;
    }
}

#[tokio::test]
async fn a_bind_that_was_cut_short_gets_its_flags() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    driver
        .node
        .clone()
        .node_stage_volume(driver.stage_request())
        .await
        .unwrap();
    std::fs::create_dir(driver.target()).unwrap();
    rustix::mount::mount_bind(driver.staging(), driver.target()).unwrap();
    driver
        .node
        .clone()
        .node_publish_volume(driver.publish_request())
        .await
        .unwrap();
    let table = MountTable::read().unwrap();
    assert!(
        table
            .at(&driver.target().canonicalize().unwrap())
            .unwrap()
            .is_read_only()
    );
    assert_eq!(driver.mounts().len(), 2);
    unmount(&driver).await;
}

#[tokio::test]
async fn while_a_volume_is_staged_another_call_for_it_is_aborted() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    let turn = driver.mounter.gate.lock().await;
    let (mut node, request) = (driver.node.clone(), driver.stage_request());
    let first = tokio::spawn(async move { node.node_stage_volume(request).await });
    tokio::time::timeout(DEADLINE, driver.mounter.arrived.notified())
        .await
        .unwrap();
    let again = driver
        .node
        .clone()
        .node_stage_volume(driver.stage_request())
        .await;
    assert_eq!(again.unwrap_err().code(), Code::Aborted);
    let refused = driver
        .node
        .clone()
        .node_unstage_volume(driver.unstage_request())
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    drop(turn);
    first.await.unwrap().unwrap();
    unmount(&driver).await;
}

#[tokio::test]
async fn a_call_whose_caller_left_goes_on_to_its_end() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    let turn = driver.mounter.gate.lock().await;
    let mut node = driver.node.clone();
    let mut request = tonic::Request::new(driver.stage_request());
    // Long enough for the call to arrive: it is waited for below, and fails if it did not.
    request.set_timeout(std::time::Duration::from_secs(2));
    node.node_stage_volume(request).await.unwrap_err();
    tokio::time::timeout(DEADLINE, driver.mounter.arrived.notified())
        .await
        .unwrap();
    drop(turn);
    let mounted = async {
        while driver.mounter.mount_count() == 0 {
            tokio::task::yield_now().await;
        }
        // The work is done a moment before the hold on the volume is given back.
        while node
            .node_stage_volume(driver.stage_request())
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, mounted).await.unwrap();
    assert_eq!(driver.mounter.mount_count(), 1);
    unmount(&driver).await;
}

#[tokio::test]
async fn a_dead_mount_is_told_taken_away_and_replaced() {
    if !can_mount_fuse() {
        return;
    }
    let driver = Driver::start(TestMounter::failing(Fault::Hangs)).await;
    mount(&driver).await;
    driver.mounter.kill(&driver.staging());
    let answer = stats(&driver, text(&driver.target())).await.unwrap();
    assert!(answer.volume_condition.unwrap().abnormal);
    // Staging again replaces it; publishing again replaces the pod's dead bind.
    *driver.mounter.fault.lock().unwrap() = Fault::None;
    mount(&driver).await;
    let shown = std::fs::read_to_string(driver.target().join("dataset")).unwrap();
    assert_eq!(shown, "vision/imagenet");
    assert_eq!(driver.mounts().len(), 2);
    unmount(&driver).await;
}

#[tokio::test]
async fn unpublish_and_unstage_succeed_on_a_dead_mount() {
    if !can_mount_fuse() {
        return;
    }
    let driver = Driver::start(TestMounter::failing(Fault::Hangs)).await;
    mount(&driver).await;
    driver.mounter.kill(&driver.staging());
    unmount(&driver).await;
}

#[tokio::test]
async fn a_hung_mount_holds_up_no_call() {
    if !can_mount_fuse() {
        return;
    }
    let driver = Driver::start(TestMounter::failing(Fault::Hangs)).await;
    mount(&driver).await;
    let calls = async {
        let answer = stats(&driver, text(&driver.target())).await.unwrap();
        let condition = answer.volume_condition.unwrap();
        assert!(condition.abnormal, "{condition:?}");
        unmount(&driver).await;
    };
    tokio::time::timeout(DEADLINE, calls).await.unwrap();
}

#[tokio::test]
async fn stats_tell_usage_and_condition() {
    if !can_mount() {
        return;
    }
    let driver = Driver::start(Arc::default()).await;
    mount(&driver).await;
    let answer = stats(&driver, text(&driver.target())).await.unwrap();
    assert_eq!(answer.usage[0].total, 1 << 20);
    let condition = answer.volume_condition.unwrap();
    assert!(!condition.abnormal);
    // The mounter is asked about this very mount.
    let device = rustix::fs::stat(driver.target()).unwrap().st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let told = format!("the mount answers; it is {major}:{minor}");
    assert_eq!(condition.message, told);
    unmount(&driver).await;
    let missing = stats(&driver, text(&driver.target())).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn a_mount_that_fails_leaves_nothing_and_says_why() {
    for (fault, code) in [
        (
            Fault::Refuses(MountErrorKind::InvalidConfig),
            Code::InvalidArgument,
        ),
        (
            Fault::Refuses(MountErrorKind::PermissionDenied),
            Code::PermissionDenied,
        ),
        (
            Fault::Refuses(MountErrorKind::Unavailable),
            Code::Unavailable,
        ),
        (
            Fault::Refuses(MountErrorKind::TimedOut),
            Code::DeadlineExceeded,
        ),
        (Fault::Refuses(MountErrorKind::Internal), Code::Internal),
        (Fault::Lies, Code::Internal),
    ] {
        let driver = Driver::start(TestMounter::failing(fault)).await;
        let failed = driver
            .node
            .clone()
            .node_stage_volume(driver.stage_request())
            .await;
        let failed = failed.unwrap_err();
        assert_eq!(failed.code(), code, "{fault:?}: {failed}");
        assert!(failed.message().contains("volume-1"), "{failed}");
        assert_eq!(driver.beside_staging(), ["globalmount"]);
        let publish = driver
            .node
            .clone()
            .node_publish_volume(driver.publish_request())
            .await;
        assert_eq!(publish.unwrap_err().code(), Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn secrets_reach_the_mounter_and_no_message() {
    let driver = Driver::start(TestMounter::failing(Fault::Lies)).await;
    let mut request = driver.stage_request();
    request.secrets = HashMap::from([("secret".to_owned(), "hunter2".to_owned())]);
    let failed = driver
        .node
        .clone()
        .node_stage_volume(request)
        .await
        .unwrap_err();
    assert_eq!(failed.code(), Code::InvalidArgument, "{failed}");
    assert!(failed.message().contains("node-stage secret"), "{failed}");
    assert!(!failed.message().contains("hunter2"), "{failed}");
}

#[tokio::test]
async fn a_volume_that_is_not_ours_is_refused_and_the_driver_goes_on() {
    let driver = Driver::start(TestMounter::failing(Fault::Lies)).await;
    let mut node = driver.node.clone();
    let foreign = HashMap::from([("other.driver/share".to_owned(), "x".to_owned())]);
    let request = NodeStageVolumeRequest {
        volume_context: foreign.clone(),
        ..driver.stage_request()
    };
    let refused = node.node_stage_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    for part in ["volume-1", "alluxio-dataset.io/config", "AlluxioDataset"] {
        assert!(refused.message().contains(part), "{refused}");
    }
    let request = NodePublishVolumeRequest {
        volume_context: foreign,
        ..driver.publish_request()
    };
    let refused = node.node_publish_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let ready = driver
        .identity
        .clone()
        .probe(ProbeRequest {})
        .await
        .unwrap();
    assert_eq!(ready.into_inner().ready, Some(true));
}

#[tokio::test]
async fn the_driver_announces_what_it_does_and_no_more() {
    let driver = Driver::start(Arc::default()).await;
    let (mut node, mut identity) = (driver.node.clone(), driver.identity.clone());
    let info = identity
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.name, "csi.alluxio-dataset.io");
    let plugin = identity
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await
        .unwrap();
    assert!(plugin.into_inner().capabilities.is_empty());
    let announced = node
        .node_get_capabilities(NodeGetCapabilitiesRequest {})
        .await
        .unwrap();
    assert_eq!(announced.into_inner().capabilities.len(), 3);
    let who = node
        .node_get_info(NodeGetInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (who.node_id.as_str(), who.accessible_topology),
        ("node-1", None)
    );
}
