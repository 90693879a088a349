//! What may be written on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Alluxio-cached datasets for training pods: operator, CSI driver, mount and client in one binary.
#[derive(Parser, Debug)]
#[command(name = "alluxio-dataset", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  alluxio-dataset quickstart                         the whole path on this machine, in a minute
  alluxio-dataset ls s3://bucket/prefix              list through the client
  alluxio-dataset mount s3://bucket/prefix /mnt/data --etcd http://etcd:2379
  alluxio-dataset crd | kubectl apply -f -           install the custom resources

Credentials are never arguments: they come from a configuration file (--config) or from the
environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN).";

/// The subcommands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List a directory of a dataset.
    #[command(after_help = "\
Examples:
  alluxio-dataset ls s3://bucket/train/
  alluxio-dataset ls -l --recursive --config dataset.yaml images/n01440764")]
    Ls(LsArguments),
    /// Show one file or directory: size, version, who caches it.
    #[command(after_help = "\
Examples:
  alluxio-dataset stat --config dataset.yaml images/a.jpg
  alluxio-dataset stat s3://bucket/train/a.jpg --workers w0:28080,w1:28080")]
    Stat(PathArguments),
    /// Show the ring: each worker's share, who owns a file, what moves when workers come or go.
    #[command(after_help = "\
Examples:
  alluxio-dataset ring --config dataset.yaml                     the workers and their shares
  alluxio-dataset ring --config dataset.yaml images/a.jpg        who owns a file, and who is next
  alluxio-dataset ring --config dataset.yaml --add w9:28080      what moves when w9 joins
  alluxio-dataset ring --config dataset.yaml --remove w0 images  the same in bytes of a folder

Nothing is changed. Two clients route alike where the ring's fingerprint is the same. An added worker
is taken to have the identity of its host name, as in a static list; in etcd it will have another one,
and take about as much.")]
    Ring(RingArguments),
    /// Write files to standard output.
    #[command(after_help = "\
Examples:
  alluxio-dataset cat s3://bucket/train/labels.csv | head
  alluxio-dataset cat --config dataset.yaml labels.csv --report")]
    Cat(CatArguments),
    /// Copy a file or directory of a dataset to local disk.
    #[command(after_help = "\
Examples:
  alluxio-dataset cp s3://bucket/train/a.parquet .
  alluxio-dataset cp --recursive --config dataset.yaml images /data/images

A file appears under its name only when all of its bytes are there.")]
    Cp(CpArguments),
    /// Load a path into the workers' caches and show progress.
    #[command(after_help = "\
Examples:
  alluxio-dataset load s3://bucket/train --etcd http://etcd:2379
  alluxio-dataset load --config dataset.yaml images --verify --bandwidth 200Mi
  alluxio-dataset load --config dataset.yaml --manifest train.manifest
  alluxio-dataset load --config dataset.yaml images --skip-if-cached --file-filter '\\.jpg$'
  alluxio-dataset load --config dataset.yaml --partial-listing    begin before all is listed
  alluxio-dataset load --config dataset.yaml --metadata-only      statuses, no pages
  alluxio-dataset load --config dataset.yaml images --no-wait     submit and return
  alluxio-dataset load --config dataset.yaml images --progress --no-wait --json
  alluxio-dataset load --config dataset.yaml images --failed --offset 100 --limit 50
  alluxio-dataset load --config dataset.yaml images --stop

Ctrl-C leaves the load at work. Exit codes: 0 succeeded, 1 failed, 3 stopped, 4 still at work.")]
    Load(LoadArguments),
    /// Take a listing of a dataset into a file that serves lookups and listings without requests.
    #[command(
        subcommand,
        after_help = "\
Examples:
  alluxio-dataset manifest create s3://bucket/train --output train.manifest
  alluxio-dataset manifest show train.manifest --files
  alluxio-dataset manifest verify train.manifest --endpoint http://minio:9000

A client uses it by client.manifest.path; client.consistency: pinned reads only its versions."
    )]
    Manifest(ManifestArguments),
    /// Mount a dataset read-only, until interrupted or unmounted.
    #[command(after_help = "\
Examples:
  alluxio-dataset mount s3://bucket/train /mnt/train --etcd http://etcd:2379
  alluxio-dataset mount --config dataset.yaml /mnt/train

Needs root for mount(2); the process that parses remote data runs as an unprivileged user.
Unmount with Ctrl-C or `umount /mnt/train`.")]
    Mount(MountArguments),
    /// The unprivileged side of a mount; started by `mount`, `csi` and `mounter`.
    #[command(hide = true)]
    MountDaemon,
    /// Run an embedded worker.
    #[command(after_help = "\
Examples:
  alluxio-dataset worker --config worker.yaml

