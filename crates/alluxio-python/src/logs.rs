//! The client's log: to a file, or to a logger of Python's `logging`.
//!
//! A process has one log, that of the first file system which asked for one. Lines for Python's
//! logger go through a bounded queue to a thread that takes the GIL, so that no thread of the
//! client's ever waits for Python. A file is opened for appending and written line by line, which
//! goes on in a forked child; the thread does not, so a child tells a logger nothing.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::exit;

/// Lines that may wait for Python; further ones are dropped.
const QUEUED_LINES: usize = 1024;

/// Logs to a file, or to standard error without one. Returns False where the process logs already.
#[pyfunction]
#[pyo3(signature = (path, level))]
pub(crate) fn log_to_file(path: Option<&str>, level: &str) -> PyResult<bool> {
    let filter = filter(level)?;
    let registry = tracing_subscriber::registry().with(filter);
    let Some(path) = path else {
        let layer = fmt::layer().with_writer(std::io::stderr);
        return Ok(registry.with(layer).try_init().is_ok());
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.map_err(|error| {
        PyOSError::new_err((
            error.raw_os_error(),
            format!("log file: {error}"),
            path.to_owned(),
        ))
    })?;
    let layer = fmt::layer().with_ansi(false).with_writer(Arc::new(file));
    Ok(registry.with(layer).try_init().is_ok())
}

/// Logs to `logger.log(level, "%s: %s", target, message)`. Returns False where the process logs
/// already.
#[pyfunction]
pub(crate) fn log_to_logger(logger: Py<PyAny>, level: &str) -> PyResult<bool> {
    let filter = filter(level)?;
    let (lines, queued) = sync_channel::<Line>(QUEUED_LINES);
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(ToQueue { lines });
    if registry.try_init().is_err() {
        return Ok(false);
    }
    let told = std::thread::Builder::new()
        .name("alluxio-log".to_owned())
        .spawn(move || {
            for line in queued {
                let told = exit::speak(|py| {
                    let arguments = (line.level, "%s: %s", line.target, line.message);
                    if let Err(error) = logger.call_method1(py, "log", arguments) {
                        error.write_unraisable(py, None);
                    }
                });
                if told.is_none() {
                    return; // The interpreter is shutting down.
                }
            }
        });
    told.map(|_thread| true)
        .map_err(|error| PyOSError::new_err(format!("the log's thread: {error}")))
}

fn filter(level: &str) -> PyResult<EnvFilter> {
    let refused = |cause: String| {
        PyValueError::new_err(format!(
            "log level `{level}` is not understood: {cause}; give error, warn, info, debug or trace"
        ))
    };
    // To a filter, a word that is no level is the name of a target.
    if !level.contains(['=', ',']) {
        let parsed: Result<LevelFilter, _> = level.parse();
        parsed.map_err(|error| refused(error.to_string()))?;
    }
    EnvFilter::try_new(level).map_err(|error| refused(error.to_string()))
}

struct Line {
    level: u8,
    target: &'static str,
    message: String,
}

struct ToQueue {
    lines: SyncSender<Line>,
}

impl<S: Subscriber> Layer<S> for ToQueue {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        let line = Line {
            level: level_of(*metadata.level()),
            target: metadata.target(),
            message: text.message + &text.fields,
        };
        // A full queue loses the line rather than making the client wait.
        let _queued = self.lines.try_send(line);
    }
}

/// Python's numbers of levels.
fn level_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
