//! Access profiles: which pages a worker is asked for, for files as Parquet and safetensors writers
//! make them and for readers as their libraries read.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    dead_code,
    reason = "a test fails by panicking; the support is shared; bytes of a pattern"
)]

mod support;

use std::collections::BTreeSet;
use std::ops::Range;

use alluxio_client::{Client, FileReader};
use alluxio_config::AccessProfile;
use futures::future::join_all;
use support::{Folder, PAGE, ScriptedWorker, until};

/// The pages that a worker was asked for.
fn asked(worker: &ScriptedWorker) -> BTreeSet<usize> {
    let page = |target: &String| {
        let path = support::page_path(target);
        path.rsplit_once("/page/").unwrap().1.parse().unwrap()
    };
    worker.targets().iter().map(page).collect()
}

fn pages(bytes: &Range<usize>) -> Range<usize> {
    bytes.start / PAGE..bytes.end.div_ceil(PAGE)
}

async fn read(reader: &FileReader, folder: &Folder, name: &str, range: Range<usize>) {
    let read = reader.read_at(range.start as u64, range.len()).await;
    assert!(
        read.unwrap().into_bytes() == folder.bytes(name)[range.clone()],
        "{name} {range:?}"
    );
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A file of one row group for each of the groups, with the footer that names its column chunks.
fn parquet(chunk_bytes: usize, groups: usize, columns: usize) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut file = b"PAR1".to_vec();
    let (mut chunks, mut footer) = (Vec::new(), vec![0x15, 2, 0x39]);
    let count = |count: usize| u8::try_from(count << 4).unwrap() | 0x0c;
    footer.push(count(groups));
    for _ in 0..groups {
        footer.extend([0x19, count(columns)]);
        for column in 0..columns {
            let start = file.len();
            file.extend((0..chunk_bytes).map(|at| (at * 31 + column) as u8));
            chunks.push(start..file.len());
            footer.extend([0x3c, 0x76]);
            footer.extend(varint(2 * chunk_bytes as u64));
            footer.push(0x26);
            footer.extend(varint(2 * start as u64));
            footer.extend([0, 0]);
        }
        footer.push(0);
    }
    footer.push(0);
    file.extend(&footer);
    file.extend(u32::try_from(footer.len()).unwrap().to_le_bytes());
    file.extend(b"PAR1");
    (file, chunks)
}

