//! The Node service: what the kubelet asks of the driver.
//!
//! This file is the thin gRPC side: it takes a request apart into checked values, runs the call, and
//! logs and translates its result. The calls themselves are in [`stage`], [`publish`] and [`stats`].
//!
//! A call runs in a task of its own. When the kubelet gives up waiting, gRPC drops the handler; the
//! work goes on to its end and keeps its hold on the volume, so that the kubelet's next try is told
//! `Aborted` instead of working against it.

pub mod publish;
pub mod stage;
pub mod stats;

use std::future::Future;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};

use crate::error::NodeError;
use crate::host::Patience;
use crate::inflight::InFlight;
use crate::mounter::{MountError, MountErrorKind, Mounter};
use crate::proto::csi::node_service_capability::{Rpc, Type as CapabilityType, rpc};
use crate::proto::csi::volume_capability::AccessType;
use crate::proto::csi::{self, VolumeCapability};

/// What the service announces, and nothing that it does not do.
const CAPABILITIES: [rpc::Type; 3] = [
    rpc::Type::StageUnstageVolume,
    rpc::Type::GetVolumeStats,
    rpc::Type::VolumeCondition,
];

/// Name of the call that asks how a volume is doing.
const STATS: &str = "NodeGetVolumeStats";

/// The Node service.
pub struct Node {
    node_id: String,
    context: Arc<Context>,
}

/// What every call works with.
pub(crate) struct Context {
    pub(crate) mounter: Arc<dyn Mounter>,
    pub(crate) calls: InFlight,
    pub(crate) patience: Patience,
}

impl Node {
    /// The service of the node called `node_id`.
    pub fn new(node_id: String, mounter: Arc<dyn Mounter>, patience: Patience) -> Self {
        let context = Context {
            mounter,
            calls: InFlight::default(),
            patience,
        };
        Self {
            node_id,
            context: Arc::new(context),
        }
    }

    /// Runs one call to its end, whatever becomes of its caller.
    async fn answer<T, C, F>(
        &self,
        rpc: &'static str,
        volume: String,
        call: C,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        C: FnOnce(Arc<Context>) -> F,
        F: Future<Output = Result<T, NodeError>> + Send + 'static,
    {
        let (started, call) = (Instant::now(), call(Arc::clone(&self.context)));
        let running = tokio::spawn(async move {
            let result = call.await;
            log(rpc, &volume, started.elapsed(), result.as_ref().err());
            result
        });
        match running.await {
            Ok(result) => Ok(Response::new(result?)),
            Err(lost) => Err(NodeError::Lost {
                cause: lost.to_string(),
            }
            .into()),
        }
    }
}

#[tonic::async_trait]
impl csi::node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Result<Response<csi::NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        self.answer(
            "NodeStageVolume",
            request.volume_id.clone(),
            |context| async move {
                stage::stage(&context, stage::Stage::check(request)?).await?;
                Ok(csi::NodeStageVolumeResponse {})
            },
        )
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        let csi::NodeUnstageVolumeRequest {
            volume_id,
            staging_target_path,
        } = request.into_inner();
        self.answer(
            "NodeUnstageVolume",
            volume_id.clone(),
            |context| async move {
                let volume = required("volume_id", volume_id)?;
                let path = required_path("staging_target_path", staging_target_path)?;
                stage::unstage(&context, &volume, &path).await?;
                Ok(csi::NodeUnstageVolumeResponse {})
            },
        )
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.answer(
            "NodePublishVolume",
            request.volume_id.clone(),
            |context| async move {
                publish::publish(&context, publish::Publish::check(request)?).await?;
                Ok(csi::NodePublishVolumeResponse {})
            },
        )
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let csi::NodeUnpublishVolumeRequest {
            volume_id,
            target_path,
        } = request.into_inner();
        self.answer(
            "NodeUnpublishVolume",
            volume_id.clone(),
            |context| async move {
                let volume = required("volume_id", volume_id)?;
                let path = required_path("target_path", target_path)?;
                publish::unpublish(&context, &volume, &path).await?;
                Ok(csi::NodeUnpublishVolumeResponse {})
            },
        )
        .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<csi::NodeGetVolumeStatsResponse>, Status> {
        let csi::NodeGetVolumeStatsRequest {
            volume_id,
            volume_path,
            ..
        } = request.into_inner();
        self.answer(STATS, volume_id.clone(), |context| async move {
            let volume = required("volume_id", volume_id)?;
            let path = PathBuf::from(required("volume_path", volume_path)?);
            stats::stats(&context, &volume, &path).await
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        _request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Result<Response<csi::NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented(
            "a dataset has the size of its under-store and cannot grow",
        ))
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        let capabilities = CAPABILITIES.map(|kind| csi::NodeServiceCapability {
            r#type: Some(CapabilityType::Rpc(Rpc {
                r#type: kind.into(),
            })),
        });
        Ok(Response::new(csi::NodeGetCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn node_get_info(
        &self,
        _request: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.node_id.clone(),
            ..Default::default()
        }))
    }
}

