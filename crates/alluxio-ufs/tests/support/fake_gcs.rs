//! fake-gcs-server: a stand-in for Google Cloud Storage, as a process of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const BUCKET: &str = "bucket";
/// Time for the server to answer its port; it takes some 100 ms.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server with one empty bucket.
pub(crate) struct FakeGcs {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl FakeGcs {
    /// Starts it, or says in one line that it is not there, which is a failure in CI.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = super::tools::found("fake-gcs-server") else {
            super::tools::left_out("fake-gcs-server");
            return None;
        };
        // A folder in its root is a bucket.
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let address = address.unwrap();
        let process = Command::new(program)
            .args([
                "-scheme",
                "http",
                "-host",
                "127.0.0.1",
                "-backend",
                "filesystem",
            ])
            .args(["-port", &address.port().to_string()])
            .args(["-public-host", &address.to_string()])
            .arg("-filesystem-root")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            process,
            address,
            _folder: folder,
        };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let waited = started.elapsed();
            assert!(waited < START_TIMEOUT, "fake-gcs-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for FakeGcs {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
