//! Waiting for a state: looks again and again, for a bounded time, and tells what it saw last.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks: short enough not to show in a step's time, long enough not to load the API.
const PAUSE: Duration = Duration::from_millis(250);

/// How long servers, pods and the operator may take for one state on a busy machine.
pub(crate) const USUAL: Duration = Duration::from_mins(2);

/// What one look saw.
#[derive(Debug)]
pub(crate) enum Seen<T> {
    /// What was waited for.
    There(T),
    /// Something else: this, for people.
    NotYet(String),
}

/// Looks until it is there.
pub(crate) async fn until<T, F>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<Seen<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let last = match look().await? {
            Seen::There(found) => return Ok(found),
            Seen::NotYet(last) => last,
        };
        if Instant::now() >= deadline {
            bail!("{what}: not so within {} s; {last}", limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// There when the condition holds.
pub(crate) fn when(holds: bool, otherwise: impl FnOnce() -> String) -> Seen<()> {
    if holds {
        Seen::There(())
    } else {
        Seen::NotYet(otherwise())
    }
}
