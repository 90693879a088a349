//! The whole path, small: S3 server, workers, load, mount, a killed worker, every sha256.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::Write as _;
use std::process::Command;

/// Whether this process may mount; CI must be able to.
fn can_mount() -> bool {
    // SAFETY-free stand-in for geteuid(2): /proc tells the owner of this process.
    use std::os::unix::fs::MetadataExt;
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    let can = root && std::path::Path::new("/dev/fuse").exists();
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(can || !must, "CI must run as root with /dev/fuse");
    can
}

#[test]
fn the_whole_path_works_on_one_machine() {
    if !can_mount() {
        // Past the test harness, which keeps what a passing test prints to itself.
        let line = "left out: the quickstart test needs root and /dev/fuse";
        let _ = writeln!(std::io::stderr(), "{line}");
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
