//! What a test leaves out where it may not mount, and that CI leaves out nothing.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Once;

/// Whether this process may mount; says once what is left out where not.
pub(crate) fn can_mount() -> bool {
    static SAID: Once = Once::new();
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    let can = root && Path::new("/dev/fuse").exists();
    if !can {
        SAID.call_once(|| leave_out("tests of a mount need root and /dev/fuse"));
    }
    can
}

/// Says what is left out and why, which must not be on CI.
pub(crate) fn leave_out(what: &str) {
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must, "CI must not leave out: {what}");
    // Past the test harness, which keeps what a passing test prints to itself.
    let _ = writeln!(std::io::stderr(), "left out: {what}");
}
