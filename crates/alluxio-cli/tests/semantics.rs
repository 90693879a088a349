//! Every promise of `docs/semantics.md`, kept by the real binary at a real mount.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "semantics/bucket.rs"]
mod bucket;
mod left_out;
#[path = "semantics/reading.rs"]
mod reading;
#[path = "semantics/refusals.rs"]
mod refusals;
#[path = "semantics/scene.rs"]
mod scene;
#[path = "semantics/versions.rs"]
mod versions;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bucket::Bucket;
use left_out::can_mount;
use rustix::io::Errno;
use scene::{Dataset, Mount, Worker, content, part, wait_until, xattr};

const MIB: usize = 1 << 20;

/// Nothing is fetched but what is read, and every question goes to the under-store.
const EXACT: &str = "{metadata_ttl_seconds: 0, readahead: {max_window: 0}}";

/// The errno of a failure.
fn errno<T>(result: std::io::Result<T>) -> Errno {
    match result {
        Ok(_) => panic!("must fail"),
        Err(error) => Errno::from_io_error(&error).unwrap(),
    }
}

// Names and metadata

#[test]
fn names_and_sizes_are_believed_for_the_metadata_ttl() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    dataset.put("d/f", "old");
    let sleepy = Mount::of(&dataset, "client: {metadata_ttl_seconds: 3600}");
    let wakeful = Mount::of(&dataset, "client: {metadata_ttl_seconds: 0}");
    let seen = |mount: &Mount| {
        let length = fs::metadata(mount.path("d/f")).unwrap().len();
        (length, mount.names("d").len())
    };
    assert_eq!((seen(&sleepy), seen(&wakeful)), ((3, 1), (3, 1)));
    dataset.put("d/f", "newer");
    dataset.put("d/g", "");
    assert_eq!((seen(&sleepy), seen(&wakeful)), ((3, 1), (5, 2)));
}

#[test]
fn a_missing_name_is_asked_for_again_soon() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let mount = Mount::of(&dataset, "client: {metadata_ttl_seconds: 3600}");
    assert_eq!(errno(fs::metadata(mount.path("f"))), Errno::NOENT);
    dataset.put("f", "here");
    wait_until("the new file", || mount.path("f").exists());
}

#[test]
fn a_listing_is_fixed_when_the_directory_is_opened() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    // More than one answer of the kernel's 32 KiB holds.
    for number in 0..3000 {
        dataset.put(&format!("d/file-{number:04}"), "");
    }
    let mount = Mount::of(&dataset, &format!("client: {EXACT}"));
    let mut entries = fs::read_dir(mount.path("d")).unwrap();
    let first = entries.next().unwrap().unwrap().file_name();
    for number in 0..3000 {
        fs::remove_file(dataset.path(&format!("d/file-{number:04}"))).unwrap();
    }
    dataset.put("d/new", "");
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.push(first);
    assert_eq!(names.len(), 3000);
    assert!(!names.iter().any(|name| name == "new"));
    assert_eq!(mount.names("d"), ["new"]);
}

#[test]
fn a_directory_is_a_prefix_or_an_empty_key_with_a_slash() {
    if !can_mount() {
        return;
    }
    let bucket = Bucket::of(&[("data/d/e/f", "text"), ("data/empty/", "")]);
    let mount = Mount::by(&bucket.ufs("data"), &[]);
    assert_eq!(mount.names(""), ["d", "empty"]);
    for directory in ["d", "d/e", "empty"] {
        assert!(fs::metadata(mount.path(directory)).unwrap().is_dir());
    }
    assert_eq!(mount.names("empty"), [""; 0]);
    assert_eq!(mount.read("d/e/f"), b"text");
}

#[test]
fn a_key_that_is_no_path_is_not_listed() {
    if !can_mount() {
        return;
    }
    let keys = [
        "data//b",
        "data/../c",
        "data/./d",
        "data/ends ",
        "data/good",
    ];
    let bucket = Bucket::of(&keys.map(|key| (key, "text")));
    let mount = Mount::by(&bucket.ufs("data"), &[]);
    assert_eq!(mount.names(""), ["good"]);
    assert_eq!(mount.read("good"), b"text");
}

