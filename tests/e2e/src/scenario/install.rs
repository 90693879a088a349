//! Installs the chart, as `helm install` does for a user, and waits for what it brings.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Api, ListParams};

use crate::objects::{
    ALLUXIO_CLUSTER, DRIVER, NAMESPACE, RELEASE, RELEASE_NAMESPACE, WORKERS, chart_values, create,
    namespace, secret,
};
use crate::process;
use crate::report::Report;
use crate::testbed::Testbed;
use crate::wait::{Seen, USUAL, until, when};

/// How long helm waits for the pods; the slowest is the mounter, which waits for the node plugin.
const HELM_TIMEOUT: &str = "240s";

/// Image, chart, pods, registration.
pub(super) async fn run(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let archive = testbed.root.join("dist/alluxio-dataset.tar");
    let image = report
        .step(
            "the image is on the node",
            testbed.cluster.load_image(&archive),
        )
        .await?;
    report.detail(&image);
    report
        .step("namespaces and Secrets exist", prepare(testbed))
        .await?;
    report
        .step("helm install succeeds", install(testbed, &image))
        .await?;
    report
        .step("every pod of the release is ready", pods_ready(testbed))
        .await?;
    report
        .step(
            "the kubelet knows the CSI driver",
            driver_registered(testbed),
        )
        .await?;
    let registered = "the workers are in etcd, in Alluxio's format";
    report.step(registered, workers_registered(testbed)).await
}

async fn prepare(testbed: &Testbed) -> Result<()> {
    let client = &testbed.client;
    for name in [RELEASE_NAMESPACE, NAMESPACE] {
        create(&Api::<Namespace>::all(client.clone()), &namespace(name)?).await?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), name);
        create(&secrets, &secret(testbed.store()?)?).await?;
    }
    Ok(())
}

async fn install(testbed: &Testbed, image: &str) -> Result<()> {
    let values = chart_values(image, &testbed.cluster, testbed.store()?, testbed.etcd()?)?;
    let file = testbed.scratch("values.json");
    // JSON is YAML; it names the Secret, never what is in it.
    std::fs::write(&file, serde_json::to_vec_pretty(&values)?)?;
    let mut helm = testbed.cluster.tool("helm");
    helm.args(["install", RELEASE])
        .arg(testbed.root.join("charts/alluxio-dataset"))
        .args(["--namespace", RELEASE_NAMESPACE, "--wait"])
        .args(["--timeout", HELM_TIMEOUT])
        .arg("--values")
        .arg(file);
    process::run(&mut helm).await.map(|_| ())
}

async fn pods_ready(testbed: &Testbed) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), RELEASE_NAMESPACE);
    until("all pods ready", USUAL, || async {
        let list = pods.list(&ListParams::default()).await?;
        // Operator, node plugin, mounter, workers.
        let enough = list.items.len() >= 3 + usize::try_from(WORKERS)?;
        let waiting: Vec<&str> = list
            .iter()
            .filter(|pod| !is_ready(pod))
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect();
        Ok(when(enough && waiting.is_empty(), || {
            format!(
                "{} pods, not ready: {}",
                list.items.len(),
                waiting.join(", ")
            )
        }))
    })
    .await
}

/// Whether a pod's Ready condition is true.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn driver_registered(testbed: &Testbed) -> Result<()> {
    let nodes: Api<CSINode> = Api::all(testbed.client.clone());
    until("the driver on every node", USUAL, || async {
        let list = nodes.list(&ListParams::default()).await?;
        let lacking = list
            .iter()
            .find(|node| !node.spec.drivers.iter().any(|driver| driver.name == DRIVER));
        Ok(match lacking {
            None if !list.items.is_empty() => Seen::There(()),
            None => Seen::NotYet("there is no CSINode".to_owned()),
            Some(node) => Seen::NotYet(format!("not on {:?}", node.metadata.name)),
        })
    })
    .await
}

async fn workers_registered(testbed: &Testbed) -> Result<()> {
    let etcd = testbed.etcd()?;
    let prefix = live_prefix();
    until("the live workers in etcd", USUAL, || async {
        let count = etcd.count(&prefix).await?;
        Ok(when(i64::try_from(count)? == i64::from(WORKERS), || {
            format!("{count} keys below {prefix}")
        }))
    })
    .await
}

/// Where Alluxio's workers announce that they live.
pub(super) fn live_prefix() -> String {
    format!("/ServiceDiscovery/{ALLUXIO_CLUSTER}/")
}
