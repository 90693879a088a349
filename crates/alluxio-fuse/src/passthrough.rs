//! Who reads a file for an application: the kernel by itself, or the daemon.
//!
//! A file that lies whole in the disk cache is opened in passthrough: the kernel reads the cache's
//! file and nobody copies. Any other is read through the daemon, and the kernel keeps its pages.
//! While an inode is open in one of the ways, the kernel refuses the other with EIO, so the way is
//! chosen when nobody has it open and stays until the last one closes it (a mapping counts until it
//! is gone). A file that becomes whole while it is open is passed through from then on; what the
//! kernel has kept of it by then is as fast.
//!
//! Opening with FOPEN_DIRECT_IO would let openings switch while others go on, but not safely: the
//! first shared mapping of such a file makes a passthrough open fail, the other way round the
//! mapping fails, and the daemon sees neither.
//!
//! Registering is the supervisor's, and asking it takes several times as long as an opening does without.
//! So the second file that is opened of a directory brings its neighbours with it, and an epoch over many
//! small files asks once for some tens of them.
//!
//! Registered files are kept from one opening to the next, the least recently opened leaving first.
//! A registered file holds its blocks on the disk even when the cache has removed it, so what departs
//! from the cache is given back here: at once, or with the last close.
//!
//! An open in passthrough that names a file which is no longer registered is EIO too. So a file whose
//! registration may end at any moment, because the supervisor was asked to end it and has not
//! answered, is not used until it has answered something that was asked later.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;

use alluxio_client::{CacheKey, WholeFile};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::backing::{self, Entry as Name, TRIAL_INODE};
use crate::broker::{Broker, BrokerError};
use crate::metrics::OpenMetrics;
use crate::opens::{Entry, Opens};
use crate::sys;

/// Registered files that nobody has open. Each holds an inode and an open file in the kernel, about
/// 2 KiB; an epoch over as many small files finds all of them again.
const MAX_KEPT: usize = 16_384;

/// Inodes share this many locks: few openings meet in one.
const LOCKS: usize = 64;

/// Files that an opening may have registered beside its own. Asking takes four times as long as what is
/// asked for; so many have a lock each, and fit one message.
pub(crate) const MOST_AHEAD: usize = 63;
const _: () = assert!(MOST_AHEAD < LOCKS && MOST_AHEAD < sys::MAX_FDS_PER_MESSAGE);

/// Directories that are known to be in use.
const MAX_DIRECTORIES: usize = 4096;

/// Files that an opening may take off the registered ones: more than it adds, and a short time.
const MOST_TRIMMED: usize = 4;

/// How an opening is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the daemon.
    Daemon,
    /// By the kernel, from this registered file.
    Backed(u32),
}

/// Chooses the way of each opening.
pub(crate) struct Ways {
    opens: Opens,
    broker: Broker,
    /// Whether files can be registered at all. Where they cannot, files that predecessors registered
    /// may be about to leave, and are used only where they are open.
    is_on: bool,
    locks: [Mutex<()>; LOCKS],
    kept: Mutex<Kept>,
    /// Whoever looks for files to be registered beside its own: others would find the same ones.
    looking_ahead: Semaphore,
    metrics: OpenMetrics,
}

/// The registered files that this daemon knows.
#[derive(Default)]
struct Kept {
    files: HashMap<u64, KeptFile>,
    by_key: HashMap<CacheKey, u64>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    /// Inodes whose file leaves with their last opening, or when the supervisor is there again.
    leaving: HashSet<u64>,
    /// Directories of which a file was registered.
    directories: HashSet<u64>,
    /// Inodes whose file may leave at any moment: the supervisor was asked, and has not answered.
    doubtful: HashSet<u64>,
}

struct KeptFile {
    key: CacheKey,
    used: u64,
}

