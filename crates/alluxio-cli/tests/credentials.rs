//! Credentials that no option names: from the environment, an AWS profile, and a web identity, as
//! the real binary finds them, against real S3 servers that check signatures.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../../alluxio-ufs/tests/support/gateway.rs"]
mod gateway;
#[allow(dead_code, reason = "shared with tests that use more")]
#[path = "../../alluxio-ufs/tests/support/s3.rs"]
mod s3;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use gateway::{ACCESS_KEY, BUCKET, Gateway, SECRET_KEY};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const TOKEN: &str = "the-token-of-a-service-account";
const ROLE: &str = "arn:aws:iam::123456789012:role/train";

/// A server with the object `d/f`, and an empty home.
struct Scene {
    endpoint: String,
    home: TempDir,
    _gateway: Option<Gateway>,
}

impl Scene {
    fn new() -> Option<Self> {
        let gateway = Gateway::start()?;
        let scene = Self {
            endpoint: gateway.endpoint(),
            home: tempfile::tempdir().unwrap(),
            _gateway: Some(gateway),
        };
        let keys = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ];
        let written = scene.run("write-bytes", "d/f", &keys);
        assert!(written.status.success(), "{written:?}");
        Some(scene)
    }

    /// A command with nothing in its environment but these variables.
    fn run(&self, command: &str, path: &str, variables: &[(&str, &str)]) -> Output {
        let config = self.home.path().join("dataset.yaml");
        self.configured(&config, "", command, path, variables)
    }

    fn configured(
        &self,
        config: &Path,
        options: &str,
        command: &str,
        path: &str,
        variables: &[(&str, &str)],
    ) -> Output {
        let text = format!(
            "ufs: {{uri: 's3://{BUCKET}', endpoint: '{}', region: us-east-1, options: {{{options}}}}}",
            self.endpoint
        );
        std::fs::write(config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_alluxio-dataset"))
            .args([command, path, "--config"])
            .arg(config)
            .env_clear()
            .env("HOME", self.home.path())
            // Nobody is asked who is not on this machine.
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"bytes").unwrap();
        child.wait_with_output().unwrap()
    }

    fn reads(&self, variables: &[(&str, &str)]) {
        let output = self.run("ls", "d", variables);
        assert_eq!(output.stdout, b"f\n", "{output:?}");
    }

    fn profiles(&self, text: &str) {
        let folder = self.home.path().join(".aws");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("credentials"), text).unwrap();
    }
}

#[test]
fn keys_come_from_the_environment() {
    let Some(scene) = Scene::new() else { return };
    scene.reads(&[
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ]);
    let wrong = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", "another-secret"),
    ];
    let refused = scene.run("ls", "d", &wrong);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(
        told.contains("403") && !told.contains("another-secret"),
        "{told}"
    );
}

#[test]
fn keys_come_from_the_profile_that_variable_or_option_names() {
    let Some(scene) = Scene::new() else { return };
    scene.profiles(&format!(
        "[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = wrong\n\n\
         [train]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    ));
    assert!(!scene.run("ls", "d", &[]).status.success());
    scene.reads(&[("AWS_PROFILE", "train")]);
    let config = scene.home.path().join("profile.yaml");
    let output = scene.configured(&config, "profile: train", "ls", "d", &[]);
    assert_eq!(output.stdout, b"f\n", "{output:?}");
}

/// A stand-in for AWS' security token service, behind the proxy that leads to it; it gives the
/// server's keys to whoever shows the token and role.
struct Sts {
    proxy: String,
    certificate: tempfile::NamedTempFile,
}

impl Sts {
    async fn start() -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["sts.amazonaws.com".to_owned()]).unwrap();
        let mut certificate = tempfile::NamedTempFile::new().unwrap();
        certificate.write_all(made.cert.pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, acceptor.clone()));
            }
        });
        Self { proxy, certificate }
    }
}

async fn answer(mut stream: TcpStream, acceptor: TlsAcceptor) {
    let asked = read_until(&mut stream, "\r\n\r\n").await;
    assert!(
        asked.starts_with("CONNECT sts.amazonaws.com:443 "),
        "{asked}"
    );
    let connected = b"HTTP/1.1 200 Connected\r\n\r\n";
    stream.write_all(connected).await.unwrap();
    let mut stream = acceptor.accept(stream).await.unwrap();
    // The request's last field.
    let asked = read_until(&mut stream, "RoleSessionName=").await;
    let shows = asked.contains(TOKEN) && asked.contains("role%2Ftrain");
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
         <SessionToken>session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    );
    let (status, body) = if shows {
        (200, body.as_str())
    } else {
        (403, "")
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: text/xml\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let whole = [head.as_str(), body].concat();
    stream.write_all(whole.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(end) {
            return text.into_owned();
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_for_a_web_identity() {
    let sts = Sts::start().await;
    // versitygw takes no session tokens.
    let server = s3::S3Server::start(true).await;
    s3::put(&server.bucket_folder(), "d/f", "bytes");
    let endpoint = server.endpoint();
    tokio::task::spawn_blocking(move || {
        let scene = Scene {
            endpoint,
            home: tempfile::tempdir().unwrap(),
            _gateway: None,
        };
        let token = scene.home.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let with = |role: &str| {
            let variables = [
                ("AWS_ROLE_ARN", role),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
                ("HTTPS_PROXY", &sts.proxy),
                ("SSL_CERT_FILE", sts.certificate.path().to_str().unwrap()),
            ];
            scene.run("ls", "d", &variables)
        };
        let output = with(ROLE);
        assert_eq!(output.stdout, b"f\n", "{output:?}");
        let refused = with("arn:aws:iam::123456789012:role/other");
        let told = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(!told.contains(TOKEN), "{told}");
    })
    .await
    .unwrap();
}
