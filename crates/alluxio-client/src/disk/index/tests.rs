//! What records say, and what leaves.

use super::*;

const PAGE: u64 = 1 << 20;

fn key(name: u8) -> FileKey {
    FileKey([name; 16])
}

/// An index of files of `pages` pages each, every one filled at the second of its name.
fn index(names: impl IntoIterator<Item = u8>, pages: u64) -> Index {
    let mut index = Index::default();
    for name in names {
        let (key, at_s) = (key(name), u64::from(name));
        index.apply(&Record::File {
            key,
            page_size_bytes: PAGE,
            length_bytes: pages * PAGE,
            at_s,
        });
        for page in 0..pages {
            index.apply(&Record::Page {
                key,
                index: page,
                sum: 1 + page,
                at_s,
            });
        }
    }
    index
}

fn marks(high: u64, low: u64) -> Marks {
    Marks {
        high_disk: high,
        low_disk: low,
        high_memory: u64::MAX,
        low_memory: u64::MAX,
    }
}

#[test]
fn the_least_recently_used_files_leave_until_the_low_mark() {
    let mut index = index(1..=4, 1);
    let each = PAGE + FILE_OVERHEAD_BYTES;
    assert_eq!(index.disk_bytes(), 4 * each);
    assert!(index.over_marks(&marks(4 * each, 0)).is_empty());
    assert!(index.slot(&key(1), 0, 100).is_some());
    let leaving = index.over_marks(&marks(4 * each - 1, 2 * each));
    assert_eq!(leaving, [key(2), key(3)]);
}

#[test]
fn the_index_itself_is_bounded() {
    let index = index(1..=10, 1);
    let marks = Marks {
        high_disk: u64::MAX,
        low_disk: u64::MAX,
        high_memory: 9 * (ENTRY_MEMORY_BYTES + 8),
        low_memory: 8 * (ENTRY_MEMORY_BYTES + 8),
    };
    assert_eq!(index.over_marks(&marks), [key(1), key(2)]);
}

#[test]
fn what_records_say_is_what_is_here() {
    let mut index = index([1, 2, 3], 3);
    index.apply(&Record::Removed { key: key(2) });
    assert!(index.forget_page(&key(3), 1, 2));
    index.slot(&key(1), 0, 5000);
    let mut again = Index::default();
    for record in index.records() {
        again.apply(&record);
    }
    assert_eq!(again.len(), 2);
    assert_eq!(again.disk_bytes(), index.disk_bytes());
    assert_eq!(again.live_records(), index.live_records());
    assert!(again.has(&key(3), 2) && !again.has(&key(3), 1) && !again.has(&key(2), 0));
    assert_eq!(again.oldest(1, 0), [key(3)]);
}

#[test]
fn pages_behind_the_end_of_a_file_are_not_believed() {
    let mut index = index([1], 2);
    index.apply(&Record::Page {
        key: key(1),
        index: 2,
        sum: 5,
        at_s: 1,
    });
    index.apply(&Record::Page {
        key: key(1),
        index: u64::MAX >> 8,
        sum: 5,
        at_s: 1,
    });
    assert!(!index.has(&key(1), 2));
    assert_eq!(index.memory_bytes, ENTRY_MEMORY_BYTES + 16);
}

#[test]
fn a_page_that_was_written_anew_is_not_forgotten() {
    let mut index = index([1], 1);
    assert!(!index.forget_page(&key(1), 0, 99));
    assert!(index.has(&key(1), 0));
    assert!(index.forget_page(&key(1), 0, 1));
    assert!(!index.has(&key(1), 0));
    assert_eq!(index.disk_bytes(), FILE_OVERHEAD_BYTES);
}

#[test]
fn a_file_is_whole_with_its_last_page_and_its_proof_goes_with_any() {
    let proof = Proof {
        boot: 1,
        changed_ns: 2,
    };
    let proven = Record::Proven { key: key(1), proof };
    let mut index = index([1], 2);
    assert!(index.forget_page(&key(1), 1, 2));
    index.apply(&proven);
    assert_eq!(
        (index.whole(&key(1)), index.lend(&key(1), 9)),
        (None, false)
    );
    let page = Record::Page {
        key: key(1),
        index: 1,
        sum: 2,
        at_s: 1,
    };
    index.apply(&page);
    index.apply(&proven);
    assert_eq!(
        index.whole(&key(1)).and_then(|whole| whole.proof),
        Some(proof)
    );
    let mut again = Index::default();
    index
        .records()
        .iter()
        .for_each(|record| again.apply(record));
    assert_eq!(again.whole(&key(1)), index.whole(&key(1)));
    assert_eq!(again.live_records(), index.live_records());
    assert!(index.forget_page(&key(1), 0, 1));
    index.apply(&page);
    assert_eq!(index.whole(&key(1)), None);
    assert!((index.share(&key(1)) - 0.5).abs() < 0.01);
}

#[test]
fn what_was_lent_departs_once_however_it_goes() {
    let mut index = index(1..=4, 1);
    for name in 1..=3 {
        assert!(index.lend(&key(name), 5));
    }
    assert!(index.lends() && index.take_departed().is_empty());
    index.apply(&Record::Removed { key: key(1) });
    index.apply(&Record::Removed { key: key(4) });
    assert!(index.forget_page(&key(2), 0, 1));
    assert_eq!(index.take_departed(), [key(1), key(2)]);
    assert!(index.take_departed().is_empty());
    let mut other = Index::default();
    other.succeed(index);
    let mut departed = other.take_departed();
    departed.sort_unstable();
    assert_eq!(departed, [key(2), key(3)]);
}

#[test]
fn a_use_is_recorded_now_and_then() {
    let mut index = index([1], 1);
    index.slot(&key(1), 0, 100);
    assert!(index.take_uses().is_empty());
    index.slot(&key(1), 0, 1 + USE_RECORD_EVERY_S);
    assert_eq!(index.take_uses().len(), 1);
    assert!(index.take_uses().is_empty());
}