impl Ways {
    /// With the table of open files and the inodes that predecessors registered files for.
    pub(crate) fn new(
        (opens, backed): (Opens, Vec<u64>),
        broker: Broker,
        is_on: bool,
        metrics: OpenMetrics,
    ) -> Self {
        metrics.available(is_on);
        let ways = Self {
            opens,
            broker,
            is_on,
            locks: std::array::from_fn(|_| Mutex::default()),
            kept: Mutex::default(),
            looking_ahead: Semaphore::new(1),
            metrics,
        };
        // Nobody tells when these depart from the cache, so they leave as soon as they can.
        let backed = backed.into_iter().filter(|inode| *inode != TRIAL_INODE);
        ways.kept.lock().leaving.extend(backed);
        ways
    }

    /// Whether wholly cached files are worth asking for.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether an inode's way is still open to choice.
    pub(crate) fn is_free(&self, inode: u64) -> bool {
        let entry = self.opens.entry(inode);
        entry.is_some_and(|entry| entry.opens() == 0 && self.backing_id(&entry, inode).is_none())
    }

    /// Whether an inode has a registered file, as it seems without a lock.
    pub(crate) fn is_backed(&self, inode: u64) -> bool {
        let entry = self.opens.entry(inode);
        entry.is_some_and(|entry| {
            let is_free = entry.opens() == 0 || entry.is_passed();
            is_free && self.backing_id(&entry, inode).is_some()
        })
    }

