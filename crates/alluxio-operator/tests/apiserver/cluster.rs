//! A Kubernetes control plane for one test run, taken down at its end.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// The first of the cluster numbers that runs of this test take, beside those of other tests.
const FIRST_ID: u32 = 40;
/// How many numbers there are: runs side by side rarely meet.
const IDS: u32 = 50;

/// What the script runs beside Kubernetes' own binaries.
const PROGRAMS: &[&str] = &["bash", "etcd", "openssl", "curl", "setsid"];

/// A running control plane.
pub(crate) struct Cluster {
    home: PathBuf,
    id: u32,
}

impl Cluster {
    /// Brings one up, or tells why not.
    pub(crate) async fn start() -> Option<Self> {
        let id = FIRST_ID + std::process::id() % IDS;
        let cluster = Self {
            home: PathBuf::from(format!("/tmp/kc-api-{id}")),
            id,
        };
        if let Some(program) = PROGRAMS.iter().find(|program| !is_installed(program)) {
            return Self::left_out(&format!("{program} is not installed"));
        }
        let check = cluster.run(&["build", "--check"]).await;
        if !check.status.success() {
            let why = String::from_utf8_lossy(&check.stderr).trim().to_owned();
            return Self::left_out(&why);
        }
        let up = cluster.run(&["up", "--level=control"]).await;
        assert!(
            up.status.success(),
            "{}",
            String::from_utf8_lossy(&up.stderr)
        );
        Some(cluster)
    }

    fn left_out(why: &str) -> Option<Self> {
        let required = std::env::var("CI").is_ok_and(|ci| ci == "true")
            || std::env::var_os("ALLUXIO_TEST_CLUSTER").is_some();
        assert!(!required, "the API server test must run here: {why}");
        // Past the test harness, which keeps what a passing test prints to itself.
        let line = format!("left out: the operator against a real API server ({why})");
        let _ = writeln!(std::io::stderr(), "{line}");
        None
    }

    /// A client with all rights.
    pub(crate) async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(self.home.join("kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(file, &options)
            .await
            .unwrap();
        // The API server is on loopback: never through a proxy.
        config.proxy_url = None;
        Client::try_from(config).unwrap()
    }

    /// The control plane's own etcd, by the script's numbering of ports.
    pub(crate) fn etcd(&self) -> String {
        format!("http://127.0.0.1:{}", 22_001 + 20 * self.id)
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.command(arguments));
        command.output().await.unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = Command::new(root.join("tests/cluster/cluster"));
        command
            .args(arguments)
            .env("CLUSTER_HOME", &self.home)
            .env("CLUSTER_ID", self.id.to_string());
        command
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

impl Drop for Cluster {
    /// Also after a failed scenario, when the runtime may be gone already.
    fn drop(&mut self) {
        let _ = self.command(&["down", "--purge"]).output();
    }
}
