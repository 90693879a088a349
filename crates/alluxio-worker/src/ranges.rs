//! Bytes of a file over as many pages as they lie on, of one version from first to last.
//!
//! 1. The file's version, as the under-store has it now: such a request is an open and a read.
//! 2. The first page, before the answer begins: what is wrong is said by a code.
//! 3. The others as the client takes them, one ahead; when one cannot be had in that version, the
//!    answer breaks off, for its head was sent.

use std::future;
use std::ops::Range;

use alluxio_wire::{FileId, PageSlice, UfsUri, split};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};

use crate::failure::{Failure, FailureKind};
use crate::pages::{PageRequest, Pages};

/// Pages of one answer that are read at one time: one goes out while the next comes in.
const PAGES_AT_ONCE: usize = 2;

/// A request for bytes of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RangeRequest {
    pub(crate) file: FileId,
    pub(crate) uri: UfsUri,
    pub(crate) extent: Extent,
}

/// Which bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    Whole,
    /// All that is left, without a length.
    Range {
        offset: u64,
        length: Option<u64>,
    },
    First(u64),
    Last(u64),
}

/// The bytes, and how many there are.
pub(crate) struct RangeAnswer<S> {
    pub(crate) length: u64,
    pub(crate) pieces: S,
}

/// Begins to read.
pub(crate) async fn read(
    pages: &Pages,
    request: &RangeRequest,
) -> Result<RangeAnswer<impl Stream<Item = Result<Bytes, Failure>> + Send + use<>>, Failure> {
    let version = pages.version_now(&request.uri).await?;
    let range = request.extent.within(version.length)?;
    let length = range.end - range.start;
    let page_size = pages.store().page_size();
    let mut slices = split(range.start, length, version.length, page_size);
    let of_slice = {
        let (file, uri) = (request.file, request.uri.clone());
        let (text, file_length) = (version.text().clone(), version.length);
        move |slice: PageSlice| PageRequest {
            file,
            index: slice.index,
            uri: Some(uri.clone()),
            version: Some(text.clone()),
            file_length: Some(file_length),
            part: Some((slice.offset, Some(slice.length))),
        }
    };
    let first = match slices.next() {
        Some(slice) => Some(pages.get(&of_slice(slice)).await?),
        None => None,
    };
    let pages = pages.clone();
    let others = stream::iter(slices)
        .map(move |slice| {
            let (pages, request) = (pages.clone(), of_slice(slice));
            async move { pages.get(&request).await }
        })
        .buffered(PAGES_AT_ONCE);
    let pieces = stream::iter(first.map(Ok)).chain(others);
    Ok(RangeAnswer { length, pieces })
}

/// The same bytes in pieces of at most so many.
pub(crate) fn in_pieces(
    pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
    most: usize,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    pieces.flat_map(move |piece| match piece {
        Ok(mut rest) => {
            let cut = std::iter::from_fn(move || {
                let next = rest.split_to(most.min(rest.len()));
                (!next.is_empty()).then_some(Ok(next))
            });
            stream::iter(cut).left_stream()
        }
        Err(failure) => stream::once(future::ready(Err(failure))).right_stream(),
    })
}

impl Extent {
    /// The range within a file of this length, cut at its end.
    fn within(self, length: u64) -> Result<Range<u64>, Failure> {
        match self {
            Self::Whole => Ok(0..length),
            Self::First(bytes) => Ok(0..bytes.min(length)),
            Self::Last(bytes) => Ok(length.saturating_sub(bytes)..length),
            Self::Range { offset, .. } if offset > length => Err(Failure::new(
                FailureKind::OutOfRange,
                format!("offset {offset} lies beyond the {length} bytes of the file"),
            )),
            Self::Range {
                offset,
                length: wanted,
            } => {
                let end = offset.saturating_add(wanted.unwrap_or(u64::MAX));
                Ok(offset..end.min(length))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use futures::TryStreamExt;

    use super::*;

    #[test]
    fn extents_are_cut_at_the_end_of_the_file() {
        let range = |offset, length| Extent::Range { offset, length };
        for (extent, expected) in [
            (Extent::Whole, 0..100),
            (Extent::First(10), 0..10),
            (Extent::First(1000), 0..100),
            (Extent::Last(10), 90..100),
            (Extent::Last(u64::MAX), 0..100),
            (range(5, Some(10)), 5..15),
            (range(5, None), 5..100),
            (range(95, Some(u64::MAX)), 95..100),
            (range(100, Some(1)), 100..100),
        ] {
            assert_eq!(extent.within(100).unwrap(), expected, "{extent:?}");
        }
        let beyond = range(101, None).within(100).unwrap_err();
        assert_eq!(beyond.kind, FailureKind::OutOfRange);
    }

    #[tokio::test]
    async fn pieces_are_cut_and_a_failure_stays_where_it_is() {
        let whole = Bytes::from_static(b"0123456789");
        let cut = in_pieces(stream::iter([Ok(whole.clone())]), 4);
        let cut: Vec<Bytes> = cut.try_collect().await.unwrap();
        assert_eq!(cut, ["0123", "4567", "89"]);
        let failing = [Ok(whole), Err(Failure::not_found("gone"))];
        let cut: Vec<_> = in_pieces(stream::iter(failing), 100).collect().await;
        assert!(cut[0].is_ok() && cut[1].is_err() && cut.len() == 2);
    }
}
