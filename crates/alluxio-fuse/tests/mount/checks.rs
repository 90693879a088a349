//! What a mount must do, one function each.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use alluxio_fuse::{AgentSpawner, Mount, MountError, agent, unmount_abandoned};

use crate::local_tree::{ESCAPE, POISON};
use crate::sample::{
    NOBODY, Sample, daemon_of, exists, has_ended, shared, sum, this_program,
    this_program_with_client, wait_until,
};
use crate::takeover::{Supervisor, reads_right};

/// Daemons killed in one check: enough to hit a read, a reply and a start several times each.
const KILLS: u32 = 20;

/// How long each of them lives at least: a supervisor takes one that dies within 100 ms for one
/// that fails at birth, and waits ever longer before the next.
const LIFE: Duration = Duration::from_millis(120);

pub(crate) fn bytes_equal_by_read_and_by_mmap() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    let paths = sample.paths();
    assert_eq!(paths.len(), 204);
    thread::scope(|scope| {
        for reader in 0..4 {
            let (sample, paths) = (&sample, &paths);
            scope.spawn(move || {
                for path in paths.iter().cycle().skip(reader * 51).take(paths.len()) {
                    let expected = sum(&fs::read(sample.tree().join(path)).unwrap());
                    let mounted = sample.mountpoint().join(path);
                    let context = path.display();
                    if reader % 2 == 0 {
                        assert_eq!(sum(&fs::read(&mounted).unwrap()), expected, "{context}");
                    } else {
                        assert_eq!(sum_by_mmap(&mounted), expected, "{context}");
                    }
                }
            });
        }
    });
    // Beyond the end there is nothing, and across it what is left.
    let odd = File::open(sample.mountpoint().join("odd.bin")).unwrap();
    let mut buffer = [0; 8192];
    assert_eq!(odd.read_at(&mut buffer, (3 << 20) + 4090).unwrap(), 7);
    assert_eq!(odd.read_at(&mut buffer, 1 << 30).unwrap(), 0);
    drop(odd);
    ends_cleanly(&sample, &mount);
}

