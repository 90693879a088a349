//! One runtime a process, and waiting for it.
//!
//! Python forks (multiprocessing, PyTorch's DataLoader): the child has the parent's memory and none
//! of its threads. So whatever owns threads or sockets is bound to the process that made it
//! ([`Owned`]); the child makes its own at the first use and lets the parent's lie, because to drop
//! it would wait for threads that are not there. What the parent does around a fork is in
//! [`crate::fork`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use alluxio_client::Error;
use arc_swap::ArcSwapOption;
use futures::executor::block_on;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::answer::Answer;
use crate::exit::Inside;
use crate::{errors, exit, fork};

/// How long Ctrl-C waits at most before a blocking call notices it.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// Threads that drive sockets and copy pages. The work is waiting; more threads than this would only
/// take turns at the GIL's and the sockets' locks.
const MAX_RUNTIME_THREADS: usize = 4;

/// How long a thread that did blocking work (local files, names of hosts) waits for more of it. Short,
/// because a thread that waits is in the way of a fork; to begin one takes some 20 us.
pub(crate) const IDLE_THREAD_LIFE: Duration = Duration::from_millis(1);

static RUNTIME: ArcSwapOption<Owned<Runtime>> = ArcSwapOption::const_empty();

/// A value that only the process that made it may use or drop.
pub(crate) struct Owned<T> {
    pid: u32,
    value: Option<T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            pid: std::process::id(),
            value: Some(value),
        }
    }

    /// The value, unless this is another process than the one that made it.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value
            .as_ref()
            .filter(|_| self.pid == std::process::id())
    }

    /// The value itself, unless this is another process than the one that made it.
    pub(crate) fn into_inner(mut self) -> Option<T> {
        if self.pid == std::process::id() {
            self.value.take()
        } else {
            None
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}

/// The value of this process in `slot`; made, where there is none or a parent's.
pub(crate) fn owned<T, E>(
    slot: &ArcSwapOption<Owned<T>>,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<Arc<Owned<T>>, E> {
    let found = slot.load_full();
    if let Some(owned) = found.as_ref().filter(|owned| owned.get().is_some()) {
        return Ok(Arc::clone(owned));
    }
    let own = Arc::new(Owned::new(make()?));
    // Of two threads that come here at once, the first wins; the other's is dropped unused.
    let previous = slot.compare_and_swap(&found, Some(Arc::clone(&own)));
    let is_ours = match (&*previous, &found) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    };
    Ok(if is_ours {
        own
    } else {
        slot.load_full().unwrap_or(own)
    })
}

/// This process' runtime.
pub(crate) fn runtime() -> PyResult<Arc<Owned<Runtime>>> {
    owned(&RUNTIME, || {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Builder::new_multi_thread()
            .worker_threads(processors.clamp(2, MAX_RUNTIME_THREADS))
            .thread_name("alluxio-dataset")
            .thread_keep_alive(IDLE_THREAD_LIFE)
            .enable_all()
            .build()
    })
    .map_err(|error: std::io::Error| {
        let message = format!("the client's threads cannot be started: {error}");
        PyRuntimeError::new_err(message)
    })
}

/// Has each of the runtime's threads call this, and tells how many there are.
pub(crate) fn on_every_thread(call: impl Fn() + Clone + Send + 'static) -> usize {
    let owned = RUNTIME.load_full();
    let Some(runtime) = owned.as_ref().and_then(|owned| owned.get()) else {
        return 0;
    };
    let threads = runtime.metrics().num_workers();
    for _ in 0..threads {
        let call = call.clone();
        runtime.spawn(async move { call() });
    }
    threads
}

/// Waits for a future without the GIL; Ctrl-C ends the wait.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    path: &str,
    future: impl Future<Output = Result<T, Error>> + Send,
) -> PyResult<T> {
    let owned = runtime()?;
    let runtime = owned.get().ok_or_else(forked)?;
    let mut future = pin!(future);
    loop {
        let answer = py.detach(|| {
            // Not by the runtime's own `block_on`, whose waiting threads are in the way of a fork.
            let _entered = runtime.enter();
            let mut turn = pin!(tokio::time::timeout(SIGNAL_INTERVAL, future.as_mut()));
            let answer = block_on(poll_fn(|context| fork::polled(turn.as_mut(), context)));
            (answer, Inside::enter_unless_ending())
        });
        let (answer, _inside) = answer;
        match answer {
            Ok(answer) => return answer.map_err(|error| errors::exception(path, &error)),
            Err(_still_waiting) => py.check_signals()?,
        }
    }
}

/// Waits for the answer, or, given a callable, returns a [`Task`] at once and calls it later as
/// `done(answer, exception)`, one of which is `None`, on a thread of the runtime.
pub(crate) fn answer<'py, T: Answer>(
    py: Python<'py>,
    path: &str,
    done: Option<Py<PyAny>>,
    future: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(done) = done else {
        return wait(py, path, future)?.into_python(py);
    };
    let owned = runtime()?;
    let runtime = owned.get().ok_or_else(forked)?;
    let path = path.to_owned();
    let task = if exit::is_ending() {
        // Somebody's hook still reads. With the GIL, or the end would go on under this thread.
        let _entered = runtime.enter();
        let mut future = pin!(future);
        let answer = block_on(poll_fn(|context| fork::polled(future.as_mut(), context)));
        tell(py, &path, &done, answer);
        runtime.spawn(async {})
    } else {
        runtime.spawn(async move {
            let answer = future.await;
            // Once the interpreter ends nobody waits any more.
            let _told = exit::speak(|py| {
                tell(py, &path, &done, answer);
            });
        })
    };
    let task = Task {
        handle: task.abort_handle(),
    };
    Ok(Bound::new(py, task)?.into_any())
}

fn tell<T: Answer>(py: Python<'_>, path: &str, done: &Py<PyAny>, answer: Result<T, Error>) {
    let answer = answer
        .map_err(|error| errors::exception(path, &error))
        .and_then(|answer| answer.into_python(py));
    let told = match answer {
        Ok(answer) => done.call1(py, (answer, py.None())),
        Err(error) => done.call1(py, (py.None(), error.into_value(py))),
    };
    if let Err(error) = told {
        error.write_unraisable(py, None);
    }
}

/// A process that was forked between two lines of one call cannot be; this is for the compiler.
fn forked() -> PyErr {
    PyRuntimeError::new_err("the process was forked during the call; call again")
}

/// A call under way.
#[pyclass(frozen, module = "alluxio_dataset._native")]
pub(crate) struct Task {
    handle: AbortHandle,
}

#[pymethods]
impl Task {
    /// Ends the call; its `done` is not called, unless that is under way already.
    fn cancel(&self) {
        self.handle.abort();
    }
}
