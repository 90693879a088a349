//! Ways of openings, with a broker that gives numbers and knows no kernel.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::*;
use crate::backing::{Answer, Ask, MAX_MESSAGE_BYTES, Numbered};
use crate::metrics::Metrics;
use crate::{opens, sys};

/// The memory of a mount, and which inodes have registered files, as the broker sees it.
struct Scene {
    memory: OwnedFd,
    registered: Arc<Mutex<HashSet<u64>>>,
}

impl Scene {
    fn new() -> Self {
        Self {
            memory: opens::create().unwrap(),
            registered: Arc::default(),
        }
    }

    /// A daemon: the first one or a successor.
    fn daemon(&self) -> Ways {
        let (ours, theirs) = sys::seqpacket_pair().unwrap();
        let table = File::from(self.memory.try_clone().unwrap());
        let registered = Arc::clone(&self.registered);
        std::thread::spawn(move || answer(&theirs, &table, &registered));
        self.daemon_by(ours, true)
    }

    fn daemon_by(&self, channel: OwnedFd, is_on: bool) -> Ways {
        let opens = Opens::open(self.memory.as_fd()).unwrap();
        let metrics = Metrics::new(0).unwrap().opens();
        Ways::new(opens, Broker::new(channel, 0), is_on, metrics)
    }

    fn is_registered(&self, inode: u64) -> bool {
        self.registered.lock().contains(&inode)
    }
}

/// An inode whose file the broker refuses among others.
const REFUSED: u64 = 9;

fn answer(channel: &OwnedFd, table: &File, registered: &Mutex<HashSet<u64>>) {
    let register = |inode| {
        let id = id_of(inode);
        opens::set_backing_id(table, inode, id).unwrap();
        registered.lock().insert(inode);
        id
    };
    let mut buffer = [0; MAX_MESSAGE_BYTES];
    while let Ok((length @ 1.., files)) = sys::receive_message(channel.as_fd(), &mut buffer) {
        let Numbered { number, message } = serde_json::from_slice(&buffer[..length]).unwrap();
        let message = match message {
            Ask::Open { inode } => Answer::Opened {
                id: register(inode),
            },
            Ask::OpenAll { inodes } => {
                assert_eq!(inodes.len(), files.len());
                for inode in inodes.into_iter().filter(|inode| *inode != REFUSED) {
                    register(inode);
                }
                Answer::Tried
            }
            Ask::Close { inode } => {
                opens::set_backing_id(table, inode, 0).unwrap();
                registered.lock().remove(&inode);
                Answer::Closed
            }
            Ask::Forget(_) => continue,
        };
        let answer = serde_json::to_vec(&Numbered { number, message }).unwrap();
        sys::send_message(channel.as_fd(), &answer, &[]).unwrap();
    }
}

fn id_of(inode: u64) -> u32 {
    u32::try_from(inode).unwrap() + 1000
}

fn key(inode: u64) -> CacheKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&inode.to_le_bytes());
    CacheKey::from(bytes)
}

fn whole(inode: u64) -> WholeFile {
    let key = key(inode);
    let file = File::open("/dev/null").unwrap();
    WholeFile { file, key }
}

fn backed(inode: u64) -> Way {
    Way::Backed(id_of(inode))
}

#[test]
fn the_way_is_chosen_when_nobody_has_the_file_open_and_stays() {
    let scene = Scene::new();
    let ways = scene.daemon();
    assert!(ways.is_free(2));
    assert_eq!(ways.open(2, false, None, &[]), Way::Daemon);
    assert!(!ways.is_free(2));
    assert_eq!(ways.open(2, false, Some(whole(2)), &[]), Way::Daemon);
    ways.close(2);
    assert_eq!(ways.open(2, false, Some(whole(2)), &[]), Way::Daemon);
    ways.close(2);
    ways.close(2);
    assert_eq!(ways.open(2, false, Some(whole(2)), &[]), backed(2));
    assert_eq!(ways.open(2, false, None, &[]), backed(2));
    assert_eq!(ways.open_backed(3, false), None);
}

