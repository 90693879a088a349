//! The cache over a source that the test holds back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use alluxio_wire::{PageSize, UfsUri};
use async_trait::async_trait;

use super::*;
use crate::source::FetchedPage;

const PAGE: u64 = 64 * 1024;
/// Far longer than any step takes; only a failure waits for it.
const DEADLINE: Duration = Duration::from_secs(30);

/// A source that counts fetches and lets each go on when it is told to.
struct HeldSource {
    fetches: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    go: Semaphore,
    fails: bool,
    /// A page that the disk is to have yet.
    owed: u64,
}

#[async_trait]
impl PageSource for HeldSource {
    async fn fetch(&self, file: &Arc<OpenedFile>, index: u64) -> Result<FetchedPage> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        self.go.acquire().await.unwrap().forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        if self.fails {
            return Err(Error::new(ErrorKind::Unavailable, "read", "held back"));
        }
        let bytes = Bytes::from(vec![7; usize::try_from(file.page_length(index)).unwrap()]);
        Ok(FetchedPage {
            bytes,
            source: Source::Worker,
        })
    }

    fn is_owed(&self, _: &Arc<OpenedFile>, index: u64) -> bool {
        index == self.owed
    }
}

struct Fixture {
    cache: Arc<PageCache>,
    source: Arc<HeldSource>,
    file: Arc<OpenedFile>,
}

impl Fixture {
    fn new(store_bytes: u64, inflight_bytes: u64) -> Self {
        Self::with(store_bytes, inflight_bytes, false)
    }

    fn with(store_bytes: u64, inflight_bytes: u64, fails: bool) -> Self {
        let source = Arc::new(HeldSource {
            fetches: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            go: Semaphore::new(0),
            fails,
            owed: 3,
        });
        let uri = UfsUri::parse("file:///a").unwrap();
        let file = Arc::new(OpenedFile {
            id: uri.file_id(),
            uri,
            version: FileVersion::from_text("1"),
            length: 100 * PAGE,
            modified_ms: 0,
            page_size: PageSize::new(PAGE).unwrap(),
        });
        let cache = PageCache::new(
            Arc::new(MemoryStore::new(store_bytes)),
            Arc::clone(&source) as _,
            inflight_bytes,
            Handle::current(),
            Arc::new(Metrics::new().unwrap()),
        );
        Self {
            cache,
            source,
            file,
        }
    }

    fn key(&self, index: u64) -> PageKey {
        PageKey {
            file: Arc::clone(&self.file),
            index,
        }
    }

    fn fill(&self, index: u64) -> Fill {
        match self.cache.get(&self.key(index)) {
            Found::Coming(fill) => fill,
            Found::Here(_) => panic!("page {index} is here already"),
        }
    }

    async fn until(&self, reached: impl Fn(&HeldSource) -> bool) {
        let wait = async {
            while !reached(&self.source) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait)
            .await
            .expect("the source was not asked as expected");
    }
}

#[tokio::test]
async fn a_page_that_the_disk_is_to_have_yet_is_not_spent() {
    // Of pages that are spent a thirty-second stays, which is one of these.
    let fixture = Fixture::new(50 * PAGE, 100 * PAGE);
    fixture.source.go.add_permits(6);
    for index in 0..6 {
        let page = fixture.fill(index).await.unwrap();
        let _read = page.hand_out(PAGE);
        fixture.cache.spent(&fixture.key(index));
    }
    let is_here = |index: &u64| fixture.cache.kept(&fixture.file, *index).is_some();
    let here: Vec<u64> = (0..6).filter(is_here).collect();
    assert_eq!(here, [fixture.source.owed, 5]);
}

#[tokio::test]
async fn many_waiters_share_one_fill() {
    let fixture = Fixture::new(100 * PAGE, 10 * PAGE);
    let waiters: Vec<_> = (0..50).map(|_| fixture.fill(3)).collect();
    fixture.source.go.add_permits(1);
    let pages = futures::future::try_join_all(waiters).await.unwrap();
    assert_eq!(fixture.source.fetches.load(Ordering::SeqCst), 1);
    assert!(pages.iter().all(|page| Arc::ptr_eq(page, &pages[0])));
    assert!(matches!(fixture.cache.get(&fixture.key(3)), Found::Here(_)));
    assert!(fixture.cache.fills.lock().is_empty());
}

#[tokio::test]
async fn a_fill_ends_though_its_only_waiter_gave_up() {
    let fixture = Fixture::new(100 * PAGE, 10 * PAGE);
    drop(fixture.fill(0));
    fixture.source.go.add_permits(1);
    let wait = async {
        while !matches!(fixture.cache.get(&fixture.key(0)), Found::Here(_)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
    assert_eq!(fixture.source.fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failed_fill_fails_all_waiters_and_is_tried_anew() {
    let fixture = Fixture::with(100 * PAGE, 10 * PAGE, true);
    let waiters = [fixture.fill(0), fixture.fill(0)];
    fixture.source.go.add_permits(2);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    fixture.fill(0).await.unwrap_err();
    assert_eq!(fixture.source.fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn pages_on_their_way_stay_within_the_budget() {
    let fixture = Fixture::new(100 * PAGE, 3 * PAGE);
    let fills: Vec<_> = (0..20).map(|index| fixture.fill(index)).collect();
    fixture
        .until(|source| source.running.load(Ordering::SeqCst) == 3)
        .await;
    assert!(
        !fixture.cache.prefetch(&fixture.key(50)),
        "the budget is spent"
    );
    fixture.source.go.add_permits(20);
    futures::future::try_join_all(fills).await.unwrap();
    assert_eq!(fixture.source.most_running.load(Ordering::SeqCst), 3);
    assert!(fixture.cache.prefetch(&fixture.key(50)));
}

#[tokio::test]
async fn a_read_of_everything_keeps_the_store_within_its_limit() {
    let limit = 5 * PAGE;
    let fixture = Fixture::new(limit, 2 * PAGE);
    fixture.source.go.add_permits(100);
    for index in 0..100 {
        fixture.fill(index).await.unwrap();
        assert!(fixture.cache.store.bytes() <= limit);
    }
    let gauge = fixture.cache.metrics.memory_cache_bytes.get();
    assert!(gauge > 0 && gauge.unsigned_abs() <= limit);
}

#[test]
fn a_limit_is_divided_between_store_and_pages_on_their_way() {
    let plan = MemoryPlan::new(1024, 16, 8);
    assert_eq!(
        plan,
        MemoryPlan {
            store_bytes: 832,
            inflight_bytes: 128,
            spare_bytes: 64
        }
    );
    let small = MemoryPlan::new(64, 16, 1000);
    assert_eq!(
        small,
        MemoryPlan {
            store_bytes: 48,
            inflight_bytes: 16,
            spare_bytes: 0
        }
    );
}

#[test]
fn a_page_is_from_its_source_once_and_then_from_memory() {
    let page = Page::new(Bytes::from(vec![0; 10]), Source::NextWorker);
    let first = page.hand_out(6);
    assert_eq!((first.next_worker, first.memory), (6, 0));
    let second = page.hand_out(6);
    assert_eq!((second.next_worker, second.memory), (4, 2));
    let third = page.hand_out(10);
    assert_eq!((third.next_worker, third.memory), (0, 10));
}