A worker.yaml:
  ufs: {uri: 's3://bucket/train', endpoint: 'http://minio:9000'}
  cluster: {membership: {type: etcd, endpoints: ['http://etcd:2379']}}
  worker: {listen: '0.0.0.0:28080', page_store: {directory: /cache, capacity: 100Gi}}")]
    Worker(WorkerArguments),
    /// Run the Kubernetes operator.
    Operator(OperatorArguments),
    /// Run the CSI node plugin.
    Csi(CsiArguments),
    /// Run the unprivileged mounter that the CSI node plugin hands its mounts to.
    Mounter(MounterArguments),
    /// Print the custom resource definitions as YAML.
    Crd,
    /// Show the whole path on this machine: S3 server, three workers, load, mount, failover.
    #[command(after_help = "\
Examples:
  alluxio-dataset quickstart
  alluxio-dataset quickstart --data ~/pictures
  alluxio-dataset quickstart --keep

Needs Linux with /dev/fuse, and root for mount(2). Everything is below one temporary directory and
on 127.0.0.1, and is removed at the end.")]
    Quickstart(QuickstartArguments),
}

/// Which dataset, and through which cluster.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct DatasetArguments {
    /// Configuration file (YAML); paths are then below its `ufs.uri`.
    #[arg(short, long, value_name = "FILE", env = "ALLUXIO_DATASET_CONFIG")]
    pub config: Option<PathBuf>,
    /// Endpoint of the object store, such as http://minio:9000.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    #[arg(long, conflicts_with = "config")]
    pub region: Option<String>,
    /// Unsigned requests, for public buckets.
    #[arg(long, conflicts_with = "config")]
    pub anon: bool,
    /// Workers as host[:port], separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with_all = ["config", "etcd"])]
    pub workers: Vec<String>,
    /// Alluxio's etcd endpoints, separated by commas.
    #[arg(
        long,
        value_name = "URLS",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub etcd: Vec<String>,
    /// Page size of the cluster.
    #[arg(long, default_value = "1Mi", conflicts_with = "config")]
    pub page_size: String,
    /// Log level or filters; overrides the configuration's.
    #[arg(long, value_name = "LEVEL", env = "ALLUXIO_DATASET_LOG")]
    pub log: Option<String>,
}

