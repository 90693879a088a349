//! Where bytes came from, and why they came from the under-store: the words that metrics, summaries
//! and answers to users share.

use serde::Serialize;

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// This client's memory.
    Memory,
    /// This node's disk.
    Disk,
    /// The worker that the ring names first.
    Worker,
    /// A worker further along the ring, because the first could not serve.
    NextWorker,
    /// The under-store.
    Ufs,
}

/// A number of bytes for each source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BytesBySource {
    /// From this client's memory.
    pub memory: u64,
    /// From this node's disk.
    pub disk: u64,
    /// From the worker that the ring names first.
    pub worker: u64,
    /// From a worker further along the ring.
    pub next_worker: u64,
    /// From the under-store.
    pub ufs: u64,
}

/// Why a page came from the under-store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackReason {
    /// The configuration says so: no cluster, or the policy `always`.
    Configured,
    /// The cluster has no worker at the moment.
    NoWorkers,
    /// The worker does not hold the page and does not read through.
    Miss,
    /// The worker holds another version.
    Stale,
    /// The worker sent a page of a wrong length: its page size is another one.
    PageSize,
    /// The file's name does not fit a worker's request line.
    Unaddressable,
    /// The worker refuses the request.
    Refused,
    /// No connection to the worker.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The worker asks for fewer requests.
    Overloaded,
    /// The worker failed or broke off.
    Broken,
    /// The worker failed a moment ago and is left alone for a short while.
    Resting,
}

impl Source {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] = [
        Self::Memory,
        Self::Disk,
        Self::Worker,
        Self::NextWorker,
        Self::Ufs,
    ];

    /// The word for it in metrics and output.
    pub fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Worker => "worker",
            Self::NextWorker => "next_worker",
            Self::Ufs => "ufs",
        }
    }
}

impl BytesBySource {
    /// Adds bytes of one source.
    pub fn add(&mut self, source: Source, bytes: u64) {
        match source {
            Source::Memory => self.memory += bytes,
            Source::Disk => self.disk += bytes,
            Source::Worker => self.worker += bytes,
            Source::NextWorker => self.next_worker += bytes,
            Source::Ufs => self.ufs += bytes,
        }
    }

    /// The bytes of one source.
    pub fn of(&self, source: Source) -> u64 {
        match source {
            Source::Memory => self.memory,
            Source::Disk => self.disk,
            Source::Worker => self.worker,
            Source::NextWorker => self.next_worker,
            Source::Ufs => self.ufs,
        }
    }

    /// The bytes of all sources.
    pub fn total(&self) -> u64 {
        Source::ALL.iter().map(|source| self.of(*source)).sum()
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut grown = Self::default();
        for source in Source::ALL {
            grown.add(source, self.of(source).saturating_sub(earlier.of(source)));
        }
        grown
    }
}

impl FallbackReason {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
        Self::Configured,
        Self::NoWorkers,
        Self::Miss,
        Self::Stale,
        Self::PageSize,
        Self::Unaddressable,
        Self::Refused,
        Self::Unreachable,
        Self::TimedOut,
        Self::Overloaded,
        Self::Broken,
        Self::Resting,
    ];

    /// The word for it in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::NoWorkers => "no_workers",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::PageSize => "page_size",
            Self::Unaddressable => "unaddressable",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Overloaded => "overloaded",
            Self::Broken => "broken",
            Self::Resting => "resting",
        }
    }
}
