//! Where a mount's daemon meets its next supervisor.
//!
//! A supervisor that is restarted has lost the connection, the journal and the inode log; the daemon
//! has them all. So each mount has a listening socket, bound in a folder that only root can enter
//! and held by the mount's daemons alone: whoever can connect is root, and whoever accepts is a daemon
//! of that mount. The message is the hand-over (see `handover.rs`), this time the other way round.
#![allow(
    unsafe_code,
    reason = "the standard library has no unix sockets that keep message boundaries"
)]

use std::fs;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// How the sockets of mounts end.
const ENDING: &str = "sock";

/// Supervisors that wait to be accepted; there is never more than one that lives.
const BACKLOG: libc::c_int = 4;

/// Makes the folder of a supervisor's sockets, for root alone.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// The socket of the mount at a path; a path can be longer than a socket's name may be.
pub(crate) fn socket_of(folder: &Path, mountpoint: &Path) -> PathBuf {
    let hash = xxh3_64(mountpoint.as_os_str().as_bytes());
    folder.join(format!("{hash:016x}.{ENDING}"))
}

/// The sockets in a supervisor's folder; one that is not there has none.
pub(crate) fn sockets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            sockets.push(path);
        }
    }
    sockets.sort();
    Ok(sockets)
}

/// Listens; what a mount that ended left at the path goes.
pub(crate) fn listen(socket: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = new_socket()?;
    let address = address(socket)?;
    // SAFETY: an address and its length, an open descriptor and a number.
    unsafe {
        check(libc::bind(
            listener.as_raw_fd(),
            (&raw const address).cast(),
            ADDRESS_BYTES,
        ))?;
        check(libc::listen(listener.as_raw_fd(), BACKLOG))?;
    }
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Waits for the next supervisor.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    loop {
        // SAFETY: no address is asked for (null); a success gives a descriptor that nobody else owns.
        let accepted = unsafe {
            let (nobody, number) = (std::ptr::null_mut(), listener.as_raw_fd());
            check(libc::accept4(
                number,
                nobody,
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            ))
            .map(|fd| OwnedFd::from_raw_fd(fd))
        };
        match accepted {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                ) => {}
            done => return done,
        }
    }
}

/// Connects to a mount's daemon; the kernel will say who sends what arrives (SCM_CREDENTIALS;
/// SO_PEERCRED would name whoever made the socket, the supervisor of old).
pub(crate) fn connect(socket: &Path) -> io::Result<OwnedFd> {
    let connection = new_socket()?;
    let address = address(socket)?;
    let on: libc::c_int = 1;
    // SAFETY: an option and an address with their lengths, and an open descriptor.
    unsafe {
        check(libc::setsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            INT_BYTES,
        ))?;
        check(libc::connect(
            connection.as_raw_fd(),
            (&raw const address).cast(),
            ADDRESS_BYTES,
        ))?;
    }
    Ok(connection)
}

#[allow(clippy::cast_possible_truncation, reason = "110 bytes")]
const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;
#[allow(clippy::cast_possible_truncation, reason = "4 bytes")]
const INT_BYTES: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

fn new_socket() -> io::Result<OwnedFd> {
    // SAFETY: numbers alone; a success gives a descriptor that nobody else owns.
    unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        let fd = check(libc::socket(libc::AF_UNIX, kind, 0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn address(path: &Path) -> io::Result<libc::sockaddr_un> {
    // SAFETY: a zeroed address is a valid one.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    #[allow(clippy::cast_possible_truncation, reason = "the family is 1")]
    {
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    }
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        let message = format!("{} is too long for a socket", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, message));
    }
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = libc::c_char::from_ne_bytes([*byte]);
    }
    Ok(address)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys;

    #[test]
    fn the_kernel_names_the_one_who_accepted_and_the_folder_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("run");
        make_folder(&folder).unwrap();
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let socket = socket_of(&folder, Path::new("/mnt/data"));
        drop(listen(&socket).unwrap());
        let listener = listen(&socket).unwrap();
        assert_eq!(sockets(&folder).unwrap(), std::slice::from_ref(&socket));
        let connection = connect(&socket).unwrap();
        let accepted = accept(listener.as_fd()).unwrap();
        sys::send_message(accepted.as_fd(), b"here", &[listener.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let received = sys::receive_message_of(connection.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..received.length], b"here");
        assert_eq!(received.fds.len(), 1);
        assert_eq!(received.sender, Some(std::process::id()));
    }

    #[test]
    fn a_socket_that_nobody_holds_and_one_that_is_not_there_are_told_apart_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let socket = socket_of(folder.path(), Path::new("/mnt/data"));
        assert_eq!(
            connect(&socket).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        drop(listen(&socket).unwrap());
        assert_eq!(
            connect(&socket).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        let long = folder.path().join("x".repeat(200));
        assert_eq!(
            listen(&long).unwrap_err().kind(),
            io::ErrorKind::InvalidFilename
        );
        assert!(sockets(&folder.path().join("missing")).unwrap().is_empty());
    }
}
