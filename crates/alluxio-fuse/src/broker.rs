//! The daemon's way to the broker: one question at a time over a channel to the supervisor.
//!
//! A question takes some ten microseconds, and readers of new files wait for it. A supervisor that
//! is being restarted does not answer: for a while it is not asked then, and files are read through
//! the daemon.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::backing::{Answer, Ask, Entry, MAX_MESSAGE_BYTES, Numbered, TRIAL_INODE};
use crate::sys;

/// An answer that takes longer does not come: the call behind it is short. Readers wait so long once
/// in [`SILENCE`] while there is no supervisor.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

/// The same for a trial: whoever started this daemon is there.
const TRIAL_LIMIT: Duration = Duration::from_secs(10);

/// How long nobody is asked after an answer did not come; a supervisor is back within seconds.
const SILENCE: Duration = Duration::from_secs(5);

/// Why a question has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// Nothing will happen.
    #[error("the supervisor could not be asked: {0}")]
    Unasked(#[source] io::Error),
    /// What was asked for may happen yet.
    #[error("the supervisor did not answer: {0}")]
    Unanswered(#[source] io::Error),
    /// By the kernel, or by the broker itself.
    #[error("refused: {0}")]
    Refused(#[source] io::Error),
}

/// The channel, one question at a time.
pub(crate) struct Broker {
    channel: Mutex<Channel>,
}

struct Channel {
    socket: OwnedFd,
    /// Of the last question.
    number: u64,
    silent_until: Option<Instant>,
}

impl Broker {
    /// Asks over this channel, as the daemon of a generation.
    pub(crate) fn new(socket: OwnedFd, generation: u32) -> Self {
        let channel = Channel {
            socket,
            // No daemon takes an answer to its predecessor for its own.
            number: u64::from(generation) << 32,
            silent_until: None,
        };
        Self {
            channel: Mutex::new(channel),
        }
    }

    /// Registers a file as what backs an inode; the kernel's number for it. Blocks shortly.
    pub(crate) fn open(&self, inode: u64, file: &File) -> Result<u32, BrokerError> {
        self.open_within(ANSWER_LIMIT, inode, file)
    }

    /// Registers several files with one question; the table of open files has what became of each.
    /// Blocks shortly.
    pub(crate) fn open_all(&self, files: &[(u64, &File)]) -> Result<(), BrokerError> {
        let inodes = files.iter().map(|(inode, _)| *inode).collect();
        let fds: Vec<_> = files.iter().map(|(_, file)| file.as_fd()).collect();
        match self.ask(ANSWER_LIMIT, Ask::OpenAll { inodes }, &fds)? {
            Answer::Tried => Ok(()),
            other => Err(BrokerError::unexpected(&other)),
        }
    }

    /// Takes an inode's backing file away. Blocks shortly.
    pub(crate) fn close(&self, inode: u64) -> Result<(), BrokerError> {
        match self.ask(ANSWER_LIMIT, Ask::Close { inode }, &[])? {
            Answer::Closed => Ok(()),
            other => Err(BrokerError::unexpected(&other)),
        }
    }

    /// Registers a file for no inode, and takes it away again.
    ///
    /// Questions are answered in their order, so whatever a predecessor asked for has happened by
    /// then.
    pub(crate) fn try_out(&self, file: &File) -> Result<(), BrokerError> {
        self.open_within(TRIAL_LIMIT, TRIAL_INODE, file)?;
        self.close(TRIAL_INODE)
    }

    /// Lets the kernel forget a name, as soon as the supervisor gets to it.
    pub(crate) fn forget(&self, entry: Entry) {
        let mut channel = self.channel.lock();
        // One that cannot be asked for now is believed until its time is over, like any other.
        let _unasked = channel.send(Ask::Forget(entry), &[]);
    }

    fn open_within(&self, limit: Duration, inode: u64, file: &File) -> Result<u32, BrokerError> {
        match self.ask(limit, Ask::Open { inode }, &[file.as_fd()])? {
            Answer::Opened { id } => Ok(id),
            other => Err(BrokerError::unexpected(&other)),
        }
    }

    fn ask(
        &self,
        limit: Duration,
        ask: Ask,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Answer, BrokerError> {
        // On a thread of the asynchronous runtime others are told to go on without it.
        let answer = tokio::task::block_in_place(|| self.channel.lock().ask(limit, ask, fds))?;
        match answer {
            Answer::Refused { errno } => {
                Err(BrokerError::Refused(io::Error::from_raw_os_error(errno)))
            }
            answer => Ok(answer),
        }
    }
}

impl BrokerError {
    /// An answer to another kind of question, of which nothing can be said.
    fn unexpected(answer: &Answer) -> Self {
        Self::Unanswered(io::Error::other(format!("it said {answer:?}")))
    }
}

impl Channel {
    fn ask(
        &mut self,
        limit: Duration,
        ask: Ask,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Answer, BrokerError> {
        let is_silent = self.silent_until;
        if is_silent.is_some_and(|until| Instant::now() < until) {
            return Err(BrokerError::Unasked(io::ErrorKind::NotConnected.into()));
        }
        let until = Instant::now() + limit;
        let answer = self.send(ask, fds).map_err(BrokerError::Unasked);
        let answer = answer.and_then(|()| self.answer(until).map_err(BrokerError::Unanswered));
        self.silent_until = None;
        if let Err(error) = &answer {
            self.silent_until = Some(Instant::now() + SILENCE);
            tracing::debug!(%error, "no answer of the broker of backing files");
        }
        answer
    }

    /// Sends the next question, if there is room for it.
    fn send(&mut self, message: Ask, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.number += 1;
        let number = self.number;
        let ask = serde_json::to_vec(&Numbered { number, message })?;
        sys::send_message_now(self.socket.as_fd(), &ask, fds)
    }

    /// Waits for the answer to the last question.
    fn answer(&self, until: Instant) -> io::Result<Answer> {
        let socket = self.socket.as_fd();
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if sys::wait_any([socket], Some(rest))? == [false] {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let (length, _) = sys::receive_message(socket, &mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let answer: Numbered<Answer> = serde_json::from_slice(&buffer[..length])?;
            // Any other is one that nobody waited for any more.
            if answer.number == self.number {
                return Ok(answer.message);
            }
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

    fn say(channel: &OwnedFd, number: u64, message: Answer) {
        let answer = serde_json::to_vec(&Numbered { number, message }).unwrap();
        sys::send_message(channel.as_fd(), &answer, &[]).unwrap();
    }

    #[test]
    fn a_supervisor_that_is_gone_is_not_asked_for_a_while() {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let broker = Broker::new(ours, 0);
        let late = broker.close(5).unwrap_err();
        assert!(matches!(late, BrokerError::Unanswered(_)), "{late}");
        say(&theirs, 2, Answer::Closed);
        let silent = broker.close(5).unwrap_err();
        assert!(matches!(silent, BrokerError::Unasked(_)), "{silent}");
    }

    #[test]
    fn a_refusal_is_the_kernels_error_and_answers_of_others_are_passed_over() {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let broker = Broker::new(ours, 1);
        let first = (1 << 32) + 1;
        say(&theirs, 9, Answer::Closed);
        say(&theirs, first, Answer::Refused { errno: libc::ELOOP });
        say(&theirs, first + 1, Answer::Opened { id: 4 });
        let file = tempfile::tempfile().unwrap();
        let refused = broker.open(5, &file).unwrap_err();
        let BrokerError::Refused(refused) = refused else {
            panic!("{refused}");
        };
        assert_eq!(refused.raw_os_error(), Some(libc::ELOOP));
        assert_eq!(broker.open(5, &file).unwrap(), 4);
        assert_eq!(heard(&theirs), (first, Ask::Open { inode: 5 }, 1));
    }

    #[test]
    fn a_name_is_forgotten_without_an_answer() {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let broker = Broker::new(ours, 0);
        let entry = || Entry {
            parent: 7,
            // As long as a name can be, each character six in the message.
            name: "\u{1}".repeat(255),
        };
        broker.forget(entry());
        say(&theirs, 2, Answer::Closed);
        broker.close(5).unwrap();
        assert_eq!(heard(&theirs), (1, Ask::Forget(entry()), 0));
        assert_eq!(heard(&theirs), (2, Ask::Close { inode: 5 }, 0));
    }

    fn heard(channel: &OwnedFd) -> (u64, Ask, usize) {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let (length, fds) = sys::receive_message(channel.as_fd(), &mut buffer).unwrap();
        let ask: Numbered<Ask> = serde_json::from_slice(&buffer[..length]).unwrap();
        (ask.number, ask.message, fds.len())
    }
}
