//! Writing: what was written is read back, reaches the store whole or not at all, and outlives daemons.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use crate::chaos::Random;
use crate::checks::forget_pages;
use crate::gate::Fate;
use crate::sample::wait_until;
use crate::writable::{CAPACITY, Writable, close, errno, for_change};

pub(crate) fn a_written_file_is_whole_in_the_store_when_it_is_closed() {
    Writable::on_each_store(write_and_close);
}

fn write_and_close(it: Writable) {
    let content: Vec<u8> = (0..30_000_000u32)
        .flat_map(u32::to_le_bytes)
        .take(30 << 20)
        .collect();
    let mut file = File::create(it.at("large")).unwrap();
    for part in content.chunks(1_000_003) {
        file.write_all(part).unwrap();
    }
    assert_eq!(
        it.stored("large").unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(fs::metadata(it.at("large")).unwrap().len(), 30 << 20);
    let inode = file.metadata().unwrap().ino();
    close(file).unwrap();
    assert!(it.stored("large").unwrap() == content);
    assert!(fs::read(it.at("large")).unwrap() == content);
    assert_eq!(fs::metadata(it.at("large")).unwrap().ino(), inode);
    // fsync is as good as a close, and a file may be written on after it.
    let mut file = for_change(&it.at("large"));
    file.seek(SeekFrom::Start(5)).unwrap();
    file.write_all(b"changed").unwrap();
    file.sync_all().unwrap();
    assert_eq!(&it.stored("large").unwrap()[5..12], b"changed");
    file.set_len(8).unwrap();
    close(file).unwrap();
    assert_eq!(
        it.stored("large").unwrap(),
        [&content[..5], b"cha"].concat()
    );
    fs::write(it.at("empty"), "").unwrap();
    assert_eq!(it.stored("empty").unwrap(), b"");
    it.end();
}

/// What compares times to see what has changed (make, rsync) must find what it saw at the close.
pub(crate) fn a_file_has_the_stores_time_from_its_close_on() {
    let it = Writable::on_files();
    let modified = |path: &Path| {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        modified.duration_since(UNIX_EPOCH).unwrap().as_millis()
    };
    let mut file = File::create(it.at("f")).unwrap();
    file.write_all(b"f").unwrap();
    let written = modified(&it.at("f"));
    // The times of a disk's files are those of the last tick of its clock.
    wait_until("the clock goes on", || {
        UNIX_EPOCH.elapsed().unwrap().as_millis() > written + 50
    });
    file.sync_all().unwrap();
    let stored = modified(&it.tree().join("f"));
    assert!(stored > written);
    assert_eq!(modified(&it.at("f")), stored);
    close(file).unwrap();
    assert_eq!(modified(&it.at("f")), stored);
    it.end();
}

pub(crate) fn names_change_as_on_a_local_disk() {
    Writable::on_each_store(change_names);
}

fn change_names(it: Writable) {
    fs::create_dir(it.at("d")).unwrap();
    assert_eq!(errno(fs::create_dir(it.at("d"))), libc::EEXIST);
    fs::write(it.at("d/a"), "a").unwrap();
    fs::write(it.at("d/b"), "b").unwrap();
    let exclusive = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(it.at("d/a"));
    assert_eq!(errno(exclusive), libc::EEXIST);
    assert_eq!(errno(fs::remove_dir(it.at("d"))), libc::ENOTEMPTY);
    fs::rename(it.at("d/a"), it.at("d/b")).unwrap();
    assert_eq!(fs::read(it.at("d/b")).unwrap(), b"a");
    assert_eq!(it.stored("d/b").unwrap(), b"a");
    assert_eq!(errno(fs::metadata(it.at("d/a"))), libc::ENOENT);
    // A whole directory, where the store can do it in one step; else `mv` copies.
    let renamed = fs::rename(it.at("d"), it.at("e"));
    if it.renames_directories() {
        renamed.unwrap();
    } else {
        assert_eq!(errno(renamed), libc::EXDEV);
        assert_eq!(fs::read(it.at("d/b")).unwrap(), b"a");
        fs::create_dir(it.at("e")).unwrap();
        fs::copy(it.at("d/b"), it.at("e/b")).unwrap();
        fs::remove_dir_all(it.at("d")).unwrap();
    }
    assert_eq!(fs::read(it.at("e/b")).unwrap(), b"a");
    let mut log = OpenOptions::new().append(true).open(it.at("e/b")).unwrap();
    log.write_all(b"bc").unwrap();
    close(log).unwrap();
    assert_eq!(it.stored("e/b").unwrap(), b"abc");
    // Names of files that are still being written, too.
    let mut file = File::create(it.at("e/new")).unwrap();
    file.write_all(b"new").unwrap();
    let mut names: Vec<_> = fs::read_dir(it.at("e"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["b", "new"]);
    fs::rename(it.at("e/new"), it.at("e/newer")).unwrap();
    file.write_all(b"er").unwrap();
    close(file).unwrap();
    assert_eq!(it.stored("e/newer").unwrap(), b"newer");
    // A file that was removed stays with who has it open, and comes to nothing.
    let mut open = for_change(&it.at("e/newer"));
    fs::remove_file(it.at("e/newer")).unwrap();
    open.write_all(b"gone").unwrap();
    let mut text = String::new();
    open.seek(SeekFrom::Start(0)).unwrap();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "goner");
    close(open).unwrap();
    assert!(it.stored("e/newer").is_err());
    fs::remove_file(it.at("e/b")).unwrap();
    fs::remove_dir(it.at("e")).unwrap();
    assert_eq!(fs::read_dir(it.at("")).unwrap().count(), 0);
    it.end();
}

pub(crate) fn what_a_store_cannot_hold_is_refused() {
    let it = Writable::on_files();
    fs::write(it.at("f"), "f").unwrap();
    assert_eq!(errno(symlink("f", it.at("link"))), libc::EPERM);
    assert_eq!(errno(fs::hard_link(it.at("f"), it.at("hard"))), libc::EPERM);
    assert_eq!(errno(fs::write(it.at(" blank"), "")), libc::EINVAL);
    // Owner, modes and times are the mount's own: set without effect, so that `tar` and `cp -p` work.
    fs::set_permissions(it.at("f"), fs::Permissions::from_mode(0o777)).unwrap();
    chown(it.at("f"), Some(5), Some(5)).unwrap();
    let status = fs::metadata(it.at("f")).unwrap();
    assert_eq!((status.mode() & 0o777, status.uid()), (0o644, 0));
    // No room.
    let file = File::create(it.at("huge")).unwrap();
    assert_eq!(errno(file.set_len(CAPACITY + 1)), libc::ENOSPC);
    file.write_all_at(b"x", CAPACITY - 1).unwrap();
    assert_eq!(errno(file.write_all_at(b"x", CAPACITY)), libc::ENOSPC);
    file.set_len(0).unwrap();
    close(file).unwrap();
    it.end();
}

pub(crate) fn what_is_written_is_measured() {
    let it = Writable::on_files();
    let ok = "alluxio_fuse_uploads_total{outcome=\"ok\"}";
    let mut file = File::create(it.at("f")).unwrap();
    file.write_all(&[1; 1000]).unwrap();
    assert_eq!(it.figure("alluxio_fuse_staged_bytes"), 1000);
    assert_eq!(it.figure("alluxio_fuse_files_open_for_writing"), 1);
    assert_eq!(it.figure(ok), 0);
    file.sync_all().unwrap();
    assert_eq!(it.figure(ok), 1);
    assert_eq!(it.figure("alluxio_fuse_uploaded_bytes_total"), 1000);
    assert_eq!(it.figure("alluxio_fuse_upload_latency_ms_count"), 1);
    file.write_all(&[2; 1000]).unwrap();
    it.kill_daemon();
    assert_eq!(it.figure("alluxio_fuse_recovered_copies"), 1);
    assert_eq!(it.figure("alluxio_fuse_staged_bytes"), 2000);
    close(file).unwrap();
    assert_eq!(it.stored("f").unwrap().len(), 2000);
    wait_until("nothing is being written", || {
        it.figure("alluxio_fuse_staged_bytes") == 0
    });
    assert_eq!(it.figure("alluxio_fuse_files_open_for_writing"), 0);
    it.end();
}

pub(crate) fn a_failed_upload_is_told_by_close_and_leaves_the_old_file() {
    let it = Writable::on_files();
    fs::write(it.at("f"), "old").unwrap();
    let mut file = for_change(&it.at("f"));
    file.write_all(b"new").unwrap();
    let tree = it.tree();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(errno(file.sync_all()), libc::EACCES);
    assert_eq!(errno(close(file)), libc::EACCES);
    wait_until("the copy is kept aside", || {
        fs::read_dir(it.lost()).unwrap().count() == 1
    });
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(it.stored("f").unwrap(), b"old");
    assert_eq!(fs::read(it.at("f")).unwrap(), b"old");
    take_lost(&it, b"new");
    // By fsync, by close, and once more when the last descriptor had gone.
    let failed = "alluxio_fuse_uploads_total{outcome=\"failed\"}";
    assert_eq!(it.figure(failed), 3);
    assert_eq!(it.figure("alluxio_fuse_lost_copies_total"), 1);
    it.end();
}

/// The same over S3, where an upload may also end in the middle, of a request or of its parts.
pub(crate) fn an_upload_that_s3_refuses_is_told_and_leaves_the_old_object() {
    let Some(it) = Writable::behind_a_gate() else {
        return;
    };
    fs::write(it.at("f"), "old").unwrap();
    for fate in [Fate::RefusedAfter(0), Fate::Cut] {
        let expected = if fate == Fate::Cut {
            libc::EIO
        } else {
            libc::EACCES
        };
        let mut file = for_change(&it.at("f"));
        file.write_all(b"new").unwrap();
        it.set_fate(fate);
        assert_eq!(errno(file.sync_all()), expected, "{fate:?}");
        assert_eq!(it.stored("f").unwrap(), b"old", "{fate:?}");
        // Who tries again may succeed: nothing is given up while the file is open.
        it.set_fate(Fate::Passed);
        file.sync_all().unwrap();
        assert_eq!(it.stored("f").unwrap(), b"new");
        file.set_len(0).unwrap();
        file.write_all_at(b"worse", 0).unwrap();
        it.set_fate(fate);
        assert_eq!(errno(close(file)), expected, "{fate:?}");
        take_lost(&it, b"worse");
        assert_eq!(it.stored("f").unwrap(), b"new");
        assert_eq!(fs::read(it.at("f")).unwrap(), b"new");
        it.set_fate(Fate::Passed);
        fs::write(it.at("f"), "old").unwrap();
    }
    // Of a file in two parts, the first of which is sent while it is written, nothing is seen,
    // whether its beginning, one of them or its end is refused.
    let content = vec![7; 20 << 20];
    for passes in 0..4 {
        it.set_fate(Fate::RefusedAfter(passes));
        let mut file = File::create(it.at("large")).unwrap();
        file.write_all(&content).unwrap();
        assert_eq!(errno(close(file)), libc::EACCES, "{passes} requests passed");
        take_lost(&it, &content);
        let stored = it.stored("large").unwrap_err();
        assert_eq!(stored.kind(), io::ErrorKind::NotFound);
        assert_eq!(errno(fs::metadata(it.at("large"))), libc::ENOENT);
    }
    it.set_fate(Fate::Passed);
    fs::write(it.at("large"), &content).unwrap();
    assert!(it.stored("large").unwrap() == content);
    it.end();
}

/// Takes the one file that is kept aside.
fn take_lost(it: &Writable, content: &[u8]) {
    let lost = it.lost();
    wait_until("the copy is kept aside", || {
        fs::read_dir(&lost).unwrap().count() == 1
    });
    let kept = fs::read_dir(&lost).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read(&kept).unwrap() == content);
    fs::remove_file(kept).unwrap();
}

