//! Which worker owns a file: the consistent hash ring that every Alluxio client computes alike.
//!
//! A file is hashed with an attempt number, and the policy's table names a worker; further attempts
//! find further workers. With the policy Consistent each worker stands on the ring at
//! `virtual_nodes` points, and a file belongs to the first point at or above its hash. Nothing here
//! knows an address or does IO, so that clients, workers and the operator's dry runs cannot
//! disagree: the golden answers of the published Java client and of the Python SDK are this file's
//! tests.

mod java;
mod jump;
mod maglev;
mod multi_probe;
mod murmur3;
mod points;

use std::collections::HashSet;
use std::io::Write as _;

use alluxio_config::{ClientOptions, RingPolicy};
use alluxio_wire::WorkerId;

use maglev::MaglevTable;
use multi_probe::ProbedPoints;
pub(crate) use murmur3::murmur3_32;
use points::Points;

/// How often the lookup of one file may hit a worker that it has already, as in Alluxio's clients.
/// The answer depends on it, so it is part of the protocol and not a setting.
const MAX_ATTEMPTS: i32 = 100;
/// Keys by which the share of a policy without widths is found out: the error of a share stays
/// below half a percent of all files.
const SHARE_SAMPLES: u32 = 100_000;
/// Room for the attempt, a probe and a seed in decimal behind a key.
const SUFFIX_BYTES: usize = 33;

/// How a ring is made: what all clients of a cluster must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingShape {
    /// Alluxio's selection policy.
    pub policy: RingPolicy,
    /// Points of each worker; only the policy Consistent heeds it.
    pub virtual_nodes: u32,
}

impl RingShape {
    /// The shape that a client's options tell.
    pub fn of(options: &ClientOptions) -> Self {
        Self {
            policy: options.ring_policy,
            virtual_nodes: options.virtual_nodes_per_worker,
        }
    }

    /// The policy Consistent with this many points a worker.
    pub fn consistent(virtual_nodes: u32) -> Self {
        Self {
            policy: RingPolicy::Consistent,
            virtual_nodes,
        }
    }
}

/// A consistent hash ring: a set of workers and the table that a policy makes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashRing {
    /// Each once, in the order that the policy counts them in.
    workers: Vec<WorkerId>,
    shape: RingShape,
    table: Table,
}

/// What a policy looks a hash up in; workers are indices into the ring's.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Table {
    Consistent(Points),
    Ketama(Points),
    /// The number of workers is all that it needs.
    Jump,
    Maglev(MaglevTable),
    MultiProbe(ProbedPoints),
}

impl HashRing {
    /// The ring of the policy Consistent over these workers, in any order and possibly repeated,
    /// with `virtual_nodes` points for each of them.
    pub fn new(workers: &[WorkerId], virtual_nodes: u32) -> Self {
        Self::of_shape(workers, RingShape::consistent(virtual_nodes))
    }

    /// The ring of any policy, over workers in any order and possibly repeated.
    ///
    /// Where Jump and Maglev find two workers in one bucket of Java's hash set, they count them in
    /// the order given; give them sorted, as etcd lists them.
    pub fn of_shape(workers: &[WorkerId], shape: RingShape) -> Self {
        let mut workers = workers.to_vec();
        match shape.policy {
            RingPolicy::Jump | RingPolicy::Maglev => {
                let mut seen = HashSet::new();
                workers.retain(|worker| seen.insert(*worker));
                java::sort_as_a_hash_set(&mut workers);
            }
            RingPolicy::Consistent | RingPolicy::Ketama | RingPolicy::MultiProbe => {
                workers.sort_unstable_by_key(|worker| (worker.identifier, worker.version));
                workers.dedup();
            }
        }
        let table = match shape.policy {
            RingPolicy::Consistent => {
                Table::Consistent(Points::consistent(&workers, shape.virtual_nodes))
            }
            RingPolicy::Ketama => Table::Ketama(Points::ketama(&workers)),
            RingPolicy::Jump => Table::Jump,
            RingPolicy::Maglev => Table::Maglev(MaglevTable::new(&workers)),
            RingPolicy::MultiProbe => Table::MultiProbe(ProbedPoints::new(&workers)),
        };
        Self {
            workers,
            shape,
            table,
        }
    }

