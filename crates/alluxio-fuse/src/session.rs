//! The loop between the kernel and the file system.
//!
//! A few threads read the one descriptor, each into a slot of the journal. A request is polled once
//! on the spot: what memory can answer (metadata that is known, pages that are cached) is answered
//! without a change of threads, which for small reads is half of the cost. What must wait goes on in
//! the asynchronous pool and keeps its slot until it is answered, so slots bound how much is under
//! way, and with no slot free the kernel keeps its requests.
//!
//! A successor first takes the requests that its predecessor left in the journal, then new ones.
//! A daemon that is to be replaced stops reading, answers what it has, and ends.

use std::fs::File;
use std::future::Future;
use std::hint::black_box;
use std::io::{self, IoSlice, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::errno::Errno;
use crate::fs::{FileSystem, Origin, Reply};
use crate::journal::{Journal, Slot};
use crate::metrics::Metrics;
use crate::protocol::{self, OperationKind, Request};
use crate::sys;
use crate::tree::Tree;

/// Threads that read the descriptor: more than one so that one long answer does not hold up others,
/// few because each is a contender for the same queue.
const READER_THREADS: std::ops::RangeInclusive<usize> = 2..=4;

/// The kernel copies answers page by page; see [`bring_in`].
const PAGE_BYTES: usize = 4096;

/// Most parts of one writev(2) (`IOV_MAX`), the header among them.
const MAX_PARTS: usize = 1024;

/// How long a daemon that is being replaced may take to answer what it has in hand. Readers wait
/// meanwhile, and what is left then is answered by the successor.
const DRAIN_LIMIT: Duration = Duration::from_millis(100);

/// How often a thread that waits for a request is told to stop; once is nearly always enough.
const INTERRUPT_PAUSE: Duration = Duration::from_millis(1);

/// A daemon's connection to the kernel.
pub(crate) struct Session<T: Tree> {
    /// The shared, blocking descriptor.
    pub(crate) device: File,
    /// Requests in flight.
    pub(crate) journal: Arc<Journal>,
    /// What answers.
    pub(crate) fs: FileSystem<T>,
    /// What counts.
    pub(crate) metrics: Metrics,
    /// Where answers that must wait go on.
    pub(crate) runtime: Handle,
    /// The threads that read the descriptor.
    pub(crate) readers: Readers,
    /// Whether it was not the predecessor's own doing that it ended.
    pub(crate) was_predecessor_killed: bool,
}

/// The threads that read the descriptor, and whether they should stop.
#[derive(Default)]
pub(crate) struct Readers {
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    is_stopping: AtomicBool,
}

impl Readers {
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Makes all of them end, each as soon as it has answered or passed on what it took.
    ///
    /// A thread may look at the flag just before it is set and wait all the same, so it is told again
    /// until it has ended.
    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        let deadline = Instant::now() + DRAIN_LIMIT;
        let threads = std::mem::take(&mut *self.threads.lock());
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            for thread in &threads {
                sys::interrupt(thread);
            }
            thread::sleep(INTERRUPT_PAUSE);
        }
    }
}

/// A request under way.
struct Serving {
    slot: Slot,
    unique: u64,
    inode: u64,
    operation: OperationKind,
    /// Whether a predecessor counted the opening that is asked for.
    is_counted: bool,
    begun: Instant,
}

impl Serving {
    /// Keeps the answer, so that no successor does again what is done.
    fn keep(&mut self, answer: &Result<Reply, Errno>) {
        let (errno, body) = match answer {
            Ok(Reply::Bytes(body)) => (0, body.as_slice()),
            Ok(_) => return,
            Err(errno) => (*errno, &[][..]),
        };
        let mut message = protocol::header(self.unique, errno, body.len()).to_vec();
        message.extend_from_slice(body);
        self.slot.keep_answer(&message);
    }
}

/// What became of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Taken,
    /// The kernel knows no such request, or refused the answer.
    Refused,
}

