//! What is mounted where, from the kernel's own table.
//!
//! Reading `/proc/self/mountinfo` asks no file system anything, so it answers for hung and dead
//! mounts alike, where `stat` would hang or fail. Each line is
//! `ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE SUPEROPTIONS`, with space, tab,
//! newline and backslash written as three octal digits.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One mount of this process's mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Major and minor number of the file system, as `MAJ:MIN`: equal for a mount and its binds.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Options of this mount, such as `ro,nosuid`.
    pub options: String,
    /// Type of the file system.
    pub fs_type: String,
}

/// The mount table at one moment, in the order in which mounts were made.
#[derive(Debug, Clone, Default)]
pub struct MountTable(Vec<MountEntry>);

impl MountEntry {
    /// Whether this mount (not only its file system) refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = fields.nth(2)?;
        let mountpoint = fields.nth(1)?;
        let options = fields.next()?;
        let fs_type = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Self {
            device: text(device),
            mountpoint: PathBuf::from(OsString::from_vec(unescape(mountpoint))),
            options: text(options),
            fs_type: text(fs_type),
        })
    }
}

impl MountTable {
    /// The table of this process.
    pub fn read() -> io::Result<Self> {
        std::fs::read("/proc/self/mountinfo").map(|bytes| Self::parse(&bytes))
    }

    /// Reads the table's text; lines of another shape are left out.
    pub fn parse(bytes: &[u8]) -> Self {
        Self(
            bytes
                .split(|byte| *byte == b'\n')
                .filter_map(MountEntry::parse)
                .collect(),
        )
    }

    /// The mount one sees at `path`: the last one made there.
    pub fn at(&self, path: &Path) -> Option<&MountEntry> {
        self.0.iter().rev().find(|entry| entry.mountpoint == path)
    }

    /// All mounts at or below `path`, the last one first.
    pub fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a MountEntry> {
        self.0
            .iter()
            .rev()
            .filter(move |entry| entry.mountpoint.starts_with(path))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Undoes the kernel's `\ooo` escapes; anything else stays as it is.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(byte) = octal(rest) {
            out.push(byte);
            rest = &rest[4..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

/// The byte that `\ooo` at the start of `bytes` stands for.
fn octal(bytes: &[u8]) -> Option<u8> {
    let [b'\\', digits @ ..] = bytes.get(..4)? else {
        return None;
    };
    digits.iter().try_fold(0_u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    const TABLE: &[u8] = b"24 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
        91 24 0:52 / /var/lib/kubelet/a\\040b\\134c\\011d rw,nosuid - fuse.x alluxio rw,user_id=0\n\
        92 24 0:52 / /pods/target ro,nosuid,nodev master:2 propagate_from:1 - fuse.x alluxio rw\n\
        93 92 0:53 /sub /pods/target rw - tmpfs tmpfs rw\n\
        not a line\n";

    #[test]
    fn octal_escapes_are_undone() {
        let table = MountTable::parse(TABLE);
        let entry = table.at(Path::new("/var/lib/kubelet/a b\\c\td")).unwrap();
        assert_eq!(
            (entry.device.as_str(), entry.fs_type.as_str()),
            ("0:52", "fuse.x")
        );
        assert!(!entry.is_read_only());
    }

    #[test]
    fn a_backslash_that_is_no_escape_stays() {
        assert_eq!(unescape(b"\\08x\\40\\777"), b"\\08x\\40\\777");
    }

    #[test]
    fn the_last_mount_at_a_path_is_the_visible_one() {
        let table = MountTable::parse(TABLE);
        assert_eq!(table.at(Path::new("/pods/target")).unwrap().device, "0:53");
        assert_eq!(table.below(Path::new("/pods")).count(), 2);
        assert_eq!(table.at(Path::new("/pods")), None);
    }

    #[test]
    fn the_options_of_the_mount_decide_read_only_not_those_of_the_file_system() {
        let line = b"9 1 0:5 / /m rw - tmpfs tmpfs ro\n8 1 0:5 / /n ro,nodev - tmpfs tmpfs rw";
        let table = MountTable::parse(line);
        assert!(!table.at(Path::new("/m")).unwrap().is_read_only());
        assert!(table.at(Path::new("/n")).unwrap().is_read_only());
    }

    #[test]
    fn this_process_has_a_root_mount() {
        assert!(MountTable::read().unwrap().at(Path::new("/")).is_some());
    }
}
