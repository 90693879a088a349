//! The bytes of a manifest.
//!
//! ```text
//! header   magic, format, time taken, root URI
//! block    one a directory, sorted by the directory's path below the root:
//!            its path | entries, sorted by name | restarts | counts
//! table    where each block begins, 8 bytes a directory
//! footer   where the table is, counts, XXH3 of all before it, magic
//! ```
//!
//! Within a block a name is written as what differs from the name before it; each sixteenth is
//! written in full (a restart), so that a lookup searches the restarts by halves and then reads at
//! most sixteen entries. Times are differences too. An ETag that is an MD5 takes 16 bytes. Numbers
//! are varints, fixed ones little-endian.

use alluxio_wire::{FileKind, UfsUri};

/// What a manifest begins with.
pub(super) const MAGIC: &[u8; 8] = b"ALXDSMAN";
/// What it ends with: a file that was cut off ends with something else.
pub(super) const END_MAGIC: &[u8; 8] = b"NAMSDXLA";
/// The format that this version writes, and the only one that it reads.
pub(super) const FORMAT: u32 = 1;
/// Entries between two names that are written in full: more of them save less than they cost to
/// read through.
pub(super) const RESTART_INTERVAL: u32 = 16;
/// Table offset, directories, files, bytes, checksum, magic.
pub(super) const FOOTER_BYTES: usize = 8 * 4 + 16 + 8;
/// Where in the footer the checksum is.
pub(super) const CHECKSUM_AT: usize = 8 * 4;
/// Restarts and entries of a block, at its end.
pub(super) const BLOCK_TRAILER_BYTES: usize = 8;

/// The bytes are not what a manifest's are; names the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// One entry of a directory, without the directory's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: FileKind,
    pub(super) length: u64,
    pub(super) modified_ms: i64,
    pub(super) content_hash: Option<String>,
}

/// What the first bytes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) root: UfsUri,
    pub(super) taken_ms: i64,
}

/// What the last bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Footer {
    pub(super) table_offset: u64,
    pub(super) directories: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// How an entry's kind and hash are written.
mod tag {
    pub(super) const DIRECTORY: u8 = 0;
    pub(super) const NO_HASH: u8 = 1;
    /// 32 lower-case hex digits, as 16 bytes.
    pub(super) const MD5: u8 = 2;
    /// The same, `-` and a number: the ETag of an upload in parts.
    pub(super) const MD5_OF_PARTS: u8 = 3;
    pub(super) const TEXT: u8 = 4;
}

/// Reads numbers and pieces off the front of bytes.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

/// The entries of one block, in order.
pub(super) struct Entries<'a> {
    rest: Cursor<'a>,
    taken_ms: i64,
    index: u32,
    name: Vec<u8>,
    previous_ms: i64,
}

/// One directory's block, taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) path: &'a str,
    pub(super) count: u32,
    whole: &'a [u8],
    entries_at: usize,
    restarts_at: usize,
}

/// Writes one block's entries after each other.
#[derive(Default)]
pub(super) struct EntryWriter {
    restarts: Vec<u32>,
    count: u32,
    written: u64,
    name: Vec<u8>,
    previous_ms: i64,
}

impl Header {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let root = self.root.as_str().as_bytes();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.taken_ms.to_le_bytes());
        put_varint(&mut bytes, root.len() as u64);
        bytes.extend(root);
        bytes
    }

    /// The header, and how long it is.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.take(MAGIC.len())? != MAGIC {
            return Err(Malformed("its first bytes are not a manifest's"));
        }
        if cursor.fixed_u32()? != FORMAT {
            return Err(Malformed("it is of another format version"));
        }
        let taken_ms = cursor.fixed_u64()?.cast_signed();
        let root = cursor.text().map(UfsUri::parse)?;
        let root = root.map_err(|_| Malformed("its root is not a URI"))?;
        Ok((Self { root, taken_ms }, bytes.len() - cursor.0.len()))
    }
}

impl Footer {
    /// All but the checksum and the magic.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.table_offset, self.directories, self.files, self.bytes];
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    pub(super) fn parse(footer: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(footer);
        Ok(Self {
            table_offset: cursor.fixed_u64()?,
            directories: cursor.fixed_u64()?,
            files: cursor.fixed_u64()?,
            bytes: cursor.fixed_u64()?,
        })
    }
}

