//! `operator` and `csi`: the two processes of the control plane.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluxio_csi::{CsiOptions, MountErrorKind, Mounter, Registration, Server, VolumeMount};
use alluxio_fuse::{
    AgentSpawner, DaemonSpawner, Mount, MountError, MountOptions, MountRequest, Passthrough,
};
use alluxio_telemetry::health::Health;
use alluxio_telemetry::metrics;
use anyhow::{Context, Result};
use prometheus::{IntCounterVec, Opts};
use tokio::sync::Mutex;

use super::mounter::log_format;
use crate::args::{CsiArguments, OperatorArguments, UNPRIVILEGED_ID};
use crate::mounting::{self, Owner};
use crate::{logs, signals};

/// Where the operator's metrics and health are when nothing else is said.
const OPERATOR_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// Runs the operator.
pub(crate) async fn operator(arguments: OperatorArguments) -> Result<()> {
    let service = &arguments.service;
    logs::start(&service.log, None, log_format(service.log_json))?;
    alluxio_operator::run(alluxio_operator::OperatorOptions {
        namespace: arguments.namespace,
        metrics_addr: service.metrics_listen.unwrap_or(OPERATOR_METRICS),
        instance: std::env::var("POD_NAME").ok(),
        limits: alluxio_operator::Limits::default(),
    })
    .await?;
    Ok(())
}

/// Runs the CSI node plugin.
pub(crate) async fn csi(arguments: CsiArguments) -> Result<()> {
    let service = &arguments.service;
    logs::start(&service.log, None, log_format(service.log_json))?;
    let ended = signals::end()?;
    let socket = arguments
        .endpoint
        .strip_prefix("unix://")
        .map(PathBuf::from)
        .with_context(|| format!("endpoint `{}` is not unix:///path", arguments.endpoint))?;
    let mut options = CsiOptions::new(socket.clone(), arguments.node_id);
    options.kubelet_socket_path = arguments.kubelet_registration_path.unwrap_or(socket);
    options.registration_dir = arguments.registration_dir;
    let registers = options.registration_dir.is_some();
    if let Some(folder) = arguments.mounter_socket.as_deref().and_then(Path::parent) {
        offer_folder(folder)
            .with_context(|| format!("cannot make {} for the mounter", folder.display()))?;
    }
    let registry = prometheus::Registry::new();
    let mounter = FuseMounter::new(arguments.mounter_socket, arguments.run_folder, &registry)?;
    mounter.adopt_abandoned().await;
    let mounter = Arc::new(mounter);
    let server = Server::bind(options, mounter)?;
    let health = Health::starting();
    if registers {
        tokio::spawn(follow_registration(server.registration(), health.clone()));
    } else {
        health.set_ready();
    }
    let _server = match service.metrics_listen {
        Some(address) => Some(metrics::serve(address, vec![registry], health).await?),
        None => None,
    };
    server.run(ended).await?;
    Ok(())
}

