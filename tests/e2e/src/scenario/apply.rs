//! Applies the dataset and looks at all that the operator says of it.

use std::future::ready;

use alluxio_crds::conditions::{
    LOADED, MOUNTABLE, READY, UFS_REACHABLE, WORKERS_AVAILABLE, find, is_true,
};
use alluxio_crds::load::LoadState;
use alluxio_crds::{AlluxioDataLoad, AlluxioDataset, AlluxioDatasetStatus};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;

use crate::dataset::Dataset;
use crate::objects::{DATASET, NAMESPACE, SECRET, WORKERS, create, dataset, printed_columns, uri};
use crate::process;
use crate::report::{Report, expect_equal};
use crate::testbed::Testbed;
use crate::wait::{Seen, USUAL, until};

/// What the operator must have told about the load, as events on dataset or load.
const EVENTS: &[&str] = &["LoadStarted", "LoadSucceeded"];

/// Ready, conditions, numbers, volume, load, events, columns.
pub(super) async fn run(testbed: &Testbed, report: &mut Report, truth: &Dataset) -> Result<()> {
    let becomes = "the applied dataset becomes Ready and Loaded";
    let status = report.step(becomes, apply(testbed)).await?;
    report
        .step("its conditions are true", ready(all_true(&status)))
        .await?;
    let numbers = "its status has the true numbers of files, bytes and workers";
    report
        .step(numbers, ready(true_numbers(&status, truth)))
        .await?;
    report
        .step("its claim is bound to its volume", claim_bound(testbed))
        .await?;
    report
        .step(
            "the load counted every file and byte",
            load_counted(testbed, truth),
        )
        .await?;
    report
        .step("events tell of the load's start and end", events(testbed))
        .await?;
    let columns = "kubectl get alluxiodatasets shows true columns";
    let printed = report.step(columns, columns_true(testbed, truth)).await?;
    report.detail(&printed);
    Ok(())
}

async fn apply(testbed: &Testbed) -> Result<AlluxioDatasetStatus> {
    let api: Api<AlluxioDataset> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    let object = dataset(DATASET, testbed.store()?, testbed.etcd()?)?;
    create(&api, &object).await?;
    until("the dataset Ready and Loaded", USUAL, || async {
        let object = api.get(DATASET).await?;
        let generation = object.metadata.generation;
        let status = object.status.unwrap_or_default();
        let current = status.observed_generation == generation;
        let conditions = &status.conditions;
        if current && is_true(conditions, READY) && is_true(conditions, LOADED) {
            return Ok(Seen::There(status));
        }
        Ok(Seen::NotYet(told(&status)))
    })
    .await
}

/// The conditions as text.
pub(super) fn told(status: &AlluxioDatasetStatus) -> String {
    let conditions = status.conditions.iter();
    let texts =
        conditions.map(|c| format!("{}={} ({}: {})", c.type_, c.status, c.reason, c.message));
    texts.collect::<Vec<_>>().join("; ")
}

fn all_true(status: &AlluxioDatasetStatus) -> Result<()> {
    for type_ in [READY, UFS_REACHABLE, WORKERS_AVAILABLE, LOADED, MOUNTABLE] {
        find(&status.conditions, type_).with_context(|| format!("no condition {type_}"))?;
        if !is_true(&status.conditions, type_) {
            bail!("{type_} is not true: {}", told(status));
        }
    }
    Ok(())
}

fn true_numbers(status: &AlluxioDatasetStatus, truth: &Dataset) -> Result<()> {
    let ufs = status.ufs.as_ref().context("status.ufs is missing")?;
    expect_equal("status.ufs.files", &ufs.files, &count(truth)?)?;
    expect_equal("status.ufs.bytes", &ufs.bytes, &i64::try_from(truth.bytes)?)?;
    let ring = status.ring.as_ref().context("status.ring is missing")?;
    expect_equal("status.ring.workers", &ring.workers, &WORKERS)?;
    expect_equal("status.ring.liveWorkers", &ring.live_workers, &WORKERS)?;
    let cache = status.cache.as_ref().context("status.cache is missing")?;
    expect_equal(
        "status.cache.bytes",
        &cache.bytes,
        &i64::try_from(truth.bytes)?,
    )?;
    expect_equal("status.cache.percent", &cache.percent, &100)
}