/// A file of tensors `t0`, `t1`, ... of so many bytes, and where they lie.
fn safetensors(lengths: &[usize]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut entries = vec![r#""__metadata__":{"format":"pt"}"#.to_owned()];
    let mut end = 0;
    for (index, length) in lengths.iter().enumerate() {
        let start = end;
        end += length;
        entries.push(format!(
            r#""t{index}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    let data = file.len();
    file.extend((0..end).map(|at| (at * 7) as u8));
    let mut start = data;
    let tensors = lengths.iter().map(|length| {
        start += length;
        start - length..start
    });
    let tensors = tensors.collect();
    (file, tensors)
}

async fn scene(name: &str, bytes: &[u8], options: &str) -> (Folder, ScriptedWorker, Client) {
    let mut folder = Folder::with(&[]);
    folder.write(name, bytes);
    let worker = ScriptedWorker::holding(&folder).await;
    let client = folder.client(&[worker.host_port()], options).await;
    (folder, worker, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_brings_the_footer_at_once_and_nothing_past_the_chunk() {
    let name = "table.parquet";
    let (bytes, chunks) = parquet(12 * PAGE, 2, 3);
    let (folder, worker, client) = scene(name, &bytes, "").await;
    let reader = client.open(name).await.unwrap();
    assert_eq!(reader.access_profile(), AccessProfile::Parquet);
    until("the footer was not read", || {
        reader.known_chunks() == chunks.len()
    })
    .await;
    let tail = bytes.len() - PAGE..bytes.len();
    let mut expected: BTreeSet<_> = pages(&tail).collect();
    assert_eq!(asked(&worker), expected, "before the first read");
    // As libraries read: the end, the footer, then a column chunk of each row group in small steps.
    read(&reader, &folder, name, bytes.len() - 8..bytes.len()).await;
    assert_eq!(asked(&worker), expected);
    for chunk in [&chunks[1], &chunks[4]] {
        let step = 16 * 1024;
        for start in chunk.clone().step_by(step) {
            read(&reader, &folder, name, start..(start + step).min(chunk.end)).await;
        }
        expected.extend(pages(chunk));
    }
    assert_eq!(asked(&worker), expected);
    // Each page was asked for once.
    assert_eq!(worker.targets().len(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_chunk_is_fetched_to_its_end_at_the_first_read() {
    let (bytes, chunks) = parquet(12 * PAGE, 1, 3);
    let (folder, worker, client) = scene("a.parquet", &bytes, "").await;
    let reader = client.open("a.parquet").await.unwrap();
    until("the footer was not read", || reader.known_chunks() == 3).await;
    read(
        &reader,
        &folder,
        "a.parquet",
        chunks[1].start..chunks[1].start + 10,
    )
    .await;
    let chunk: BTreeSet<_> = pages(&chunks[1]).collect();
    until("the chunk was not fetched", || {
        asked(&worker).is_superset(&chunk)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn safetensors_bring_the_header_at_once_and_then_whole_tensors() {
    let name = "model.safetensors";
    let (bytes, tensors) = safetensors(&[40 * PAGE, 10 * PAGE, 20 * PAGE]);
    let (folder, worker, client) = scene(name, &bytes, "").await;
    let reader = client.open(name).await.unwrap();
    until("the header was not read", || reader.known_chunks() == 3).await;
    assert_eq!(asked(&worker), BTreeSet::from([0]));
    // A shard's loader begins with a tensor in the middle.
    let middle = &tensors[1];
    read(&reader, &folder, name, middle.start..middle.start + 100).await;
    let of_middle: BTreeSet<_> = pages(middle).collect();
    let expected: BTreeSet<_> = of_middle.iter().copied().chain([0]).collect();
    until("the tensor was not fetched", || asked(&worker) == expected).await;
    // One that goes on has the next tensors, too.
    for start in (middle.start..middle.end).step_by(PAGE) {
        read(
            &reader,
            &folder,
            name,
            start..(start + PAGE).min(middle.end),
        )
        .await;
    }
    let next = pages(&tensors[2]);
    until("the next tensor was not fetched", || {
        asked(&worker).contains(&(next.end - 1))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_header_costs_no_memory_and_no_byte() {
    let (good, _) = safetensors(&[3 * PAGE]);
    let lengths = [u64::MAX, 1 << 40, good.len() as u64, 0, 7];
    for length in lengths {
        let mut spoilt = good.clone();
        spoilt[..8].copy_from_slice(&length.to_le_bytes());
        let (folder, _worker, client) = scene("m.safetensors", &spoilt, "").await;
        let reader = client.open("m.safetensors").await.unwrap();
        read(&reader, &folder, "m.safetensors", 0..spoilt.len()).await;
        assert_eq!(reader.known_chunks(), 0, "{length}");
    }
    for (name, bytes) in [
        ("a.parquet", &b"PAR1"[..]),
        ("a.safetensors", b""),
        ("b.parquet", b""),
    ] {
        let (folder, _worker, client) = scene(name, bytes, "").await;
        let reader = client.open(name).await.unwrap();
        read(&reader, &folder, name, 0..bytes.len()).await;
        assert!(reader.read_at(u64::MAX, 10).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_opening_decides_over_configuration_and_name() {
    let bytes = vec![7; 64 * PAGE];
    let window = "readahead: {max_window: 1Mi}";
    let (folder, worker, client) = scene("a.parquet", &bytes, window).await;
    let reader = client
        .open_as("a.parquet", AccessProfile::Sequential)
        .await
        .unwrap();
    read(&reader, &folder, "a.parquet", 0..10).await;
    until("the whole window was not fetched", || {
        asked(&worker) == (0..17).collect()
    })
    .await;
    let (folder, worker, client) = scene("a", &bytes, "access_profile: random").await;
    let reader = client.open("a").await.unwrap();
    assert_eq!(reader.access_profile(), AccessProfile::Random);
    for page in 0..10 {
        read(&reader, &folder, "a", page * PAGE..page * PAGE + 100).await;
    }
    assert!(asked(&worker).iter().all(|page| *page < 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_dropped_while_its_header_is_read_leaves_nothing_behind() {
    let (bytes, _) = safetensors(&[20 * PAGE]);
    let (folder, _worker, client) = scene("m.safetensors", &bytes, "").await;
    for _ in 0..50 {
        drop(client.open("m.safetensors").await.unwrap());
    }
    let reader = client.open("m.safetensors").await.unwrap();
    read(&reader, &folder, "m.safetensors", 0..bytes.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_sequential_readers_stay_within_the_memory() {
    const LIMIT: usize = 4 << 20;
    let names: Vec<String> = (0..16).map(|n| n.to_string()).collect();
    let files: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), 32 * PAGE))
        .collect();
    let folder = Folder::with(&files);
    let worker = ScriptedWorker::holding(&folder).await;
    let options = format!("memory_limit: {LIMIT}, access_profile: sequential");
    let client = folder.client(&[worker.host_port()], &options).await;
    let readers = names.iter().map(|name| async {
        let reader = client.open(name).await.unwrap();
        for start in (0..32 * PAGE).step_by(PAGE / 2) {
            read(&reader, &folder, name, start..start + PAGE / 2).await;
            let kept = client.summary().cache.memory_bytes;
            assert!(kept <= LIMIT as u64, "{kept}");
        }
    });
    join_all(readers).await;
    // Read-ahead that is pushed out before it is read would be fetched twice.
    let requests = worker.targets().len();
    assert!(requests <= 16 * 32 * 11 / 10, "{requests} requests");
}
