//! A real HDFS, Hadoop's own MiniDFSCluster, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The jars that `scripts/tools ensure stores` copies; the version is pinned there.
const JARS: &str = ".cache/alluxio-dataset/tools/hadoop";

/// A running cluster, which ends with this value: its standard input does.
pub(crate) struct MiniDfs {
    /// Of the name node's own protocol.
    pub(crate) rpc_port: u16,
    /// Of WebHDFS.
    pub(crate) http_port: u16,
    process: Child,
    _folder: TempDir,
}

impl MiniDfs {
    /// A cluster, or `None` with one line of reason where its jars are missing. Waits until it
    /// serves.
    #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
    pub(crate) fn start() -> Option<Self> {
        let Some(classpath) = classpath() else {
            let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!in_ci, "Hadoop is missing: scripts/tools ensure stores");
            eprintln!("left out: Hadoop is missing (scripts/tools ensure stores)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/MiniDfs.java");
        let mut process = Command::new("java")
            .args(["-Xmx512m", "-cp", &classpath])
            .arg(source)
            .arg(folder.path())
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        let ready = lines.find(|line| line.starts_with("READY "));
        let ready = ready.unwrap();
        let ports: Vec<u16> = ready
            .split(' ')
            .skip(1)
            .map(|p| p.parse().unwrap())
            .collect();
        Some(Self {
            rpc_port: ports[0],
            http_port: ports[1],
            process,
            _folder: folder,
        })
    }
}

impl Drop for MiniDfs {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn classpath() -> Option<String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let folder = match cache {
        Some(cache) => cache.join(JARS.strip_prefix(".cache/").unwrap()),
        None => PathBuf::from(std::env::var_os("HOME")?).join(JARS),
    };
    let jars = std::fs::read_dir(&folder).ok()?;
    let has_some = jars.flatten().any(|jar| jar.path().extension().is_some());
    has_some.then(|| format!("{}/*", folder.display()))
}
