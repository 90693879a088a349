//! A manifest tells what was put into it, and nothing of a file that is not one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 1 << 30;

fn root() -> UfsUri {
    UfsUri::parse("s3://bucket/data").unwrap()
}

fn file(path: &str, length: u64) -> FileStatus {
    let uri = root().join(path).unwrap();
    FileStatus {
        kind: FileKind::File,
        name: uri.name().to_owned(),
        path: format!("/{path}"),
        ufs_uri: uri.to_string(),
        modified_ms: 1_700_000_000_000 + i64::try_from(length).unwrap(),
        length,
        content_hash: Some(format!("{length:032x}")),
    }
}

fn build(files: &[FileStatus]) -> (tempfile::TempDir, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m");
    let mut builder = ManifestBuilder::new(root(), &target, 1_700_000_000_000);
    for file in files {
        builder.add(file).unwrap();
    }
    let summary = builder.finish().unwrap();
    let manifest = Manifest::open(&target, LIMIT).unwrap();
    assert_eq!(manifest.summary(), summary);
    (folder, manifest)
}

fn names(statuses: &[FileStatus]) -> Vec<(&str, bool)> {
    let name = |s: &'_ FileStatus| s.is_directory();
    statuses
        .iter()
        .map(|s| (s.name.as_str(), name(s)))
        .collect()
}

#[test]
fn directories_come_from_the_files_below_them() {
    let files = ["b", "a-b/x", "a/z", "a/b/c/d", "a.txt"].map(|path| file(path, 7));
    let (_folder, manifest) = build(&files);
    let listed = manifest.list("").unwrap();
    let expected = [("a", true), ("a-b", true), ("a.txt", false), ("b", false)];
    assert_eq!(names(&listed), expected);
    assert_eq!(
        names(&manifest.list("a").unwrap()),
        [("b", true), ("z", false)]
    );
    assert_eq!(manifest.lookup("a/z"), Some(file("a/z", 7)));
    assert!(manifest.lookup("a/b").unwrap().is_directory());
    assert_eq!(manifest.lookup("").unwrap().ufs_uri, root().as_str());
    for missing in ["c", "a/b/c/e", "a/z/y", "b/c"] {
        assert_eq!(manifest.lookup(missing), None, "{missing}");
        assert_eq!(manifest.list(missing), None, "{missing}");
    }
    let below: Vec<_> = manifest.below("a").map(|s| s.path).collect();
    assert_eq!(below, ["/a/z", "/a/b/c/d"]);
    assert_eq!(manifest.below("").count(), 5);
    assert_eq!(manifest.summary().bytes, 35);
}

#[test]
fn an_empty_dataset_is_an_empty_directory() {
    let (_folder, manifest) = build(&[]);
    assert_eq!(manifest.list(""), Some(Vec::new()));
    assert_eq!(
        (manifest.summary().files, manifest.summary().directories),
        (0, 1)
    );
}

#[test]
fn a_file_wins_over_a_directory_of_its_name_as_in_a_listing() {
    let (_folder, manifest) = build(&[file("a/x", 1), file("a", 2)]);
    assert_eq!(names(&manifest.list("").unwrap()), [("a", false)]);
    assert_eq!(manifest.lookup("a/x").unwrap().length, 1);
}

#[test]
fn every_single_broken_byte_and_every_cut_is_refused() {
    let files: Vec<_> = (0..40)
        .map(|i| file(&format!("d{}/f{i}", i % 3), i))
        .collect();
    let (_folder, manifest) = build(&files);
    for at in 0..manifest.bytes.len() {
        let mut broken = manifest.bytes.clone();
        broken[at] ^= 0x10;
        assert!(Manifest::from_bytes(broken).is_err(), "byte {at}");
        assert!(
            Manifest::from_bytes(manifest.bytes[..at].to_vec()).is_err(),
            "cut at {at}"
        );
    }
}

