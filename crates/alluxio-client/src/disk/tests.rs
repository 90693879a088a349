//! The cache as a client has it: over a real folder, with its thread, and with two processes.

use std::sync::atomic::{AtomicUsize, Ordering};

use alluxio_wire::{FileVersion, PageSize};
use async_trait::async_trait;
use futures::StreamExt;

use super::*;
use crate::source::{FetchedPage, PageSource, Source};

const PAGE: usize = 64 * 1024;
const MEMORY: DiskMemory = DiskMemory {
    queue_bytes: 64 << 20,
    index_bytes: 32 << 20,
};

fn buffers() -> Buffers {
    Buffers::new(PAGE as u64, 4 * PAGE as u64)
}

fn root() -> UfsUri {
    UfsUri::parse("s3://bucket/data").unwrap()
}

fn file(name: &str, version: &str) -> Arc<OpenedFile> {
    let uri = root().join(name).unwrap();
    Arc::new(OpenedFile {
        id: uri.file_id(),
        uri,
        version: FileVersion::from_text(version),
        length: 8 * PAGE as u64,
        modified_ms: 0,
        page_size: PageSize::new(PAGE as u64).unwrap(),
    })
}

fn config(path: &Path) -> DiskCacheConfig {
    DiskCacheConfig {
        path: path.to_owned(),
        capacity_bytes: 1 << 30,
        high_watermark_percent: 95,
        low_watermark_percent: 85,
        min_free_bytes: 0,
        max_unused: None,
    }
}

async fn open(path: &Path) -> DiskCache {
    let (config, root) = (config(path), root());
    DiskCache::open(&config, &root, MEMORY, buffers(), &Registry::new())
        .await
        .unwrap()
}

fn page(index: u64) -> Bytes {
    Bytes::from(vec![u8::try_from(index).unwrap() + 1; PAGE])
}

/// Waits until a cache, made anew, has become the writer of a folder that another one just left.
async fn open_as_writer(path: &Path) -> DiskCache {
    loop {
        let cache = open(path).await;
        if cache.inner.is_writer() {
            return cache;
        }
        tokio::task::yield_now().await;
    }
}

/// Counts what it is asked for.
#[derive(Default)]
struct Remote {
    fetched: AtomicUsize,
}

