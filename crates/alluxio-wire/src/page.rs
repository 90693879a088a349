//! Pages: a file is cached and moved in pages of one fixed size, the last one short.
//!
//! The arithmetic of ranges and pages lives here alone, pure, so that client and worker cannot
//! disagree on which bytes a page holds.

use std::fmt;

use serde::{Deserialize, Serialize};

const KIB: u64 = 1024;
/// The smallest page: below it the HTTP overhead of a request outweighs its bytes.
const MIN_PAGE_BYTES: u64 = 64 * KIB;
/// The largest page: above it one page in flight per reader no longer fits modest memory limits.
const MAX_PAGE_BYTES: u64 = 64 * KIB * KIB;

/// A page size in bytes: a multiple of 64 KiB, up to 64 MiB. Alluxio takes any number; a multiple of
/// 64 KiB is what its own documentation recommends (1MB, 20MB), and keeps pages aligned on disks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct PageSize(u64);

/// Why a number of bytes or a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageSizeError {
    /// Not a page size.
    #[error(
        "page size of {0} bytes: it must be a multiple of 64 KiB, at most 64 MiB, such as 1MB or 20MB"
    )]
    Invalid(u64),
    /// Not a size at all.
    #[error("`{0}` is not a size: write bytes or a number with a unit, such as 1MB, 1Mi or 512Ki")]
    Unreadable(String),
}

/// A part of one page: `length` bytes from `offset` within page `index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSlice {
    /// Which page of the file.
    pub index: u64,
    /// Bytes to skip at the start of the page.
    pub offset: u64,
    /// Bytes to take; never 0.
    pub length: u64,
}

/// A byte range within one page, as the query parameters `offset` and `length` carry it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRange {
    /// Bytes to skip at the start of the page.
    pub offset: u64,
    /// Bytes to take at the most.
    pub length: u64,
}

impl PageSize {
    /// Alluxio's default, `alluxio.worker.page.store.page.size` = 1MB.
    pub const DEFAULT: Self = Self(KIB * KIB);

    /// Checks a page size in bytes.
    pub fn new(bytes: u64) -> Result<Self, PageSizeError> {
        let possible = bytes.is_multiple_of(MIN_PAGE_BYTES)
            && (MIN_PAGE_BYTES..=MAX_PAGE_BYTES).contains(&bytes);
        possible
            .then_some(Self(bytes))
            .ok_or(PageSizeError::Invalid(bytes))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many pages a file of this length has.
    pub fn pages_of(self, file_length: u64) -> u64 {
        file_length.div_ceil(self.0)
    }
}

impl TryFrom<u64> for PageSize {
    type Error = PageSizeError;

    fn try_from(bytes: u64) -> Result<Self, PageSizeError> {
        Self::new(bytes)
    }
}

impl From<PageSize> for u64 {
    fn from(size: PageSize) -> Self {
        size.0
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(KIB * KIB) {
            write!(f, "{}Mi", self.0 / KIB / KIB)
        } else {
            write!(f, "{}Ki", self.0 / KIB)
        }
    }
}

/// How many bytes page `index` of a file of `file_length` bytes has; 0 past the end.
pub fn page_length(index: u64, file_length: u64, page_size: PageSize) -> u64 {
    let start = index.saturating_mul(page_size.0);
    file_length.saturating_sub(start).min(page_size.0)
}

/// The page slices that hold `length` bytes from `offset`, in order, cut at the end of the file.
pub fn split(
    offset: u64,
    length: u64,
    file_length: u64,
    page_size: PageSize,
) -> impl Iterator<Item = PageSlice> {
    let end = offset.saturating_add(length).min(file_length);
    let size = page_size.0;
    let pages = if offset < end {
        offset / size..end.div_ceil(size)
    } else {
        0..0
    };
    pages.map(move |index| {
        let start = index * size;
        let first = offset.max(start);
        let last = end.min(start.saturating_add(size));
        PageSlice {
            index,
            offset: first - start,
            length: last - first,
        }
    })
}

/// Reads a size as Alluxio and Kubernetes write it: `1048576`, `1MB`, `1Mi`, `20MB`, `512k`.
///
/// Units count in 1,024s whether written `M`, `MB`, `Mi` or `MiB`, as Alluxio's do.
pub fn parse_size(text: &str) -> Result<u64, PageSizeError> {
    let unreadable = || PageSizeError::Unreadable(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let number: u64 = trimmed[..digits].parse().map_err(|_| unreadable())?;
    let unit = trimmed[digits..].trim().to_ascii_lowercase();
    let exponent = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 1,
        "m" | "mb" | "mi" | "mib" => 2,
        "g" | "gb" | "gi" | "gib" => 3,
        "t" | "tb" | "ti" | "tib" => 4,
        "p" | "pb" | "pi" | "pib" => 5,
        _ => return Err(unreadable()),
    };
    number.checked_mul(KIB.pow(exponent)).ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn impossible_page_sizes_are_refused() {
        for bytes in [0, 1, 65_535, 65_537, 128 * KIB * KIB, 64 * KIB * KIB + 1] {
            assert_eq!(PageSize::new(bytes), Err(PageSizeError::Invalid(bytes)));
        }
        for bytes in [
            64 * KIB,
            3 * 64 * KIB,
            KIB * KIB,
            20 * KIB * KIB,
            64 * KIB * KIB,
        ] {
            assert_eq!(PageSize::new(bytes).unwrap().bytes(), bytes);
        }
    }

    #[test]
    fn sizes_are_read_as_alluxio_writes_them() {
        assert_eq!(parse_size("1MB"), Ok(1 << 20));
        assert_eq!(parse_size("20mb"), Ok(20 << 20));
        assert_eq!(parse_size(" 64Ki "), Ok(64 << 10));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("1048576"), Ok(1 << 20));
        for bad in ["", "MB", "-1MB", "1.5MB", "1 XB", "99999999999PB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_over_a_page_border_takes_from_both_pages() {
        let page = PageSize::DEFAULT;
        let slices: Vec<_> = split(page.bytes() - 10, 20, 3 * page.bytes(), page).collect();
        let expected = [
            PageSlice {
                index: 0,
                offset: page.bytes() - 10,
                length: 10,
            },
            PageSlice {
                index: 1,
                offset: 0,
                length: 10,
            },
        ];
        assert_eq!(slices, expected);
    }

    #[test]
    fn the_last_page_is_short_and_nothing_lies_past_the_end() {
        let page = PageSize::DEFAULT;
        let length = page.bytes() * 5 / 2;
        assert_eq!(page_length(2, length, page), page.bytes() / 2);
        assert_eq!(page_length(3, length, page), 0);
        assert_eq!(page.pages_of(length), 3);
        assert_eq!(split(length, 1, length, page).count(), 0);
        assert_eq!(split(0, 0, length, page).count(), 0);
    }

    proptest! {
        #[test]
        fn slices_cover_the_range_once_and_in_order(
            offset in 0u64..5 << 20, length in 0u64..5 << 20, file in 0u64..5 << 20, units in 1u64..20,
        ) {
            let page = PageSize::new(MIN_PAGE_BYTES * units).unwrap();
            let mut at = offset;
            for slice in split(offset, length, file, page) {
                prop_assert_eq!(slice.index * page.bytes() + slice.offset, at);
                prop_assert!(slice.length > 0);
                prop_assert!(slice.offset + slice.length <= page_length(slice.index, file, page));
                at += slice.length;
            }
            let end = (offset + length).min(file);
            prop_assert_eq!(at, end.max(offset));
        }
    }
}