/// Makes the folder in which the mounter pod listens: its user's and root's alone, so that nobody
/// else can pose as the mounter.
fn offer_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::os::unix::fs::chown(folder, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

async fn follow_registration(
    mut registration: tokio::sync::watch::Receiver<Registration>,
    health: Health,
) {
    loop {
        match &*registration.borrow_and_update() {
            Registration::Pending => {}
            Registration::Registered => health.set_ready(),
            Registration::Refused(reason) => health.set_not_ready(reason.clone()),
        }
        if registration.changed().await.is_err() {
            return;
        }
    }
}

/// Mounts by FUSE for the CSI driver.
struct FuseMounter {
    spawner: Arc<dyn DaemonSpawner>,
    /// Where daemons offer their metrics and stage what is written: the folder that the mounter pod
    /// shares.
    metrics_folder: Option<PathBuf>,
    /// Where the next process of this plugin finds the mounts.
    run_folder: PathBuf,
    /// By mount point. Never dropped by the end of this process: a mount outlives it.
    mounts: Mutex<HashMap<PathBuf, ManuallyDrop<Arc<Mount>>>>,
    /// Mounts that this process made, by how it went.
    made: IntCounterVec,
}

impl FuseMounter {
    fn new(
        mounter_socket: Option<PathBuf>,
        run_folder: PathBuf,
        registry: &prometheus::Registry,
    ) -> Result<Self> {
        let made = IntCounterVec::new(
            Opts::new(
                "alluxio_csi_mounts_total",
                "Mounts made for volumes, by result.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(made.clone()))?;
        // Known from the start, so that a rate over them is one from the first mount on.
        for result in ["success", "failure"] {
            made.with_label_values(&[result]);
        }
        let metrics_folder = mounter_socket
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_owned);
        let spawner: Arc<dyn DaemonSpawner> = match mounter_socket {
            Some(socket) => Arc::new(AgentSpawner { socket }),
            None => Arc::new(mounting::local_spawner(Owner {
                uid: UNPRIVILEGED_ID,
                gid: UNPRIVILEGED_ID,
            })?),
        };
        Ok(Self {
            spawner,
            metrics_folder,
            run_folder,
            mounts: Mutex::new(HashMap::new()),
            made,
        })
    }

    fn request(&self, volume: &VolumeMount) -> MountRequest {
        let (namespace, name) = (&volume.dataset.namespace, &volume.dataset.name);
        let metrics_name = mounting::metrics_name(namespace, name, &volume.mountpoint);
        let metrics_socket = self.metrics_folder.as_ref().map(|f| f.join(metrics_name));
        // On the node's disk, where a mounter pod that follows this one finds it.
        let staging = match &self.metrics_folder {
            Some(folder) => folder.join("staging"),
            None => volume.config.mount.staging_path.clone(),
        };
        MountRequest {
            mountpoint: volume.mountpoint.clone(),
            config_yaml: volume.config.to_yaml_with_secrets(),
            options: MountOptions {
                uid: volume.options.uid,
                gid: volume.options.gid,
                file_mode: volume.options.file_mode,
                directory_mode: volume.options.directory_mode,
                allow_other: true,
                source_name: format!("alluxio-dataset:{namespace}/{name}"),
                metrics_socket,
                staging: mounting::staging(&volume.config, &staging, &volume.mountpoint),
            },
            run_folder: Some(self.run_folder.clone()),
        }
    }

    /// Goes on with the mounts of this plugin's last process, whose daemons have served on.
    ///
    /// One that cannot be taken over serves on as it is, and is unmounted like any other.
    async fn adopt_abandoned(&self) {
        let found = match mounting::abandoned(self.run_folder.clone()).await {
            Ok(found) => found,
            Err(error) => return tracing::error!(%error, "mounts may have no supervisor"),
        };
        for found in found {
            let mountpoint = found.mountpoint().to_owned();
            match mounting::adopt(found, Arc::clone(&self.spawner)).await {
                Ok(mount) => {
                    let mount = ManuallyDrop::new(Arc::new(mount));
                    self.mounts.lock().await.insert(mountpoint, mount);
                }
                Err(error) => {
                    tracing::error!(mountpoint = %mountpoint.display(), %error, "a mount has no supervisor");
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl Mounter for FuseMounter {
    async fn mount(&self, volume: &VolumeMount) -> Result<(), alluxio_csi::MountError> {
        let request = self.request(volume);
        let started = mounting::start(request, Arc::clone(&self.spawner)).await;
        let result = if started.is_ok() {
            "success"
        } else {
            "failure"
        };
        self.made.with_label_values(&[result]).inc();
        let mount = started.map_err(|error| csi_error(&error))?;
        let mount = ManuallyDrop::new(Arc::new(mount));
        self.mounts
            .lock()
            .await
            .insert(volume.mountpoint.clone(), mount);
        Ok(())
    }

    async fn unmount(&self, mountpoint: &Path) -> Result<(), alluxio_csi::MountError> {
        let Some(mount) = self.mounts.lock().await.remove(mountpoint) else {
            // Not made or found by this process: its daemon ends when the driver unmounts it.
            return Ok(());
        };
        mounting::unmount(ManuallyDrop::into_inner(mount))
            .await
            .map_err(|error| csi_error(&error))
    }

    async fn remark(&self, device: &str) -> Option<String> {
        let mounts = self.mounts.lock().await;
        let mut all = mounts.values();
        let mount = all.find(|mount| mount.device_number() == device)?;
        match mount.passthrough() {
            Passthrough::Off { reason } => Some(format!(
                "wholly cached files are read through the daemon, which is slower and as right: \
                 {reason}"
            )),
            Passthrough::On | Passthrough::Untried => None,
        }
    }
}

/// What the driver makes of a mount's failure.
fn csi_error(error: &MountError) -> alluxio_csi::MountError {
    let kind = match error {
        MountError::Mountpoint { .. }
        | MountError::AlreadyMounted { .. }
        | MountError::Device(_)
        | MountError::Memory(_)
        | MountError::Socket { .. }
        | MountError::Upgrade(_)
        | MountError::Unmount { .. } => MountErrorKind::Internal,
        MountError::Mount { source, .. } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => MountErrorKind::PermissionDenied,
            _ => MountErrorKind::Internal,
        },
        // Bad credentials, a missing bucket, a mounter that is not up: a retry may meet them mended.
        MountError::Spawn(_) | MountError::Daemon(_) => MountErrorKind::Unavailable,
    };
    alluxio_csi::MountError::new(kind, error.to_string())
}
