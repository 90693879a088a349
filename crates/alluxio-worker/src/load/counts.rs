//! The numbers of a load: what was found and done, at what rate, and by whom.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use alluxio_wire::LoadWorker;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::track::Sums;

/// Over how long a rate is measured: long enough that a batch's end does not make it jump.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Workers that are told apart; beyond that many their parts are not kept one by one.
const MAX_WORKERS: usize = 1024;

/// The numbers of a load as they stand.
#[derive(Debug)]
pub(super) struct Counts {
    files_total: AtomicU64,
    files_done: AtomicU64,
    files_skipped: AtomicU64,
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_skipped: AtomicU64,
    failures: AtomicU64,
    listing_done: AtomicBool,
    rate: Mutex<Rate>,
    workers: Mutex<BTreeMap<String, Part>>,
}

/// Bytes a second of late.
#[derive(Debug)]
struct Rate {
    bytes: u64,
    window_began: Instant,
    bytes_at_window: u64,
    last: Option<u64>,
}

#[derive(Debug)]
struct Part {
    files: u64,
    rate: Rate,
}

impl Counts {
    /// Goes on from what was counted before.
    pub(super) fn from(sums: Sums, listing_done: bool) -> Self {
        Self {
            files_total: sums.files_total.into(),
            files_done: sums.files_done.into(),
            files_skipped: sums.files_skipped.into(),
            bytes_total: sums.bytes_total.into(),
            bytes_done: sums.bytes_done.into(),
            bytes_skipped: sums.bytes_skipped.into(),
            failures: sums.failures.into(),
            listing_done: listing_done.into(),
            rate: Mutex::new(Rate::new()),
            workers: Mutex::default(),
        }
    }

    /// Counts again from nothing.
    pub(super) fn restart(&self) {
        let pairs = [
            &self.files_total,
            &self.files_done,
            &self.files_skipped,
            &self.bytes_total,
            &self.bytes_done,
            &self.bytes_skipped,
            &self.failures,
        ];
        for counter in pairs {
            counter.store(0, Ordering::Relaxed);
        }
        self.listing_done.store(false, Ordering::Relaxed);
    }

    pub(super) fn found(&self, bytes: u64) {
        self.files_total.fetch_add(1, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn listed(&self) {
        self.listing_done.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listing_done.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_done(&self, bytes: u64, kept: bool) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        if kept {
            self.bytes_skipped.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.rate.lock().add(bytes);
        }
    }

    /// Bytes that were counted and are not loaded after all.
    pub(super) fn bytes_lost(&self, bytes: u64, kept: u64) {
        self.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes_skipped.fetch_sub(kept, Ordering::Relaxed);
    }

    pub(super) fn file_done(&self, skipped: bool) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
        self.files_skipped
            .fetch_add(u64::from(skipped), Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Counts a file, or some bytes of one, to the worker that did it.
    pub(super) fn by_worker(&self, worker: &str, files: u64, bytes: u64) {
        let mut workers = self.workers.lock();
        if !workers.contains_key(worker) {
            if workers.len() >= MAX_WORKERS {
                return;
            }
            let part = Part {
                files: 0,
                rate: Rate::new(),
            };
            workers.insert(worker.to_owned(), part);
        }
        if let Some(part) = workers.get_mut(worker) {
            part.files += files;
            part.rate.add(bytes);
        }
    }

    pub(super) fn sums(&self) -> Sums {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sums {
            files_total: read(&self.files_total),
            files_done: read(&self.files_done),
            files_skipped: read(&self.files_skipped),
            bytes_total: read(&self.bytes_total),
            bytes_done: read(&self.bytes_done),
            bytes_skipped: read(&self.bytes_skipped),
            failures: read(&self.failures),
        }
    }

    pub(super) fn bytes_per_second(&self) -> u64 {
        self.rate.lock().read()
    }

    pub(super) fn workers(&self) -> Vec<LoadWorker> {
        let mut workers = self.workers.lock();
        let told = workers.iter_mut().map(|(worker, part)| LoadWorker {
            worker: worker.clone(),
            files: part.files,
            bytes: part.rate.bytes,
            bytes_per_second: part.rate.read(),
        });
        told.collect()
    }
}

impl Rate {
    fn new() -> Self {
        Self {
            bytes: 0,
            window_began: Instant::now(),
            bytes_at_window: 0,
            last: None,
        }
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.turn();
    }

    /// The rate of the last whole window; of the first one, as far as it has come.
    fn read(&mut self) -> u64 {
        self.turn();
        self.last.unwrap_or_else(|| self.of_window())
    }

    fn turn(&mut self) {
        if self.window_began.elapsed() >= RATE_WINDOW {
            self.last = Some(self.of_window());
            self.window_began = Instant::now();
            self.bytes_at_window = self.bytes;
        }
    }

    fn of_window(&self) -> u64 {
        let millis = u64::try_from(self.window_began.elapsed().as_millis()).unwrap_or(u64::MAX);
        (self.bytes - self.bytes_at_window).saturating_mul(1000) / millis.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_that_of_late() {
        let counts = Counts::from(Sums::default(), false);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(1)).await;
            counts.bytes_done(1000, false);
            counts.bytes_done(9000, true);
        }
        assert_eq!(counts.bytes_per_second(), 1000);
        // Nothing moves: the first look closes the window, the next one sees an empty one.
        tokio::time::advance(RATE_WINDOW).await;
        counts.bytes_per_second();
        tokio::time::advance(RATE_WINDOW).await;
        assert_eq!(counts.bytes_per_second(), 0);
        assert_eq!(counts.sums().bytes_skipped, 90_000);
    }

    #[tokio::test(start_paused = true)]
    async fn each_worker_is_told_by_name() {
        let counts = Counts::from(Sums::default(), false);
        counts.by_worker("b:1", 0, 2000);
        counts.by_worker("a:1", 1, 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        let workers = counts.workers();
        assert_eq!(workers[0].worker, "a:1");
        assert_eq!(
            (workers[1].bytes, workers[1].bytes_per_second),
            (2000, 1000)
        );
    }
}
