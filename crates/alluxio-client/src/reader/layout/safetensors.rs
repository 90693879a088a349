//! The header of a safetensors file: its length in eight bytes, then JSON that names each tensor's
//! place behind the header.

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;

use super::MAX_CHUNKS;

/// What is read of a tensor, all else is passed over; `__metadata__` has none of it.
#[derive(Deserialize)]
struct Entry {
    data_offsets: Option<(u64, u64)>,
}

/// Where the header lies, if its length can be true and is at most `most`.
pub(super) fn header(head: &[u8], file_length: u64, most: u64) -> Option<Range<u64>> {
    let (length, _) = head.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    // The shortest header is `{}`.
    let is_possible = (2..=most).contains(&length) && length <= file_length.checked_sub(8)?;
    is_possible.then(|| 8..8 + length)
}

/// The tensors' places in the file; none where the header is not one, or a tensor would lie past the
/// file's end.
pub(super) fn tensors(header: &[u8], data_start: u64, file_length: u64) -> Option<Vec<Range<u64>>> {
    let entries: HashMap<String, Entry> = serde_json::from_slice(header).ok()?;
    if entries.len() > MAX_CHUNKS {
        return None;
    }
    let place = |(start, end): (u64, u64)| {
        let (start, end) = (data_start.checked_add(start)?, data_start.checked_add(end)?);
        (start <= end && end <= file_length).then_some(start..end)
    };
    entries
        .into_values()
        .filter_map(|entry| entry.data_offsets)
        .map(place)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_cannot_be_true_is_none() {
        assert_eq!(header(&20u64.to_le_bytes(), 1000, 4096), Some(8..28));
        for (length, file_length, most) in [
            (20, 27, 4096),
            (20, 1000, 19),
            (u64::MAX, 1000, u64::MAX),
            (1, 1000, 4096),
            (0, 0, 4096),
        ] {
            assert_eq!(header(&length.to_le_bytes(), file_length, most), None);
        }
        assert_eq!(header(b"short", 1000, 4096), None);
    }

    #[test]
    fn tensors_lie_behind_the_header_and_within_the_file() {
        let text = br#"{"__metadata__":{"format":"pt"},
            "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "b":{"dtype":"F32","shape":[],"data_offsets":[8,12]}}"#;
        let mut places = tensors(text, 100, 112).unwrap_or_default();
        places.sort_unstable_by_key(|place| place.start);
        assert_eq!(places, [100..108, 108..112]);
        assert_eq!(tensors(text, 100, 111), None);
        assert_eq!(tensors(text, u64::MAX, u64::MAX), None);
        assert_eq!(tensors(b"{\"a\":{\"data_offsets\":[9,1]}}", 10, 100), None);
        for broken in [&b"{"[..], b"", b"[]", b"{\"a\":{\"data_offsets\":[-1,1]}}"] {
            assert_eq!(tensors(broken, 10, 100), None);
        }
    }
}