    /// Whether an opening of a file in this directory, which is about to be registered, should bring
    /// others with it. So it is from the directory's second file on, while there is room: none leaves
    /// for the sake of one that nobody may open.
    pub(crate) fn look_ahead(&self, directory: u64) -> Option<SemaphorePermit<'_>> {
        let turn = self.looking_ahead.try_acquire().ok()?;
        let mut kept = self.kept.lock();
        if kept.directories.len() >= MAX_DIRECTORIES {
            kept.directories.clear();
        }
        let is_in_use = !kept.directories.insert(directory);
        let has_room = kept.files.len() + MOST_AHEAD < MAX_KEPT;
        (is_in_use && has_room).then_some(turn)
    }

    /// Counts an opening of an inode that has a registered file; none where it has not.
    pub(crate) fn open_backed(&self, inode: u64, is_counted: bool) -> Option<Way> {
        let entry = self.opens.entry(inode)?;
        let _lock = self.lock(inode).lock();
        if entry.opens() > 0 && !entry.is_passed() {
            return None;
        }
        let id = self.backing_id(&entry, inode)?;
        Some(self.counted(&entry, inode, is_counted, Way::Backed(id)))
    }

    /// Counts an opening, and chooses its way. `is_counted` where a predecessor counted it already.
    /// Where the file is registered, the ones `ahead` are with it.
    pub(crate) fn open(
        &self,
        inode: u64,
        is_counted: bool,
        whole: Option<WholeFile>,
        ahead: &[(u64, WholeFile)],
    ) -> Way {
        let Some(entry) = self.opens.entry(inode) else {
            self.metrics.opened(Way::Daemon);
            return Way::Daemon;
        };
        let way = {
            let _lock = self.lock(inode).lock();
            let is_open = entry.opens() > 0;
            let way = match (self.backing_id(&entry, inode), whole) {
                _ if is_open && !entry.is_passed() => Way::Daemon,
                (Some(id), _) => Way::Backed(id),
                (None, Some(whole)) if !is_open => self.register_all(inode, &whole, ahead),
                (None, _) => Way::Daemon,
            };
            self.counted(&entry, inode, is_counted, way)
        };
        self.trim();
        way
    }

    /// Counts the end of an opening.
    pub(crate) fn close(&self, inode: u64) {
        let Some(entry) = self.opens.entry(inode) else {
            return;
        };
        let _lock = self.lock(inode).lock();
        if entry.uncount() == 0 && self.kept.lock().leaving.remove(&inode) {
            self.unregister(inode);
        }
    }

    /// Gives back files that departed from the cache.
    pub(crate) fn departed(&self, keys: &[CacheKey]) {
        for key in keys {
            let inode = self.kept.lock().by_key.get(key).copied();
            if let Some(inode) = inode {
                self.give_back(inode);
            }
        }
    }

    /// Gives back what nobody has open of what is to leave.
    pub(crate) fn give_back_leaving(&self) {
        let leaving: Vec<u64> = self.kept.lock().leaving.iter().copied().collect();
        for inode in leaving {
            self.give_back(inode);
        }
    }

    /// Lets the kernel forget a name.
    pub(crate) fn forget(&self, parent: u64, name: String) {
        self.broker.forget(Name { parent, name });
    }

    /// The registered file that an opening may use.
    fn backing_id(&self, entry: &Entry<'_>, inode: u64) -> Option<u32> {
        let id = entry.backing_id()?;
        // What is open in passthrough was not given back.
        let is_open = entry.is_passed();
        (is_open || self.is_on && !self.kept.lock().doubtful.contains(&inode)).then_some(id)
    }

    fn counted(&self, entry: &Entry<'_>, inode: u64, is_counted: bool, way: Way) -> Way {
        if !is_counted {
            entry.count(way != Way::Daemon);
        }
        if way != Way::Daemon {
            self.kept.lock().used(inode);
        }
        self.metrics.opened(way);
        way
    }

    fn register(&self, inode: u64, whole: &WholeFile) -> Way {
        match self.broker.open(inode, &whole.file) {
            Ok(id) => {
                self.registered(inode, whole);
                Way::Backed(id)
            }
            Err(error) => {
                tracing::debug!(inode, %error, "a cached file cannot be registered");
                self.not_registered(&error, [inode]);
                Way::Daemon
            }
        }
    }

    /// Registers an inode's file, whose lock is held, and with it those that nobody is busy with.
    fn register_all(&self, inode: u64, whole: &WholeFile, ahead: &[(u64, WholeFile)]) -> Way {
        // Whoever has one of these locks may wait for another of them, so they are not waited for.
        let free = ahead.iter().filter_map(|(inode, whole)| {
            let lock = self.lock(*inode).try_lock()?;
            self.is_free(*inode).then_some((lock, *inode, whole))
        });
        let (mut locks, mut files) = (Vec::new(), vec![(inode, whole)]);
        for (lock, inode, whole) in free {
            locks.push(lock);
            files.push((inode, whole));
        }
        if locks.is_empty() {
            return self.register(inode, whole);
        }
        let asked: Vec<_> = files.iter().map(|(i, whole)| (*i, &whole.file)).collect();
        match self.broker.open_all(&asked) {
            Ok(()) => {}
            // By a supervisor that registers one at a time.
            Err(BrokerError::Refused(_)) => return self.register(inode, whole),
            Err(error) => {
                tracing::debug!(inode, %error, "cached files cannot be registered");
                self.not_registered(&error, asked.iter().map(|(inode, _)| *inode));
                return Way::Daemon;
            }
        }
        let id = |inode| self.opens.entry(inode).and_then(|entry| entry.backing_id());
        for (inode, whole) in &files {
            if id(*inode).is_some() {
                self.registered(*inode, whole);
            }
        }
        id(inode).map_or(Way::Daemon, Way::Backed)
    }

    fn registered(&self, inode: u64, whole: &WholeFile) {
        let mut kept = self.kept.lock();
        kept.doubtful.remove(&inode);
        kept.add(inode, whole.key);
        self.metrics.registered(kept.files.len());
    }

    fn not_registered(&self, error: &BrokerError, inodes: impl IntoIterator<Item = u64>) {
        if matches!(error, BrokerError::Unanswered(_)) {
            // They may be registered yet.
            self.kept.lock().leaving.extend(inodes);
        }
    }

    /// Takes an inode's file off the registered ones; at its last close if it is open.
    fn give_back(&self, inode: u64) {
        let Some(entry) = self.opens.entry(inode) else {
            return;
        };
        let _lock = self.lock(inode).lock();
        let mut kept = self.kept.lock();
        kept.remove(inode);
        self.metrics.registered(kept.files.len());
        if entry.is_passed() {
            kept.leaving.insert(inode);
            return;
        }
        kept.leaving.remove(&inode);
        drop(kept);
        self.unregister(inode);
    }

    /// Ends the registration of a file that is not open in passthrough.
    fn unregister(&self, inode: u64) {
        let closed = self.broker.close(inode);
        if let Err(error) = &closed {
            tracing::debug!(inode, %error, "a cached file stays registered");
        }
        let mut kept = self.kept.lock();
        match closed {
            // The kernel refuses what it does not know.
            Ok(()) | Err(BrokerError::Refused(_)) => {
                kept.doubtful.remove(&inode);
            }
            Err(BrokerError::Unasked(_)) => {
                kept.leaving.insert(inode);
            }
            Err(BrokerError::Unanswered(_)) => {
                kept.leaving.insert(inode);
                kept.doubtful.insert(inode);
            }
        }
    }

    /// Lets the least recently opened files go where there are too many.
    fn trim(&self) {
        for _ in 0..MOST_TRIMMED {
            let oldest = {
                let kept = self.kept.lock();
                if kept.files.len() <= MAX_KEPT {
                    return;
                }
                kept.oldest()
            };
            let Some(oldest) = oldest else { return };
            let is_open = self
                .opens
                .entry(oldest)
                .is_some_and(|entry| entry.opens() > 0);
            if is_open {
                // It will be among the last ones again.
                self.kept.lock().used(oldest);
            } else {
                self.give_back(oldest);
            }
        }
    }

    fn lock(&self, inode: u64) -> &Mutex<()> {
        &self.locks[usize::try_from(inode % LOCKS as u64).unwrap_or_default()]
    }
}

