//! `load`: submit, follow, stop.

use std::time::Duration;

use alluxio_client::Client;
use alluxio_wire::{LoadCounts, LoadOptions, LoadState, ProgressAnswer, UfsUri, parse_size};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::LoadArguments;
use crate::{dataset, output};

/// Between two questions: a bar that moves, and a handful of requests a second at the most.
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// Failures told one by one; the rest are counted.
const FAILURES_SHOWN: usize = 20;

/// Submits, follows or stops.
pub(crate) async fn run(arguments: LoadArguments) -> Result<()> {
    // It may be this load that makes the configured manifest.
    let target = dataset::open_live(&arguments.dataset, &arguments.path).await?;
    let uri = target.client.root().join(&target.path)?;
    let loads = target.client.loads();
    if arguments.stop {
        let answer = loads.stop(&uri).await?;
        if !answer.success {
            bail!("{}", answer.message.trim());
        }
        return Ok(output::line(answer.message.trim())?);
    }
    if !arguments.progress {
        let answer = loads.submit(&uri, &options(&arguments)?).await?;
        if !answer.success {
            bail!("the load of {uri} was refused: {}", answer.message.trim());
        }
        output::note(format!("load {} of {uri} submitted", answer.job_id));
    }
    if arguments.no_wait {
        return Ok(());
    }
    let answer = follow(&target.client, &uri, &bar()).await?;
    report(&uri, &answer)?;
    match &arguments.manifest {
        Some(file) => super::manifest::take(&target.client, &target.path, file).await,
        None => Ok(()),
    }
}

fn options(arguments: &LoadArguments) -> Result<LoadOptions> {
    let bandwidth = arguments.bandwidth.as_deref().map(parse_size).transpose()?;
    Ok(LoadOptions {
        verify: arguments.verify,
        bandwidth_bytes_per_second: bandwidth,
        partial_listing: true,
        metadata_only: arguments.metadata_only,
        skip_if_exists: arguments.skip_if_cached,
        file_filter: arguments.file_filter.clone(),
        verbose: true,
    })
}

/// A bar for a load: it moves by bytes and tells files too.
pub(crate) fn bar() -> ProgressBar {
    let template = "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Asks until the load has ended, and shows each answer on the bar.
pub(crate) async fn follow(
    client: &Client,
    uri: &UfsUri,
    bar: &ProgressBar,
) -> Result<ProgressAnswer> {
    loop {
        let answer = client.loads().progress(uri).await?;
        if let Some(counts) = &answer.progress {
            show(bar, answer.state, counts);
        }
        if answer.state.is_final() {
            bar.finish_and_clear();
            return Ok(answer);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn show(bar: &ProgressBar, state: LoadState, counts: &LoadCounts) {
    bar.set_length(counts.bytes_total);
    bar.set_position(counts.bytes_done);
    bar.set_message(format!(
        "{}/{} files {}",
        counts.files_done,
        counts.files_total,
        state.as_str().to_lowercase()
    ));
}

fn report(uri: &UfsUri, answer: &ProgressAnswer) -> Result<()> {
    let counts = answer.progress.clone().unwrap_or_default();
    let summary = format!(
        "{}: {} of {} files, {} of {}",
        answer.state,
        counts.files_done,
        counts.files_total,
        output::size(counts.bytes_done),
        output::size(counts.bytes_total)
    );
    output::line(summary)?;
    for failure in counts.failures.iter().take(FAILURES_SHOWN) {
        output::note(format!("failed: {}: {}", failure.path, failure.reason));
    }
    if answer.state != LoadState::Succeeded {
        bail!(
            "the load of {uri} ended as {}: {}",
            answer.state,
            answer.message.trim()
        );
    }
    Ok(())
}
