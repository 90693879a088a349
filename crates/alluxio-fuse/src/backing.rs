//! The broker: what the kernel does for a supervisor and not, or not safely, for a daemon.
//!
//! It registers the disk cache's files with the kernel.
//!
//! In passthrough the kernel reads a file of the cache by itself. It takes such a file only from a
//! process with `CAP_SYS_ADMIN` in the initial user namespace, which daemons never have, so a daemon
//! sends the open file and the inode, and the supervisor does the one call. Numbers of registered
//! files belong to the connection and outlive both processes; they are noted in the table of open
//! files (`opens.rs`), so nothing is registered twice.
//!
//! The kernel opens a registered file again with the supervisor's rights. So that a daemon cannot
//! reach what it may not open itself, only a regular file that is not root's is taken.
//!
//! And it makes the kernel forget names. The kernel takes a directory's lock for it, which may be held
//! by an application that waits for the daemon; a daemon killed in that call could not end, its
//! successor would not begin, and nobody would ever answer the application.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;

use serde::{Deserialize, Serialize};

use crate::handover::HandoverFds;
use crate::{opens, protocol, sys};

/// The inode number under which a daemon tries whether files can be registered at all.
pub(crate) const TRIAL_INODE: u64 = 0;

/// A message is some tens of bytes of JSON, and a name of at most 255 bytes, escaped, or as many numbers
/// of inodes as there are descriptors.
pub(crate) const MAX_MESSAGE_BYTES: usize = 2048;

/// Names that wait to be forgotten. One that finds no room is believed until its time is over, as
/// all the others are.
const MAX_FORGETTING: usize = 64;

/// A question or an answer. Both ends of the channel outlive who sits there, so an answer names its
/// question: one that its asker no longer waited for is not taken for another's.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbered<M> {
    /// Which question.
    pub(crate) number: u64,
    /// What is said.
    pub(crate) message: M,
}

/// What a daemon asks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Ask {
    /// Register the file that comes with the message as what backs an inode.
    Open {
        /// The inode.
        inode: u64,
    },
    /// Register the files that come with the message, in this order. What became of each is in the
    /// table of open files.
    OpenAll {
        /// The inodes.
        inodes: Vec<u64>,
    },
    /// Take an inode's backing file away; openings that use it go on.
    Close {
        /// The inode.
        inode: u64,
    },
    /// Let the kernel forget a name. It has no answer.
    Forget(Entry),
}

/// A name in a directory.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The directory's inode.
    pub(crate) parent: u64,
    /// The name.
    pub(crate) name: String,
}

/// What the broker answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// The file is registered, now or before, under this number.
    Opened {
        /// The kernel's number for it.
        id: u32,
    },
    /// All were tried.
    Tried,
    /// The inode has no backing file.
    Closed,
    /// The kernel, or the broker, does not take it.
    Refused {
        /// Why.
        errno: i32,
    },
}

/// Whether the kernel reads wholly cached files past the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Passthrough {
    /// It was not tried: the mount has no disk cache.
    #[default]
    Untried,
    /// It does.
    On,
    /// It cannot, and the daemon serves every read.
    Off {
        /// Why, and what would change it.
        reason: String,
    },
}

impl Passthrough {
    /// What a table of open files says about it.
    pub(crate) fn of(table: &File) -> Self {
        match opens::outcome(table) {
            Ok(0) => Self::Untried,
            Ok(ON) => Self::On,
            Ok(off) => {
                let errno = i32::try_from(off - OFF).unwrap_or_default();
                let reason = reason(errno);
                Self::Off { reason }
            }
            Err(error) => Self::Off {
                reason: format!("the table of open files cannot be read: {error}"),
            },
        }
    }
}

/// The outcome of a trial that went well; of any other it is [`OFF`] and the error number.
const ON: u32 = 1;
const OFF: u32 = 2;

/// A connection's backing files.
pub(crate) struct BackingFiles {
    device: OwnedFd,
    table: File,
    /// Whether INIT agreed on passthrough.
    is_agreed: bool,
    /// To the thread that forgets.
    forgetting: mpsc::SyncSender<Entry>,
}

impl BackingFiles {
    /// Serves the daemons of a mount, from a thread of its own that ends when all of them and their
    /// supervisor have let go of the channel.
    pub(crate) fn serve(fds: &HandoverFds, is_agreed: bool) -> io::Result<()> {
        let (forgetting, entries) = mpsc::sync_channel(MAX_FORGETTING);
        let device = File::from(fds.device.try_clone()?);
        // Of its own, since it may wait for an application: registering must not wait with it.
        std::thread::Builder::new()
            .name("forget".to_owned())
            .spawn(move || forget(&device, &entries))?;
        let files = Self {
            device: fds.device.try_clone()?,
            table: fds.opens.try_clone()?.into(),
            is_agreed,
            forgetting,
        };
        let channel = fds.broker.answering.try_clone()?;
        let serve = move || {
            if let Err(error) = files.answer(channel.as_fd()) {
                tracing::warn!(%error, "the broker of backing files ends");
            }
        };
        std::thread::Builder::new()
            .name("broker".to_owned())
            .spawn(serve)
            .map(drop)
    }

