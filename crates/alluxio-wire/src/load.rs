//! Load jobs: what is asked of a worker and what it answers.
//!
//! The open-source worker answers progress in one of two ways: as text for people, or, with
//! `progressFormat=JSON`, as a JSON object inside the text, without the job state beside it. Exact
//! numbers are only in the second, so that is what we ask for; both are understood. The embedded
//! worker adds a typed `progress` object, with the failures, to either.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What to do with the load of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadOp {
    /// Start it.
    Submit,
    /// Ask how far it is.
    Progress,
    /// End it.
    Stop,
}

/// Options of a load. Names on the wire are Alluxio's `HttpLoadOptions`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of Alluxio's own request"
)]
pub struct LoadOptions {
    /// Check each file after it was loaded.
    pub verify: bool,
    /// The most that one worker reads from the UFS, in bytes per second.
    pub bandwidth_bytes_per_second: Option<u64>,
    /// Start loading while the listing still runs.
    pub partial_listing: bool,
    /// Load statuses but no pages.
    pub metadata_only: bool,
    /// Leave out files that are cached in the same version.
    pub skip_if_exists: bool,
    /// Load only files whose path this regular expression matches.
    pub file_filter: Option<String>,
    /// Ask for the failures too.
    pub verbose: bool,
}

/// What a question for progress wants to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProgressQuery {
    /// The form of the report within the message.
    pub format: ProgressFormat,
    /// Ask for the failures too.
    pub verbose: bool,
    /// Failures to pass over; only the embedded worker knows this one.
    pub failed_offset: usize,
    /// Failures wanted, where it is not the worker's own number of them.
    pub failed_limit: Option<usize>,
}

/// The form of a progress report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProgressFormat {
    /// Alluxio's report as JSON, with exact numbers.
    #[default]
    Json,
    /// Text for people.
    Text,
}

/// Where a load stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LoadState {
    /// At work.
    Running,
    /// All is loaded and is being checked.
    Verifying,
    /// Ended by a stop.
    Stopped,
    /// Everything is loaded.
    Succeeded,
    /// Ended with failures, or never known to this cluster.
    Failed,
}

/// The answer to a submit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubmitAnswer {
    /// Whether a job was started.
    pub success: bool,
    /// The job's id; `NONE` where the path does not exist.
    #[serde(default)]
    pub job_id: String,
    /// The path that was asked for.
    #[serde(default)]
    pub path: String,
    /// What happened, for people.
    #[serde(default)]
    pub message: String,
}

/// The answer to a stop.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StopAnswer {
    /// Whether a running job was stopped.
    pub success: bool,
    /// The path that was asked for.
    #[serde(default)]
    pub path: String,
    /// What happened, for people.
    #[serde(default)]
    pub message: String,
}

/// The answer to a question for progress.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgressAnswer {
    /// Where the job stands.
    pub state: LoadState,
    /// The path that was asked for.
    pub path: String,
    /// Progress or failure, for people.
    pub message: String,
    /// The numbers, where the answer has them.
    pub progress: Option<LoadCounts>,
}

/// How far a load is, in files and bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadCounts {
    /// Files found so far.
    pub files_total: u64,
    /// Files finished, loaded, skipped or failed.
    pub files_done: u64,
    /// Bytes of the files found so far.
    pub bytes_total: u64,
    /// Bytes loaded or skipped.
    pub bytes_done: u64,
    /// Files that failed.
    pub failure_count: u64,
    /// The first failures, or the page of them that was asked for; a bounded number.
    pub failures: Vec<LoadFailure>,
    /// Files that were cached in their version already.
    pub files_skipped: u64,
    /// Bytes that were cached already.
    pub bytes_skipped: u64,
    /// Whether the listing has ended, so that the totals are final; unknown on open-source workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listing_done: Option<bool>,
    /// How long the load has been at work, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<u64>,
    /// Bytes a second of late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Seconds that the rest will take at that rate; only when the listing has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// What each worker has loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<LoadWorker>,
}

/// One worker's part of a load.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadWorker {
    /// Its host and port.
    pub worker: String,
    /// Files that it finished.
    pub files: u64,
    /// Bytes that it loaded or had already.
    pub bytes: u64,
    /// Bytes a second of late.
    pub bytes_per_second: u64,
}

