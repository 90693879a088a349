//! The file operations as a user runs them: the real binary over folders and a real S3 server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../../alluxio-ufs/tests/support/gateway.rs"]
mod gateway;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use gateway::{ACCESS_KEY, BUCKET, Gateway, SECRET_KEY};
use tempfile::TempDir;

/// A dataset in a folder, with its configuration.
struct Dataset {
    folder: TempDir,
}

impl Dataset {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        std::fs::create_dir(&root).unwrap();
        let config = format!("ufs: {{uri: 'file://{}'}}\n", root.display());
        std::fs::write(folder.path().join("dataset.yaml"), config).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().canonicalize().unwrap().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        let config = self.path("dataset.yaml");
        command.args([arguments, &["--config", &config]].concat());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn failure(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} must fail");
        String::from_utf8(output.stderr).unwrap()
    }

    /// All files below, sorted.
    fn below(&self, path: &str) -> Vec<String> {
        let listed = self.stdout(&["ls", "--recursive", path]);
        let mut files: Vec<_> = listed.lines().map(str::to_owned).collect();
        files.sort_unstable();
        files
    }

    fn put(&self, name: &str, bytes: &str) {
        let mut command = self.command(&["write-bytes", "--force", name]);
        let output = with_input(&mut command, bytes.as_bytes());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {error}");
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"));
    command
        .env_remove("ALLUXIO_DATASET_CONFIG")
        .env_remove("ALLUXIO_DATASET_LOG");
    command
}

fn started(command: &mut Command) -> Child {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    pipes.stderr(Stdio::piped()).spawn().unwrap()
}

fn with_input(command: &mut Command, bytes: &[u8]) -> Output {
    let mut child = started(command);
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn bytes_are_written_and_read_in_every_way() {
    let dataset = Dataset::new();
    dataset.put("d/f", "0123456789");
    for (arguments, expected) in [
        (&["cat", "d/f"][..], "0123456789"),
        (&["open", "d/f"], "0123456789"),
        (&["head", "-n", "3", "d/f"], "012"),
        (&["tail", "--bytes", "3", "d/f"], "789"),
        (&["tail", "d/f"], "0123456789"),
        (
            &["read-bytes", "d/f", "--offset", "4", "--length", "2"],
            "45",
        ),
        (&["read_bytes", "d/f", "--offset", "8"], "89"),
        (&["read-bytes", "d/f", "--offset", "99"], ""),
    ] {
        assert_eq!(dataset.stdout(arguments), expected, "{arguments:?}");
    }
    let again = dataset.failure(&["write-bytes", "d/f"]);
    assert!(again.contains("--force"), "{again}");
    dataset.stdout(&["touch", "d/f", "new"]);
    assert_eq!(dataset.stdout(&["cat", "d/f", "new"]), "0123456789");
    dataset.stdout(&["touch", "--truncate", "d/f"]);
    assert_eq!(dataset.stdout(&["cat", "d/f"]), "");
}

#[test]
fn what_is_there_is_told_in_words_and_json() {
    let dataset = Dataset::new();
    dataset.stdout(&["mkdir", "-p", "a/b", "c"]);
    dataset.put("a/f", "abc");
    assert_eq!(dataset.stdout(&["ls"]), "a/\nc/\n");
    let json = dataset.stdout(&["ls", "--json", "a"]);
    let entries: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(entries[0]["kind"], "directory");
    assert_eq!(
        (&entries[1]["name"], &entries[1]["size_bytes"]),
        (&"f".into(), &3.into())
    );
    assert!(entries[1]["version"].is_string() && entries[1]["modified"].is_string());
    let info: serde_json::Value =
        serde_json::from_str(&dataset.stdout(&["info", "--json", "a/f"])).unwrap();
    assert_eq!(
        (&info["name"], &info["size_bytes"]),
        (&"a/f".into(), &3.into())
    );
    assert_eq!(info["file_id"].as_str().unwrap().len(), 64);
    assert!(dataset.stdout(&["stat", "a/f"]).contains("version"));
    assert_eq!(dataset.stdout(&["isdir", "a/b"]), "true\n");
    for nothing in ["a/f", "nope"] {
        let output = dataset.run(&["isdir", nothing]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"false\n");
    }
    let unknown = binary().args(["isdir", "relative"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2), "it could not be found out");
}

#[test]
fn removals_are_guarded() {
    let dataset = Dataset::new();
    dataset.stdout(&["mkdir", "empty", "full"]);
    dataset.put("full/f", "x");
    dataset.put("g", "x");
    for directory in ["empty", "full"] {
        let refused = dataset.failure(&["rm", directory]);
        assert!(refused.contains("--recursive"), "{refused}");
    }
    assert!(
        dataset
            .failure(&["rm", "--dir", "full"])
            .contains("holds something")
    );
    dataset.stdout(&["rm", "--dir", "empty"]);
    for root in [&["rm", ""][..], &["rm", "--recursive", ""]] {
        let refused = dataset.failure(root);
        assert!(refused.contains("--even-root"), "{refused}");
    }
    assert!(dataset.failure(&["rm", "nope"]).contains("nope"));
    dataset.stdout(&["rm", "--force", "nope", "g"]);
    assert_eq!(dataset.stdout(&["ls", "--recursive"]), "full/f\n");
    let told = dataset.run(&["rm", "-r", "full"]);
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("removed 1 files"), "{told}");
    dataset.put("last/f", "x");
    dataset.stdout(&["rm", "--recursive", "--even-root", ""]);
}

