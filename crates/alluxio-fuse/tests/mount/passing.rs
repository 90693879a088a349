//! Files that lie whole in the disk cache: the kernel reads them past the daemon.

use std::ffi::c_void;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use alluxio_fuse::{AgentSpawner, DaemonSpawner, LocalSpawner, Mount, Passthrough, agent};

use crate::checks::ends_cleanly;
use crate::sample::{
    self, NOBODY, Sample, daemon_of, shared, this_program_with_client, wait_until,
};

/// Larger than what is compared while an open waits: it is compared in the background.
const LARGE_BYTES: usize = 24 << 20;

/// Daemons killed in one check.
const KILLS: u32 = 15;

/// How long each of them lives.
const LIFE: Duration = Duration::from_millis(150);

/// A mount of a sample with a disk cache.
struct Cached {
    sample: Sample,
    mount: Mount,
}

impl Cached {
    fn new(sample: Sample) -> Self {
        let mount = start(&sample);
        Self { sample, mount }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sample.mountpoint().join(name)
    }

    fn source(&self, name: &str) -> Vec<u8> {
        fs::read(self.sample.tree().join(name)).unwrap()
    }

    /// A figure of the daemon.
    fn figure(&self, name: &str) -> u64 {
        sample::figure(&socket(&self.sample), name)
    }

    fn passed(&self) -> u64 {
        self.figure("alluxio_fuse_opens_total{way=\"passthrough\"}")
    }

    /// Opens and reads a file until the kernel reads it past the daemon.
    fn read_until_passed(&self, name: &str) {
        wait_until("a cached file is passed through", || {
            let before = self.passed();
            fs::read(self.path(name)).unwrap();
            self.passed() > before
        });
    }

    /// What is read is what the source has.
    fn reads_right(&self, name: &str) {
        let found = fs::read(self.path(name)).unwrap();
        assert!(found == self.source(name), "wrong bytes in {name}");
    }

    /// The same through a mapping.
    fn maps_right(&self, name: &str) {
        let expected = self.source(name);
        let mapping = Mapping::new(&File::open(self.path(name)).unwrap(), expected.len());
        assert!(mapping.bytes() == expected, "wrong bytes mapped of {name}");
    }

    fn ends(&self) {
        ends_cleanly(&self.sample, &self.mount);
    }
}

fn socket(sample: &Sample) -> PathBuf {
    sample.socket("sockets").join("metrics.sock")
}

fn cache(sample: &Sample) -> PathBuf {
    sample.socket("cache")
}

/// Prepares the folders of the daemon's user and mounts.
fn start(sample: &Sample) -> Mount {
    start_by(sample, shared(caching(sample)))
}

/// Starts daemons that may write to the sample's cache.
fn caching(sample: &Sample) -> LocalSpawner {
    LocalSpawner {
        writable: vec![sample.socket("sockets"), cache(sample)],
        ..this_program_with_client()
    }
}

fn start_by(sample: &Sample, spawner: Arc<dyn DaemonSpawner>) -> Mount {
    start_with(sample, spawner, "")
}

fn start_with(sample: &Sample, spawner: Arc<dyn DaemonSpawner>, more: &str) -> Mount {
    for folder in [sample.socket("sockets"), cache(sample)] {
        fs::create_dir_all(&folder).unwrap();
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut request = sample.request();
    request.options.metrics_socket = Some(socket(sample));
    request.config_yaml = format!(
        "ufs: {{uri: \"file://{}\"}}\nclient: {{disk_cache: {{path: \"{}\", min_free: 0{more}}}}}",
        sample.tree().display(),
        cache(sample).display()
    );
    Mount::start(request, spawner).unwrap()
}

/// Whether this kernel passes files through; where not, that is what the mount must say.
fn is_possible(cached: &Cached) -> bool {
    match cached.mount.passthrough() {
        Passthrough::On => true,
        Passthrough::Off { reason } => {
            println!("  no passthrough here: {reason}");
            assert_eq!(cached.figure("alluxio_fuse_passthrough_available"), 0);
            false
        }
        Passthrough::Untried => panic!("there is a disk cache"),
    }
}

pub(crate) fn a_wholly_cached_file_is_read_past_the_daemon() {
    let sample = Sample::with_files();
    sample.file("larger.bin", LARGE_BYTES);
    let cached = Cached::new(sample);
    if !is_possible(&cached) {
        return cached.ends();
    }
    for name in ["odd.bin", "larger.bin", "one byte"] {
        cached.read_until_passed(name);
        let passed = cached.passed();
        cached.reads_right(name);
        cached.maps_right(name);
        assert_eq!(cached.passed(), passed + 2, "{name} is read by the daemon");
    }
    assert_eq!(cached.figure("alluxio_fuse_backing_files"), 3);
    let length = fs::metadata(cached.path("odd.bin")).unwrap().len();
    assert_eq!(length, (3 << 20) + 4097);
    cached.ends();
}

pub(crate) fn a_file_that_is_open_keeps_its_way_and_no_reader_sees_an_error() {
    let cached = Cached::new(Sample::with_files());
    if !is_possible(&cached) {
        return cached.ends();
    }
    let path = cached.path("large.bin");
    // Opened and mapped before it is cached, and for long.
    let early = File::open(&path).unwrap();
    let mapping = Mapping::new(&early, 12 << 20);
    assert!(mapping.bytes() == cached.source("large.bin"));
    let passed = cached.passed();
    for _ in 0..3 {
        cached.reads_right("large.bin");
        cached.maps_right("large.bin");
    }
    assert_eq!(cached.passed(), passed, "another way while it is mapped");
    drop(early);
    fs::read(&path).unwrap();
    assert_eq!(cached.passed(), passed, "another way while it is mapped");
    drop(mapping);
    cached.read_until_passed("large.bin");

    // The other way round: what is passed through stays so while its cached copy is damaged.
    let held = File::open(&path).unwrap();
    let mut start = [0; 4096];
    held.read_exact_at(&mut start, 0).unwrap();
    cached.reads_right("large.bin");
    drop(held);
    cached.ends();
}

pub(crate) fn a_passed_file_is_read_on_while_no_daemon_lives() {
    let cached = Cached::new(Sample::with_files());
    if !is_possible(&cached) {
        return cached.ends();
    }
    cached.read_until_passed("large.bin");
    let held = File::open(cached.path("large.bin")).unwrap();
    let expected = cached.source("large.bin");
    let mut bytes = vec![0; expected.len()];
    for _ in 0..5 {
        kill(daemon_of(&cached.mount));
        held.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == expected);
        // A new opening waits for the successor, which must choose the same way.
        cached.reads_right("large.bin");
    }
    drop(held);
    cached.read_until_passed("large.bin");
    cached.ends();
}

