//! The commands as a user runs them: the real binary over a folder, and its words for mistakes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"))
        .args(arguments)
        .env_remove("ALLUXIO_DATASET_CONFIG")
        .env_remove("ALLUXIO_DATASET_LOG")
        .output()
        .unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn failure(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "{arguments:?} must fail");
    String::from_utf8(output.stderr).unwrap()
}

/// A folder with `a.txt`, `sub/b.bin` (3 MiB) and `sub/with space é.txt`.
fn dataset() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("sub")).unwrap();
    std::fs::write(root.path().join("a.txt"), "hello\n").unwrap();
    std::fs::write(root.path().join("sub/b.bin"), vec![7; 3 << 20]).unwrap();
    std::fs::write(root.path().join("sub/with space é.txt"), "odd").unwrap();
    root
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.canonicalize().unwrap().display())
}

fn config(root: &Path) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("ufs: {{uri: '{}'}}\n", uri(root))).unwrap();
    file
}

#[test]
fn ls_lists_names_sizes_and_everything_below() {
    let root = dataset();
    let uri = uri(root.path());
    assert_eq!(stdout(&["ls", &uri]), "a.txt\nsub/\n");
    let all = stdout(&["ls", "--recursive", &uri]);
    let mut lines: Vec<_> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a.txt", "sub/b.bin", "sub/with space é.txt"]);
    assert!(stdout(&["ls", "-l", &format!("{uri}/sub")]).contains("3145728"));
}

#[test]
fn cat_writes_the_bytes_and_stat_the_version() {
    let root = dataset();
    let config = config(root.path());
    let config = config.path().to_str().unwrap();
    assert_eq!(
        stdout(&["cat", "--config", config, "a.txt", "sub/with space é.txt"]),
        "hello\nodd"
    );
    let stat = stdout(&["stat", "--config", config, "sub/b.bin"]);
    assert!(
        stat.contains("3145728") && stat.contains("version"),
        "{stat}"
    );
}

#[test]
fn cat_reports_where_the_bytes_came_from() {
    let root = dataset();
    let file = format!("{}/sub/b.bin", uri(root.path()));
    let words = String::from_utf8(run(&["cat", "--report", &file]).stderr).unwrap();
    assert!(
        words.contains("from ufs") && words.contains("3.00 MiB") && words.contains("configured"),
        "{words}"
    );
    let output = run(&["cat", "--report", "--json", &file]);
    assert_eq!(output.stdout.len(), 3 << 20);
    let report: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    let ufs = &report["sources"][4];
    assert_eq!(
        (&ufs["source"], &ufs["delivered_bytes"]),
        (&"ufs".into(), &(3 << 20).into())
    );
    assert_eq!(report["fallback"]["reasons"][0]["bytes"], 3 << 20);
    assert!(failure(&["cat", "--json", &file]).contains("--report"));
}

#[test]
fn cp_copies_a_tree_and_leaves_existing_files_alone() {
    let root = dataset();
    let target = tempfile::tempdir().unwrap();
    let copy = target.path().join("copy");
    let copy = copy.to_str().unwrap();
    let uri = uri(root.path());
    stdout(&["cp", "--quiet", "--recursive", &uri, copy]);
    let copied = std::fs::read(target.path().join("copy/sub/b.bin")).unwrap();
    assert_eq!(copied, vec![7; 3 << 20]);
    assert!(failure(&["cp", "--recursive", &uri, copy]).contains("--force"));
    stdout(&["cp", "--quiet", "--recursive", "--force", &uri, copy]);
    assert!(failure(&["cp", &uri, copy]).contains("--recursive"));
}

#[test]
fn mistakes_are_named_with_their_remedy() {
    let root = dataset();
    let missing = failure(&["cat", &format!("{}/nope", uri(root.path()))]);
    assert!(missing.contains("nope"), "{missing}");
    let secret = failure(&["ls", "s3://user:hunter2@bucket/x"]);
    assert!(
        secret.contains("credentials") && !secret.contains("hunter2"),
        "{secret}"
    );
    assert!(failure(&["ls", "images"]).contains("--config"));
    let size = failure(&["ls", &uri(root.path()), "--page-size", "3000Ki"]);
    assert!(
        size.contains("client.page_size") && size.contains("multiple of 64 KiB"),
        "{size}"
    );
    let etcd = failure(&["ls", &uri(root.path()), "--etcd", "http://127.0.0.1:1"]);
    assert!(etcd.contains("http://127.0.0.1:1"), "{etcd}");
}

#[test]
fn a_configuration_names_the_path_of_a_bad_field() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "ufs: {uri: 's3://b'}\nclient: {fallback: {policy: maybe}}",
    )
    .unwrap();
    let error = failure(&["ls", "--config", file.path().to_str().unwrap()]);
    assert!(error.contains("client.fallback.policy"), "{error}");
}

