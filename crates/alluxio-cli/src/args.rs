//! What may be written on the command line.

mod files;
mod services;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use files::{
    CatArguments, CopyArguments, DownloadArguments, EndArguments, LsArguments, MkdirArguments,
    PathArguments, ReadArguments, RmArguments, TouchArguments, TransferArguments, UploadArguments,
    WriteArguments,
};
pub(crate) use services::{CsiArguments, MounterArguments, OperatorArguments, WorkerArguments};

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
  alluxio-dataset download -r s3://bucket/prefix .   fetch, verified and resumable
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
  alluxio-dataset ls -l --recursive --config dataset.yaml images/n01440764
  alluxio-dataset ls --json --config dataset.yaml images | jq .size_bytes")]
    Ls(LsArguments),
    /// Show one file or directory: size, version, who caches it.
    #[command(
        visible_alias = "stat",
        after_help = "\
Examples:
  alluxio-dataset info --config dataset.yaml images/a.jpg
  alluxio-dataset info s3://bucket/train/a.jpg --workers w0:28080,w1:28080 --json"
    )]
    Info(PathArguments),
    /// Tell whether a path is a directory, by word and exit code.
    #[command(after_help = "\
Examples:
  alluxio-dataset isdir s3://bucket/train && echo there
  alluxio-dataset isdir --config dataset.yaml images

Exit codes: 0 it is, 1 it is not, 2 it could not be found out.")]
    Isdir(PathArguments),
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
    /// Open files and write them to standard output.
    #[command(
        visible_alias = "open",
        after_help = "\
Examples:
  alluxio-dataset cat s3://bucket/train/labels.csv | head
  alluxio-dataset cat --config dataset.yaml labels.csv --report"
    )]
    Cat(CatArguments),
    /// Write the first bytes of a file to standard output.
    #[command(after_help = "\
Examples:
  alluxio-dataset head s3://bucket/train/labels.csv
  alluxio-dataset head --bytes 8 --config dataset.yaml a.parquet | xxd")]
    Head(EndArguments),
    /// Write the last bytes of a file to standard output.
    #[command(after_help = "\
Examples:
  alluxio-dataset tail s3://bucket/train/run.log
  alluxio-dataset tail --bytes 64Ki --config dataset.yaml a.parquet > footer")]
    Tail(EndArguments),
    /// Write a range of a file to standard output.
    #[command(
        visible_alias = "read_bytes",
        after_help = "\
Examples:
  alluxio-dataset read-bytes s3://bucket/train/a.tar --offset 512 --length 4Ki
  alluxio-dataset read-bytes --config dataset.yaml a.tar --offset 1Mi > rest"
    )]
    ReadBytes(ReadArguments),
    /// Write a file of what comes by standard input.
    #[command(
        visible_alias = "write_bytes",
        after_help = "\
Examples:
  echo 1 | alluxio-dataset write-bytes s3://bucket/train/_SUCCESS
  tar c images | alluxio-dataset write-bytes --force --config dataset.yaml images.tar

The file appears, or replaces the one of its name, when all of it is there; a write that fails or is
killed leaves the old one."
    )]
    WriteBytes(WriteArguments),
    /// Make empty files where there are none.
    #[command(after_help = "\
Examples:
  alluxio-dataset touch s3://bucket/train/_READY
  alluxio-dataset touch --truncate --config dataset.yaml run.log

A file that exists stays as it is, its time too, which stores cannot change alone.")]
    Touch(TouchArguments),
    /// Make directories, and those above them.
    #[command(after_help = "\
Examples:
  alluxio-dataset mkdir s3://bucket/train/images
  alluxio-dataset mkdir --config dataset.yaml a/b/c d")]
    Mkdir(MkdirArguments),
    /// Remove files or directories.
    #[command(after_help = "\
Examples:
  alluxio-dataset rm s3://bucket/train/a.jpg
  alluxio-dataset rm --recursive --config dataset.yaml images/old
  alluxio-dataset rm --recursive --even-root --config dataset.yaml ''

A directory is refused without --recursive (--dir takes an empty one), and the root of the dataset or
a whole bucket without --even-root too.")]
    Rm(RmArguments),
    /// Copy within a dataset, or between it and the local disk.
    #[command(after_help = "\
Examples:
  alluxio-dataset cp s3://bucket/train/a.parquet .
  alluxio-dataset cp --recursive s3://bucket/train s3://bucket/train-2026
  alluxio-dataset cp --recursive --config dataset.yaml images /data/images
  alluxio-dataset cp --recursive --resume --config dataset.yaml images /data/images

A full URI is in the store. With --config a plain path is below the dataset, and a local one begins
with `/`, `./` or `../`. A directory becomes the destination itself, or goes into it when that ends
with `/`. A file appears under its name only when all of its bytes are there. A copy that was cut goes
on with --resume. Exit codes: 0 copied, 1 failed, 130 interrupted.")]
    Cp(CopyArguments),
    /// Move or rename within a dataset.
    #[command(after_help = "\
Examples:
  alluxio-dataset mv s3://bucket/train/a.jpg s3://bucket/train/b.jpg
  alluxio-dataset mv --recursive --config dataset.yaml images old-images

In a store that cannot rename, all is copied first and then removed; a failure before that leaves the
source whole.")]
    Mv(CopyArguments),
    /// Send a local file or directory to a dataset.
    #[command(after_help = "\
Examples:
  alluxio-dataset upload model.pt s3://bucket/models/
  alluxio-dataset upload --recursive ./images s3://bucket/train/images
  alluxio-dataset upload --recursive --resume ./images s3://bucket/train/images

Files go side by side and are verified by length and by the store's hash. With --resume files that are
there already, of the same length and not older, are left out. Symbolic links are followed. Exit
codes: 0 sent, 1 failed, 130 interrupted.")]
    Upload(UploadArguments),
    /// Fetch a file or directory of a dataset to the local disk.
    #[command(after_help = "\
Examples:
  alluxio-dataset download s3://bucket/models/model.pt
  alluxio-dataset download --recursive --config dataset.yaml images /data/images
  alluxio-dataset download --recursive --resume --config dataset.yaml images /data/images

Files come side by side, from caches and workers where they have them, and are verified by length and
by the store's hash. A large file that was cut goes on by the part `.NAME.alluxio-part` that it left;
with --resume files that are there already, of the same length and time, are left out. Exit codes: 0
fetched, 1 failed, 130 interrupted.")]
    Download(DownloadArguments),
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
    /// Let applications write: a file is brought to the under-store when it is closed or synchronised.
    /// The same as `mount: {read_only: false}` in the configuration.
    #[arg(long)]
    pub read_write: bool,
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
