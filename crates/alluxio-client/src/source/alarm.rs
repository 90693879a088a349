//! What is news about pages that come from the under-store: that it began, that it goes on for
//! another reason, that it ended. Pure; `fallback.rs` writes the lines.
//!
//! An episode lasts while some page falls back at least once a minute, and so does each reason
//! within it. So an outage of a thousand reads is two lines, and the last one tells what it cost.

use std::time::Duration;

use super::FallbackReason;

/// A reason that did not occur for so long has ended; its next occurrence is news. Longer than a
/// worker's restart, so that one outage is one episode.
pub(super) const QUIET: Duration = Duration::from_mins(1);

/// What happened since pages began to come from the under-store.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    episode: Option<Episode>,
}

#[derive(Debug)]
struct Episode {
    began: Duration,
    last: Duration,
    /// When each reason occurred last.
    reasons: [Option<Duration>; FallbackReason::ALL.len()],
    pages: u64,
    bytes: u64,
}

/// A change of state, to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The first page fell back.
    Began,
    /// Pages fall back for a reason that was not there before.
    AnotherReason,
    /// No page fell back for a while.
    Ended(Ended),
}

/// An episode as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// From the first page to the last one.
    pub(super) lasted: Duration,
    pub(super) pages: u64,
    pub(super) bytes: u64,
}

impl Alarm {
    /// A page falls back at the time `now`. The end of an episode that nobody noted comes first.
    pub(super) fn page(
        &mut self,
        reason: FallbackReason,
        now: Duration,
    ) -> (Option<News>, Option<News>) {
        let ended = self.end_if_quiet(now).map(News::Ended);
        let is_new = self.episode.is_none();
        let episode = self.episode.get_or_insert_with(|| Episode {
            began: now,
            last: now,
            reasons: Default::default(),
            pages: 0,
            bytes: 0,
        });
        episode.last = episode.last.max(now);
        episode.pages += 1;
        let before = episode.reasons[reason as usize].replace(now);
        let is_active = before.is_some_and(|before| now.saturating_sub(before) <= QUIET);
        let news = match (is_new, is_active) {
            (true, _) => Some(News::Began),
            (false, false) => Some(News::AnotherReason),
            (false, true) => None,
        };
        (ended, news)
    }

    /// Its bytes came.
    pub(super) fn came(&mut self, bytes: u64) {
        if let Some(episode) = &mut self.episode {
            episode.bytes += bytes;
        }
    }

    /// Ends the episode if nothing fell back for a while.
    pub(super) fn end_if_quiet(&mut self, now: Duration) -> Option<Ended> {
        let over = |episode: &mut Episode| now.saturating_sub(episode.last) > QUIET;
        let episode = self.episode.take_if(over)?;
        Some(Ended {
            lasted: episode.last.saturating_sub(episode.began),
            pages: episode.pages,
            bytes: episode.bytes,
        })
    }

    /// When the episode would end if nothing more fell back; none where there is no episode.
    pub(super) fn may_end_at(&self) -> Option<Duration> {
        self.episode.as_ref().map(|episode| episode.last + QUIET)
    }

    /// The reasons for which pages fall back at the moment.
    pub(super) fn active(&self, now: Duration) -> Vec<FallbackReason> {
        let Some(episode) = &self.episode else {
            return Vec::new();
        };
        let is_active = |reason: &FallbackReason| {
            let last = episode.reasons[*reason as usize];
            last.is_some_and(|last| now.saturating_sub(last) <= QUIET)
        };
        FallbackReason::ALL.into_iter().filter(is_active).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_episode_is_news_when_it_begins_and_when_it_ended() {
        let mut alarm = Alarm::default();
        let heard = [0, 1, 50, 100].map(|at| {
            let news = alarm.page(FallbackReason::Miss, seconds(at));
            alarm.came(10);
            news
        });
        let silent = (None, None);
        assert_eq!(heard, [(None, Some(News::Began)), silent, silent, silent]);
        assert_eq!(alarm.end_if_quiet(seconds(160)), None);
        let ended = alarm.end_if_quiet(seconds(161));
        let expected = Ended {
            lasted: seconds(100),
            pages: 4,
            bytes: 40,
        };
        assert_eq!(ended, Some(expected));
        assert_eq!(alarm.end_if_quiet(seconds(500)), None);
        let again = alarm.page(FallbackReason::Miss, seconds(501));
        assert_eq!(again, (None, Some(News::Began)));
    }

    #[test]
    fn another_reason_is_news_once_however_often_reasons_alternate() {
        let mut alarm = Alarm::default();
        let mut heard = Vec::new();
        for at in 0..30 {
            let reason = [FallbackReason::Miss, FallbackReason::TimedOut][at % 2];
            heard.extend(alarm.page(reason, seconds(at as u64)).1);
        }
        assert_eq!(heard, [News::Began, News::AnotherReason]);
        let active = alarm.active(seconds(30));
        assert_eq!(active, [FallbackReason::Miss, FallbackReason::TimedOut]);
        // One goes on without the other, which is news again when it comes back.
        for at in [60, 90] {
            assert_eq!(alarm.page(FallbackReason::Miss, seconds(at)), (None, None));
        }
        assert_eq!(alarm.active(seconds(91)), [FallbackReason::Miss]);
        let back = alarm.page(FallbackReason::TimedOut, seconds(92));
        assert_eq!(back, (None, Some(News::AnotherReason)));
    }

    #[test]
    fn an_end_that_nobody_noted_is_told_before_the_next_beginning() {
        let mut alarm = Alarm::default();
        let _ = alarm.page(FallbackReason::Broken, seconds(0));
        alarm.came(7);
        let (ended, began) = alarm.page(FallbackReason::Miss, seconds(1000));
        let expected = Ended {
            lasted: seconds(0),
            pages: 1,
            bytes: 7,
        };
        assert_eq!(ended, Some(News::Ended(expected)));
        assert_eq!(began, Some(News::Began));
        assert_eq!(alarm.active(seconds(1000)), [FallbackReason::Miss]);
    }
}
