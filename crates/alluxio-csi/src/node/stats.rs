//! How a volume is doing: its usage, and its condition where it does not answer or could do better.
//!
//! A dead mount is an answer and not an error: the kubelet shows the condition, where an error would
//! only be a line in its log.

use std::path::Path;

use crate::error::NodeError;
use crate::host;
use crate::mounter::{MountError, VolumeUsage};
use crate::proto::csi::volume_usage::Unit;
use crate::proto::csi::{self, NodeGetVolumeStatsResponse, VolumeCondition};

use super::{Context, patiently};

/// Usage and condition of the volume mounted at `path`.
pub(crate) async fn stats(
    context: &Context,
    volume: &str,
    path: &Path,
) -> Result<NodeGetVolumeStatsResponse, NodeError> {
    let missing = || NodeError::NotFound {
        volume: volume.to_owned(),
        path: path.to_owned(),
    };
    if !path.is_absolute() {
        return Err(missing());
    }
    let resolved = host::resolve(path, context.patience)
        .await?
        .ok_or_else(missing)?;
    let entry = host::mounted(&resolved, context.patience)
        .await?
        .ok_or_else(missing)?;
    let usage = context.mounter.usage(&resolved);
    let usage = patiently("asking the mount", path, context.patience.syscall, usage).await;
    let remark = context.mounter.remark(&entry.device).await;
    Ok(response(usage, remark))
}

/// The answer for a mount that is there. Zeros mean unknown; the kubelet takes a missing usage for
/// a broken driver.
fn response(
    usage: Result<VolumeUsage, MountError>,
    remark: Option<String>,
) -> NodeGetVolumeStatsResponse {
    let (usage, condition) = match usage {
        Ok(usage) => (
            usage,
            VolumeCondition {
                abnormal: false,
                message: remark.map_or_else(
                    || "the mount answers".to_owned(),
                    |remark| format!("the mount answers; {remark}"),
                ),
            },
        ),
        Err(error) => (
            VolumeUsage::default(),
            VolumeCondition {
                abnormal: true,
                message: format!(
                    "{error}; pods that use the volume must be created anew if this stays"
                ),
            },
        ),
    };
    let entry = |unit: Unit, total, used, available| csi::VolumeUsage {
        unit: unit.into(),
        total: clamp(total),
        used: clamp(used),
        available: clamp(available),
    };
    NodeGetVolumeStatsResponse {
        usage: vec![
            entry(
                Unit::Bytes,
                usage.total_bytes,
                usage.used_bytes,
                usage.available_bytes,
            ),
            entry(
                Unit::Inodes,
                usage.total_inodes,
                usage.used_inodes,
                usage.available_inodes,
            ),
        ],
        volume_condition: Some(condition),
    }
}

/// The interface counts in signed numbers.
fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;
    use crate::mounter::MountErrorKind;

    #[test]
    fn a_dead_mount_is_a_condition_with_unknown_usage() {
        let answer = response(Err(MountError::new(MountErrorKind::Dead, "/m: gone")), None);
        let condition = answer.volume_condition.unwrap();
        assert!(
            condition.abnormal && condition.message.contains("/m: gone"),
            "{condition:?}"
        );
        assert!(answer.usage.iter().all(|usage| usage.total == 0));
        assert_eq!(answer.usage.len(), 2);
    }

    #[test]
    fn usage_is_given_in_bytes_and_inodes() {
        let usage = VolumeUsage {
            total_bytes: 10,
            used_inodes: u64::MAX,
            ..Default::default()
        };
        let answer = response(Ok(usage), None);
        assert_eq!(answer.usage[0].total, 10);
        assert_eq!(answer.usage[1].used, i64::MAX);
        assert!(!answer.volume_condition.unwrap().abnormal);
    }

    #[test]
    fn a_mount_that_could_do_better_is_in_order_and_says_so() {
        let remark = "no passthrough: the kernel is old".to_owned();
        let answer = response(Ok(VolumeUsage::default()), Some(remark));
        let condition = answer.volume_condition.unwrap();
        assert!(!condition.abnormal);
        assert_eq!(
            condition.message,
            "the mount answers; no passthrough: the kernel is old"
        );
    }
}
