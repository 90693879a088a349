//! MurmurHash3, 32 bits, seed 0, as a signed number: the hash of Alluxio's rings.
//!
//! Written out here because the ring hashes 24 bytes some 400,000 times per membership change, and
//! a slice in, number out function cannot fail.

/// First multiplier of the published algorithm.
const C1: u32 = 0xcc9e_2d51;
/// Second multiplier of the published algorithm.
const C2: u32 = 0x1b87_3593;

/// The hash of these bytes.
pub(crate) fn murmur3_32(bytes: &[u8]) -> i32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0u32, |hash, block| {
        let mixed = hash ^ scramble(u32::from_le_bytes(*block));
        mixed
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64)
    });
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash ^= scramble(u32::from_le_bytes(last));
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the algorithm takes the low 32 bits"
    )]
    let length = bytes.len() as u32;
    finish(hash ^ length).cast_signed()
}

fn scramble(block: u32) -> u32 {
    block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2)
}

fn finish(mut hash: u32) -> u32 {
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_values_hold() {
        let hashes = [
            (&b""[..], 0u32),
            (b"test", 0xba6b_d213),
            (b"Hello, world!", 0xc036_3e43),
            (b"The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ];
        for (bytes, hash) in hashes {
            assert_eq!(murmur3_32(bytes).cast_unsigned(), hash);
        }
    }
}
