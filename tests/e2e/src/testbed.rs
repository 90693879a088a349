//! The cluster, the servers beside it and the folders they use: all that a scenario needs around it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::services::{Etcd, ObjectStore, Prometheus};

/// Everything that was brought up, so that it can be taken down.
pub(crate) struct Testbed {
    pub(crate) root: PathBuf,
    pub(crate) cluster: Cluster,
    pub(crate) client: kube::Client,
    /// Servers' logs, and everything else when a step fails.
    pub(crate) logs: PathBuf,
    /// Servers' state; removed at the end.
    scratch: PathBuf,
    pub(crate) store: Option<ObjectStore>,
    pub(crate) etcd: Option<Etcd>,
    pub(crate) prometheus: Option<Prometheus>,
}

impl Testbed {
    /// Brings the cluster up, or takes the one that is given.
    pub(crate) async fn open(root: &Path) -> Result<Self> {
        let logs = root.join("dist/e2e-logs");
        if logs.exists() {
            std::fs::remove_dir_all(&logs)?;
        }
        std::fs::create_dir_all(&logs)?;
        let cluster = Cluster::get(root).await?;
        let client = cluster.client().await?;
        let version = client.apiserver_version().await?;
        std::fs::write(logs.join("version"), version.git_version)?;
        Ok(Self {
            root: root.to_owned(),
            cluster,
            client,
            logs,
            scratch: scratch_folder()?,
            store: None,
            etcd: None,
            prometheus: None,
        })
    }

    /// A folder for a server's state.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The S3 server, once it runs.
    pub(crate) fn store(&self) -> Result<&ObjectStore> {
        self.store.as_ref().context("the S3 server was not started")
    }

    /// The etcd, once it runs.
    pub(crate) fn etcd(&self) -> Result<&Etcd> {
        self.etcd.as_ref().context("etcd was not started")
    }

    /// Stops the servers, then the cluster, then removes the scratch folder: each is tried even
    /// when the one before failed, and the first error is told.
    pub(crate) async fn down(self) -> Result<()> {
        let mut outcomes = Vec::new();
        let stores = self.store.map(|store| store.server);
        let etcds = self.etcd.map(|etcd| etcd.server);
        let others = self.prometheus.map(|prometheus| prometheus.server);
        outcomes.push(self.cluster.down().await);
        for server in [stores, etcds, others].into_iter().flatten() {
            outcomes.push(server.stop().await);
        }
        outcomes.push(std::fs::remove_dir_all(&self.scratch).context("scratch folder"));
        outcomes.into_iter().collect()
    }

    /// What to type to look at what was left running.
    pub(crate) fn how_to_use(&self) -> String {
        let servers = [
            self.store
                .as_ref()
                .map(|store| format!("S3: {}", store.endpoint)),
            self.etcd
                .as_ref()
                .map(|etcd| format!("etcd: {}", etcd.endpoint)),
            self.prometheus
                .as_ref()
                .map(|p| format!("Prometheus: {}", p.url)),
        ];
        let mut lines = vec![format!(
            "left running: export KUBECONFIG={}",
            self.cluster.kubeconfig.display()
        )];
        lines.extend(servers.into_iter().flatten());
        lines.push("a next run, or tests/cluster/cluster down, takes the cluster away".to_owned());
        lines.join("\n")
    }

    /// Lets the servers live on.
    pub(crate) fn leave_running(self) {
        let stores = self.store.map(|store| store.server);
        let etcds = self.etcd.map(|etcd| etcd.server);
        let others = self.prometheus.map(|prometheus| prometheus.server);
        for server in [stores, etcds, others].into_iter().flatten() {
            server.leave_running();
        }
    }
}

/// A new folder that no other run uses.
fn scratch_folder() -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let name = format!("alluxio-dataset-e2e-{}-{now}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
