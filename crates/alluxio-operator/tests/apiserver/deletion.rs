//! Deletion ends, whatever is dead or in the way.

use alluxio_crds::AlluxioDataset;
use alluxio_crds::load::LoadState as Stored;
use alluxio_wire::LoadState;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::lifecycle::pod;
use crate::testbed::{Testbed, dataset, spec_on};
use crate::worker::{Behaviour, GOOD, Worker};

/// The only worker dies while it loads; then the dataset is deleted.
pub(crate) async fn dead_workers_do_not_hold_a_deleted_dataset(testbed: &Testbed) {
    let scene = testbed.namespace("dead").await;
    let worker = Worker::start(Behaviour {
        load: LoadState::Running,
        ..GOOD
    })
    .await;
    let mut spec = spec_on(&[worker.address().to_string()]);
    spec["load"] = json!({ "mode": "Once", "backoffLimit": 20 });
    let _: AlluxioDataset = scene.create(dataset("d", &spec)).await;
    scene.told("d", "Ready", "True", "Ready").await;
    scene
        .load("a running load", |load| load.state() == Stored::Running)
        .await;
    worker.kill();

    let datasets: Api<AlluxioDataset> = scene.api();
    datasets
        .delete("d", &DeleteParams::default())
        .await
        .unwrap();
    scene.gone(&datasets, "d").await;
    let claims: Api<PersistentVolumeClaim> = scene.api();
    scene.gone(&claims, "d").await;
}

/// A pod keeps the claim, so Kubernetes keeps it too; the dataset goes after its deadline.
pub(crate) async fn a_pod_that_stays_does_not_hold_it_forever(testbed: &Testbed) {
    let scene = testbed.namespace("blocked").await;
    let worker = Worker::start(GOOD).await;
    let spec = spec_on(&[worker.address().to_string()]);
    let _: AlluxioDataset = scene.create(dataset("imagenet", &spec)).await;
    scene.told("imagenet", "Mountable", "True", "Bound").await;
    let _: Pod = scene.create(pod("train-0")).await;

    let datasets: Api<AlluxioDataset> = scene.api();
    datasets
        .delete("imagenet", &DeleteParams::default())
        .await
        .unwrap();
    let note = scene.event("DeletionBlocked").await;
    assert!(note.contains("train-0"), "{note}");
    let note = scene.event("VolumeLeftBehind").await;
    assert!(note.contains("train-0"), "{note}");
    scene.gone(&datasets, "imagenet").await;

    let pods: Api<Pod> = scene.api();
    pods.delete("train-0", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let claims: Api<PersistentVolumeClaim> = scene.api();
    scene.gone(&claims, "imagenet").await;
}

/// Someone deletes the volume itself: Kubernetes keeps it until its claim goes, and the operator
/// lets the claim go once no pod uses it.
pub(crate) async fn a_deleted_volume_is_made_anew(testbed: &Testbed) {
    let scene = testbed.namespace("no-volume").await;
    let worker = Worker::start(GOOD).await;
    let spec = spec_on(&[worker.address().to_string()]);
    let _: AlluxioDataset = scene.create(dataset("imagenet", &spec)).await;
    scene.told("imagenet", "Mountable", "True", "Bound").await;
    let _: Pod = scene.create(pod("train-0")).await;
    let claims: Api<PersistentVolumeClaim> = scene.api();
    let claim = claims.get("imagenet").await.unwrap();
    let name = claim.spec.unwrap().volume_name.unwrap();
    let volumes = scene.volumes();
    let before = volumes.get(&name).await.unwrap().metadata.uid;

    volumes
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    let message = scene
        .told("imagenet", "Mountable", "True", "VolumeDeleted")
        .await;
    assert!(message.contains("train-0"), "{message}");

    let pods: Api<Pod> = scene.api();
    pods.delete("train-0", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    scene.told("imagenet", "Mountable", "True", "Bound").await;
    assert_ne!(volumes.get(&name).await.unwrap().metadata.uid, before);
}