    fn answer(&self, channel: BorrowedFd<'_>) -> io::Result<()> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        loop {
            let (length, fds) = match sys::receive_message(channel, &mut buffer) {
                Ok((0, _)) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                received => received?,
            };
            let Numbered { number, message } = serde_json::from_slice(&buffer[..length])?;
            let answer = match serde_json::from_value(message) {
                // Of a daemon that is newer than its supervisor; it must do without.
                Err(_) => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
                Ok(Ask::Open { inode }) => self.answer_open(inode, fds.into_iter().next()),
                Ok(Ask::OpenAll { inodes }) => {
                    for (inode, file) in inodes.into_iter().zip(fds) {
                        let _in_the_table = self.open(inode, &file.into());
                    }
                    Ok(Answer::Tried)
                }
                Ok(Ask::Close { inode }) => self.close(inode).map(|()| Answer::Closed),
                Ok(Ask::Forget(entry)) => {
                    let _no_room = self.forgetting.try_send(entry);
                    continue;
                }
            };
            let message = answer.unwrap_or_else(|error| Answer::Refused {
                errno: error.raw_os_error().unwrap_or(libc::EINVAL),
            });
            let answer = serde_json::to_vec(&Numbered { number, message })?;
            match sys::send_message(channel, &answer, &[]) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                sent => sent?,
            }
        }
    }

    fn answer_open(&self, inode: u64, file: Option<OwnedFd>) -> io::Result<Answer> {
        let file = file.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        let opened = self.open(inode, &file.into());
        if inode == TRIAL_INODE {
            let outcome = opened.as_ref().map_or_else(
                |error| OFF + error.raw_os_error().map_or(0, i32::unsigned_abs),
                |_| ON,
            );
            opens::set_outcome(&self.table, outcome)?;
        }
        opened.map(|id| Answer::Opened { id })
    }

    fn open(&self, inode: u64, file: &File) -> io::Result<u32> {
        match opens::backing_id(&self.table, inode)? {
            0 => {}
            id => return Ok(id),
        }
        if !self.is_agreed {
            return Err(io::Error::from_raw_os_error(libc::ENOTTY));
        }
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() == 0 {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let id = sys::backing_open(self.device.as_fd(), file.as_fd())?;
        if let Err(error) = opens::set_backing_id(&self.table, inode, id) {
            // Nobody would ever find it again.
            sys::backing_close(self.device.as_fd(), id)?;
            return Err(error);
        }
        Ok(id)
    }

    /// First off the table, then closed: a number in the table is always one of the kernel's.
    fn close(&self, inode: u64) -> io::Result<()> {
        let id = opens::backing_id(&self.table, inode)?;
        if id == 0 {
            return Ok(());
        }
        opens::set_backing_id(&self.table, inode, 0)?;
        sys::backing_close(self.device.as_fd(), id)
    }
}

/// Makes the kernel forget names, until the broker has ended.
fn forget(mut device: &File, entries: &mpsc::Receiver<Entry>) {
    for Entry { parent, name } in entries {
        // A name that the kernel does not have is forgotten already.
        let _forgotten = device.write(&protocol::invalid_entry(parent, &name));
    }
}

