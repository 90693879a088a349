//! Multi-probe hashing: one point a worker, and of several hashes of a file the one that is nearest
//! to a point decides.

use std::io::Write as _;

use alluxio_wire::WorkerId;

use super::hash_of;
use super::maglev::INDEX_SEED as SEED;
use super::murmur3::murmur3_32;

/// Alluxio's default number of hashes of a file.
const PROBES: i32 = 21;

/// Sorted by position; the second part is an index into the ring's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProbedPoints(Vec<(i32, u32)>);

impl ProbedPoints {
    pub(super) fn new(workers: &[WorkerId]) -> Self {
        let point = |worker| murmur3_32(format!("{}{SEED}", hash_of(worker)).as_bytes());
        let mut points: Vec<_> = workers.iter().map(point).zip(0u32..).collect();
        points.sort_unstable();
        Self(points)
    }

    /// The worker whose point is nearest above one of the hashes of `text` and a probe's number.
    pub(super) fn nearest(&self, text: &mut Vec<u8>) -> Option<u32> {
        let (mut nearest, mut least) = (self.0.first()?, i32::MAX);
        let prefix = text.len();
        for probe in 0..PROBES {
            text.truncate(prefix);
            // Writing to a vector does not fail.
            let _ = write!(text, "{probe}");
            let hash = murmur3_32(text);
            let above = self.0.partition_point(|(point, _)| *point <= hash);
            let point = self.0.get(above).unwrap_or(&self.0[0]);
            // Java's arithmetic, overflow included: a distance of -2^31 stays negative.
            let distance = point.0.wrapping_sub(hash).wrapping_abs();
            if distance < least {
                (nearest, least) = (point, distance);
            }
        }
        Some(nearest.1)
    }
}
