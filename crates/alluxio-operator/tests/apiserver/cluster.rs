//! A Kubernetes control plane for one test run, taken down at its end.

use std::path::PathBuf;
use std::process::{Command, Output};

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// The first of the cluster numbers that runs of this test take, beside those of other tests.
const FIRST_ID: u32 = 40;
/// How many numbers there are: runs side by side rarely meet.
const IDS: u32 = 50;

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
        let check = cluster.run(&["build", "--check"]);
        if !check.status.success() {
            let why = String::from_utf8_lossy(&check.stderr).trim().to_owned();
            return Self::left_out(&why);
        }
        let up = cluster.run(&["up", "--level=control"]);
        assert!(
            up.status.success(),
            "{}",
            String::from_utf8_lossy(&up.stderr)
        );
        Some(cluster)
    }

    #[allow(clippy::print_stderr, reason = "what is left out must be seen")]
    fn left_out(why: &str) -> Option<Self> {
        let required = std::env::var("CI").is_ok_and(|ci| ci == "true")
            || std::env::var_os("ALLUXIO_TEST_CLUSTER").is_some();
        assert!(!required, "the API server test must run here: {why}");
        eprintln!("left out: the operator against a real API server ({why})");
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

    fn run(&self, arguments: &[&str]) -> Output {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        Command::new(root.join("tests/cluster/cluster"))
            .args(arguments)
            .env("CLUSTER_HOME", &self.home)
            .env("CLUSTER_ID", self.id.to_string())
            .output()
            .unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run(&["down", "--purge"]);
    }
}