/// `stat`.
#[derive(Args, Debug)]
pub(crate) struct PathArguments {
    /// Path below the dataset, or a full URI such as s3://bucket/key.
    pub path: String,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `ring`.
#[derive(Args, Debug)]
pub(crate) struct RingArguments {
    /// File whose owners are shown, or folder whose files are counted in a dry run.
    pub path: Option<String>,
    /// Workers that would join, as host[:port], separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub add: Vec<String>,
    /// Workers that would leave, as host[:port], separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub remove: Vec<String>,
    /// As JSON, for programs.
    #[arg(long)]
    pub json: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArguments {
    /// Directory below the dataset, or a full URI.
    #[arg(default_value = "")]
    pub path: String,
    /// Sizes and modification times too.
    #[arg(short, long)]
    pub long: bool,
    /// Everything below, files only.
    #[arg(short, long)]
    pub recursive: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `cat`.
#[derive(Args, Debug)]
pub(crate) struct CatArguments {
    /// Files below the dataset, or full URIs below one prefix.
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Afterwards tell on standard error where the bytes came from, and what fell back and why.
    #[arg(long)]
    pub report: bool,
    /// The report as one JSON object.
    #[arg(long, requires = "report")]
    pub json: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `cp`.
#[derive(Args, Debug)]
pub(crate) struct CpArguments {
    /// File or directory below the dataset, or a full URI.
    pub source: String,
    /// Local file or directory.
    pub destination: PathBuf,
    /// Copy a directory with all below it.
    #[arg(short, long)]
    pub recursive: bool,
    /// Replace local files that exist.
    #[arg(short, long)]
    pub force: bool,
    /// No progress bar.
    #[arg(short, long)]
    pub quiet: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `load`.
#[derive(Args, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag that a user may give"
)]
pub(crate) struct LoadArguments {
    /// File or directory below the dataset, or a full URI.
    #[arg(default_value = "")]
    pub path: String,
    /// Check each file after it was loaded.
    #[arg(long)]
    pub verify: bool,
    /// Load statuses but no pages.
    #[arg(long)]
    pub metadata_only: bool,
    /// Leave out files that are cached in the same version.
    #[arg(long)]
    pub skip_if_cached: bool,
    /// The most that one worker reads from the store in a second, such as 200Mi.
    #[arg(long, value_name = "SIZE")]
    pub bandwidth: Option<String>,
    /// When the load has succeeded, write a manifest of the path to this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_wait", "stop"])]
    pub manifest: Option<PathBuf>,
    /// Load only files whose path matches this regular expression.
    #[arg(long, value_name = "REGEX")]
    pub file_filter: Option<String>,
    /// Begin to load while the listing still runs; the total then grows.
    #[arg(long)]
    pub partial_listing: bool,
    /// Submit and return; with --progress, tell how far it is once.
    #[arg(long, conflicts_with = "stop")]
    pub no_wait: bool,
    /// Show the progress of a load that was submitted before.
    #[arg(long, conflicts_with = "stop")]
    pub progress: bool,
    /// Stop a load that runs.
    #[arg(long)]
    pub stop: bool,
    /// List the files that failed, with the reasons.
    #[arg(long, conflicts_with_all = ["progress", "stop", "no_wait"])]
    pub failed: bool,
    /// Failed files to pass over.
    #[arg(long, default_value_t = 0, requires = "failed", value_name = "NUMBER")]
    pub offset: usize,
    /// Failed files to list.
    #[arg(
        long,
        default_value_t = 1000,
        requires = "failed",
        value_name = "NUMBER"
    )]
    pub limit: usize,
    /// Objects of JSON, one a line.
    #[arg(long)]
    pub json: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `manifest`.
#[derive(Subcommand, Debug)]
pub(crate) enum ManifestArguments {
    /// List a directory of a dataset and write its manifest.
    #[command(after_help = "\
Examples:
  alluxio-dataset manifest create s3://bucket/train --output train.manifest
  alluxio-dataset manifest create --config dataset.yaml --output /var/lib/train.manifest

The file appears, or replaces the one of its name, only when it is whole.")]
    Create(ManifestCreate),
    /// Tell what a manifest holds; asks nobody.
    #[command(after_help = "\
Examples:
  alluxio-dataset manifest show train.manifest
  alluxio-dataset manifest show train.manifest images/n01440764
  alluxio-dataset manifest show train.manifest --files | wc -l")]
    Show(ManifestShow),
    /// Compare a manifest with what the store has now; fails where they differ.
    #[command(after_help = "\
Examples:
  alluxio-dataset manifest verify train.manifest --endpoint http://minio:9000
  alluxio-dataset manifest verify train.manifest --config dataset.yaml")]
    Verify(ManifestVerify),
}

/// `manifest create`.
#[derive(Args, Debug)]
pub(crate) struct ManifestCreate {
    /// Directory below the dataset, or a full URI.
    #[arg(default_value = "")]
    pub path: String,
    /// The manifest to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `manifest show`.
#[derive(Args, Debug)]
pub(crate) struct ManifestShow {
    /// The manifest.
    pub file: PathBuf,
    /// File or directory in it.
    #[arg(default_value = "")]
    pub path: String,
    /// Every file below the path, with its version.
    #[arg(long)]
    pub files: bool,
}

/// `manifest verify`.
#[derive(Args, Debug)]
pub(crate) struct ManifestVerify {
    /// The manifest.
    pub file: PathBuf,
    /// How to reach the dataset that it is of.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `mount`.
#[derive(Args, Debug)]
pub(crate) struct MountArguments {
    /// The dataset's URI and the mount point, or the mount point alone with --config.
    #[arg(required = true, num_args = 1..=2, value_names = ["URI", "MOUNTPOINT"])]
    pub places: Vec<String>,
    /// Owner of all files.
    #[arg(long, default_value_t = 0)]
    pub uid: u32,
    /// Group of all files.
    #[arg(long, default_value_t = 0)]
    pub gid: u32,
    /// Mode of files, octal.
    #[arg(long, default_value = "0444", value_parser = octal)]
    pub file_mode: u32,
    /// Mode of directories, octal.
    #[arg(long, default_value = "0555", value_parser = octal)]
    pub directory_mode: u32,
    /// User id of the process that parses remote data.
    #[arg(long, default_value_t = UNPRIVILEGED_ID)]
    pub daemon_uid: u32,
    /// Folder, for root alone, where the next supervisor finds this mount should this one die.
    #[arg(long, default_value = RUN_FOLDER, value_name = "DIRECTORY")]
    pub run_folder: PathBuf,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// The user `nobody`, which owns no file: what a daemon without rights runs as.
pub(crate) const UNPRIVILEGED_ID: u32 = 65534;

/// Where supervisors find each other's mounts: it is empty after a reboot, as mounts are.
const RUN_FOLDER: &str = "/run/alluxio-dataset/mounts";

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

/// `quickstart`.
#[derive(Args, Debug)]
pub(crate) struct QuickstartArguments {
    /// Serve this folder instead of generated files; it is only read.
    #[arg(long, value_name = "DIRECTORY")]
    pub data: Option<PathBuf>,
    /// Generated JPEG-like files.
    #[arg(long, default_value_t = 2000, conflicts_with = "data")]
    pub images: u32,
    /// Size of the large generated file.
    #[arg(
        long,
        default_value = "512Mi",
        conflicts_with = "data",
        value_name = "SIZE"
    )]
    pub large_file: String,
    /// Leave everything running and tell how to use it, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Log level or filters of all processes.
    #[arg(long, default_value = "warn", env = "ALLUXIO_DATASET_LOG")]
    pub log: String,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text.trim_start_matches("0o"), 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("`{text}` is not an octal mode of at most 0777"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn credentials_are_no_arguments() {
        for option in ["--key", "--secret", "--token"] {
            let line = ["alluxio-dataset", "ls", "s3://b", option, "x"];
            assert!(Arguments::try_parse_from(line).is_err());
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal("0444"), Ok(0o444));
        for bad in ["0888", "1777", "rw"] {
            assert!(octal(bad).is_err(), "{bad}");
        }
    }
}