/// A file that could not be loaded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoadFailure {
    /// Its UFS URI.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Why an answer about a load cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not JSON, or not of this shape.
    #[error("worker's load answer is not what Alluxio writes: {0}")]
    Json(#[from] serde_json::Error),
    /// A job state nobody knows.
    #[error("worker reports the unknown load state `{0}`")]
    UnknownState(String),
    /// Neither a state beside the message nor one within it.
    #[error("worker's load answer has no job state")]
    NoState,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProgress {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job_state: Option<String>,
    #[serde(default)]
    path: String,
    #[serde(default)]
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<LoadCounts>,
}

/// The numbers that Alluxio puts into the message for `progressFormat=JSON`, under names such as
/// `mJobState`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawReport {
    #[serde(rename = "mJobState")]
    state: String,
    #[serde(rename = "mLoadedByteCount")]
    loaded_bytes: u64,
    #[serde(rename = "mSkippedByteCount")]
    skipped_bytes: u64,
    #[serde(rename = "mTotalByteCount")]
    total_bytes: u64,
    #[serde(rename = "mScannedInodesCount")]
    scanned_files: u64,
    #[serde(rename = "mProcessedInodesCount")]
    processed_files: u64,
    #[serde(rename = "mFailedFileCount")]
    failed_files: u64,
    #[serde(rename = "mThroughput")]
    throughput: Option<u64>,
    #[serde(rename = "mTimeElapsed")]
    elapsed_ms: Option<u64>,
}

impl LoadOp {
    /// The value of the query parameter `opType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Progress => "progress",
            Self::Stop => "stop",
        }
    }

    /// Reads `opType`, in any case as the real worker does.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Submit, Self::Progress, Self::Stop]
            .into_iter()
            .find(|op| op.as_str().eq_ignore_ascii_case(text))
    }
}

impl LoadState {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Verifying => "VERIFYING",
            Self::Stopped => "STOPPED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        }
    }

    /// Reads a state. A real failure reads `FAILED (alluxio.exception…`, so the prefix counts.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Running,
            Self::Verifying,
            Self::Stopped,
            Self::Succeeded,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| text.starts_with(state.as_str()))
    }

    /// Whether the job will not go on by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Succeeded | Self::Failed)
    }
}

impl fmt::Display for LoadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SubmitAnswer {
    /// Reads the answer to a submit.
    pub fn parse(body: &[u8]) -> Result<Self, LoadError> {
        Ok(serde_json::from_slice(body)?)
    }
}

impl StopAnswer {
    /// Reads the answer to a stop.
    pub fn parse(body: &[u8]) -> Result<Self, LoadError> {
        Ok(serde_json::from_slice(body)?)
    }
}

impl ProgressFormat {
    /// The value of the query parameter `progressFormat`; the real worker takes upper case alone.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Text => "TEXT",
        }
    }
}

impl ProgressAnswer {
    /// Whether the worker knows no load of the path: it then says `FAILED`, with no numbers.
    pub fn is_unknown(&self) -> bool {
        self.state == LoadState::Failed && self.progress.is_none()
    }

    /// Reads the answer to a question for progress, in any of its forms.
    pub fn parse(body: &[u8]) -> Result<Self, LoadError> {
        let raw: RawProgress = serde_json::from_slice(body)?;
        let report = report_in(&raw.message);
        let word = raw
            .job_state
            .or_else(|| report.as_ref().map(|r| r.state.clone()))
            .filter(|word| !word.is_empty())
            .ok_or(LoadError::NoState)?;
        let state = LoadState::parse(&word).ok_or(LoadError::UnknownState(word))?;
        let progress = raw
            .progress
            .or_else(|| report.map(RawReport::counts))
            .or_else(|| counts_in_text(&raw.message));
        Ok(Self {
            state,
            path: raw.path,
            message: raw.message,
            progress,
        })
    }

    /// Writes the answer as the embedded worker gives it: Alluxio's fields, and the typed numbers.
    pub fn to_json(&self) -> String {
        let raw = RawProgress {
            job_state: Some(self.state.as_str().to_owned()),
            path: self.path.clone(),
            message: self.message.clone(),
            progress: self.progress.clone(),
        };
        serde_json::to_string(&raw).unwrap_or_default()
    }
}

impl RawReport {
    fn counts(self) -> LoadCounts {
        LoadCounts {
            files_total: self.scanned_files,
            files_done: self.processed_files,
            bytes_total: self.total_bytes,
            bytes_done: self.loaded_bytes.saturating_add(self.skipped_bytes),
            failure_count: self.failed_files,
            bytes_skipped: self.skipped_bytes,
            bytes_per_second: self.throughput,
            elapsed_ms: self.elapsed_ms,
            ..LoadCounts::default()
        }
    }
}

fn report_in(message: &str) -> Option<RawReport> {
    let object = &message[message.find("\n{")? + 1..];
    serde_json::from_str(object.trim_end()).ok()
}

