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

use crate::backing::{Answer, Ask, MAX_MESSAGE_BYTES, Numbered};
use crate::sys;

/// An answer that takes longer does not come: the call behind it is short. Readers wait so long once
/// in [`SILENCE`] while there is no supervisor.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

/// How long nobody is asked after an answer did not come; a supervisor is back within seconds.
const SILENCE: Duration = Duration::from_secs(5);

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
    pub(crate) fn open(&self, inode: u64, file: &File) -> io::Result<u32> {
        match self.ask(Ask::Open { inode }, &[file.as_fd()])? {
            Answer::Opened { id } => Ok(id),
            Answer::Refused { errno } => Err(io::Error::from_raw_os_error(errno)),
            Answer::Closed => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Takes an inode's backing file away. Blocks shortly.
    pub(crate) fn close(&self, inode: u64) -> io::Result<()> {
        match self.ask(Ask::Close { inode }, &[])? {
            Answer::Closed => Ok(()),
            Answer::Refused { errno } => Err(io::Error::from_raw_os_error(errno)),
            Answer::Opened { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn ask(&self, ask: Ask, fds: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        // On a thread of the asynchronous runtime others are told to go on without it.
        tokio::task::block_in_place(|| self.channel.lock().ask(ask, fds))
    }
}

impl Channel {
    fn ask(&mut self, message: Ask, fds: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        if self
            .silent_until
            .is_some_and(|until| Instant::now() < until)
        {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.number += 1;
        let number = self.number;
        let ask = serde_json::to_vec(&Numbered { number, message })?;
        let answer = exchange(self.socket.as_fd(), number, &ask, fds);
        self.silent_until = None;
        if let Err(error) = &answer {
            self.silent_until = Some(Instant::now() + SILENCE);
            tracing::debug!(%error, "the broker of backing files does not answer");
        }
        answer
    }
}

fn exchange(
    socket: BorrowedFd<'_>,
    number: u64,
    ask: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<Answer> {
    let until = Instant::now() + ANSWER_LIMIT;
    sys::send_message_now(socket, ask, fds)?;
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
        if answer.number == number {
            return Ok(answer.message);
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
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        say(&theirs, 2, Answer::Closed);
        let silent = broker.close(5).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::NotConnected);
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
        assert_eq!(refused.raw_os_error(), Some(libc::ELOOP));
        assert_eq!(broker.open(5, &file).unwrap(), 4);
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let (length, fds) = sys::receive_message(theirs.as_fd(), &mut buffer).unwrap();
        let ask: Numbered<Ask> = serde_json::from_slice(&buffer[..length]).unwrap();
        assert_eq!(ask.number, first);
        assert_eq!((ask.message, fds.len()), (Ask::Open { inode: 5 }, 1));
    }
}