pub(crate) fn readers_of_cached_files_do_not_notice_killed_daemons() {
    let cached = Cached::new(Sample::with_files());
    let read = read_while_daemons_die(&cached);
    println!("  {read} files read while {KILLS} daemons were killed");
    cached.ends();
}

pub(crate) fn an_agents_daemons_pass_files_through_too() {
    let sample = Sample::with_files();
    let agents = sample.socket("agent.sock");
    let listener = UnixListener::bind(&agents).unwrap();
    let daemons = caching(&sample);
    thread::spawn(move || agent::serve(&listener, &daemons));
    let mount = start_by(&sample, shared(AgentSpawner { socket: agents }));
    let cached = Cached { sample, mount };
    if is_possible(&cached) {
        cached.read_until_passed("odd.bin");
        kill(daemon_of(&cached.mount));
        cached.read_until_passed("odd.bin");
    }
    cached.ends();
}

pub(crate) fn a_new_mount_passes_through_what_an_earlier_one_cached() {
    let cached = Cached::new(Sample::with_files());
    if !is_possible(&cached) {
        return cached.ends();
    }
    cached.read_until_passed("large.bin");
    cached.ends();
    let cached = Cached::new(cached.sample);
    let before = cached.passed();
    let bytes = fs::read(cached.path("large.bin")).unwrap();
    assert!(bytes == cached.source("large.bin"));
    assert_eq!(cached.passed(), before + 1, "the first opening already");
    cached.ends();
}

pub(crate) fn the_second_file_of_a_directory_has_its_neighbours_registered() {
    let cached = Cached::new(Sample::with_files());
    if !is_possible(&cached) {
        return cached.ends();
    }
    let entries = fs::read_dir(cached.sample.tree().join("small/3")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| format!("small/3/{}", entry.unwrap().file_name().display()))
        .collect();
    names.sort();
    for name in &names {
        cached.read_until_passed(name);
    }
    cached.ends();

    let cached = Cached::new(cached.sample);
    assert_eq!(
        fs::read_dir(cached.path("small/3")).unwrap().count(),
        names.len()
    );
    let registered = |cached: &Cached| cached.figure("alluxio_fuse_backing_files");
    cached.reads_right(&names[0]);
    assert_eq!(registered(&cached), 1, "one file may be all that is read");
    cached.reads_right(&names[1]);
    assert_eq!(registered(&cached), names.len() as u64);
    for name in &names {
        cached.reads_right(name);
    }
    assert_eq!(cached.passed(), names.len() as u64 + 2);
    cached.ends();
}

pub(crate) fn a_damaged_cache_file_is_never_passed_through() {
    let cached = Cached::new(Sample::with_files());
    cached.read_until_cached("odd.bin");
    cached.ends();
    for file in data_files(&cache(&cached.sample)) {
        if file.metadata().unwrap().len() == (3 << 20) + 4097 {
            let mut bytes = fs::read(&file).unwrap();
            bytes[2 << 20] ^= 1;
            fs::write(&file, bytes).unwrap();
        }
    }
    let cached = Cached::new(cached.sample);
    for _ in 0..3 {
        let bytes = fs::read(cached.path("odd.bin")).unwrap();
        assert!(bytes == cached.source("odd.bin"));
    }
    cached.ends();
}