    /// The workers of a file in order of preference: at most `count`, each once, the owner first.
    ///
    /// `key` is the canonical UFS URI. There may be fewer than `count` even on a larger ring, when
    /// the attempts ran out.
    pub fn pick(&self, key: &str, count: usize) -> Vec<WorkerId> {
        let wanted = count.min(self.workers.len());
        let mut picked: Vec<u32> = Vec::with_capacity(wanted);
        let mut text = Vec::with_capacity(key.len() + SUFFIX_BYTES);
        text.extend_from_slice(key.as_bytes());
        for attempt in 1..=MAX_ATTEMPTS {
            if picked.len() == wanted {
                break;
            }
            let Some(worker) = self.look_up(&mut text, key.len(), attempt) else {
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

    /// The worker of one attempt. `text` begins with the key's bytes and is room for what follows.
    fn look_up(&self, text: &mut Vec<u8>, key_bytes: usize, attempt: i32) -> Option<u32> {
        text.truncate(key_bytes);
        match &self.table {
            Table::Consistent(points) => {
                text.extend_from_slice(&attempt.to_le_bytes());
                points.at_or_above(murmur3_32(text))
            }
            Table::Ketama(points) => {
                append_decimal(text, attempt);
                points.at_or_above(murmur3_32(text))
            }
            Table::Jump => {
                append_decimal(text, attempt);
                jump::bucket(murmur3_32(text), self.workers.len())
            }
            Table::Maglev(table) => {
                append_decimal(text, attempt);
                append_decimal(text, maglev::INDEX_SEED);
                table.look_up(murmur3_32(text))
            }
            Table::MultiProbe(points) => {
                append_decimal(text, attempt);
                points.nearest(text)
            }
        }
    }

    /// The workers on the ring, in the order that the policy counts them in.
    pub fn workers(&self) -> &[WorkerId] {
        &self.workers
    }

    /// How the ring was made.
    pub fn shape(&self) -> RingShape {
        self.shape
    }

    /// Eight hex digits that are equal exactly where clients route alike, up to hash collisions:
    /// they depend on the workers, the policy and the number of points alone.
    pub fn fingerprint(&self) -> String {
        let mut bytes = match self.shape.policy {
            RingPolicy::Consistent => self.shape.virtual_nodes.to_le_bytes().to_vec(),
            // The number of virtual nodes means nothing to the others.
            other => other.label().as_bytes().to_vec(),
        };
        for worker in &self.workers {
            bytes.extend_from_slice(&worker.identifier);
            bytes.extend_from_slice(&worker.version.to_le_bytes());
        }
        format!("{:08x}", murmur3_32(&bytes).cast_unsigned())
    }

    /// Each worker's part of all files, 0 to 1: exact where workers have parts of the hash space,
    /// else by a large sample of names.
    pub fn shares(&self) -> Vec<(WorkerId, f64)> {
        let parts: Vec<f64> = match &self.table {
            Table::Consistent(points) | Table::Ketama(points) => points.shares(self.workers.len()),
            Table::Jump | Table::Maglev(_) | Table::MultiProbe(_) => self.sampled_shares(),
        };
        self.workers.iter().copied().zip(parts).collect()
    }

    /// The part of all files, 0 to 1, that another ring gives to another owner; by a large sample.
    pub fn moved_share(&self, other: &Self) -> f64 {
        let is_moved = |sample: &u32| {
            let key = format!("sample-{sample}/");
            self.pick(&key, 1) != other.pick(&key, 1)
        };
        let moved = (0..SHARE_SAMPLES).filter(is_moved).count();
        let moved = u32::try_from(moved).unwrap_or(SHARE_SAMPLES);
        f64::from(moved) / f64::from(SHARE_SAMPLES)
    }

    fn sampled_shares(&self) -> Vec<f64> {
        let mut counts = vec![0u32; self.workers.len()];
        let mut text = Vec::new();
        for sample in 0..SHARE_SAMPLES {
            text.clear();
            let _ = write!(text, "sample-{sample}/");
            let key_bytes = text.len();
            if let Some(worker) = self.look_up(&mut text, key_bytes, 1) {
                counts[worker as usize] += 1;
            }
        }
        let share = |count: u32| f64::from(count) / f64::from(SHARE_SAMPLES);
        counts.into_iter().map(share).collect()
    }

    /// The points of the policies that have some, sorted: position and worker.
    #[cfg(test)]
    fn points(&self) -> impl Iterator<Item = (i32, WorkerId)> + '_ {
        let points = match &self.table {
            Table::Consistent(points) | Table::Ketama(points) => points.as_slice(),
            Table::Jump | Table::Maglev(_) | Table::MultiProbe(_) => &[],
        };
        points
            .iter()
            .map(|(point, worker)| (*point, self.workers[*worker as usize]))
    }
}

/// Java's `%d` behind what stands there.
fn append_decimal(text: &mut Vec<u8>, number: i32) {
    // Writing to a vector does not fail.
    let _ = write!(text, "{number}");
}

/// The hash of a worker's identity, as Alluxio's funnel feeds it.
fn hash_of(worker: &WorkerId) -> i32 {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&worker.identifier);
    bytes[16..].copy_from_slice(&worker.version.to_le_bytes());
    murmur3_32(&bytes)
}

#[cfg(test)]
mod tests;
