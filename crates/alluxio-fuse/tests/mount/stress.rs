//! Many threads for a while, after which nothing may be left: no request, no memory.

use std::fs;
use std::io::Read;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use alluxio_fuse::{Mount, MountRequest};

use crate::chaos::Random;
use crate::checks::{ends_cleanly, read_past_the_cache};
use crate::sample::{NOBODY, Sample, daemon_of, shared, this_program_with_client, wait_until};

/// Readers at one time: more than the daemon has threads, and a good part of its slots.
const THREADS: u64 = 24;

/// How much more memory a daemon may have after than before, in percent.
const GROWTH_PERCENT: u64 = 10;

pub(crate) fn nothing_is_left_after_stress() {
    let seen = run(Duration::from_secs(2), Duration::from_secs(4));
    println!("  {seen}");
}

/// The long version; writes its report as JSON.
pub(crate) fn at_length(report: &str) {
    let seen = run(Duration::from_mins(1), Duration::from_mins(10));
    println!("{seen}");
    let growth = seen["rss_after_kib"].as_u64().unwrap() * 100;
    let before = seen["rss_before_kib"].as_u64().unwrap();
    assert!(
        growth <= before * (100 + GROWTH_PERCENT),
        "memory grew from {before} KiB"
    );
    if !report.is_empty() {
        fs::write(report, format!("{seen}\n")).unwrap();
    }
}

/// `warm_up` fills what is meant to be filled: caches, pools, tables of inodes.
fn run(warm_up: Duration, length: Duration) -> serde_json::Value {
    let sample = Sample::with_files();
    let folder = sample.socket("sockets");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    let socket = folder.join("metrics.sock");
    let mut spawner = this_program_with_client();
    spawner.writable = vec![folder];
    let mut request: MountRequest = sample.request();
    request.config_yaml = format!(
        "ufs: {{uri: \"file://{}\"}}\nclient: {{memory_limit: 16Mi}}",
        sample.tree().display()
    );
    request.options.metrics_socket = Some(socket.clone());
    let mount = Mount::start(request, shared(spawner)).unwrap();
    let daemon = daemon_of(&mount);
    read(&sample, warm_up);
    let before = rss_kib(daemon);
    let files = read(&sample, length);
    for gauge in [
        "alluxio_fuse_inflight_requests",
        "alluxio_client_inflight_requests",
    ] {
        wait_until(gauge, || gauge_of(&socket, gauge) == 0.0);
    }
    let after = rss_kib(daemon);
    assert_eq!(daemon_of(&mount), daemon, "the daemon did not survive");
    ends_cleanly(&sample, &mount);
    serde_json::json!({
        "threads": THREADS,
        "seconds": length.as_secs(),
        "files_read": files,
        "rss_before_kib": before,
        "rss_after_kib": after,
        "gauges_after": 0,
    })
}

/// Reads files in random order past the kernel's cache, each compared; how many there were.
fn read(sample: &Sample, length: Duration) -> u64 {
    let files: Vec<_> = sample
        .paths()
        .into_iter()
        .map(|path| (fs::read(sample.tree().join(&path)).unwrap(), path))
        .collect();
    let deadline = Instant::now() + length;
    let one = |seed: u64| {
        let mut random = Random(seed);
        let mut count = 0;
        while Instant::now() < deadline {
            let place = random.within(&(0..=files.len() as u64 - 1));
            let (expected, path) = &files[usize::try_from(place).unwrap()];
            let found = read_past_the_cache(&sample.mountpoint().join(path));
            assert!(found == *expected, "wrong bytes in {}", path.display());
            count += 1;
        }
        count
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| scope.spawn(move || one(seed)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let value = line.unwrap().split_whitespace().nth(1).unwrap();
    value.parse().unwrap()
}

fn gauge_of(socket: &Path, name: &str) -> f64 {
    let mut text = String::new();
    let mut connection = UnixStream::connect(socket).unwrap();
    connection.read_to_string(&mut text).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with(name));
    let value = lines.next().expect(name).rsplit(' ').next().unwrap();
    value.parse().unwrap()
}
