//! Logging: one subscriber a process, to standard error or to a file, as text or JSON.
//!
//! Standard output belongs to the commands' answers, so logs never go there. Lines are handed to
//! a writing thread through a bounded queue: a slow disk or a stopped terminal may cost log
//! lines, never the work that is logged.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Lines that may wait for the writing thread. At some 200 bytes a line that is about 3 MiB at
/// worst; further lines are dropped rather than making the program wait.
const QUEUED_LINES: usize = 16_384;

/// Keeps the writing thread; dropping it writes out what is queued. Hold it until the end of main.
#[derive(Debug)]
#[must_use = "dropping the guard ends logging"]
pub struct Guard {
    _writer: WorkerGuard,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is neither a level nor a list of `target=level`.
    #[error(
        "log level `{level}` is not understood: {cause}; give error, warn, info, debug or trace, \
         or a list such as `info,alluxio_client=debug`"
    )]
    BadLevel {
        /// The level as given.
        level: String,
        /// What the parser says.
        cause: String,
    },
    /// The log file cannot be opened.
    #[error("log file {path} cannot be opened: {source}; give a path in a writable folder", path = path.display())]
    File {
        /// The file as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in this process logs already.
    #[error("logging has begun already in this process; call it once, in main")]
    AlreadyBegun,
}

/// Begins logging for the whole process.
///
/// `level` is a level or a list of `target=level`. With a `path` lines are appended to that file,
/// else they go to standard error. `json` writes one JSON object a line.
pub fn init(level: &str, path: Option<&Path>, json: bool) -> Result<Guard, LoggingError> {
    let filter = parse_filter(level)?;
    let (writer, guard) = open_writer(path)?;
    let begun = if json {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_span_events(FmtSpan::NONE)
            .with_writer(writer)
            .json()
            .flatten_event(true)
            .finish();
        tracing::subscriber::set_global_default(subscriber)
    } else {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_span_events(FmtSpan::NONE)
            .with_writer(writer)
            // Colours help on a terminal only, and a queue between hides whether it is one.
            .with_ansi(false)
            .finish();
        tracing::subscriber::set_global_default(subscriber)
    };
    begun.map_err(|_| LoggingError::AlreadyBegun)?;
    Ok(Guard { _writer: guard })
}

fn parse_filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let bad = |cause: String| LoggingError::BadLevel {
        level: level.to_owned(),
        cause,
    };
    if level.trim().is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    for directive in level.split(',') {
        // A lone word that is no level would be taken as the name of a target by the parser and
        // silence everything else: a typing error must not do that.
        let is_lone_word = !directive.contains(['=', '[', ':', '_']);
        let is_level = directive
            .trim()
            .parse::<tracing_subscriber::filter::LevelFilter>()
            .is_ok();
        if is_lone_word && !is_level {
            return Err(bad(format!("`{}` is no level", directive.trim())));
        }
    }
    EnvFilter::try_new(level).map_err(|error| bad(error.to_string()))
}

fn open_writer(path: Option<&Path>) -> Result<(NonBlocking, WorkerGuard), LoggingError> {
    let builder = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUED_LINES)
        .lossy(true)
        .thread_name("log-writer");
    match path {
        None => Ok(builder.finish(std::io::stderr())),
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|source| LoggingError::File {
                    path: path.to_owned(),
                    source,
                })?;
            Ok(builder.finish(file))
        }
    }
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
    fn levels_and_lists_are_understood() {
        for level in [
            "info",
            "DEBUG",
            "off",
            "info,alluxio_client=debug",
            "hyper=warn",
        ] {
            parse_filter(level).unwrap();
        }
    }

    #[test]
    fn a_bad_level_is_named_with_the_remedy() {
        for level in ["", "verbose", "info,loud", "alluxio_client=loud"] {
            let message = parse_filter(level).unwrap_err().to_string();
            assert!(message.contains(&format!("`{level}`")), "{message}");
            assert!(message.contains("error, warn, info"), "{message}");
        }
    }

    #[test]
    fn a_bad_file_is_named() {
        let error = open_writer(Some(Path::new("/nonexistent-folder/x.log"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder/x.log"));
    }

    /// The one test that sets the process's subscriber: lines reach the file as JSON, and a
    /// second call says that it came too late.
    #[test]
    fn lines_reach_the_file_as_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("process.log");
        let guard = init("info", Some(&path), true).unwrap();
        tracing::info!(answer = 42, "hello");
        tracing::debug!("below the level");
        drop(guard);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""answer":42"#), "{text}");
        assert!(text.contains(r#""message":"hello""#), "{text}");
        assert!(!text.contains("below the level"), "{text}");
        let again = init("info", None, false);
        assert!(
            matches!(again, Err(LoggingError::AlreadyBegun)),
            "{again:?}"
        );
    }
}