#[test]
fn a_registered_file_is_kept_from_one_opening_to_the_next() {
    let scene = Scene::new();
    let ways = scene.daemon();
    assert_eq!(ways.open(2, false, Some(whole(2)), &[]), backed(2));
    ways.close(2);
    assert!(ways.is_backed(2) && scene.is_registered(2));
    assert_eq!(ways.open_backed(2, false), Some(backed(2)));
}

#[test]
fn what_departs_is_given_back_at_once_or_with_the_last_close() {
    let scene = Scene::new();
    let ways = scene.daemon();
    for inode in [2, 3] {
        assert_eq!(
            ways.open(inode, false, Some(whole(inode)), &[]),
            backed(inode)
        );
    }
    assert_eq!(ways.open_backed(2, false), Some(backed(2)));
    ways.close(3);
    ways.departed(&[key(2), key(3), key(4)]);
    assert!(!scene.is_registered(3) && scene.is_registered(2));
    // While it is open there is no other way.
    assert_eq!(ways.open(2, false, None, &[]), backed(2));
    for _ in 0..3 {
        assert!(scene.is_registered(2));
        ways.close(2);
    }
    assert!(!scene.is_registered(2) && ways.is_free(2));
}

#[test]
fn a_successor_goes_on_with_what_is_open() {
    let scene = Scene::new();
    let first = scene.daemon();
    assert_eq!(first.open(2, false, None, &[]), Way::Daemon);
    assert_eq!(first.open(3, false, Some(whole(3)), &[]), backed(3));
    assert_eq!(first.open(4, false, Some(whole(4)), &[]), backed(4));
    first.close(4);
    drop(first);

    let second = scene.daemon();
    assert_eq!(second.open(2, false, Some(whole(2)), &[]), Way::Daemon);
    // An OPEN that the first one had counted and not answered is not counted again.
    assert_eq!(second.open(2, true, Some(whole(2)), &[]), Way::Daemon);
    second.close(2);
    second.close(2);
    assert!(second.is_free(2));
    assert_eq!(second.open_backed(3, true), Some(backed(3)));
    second.give_back_leaving();
    assert!(!scene.is_registered(4) && scene.is_registered(3));
    second.close(3);
    assert!(!scene.is_registered(3));
}

/// By a daemon that ends: 2 is open, 3 is registered and closed.
fn leave_one_open_and_one_closed(scene: &Scene) {
    let first = scene.daemon();
    for inode in [2, 3] {
        let way = first.open(inode, false, Some(whole(inode)), &[]);
        assert_eq!(way, backed(inode));
    }
    first.close(3);
}

#[test]
fn a_file_that_may_be_about_to_leave_is_not_used() {
    let scene = Scene::new();
    leave_one_open_and_one_closed(&scene);
    // A supervisor that hears everything and is too busy to answer.
    let (ours, _theirs) = sys::seqpacket_pair().unwrap();
    let second = scene.daemon_by(ours, true);
    assert!(second.is_backed(3));
    second.give_back_leaving();
    assert!(!second.is_backed(3) && second.is_free(3));
    assert_eq!(second.open_backed(3, false), None);
    assert_eq!(second.open(3, false, Some(whole(3)), &[]), Way::Daemon);
    // What is open is not given back, so it is right to use.
    assert_eq!(second.open_backed(2, false), Some(backed(2)));
}

#[test]
fn where_nothing_can_be_registered_only_what_is_open_is_used() {
    let scene = Scene::new();
    leave_one_open_and_one_closed(&scene);
    let (ours, _theirs) = sys::seqpacket_pair().unwrap();
    let second = scene.daemon_by(ours, false);
    assert!(second.is_backed(2) && !second.is_backed(3));
    assert_eq!(second.open(3, false, None, &[]), Way::Daemon);
    assert_eq!(second.open_backed(2, false), Some(backed(2)));
}