pub(crate) fn five_thousand_names_are_listed() {
    let sample = Sample::new();
    for number in 0..5000 {
        sample.file(&format!("many/file-{number:05}"), 0);
    }
    let mount = sample.mount();
    let mut names: Vec<_> = fs::read_dir(sample.mountpoint().join("many"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected: Vec<_> = (0..5000)
        .map(|number| format!("file-{number:05}"))
        .collect();
    assert_eq!(names, expected);
    // With a stat of each, the kernel asks for attributes along with the names.
    let entries = fs::read_dir(sample.mountpoint().join("many")).unwrap();
    let empty = entries.filter(|entry| entry.as_ref().unwrap().metadata().unwrap().len() == 0);
    assert_eq!(empty.count(), 5000);
    ends_cleanly(&sample, &mount);
}

pub(crate) fn attributes_are_those_of_the_options() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    let path = sample.mountpoint().join("odd.bin");
    let (ours, source) = (
        fs::metadata(&path).unwrap(),
        fs::metadata(sample.tree().join("odd.bin")).unwrap(),
    );
    assert_eq!(
        (ours.uid(), ours.gid(), ours.mode()),
        (1000, 1001, 0o100_440)
    );
    assert_eq!((ours.nlink(), ours.len()), (1, source.len()));
    assert_eq!(ours.blocks(), source.len().div_ceil(512));
    assert_eq!(ours.mtime(), source.mtime());
    let root = fs::metadata(sample.mountpoint()).unwrap();
    assert_eq!((root.mode(), root.ino()), (0o040_550, 1));
    assert_eq!(xattr(&path, c"user.alluxio.cached").as_deref(), Ok("25"));
    assert_eq!(
        xattr(&path, c"user.alluxio.source").as_deref(),
        Ok("worker")
    );
    assert_eq!(
        xattr(&path, c"user.alluxio.worker").as_deref(),
        Ok("worker-0:28080")
    );
    let version = xattr(&path, c"user.alluxio.version").unwrap();
    assert!(version.ends_with(&source.len().to_string()), "{version}");
    assert_eq!(xattr(&path, c"user.other"), Err(libc::ENODATA));
    ends_cleanly(&sample, &mount);
}

pub(crate) fn what_is_missing_or_written_is_refused() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    let at = |path: &str| sample.mountpoint().join(path);
    assert_eq!(
        File::open(at("nothing")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        fs::read_dir(at("odd.bin")).unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
    let refusals = [
        fs::write(at("new"), "x"),
        fs::write(at("odd.bin"), "x"),
        fs::remove_file(at("odd.bin")),
        fs::create_dir(at("folder")),
        fs::rename(at("odd.bin"), at("even.bin")),
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    let again = Mount::start(sample.request(), shared(this_program()));
    assert!(matches!(again, Err(MountError::AlreadyMounted { .. })));
    ends_cleanly(&sample, &mount);
}

pub(crate) fn the_daemon_has_no_privilege() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    let pid = daemon_of(&mount);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let values = line.split_whitespace().skip(1);
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    for ids in ["Uid:", "Gid:"] {
        assert_eq!(fields(ids), vec![NOBODY.to_string(); 4], "{status}");
    }
    assert!(fields("Groups:").is_empty());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(fields(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(fields("NoNewPrivs:"), ["1"]);
    assert_eq!(fields("Seccomp:"), ["2"], "no filter of system calls");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for (limit, value) in [("Max core file size", "0"), ("Max data size", "8589934592")] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        let values: Vec<_> = line[limit.len()..].split_whitespace().take(2).collect();
        assert_eq!(values, [value, value], "{line}");
    }
    for namespace in ["mnt", "ipc", "uts"] {
        let [its, ours] = [pid, std::process::id()]
            .map(|pid| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap());
        assert_ne!(its, ours, "{namespace}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    for line in mounts.lines() {
        let flags = line.split(' ').nth(5).unwrap();
        assert!(flags.starts_with("ro"), "{line}");
        assert!(!line.contains("fuse.alluxio-dataset"), "{line}");
    }
    let memory = fs::metadata(format!("/proc/{pid}/mem")).unwrap();
    assert_eq!(
        memory.uid(),
        0,
        "other daemons of the same user can read its memory"
    );
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let tree = sample.tree();
    assert!(
        !arguments.contains(tree.to_str().unwrap()),
        "configuration in {arguments}"
    );
    ends_cleanly(&sample, &mount);
}

pub(crate) fn a_daemon_cannot_leave_its_sandbox() {
    let sample = Sample::with_files();
    sample.file(ESCAPE, 4096);
    let mount = sample.mount();
    let told = fs::read(sample.mountpoint().join(ESCAPE)).unwrap();
    let told = String::from_utf8(told).unwrap();
    let told: Vec<_> = told.trim_end_matches('\0').lines().collect();
    let (closed, none) = (libc::ENOSYS, libc::EROFS);
    let expected = [
        format!("write {none}"),
        format!("read-secret {}", libc::EACCES),
        format!("run {closed}"),
        format!("unshare {closed}"),
        format!("ptrace {closed}"),
        format!("bpf {closed}"),
        format!("become-root {closed}"),
    ];
    assert_eq!(told, expected);
    ends_cleanly(&sample, &mount);
}

pub(crate) fn a_tree_that_cannot_be_reached_leaves_nothing() {
    let sample = Sample::new();
    let mut request = sample.request();
    "/no/such/tree".clone_into(&mut request.config_yaml);
    let failure = Mount::start(request, shared(this_program())).err().unwrap();
    assert!(matches!(&failure, MountError::Daemon(reason) if reason.contains("No such file")));
    assert!(!sample.is_mounted());

    let mut spawner = this_program();
    spawner.program = "/no/such/program".into();
    let failure = Mount::start(sample.request(), shared(spawner))
        .err()
        .unwrap();
    assert!(matches!(failure, MountError::Spawn(_)), "{failure}");
    spawner = this_program();
    spawner.program = "/bin/false".into();
    let failure = Mount::start(sample.request(), shared(spawner))
        .err()
        .unwrap();
    assert!(failure.to_string().contains("exit status: 1"), "{failure}");
    assert!(!sample.is_mounted());

    let mut request = sample.request();
    request.mountpoint = sample.tree().join("missing");
    let failure = Mount::start(request, shared(this_program())).err().unwrap();
    assert!(
        matches!(failure, MountError::Mountpoint { .. }),
        "{failure}"
    );
}

pub(crate) fn a_foreign_unmount_ends_the_mount() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    let pid = daemon_of(&mount);
    unmount_from_outside(&sample);
    mount.wait().unwrap();
    assert!(!exists(pid));
    assert_eq!(mount.restarts(), 0);
    mount.unmount().unwrap();
}

pub(crate) fn readers_do_not_notice_killed_daemons() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    let read = read_while_daemons_die(&sample, &mount);
    println!("  {read} files read while {KILLS} daemons were killed");
    ends_cleanly(&sample, &mount);
}

pub(crate) fn an_agents_daemons_are_replaced_too() {
    let sample = Sample::with_files();
    let socket = sample.socket("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || agent::serve(&listener, &this_program()));
    let mount = Mount::start(sample.request(), shared(AgentSpawner { socket })).unwrap();
    read_while_daemons_die(&sample, &mount);
    ends_cleanly(&sample, &mount);
}

pub(crate) fn a_busy_mount_ends_all_the_same() {
    let sample = Sample::with_files();
    let mount = sample.mount();
    let open = File::open(sample.mountpoint().join("large.bin")).unwrap();
    ends_cleanly(&sample, &mount);
    let mut buffer = [0; 4096];
    let gone = open.read_at(&mut buffer, 8 << 20).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENOTCONN));
}

pub(crate) fn the_client_serves_a_dataset_of_local_files() {
    let sample = Sample::with_files();
    let mut request = sample.request();
    request.config_yaml = format!("ufs: {{uri: \"file://{}\"}}", sample.tree().display());
    let mount = Mount::start(request, shared(this_program_with_client())).unwrap();
    for path in sample.paths() {
        let expected = sum(&fs::read(sample.tree().join(&path)).unwrap());
        let mounted = sample.mountpoint().join(&path);
        assert_eq!(
            sum(&read_past_the_cache(&mounted)),
            expected,
            "{}",
            path.display()
        );
        assert_eq!(sum_by_mmap(&mounted), expected, "{}", path.display());
    }
    let odd = sample.mountpoint().join("odd.bin");
    read_past_the_cache(&odd);
    assert_eq!(xattr(&odd, c"user.alluxio.cached").as_deref(), Ok("100"));
    assert_eq!(xattr(&odd, c"user.alluxio.source").as_deref(), Ok("ufs"));
    assert_eq!(xattr(&odd, c"user.alluxio.worker"), Err(libc::ENODATA));
    // What was read first has left for it: the kernel keeps it.
    let large = sample.mountpoint().join("large.bin");
    assert_ne!(xattr(&large, c"user.alluxio.cached").as_deref(), Ok("100"));
    ends_cleanly(&sample, &mount);
}

pub(crate) fn a_change_that_a_read_meets_is_seen_at_once() {
    let sample = Sample::with_files();
    let mut request = sample.request();
    request.config_yaml = format!(
        "ufs: {{uri: \"file://{}\"}}\nclient: {{metadata_ttl_seconds: 3600, readahead: \
         {{max_window: 0}}}}",
        sample.tree().display()
    );
    let mount = Mount::start(request, shared(this_program_with_client())).unwrap();
    let path = sample.mountpoint().join("large.bin");
    let file = File::open(&path).unwrap();
    let mut start = [0; 4096];
    file.read_exact_at(&mut start, 0).unwrap();
    let beside = sample.tree().join("beside");
    fs::write(&beside, vec![7; 1 << 20]).unwrap();
    fs::rename(&beside, sample.tree().join("large.bin")).unwrap();
    // Names are believed for an hour.
    assert_eq!(fs::metadata(&path).unwrap().len(), 12 << 20);
    let stale = file.read_at(&mut start, 9 << 20).unwrap_err();
    assert_eq!(stale.raw_os_error(), Some(libc::ESTALE));
    wait_until("the change is seen", || {
        fs::metadata(&path).unwrap().len() == 1 << 20
    });
    assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
    drop(file);
    ends_cleanly(&sample, &mount);
}

pub(crate) fn a_dataset_that_is_not_there_is_named() {
    let sample = Sample::new();
    let mut request = sample.request();
    for wrong in [
        "ufs: {uri: \"file:///no/such/dataset\"}",
        "ufs: {uri: \"nonsense\"}",
    ] {
        wrong.clone_into(&mut request.config_yaml);
        let failure = Mount::start(request.clone(), shared(this_program_with_client()));
        let failure = failure.err().unwrap().to_string();
        let names_it = ["/no/such/dataset", "ufs.uri"]
            .iter()
            .any(|name| failure.contains(name));
        assert!(names_it, "{failure}");
        assert!(!sample.is_mounted());
    }
}

pub(crate) fn a_request_that_no_daemon_survives_is_given_up() {
    let sample = Sample::with_files();
    sample.file(POISON, 100);
    let mount = sample.mount();
    let poison = fs::read(sample.mountpoint().join(POISON)).unwrap_err();
    assert_eq!(poison.raw_os_error(), Some(libc::EIO));
    // The first serving and five attempts; and all of it once more, because the kernel reads alone
    // what it could not read ahead.
    wait_until("a daemon serves again", || mount.daemon_pid().is_some());
    assert!((6..=12).contains(&mount.restarts()), "{}", mount.restarts());
    let expected = fs::read(sample.tree().join("odd.bin")).unwrap();
    assert_eq!(
        fs::read(sample.mountpoint().join("odd.bin")).unwrap(),
        expected
    );
    ends_cleanly(&sample, &mount);
}

pub(crate) fn a_daemon_serves_on_without_its_supervisor() {
    let sample = Sample::with_files();
    let mut supervisor = Supervisor::start(&sample);
    let daemon = supervisor.daemon;
    supervisor.kill();
    reads_right(&sample);
    assert!(!has_ended(daemon));
    unmount_abandoned(&sample.mountpoint()).unwrap();
    unmount_abandoned(&sample.mountpoint()).unwrap();
    wait_until("the daemon ends with its mount", || has_ended(daemon));
    assert!(!sample.is_mounted());
}

pub(crate) fn metrics_are_told_on_a_socket() {
    let sample = Sample::with_files();
    let folder = sample.socket("sockets");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    let socket = folder.join("metrics.sock");
    let mut request = sample.request();
    request.options.metrics_socket = Some(socket.clone());
    let mut spawner = this_program();
    spawner.writable = vec![folder];
    let mount = Mount::start(request, shared(spawner)).unwrap();
    fs::read(sample.mountpoint().join("one byte")).unwrap();
    let mut text = String::new();
    // A request is counted a moment after its answer.
    wait_until("the read is counted", || {
        text.clear();
        let mut connection = UnixStream::connect(&socket).unwrap();
        connection.read_to_string(&mut text).unwrap();
        text.contains("alluxio_fuse_requests_total{op=\"read\"} 1")
    });
    assert!(text.contains("alluxio_fuse_daemon_restarts 0"), "{text}");
    ends_cleanly(&sample, &mount);
}

fn unmount_from_outside(sample: &Sample) {
    let path = CString::new(sample.mountpoint().to_str().unwrap()).unwrap();
    // SAFETY: a C string and a number.
    assert_eq!(unsafe { libc::umount2(path.as_ptr(), 0) }, 0);
}

/// Reads everything again and again and kills daemons meanwhile; how many files were read.
fn read_while_daemons_die(sample: &Sample, mount: &Mount) -> u64 {
    let read = read_while(sample, |read| {
        for kill in 0..KILLS {
            let enough = read.load(Ordering::Relaxed) + 40 + u64::from(kill);
            let born = Instant::now();
            wait_until("a daemon has served a while", || {
                read.load(Ordering::Relaxed) > enough && born.elapsed() > LIFE
            });
            kill_process(daemon_of(mount));
            wait_until("the daemon is replaced", || mount.restarts() > kill);
        }
    });
    assert_eq!(mount.restarts(), KILLS);
    read
}

/// Ends a process that a mount of this program started and has not reaped.
pub(crate) fn kill_process(pid: u32) {
    // SAFETY: two numbers.
    unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
}

/// Reads everything again and again while something is done, which gets the number of files read so
/// far; how many there were in the end.
pub(crate) fn read_while(sample: &Sample, act: impl FnOnce(&AtomicU64)) -> u64 {
    let files: Vec<_> = sample
        .paths()
        .into_iter()
        .map(|path| {
            let expected = fs::read(sample.tree().join(&path)).unwrap();
            (path, expected)
        })
        .collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let read = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..4 {
            let (files, count, is_over) = (&files, &read, Arc::clone(&is_over));
            scope.spawn(move || {
                for (path, expected) in files.iter().cycle().skip(number * 50) {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let found = read_past_the_cache(&sample.mountpoint().join(path));
                    assert!(found == *expected, "wrong bytes in {}", path.display());
                    count.fetch_add(1, Ordering::Relaxed);
                    if number == 0 {
                        let folder = sample.mountpoint().join("small/3");
                        assert_eq!(fs::read_dir(folder).unwrap().count(), 29);
                    }
                }
            });
        }
        // The scope waits for the threads, so they must end also when something fails here.
        let _over = Over(&is_over);
        act(&read);
    });
    read.into_inner()
}

