//! Column chunks from a Parquet footer: as much of Thrift's compact protocol as leads there.
//!
//! ```text
//! FileMetaData.4 row_groups: list<RowGroup>
//!   RowGroup.1 columns: list<ColumnChunk>
//!     ColumnChunk.3 meta_data: ColumnMetaData
//!       7 total_compressed_size | 9 data_page_offset | 11 dictionary_page_offset
//! ```
//!
//! All else is skipped. Every step consumes input or counts against the depth, so no footer, however
//! made, takes more time than its length or more memory than the chunks it names.

use std::ops::Range;

use super::MAX_CHUNKS;

/// Structures within structures; true footers have six.
const MAX_DEPTH: u32 = 16;

/// The column chunks that a footer names, all before `data_end`; none where it is not a footer.
pub(super) fn column_chunks(footer: &[u8], data_end: u64) -> Option<Vec<Range<u64>>> {
    let mut chunks = Vec::new();
    let mut input = Input { rest: footer };
    input.fields(0, |input, id, kind| match (id, kind) {
        (4, LIST) => input.each_structure(|input| row_group(input, data_end, &mut chunks)),
        _ => input.skip(kind, 1),
    })?;
    Some(chunks)
}

fn row_group(input: &mut Input<'_>, data_end: u64, chunks: &mut Vec<Range<u64>>) -> Option<()> {
    input.fields(1, |input, id, kind| match (id, kind) {
        (1, LIST) => input.each_structure(|input| {
            input.fields(2, |input, id, kind| match (id, kind) {
                (3, STRUCTURE) => {
                    chunks.push(column(input, data_end)?);
                    (chunks.len() <= MAX_CHUNKS).then_some(())
                }
                _ => input.skip(kind, 3),
            })
        }),
        _ => input.skip(kind, 2),
    })
}

fn column(input: &mut Input<'_>, data_end: u64) -> Option<Range<u64>> {
    let (mut size, mut data, mut dictionary) = (None, None, None);
    input.fields(3, |input, id, kind| {
        let field = match (id, kind) {
            (7, I64) => &mut size,
            (9, I64) => &mut data,
            (11, I64) => &mut dictionary,
            _ => return input.skip(kind, 4),
        };
        *field = u64::try_from(input.zigzag()?).ok();
        Some(())
    })?;
    // Some writers name a dictionary at 0 where there is none.
    let dictionary = dictionary.filter(|offset| *offset > 0);
    let start = dictionary.map_or(data, |dictionary| data.map(|data| data.min(dictionary)))?;
    let end = start.checked_add(size?)?;
    (end <= data_end).then_some(start..end)
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCTURE: u8 = 12;

struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    /// Each field of a structure, by its number and type, until the stop.
    fn fields(
        &mut self,
        depth: u32,
        mut field: impl FnMut(&mut Self, i64, u8) -> Option<()>,
    ) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = match i64::from(head >> 4) {
                0 => self.zigzag()?,
                step => id.checked_add(step)?,
            };
            field(self, id, head & 0x0f)?;
        }
    }

    /// Each element of a list of structures; a list of anything else is no footer's.
    fn each_structure(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let (kind, count) = self.list()?;
        if kind != STRUCTURE {
            return None;
        }
        (0..count).try_for_each(|_| element(self))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            TRUE | FALSE => Some(()),
            BYTE => self.take(1),
            I16 | I32 | I64 => self.varint().map(|_| ()),
            DOUBLE => self.take(8),
            BINARY => {
                let length = self.varint()?;
                self.take(usize::try_from(length).ok()?)
            }
            LIST | SET => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(kind, depth + 1))
            }
            MAP => {
                let count = self.varint()?;
                if count == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                (0..count).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth + 1)?;
                    self.skip_element(kinds & 0x0f, depth + 1)
                })
            }
            STRUCTURE => self.fields(depth, |input, _, kind| input.skip(kind, depth + 1)),
            _ => None,
        }
    }

    /// Within a list, unlike in a field, a boolean takes a byte.
    fn skip_element(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            TRUE | FALSE => self.take(1),
            kind => self.skip(kind, depth),
        }
    }

    fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Some((head & 0x0f, count))
    }

    fn zigzag(&mut self) -> Option<i64> {
        let bits = self.varint()?;
        Some((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<()> {
        self.rest = self.rest.get(length..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two row groups of two columns; fields that are passed over stand among those that count.
    /// Fields, by their heads: the distance from the one before, then the type.
    fn footer() -> Vec<u8> {
        let column = |dictionary: Option<u8>, data: u8, size: u8| {
            let mut bytes = vec![0x26, 4]; // ColumnChunk.2 file_offset
            bytes.extend([0x1c, 0x15, 2]); // .3 meta_data, its .1 type
            bytes.extend([0x39, 0x18, 1, b'a']); // .4 path: a list of one text (past 2, 3)
            bytes.extend([0x36, size * 2, 0x26, data * 2]); // .7 size, .9 data
            if let Some(dictionary) = dictionary {
                bytes.extend([0x26, dictionary * 2]); // .11
            }
            bytes.extend([0, 0]);
            bytes
        };
        let group = |columns: [Vec<u8>; 2]| {
            let mut bytes = vec![0x19, 0x2c];
            bytes.extend(columns.concat());
            bytes.extend([0x16, 20, 0]); // .2 total_byte_size
            bytes
        };
        let groups = [
            group([column(Some(4), 8, 10), column(None, 14, 6)]),
            group([column(Some(20), 22, 5), column(Some(0), 25, 5)]),
        ];
        let mut bytes = vec![0x15, 2, 0x19, 0x0c, 0x16, 2]; // version, schema: [], rows
        bytes.extend([0x19, 0x2c]);
        bytes.extend(groups.concat());
        bytes.extend([0x28, 3, b'x', b'y', b'z', 0]); // .6 created_by
        bytes
    }

    #[test]
    fn a_footers_column_chunks_begin_at_the_dictionary_where_there_is_one() {
        let chunks = column_chunks(&footer(), 30);
        assert_eq!(chunks, Some(vec![4..14, 14..20, 20..25, 25..30]));
    }

    #[test]
    fn a_chunk_past_the_data_or_a_footer_cut_short_is_none() {
        assert_eq!(column_chunks(&footer(), 29), None);
        let footer = footer();
        for length in 0..footer.len() {
            assert_eq!(column_chunks(&footer[..length], 30), None, "{length}");
        }
    }

    #[test]
    fn depth_and_counts_are_bounded() {
        // A structure in a structure in a structure, and so on.
        assert_eq!(column_chunks(&vec![0x1c; 100_000], 30), None);
        // A list of 2^63 booleans that are not there.
        let mut list = vec![0x19, 0xf1];
        list.extend([0xff; 9]);
        list.push(1);
        assert_eq!(column_chunks(&list, 30), None);
    }

    proptest! {
        #[test]
        fn no_bytes_whatever_are_too_much(bytes: Vec<u8>, at in 0usize..40, with: u8) {
            let _ = column_chunks(&bytes, u64::MAX);
            let mut spoilt = footer();
            let at = at % spoilt.len();
            spoilt[at] = with;
            for chunk in column_chunks(&spoilt, 30).unwrap_or_default() {
                prop_assert!(chunk.end <= 30);
            }
        }
    }
}
