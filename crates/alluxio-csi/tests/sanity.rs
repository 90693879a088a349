//! csi-sanity, the interface's own test suite, against the driver.
//!
//! The driver has no Controller service, since the operator makes volumes; but the suite can test
//! little of a node without volumes. So a stand-in hands them out, on a socket of its own, as the
//! operator would. The suite runs twice:
//! - *as shipped*: the driver as a kubelet sees it, with the stand-in as controller endpoint. The
//!   suite leaves out what the driver does not announce;
//! - *life cycle*: the two tests that it leaves out only because no Controller service is announced,
//!   against the same Node service behind an identity that announces one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use alluxio_config::Credentials;
use alluxio_csi::node::Node;
use alluxio_csi::proto::csi;
use alluxio_csi::proto::csi::controller_server::{Controller, ControllerServer};
use alluxio_csi::proto::csi::identity_server::{Identity, IdentityServer};
use alluxio_csi::proto::csi::node_server::NodeServer;
use alluxio_csi::proto::csi::plugin_capability::{Service, Type, service};
use alluxio_csi::proto::csi::validate_volume_capabilities_response::Confirmed;
use alluxio_csi::{CsiOptions, Mounter, Server};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use common::{SHORT, TestMounter, can_mount, leave_out, mounts_below, say, text, unmount_below};

/// Attributes and secrets as the suite's files spell them.
const PARAMETERS: &str = "
alluxio-dataset.io/config: \"ufs: {uri: 's3://bucket/data/', anon: true}\"
alluxio-dataset.io/dataset: vision/imagenet
alluxio-dataset.io/mount-options: '{\"uid\": 1000}'
";
const SECRETS: &str = "NodeStageVolumeSecret: {key: AKIA, secret: hunter2}\n";
/// The suite's tests of a volume's whole life.
const LIFE_CYCLE: [&str; 2] = [
    "Node Service should work",
    "Node Service should be idempotent",
];

#[tokio::test]
async fn csi_sanity_finds_no_failure() {
    let Some(program) = find_program() else {
        leave_out("csi-sanity: not on PATH, not named by CSI_SANITY");
        return;
    };
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let suite = Suite::start(program, folder.path());

    let shipped = suite.run("as shipped", "csi.sock", None).await;
    assert!(shipped.failed.is_empty(), "{:#?}", shipped.failed);
    let must = "Node Service NodeUnpublishVolume should remove target path";
    assert!(shipped.passed.contains(must), "{:#?}", shipped.passed);

    let cycle = suite
        .run(
            "life cycle",
            "provisioner.sock",
            Some("Node Service should "),
        )
        .await;
    assert!(cycle.failed.is_empty(), "{:#?}", cycle.failed);
    for test in LIFE_CYCLE {
        assert!(cycle.passed.contains(test), "{:#?}", cycle.passed);
    }

    let left: Vec<&String> = shipped.skipped.difference(&cycle.passed).collect();
    say(&format!(
        "csi-sanity leaves out {} tests of what is not announced",
        left.len()
    ));
    let needed = |test: &&&String| test.contains("Node Service") && !not_announced(test);
    assert_eq!(left.iter().filter(needed).count(), 0, "{left:#?}");
    assert_eq!(mounts_below(folder.path()), Vec::<PathBuf>::new());
    unmount_below(folder.path());
    let seen = suite.mounter.seen.lock().unwrap();
    assert!(
        seen.iter()
            .all(|v| matches!(v.config.ufs.credentials, Credentials::Keys { .. }))
    );
}

/// Whether a test is about a part of the Node service that the driver does not announce.
fn not_announced(test: &str) -> bool {
    let parts = [
        "NodeExpandVolume",
        "single node multi writer",
        "NodeGetVolumeHealth",
        "StorageHealth",
    ];
    parts.iter().any(|part| test.contains(part))
}

