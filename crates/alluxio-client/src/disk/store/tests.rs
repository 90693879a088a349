//! The store against a model, with the plug pulled at every change to the folder.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicI64, Ordering};

use alluxio_wire::{FileVersion, PageSize, UfsUri};
use proptest::prelude::*;

use super::super::files::LocalFiles;
use super::super::log;
use super::*;

const PAGE: u64 = 64 * 1024;

/// Lets so many changes through; the next one is done in part and all further ones fail.
struct Plug {
    left: Arc<AtomicI64>,
    /// How much of the last write is done, in eighths.
    eighths: usize,
    kind: io::ErrorKind,
}

impl Plug {
    /// How much of `length` bytes is still written; not all of them.
    fn pull(&self, length: usize) -> io::Result<usize> {
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            1.. => Ok(length),
            0 => Ok((length * self.eighths / 8).min(length - 1)),
            _ => Err(self.kind.into()),
        }
    }

    fn all(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            1.. => Ok(()),
            _ => Err(self.kind.into()),
        }
    }
}

impl Files for Plug {
    fn open_to_write(&self, path: &Path) -> io::Result<File> {
        self.all()?;
        LocalFiles.open_to_write(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let some = self.pull(bytes.len())?;
        LocalFiles.write_at(file, &bytes[..some], offset)?;
        if some < bytes.len() {
            return Err(self.kind.into());
        }
        Ok(())
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        self.all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.all()?;
        LocalFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.all()?;
        LocalFiles.remove(path)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX / 2)
    }
}

fn file(name: u8, version: u8) -> OpenedFile {
    let uri = UfsUri::parse(&format!("s3://bucket/{name}")).unwrap();
    OpenedFile {
        id: uri.file_id(),
        uri,
        version: FileVersion::from_text(format!("etag:{version}")),
        length: PAGE + 100,
        modified_ms: 0,
        page_size: PageSize::new(PAGE).unwrap(),
    }
}

fn limits(high_disk: u64) -> Limits {
    Limits {
        marks: Marks {
            high_disk,
            low_disk: high_disk / 4 * 3,
            high_memory: 1 << 20,
            low_memory: 1 << 19,
        },
        min_free_bytes: 0,
        max_unused_s: None,
    }
}

fn open(dir: &Path, files: Box<dyn Files>, limits: Limits) -> io::Result<Store> {
    let shelf = Arc::new(Shelf::new(dir.to_owned(), Buffers::default()));
    let apply = |record: &Record| shelf.index.lock().apply(record);
    let end = log::replay(&shelf.log_path(), 0, apply)?;
    let mut store = Store::open(shelf, files, end, limits)?;
    store.settle()?;
    Ok(store)
}

fn look(store: &Store, file: &OpenedFile, index: u64) -> Look {
    let mut data = DataFile::of(FileKey::of(file));
    store.shelf.look(&mut data, index, 1)
}

/// Bytes that no other page has.
fn page(name: u8, version: u8, index: u64, salt: u8) -> Vec<u8> {
    let length = file(name, version).page_length(index);
    let length = usize::try_from(length).unwrap();
    let head = [name, version, u8::try_from(index).unwrap(), salt];
    head.iter().copied().cycle().take(length).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Put { name: u8, version: u8, index: u64 },
    Look { name: u8, version: u8, index: u64 },
    Tidy,
    MakeRoom,
    Rewrite,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = (0..6_u8, 0..2_u8, 0..2_u64);
    let step = prop_oneof![
        12 => place.clone().prop_map(|(name, version, index)| Step::Put { name, version, index }),
        6 => place.prop_map(|(name, version, index)| Step::Look { name, version, index }),
        1 => Just(Step::Tidy),
        1 => Just(Step::MakeRoom),
        1 => Just(Step::Rewrite),
    ];
    prop::collection::vec(step, 1..60)
}

type Model = HashMap<(u8, u8, u64), Vec<u8>>;

