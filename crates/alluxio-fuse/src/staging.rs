//! Files while they are written: local copies, until they are whole in the under-store.
//!
//! A store takes whole objects only, so what is written goes to a file of this folder first. A copy
//! begins with the first change to a file, empty or with what the store has, and ends when nobody has
//! the file open for writing any more and the store has it. Until then it is what every reader of the
//! mount gets.
//!
//! A copy's name tells its state, so that a successor of this daemon goes on where it was, by inode
//! number: `17-name.part` is being fetched, `17-name.clean` is what the store has, `17-name.dirty` has
//! changes that it has not, `17-name.unlinked` is of a file that was removed and is still its openers'.
//! What the daemon of a mount that is over left is of no inode any more: changed copies go to `lost/`,
//! where a person finds them; the store has the old content whole.

mod draft;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::metrics::WriteMetrics;
use crate::options;
use crate::tree::TreeWriter;
pub(crate) use draft::{Draft, Mark, Turn};

/// Files that are fetched to be changed, at one time; another one waits its turn.
const FETCHES: usize = 16;

/// Copies kept in `lost`; the oldest goes first.
const MAX_LOST: usize = 100;

/// The copies of a mount.
pub(crate) struct Staging<W> {
    folder: PathBuf,
    capacity_bytes: u64,
    used_bytes: Arc<AtomicU64>,
    metrics: WriteMetrics,
    copies: RwLock<Copies<W>>,
    /// How often each inode is open for writing.
    opens: Mutex<HashMap<u64, u64>>,
    fetches: [tokio::sync::Mutex<()>; FETCHES],
}

struct Copies<W> {
    by_inode: HashMap<u64, Arc<Draft<W>>>,
    by_place: HashMap<(u64, Arc<str>), u64>,
}

impl<W: TreeWriter> Staging<W> {
    /// The copies that predecessors left; `place` tells where an inode is, which means nothing where
    /// this is the mount's first daemon.
    pub(crate) fn open(
        options: &options::Staging,
        is_first: bool,
        metrics: WriteMetrics,
        place: impl Fn(u64) -> Option<(u64, Arc<str>)>,
    ) -> io::Result<Self> {
        let mut staging = Self {
            folder: options.folder.clone(),
            capacity_bytes: options.capacity_bytes,
            used_bytes: Arc::default(),
            metrics,
            copies: RwLock::new(Copies {
                by_inode: HashMap::new(),
                by_place: HashMap::new(),
            }),
            opens: Mutex::new(HashMap::new()),
            fetches: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        };
        fs::create_dir_all(staging.folder.join("lost"))?;
        for entry in fs::read_dir(&staging.folder)? {
            let path = entry?.path();
            if !path.is_file() {
                continue;
            }
            let left = draft::parse(&path);
            let place = left.and_then(|(inode, _)| place(inode));
            match (left, place) {
                (Some((inode, Mark::Dirty)), Some((parent, name))) if !is_first => {
                    let used = Arc::clone(&staging.used_bytes);
                    let copy = Draft::reopen(&path, inode, Mark::Dirty, used)?;
                    tracing::info!(inode, name = &*name, "going on with a changed file");
                    staging.metrics.recovered();
                    staging.insert(parent, name, Arc::new(copy));
                }
                (Some((_, Mark::Dirty)), _) => staging.lose(&path)?,
                (Some((inode, Mark::Unlinked)), _) if !is_first => {
                    let used = Arc::clone(&staging.used_bytes);
                    let copy = Draft::reopen(&path, inode, Mark::Unlinked, used)?;
                    staging
                        .copies
                        .get_mut()
                        .by_inode
                        .insert(inode, Arc::new(copy));
                }
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(staging)
    }

    /// The copy of an inode.
    pub(crate) fn get(&self, inode: u64) -> Option<Arc<Draft<W>>> {
        self.copies.read().by_inode.get(&inode).cloned()
    }

    /// The copy of what has a name in a directory.
    pub(crate) fn at(&self, parent: u64, name: &str) -> Option<Arc<Draft<W>>> {
        let copies = self.copies.read();
        if copies.by_place.is_empty() {
            return None;
        }
        let inode = copies.by_place.get(&(parent, name.into()))?;
        copies.by_inode.get(inode).cloned()
    }

    /// The copies of files that are in a directory.
    pub(crate) fn below(&self, parent: u64) -> Vec<(Arc<str>, Arc<Draft<W>>)> {
        let copies = self.copies.read();
        let places = copies.by_place.iter();
        let here = places.filter(|((of, _), _)| *of == parent);
        here.filter_map(|((_, name), inode)| {
            let copy = copies.by_inode.get(inode)?;
            Some((Arc::clone(name), Arc::clone(copy)))
        })
        .collect()
    }

    /// Waits for the turn to fetch a file, so that two changes do not fetch it twice.
    pub(crate) async fn turn_to_fetch(&self, inode: u64) -> tokio::sync::MutexGuard<'_, ()> {
        let place = usize::try_from(inode % FETCHES as u64).unwrap_or_default();
        self.fetches[place].lock().await
    }

    /// A new copy, empty and changed: of a file that is made, or emptied.
    pub(crate) fn create(
        &self,
        inode: u64,
        (parent, name): (u64, Arc<str>),
    ) -> io::Result<Arc<Draft<W>>> {
        let used = Arc::clone(&self.used_bytes);
        let made = Draft::create(&self.folder, (inode, &name), Mark::Dirty, used)?;
        let copy = Arc::new(made);
        self.insert(parent, name, Arc::clone(&copy));
        Ok(copy)
    }

    /// A copy of this length, for which room is reserved, that is still to be filled with what the
    /// store has; see [`Staging::adopt`].
    pub(crate) fn begin(&self, inode: u64, name: &str, length: u64) -> io::Result<Draft<W>> {
        let used = Arc::clone(&self.used_bytes);
        let copy = Draft::create(&self.folder, (inode, name), Mark::Part, used)?;
        copy.lengthen(length)?;
        Ok(copy)
    }

    /// Removes what is left of a copy that could not be filled.
    pub(crate) async fn discard(&self, copy: &Draft<W>) {
        let turn = copy.turn().await;
        let path = turn.path();
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove half a copy");
        }
    }

