#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use super::*;
use crate::metrics::{Metrics, encode};
use crate::tree::NoWriter;

fn staging(folder: &Path, is_first: bool) -> Staging<NoWriter> {
    measured(folder, is_first, &Metrics::new(0).unwrap())
}

fn measured(folder: &Path, is_first: bool, metrics: &Metrics) -> Staging<NoWriter> {
    let options = options::Staging {
        folder: folder.to_owned(),
        capacity_bytes: 1000,
    };
    let place = |inode: u64| (inode < 90).then(|| (1, format!("f{inode}").into()));
    Staging::open(&options, is_first, metrics.writing(), place).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_successor_goes_on_with_changed_copies_and_drops_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let first = staging(folder.path(), true);
    let copy = first.create(7, (1, "f7".into())).unwrap();
    first.reserve(5).unwrap();
    copy.write(&mut *copy.turn().await, 0, b"hello").unwrap();
    let removed = first.create(8, (1, "f8".into())).unwrap();
    removed.turn().await.mark(Mark::Unlinked).unwrap();
    let fetched = first.begin(9, "f9", 4).unwrap();
    fetched.fill(0, b"what").unwrap();
    first.adopt(fetched, (1, "f9".into())).await.unwrap();
    assert_eq!(
        names(folder.path()),
        ["7-f7.dirty", "8-f8.unlinked", "9-f9.clean", "lost"]
    );
    let metrics = Metrics::new(1).unwrap();
    let second = measured(folder.path(), false, &metrics);
    assert_eq!(
        names(folder.path()),
        ["7-f7.dirty", "8-f8.unlinked", "lost"]
    );
    second.measure();
    let text = encode(&metrics.gather());
    assert!(text.contains("alluxio_fuse_recovered_copies 1\n"), "{text}");
    assert!(text.contains("alluxio_fuse_staged_bytes 5\n"), "{text}");
    assert!(second.get(8).is_some() && second.at(1, "f8").is_none());
    let copy = second.at(1, "f7").unwrap();
    assert_eq!((copy.inode(), copy.length()), (7, 5));
    assert_eq!(copy.read(1, 100).unwrap(), b"ello");
    assert!(second.get(9).is_none());
    // Room is counted anew.
    assert!(second.reserve(996).is_err());
    second.reserve(995).unwrap();
}

#[tokio::test]
async fn what_a_mount_that_is_over_left_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let copy = staging(folder.path(), true)
        .create(7, (1, "f7.pt".into()))
        .unwrap();
    copy.write(&mut *copy.turn().await, 0, b"hello").unwrap();
    let metrics = Metrics::new(0).unwrap();
    let next = measured(folder.path(), true, &metrics);
    assert!(next.get(7).is_none());
    let text = encode(&metrics.gather());
    assert!(
        text.contains("alluxio_fuse_lost_copies_total 1\n"),
        "{text}"
    );
    let lost = folder.path().join("lost");
    let [name] = &names(&lost)[..] else {
        panic!("{:?}", names(&lost));
    };
    assert!(name.ends_with("-7-f7_pt.dirty"), "{name}");
    assert_eq!(fs::read(lost.join(name)).unwrap(), b"hello");
}

#[tokio::test]
async fn room_is_bounded_and_comes_back_with_a_copys_end() {
    let folder = tempfile::tempdir().unwrap();
    let staging = staging(folder.path(), true);
    let copy = staging.create(7, (1, "f7".into())).unwrap();
    assert_eq!(copy.growth(600, 400), 1000);
    staging.reserve(1000).unwrap();
    let mut turn = copy.turn().await;
    copy.set_length(&mut turn, 1000).unwrap();
    let full = staging.reserve(1).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    copy.set_length(&mut turn, 400).unwrap();
    staging.reserve(600).unwrap();
    assert!(staging.reserve(1).is_err());
    turn.mark(Mark::Clean).unwrap();
    staging.release(&copy, &mut turn).unwrap();
    drop(turn);
    drop(copy);
    let failed = staging.with_room(400, || Err::<(), _>(io::ErrorKind::Other.into()));
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::Other);
    staging.reserve(400).unwrap();
    assert_eq!(names(folder.path()), ["lost"]);
}

#[test]
fn an_inode_is_open_until_it_was_closed_as_often() {
    let folder = tempfile::tempdir().unwrap();
    let staging = staging(folder.path(), true);
    staging.opened(7);
    staging.opened(7);
    assert!(!staging.closed(7));
    assert!(staging.is_open(7));
    assert!(staging.closed(7));
    // One that a predecessor opened.
    assert!(staging.closed(7));
}
