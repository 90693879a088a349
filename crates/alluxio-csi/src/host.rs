//! The node's file system, as far as the driver touches it, and never without a deadline.
//!
//! A system call on a hung FUSE mount may not return until somebody aborts the connection, and no
//! signal of ours can make it. So each runs on a blocking thread, is waited for with patience, and
//! is then left behind. Threads left behind are counted: past a bound, further calls are refused at
//! once, and a node with hung mounts still answers for the healthy ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};
use tokio::sync::Semaphore;

use crate::error::NodeError;
use crate::mounter::{MountError, MountErrorKind, VolumeUsage};
use crate::mountinfo::{MountEntry, MountTable};

/// How many system calls may run (or hang) at once: well below tokio's 512 blocking threads, well
/// above what one kubelet asks at a time.
const MAX_CONCURRENT_SYSCALLS: usize = 64;

/// How many mounts stacked on one path are taken off: more than any recovery gone wrong leaves,
/// and an end to the loop should something mount as fast as we unmount.
const MAX_STACKED_MOUNTS: usize = 16;

static SYSCALLS: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(MAX_CONCURRENT_SYSCALLS)));

/// How long things are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one system call. A healthy one takes milliseconds, a starved node seconds.
    pub syscall: Duration,
    /// For the mounter to mount; below the kubelet's own limit of two minutes, so that the answer
    /// says what happened.
    pub mount: Duration,
    /// For the mounter to unmount, after which the driver detaches the mount itself.
    pub unmount: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            syscall: Duration::from_secs(10),
            mount: Duration::from_secs(90),
            unmount: Duration::from_secs(30),
        }
    }
}

/// Runs `call` on a blocking thread and waits for it as long as `patience` says.
pub(crate) async fn bounded<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    patience: Patience,
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, NodeError> {
    let Ok(permit) = Arc::clone(&SYSCALLS).try_acquire_owned() else {
        let (path, stuck) = (path.to_owned(), MAX_CONCURRENT_SYSCALLS);
        return Err(NodeError::TooManyStuck {
            operation,
            path,
            stuck,
        });
    };
    let running = tokio::task::spawn_blocking(move || {
        let result = call();
        drop(permit);
        result
    });
    match tokio::time::timeout(patience.syscall, running).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(source))) => Err(NodeError::System {
            operation,
            path: path.to_owned(),
            source,
        }),
        Ok(Err(lost)) => Err(NodeError::Lost {
            cause: lost.to_string(),
        }),
        Err(_) => {
            let seconds = patience.syscall.as_secs_f64();
            Err(NodeError::TimedOut {
                operation,
                path: path.to_owned(),
                seconds,
            })
        }
    }
}

