//! Rows over an S3 server without workers.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::{Run, Side, child, median_of, megabytes};
use crate::child::{Taken, spawn};
use crate::figure::{Against, Bound, Figure};
use crate::scene::{BIG, BUCKET, SMALL, SPARSE};

/// What the process of the memory row may hold, its page tables and the kernel's buffers included.
const CGROUP_BYTES: u64 = 512 << 20;

/// A large file, cold: each turn is a new client that has nothing.
pub(super) fn read(run: &Run) -> Result<Vec<Figure>> {
    let config =
        run.scene
            .store_config("client-store", run.scene.store()?, "memory_limit: 256Mi")?;
    let url = run.scene.presigned(BIG.0)?;
    let mut sides: [Side<'_>; 3] = [
        child(&["client-file", &config, BIG.0]),
        child(&["http-object", &url, &BIG.1.to_string()]),
        Box::new(|| rclone_cat(run)),
    ];
    let taken = run.in_turn(&mut sides)?;
    let ours = median_of(&taken[0], megabytes);
    let beside = |name: &str, peer: &str, value: f64, target: f64| Figure {
        name: name.to_owned(),
        what: "cold read of 1 GiB from S3".to_owned(),
        ours,
        unit: "MB/s".to_owned(),
        against: Against::Peer {
            name: peer.to_owned(),
            value,
        },
        target,
        bound: Bound::AtLeast,
    };
    Ok(vec![
        beside(
            "store-rclone",
            "rclone cat",
            median_of(&taken[2], megabytes),
            1.0,
        ),
        beside(
            "store-get",
            "plain GETs of 8 MiB, 4 kept connections",
            median_of(&taken[1], megabytes),
            0.8,
        ),
        Figure {
            name: "store-cpu".to_owned(),
            what: "client's CPU seconds per GiB from S3".to_owned(),
            ours: median_of(&taken[0], Taken::cpu_seconds_per_gib),
            unit: "s/GiB".to_owned(),
            against: Against::Limit,
            target: 1.0,
            bound: Bound::AtMost,
        },
    ])
}

fn rclone_cat(run: &Run) -> Result<Taken> {
    let mut command = run.scene.rclone()?;
    command
        .args(["cat", &format!(":s3:{BUCKET}/{}", BIG.0)])
        .stdout(Stdio::null());
    let started = Instant::now();
    let status = command
        .status()
        .context("starting rclone; run `scripts/tools ensure bench`")?;
    if !status.success() {
        bail!("rclone cat ended with {status}");
    }
    #[allow(clippy::cast_precision_loss, reason = "1 GiB is below 2^53")]
    let bytes = BIG.1 as f64;
    Ok(Taken {
        seconds: started.elapsed().as_secs_f64(),
        bytes,
        ..Taken::default()
    })
}

/// Requests that the store sees.
pub(super) fn requests(run: &Run) -> Result<Vec<Figure>> {
    let (store, log) = run.scene.counting_store()?;
    let config = run
        .scene
        .store_config("client-counted", &store, "memory_limit: 256Mi")?;
    let count = |work: &str, path: &str| -> Result<f64> {
        let before = lines(&log)?;
        spawn(&[work.to_owned(), config.clone(), path.to_owned()])?;
        Ok(f64::from(lines(&log)? - before))
    };
    let limit = |name: &str, what: &str, ours: f64, target: f64| Figure {
        name: name.to_owned(),
        what: what.to_owned(),
        ours,
        unit: "requests".to_owned(),
        against: Against::Limit,
        target,
        bound: Bound::AtMost,
    };
    // 1,000 keys a page of a listing, and one look whether the folder is one.
    let listings = f64::from(SMALL.1.div_ceil(1000) + 1);
    Ok(vec![
        limit(
            "store-requests-big",
            "S3 requests of a sequential read of 1 GiB",
            count("client-file", BIG.0)?,
            64.0,
        ),
        limit(
            "store-requests-small",
            "S3 requests of 5,000 files of 100 KB, listed once",
            count("client-folder", SMALL.0)?,
            f64::from(SMALL.1) + listings,
        ),
    ])
}

fn lines(log: &Path) -> Result<u32> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    Ok(u32::try_from(text.lines().count())?)
}

/// Peak memory of a sequential and four random readers, held in a cgroup.
pub(super) fn memory_limit(run: &Run) -> Result<Vec<Figure>> {
    let config =
        run.scene
            .store_config("client-limited", run.scene.store()?, "memory_limit: 256Mi")?;
    let cgroup = Cgroup::create()?;
    let folder = cgroup.folder.to_string_lossy();
    let taken = spawn(&["client-mixed", &config, SPARSE.0, &folder].map(str::to_owned))?;
    Ok(vec![Figure {
        name: "memory-limit".to_owned(),
        what: "peak RSS of 8 GiB sequential + 4 random readers in a 512 MiB cgroup, \
               memory_limit 256Mi"
            .to_owned(),
        ours: taken.peak_rss_bytes / f64::from(1 << 20),
        unit: "MiB".to_owned(),
        against: Against::Limit,
        target: 320.0,
        bound: Bound::AtMost,
    }])
}

/// A memory cgroup of this run's own, of whichever version the machine has.
struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    fn create() -> Result<Self> {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let (root, limit) = if unified {
            ("/sys/fs/cgroup", "memory.max")
        } else {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        };
        let folder = Path::new(root).join(format!("bench-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot make the cgroup {} (needs root)", folder.display()))?;
        let cgroup = Self { folder };
        std::fs::write(cgroup.folder.join(limit), CGROUP_BYTES.to_string())
            .context("limiting the cgroup's memory")?;
        Ok(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes have ended; what stays is an empty folder that does no harm.
        let _ = std::fs::remove_dir(&self.folder);
    }
}
