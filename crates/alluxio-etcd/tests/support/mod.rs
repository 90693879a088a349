//! A real etcd for tests: Debian's `etcd` binary on loopback, in a folder of its own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use alluxio_etcd::{EtcdClient, EtcdOptions, EtcdTls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A started etcd. It is stopped and its data removed when dropped.
pub(crate) struct EtcdServer {
    process: Child,
    client_port: u16,
    peer_port: u16,
    data: tempfile::TempDir,
    tls: Option<ServerTls>,
    user: Option<(String, String)>,
}

/// The certificates of an etcd that speaks TLS, as files, and how a client reaches it.
pub(crate) struct ServerTls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Whose clients it wants, if it wants certificates of them.
    pub(crate) client_ca: Option<PathBuf>,
    /// With which its clients come.
    pub(crate) client: EtcdTls,
}

impl EtcdServer {
    /// Starts etcd; `None`, with a line that says so, where there is no such binary. Under
    /// `CI=true` that is an error.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        Self::start_with(test, None).await
    }

    /// The same with TLS.
    pub(crate) async fn start_with(test: &str, tls: Option<ServerTls>) -> Option<Self> {
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
            tls,
            user: None,
        };
        server.restart().await;
        Some(server)
    }

    /// Starts the process again on the same ports and data, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let client = self.url();
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
            .args(self.tls.iter().flat_map(ServerTls::arguments))
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

    /// The same as a URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.endpoint())
    }

    /// How to connect to it.
    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdOptions {
            endpoints: vec![self.url()],
            user: self.user.clone(),
            tls: self
                .tls
                .as_ref()
                .map_or_else(EtcdTls::default, |tls| tls.client.clone()),
        }
    }

    /// Makes etcd ask for users: `root`, who may do all, and `reader`, who may read one prefix.
    /// This server's own options become root's.
    pub(crate) async fn ask_for_users(&mut self, readable: &str) {
        let end = format!("{}0", readable.trim_end_matches('/'));
        let calls = [
            (
                "user/add",
                r#"{"name":"root","password":"rootpw"}"#.to_owned(),
            ),
            (
                "user/add",
                r#"{"name":"reader","password":"readpw"}"#.to_owned(),
            ),
            ("role/add", r#"{"name":"root"}"#.to_owned()),
            ("role/add", r#"{"name":"read"}"#.to_owned()),
            (
                "role/grant",
                format!(
                    r#"{{"name":"read","perm":{{"permType":"READ","key":"{}","range_end":"{}"}}}}"#,
                    base64(readable),
                    base64(&end)
                ),
            ),
            ("user/grant", r#"{"user":"root","role":"root"}"#.to_owned()),
            (
                "user/grant",
                r#"{"user":"reader","role":"read"}"#.to_owned(),
            ),
            ("enable", "{}".to_owned()),
        ];
        for (call, body) in calls {
            self.post(&format!("/v3/auth/{call}"), &body).await;
        }
        self.user = Some(("root".to_owned(), "rootpw".to_owned()));
    }

    /// A call of etcd's JSON gateway.
    async fn post(&self, path: &str, body: &str) {
        let mut stream = TcpStream::connect(self.endpoint()).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: etcd\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
}

impl ServerTls {
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--cert-file".into(),
            self.certificate.clone().into(),
            "--key-file".into(),
            self.key.clone().into(),
        ];
        if let Some(authority) = &self.client_ca {
            arguments.extend([
                "--client-cert-auth".into(),
                "--trusted-ca-file".into(),
                authority.clone().into(),
            ]);
        }
        arguments
    }
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let triple = |part: &[u8]| {
        let mut bits = 0;
        for at in 0..3 {
            bits = bits << 8 | usize::from(part.get(at).copied().unwrap_or(0));
        }
        let mut four = [18, 12, 6, 0].map(|shift| char::from(LETTERS[bits >> shift & 63]));
        four[part.len() + 1..].fill('=');
        four
    };
    text.as_bytes().chunks(3).flat_map(triple).collect()
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