/// The counts of files in a text for people. Its bytes are rounded, so they are left out.
fn counts_in_text(message: &str) -> Option<LoadCounts> {
    let number = |label: &str| -> Option<u64> {
        let line = message.lines().find(|line| line.contains(label))?;
        line.rsplit(':').next()?.trim().parse().ok()
    };
    Some(LoadCounts {
        files_total: number("Inodes Scanned:")?,
        files_done: number("Inodes Processed:")?,
        failure_count: number("Files Failed:").unwrap_or_default(),
        ..LoadCounts::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;

    #[test]
    fn a_recorded_text_gives_state_and_files() {
        let body = r#"{"jobState":"SUCCEEDED","path":"file:///srv/ufs/pages","message":"Progress for loading path \u0027file:///srv/ufs/pages\u0027:\n\tSettings:\tbandwidth: unlimited\n\tInodes Scanned: 7\n\tInodes Processed: 7\n\tBytes Loaded: 8.50MB out of 8.50MB\n\tFiles Failed: 0\n","respProperties":{"Files Failed":"0"}}"#;
        let answer = ProgressAnswer::parse(body.as_bytes()).unwrap();
        assert_eq!(answer.state, LoadState::Succeeded);
        let counts = answer.progress.unwrap();
        assert_eq!((counts.files_total, counts.files_done), (7, 7));
    }

    #[test]
    fn a_recorded_report_gives_exact_bytes_and_its_own_state() {
        let body = r#"{"path":"p","message":"Progress for loading path \u0027p\u0027:\n{\"mVerbose\":false,\"mJobState\":\"RUNNING\",\"mSkippedByteCount\":1,\"mLoadedByteCount\":8912896,\"mScannedInodesCount\":7,\"mProcessedInodesCount\":6,\"mTotalByteCount\":8912897,\"mFailureFilesPercentage\":0.0,\"mFailedFileCount\":1}","respProperties":{}}"#;
        let answer = ProgressAnswer::parse(body.as_bytes()).unwrap();
        assert_eq!(answer.state, LoadState::Running);
        let counts = answer.progress.unwrap();
        assert_eq!(
            (counts.bytes_done, counts.bytes_total),
            (8_912_897, 8_912_897)
        );
        assert_eq!((counts.files_done, counts.failure_count), (6, 1));
    }

    #[test]
    fn an_unknown_load_is_failed_without_numbers() {
        let body = r#"{"jobState":"FAILED","path":"p","message":"Load for path \u0027p\u0027 cannot be found.","respProperties":{}}"#;
        let answer = ProgressAnswer::parse(body.as_bytes()).unwrap();
        assert!(answer.is_unknown());
        assert_eq!((answer.state, answer.progress), (LoadState::Failed, None));
    }

    #[test]
    fn a_failure_with_its_exception_is_still_failed() {
        let state = LoadState::parse("FAILED (alluxio.exception.status.NotFoundException: x)");
        assert_eq!(state, Some(LoadState::Failed));
    }

    #[test]
    fn the_embedded_workers_answer_round_trips() {
        let answer = ProgressAnswer {
            state: LoadState::Verifying,
            path: "s3://b/p".to_owned(),
            message: "checking".to_owned(),
            progress: Some(LoadCounts {
                files_total: 3,
                failures: vec![LoadFailure {
                    path: "s3://b/p/x".to_owned(),
                    reason: "gone".to_owned(),
                }],
                files_skipped: 1,
                listing_done: Some(false),
                workers: vec![LoadWorker {
                    worker: "w0:28080".to_owned(),
                    files: 2,
                    ..LoadWorker::default()
                }],
                ..LoadCounts::default()
            }),
        };
        assert_eq!(
            ProgressAnswer::parse(answer.to_json().as_bytes()).unwrap(),
            answer
        );
    }

    #[test]
    fn answers_without_a_known_state_are_refused() {
        let parse = |body: &str| ProgressAnswer::parse(body.as_bytes());
        assert!(matches!(
            parse(r#"{"message":""}"#),
            Err(LoadError::NoState)
        ));
        assert!(matches!(
            parse(r#"{"jobState":"PAUSED"}"#),
            Err(LoadError::UnknownState(_))
        ));
        assert!(matches!(parse("oops"), Err(LoadError::Json(_))));
    }

    #[test]
    fn operations_are_read_in_any_case() {
        assert_eq!(LoadOp::parse("PROGRESS"), Some(LoadOp::Progress));
        assert_eq!(LoadOp::parse("frobnicate"), None);
    }
}
