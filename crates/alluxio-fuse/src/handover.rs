//! What a supervisor hands to a daemon, and what it hears back.
//!
//! One message over a socket that keeps message boundaries: JSON, with four descriptors attached.
//! The daemon answers with one message, when it is ready to serve or cannot.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::options::MountOptions;
use crate::sys;

/// Where a daemon finds its end of the control socket.
pub const CONTROL_FD: i32 = 3;

/// Raised when the layout of the message, the journal or the inode log changes: a daemon refuses a
/// connection that it would misread.
const LAYOUT: u32 = 1;

/// Longest message: options of a few hundred bytes, or an error of [`MAX_REASON_BYTES`].
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// Longest reason that a daemon reports; the rest is in its log.
const MAX_REASON_BYTES: usize = 4 << 10;

/// The state of a connection to the kernel, as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    layout: u32,
    /// How many daemons have served the connection before.
    pub(crate) generation: u32,
    /// Slots of the journal.
    pub(crate) slots: u32,
    /// How the files should look.
    pub(crate) options: MountOptions,
}

/// The state of a connection to the kernel, as descriptors.
#[derive(Debug)]
pub(crate) struct HandoverFds {
    /// `/dev/fuse`, past INIT.
    pub(crate) device: OwnedFd,
    /// The in-flight journal.
    pub(crate) journal: OwnedFd,
    /// The inode log.
    pub(crate) inode_log: OwnedFd,
    /// The client's configuration, secrets included.
    pub(crate) config: OwnedFd,
}

/// What a daemon says to its supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Report {
    /// The client is connected and requests are being served.
    Ready,
    /// The daemon ends.
    Failed {
        /// Object, cause and remedy.
        reason: String,
    },
}

impl Handover {
    /// A hand-over of the present layout.
    pub(crate) fn new(generation: u32, slots: u32, options: MountOptions) -> Self {
        Self {
            layout: LAYOUT,
            generation,
            slots,
            options,
        }
    }

    /// Sends the hand-over to a daemon.
    pub(crate) fn send(&self, control: BorrowedFd<'_>, fds: &HandoverFds) -> io::Result<()> {
        let fds = [&fds.device, &fds.journal, &fds.inode_log, &fds.config].map(AsFd::as_fd);
        sys::send_message(control, &serde_json::to_vec(self)?, &fds)
    }

    /// Receives a hand-over.
    pub(crate) fn receive(control: BorrowedFd<'_>) -> io::Result<(Self, HandoverFds)> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let (length, fds) = sys::receive_message(control, &mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let handover: Self = serde_json::from_slice(&buffer[..length])?;
        if handover.layout != LAYOUT {
            return Err(io::Error::other(format!(
                "supervisor hands over layout {}, this daemon knows {LAYOUT}; run both from one image",
                handover.layout
            )));
        }
        let [device, journal, inode_log, config] = fds
            .try_into()
            .map_err(|_| io::Error::other("a hand-over has four descriptors"))?;
        let fds = HandoverFds {
            device,
            journal,
            inode_log,
            config,
        };
        Ok((handover, fds))
    }
}

impl Report {
    /// A report of failure, cut to a bounded length.
    pub(crate) fn failed(reason: &str) -> Self {
        let end = reason.floor_char_boundary(MAX_REASON_BYTES);
        let reason = reason[..end].to_owned();
        Self::Failed { reason }
    }

    /// Sends the report to the supervisor.
    pub(crate) fn send(&self, control: BorrowedFd<'_>) -> io::Result<()> {
        sys::send_message(control, &serde_json::to_vec(self)?, &[])
    }

    /// Receives a report; none when the daemon closed its end without one.
    pub(crate) fn receive(control: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        match sys::receive_message(control, &mut buffer) {
            Ok((0, _)) => Ok(None),
            Ok((length, _)) => Ok(Some(serde_json::from_slice(&buffer[..length])?)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
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
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn memory(content: &str) -> OwnedFd {
        let mut file = File::from(sys::memfd(c"test").unwrap());
        file.write_all(content.as_bytes()).unwrap();
        file.into()
    }

    fn content(fd: OwnedFd) -> String {
        let mut bytes = [0; 16];
        let length = File::from(fd).read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn descriptors_arrive_in_their_places() {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let sent = Handover::new(3, 64, MountOptions::default());
        let fds = HandoverFds {
            device: memory("device"),
            journal: memory("journal"),
            inode_log: memory("inodes"),
            config: memory("config"),
        };
        sent.send(ours.as_fd(), &fds).unwrap();
        let (received, fds) = Handover::receive(theirs.as_fd()).unwrap();
        assert_eq!(received, sent);
        let contents = [fds.device, fds.journal, fds.inode_log, fds.config].map(content);
        assert_eq!(contents, ["device", "journal", "inodes", "config"]);
    }

    #[test]
    fn a_message_that_is_no_hand_over_is_refused() {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let mut other = Handover::new(0, 64, MountOptions::default());
        other.layout = 99;
        let other = serde_json::to_vec(&other).unwrap();
        let current = serde_json::to_vec(&Handover::new(0, 64, MountOptions::default())).unwrap();
        for message in [&b"{}"[..], &other[..], &current[..]] {
            sys::send_message(ours.as_fd(), message, &[]).unwrap();
            assert!(Handover::receive(theirs.as_fd()).is_err());
        }
        drop(ours);
        let end = Handover::receive(theirs.as_fd()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn reports_are_bounded_and_silence_is_none() {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        Report::failed(&"ä".repeat(9000))
            .send(theirs.as_fd())
            .unwrap();
        let Some(Report::Failed { reason }) = Report::receive(ours.as_fd()).unwrap() else {
            panic!("no failure");
        };
        assert_eq!(reason.len(), MAX_REASON_BYTES);
        Report::Ready.send(theirs.as_fd()).unwrap();
        assert_eq!(Report::receive(ours.as_fd()).unwrap(), Some(Report::Ready));
        drop(theirs);
        assert_eq!(Report::receive(ours.as_fd()).unwrap(), None);
    }
}