/// The suite's program: named, in the project's tool cache, or on PATH.
fn find_program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CSI_SANITY").filter(|path| !path.is_empty()) {
        return Some(PathBuf::from(path));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cached = home.map(|home| home.join(".cache/alluxio-dataset/tools"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = cached.into_iter().chain(std::env::split_paths(&path));
    folders
        .map(|folder| folder.join("csi-sanity"))
        .find(|program| program.is_file())
}

/// Servers for the suite to talk to.
struct Suite {
    program: PathBuf,
    folder: PathBuf,
    mounter: Arc<TestMounter>,
}

/// What became of the suite's tests, by full name.
#[derive(Default)]
struct Outcome {
    passed: BTreeSet<String>,
    skipped: BTreeSet<String>,
    failed: BTreeSet<String>,
}

impl Suite {
    fn start(program: PathBuf, folder: &Path) -> Self {
        std::fs::write(folder.join("parameters.yaml"), PARAMETERS).unwrap();
        std::fs::write(folder.join("secrets.yaml"), SECRETS).unwrap();
        let mounter = Arc::<TestMounter>::default();
        let options = CsiOptions {
            patience: SHORT,
            ..CsiOptions::new(folder.join("csi.sock"), "node-1")
        };
        let driver = Server::bind(options, Arc::clone(&mounter) as Arc<dyn Mounter>).unwrap();
        tokio::spawn(driver.run(std::future::pending()));

        let node = Node::new(
            "node-1".into(),
            Arc::clone(&mounter) as Arc<dyn Mounter>,
            SHORT,
        );
        let listener = UnixListener::bind(folder.join("provisioner.sock")).unwrap();
        let provisioner = Arc::new(Provisioner::default());
        let server = tonic::transport::Server::builder()
            .add_service(IdentityServer::from_arc(Arc::clone(&provisioner)))
            .add_service(ControllerServer::from_arc(provisioner))
            .add_service(NodeServer::new(node))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::spawn(server);
        Self {
            program,
            folder: folder.to_owned(),
            mounter,
        }
    }

    async fn run(&self, name: &str, socket: &str, focus: Option<&str>) -> Outcome {
        let path = |file: &str| text(&self.folder.join(file));
        let report_file = self.folder.join("report.json");
        let mut suite = tokio::process::Command::new(&self.program);
        suite
            .arg(format!("-csi.endpoint=unix://{}", path(socket)))
            .arg(format!(
                "-csi.controllerendpoint=unix://{}",
                path("provisioner.sock")
            ))
            .arg(format!("-csi.mountdir={}", path("mount")))
            .arg(format!("-csi.stagingdir={}", path("staging")))
            .arg(format!(
                "-csi.testvolumeparameters={}",
                path("parameters.yaml")
            ))
            .arg(format!("-csi.secrets={}", path("secrets.yaml")))
            .arg(format!("-ginkgo.json-report={}", report_file.display()))
            .arg("-ginkgo.no-color")
            .args(focus.map(|focus| format!("-ginkgo.focus={focus}")))
            .stdin(Stdio::null());
        let output = suite.output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let outcome = Outcome::read(&std::fs::read(&report_file).unwrap());
        say(&format!(
            "csi-sanity {name}: {} passed, {} failed, {} skipped",
            outcome.passed.len(),
            outcome.failed.len(),
            outcome.skipped.len()
        ));
        outcome
    }
}

impl Outcome {
    fn read(report: &[u8]) -> Self {
        let report: serde_json::Value = serde_json::from_slice(report).unwrap();
        let mut outcome = Self::default();
        for spec in report[0]["SpecReports"].as_array().unwrap() {
            if spec["LeafNodeType"] != "It" {
                continue;
            }
            let groups = spec["ContainerHierarchyTexts"]
                .as_array()
                .into_iter()
                .flatten();
            let mut words: Vec<&str> = groups.filter_map(serde_json::Value::as_str).collect();
            words.extend(spec["LeafNodeText"].as_str());
            let name = words.join(" ");
            match spec["State"].as_str() {
                Some("passed") => outcome.passed.insert(name),
                Some("skipped" | "pending") => outcome.skipped.insert(name),
                other => outcome.failed.insert(format!("{name}: {other:?}")),
            };
        }
        outcome
    }
}

/// Hands out volumes as the operator does: their attributes are the parameters.
#[derive(Default)]
struct Provisioner {
    volumes: Mutex<BTreeSet<String>>,
}

#[tonic::async_trait]
impl Identity for Provisioner {
    async fn get_plugin_info(
        &self,
        _request: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        let name = "provisioner.alluxio-dataset.io".into();
        Ok(Response::new(csi::GetPluginInfoResponse {
            name,
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        let service = Service {
            r#type: service::Type::ControllerService.into(),
        };
        let capability = csi::PluginCapability {
            r#type: Some(Type::Service(service)),
        };
        let capabilities = vec![capability];
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn probe(
        &self,
        _request: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse::default()))
    }
}

#[tonic::async_trait]
impl Controller for Provisioner {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let csi::CreateVolumeRequest {
            name, parameters, ..
        } = request.into_inner();
        self.volumes.lock().unwrap().insert(name.clone());
        let volume = csi::Volume {
            volume_id: name,
            volume_context: parameters,
            ..Default::default()
        };
        Ok(Response::new(csi::CreateVolumeResponse {
            volume: Some(volume),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        self.volumes
            .lock()
            .unwrap()
            .remove(&request.into_inner().volume_id);
        Ok(Response::new(csi::DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() || request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument(
                "a volume and its capabilities are required",
            ));
        }
        if !self.volumes.lock().unwrap().contains(&request.volume_id) {
            return Err(Status::not_found(request.volume_id));
        }
        let volume_capabilities = request.volume_capabilities;
        let confirmed = Some(Confirmed {
            volume_capabilities,
            ..Default::default()
        });
        let answer = csi::ValidateVolumeCapabilitiesResponse {
            confirmed,
            ..Default::default()
        };
        Ok(Response::new(answer))
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        Ok(Response::new(
            csi::ControllerGetCapabilitiesResponse::default(),
        ))
    }
}