impl EntryWriter {
    /// Begins the block of the directory with this path.
    pub(super) fn begin(&mut self, out: &mut Vec<u8>, path: &str) {
        *self = Self::default();
        let before = out.len();
        put_varint(out, path.len() as u64);
        out.extend(path.as_bytes());
        self.written = (out.len() - before) as u64;
    }

    /// Adds an entry; names come in ascending order. Fails where the block outgrows its offsets.
    pub(super) fn push(
        &mut self,
        out: &mut Vec<u8>,
        entry: &Entry,
        taken_ms: i64,
    ) -> Result<(), Malformed> {
        let before = out.len();
        if self.count.is_multiple_of(RESTART_INTERVAL) {
            let at = u32::try_from(self.written);
            self.restarts
                .push(at.map_err(|_| Malformed("a directory's entries exceed 4 GiB"))?);
            self.name.clear();
            self.previous_ms = taken_ms;
        }
        let name = entry.name.as_bytes();
        let same = |(a, b): &(&u8, &u8)| a == b;
        let shared = self.name.iter().zip(name).take_while(same).count();
        put_varint(out, shared as u64);
        put_varint(out, (name.len() - shared) as u64);
        out.extend(&name[shared..]);
        self.name.clear();
        self.name.extend(name);
        put_kind_and_hash(out, entry);
        if entry.kind == FileKind::File {
            put_varint(out, entry.length);
        }
        let step = entry.modified_ms.wrapping_sub(self.previous_ms);
        put_varint(out, zigzag(step));
        self.previous_ms = entry.modified_ms;
        self.count += 1;
        self.written += (out.len() - before) as u64;
        Ok(())
    }

    /// Ends the block.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        for restart in &self.restarts {
            out.extend(restart.to_le_bytes());
        }
        // A block has fewer entries than bytes, and those fit 32 bits.
        let restarts = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        out.extend(restarts.to_le_bytes());
        out.extend(self.count.to_le_bytes());
    }
}

impl<'a> Block<'a> {
    pub(super) fn parse(whole: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(whole);
        let path = cursor.text()?;
        let entries_at = whole.len() - cursor.0.len();
        let trailer_at = cursor.0.len().checked_sub(BLOCK_TRAILER_BYTES);
        let trailer_at = entries_at + trailer_at.ok_or(Malformed("a block is too short"))?;
        let mut trailer = Cursor(&whole[trailer_at..]);
        let (restarts, count) = (trailer.fixed_u32()?, trailer.fixed_u32()?);
        let restarts_at = (restarts as usize)
            .checked_mul(4)
            .and_then(|bytes| trailer_at.checked_sub(bytes))
            .filter(|at| *at >= entries_at && restarts == count.div_ceil(RESTART_INTERVAL))
            .ok_or(Malformed("a block's restarts do not fit it"))?;
        Ok(Self {
            path,
            count,
            whole,
            entries_at,
            restarts_at,
        })
    }

