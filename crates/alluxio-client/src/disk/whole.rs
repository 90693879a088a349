//! Files that lie here whole: handed out as open files, so that the kernel reads them past us.
//!
//! Nobody compares what the kernel reads, so every page is compared once before, where it lies. A
//! small file is compared when it is first asked for; a large one in the background, as soon as its
//! last page came or when it is first asked for, and until then its pages are read one by one like
//! any other's. The proof is kept in the log, so a restart does not read everything again.
//!
//! What was handed out is never written again: a page that is found damaged later makes the data
//! file a new one. Whoever was given a file hears when it departed, and lets go of it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::index::Slot;
use super::record::{FileKey, Proof};
use super::store::Shelf;
use super::writer::{OnWhole, now_s};
use super::{DiskCache, Inner};
use crate::source::OpenedFile;

/// Whoever opens a file waits while up to so much of it is compared: 16 MiB are 3 ms from the page
/// cache and a tenth of a second from a slow disk.
const PROVE_AT_OPEN_BYTES: u64 = 16 * 1024 * 1024;
/// Large files that are compared at one time: each keeps a disk or a core busy.
const PROVING_AT_ONCE: usize = 2;
/// Pages are compared in pieces of this size, so that comparing takes little memory.
const PIECE_BYTES: usize = 256 * 1024;
/// A process that only reads looks this often at what the writer evicted.
const FOLLOW_LENT_EVERY: Duration = Duration::from_secs(5);

/// Names a file in the disk cache: one version of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(FileKey);

impl From<[u8; 16]> for CacheKey {
    /// For caches other than the client's.
    fn from(bytes: [u8; 16]) -> Self {
        Self(FileKey(bytes))
    }
}

/// A version of a file that lies whole in the disk cache, every page compared with its checksum.
#[derive(Debug)]
pub struct WholeFile {
    /// Its bytes, from the first to the last; open for reading.
    pub file: File,
    /// What departs when the bytes are no longer to be read from there.
    pub key: CacheKey,
}

/// What asking for a whole file gives.
enum Loan {
    File(File),
    /// It is whole and was not compared yet.
    Unproven {
        length_bytes: u64,
    },
    Absent,
}

impl DiskCache {
    /// The file, if all of it is here. A file that is not compared yet and too large to wait for is
    /// compared in the background, for the next time.
    pub(crate) async fn whole(&self, file: &OpenedFile) -> Option<WholeFile> {
        if !can_be_whole(file) {
            return None;
        }
        let key = FileKey::of(file);
        let inner = Arc::clone(&self.inner);
        let length_bytes = match inner.shelf.lend(&key) {
            Loan::File(file) => return Some(lent(file, key)),
            Loan::Absent => return None,
            Loan::Unproven { length_bytes } => length_bytes,
        };
        if length_bytes > PROVE_AT_OPEN_BYTES {
            inner.prove_soon(key);
            return None;
        }
        let proving = self.inner.runtime.spawn_blocking(move || {
            inner.prove(&key);
            inner.shelf.lend(&key)
        });
        match proving.await.ok()? {
            Loan::File(file) => Some(lent(file, key)),
            Loan::Unproven { .. } | Loan::Absent => None,
        }
    }

    /// The file, if all of it is here and compared.
    pub(crate) fn whole_at_hand(&self, file: &OpenedFile) -> Option<WholeFile> {
        let key = FileKey::of(file);
        match can_be_whole(file).then(|| self.inner.shelf.lend(&key))? {
            Loan::File(file) => Some(lent(file, key)),
            Loan::Unproven { .. } | Loan::Absent => None,
        }
    }

    /// Waits for files that were handed out and are no longer to be read.
    pub(crate) async fn departed(&self) -> Vec<CacheKey> {
        loop {
            let departed = self.inner.shelf.index.lock().take_departed();
            if !departed.is_empty() {
                return departed.into_iter().map(CacheKey).collect();
            }
            let told = self.inner.shelf.departures.notified();
            if tokio::time::timeout(FOLLOW_LENT_EVERY, told).await.is_err()
                && !self.inner.is_writer()
                && self.inner.shelf.index.lock().lends()
            {
                let inner = Arc::clone(&self.inner);
                // What fails here is tried again a little later.
                let _again = self
                    .inner
                    .runtime
                    .spawn_blocking(move || inner.catch_up())
                    .await;
            }
        }
    }

    /// How much of a version of a file is here, 0 to 1.
    pub(crate) fn share(&self, file: &OpenedFile) -> f64 {
        self.inner.shelf.index.lock().share(&FileKey::of(file))
    }