#[test]
fn crd_prints_both_definitions() {
    let text = stdout(&["crd"]);
    for name in [
        "alluxiodatasets.data.alluxio.io",
        "alluxiodataloads.data.alluxio.io",
    ] {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let root = dataset();
    let command = format!(
        "set -o pipefail; {} cat {}/sub/b.bin | head -c 10 >/dev/null",
        env!("CARGO_BIN_EXE_alluxio-dataset"),
        uri(root.path())
    );
    let status = Command::new("bash")
        .args(["-c", &command])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn every_command_has_help_with_an_example() {
    let help = stdout(&["--help"]);
    assert!(help.contains("Examples:"));
    for command in [
        "ls",
        "info",
        "stat",
        "isdir",
        "cat",
        "open",
        "head",
        "tail",
        "read-bytes",
        "write-bytes",
        "touch",
        "mkdir",
        "rm",
        "cp",
        "mv",
        "upload",
        "download",
        "load",
        "mount",
        "worker",
        "quickstart",
    ] {
        assert!(
            stdout(&[command, "--help"]).contains("Examples:"),
            "{command}"
        );
    }
}

#[test]
fn a_manifest_is_taken_shown_and_compared() {
    let root = dataset();
    let (uri, folder) = (uri(root.path()), tempfile::tempdir().unwrap());
    let file = folder.path().join("m");
    let file = file.to_str().unwrap();
    let create = ["manifest", "create", &uri, "--output", file];
    assert!(run(&create).status.success());
    let summary = stdout(&["manifest", "show", file]);
    assert!(
        summary.contains("3 files in 2 directories") && summary.contains(&uri),
        "{summary}"
    );
    let files = stdout(&["manifest", "show", file, "--files"]);
    assert!(files.contains("3145728  sub/b.bin  mtime:"), "{files}");
    assert!(stdout(&["manifest", "show", file, "sub"]).contains("sub/with space é.txt"));
    let error = failure(&["manifest", "show", file, "nothing"]);
    assert!(error.contains("`nothing` is not in"), "{error}");
    assert!(stdout(&["manifest", "verify", file]).starts_with("unchanged: 3 files"));
    std::fs::write(root.path().join("a.txt"), "changed\n").unwrap();
    std::fs::write(root.path().join("new"), "").unwrap();
    let error = failure(&["manifest", "verify", file]);
    for part in [
        "replaced: ",
        "added: ",
        "1 files were replaced, 0 removed and 1 added",
    ] {
        assert!(error.contains(part), "no {part} in: {error}");
    }
    let error = failure(&["manifest", "verify", "/dev/null"]);
    assert!(error.contains("manifest create"), "{error}");
}

#[test]
fn a_pinned_dataset_is_what_its_manifest_names() {
    let (root, folder) = (dataset(), tempfile::tempdir().unwrap());
    let (uri, file) = (uri(root.path()), folder.path().join("m"));
    let config = folder.path().join("config.yaml");
    let pinned = format!(
        "{{consistency: pinned, manifest: {{path: '{}'}}}}",
        file.display()
    );
    std::fs::write(
        &config,
        format!("ufs: {{uri: '{uri}'}}\nclient: {pinned}\n"),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    // The configuration may name its manifest before there is one.
    let output = file.to_str().unwrap();
    let create = ["manifest", "create", "--config", config, "-o", output];
    assert!(run(&create).status.success());
    assert_eq!(stdout(&["cat", "--config", config, "a.txt"]), "hello\n");
    std::fs::write(root.path().join("a.txt"), "other\n").unwrap();
    std::fs::write(root.path().join("new"), "").unwrap();
    assert_eq!(stdout(&["ls", "--config", config]), "a.txt\nsub/\n");
    let error = failure(&["cat", "--config", config, "a.txt"]);
    for part in [
        "a.txt changed",
        "pins version mtime:",
        "the store has version mtime:",
        "manifest create",
    ] {
        assert!(error.contains(part), "no {part} in: {error}");
    }
    std::fs::remove_file(root.path().join("a.txt")).unwrap();
    let error = failure(&["cat", "--config", config, "a.txt"]);
    assert!(error.contains("the store has it no longer"), "{error}");
    let error = failure(&["cat", "--config", config, "new"]);
    assert!(error.contains("is not in the manifest"), "{error}");
}

#[test]
fn ring_tells_shares_owners_and_what_would_move() {
    let root = dataset();
    let folder = uri(root.path());
    let file = format!("{folder}/a.txt");
    let workers = "--workers=127.0.0.1:7001,127.0.0.2:7001,127.0.0.3:7001";
    let shown = stdout(&["ring", workers, &file]);
    assert!(shown.contains("consistent, 2000 virtual nodes a worker, 3 workers"));
    assert!(shown.contains("a.txt is owned by 127.0.0."), "{shown}");
    let options = ["--add=127.0.0.9:7001", "--remove=127.0.0.1:7001", "--json"];
    let arguments = [&["ring", workers, folder.as_str()][..], &options].concat();
    let report: serde_json::Value = serde_json::from_str(&stdout(&arguments)).unwrap();
    let run = &report["dry_run"];
    assert_eq!(
        (&run["workers"], &run["folder"]["files"]),
        (&3.into(), &3.into())
    );
    let moved = run["moved_share"].as_f64().unwrap();
    assert!((0.25..0.6).contains(&moved), "{moved}");
    let unknown = failure(&["ring", workers, &file, "--remove=127.0.0.8:7001"]);
    assert!(
        unknown.contains("no worker listens at 127.0.0.8:7001"),
        "{unknown}"
    );
}
