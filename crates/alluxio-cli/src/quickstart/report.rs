//! The table at the end, and the same figures as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::read::Pass;
use super::sources::Sources;
use crate::output;

/// One measured pass.
#[derive(Serialize)]
pub(crate) struct Row {
    /// What was read from where.
    pub label: &'static str,
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Speed in 10^6 bytes a second.
    pub megabytes_per_second: f64,
    /// The same as a multiple of the first pass, which reads straight from S3.
    pub ratio_to_cold: f64,
    /// Bytes that the mount's client took from each source during the pass.
    pub sources: Sources,
}

impl Row {
    /// The row of a pass, beside the pass straight from S3 unless it is that one.
    pub(crate) fn new(
        label: &'static str,
        pass: Pass,
        sources: Sources,
        cold: Option<&Self>,
    ) -> Self {
        let speed = pass.megabytes_per_second();
        Self {
            label,
            files: pass.files,
            bytes: pass.bytes,
            megabytes_per_second: speed,
            ratio_to_cold: cold.map_or(1.0, |cold| speed / cold.megabytes_per_second),
            sources,
        }
    }
}

/// Writes the table.
pub(crate) fn table(rows: &[Row]) -> Result<()> {
    let head = [
        "",
        "files",
        "bytes",
        "MB/s",
        "x cold",
        "from S3",
        "workers",
        "next worker",
        "memory",
    ];
    output::line("")?;
    output::line(format_row(&head.map(str::to_owned)))?;
    for row in rows {
        let sources = &row.sources;
        output::line(format_row(&[
            row.label.to_owned(),
            row.files.to_string(),
            output::size(row.bytes),
            format!("{:.0}", row.megabytes_per_second),
            format!("{:.2}", row.ratio_to_cold),
            output::size(sources.ufs),
            output::size(sources.worker),
            output::size(sources.next_worker),
            output::size(sources.memory),
        ]))?;
    }
    Ok(())
}

fn format_row(cells: &[String; 9]) -> String {
    let [label, rest @ ..] = cells;
    let rest: Vec<String> = rest.iter().map(|cell| format!(" {cell:>11}")).collect();
    format!("{label:<30}{}", rest.concat())
}

/// Writes the figures to a file.
pub(crate) fn json(rows: &[Row], file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)?;
    std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
}
