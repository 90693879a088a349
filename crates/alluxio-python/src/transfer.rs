//! Files to and from the local disk, by the client's own transfers, and how far they are.
//!
//! A transfer tells how far it is on the runtime's threads, which must not wait for the GIL. So it
//! writes numbers here, and Python's half looks at them as often as it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alluxio_client::{Existing, ProgressFn, TransferOptions};
use pyo3::prelude::*;

/// How far a transfer is, in bytes.
#[pyclass(frozen, module = "alluxio_dataset._native")]
#[derive(Default)]
pub(crate) struct Progress {
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    total: AtomicU64,
    done: AtomicU64,
}

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Bytes of the file; 0 until it was found.
    #[getter]
    fn total(&self) -> u64 {
        self.counts.total.load(Ordering::Relaxed)
    }

    /// Bytes that are at their place.
    #[getter]
    fn done(&self) -> u64 {
        self.counts.done.load(Ordering::Relaxed)
    }

    /// Says how far it is, for a transfer that Python's half does itself.
    fn tell(&self, total: u64, done: u64) {
        self.counts.tell(total, done);
    }
}

impl Progress {
    fn listener(&self) -> ProgressFn {
        let counts = Arc::clone(&self.counts);
        Arc::new(move |told| counts.tell(told.bytes, told.bytes_done))
    }
}

impl Counts {
    /// Called by several threads, and not always in order.
    fn tell(&self, total: u64, done: u64) {
        self.total.fetch_max(total, Ordering::Relaxed);
        self.done.fetch_max(done, Ordering::Relaxed);
    }
}

/// A transfer within the store that replaces what is there.
pub(crate) fn replacing(recursive: bool) -> TransferOptions {
    TransferOptions {
        recursive,
        existing: Existing::Replace,
        progress: None,
    }
}

/// A transfer of one file to or from the local disk.
pub(crate) fn of_one_file(
    may_replace: bool,
    progress: Option<&Bound<'_, Progress>>,
) -> TransferOptions {
    TransferOptions {
        recursive: false,
        existing: if may_replace {
            Existing::Replace
        } else {
            Existing::Fail
        },
        progress: progress.map(|progress| progress.get().listener()),
    }
}
