//! The one place that writes to standard output and standard error.
//!
//! A closed pipe (`| head`) ends the program quietly, as users expect of a command.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

/// Writes one line to standard output.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes one object of JSON, in a line, to standard output.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)?;
    Ok(())
}

/// Writes bytes to standard output.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(bytes)
}

/// Writes one line to standard error, for the person at the terminal; it may be gone.
pub(crate) fn note(text: impl Display) {
    let _gone = writeln!(io::stderr().lock(), "{text}");
}

/// A number of bytes for people, in 1,024s.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