#[test]
fn a_pinned_dataset_is_not_changed() {
    let dataset = Dataset::new();
    dataset.put("f", "x");
    let manifest = dataset.path("manifest");
    let created = dataset.run(&["manifest", "create", "-o", &manifest]);
    assert!(created.status.success());
    let config = dataset.path("dataset.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let pinned =
        format!("{text}client: {{consistency: pinned, manifest: {{path: '{manifest}'}}}}\n");
    std::fs::write(&config, pinned).unwrap();
    for change in [
        &["rm", "f"][..],
        &["touch", "g"],
        &["mkdir", "d"],
        &["cp", "f", "g"],
        &["mv", "f", "g"],
        &["write-bytes", "--force", "f"],
        &["upload", &config, "g"],
    ] {
        let refused = dataset.failure(change);
        assert!(refused.contains("pinned"), "{change:?}: {refused}");
    }
    assert_eq!(dataset.stdout(&["cat", "f"]), "x");
}

#[test]
fn copies_go_within_the_dataset_and_to_and_from_the_disk() {
    let dataset = Dataset::new();
    dataset.put("s/a", "a");
    dataset.put("s/d/b", "b");
    assert!(dataset.failure(&["cp", "s", "t"]).contains("--recursive"));
    dataset.stdout(&["cp", "-r", "s", "t"]);
    let again = dataset.failure(&["cp", "-r", "s", "t"]);
    assert!(
        again.contains("--resume") && again.contains("--force"),
        "{again}"
    );
    let json = dataset.stdout(&["cp", "-r", "--resume", "--json", "s", "t"]);
    let summary: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&summary["files"], &summary["files_skipped"]),
        (&2.into(), &2.into())
    );
    dataset.stdout(&["mv", "t/a", "t/d/"]);
    dataset.stdout(&["mv", "-r", "t", "u"]);
    assert_eq!(dataset.below("u"), ["d/a", "d/b"]);

    let down = dataset.path("down");
    dataset.stdout(&["cp", "-r", "s", &down]);
    assert_eq!(std::fs::read(Path::new(&down).join("d/b")).unwrap(), b"b");
    dataset.stdout(&["download", "s/a", &format!("{down}/d")]);
    assert_eq!(std::fs::read(Path::new(&down).join("d/a")).unwrap(), b"a");
    let resumed = dataset.run(&["download", "-r", "--resume", "s", &down]);
    let told = String::from_utf8(resumed.stderr).unwrap();
    assert!(
        told.contains("2 files and 2 B were there already"),
        "{told}"
    );
    dataset.stdout(&["upload", "-r", &down, "up/"]);
    assert_eq!(dataset.below("up"), ["down/a", "down/d/a", "down/d/b"]);
    let local = binary().args(["cp", "/a", "./b"]).output().unwrap();
    let told = String::from_utf8(local.stderr).unwrap();
    assert!(told.contains("--config"), "{told}");
}

fn over(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = binary();
    command
        .args(arguments)
        .args(["--endpoint", &gateway.endpoint(), "--region", "us-east-1"])
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env_remove("AWS_SESSION_TOKEN");
    command
}

#[test]
fn a_write_that_is_killed_leaves_the_old_object() {
    let Some(gateway) = Gateway::start() else {
        return;
    };
    let file = format!("s3://{BUCKET}/d/f");
    let old = with_input(&mut over(&gateway, &["write-bytes", &file]), b"old");
    assert!(old.status.success(), "{old:?}");
    let mut writing = started(&mut over(&gateway, &["write-bytes", "--force", &file]));
    // More than fits parts that wait, so parts have left for the store when this returns.
    let mut input = writing.stdin.take().unwrap();
    input.write_all(&vec![7; 80 << 20]).unwrap();
    writing.kill().unwrap();
    writing.wait().unwrap();
    drop(input);
    let read = over(&gateway, &["cat", &file]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout), "old");
    let listed = over(&gateway, &["ls", &format!("s3://{BUCKET}/d")]).output();
    assert_eq!(listed.unwrap().stdout, b"f\n");
    let two = format!("s3://{BUCKET}/e/g");
    let copied = over(&gateway, &["cp", &file, &two]).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let other = over(&gateway, &["cp", &file, "s3://other/g"]).output();
    let told = String::from_utf8(other.unwrap().stderr).unwrap();
    assert!(told.contains("two stores"), "{told}");
    let root = format!("s3://{BUCKET}");
    let all = over(&gateway, &["rm", "-r", &root]).output().unwrap();
    let told = String::from_utf8(all.stderr).unwrap();
    assert!(told.contains("--even-root"), "{told}");
}

#[test]
fn the_manual_has_every_command() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let help = binary().arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:").nth(1).unwrap();
    let commands = commands.split("Options:").next().unwrap();
    let names = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| *name != "help") {
        assert!(
            manual.contains(&format!("`{name}")),
            "`{name}` is not in docs/cli.md"
        );
    }
}
