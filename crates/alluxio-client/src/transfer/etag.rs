//! The hash that S3 and its likes tell of an object, worked out from bytes. Pure, but for reading a
//! file.
//!
//! Of an object that was put in one piece it is the MD5 of its bytes. Of one that came in parts it is
//! the MD5 of the parts' MD5s, and their number: how long the parts were has to be guessed. Objects
//! that the store encrypts with a key of its own have a hash of neither kind, which looks like one.
//! So an equal hash proves the bytes, and another one proves nothing.

use std::fs::File;
use std::io::{self, Read as _};

use alluxio_ufs::parts_of;
use md5::{Digest as _, Md5};

const MIB: u64 = 1024 * 1024;
/// How long parts are where others wrote the object: of the AWS command line and boto3, of the SDKs,
/// of rclone and s3fs, of geesefs, of Hadoop and Spark.
const USUAL_PART_BYTES: [u64; 6] = [8 * MIB, 5 * MIB, 16 * MIB, 10 * MIB, 64 * MIB, 128 * MIB];
/// Guesses that are tried; each costs a pass over the file.
const MOST_GUESSES: usize = 3;
/// One read of a file that is hashed.
const READ_BYTES: usize = 1024 * 1024;

/// A hash that can be compared with bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ETag {
    hex: String,
    /// `None` where the object was put in one piece.
    parts: Option<u64>,
}

/// What a comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The bytes are those of the object.
    Same,
    /// They are not, or the hash is of another kind.
    Differs,
    /// The hash does not tell: it is of parts of unknown length.
    Unknown,
}

/// Works out the hash of bytes that come in order.
pub(super) struct Hasher {
    part_bytes: u64,
    /// Parts before the last one, which takes what is left.
    before_last: u64,
    in_part: u64,
    part: Md5,
    sums: Md5,
    parts: u64,
}

impl ETag {
    /// The hash, if it is of the kind that can be worked out.
    pub(super) fn parse(hash: &str) -> Option<Self> {
        let (hex, parts) = match hash.split_once('-') {
            None => (hash, None),
            Some((hex, parts)) => (hex, Some(parts.parse().ok().filter(|parts| *parts > 0)?)),
        };
        let is_md5 = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hex = hex.to_ascii_lowercase();
        is_md5.then_some(Self { hex, parts })
    }

    /// Compares with the bytes of a file of this length.
    pub(super) fn compare(&self, file: &File, length: u64) -> io::Result<Verdict> {
        let hashers = match self.parts {
            None => vec![Hasher::whole()],
            Some(parts) => guesses(parts, length),
        };
        for hasher in hashers {
            if self.is(&hash_file(file, hasher)?) {
                return Ok(Verdict::Same);
            }
        }
        Ok(match self.parts {
            None => Verdict::Differs,
            Some(_) => Verdict::Unknown,
        })
    }

    /// Compares with what a [`Hasher`] worked out of the parts as they were sent.
    pub(super) fn verdict(&self, worked_out: &str) -> Verdict {
        let parts = worked_out.split_once('-').map(|(_, parts)| parts);
        if self.is(worked_out) {
            Verdict::Same
        } else if parts == self.parts.map(|parts| parts.to_string()).as_deref() {
            Verdict::Differs
        } else {
            Verdict::Unknown
        }
    }

    fn is(&self, worked_out: &str) -> bool {
        match self.parts {
            None => self.hex == worked_out,
            Some(parts) => format!("{}-{parts}", self.hex) == worked_out,
        }
    }
}

impl Hasher {
    /// Of an object in one piece: the MD5 of all bytes.
    pub(super) fn whole() -> Self {
        Self::of_parts(1, u64::MAX)
    }

    /// Of an object of this length as this client sends it.
    pub(super) fn as_sent(length: u64) -> Self {
        let (count, part_bytes) = parts_of(length);
        Self::of_parts(count, part_bytes)
    }

    fn of_parts(count: u64, part_bytes: u64) -> Self {
        Self {
            part_bytes,
            before_last: count - 1,
            in_part: 0,
            part: Md5::new(),
            sums: Md5::new(),
            parts: 0,
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = if self.parts < self.before_last {
                self.part_bytes - self.in_part
            } else {
                u64::MAX
            };
            let take = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(take);
            self.part.update(now);
            self.in_part += now.len() as u64;
            bytes = later;
            if self.parts < self.before_last && self.in_part == self.part_bytes {
                self.end_part();
            }
        }
    }

