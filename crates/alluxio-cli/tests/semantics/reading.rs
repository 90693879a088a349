//! Promises about reading: right bytes, whoever goes, in bounded memory.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::left_out::{can_mount, leave_out};
use crate::scene::{Dataset, Mount, Worker, content, part, wait_until, xattr};
use crate::{EXACT, MIB, errno};

#[test]
fn a_page_of_a_wrong_length_is_never_served() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let bytes = content(5 * MIB + 77, 1);
    dataset.put("f", &bytes);
    let worker = Worker::start("127.0.0.1", &dataset, "client: {page_size: 2Mi}");
    let mount = Mount::with_workers(&dataset, &[&worker.address], "{page_size: 1Mi}");
    assert!(mount.read("f") == bytes, "bytes of shifted pages");
    let refused = mount.metric("alluxio_client_page_size_mismatch_total", "");
    assert!(refused > 0.0, "the worker's pages had another size");
    assert!(mount.metric("alluxio_client_bytes_total", "source=\"ufs\"") > 0.0);
}

#[test]
fn a_page_of_another_version_is_never_served() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let (old, new) = (content(3 * MIB, 1), content(3 * MIB, 2));
    dataset.put("f", &old);
    let worker = Worker::start("127.0.0.1", &dataset, "");
    let before = Mount::with_workers(&dataset, &[&worker.address], EXACT);
    assert!(before.read("f") == old);
    dataset.put("f", &new);
    let after = Mount::with_workers(&dataset, &[&worker.address], EXACT);
    assert!(after.read("f") == new, "the worker's old pages");
}

#[test]
fn a_file_that_is_replaced_while_it_is_open_is_stale() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let (old, new) = (content(8 * MIB, 1), content(8 * MIB + 9, 2));
    dataset.put("f", &old);
    let mount = Mount::of(&dataset, &format!("client: {EXACT}"));
    let file = mount.open("f");
    assert!(part(&file, 0, 4096).unwrap() == old[..4096]);
    dataset.put("f", &new);
    assert_eq!(errno(part(&file, 5 * MIB, 4096)), Errno::STALE);
    assert!(part(&file, 0, 4096).unwrap() == old[..4096], "read before");
    drop(file);
    assert!(mount.read("f") == new, "opening it again gives the new one");
}

#[test]
fn two_open_versions_are_kept_apart() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let (old, new) = (content(8 * MIB, 1), content(8 * MIB + 9, 2));
    dataset.put("f", &old);
    let mount = Mount::of(&dataset, &format!("client: {EXACT}"));
    let first = mount.open("f");
    assert!(part(&first, 0, 4096).unwrap() == old[..4096]);
    dataset.put("f", &new);
    let second = mount.open("f");
    let place = 5 * MIB..5 * MIB + 4096;
    assert!(part(&second, place.start, 4096).unwrap() == new[place.clone()]);
    assert_eq!(errno(part(&first, place.start, 4096)), Errno::STALE);
    assert!(part(&first, 0, 4096).unwrap() == old[..4096], "read before");
    assert!(part(&second, 0, 4096).unwrap() == new[..4096]);
}

#[test]
fn reads_go_on_when_workers_go() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    // So large that the kernel's own read-ahead does not reach from one place to the next.
    let bytes = content(48 * MIB, 1);
    dataset.put("f", &bytes);
    let mut workers = ["127.0.0.1", "127.0.0.2"].map(|host| Worker::start(host, &dataset, ""));
    let addresses = [0, 1].map(|number| workers[number].address.clone());
    let list = [addresses[0].as_str(), &addresses[1]];
    let mount = Mount::with_workers(&dataset, &list, EXACT);
    let from = |source: &str| {
        mount.metric(
            "alluxio_client_bytes_total",
            &format!("source=\"{source}\""),
        ) > 0.0
    };
    let file = mount.open("f");
    let is_right = |at: usize| part(&file, at, MIB).unwrap() == bytes[at..at + MIB];
    assert!(is_right(0) && from("worker") && !from("next_worker"));
    let owner = xattr(&mount.path("f"), "user.alluxio.worker").unwrap();
    let first = addresses.iter().position(|a| *a == owner).unwrap();
    workers[first].kill();
    assert!(is_right(20 * MIB));
    assert!(from("next_worker"), "{}", mount.metrics());
    assert!(!from("ufs"), "{}", mount.metrics());
    workers[1 - first].kill();
    assert!(is_right(40 * MIB) && from("ufs"));
}

