//! Progress in Alluxio's own words, with the typed numbers beside them.

use alluxio_wire::status::human_size;
use alluxio_wire::{LoadCounts, ProgressAnswer};

use super::job::Job;
use super::{MAX_FAILURES_TOLD, Question};

/// The answer to a question for progress.
pub(super) fn progress(job: &Job, question: Question) -> ProgressAnswer {
    let limit = question.failed_limit.unwrap_or(MAX_FAILURES_TOLD);
    // The state first: numbers that are read after the end are the last ones.
    let state = job.state();
    let counts = job.snapshot(question.failed_offset, limit.min(MAX_FAILURES_TOLD));
    let report = if question.json_report {
        json(job, &counts, question.verbose)
    } else {
        text(job, &counts, question.verbose)
    };
    ProgressAnswer {
        state,
        path: job.uri().to_string(),
        message: format!("Progress for loading path '{}':\n{report}", job.uri()),
        progress: Some(counts),
    }
}

fn json(job: &Job, counts: &LoadCounts, verbose: bool) -> String {
    let options = job.options();
    // Alluxio's `LoadProgressReport`, the fields that mean something here.
    let report = serde_json::json!({
        "mVerbose": verbose,
        "mJobState": job.state().as_str(),
        "mBandwidth": options.bandwidth_bytes_per_second,
        "mVerificationEnabled": options.verify,
        "mSkippedByteCount": counts.bytes_skipped,
        "mLoadedByteCount": counts.bytes_done - counts.bytes_skipped.min(counts.bytes_done),
        "mScannedInodesCount": counts.files_total,
        "mProcessedInodesCount": counts.files_done,
        "mTotalByteCount": counts.bytes_total,
        "mThroughput": throughput(job, counts),
        "mFailedFileCount": counts.failure_count,
        "mSkipIfExists": options.skip_if_exists,
        "mMetadataOnly": options.metadata_only,
        "mTimeElapsed": counts.elapsed_ms,
        "mFailureReason": job.reason(),
    });
    report.to_string()
}

fn text(job: &Job, counts: &LoadCounts, verbose: bool) -> String {
    let options = job.options();
    let bandwidth = options
        .bandwidth_bytes_per_second
        .map_or("unlimited".to_owned(), |rate| rate.to_string());
    let seconds = job.elapsed().as_secs();
    let state = match job.reason() {
        Some(reason) => format!("{} ({reason})", job.state()),
        None => job.state().to_string(),
    };
    let mut lines = vec![
        format!(
            "Settings:\tbandwidth: {bandwidth}\tverify: {}\tmetadata-only: {}",
            options.verify, options.metadata_only
        ),
        format!(
            "Time Elapsed: {:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        format!("Job State: {state}"),
        format!("Inodes Scanned: {}", counts.files_total),
        format!("Inodes Processed: {}", counts.files_done),
        format!(
            "Bytes Loaded: {} out of {}{}",
            human_size(counts.bytes_done),
            human_size(counts.bytes_total),
            match counts.listing_done {
                Some(false) => " listed so far",
                _ => "",
            }
        ),
        format!("Bytes Skipped: {}", human_size(counts.bytes_skipped)),
        format!("Throughput: {}/s", human_size(throughput(job, counts))),
        format!("Files Failed: {}", counts.failure_count),
    ];
    if verbose {
        let failed = |f: &alluxio_wire::LoadFailure| format!("{}: {}", f.path, f.reason);
        lines.extend(counts.failures.iter().map(failed));
    }
    format!("\t{}\n", lines.join("\n\t"))
}

/// Bytes a second since the beginning.
fn throughput(job: &Job, counts: &LoadCounts) -> u64 {
    let millis = u64::try_from(job.elapsed().as_millis()).unwrap_or(u64::MAX);
    counts.bytes_done.saturating_mul(1000) / millis.max(1)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use alluxio_wire::{LoadOptions, LoadState, UfsUri};

    use super::*;

    fn question(json_report: bool, verbose: bool) -> Question {
        Question {
            json_report,
            verbose,
            failed_offset: 0,
            failed_limit: None,
        }
    }

    fn job() -> Job {
        let uri = UfsUri::parse("s3://b/p").unwrap();
        let job = Job::new("1".to_owned(), uri.clone(), LoadOptions::default()).unwrap();
        let file = super::super::message::FileToLoad {
            uri: uri.join("x").unwrap(),
            length: 0,
            modified_ms: 0,
            content_hash: None,
            number: 0,
        };
        job.fail(&file, "gone");
        job.counts().bytes_done(123, false);
        job
    }

    #[test]
    fn both_forms_read_back_as_a_clients_parser_reads_alluxios() {
        for json_report in [false, true] {
            let answer = progress(&job(), question(json_report, false));
            let parsed = ProgressAnswer::parse(answer.to_json().as_bytes()).unwrap();
            assert_eq!(parsed, answer);
            assert_eq!(parsed.state, LoadState::Running);
            assert_eq!(parsed.progress.unwrap().bytes_done, 123);
        }
    }

    #[test]
    fn the_text_alone_tells_what_alluxios_text_tells() {
        let mut answer = progress(&job(), question(false, true));
        assert!(answer.message.contains("\ts3://b/p/x: gone\n"));
        answer.progress = None;
        let parsed = ProgressAnswer::parse(answer.to_json().as_bytes()).unwrap();
        assert_eq!(parsed.progress.unwrap().failure_count, 1);
    }
}
