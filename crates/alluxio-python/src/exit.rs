//! What happens at the end of the interpreter, so that no thread of ours is caught within it.
//!
//! A thread that takes the GIL while the interpreter ends is ended by it on the spot (before Python 3.14),
//! which unwinds through our frames and kills the process, after all its work was done. It can come to
//! that behind anyone's back: whatever is called may let go of the GIL for a moment, as waking an event
//! loop does. So a hook (`atexit`) waits until no thread of ours is within the interpreter or on its way
//! back into it, and from then on none enters: who would have told something tells nobody, and who waited
//! waits on, as Python's own daemon threads do. Other hooks may still want to read: the thread that
//! ends the interpreter goes on as before, and an event loop is told on its own thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How long the end waits for threads that are within the interpreter. They are there for microseconds,
/// unless what they call takes its time.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How long a thread that waited stays outside while the interpreter ends. That takes well under a second;
/// after so long it is this thread that is waited for, as C++ libraries do for theirs.
const MAX_OUTSIDE: Duration = Duration::from_secs(10);

/// How often it looks.
const LOOK: Duration = Duration::from_micros(100);

static INSIDE: AtomicUsize = AtomicUsize::new(0);
static IS_ENDING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread ends the interpreter.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// Being within the interpreter, or on the way into it.
pub(crate) struct Inside(());

impl Inside {
    /// None once the interpreter ends.
    pub(crate) fn enter() -> Option<Self> {
        // Counted first: either the end sees this thread, or this thread sees the end.
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let inside = Self(());
        (!IS_ENDING.load(Ordering::SeqCst) || ENDS.get()).then_some(inside)
    }

    /// Once the interpreter ends it is waited for that the process does too.
    pub(crate) fn enter_unless_ending() -> Option<Self> {
        let inside = Self::enter();
        if inside.is_none() {
            thread::sleep(MAX_OUTSIDE);
        }
        inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Does something with the interpreter on a thread of the client's; not once it ends.
pub(crate) fn speak<R>(speech: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    let _inside = Inside::enter()?;
    Python::try_attach(speech)
}

/// Whether threads of the client's no longer speak.
pub(crate) fn is_ending() -> bool {
    IS_ENDING.load(Ordering::SeqCst)
}

/// A forked child has none of the threads that were counted.
pub(crate) fn forget_threads() {
    INSIDE.store(0, Ordering::SeqCst);
}

/// Tells Python to call the hook.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let hook = wrap_pyfunction!(before_exit, module)?;
    let atexit = module.py().import("atexit")?;
    atexit.call_method1("register", (hook,))?;
    Ok(())
}

#[pyfunction]
fn before_exit(py: Python<'_>) {
    ENDS.set(true);
    IS_ENDING.store(true, Ordering::SeqCst);
    py.detach(|| {
        let deadline = Instant::now() + MAX_WAIT;
        while INSIDE.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
    });
}
