//! What lies whole in the disk cache: the kernel reads it past the daemon.

use anyhow::Result;

use super::{Beside, Mounted, Run, at_most, cache_folder, fio, native, with_cache};
use crate::child::{Taken, spawn};
use crate::figure::Figure;
use crate::row::{Side, child, megabytes};
use crate::scene::{BIG, IMAGES};

/// Files read by several threads, in thousands a second.
fn thousands(taken: Taken) -> f64 {
    taken.operations_per_second() / 1e3
}

/// One large file: in order, at random places, mapped.
pub(in crate::row) fn large(run: &Run) -> Result<Vec<Figure>> {
    let folder = cache_folder(run, "cache-large")?;
    let config = run
        .scene
        .worker_config("mount-large", &with_cache(&folder))?;
    let mounted = Mounted::start(run, &config)?;
    mounted.cache(BIG.0)?;
    let (ours, theirs) = (mounted.at(BIG.0), native(run, BIG.0));
    let cpu_before = mounted.cpu_seconds()?;
    let mut passed_bytes = 0.0;
    let sequential = run.in_turn(&mut [
        child(&["file-sequential", &ours]),
        child(&["file-sequential", &theirs]),
    ])?;
    passed_bytes += sequential[0].iter().map(|taken| taken.bytes).sum::<f64>();
    let cpu = (mounted.cpu_seconds()? - cpu_before) / (passed_bytes / f64::from(1 << 30));
    let row = |name, what, unit| Beside {
        name,
        what,
        peer: "the file on the disk",
        unit,
        target: 0.9,
    };
    let mut figures = vec![
        row("mount-sequential", "1 GiB in order, wholly cached", "MB/s")
            .figure(&sequential, megabytes),
        at_most(
            "mount-warm-cpu",
            "the daemon's CPU seconds per GiB, wholly cached",
            cpu.max(1e-3),
            "s/GiB",
            0.05,
        ),
    ];
    let rows = [
        (
            "mount-random-1",
            "4 KiB at random, 1 job, wholly cached",
            "psync",
            "randread",
            1,
        ),
        (
            "mount-random-4",
            "4 KiB at random, 4 jobs, wholly cached",
            "psync",
            "randread",
            4,
        ),
        (
            "mount-map",
            "a mapping in order, wholly cached",
            "mmap",
            "read",
            1,
        ),
        (
            "mount-map-random",
            "a mapping at random, wholly cached",
            "mmap",
            "randread",
            1,
        ),
    ];
    for (name, what, engine, pattern, jobs) in rows {
        let side = |path: &str| -> Side<'_> {
            let path = path.to_owned();
            Box::new(move || fio(&path, engine, pattern, jobs))
        };
        let taken = run.in_turn(&mut [side(&ours), side(&theirs)])?;
        figures.push(row(name, what, "kIOPS").figure(&taken, thousands));
    }
    Ok(figures)
}

/// Many small files: the first pass of a mount, and the next ones.
pub(in crate::row) fn small(run: &Run) -> Result<Vec<Figure>> {
    run.scene.write_images()?;
    let folder = cache_folder(run, "cache-small")?;
    let config = run
        .scene
        .worker_config("mount-small", &with_cache(&folder))?;
    let theirs = native(run, IMAGES.0);
    let filling = Mounted::start(run, &config)?;
    filling.cache_folder(IMAGES.0)?;
    drop(filling);
    let row = |name, what, target| Beside {
        name,
        what,
        peer: "the files on the disk",
        unit: "k files/s",
        target,
    };
    // A pass over the names first: they are looked up once, whoever reads the files.
    let first: Side<'_> = Box::new(|| {
        let mounted = Mounted::start(run, &config)?;
        spawn(&["file-folder".to_owned(), mounted.at(IMAGES.0)])
    });
    let first = run.in_turn(&mut [first, child(&["file-folder", &theirs])])?;
    let mounted = Mounted::start(run, &config)?;
    let ours = mounted.at(IMAGES.0);
    let second = run.in_turn(&mut [
        child(&["file-folder", &ours]),
        child(&["file-folder", &theirs]),
    ])?;
    Ok(vec![
        row(
            "mount-small-first",
            "10,000 × 100 KB, 4 threads, first pass from a warm disk cache",
            0.6,
        )
        .figure(&first, thousands),
        row(
            "mount-small-again",
            "10,000 × 100 KB, 4 threads, further passes",
            0.9,
        )
        .figure(&second, thousands),
    ])
}

/// A mount that finds what an earlier one cached.
pub(in crate::row) fn again(run: &Run) -> Result<Vec<Figure>> {
    let folder = cache_folder(run, "cache-again")?;
    let config = run
        .scene
        .worker_config("mount-again", &with_cache(&folder))?;
    let filling = Mounted::start(run, &config)?;
    filling.cache(BIG.0)?;
    drop(filling);
    let theirs = native(run, BIG.0);
    let ours: Side<'_> = Box::new(|| {
        let mounted = Mounted::start(run, &config)?;
        spawn(&["file-sequential".to_owned(), mounted.at(BIG.0)])
    });
    let taken = run.in_turn(&mut [ours, child(&["file-sequential", &theirs])])?;
    let row = Beside {
        name: "mount-again",
        what: "1 GiB in order after a restart of the mount, cache kept",
        peer: "the file on the disk",
        unit: "MB/s",
        target: 0.9,
    };
    Ok(vec![row.figure(&taken, megabytes)])
}
