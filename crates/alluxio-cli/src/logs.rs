//! Starts the process' log, once, and keeps its writer alive to the end.

use std::path::Path;
use std::sync::OnceLock;

use alluxio_config::LogFormat;
use alluxio_telemetry::logging;
use anyhow::Result;

static GUARD: OnceLock<logging::Guard> = OnceLock::new();

/// Starts logging to standard error or a file.
pub(crate) fn start(level: &str, path: Option<&Path>, format: LogFormat) -> Result<()> {
    let guard = logging::init(level, path, format == LogFormat::Json)?;
    let _first = GUARD.set(guard);
    Ok(())
}
