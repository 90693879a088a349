//! The whole path, small: S3 server, workers, load, mount, a killed worker, every sha256.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod left_out;

use std::process::Command;

#[test]
fn the_whole_path_works_on_one_machine() {
    if !left_out::can_mount() {
        return;
    }
    let figures = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"))
        .args([
            "quickstart",
            "--images",
            "40",
            "--large-file",
            "24Mi",
            "--json",
        ])
        .arg(figures.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let rows: serde_json::Value =
        serde_json::from_slice(&std::fs::read(figures.path()).unwrap()).unwrap();
    let source = |row: usize, name: &str| rows[row]["sources"][name].as_u64().unwrap();
    let bytes = rows[0]["bytes"].as_u64().unwrap();
    assert!(
        source(0, "ufs") >= bytes,
        "the cold pass comes from S3: {rows:#}"
    );
    assert_eq!(source(0, "worker"), 0, "{rows:#}");
    assert!(
        source(1, "worker") >= bytes,
        "the warm pass comes from workers: {rows:#}"
    );
    assert_eq!(source(1, "ufs"), 0, "nothing fell back: {rows:#}");
    assert!(
        source(3, "next_worker") + source(3, "ufs") > 0,
        "the dead worker's files came from elsewhere: {rows:#}"
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains("/alluxio-dataset-"),
        "a mount is left behind"
    );
}
