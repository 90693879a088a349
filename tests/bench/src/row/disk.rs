//! Rows over the disk cache.

use anyhow::Result;

use super::{Run, child, median_of, megabytes};
use crate::child::spawn;
use crate::figure::{Against, Bound, Figure};
use crate::scene::{BIG, TINY};

/// A large file that was read before, beside the system call alone. The kernel has the bytes of both
/// in memory, so neither waits for a disk.
pub(super) fn read(run: &Run) -> Result<Vec<Figure>> {
    let cache = format!(
        "memory_limit: 256Mi, disk_cache: {{path: '{}', capacity: 4Gi}}",
        run.scene.at("cache")
    );
    let config = run.scene.worker_config("client-disk", &cache)?;
    spawn(&["disk-fill", &config, BIG.0].map(str::to_owned))?;
    let plain = run.scene.data_path(BIG.0);
    let mut sides = [
        child(&["client-disk", &config, BIG.0]),
        child(&["plain-file", &plain]),
    ];
    let taken = run.in_turn(&mut sides)?;
    Ok(vec![Figure {
        name: "disk-read".to_owned(),
        what: "1 GiB from the warm disk cache, each page compared with its checksum".to_owned(),
        ours: median_of(&taken[0], megabytes),
        unit: "MB/s".to_owned(),
        against: Against::Peer {
            name: "pread of the file, 1 MiB at a time".to_owned(),
            value: median_of(&taken[1], megabytes),
        },
        target: 0.7,
        bound: Bound::AtLeast,
    }])
}

/// Opening a cache of many files.
pub(super) fn open(run: &Run) -> Result<Vec<Figure>> {
    let (folder, files, _) = TINY;
    run.scene.write_tiny()?;
    let cache = format!(
        "memory_limit: 256Mi, disk_cache: {{path: '{}', capacity: 4Gi}}",
        run.scene.at("cache-of-many")
    );
    let config = run.scene.file_config("client-open", &cache)?;
    spawn(&["disk-fill-folder", &config, folder].map(str::to_owned))?;
    let last = format!("{folder}/{:06}", files - 1);
    let taken = run.in_turn(&mut [child(&["client-open", &config, &last, &files.to_string()])])?;
    Ok(vec![Figure {
        name: "disk-open".to_owned(),
        what: "client opened whose disk cache holds 100,000 files".to_owned(),
        ours: median_of(&taken[0], |taken| taken.seconds * 1e3),
        unit: "ms".to_owned(),
        against: Against::Limit,
        target: 50.0,
        bound: Bound::AtMost,
    }])
}
