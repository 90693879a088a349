//! `cp`, `mv`, `upload` and `download`: many files side by side, with progress, each whole or not at
//! all.
//!
//! On a terminal progress is a bar. Ctrl-C ends the transfer; what it has done stays, and the same
//! command goes on with `--resume`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use alluxio_client::{Client, ErrorKind, Existing, Progress, TransferOptions, Transferred};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::{CopyArguments, DownloadArguments, TransferArguments, UploadArguments};
use crate::exit::{Ended, INTERRUPTED};
use crate::{dataset, output, signals};

/// Where something lies, as its name says.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Local(&'a Path),
    Dataset(&'a str),
}

/// What is told at the end.
#[derive(Debug, Serialize)]
struct Summary {
    files: u64,
    bytes: u64,
    files_skipped: u64,
    bytes_skipped: u64,
    seconds: f64,
}

/// Copies within the dataset, or between it and the local disk.
pub(crate) async fn cp(arguments: CopyArguments) -> Result<()> {
    let CopyArguments {
        source,
        destination,
        how,
        dataset,
    } = arguments;
    let has_config = dataset.config.is_some();
    match (place(&source, has_config), place(&destination, has_config)) {
        (Place::Dataset(_), Place::Dataset(_)) => {
            within(
                &CopyArguments {
                    source,
                    destination,
                    how,
                    dataset,
                },
                Within::Copy,
            )
            .await
        }
        (Place::Dataset(_), Place::Local(to)) => {
            let destination = to.to_owned();
            download(DownloadArguments {
                source,
                destination,
                how,
                dataset,
            })
            .await
        }
        (Place::Local(from), Place::Dataset(_)) => {
            let source = from.to_owned();
            upload(UploadArguments {
                source,
                destination,
                how,
                dataset,
            })
            .await
        }
        (Place::Local(_), Place::Local(_)) => bail!(
            "both `{source}` and `{destination}` are local: write full URIs such as \
             s3://bucket/key, or name the dataset with --config FILE"
        ),
    }
}

/// Moves within the dataset.
pub(crate) async fn mv(arguments: CopyArguments) -> Result<()> {
    within(&arguments, Within::Move).await
}

/// Sends local files to the dataset.
pub(crate) async fn upload(arguments: UploadArguments) -> Result<()> {
    let target = dataset::open(&arguments.dataset, &arguments.destination).await?;
    let source = &arguments.source;
    let name = source.canonicalize().ok();
    let name = name
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    let is_directory = source.is_dir();
    let to = below(
        &target.client,
        &target.path,
        &arguments.destination,
        name,
        is_directory,
    )
    .await?;
    let (client, how) = (&target.client, arguments.how);
    run(client, how, |options| client.upload(source, &to, options)).await
}

/// Fetches files of the dataset to the local disk.
pub(crate) async fn download(arguments: DownloadArguments) -> Result<()> {
    let target = dataset::open(&arguments.dataset, &arguments.source).await?;
    let status = target.client.info(&target.path).await?;
    let to = local_target(&arguments.destination, &status.name, status.is_directory());
    let (client, how) = (&target.client, arguments.how);
    run(client, how, |options| {
        client.download(&target.path, &to, options)
    })
    .await
}

#[derive(Clone, Copy)]
enum Within {
    Copy,
    Move,
}

async fn within(arguments: &CopyArguments, what: Within) -> Result<()> {
    let both = [arguments.source.clone(), arguments.destination.clone()];
    let (client, paths) = dataset::open_all(&arguments.dataset, &both).await?;
    let [from, to] = paths.as_slice() else {
        bail!("a source and a destination are needed");
    };
    let status = client.info(from).await?;
    let (name, is_directory) = (Some(status.name.as_str()), status.is_directory());
    let to = below(&client, to, &arguments.destination, name, is_directory).await?;
    let client = &client;
    match what {
        Within::Copy => {
            run(client, arguments.how, |options| {
                client.cp(from, &to, options)
            })
            .await
        }
        Within::Move => {
            run(client, arguments.how, |options| {
                client.mv(from, &to, options)
            })
            .await
        }
    }
}

/// Transfers with progress, and tells what was done.
async fn run<'a, F>(
    client: &'a Client,
    how: TransferArguments,
    transfer: impl FnOnce(TransferOptions) -> F,
) -> Result<()>
where
    F: Future<Output = alluxio_client::Result<Transferred>> + 'a,
{
    let started = Instant::now();
    let bar = bar(how);
    let interrupted = signals::end()?;
    let transferred = tokio::select! {
        transferred = transfer(options(how, &bar)) => Some(transferred),
        () = interrupted => None,
    };
    bar.finish_and_clear();
    client.flush().await;
    let Some(transferred) = transferred else {
        let message = "interrupted: what is done stays; repeat the command with --resume to go on";
        return Err(Ended {
            message: message.to_owned(),
            code: INTERRUPTED,
        }
        .into());
    };
    let done = transferred.map_err(with_remedy)?;
    let summary = Summary {
        files: done.files,
        bytes: done.bytes,
        files_skipped: done.files_skipped,
        bytes_skipped: done.bytes_skipped,
        seconds: started.elapsed().as_secs_f64(),
    };
    if how.json {
        output::json(&summary)?;
    } else if !how.quiet {
        output::note(text(&summary));
    }
    Ok(())
}

