//! Reads everything in a pod, and once more while a worker dies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};

use crate::dataset::Dataset;
use crate::objects::{NAMESPACE, OWNER, READER, RELEASE, RELEASE_NAMESPACE, create, reader};
use crate::reader::{Pass, run as run_in_reader};
use crate::report::{Report, expect_equal};
use crate::scenario::install::is_ready;
use crate::testbed::Testbed;
use crate::wait::{USUAL, until, when};

/// Files read before the worker is taken away: the pass is well under way, most of it is to come.
const FILES_BEFORE_KILL: usize = 30;
/// How long passes go on until the worker's successor is ready.
const PASSES_LIMIT: Duration = Duration::from_mins(2);

/// A pod, its sums, what it may do, and its sums with a worker gone.
pub(super) async fn run(testbed: &Testbed, report: &mut Report, truth: &Dataset) -> Result<()> {
    report
        .step("a pod that mounts the claim runs", pod_runs(testbed))
        .await?;
    let first = "the pod's sha256 sums of everything equal the source's";
    let speed = report.step(first, first_pass(testbed, truth)).await?;
    report.detail(&speed);
    report
        .step(
            "files belong to the user that the dataset names",
            owner(testbed),
        )
        .await?;
    report
        .step(
            "writing is refused as on a read-only file system",
            read_only(testbed),
        )
        .await?;
    let second = "with a worker deleted while the pod reads, every sum is equal again";
    let passes = report.step(second, pass_with_kill(testbed, truth)).await?;
    report.detail(&format!("{passes} passes until its successor was ready"));
    Ok(())
}

async fn pod_runs(testbed: &Testbed) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    create(&pods, &reader(&testbed.cluster)?).await?;
    until("the reader ready", USUAL, || async {
        let pod = pods.get(READER).await?;
        Ok(when(is_ready(&pod), || format!("{:?}", pod.status)))
    })
    .await
}

async fn first_pass(testbed: &Testbed, truth: &Dataset) -> Result<String> {
    let started = Instant::now();
    let sums = Pass::start(&testbed.cluster)?.finish().await?;
    truth.compare(&sums)?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(format!("{} files in {seconds:.1} s", sums.len()))
}

async fn owner(testbed: &Testbed) -> Result<()> {
    let command = ["stat", "-c", "%u:%g %a", "/data/sizes/page", "/data/sizes"];
    let printed = run_in_reader(&testbed.cluster, &command).await?;
    let expected = format!("{OWNER}:{OWNER} 444\n{OWNER}:{OWNER} 555\n");
    expect_equal("owner and mode", &printed, &expected)
}

async fn read_only(testbed: &Testbed) -> Result<()> {
    let Err(error) = run_in_reader(&testbed.cluster, &["touch", "/data/new"]).await else {
        bail!("a file was made");
    };
    let text = format!("{error:#}");
    if !text.contains("Read-only file system") {
        bail!("refused for another reason: {text}");
    }
    Ok(())
}

/// Reads until the deleted worker's successor is ready, comparing each pass; how many it took.
async fn pass_with_kill(testbed: &Testbed, truth: &Dataset) -> Result<u32> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), RELEASE_NAMESPACE);
    let worker = format!("{RELEASE}-worker-0");
    let old = pods.get(&worker).await?.metadata.uid;
    forget_page_cache(testbed)?;
    let mut pass = Pass::start(&testbed.cluster)?;
    pass.read_until(FILES_BEFORE_KILL).await?;
    pods.delete(&worker, &DeleteParams::default().grace_period(0))
        .await?;
    truth.compare(&pass.finish().await?)?;
    let deadline = Instant::now() + PASSES_LIMIT;
    let mut passes = 1;
    loop {
        let successor = pods.get_opt(&worker).await?;
        let ready = successor.is_some_and(|pod| pod.metadata.uid != old && is_ready(&pod));
        if ready {
            return Ok(passes);
        }
        if Instant::now() > deadline {
            bail!(
                "{worker} was not ready again in {} s",
                PASSES_LIMIT.as_secs()
            );
        }
        forget_page_cache(testbed)?;
        let sums = Pass::start(&testbed.cluster)?.finish().await?;
        truth.compare(&sums)?;
        passes += 1;
    }
}

/// Without this the kernel would answer from what the first pass left, and no worker were asked.
fn forget_page_cache(testbed: &Testbed) -> Result<()> {
    if testbed.cluster.is_own() {
        std::fs::write("/proc/sys/vm/drop_caches", "1").context("cannot drop the page cache")?;
    }
    Ok(())
}
