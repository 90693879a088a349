//! Rows of the mount: an application's reads and writes through it, beside the same of the same files
//! on the disk, in one run.

pub(super) mod cached;
pub(super) mod remote;
pub(super) mod tree;
pub(super) mod write;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Run, median_of};
use crate::child::Taken;
use crate::figure::{Against, Bound, Figure};

/// The user that the mount's daemon runs as.
const DAEMON_UID: u32 = 65534;
/// How long a mount may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// How long fio measures.
const FIO_SECONDS: &str = "--runtime=2";

/// A mount by the product's command line.
struct Mounted {
    process: Child,
    mountpoint: PathBuf,
    /// From the start of the process until the mount answers.
    took: Duration,
}

impl Mounted {
    /// Mounts a configuration.
    fn start(run: &Run, config: &str) -> Result<Self> {
        let mountpoint = run.scene.folder.join("mount");
        fs::create_dir_all(&mountpoint)?;
        // The daemon is another user, and looks at the files of the under-store itself.
        fs::set_permissions(&run.scene.folder, fs::Permissions::from_mode(0o755))?;
        let log = fs::File::create(run.scene.folder.join("mount.log"))?;
        let begun = Instant::now();
        let process = Command::new(&run.scene.product)
            .args(["mount", "--config", config])
            .arg(&mountpoint)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the product")?;
        let mut mounted = Self {
            process,
            mountpoint,
            took: Duration::ZERO,
        };
        while !mounted.is_mounted()? {
            if mounted.process.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                bail!("the mount did not come; see {}", run.scene.at("mount.log"));
            }
            std::thread::sleep(LOOK);
        }
        // The mount is there before its daemon; whoever asks it waits.
        fs::metadata(&mounted.mountpoint)?;
        mounted.took = begun.elapsed();
        Ok(mounted)
    }

    fn is_mounted(&self) -> Result<bool> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let place = self.mountpoint.to_string_lossy();
        Ok(mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(&place)))
    }

    /// A path on the mount, as text.
    fn at(&self, name: &str) -> String {
        self.mountpoint.join(name).to_string_lossy().into_owned()
    }

    /// The daemon's process: the one child of the product's.
    fn daemon(&self) -> Result<u32> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let every_thread = fs::read_dir(format!("/proc/{id}/task"))?
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
        let all: String = std::iter::once(children).chain(every_thread).collect();
        let first = all.split_whitespace().next();
        Ok(first.context("the mount has no daemon")?.parse()?)
    }

    /// A field of the daemon's status, in bytes.
    fn memory_bytes(&self, field: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon()?))?;
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = value.and_then(|value| value.split_whitespace().nth(1));
        let kib: f64 = kib.context("no such field")?.parse()?;
        Ok(kib * 1024.0)
    }

    /// User and system seconds of the daemon so far.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon()?))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / 100.0)
    }

    /// Whether a file lies whole in the disk cache.
    fn is_cached(&self, name: &str) -> Result<bool> {
        let mut percent = [0; 8];
        let length = rustix::fs::getxattr(self.at(name), "user.alluxio.cached", &mut percent)?;
        Ok(&percent[..length] == b"100")
    }

    /// Reads a file again and again until all of it lies in the disk cache.
    fn cache(&self, name: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let path = self.at(name);
        while !self.is_cached(name)? {
            if Instant::now() > until {
                bail!("{name} does not come to lie in the cache");
            }
            crate::child::spawn(&owned(&["file-sequential", &path, "--cold"]))?;
        }
        Ok(())
    }

    /// The same of all files of a folder.
    fn cache_folder(&self, name: &str) -> Result<()> {
        let names = fs::read_dir(self.mountpoint.join(name))?;
        let names = names.map(|entry| Ok(format!("{name}/{}", entry?.file_name().display())));
        let names = names.collect::<Result<Vec<String>>>()?;
        crate::child::spawn(&owned(&["file-folder", &self.at(name), "--cold"]))?;
        names.iter().try_for_each(|name| self.cache(name))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The product ends with its mount; what is gone already is as good.
        let _ = rustix::mount::unmount(&self.mountpoint, rustix::mount::UnmountFlags::empty());
        let until = Instant::now() + PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A new folder, for a disk cache or for what is written, that the daemon may write.
fn cache_folder(run: &Run, name: &str) -> Result<String> {
    let folder = run.scene.folder.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    chown(&folder, Some(DAEMON_UID), Some(DAEMON_UID))?;
    Ok(folder.to_string_lossy().into_owned())
}

/// Client options with a disk cache there.
fn with_cache(folder: &str) -> String {
    format!("disk_cache: {{path: '{folder}', capacity: 8Gi, min_free: 0}}")
}

/// What fio finds on a file: bytes a second and operations a second, as if one second was taken.
fn fio(path: &str, engine: &str, pattern: &str, jobs: u32) -> Result<Taken> {
    let output = Command::new("fio")
        .args([
            "--name=bench",
            "--readonly",
            "--bs=4k",
            "--time_based",
            FIO_SECONDS,
        ])
        .args([
            "--invalidate=0",
            "--group_reporting",
            "--output-format=json",
            "--thread",
        ])
        .arg(format!("--filename={path}"))
        .arg(format!("--ioengine={engine}"))
        .arg(format!("--rw={pattern}"))
        .arg(format!("--numjobs={jobs}"))
        .output()
        .context("cannot start fio; run `scripts/tools ensure bench`")?;
    if !output.status.success() {
        bail!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let told: Value = serde_json::from_slice(&output.stdout).context("reading what fio printed")?;
    let read = &told["jobs"][0]["read"];
    let figure = |name: &str| {
        read[name]
            .as_f64()
            .with_context(|| format!("fio told no {name}"))
    };
    Ok(Taken {
        seconds: 1.0,
        bytes: figure("bw_bytes")?,
        operations: figure("iops")?,
        ..Taken::default()
    })
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&text| text.to_owned()).collect()
}

/// A row of the mount beside the file on the disk.
struct Beside<'a> {
    name: &'a str,
    what: &'a str,
    peer: &'a str,
    unit: &'a str,
    target: f64,
}

impl Beside<'_> {
    fn figure(&self, taken: &[Vec<Taken>], value: impl Fn(Taken) -> f64 + Copy) -> Figure {
        Figure {
            name: self.name.to_owned(),
            what: self.what.to_owned(),
            ours: median_of(&taken[0], value),
            unit: self.unit.to_owned(),
            against: Against::Peer {
                name: self.peer.to_owned(),
                value: median_of(&taken[1], value),
            },
            target: self.target,
            bound: Bound::AtLeast,
        }
    }
}

/// A row that must not pass a limit.
fn at_most(name: &str, what: &str, ours: f64, unit: &str, target: f64) -> Figure {
    Figure {
        name: name.to_owned(),
        what: what.to_owned(),
        ours,
        unit: unit.to_owned(),
        against: Against::Limit,
        target,
        bound: Bound::AtMost,
    }
}

/// The same file of the under-store, on the disk.
fn native(run: &Run, name: &str) -> String {
    let path: &Path = &run.scene.data().join(name);
    path.to_string_lossy().into_owned()
}
