//! Deletes what the user made, then the release, and looks that nothing is left.

use alluxio_crds::{AlluxioDataLoad, AlluxioDataset};
use anyhow::Result;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams};
use serde::de::DeserializeOwned;

use crate::leftovers;
use crate::objects::{DATASET, DRIVER, NAMESPACE, READER, RELEASE, RELEASE_NAMESPACE};
use crate::process;
use crate::report::Report;
use crate::scenario::install::live_prefix;
use crate::testbed::Testbed;
use crate::wait::{USUAL, until, when};

/// Pod, dataset, release, definitions; then a look at each place.
pub(super) async fn run(testbed: &Testbed, report: &mut Report) -> Result<()> {
    report
        .step(
            "the pod is deleted and its mount is gone",
            pod_gone(testbed),
        )
        .await?;
    let gone = "the dataset is deleted, and load, claim and volume with it";
    report.step(gone, dataset_gone(testbed)).await?;
    report
        .step("helm uninstall succeeds", uninstall(testbed))
        .await?;
    report
        .step("no pod and no CSI driver is left", release_gone(testbed))
        .await?;
    report
        .step(
            "no mount and no socket is left on the node",
            node_clean(testbed),
        )
        .await?;
    report
        .step("no worker is left in etcd", etcd_clean(testbed))
        .await?;
    report
        .step("the definitions can be deleted", definitions_gone(testbed))
        .await
}

async fn pod_gone(testbed: &Testbed) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    pods.delete(READER, &DeleteParams::default()).await?;
    none_left("the reader", &pods).await?;
    if !testbed.cluster.is_own() {
        return Ok(());
    }
    // The kubelet unstages the volume some time after its last pod.
    until("the mount gone", USUAL, || async {
        let left = leftovers::on_node(&testbed.cluster.kubelet_dir)?;
        let mounts: Vec<String> = left
            .into_iter()
            .filter(|l| l.starts_with("mount"))
            .collect();
        Ok(when(mounts.is_empty(), || mounts.join(", ")))
    })
    .await
}

async fn dataset_gone(testbed: &Testbed) -> Result<()> {
    let client = &testbed.client;
    let datasets: Api<AlluxioDataset> = Api::namespaced(client.clone(), NAMESPACE);
    datasets.delete(DATASET, &DeleteParams::default()).await?;
    none_left("the dataset", &datasets).await?;
    let loads: Api<AlluxioDataLoad> = Api::namespaced(client.clone(), NAMESPACE);
    none_left("its load", &loads).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), NAMESPACE);
    none_left("its claim", &claims).await?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    until("its volume gone", USUAL, || async {
        let list = volumes.list(&ListParams::default()).await?;
        let ours = list.iter().filter(|volume| {
            let source = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
            source.is_some_and(|csi| csi.driver == DRIVER)
        });
        let left = ours.count();
        Ok(when(left == 0, || format!("{left} volumes")))
    })
    .await
}

async fn uninstall(testbed: &Testbed) -> Result<()> {
    let mut helm = testbed.cluster.tool("helm");
    helm.args([
        "uninstall",
        RELEASE,
        "--namespace",
        RELEASE_NAMESPACE,
        "--wait",
    ]);
    process::run(&mut helm).await.map(|_| ())
}

async fn release_gone(testbed: &Testbed) -> Result<()> {
    let client = &testbed.client;
    let pods: Api<Pod> = Api::namespaced(client.clone(), RELEASE_NAMESPACE);
    none_left("the release's pods", &pods).await?;
    let drivers: Api<CSIDriver> = Api::all(client.clone());
    until("the CSIDriver gone", USUAL, || async {
        let left = drivers.get_opt(DRIVER).await?.is_some();
        Ok(when(!left, || "it is still there".to_owned()))
    })
    .await
}

async fn node_clean(testbed: &Testbed) -> Result<()> {
    if !testbed.cluster.is_own() {
        return Ok(());
    }
    until("the node clean", USUAL, || async {
        let left = leftovers::on_node(&testbed.cluster.kubelet_dir)?;
        Ok(when(left.is_empty(), || left.join(", ")))
    })
    .await
}

async fn etcd_clean(testbed: &Testbed) -> Result<()> {
    let etcd = testbed.etcd()?;
    let prefix = live_prefix();
    until("no live worker", USUAL, || async {
        let left = etcd.count(&prefix).await?;
        Ok(when(left == 0, || format!("{left} keys below {prefix}")))
    })
    .await
}

async fn definitions_gone(testbed: &Testbed) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(testbed.client.clone());
    let names = [
        "alluxiodatasets.data.alluxio.io",
        "alluxiodataloads.data.alluxio.io",
    ];
    for name in names {
        api.delete(name, &DeleteParams::default()).await?;
    }
    until("the definitions gone", USUAL, || async {
        let mut left = Vec::new();
        for name in names {
            if api.get_opt(name).await?.is_some() {
                left.push(name);
            }
        }
        Ok(when(left.is_empty(), || left.join(", ")))
    })
    .await
}

/// Waits until a list is empty.
async fn none_left<K>(what: &str, api: &Api<K>) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    until(what, USUAL, || async {
        let list = api.list(&ListParams::default()).await?;
        let left: Vec<String> = list
            .into_iter()
            .map(|object| {
                let meta = object.meta();
                format!("{:?} finalizers {:?}", meta.name, meta.finalizers)
            })
            .collect();
        Ok(when(left.is_empty(), || left.join(", ")))
    })
    .await
}