fn count(truth: &Dataset) -> Result<i64> {
    Ok(i64::try_from(truth.sums.len())?)
}

async fn claim_bound(testbed: &Testbed) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    let claim = claims.get(DATASET).await?;
    let phase = claim.status.and_then(|status| status.phase);
    expect_equal("the claim's phase", &phase.as_deref(), &Some("Bound"))?;
    let volume = claim.spec.and_then(|spec| spec.volume_name);
    let volume = volume.context("the claim names no volume")?;
    let volumes: Api<PersistentVolume> = Api::all(testbed.client.clone());
    let spec = volumes.get(&volume).await?.spec.context("no spec")?;
    expect_equal(
        "the volume's access modes",
        &spec.access_modes,
        &Some(vec!["ReadOnlyMany".to_owned()]),
    )?;
    let source = spec.csi.context("the volume is not CSI's")?;
    let secret = source.node_stage_secret_ref.and_then(|secret| secret.name);
    expect_equal(
        "the volume's stage Secret",
        &secret.as_deref(),
        &Some(SECRET),
    )?;
    let attributes = serde_json::to_string(&source.volume_attributes)?;
    let store = testbed.store()?;
    if attributes.contains(&store.secret_key) || attributes.contains(&store.access_key) {
        bail!("the volume's attributes hold credentials");
    }
    Ok(())
}

async fn load_counted(testbed: &Testbed, truth: &Dataset) -> Result<()> {
    let api: Api<AlluxioDataLoad> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    let loads = api.list(&ListParams::default()).await?.items;
    expect_equal("the number of loads", &loads.len(), &1)?;
    let status = loads[0].status.clone().context("the load has no status")?;
    expect_equal("the load's state", &status.state, &LoadState::Succeeded)?;
    let (files, bytes) = (Some(count(truth)?), Some(i64::try_from(truth.bytes)?));
    expect_equal("filesTotal", &status.files_total, &files)?;
    expect_equal("filesDone", &status.files_done, &files)?;
    expect_equal("bytesTotal", &status.bytes_total, &bytes)?;
    expect_equal("bytesDone", &status.bytes_done, &bytes)?;
    expect_equal("failures", &status.failures, &Vec::new())
}

async fn events(testbed: &Testbed) -> Result<()> {
    // Untyped: only three fields are read, and events differ between API versions in the others.
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Event"));
    let api: Api<DynamicObject> = Api::namespaced_with(testbed.client.clone(), NAMESPACE, &kind);
    until("the events", USUAL, || async {
        let list = api.list(&ListParams::default()).await?;
        let ours = list.iter().filter(|event| {
            let kind = event.data["involvedObject"]["kind"]
                .as_str()
                .unwrap_or_default();
            kind.starts_with("Alluxio")
        });
        let reasons: Vec<&str> = ours
            .filter_map(|event| event.data["reason"].as_str())
            .collect();
        let missing: Vec<&&str> = EVENTS
            .iter()
            .filter(|name| !reasons.contains(*name))
            .collect();
        Ok(if missing.is_empty() {
            Seen::There(())
        } else {
            Seen::NotYet(format!("missing {missing:?}, seen {reasons:?}"))
        })
    })
    .await
}

async fn columns_true(testbed: &Testbed, truth: &Dataset) -> Result<String> {
    let path =
        format!("/apis/data.alluxio.io/v1alpha1/namespaces/{NAMESPACE}/alluxiodatasets/{DATASET}");
    let cells = printed_columns(&testbed.client, &path).await?;
    let expected = [
        ("Name", json!(DATASET)),
        ("URI", json!(uri())),
        ("Ready", json!("True")),
        ("Loaded %", json!(100)),
        ("Files", json!(truth.sums.len())),
        ("Workers", json!(WORKERS)),
    ];
    for (column, value) in expected {
        let cell = cells
            .get(column)
            .with_context(|| format!("no column {column}"))?;
        expect_equal(column, cell, &value)?;
    }
    let mut kubectl = testbed.cluster.tool("kubectl");
    process::run(kubectl.args(["--namespace", NAMESPACE, "get", "alluxiodatasets"])).await
}
