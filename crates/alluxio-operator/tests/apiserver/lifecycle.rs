//! A dataset's life: bound, loaded, edited, deleted; and a load's.

use alluxio_crds::load::LoadState as Stored;
use alluxio_crds::{AlluxioDataLoad, AlluxioDataset};
use alluxio_wire::LoadState;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use crate::testbed::{Scene, Testbed, dataset, spec_on, until};
use crate::worker::{BYTES, Behaviour, FILES, GOOD, Worker};

/// The whole path of a good dataset.
pub(crate) async fn a_good_dataset_is_bound_loaded_edited_and_deleted(testbed: &Testbed) {
    let scene = testbed.namespace("lifecycle").await;
    let worker = Worker::start(GOOD).await;
    let _: Secret = scene
        .create(json!({
            "metadata": { "name": "keys" },
            "stringData": { "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "hunter2" },
        }))
        .await;
    let mut spec = spec_on(&[worker.address().to_string()]);
    spec["ufs"]["credentials"] = json!({"type": "SecretRef", "secretRef": {"name": "keys"}});
    spec["load"] = json!({ "mode": "Once" });
    let _: AlluxioDataset = scene.create(dataset("imagenet", &spec)).await;

    scene.told("imagenet", "Ready", "True", "Ready").await;
    scene
        .told("imagenet", "UFSReachable", "True", "Reachable")
        .await;
    scene
        .told("imagenet", "Loaded", "True", "LoadSucceeded")
        .await;
    let first = volume_of_claim(testbed, &scene).await;
    volume_is_as_agreed(&first);
    load_is_counted(&scene).await;
    let columns = scene.columns("alluxiodatasets", "imagenet").await;
    let expected = "Name=imagenet URI=s3://ml/imagenet Ready=True Loaded %=100 Files=3 Size=3.0Mi \
                    Workers=1";
    assert_eq!(columns[..7].join(" "), expected);
    for reason in ["LoadStarted", "LoadSucceeded", "Bound", "Ready"] {
        scene.event(reason).await;
    }

    an_edit_makes_another_volume(testbed, &scene, &first).await;
    an_edit_waits_for_pods(testbed, &scene).await;
    assert_eq!(
        worker.told().submitted,
        ["s3://ml/imagenet"],
        "loaded once, edits or not"
    );
    all_goes_with_the_dataset(testbed, &scene).await;
}

async fn volume_of_claim(testbed: &Testbed, scene: &Scene<'_>) -> PersistentVolume {
    let claims: Api<PersistentVolumeClaim> = scene.api();
    let claim = claims.get("imagenet").await.unwrap();
    let phase = claim.status.unwrap().phase;
    assert_eq!(phase.as_deref(), Some("Bound"));
    let volumes: Api<PersistentVolume> = Api::all(testbed.client.clone());
    volumes
        .get(&claim.spec.unwrap().volume_name.unwrap())
        .await
        .unwrap()
}

fn volume_is_as_agreed(volume: &PersistentVolume) {
    let csi = volume.spec.as_ref().unwrap().csi.as_ref().unwrap();
    assert_eq!(csi.driver, "csi.alluxio-dataset.io");
    let secret = csi.node_stage_secret_ref.as_ref().unwrap();
    assert_eq!(secret.name.as_deref(), Some("keys"));
    let attributes = csi.volume_attributes.as_ref().unwrap();
    assert_eq!(
        attributes["alluxio-dataset.io/dataset"],
        "lifecycle/imagenet"
    );
    alluxio_config::Config::from_yaml(&attributes["alluxio-dataset.io/config"]).unwrap();
    assert!(
        !format!("{volume:?}").contains("hunter2"),
        "a secret is in the volume"
    );
}

async fn load_is_counted(scene: &Scene<'_>) {
    let load = scene
        .load("a finished load", |load| load.state() == Stored::Succeeded)
        .await;
    let status = load.status.unwrap();
    assert_eq!(status.files_done, i64::try_from(FILES).ok());
    assert_eq!(status.bytes_done, i64::try_from(BYTES).ok());
    assert_eq!(
        (status.bytes_percent, status.eta_seconds),
        (Some(100), None)
    );
    assert!(status.start_time.is_some() && status.completion_time.is_some());
}

async fn an_edit_makes_another_volume(
    testbed: &Testbed,
    scene: &Scene<'_>,
    before: &PersistentVolume,
) {
    scene
        .edit("imagenet", json!({ "client": { "pageSize": "4Mi" } }))
        .await;
    let handle = |volume: &PersistentVolume| {
        volume
            .spec
            .as_ref()?
            .csi
            .as_ref()
            .map(|csi| csi.volume_handle.clone())
    };
    let volumes: Api<PersistentVolume> = Api::all(testbed.client.clone());
    let name = before.name_any();
    until("another volume handle", || async {
        let volume = volumes.get_opt(&name).await.ok()??;
        (handle(&volume) != handle(before)).then_some(())
    })
    .await;
    scene.told("imagenet", "Mountable", "True", "Bound").await;
    scene.told("imagenet", "Ready", "True", "Ready").await;
}

async fn an_edit_waits_for_pods(testbed: &Testbed, scene: &Scene<'_>) {
    let _: Pod = scene.create(pod("train-0")).await;
    let claims: Api<PersistentVolumeClaim> = scene.api();
    let before = claims.get("imagenet").await.unwrap().uid();
    scene
        .edit("imagenet", json!({ "client": { "pageSize": "8Mi" } }))
        .await;
    let message = scene
        .told("imagenet", "Mountable", "True", "EditPending")
        .await;
    assert!(message.contains("train-0"), "{message}");
    assert_eq!(
        claims.get("imagenet").await.unwrap().uid(),
        before,
        "the claim in use stays"
    );

    let pods: Api<Pod> = scene.api();
    pods.delete("train-0", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    scene.told("imagenet", "Mountable", "True", "Bound").await;
    let volume = volume_of_claim(testbed, scene).await;
    let csi = volume.spec.unwrap().csi.unwrap();
    let config = &csi.volume_attributes.unwrap()["alluxio-dataset.io/config"];
    let config = alluxio_config::Config::from_yaml(config).unwrap();
    assert_eq!(config.client.page_size.bytes(), 8 << 20);
}

async fn all_goes_with_the_dataset(testbed: &Testbed, scene: &Scene<'_>) {
    let datasets: Api<AlluxioDataset> = scene.api();
    let claims: Api<PersistentVolumeClaim> = scene.api();
    let loads: Api<AlluxioDataLoad> = scene.api();
    let volumes: Api<PersistentVolume> = Api::all(testbed.client.clone());
    let volume = volume_of_claim(testbed, scene).await.name_any();
    datasets
        .delete("imagenet", &DeleteParams::default())
        .await
        .unwrap();
    scene.gone(&datasets, "imagenet").await;
    scene.gone(&claims, "imagenet").await;
    scene.gone(&volumes, &volume).await;
    let left = loads.list(&ListParams::default()).await.unwrap().items;
    assert!(left.is_empty(), "loads are left: {left:?}");
}

/// Deleting a running load stops it at the worker.
pub(crate) async fn a_load_is_stopped_when_it_is_deleted(testbed: &Testbed) {
    let scene = testbed.namespace("stop").await;
    let worker = Worker::start(Behaviour {
        load: LoadState::Running,
        ..GOOD
    })
    .await;
    let spec = spec_on(&[worker.address().to_string()]);
    let _: AlluxioDataset = scene.create(dataset("d", &spec)).await;
    let _: AlluxioDataLoad = scene
        .create(load("train", "d", &["/train", "/test"], 0))
        .await;
    let running = scene
        .load("a running load", |load| load.state() == Stored::Running)
        .await;
    assert_eq!(
        running.status.unwrap().worker,
        Some(worker.address().to_string())
    );

    let loads: Api<AlluxioDataLoad> = scene.api();
    loads
        .delete("train", &DeleteParams::default())
        .await
        .unwrap();
    scene.gone(&loads, "train").await;
    let paths = ["s3://ml/imagenet/train", "s3://ml/imagenet/test"];
    assert_eq!(worker.told().stopped, paths);
    assert_eq!(worker.told().submitted, paths);
    scene.event("LoadStopped").await;
}

/// A load that fails is tried again, and then given up.
pub(crate) async fn a_failing_load_is_given_up_after_its_backoff_limit(testbed: &Testbed) {
    let scene = testbed.namespace("failing").await;
    let worker = Worker::start(Behaviour {
        load: LoadState::Failed,
        ..GOOD
    })
    .await;
    let spec = spec_on(&[worker.address().to_string()]);
    let _: AlluxioDataset = scene.create(dataset("d", &spec)).await;
    let _: AlluxioDataLoad = scene.create(load("all", "d", &["/"], 1)).await;
    let failed = scene
        .load("a failed load", |load| load.state() == Stored::Failed)
        .await;
    let status = failed.status.unwrap();
    assert_eq!(status.retries, 1);
    assert!(status.message.unwrap().contains("said the worker"));
    assert_eq!(worker.told().submitted.len(), 2);
    scene.event("LoadRetry").await;
    scene.event("LoadFailed").await;
    scene.told("d", "Loaded", "False", "LoadFailed").await;
}

fn load(name: &str, dataset: &str, paths: &[&str], backoff_limit: i32) -> serde_json::Value {
    json!({
        "apiVersion": "data.alluxio.io/v1alpha1",
        "kind": "AlluxioDataLoad",
        "metadata": { "name": name },
        "spec": {
            "datasetRef": { "name": dataset },
            "paths": paths,
            "backoffLimit": backoff_limit,
        },
    })
}

/// A pod that uses the claim `imagenet`, on a node that does not exist.
pub(crate) fn pod(name: &str) -> serde_json::Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": "nowhere",
            "containers": [{ "name": "main", "image": "registry.invalid/none" }],
            "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "imagenet" } }],
            "automountServiceAccountToken": false,
        },
    })
}
