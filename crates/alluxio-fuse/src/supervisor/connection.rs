//! A connection to the kernel: `/dev/fuse`, mount(2), INIT, read-ahead.
//!
//! All of this needs root and nothing of it looks at data. INIT is answered here and not by the
//! daemon, so there is no moment at which a daemon's death could leave a half-begun connection. From
//! the mount on, nothing here may touch a file below the mount point: it would wait for a daemon.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::MountError;
use crate::options::MountOptions;
use crate::protocol::{self, Init, Operation};
use crate::sys;

/// Largest READ: 256 pages, the kernel's default limit (`max_pages_limit`).
const MAX_READ_BYTES: u32 = 1 << 20;

/// How far the kernel reads ahead of a sequential reader, in KiB. With 1 ms a READ and 16 readers,
/// 128 KiB (the kernel's own offer) gave 336 MB/s, 1 MiB 983, 4 MiB 1370 and 16 MiB 1342.
const READ_AHEAD_KB: u32 = 4096;

/// The oldest protocol taken: that of Linux 5.11, the first kernel with all the system calls that
/// start a daemon (`close_range` with CLOEXEC).
const OLDEST_MINOR: u32 = 33;

/// Room for INIT. Before INIT is answered the kernel does not know our `max_write`; this is what
/// libfuse offers it.
const INIT_BUFFER_BYTES: usize = 128 << 10;

/// The file system type, as the kernel splits it at the dot.
const KIND: &std::ffi::CStr = c"fuse.alluxio-dataset";

/// A mounted, initialised connection.
pub(super) struct Connection {
    /// The descriptor that daemons share.
    pub(super) device: OwnedFd,
    /// The device number of the mount, `major:minor`.
    pub(super) device_number: String,
    /// Whether reads may go to registered files.
    pub(super) has_passthrough: bool,
}

/// Mounts and initialises; on failure nothing stays mounted.
pub(super) fn establish(
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<Connection, MountError> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(MountError::Device)?;
    mount(&device, mountpoint, options).map_err(|source| MountError::Mount {
        mountpoint: mountpoint.to_owned(),
        source,
    })?;
    initialise(&device, options)
        .and_then(|agreed| Ok((agreed, find(mountpoint)?)))
        .and_then(|(agreed, found)| {
            let mount = found.ok_or_else(|| io::Error::other("the mount cannot be found"))?;
            raise_read_ahead(&mount.device_number);
            Ok(Connection {
                device: device.into(),
                device_number: mount.device_number,
                has_passthrough: agreed.has_passthrough(),
            })
        })
        .map_err(|source| {
            // It was ours a moment ago, and what matters is the first error.
            let _second = sys::unmount(mountpoint, true);
            MountError::Mount {
                mountpoint: mountpoint.to_owned(),
                source,
            }
        })
}

fn mount(device: &File, mountpoint: &Path, options: &MountOptions) -> io::Result<()> {
    let read_only = if options.is_writable() {
        0
    } else {
        libc::MS_RDONLY
    };
    let flags = read_only | libc::MS_NOSUID | libc::MS_NODEV;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id=0,default_permissions,max_read={MAX_READ_BYTES}{}",
        device.as_fd().as_raw_fd(),
        sys::effective_uid(),
        if options.allow_other {
            ",allow_other"
        } else {
            ""
        },
    );
    sys::mount(&options.source_name, mountpoint, KIND, flags, &data)
}

/// Takes INIT and answers it. The kernel sends it with the mount, so this does not wait long.
fn initialise(mut device: &File, options: &MountOptions) -> io::Result<Init> {
    let mut buffer = vec![0; INIT_BUFFER_BYTES];
    let length = device.read(&mut buffer)?;
    let request = protocol::decode(&buffer[..length]).map_err(io::Error::other)?;
    let Operation::Init { minor, flags } = request.operation else {
        return Err(io::Error::other("the kernel's first message is not INIT"));
    };
    if minor < OLDEST_MINOR {
        return Err(io::Error::other(format!(
            "the kernel speaks FUSE 7.{minor}; 7.{OLDEST_MINOR} (Linux 5.11) or newer is needed"
        )));
    }
    let (max_write_bytes, _) = protocol::request_sizes(options.is_writable());
    let agreed = Init::negotiate(minor, flags, MAX_READ_BYTES, max_write_bytes);
    let body = protocol::init(&agreed);
    let header = protocol::header(request.unique, 0, body.len());
    let answer = [IoSlice::new(&header), IoSlice::new(&body)];
    // One call is one message: the kernel takes all of it or says what is wrong.
    let _whole = device.write_vectored(&answer)?;
    tracing::debug!(kernel_minor = minor, ?agreed, "FUSE connection initialised");
    Ok(agreed)
}

