//! The order in which Java's `HashSet` walks through workers: Jump counts them in it.

use alluxio_wire::WorkerId;

/// The capacity of a new hash set, and the part of it that may be filled, in quarters.
const FIRST_CAPACITY: usize = 16;
const FILLED_QUARTERS: usize = 3;

/// Puts workers, in the order of their insertion, into the order of a `HashSet` that they were added to.
pub(super) fn sort_as_a_hash_set(workers: &mut [WorkerId]) {
    let mut capacity = FIRST_CAPACITY;
    while workers.len() * 4 > capacity * FILLED_QUARTERS {
        capacity *= 2;
    }
    // A stable sort: within a bucket Java keeps the order of insertion.
    workers.sort_by_key(|worker| {
        let hash = hash_code(worker).cast_unsigned();
        (hash ^ (hash >> 16)) as usize & (capacity - 1)
    });
}

/// `WorkerIdentity.hashCode()`: that of the identifier's bytes, then the version.
fn hash_code(worker: &WorkerId) -> i32 {
    let add = |hash: i32, next: i32| hash.wrapping_mul(31).wrapping_add(next);
    let bytes = worker.identifier.iter().map(|byte| byte.cast_signed());
    let identifier = bytes.fold(1, |hash, byte| add(hash, i32::from(byte)));
    add(identifier, worker.version)
}
