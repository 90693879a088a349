//! The daemon's side of its supervisor's life: orders, and the wait for the next supervisor.
//!
//! A thread listens to the control socket and does nothing else, so that it answers even while the
//! rest of the daemon is busy. When the supervisor is gone, the thread waits at the mount's listening
//! socket (see `rendezvous.rs`), hands everything back to whoever comes, and listens to that one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::handover::{Handover, HandoverFds, Order, Word};
use crate::{rendezvous, sys};

/// What a daemon keeps for its next supervisor.
pub(crate) struct Keeper {
    /// The socket to the present supervisor.
    pub(crate) control: OwnedFd,
    /// The state of the mount, as it came.
    pub(crate) handover: Handover,
    /// Its descriptors, among them the configuration with its secrets: they are what the next
    /// supervisor needs to start the next daemon.
    pub(crate) fds: HandoverFds,
}

impl Keeper {
    /// Listens until the process ends; `drain` makes it end soon.
    pub(crate) fn run(mut self, drain: impl Fn()) {
        loop {
            match Order::receive(self.control.as_fd()) {
                Ok(Some(Order::Drain)) => drain(),
                Ok(Some(Order::End)) => std::process::exit(0),
                // It serves.
                Ok(Some(Order::Serve)) => {}
                Ok(None) | Err(_) => match self.meet_next_supervisor() {
                    Ok(control) => self.control = control,
                    Err(error) => {
                        tracing::debug!(%error, "this mount's daemon will meet no supervisor");
                        return;
                    }
                },
            }
        }
    }

    /// Waits for a supervisor and gives it all; one that has left meanwhile is passed over.
    fn meet_next_supervisor(&self) -> io::Result<OwnedFd> {
        let listener = self.fds.listener.as_ref();
        let listener = listener.ok_or_else(|| io::Error::other("it has no socket to listen at"))?;
        tracing::info!("the supervisor is gone; serving on, and waiting for the next one");
        let pidfd = sys::pidfd_open(std::process::id())?;
        loop {
            let control = rendezvous::accept(listener.as_fd())?;
            let peer = sys::peer_uid(control.as_fd())?;
            if peer != 0 && peer != sys::effective_uid() {
                tracing::warn!(peer, "a stranger asked for the mount");
                continue;
            }
            let given = self
                .handover
                .send_back(control.as_fd(), &self.fds, pidfd.as_fd());
            match given {
                Ok(()) => {
                    tracing::info!("handed the mount to a new supervisor");
                    return Ok(control);
                }
                Err(error) => tracing::warn!(%error, "a supervisor left before it had the mount"),
            }
        }
    }
}