/// Tells readers to end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes the kernel drop a file's pages.
pub(crate) fn forget_pages(file: &File) {
    // SAFETY: an open descriptor and numbers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Reads a file whose pages the kernel has just dropped, so that the daemon is asked.
pub(crate) fn read_past_the_cache(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    forget_pages(&file);
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

pub(crate) fn sum_by_mmap(path: &Path) -> [u8; 32] {
    let file = File::open(path).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    if length == 0 {
        return sum(&[]);
    }
    // SAFETY: a new mapping of a file that nobody changes, read within its length and unmapped.
    unsafe {
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let fd = file.as_raw_fd();
        let address = libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0);
        assert_ne!(address, libc::MAP_FAILED);
        let sum = sum(std::slice::from_raw_parts(address.cast(), length));
        libc::munmap(address, length);
        sum
    }
}

fn xattr(path: &Path, name: &CStr) -> Result<String, i32> {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut value = vec![0; 256];
    // SAFETY: C strings, and a buffer with its length.
    let length = unsafe {
        let room = value.as_mut_ptr().cast();
        libc::getxattr(path.as_ptr(), name.as_ptr(), room, value.len())
    };
    let length = usize::try_from(length)
        .map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())?;
    Ok(String::from_utf8(value[..length].to_vec()).unwrap())
}

/// Unmounts; neither the mount nor a process may be left.
pub(crate) fn ends_cleanly(sample: &Sample, mount: &Mount) {
    let pid = daemon_of(mount);
    mount.unmount().unwrap();
    assert!(!sample.is_mounted());
    assert!(!exists(pid), "daemon {pid} is left");
    assert!(mount.has_ended());
    assert_eq!(fs::read_dir(sample.mountpoint()).unwrap().count(), 0);
    mount.wait().unwrap();
    // A second time is fine, and at once.
    let begun = Instant::now();
    mount.unmount().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}