pub(crate) fn writers_do_not_notice_killed_daemons() {
    Writable::on_each_store(write_while_daemons_die);
}

fn write_while_daemons_die(it: Writable) {
    fs::write(it.at("f"), "old").unwrap();
    let is_over = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut round = 0u64;
            while !is_over.load(Ordering::Relaxed) {
                let name = format!("g{}", round % 3);
                let content = vec![u8::try_from(round % 251).unwrap(); 300_000];
                let mut file = File::create(it.at("new")).unwrap();
                for part in content.chunks(70_000) {
                    file.write_all(part).unwrap();
                }
                close(file).unwrap();
                fs::rename(it.at("new"), it.at(&name)).unwrap();
                assert!(fs::read(it.at(&name)).unwrap() == content, "round {round}");
                assert!(it.stored(&name).unwrap() == content, "round {round}");
                round += 1;
            }
            round
        });
        for _ in 0..10 {
            // The pace of the kills is what is tried.
            thread::sleep(Duration::from_millis(130));
            it.kill_daemon();
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    println!("  {rounds} files written while 10 daemons were killed");
    // What was not closed is not in the store, and is there all the same for who writes it.
    let mut file = for_change(&it.at("f"));
    file.write_all(b"half").unwrap();
    it.kill_daemon();
    assert_eq!(it.stored("f").unwrap(), b"old");
    assert_eq!(fs::read(it.at("f")).unwrap(), b"half");
    file.write_all(b" and whole").unwrap();
    close(file).unwrap();
    assert_eq!(it.stored("f").unwrap(), b"half and whole");
    it.end();
}

