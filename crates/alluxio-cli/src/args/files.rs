//! What may be written after the commands for files and directories.

use std::path::PathBuf;

use clap::Args;

use super::DatasetArguments;

/// `info`, `isdir`.
#[derive(Args, Debug)]
pub(crate) struct PathArguments {
    /// Path below the dataset, or a full URI such as s3://bucket/key.
    pub path: String,
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
    /// Objects of JSON, one a line, with versions.
    #[arg(long)]
    pub json: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `cat`.
#[derive(Args, Debug)]
pub(crate) struct CatArguments {
    /// Files below the dataset, or full URIs of one store.
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

/// `head`, `tail`.
#[derive(Args, Debug)]
pub(crate) struct EndArguments {
    /// File below the dataset, or a full URI.
    pub path: String,
    /// How many bytes, such as 4Ki.
    #[arg(short = 'n', long, default_value = "1Ki", value_name = "SIZE")]
    pub bytes: String,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `read-bytes`.
#[derive(Args, Debug)]
pub(crate) struct ReadArguments {
    /// File below the dataset, or a full URI.
    pub path: String,
    /// The first byte, counted from 0; such as 512 or 1Mi.
    #[arg(long, default_value = "0", value_name = "SIZE")]
    pub offset: String,
    /// How many bytes, such as 4Ki; to the end of the file without it.
    #[arg(long, value_name = "SIZE")]
    pub length: Option<String>,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `write-bytes`.
#[derive(Args, Debug)]
pub(crate) struct WriteArguments {
    /// File below the dataset, or a full URI.
    pub path: String,
    /// Replace a file that exists.
    #[arg(short, long)]
    pub force: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `touch`.
#[derive(Args, Debug)]
pub(crate) struct TouchArguments {
    /// Files below the dataset, or full URIs of one store.
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Make files that exist empty.
    #[arg(long)]
    pub truncate: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `mkdir`.
#[derive(Args, Debug)]
pub(crate) struct MkdirArguments {
    /// Directories below the dataset, or full URIs of one store.
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Taken, as other tools have it; directories above are always made.
    #[arg(short = 'p', long = "parents")]
    pub _parents: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `rm`.
#[derive(Args, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag that a user may give"
)]
pub(crate) struct RmArguments {
    /// Files or directories below the dataset, or full URIs of one store.
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Directories with all below them.
    #[arg(short, long)]
    pub recursive: bool,
    /// Empty directories.
    #[arg(short, long, conflicts_with = "recursive")]
    pub dir: bool,
    /// What does not exist is no error.
    #[arg(short, long)]
    pub force: bool,
    /// Also the root of the dataset, or a whole bucket.
    #[arg(long, requires = "recursive")]
    pub even_root: bool,
    /// Say nothing.
    #[arg(short, long)]
    pub quiet: bool,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `cp`, `mv`.
#[derive(Args, Debug)]
pub(crate) struct CopyArguments {
    /// What is copied or moved.
    pub source: String,
    /// What it becomes; it goes into DESTINATION when that ends with `/`.
    pub destination: String,
    /// How.
    #[command(flatten)]
    pub how: TransferArguments,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `upload`.
#[derive(Args, Debug)]
pub(crate) struct UploadArguments {
    /// Local file or directory.
    pub source: PathBuf,
    /// Path below the dataset, or a full URI; the source goes into it when it ends with `/`.
    pub destination: String,
    /// How.
    #[command(flatten)]
    pub how: TransferArguments,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// `download`.
#[derive(Args, Debug)]
pub(crate) struct DownloadArguments {
    /// File or directory below the dataset, or a full URI.
    pub source: String,
    /// Local path; the source goes into it when it ends with `/` or, for a file, is a directory.
    #[arg(default_value = "./")]
    pub destination: PathBuf,
    /// How.
    #[command(flatten)]
    pub how: TransferArguments,
    /// Which dataset.
    #[command(flatten)]
    pub dataset: DatasetArguments,
}

/// How files are moved.
#[derive(Args, Debug, Clone, Copy)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag that a user may give"
)]
pub(crate) struct TransferArguments {
    /// A directory with all below it.
    #[arg(short, long)]
    pub recursive: bool,
    /// Replace files that exist.
    #[arg(short, long)]
    pub force: bool,
    /// Go on with a transfer that was cut: leave out what it has done, replace the rest.
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// No progress bar and no summary.
    #[arg(short, long)]
    pub quiet: bool,
    /// The summary as one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}
