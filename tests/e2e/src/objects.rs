//! The Kubernetes objects of the scenario, and what is asked of the API server about them.

use std::collections::BTreeMap;

use alluxio_crds::AlluxioDataset;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{Api, PostParams};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::dataset::PREFIX;
use crate::services::{BUCKET, Etcd, ObjectStore};

/// Where the chart is installed.
pub(crate) const RELEASE_NAMESPACE: &str = "alluxio-dataset";
/// The release's name; every object of the chart begins with it.
pub(crate) const RELEASE: &str = "alluxio-dataset";
/// Where the user works.
pub(crate) const NAMESPACE: &str = "vision";
/// The dataset, its claim, and the Secret it names.
pub(crate) const DATASET: &str = "imagenet";
/// The Secret with the S3 credentials, in both namespaces.
pub(crate) const SECRET: &str = "imagenet-s3";
/// The pod that reads.
pub(crate) const READER: &str = "reader";
/// The cluster's name in etcd.
pub(crate) const ALLUXIO_CLUSTER: &str = "DefaultAlluxioCluster";
/// The CSI driver's name.
pub(crate) const DRIVER: &str = "csi.alluxio-dataset.io";
/// Embedded workers.
pub(crate) const WORKERS: i32 = 3;
/// Who owns the files in the pod.
pub(crate) const OWNER: i64 = 1000;

/// A table as `kubectl get` asks for it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    column_definitions: Vec<TableColumn>,
    rows: Vec<TableRow>,
}

#[derive(Debug, Deserialize)]
struct TableColumn {
    name: String,
}

#[derive(Debug, Deserialize)]
struct TableRow {
    cells: Vec<Value>,
}

/// The URI of the dataset.
pub(crate) fn uri() -> String {
    format!("s3://{BUCKET}/{PREFIX}/")
}

/// A namespace; privileged pods may run in it.
pub(crate) fn namespace(name: &str) -> Result<Namespace> {
    typed(json!({
        "metadata": {
            "name": name,
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
        },
    }))
}

/// The Secret with the store's credentials.
pub(crate) fn secret(store: &ObjectStore) -> Result<Secret> {
    typed(json!({
        "metadata": {"name": SECRET},
        "stringData": {
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
        },
    }))
}

/// The dataset as a user writes it.
pub(crate) fn dataset(name: &str, store: &ObjectStore, etcd: &Etcd) -> Result<AlluxioDataset> {
    typed(dataset_json(name, &uri(), &store.endpoint, &etcd.endpoint))
}

/// The same, before it has a type: for values that the type would refuse.
pub(crate) fn dataset_json(name: &str, uri: &str, s3: &str, etcd: &str) -> Value {
    json!({
        "apiVersion": "data.alluxio.io/v1alpha1",
        "kind": "AlluxioDataset",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "ufs": {
                "uri": uri,
                "s3": {"endpoint": s3, "region": "us-east-1", "addressingStyle": "Path"},
                "credentials": {"type": "SecretRef", "secretRef": {"name": SECRET}},
            },
            "cluster": {
                "name": ALLUXIO_CLUSTER,
                "membership": {"type": "Etcd", "etcd": {"endpoints": [etcd]}},
            },
            // Smaller than the largest file: reads must stay within it.
            "client": {"memoryLimit": "48Mi", "readahead": {"maxWindow": "16Mi"}},
            "load": {"mode": "Once", "verification": "Size"},
            "mount": {"uid": OWNER, "gid": OWNER, "fileMode": "0444", "directoryMode": "0555"},
        },
    })
}

/// The pod that reads the dataset through its claim.
pub(crate) fn reader(cluster: &Cluster) -> Result<Pod> {
    pod(cluster, READER, DATASET, true)
}

/// A pod with a claim at `/data`, of the user who owns the files.
pub(crate) fn pod(cluster: &Cluster, name: &str, claim: &str, read_only: bool) -> Result<Pod> {
    typed(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": OWNER, "runAsGroup": OWNER, "runAsNonRoot": true},
            "containers": [{
                "name": "shell",
                "image": cluster.reader_image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "86400"],
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": read_only}],
            }],
            "volumes": [{
                "name": "data",
                "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only},
            }],
        },
    }))
}

/// The chart's values.
pub(crate) fn chart_values(
    image: &str,
    cluster: &Cluster,
    store: &ObjectStore,
    etcd: &Etcd,
) -> Result<Value> {
    let (repository, tag) = image
        .rsplit_once(':')
        .with_context(|| format!("the image `{image}` has no tag"))?;
    Ok(json!({
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "kubeletDir": cluster.kubelet_dir,
        "workers": {
            "enabled": true,
            "replicas": WORKERS,
            "config": {
                // All that a dataset may be in: one is read, another is written.
                "ufs": {
                    "uri": format!("s3://{BUCKET}/"),
                    "endpoint": store.endpoint,
                    "region": "us-east-1",
                },
                "cluster": {
                    "name": ALLUXIO_CLUSTER,
                    "membership": {"type": "etcd", "endpoints": [etcd.endpoint]},
                },
            },
            "credentials": {"secretName": SECRET},
            "pageStore": {"capacity": "1Gi"},
            // The test's machine may be small.
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        },
        "metrics": {"dashboard": {"enabled": true}},
    }))
}

/// Creates an object.
pub(crate) async fn create<K>(api: &Api<K>, object: &K) -> Result<K>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    Ok(api.create(&PostParams::default(), object).await?)
}

/// What `kubectl get` prints of one object: cells by column.
pub(crate) async fn printed_columns(
    client: &kube::Client,
    path: &str,
) -> Result<BTreeMap<String, Value>> {
    let request = http::Request::get(path)
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Table = client.request(request).await?;
    let row = table
        .rows
        .into_iter()
        .next()
        .context("the table is empty")?;
    let names = table
        .column_definitions
        .into_iter()
        .map(|column| column.name);
    Ok(names.zip(row.cells).collect())
}

fn typed<K: DeserializeOwned>(object: Value) -> Result<K> {
    Ok(serde_json::from_value(object)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use alluxio_crds::AlluxioDataLoad;

    use super::*;

    #[test]
    fn the_examples_that_users_copy_have_known_fields_only() {
        let text = include_str!("../../../manifests/examples/dataset.yaml");
        let dataset: AlluxioDataset = serde_yaml::from_str(text).unwrap();
        assert_eq!(dataset.spec.ufs.uri, "s3://ml-datasets/imagenet/train/");
        let text = include_str!("../../../manifests/examples/load.yaml");
        let load: AlluxioDataLoad = serde_yaml::from_str(text).unwrap();
        assert_eq!(Some(load.spec.dataset_ref.name), dataset.metadata.name);
        let text = include_str!("../../../manifests/examples/pod.yaml");
        let _: Pod = serde_yaml::from_str(text).unwrap();
        let text = include_str!("../../../manifests/examples/secret.yaml");
        let _: Secret = serde_yaml::from_str(text).unwrap();
    }

    #[test]
    fn the_scenarios_own_dataset_is_one() {
        let json = dataset_json(
            DATASET,
            &uri(),
            "http://10.0.0.1:7070",
            "http://10.0.0.1:2379",
        );
        let dataset: AlluxioDataset = typed(json).unwrap();
        assert_eq!(dataset.spec.mount.uid, OWNER);
    }
}