/// A random walk over one file, beside a model of it in memory, as `fsx` does it.
pub(crate) fn a_file_is_what_a_model_of_it_is() {
    Writable::on_each_store(walk_at_random);
}

fn walk_at_random(it: Writable) {
    const LONGEST: u64 = 400_000;
    let mut random = Random(42);
    let mut model: Vec<u8> = Vec::new();
    let path = it.at("model");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .unwrap();
    for step in 0..800u32 {
        let at = random.within(&(0..=LONGEST));
        let length = random.within(&(1..=50_000));
        let (from, size) = (
            usize::try_from(at).unwrap(),
            usize::try_from(length).unwrap(),
        );
        match random.within(&(0..=19)) {
            0..=6 => {
                let first = u64::from(step);
                let bytes: Vec<u8> = (first..first + length)
                    .map(|byte| byte.to_le_bytes()[0])
                    .collect();
                file.write_all_at(&bytes, at).unwrap();
                if model.len() < from + size {
                    model.resize(from + size, 0);
                }
                model[from..from + size].copy_from_slice(&bytes);
            }
            7..=11 => {
                let mut bytes = vec![0; size];
                let mut found = 0;
                while found < size {
                    match file
                        .read_at(&mut bytes[found..], at + found as u64)
                        .unwrap()
                    {
                        0 => break,
                        count => found += count,
                    }
                }
                let expected = model.get(from..).unwrap_or_default();
                let expected = &expected[..expected.len().min(size)];
                assert!(bytes[..found] == *expected, "step {step}: read at {at}");
            }
            12 | 13 => {
                file.set_len(at).unwrap();
                model.resize(from, 0);
            }
            14 => file.sync_all().unwrap(),
            15 => change_by_mapping(&file, &mut model, from, size),
            16 => {
                close(file).unwrap();
                assert!(
                    it.stored("model").unwrap() == model,
                    "step {step}: the store"
                );
                file = for_change(&path);
            }
            17 => forget_pages(&file),
            18 => {
                file.sync_data().unwrap();
                forget_pages(&file);
                assert!(fs::read(&path).unwrap() == model, "step {step}: all of it");
            }
            _ if step % 4 == 0 => it.kill_daemon(),
            _ => {}
        }
        assert_eq!(
            file.metadata().unwrap().len(),
            model.len() as u64,
            "step {step}"
        );
    }
    close(file).unwrap();
    assert!(it.stored("model").unwrap() == model);
    assert!(fs::read(&path).unwrap() == model);
    it.end();
}

