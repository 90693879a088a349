//! The mounter as a pod runs it: it listens, and goes at once and cleanly when it is told to.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::FileTypeExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far below the 30 seconds after which Kubernetes kills a pod, far above what it takes.
const LIMIT: Duration = Duration::from_secs(10);

/// A process that is gone when the test is over, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Mostly it has ended by itself.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn until(mut condition: impl FnMut() -> bool) -> bool {
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"));
    command.args(["mounter", "--socket"]).arg(&socket);
    let mut mounter = Process(command.stderr(Stdio::null()).spawn().unwrap());
    let listens = || std::fs::metadata(&socket).is_ok_and(|file| file.file_type().is_socket());
    assert!(until(listens), "the mounter does not listen");
    let kill = Command::new("kill")
        .arg(mounter.0.id().to_string())
        .status();
    assert!(kill.unwrap().success());
    assert!(
        until(|| mounter.0.try_wait().unwrap().is_some()),
        "it does not end"
    );
    assert!(!socket.exists());
}