/// Whether files where the cache lies can be registered, by trying with an empty one.
pub(crate) fn try_out(broker: &Broker, sample: io::Result<File>) -> Result<(), String> {
    let sample =
        sample.map_err(|error| format!("no file can be made in the disk cache: {error}"))?;
    broker.try_out(&sample).map_err(|error| match error {
        BrokerError::Refused(refused) => {
            backing::reason(refused.raw_os_error().unwrap_or_default())
        }
        other => other.to_string(),
    })
}

impl Kept {
    fn add(&mut self, inode: u64, key: CacheKey) {
        self.remove(inode);
        self.leaving.remove(&inode);
        self.uses += 1;
        let used = self.uses;
        self.files.insert(inode, KeptFile { key, used });
        self.by_key.insert(key, inode);
        self.by_use.insert(used, inode);
    }

    fn used(&mut self, inode: u64) {
        if let Some(file) = self.files.get_mut(&inode) {
            self.uses += 1;
            self.by_use.remove(&file.used);
            file.used = self.uses;
            self.by_use.insert(file.used, inode);
        }
    }

    fn remove(&mut self, inode: u64) {
        if let Some(file) = self.files.remove(&inode) {
            self.by_key.remove(&file.key);
            self.by_use.remove(&file.used);
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.by_use.first_key_value().map(|(_, inode)| *inode)
    }
}

#[cfg(test)]
impl Ways {
    /// Everything through the daemon, over a table of its own.
    pub(crate) fn without_broker() -> Self {
        #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
        use std::os::fd::AsFd;
        let memory = crate::opens::create().unwrap();
        let (ours, _) = sys::seqpacket_pair().unwrap();
        let opens = Opens::open(memory.as_fd()).unwrap();
        let metrics = crate::metrics::Metrics::new(0).unwrap().opens();
        Self::new(opens, Broker::new(ours, 0), false, metrics)
    }
}

#[cfg(test)]
mod tests;
