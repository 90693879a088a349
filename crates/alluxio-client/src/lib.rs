//! The embedded client: ring, membership, page cache, worker routing, UFS fallback.
//!
//! One read, step by step:
//! 1. [`FileReader::read_at`] splits the range into pages and moves the read-ahead window.
//! 2. [`cache::PageCache`] has the page, or fetches it once for all who wait.
//! 3. The disk cache has the page, if there is one, or keeps it on its way.
//! 4. [`source::WorkerThenUfs`] decides whom to ask, in one `match`.
//! 5. [`ring::HashRing::pick`] names the workers, on a [`membership::WorkerSet`] snapshot.
//! 6. [`worker::Workers::page`] asks one of them; where none can serve, the under-store is read at
//!    the version that was opened.

#[cfg(feature = "bench")]
pub mod bench;
pub mod cache;
mod client;
mod disk;
mod error;
mod invalidation;
mod load;
pub mod manifest;
pub mod membership;
mod metrics;
mod operations;
mod reader;
pub mod ring;
pub mod source;
mod status;
mod summary;
mod transfer;
pub mod versions;
pub mod worker;
mod write;

pub use alluxio_ufs::{WriteMode, WriteOptions, Written};
pub use client::Client;
pub use disk::{CacheKey, WholeFile};
pub use error::{Error, ErrorKind, Result};
pub use load::{Followed, LoadJobs};
pub use membership::{Membership, WorkerEndpoint, WorkerSet};
pub use metrics::Metrics;
pub use operations::{RemoveOptions, Removed, TouchOptions};
pub use reader::{FileReader, ReadBytes};
pub use source::{BytesBySource, FallbackReason, Source};
pub use summary::{
    BudgetSummary, CacheSummary, FallbackSummary, ReasonSummary, SourceSummary, Summary,
};
pub use transfer::{Existing, Progress, ProgressFn, TransferOptions, Transferred};
pub use write::FileWriter;