    /// The hash as a store writes it.
    pub(super) fn finish(mut self) -> String {
        if self.before_last == 0 {
            return hex::encode(self.part.finalize());
        }
        self.end_part();
        format!("{}-{}", hex::encode(self.sums.finalize()), self.parts)
    }

    fn end_part(&mut self) {
        let part = std::mem::take(&mut self.part);
        self.sums.update(part.finalize());
        self.parts += 1;
        self.in_part = 0;
    }
}

/// The hash of a whole file.
pub(super) fn hash_file(file: &File, mut hasher: Hasher) -> io::Result<String> {
    let mut file = file.try_clone()?;
    io::Seek::rewind(&mut file)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The ways in which so many parts make so long an object.
fn guesses(parts: u64, length: u64) -> Vec<Hasher> {
    let (ours, our_bytes) = parts_of(length);
    let ours = (ours == parts && parts > 1).then_some(our_bytes);
    let usual = USUAL_PART_BYTES.into_iter();
    let usual = usual.filter(|part| length.div_ceil(*part).max(1) == parts);
    // A single part has the whole length, whatever was planned.
    let single = (parts == 1).then_some(u64::MAX);
    let sizes: Vec<u64> = single.into_iter().chain(ours).chain(usual).collect();
    let mut hashers: Vec<Hasher> = Vec::new();
    for size in sizes {
        let is_known = hashers.iter().any(|hasher| hasher.part_bytes == size);
        if !is_known && hashers.len() < MOST_GUESSES {
            hashers.push(Hasher::of_parts(parts, size));
        }
    }
    hashers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::io::Write as _;

    use super::*;

    fn file(length: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=250_u8).cycle().take(length).collect();
        file.write_all(&bytes).unwrap();
        file
    }

    fn md5(bytes: &[u8]) -> Vec<u8> {
        Md5::digest(bytes).to_vec()
    }

    #[test]
    fn an_object_in_one_piece_has_the_md5_of_its_bytes() {
        let empty = ETag::parse("d41d8cd98f00b204e9800998ecf8427e").unwrap();
        assert_eq!(empty.compare(&file(0), 0).unwrap(), Verdict::Same);
        assert_eq!(empty.compare(&file(1), 1).unwrap(), Verdict::Differs);
    }

    #[test]
    fn an_object_in_parts_has_the_md5_of_their_md5s() {
        let length = 20 * 1024 * 1024 + 7;
        let bytes: Vec<u8> = (0..=250_u8).cycle().take(length).collect();
        for part in [5 << 20, 8 << 20] {
            let sums: Vec<u8> = bytes.chunks(part).flat_map(md5).collect();
            let parts = length.div_ceil(part);
            let text = format!("{}-{parts}", hex::encode(md5(&sums)).to_uppercase());
            let etag = ETag::parse(&text).unwrap();
            let verdict = etag.compare(&file(length), length as u64).unwrap();
            assert_eq!(verdict, Verdict::Same, "{part}");
        }
        // As this client sends it: what is left goes with the last part.
        let sums = [md5(&bytes[..8 << 20]), md5(&bytes[8 << 20..])].concat();
        let text = format!("{}-2", hex::encode(md5(&sums)));
        assert_eq!(
            hash_file(&file(length), Hasher::as_sent(length as u64)).unwrap(),
            text
        );
        let etag = ETag::parse(&text).unwrap();
        assert_eq!(
            etag.compare(&file(length), length as u64).unwrap(),
            Verdict::Same
        );
        let other = ETag::parse(&text.replace("-2", "-19")).unwrap();
        assert_eq!(
            other.compare(&file(length), length as u64).unwrap(),
            Verdict::Unknown
        );
    }

    #[test]
    fn other_hashes_are_not_compared() {
        for hash in [
            "",
            "0x8DC",
            "1699999999",
            "d41d8cd98f00b204e9800998ecf8427e-x",
            "d41d8cd98f00b204e9800998ecf8427e-0",
        ] {
            assert_eq!(ETag::parse(hash), None, "{hash}");
        }
    }
}
