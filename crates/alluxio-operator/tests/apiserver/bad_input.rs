//! What the API server refuses, and the sentence it refuses with.

use alluxio_crds::dataset::{LoadMode, MembershipType};
use alluxio_crds::{AlluxioDataLoad, AlluxioDataset};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::testbed::{Scene, Testbed, dataset, spec_on};

/// A change of a good spec, and what the refusal must say.
type Case = (fn(&mut Value), &'static str);

const CASES: &[Case] = &[
    (
        |s| s["ufs"]["uri"] = json!("ftp://host/x"),
        "unsupported scheme: write s3://",
    ),
    (
        |s| s["ufs"]["uri"] = json!("imagenet"),
        "unsupported scheme: write s3://",
    ),
    (
        |s| s["ufs"]["uri"] = json!("s3:///x"),
        "names no bucket: write s3://bucket",
    ),
    (
        |s| s["ufs"]["uri"] = json!("s3://k:hunter2@ml/x"),
        "put them into a Secret",
    ),
    (
        |s| s["ufs"]["uri"] = json!("s3://ml/a\nb"),
        "control characters",
    ),
    (
        |s| s["ufs"]["uri"] = json!("x".repeat(2000)),
        "spec.ufs.uri: Too long",
    ),
    (
        |s| s["ufs"]["s3"] = json!({"endpoint": "http://k:hunter2@h"}),
        "without user, path or query",
    ),
    (
        |s| s["ufs"]["s3"] = json!({"endpoint": "minio:9000"}),
        "http://host[:port]",
    ),
    (
        |s| s["ufs"]["credentials"] = json!({"type": "SecretRef"}),
        "SecretRef needs secretRef",
    ),
    (
        |s| s["ufs"]["credentials"] = json!({"secretRef": {"name": "x"}}),
        "Anonymous must not",
    ),
    (
        |s| s["ufs"] = json!({"uri": "file:///x", "s3": {}}),
        "ufs.s3 is only for s3://",
    ),
    (
        |s| s["client"] = json!({"pageSize": 0}),
        "a multiple of 64Ki, at most 64Mi",
    ),
    (
        |s| s["client"] = json!({"pageSize": "96Ki"}),
        "a multiple of 64Ki, at most 64Mi",
    ),
    (
        |s| s["client"] = json!({"pageSize": 65537}),
        "a multiple of 64Ki, at most 64Mi",
    ),
    (
        |s| s["client"] = json!({"pageSize": "128Mi"}),
        "a multiple of 64Ki, at most 64Mi",
    ),
    (
        |s| s["client"] = json!({"pageSize": "1MB"}),
        "a multiple of 64Ki, at most 64Mi",
    ),
    (
        |s| s["client"] = json!({"virtualNodesPerWorker": 0}),
        "must be 1 to 100000",
    ),
    (
        |s| s["client"] = json!({"virtualNodesPerWorker": 100_001}),
        "must be 1 to 100000",
    ),
    (
        |s| s["client"] = json!({"memoryLimit": "512MB"}),
        "such as 512Mi (not 512MB)",
    ),
    (
        |s| s["client"] = json!({"memoryLimit": "1Mi"}),
        "at least four pages",
    ),
    (
        |s| s["client"] = json!({"readahead": {"maxWindow": "-1"}}),
        "must be a number of bytes",
    ),
    (
        |s| s["client"] = json!({"fallback": {"policy": "Sometimes"}}),
        "\"OnWorkerFailure\"",
    ),
    (
        |s| s["cluster"]["membership"]["type"] = json!("Etcd"),
        "type Etcd needs etcd.endpoints",
    ),
    (
        |s| s["cluster"]["membership"]["type"] = json!("Service"),
        "supported values",
    ),
    (
        |s| workers(s, &json!(["http://w0"])),
        "each is host or host:port",
    ),
    (|s| workers(s, &json!(["w0", "w0"])), "Duplicate value"),
    (
        |s| etcd(s, "https://etcd:2379"),
        "https is not supported yet",
    ),
    (
        |s| etcd(s, "http://u:hunter2@etcd:2379"),
        "without user or path",
    ),
    (
        |s| {
            s["cluster"]["membership"] = json!({"type": "None"});
            s["load"] = json!({"mode": "Once"});
        },
        "load.mode Once needs workers",
    ),
    (
        |s| {
            s["cluster"]["membership"] = json!({"type": "None"});
            s["client"] = json!({"fallback": {"policy": "Never"}});
        },
        "nothing could be read",
    ),
    (
        |s| s["load"] = json!({"paths": ["/a/../b"]}),
        "starts with / at the dataset's root",
    ),
    (
        |s| s["load"] = json!({"paths": []}),
        "should have at least 1 items",
    ),
    (
        |s| s["load"] = json!({"mode": "Scheduled"}),
        "supported values: \"None\", \"Once\"",
    ),
    (
        |s| s["mount"] = json!({"fileMode": "rwx"}),
        "spec.mount.fileMode",
    ),
    (
        |s| s["mount"] = json!({"accessModes": ["ReadWriteOnce"]}),
        "\"ReadOnlyMany\", \"ReadWriteMany\"",
    ),
    (
        |s| s["mount"] = json!({"stagingCapacity": "10GB"}),
        "such as 512Mi (not 512MB)",
    ),
    (
        |s| {
            s["mount"] = json!({"accessModes": ["ReadWriteMany"]});
            s["client"] = json!({"fallback": {"policy": "Never"}});
        },
        "ReadWriteMany needs the under-store",
    ),
    (
        |s| s["client"] = json!({"pagesize": "1Mi"}),
        "unknown field \"spec.client.pagesize\"",
    ),
    (
        |s| s["sharing"] = json!({}),
        "unknown field \"spec.sharing\"",
    ),
    (
        |s| s["deletionPolicy"] = json!("EvictCache"),
        "supported values: \"RetainCache\"",
    ),
];

/// Every bad input of a dataset, strict as `kubectl apply` is.
pub(crate) async fn every_bad_input_is_refused_with_its_remedy(testbed: &Testbed) {
    let scene = testbed.namespace("bad-input").await;
    for (spoil, says) in CASES {
        let mut spec = spec_on(&["w0:28080".to_owned()]);
        spoil(&mut spec);
        let refusal = refusal(&scene, testbed, "alluxiodatasets", &dataset("bad", &spec)).await;
        assert!(refusal.contains(says), "{refusal}\nshould say: {says}");
        assert!(
            !refusal.contains("hunter2"),
            "a password is repeated: {refusal}"
        );
    }
    edits_of_what_cannot_change(&scene).await;
}

/// A good dataset comes back with every default.
pub(crate) async fn defaults_are_stored(testbed: &Testbed) {
    let scene = testbed.namespace("defaults").await;
    let mut spec = spec_on(&[]);
    spec["cluster"] = json!({ "membership": { "type": "None" } });
    let stored: AlluxioDataset = scene.create(dataset("small", &spec)).await;
    let local: AlluxioDataset = serde_json::from_value(dataset("small", &spec)).unwrap();
    assert_eq!(
        stored.spec, local.spec,
        "the API server and serde have the same defaults"
    );
    assert_eq!(stored.spec.load.mode, LoadMode::None);
    assert_eq!(stored.spec.cluster.membership.kind, MembershipType::None);
    // Without workers there is nothing to wait for but the claim.
    scene.told("small", "Ready", "True", "Ready").await;
}

async fn edits_of_what_cannot_change(scene: &Scene<'_>) {
    let spec = spec_on(&["w0:28080".to_owned()]);
    let _: AlluxioDataset = scene.create(dataset("fixed", &spec)).await;
    let datasets: Api<AlluxioDataset> = scene.api();
    let other = Patch::Merge(json!({"spec": {"ufs": {"uri": "s3://ml/other"}}}));
    let error = datasets
        .patch("fixed", &PatchParams::default(), &other)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("ufs.uri is immutable"),
        "{error}"
    );

    let load = json!({
        "metadata": { "name": "fixed" },
        "apiVersion": "data.alluxio.io/v1alpha1",
        "kind": "AlluxioDataLoad",
        "spec": { "datasetRef": { "name": "nobody" } },
    });
    let _: AlluxioDataLoad = scene.create(load).await;
    let loads: Api<AlluxioDataLoad> = scene.api();
    let other = Patch::Merge(json!({"spec": {"paths": ["/x"]}}));
    let error = loads
        .patch("fixed", &PatchParams::default(), &other)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot be edited"), "{error}");
}

async fn refusal(scene: &Scene<'_>, testbed: &Testbed, plural: &str, object: &Value) -> String {
    let path = format!(
        "/apis/data.alluxio.io/v1alpha1/namespaces/{}/{plural}",
        scene.namespace
    );
    let request = http::Request::post(format!("{path}?fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(object).unwrap())
        .unwrap();
    match testbed.client.request::<Value>(request).await {
        Ok(_) => panic!("accepted: {object}"),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => status.message,
        Err(error) => panic!("{error}"),
    }
}

fn workers(spec: &mut Value, list: &Value) {
    spec["cluster"]["membership"]["static"]["workers"] = list.clone();
}

fn etcd(spec: &mut Value, endpoint: &str) {
    spec["cluster"]["membership"] = json!({"type": "Etcd", "etcd": {"endpoints": [endpoint]}});
}
