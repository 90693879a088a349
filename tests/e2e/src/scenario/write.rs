//! Writes in one pod through a ReadWriteMany claim, looks at the store, and reads in another pod.

use std::collections::BTreeMap;

use alluxio_crds::AlluxioDataset;
use alluxio_crds::conditions::{READY, is_true};
use anyhow::Result;
use hex::encode as hexadecimal;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::dataset::{Dataset, put_object, stored_sums};
use crate::objects::{NAMESPACE, create, dataset_json, pod};
use crate::reader::{Pass, run_in};
use crate::report::{Report, expect_equal};
use crate::scenario::apply::told;
use crate::scenario::install::is_ready;
use crate::services::BUCKET;
use crate::testbed::Testbed;
use crate::wait::{Seen, USUAL, until, when};

/// The dataset, and its claim.
const CHECKPOINTS: &str = "checkpoints";
/// Its folder in the bucket.
const FOLDER: &str = "checkpoints/";
/// The pod that writes.
const WRITER: &str = "writer";
/// The pod that reads what it wrote.
const SECOND_READER: &str = "second-reader";
/// What is there before: a folder that has nothing does not exist in a bucket.
const README: &[u8] = b"checkpoints of the training\n";

/// What a training does to its folder: a log that is appended to, a file that gets its name at last,
/// one of several parts, and a checkpoint that is replaced in one step.
const TRAIN: &str = "set -e; cd /data; mkdir run
seq 1 200000 > run/log
seq 200001 300000 >> run/log
seq 1 1000 > run/begun
mv run/begun run/done
seq 1 3000000 > large
seq 1 500000 > model.pt
seq 2 700000 > model.pt.tmp
mv model.pt.tmp model.pt
seq 1 10 > removed
rm removed";

/// Two pods, one after the other.
pub(super) async fn run(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let becomes = "a dataset that pods may write becomes Ready";
    report.step(becomes, apply(testbed)).await?;
    let truth = written();
    let trains = "a pod creates, appends, renames and replaces files";
    report.step(trains, train(testbed)).await?;
    let stored = "the S3 server has just what the pod wrote";
    report.step(stored, compare_store(testbed, &truth)).await?;
    let read = "another pod reads the same";
    report.step(read, read_again(testbed, &truth)).await?;
    let refused = "a claim that is mounted read-only is not written";
    report.step(refused, read_only(testbed)).await?;
    let kept = "with pod and dataset deleted, the objects stay";
    report.step(kept, removed(testbed, &truth)).await
}

async fn apply(testbed: &Testbed) -> Result<()> {
    let store = testbed.store()?;
    put_object(store, &format!("{FOLDER}README"), README).await?;
    let uri = format!("s3://{BUCKET}/{FOLDER}");
    let etcd = &testbed.etcd()?.endpoint;
    let mut object = dataset_json(CHECKPOINTS, &uri, &store.endpoint, etcd);
    object["spec"]["load"] = json!({"mode": "None"});
    object["spec"]["mount"]["accessModes"] = json!(["ReadWriteMany"]);
    let api = datasets(testbed);
    create(&api, &serde_json::from_value(object)?).await?;
    until("the dataset Ready", USUAL, || async {
        let status = api.get(CHECKPOINTS).await?.status.unwrap_or_default();
        Ok(when(is_true(&status.conditions, READY), || told(&status)))
    })
    .await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    let modes = claims.get(CHECKPOINTS).await?.spec;
    let modes = modes.and_then(|spec| spec.access_modes).unwrap_or_default();
    expect_equal(
        "the claim's access modes",
        &modes,
        &vec!["ReadWriteMany".to_owned()],
    )
}

async fn train(testbed: &Testbed) -> Result<()> {
    start(testbed, WRITER, false).await?;
    run_in(&testbed.cluster, WRITER, &["sh", "-c", TRAIN]).await?;
    Ok(())
}

async fn compare_store(testbed: &Testbed, truth: &Dataset) -> Result<()> {
    truth.compare(&stored_sums(testbed.store()?, FOLDER).await?)
}

/// The writer goes first, so that nobody has a file open for writing: what is read is the store's.
async fn read_again(testbed: &Testbed, truth: &Dataset) -> Result<()> {
    stop(testbed, WRITER).await?;
    start(testbed, SECOND_READER, true).await?;
    let pass = Pass::start_in(&testbed.cluster, SECOND_READER)?;
    truth.compare(&pass.finish().await?)
}

async fn read_only(testbed: &Testbed) -> Result<()> {
    let touch = ["sh", "-c", "touch /data/new 2>&1 || true"];
    let said = run_in(&testbed.cluster, SECOND_READER, &touch).await?;
    let is_refused = said.contains("Read-only file system");
    anyhow::ensure!(is_refused, "touch said: {said}");
    Ok(())
}

async fn removed(testbed: &Testbed, truth: &Dataset) -> Result<()> {
    stop(testbed, SECOND_READER).await?;
    let api = datasets(testbed);
    api.delete(CHECKPOINTS, &DeleteParams::default()).await?;
    until("the dataset gone", USUAL, || async {
        Ok(match api.get_opt(CHECKPOINTS).await? {
            None => Seen::There(()),
            Some(_) => Seen::NotYet("it is still there".to_owned()),
        })
    })
    .await?;
    compare_store(testbed, truth).await
}

fn datasets(testbed: &Testbed) -> Api<AlluxioDataset> {
    Api::namespaced(testbed.client.clone(), NAMESPACE)
}

async fn start(testbed: &Testbed, name: &str, read_only: bool) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    create(&pods, &pod(&testbed.cluster, name, CHECKPOINTS, read_only)?).await?;
    until(name, USUAL, || async {
        let pod = pods.get(name).await?;
        Ok(when(is_ready(&pod), || format!("{:?}", pod.status)))
    })
    .await
}

async fn stop(testbed: &Testbed, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    pods.delete(name, &DeleteParams::default()).await?;
    until(name, USUAL, || async {
        let left = pods.get_opt(name).await?.is_some();
        Ok(when(!left, || "it is still there".to_owned()))
    })
    .await
}

/// What must be there after [`TRAIN`].
fn written() -> Dataset {
    let files = [
        ("README", README.to_vec()),
        ("run/log", sequence(1, 300_000)),
        ("run/done", sequence(1, 1000)),
        ("large", sequence(1, 3_000_000)),
        ("model.pt", sequence(2, 700_000)),
    ];
    let bytes = files.iter().map(|(_, content)| content.len() as u64).sum();
    let sums: BTreeMap<String, String> = files
        .into_iter()
        .map(|(path, content)| (path.to_owned(), hexadecimal(Sha256::digest(&content))))
        .collect();
    Dataset { sums, bytes }
}

/// What `seq` prints.
fn sequence(first: u32, last: u32) -> Vec<u8> {
    let lines = (first..=last).map(|number| format!("{number}\n"));
    lines.flat_map(String::into_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_that_of_seq() {
        assert_eq!(sequence(9, 11), b"9\n10\n11\n");
    }

    #[test]
    fn what_is_written_has_a_file_of_several_parts() {
        let truth = written();
        assert_eq!(truth.sums.len(), 5);
        assert!(truth.bytes > 3 * (8 << 20), "{}", truth.bytes);
    }
}