/// Changes bytes through a shared mapping.
fn change_by_mapping(file: &File, model: &mut [u8], from: usize, size: usize) {
    let end = model.len().min(from + size);
    if from >= end {
        return;
    }
    // SAFETY: a new mapping of a file that nobody cuts meanwhile, changed within its length,
    // synchronised and unmapped.
    unsafe {
        let (protection, length) = (libc::PROT_READ | libc::PROT_WRITE, model.len());
        let (flags, fd) = (libc::MAP_SHARED, file.as_raw_fd());
        let address = libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0);
        assert_ne!(address, libc::MAP_FAILED);
        let mapped = std::slice::from_raw_parts_mut(address.cast::<u8>(), length);
        assert!(mapped[from..end] == model[from..end], "mapping");
        for (byte, of_model) in mapped[from..end].iter_mut().zip(&mut model[from..end]) {
            *byte ^= 0x5a;
            *of_model = *byte;
        }
        assert_eq!(libc::msync(address, length, libc::MS_SYNC), 0);
        libc::munmap(address, length);
    }
}

/// Supervisor and daemon are gone at one time, as when the node is.
pub(crate) fn a_crash_leaves_the_old_file_and_keeps_what_was_written() {
    let it = Writable::on_files();
    fs::write(it.at("f"), "old").unwrap();
    let mut file = for_change(&it.at("f"));
    file.write_all(b"half").unwrap();
    it.crash();
    assert_eq!(errno(file.write_all(b"way")), libc::ENOTCONN);
    drop(file);
    let it = it.mounted_again();
    assert_eq!(fs::read(it.at("f")).unwrap(), b"old");
    assert_eq!(it.stored("f").unwrap(), b"old");
    let kept = fs::read_dir(it.lost()).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read(kept.path()).unwrap(), b"half");
    fs::remove_file(kept.path()).unwrap();
    it.end();
}

