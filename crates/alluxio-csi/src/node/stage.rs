//! Staging: a dataset is mounted once for the node, at a folder of the kubelet's.
//!
//! [`stage`]: look at what is mounted and remembered there -> [`decide`] (pure) -> mount, or leave,
//! or replace a dead mount -> look again. The record is written before the mount is made, so that a
//! driver killed between the two finds a record without a mount, which means nothing, and never a
//! mount without a record.
//!
//! [`unstage`]: the mounter ends what it knows, whatever is left is unmounted by the driver itself,
//! and the record goes. Neither the PersistentVolume nor the dataset need exist any more.

use std::path::{Path, PathBuf};

use crate::error::NodeError;
use crate::host;
use crate::mounter::{MountError, MountErrorKind, VolumeMount};
use crate::proto::csi::NodeStageVolumeRequest;
use crate::staged::StagedRecord;
use crate::volume::Volume;

use super::{Context, check_capability, patiently, required, required_path};

/// A NodeStageVolume request with every value checked.
pub(crate) struct Stage {
    volume_id: String,
    path: PathBuf,
    volume: Volume,
    config: alluxio_config::Config,
}

/// What stands at the staging path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing.
    Free,
    /// A mount that answers.
    Alive,
    /// A mount whose server is gone.
    Dead,
}

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Mount.
    Mount,
    /// Take the dead mount away and mount.
    Replace,
    /// Nothing: it is staged so already.
    Leave,
    /// Refuse: it is staged otherwise.
    Refuse(String),
}

impl Stage {
    /// Checks a request.
    pub(crate) fn check(request: NodeStageVolumeRequest) -> Result<Self, NodeError> {
        let volume_id = required("volume_id", request.volume_id)?;
        let path = required_path("staging_target_path", request.staging_target_path)?;
        check_capability(&volume_id, request.volume_capability)?;
        let named = |source| NodeError::Volume {
            volume: volume_id.clone(),
            source,
        };
        let volume = Volume::parse(&request.volume_context).map_err(named)?;
        let config = volume.config_with(request.secrets).map_err(named)?;
        Ok(Self {
            volume_id,
            path,
            volume,
            config,
        })
    }

    fn record(&self) -> StagedRecord {
        let dataset = self.volume.dataset.to_string();
        StagedRecord::new(&self.volume_id, dataset, &self.volume.fingerprint)
    }
}

/// Mounts a volume at its staging path.
pub(crate) async fn stage(context: &Context, request: Stage) -> Result<(), NodeError> {
    let _hold = context.calls.whole(&request.volume_id)?;
    let path = staging_folder(context, &request.path).await?;
    let standing = standing(context, &request.volume_id, &path).await?;
    let remembered = read_record(context, &path).await?;
    match decide(standing, remembered.as_ref(), &request.record()) {
        Decision::Leave => Ok(()),
        Decision::Refuse(difference) => {
            let volume = request.volume_id;
            Err(NodeError::StagedDifferently {
                volume,
                path,
                difference,
            })
        }
        Decision::Mount => mount(context, request, &path).await,
        Decision::Replace => {
            tracing::warn!(volume = %request.volume_id, path = %path.display(), "replacing a dead mount");
            clear(context, &request.volume_id, &path).await?;
            mount(context, request, &path).await
        }
    }
}

/// Ends the mount at a staging path.
pub(crate) async fn unstage(context: &Context, volume: &str, path: &Path) -> Result<(), NodeError> {
    let _hold = context.calls.whole(volume)?;
    let Some(path) = host::resolve(path, context.patience).await? else {
        return Ok(());
    };
    if let Some(record) = read_record(context, &path)
        .await?
        .filter(|r| r.volume_id != volume)
    {
        // Nothing of this volume is here; taking away another's mount would be worse than nothing.
        tracing::warn!(volume, other = %record.volume_id, path = %path.display(), "not this volume's");
        return Ok(());
    }
    clear(context, volume, &path).await?;
    let at = path.clone();
    host::bounded("removing the record", &path, context.patience, move || {
        StagedRecord::remove(&at)
    })
    .await
}

/// What to do about what stands at the staging path. The record says what the mount is.
fn decide(
    standing: Standing,
    remembered: Option<&StagedRecord>,
    wanted: &StagedRecord,
) -> Decision {
    if standing == Standing::Free {
        return Decision::Mount;
    }
    let Some(remembered) = remembered else {
        return Decision::Refuse("something that this driver did not mount".to_owned());
    };
    if remembered.volume_id != wanted.volume_id {
        return Decision::Refuse(format!("volume {}", remembered.volume_id));
    }
    match standing {
        Standing::Dead => Decision::Replace,
        _ if remembered.fingerprint != wanted.fingerprint => {
            Decision::Refuse("other volume attributes".to_owned())
        }
        _ => Decision::Leave,
    }
}