#[test]
fn names_are_at_most_1024_bytes_and_utf8() {
    if !can_mount() {
        return;
    }
    let (longest, longer) = ("n".repeat(1024), "n".repeat(1025));
    let bucket = Bucket::of(&[(&longest, "text"), (&longer, "text")]);
    let mount = Mount::by(&bucket.ufs(""), &[]);
    assert_eq!(mount.names(""), [longest.as_str()]);
    assert_eq!(mount.read(&longest), b"text");
    let limit = rustix::fs::statvfs(mount.path("")).unwrap().f_namemax;
    assert_eq!(limit, 1024);
    assert!(fs::metadata(mount.path(&longer)).is_err());

    let dataset = Dataset::new();
    dataset.put("even", "");
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"odd-\xff"));
    fs::write(dataset.path("").join(odd), "").unwrap();
    let mount = Mount::of(&dataset, "");
    assert_eq!(mount.names(""), ["even"]);
    assert_eq!(errno(fs::metadata(mount.path("").join(odd))), Errno::NOENT);
}

#[test]
fn owner_modes_links_and_times_are_as_promised() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    dataset.put("d/f", "text");
    let looks = [
        "--uid=1000",
        "--gid=1001",
        "--file-mode=0440",
        "--directory-mode=0550",
    ];
    let mount = Mount::by(&format!("ufs: {{uri: '{}'}}", dataset.uri()), &looks);
    let file = fs::metadata(mount.path("d/f")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1000, 1001));
    assert_eq!((file.mode(), file.nlink()), (0o100_440, 1));
    let source = fs::metadata(dataset.path("d/f")).unwrap();
    assert_eq!(file.mtime(), source.mtime());
    let directory = fs::metadata(mount.path("d")).unwrap();
    assert_eq!(directory.mode(), 0o040_550);
    assert_eq!((directory.uid(), directory.gid()), (1000, 1001));
}

// Writing

#[test]
fn every_change_ends_in_erofs() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    dataset.put("d/f", "text");
    let mount = Mount::of(&dataset, "");
    let (file, new) = (mount.path("d/f"), mount.path("d/new"));
    let flags = rustix::fs::XattrFlags::empty();
    let changes = [
        errno(fs::write(&new, "")),
        errno(OpenOptions::new().append(true).open(&file)),
        errno(OpenOptions::new().write(true).truncate(true).open(&file)),
        errno(fs::create_dir(&new)),
        errno(fs::remove_file(&file)),
        errno(fs::remove_dir(mount.path("d"))),
        errno(fs::rename(&file, &new)),
        errno(fs::hard_link(&file, &new)),
        errno(symlink("f", &new)),
        errno(fs::set_permissions(
            &file,
            fs::Permissions::from_mode(0o777),
        )),
        errno(mount.open("d/f").set_modified(std::time::SystemTime::now())),
        rustix::fs::setxattr(&file, "user.mine", b"x", flags).unwrap_err(),
    ];
    assert_eq!(changes, [Errno::ROFS; 12]);
    assert_eq!(fs::read(dataset.path("d/f")).unwrap(), b"text");
}

// Extended attributes

#[test]
fn extended_attributes_tell_where_the_bytes_are() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    dataset.put("f", content(4 * MIB, 1));
    let worker = Worker::start("127.0.0.1", &dataset, "");
    let with = Mount::with_workers(&dataset, &[&worker.address], EXACT);
    let without = Mount::of(&dataset, "");
    let value =
        |mount: &Mount, name: &str| xattr(&mount.path("f"), &format!("user.alluxio.{name}"));
    assert_eq!(value(&with, "source").as_deref(), Some("worker"));
    assert_eq!(value(&with, "worker"), Some(worker.address.clone()));
    assert_eq!(value(&without, "source").as_deref(), Some("ufs"));
    assert_eq!(value(&without, "worker"), None);
    let version = value(&with, "version").unwrap();
    assert_eq!(value(&without, "version").unwrap(), version);
    dataset.put("f", content(4 * MIB, 2));
    assert_ne!(value(&with, "version").unwrap(), version);
}

#[test]
fn cached_is_100_only_when_the_whole_file_is() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    dataset.put("f", content(4 * MIB, 1));
    let mount = Mount::of(&dataset, "client: {readahead: {max_window: 0}}");
    let cached = || xattr(&mount.path("f"), "user.alluxio.cached").unwrap();
    assert_eq!(cached(), "0");
    let file = mount.open("f");
    part(&file, 3 * MIB + 100, 1).unwrap();
    assert_eq!(cached(), "25");
    part(&file, 0, 3 * MIB).unwrap();
    assert_eq!(cached(), "100");
}

