//! The Kubernetes under test: a node of our own by `tests/cluster/cluster`, or one that is given.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::process::Command;

use crate::process;

/// Where our own cluster keeps its state; short, for it holds unix sockets.
const DEFAULT_HOME: &str = "/tmp/kc-e2e";
/// Its number: ports, subnets and names come from it. Not 0, which a developer's own may have.
const DEFAULT_ID: &str = "10";
/// The image that our own cluster has for pods that need a shell.
const OWN_READER_IMAGE: &str = "registry.local/busybox:1";

/// A cluster that answers.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// Admin's.
    pub(crate) kubeconfig: PathBuf,
    /// The kubelet's --root-dir.
    pub(crate) kubelet_dir: String,
    /// Where pods reach servers that run on this machine.
    pub(crate) host_ip: IpAddr,
    /// For pods that need a shell.
    pub(crate) reader_image: String,
    /// The product's image, when the cluster has it already.
    given_image: Option<String>,
    /// Set for our own.
    own: Option<Own>,
}

#[derive(Clone, Debug)]
struct Own {
    script: PathBuf,
    home: String,
    id: String,
}

impl Cluster {
    /// Takes the cluster that KUBECONFIG names, or brings one up.
    pub(crate) async fn get(root: &Path) -> Result<Self> {
        match std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
            Some(path) => Self::given(PathBuf::from(path)),
            None => Self::up(root).await,
        }
    }

    fn given(kubeconfig: PathBuf) -> Result<Self> {
        let host_ip = required("E2E_HOST_IP")?;
        Ok(Self {
            kubeconfig,
            kubelet_dir: optional("KUBELET_DIR", "/var/lib/kubelet"),
            host_ip: host_ip
                .parse()
                .with_context(|| format!("E2E_HOST_IP: `{host_ip}` is no IP address"))?,
            reader_image: optional("E2E_READER_IMAGE", "busybox:1.36"),
            given_image: Some(required("E2E_IMAGE")?),
            own: None,
        })
    }

    async fn up(root: &Path) -> Result<Self> {
        let own = Own {
            script: root.join("tests/cluster/cluster"),
            home: optional("CLUSTER_HOME", DEFAULT_HOME),
            id: optional("CLUSTER_ID", DEFAULT_ID),
        };
        // What an interrupted run may have left is in the way.
        process::run(own.command().arg("down")).await?;
        if let Err(error) = process::run(own.command().args(["up", "--level=node"])).await {
            process::run(own.command().arg("down")).await?;
            return Err(error);
        }
        let variables = exported(&process::run(own.command().arg("env")).await?);
        let variable = |name: &str| {
            let value = variables.get(name).cloned();
            value.with_context(|| format!("`cluster env` says nothing of {name}"))
        };
        Ok(Self {
            kubeconfig: PathBuf::from(variable("KUBECONFIG")?),
            kubelet_dir: variable("KUBELET_DIR")?,
            host_ip: variable("NODE_IP")?.parse()?,
            reader_image: OWN_READER_IMAGE.to_owned(),
            given_image: None,
            own: Some(own),
        })
    }

    /// Whether the node is this machine, so that its mounts and sockets can be looked at.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Brings the built image to the node; its name there.
    pub(crate) async fn load_image(&self, archive: &Path) -> Result<String> {
        let Some(own) = &self.own else {
            let given = self.given_image.clone();
            return given.context("E2E_IMAGE is not set");
        };
        if !archive.is_file() {
            bail!("{} is missing: run `make image`", archive.display());
        }
        let output = process::run(own.command().arg("load-image").arg(archive)).await?;
        imported_name(&output)
            .with_context(|| format!("containerd named no image after the import: {output}"))
    }

    /// A client for the API server.
    pub(crate) async fn client(&self) -> Result<kube::Client> {
        let file = Kubeconfig::read_from(&self.kubeconfig)?;
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(file, &options).await?;
        if self.is_own() {
            // The node is on this machine's own bridge: never through a proxy.
            config.proxy_url = None;
        }
        Ok(kube::Client::try_from(config)?)
    }

    /// `kubectl`, or any other program that reads KUBECONFIG.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("KUBECONFIG", &self.kubeconfig);
        if self.is_own() {
            without_proxies(&mut command);
        }
        command
    }

    /// The folder with the logs of Kubernetes' own components, for our own cluster.
    pub(crate) fn component_logs(&self) -> Option<PathBuf> {
        self.own
            .as_ref()
            .map(|own| Path::new(&own.home).join("log"))
    }

    /// Takes our own cluster down; one that was given stays.
    pub(crate) async fn down(&self) -> Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        process::run(own.command().arg("down")).await.map(|_| ())
    }
}

impl Own {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.script);
        command
            .env("CLUSTER_HOME", &self.home)
            .env("CLUSTER_ID", &self.id);
        command
    }
}

fn without_proxies(command: &mut Command) {
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
}

fn optional(name: &str, default: &str) -> String {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| default.to_owned())
}

fn required(name: &str) -> Result<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.with_context(|| format!("with KUBECONFIG set, {name} is needed too (see e2e --help)"))
}

/// The variables in lines like `export NAME=value`.
fn exported(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// The image's name in a line like `unpacking NAME (sha256:...)...done`.
fn imported_name(output: &str) -> Option<String> {
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("unpacking "));
    Some(line?.split_once(" (")?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_the_cluster_is_read() {
        let variables = exported("export A=1\nexport B=/x=y\nnoise\n");
        assert_eq!(variables.get("A").map(String::as_str), Some("1"));
        assert_eq!(variables.get("B").map(String::as_str), Some("/x=y"));
        assert_eq!(variables.len(), 2);
    }

    #[test]
    fn the_imported_name_is_read() {
        let output = "unpacking docker.io/a/b:1.0 (sha256:abc)...done\n";
        assert_eq!(imported_name(output).as_deref(), Some("docker.io/a/b:1.0"));
        assert_eq!(imported_name("nothing"), None);
    }
}
