//! The steps in the order in which a user would take them. Each part is a file of `scenario/`; a
//! step that fails ends the run, for what follows needs it.

mod apply;
mod install;
mod metrics;
mod read;
mod refuse;
mod remove;
mod write;

use std::path::Path;

use anyhow::Result;

use crate::dataset::Dataset;
use crate::report::Report;
use crate::services::{Etcd, ObjectStore};
use crate::testbed::Testbed;

/// Runs all steps. What was brought up is in `testbed` as soon as it is, for the caller to take down.
pub(crate) async fn run(
    root: &Path,
    report: &mut Report,
    testbed: &mut Option<Testbed>,
) -> Result<()> {
    let opened = report.step("a Kubernetes answers", Testbed::open(root));
    let testbed = testbed.insert(opened.await?);
    start_servers(testbed, report).await?;
    let store = testbed.store()?;
    let dataset = report
        .step("the dataset is in the S3 server", Dataset::upload(store))
        .await?;
    report.detail(&format!(
        "{} files, {} bytes",
        dataset.sums.len(),
        dataset.bytes
    ));
    install::run(testbed, report).await?;
    apply::run(testbed, report, &dataset).await?;
    refuse::run(testbed, report).await?;
    read::run(testbed, report, &dataset).await?;
    write::run(testbed, report).await?;
    metrics::run(testbed, report).await?;
    remove::run(testbed, report).await
}

async fn start_servers(testbed: &mut Testbed, report: &mut Report) -> Result<()> {
    let ip = testbed.cluster.host_ip;
    let (s3_folder, etcd_folder) = (testbed.scratch("s3"), testbed.scratch("etcd"));
    let store = ObjectStore::start(ip, &s3_folder, &testbed.logs);
    testbed.store = Some(report.step("an S3 server answers", store).await?);
    let etcd = Etcd::start(ip, &etcd_folder, &testbed.logs);
    testbed.etcd = Some(report.step("an etcd answers", etcd).await?);
    Ok(())
}