#[test]
fn the_policy_never_fails_in_place_of_the_last_step() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let bytes = content(4 * MIB, 1);
    dataset.put("f", &bytes);
    let mut worker = Worker::start("127.0.0.1", &dataset, "");
    let never = "{fallback: {policy: never}, readahead: {max_window: 0}}";
    let mount = Mount::with_workers(&dataset, &[&worker.address], never);
    let file = mount.open("f");
    assert!(part(&file, 0, 4096).unwrap() == bytes[..4096]);
    worker.kill();
    assert_eq!(errno(part(&file, 3 * MIB, 4096)), Errno::IO);
    // What the application is not told is in the log: the file, the worker, what to do.
    wait_until("the log", || mount.log().contains("repair the worker"));
    assert!(mount.log().contains(&worker.address) && mount.log().contains("/f"));
}

#[test]
fn the_policy_always_asks_no_worker() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let bytes = content(2 * MIB, 1);
    dataset.put("f", &bytes);
    let worker = TcpListener::bind("127.0.0.1:0").unwrap();
    worker.set_nonblocking(true).unwrap();
    let address = worker.local_addr().unwrap().to_string();
    let mount = Mount::with_workers(&dataset, &[&address], "{fallback: {policy: always}}");
    assert!(mount.read("f") == bytes);
    assert_eq!(worker.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn reads_are_short_at_the_end_of_a_file_only() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let bytes = content(3 * MIB + 5, 1);
    dataset.put("f", &bytes);
    let mount = Mount::of(&dataset, "");
    let file = mount.open("f");
    let mut buffer = vec![0; 2 * MIB];
    for offset in [
        0,
        1,
        MIB - 1,
        MIB + 7,
        2 * MIB,
        3 * MIB,
        3 * MIB + 5,
        9 * MIB,
    ] {
        let expected = bytes.len().saturating_sub(offset).min(buffer.len());
        let length = file.read_at(&mut buffer, offset as u64).unwrap();
        assert_eq!(length, expected, "at {offset}");
        assert!(length == 0 || buffer[..length] == bytes[offset..offset + length]);
    }
}

#[test]
fn a_file_larger_than_the_memory_limit_is_read_within_it() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let bytes = content(128 * MIB, 1);
    dataset.put("f", &bytes);
    let mount = Mount::of(&dataset, "client: {memory_limit: 16Mi}");
    let kib = |field: &str| {
        let status = fs::read_to_string(format!("/proc/{}/status", mount.daemon())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        let number = line.split_whitespace().nth(1).unwrap();
        number.parse::<usize>().unwrap()
    };
    let before = kib("VmRSS:");
    assert!(mount.read("f") == bytes);
    // Twice the limit and as much again: buffers of the requests and threads are beside it.
    let grown = (kib("VmHWM:") - before) >> 10;
    assert!(grown < 64, "the daemon grew by {grown} MiB");
}

#[test]
fn mmap_works_private_and_shared() {
    if !can_mount() {
        return;
    }
    let script = "import mmap, sys\nexpected = open(sys.argv[2], 'rb').read()\n\
                  for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):\n\
                  \x20 with open(sys.argv[1], 'rb') as f:\n\
                  \x20   assert mmap.mmap(f.fileno(), 0, flags, mmap.PROT_READ)[:] == expected\n";
    let dataset = Dataset::new();
    dataset.put("f", content(3 * MIB + 5, 1));
    let mount = Mount::of(&dataset, "");
    let mut python = Command::new("python3");
    python.args(["-c", script]);
    match python.arg(mount.path("f")).arg(dataset.path("f")).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => leave_out(&format!("the test of mmap needs python3: {error}")),
    }
}

#[test]
fn a_mounts_processes_may_go() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let bytes = content(40 * MIB, 1);
    dataset.put("f", &bytes);
    let mut mount = Mount::of(&dataset, &format!("client: {EXACT}"));
    let file = mount.open("f");
    let inode = fs::metadata(mount.path("f")).unwrap().ino();
    let reads_on = |at: usize| {
        let (at, length) = (at * MIB, MIB);
        assert!(part(&file, at, length).unwrap() == bytes[at..at + length]);
    };
    reads_on(0);
    let daemon = Pid::from_raw(mount.daemon().cast_signed()).unwrap();
    kill_process(daemon, Signal::KILL).unwrap();
    reads_on(10);
    mount.restart_supervisor();
    reads_on(20);
    mount.upgrade();
    reads_on(30);
    assert_eq!(fs::metadata(mount.path("f")).unwrap().ino(), inode);
    assert!(mount.read("f") == bytes);
}