/// What a file system on another machine would not see yet, a reader of this mount does.
pub(crate) fn readers_of_one_mount_see_what_is_written() {
    Writable::on_each_store(|it| {
        fs::write(it.at("f"), "0123456789").unwrap();
        let reader = File::open(it.at("f")).unwrap();
        let mut bytes = [0; 10];
        reader.read_exact_at(&mut bytes, 0).unwrap();
        let mut writer = for_change(&it.at("f"));
        writer.write_all(b"new").unwrap();
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"new3456789");
        forget_pages(&reader);
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"new3456789");
        close(writer).unwrap();
        // From the store again, by the same descriptor.
        it.kill_daemon();
        forget_pages(&reader);
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"new3456789");
        drop(reader);
        fs::remove_file(it.at("f")).unwrap();
        it.end();
    });
}

/// Somebody else writes the same file, past this mount.
pub(crate) fn the_last_close_wins() {
    let it = Writable::on_files();
    for name in ["f", "g"] {
        fs::write(it.at(name), "old").unwrap();
    }
    let mut file = for_change(&it.at("f"));
    file.write_all(b"mine").unwrap();
    fs::write(it.tree().join("f"), "of another").unwrap();
    close(file).unwrap();
    assert_eq!(it.stored("f").unwrap(), b"mine");
    assert_eq!(fs::read(it.at("f")).unwrap(), b"mine");
    // What was replaced before the first change is not mixed with it.
    let mut file = for_change(&it.at("g"));
    fs::write(it.tree().join("g"), "of another").unwrap();
    assert_eq!(errno(file.write_all(b"mine")), libc::ESTALE);
    drop(file);
    assert_eq!(it.stored("g").unwrap(), b"of another");
    // One that another has removed is made anew, though the kernel still believes in it.
    fs::remove_file(it.tree().join("f")).unwrap();
    fs::write(it.at("f"), "anew").unwrap();
    assert_eq!(it.stored("f").unwrap(), b"anew");
    it.end();
}
