//! Names and attributes, and what a mount costs that nobody reads.

use std::time::Instant;

use anyhow::{Result, bail};

use super::{Beside, Mounted, Run, at_most, native};
use crate::child::{Taken, spawn};
use crate::figure::{Bound, Figure, median};
use crate::row::{Side, child};
use crate::scene::{MANY, SMALL, TREE};

/// Asks the kernel to forget names and attributes; needs root, as a mount does.
fn forget_names() -> Result<()> {
    std::fs::write("/proc/sys/vm/drop_caches", "2")?;
    Ok(())
}

/// `find` with a stat of each file.
pub(in crate::row) fn find(run: &Run) -> Result<Vec<Figure>> {
    run.scene.write_tree()?;
    let manifest = run.scene.manifest()?;
    let options = format!("manifest: {{path: '{manifest}'}}");
    let config = run.scene.worker_config("mount-find", &options)?;
    let theirs = native(run, TREE.0);
    let thousands = |taken: Taken| taken.operations_per_second() / 1e3;
    let row = |name, what, target| Beside {
        name,
        what,
        peer: "the tree on the disk",
        unit: "k files/s",
        target,
    };
    let cold_ours: Side<'_> = Box::new(|| {
        let mounted = Mounted::start(run, &config)?;
        forget_names()?;
        spawn(&["file-find".to_owned(), mounted.at(TREE.0)])
    });
    let cold_theirs: Side<'_> = Box::new(|| {
        forget_names()?;
        spawn(&["file-find".to_owned(), theirs.clone()])
    });
    let cold = run.in_turn(&mut [cold_ours, cold_theirs])?;
    let mounted = Mounted::start(run, &config)?;
    let ours = mounted.at(TREE.0);
    let warm = run.in_turn(&mut [child(&["file-find", &ours]), child(&["file-find", &theirs])])?;
    Ok(vec![
        row(
            "mount-find-cold",
            "find + stat over 16,000 files, manifest, new mount",
            0.35,
        )
        .figure(&cold, thousands),
        row(
            "mount-find-warm",
            "find + stat over 16,000 files, again",
            0.45,
        )
        .figure(&warm, thousands),
    ])
}

/// What a mount holds of a million files, all of which were listed and asked for.
pub(in crate::row) fn million(run: &Run) -> Result<Vec<Figure>> {
    run.scene.write_many()?;
    let manifest = run.scene.manifest()?;
    let options = format!("manifest: {{path: '{manifest}'}}");
    let config = run.scene.worker_config("mount-million", &options)?;
    let mounted = Mounted::start(run, &config)?;
    let taken = spawn(&["file-find".to_owned(), mounted.at(MANY.0)])?;
    let files = f64::from(MANY.1) * f64::from(MANY.2);
    if taken.operations < files {
        bail!("found {} of {files} files", taken.operations);
    }
    Ok(vec![
        at_most(
            "mount-million-memory",
            "the daemon's peak RSS, find + stat over 1,000,000 files, manifest",
            mounted.memory_bytes("VmHWM")? / f64::from(1 << 20),
            "MiB",
            256.0,
        ),
        Figure {
            bound: Bound::AtLeast,
            ..at_most(
                "mount-million-rate",
                "the same find",
                taken.operations_per_second() / 1e3,
                "k files/s",
                50.0,
            )
        },
    ])
}

/// A mount that nobody reads, and how soon it can be read.
pub(in crate::row) fn idle(run: &Run) -> Result<Vec<Figure>> {
    let config = run.scene.worker_config("mount-idle", "")?;
    let (mut resident, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..run.rounds {
        let mounted = Mounted::start(run, &config)?;
        let begun = Instant::now();
        let first = format!("{}/00000", SMALL.0);
        std::io::Read::read_exact(&mut std::fs::File::open(mounted.at(&first))?, &mut [0])?;
        ready.push((mounted.took + begun.elapsed()).as_secs_f64() * 1e3);
        // Before the first answer the daemon may not even be the program it is to be.
        resident.push(mounted.memory_bytes("VmRSS")? / (1024.0 * 1024.0));
    }
    Ok(vec![
        at_most(
            "mount-idle",
            "the daemon's RSS after the first byte",
            median(resident),
            "MiB",
            25.0,
        ),
        at_most(
            "mount-ready",
            "from the start of the program to the first byte",
            median(ready),
            "ms",
            100.0,
        ),
    ])
}
