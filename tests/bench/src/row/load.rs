//! A load of a million small files: what its coordinator holds, and whether what it says is true.

use anyhow::Result;

use super::{Run, child};
use crate::figure::{Against, Bound, Figure};
use crate::scene::MANY;

/// The coordinator owns all files, too, and keeps what fits its page store of 256 MiB.
pub(super) fn million(run: &Run) -> Result<Vec<Figure>> {
    let (worker, config) = run.scene.loading_worker()?;
    let taken = child(&["load", &config, MANY.0])()?;
    let files_per_second = taken.operations_per_second();
    Ok(vec![
        Figure {
            name: "load-million-memory".to_owned(),
            what: "peak RSS of a worker that coordinates and does a load of 1,000,000 files"
                .to_owned(),
            ours: worker.peak_rss_bytes()? / f64::from(1 << 20),
            unit: "MiB".to_owned(),
            against: Against::Limit,
            target: 256.0,
            bound: Bound::AtMost,
        },
        Figure {
            name: "load-million-rate".to_owned(),
            what: "the same load, files of 1 KB from local disk".to_owned(),
            ours: files_per_second,
            unit: "files/s".to_owned(),
            against: Against::Limit,
            target: 1000.0,
            bound: Bound::AtLeast,
        },
    ])
}
