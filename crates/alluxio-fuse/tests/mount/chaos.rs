//! Kills, restarts and upgrades under applications, which must see neither an error nor a wrong byte.
//!
//! The connection never negotiates RESEND, so it is the in-flight journal alone that is tried. What
//! is printed: how long an application's call lasted that was under way, or began, when a process
//! was killed.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::checks::{forget_pages, kill_process, read_past_the_cache, sum_by_mmap};
use crate::sample::{Sample, sum};
use crate::takeover::Supervisor;

/// How much is done.
struct Extent {
    kills: usize,
    restarts: usize,
    upgrades: usize,
}

/// How long a daemon lives, in milliseconds: from its first requests to well past them.
const KILL_PAUSE_MS: std::ops::RangeInclusive<u64> = 5..=400;

/// A call that begins so soon after a kill meets it.
const REACH: Duration = Duration::from_millis(50);

/// Calls shorter than this are not worth a note.
const NOTED: Duration = Duration::from_millis(1);

pub(crate) fn applications_do_not_notice_chaos() {
    let extent = Extent {
        kills: 30,
        restarts: 3,
        upgrades: 3,
    };
    let seen = run(&extent);
    println!("  {seen}");
}

/// The long version; writes its report as JSON.
pub(crate) fn at_length(report: &str) {
    let extent = Extent {
        kills: 1000,
        restarts: 50,
        upgrades: 20,
    };
    let seen = run(&extent);
    println!("{seen}");
    if !report.is_empty() {
        fs::write(report, format!("{seen}\n")).unwrap();
    }
}

/// Calls of applications, shared by their threads.
#[derive(Default)]
struct Calls {
    count: AtomicU64,
    bytes: AtomicU64,
    long: Mutex<Vec<(Instant, Instant)>>,
    is_over: AtomicBool,
}

impl Calls {
    /// Does something that may have to wait.
    fn time<A>(&self, call: impl FnOnce() -> A) -> A {
        let begun = Instant::now();
        let answer = call();
        let ended = Instant::now();
        self.count.fetch_add(1, Ordering::Relaxed);
        if ended - begun >= NOTED {
            self.long.lock().push((begun, ended));
        }
        answer
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// For each moment, how long the longest call lasted from then on that met it.
    fn stalls(&self, moments: &[Instant]) -> Vec<Duration> {
        let long = self.long.lock();
        let mut stalls: Vec<_> = moments
            .iter()
            .map(|&moment| {
                let met = long
                    .iter()
                    .filter(|(begun, ended)| *ended > moment && *begun < moment + REACH);
                let lasted = met.map(|(begun, ended)| *ended - moment.max(*begun));
                lasted.max().unwrap_or_default()
            })
            .collect();
        stalls.sort();
        stalls
    }
}

/// What was done, and when.
#[derive(Default)]
struct Inflicted {
    kills: Vec<Instant>,
    restarts: Vec<Instant>,
    pauses: Vec<Duration>,
}

fn run(extent: &Extent) -> serde_json::Value {
    let sample = Sample::with_files();
    let mut supervisor = Supervisor::start(&sample);
    let calls = Calls::default();
    let begun = Instant::now();
    let inflicted = thread::scope(|scope| {
        let (sample, calls) = (&sample, &calls);
        scope.spawn(move || sums(sample, calls));
        scope.spawn(move || random_reads(sample, calls));
        scope.spawn(move || small_files(sample, calls));
        scope.spawn(move || find(sample, calls));
        scope.spawn(move || maps(sample, calls));
        // The scope waits for the threads, so they must end also when something fails here.
        let _over = Over(calls);
        let mut fio = fio(sample);
        let inflicted = inflict(extent, sample, &mut supervisor);
        if let Some(fio) = &mut fio {
            let ended = fio.try_wait().unwrap();
            assert!(ended.is_none(), "fio failed: {ended:?}");
            fio.kill().unwrap();
            fio.wait().unwrap();
        }
        inflicted
    });
    supervisor.unmount();
    serde_json::json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim(),
        "cores": thread::available_parallelism().unwrap().get(),
        "resend_negotiated": false,
        "seconds": begun.elapsed().as_secs(),
        "errors": 0,
        "calls": calls.count.load(Ordering::Relaxed),
        "bytes_compared": calls.bytes.load(Ordering::Relaxed),
        "daemon_kills": summary(calls.stalls(&inflicted.kills)),
        "supervisor_kills": summary(calls.stalls(&inflicted.restarts)),
        "upgrades": summary(inflicted.pauses),
    })
}

/// Tells the applications to end.
struct Over<'a>(&'a Calls);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

fn inflict(extent: &Extent, sample: &Sample, supervisor: &mut Supervisor) -> Inflicted {
    let mut done = Inflicted::default();
    let mut random = Random(1);
    let mut killed = 0;
    for _ in 0..extent.kills {
        let daemon = supervisor.daemon_after(killed);
        // How long a daemon lives is what is tried, and nothing is waited for.
        thread::sleep(Duration::from_millis(random.within(&KILL_PAUSE_MS)));
        done.kills.push(Instant::now());
        kill_process(daemon);
        killed = daemon;
    }
    for restart in 0..extent.restarts {
        // Both at one time would be the end of the mount.
        let daemon = supervisor.daemon_after(killed);
        supervisor.kill();
        done.restarts.push(Instant::now());
        *supervisor = Supervisor::start(sample);
        assert_eq!(supervisor.daemon, daemon, "the daemon was not adopted");
        if restart % 2 == 0 {
            kill_process(daemon);
            killed = daemon;
        }
    }
    supervisor.daemon_after(killed);
    for _ in 0..extent.upgrades {
        let pause_us = supervisor.upgrade();
        done.pauses.push(Duration::from_micros(pause_us.into()));
    }
    done
}