/// Why a trial failed, for people.
pub(crate) fn reason(errno: i32) -> String {
    match errno {
        libc::ENOTTY => "this kernel has no FUSE passthrough; Linux 6.9 brings it".to_owned(),
        libc::EPERM => "the process that mounts has no CAP_SYS_ADMIN in the initial user \
                        namespace"
            .to_owned(),
        libc::EACCES => {
            "the cache's files belong to root; give the daemon a user of its own".to_owned()
        }
        libc::ELOOP => "the disk cache lies on a stacked file system such as overlayfs; put it \
                        on a volume of its own"
            .to_owned(),
        libc::EOPNOTSUPP | libc::EINVAL => {
            "the disk cache's file system cannot back a mount; ext4, xfs and tmpfs can".to_owned()
        }
        errno => format!(
            "files cannot be registered with the kernel: {}",
            io::Error::from_raw_os_error(errno)
        ),
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

    fn files(is_agreed: bool) -> (OwnedFd, BackingFiles, File) {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let table = opens::create().unwrap();
        let copy = File::from(table.try_clone().unwrap());
        let files = |table: OwnedFd| BackingFiles {
            // A file that is no FUSE device: the kernel refuses the call.
            device: tempfile::tempfile().unwrap().into(),
            table: table.into(),
            is_agreed,
            forgetting: mpsc::sync_channel(MAX_FORGETTING).0,
        };
        let serving = files(table.try_clone().unwrap());
        std::thread::spawn(move || serving.answer(theirs.as_fd()));
        (ours, files(table), copy)
    }

    fn ask(channel: &OwnedFd, ask: Ask, file: Option<&File>) -> Answer {
        let fds: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
        let ask = Numbered {
            number: 7,
            message: ask,
        };
        sys::send_message(channel.as_fd(), &serde_json::to_vec(&ask).unwrap(), &fds).unwrap();
        heard(channel)
    }

    fn heard(channel: &OwnedFd) -> Answer {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let (length, _) = sys::receive_message(channel.as_fd(), &mut buffer).unwrap();
        let answer: Numbered<Answer> = serde_json::from_slice(&buffer[..length]).unwrap();
        assert_eq!(answer.number, 7);
        answer.message
    }

    #[test]
    fn what_is_registered_already_is_told_and_not_registered_again() {
        let (ours, _, table) = files(true);
        opens::set_backing_id(&table, 5, 77).unwrap();
        let file = tempfile::tempfile().unwrap();
        let opened = ask(&ours, Ask::Open { inode: 5 }, Some(&file));
        assert_eq!(opened, Answer::Opened { id: 77 });
        assert_eq!(ask(&ours, Ask::Close { inode: 6 }, None), Answer::Closed);
        // The kernel refuses, and the number is gone all the same.
        let closed = ask(&ours, Ask::Close { inode: 5 }, None);
        assert!(matches!(closed, Answer::Refused { .. }), "{closed:?}");
        assert_eq!(opens::backing_id(&table, 5).unwrap(), 0);
        assert_eq!(ask(&ours, Ask::Close { inode: 5 }, None), Answer::Closed);
    }

    #[test]
    fn several_files_are_tried_and_the_table_tells_what_became_of_them() {
        let (ours, _, table) = files(true);
        opens::set_backing_id(&table, 5, 77).unwrap();
        let file = tempfile::tempfile().unwrap();
        let ask_all = Numbered {
            number: 7,
            message: Ask::OpenAll { inodes: vec![5, 6] },
        };
        let message = serde_json::to_vec(&ask_all).unwrap();
        sys::send_message(ours.as_fd(), &message, &[file.as_fd(), file.as_fd()]).unwrap();
        assert_eq!(heard(&ours), Answer::Tried);
        // The kernel refuses the second one.
        let ids = [5, 6].map(|inode| opens::backing_id(&table, inode).unwrap());
        assert_eq!(ids, [77, 0]);
    }

    #[test]
    fn the_most_files_fit_one_question() {
        let inodes = vec![u64::MAX; sys::MAX_FDS_PER_MESSAGE];
        let ask_all = Numbered {
            number: u64::MAX,
            message: Ask::OpenAll { inodes },
        };
        assert!(serde_json::to_vec(&ask_all).unwrap().len() <= MAX_MESSAGE_BYTES);
    }

    #[test]
    fn a_question_of_a_later_version_is_refused_and_the_broker_goes_on() {
        let (ours, _, _table) = files(true);
        let later = br#"{"number":7,"message":{"paint":{"inode":5}}}"#;
        sys::send_message(ours.as_fd(), later, &[]).unwrap();
        let refused = Answer::Refused {
            errno: libc::ENOSYS,
        };
        assert_eq!(heard(&ours), refused);
        assert_eq!(ask(&ours, Ask::Close { inode: 6 }, None), Answer::Closed);
    }

    #[test]
    fn a_trial_that_fails_says_why_to_whoever_has_the_table() {
        let (ours, _, table) = files(false);
        assert_eq!(Passthrough::of(&table), Passthrough::Untried);
        let trial = || Ask::Open { inode: TRIAL_INODE };
        let no_file = ask(&ours, trial(), None);
        assert_eq!(no_file, Answer::Refused { errno: libc::EBADF });
        let file = tempfile::tempfile().unwrap();
        let refused = ask(&ours, trial(), Some(&file));
        assert_eq!(
            refused,
            Answer::Refused {
                errno: libc::ENOTTY
            }
        );
        let Passthrough::Off { reason } = Passthrough::of(&table) else {
            panic!("{:?}", Passthrough::of(&table));
        };
        assert!(reason.contains("6.9"), "{reason}");
        opens::set_outcome(&table, ON).unwrap();
        assert_eq!(Passthrough::of(&table), Passthrough::On);
    }

    #[test]
    fn a_folder_and_a_file_of_root_are_refused() {
        let (_, files, _) = files(true);
        let folder = File::open("/").unwrap();
        let of_root = File::open("/proc/self/exe").unwrap();
        let errno = |file: &File| files.open(9, file).unwrap_err().raw_os_error();
        assert_eq!(errno(&folder), Some(libc::EACCES));
        if of_root.metadata().unwrap().uid() == 0 {
            assert_eq!(errno(&of_root), Some(libc::EACCES));
        }
    }
}