    /// Takes in a copy that was filled.
    pub(crate) async fn adopt(
        &self,
        copy: Draft<W>,
        (parent, name): (u64, Arc<str>),
    ) -> io::Result<Arc<Draft<W>>> {
        copy.turn().await.mark(Mark::Clean)?;
        let copy = Arc::new(copy);
        self.insert(parent, name, Arc::clone(&copy));
        Ok(copy)
    }

    /// Notes that a copy's file has another name now.
    pub(crate) fn rename(&self, inode: u64, parent: u64, name: Arc<str>) {
        let mut copies = self.copies.write();
        copies.by_place.retain(|_, of| *of != inode);
        if copies.by_inode.contains_key(&inode) {
            copies.by_place.insert((parent, name), inode);
        }
    }

    /// Hides a copy whose file was removed: whoever has it open still reads and writes it.
    pub(crate) fn hide(&self, inode: u64) {
        self.copies.write().by_place.retain(|_, of| *of != inode);
    }

    /// Lets a copy go. Its file is removed, unless it has changes that the store never got.
    pub(crate) fn release(&self, copy: &Draft<W>, turn: &mut Turn<W>) -> io::Result<()> {
        // Under the lock, for the next copy of this inode has the same names on the disk.
        let mut copies = self.copies.write();
        turn.end();
        copies.by_inode.remove(&copy.inode());
        copies.by_place.retain(|_, of| *of != copy.inode());
        match turn.state() {
            Mark::Dirty => self.lose(turn.path()),
            _ => fs::remove_file(turn.path()),
        }
    }

    /// Changes a copy that grows by so many bytes, which have room until it is let go. None is kept for
    /// what fails.
    pub(crate) fn with_room<R>(
        &self,
        bytes: u64,
        change: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.reserve(bytes)?;
        change().inspect_err(|_| {
            self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
        })
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let grow = |used: u64| {
            let sum = used.checked_add(bytes)?;
            (sum <= self.capacity_bytes).then_some(sum)
        };
        let grown = self
            .used_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, grow);
        match grown {
            Ok(_) => Ok(()),
            Err(used_bytes) => {
                tracing::warn!(
                    used_bytes,
                    capacity_bytes = self.capacity_bytes,
                    "no room in the staging folder for files that are being written"
                );
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
        }
    }

    /// Counters of what is written.
    pub(crate) fn metrics(&self) -> &WriteMetrics {
        &self.metrics
    }

    /// Notes what there is at present, when somebody asks.
    pub(crate) fn measure(&self) {
        let staged_bytes = self.used_bytes.load(Ordering::Acquire);
        self.metrics.present(staged_bytes, self.opens.lock().len());
    }

    /// Bytes that can still be written.
    pub(crate) fn free_bytes(&self) -> u64 {
        let used_bytes = self.used_bytes.load(Ordering::Acquire);
        self.capacity_bytes.saturating_sub(used_bytes)
    }

    /// Counts one more opening for writing.
    pub(crate) fn opened(&self, inode: u64) {
        *self.opens.lock().entry(inode).or_default() += 1;
    }

    /// Counts one less; true when it was the last that is known. A predecessor's are not known, so
    /// this may come early, which costs a fetch.
    pub(crate) fn closed(&self, inode: u64) -> bool {
        let mut opens = self.opens.lock();
        match opens.get_mut(&inode) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                opens.remove(&inode);
                true
            }
        }
    }

    /// An inode that is open for writing and is the one that is meant.
    pub(crate) fn find_open(&self, is_it: impl Fn(u64) -> bool) -> Option<u64> {
        let opens = self.opens.lock();
        opens.keys().copied().find(|inode| is_it(*inode))
    }

    /// Whether an inode is open for writing.
    pub(crate) fn is_open(&self, inode: u64) -> bool {
        self.opens.lock().contains_key(&inode)
    }

    fn insert(&self, parent: u64, name: Arc<str>, copy: Arc<Draft<W>>) {
        let mut copies = self.copies.write();
        copies.by_place.insert((parent, name), copy.inode());
        copies.by_inode.insert(copy.inode(), copy);
    }

    /// Puts a changed copy aside.
    fn lose(&self, path: &Path) -> io::Result<()> {
        let lost = self.folder.join("lost");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let modified = fs::metadata(path)?.modified()?;
        let since = modified
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let aside = lost.join(format!("{}-{name}", since.as_millis()));
        fs::rename(path, &aside)?;
        self.metrics.lost();
        tracing::error!(
            file = %aside.display(),
            "changes that the under-store never got are kept aside"
        );
        let mut kept: Vec<_> = fs::read_dir(&lost)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        kept.sort();
        for oldest in &kept[..kept.len().saturating_sub(MAX_LOST)] {
            tracing::error!(file = %oldest.display(), "removing the oldest of what is kept aside");
            fs::remove_file(oldest)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