    pub(super) fn entries(&self, taken_ms: i64) -> Entries<'a> {
        self.entries_from(self.entries_at, 0, taken_ms)
    }

    /// The entry of this name. Bytes that are no entry end the search: a block is checked whole
    /// when its manifest is opened.
    pub(super) fn find(&self, name: &str, taken_ms: i64) -> Option<Entry> {
        let restarts = count_of_restarts(self.count);
        let (mut low, mut high) = (0, restarts);
        // The last restart whose name is not behind the one that is looked for.
        while low < high {
            let middle = low.midpoint(high);
            if self.restart_name(middle)? <= name.as_bytes() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let first = low.checked_sub(1)?;
        let at = self.restart(first)?;
        let mut entries = self.entries_from(at, first * RESTART_INTERVAL, taken_ms);
        for _ in 0..RESTART_INTERVAL.min(self.count - first * RESTART_INTERVAL) {
            let entry = entries.next().ok()??;
            if entry.name == name {
                return Some(entry);
            }
        }
        None
    }

    /// What comes after the entries.
    pub(super) fn tail_bytes(&self) -> usize {
        self.whole.len() - self.restarts_at
    }

    /// Whether every restart is where the entry begins that it is for.
    pub(super) fn restarts_are(&self, starts: &[usize]) -> bool {
        (0..count_of_restarts(self.count))
            .all(|i| self.restart(i) == starts.get(i as usize).copied())
    }

    fn entries_from(&self, at: usize, index: u32, taken_ms: i64) -> Entries<'a> {
        let bytes = self.whole.get(at..self.restarts_at).unwrap_or_default();
        Entries {
            rest: Cursor(bytes),
            taken_ms,
            index,
            name: Vec::new(),
            previous_ms: taken_ms,
        }
    }

    fn restart(&self, index: u32) -> Option<usize> {
        let at = self.restarts_at + 4 * index as usize;
        let mut cursor = Cursor(self.whole.get(at..at + 4)?);
        cursor.fixed_u32().ok().map(|at| at as usize)
    }

    fn restart_name(&self, index: u32) -> Option<&'a [u8]> {
        let mut cursor = Cursor(self.whole.get(self.restart(index)?..self.restarts_at)?);
        let _shared = cursor.varint().ok()?;
        let length = usize::try_from(cursor.varint().ok()?).ok()?;
        cursor.take(length).ok()
    }
}

