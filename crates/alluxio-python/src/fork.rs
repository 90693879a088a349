//! What happens around a fork, so that the child finds nothing half-done.
//!
//! The locks that the client and its runtime are made of keep waiting threads in one table of the
//! process (`parking_lot`). The child has the table and none of the threads: it would walk into stacks
//! that are no more. So a fork waits, for well under a millisecond as a rule, until no thread is in
//! that table: the runtime's threads stand in a barrier made of the standard library's locks, which
//! are words in memory and nothing else, and no Python thread is within a poll ([`polled`]).
//!
//! `os.fork` and all that is built on it (multiprocessing, PyTorch's DataLoader) call the hooks. A
//! process that forks without Python's knowledge gets no such care.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::{exit, process};

/// How long a fork waits for the runtime's threads. They are busy for longer only where something
/// blocks them, which nothing should; then the fork goes on as if it were without this care.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Open while no thread forks.
static GATE: RwLock<()> = RwLock::new(());

thread_local! {
    /// What this thread holds from before its fork to after it.
    static FORKING: RefCell<Option<Forking>> = const { RefCell::new(None) };
}

struct Forking {
    _gate: RwLockWriteGuard<'static, ()>,
    barrier: Arc<Barrier>,
}

/// Where the runtime's threads stand during a fork.
#[derive(Default)]
struct Barrier {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    standing: usize,
    is_open: bool,
}

impl Barrier {
    fn stand(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.standing += 1;
        self.changed.notify_all();
        while !state.is_open {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_for(&self, threads: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = |state: &mut State| state.standing < threads;
        let _waited = self.changed.wait_timeout_while(state, MAX_WAIT, missing);
    }

    fn open(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_open = true;
        self.changed.notify_all();
    }
}

/// One poll on a thread of Python's; not while a thread forks.
pub(crate) fn polled<F: Future>(future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
    let _open = GATE.read().unwrap_or_else(PoisonError::into_inner);
    future.poll(context)
}

/// Tells Python to call the hooks.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let hooks = PyDict::new(py);
    hooks.set_item("before", wrap_pyfunction!(before_fork, module)?)?;
    hooks.set_item(
        "after_in_parent",
        wrap_pyfunction!(after_fork_in_parent, module)?,
    )?;
    hooks.set_item(
        "after_in_child",
        wrap_pyfunction!(after_fork_in_child, module)?,
    )?;
    let os = py.import("os")?;
    os.call_method("register_at_fork", (), Some(&hooks))?;
    Ok(())
}

#[pyfunction]
fn before_fork(py: Python<'_>) {
    // Without the GIL, for which a thread of the runtime may be waiting.
    py.detach(|| {
        let gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
        let barrier = Arc::new(Barrier::default());
        let standing = Arc::clone(&barrier);
        let threads = process::on_every_thread(move || standing.stand());
        if threads > 0 {
            barrier.wait_for(threads);
            // Threads that did blocking work end when they have been idle for this long; how many
            // there are is not told.
            std::thread::sleep(2 * process::IDLE_THREAD_LIFE);
        }
        FORKING.set(Some(Forking {
            _gate: gate,
            barrier,
        }));
    });
}

#[pyfunction]
fn after_fork_in_parent() {
    if let Some(forking) = FORKING.take() {
        forking.barrier.open();
    }
}

#[pyfunction]
fn after_fork_in_child() {
    exit::forget_threads();
    // Nobody stands in this process' copy of the barrier, and its memory is let lie.
    if let Some(Forking { _gate, barrier }) = FORKING.take() {
        std::mem::forget(barrier);
    }
}
