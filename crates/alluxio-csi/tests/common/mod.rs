//! A driver under test: real sockets, real mounts, and a mounter in place of FUSE.

#![allow(dead_code, reason = "each test binary uses its part of these helpers")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluxio_csi::mountinfo::MountTable;
use alluxio_csi::proto::csi::identity_client::IdentityClient;
use alluxio_csi::proto::csi::node_client::NodeClient;
use alluxio_csi::proto::csi::volume_capability::{
    AccessMode, AccessType, MountVolume, access_mode,
};
use alluxio_csi::proto::csi::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use alluxio_csi::{CsiOptions, MountError, MountErrorKind, Mounter, Patience, Server, VolumeMount};
use rustix::mount::{MountFlags, UnmountFlags};
use tonic::transport::{Channel, Endpoint};

/// The longest that a test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Short enough for a test of hung mounts, long enough for a healthy call on a busy machine.
pub(crate) const SHORT: Patience = Patience {
    syscall: Duration::from_secs(2),
    mount: Duration::from_secs(20),
    unmount: Duration::from_secs(2),
};

/// Whether this process may mount. Where not, says so in one line, and fails in CI.
pub(crate) fn can_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    if mount_tmpfs(dir.path()).is_err() {
        return leave_out("tests of the CSI driver that mount: they need root");
    }
    rustix::mount::unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    true
}

/// The same for a FUSE mount.
pub(crate) fn can_mount_fuse() -> bool {
    let device = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    can_mount() && (device.is_ok() || leave_out("tests of dead mounts: they need /dev/fuse"))
}

/// Says in one line what is not tested here; fails in CI, where nothing is left out.
pub(crate) fn leave_out(what: &str) -> bool {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "CI leaves nothing out: {what}"
    );
    if SAID.lock().unwrap().insert(what.to_owned()) {
        say(&format!("left out: {what}"));
    }
    false
}

/// Writes past the test harness, which hides what a passing test prints.
pub(crate) fn say(line: &str) {
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

/// Mounts a small tmpfs.
pub(crate) fn mount_tmpfs(path: &Path) -> rustix::io::Result<()> {
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), c"size=1m")
}

/// How a [`TestMounter`] fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not at all.
    #[default]
    None,
    /// Mounting fails so.
    Refuses(MountErrorKind),
    /// It says that it mounted, and did not.
    Lies,
    /// It mounts FUSE, and serves nothing until [`TestMounter::kill`].
    Hangs,
}

/// Mounts a tmpfs that holds one file, `dataset`, or a FUSE that nobody serves.
#[derive(Default)]
pub(crate) struct TestMounter {
    pub(crate) fault: Mutex<Fault>,
    pub(crate) mounts: AtomicUsize,
    /// Told when a mount begins.
    pub(crate) arrived: tokio::sync::Notify,
    /// Mounts wait here where a test holds it.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// The volumes that were mounted.
    pub(crate) seen: Mutex<Vec<VolumeMount>>,
    fuse: Mutex<HashMap<PathBuf, OwnedFd>>,
}

impl TestMounter {
    pub(crate) fn failing(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault: Mutex::new(fault),
            ..Self::default()
        })
    }

    /// Lets the FUSE mount at `path` die: its connection has no holder any more.
    pub(crate) fn kill(&self, path: &Path) {
        self.fuse
            .lock()
            .unwrap()
            .remove(&path.canonicalize_parent())
            .unwrap();
    }

    pub(crate) fn mount_count(&self) -> usize {
        self.mounts.load(Ordering::SeqCst)
    }

    fn mount_fuse(&self, path: &Path) {
        let device = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let options = CString::new(options).unwrap();
        rustix::mount::mount("test", path, "fuse", MountFlags::empty(), &*options).unwrap();
        self.fuse
            .lock()
            .unwrap()
            .insert(path.to_owned(), device.into());
    }
}

/// The path with its folder resolved, as the driver hands it to the mounter.
trait CanonicalizeParent {
    fn canonicalize_parent(&self) -> PathBuf;
}

impl CanonicalizeParent for Path {
    fn canonicalize_parent(&self) -> PathBuf {
        self.parent()
            .unwrap()
            .canonicalize()
            .unwrap()
            .join(self.file_name().unwrap())
    }
}

#[tonic::async_trait]
impl Mounter for TestMounter {
    async fn mount(&self, volume: &VolumeMount) -> Result<(), MountError> {
        self.arrived.notify_one();
        let _turn = self.gate.lock().await;
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Refuses(kind) => return Err(MountError::new(kind, "the store said no")),
            Fault::Lies => return Ok(()),
            Fault::Hangs => self.mount_fuse(&volume.mountpoint),
            Fault::None => {
                mount_tmpfs(&volume.mountpoint).unwrap();
                let file = volume.mountpoint.join("dataset");
                std::fs::write(file, volume.dataset.to_string()).unwrap();
            }
        }
        self.mounts.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push(volume.clone());
        Ok(())
    }

    async fn unmount(&self, mountpoint: &Path) -> Result<(), MountError> {
        // A mounter that was restarted knows nothing of a mount, and neither does this one of a
        // tmpfs: the driver itself must end it.
        self.fuse.lock().unwrap().remove(mountpoint);
        Ok(())
    }

    async fn remark(&self, device: &str) -> Option<String> {
        Some(format!("it is {device}"))
    }
}

