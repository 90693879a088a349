//! A file that changed between its opening and the first byte read: the one case in which a reader
//! may go on with another version, if the configuration says so.
//!
//! A reader is in one of three states, and leaves the first one once:
//!
//! ```text
//! untouched --a read succeeded--> settled      the version stays, whatever happens
//!           --the file changed--> replaced     all reads go to the reader of the new version
//! ```
//!
//! Reads side by side race for that one step, so that no two of them hand out different versions:
//! one that succeeded after another had replaced the reader throws its bytes away and reads anew.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Mutex;

/// How often one read follows a file that changes again and again, before it fails as stale.
pub(super) const MAX_REOPENS: usize = 3;

const UNTOUCHED: u8 = 0;
const SETTLED: u8 = 1;
const REPLACED: u8 = 2;

/// Whether a reader may still go on with another version, read by another reader `R`.
pub(super) struct Reopen<R> {
    state: AtomicU8,
    /// Set before the state says so.
    replacement: OnceLock<R>,
    /// One reader of the new version is made, however many reads failed.
    turn: Mutex<()>,
}

impl<R> Reopen<R> {
    /// Of a reader that was just opened; `allowed` by the configuration.
    pub(super) fn new(allowed: bool) -> Self {
        Self {
            state: AtomicU8::new(if allowed { UNTOUCHED } else { SETTLED }),
            replacement: OnceLock::new(),
            turn: Mutex::new(()),
        }
    }

    /// A read succeeded. Whether its bytes may be handed out.
    pub(super) fn settle(&self) -> bool {
        if self.state.load(Ordering::Acquire) == SETTLED {
            return true;
        }
        let settled =
            self.state
                .compare_exchange(UNTOUCHED, SETTLED, Ordering::AcqRel, Ordering::Acquire);
        settled.map_or_else(|state| state == SETTLED, |_| true)
    }

    /// The reader of the new version, where there is one.
    pub(super) fn replacement(&self) -> Option<&R> {
        let replaced = self.state.load(Ordering::Acquire) == REPLACED;
        replaced.then(|| self.replacement.get()).flatten()
    }

    /// Goes on with the reader that `open` makes. `false` where the version stays: bytes of it
    /// were handed out meanwhile, or `open` failed.
    pub(super) async fn replace<E>(
        &self,
        open: impl Future<Output = Result<R, E>>,
    ) -> Result<bool, E> {
        let _turn = self.turn.lock().await;
        if self.state.load(Ordering::Acquire) != UNTOUCHED {
            return Ok(self.replacement().is_some());
        }
        let reader = open.await?;
        // Alone by the turn; a reader that was settled meanwhile keeps this one unused.
        let _ = self.replacement.set(reader);
        let replaced =
            self.state
                .compare_exchange(UNTOUCHED, REPLACED, Ordering::AcqRel, Ordering::Acquire);
        Ok(replaced.is_ok())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::future::ready;

    use super::*;

    async fn replace(reopen: &Reopen<&'static str>, with: &'static str) -> bool {
        reopen.replace(ready(Ok::<_, ()>(with))).await.unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_handed_out_bytes_keeps_its_version() {
        let reopen = Reopen::new(true);
        assert!(reopen.settle() && reopen.settle());
        assert!(!replace(&reopen, "new").await);
        assert!(reopen.settle() && reopen.replacement().is_none());
    }

    #[tokio::test]
    async fn bytes_that_come_after_another_read_replaced_the_reader_are_thrown_away() {
        let reopen = Reopen::new(true);
        assert!(replace(&reopen, "new").await);
        assert!(!reopen.settle());
        assert!(replace(&reopen, "third").await);
        assert_eq!(reopen.replacement(), Some(&"new"));
    }

    #[tokio::test]
    async fn bytes_that_were_handed_out_while_the_file_was_opened_again_decide() {
        let reopen = Reopen::new(true);
        let opening = reopen.replace(async {
            assert!(reopen.settle());
            Ok::<_, ()>("new")
        });
        assert!(!opening.await.unwrap());
        assert!(reopen.settle() && reopen.replacement().is_none());
    }

    #[tokio::test]
    async fn an_opening_that_fails_leaves_another_try() {
        let reopen = Reopen::new(true);
        assert_eq!(reopen.replace(ready(Err("away"))).await, Err("away"));
        assert!(replace(&reopen, "new").await);
    }

    #[tokio::test]
    async fn without_leave_no_reader_is_replaced() {
        let reopen = Reopen::new(false);
        assert!(!replace(&reopen, "new").await && reopen.settle());
    }
}
