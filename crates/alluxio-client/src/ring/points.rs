//! Workers at points of the hash space: the tables of the policies Consistent and Ketama.
//!
//! The points are a sorted vector and not a tree: 200 workers with 2,000 points each are 400,000
//! points, read on each page and written only when the membership changes.

use alluxio_wire::WorkerId;

use super::hash_of;
use super::murmur3::murmur3_32;

/// Alluxio's default number of Ketama's replicas. They stand side by side, so their number hardly
/// moves a file.
const KETAMA_REPLICAS: i32 = 200;

/// Turned over, it puts negative positions before the others in the order of unsigned numbers.
const SIGN: u32 = 1 << 31;

/// Sorted by position; the second part is an index into the ring's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Points(Vec<(i32, u32)>);

impl Points {
    /// Each worker at hashes of its own.
    pub(super) fn consistent(workers: &[WorkerId], virtual_nodes: u32) -> Self {
        Self::of(workers, |worker| points_of(worker, virtual_nodes))
    }

    /// Each worker at one hash and the positions that follow it.
    pub(super) fn ketama(workers: &[WorkerId]) -> Self {
        Self::of(workers, |worker| {
            let first = hash_of(worker);
            (0..KETAMA_REPLICAS).map(move |replica| first.wrapping_add(replica))
        })
    }

    fn of<I: Iterator<Item = i32>>(
        workers: &[WorkerId],
        points_of: impl Fn(&WorkerId) -> I,
    ) -> Self {
        // One number each, which sorts in half the time of a pair.
        let mut packed: Vec<u64> = (0u32..)
            .zip(workers)
            .flat_map(|(index, worker)| points_of(worker).map(move |point| pack(point, index)))
            .collect();
        packed.sort_unstable();
        let mut points = packed.into_iter().map(unpack).collect();
        keep_last_of_each_position(&mut points);
        Self(points)
    }

    /// The worker of the first point at or above this position, around the end to the first point.
    pub(super) fn at_or_above(&self, position: i32) -> Option<u32> {
        let index = self.0.partition_point(|(point, _)| *point < position);
        let (_, worker) = self.0.get(index).or_else(|| self.0.first())?;
        Some(*worker)
    }

    /// Each worker's part of all positions, 0 to 1.
    pub(super) fn shares(&self, workers: usize) -> Vec<f64> {
        let mut widths = vec![0u64; workers];
        let last = self.0.last().map_or(0, |(point, _)| *point);
        let mut previous = last;
        for (point, worker) in &self.0 {
            widths[*worker as usize] += u64::from(point.wrapping_sub(previous).cast_unsigned());
            previous = *point;
        }
        if let [(_, only)] = self.0[..] {
            widths[only as usize] = 1 << 32;
        }
        let share = |width: u64| {
            #[allow(clippy::cast_precision_loss, reason = "at most 2^32, exact in an f64")]
            let width = width as f64;
            width / 4_294_967_296.0
        };
        widths.into_iter().map(share).collect()
    }

    #[cfg(test)]
    pub(super) fn as_slice(&self) -> &[(i32, u32)] {
        &self.0
    }
}

/// hash(identifier, version, index) for each of a worker's points, numbers in little endian.
fn points_of(worker: &WorkerId, virtual_nodes: u32) -> impl Iterator<Item = i32> + use<> {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&worker.identifier);
    bytes[16..20].copy_from_slice(&worker.version.to_le_bytes());
    (0..virtual_nodes).map(move |index| {
        bytes[20..].copy_from_slice(&index.to_le_bytes());
        murmur3_32(&bytes)
    })
}

/// A point and its worker as a number, in the same order.
fn pack(point: i32, worker: u32) -> u64 {
    u64::from(point.cast_unsigned() ^ SIGN) << 32 | u64::from(worker)
}

fn unpack(packed: u64) -> (i32, u32) {
    #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
    let (point, worker) = ((packed >> 32) as u32, packed as u32);
    ((point ^ SIGN).cast_signed(), worker)
}

/// Where points of two workers coincide, the later worker stands, as a map filled in the order of
/// the workers would have it.
fn keep_last_of_each_position(points: &mut Vec<(i32, u32)>) {
    points.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = later.1;
        }
        same
    });
}
