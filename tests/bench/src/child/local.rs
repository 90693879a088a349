//! Sides without a network: the ring, and the places of random reads.

use std::hint::black_box;

use alluxio_client::ring::HashRing;
use alluxio_wire::WorkerId;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Taken, Watch};

/// One read of the sequential sides.
pub(super) const STEP_BYTES: usize = 1 << 20;
/// Small reads lie on multiples of their own length within a page of this length.
const PAGE_BYTES: u64 = 1 << 20;
const SMALL_BYTES: u64 = 4096;
/// Enough picks for a second or so.
const PICKS: u32 = 2_000_000;
/// Virtual nodes of a worker: Alluxio's default.
const VIRTUAL_NODES: u32 = 2000;

/// Random places, the same for each side: page, and offset within it.
pub(super) fn places(pages: u64, count: u64) -> Vec<(u64, u64)> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut place = || {
        let page = random.random_range(0..pages);
        (
            page,
            random.random_range(0..PAGE_BYTES / SMALL_BYTES) * SMALL_BYTES,
        )
    };
    (0..count).map(|_| place()).collect()
}

fn workers(count: u32) -> Vec<WorkerId> {
    (0..count)
        .map(|index| WorkerId::from_host(&format!("worker-{index}.alluxio")))
        .collect()
}

pub(super) fn ring_pick() -> Taken {
    let ring = HashRing::new(&workers(200), VIRTUAL_NODES);
    let keys: Vec<_> = (0..1000)
        .map(|index| format!("s3://ml-datasets/imagenet/train/n{index:08}/image_{index}.jpg"))
        .collect();
    let watch = Watch::start();
    for turn in 0..PICKS {
        let _ = black_box(ring.pick(black_box(&keys[turn as usize % keys.len()]), 1));
    }
    watch.stop(0, u64::from(PICKS))
}

pub(super) fn ring_build() -> Taken {
    let workers = workers(1000);
    let watch = Watch::start();
    let _ = black_box(HashRing::new(black_box(&workers), VIRTUAL_NODES));
    watch.stop(0, 1)
}
