//! A unix socket that only root may use, at a path where an old one may lie.
//!
//! The socket is bound under a hidden name, given its mode there, and renamed into place: nobody can
//! connect before the mode is set, the file of a driver that died is replaced in the same step, and
//! the kubelet (which ignores hidden names) sees one finished socket appear.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A listening socket whose file goes when it is dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: Option<UnixListener>,
    path: PathBuf,
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("socket {0}: another process serves it; stop that one, or choose another path")]
    InUse(PathBuf),
    /// The path names no file in a folder.
    #[error("socket {0}: not a path of a file; give the socket a name")]
    NoName(PathBuf),
    /// The system refused.
    #[error("socket {path}: {step} failed: {source}; check that its folder exists and is ours")]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl PrivateSocket {
    /// Listens at `path` with mode 0600. Blocks for the moment that a few file operations take.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        if UnixStream::connect(path).is_ok() {
            return Err(SocketError::InUse(path.to_owned()));
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(SocketError::NoName(path.to_owned()));
        };
        let hidden = folder.join(format!(".{}", name.to_string_lossy()));
        let failed = |step| {
            move |source| SocketError::System {
                path: path.to_owned(),
                step,
                source,
            }
        };
        match fs::remove_file(&hidden) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(failed("removing a leftover"))?,
        }
        let listener = UnixListener::bind(&hidden).map_err(failed("binding"))?;
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))
            .map_err(failed("setting its mode"))?;
        fs::rename(&hidden, path).map_err(failed("moving it into place"))?;
        Ok(Self {
            listener: Some(listener),
            path: path.to_owned(),
        })
    }

    /// The listener; the file stays until this value is dropped.
    pub(crate) fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "socket was gone already");
        }
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

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        // A driver that was killed leaves its file: std's listener does not remove it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = PrivateSocket::bind(&path).unwrap();
        assert!(matches!(
            PrivateSocket::bind(&path),
            Err(SocketError::InUse(_))
        ));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(live);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_missing_folder_is_named() {
        let error = PrivateSocket::bind(Path::new("/nonexistent/csi.sock")).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/csi.sock"),
            "{error}"
        );
    }
}
