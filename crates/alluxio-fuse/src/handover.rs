//! What a supervisor hands to a daemon, and what it hears back.
//!
//! One message over a socket that keeps message boundaries: JSON, with descriptors attached. The
//! daemon answers with one message, when it is ready to serve or cannot. When its supervisor is gone,
//! the daemon hands the same message to the next one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::options::MountOptions;
use crate::{journal, sys};

/// Where a daemon finds its end of the control socket.
pub const CONTROL_FD: i32 = 3;

/// Raised when the layout of the message, the journal or the inode log changes: a daemon refuses a
/// connection that it would misread.
const LAYOUT: u32 = 4;

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    /// Whether the daemon before was ended by somebody: then the requests that it leaves are hardly
    /// the cause.
    pub(crate) was_predecessor_killed: bool,
    /// Slots of the journal.
    pub(crate) journal: journal::Size,
    /// How the files should look.
    pub(crate) options: MountOptions,
    /// Where the mount is: for a supervisor that finds it.
    pub(crate) mountpoint: PathBuf,
    /// The device number of the mount, `major:minor`, by which it is told from a later one there.
    pub(crate) device_number: String,
    /// Whether INIT agreed that reads may go to registered files.
    pub(crate) has_passthrough: bool,
    /// The version of the daemon's program, as it says itself when it hands back.
    pub(crate) version: String,
    /// Whether the daemon should get ready and then wait for [`Order::Serve`]: another one serves.
    pub(crate) standby: bool,
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
    /// The table of open files.
    pub(crate) opens: OwnedFd,
    /// The channel to the broker of backing files, both ends of it: daemons come and go at the one
    /// and supervisors at the other.
    pub(crate) broker: BrokerFds,
    /// Where the daemon meets its next supervisor; none where a mount ends with its supervisor.
    pub(crate) listener: Option<OwnedFd>,
}

/// Both ends of the channel to the broker.
#[derive(Debug)]
pub(crate) struct BrokerFds {
    /// Where daemons ask.
    pub(crate) asking: OwnedFd,
    /// Where supervisors answer.
    pub(crate) answering: OwnedFd,
}

/// What a supervisor gets from the daemon of a predecessor.
#[derive(Debug)]
pub(crate) struct HandBack {
    /// The state as data.
    pub(crate) handover: Handover,
    /// The state as descriptors.
    pub(crate) fds: HandoverFds,
    /// The daemon's process, where the kernel could say.
    pub(crate) sender: Option<u32>,
    /// The daemon's process by its own word.
    pub(crate) pidfd: OwnedFd,
}

/// What a supervisor says to its daemon after the hand-over.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Order {
    /// A standby begins to serve: its predecessor has ended.
    Serve,
    /// Take no more requests, answer those in hand, end: a successor waits.
    Drain,
    /// End at once.
    End,
}

/// What a daemon says to its supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Report {
    /// The client is connected, and the daemon waits for [`Order::Serve`].
    Standby,
    /// The client is connected and requests are being served.
    Ready,
    /// The daemon ends.
    Failed {
        /// Object, cause and remedy.
        reason: String,
    },
}

impl Handover {
    /// A hand-over of the present layout, for the first daemon of a mount.
    pub(crate) fn new(
        journal: journal::Size,
        options: MountOptions,
        mountpoint: PathBuf,
        device_number: String,
        has_passthrough: bool,
    ) -> Self {
        Self {
            layout: LAYOUT,
            generation: 0,
            was_predecessor_killed: true,
            journal,
            options,
            mountpoint,
            device_number,
            has_passthrough,
            version: VERSION.to_owned(),
            standby: false,
        }
    }

    /// Sends the hand-over to a daemon.
    pub(crate) fn send(&self, control: BorrowedFd<'_>, fds: &HandoverFds) -> io::Result<()> {
        sys::send_message(control, &serde_json::to_vec(self)?, &fds.borrow())
    }

    /// Hands everything back to a supervisor, with the descriptor of this process.
    pub(crate) fn send_back(
        &self,
        control: BorrowedFd<'_>,
        fds: &HandoverFds,
        pidfd: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut fds = fds.borrow();
        fds.push(pidfd);
        let told = Self {
            version: VERSION.to_owned(),
            standby: false,
            ..self.clone()
        };
        sys::send_message(control, &serde_json::to_vec(&told)?, &fds)
    }

    /// Receives a hand-over.
    pub(crate) fn receive(control: BorrowedFd<'_>) -> io::Result<(Self, HandoverFds)> {
        let (handover, fds, _) = Self::receive_any(control)?;
        Ok((handover, HandoverFds::from_received(fds)?))
    }

    /// Receives what a daemon hands back; none when nobody answered.
    pub(crate) fn receive_back(control: BorrowedFd<'_>) -> io::Result<HandBack> {
        let (handover, mut fds, sender) = Self::receive_any(control)?;
        let pidfd = fds.pop();
        let pidfd = pidfd.ok_or_else(|| io::Error::other("no descriptor came back"))?;
        Ok(HandBack {
            handover,
            fds: HandoverFds::from_received(fds)?,
            sender,
            pidfd,
        })
    }