#[test]
fn the_least_recently_opened_leaves_first() {
    let scene = Scene::new();
    let ways = scene.daemon();
    let last = MAX_KEPT as u64 + 2;
    for inode in 2..=last {
        assert_eq!(
            ways.open(inode, false, Some(whole(inode)), &[]),
            backed(inode)
        );
        // One is open all the while.
        if inode != 3 {
            ways.close(inode);
        }
        if inode == MAX_KEPT as u64 {
            assert_eq!(ways.open_backed(2, false), Some(backed(2)));
            ways.close(2);
        }
    }
    assert!(scene.is_registered(2) && scene.is_registered(3) && !scene.is_registered(4));
    assert_eq!(scene.registered.lock().len(), MAX_KEPT);
}

#[test]
fn without_a_supervisor_the_daemon_reads() {
    let ways = Ways::without_broker();
    assert_eq!(ways.open(2, false, Some(whole(2)), &[]), Way::Daemon);
    ways.close(2);
    assert!(ways.is_free(2));
}

#[test]
fn a_file_that_was_registered_too_late_is_not_taken_while_the_daemon_reads() {
    let scene = Scene::new();
    let ways = scene.daemon();
    assert_eq!(ways.open(2, false, None, &[]), Way::Daemon);
    let table = File::from(scene.memory.try_clone().unwrap());
    opens::set_backing_id(&table, 2, id_of(2)).unwrap();
    assert_eq!(ways.open_backed(2, false), None);
    assert_eq!(ways.open(2, false, Some(whole(2)), &[]), Way::Daemon);
    ways.close(2);
    ways.close(2);
    assert_eq!(ways.open_backed(2, false), Some(backed(2)));
}

#[test]
fn neighbours_are_registered_with_one_question() {
    let scene = Scene::new();
    let ways = scene.daemon();
    // Through the daemon, so it stays so.
    assert_eq!(ways.open(7, false, None, &[]), Way::Daemon);
    let ahead = [6, 7, 8, REFUSED].map(|inode| (inode, whole(inode)));
    assert_eq!(ways.open(5, false, Some(whole(5)), &ahead), backed(5));
    assert_eq!(*scene.registered.lock(), HashSet::from([5, 6, 8]));
    assert_eq!(ways.kept.lock().files.len(), 3);
    assert_eq!(ways.open_backed(6, false), Some(backed(6)));
    assert!(ways.is_free(REFUSED));
    // What was never opened leaves like any other.
    ways.departed(&[key(8)]);
    assert!(!scene.is_registered(8));
}

#[test]
fn neighbours_whose_registering_nobody_answered_leave_as_soon_as_they_can() {
    let scene = Scene::new();
    let (ours, _theirs) = sys::seqpacket_pair().unwrap();
    let ways = scene.daemon_by(ours, true);
    let ahead = [(6, whole(6))];
    assert_eq!(ways.open(5, false, Some(whole(5)), &ahead), Way::Daemon);
    assert_eq!(ways.kept.lock().leaving, HashSet::from([5, 6]));
}

#[test]
fn neighbours_come_with_a_directorys_second_file_as_long_as_there_is_room() {
    let scene = Scene::new();
    let ways = scene.daemon();
    assert!(ways.look_ahead(1).is_none());
    let turn = ways.look_ahead(1);
    assert!(turn.is_some() && ways.look_ahead(1).is_none());
    drop(turn);
    assert!(ways.look_ahead(1).is_some() && ways.look_ahead(2).is_none());
    let last = (MAX_KEPT - MOST_AHEAD) as u64;
    for inode in 2..=last {
        ways.kept.lock().add(inode, key(inode));
    }
    assert!(ways.look_ahead(1).is_some());
    ways.kept.lock().add(last + 1, key(last + 1));
    assert!(ways.look_ahead(1).is_none());
}
