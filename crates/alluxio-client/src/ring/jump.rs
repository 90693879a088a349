//! Jump consistent hash: a file's bucket from its hash and the number of workers alone.
//!
//! Workers are counted in the order that Java's hash set has, because Alluxio's client numbers
//! them so. A worker that leaves from the middle renumbers those after it.

/// The multiplier of the published algorithm.
const MULTIPLIER: u64 = 2_862_933_555_777_941_757;
/// 2^31, which the algorithm divides by the upper bits of the hash.
const JUMP: f64 = 2_147_483_648.0;

/// The bucket of a hash; `None` where there are no buckets.
pub(super) fn bucket(hash: i32, buckets: usize) -> Option<u32> {
    // There are never 2^32 workers.
    let buckets = f64::from(u32::try_from(buckets).ok()?);
    let mut state = i64::from(hash).cast_unsigned();
    let mut found = None;
    let mut next = 0.0;
    while next < buckets {
        found = Some(next);
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(1);
        // The shift leaves 31 bits.
        let upper = u32::try_from(state >> 33).unwrap_or(u32::MAX);
        next = ((next + 1.0) * (JUMP / (f64::from(upper) + 1.0))).trunc();
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number below the number of buckets"
    )]
    found.map(|bucket| bucket as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_more_takes_its_part_and_moves_nothing_else() {
        let mut moved = 0;
        for hash in 0..10_000 {
            let (before, after) = (bucket(hash, 9), bucket(hash, 10));
            if before != after {
                assert_eq!(after, Some(9));
                moved += 1;
            }
        }
        assert!((800..1200).contains(&moved), "{moved}");
    }

    #[test]
    fn no_buckets_have_no_owner() {
        assert_eq!(bucket(7, 0), None);
        assert_eq!(bucket(7, 1), Some(0));
    }
}
