//! What a file says of its own layout: Parquet's footer names column chunks, safetensors' header
//! names tensors.
//!
//! Both are looked up beside the first reads, in a task that holds no reader: a reader that is dropped
//! meanwhile ends it. What the file says is believed only for what to fetch ahead. A length or an
//! offset that cannot be true, or a header above the bound, makes the file one without a layout.

mod safetensors;
mod thrift;

use std::ops::Range;
use std::sync::Arc;

use alluxio_config::AccessProfile;

use super::{FileReader, Inner};
use crate::error::Result;

/// The least that is fetched of a Parquet file's end when it is opened: most footers whole.
const TAIL_BYTES: u64 = 64 * 1024;
/// The longest header or footer that is taken apart. Known ones of large models and of tables with
/// thousands of columns are below 4 MiB; it is held in memory for a moment.
const MAX_HEADER_BYTES: u64 = 8 * 1024 * 1024;
/// Chunks of a file that are remembered, at 16 bytes each; the layout of a file with more is left
/// unknown.
const MAX_CHUNKS: usize = 65_536;

/// Looks up the layout of a file that has one.
pub(super) fn look_up(reader: &FileReader, profile: AccessProfile) {
    let has_layout = matches!(profile, AccessProfile::Parquet | AccessProfile::Safetensors);
    let inner = &reader.inner;
    if !has_layout || inner.shared.readahead_limit() < inner.file.page_size.bytes() {
        return;
    }
    let length = inner.file.length;
    if profile == AccessProfile::Parquet {
        inner.prefetch(length.saturating_sub(TAIL_BYTES)..length);
    }
    let weak = Arc::downgrade(inner);
    inner.shared.runtime.spawn(async move {
        // Held while its pages are awaited, and by nobody else: the bound of a read.
        let Some(inner) = weak.upgrade() else {
            return;
        };
        match chunks(&inner, profile).await {
            Ok(Some(chunks)) => inner.access.lock().set_chunks(chunks),
            Ok(None) => tracing::debug!(file = %inner.file.uri, "has no layout that is known"),
            // The reader meets the same error where it matters.
            Err(error) => tracing::debug!(%error, "the layout of a file was not found"),
        }
    });
}

async fn chunks(inner: &Inner, profile: AccessProfile) -> Result<Option<Vec<Range<u64>>>> {
    let file_length = inner.file.length;
    let most = MAX_HEADER_BYTES.min(inner.shared.readahead_limit());
    let chunks = if profile == AccessProfile::Parquet {
        let tail = inner
            .look(file_length.saturating_sub(8)..file_length)
            .await?;
        let Some(footer) = parquet_footer(&tail, file_length, most) else {
            return Ok(None);
        };
        inner.prefetch(footer.clone());
        thrift::column_chunks(&inner.look(footer.clone()).await?, footer.start)
    } else {
        let head = inner.look(0..8).await?;
        let Some(header) = safetensors::header(&head, file_length, most) else {
            return Ok(None);
        };
        inner.prefetch(header.clone());
        safetensors::tensors(&inner.look(header.clone()).await?, header.end, file_length)
    };
    Ok(chunks.and_then(in_order))
}

/// Where the footer lies: before its length and the magic at the file's end. Encrypted footers
/// (`PARE`) tell nothing.
fn parquet_footer(tail: &[u8], file_length: u64, most: u64) -> Option<Range<u64>> {
    let (length, magic) = tail.split_first_chunk::<4>()?;
    let length = u64::from(u32::from_le_bytes(*length));
    // Eight bytes behind the footer, and the magic at the beginning.
    let is_possible = magic == b"PAR1" && length > 0 && length <= most;
    let end = file_length.checked_sub(8)?;
    let start = end.checked_sub(length).filter(|start| *start >= 4)?;
    is_possible.then_some(start..end)
}

/// Chunks by their place; none where two overlap, which no true file has.
fn in_order(mut chunks: Vec<Range<u64>>) -> Option<Vec<Range<u64>>> {
    chunks.retain(|chunk| !chunk.is_empty());
    chunks.sort_unstable_by_key(|chunk| chunk.start);
    let overlaps = chunks.windows(2).any(|two| two[0].end > two[1].start);
    (!chunks.is_empty() && !overlaps).then_some(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_lies_before_its_length_and_the_magic() {
        let tail = [&100u32.to_le_bytes()[..], b"PAR1"].concat();
        assert_eq!(parquet_footer(&tail, 1000, 4096), Some(892..992));
        for (tail, length, most) in [
            (&tail[..], 1000, 99),
            (&tail[..], 108, 4096),
            (&tail[..], 4, 4096),
            (&tail[..7], 1000, 4096),
            (&[], 0, 4096),
            (b"\xff\xff\xff\xffPAR1", 1000, 4096),
            (b"\0\0\0\0PAR1", 1000, 4096),
            (b"\x64\0\0\0PARE", 1000, 4096),
        ] {
            assert_eq!(
                parquet_footer(tail, length, most),
                None,
                "{tail:?} {length}"
            );
        }
    }

    #[test]
    fn chunks_that_overlap_are_no_layout() {
        assert_eq!(in_order(vec![5..9, 1..5, 3..3]), Some(vec![1..5, 5..9]));
        assert_eq!(in_order(vec![5..9, 1..6]), None);
        assert_eq!(in_order(Vec::new()), None);
    }
}
