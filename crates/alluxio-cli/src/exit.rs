//! How a command ended, where an exit code says more than success or failure.
//!
//! 0 is success, 1 any failure, 2 a wrong command line; the others are the command's own and stand in
//! its `--help`.

use std::fmt;

/// What a shell gives a process that SIGINT ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// An end with an exit code of its own.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What is said on standard error; nothing where it is empty.
    pub message: String,
    /// The exit code.
    pub code: u8,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Ended {}