impl<T: Tree> Session<T> {
    /// Serves what is left and what comes, until the mount ends or another daemon goes on.
    pub(crate) fn run(self: &Arc<Self>, left: Vec<Slot>) -> io::Result<()> {
        sys::allow_interrupts()?;
        self.serve_left(left);
        let threads = thread::available_parallelism().map_or(*READER_THREADS.start(), |cores| {
            cores
                .get()
                .clamp(*READER_THREADS.start(), *READER_THREADS.end())
        });
        let (end, ended) = mpsc::sync_channel(threads);
        for number in 0..threads {
            let (session, end) = (Arc::clone(self), end.clone());
            let reader = thread::Builder::new()
                .name(format!("reader-{number}"))
                // Only the first end is heard.
                .spawn(move || drop(end.send(session.read_requests())))?;
            self.readers.threads.lock().push(reader);
        }
        // All of them see the same end, the first one is enough: another may be waiting for a slot
        // whose request nobody needs any more.
        let end = ended.recv().map_err(io::Error::other)?;
        if self.readers.is_stopping() && !self.journal.wait_idle(DRAIN_LIMIT) {
            tracing::info!("a successor answers the requests that are still under way");
        }
        end
    }

    /// Stops reading: a successor will. [`Session::run`] returns once what is in hand is answered, or
    /// that takes too long.
    pub(crate) fn drain(&self) {
        self.readers.stop();
    }

    /// Serves what a predecessor had in its hands when it died.
    fn serve_left(self: &Arc<Self>, left: Vec<Slot>) {
        let _context = self.runtime.enter();
        for slot in left {
            if let Some(answer) = slot.kept_answer() {
                // ENOENT tells that it was sent before.
                bring_in(answer);
                let _known = (&self.device).write(answer);
                slot.answered();
            } else if slot.blame(self.was_predecessor_killed) {
                tracing::error!("a request outlived its daemons too often: EIO");
                self.refuse(slot, libc::EIO);
            } else {
                self.dispatch(slot, Origin::Predecessor);
            }
        }
    }

    fn read_requests(self: &Arc<Self>) -> io::Result<()> {
        let _context = self.runtime.enter();
        loop {
            let mut slot = self.journal.take();
            if !self.receive(&mut slot)? {
                slot.unused();
                return Ok(());
            }
            self.dispatch(slot, Origin::Kernel);
        }
    }

    /// Waits for the next request; false when the mount is gone, or another daemon is to go on.
    fn receive(&self, slot: &mut Slot) -> io::Result<bool> {
        loop {
            if self.readers.is_stopping() {
                return Ok(false);
            }
            let Err(error) = slot.receive(&self.device) else {
                return Ok(true);
            };
            match error.raw_os_error() {
                // ENOENT: the request was given up before we had it.
                Some(libc::EINTR | libc::EAGAIN | libc::ENOENT) => {}
                Some(libc::ENODEV) => return Ok(false),
                _ => return Err(error),
            }
        }
    }