    /// A new file without a name, where the cache's files lie: to try what can be done with those.
    pub(crate) fn sample(&self) -> io::Result<File> {
        let path = self
            .inner
            .shelf
            .dir()
            .join(format!("sample.{}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }
}

impl Inner {
    /// What the writer's thread does when a file has come to lie here whole.
    pub(super) fn on_whole(&self) -> OnWhole {
        let me = self.me.clone();
        Box::new(move |key| {
            if let Some(inner) = me.upgrade() {
                let whole = inner.shelf.index.lock().whole(&key);
                if whole.is_some_and(|whole| whole.length_bytes > PROVE_AT_OPEN_BYTES) {
                    inner.prove_soon(key);
                }
            }
        })
    }

    /// Compares a file in the background, unless that is under way or enough others are.
    fn prove_soon(self: &Arc<Self>, key: FileKey) {
        {
            let mut proving = self.proving.lock();
            if proving.len() >= PROVING_AT_ONCE || !proving.insert(key) {
                return;
            }
        }
        let inner = Arc::clone(self);
        self.runtime.spawn_blocking(move || {
            inner.prove(&key);
            inner.proving.lock().remove(&key);
        });
    }

    fn prove(&self, key: &FileKey) {
        match self.shelf.prove(key) {
            Ok(Some(proof)) => {
                if let Some(writer) = self.writer.get() {
                    writer.proven(*key, proof);
                }
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.metrics.corrupt.inc();
                tracing::warn!(
                    file = %self.shelf.data_path(key).display(),
                    %error,
                    "a file of the disk cache does not match its checksums: it is fetched again"
                );
            }
            Err(error) => {
                self.metrics.read_errors.inc();
                tracing::warn!(
                    file = %self.shelf.data_path(key).display(),
                    %error,
                    "a file of the disk cache cannot be read"
                );
            }
        }
    }
}

impl Shelf {
    /// Hands out a whole file whose proof holds.
    fn lend(&self, key: &FileKey) -> Loan {
        let Some(whole) = self.index.lock().whole(key) else {
            return Loan::Absent;
        };
        let opened = File::open(self.data_path(key))
            .and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        // Evicted meanwhile, or removed by hand: the next read finds out.
        let Ok((file, metadata)) = opened else {
            return Loan::Absent;
        };
        if metadata.len() != whole.length_bytes || whole.proof != Some(Proof::of(&metadata)) {
            return Loan::Unproven {
                length_bytes: whole.length_bytes,
            };
        }
        if self.index.lock().lend(key, now_s()) {
            Loan::File(file)
        } else {
            Loan::Absent
        }
    }

    /// Compares every page of a whole file where it lies. A page that differs is forgotten, and the
    /// error says so; none where the file changed or went meanwhile.
    fn prove(&self, key: &FileKey) -> io::Result<Option<Proof>> {
        let Some(slots) = self.index.lock().slots(key) else {
            return Ok(None);
        };
        let file = File::open(self.data_path(key))?;
        let before = Proof::of(&file.metadata()?);
        let mut piece = vec![0; PIECE_BYTES];
        let mut damaged = 0;
        for (slot, index) in slots.iter().zip(0..) {
            if sum_in(&file, *slot, &mut piece)? != Some(slot.sum) {
                damaged += u64::from(self.forget_page(key, index, slot.sum));
            }
        }
        if damaged > 0 {
            let text = format!("{damaged} of {} pages differ", slots.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if Proof::of(&file.metadata()?) != before {
            return Ok(None);
        }
        let proven = super::record::Record::Proven {
            key: *key,
            proof: before,
        };
        self.index.lock().apply(&proven);
        Ok(Some(before))
    }
}

impl Proof {
    /// The proof of a data file that was compared and is as it was then.
    fn of(metadata: &Metadata) -> Self {
        let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
        let nanoseconds = u64::try_from(metadata.ctime_nsec()).unwrap_or_default();
        Self {
            boot: boot(),
            changed_ns: seconds
                .wrapping_mul(1_000_000_000)
                .wrapping_add(nanoseconds),
        }
    }
}

/// 56 bits that stand for this start of the machine. Where the kernel does not tell, no proof
/// outlives this process.
fn boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let told = std::fs::read("/proc/sys/kernel/random/boot_id");
        let told = told.unwrap_or_else(|_| {
            let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
            format!("{} {since:?}", std::process::id()).into_bytes()
        });
        xxh3_64(&told) >> 8
    })
}

/// The checksum of a page; none where the file ends before it.
fn sum_in(file: &File, slot: Slot, piece: &mut [u8]) -> io::Result<Option<u64>> {
    let mut sum = Xxh3Default::new();
    let mut done = 0;
    while done < slot.length {
        let wanted = (slot.length - done).min(piece.len());
        let part = &mut piece[..wanted];
        match file.read_exact_at(part, slot.offset + done as u64) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        sum.update(part);
        done += wanted;
    }
    Ok(Some(sum.digest()))
}

fn can_be_whole(file: &OpenedFile) -> bool {
    file.length > 0 && file.version.tells_changes()
}

fn lent(file: File, key: FileKey) -> WholeFile {
    WholeFile {
        file,
        key: CacheKey(key),
    }
}
