//! Pages that come from the under-store because no worker served them: counted by reason in pages,
//! bytes and time, held to a budget of bytes an hour, and logged when that state changes.
//!
//! Pages that come from there because the configuration says so are counted alike, but they are no
//! accident: they cost no budget and no log line.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::alarm::{Alarm, Ended, News};
use super::budget::{Budget, Grant};
use super::{FallbackReason, OpenedFile};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::summary::BudgetSummary;

/// What is known of a client's fallback.
#[derive(Debug)]
pub(crate) struct Fallback {
    started: Instant,
    alarm: Mutex<Alarm>,
    /// None where there is no limit.
    budget: Option<Mutex<Budget>>,
    metrics: Arc<Metrics>,
}

/// Leave to read one page from the under-store; to be told how it went. Dropped without (the read
/// was given up), the bytes stay spent: they may have come.
pub(super) struct Leave<'a> {
    fallback: &'a Fallback,
    reason: FallbackReason,
    bytes: u64,
    asked: Instant,
}

impl Fallback {
    /// `max_bytes_per_hour` bounds what comes from the under-store in any hour.
    pub(super) fn new(max_bytes_per_hour: Option<u64>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            alarm: Mutex::default(),
            budget: max_bytes_per_hour.map(|limit| Mutex::new(Budget::new(limit))),
            metrics,
        })
    }

    /// Leave to read a page of so many bytes, unless the budget is spent.
    pub(super) fn leave(
        self: &Arc<Self>,
        reason: FallbackReason,
        file: &OpenedFile,
        bytes: u64,
    ) -> Result<Leave<'_>> {
        if reason != FallbackReason::Configured {
            self.take(reason, file, bytes)?;
            self.note(reason, file);
        }
        self.metrics.fallback(reason);
        Ok(Leave {
            fallback: self,
            reason,
            bytes,
            asked: Instant::now(),
        })
    }

    /// The reasons for which pages fall back at the moment.
    pub(crate) fn active(&self) -> Vec<FallbackReason> {
        self.alarm.lock().active(self.started.elapsed())
    }

    /// The state of the budget, where there is one.
    pub(crate) fn budget(&self) -> Option<BudgetSummary> {
        let mut budget = self.budget.as_ref()?.lock();
        Some(BudgetSummary {
            limit_bytes_per_hour: budget.limit_bytes(),
            spent_bytes: budget.spent_by(self.started.elapsed()),
            refused_pages: self.metrics.refused(),
        })
    }

    fn take(&self, reason: FallbackReason, file: &OpenedFile, bytes: u64) -> Result<()> {
        let Some(budget) = &self.budget else {
            return Ok(());
        };
        let (grant, limit_bytes) = {
            let mut budget = budget.lock();
            let grant = budget.take(bytes, self.started.elapsed());
            (grant, budget.limit_bytes())
        };
        match grant {
            Grant::Granted { again } => {
                if again {
                    tracing::info!(limit_bytes, "the fallback budget has room again");
                }
                Ok(())
            }
            Grant::Refused { first, more_in } => {
                self.metrics.fallback_refused(reason);
                let error = spent(limit_bytes, more_in, reason, file);
                if first {
                    tracing::error!(%error, "the fallback budget is spent");
                }
                Err(error)
            }
        }
    }

    fn note(self: &Arc<Self>, reason: FallbackReason, file: &OpenedFile) {
        let (ended, news) = self.alarm.lock().page(reason, self.started.elapsed());
        if let Some(News::Ended(ended)) = ended {
            log_end(ended);
        }
        let reason = reason.label();
        match news {
            Some(News::Began) => {
                tracing::warn!(
                    reason, file = %file.uri,
                    "fallback began: pages come from the under-store instead of the workers"
                );
                self.watch();
            }
            Some(News::AnotherReason) => {
                tracing::warn!(reason, file = %file.uri, "fallback goes on for another reason");
            }
            Some(News::Ended(_)) | None => {}
        }
    }

    /// Sees to it that the end is logged though nobody reads any more. Where no runtime is at hand
    /// the next episode tells of it.
    fn watch(self: &Arc<Self>) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(watch(Arc::downgrade(self)));
        }
    }
}

impl Leave<'_> {
    /// The page came, or it did not.
    pub(super) fn ended(self, came: bool) {
        let fallback = self.fallback;
        let bytes = if came { self.bytes } else { 0 };
        fallback
            .metrics
            .fallback_ended(self.reason, bytes, self.asked.elapsed());
        if self.reason == FallbackReason::Configured {
            return;
        }
        fallback.alarm.lock().came(bytes);
        if let (false, Some(budget)) = (came, &fallback.budget) {
            let now = fallback.started.elapsed();
            budget.lock().give_back(self.bytes, now);
        }
    }
}