fn summary(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort();
    let at = |percent: usize| {
        let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        let time = times.get(place).copied().unwrap_or_default();
        (time.as_secs_f64() * 10_000.0).round() / 10.0
    };
    serde_json::json!({
        "count": times.len(),
        "stall_p50_ms": at(50),
        "stall_p99_ms": at(99),
        "stall_max_ms": at(100),
    })
}

/// `sha256sum` of a large file, read from its beginning past the kernel's cache.
fn sums(sample: &Sample, calls: &Calls) {
    let expected = sum(&fs::read(sample.tree().join("large.bin")).unwrap());
    let mut buffer = vec![0; 1 << 20];
    while calls.goes_on() {
        let mut file = open(&sample.mountpoint().join("large.bin"), calls);
        forget_pages(&file);
        let mut state = Sha256::new();
        loop {
            let length = calls.time(|| file.read(&mut buffer)).unwrap();
            if length == 0 {
                break;
            }
            calls.add_bytes(length);
            state.update(&buffer[..length]);
        }
        assert_eq!(<[u8; 32]>::from(state.finalize()), expected, "wrong sum");
    }
}

/// Reads of 4 to 64 KiB anywhere, as `fio --rw=randread` does them, each compared.
fn random_reads(sample: &Sample, calls: &Calls) {
    let expected = fs::read(sample.tree().join("odd.bin")).unwrap();
    let file = open(&sample.mountpoint().join("odd.bin"), calls);
    let mut random = Random(2);
    let mut buffer = vec![0; 64 << 10];
    while calls.goes_on() {
        forget_pages(&file);
        let length = usize::try_from(random.within(&(4096..=65536))).unwrap();
        let last = expected.len() - length;
        let at = usize::try_from(random.within(&(0..=last as u64))).unwrap();
        let part = &mut buffer[..length];
        calls.time(|| file.read_exact_at(part, at as u64)).unwrap();
        assert!(part == &expected[at..at + length], "wrong bytes at {at}");
        calls.add_bytes(length);
    }
}

/// Small files, opened, read whole past the kernel's cache, and closed.
fn small_files(sample: &Sample, calls: &Calls) {
    let paths = sample.paths();
    for path in paths.iter().cycle() {
        if !calls.goes_on() {
            return;
        }
        if !path.starts_with("small") {
            continue;
        }
        let expected = fs::read(sample.tree().join(path)).unwrap();
        let mounted = sample.mountpoint().join(path);
        let found = calls.time(|| read_past_the_cache(&mounted));
        assert!(found == expected, "wrong bytes in {}", path.display());
        calls.add_bytes(found.len());
    }
}

/// `find -size`: every directory and every status.
fn find(sample: &Sample, calls: &Calls) {
    while calls.goes_on() {
        let mut folders = vec![sample.mountpoint()];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            let entries = calls.time(|| fs::read_dir(&folder).unwrap().collect::<Vec<_>>());
            for entry in entries {
                let entry = entry.unwrap();
                let status = calls.time(|| entry.metadata()).unwrap();
                if status.is_dir() {
                    folders.push(entry.path());
                } else {
                    files += 1;
                }
            }
        }
        assert_eq!(files, 204);
    }
}

/// A file through a mapping, each page brought in anew.
fn maps(sample: &Sample, calls: &Calls) {
    let expected = sum(&fs::read(sample.tree().join("odd.bin")).unwrap());
    let mounted = sample.mountpoint().join("odd.bin");
    while calls.goes_on() {
        forget_pages(&open(&mounted, calls));
        let found = calls.time(|| sum_by_mmap(&mounted));
        assert_eq!(found, expected, "wrong sum through a mapping");
    }
}

/// fio itself, where it is installed, until it is ended; it ends by itself at an error.
fn fio(sample: &Sample) -> Option<Child> {
    let file = sample.mountpoint().join("large.bin");
    let command = Command::new("fio")
        .args(["--name=chaos", "--rw=randread", "--bs=16k", "--direct=0"])
        .args([
            "--invalidate=1",
            "--time_based",
            "--runtime=3600",
            "--numjobs=1",
        ])
        .args(["--thread", "--readonly", "--size=12M", "--output=/dev/null"])
        .arg(format!("--filename={}", file.display()))
        .stdout(Stdio::null())
        .spawn();
    if command.is_err() {
        println!("  fio is not installed: reads of this program alone");
    }
    command.ok()
}

fn open(path: &Path, calls: &Calls) -> File {
    calls.time(|| File::open(path)).unwrap()
}

/// Marsaglia's xorshift; the same numbers in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number of a range.
    pub(crate) fn within(&mut self, range: &std::ops::RangeInclusive<u64>) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start() + self.0 % (range.end() - range.start() + 1)
    }
}