/// Runs a step and notes in the model what was kept. Everything that is found has to be the model's.
fn run(store: &mut Store, model: &mut Model, step: &Step, now_s: u64) -> io::Result<()> {
    match *step {
        Step::Put {
            name,
            version,
            index,
        } => {
            // Bytes of a version do not change, so a page that comes again is the same.
            let bytes = page(name, version, index, 0);
            store.put(&file(name, version), index, &bytes, now_s)?;
            model.insert((name, version, index), bytes);
        }
        Step::Look {
            name,
            version,
            index,
        } => match look(store, &file(name, version), index) {
            Look::Page(bytes) => assert_eq!(bytes, model[&(name, version, index)]),
            // Corrupt where a file was removed, that could not be recorded, and it came anew: a miss.
            Look::Absent | Look::Corrupt => {}
            Look::Failed(error) => panic!("{error}"),
        },
        Step::Tidy => store.tidy(now_s)?,
        Step::MakeRoom => {
            store.make_room()?;
        }
        Step::Rewrite => {
            let live = store.shelf.index.lock().records();
            store.log.rewrite(&*store.files, &live)?;
        }
    }
    Ok(())
}

fn check_all(store: &Store, model: &Model) -> usize {
    let found = model.iter().filter(|((name, version, index), bytes)| {
        match look(store, &file(*name, *version), *index) {
            Look::Page(found) => {
                assert_eq!(found, **bytes);
                true
            }
            _ => false,
        }
    });
    found.count()
}

fn assert_no_stranger(store: &Store) {
    for folder in entries(&store.shelf.data_dir()).unwrap() {
        for path in entries(&folder).unwrap() {
            let key = key_of(&path).unwrap();
            assert!(store.shelf.index.lock().knows(&key), "{}", path.display());
        }
    }
}

/// All pages that steps may put.
fn all_pages() -> Model {
    let mut model = Model::new();
    for name in 0..6 {
        for version in 0..2 {
            for index in 0..2 {
                model.insert((name, version, index), page(name, version, index, 0));
            }
        }
    }
    model
}

/// A life with every kind of change: new files, second pages, evictions, a worn log, uses, a removal
/// for want of room.
fn a_life() -> Vec<Step> {
    let put = |name, index| Step::Put {
        name,
        version: 0,
        index,
    };
    let mut life: Vec<_> = (0..6).map(|name| put(name, 0)).collect();
    life.extend((0..6).map(|name| put(name, 1)));
    life.extend([Step::Tidy, Step::MakeRoom, put(0, 0), Step::Rewrite]);
    life.extend((0..4).map(|name| put(name, 0)));
    life
}

/// Not at random: at each change of such a life, and with each part of the write that was under way.
#[test]
fn a_kill_at_each_change_of_a_life_gives_no_wrong_page_and_no_error() {
    let (limits, life) = (limits(9 * PAGE), a_life());
    let mut kills = 0;
    for changes in 0_i64.. {
        let mut lived = false;
        for eighths in [0, 1, 4, 8] {
            let dir = tempfile::tempdir().unwrap();
            let left = Arc::new(AtomicI64::new(changes));
            let plug = Plug {
                left: Arc::clone(&left),
                eighths,
                kind: io::ErrorKind::Other,
            };
            let mut model = all_pages();
            if let Ok(mut store) = open(dir.path(), Box::new(plug), limits) {
                let mut steps = life.iter().zip(1..);
                lived = steps.all(|(step, now_s)| run(&mut store, &mut model, step, now_s).is_ok());
            }
            let mut store = open(dir.path(), Box::new(LocalFiles), limits).unwrap();
            assert_no_stranger(&store);
            check_all(&store, &model);
            for step in &life {
                run(&mut store, &mut model, step, 100).unwrap();
            }
            assert!(check_all(&store, &model) > 0);
            kills += 1;
        }
        if lived {
            break;
        }
    }
    assert!(kills > 4 * 50, "{kills}");
}

/// What a power cut leaves of a file: its beginning, or a hole of zeros in it.
fn cut_power(path: &Path, seed: u64) {
    let mut bytes = fs::read(path).unwrap();
    let place = usize::try_from(seed % (bytes.len() as u64 + 1)).unwrap();
    match seed % 3 {
        0 => bytes.truncate(place),
        1 => {
            let end = (place + 4096).min(bytes.len());
            bytes[place..end].fill(0);
        }
        _ => {}
    }
    fs::write(path, bytes).unwrap();
}

