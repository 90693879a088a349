//! External programs: where they are looked for, and running them with errors that say what failed.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// A program, from the variable that names it, the project's tool cache, or PATH.
pub(crate) fn find(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        return Some(PathBuf::from(path));
    }
    let cached = std::env::var_os("HOME").map(|home| {
        PathBuf::from(home)
            .join(".cache/alluxio-dataset/tools")
            .join(name)
    });
    cached
        .into_iter()
        .chain(on_path(name))
        .find(|candidate| candidate.is_file())
}

/// The places on PATH where `name` could be.
fn on_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .collect()
}

/// Runs a command and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("starting {}", name.display()))?;
    if !output.status.success() {
        bail!(
            "{} {}: {}",
            name.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote no UTF-8", name.display()))
}

/// Runs a command that talks to the terminal itself.
pub(crate) fn run<K: AsRef<OsStr>>(command: &mut Command, environment: &[(K, K)]) -> Result<()> {
    command.envs(environment.iter().map(|(key, value)| (key, value)));
    let name = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("starting {}", name.display()))?;
    if status.success() {
        Ok(())
    } else {
        bail!("{} failed: {status}", name.display())
    }
}
