//! `load`: submit, follow, stop, and list what failed.
//!
//! On a terminal progress is a bar, elsewhere a line now and then, with `--json` an object a line.
//! Ctrl-C leaves the load at work and says how to go on; the exit code tells how it ended: 3 for
//! stopped, 4 for still at work.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use alluxio_client::{Client, Followed, LoadJobs};
use alluxio_wire::{
    LoadCounts, LoadFailure, LoadOptions, LoadState, ProgressAnswer, ProgressQuery, UfsUri,
    parse_size,
};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::LoadArguments;
use crate::exit::Ended;
use crate::{dataset, output, signals};

/// Between two questions: a bar that moves, and a handful of requests a second at the most.
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// Between two lines where there is no terminal: a log of an hour's load has some 360.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Failures told one by one at the end; the rest are counted.
const FAILURES_SHOWN: usize = 20;

/// How a load is shown while it is followed.
enum Show {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
    Json { last: Option<Instant> },
}

/// One line of `--json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    path: &'a UfsUri,
    state: LoadState,
    #[serde(flatten)]
    counts: Option<&'a LoadCounts>,
}

/// Submits, follows, stops, or lists failures.
pub(crate) async fn run(arguments: LoadArguments) -> Result<()> {
    // It may be this load that makes the configured manifest.
    let target = dataset::open_live(&arguments.dataset, &arguments.path).await?;
    let uri = target.client.root().join(&target.path)?;
    let loads = target.client.loads();
    if arguments.stop {
        return stop(&loads, &uri, arguments.json).await;
    }
    if arguments.failed {
        return list_failed(&loads, &uri, &arguments).await;
    }
    let options = options(&arguments)?;
    let mut resubmit = None;
    if !arguments.progress {
        let answer = loads.submit(&uri, &options).await?;
        if !answer.success {
            bail!("the load of {uri} was refused: {}", answer.message.trim());
        }
        if !arguments.json {
            output::note(answer.message.trim());
        }
        resubmit = Some(&options);
    }
    if arguments.no_wait {
        return told_once(&loads, &uri, &arguments).await;
    }
    let mut show = Show::of(&arguments);
    let followed = loads.follow(&uri, resubmit, POLL_INTERVAL, |seen| show.see(&uri, &seen));
    let interrupted = signals::end()?;
    let answer = tokio::select! {
        answer = followed => answer?,
        () = interrupted => {
            show.clear();
            return Err(detached(&uri).into());
        }
    };
    show.clear();
    report(&uri, &answer, arguments.json)?;
    match &arguments.manifest {
        Some(file) => super::manifest::take(&target.client, &target.path, file).await,
        None => Ok(()),
    }
}

/// What the arguments ask of the workers.
fn options(arguments: &LoadArguments) -> Result<LoadOptions> {
    let bandwidth = arguments.bandwidth.as_deref().map(parse_size).transpose()?;
    Ok(LoadOptions {
        verify: arguments.verify,
        bandwidth_bytes_per_second: bandwidth,
        partial_listing: arguments.partial_listing,
        metadata_only: arguments.metadata_only,
        skip_if_exists: arguments.skip_if_cached,
        file_filter: arguments.file_filter.clone(),
        verbose: true,
    })
}

async fn stop(loads: &LoadJobs, uri: &UfsUri, json: bool) -> Result<()> {
    let answer = loads.stop(uri).await?;
    if json {
        output::line(serde_json::to_string(&answer)?)?;
    }
    if !answer.success {
        bail!("{}", answer.message.trim());
    }
    if !json {
        output::line(answer.message.trim())?;
    }
    Ok(())
}

/// After a submit with `--no-wait` nothing more is said; with `--progress`, how far it is now.
async fn told_once(loads: &LoadJobs, uri: &UfsUri, arguments: &LoadArguments) -> Result<()> {
    if !arguments.progress {
        return Ok(());
    }
    let answer = loads.progress(uri).await?;
    report(uri, &answer, arguments.json)
}

