//! What only the operator can see becomes a condition with cause and remedy, and heals by itself.

use alluxio_crds::AlluxioDataset;
use alluxio_etcd::{EtcdClient, EtcdOptions, EtcdTls};
use alluxio_wire::{WorkerAddress, WorkerId, WorkerRecord, etcd};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::cluster::Cluster;
use crate::testbed::{Testbed, dataset, spec_on};
use crate::worker::{Behaviour, GOOD, Worker};

/// No Secret, then one without a key, then a good one.
pub(crate) async fn a_missing_secret_is_waited_for(testbed: &Testbed) {
    let scene = testbed.namespace("secret").await;
    let worker = Worker::start(GOOD).await;
    let mut spec = spec_on(&[worker.address().to_string()]);
    spec["ufs"]["credentials"] = json!({"type": "SecretRef", "secretRef": {"name": "keys"}});
    let _: AlluxioDataset = scene.create(dataset("d", &spec)).await;
    let message = scene.told("d", "Ready", "False", "SecretMissing").await;
    assert!(
        message.contains("Secret keys") && message.contains("create it"),
        "{message}"
    );
    let claims: Api<PersistentVolumeClaim> = scene.api();
    assert!(
        claims.get_opt("d").await.unwrap().is_none(),
        "no claim without its Secret"
    );

    let data = json!({ "AWS_ACCESS_KEY_ID": "k" });
    let _: Secret = scene
        .create(json!({ "metadata": { "name": "keys" }, "stringData": data }))
        .await;
    let message = scene.told("d", "Ready", "False", "SecretIncomplete").await;
    assert!(message.contains("AWS_SECRET_ACCESS_KEY"), "{message}");

    let secrets: Api<Secret> = scene.api();
    secrets
        .delete("keys", &DeleteParams::default())
        .await
        .unwrap();
    let data = json!({ "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s" });
    let _: Secret = scene
        .create(json!({ "metadata": { "name": "keys" }, "stringData": data }))
        .await;
    scene.told("d", "Ready", "True", "Ready").await;
}

/// Nobody listens on port 1.
pub(crate) async fn an_unreachable_etcd_is_a_condition(testbed: &Testbed) {
    let scene = testbed.namespace("no-etcd").await;
    let endpoint = "http://127.0.0.1:1";
    let mut spec = spec_on(&[]);
    spec["cluster"]["membership"] = json!({"type": "Etcd", "etcd": {"endpoints": [endpoint]}});
    spec["load"] = json!({ "mode": "Once" });
    let _: AlluxioDataset = scene.create(dataset("d", &spec)).await;
    let message = scene
        .told("d", "WorkersAvailable", "False", "MembershipUnreachable")
        .await;
    assert!(
        message.contains(endpoint) && message.contains("check the endpoints"),
        "{message}"
    );
    scene
        .told("d", "UFSReachable", "Unknown", "NoWorkerCanTell")
        .await;
    scene
        .told("d", "Ready", "False", "WorkersUnavailable")
        .await;
    let waiting = |load: &alluxio_crds::AlluxioDataLoad| {
        let message = load
            .status
            .as_ref()
            .and_then(|status| status.message.as_deref());
        message.is_some_and(|text| text.contains(endpoint))
    };
    scene.load("a load that waits for etcd", waiting).await;
}

/// A worker that registers itself as Alluxio's does.
pub(crate) async fn workers_are_found_in_etcd(testbed: &Testbed, cluster: &Cluster) {
    let scene = testbed.namespace("etcd").await;
    let endpoint = cluster.etcd();
    let mut spec = spec_on(&[]);
    spec["cluster"] = json!({
        "name": "TestCluster",
        "membership": {"type": "Etcd", "etcd": {"endpoints": [endpoint]}},
    });
    let _: AlluxioDataset = scene.create(dataset("d", &spec)).await;
    scene
        .told("d", "WorkersAvailable", "False", "NoWorkers")
        .await;

    let worker = Worker::start(GOOD).await;
    let id = WorkerId::from_host("test");
    let address = WorkerAddress::http("127.0.0.1", worker.address().port());
    let record = WorkerRecord::new(id, address).to_json();
    let options = EtcdOptions {
        endpoints: vec![endpoint],
        user: None,
        tls: EtcdTls::default(),
    };
    let client = EtcdClient::connect(&options).await.unwrap();
    client
        .put(&etcd::live_key("TestCluster", &id), record, None)
        .await
        .unwrap();
    scene.told("d", "WorkersAvailable", "True", "AllLive").await;
    scene.told("d", "Ready", "True", "Ready").await;
}

/// 403 and 404 of the under-store, as a worker passes them on.
pub(crate) async fn what_the_under_store_says_is_a_condition(testbed: &Testbed) {
    let scene = testbed.namespace("ufs").await;
    for (code, reason, remedy) in [
        (403, "PermissionDenied", "check the credentials"),
        (404, "NotFound", "create it"),
    ] {
        let name = format!("d-{code}");
        let worker = Worker::start(Behaviour { info: code, ..GOOD }).await;
        let spec = spec_on(&[worker.address().to_string()]);
        let _: AlluxioDataset = scene.create(dataset(&name, &spec)).await;
        let message = scene.told(&name, "UFSReachable", "False", reason).await;
        assert!(message.contains("s3://ml/imagenet"), "{message}");
        assert!(message.contains("the under-store said no"), "{message}");
        assert!(message.contains(remedy), "{message}");
        scene.told(&name, "Ready", "False", "UFSUnreachable").await;
    }
}

/// A claim of the dataset's name that someone else made.
pub(crate) async fn a_foreign_claim_is_left_alone(testbed: &Testbed) {
    let scene = testbed.namespace("foreign").await;
    let theirs: PersistentVolumeClaim = scene
        .create(json!({
            "metadata": { "name": "d" },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "resources": { "requests": { "storage": "1Gi" } },
            },
        }))
        .await;
    let worker = Worker::start(GOOD).await;
    let spec = spec_on(&[worker.address().to_string()]);
    let _: AlluxioDataset = scene.create(dataset("d", &spec)).await;
    let message = scene.told("d", "Mountable", "False", "NameConflict").await;
    assert!(
        message.contains("foreign/d") && message.contains("another name"),
        "{message}"
    );
    scene.event("NameConflict").await;

    let datasets: Api<AlluxioDataset> = scene.api();
    datasets
        .delete("d", &DeleteParams::default())
        .await
        .unwrap();
    scene.gone(&datasets, "d").await;
    let claims: Api<PersistentVolumeClaim> = scene.api();
    let still = claims.get("d").await.unwrap();
    assert_eq!(still.metadata.uid, theirs.metadata.uid);
    assert_eq!(still.metadata.deletion_timestamp, None);
}
