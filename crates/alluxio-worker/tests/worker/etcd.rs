//! A real etcd on loopback, which can be made to forget everything.

use std::process::{Child, Command, Stdio};

use alluxio_etcd::{EtcdClient, EtcdOptions, EtcdTls};
use tempfile::TempDir;

use crate::support::{free_port, until};

/// A started etcd; stopped when dropped.
pub(crate) struct EtcdServer {
    process: Child,
    client_port: u16,
    peer_port: u16,
    _data: TempDir,
}

impl EtcdServer {
    /// Starts etcd; `None`, with a line that says so, where there is no such binary. Under
    /// `CI=true` that is a failure.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        let known = Command::new("etcd")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if known.is_err() {
            let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!in_ci, "{test} needs the `etcd` binary, which CI must have");
            println!("left out: {test} (no `etcd` binary; Debian: apt install etcd-server)");
            return None;
        }
        Some(Self::run(free_port(), free_port()).await)
    }

    /// Starts again on the same ports without any data: every key and lease is lost.
    pub(crate) async fn forget(self) -> Self {
        let (client_port, peer_port) = (self.client_port, self.peer_port);
        drop(self);
        Self::run(client_port, peer_port).await
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdOptions {
            endpoints: vec![self.endpoint()],
            user: None,
            tls: EtcdTls::default(),
        }
    }

    async fn run(client_port: u16, peer_port: u16) -> Self {
        let data = tempfile::tempdir().unwrap();
        let client = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            process,
            client_port,
            peer_port,
            _data: data,
        };
        until("etcd answers", || async {
            EtcdClient::connect(&server.options()).await.ok()
        })
        .await;
        server
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