#[test]
fn a_crafted_file_with_a_right_checksum_is_refused_without_a_panic() {
    let files: Vec<_> = (0..40)
        .map(|i| file(&format!("d{}/f{i}", i % 3), i))
        .collect();
    let (_folder, manifest) = build(&files);
    let checksum_at = manifest.bytes.len() - FOOTER_BYTES + CHECKSUM_AT;
    for at in 0..checksum_at {
        for flip in [0x01, 0x80, 0xff] {
            let mut crafted = manifest.bytes.clone();
            crafted[at] ^= flip;
            let checksum = xxh3_128(&crafted[..checksum_at]).to_le_bytes();
            crafted[checksum_at..checksum_at + 16].copy_from_slice(&checksum);
            // Some bytes only change a name or a time; what is taken must be readable throughout.
            if let Ok(manifest) = Manifest::from_bytes(crafted) {
                let found = manifest.below("").filter(|file| {
                    manifest
                        .lookup(&file.path[1..])
                        .is_some_and(|again| again == *file)
                });
                assert_eq!(found.count() as u64, manifest.summary().files, "byte {at}");
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_manifest_is_said_with_its_name_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let error = Manifest::open(&path, LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    std::fs::write(
        &path,
        "not a manifest, but long enough to be looked at closely for one",
    )
    .unwrap();
    let error = Manifest::open(&path, LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("manifest create"), "{error}");
    let error = Manifest::open(&path, 10).unwrap_err();
    assert!(
        error.to_string().contains("client.manifest.limit"),
        "{error}"
    );
}

#[test]
fn a_build_that_fails_leaves_the_old_manifest_and_no_litter() {
    let (folder, _) = build(&[file("a", 1)]);
    let target = folder.path().join("m");
    let mut builder = ManifestBuilder::new(root(), &target, 0);
    builder.add(&file("b", 1)).unwrap();
    let mut outside = file("c", 1);
    outside.ufs_uri = "s3://bucket/other".to_owned();
    assert_eq!(
        builder.add(&outside).unwrap_err().kind(),
        ErrorKind::NotDirectory
    );
    drop(builder);
    assert!(
        Manifest::open(&target, LIMIT)
            .unwrap()
            .lookup("a")
            .is_some()
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_listing_that_fails_half_way_leaves_the_old_manifest() {
    let (folder, _) = build(&[file("a", 1)]);
    let target = folder.path().join("m");
    let broken = Error::new(ErrorKind::Unavailable, "walk", "the store went away");
    let listing = futures::stream::iter([Ok(file("b", 1)), Err(broken)]);
    let error = take(root(), listing, &target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        Manifest::open(&target, LIMIT)
            .unwrap()
            .lookup("a")
            .is_some()
    );
    let summary = take(root(), futures::stream::iter([Ok(file("b", 1))]), &target).await;
    assert_eq!(summary.unwrap().files, 1);
    assert!(
        Manifest::open(&target, LIMIT)
            .unwrap()
            .lookup("a")
            .is_none()
    );
}

#[test]
fn a_diff_tells_what_was_added_removed_and_replaced() {
    let (_a, before) = build(&[
        file("a/1", 1),
        file("a-b", 2),
        file("c", 3),
        file("same", 4),
    ]);
    let (_b, after) = build(&[file("a/1", 9), file("b", 2), file("c", 3), file("same", 4)]);
    let changes: Vec<_> = diff(&before, &after).collect();
    let expected = [
        Change::Removed(file("a-b", 2)),
        Change::Added(file("b", 2)),
        Change::Replaced {
            before: file("a/1", 1),
            after: file("a/1", 9),
        },
    ];
    assert_eq!(changes, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_manifest_answers_as_a_map_of_the_files_does(
        paths in prop::collection::btree_set("[ab-]{1,2}(/[aé-]{1,2}){0,3}", 0..50),
        order in any::<u64>(),
    ) {
        // A path that is a file and a directory at once has a test of its own.
        let is_above = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
        let paths: BTreeSet<_> = paths.iter().filter(|a| !paths.iter().any(|b| is_above(a, b))).cloned().collect();
        let mut files: Vec<_> = paths.iter().enumerate().map(|(i, path)| file(path, i as u64)).collect();
        files.sort_by_key(|file| file.length.wrapping_mul(order | 1));
        let (_folder, manifest) = build(&files);
        let mut children: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::from([("", BTreeSet::new())]);
        for path in &paths {
            let mut path = path.as_str();
            while !path.is_empty() {
                let (directory, name) = split_path(path);
                children.entry(directory).or_default().insert(name);
                path = directory;
            }
        }
        for (directory, names) in &children {
            let listed = manifest.list(directory).unwrap();
            prop_assert!(listed.iter().map(|s| s.name.as_str()).eq(names.iter().copied()));
            for status in &listed {
                prop_assert_eq!(manifest.lookup(&status.path[1..]), Some(status.clone()));
            }
            let below: BTreeSet<_> = manifest.below(directory).map(|s| s.path[1..].to_owned()).collect();
            let expected = paths.iter().filter(|path| directory.is_empty() || is_above(directory, path));
            prop_assert!(below.iter().eq(expected));
        }
        prop_assert_eq!(manifest.summary().directories, children.len() as u64);
        for file in &files {
            prop_assert_eq!(manifest.lookup(&file.path[1..]), Some(file.clone()));
        }
    }
}
