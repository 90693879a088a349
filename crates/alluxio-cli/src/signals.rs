//! The signals that ask a process to end.

use std::future::Future;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

/// A future that is ready when SIGINT or SIGTERM came. The handlers stand once this returns, so a
/// signal during start-up is not lost.
pub(crate) fn end() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
