//! End-to-end tests: the whole product on a real cluster.
//!
//! `e2e` brings up a single-node Kubernetes (or takes the one that KUBECONFIG names), starts an S3
//! server and an etcd beside it, installs the chart from the built image, applies a dataset, and
//! reads it in a pod: once, and once more while a worker dies. A pod writes another dataset. Then it
//! looks at everything a user would look at, deletes it all, and looks that nothing is left.
//! `scenario` tells the steps in order; this file only joins the parts, and always takes down what was
//! brought up.

mod cluster;
mod dashboard;
mod dataset;
mod diagnostics;
mod leftovers;
mod objects;
mod process;
mod reader;
mod report;
mod scenario;
mod services;
mod testbed;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::report::Report;
use crate::testbed::Testbed;

const HELP: &str = "\
e2e - installs the product on a real cluster and looks at all of it

Usage: e2e [--keep]

  --keep   leave cluster, servers and objects as they are at the end; prints how to use them

With KUBECONFIG set, that cluster is used instead of one of its own. Then these are needed:
  E2E_HOST_IP        this machine's address, reachable from pods
  E2E_IMAGE          the product's image (repository:tag), present on every node
  E2E_READER_IMAGE   an image with a shell, find and sha256sum (default: busybox:1.36)
  KUBELET_DIR        the kubelet's --root-dir (default: /var/lib/kubelet)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--keep"] => true,
        _ => {
            report::line(HELP);
            return ExitCode::from(2);
        }
    };
    match run(keep) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::line(&format!("e2e: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; whether all steps passed.
fn run(keep: bool) -> Result<bool> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let root = project_root()?;
        let mut report = Report::start();
        let mut testbed = None;
        tokio::select! {
            // A failed step has been reported and ends the scenario.
            _ = scenario::run(&root, &mut report, &mut testbed) => {}
            _ = tokio::signal::ctrl_c() => report.fail("interrupted"),
        }
        close(&root, &mut report, testbed, keep).await;
        Ok(report.finish())
    })
}

/// Writes down what went wrong, and takes everything down.
async fn close(root: &Path, report: &mut Report, testbed: Option<Testbed>, keep: bool) {
    let Some(testbed) = testbed else { return };
    if report.has_failed() {
        let folder = root.join("dist/e2e-logs");
        diagnostics::write(&testbed, &folder).await;
        report.detail(&format!("logs: {}", folder.display()));
    }
    if keep {
        report.detail(&testbed.how_to_use());
        testbed.leave_running();
        return;
    }
    // Its outcome is a line of the report.
    let _ = report
        .step("everything is taken down", testbed.down())
        .await;
}

/// The folder with the workspace's Cargo.toml: where `make` runs, else where this was built.
fn project_root() -> Result<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root
        .canonicalize()
        .with_context(|| format!("cannot find the project at {}", root.display()))?;
    if !root.join("charts/alluxio-dataset").is_dir() {
        bail!("{} has no charts/alluxio-dataset", root.display());
    }
    Ok(root)
}
