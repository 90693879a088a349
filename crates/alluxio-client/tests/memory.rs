//! That `client.memory_limit` holds, as the allocator counts: also with readers that do not let go of
//! what they were handed, and with writes that wait to be sent.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "a test fails by panicking; the support is shared"
)]

#[path = "../../alluxio-ufs/tests/support/s3.rs"]
mod s3;
mod support;

use std::io::Write as _;
use std::path::Path;

use alluxio_client::{Client, TransferOptions, WriteOptions};
use alluxio_config::Config;
use bytes::Bytes;
use peak_alloc::PeakAlloc;
use support::PAGE;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
/// Of the client: 128 pages.
const LIMIT: usize = 8 * MIB;
/// Far more than that.
const FILE: usize = 40 * MIB;
/// What is written, less than a part.
const WRITTEN: usize = 4 * MIB;
/// What else lives in this process while it reads: tasks, tables, the runtime's own.
const REST: usize = 3 * MIB;

/// The bytes from an offset on: each word tells its own place.
fn bytes_at(offset: usize, length: usize) -> Vec<u8> {
    let words = offset / 8..(offset + length).div_ceil(8);
    let bytes: Vec<u8> = words.flat_map(usize::to_le_bytes).collect();
    bytes[offset % 8..][..length].to_vec()
}

/// Written piece by piece, so that the test itself never holds it.
fn write_file(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for start in (0..FILE).step_by(MIB) {
        file.write_all(&bytes_at(start, MIB)).unwrap();
    }
}

async fn client(uri: &str, more: &str) -> Client {
    let yaml = format!(
        "ufs: {{uri: '{uri}'{more}}}\nclient: {{page_size: 64Ki, memory_limit: {LIMIT}}}\n"
    );
    Client::connect(&Config::from_yaml(&yaml).unwrap())
        .await
        .unwrap()
}

/// Bytes that the process had at most since `reset`, beyond `before`.
fn grown(before: usize) -> usize {
    ALLOCATOR.peak_usage().saturating_sub(before)
}

fn live_bytes(client: &Client) -> usize {
    usize::try_from(client.summary().cache.live_bytes).unwrap()
}

/// Readers at many places, each of which keeps its last reads; `kept` is how many of them all.
async fn read_and_hold(client: &Client, length: usize, kept: usize) {
    const READERS: usize = 8;
    let mut held: Vec<(usize, Bytes)> = Vec::new();
    let reader = client.open("big").await.unwrap();
    for turn in 0..FILE / PAGE / READERS {
        for place in 0..READERS {
            let offset = place * (FILE / READERS) + turn * PAGE + turn % 77;
            let read = reader.read_at(offset as u64, length).await.unwrap();
            held.extend(read.chunks.into_iter().scan(offset, |at, chunk| {
                let start = *at;
                *at += chunk.len();
                Some((start, chunk))
            }));
        }
        let many = held.len().saturating_sub(kept);
        for (offset, chunk) in held.drain(..many) {
            assert!(chunk == bytes_at(offset, chunk.len()));
        }
        assert!(live_bytes(client) <= LIMIT, "{}", live_bytes(client));
    }
}

/// All in one test: the allocator counts for the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_limit_holds_with_readers_that_hold_on_and_writes_that_wait() {
    let folder = tempfile::tempdir().unwrap();
    write_file(&folder.path().join("big"));
    let reading = client(&format!("file://{}", folder.path().display()), "").await;
    // A first read, so that what the runtime keeps for ever is there.
    let opened = reading.open("big").await.unwrap();
    opened.read_at(0, 10).await.unwrap();
    drop(opened);

    // Whole pages, half of the limit held; and small parts of far more pages than fit.
    for (length, kept) in [(PAGE, LIMIT / PAGE / 2), (500, 600)] {
        ALLOCATOR.reset_peak_usage();
        let before = ALLOCATOR.current_usage() - live_bytes(&reading);
        read_and_hold(&reading, length, kept).await;
        let grown = grown(before);
        assert!(
            grown <= LIMIT + REST,
            "{grown} bytes with reads of {length}"
        );
    }
    // Nobody holds anything now: what lives is what is cached.
    let cache = reading.summary().cache;
    assert_eq!(cache.live_bytes, cache.memory_bytes);
    assert!(cache.live_bytes > 0);

    // A copy through this process holds more than the limit, and all pages made room for it.
    let options = TransferOptions::default();
    reading.cp("big", "copy", options).await.unwrap();
    assert_eq!(live_bytes(&reading), 0);

    write_and_wait().await;
}

/// A write fills its parts while the cache is full of pages, which make room for them.
async fn write_and_wait() {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let server = s3::S3Server::start(true).await;
    std::fs::create_dir_all(server.bucket_folder().join("data")).unwrap();
    write_file(&server.bucket_folder().join("data/big"));
    let keys = format!(
        ", endpoint: '{}', key: {}, secret: {}",
        server.endpoint(),
        s3::ACCESS_KEY,
        s3::SECRET_KEY
    );
    let client = client(&format!("s3://{}/data", s3::BUCKET), &keys).await;
    let reader = client.open("big").await.unwrap();
    for offset in (0..2 * LIMIT).step_by(MIB) {
        reader.read_at(offset as u64, MIB).await.unwrap();
    }
    let cached = live_bytes(&client);
    assert!(cached > LIMIT / 2, "{cached}");
    let options = WriteOptions::default();
    let mut writer = client.create("new", options).await.unwrap();
    for start in (0..WRITTEN).step_by(MIB) {
        let piece = Bytes::from(bytes_at(start, MIB));
        writer.write(piece).await.unwrap();
        assert!(live_bytes(&client) <= LIMIT);
    }
    let cache = client.summary().cache;
    assert!(cache.live_bytes - cache.memory_bytes >= WRITTEN as u64);
    assert!(cache.memory_bytes < cached as u64);
    writer.finish().await.unwrap();
    let cache = client.summary().cache;
    assert_eq!(cache.live_bytes, cache.memory_bytes);
    let reader = client.open("new").await.unwrap();
    let read = reader.read_at(0, WRITTEN).await.unwrap().into_bytes();
    assert!(read == bytes_at(0, WRITTEN));
}