/// A driver that serves on a socket in a folder of its own, and the folders that a kubelet has.
pub(crate) struct Driver {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) mounter: Arc<TestMounter>,
    pub(crate) node: NodeClient<Channel>,
    pub(crate) identity: IdentityClient<Channel>,
    server: tokio::task::JoinHandle<()>,
}

impl Driver {
    pub(crate) async fn start(mounter: Arc<TestMounter>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("staging/globalmount")).unwrap();
        std::fs::create_dir_all(folder.path().join("pod/mounts")).unwrap();
        Self::start_in(folder, mounter).await
    }

    async fn start_in(folder: tempfile::TempDir, mounter: Arc<TestMounter>) -> Self {
        let socket = folder.path().join("csi.sock");
        let options = CsiOptions {
            patience: SHORT,
            ..CsiOptions::new(socket.clone(), "node-1")
        };
        let server = Server::bind(options, Arc::clone(&mounter) as Arc<dyn Mounter>).unwrap();
        let server = tokio::spawn(async move {
            server.run(std::future::pending()).await.unwrap();
        });
        let channel = connect(&socket).await;
        let (node, identity) = (
            NodeClient::new(channel.clone()),
            IdentityClient::new(channel),
        );
        Self {
            folder,
            mounter,
            node,
            identity,
            server,
        }
    }

    /// The driver after a restart: what it knew is lost, what is mounted stays.
    pub(crate) async fn restart(mut self, mounter: Arc<TestMounter>) -> Self {
        self.server.abort();
        let _ = (&mut self.server).await;
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        drop(self);
        Self::start_in(folder, mounter).await
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.folder.path().join("staging/globalmount")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.folder.path().join("pod/mounts/mount")
    }

    pub(crate) fn stage_request(&self) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: "volume-1".into(),
            staging_target_path: text(&self.staging()),
            volume_capability: Some(capability()),
            volume_context: volume_context(),
            ..Default::default()
        }
    }

    pub(crate) fn publish_request(&self) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: "volume-1".into(),
            staging_target_path: text(&self.staging()),
            target_path: text(&self.target()),
            volume_capability: Some(capability()),
            volume_context: volume_context(),
            readonly: true,
            ..Default::default()
        }
    }

    pub(crate) fn unpublish_request(&self) -> NodeUnpublishVolumeRequest {
        let target_path = text(&self.target());
        NodeUnpublishVolumeRequest {
            volume_id: "volume-1".into(),
            target_path,
        }
    }

    pub(crate) fn unstage_request(&self) -> NodeUnstageVolumeRequest {
        let staging_target_path = text(&self.staging());
        NodeUnstageVolumeRequest {
            volume_id: "volume-1".into(),
            staging_target_path,
        }
    }

    /// What is mounted below the driver's folder.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        mounts_below(self.folder.path())
    }

    /// Names of what lies beside the staging folder.
    pub(crate) fn beside_staging(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("staging")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.server.abort();
        unmount_below(self.folder.path());
    }
}

/// What is mounted below `folder`.
pub(crate) fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.canonicalize().unwrap();
    let table = MountTable::read().unwrap();
    table
        .below(&folder)
        .map(|entry| entry.mountpoint.clone())
        .collect()
}

/// Leaves nothing mounted below `folder`, whatever a failed test left.
pub(crate) fn unmount_below(folder: &Path) {
    for mountpoint in mounts_below(folder) {
        let _ = rustix::mount::unmount(&mountpoint, UnmountFlags::DETACH);
    }
}

/// A client's connection to a unix socket.
pub(crate) async fn connect(socket: &Path) -> Channel {
    Endpoint::from_shared(format!("unix://{}", socket.display()))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The attributes of a volume of ours.
pub(crate) fn volume_context() -> HashMap<String, String> {
    let pairs = [
        (
            "alluxio-dataset.io/config",
            "ufs: {uri: 's3://bucket/data/', anon: true}",
        ),
        ("alluxio-dataset.io/dataset", "vision/imagenet"),
        (
            "alluxio-dataset.io/mount-options",
            r#"{"uid": 1000, "fileMode": "0440"}"#,
        ),
    ];
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Read on many nodes, as a file system.
pub(crate) fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode {
            mode: access_mode::Mode::MultiNodeReaderOnly.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}