// Errors

#[test]
fn names_fail_as_on_a_local_disk() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    dataset.put("d/f", "text");
    let mount = Mount::of(&dataset, "");
    assert_eq!(errno(File::open(mount.path("d/g"))), Errno::NOENT);
    assert_eq!(errno(File::open(mount.path("d/f/g"))), Errno::NOTDIR);
    assert_eq!(errno(fs::read_dir(mount.path("d/f"))), Errno::NOTDIR);
    assert_eq!(errno(mount.open("d").read(&mut [0; 9])), Errno::ISDIR);
}

#[test]
fn refused_credentials_are_eacces() {
    if !can_mount() {
        return;
    }
    let bucket = Bucket::of(&[("data/f", "text")]);
    // What a listing told a moment ago is not taken for the answer about a name.
    let asking = "client: {negative_ttl_seconds: 0}";
    let mount = Mount::by(&format!("{}\n{asking}\n", bucket.ufs("data")), &[]);
    assert_eq!(mount.names(""), ["f"]);
    let file = mount.open("f");
    bucket.refuse();
    assert_eq!(errno(part(&file, 0, 4)), Errno::ACCESS);
    assert_eq!(errno(File::open(mount.path("other"))), Errno::ACCESS);
    wait_until("the log", || mount.log().contains("without credentials"));
}

#[test]
fn a_name_that_no_worker_can_be_asked_for_is_eopnotsupp() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    dataset.put("50%41", "text");
    let worker = Worker::start("127.0.0.1", &dataset, "");
    let mounted = |policy: &str| {
        // A listing, which workers can be asked for, would answer for the name.
        let client = format!("{{metadata_ttl_seconds: 0, fallback: {{policy: {policy}}}}}");
        Mount::with_workers(&dataset, &[&worker.address], &client)
    };
    let never = mounted("never");
    assert_eq!(errno(File::open(never.path("50%41"))), Errno::OPNOTSUPP);
    assert_eq!(mounted("on_worker_failure").read("50%41"), b"text");
}

#[test]
fn silence_is_etimedout() {
    if !can_mount() {
        return;
    }
    let dataset = Dataset::new();
    let bytes = content(4 * MIB, 1);
    dataset.put("f", &bytes);
    let worker = Worker::start("127.0.0.1", &dataset, "");
    let client = "{readahead: {max_window: 0}, \
                  fallback: {policy: never, worker_timeout_milliseconds: 500}}";
    let mount = Mount::with_workers(&dataset, &[&worker.address], client);
    let file = mount.open("f");
    assert!(part(&file, 0, 4096).unwrap() == bytes[..4096]);
    worker.freeze();
    assert_eq!(errno(part(&file, 3 * MIB, 4096)), Errno::TIMEDOUT);
}

// The document

#[test]
fn docs_semantics_names_only_tests_that_exist() {
    let document = include_str!("../../../docs/semantics.md");
    let (_, proof) = document
        .split_once("\n## Proof\n")
        .expect("a section Proof");
    let named: Vec<_> = proof
        .lines()
        .filter_map(|row| row.strip_suffix("` |")?.rsplit_once('`'))
        .map(|(_, test)| test)
        .collect();
    let named_once: BTreeSet<_> = named.iter().copied().collect();
    assert_eq!(named.len(), named_once.len(), "a test is named twice");
    let existing: BTreeSet<_> = [
        include_str!("semantics.rs"),
        include_str!("semantics/reading.rs"),
        include_str!("semantics/refusals.rs"),
        include_str!("semantics/versions.rs"),
    ]
    .into_iter()
    .flat_map(|file| file.split("#[test]\nfn ").skip(1))
    .filter_map(|rest| rest.split_once("()"))
    .map(|(name, _)| name)
    .filter(|name| *name != "docs_semantics_names_only_tests_that_exist")
    .collect();
    // Of the mount's own checks some are promises, and some look behind the scenes.
    let checks = include_str!("../../alluxio-fuse/tests/mount/main.rs");
    let is_check = |name: &&str| checks.contains(&format!("\"{name}\","));
    let checks: BTreeSet<_> = named_once.iter().copied().filter(is_check).collect();
    assert_eq!(named_once, &existing | &checks);
}