fn all_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(folder).unwrap() {
        if path.is_dir() {
            all_files(&path, found);
        } else {
            found.push(path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// After a power cut any write may be missing, in any file: pages are lost, never wrong, and the
    /// cache goes on.
    #[test]
    fn a_power_cut_gives_no_wrong_page_and_no_error(
        steps in steps(), changes in 0..200_i64, seeds in prop::collection::vec(any::<u64>(), 1..9),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limits = limits(10 * PAGE);
        let left = Arc::new(AtomicI64::new(changes));
        let plug = Plug { left, eighths: 4, kind: io::ErrorKind::Other };
        let mut model = all_pages();
        if let Ok(mut store) = open(dir.path(), Box::new(plug), limits) {
            for (step, now_s) in steps.iter().zip(1..) {
                if run(&mut store, &mut model, step, now_s).is_err() {
                    break;
                }
            }
        }
        let mut files = Vec::new();
        all_files(dir.path(), &mut files);
        files.sort();
        for (path, seed) in files.iter().zip(seeds.iter().cycle()) {
            cut_power(path, *seed);
        }
        let mut store = open(dir.path(), Box::new(LocalFiles), limits).unwrap();
        assert_no_stranger(&store);
        check_all(&store, &model);
        for step in &steps {
            run(&mut store, &mut model, step, 100).unwrap();
        }
        check_all(&store, &model);
    }

    /// Killed anywhere: what is found afterwards is right, no data file is left over, and the cache
    /// goes on. Without eviction all that was kept is still there.
    #[test]
    fn a_kill_at_any_change_loses_nothing_that_was_kept(
        steps in steps(),
        changes in 0..120_i64,
        eighths in 0..9_usize,
        evicts in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limits = limits(if evicts { 10 * PAGE } else { 1 << 30 });
        let left = Arc::new(AtomicI64::new(changes));
        let plug = Plug { left, eighths, kind: io::ErrorKind::Other };
        let mut model = Model::new();
        let mut gave_room = false;
        if let Ok(mut store) = open(dir.path(), Box::new(plug), limits) {
            for (step, now_s) in steps.iter().zip(1..) {
                gave_room |= matches!(step, Step::MakeRoom);
                if run(&mut store, &mut model, step, now_s).is_err() {
                    // A page that was recorded and whose put ended in an error later is right too.
                    if let Step::Put { name, version, index } = *step {
                        model.insert((name, version, index), page(name, version, index, 0));
                    }
                    break;
                }
            }
        }
        let kept = model.len();
        let mut store = open(dir.path(), Box::new(LocalFiles), limits).unwrap();
        assert_no_stranger(&store);
        let found = check_all(&store, &model);
        if !evicts && !gave_room {
            prop_assert!(found + 1 >= kept, "{found} of {kept}");
        }
        prop_assert!(store.shelf.index.lock().disk_bytes() <= limits.marks.high_disk + 5 * PAGE);
        for step in &steps {
            run(&mut store, &mut model, step, 100).unwrap();
        }
    }

    /// A disk that errs for a while, and a process that goes on: nothing wrong is found.
    #[test]
    fn errors_of_the_disk_never_give_a_wrong_page(
        steps in steps(), changes in 0..100_i64, eighths in 0..9_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limits = limits(10 * PAGE);
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let plug = Plug { left: Arc::clone(&left), eighths, kind: io::ErrorKind::StorageFull };
        let mut store = open(dir.path(), Box::new(plug), limits).unwrap();
        left.store(changes, Ordering::Relaxed);
        let mut model = all_pages();
        for step in &steps {
            let _ = run(&mut store, &mut model, step, 1);
        }
        left.store(i64::MAX, Ordering::Relaxed);
        for step in &steps {
            run(&mut store, &mut model, step, 2).unwrap();
        }
        check_all(&store, &model);
        drop(store);
        let store = open(dir.path(), Box::new(LocalFiles), limits).unwrap();
        check_all(&store, &model);
        assert_no_stranger(&store);
    }
}

#[test]
fn a_cache_that_is_given_less_room_is_emptied_down_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Box::new(LocalFiles), limits(1 << 30)).unwrap();
    for name in 0..6 {
        let put = store.put(&file(name, 1), 0, &page(name, 1, 0, 0), u64::from(name));
        assert_eq!(put.unwrap(), Put::Kept);
    }
    drop(store);
    let less = limits(4 * PAGE);
    let store = open(dir.path(), Box::new(LocalFiles), less).unwrap();
    assert!(store.shelf.index.lock().disk_bytes() <= less.marks.low_disk);
    assert!(matches!(look(&store, &file(5, 1), 0), Look::Page(_)));
    assert!(matches!(look(&store, &file(0, 1), 0), Look::Absent));
}

