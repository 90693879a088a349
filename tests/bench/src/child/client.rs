//! Our side: the embedded client, as every front end uses it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluxio_client::{Client, FileReader, Followed};
use alluxio_config::Config;
use alluxio_wire::{LoadOptions, LoadState};
use anyhow::{Context as _, Result, bail};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Runtime;

use super::local::{STEP_BYTES, places};
use super::{Taken, Watch};
use crate::figure::median;
use crate::scene::MANY;

/// Bytes of a small read.
const SMALL_BYTES: usize = 4096;
/// The cluster's page size in all scenes.
const PAGE_BYTES: u64 = 1 << 20;
/// How long reads from memory are counted.
const MEMORY_TIME: Duration = Duration::from_secs(2);
/// How often a load is asked how far it is.
const LOAD_POLL: Duration = Duration::from_secs(1);
/// Files of a folder that are read at one time.
const FILES_AT_ONCE: usize = 8;

/// Connects on a runtime of its own.
pub(super) fn connect(config: &Path) -> Result<(Runtime, Client)> {
    let (runtime, config) = runtime(config)?;
    let client = runtime.block_on(Client::connect(&config))?;
    Ok((runtime, client))
}

/// The runtime that the command line has, and the configuration.
pub(super) fn runtime(config: &Path) -> Result<(Runtime, Config)> {
    let text = std::fs::read_to_string(config)
        .with_context(|| format!("cannot read {}", config.display()))?;
    let config = Config::from_yaml(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    Ok((runtime, config))
}

/// Reads a file from its beginning; tells its bytes, and how many of them came from the disk.
pub(super) async fn sequential(reader: &FileReader) -> Result<(u64, u64)> {
    let (mut offset, mut from_disk) = (0, 0);
    loop {
        let read = reader.read_at(offset, STEP_BYTES).await?;
        if read.is_empty() {
            return Ok((offset, from_disk));
        }
        offset += read.len() as u64;
        from_disk += read.by_source.disk;
    }
}

pub(super) fn file(config: &Path, path: &str) -> Result<Taken> {
    let (runtime, client) = connect(config)?;
    runtime.block_on(async {
        let reader = client.open(path).await?;
        let watch = Watch::start();
        let (bytes, _) = sequential(&reader).await?;
        if bytes != reader.status().length {
            bail!("{path} ended at {bytes}");
        }
        Ok(watch.stop(bytes, bytes.div_ceil(PAGE_BYTES)))
    })
}

pub(super) fn ranges(config: &Path, path: &str, count: u64) -> Result<Taken> {
    let (runtime, client) = connect(config)?;
    runtime.block_on(async {
        let reader = client.open(path).await?;
        let places = places(reader.status().length / PAGE_BYTES, count);
        let mut latencies = Vec::with_capacity(places.len());
        let mut bytes = 0;
        let watch = Watch::start();
        for (page, offset) in places {
            let started = Instant::now();
            let read = reader
                .read_at(page * PAGE_BYTES + offset, SMALL_BYTES)
                .await?;
            latencies.push(started.elapsed().as_secs_f64());
            bytes += read.len() as u64;
        }
        let mut taken = watch.stop(bytes, count);
        taken.p50_seconds = median(latencies);
        Ok(taken)
    })
}

pub(super) fn memory(config: &Path, path: &str) -> Result<Taken> {
    let (runtime, client) = connect(config)?;
    let reader = runtime.block_on(client.open(path))?;
    runtime.block_on(sequential(&reader))?;
    let places = places(reader.status().length / PAGE_BYTES, 10_000);
    let _inside = runtime.enter();
    let mut operations = 0;
    let mut waited = 0;
    let watch = Watch::start();
    let started = Instant::now();
    while started.elapsed() < MEMORY_TIME {
        for (page, offset) in &places {
            let offset = page * PAGE_BYTES + offset;
            match reader.read_at(offset, SMALL_BYTES).now_or_never() {
                Some(read) => drop(read?),
                None => waited += 1,
            }
            operations += 1;
        }
    }
    if waited > 0 {
        bail!("{waited} of {operations} reads were not in memory");
    }
    Ok(watch.stop(operations * SMALL_BYTES as u64, operations))
}

pub(super) fn folder(config: &Path, path: &str) -> Result<Taken> {
    let (runtime, client) = connect(config)?;
    let (bytes, files) = (AtomicU64::new(0), AtomicU64::new(0));
    runtime.block_on(async {
        let watch = Watch::start();
        let listed = client.list(path).await?;
        futures::stream::iter(listed.iter().cloned())
            .map(|status| {
                let client = client.clone();
                let (bytes, files) = (&bytes, &files);
                async move {
                    let reader = client.open(&format!("{path}/{}", status.name)).await?;
                    bytes.fetch_add(sequential(&reader).await?.0, Ordering::Relaxed);
                    files.fetch_add(1, Ordering::Relaxed);
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(watch.stop(bytes.into_inner(), files.into_inner()))
    })
}

pub(super) fn mixed(config: &Path, path: &str) -> Result<Taken> {
    let (runtime, client) = connect(config)?;
    runtime.block_on(async {
        let reader = client.open(path).await?;
        let places = Arc::new(places(reader.status().length / PAGE_BYTES, 20_000));
        let ended = Arc::new(AtomicBool::new(false));
        let watch = Watch::start();
        let random: Vec<_> = (0..4)
            .map(|index| {
                let (client, path) = (client.clone(), path.to_owned());
                let (places, ended) = (Arc::clone(&places), Arc::clone(&ended));
                tokio::spawn(async move {
                    let reader = client.open(&path).await?;
                    let mut bytes = 0;
                    for (page, offset) in places.iter().cycle().skip(index * 5000) {
                        if ended.load(Ordering::Relaxed) {
                            break;
                        }
                        let offset = page * PAGE_BYTES + offset;
                        bytes += reader.read_at(offset, SMALL_BYTES).await?.len() as u64;
                    }
                    anyhow::Ok(bytes)
                })
            })
            .collect();
        let (mut bytes, _) = sequential(&reader).await?;
        ended.store(true, Ordering::Relaxed);
        for reader in random {
            bytes += reader.await??;
        }
        Ok(watch.stop(bytes, 1))
    })
}

/// Loads a folder. Progress must never go back nor beyond the truth, and end at all of it.
pub(super) fn load(config: &Path, path: &str) -> Result<Taken> {
    let (runtime, client) = connect(config)?;
    runtime.block_on(async {
        let (_, folders, files, length) = MANY;
        let all = u64::from(folders) * u64::from(files);
        let uri = client.root().join(path)?;
        let loads = client.loads();
        let watch = Watch::start();
        let submitted = loads.submit(&uri, &LoadOptions::default()).await?;
        if !submitted.success {
            bail!("the load was refused: {}", submitted.message);
        }
        let (mut done, mut went_back) = (0, false);
        let end = loads
            .follow(&uri, None, LOAD_POLL, |step| {
                if let Followed::Progress(answer) = step
                    && let Some(counts) = &answer.progress
                {
                    went_back |= counts.files_done < done || counts.files_done > counts.files_total;
                    done = counts.files_done;
                }
            })
            .await?;
        let counts = end.progress.clone().unwrap_or_default();
        let told = (counts.files_done, counts.files_total, counts.bytes_done);
        if end.state != LoadState::Succeeded || told != (all, all, all * length) || went_back {
            bail!("the load ended as {end:?}; its progress went back: {went_back}");
        }
        Ok(watch.stop(all * length, all))
    })
}