/// Waits for the end of the episode that just began. Holds nothing that a client would wait for.
async fn watch(fallback: Weak<Fallback>) {
    loop {
        let Some(wait) = fallback.upgrade().and_then(|fallback| {
            let may_end = fallback.alarm.lock().may_end_at()?;
            Some(may_end.saturating_sub(fallback.started.elapsed()))
        }) else {
            return;
        };
        // Past the moment itself, which still belongs to the episode.
        tokio::time::sleep(wait + Duration::from_millis(1)).await;
        let Some(fallback) = fallback.upgrade() else {
            return;
        };
        let ended = fallback
            .alarm
            .lock()
            .end_if_quiet(fallback.started.elapsed());
        if let Some(ended) = ended {
            return log_end(ended);
        }
    }
}

fn log_end(ended: Ended) {
    tracing::info!(
        pages = ended.pages,
        bytes = ended.bytes,
        "fallback ended after {:.1} s, {} bytes",
        ended.lasted.as_secs_f64(),
        ended.bytes
    );
}

fn spent(limit_bytes: u64, more_in: Duration, reason: FallbackReason, file: &OpenedFile) -> Error {
    let context = format!(
        "{}: no worker served it ({}), and the budget of {limit_bytes} bytes an hour from the \
         under-store is spent; the first bytes are free again in {} s. Repair the workers, load \
         the file, or raise client.fallback.max_bytes_per_hour",
        file.uri,
        reason.label(),
        more_in.as_secs()
    );
    Error::new(ErrorKind::Throttled, "read", context)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use alluxio_wire::{FileVersion, PageSize, UfsUri};

    use super::*;

    fn file() -> OpenedFile {
        let uri = UfsUri::parse("file:///a").unwrap();
        OpenedFile {
            id: uri.file_id(),
            uri,
            version: FileVersion::from_text("1"),
            length: 1000,
            modified_ms: 0,
            page_size: PageSize::DEFAULT,
        }
    }

    fn fallback(limit: Option<u64>) -> Arc<Fallback> {
        Fallback::new(limit, Arc::new(Metrics::new().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_episode_ends_though_nobody_reads_any_more() {
        let fallback = fallback(None);
        let reason = FallbackReason::Miss;
        fallback.leave(reason, &file(), 10).unwrap().ended(true);
        assert_eq!(fallback.active(), [reason]);
        // The runtime's clock goes on to the next timer: that of the watch.
        tokio::time::sleep(Duration::from_mins(3)).await;
        assert!(fallback.alarm.lock().may_end_at().is_none());
        assert!(fallback.active().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_watch_holds_no_client() {
        let fallback = fallback(None);
        let leave = fallback.leave(FallbackReason::Miss, &file(), 10).unwrap();
        leave.ended(true);
        tokio::task::yield_now().await;
        let weak = Arc::downgrade(&fallback);
        drop(fallback);
        assert!(weak.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_budget_refuses_until_an_hour_has_passed() {
        let fallback = fallback(Some(25));
        let read = |came| match fallback.leave(FallbackReason::TimedOut, &file(), 10) {
            Ok(leave) => {
                leave.ended(came);
                Ok(())
            }
            Err(error) => Err(error),
        };
        // What did not come costs nothing.
        for came in [false, false, true, true] {
            read(came).unwrap();
        }
        let error = read(true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled);
        let text = error.to_string();
        for part in [
            "25 bytes",
            "timed_out",
            "client.fallback.max_bytes_per_hour",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let budget = fallback.budget().unwrap();
        assert_eq!((budget.spent_bytes, budget.refused_pages), (20, 1));
        tokio::time::advance(Duration::from_mins(62)).await;
        read(true).unwrap();
    }

    #[tokio::test]
    async fn what_the_configuration_asks_for_costs_no_budget_and_is_no_news() {
        let fallback = fallback(Some(1));
        for _ in 0..3 {
            let leave = fallback.leave(FallbackReason::Configured, &file(), 10);
            leave.unwrap().ended(true);
        }
        assert_eq!(fallback.budget().unwrap().spent_bytes, 0);
        assert!(fallback.active().is_empty());
        assert_eq!(
            fallback.metrics.fallback_bytes(FallbackReason::Configured),
            30
        );
    }
}
