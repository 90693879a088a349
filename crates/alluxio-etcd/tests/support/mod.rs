//! A real etcd for tests: Debian's `etcd` binary on loopback, in a folder of its own.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use alluxio_etcd::{EtcdClient, EtcdOptions};

/// A started etcd. It is stopped and its data removed when dropped.
pub(crate) struct EtcdServer {
    process: Child,
    client_port: u16,
    peer_port: u16,
    data: tempfile::TempDir,
}

impl EtcdServer {
    /// Starts etcd; `None`, with a line that says so, where there is no such binary. Under
    /// `CI=true` that is an error.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        if Command::new("etcd")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!in_ci, "{test} needs the `etcd` binary, which CI must have");
            println!("left out: {test} (no `etcd` binary; Debian: apt install etcd-server)");
            return None;
        }
        let mut server = Self {
            process: Command::new("true").spawn().unwrap(),
            client_port: free_port(),
            peer_port: free_port(),
            data: tempfile::tempdir().unwrap(),
        };
        server.restart().await;
        Some(server)
    }

    /// Starts the process again on the same ports and data, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let client = format!("http://127.0.0.1:{}", self.client_port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        self.process = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.data.path())
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &format!("default={peer}"),
                "--log-level",
                "error",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while EtcdClient::connect(&self.options()).await.is_err() {
            assert!(
                Instant::now() < deadline,
                "etcd did not start within a minute"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the process; its data stays.
    pub(crate) fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// `host:port` of this etcd.
    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// How to connect to it.
    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdOptions {
            endpoints: vec![self.endpoint()],
            user: None,
        }
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that was free a moment ago, and is given to nobody else in this process: the kernel would
/// give the same one to two tests that ask at one time.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}
