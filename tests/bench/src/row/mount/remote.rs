//! What is not on this node yet: first reads from a worker and from S3.

use anyhow::{Result, bail};

use super::{Beside, Mounted, Run, at_most, native};
use crate::child::{Taken, spawn};
use crate::figure::Figure;
use crate::row::{Side, child, median_of, megabytes};
use crate::scene::{BIG, SMALL};

const MIB: f64 = 1024.0 * 1024.0;

/// Reads a file through a new mount, the daemon's own time and memory with it.
fn through_a_new_mount<'a>(run: &'a Run, config: &'a str, readers: &'a str) -> Side<'a> {
    Box::new(move || {
        let mounted = Mounted::start(run, config)?;
        let before = mounted.cpu_seconds()?;
        let path = mounted.at(BIG.0);
        let arguments = ["file-sequential", &path, "--readers", readers];
        let taken = spawn(&arguments.map(str::to_owned))?;
        if taken.bytes < 1e9 {
            bail!("{path} was read in part");
        }
        Ok(Taken {
            cpu_seconds: mounted.cpu_seconds()? - before,
            peak_rss_bytes: mounted.memory_bytes("VmHWM")?,
            ..taken
        })
    })
}

/// The first sequential read from a worker that has the file, beside the client without a mount.
pub(in crate::row) fn worker(run: &Run) -> Result<Vec<Figure>> {
    let config = run.scene.worker_config("mount-worker", "")?;
    let taken = run.in_turn(&mut [
        through_a_new_mount(run, &config, "1"),
        child(&["client-file", &config, BIG.0]),
    ])?;
    let row = Beside {
        name: "mount-worker",
        what: "first read of 1 GiB in order from a warm worker",
        peer: "the client library",
        unit: "MB/s",
        target: 0.8,
    };
    Ok(vec![row.figure(&taken, megabytes)])
}

/// Small files of a worker that has them, beside the disk without its page cache.
pub(in crate::row) fn worker_small(run: &Run) -> Result<Vec<Figure>> {
    let config = run.scene.worker_config("mount-worker-small", "")?;
    let theirs = native(run, SMALL.0);
    let ours: Side<'_> = Box::new(|| {
        let mounted = Mounted::start(run, &config)?;
        spawn(&["file-folder".to_owned(), mounted.at(SMALL.0)])
    });
    let taken = run.in_turn(&mut [ours, child(&["file-folder", &theirs, "--cold"])])?;
    let row = Beside {
        name: "mount-worker-small",
        what: "5,000 × 100 KB, 4 threads, first pass from a warm worker",
        peer: "the files on the disk, cold",
        unit: "k files/s",
        target: 0.35,
    };
    Ok(vec![row.figure(&taken, |taken| {
        taken.operations_per_second() / 1e3
    })])
}

/// A cold read from S3, beside the disk without its page cache; CPU time and memory of it.
pub(in crate::row) fn store(run: &Run) -> Result<Vec<Figure>> {
    let store = run.scene.store()?;
    let config = run.scene.store_config("mount-s3", store, "")?;
    let theirs = native(run, BIG.0);
    let taken = run.in_turn(&mut [
        through_a_new_mount(run, &config, "1"),
        child(&["file-sequential", &theirs, "--cold"]),
        through_a_new_mount(run, &config, "2"),
    ])?;
    let row = Beside {
        name: "mount-s3",
        what: "cold read of 1 GiB in order from S3",
        peer: "the file on the disk, cold",
        unit: "MB/s",
        target: 0.6,
    };
    let cpu = median_of(&taken[0], Taken::cpu_seconds_per_gib);
    let memory = median_of(&taken[2], |taken| taken.peak_rss_bytes / MIB);
    Ok(vec![
        row.figure(&taken, megabytes),
        at_most(
            "mount-s3-cpu",
            "the daemon's CPU seconds per GiB of it",
            cpu,
            "s/GiB",
            1.0,
        ),
        at_most(
            "mount-s3-memory",
            "the daemon's peak RSS, cold 1 GiB with two readers",
            memory,
            "MiB",
            128.0,
        ),
    ])
}

/// How long an application waits for the first byte of a file that a worker has.
pub(in crate::row) fn first_byte(run: &Run) -> Result<Vec<Figure>> {
    let config = run.scene.worker_config("mount-first-byte", "")?;
    let ours: Side<'_> = Box::new(|| {
        let mounted = Mounted::start(run, &config)?;
        spawn(&["file-first-bytes".to_owned(), mounted.at(SMALL.0)])
    });
    let taken = run.in_turn(&mut [ours])?;
    Ok(vec![at_most(
        "mount-first-byte",
        "first byte of a fresh file from a warm worker, p50",
        median_of(&taken[0], |taken| taken.p50_seconds * 1e3),
        "ms",
        0.6,
    )])
}
