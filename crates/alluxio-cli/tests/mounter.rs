//! The mounter as a pod runs it: it listens, and goes at once and cleanly when it is told to.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::FileTypeExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Far below the 30 seconds after which Kubernetes kills a pod, far above what it takes.
const LIMIT: Duration = Duration::from_secs(10);

fn until(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn a_terminated_mounter_leaves_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("mounter.sock");
    let mut mounter = Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"))
        .args(["mounter", "--socket"])
        .arg(&socket)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let listens = || std::fs::metadata(&socket).is_ok_and(|file| file.file_type().is_socket());
    assert!(until(listens), "the mounter does not listen");
    let told = Command::new("kill").arg(mounter.id().to_string()).status();
    assert!(told.unwrap().success());
    let mut ended = None;
    let deadline = Instant::now() + LIMIT;
    while ended.is_none() && Instant::now() < deadline {
        ended = mounter.try_wait().unwrap();
    }
    if ended.is_none() {
        mounter.kill().unwrap();
    }
    assert!(ended.unwrap().success(), "it ends by itself");
    assert!(!socket.exists());
}