#[test]
fn a_page_that_changed_on_the_disk_is_found_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Box::new(LocalFiles), limits(1 << 30)).unwrap();
    let (file, bytes) = (file(1, 1), page(1, 1, 1, 0));
    store.put(&file, 1, &bytes, 1).unwrap();
    let path = store.shelf.data_path(&FileKey::of(&file));
    let mut data = fs::read(&path).unwrap();
    data[usize::try_from(PAGE).unwrap() + 7] ^= 1;
    fs::write(&path, data).unwrap();
    assert!(matches!(look(&store, &file, 1), Look::Corrupt));
    assert!(matches!(look(&store, &file, 1), Look::Absent));
    assert_eq!(store.put(&file, 1, &bytes, 1).unwrap(), Put::Kept);
    assert!(matches!(look(&store, &file, 1), Look::Page(_)));
    fs::remove_file(&path).unwrap();
    assert!(matches!(look(&store, &file, 1), Look::Absent));
}

#[test]
fn versions_and_page_sizes_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Box::new(LocalFiles), limits(1 << 30)).unwrap();
    store.put(&file(1, 1), 0, &page(1, 1, 0, 0), 1).unwrap();
    assert!(matches!(look(&store, &file(1, 2), 0), Look::Absent));
    let larger = OpenedFile {
        page_size: PageSize::new(2 * PAGE).unwrap(),
        ..file(1, 1)
    };
    assert!(matches!(look(&store, &larger, 0), Look::Absent));
}

#[test]
fn a_page_lies_where_it_lies_in_the_remote_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Box::new(LocalFiles), limits(1 << 30)).unwrap();
    let file = file(1, 1);
    for index in [1, 0] {
        store.put(&file, index, &page(1, 1, index, 0), 1).unwrap();
    }
    let whole: Vec<u8> = (0..2).flat_map(|index| page(1, 1, index, 0)).collect();
    let path = store.shelf.data_path(&FileKey::of(&file));
    assert_eq!(fs::read(path).unwrap(), whole);
}

#[test]
fn the_floor_of_free_space_is_left_to_others() {
    struct NearlyFull;
    impl Files for NearlyFull {
        fn open_to_write(&self, path: &Path) -> io::Result<File> {
            LocalFiles.open_to_write(path)
        }
        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            LocalFiles.write_at(file, bytes, offset)
        }
        fn sync(&self, file: &File) -> io::Result<()> {
            LocalFiles.sync(file)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            LocalFiles.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            LocalFiles.remove(path)
        }
        fn free_bytes(&self, _: &Path) -> io::Result<u64> {
            Ok(1 << 20)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        min_free_bytes: 1 << 30,
        ..limits(1 << 40)
    };
    let mut store = open(dir.path(), Box::new(NearlyFull), limits).unwrap();
    let error = store.put(&file(1, 1), 0, &page(1, 1, 0, 0), 1).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(store.shelf.index.lock().len(), 0);
}

#[test]
fn data_files_that_a_damaged_log_lost_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Box::new(LocalFiles), limits(1 << 30)).unwrap();
    for name in 0..3 {
        store
            .put(&file(name, 1), 0, &page(name, 1, 0, 0), 1)
            .unwrap();
    }
    let log = store.shelf.log_path();
    drop(store);
    let mut bytes = fs::read(&log).unwrap();
    // The record of the first file.
    bytes[super::super::record::RECORD_BYTES] ^= 1;
    fs::write(&log, bytes).unwrap();
    let store = open(dir.path(), Box::new(LocalFiles), limits(1 << 30)).unwrap();
    assert_eq!(store.shelf.index.lock().len(), 2);
    assert_no_stranger(&store);
}
