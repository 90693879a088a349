//! Servers that `scripts/tools` installs, and the words where one is missing.

use std::path::PathBuf;

/// Where `scripts/tools` puts a program or folder, if it is there.
pub(crate) fn found(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let tool = cache.join("alluxio-dataset/tools").join(name);
    tool.exists().then_some(tool)
}

/// Says that tests are left out for want of a server, which is a failure in CI.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn left_out(name: &str) {
    let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!in_ci, "{name} is missing: scripts/tools ensure stores");
    eprintln!("left out: {name} is missing (scripts/tools ensure stores)");
}