/// The staging path as the kernel writes it; its folder is made where the caller has not.
async fn staging_folder(context: &Context, path: &Path) -> Result<PathBuf, NodeError> {
    let resolved = host::resolve(path, context.patience).await?;
    let path = resolved.ok_or_else(|| NodeError::System {
        operation: "resolving the path",
        path: path.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    if host::mounted(&path, context.patience).await?.is_none() {
        host::make_folder(&path, context.patience).await?;
    }
    Ok(path)
}

async fn standing(context: &Context, volume: &str, path: &Path) -> Result<Standing, NodeError> {
    if host::mounted(path, context.patience).await?.is_none() {
        return Ok(Standing::Free);
    }
    let usage = context.mounter.usage(path);
    match patiently("asking the mount", path, context.patience.syscall, usage).await {
        Ok(_) => Ok(Standing::Alive),
        Err(MountError {
            kind: MountErrorKind::Dead,
            ..
        }) => Ok(Standing::Dead),
        Err(source) => Err(NodeError::Mount {
            volume: volume.to_owned(),
            source,
        }),
    }
}

async fn mount(context: &Context, request: Stage, path: &Path) -> Result<(), NodeError> {
    let (record, at) = (request.record(), path.to_owned());
    host::bounded("writing the record", path, context.patience, move || {
        record.write(&at)
    })
    .await?;
    let volume = VolumeMount {
        volume_id: request.volume_id,
        dataset: request.volume.dataset,
        mountpoint: path.to_owned(),
        config: request.config,
        options: request.volume.options,
    };
    let mounting = context.mounter.mount(&volume);
    let failed = match patiently("mounting", path, context.patience.mount, mounting).await {
        Ok(()) if host::mounted(path, context.patience).await?.is_some() => return Ok(()),
        Ok(()) => MountError::new(
            MountErrorKind::Internal,
            format!(
                "{}: mounting said it worked and nothing is mounted there",
                path.display()
            ),
        ),
        Err(error) => error,
    };
    undo(context, &volume.volume_id, path).await;
    Err(NodeError::Mount {
        volume: volume.volume_id,
        source: failed,
    })
}

/// Leaves nothing behind of a mount that failed. The failure is what the caller must hear, so what
/// goes wrong here is only logged; the record stays in that case, and the next try starts from it.
async fn undo(context: &Context, volume: &str, path: &Path) {
    let at = path.to_owned();
    let cleared = async {
        clear(context, volume, path).await?;
        host::bounded("removing the record", path, context.patience, move || {
            StagedRecord::remove(&at)
        })
        .await
    };
    if let Err(error) = cleared.await {
        tracing::warn!(volume, path = %path.display(), %error, "a failed mount left something behind");
    }
}

/// Ends whatever is mounted at `path`: first by the mounter, which knows what serves it, then by
/// the driver. The mounter's word is not taken for it.
async fn clear(context: &Context, volume: &str, path: &Path) -> Result<(), NodeError> {
    let unmounting = context.mounter.unmount(path);
    if let Err(error) = patiently("unmounting", path, context.patience.unmount, unmounting).await {
        tracing::warn!(volume, path = %path.display(), %error, "the mounter could not unmount");
    }
    if host::unmount_all(path, context.patience).await? {
        Ok(())
    } else {
        Err(NodeError::StillMounted {
            volume: volume.to_owned(),
            path: path.to_owned(),
        })
    }
}

pub(super) async fn read_record(
    context: &Context,
    path: &Path,
) -> Result<Option<StagedRecord>, NodeError> {
    let at = path.to_owned();
    host::bounded("reading the record", path, context.patience, move || {
        StagedRecord::read(&at)
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    fn record(volume: &str, fingerprint: &str) -> StagedRecord {
        StagedRecord::new(volume, "ns/name".into(), fingerprint)
    }

    #[test]
    fn a_free_path_is_mounted_whatever_is_remembered() {
        let wanted = record("v", "a");
        assert_eq!(decide(Standing::Free, None, &wanted), Decision::Mount);
        let stale = record("other", "b");
        assert_eq!(
            decide(Standing::Free, Some(&stale), &wanted),
            Decision::Mount
        );
    }

    #[test]
    fn the_same_volume_staged_again_is_left() {
        let wanted = record("v", "a");
        assert_eq!(
            decide(Standing::Alive, Some(&wanted.clone()), &wanted),
            Decision::Leave
        );
    }

    #[test]
    fn a_dead_mount_is_replaced_even_with_other_attributes() {
        let wanted = record("v", "a");
        let old = record("v", "b");
        assert_eq!(
            decide(Standing::Dead, Some(&old), &wanted),
            Decision::Replace
        );
    }

    #[test]
    fn other_attributes_other_volumes_and_strangers_are_refused() {
        let wanted = record("v", "a");
        for (standing, remembered) in [
            (Standing::Alive, Some(record("v", "b"))),
            (Standing::Alive, Some(record("w", "a"))),
            (Standing::Dead, Some(record("w", "a"))),
            (Standing::Alive, None),
            (Standing::Dead, None),
        ] {
            let decision = decide(standing, remembered.as_ref(), &wanted);
            assert!(
                matches!(decision, Decision::Refuse(_)),
                "{standing:?} {remembered:?}"
            );
        }
    }
}