    fn receive_any(control: BorrowedFd<'_>) -> io::Result<(Self, Vec<OwnedFd>, Option<u32>)> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let received = sys::receive_message_of(control, &mut buffer)?;
        if received.length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Looked at first: another layout may not even be read as this one.
        let Layout { layout } = serde_json::from_slice(&buffer[..received.length])?;
        if layout != LAYOUT {
            return Err(io::Error::other(format!(
                "the mount is handed over in layout {layout}, this program knows {LAYOUT}; run \
                 supervisor and daemon from one image"
            )));
        }
        let handover = serde_json::from_slice(&buffer[..received.length])?;
        Ok((handover, received.fds, received.sender))
    }
}

/// The part of a hand-over that every version has.
#[derive(Deserialize)]
struct Layout {
    layout: u32,
}

impl HandoverFds {
    fn borrow(&self) -> Vec<BorrowedFd<'_>> {
        let always = [
            &self.device,
            &self.journal,
            &self.inode_log,
            &self.config,
            &self.opens,
            &self.broker.asking,
            &self.broker.answering,
        ];
        let all = always.into_iter().chain(&self.listener);
        all.map(AsFd::as_fd).collect()
    }

    fn from_received(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || {
            fds.next()
                .ok_or_else(|| io::Error::other("a hand-over has at least seven descriptors"))
        };
        Ok(Self {
            device: next()?,
            journal: next()?,
            inode_log: next()?,
            config: next()?,
            opens: next()?,
            broker: BrokerFds {
                asking: next()?,
                answering: next()?,
            },
            listener: fds.next(),
        })
    }

    /// Further descriptors of the same things.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            device: self.device.try_clone()?,
            journal: self.journal.try_clone()?,
            inode_log: self.inode_log.try_clone()?,
            config: self.config.try_clone()?,
            opens: self.opens.try_clone()?,
            broker: BrokerFds {
                asking: self.broker.asking.try_clone()?,
                answering: self.broker.answering.try_clone()?,
            },
            listener: self.listener.as_ref().map(OwnedFd::try_clone).transpose()?,
        })
    }
}

/// What is said over the control socket after the hand-over, one message each.
pub(crate) trait Word: Serialize + DeserializeOwned {
    /// Says it.
    fn send(&self, control: BorrowedFd<'_>) -> io::Result<()> {
        sys::send_message(control, &serde_json::to_vec(self)?, &[])
    }

    /// Waits for the next one; none when the other side is gone.
    fn receive(control: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        match sys::receive_message(control, &mut buffer) {
            Ok((0, _)) => Ok(None),
            Ok((length, _)) => Ok(Some(serde_json::from_slice(&buffer[..length])?)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Word for Order {}
impl Word for Report {}

impl Report {
    /// A report of failure, cut to a bounded length.
    pub(crate) fn failed(reason: &str) -> Self {
        let end = reason.floor_char_boundary(MAX_REASON_BYTES);
        let reason = reason[..end].to_owned();
        Self::Failed { reason }
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
        let sent = handover();
        for listener in [None, Some("listener")] {
            let fds = all_fds(listener);
            sent.send(ours.as_fd(), &fds).unwrap();
            let (received, fds) = Handover::receive(theirs.as_fd()).unwrap();
            assert_eq!(received, sent);
            assert_eq!(fds.listener.map(content).as_deref(), listener);
            let contents = [
                fds.device,
                fds.journal,
                fds.inode_log,
                fds.config,
                fds.opens,
                fds.broker.asking,
                fds.broker.answering,
            ];
            let names = contents.map(content);
            let places = [
                "device",
                "journal",
                "inodes",
                "config",
                "opens",
                "asking",
                "answering",
            ];
            assert_eq!(names, places);
        }
    }

    fn all_fds(listener: Option<&str>) -> HandoverFds {
        HandoverFds {
            device: memory("device"),
            journal: memory("journal"),
            inode_log: memory("inodes"),
            config: memory("config"),
            opens: memory("opens"),
            broker: BrokerFds {
                asking: memory("asking"),
                answering: memory("answering"),
            },
            listener: listener.map(memory),
        }
    }

    #[test]
    fn what_is_handed_back_is_what_was_handed_over_and_who_does_it() {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let mut sent = handover();
        sent.standby = true;
        let fds = all_fds(Some("listener"));
        let process = memory("process");
        sent.send_back(theirs.as_fd(), &fds, process.as_fd())
            .unwrap();
        let back = Handover::receive_back(ours.as_fd()).unwrap();
        assert_eq!(back.handover, handover());
        assert_eq!(content(back.pidfd), "process");
        assert_eq!(content(back.fds.listener.unwrap()), "listener");
    }

    fn handover() -> Handover {
        let (options, at) = (MountOptions::default(), PathBuf::from("/mnt"));
        Handover::new(
            journal::Size::for_requests(8192),
            options,
            at,
            "0:35".to_owned(),
            true,
        )
    }

    #[test]
    fn a_message_that_is_no_hand_over_is_refused() {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let mut other = handover();
        other.layout = 99;
        let other = serde_json::to_vec(&other).unwrap();
        let current = serde_json::to_vec(&handover()).unwrap();
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
