//! Which worker owns a file: the consistent hash ring that every Alluxio client computes alike.
//!
//! Each worker stands on the ring at `virtual_nodes` points, the murmur3 hashes of its identity. A
//! file is hashed with an attempt number and belongs to the first point at or above; further
//! attempts find further workers. Nothing here knows an address or does IO, so that clients,
//! workers and the operator's dry runs cannot disagree: the golden answers of the published Java
//! client and of the Python SDK are this file's tests.
//!
//! The points are a sorted vector and not a tree: 200 workers with 2,000 points each are 400,000
//! points, read on each page and written only when the membership changes.

mod murmur3;

use alluxio_wire::WorkerId;

use murmur3::murmur3_32;

/// How often the lookup of one file may hit a worker that it has already, as in Alluxio's clients.
/// The answer depends on it, so it is part of the protocol and not a setting.
const MAX_ATTEMPTS: i32 = 100;

/// A consistent hash ring: a set of workers and the points where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashRing {
    /// Sorted, each once.
    workers: Vec<WorkerId>,
    /// Sorted by position; the second part is an index into `workers`.
    points: Vec<(i32, u32)>,
    virtual_nodes: u32,
}

impl HashRing {
    /// The ring of these workers, in any order and possibly repeated, with `virtual_nodes` points
    /// for each of them.
    pub fn new(workers: &[WorkerId], virtual_nodes: u32) -> Self {
        let mut workers = workers.to_vec();
        workers.sort_unstable_by_key(|worker| (worker.identifier, worker.version));
        workers.dedup();
        let mut points: Vec<(i32, u32)> = (0u32..)
            .zip(&workers)
            .flat_map(|(index, worker)| points_of(worker, virtual_nodes).map(move |p| (p, index)))
            .collect();
        points.sort_unstable();
        keep_last_of_each_position(&mut points);
        Self {
            workers,
            points,
            virtual_nodes,
        }
    }

    /// The workers of a file in order of preference: at most `count`, each once, the owner first.
    ///
    /// `key` is the canonical UFS URI. There may be fewer than `count` even on a larger ring, when
    /// the attempts ran out.
    pub fn pick(&self, key: &str, count: usize) -> Vec<WorkerId> {
        let wanted = count.min(self.workers.len());
        let mut picked: Vec<u32> = Vec::with_capacity(wanted);
        let mut bytes = [key.as_bytes(), &[0; 4]].concat();
        let suffix = key.len();
        for attempt in 1..=MAX_ATTEMPTS {
            if picked.len() == wanted {
                break;
            }
            bytes[suffix..].copy_from_slice(&attempt.to_le_bytes());
            let Some(worker) = self.at_or_above(murmur3_32(&bytes)) else {
                break;
            };
            if !picked.contains(&worker) {
                picked.push(worker);
            }
        }
        picked
            .into_iter()
            .map(|index| self.workers[index as usize])
            .collect()
    }

    /// The worker of the first point at or above this position, around the end to the first point.
    fn at_or_above(&self, position: i32) -> Option<u32> {
        let index = self.points.partition_point(|(point, _)| *point < position);
        let (_, worker) = self.points.get(index).or_else(|| self.points.first())?;
        Some(*worker)
    }

    /// The workers on the ring, sorted.
    pub fn workers(&self) -> &[WorkerId] {
        &self.workers
    }

    /// How many points each worker has.
    pub fn virtual_nodes(&self) -> u32 {
        self.virtual_nodes
    }

    /// Eight hex digits that are equal exactly where clients route alike, up to hash collisions:
    /// they depend on the workers and on the number of points alone.
    pub fn fingerprint(&self) -> String {
        let mut bytes = self.virtual_nodes.to_le_bytes().to_vec();
        for worker in &self.workers {
            bytes.extend_from_slice(&worker.identifier);
            bytes.extend_from_slice(&worker.version.to_le_bytes());
        }
        format!("{:08x}", murmur3_32(&bytes).cast_unsigned())
    }

    /// Each worker's part of all positions, 0 to 1: the share of files that it owns.
    pub fn shares(&self) -> Vec<(WorkerId, f64)> {
        let mut widths = vec![0u64; self.workers.len()];
        let last = self.points.last().map_or(0, |(point, _)| *point);
        let mut previous = last;
        for (point, worker) in &self.points {
            widths[*worker as usize] += u64::from(point.wrapping_sub(previous).cast_unsigned());
            previous = *point;
        }
        if let [(_, only)] = self.points[..] {
            widths[only as usize] = 1 << 32;
        }
        let share = |width: u64| {
            #[allow(clippy::cast_precision_loss, reason = "at most 2^32, exact in an f64")]
            let width = width as f64;
            width / 4_294_967_296.0
        };
        self.workers
            .iter()
            .copied()
            .zip(widths.into_iter().map(share))
            .collect()
    }

    /// The points, sorted: position and worker.
    pub fn points(&self) -> impl Iterator<Item = (i32, WorkerId)> + '_ {
        self.points
            .iter()
            .map(|(point, worker)| (*point, self.workers[*worker as usize]))
    }
}

/// hash(identifier, version, index) for each of a worker's points, numbers in little endian.
fn points_of(worker: &WorkerId, virtual_nodes: u32) -> impl Iterator<Item = i32> {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&worker.identifier);
    bytes[16..20].copy_from_slice(&worker.version.to_le_bytes());
    (0..virtual_nodes).map(move |index| {
        bytes[20..].copy_from_slice(&index.to_le_bytes());
        murmur3_32(&bytes)
    })
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

#[cfg(test)]
mod tests;