fn text(summary: &Summary) -> String {
    let mut text = format!(
        "{} files, {} in {:.1} s",
        summary.files,
        output::size(summary.bytes),
        summary.seconds
    );
    if summary.bytes_skipped > 0 || summary.files_skipped > 0 {
        let (files, bytes) = (summary.files_skipped, output::size(summary.bytes_skipped));
        // Writing to a string cannot fail.
        let _ = write!(text, "; {files} files and {bytes} were there already");
    }
    text
}

fn options(how: TransferArguments, bar: &ProgressBar) -> TransferOptions {
    let bar = bar.clone();
    let told = move |progress: Progress| {
        bar.set_length(progress.bytes);
        bar.set_position(progress.bytes_done);
        bar.set_message(format!("{}/{} files", progress.files_done, progress.files));
    };
    TransferOptions {
        recursive: how.recursive,
        existing: match (how.force, how.resume) {
            (true, _) => Existing::Replace,
            (_, true) => Existing::Resume,
            _ => Existing::Fail,
        },
        progress: (!how.quiet).then(|| Arc::new(told) as _),
    }
}

/// A bar on a terminal; elsewhere it is not drawn.
fn bar(how: TransferArguments) -> ProgressBar {
    if how.quiet {
        return ProgressBar::hidden();
    }
    let template =
        "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}";
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// The options that help, which the library has no words for.
pub(crate) fn with_remedy(error: alluxio_client::Error) -> anyhow::Error {
    let flag = match error.kind() {
        ErrorKind::AlreadyExists => Some("replace it with --force, or go on with --resume"),
        ErrorKind::IsDirectory => Some("copy a directory with --recursive"),
        _ => None,
    };
    let error = anyhow::Error::from(error);
    match flag {
        Some(flag) => anyhow::anyhow!("{error:#} ({flag})"),
        None => error,
    }
}

/// A full URI is the dataset's, and so is a path below a configured one that does not say that it
/// is local: by `/`, `./` or `../` at its beginning.
fn place(text: &str, has_config: bool) -> Place<'_> {
    let is_local = !has_config
        || matches!(text, "." | "..")
        || ["/", "./", "../"]
            .iter()
            .any(|start| text.starts_with(start));
    if !text.contains("://") && is_local {
        Place::Local(Path::new(text))
    } else {
        Place::Dataset(text)
    }
}

/// The path that something becomes. A directory becomes the destination itself even where that
/// exists, so that the same command can be repeated.
async fn below(
    client: &Client,
    path: &str,
    as_written: &str,
    name: Option<&str>,
    is_directory: bool,
) -> Result<String> {
    let goes_into = as_written.ends_with('/')
        || path.is_empty()
        || (!is_directory && client.isdir(path).await?);
    match (goes_into, name) {
        (false, _) => Ok(path.to_owned()),
        (true, Some(name)) if path.is_empty() => Ok(name.to_owned()),
        (true, Some(name)) => Ok(format!("{path}/{name}")),
        (true, None) => bail!("the source has no name: end the destination with one"),
    }
}

/// The same on the local disk.
fn local_target(destination: &Path, name: &str, is_directory: bool) -> PathBuf {
    let text = destination.as_os_str().as_encoded_bytes();
    let goes_into = text.ends_with(b"/") || (!is_directory && destination.is_dir());
    if goes_into && !name.is_empty() {
        destination.join(name)
    } else {
        destination.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_they_are() {
        let local = |text, has_config| matches!(place(text, has_config), Place::Local(_));
        for text in ["/a", "./a", "../a", "."] {
            assert!(local(text, true) && local(text, false), "{text}");
        }
        assert!(local("a/b", false) && !local("a/b", true));
        assert!(!local("s3://b/a", false) && !local(".hidden", true));
    }

    #[test]
    fn a_file_goes_into_a_directory_and_a_directory_becomes_its_destination() {
        let folder = std::env::temp_dir();
        let target = |text: &str, is_directory| local_target(Path::new(text), "n", is_directory);
        assert_eq!(target("x/", false), Path::new("x/n"));
        assert_eq!(target("x/", true), Path::new("x/n"));
        assert_eq!(
            target("x-that-is-not-there", false),
            Path::new("x-that-is-not-there")
        );
        let text = folder.to_str().unwrap_or("/tmp").trim_end_matches('/');
        assert_eq!(target(text, false), Path::new(text).join("n"));
        assert_eq!(target(text, true), Path::new(text));
    }
}
