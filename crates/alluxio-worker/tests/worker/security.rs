//! TLS and tokens, between clients and workers and among workers.

use std::path::Path;

use alluxio_client::Client;
use alluxio_config::Config;
use alluxio_wire::{LoadOptions, LoadState};
use alluxio_worker::{Worker, WorkerError};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use tempfile::TempDir;

use crate::s3::S3Server;
use crate::support::{Setup, TestWorker, answer, free_port, put_object, until};

const TOKEN: &str = "t0ken-of-the-test";

/// PEM files of an authority and of a worker at 127.0.0.1, and a token.
struct Secrets {
    folder: TempDir,
}

impl Secrets {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
        let own = key();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&own, &authority).unwrap();
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("worker.pem", certificate.pem()),
            ("worker-key.pem", own.serialize_pem()),
            ("token", format!("{TOKEN}\n")),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Has a worker speak TLS and ask for the token, and clients do as it wants.
    fn guard(&self, setup: &mut Setup) {
        setup.worker_lines = format!(
            "  tls: {{cert_file: '{}', key_file: '{}'}}\n  token_file: '{}'\n",
            self.path("worker.pem"),
            self.path("worker-key.pem"),
            self.path("token")
        );
        setup.cluster_lines = format!(
            "  workers: {{tls: {{ca_file: '{}'}}, token_file: '{}'}}\n",
            self.path("ca.pem"),
            self.path("token")
        );
    }
}

/// Two guarded workers of one list.
async fn two(server: &S3Server, secrets: &Secrets) -> Vec<TestWorker> {
    let ports = [free_port(), free_port()];
    let mut workers = Vec::new();
    for port in ports {
        let mut setup = Setup::s3(server);
        let list = ports.map(|port| format!("'127.0.0.1:{port}'")).join(", ");
        setup.membership = format!("{{type: static, workers: [{list}]}}");
        setup.port = port;
        secrets.guard(&mut setup);
        workers.push(setup.start().await);
    }
    workers
}

async fn read(config: &Config) -> (u64, u64) {
    let client = Client::connect(config).await.unwrap();
    for number in 0..10 {
        let path = format!("train/{number}");
        let bytes = client.read_bytes(&path, 0..100).await.unwrap();
        assert_eq!(bytes, path);
    }
    let by_source = client.bytes_by_source();
    (by_source.worker + by_source.next_worker, by_source.ufs)
}

#[tokio::test]
async fn clients_and_workers_speak_tls_and_show_the_token() {
    let server = S3Server::start(false).await;
    for number in 0..10 {
        let path = format!("train/{number}");
        put_object(&server, &path, &path);
    }
    let secrets = Secrets::new();
    let workers = two(&server, &secrets).await;
    let config = &workers[0].config;
    // The load goes from one worker to the other.
    let loads = Client::connect(config).await.unwrap();
    let uri = config.ufs.uri.join("train").unwrap();
    let submitted = loads.loads().submit(&uri, &LoadOptions::default()).await;
    assert!(submitted.unwrap().success);
    until("the load ends", || async {
        let progress = loads.loads().progress(&uri).await.unwrap();
        let state = progress.state;
        assert!(!matches!(state, LoadState::Failed), "{progress:?}");
        state.is_final().then_some(())
    })
    .await;
    let (from_workers, from_store) = read(config).await;
    assert_eq!((from_workers, from_store), (70, 0));

    // Who shows no token, trusts another authority, or speaks no TLS, reads past the workers.
    let without = |change: &dyn Fn(&mut Config)| {
        let mut config = config.clone();
        change(&mut config);
        config
    };
    let other = Secrets::new();
    for stranger in [
        without(&|config| config.cluster.security.token_file = None),
        without(&|config| config.cluster.security.tls = None),
        without(&|config| {
            let tls = config.cluster.security.tls.as_mut().unwrap();
            tls.ca_file = Some(other.folder.path().join("ca.pem"));
        }),
    ] {
        assert_eq!(read(&stranger).await, (0, 70));
    }
}

#[tokio::test]
async fn without_the_token_a_worker_tells_its_health_alone() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("f"), "secret bytes").unwrap();
    let secrets = Secrets::new();
    let mut setup = Setup::local(&files);
    setup.worker_lines = format!("  token_file: '{}'\n", secrets.path("token"));
    let worker = setup.start().await;
    let file = worker.root().join("f").unwrap();
    let page = format!("/v1/file/{}/page/0?ufsFullPath={file}", file.file_id());
    for target in ["/v1/health", "/healthz", "/readyz"] {
        assert_eq!(worker.get(target).await.code, 200, "{target}");
    }
    let invalidate = format!("/v1/internal/invalidate/{}", file.file_id());
    for target in [
        page.as_str(),
        "/v1/info?path=/f",
        "/metrics",
        "/v1/nope",
        &invalidate,
    ] {
        let refused = worker.get(target).await;
        assert_eq!(
            (refused.code, refused.error().as_str()),
            (401, "Unauthorized"),
            "{target}"
        );
        let wrong = worker.client.get(worker.url(target)).bearer_auth("wrong");
        assert_eq!(answer(wrong).await.code, 401, "{target}");
    }
    let shown = worker.client.get(worker.url(&page)).bearer_auth(TOKEN);
    assert_eq!(answer(shown).await.text(), "secret bytes");
}

#[tokio::test]
async fn secrets_that_cannot_be_used_are_named_at_the_start() {
    let files = tempfile::tempdir().unwrap();
    let secrets = Secrets::new();
    let at = |name: &str| secrets.folder.path().join(name);
    let start = async |certificate: &Path, key: &Path, token: &Path| {
        let folder = tempfile::tempdir().unwrap();
        let mut setup = Setup::local(&files);
        setup.worker_lines = format!(
            "  tls: {{cert_file: '{}', key_file: '{}'}}\n  token_file: '{}'\n",
            certificate.display(),
            key.display(),
            token.display()
        );
        let error = Worker::start(&setup.config(&folder)).await.unwrap_err();
        assert!(matches!(error, WorkerError::Secret { .. }), "{error}");
        error.to_string()
    };
    let [certificate, key, token] = ["worker.pem", "worker-key.pem", "token"].map(at);
    let cases = [
        (&at("none"), &key, &token, "none cannot be read"),
        (&token, &key, &token, "token holds no certificate"),
        (&certificate, &token, &token, "token holds no private key"),
        (&at("ca.pem"), &key, &token, "cannot be used"),
        (&certificate, &key, &at("none"), "check worker.token_file"),
    ];
    for (certificate, key, token, says) in cases {
        let message = start(certificate, key, token).await;
        assert!(message.contains(says), "{message}");
        assert!(!message.contains(TOKEN), "{message}");
    }
}
