//! Rows that need no server in their timed part.

use anyhow::Result;

use super::{Run, child, median_of};
use crate::child::Taken;
use crate::figure::{Against, Bound, Figure};
use crate::scene::HOT;

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
