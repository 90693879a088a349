//! Rows that need no server in their timed part.

use anyhow::Result;

use super::{Run, child, median_of, megabytes};
use crate::child::Taken;
use crate::figure::{Against, Bound, Figure};
use crate::scene::{BIG, HOT};

/// Small random reads of pages in memory, one thread.
pub(super) fn memory(run: &Run) -> Result<Vec<Figure>> {
    let config = run
        .scene
        .worker_config("client-memory", "memory_limit: 512Mi")?;
    let taken = run.in_turn(&mut [child(&["client-memory", &config, HOT.0])])?;
    Ok(vec![Figure {
        name: "memory-cache".to_owned(),
        what: "4 KiB random reads from the memory cache, one thread".to_owned(),
        ours: median_of(&taken[0], Taken::operations_per_second) / 1e6,
        unit: "M/s".to_owned(),
        against: Against::Limit,
        target: 1.0,
        bound: Bound::AtLeast,
    }])
}

/// A new client each turn over a disk cache that the first, uncounted turn has filled.
pub(super) fn disk(run: &Run) -> Result<Vec<Figure>> {
    let client = format!(
        "memory_limit: 256Mi, disk_cache: {{directory: '{}', capacity: 8Gi}}",
        run.scene.at("disk-cache")
    );
    let config = run.scene.worker_config("client-disk", &client)?;
    let mut sides = [
        child(&["client-file", &config, BIG.0]),
        child(&["local-file", &run.scene.data_file(BIG.0)]),
    ];
    let taken = run.in_turn(&mut sides)?;
    Ok(vec![Figure {
        name: "disk-cache".to_owned(),
        what: "1 GiB sequential from the warm disk cache, checksums checked".to_owned(),
        ours: median_of(&taken[0], megabytes),
        unit: "MB/s".to_owned(),
        against: Against::Peer {
            name: "plain pread of the file".to_owned(),
            value: median_of(&taken[1], megabytes),
        },
        target: 0.7,
        bound: Bound::AtLeast,
    }])
}

/// The ring alone.
pub(super) fn ring(run: &Run) -> Result<Vec<Figure>> {
    let taken = run.in_turn(&mut [child(&["ring-pick"]), child(&["ring-build"])])?;
    Ok(vec![
        Figure {
            name: "ring-pick".to_owned(),
            what: "owners picked, 200 workers of 2,000 virtual nodes, one thread".to_owned(),
            ours: median_of(&taken[0], Taken::operations_per_second) / 1e6,
            unit: "M/s".to_owned(),
            against: Against::Limit,
            target: 3.0,
            bound: Bound::AtLeast,
        },
        Figure {
            name: "ring-build".to_owned(),
            what: "ring built, 1,000 workers of 2,000 virtual nodes".to_owned(),
            ours: median_of(&taken[1], |taken| taken.seconds * 1e3),
            unit: "ms".to_owned(),
            against: Against::Limit,
            target: 100.0,
            bound: Bound::AtMost,
        },
    ])
}
