//! Publishing: the staged mount is bound into a pod, without devices and set-user-id programs, and
//! read-only unless the dataset can be written and the pod wants to.
//!
//! A bind is two system calls, and the driver may die between them; so a target that is bound
//! already is checked for its flags and not only for being there. What the flags protect from is a
//! volume that shows files of others: a dataset is data.

use std::path::{Path, PathBuf};

use crate::error::NodeError;
use crate::host;
use crate::mounter::{MountError, MountErrorKind};
use crate::mountinfo::MountEntry;
use crate::proto::csi::NodePublishVolumeRequest;
use crate::volume::Volume;

use super::stage::read_record;
use super::{Context, check_capability, patiently, required, required_path};

/// A NodePublishVolume request with every value checked.
pub(crate) struct Publish {
    volume_id: String,
    staging: PathBuf,
    target: PathBuf,
    volume: Volume,
    read_only: bool,
}

impl Publish {
    /// Checks a request.
    pub(crate) fn check(request: NodePublishVolumeRequest) -> Result<Self, NodeError> {
        let volume_id = required("volume_id", request.volume_id)?;
        let target = required_path("target_path", request.target_path)?;
        check_capability(&volume_id, request.volume_capability)?;
        let named = |source| NodeError::Volume {
            volume: volume_id.clone(),
            source,
        };
        // First, since an inline volume has no staging path, and the message should say why.
        let volume = Volume::parse(&request.volume_context).map_err(named)?;
        let staging = required_path("staging_target_path", request.staging_target_path)?;
        Ok(Self {
            volume_id,
            staging,
            target,
            read_only: request.readonly || volume.config.mount.read_only,
            volume,
        })
    }
}

/// Binds a staged volume to a pod's target path.
pub(crate) async fn publish(context: &Context, request: Publish) -> Result<(), NodeError> {
    let _hold = context.calls.target(&request.volume_id, &request.target)?;
    let (staging, mount) = staged(context, &request).await?;
    let target = target_path(context, &request.target).await?;
    match host::mounted(&target, context.patience).await? {
        Some(bound) if bound.device == mount.device => {
            finish(context, &target, &bound, request.read_only).await
        }
        Some(_) => {
            expect_dead(context, &request.volume_id, &target).await?;
            free(context, &request.volume_id, &target).await?;
            bind(context, &staging, &target, request.read_only).await
        }
        None => {
            host::make_folder(&target, context.patience).await?;
            bind(context, &staging, &target, request.read_only).await
        }
    }
}

/// Takes a pod's target path away.
pub(crate) async fn unpublish(
    context: &Context,
    volume: &str,
    target: &Path,
) -> Result<(), NodeError> {
    let _hold = context.calls.target(volume, target)?;
    let Some(target) = host::resolve(target, context.patience).await? else {
        return Ok(());
    };
    free(context, volume, &target).await?;
    host::remove_folder(&target, context.patience).await
}

/// The staging path and what is mounted there, which must be this volume.
async fn staged(context: &Context, request: &Publish) -> Result<(PathBuf, MountEntry), NodeError> {
    let not_staged = |cause| NodeError::NotStaged {
        volume: request.volume_id.clone(),
        path: request.staging.clone(),
        cause,
    };
    let staging = host::resolve(&request.staging, context.patience).await?;
    let staging = staging.ok_or_else(|| not_staged("its folder does not exist"))?;
    let record = read_record(context, &staging).await?;
    let record = record.ok_or_else(|| not_staged("no record of it"))?;
    if record.volume_id != request.volume_id {
        return Err(not_staged("another volume is staged there"));
    }
    if record.fingerprint != request.volume.fingerprint {
        let (volume, path) = (request.volume_id.clone(), staging);
        let difference = "other volume attributes".to_owned();
        return Err(NodeError::StagedDifferently {
            volume,
            path,
            difference,
        });
    }
    let mount = host::mounted(&staging, context.patience).await?;
    Ok((
        staging,
        mount.ok_or_else(|| not_staged("nothing is mounted there"))?,
    ))
}

/// The target path as the kernel writes it. The kubelet makes its folder.
async fn target_path(context: &Context, target: &Path) -> Result<PathBuf, NodeError> {
    host::resolve(target, context.patience)
        .await?
        .ok_or_else(|| NodeError::System {
            operation: "resolving the path",
            path: target.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })
}

/// Binds, or leaves nothing mounted.
async fn bind(
    context: &Context,
    staging: &Path,
    target: &Path,
    read_only: bool,
) -> Result<(), NodeError> {
    host::bind(staging, target, context.patience).await?;
    let restricted = host::restrict(target, read_only, context.patience).await;
    if restricted.is_err()
        && let Err(error) = host::unmount_all(target, context.patience).await
    {
        tracing::warn!(target_path = %target.display(), %error, "a failed bind stays mounted");
    }
    restricted
}

/// Makes sure that a bind that is there already has its flags.
async fn finish(
    context: &Context,
    target: &Path,
    bound: &MountEntry,
    read_only: bool,
) -> Result<(), NodeError> {
    if bound.is_read_only() == read_only {
        Ok(())
    } else {
        host::restrict(target, read_only, context.patience).await
    }
}

/// Another file system at the target may only be what a mount that died left behind.
async fn expect_dead(context: &Context, volume: &str, target: &Path) -> Result<(), NodeError> {
    let usage = host::usage(target, context.patience);
    match patiently("asking the mount", target, context.patience.syscall, usage).await {
        Err(MountError {
            kind: MountErrorKind::Dead,
            ..
        }) => Ok(()),
        Ok(_) | Err(_) => Err(NodeError::PublishedDifferently {
            volume: volume.to_owned(),
            path: target.to_owned(),
        }),
    }
}

async fn free(context: &Context, volume: &str, target: &Path) -> Result<(), NodeError> {
    if host::unmount_all(target, context.patience).await? {
        Ok(())
    } else {
        Err(NodeError::StillMounted {
            volume: volume.to_owned(),
            path: target.to_owned(),
        })
    }
}
