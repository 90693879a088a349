//! The published Python SDK as a client of the embedded worker.

use std::path::PathBuf;
use std::process::Output;

use tokio::process::Command;

use crate::support::Setup;

/// Its Python, which `scripts/tools ensure sdk` makes.
fn python() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(home)?;
    let python = cache.join("alluxio-dataset/tools/enterprise-sdk/bin/python");
    python.exists().then_some(python)
}

#[tokio::test]
async fn the_published_python_sdk_works_with_the_embedded_worker() {
    let Some(python) = python() else {
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "CI must have the SDK: scripts/tools ensure sdk");
        println!("left out: the published Python SDK (scripts/tools ensure sdk)");
        return;
    };
    let files = tempfile::tempdir().unwrap();
    let worker = Setup::local(&files).start().await;
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/worker/sdk.py"))
        .arg(worker.worker.address().port().to_string())
        .arg(worker.root().as_str())
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&stdout);
    assert!(
        status.success() && told.contains("all of it works"),
        "{told}{}",
        String::from_utf8_lossy(&stderr)
    );
}