/// Raises the mount's read-ahead. Without it all works, only slower.
fn raise_read_ahead(device_number: &str) {
    let setting = format!("/sys/class/bdi/{device_number}/read_ahead_kb");
    if let Err(error) = std::fs::write(&setting, READ_AHEAD_KB.to_string()) {
        tracing::warn!(setting, %error, "cannot raise the kernel's read-ahead; large reads are slower");
    }
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MountLine {
    /// `major:minor` of the file system.
    pub(super) device_number: String,
    /// Its type.
    pub(super) kind: String,
}

impl MountLine {
    /// Whether this is a mount of this product.
    pub(super) fn is_ours(&self) -> bool {
        KIND.to_bytes() == self.kind.as_bytes()
    }
}

/// Where all mounts of this product are, binds of them too.
pub(super) fn ours() -> io::Result<Vec<PathBuf>> {
    Ok(ours_in(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

fn ours_in(mounts: &str) -> Vec<PathBuf> {
    let lines = mounts.lines().filter_map(parse);
    let ours = lines.filter(|(_, mount)| mount.is_ours());
    ours.map(|(at, _)| unescape(at)).collect()
}

/// The topmost mount at a path, without touching the path.
pub(super) fn find(mountpoint: &Path) -> io::Result<Option<MountLine>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(find_in(&mounts, mountpoint))
}

fn find_in(mounts: &str, mountpoint: &Path) -> Option<MountLine> {
    let mountpoint = escape(mountpoint.to_str()?);
    let mut lines = mounts.lines().rev().filter_map(parse);
    lines.find_map(|(at, mount)| (at == mountpoint).then_some(mount))
}

/// A line's mount point, as it is written there, and the rest.
fn parse(line: &str) -> Option<(&str, MountLine)> {
    // id parent major:minor root mountpoint options [optional...] - type source options
    let mut fields = line.split(' ');
    let device_number = fields.nth(2)?;
    let at = fields.nth(1)?;
    let kind = fields.skip_while(|field| *field != "-").nth(1)?;
    let mount = MountLine {
        device_number: device_number.to_owned(),
        kind: kind.to_owned(),
    };
    Some((at, mount))
}

/// A path as mountinfo writes it.
fn escape(path: &str) -> String {
    let escape_one = |character: char| match character {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(character)),
        other => other.to_string(),
    };
    path.chars().map(escape_one).collect()
}

/// The path that mountinfo writes so.
fn unescape(written: &str) -> PathBuf {
    let mut path = written.to_owned();
    // The backslash last: what it gives is no escape.
    for character in [' ', '\t', '\n', '\\'] {
        let escaped = format!("\\{:03o}", u32::from(character));
        path = path.replace(&escaped, &character.to_string());
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /mnt/a\\040b ro,nosuid shared:2 master:1 - fuse.alluxio-dataset s3://b/ ro,user_id=0
41 22 0:36 / /mnt/data ro - fuse.alluxio-dataset s3://old/ ro
42 22 0:37 / /mnt/data ro - tmpfs tmpfs ro
";

    fn at(path: &str) -> Option<MountLine> {
        find_in(MOUNTS, Path::new(path))
    }

    #[test]
    fn a_mount_point_with_a_space_is_found() {
        let mount = at("/mnt/a b");
        assert!(mount.as_ref().is_some_and(MountLine::is_ours));
        assert_eq!(
            mount.map(|mount| mount.device_number),
            Some("0:35".to_owned())
        );
    }

    #[test]
    fn all_mounts_of_ours_are_found_under_their_own_names() {
        let found = ours_in(MOUNTS);
        assert_eq!(found, [Path::new("/mnt/a b"), Path::new("/mnt/data")]);
    }

    #[test]
    fn of_stacked_mounts_the_topmost_counts() {
        let mount = at("/mnt/data");
        assert_eq!(mount.map(|mount| mount.kind), Some("tmpfs".to_owned()));
        assert_eq!(at("/mnt"), None);
    }
}
