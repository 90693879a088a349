//! What may be written after the commands that run for as long as their pod does.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::RUN_FOLDER;

/// `worker`.
#[derive(Args, Debug)]
pub(crate) struct WorkerArguments {
    /// Configuration file (YAML).
    #[arg(short, long, value_name = "FILE", env = "ALLUXIO_DATASET_CONFIG")]
    pub config: PathBuf,
    /// Host that clients connect to; overrides the configuration's.
    #[arg(long, value_name = "HOST", env = "ALLUXIO_DATASET_ADVERTISED_HOST")]
    pub advertised_host: Option<String>,
    /// Ring identity, a UUID or a name; overrides the configuration's.
    #[arg(long, value_name = "NAME", env = "ALLUXIO_DATASET_WORKER_IDENTITY")]
    pub identity: Option<String>,
}

/// Logs and metrics of a process in the cluster.
#[derive(Args, Debug)]
pub(crate) struct ServiceArguments {
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Log level or filters.
    #[arg(long, default_value = "info", env = "ALLUXIO_DATASET_LOG")]
    pub log: String,
    /// Log lines as JSON.
    #[arg(long)]
    pub log_json: bool,
}

/// `operator`.
#[derive(Args, Debug)]
pub(crate) struct OperatorArguments {
    /// Watch one namespace only.
    #[arg(long)]
    pub namespace: Option<String>,
    /// Logs and metrics.
    #[command(flatten)]
    pub service: ServiceArguments,
}

/// `csi`.
#[derive(Args, Debug)]
pub(crate) struct CsiArguments {
    /// Where the kubelet calls, as unix:///path.
    #[arg(long, default_value = "unix:///csi/csi.sock", value_name = "URL")]
    pub endpoint: String,
    /// This node's name.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_id: String,
    /// The same socket as the kubelet sees it on the host.
    #[arg(long, value_name = "PATH")]
    pub kubelet_registration_path: Option<PathBuf>,
    /// Directory that the kubelet watches for plugins; without it the plugin does not register.
    #[arg(long, value_name = "PATH", requires = "kubelet_registration_path")]
    pub registration_dir: Option<PathBuf>,
    /// Socket of the mounter pod; without it daemons are started here, unprivileged.
    #[arg(long, value_name = "PATH")]
    pub mounter_socket: Option<PathBuf>,
    /// Folder, for root alone, where this plugin finds its mounts again after a restart.
    #[arg(long, default_value = RUN_FOLDER, value_name = "PATH")]
    pub run_folder: PathBuf,
    /// Logs and metrics.
    #[command(flatten)]
    pub service: ServiceArguments,
}

/// `mounter`.
#[derive(Args, Debug)]
pub(crate) struct MounterArguments {
    /// Where the CSI node plugin connects.
    #[arg(
        long,
        default_value = "/run/alluxio-dataset/mounter.sock",
        value_name = "PATH"
    )]
    pub socket: PathBuf,
    /// Logs and metrics.
    #[command(flatten)]
    pub service: ServiceArguments,
}