/// The files that failed, as many as are asked for, a page at a time.
async fn list_failed(loads: &LoadJobs, uri: &UfsUri, arguments: &LoadArguments) -> Result<()> {
    let mut told = 0;
    while told < arguments.limit {
        let query = ProgressQuery {
            verbose: true,
            failed_offset: arguments.offset + told,
            failed_limit: Some(arguments.limit - told),
            ..ProgressQuery::default()
        };
        let answer = loads.progress_with(uri, &query).await?;
        let Some(counts) = answer.progress else {
            bail!("no worker knows a load of {uri}: {}", answer.message.trim());
        };
        for failure in &counts.failures {
            output::line(failed_line(failure, arguments.json)?)?;
        }
        told += counts.failures.len();
        if counts.failures.is_empty() {
            let kept = arguments.offset + told;
            if told == 0 && counts.failure_count > 0 {
                output::note(format!(
                    "{} files failed in all; none is kept from number {kept} on",
                    counts.failure_count
                ));
            }
            break;
        }
    }
    Ok(())
}

fn failed_line(failure: &LoadFailure, json: bool) -> Result<String> {
    Ok(if json {
        serde_json::to_string(failure)?
    } else {
        format!("{}\t{}", failure.path, failure.reason)
    })
}

impl Show {
    fn of(arguments: &LoadArguments) -> Self {
        if arguments.json {
            Self::Json { last: None }
        } else if std::io::stderr().is_terminal() {
            Self::Bar(bar())
        } else {
            Self::Lines { last: None }
        }
    }

    fn see(&mut self, uri: &UfsUri, seen: &Followed<'_>) {
        match seen {
            Followed::Progress(answer) => self.progress(uri, answer),
            Followed::Waiting(why) => match self {
                Self::Bar(bar) => bar.set_message(format!("waiting: {why}")),
                Self::Lines { last } | Self::Json { last } => {
                    if is_due(last) {
                        output::note(format!("waiting: {why}"));
                    }
                }
            },
            Followed::Resubmitted(answer) => {
                let note = format!("submitted again: {}", answer.message.trim());
                match self {
                    Self::Bar(bar) => bar.suspend(|| output::note(note)),
                    Self::Lines { .. } | Self::Json { .. } => output::note(note),
                }
            }
        }
    }

    fn progress(&mut self, uri: &UfsUri, answer: &ProgressAnswer) {
        let last = match self {
            Self::Bar(bar) => {
                if let Some(counts) = &answer.progress {
                    show(bar, answer.state, counts);
                }
                return;
            }
            Self::Lines { last } | Self::Json { last } => last,
        };
        // The last answer is told at the end, whatever the time.
        if answer.state.is_final() || !is_due(last) {
            return;
        }
        if matches!(self, Self::Json { .. }) {
            // A closed pipe is noticed at the last line, which is an error then.
            let _closed = json_line(uri, answer).map(output::line);
        } else if let Some(counts) = &answer.progress {
            output::note(summary(answer.state, counts));
        }
    }

    fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Whether it is time for another line.
fn is_due(last: &mut Option<Instant>) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// A bar for a load: it moves by bytes and tells files too.
pub(crate) fn bar() -> ProgressBar {
    let template = "{bar:30} {binary_bytes}/{binary_total_bytes} {msg}";
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
    let loads = client.loads();
    let followed = loads.follow(uri, None, POLL_INTERVAL, |seen| {
        if let Followed::Progress(answer) = seen
            && let Some(counts) = &answer.progress
        {
            show(bar, answer.state, counts);
        }
    });
    let answer = followed.await?;
    bar.finish_and_clear();
    Ok(answer)
}

fn show(bar: &ProgressBar, state: LoadState, counts: &LoadCounts) {
    bar.set_length(counts.bytes_total);
    bar.set_position(counts.bytes_done);
    bar.set_message(summary(state, counts));
}

/// Files, failures, rate and rest, as far as they are known.
fn summary(state: LoadState, counts: &LoadCounts) -> String {
    // While the listing runs, the total is not the whole.
    let so_far = match counts.listing_done {
        Some(false) => "+",
        _ => "",
    };
    let mut words = vec![
        state.as_str().to_lowercase(),
        format!("{}/{}{so_far} files", counts.files_done, counts.files_total),
        format!(
            "{} of {}{so_far}",
            output::size(counts.bytes_done),
            output::size(counts.bytes_total)
        ),
    ];
    if counts.files_skipped > 0 {
        words.push(format!("{} skipped", counts.files_skipped));
    }
    if counts.failure_count > 0 {
        words.push(format!("{} failed", counts.failure_count));
    }
    if let Some(rate) = counts.bytes_per_second.filter(|_| !state.is_final()) {
        words.push(format!("{}/s", output::size(rate)));
    }
    if let Some(seconds) = counts.eta_seconds {
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        words.push(format!("{hours:02}:{minutes:02}:{:02} left", seconds % 60));
    }
    words.join(", ")
}

fn json_line(uri: &UfsUri, answer: &ProgressAnswer) -> Result<String> {
    Ok(serde_json::to_string(&Line {
        path: uri,
        state: answer.state,
        counts: answer.progress.as_ref(),
    })?)
}

/// Tells how a load stands, and turns that into an exit code.
fn report(uri: &UfsUri, answer: &ProgressAnswer, json: bool) -> Result<()> {
    let counts = answer.progress.clone().unwrap_or_default();
    if json {
        output::line(json_line(uri, answer)?)?;
    } else {
        output::line(format!(
            "{}: {}",
            answer.state,
            summary(answer.state, &counts)
        ))?;
        for failure in counts.failures.iter().take(FAILURES_SHOWN) {
            output::note(format!("failed: {}: {}", failure.path, failure.reason));
        }
        if counts.failure_count > FAILURES_SHOWN as u64 {
            output::note("more with `load --failed`");
        }
    }
    let code = match answer.state {
        LoadState::Succeeded => return Ok(()),
        LoadState::Failed => 1,
        LoadState::Stopped => 3,
        LoadState::Running | LoadState::Verifying => 4,
    };
    let message = match answer.state {
        LoadState::Running | LoadState::Verifying => format!("the load of {uri} is still at work"),
        state => format!(
            "the load of {uri} ended as {state}: {}",
            answer.message.trim()
        ),
    };
    Err(Ended { message, code }.into())
}

fn detached(uri: &UfsUri) -> Ended {
    Ended {
        message: format!(
            "detached: the load of {uri} goes on. See it with `load --progress`, end it with \
             `load --stop`, each with the same path and dataset"
        ),
        code: 4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn answer(state: LoadState) -> ProgressAnswer {
        ProgressAnswer {
            state,
            path: String::new(),
            message: "words".to_owned(),
            progress: Some(LoadCounts {
                files_total: 10,
                files_done: 4,
                bytes_total: 2048,
                bytes_done: 1024,
                failure_count: 1,
                files_skipped: 2,
                listing_done: Some(state != LoadState::Running),
                bytes_per_second: Some(512),
                ..LoadCounts::default()
            }),
        }
    }

    #[test]
    fn each_state_has_its_exit_code() {
        let uri = UfsUri::parse("s3://b/p").unwrap();
        assert!(report(&uri, &answer(LoadState::Succeeded), false).is_ok());
        for (state, code) in [
            (LoadState::Failed, 1),
            (LoadState::Stopped, 3),
            (LoadState::Running, 4),
            (LoadState::Verifying, 4),
        ] {
            let error = report(&uri, &answer(state), false).unwrap_err();
            assert_eq!(error.downcast_ref::<Ended>().unwrap().code, code);
        }
    }

    #[test]
    fn a_total_that_still_grows_is_told_as_such() {
        let running = answer(LoadState::Running);
        let text = summary(running.state, &running.progress.unwrap());
        assert!(text.contains("4/10+ files"), "{text}");
        assert!(text.contains("2 skipped, 1 failed"), "{text}");
        let over = answer(LoadState::Succeeded);
        let text = summary(over.state, &over.progress.unwrap());
        assert!(text.contains("4/10 files"), "{text}");
    }

    #[test]
    fn a_line_of_json_has_state_and_numbers() {
        let uri = UfsUri::parse("s3://b/p").unwrap();
        let line = json_line(&uri, &answer(LoadState::Running)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["state"], "RUNNING");
        assert_eq!(value["filesTotal"], 10);
        assert_eq!(value["listingDone"], false);
    }
}