    /// Serves the request in a slot, here if it need not wait.
    fn dispatch(self: &Arc<Self>, slot: Slot, origin: Origin) {
        let request = match protocol::decode(slot.request()) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, "answering EIO");
                return self.refuse(slot, libc::EIO);
            }
        };
        if !request.operation.wants_answer() {
            return slot.answered();
        }
        let is_counted = slot.is_counted();
        let serving = Serving {
            slot,
            unique: request.unique,
            inode: request.inode,
            operation: request.operation.kind(),
            is_counted,
            begun: Instant::now(),
        };
        let mut answer = Box::pin(Arc::clone(self).answer(request, origin, is_counted));
        match answer
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(answer) => self.finish(serving, answer),
            Poll::Pending => {
                let session = Arc::clone(self);
                // Polled again at once by the pool, so nothing is lost with the first waker.
                self.runtime.spawn(async move {
                    let answer = answer.await;
                    session.finish(serving, answer);
                });
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request,
        origin: Origin,
        is_counted: bool,
    ) -> Result<Reply, Errno> {
        self.fs.serve(request, origin, is_counted).await
    }

    /// Answers, then empties the slot: in this order, or a death in between would lose the request.
    /// What is open is counted around it so that a death never counts too few.
    fn finish(self: &Arc<Self>, mut serving: Serving, answer: Result<Reply, Errno>) {
        if serving.operation.changes_the_tree() {
            serving.keep(&answer);
        }
        let mut opened = None;
        let is_changed =
            matches!(answer, Err(libc::ESTALE)) && serving.operation == OperationKind::Read;
        let sent = match answer {
            Ok(reply) => {
                if let Reply::Opened { handle, .. } = reply {
                    serving.slot.set_counted();
                    opened = Some(handle);
                }
                self.send_reply(serving.unique, &reply)
            }
            Err(errno) => self.send(serving.unique, errno, &[]),
        };
        serving.slot.answered();
        match opened {
            Some(handle) if sent == Sent::Refused => {
                // One that a predecessor counted and answered is open.
                let is_open = serving.is_counted;
                self.fs.not_opened(serving.inode, handle, is_open);
            }
            None if serving.operation == OperationKind::Release => {
                self.fs.released(serving.inode);
            }
            _ => {}
        }
        self.metrics.answered(serving.operation, serving.begun);
        if is_changed {
            self.forget_entry(serving.inode);
        }
    }

    /// Lets the kernel forget a name whose file changed, so that it is looked up anew.
    fn forget_entry(self: &Arc<Self>, inode: u64) {
        let session = Arc::clone(self);
        self.runtime.spawn_blocking(move || {
            if let Some((parent, name)) = session.fs.entry_of(inode) {
                session.fs.ways().forget(parent, name);
            }
        });
    }

    /// Refuses a request that cannot even be understood, if it can be named.
    fn refuse(&self, slot: Slot, errno: Errno) {
        let unique = match protocol::decode(slot.request()) {
            Ok(request) => request.operation.wants_answer().then_some(request.unique),
            Err(error) => error.unique,
        };
        if let Some(unique) = unique {
            self.send(unique, errno, &[]);
        }
        slot.answered();
    }

    fn send_reply(&self, unique: u64, reply: &Reply) -> Sent {
        match reply {
            Reply::Bytes(bytes) | Reply::Opened { body: bytes, .. } => {
                self.send(unique, 0, &[bytes])
            }
            Reply::Chunks(chunks) if chunks.len() < MAX_PARTS => {
                let parts: Vec<&[u8]> = chunks.iter().map(AsRef::as_ref).collect();
                self.send(unique, 0, &parts)
            }
            Reply::Chunks(chunks) => self.send(unique, 0, &[&chunks.concat()]),
        }
    }

    fn send(&self, unique: u64, errno: Errno, parts: &[&[u8]]) -> Sent {
        let Err(error) = self.write(unique, errno, parts) else {
            return Sent::Taken;
        };
        match error.raw_os_error() {
            // Answered by a predecessor already, or given up; or the mount is gone.
            Some(libc::ENOENT | libc::ENODEV) => {}
            _ if errno == 0 => {
                tracing::error!(unique, %error, "the kernel refused an answer; answering EIO");
                self.send(unique, libc::EIO, &[]);
            }
            _ => tracing::error!(unique, %error, "the kernel refused an error"),
        }
        Sent::Refused
    }

    /// One answer in one writev(2), which takes a whole message or nothing.
    fn write(&self, unique: u64, errno: Errno, parts: &[&[u8]]) -> io::Result<()> {
        let body_bytes = parts.iter().map(|part| part.len()).sum();
        let header = protocol::header(unique, errno, body_bytes);
        let mut slices = Vec::with_capacity(1 + parts.len());
        slices.push(IoSlice::new(&header));
        for part in parts {
            bring_in(part);
            slices.push(IoSlice::new(part));
        }
        (&self.device).write_vectored(&slices).map(drop)
    }
}

/// Touches every page of an answer.
///
/// The kernel takes a request off its list before it copies the answer in. Would that copy meet a
/// page that is not in memory while this process is being killed, the application would get EIO and
/// no successor could help.
fn bring_in(part: &[u8]) {
    for byte in part.iter().step_by(PAGE_BYTES).chain(part.last()) {
        black_box(*byte);
    }
}
