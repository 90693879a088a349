//! Functions that every read runs through, each alone: `make bench-functions`.
//!
//! Whole paths are measured by `make bench`; what these tell is which function of a path that became
//! slower is to blame.

#![allow(missing_docs, reason = "criterion makes the functions")]

use std::hint::black_box;
use std::sync::Arc;

use alluxio_client::bench::{move_window, murmur3, page_checksum, parse_head};
use alluxio_client::cache::{MemoryStore, Page, PageKey, PageStore};
use alluxio_client::ring::HashRing;
use alluxio_client::source::{OpenedFile, Source};
use alluxio_wire::{FileVersion, PageSize, UfsUri, WorkerId, split};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const PAGE_BYTES: u64 = 1 << 20;
const VIRTUAL_NODES: u32 = 2000;
/// What a worker answers to the request for a page.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\
    content-length: 1048576\r\nconnection: keep-alive\r\ndate: Fri, 27 Nov 2026 19:00:00 GMT\r\n\r\n";

fn workers(count: u32) -> Vec<WorkerId> {
    (0..count)
        .map(|index| WorkerId::from_host(&format!("worker-{index}.alluxio")))
        .collect()
}

fn keys(count: u32) -> Vec<String> {
    (0..count)
        .map(|index| format!("s3://ml-datasets/imagenet/train/n{index:08}/image_{index}.jpg"))
        .collect()
}

fn rings(criterion: &mut Criterion) {
    let ring = HashRing::new(&workers(200), VIRTUAL_NODES);
    let keys = keys(1000);
    let mut next = keys.iter().cycle();
    criterion.bench_function("ring pick, 200 workers", |bench| {
        bench.iter(|| black_box(ring.pick(next.next().map_or("", String::as_str), 1)));
    });
    let many = workers(1000);
    criterion.bench_function("ring build, 1000 workers", |bench| {
        bench.iter(|| HashRing::new(black_box(&many), VIRTUAL_NODES));
    });
    let key = keys[0].as_bytes();
    criterion.bench_function("murmur3 of a name", |bench| {
        bench.iter(|| murmur3(black_box(key)));
    });
}

fn pages(criterion: &mut Criterion) {
    let page_size = PageSize::DEFAULT;
    criterion.bench_function("split of 16 MiB into pages", |bench| {
        bench.iter(|| split(black_box(4096), 16 * PAGE_BYTES, 1 << 40, page_size).count());
    });
    criterion.bench_function("window, 100 reads", |bench| {
        bench.iter(|| move_window(PAGE_BYTES, black_box(1 << 30), 100));
    });
    criterion.bench_function("head of an answer", |bench| {
        bench.iter(|| parse_head(black_box(HEAD)));
    });
    let mut group = criterion.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(PAGE_BYTES));
    let page: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    group.bench_function("page of 1 MiB", |bench| {
        bench.iter(|| page_checksum(black_box(&page)));
    });
}

fn memory(criterion: &mut Criterion) {
    let Ok(uri) = UfsUri::parse("s3://bucket/data/file") else {
        return;
    };
    let file = Arc::new(OpenedFile {
        id: uri.file_id(),
        uri,
        version: FileVersion::from_text("etag:1"),
        length: 1 << 30,
        modified_ms: 0,
        page_size: PageSize::DEFAULT,
    });
    let key = |index| PageKey {
        file: Arc::clone(&file),
        index,
    };
    let store = MemoryStore::new(1 << 30);
    for index in 0..256 {
        let page = Page::new(Bytes::from(vec![0; 4096]), Source::Worker);
        store.put(key(index), Arc::new(page));
    }
    let keys: Vec<_> = (0..256).map(|index| key(index * 97 % 256)).collect();
    let mut next = keys.iter().cycle();
    criterion.bench_function("memory cache get", |bench| {
        bench.iter(|| next.next().and_then(|key| store.get(black_box(key))));
    });
}

criterion_group!(functions, rings, pages, memory);
criterion_main!(functions);