impl Entries<'_> {
    /// How many bytes are left; tells where an entry begins.
    pub(super) fn bytes_left(&self) -> usize {
        self.rest.0.len()
    }

    /// The next entry, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Malformed> {
        if self.rest.0.is_empty() {
            return Ok(None);
        }
        if self.index.is_multiple_of(RESTART_INTERVAL) {
            self.name.clear();
            self.previous_ms = self.taken_ms;
        }
        self.index += 1;
        let shared = self.rest.length()?;
        if shared > self.name.len() {
            return Err(Malformed("a name shares more than there is"));
        }
        let unshared = self.rest.length()?;
        self.name.truncate(shared);
        self.name.extend(self.rest.take(unshared)?);
        let name = std::str::from_utf8(&self.name);
        let name = name
            .map_err(|_| Malformed("a name is not UTF-8"))?
            .to_owned();
        let (kind, content_hash) = self.rest.kind_and_hash()?;
        let length = match kind {
            FileKind::File => self.rest.varint()?,
            FileKind::Directory => 0,
        };
        let step = unzigzag(self.rest.varint()?);
        self.previous_ms = self.previous_ms.wrapping_add(step);
        Ok(Some(Entry {
            name,
            kind,
            length,
            modified_ms: self.previous_ms,
            content_hash,
        }))
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let split = self.0.split_at_checked(count);
        let (taken, rest) = split.ok_or(Malformed("it ends within a part"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn fixed_u32(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?.try_into();
        bytes
            .map(u32::from_le_bytes)
            .map_err(|_| Malformed("it ends within a number"))
    }

    pub(super) fn fixed_u64(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?.try_into();
        bytes
            .map(u64::from_le_bytes)
            .map_err(|_| Malformed("it ends within a number"))
    }

    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self
                .0
                .split_first()
                .ok_or(Malformed("it ends within a number"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.varint()?).map_err(|_| Malformed("a length is too large"))
    }

    fn kind_and_hash(&mut self) -> Result<(FileKind, Option<String>), Malformed> {
        let hash = match self.take(1)?[0] {
            tag::DIRECTORY => return Ok((FileKind::Directory, None)),
            tag::NO_HASH => None,
            tag::MD5 => Some(hex::encode(self.take(16)?)),
            tag::MD5_OF_PARTS => {
                let md5 = hex::encode(self.take(16)?);
                Some(format!("{md5}-{}", self.varint()?))
            }
            tag::TEXT => Some(self.text()?.to_owned()),
            _ => return Err(Malformed("an entry is of an unknown kind")),
        };
        Ok((FileKind::File, hash))
    }
}

fn count_of_restarts(entries: u32) -> u32 {
    entries.div_ceil(RESTART_INTERVAL)
}

fn put_kind_and_hash(out: &mut Vec<u8>, entry: &Entry) {
    let hash = match (entry.kind, entry.content_hash.as_deref()) {
        (FileKind::Directory, _) => return out.push(tag::DIRECTORY),
        (FileKind::File, None) => return out.push(tag::NO_HASH),
        (FileKind::File, Some(hash)) => hash,
    };
    match md5_and_parts(hash) {
        Some((md5, None)) => {
            out.push(tag::MD5);
            out.extend(md5);
        }
        Some((md5, Some(parts))) => {
            out.push(tag::MD5_OF_PARTS);
            out.extend(md5);
            put_varint(out, parts);
        }
        None => {
            out.push(tag::TEXT);
            put_varint(out, hash.len() as u64);
            out.extend(hash.as_bytes());
        }
    }
}

/// An ETag's MD5 and number of parts, where writing those gives the same text again.
fn md5_and_parts(hash: &str) -> Option<([u8; 16], Option<u64>)> {
    let (digits, parts) = match hash.split_once('-') {
        Some((digits, parts)) => (digits, Some(parts)),
        None => (hash, None),
    };
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let mut md5 = [0; 16];
    if !digits.bytes().all(lower) || hex::decode_to_slice(digits, &mut md5).is_err() {
        return None;
    }
    let Some(parts) = parts else {
        return Some((md5, None));
    };
    let number: u64 = parts.parse().ok()?;
    (number.to_string() == parts).then_some((md5, Some(number)))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Small differences of either sign become small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str, length: u64, modified_ms: i64, hash: Option<&str>) -> Entry {
        Entry {
            name: name.to_owned(),
            kind: FileKind::File,
            length,
            modified_ms,
            content_hash: hash.map(str::to_owned),
        }
    }

    fn block(path: &str, entries: &[Entry]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = EntryWriter::default();
        writer.begin(&mut out, path);
        for entry in entries {
            writer.push(&mut out, entry, 1000).unwrap();
        }
        writer.end(&mut out);
        out
    }

    #[test]
    fn an_etag_comes_back_to_the_letter() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        let hashes = [
            md5.to_owned(),
            format!("{md5}-12"),
            format!("{md5}-012"),
            md5.to_uppercase(),
            "W/\"abc\"".to_owned(),
            String::new(),
        ];
        let entries: Vec<_> = (hashes.iter().enumerate())
            .map(|(i, hash)| file(&format!("f{i}"), 1, 0, Some(hash)))
            .collect();
        let bytes = block("", &entries);
        let parsed = Block::parse(&bytes).unwrap();
        for entry in &entries {
            assert_eq!(parsed.find(&entry.name, 1000).as_ref(), Some(entry));
        }
    }

    #[test]
    fn a_typical_entry_takes_less_than_thirty_two_bytes() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        let entries: Vec<_> = (0..10_000)
            .map(|i| {
                file(
                    &format!("n01440764_{i:05}.JPEG"),
                    110_000 + i,
                    1_700_000_000_000,
                    Some(md5),
                )
            })
            .collect();
        assert!(block("train/n01440764", &entries).len() < 32 * entries.len());
    }

    proptest! {
        #[test]
        fn what_is_written_is_found_and_nothing_else(
            names in prop::collection::btree_set("[a-c/é\\u{1F600} ]{0,6}", 0..60),
            missing in "[a-d]{0,4}",
            times in prop::collection::vec(any::<i64>(), 60),
        ) {
            let entries: Vec<_> = names.iter().zip(&times)
                .map(|(name, ms)| file(name, ms.unsigned_abs(), *ms, None)).collect();
            let bytes = block("x/y", &entries);
            let parsed = Block::parse(&bytes).unwrap();
            prop_assert_eq!(parsed.path, "x/y");
            for entry in &entries {
                prop_assert_eq!(parsed.find(&entry.name, 1000), Some(entry.clone()));
            }
            prop_assert_eq!(parsed.find(&missing, 1000).is_some(), names.contains(&missing));
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(block) = Block::parse(&bytes) {
                let _ = block.find("name", 0);
                let mut entries = block.entries(0);
                while let Ok(Some(_)) = entries.next() {}
            }
            let _ = Header::parse(&bytes);
        }
    }
}