#[async_trait]
impl PageSource for Remote {
    async fn fetch(&self, _: &Arc<OpenedFile>, index: u64) -> Result<FetchedPage> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        Ok(FetchedPage {
            bytes: page(index),
            source: Source::Worker,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_outlive_the_process_that_fetched_them() {
    let dir = tempfile::tempdir().unwrap();
    let (file, other_version) = (file("a", "etag:1"), file("a", "etag:2"));
    let cache = open(dir.path()).await;
    for index in 0..8 {
        cache.keep(&file, index, &page(index));
    }
    cache.flush().await;
    drop(cache);
    let cache = open_as_writer(dir.path()).await;
    for index in 0..8 {
        assert_eq!(cache.read(&file, index).await, Some(page(index)));
    }
    assert_eq!(cache.read(&other_version, 0).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_not_fetched_and_what_is_fetched_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path()).await;
    let remote = Arc::new(Remote::default());
    let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
    let source = Arc::new(DiskThenRemote::new(
        cache.clone(),
        Arc::clone(&remote) as _,
        metrics,
    ));
    let file = file("a", "etag:1");
    let first = source.fetch(&file, 3).await.unwrap();
    assert_eq!((first.source, first.bytes), (Source::Worker, page(3)));
    cache.flush().await;
    let second = source.fetch(&file, 3).await.unwrap();
    assert_eq!((second.source, second.bytes), (Source::Disk, page(3)));
    assert_eq!(remote.fetched.load(Ordering::Relaxed), 1);

    let run = Arc::clone(&source).fetch_run(Arc::clone(&file), 1..6);
    let pages: Vec<_> = run.map(|page| page.unwrap()).collect().await;
    for (index, fetched) in (1..6).zip(&pages) {
        assert_eq!(fetched.bytes, page(index));
        let expected = if index == 3 {
            Source::Disk
        } else {
            Source::Worker
        };
        assert_eq!(fetched.source, expected);
    }
    cache.flush().await;
    assert_eq!(remote.fetched.load(Ordering::Relaxed), 5);
    let run = source.fetch_run(Arc::clone(&file), 1..6);
    assert!(
        run.all(|page| async move { page.unwrap().source == Source::Disk })
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_reads_what_the_first_keeps_and_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (file, first) = (file("a", "etag:1"), open(dir.path()).await);
    let second = open(dir.path()).await;
    assert!(first.inner.is_writer() && !second.inner.is_writer());
    // A second that only reads adds nothing.
    second.keep(&file, 1, &page(1));
    first.keep(&file, 0, &page(0));
    first.flush().await;
    let long_ago = Instant::now().checked_sub(FOLLOW_EVERY).unwrap();
    second.inner.followed.lock().at = long_ago;
    assert_eq!(second.read(&file, 0).await, Some(page(0)));
    assert_eq!(second.read(&file, 1).await, None);
    drop(first);
    while !second.inner.is_writer() {
        second.inner.followed.lock().at = long_ago;
        assert_eq!(second.read(&file, 1).await, None);
    }
    second.keep(&file, 1, &page(1));
    second.flush().await;
    assert_eq!(second.read(&file, 1).await, Some(page(1)));
    assert_eq!(second.read(&file, 0).await, Some(page(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_version_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (file, cache) = (file("a", "mtime:0:5"), open(dir.path()).await);
    cache.keep(&file, 0, &page(0));
    cache.flush().await;
    assert_eq!(cache.read(&file, 0).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "x").unwrap();
    let opened =
        DiskCache::open(&config(&path), &root(), MEMORY, buffers(), &Registry::new()).await;
    let text = opened.err().unwrap().to_string();
    assert!(
        text.contains("client.disk_cache.path") && text.contains("/file/"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_may_look_into_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (file, cache) = (file("a", "etag:1"), open(dir.path()).await);
    cache.keep(&file, 0, &page(0));
    cache.flush().await;
    let shelf = &cache.inner.shelf;
    let data = shelf.data_path(&FileKey::of(&file));
    for (path, mode) in [
        (shelf.dir(), 0o700),
        (&data, 0o600),
        (&shelf.log_path(), 0o600),
    ] {
        assert_eq!(
            path.metadata().unwrap().mode() & 0o777,
            mode,
            "{}",
            path.display()
        );
    }
}

/// Run by `a_writer_that_is_killed_at_any_moment_leaves_whole_pages_alone` as a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_fills_until_it_is_killed() {
    let Some(path) = std::env::var_os("DISK_CACHE_FILLED_UNTIL_KILLED") else {
        return;
    };
    let cache = open_as_writer(Path::new(&path)).await;
    for round in 0_u64.. {
        let file = file(&format!("f{}", round % 50), &format!("etag:{}", round / 50));
        for index in 0..8 {
            cache.keep(&file, index, &page(index));
        }
        cache.flush().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_at_any_moment_leaves_whole_pages_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut kept = 0;
    for kill in 0..8 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "disk::tests::child_that_fills_until_it_is_killed",
            ])
            .env("DISK_CACHE_FILLED_UNTIL_KILLED", dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // The moment is where the log has grown by so much: another one in each round.
        let log = folder_of(dir.path(), &root()).join("index.log");
        let before = log.metadata().map_or(0, |log| log.len());
        while log.metadata().map_or(0, |log| log.len()) < before + 48 * (100 + kill * 37) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let cache = open_as_writer(dir.path()).await;
        for round in 0..50 {
            let file = file(&format!("f{round}"), "etag:0");
            for index in 0..8 {
                if let Some(bytes) = cache.read(&file, index).await {
                    assert_eq!(bytes, page(index));
                    kept += 1;
                }
            }
        }
        assert_eq!(cache.inner.metrics.corrupt.get(), 0);
        drop(cache);
    }
    assert!(kept > 8 * 50, "{kept}");
}

#[test]
fn a_run_is_split_where_what_is_here_begins_and_ends() {
    let is_here = |index| (3..5).contains(&index);
    let parts = split_by(1..7, is_here);
    assert_eq!(parts, [(false, 1..3), (true, 3..5), (false, 5..7)]);
    assert_eq!(split_by(3..5, is_here), [(true, 3..5)]);
    assert!(split_by(3..3, is_here).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_written_over_gives_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let (old, other) = (file("a", "etag:1"), file("b", "etag:1"));
    let cache = open(dir.path()).await;
    for kept in [&old, &other] {
        cache.keep(kept, 0, &page(0));
    }
    cache.flush().await;
    cache.forget(&old);
    cache.flush().await;
    assert_eq!(cache.read(&old, 0).await, None);
    assert_eq!(cache.read(&other, 0).await, Some(page(0)));
    drop(cache);
    let again = open_as_writer(dir.path()).await;
    assert_eq!(again.read(&old, 0).await, None);
    assert_eq!(again.read(&other, 0).await, Some(page(0)));
}

fn keep_all(cache: &DiskCache, file: &Arc<OpenedFile>) {
    for index in 0..8 {
        cache.keep(file, index, &page(index));
    }
}

fn content(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; 8 * PAGE];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn whole_content() -> Vec<u8> {
    (0..8).flat_map(page).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_handed_out_when_its_last_page_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path()).await;
    let file = file("a", "etag:1");
    for index in (0..8).rev() {
        assert!(cache.whole(&file).await.is_none());
        cache.keep(&file, index, &page(index));
        cache.flush().await;
    }
    let whole = cache.whole(&file).await.unwrap();
    assert_eq!(content(&whole.file), whole_content());
    assert_eq!(whole.file.metadata().unwrap().len(), 8 * PAGE as u64);
    assert!((cache.share(&file) - 1.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proof_outlives_the_process_and_not_a_change_of_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path()).await;
    let (file, key) = (file("a", "etag:1"), FileKey::of(&file("a", "etag:1")));
    keep_all(&cache, &file);
    cache.flush().await;
    assert!(cache.whole(&file).await.is_some());
    let path = cache.inner.shelf.data_path(&key);
    drop(cache);
    let cache = open_as_writer(dir.path()).await;
    let proof = |cache: &DiskCache| cache.inner.shelf.index.lock().whole(&key).unwrap().proof;
    assert!(proof(&cache).is_some());
    assert!(cache.whole(&file).await.is_some());
    drop(cache);

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * PAGE + 5] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let cache = open_as_writer(dir.path()).await;
    assert!(cache.whole(&file).await.is_none());
    assert!(!cache.has(&file, 3) && cache.has(&file, 4));
    assert_eq!(cache.inner.metrics.corrupt.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_out_is_made_anew_and_never_mended() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path()).await;
    let (file, key) = (file("a", "etag:1"), FileKey::of(&file("a", "etag:1")));
    keep_all(&cache, &file);
    cache.flush().await;
    let whole = cache.whole(&file).await.unwrap();
    let mut bytes = std::fs::read(cache.inner.shelf.data_path(&key)).unwrap();
    bytes[0] ^= 1;
    std::fs::write(cache.inner.shelf.data_path(&key), &bytes).unwrap();
    assert_eq!(cache.read(&file, 0).await, None);
    assert_eq!(cache.departed().await, [whole.key]);
    keep_all(&cache, &file);
    cache.flush().await;
    keep_all(&cache, &file);
    cache.flush().await;
    let anew = cache.whole(&file).await.unwrap();
    assert_eq!(content(&anew.file), whole_content());
    assert_eq!(content(&whole.file), bytes);
    assert_eq!(whole.file.metadata().unwrap().nlink(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_file_departs_and_can_be_read_by_whom_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let config = DiskCacheConfig {
        capacity_bytes: 12 * PAGE as u64,
        ..config(dir.path())
    };
    let cache = DiskCache::open(&config, &root(), MEMORY, buffers(), &Registry::new())
        .await
        .unwrap();
    let (first, second) = (file("a", "etag:1"), file("b", "etag:1"));
    keep_all(&cache, &first);
    cache.flush().await;
    let whole = cache.whole(&first).await.unwrap();
    keep_all(&cache, &second);
    assert_eq!(cache.departed().await, [whole.key]);
    assert_eq!(content(&whole.file), whole_content());
    assert!(cache.whole(&first).await.is_none());
}