pub(crate) fn what_was_evicted_is_read_on_by_who_has_it_open() {
    let sample = Sample::new();
    for name in ["a.bin", "b.bin", "c.bin"] {
        sample.file(name, LARGE_BYTES);
    }
    // Two of the files fit.
    let cached = Cached {
        mount: start_with(&sample, shared(caching(&sample)), ", capacity: 64Mi"),
        sample,
    };
    if !is_possible(&cached) {
        return cached.ends();
    }
    cached.read_until_passed("a.bin");
    let held = File::open(cached.path("a.bin")).unwrap();
    cached.read_until_passed("b.bin");
    cached.read_until_passed("c.bin");
    let files = data_files(&cache(&cached.sample));
    let lengths = files.iter().map(|file| file.metadata().unwrap().len());
    let lying = lengths
        .filter(|length| *length == LARGE_BYTES as u64)
        .count();
    assert!(lying < 3, "nothing was evicted");
    let mut bytes = vec![0; LARGE_BYTES];
    held.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == cached.source("a.bin"));
    drop(held);
    cached.reads_right("a.bin");
    cached.ends();
}

pub(crate) fn without_a_disk_cache_nothing_is_tried() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    assert_eq!(mount.passthrough(), Passthrough::Untried);
    ends_cleanly(&sample, &mount);
}

pub(crate) fn the_document_names_each_of_these_checks() {
    let document = include_str!("../../../../docs/semantics.md");
    let checks = include_str!("passing.rs").split("\npub(crate) fn ").skip(1);
    // A function of more than no parameters is none.
    for check in checks
        .filter_map(|rest| rest.split_once(')'))
        .filter_map(|(start, _)| start.strip_suffix('('))
    {
        let is_named = document.contains(&format!("`{check}`"));
        assert!(is_named || check.starts_with("the_document"), "{check}");
    }
}

impl Cached {
    /// Reads a file until all of it lies in the disk cache.
    fn read_until_cached(&self, name: &str) {
        let length = self.source(name).len() as u64;
        wait_until("a file is cached", || {
            fs::read(self.path(name)).unwrap();
            data_files(&cache(&self.sample)).iter().any(|file| {
                let metadata = file.metadata().unwrap();
                metadata.len() == length && metadata.blocks() * 512 >= length
            })
        });
    }
}

fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(data_files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Lets another process open, read and map cached files again and again and kills daemons meanwhile;
/// how many files were read.
///
/// Another process, as applications are: this one is the supervisor, and a process cannot be copied to
/// start a daemon while one of its own threads waits for that daemon in a page fault.
fn read_while_daemons_die(cached: &Cached) -> u64 {
    let mut readers = Command::new(std::env::current_exe().unwrap())
        .arg("readers")
        .args([cached.sample.tree(), cached.sample.mountpoint()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..KILLS {
        let daemon = daemon_of(&cached.mount);
        // How long a daemon lives is what is tried, and nothing is waited for.
        thread::sleep(LIFE);
        kill(daemon);
    }
    drop(readers.stdin.take());
    let mut ended = None;
    wait_until("the readers end", || {
        ended = readers.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success(), "a reader failed: {ended:?}");
    let mut read = String::new();
    let mut told = readers.stdout.take().unwrap();
    told.read_to_string(&mut read).unwrap();
    read.trim().parse().unwrap()
}

/// The main of the process of readers: goes on until its input ends, and prints how many files it
/// read.
pub(crate) fn read_on(tree: &Path, mountpoint: &Path) {
    let content = |file: PathBuf| {
        (
            file.strip_prefix(tree).unwrap().into(),
            fs::read(&file).unwrap(),
        )
    };
    let files: Vec<(PathBuf, Vec<u8>)> = data_files(tree).into_iter().map(content).collect();
    let (is_over, read) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for reader in 0..4 {
            let (files, is_over, read) = (&files, &is_over, &read);
            scope.spawn(move || {
                for (path, expected) in files.iter().cycle().skip(reader * 51) {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let mounted = mountpoint.join(path);
                    let is_right = if reader % 2 == 0 || expected.is_empty() {
                        let found = fs::read(&mounted);
                        found.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                            == *expected
                    } else {
                        let file = File::open(&mounted).unwrap();
                        Mapping::new(&file, expected.len()).bytes() == expected
                    };
                    assert!(is_right, "wrong bytes in {}", path.display());
                    read.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        is_over.store(true, Ordering::Relaxed);
    });
    println!("{}", read.into_inner());
}

fn kill(pid: u32) {
    // SAFETY: plain integers; the process is a daemon of this check.
    unsafe { libc::kill(libc::pid_t::try_from(pid).unwrap(), libc::SIGKILL) };
}

/// A shared mapping of a whole file.
struct Mapping {
    address: *mut c_void,
    length: usize,
}

impl Mapping {
    fn new(file: &File, length: usize) -> Self {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(address, libc::MAP_FAILED);
        Self { address, length }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is as long and lives as long as `self`; nobody writes to the file.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping.
        unsafe { libc::munmap(self.address, self.length) };
    }
}