/// A field that must not be empty.
pub(crate) fn required(field: &'static str, value: String) -> Result<String, NodeError> {
    if value.is_empty() {
        Err(NodeError::MissingField { field })
    } else {
        Ok(value)
    }
}

/// A field that must hold an absolute path, and no way out of it.
pub(crate) fn required_path(field: &'static str, value: String) -> Result<PathBuf, NodeError> {
    let path = PathBuf::from(required(field, value)?);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if path.is_absolute() && path.file_name().is_some() && !climbs {
        Ok(path)
    } else {
        Err(NodeError::BadPath { field, path })
    }
}

/// Whether the volume can be used so: as a file system, without mount options that nobody reads.
///
/// Any access mode is taken. A mount is read-only whatever the mode says, and a pod that writes is
/// told so by the file system, as with any other read-only volume.
pub(crate) fn check_capability(
    volume: &str,
    capability: Option<VolumeCapability>,
) -> Result<(), NodeError> {
    let capability = capability.ok_or(NodeError::MissingField {
        field: "volume_capability",
    })?;
    let refuse = |cause: String, remedy| {
        Err(NodeError::Capability {
            volume: volume.to_owned(),
            cause,
            remedy,
        })
    };
    match capability.access_type {
        None => Err(NodeError::MissingField {
            field: "volume_capability.access_type",
        }),
        Some(AccessType::Block(_)) => refuse(
            "a dataset is no block device".to_owned(),
            "set volumeMode: Filesystem in the claim",
        ),
        Some(AccessType::Mount(mount)) => match mount.mount_flags.iter().find(|f| *f != "ro") {
            None => Ok(()),
            Some(flag) => refuse(
                format!("mount option {flag:?} is not known"),
                "remove it from the PersistentVolume's mountOptions; only \"ro\" is understood",
            ),
        },
    }
}

/// Waits for the mounter as long as `limit` says.
pub(crate) async fn patiently<T>(
    doing: &'static str,
    path: &Path,
    limit: Duration,
    call: impl Future<Output = Result<T, MountError>>,
) -> Result<T, MountError> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f64();
        let message = format!(
            "{}: {doing} did not end within {seconds} s; see the mounter's log for what it waits for",
            path.display()
        );
        Err(MountError::new(MountErrorKind::TimedOut, message))
    })
}

fn log(rpc: &'static str, volume: &str, took: Duration, error: Option<&NodeError>) {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match error {
        Some(error) => tracing::warn!(rpc, volume, took_ms, code = ?error.code(), %error, "failed"),
        // The kubelet asks for these every minute, for every pod.
        None if rpc == STATS => tracing::debug!(rpc, volume, took_ms, "done"),
        None => tracing::info!(rpc, volume, took_ms, "done"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;
    use crate::proto::csi::volume_capability::{BlockVolume, MountVolume};

    fn capability(access_type: Option<AccessType>) -> VolumeCapability {
        VolumeCapability {
            access_type,
            access_mode: None,
        }
    }

    #[test]
    fn paths_must_be_absolute_and_must_not_climb() {
        assert!(required_path("p", "/a/b".into()).is_ok());
        for bad in ["a/b", "/", "/a/../b", ".."] {
            let error = required_path("p", bad.into()).unwrap_err();
            assert!(matches!(error, NodeError::BadPath { .. }), "{bad}: {error}");
        }
        assert!(matches!(
            required_path("p", String::new()),
            Err(NodeError::MissingField { field: "p" })
        ));
    }

    #[test]
    fn block_devices_and_unknown_mount_options_are_refused() {
        let mount = |flags: &[&str]| {
            let mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            capability(Some(AccessType::Mount(MountVolume {
                mount_flags,
                ..Default::default()
            })))
        };
        check_capability("v", Some(mount(&[]))).unwrap();
        check_capability("v", Some(mount(&["ro"]))).unwrap();
        let block = capability(Some(AccessType::Block(BlockVolume {})));
        let unset = capability(None);
        for bad in [Some(mount(&["ro", "exec"])), Some(block), Some(unset), None] {
            let error = check_capability("v", bad).unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
        }
    }
}
