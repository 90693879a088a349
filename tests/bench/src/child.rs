//! One side of a measurement, in a process of its own: it does the work and prints what it took.

mod client;
mod disk;
mod files;
mod http;
mod local;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::say;

/// What a side does.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Work {
    /// GETs whole URLs, each once, over kept connections; `{n}` in the URL counts from 0.
    HttpPages {
        url: String,
        count: u64,
        #[arg(long, default_value_t = 8)]
        connections: u64,
    },
    /// GETs 4 KiB of random pages by offset and length, one after the other.
    HttpRanges { url: String, pages: u64, count: u64 },
    /// GETs one object by ranges over kept connections.
    HttpObject {
        url: String,
        length: u64,
        #[arg(long, default_value_t = 8 * 1024 * 1024)]
        range: u64,
        #[arg(long, default_value_t = 4)]
        connections: u64,
    },
    /// Reads one file through the client, 1 MiB at a time.
    ClientFile { config: PathBuf, path: String },
    /// Reads 4 KiB at random places of one file through the client, one after the other.
    ClientRanges {
        config: PathBuf,
        path: String,
        count: u64,
    },
    /// The same from pages in memory, as fast as one thread can.
    ClientMemory { config: PathBuf, path: String },
    /// Lists a folder once and reads all of its files, eight at a time.
    ClientFolder { config: PathBuf, path: String },
    /// One sequential reader and four random ones of one file, below a cgroup's limit.
    ClientMixed {
        config: PathBuf,
        path: String,
        cgroup: PathBuf,
    },
    /// Has a worker load a folder, and checks what it says of its progress.
    Load { config: PathBuf, path: String },
    /// Reads one file through the client until all of it comes from the disk cache.
    DiskFill { config: PathBuf, path: String },
    /// Reads all files of a folder into the disk cache.
    DiskFillFolder { config: PathBuf, path: String },
    /// Reads one file through the client, 1 MiB at a time, all of it from the disk cache.
    ClientDisk { config: PathBuf, path: String },
    /// Connects a client whose disk cache holds so many files, `path` among them.
    ClientOpen {
        config: PathBuf,
        path: String,
        files: u64,
    },
    /// Reads one file by pread, 1 MiB at a time.
    PlainFile { file: PathBuf },
    /// Reads one file by its path, 1 MiB at a time.
    FileSequential {
        path: PathBuf,
        /// Lets the kernel forget the file's pages first.
        #[arg(long)]
        cold: bool,
        /// Each reads a part of its own.
        #[arg(long, default_value_t = 1)]
        readers: u64,
    },
    /// Writes a file as a copy of another, 1 MiB at a time, has it synchronised and closes it.
    FileWrite { from: PathBuf, path: PathBuf },
    /// Opens, reads and closes each file of a folder.
    FileFolder {
        folder: PathBuf,
        #[arg(long)]
        cold: bool,
        #[arg(long, default_value_t = 4)]
        threads: usize,
    },
    /// Reads the first byte of each file of a folder, one after the other.
    FileFirstBytes { folder: PathBuf },
    /// Looks at every file below a folder.
    FileFind { folder: PathBuf },
    /// Picks owners on a ring of 200 workers with 2,000 virtual nodes each.
    RingPick,
    /// Builds a ring of 1,000 workers with 2,000 virtual nodes each.
    RingBuild,
}

/// What it took.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// Wall time of the work alone, without start and connect.
    pub(crate) seconds: f64,
    /// User and system time of the whole process during the work.
    pub(crate) cpu_seconds: f64,
    /// The most memory that the process held.
    pub(crate) peak_rss_bytes: f64,
    /// Bytes that were delivered.
    pub(crate) bytes: f64,
    /// Operations done.
    pub(crate) operations: f64,
    /// The median of one operation; 0 where single ones are not timed.
    pub(crate) p50_seconds: f64,
}

impl Taken {
    pub(crate) fn bytes_per_second(self) -> f64 {
        self.bytes / self.seconds
    }

    pub(crate) fn operations_per_second(self) -> f64 {
        self.operations / self.seconds
    }

    pub(crate) fn cpu_seconds_per_gib(self) -> f64 {
        self.cpu_seconds / (self.bytes / f64::from(1 << 30))
    }
}

/// Does the work in this process and prints what it took.
pub(crate) fn run(work: Work) -> Result<()> {
    let taken = match work {
        Work::HttpPages {
            url,
            count,
            connections,
        } => http::pages(&url, count, connections)?,
        Work::HttpRanges { url, pages, count } => http::ranges(&url, pages, count)?,
        Work::HttpObject {
            url,
            length,
            range,
            connections,
        } => http::object(&url, length, range, connections)?,
        Work::ClientFile { config, path } => client::file(&config, &path)?,
        Work::ClientRanges {
            config,
            path,
            count,
        } => client::ranges(&config, &path, count)?,
        Work::ClientMemory { config, path } => client::memory(&config, &path)?,
        Work::ClientFolder { config, path } => client::folder(&config, &path)?,
        Work::ClientMixed {
            config,
            path,
            cgroup,
        } => {
            std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
                .with_context(|| format!("cannot join {}", cgroup.display()))?;
            client::mixed(&config, &path)?
        }
        Work::Load { config, path } => client::load(&config, &path)?,
        Work::DiskFill { config, path } => disk::fill(&config, &path)?,
        Work::DiskFillFolder { config, path } => disk::fill_folder(&config, &path)?,
        Work::ClientDisk { config, path } => disk::file(&config, &path)?,
        Work::ClientOpen {
            config,
            path,
            files,
        } => disk::open(&config, &path, files)?,
        Work::PlainFile { file } => disk::plain(&file)?,
        Work::FileSequential {
            path,
            cold,
            readers,
        } => files::sequential(&path, cold, readers)?,
        Work::FileWrite { from, path } => files::write(&from, &path)?,
        Work::FileFolder {
            folder,
            cold,
            threads,
        } => files::folder(&folder, threads, cold)?,
        Work::FileFirstBytes { folder } => files::first_bytes(&folder)?,
        Work::FileFind { folder } => files::find(&folder)?,
        Work::RingPick => local::ring_pick(),
        Work::RingBuild => local::ring_build(),
    };
    say(&serde_json::to_string(&taken)?)
}

/// Does the work in another process of this program.
pub(crate) fn spawn(arguments: &[String]) -> Result<Taken> {
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new(program)
        .arg("child")
        .args(arguments)
        .output()
        .context("starting a side of the measurement")?;
    if !output.status.success() {
        bail!(
            "`bench child {}` ended with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("reading what a side printed")
}

/// Times a piece of work.
struct Watch {
    wall: Instant,
    cpu_seconds: f64,
}

impl Watch {
    fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu_seconds: cpu_seconds(),
        }
    }

    fn stop(&self, bytes: u64, operations: u64) -> Taken {
        Taken {
            seconds: self.wall.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds() - self.cpu_seconds,
            peak_rss_bytes: peak_rss_bytes(),
            bytes: precise(bytes),
            operations: precise(operations),
            p50_seconds: 0.0,
        }
    }
}

/// Counts here stay far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn precise(count: u64) -> f64 {
    count as f64
}

/// User and system time of this process: fields 14 and 15 of /proc/self/stat, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

fn peak_rss_bytes() -> f64 {
    peak_rss_bytes_in(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// The most memory that a process held, by its `/proc/<pid>/status`.
pub(crate) fn peak_rss_bytes_in(status: &str) -> f64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|kib| kib.parse::<f64>().ok())
        .map_or(0.0, |kib| kib * 1024.0)
}