/// The path as the kernel's mount table writes it: its folder without symbolic links, its last
/// component untouched, since that may be a dead mount. `None` where the folder does not exist.
pub(crate) async fn resolve(path: &Path, patience: Patience) -> Result<Option<PathBuf>, NodeError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Some(path.to_owned()));
    };
    let (parent, name) = (parent.to_owned(), name.to_owned());
    bounded("resolving the path", path, patience, move || {
        match parent.canonicalize() {
            Ok(parent) => Ok(Some(parent.join(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// The mount that is visible at `path` (as [`resolve`] gives it).
pub(crate) async fn mounted(
    path: &Path,
    patience: Patience,
) -> Result<Option<MountEntry>, NodeError> {
    let wanted = path.to_owned();
    bounded("reading the mount table", path, patience, move || {
        Ok(MountTable::read()?.at(&wanted).cloned())
    })
    .await
}

/// Makes the folder `path` if it is missing. It must not be a mount.
pub(crate) async fn make_folder(path: &Path, patience: Patience) -> Result<(), NodeError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let folder = path.to_owned();
    bounded("creating the folder", path, patience, move || {
        // As the kubelet makes its own: nobody but root and its group looks in.
        match std::fs::DirBuilder::new().mode(0o750).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            other => other,
        }
    })
    .await
}

/// Removes the empty folder `path`; a missing one is no error. It must not be a mount.
pub(crate) async fn remove_folder(path: &Path, patience: Patience) -> Result<(), NodeError> {
    let folder = path.to_owned();
    bounded(
        "removing the folder",
        path,
        patience,
        move || match std::fs::remove_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
    )
    .await
}

/// Binds the mount at `source` to `target`.
pub(crate) async fn bind(
    source: &Path,
    target: &Path,
    patience: Patience,
) -> Result<(), NodeError> {
    let (from, to) = (source.to_owned(), target.to_owned());
    bounded("binding the mount", target, patience, move || {
        Ok(rustix::mount::mount_bind(&from, &to)?)
    })
    .await
}

/// Makes the bind at `target` one without devices and set-user-id programs, and read-only where it is
/// asked for. The kernel ignores these flags while binding, hence the second call.
pub(crate) async fn restrict(
    target: &Path,
    read_only: bool,
    patience: Patience,
) -> Result<(), NodeError> {
    let to = target.to_owned();
    bounded("restricting the bind", target, patience, move || {
        let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        flags.set(MountFlags::RDONLY, read_only);
        Ok(rustix::mount::mount_remount(&to, flags, c"")?)
    })
    .await
}

/// Takes every mount off `path` and returns whether the path is free. A mount that is busy or that
/// hangs is detached: it leaves the tree at once and ends when its last user does.
pub(crate) async fn unmount_all(path: &Path, patience: Patience) -> Result<bool, NodeError> {
    for _ in 0..MAX_STACKED_MOUNTS {
        if mounted(path, patience).await?.is_none() {
            return Ok(true);
        }
        if let Err(error) = unmount_once(path, UnmountFlags::empty(), patience).await {
            tracing::warn!(path = %path.display(), %error, "unmounting failed, detaching");
            unmount_once(path, UnmountFlags::DETACH, patience).await?;
        }
    }
    Ok(mounted(path, patience).await?.is_none())
}

async fn unmount_once(
    path: &Path,
    flags: UnmountFlags,
    patience: Patience,
) -> Result<(), NodeError> {
    let at = path.to_owned();
    bounded("unmounting", path, patience, move || {
        match rustix::mount::unmount(&at, flags | UnmountFlags::NOFOLLOW) {
            // Not a mount, or gone: somebody else was faster, and the table is read again anyway.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// How full the file system at `path` is, as statvfs tells it.
pub(crate) async fn usage(path: &Path, patience: Patience) -> Result<VolumeUsage, MountError> {
    let at = path.to_owned();
    let answer = bounded("statvfs", path, patience, move || {
        Ok(rustix::fs::statvfs(&at)?)
    })
    .await;
    answer.map(|stat| usage_of(&stat)).map_err(|error| {
        let kind = match &error {
            NodeError::TimedOut { .. } | NodeError::TooManyStuck { .. } => MountErrorKind::TimedOut,
            NodeError::System { source, .. } if is_dead(source) => MountErrorKind::Dead,
            _ => MountErrorKind::Internal,
        };
        MountError::new(kind, error.to_string())
    })
}

fn usage_of(stat: &rustix::fs::StatVfs) -> VolumeUsage {
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    VolumeUsage {
        total_bytes: bytes(stat.f_blocks),
        used_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        available_bytes: bytes(stat.f_bavail),
        total_inodes: stat.f_files,
        used_inodes: stat.f_files.saturating_sub(stat.f_ffree),
        available_inodes: stat.f_favail,
    }
}

/// Whether the kernel says that nobody serves this mount any more: ENOTCONN after the connection
/// broke, ECONNABORTED while it breaks, ESTALE and EIO from a file system that gave up.
fn is_dead(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error).is_some_and(|errno| {
        matches!(
            errno,
            Errno::NOTCONN | Errno::CONNABORTED | Errno::STALE | Errno::IO
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[tokio::test]
    async fn a_call_that_does_not_return_is_left_behind() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let patience = Patience {
            syscall: Duration::from_millis(20),
            ..Patience::default()
        };
        let result = bounded("waiting", Path::new("/m"), patience, move || {
            let _ = held.recv();
            Ok(())
        })
        .await;
        assert!(
            matches!(result, Err(NodeError::TimedOut { .. })),
            "{result:?}"
        );
        drop(release);
    }

    #[tokio::test]
    async fn resolving_follows_links_of_the_folder_only() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let patience = Patience::default();
        let resolved = resolve(&dir.path().join("link/target"), patience)
            .await
            .unwrap();
        assert_eq!(resolved, Some(real.join("target")));
        let missing = resolve(&dir.path().join("absent/target"), patience)
            .await
            .unwrap();
        assert_eq!(missing, None);
    }

    #[tokio::test]
    async fn usage_of_a_real_file_system_adds_up() {
        let usage = usage(Path::new("/"), Patience::default()).await.unwrap();
        assert!(usage.total_bytes > 0);
        assert!(usage.used_bytes <= usage.total_bytes);
    }
}
