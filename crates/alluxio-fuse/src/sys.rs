//! The system calls that the standard library does not offer, each behind a safe function.
//!
//! Nothing here decides anything: a function is one call, its error is the kernel's, and the
//! values that cross are owned descriptors, slices and numbers. Calls that a signal may interrupt
//! are repeated.
#![allow(
    unsafe_code,
    reason = "the standard library has no memfd, SCM_RIGHTS, pidfd, poll or mount"
)]

use std::ffi::{CStr, CString, c_int, c_long, c_uint, c_ulong};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// Descriptors one message can carry: a broker is given so many files at one time, and the kernel
/// takes 253.
pub(crate) const MAX_FDS_PER_MESSAGE: usize = 64;

/// Turns a C result into the kernel's error.
pub(crate) fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// The same for a raw system call, whose results are wider.
pub(crate) fn check_raw(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Repeats a call while a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Takes ownership of a descriptor that this process was started with, such as number 3.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks about the number.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: the number is open, and the caller says that nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A second descriptor of the same open file, closed on exec, with the lowest free number from
/// `lowest` on.
pub(crate) fn duplicate_from(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer; a success gives a descriptor that nobody else owns.
    unsafe {
        let copy = check(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest))?;
        Ok(OwnedFd::from_raw_fd(copy))
    }
}

/// An anonymous file in memory, closed on exec.
pub(crate) fn memfd(name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; a success gives a descriptor that nobody else owns.
    unsafe {
        let fd = check(libc::memfd_create(name.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Makes every write to this open file go to its end.
pub(crate) fn set_append(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_SETFL takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) }).map(drop)
}

/// Fixes a memfd's size: a mapping of it can never meet a missing page (SIGBUS).
pub(crate) fn seal_size(fd: BorrowedFd<'_>) -> io::Result<()> {
    add_seals(fd, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)
}

/// Fixes a memfd's size and content.
pub(crate) fn seal_content(fd: BorrowedFd<'_>) -> io::Result<()> {
    add_seals(
        fd,
        libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL,
    )
}

fn add_seals(fd: BorrowedFd<'_>, seals: c_int) -> io::Result<()> {
    // SAFETY: F_ADD_SEALS takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }).map(drop)
}

/// A connected pair of sockets that keep message boundaries.
pub(crate) fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `pair` has room for the two descriptors, which nobody else owns.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])))
    }
}

/// Room for the control data of one message, aligned as `cmsghdr` wants it: the most descriptors, the
/// sender, and a header for each of both.
type ControlBuffer = [u64; MAX_FDS_PER_MESSAGE * size_of::<RawFd>() / size_of::<u64>() + 8];
const NO_CONTROL: ControlBuffer = [0; size_of::<ControlBuffer>() / size_of::<u64>()];

/// A descriptor's number in control data, which need not be aligned.
type FdBytes = [u8; size_of::<RawFd>()];

/// Sends one message with descriptors attached; waits while the peer has no room for it.
pub(crate) fn send_message(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_with(socket, bytes, fds, libc::MSG_NOSIGNAL)
}

/// The same, with EAGAIN in place of waiting.
pub(crate) fn send_message_now(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_with(socket, bytes, fds, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
}

fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: c_int,
) -> io::Result<()> {
    if fds.len() > MAX_FDS_PER_MESSAGE {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let fd_bytes = size_of::<RawFd>() * fds.len();
    let fd_bytes = c_uint::try_from(fd_bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut control = NO_CONTROL;
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the header points at `part` and `control`, which outlive the call; `control` is
    // larger than CMSG_SPACE of the most descriptors; sendmsg only reads.
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(fd_bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(fd_bytes) as _;
            let numbers = libc::CMSG_DATA(header).cast::<FdBytes>();
            for (index, fd) in fds.iter().enumerate() {
                numbers.add(index).write(fd.as_raw_fd().to_ne_bytes());
            }
        }
        retry(|| {
            let sent = libc::sendmsg(socket.as_raw_fd(), &raw const message, flags);
            usize::try_from(sent).map_err(|_| io::Error::last_os_error())
        })?
    };
    if sent != bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// Receives one message and the descriptors attached to it; 0 bytes mean that the peer closed.
pub(crate) fn receive_message(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    receive_message_of(socket, buffer).map(|received| (received.length, received.fds))
}

/// One message, and who sent it.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes in the buffer; 0 when the peer closed.
    pub(crate) length: usize,
    /// Descriptors that came with them.
    pub(crate) fds: Vec<OwnedFd>,
    /// The sender by the kernel's word, where the socket asks for it (see
    /// [`crate::rendezvous::connect`]) and the sender is in a namespace of process ids that can be
    /// seen from here.
    pub(crate) sender: Option<u32>,
}

/// As [`receive_message`], with the sender.
pub(crate) fn receive_message_of(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<Received> {
    let mut control = NO_CONTROL;
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the header points at `part` and `control`, which outlive the call and say their own
    // sizes; the kernel fills in whole control messages, and each descriptor is new and ours.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<ControlBuffer>() as _;
        let flags = libc::MSG_CMSG_CLOEXEC;
        let length = retry(|| {
            let received = libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags);
            usize::try_from(received).map_err(|_| io::Error::last_os_error())
        })?;
        let mut received = Received {
            length,
            fds: Vec::new(),
            sender: None,
        };
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            take_control(header, &mut received);
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        if message.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC) != 0 {
            return Err(io::Error::other(
                "message is longer than its reader expects",
            ));
        }
        Ok(received)
    }
}

/// Takes over what one control message brings.
///
/// # Safety
/// `header` is a whole control message that the kernel wrote.
unsafe fn take_control(header: *const libc::cmsghdr, received: &mut Received) {
    // SAFETY: the kernel's messages have the layout that their level and type say; they need not be
    // aligned, so they are read as bytes or unaligned.
    unsafe {
        match ((*header).cmsg_level, (*header).cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                let length: usize = (*header).cmsg_len as _;
                let data_bytes = length - libc::CMSG_LEN(0) as usize;
                let numbers = libc::CMSG_DATA(header).cast::<FdBytes>();
                for index in 0..data_bytes / size_of::<FdBytes>() {
                    let number = RawFd::from_ne_bytes(numbers.add(index).read());
                    received.fds.push(OwnedFd::from_raw_fd(number));
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                let sender = libc::CMSG_DATA(header)
                    .cast::<libc::ucred>()
                    .read_unaligned();
                received.sender = u32::try_from(sender.pid).ok().filter(|pid| *pid != 0);
            }
            _ => {}
        }
    }
}

/// Which of `fds` have something to say (data, an end, or an error) within `limit`.
///
/// All false means that the time is over; without a limit one is true.
pub(crate) fn wait_any<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    poll(fds, libc::POLLIN, limit).map(|events| events.map(|event| event != 0))
}

/// Whether the connection behind a `/dev/fuse` descriptor is gone, by an unmount or an abort.
pub(crate) fn is_disconnected(device: BorrowedFd<'_>) -> io::Result<bool> {
    poll([device], 0, Some(Duration::ZERO)).map(|[event]| event & libc::POLLERR != 0)
}

fn poll<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    events: i16,
    limit: Option<Duration>,
) -> io::Result<[i16; N]> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut entries = fds.map(|fd| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    });
    retry(|| {
        let rest_ms = deadline.map_or(-1, |deadline| {
            let rest = deadline.saturating_duration_since(Instant::now());
            c_int::try_from(rest.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
        });
        // SAFETY: `entries` holds N entries.
        check(unsafe { libc::poll(entries.as_mut_ptr(), N as libc::nfds_t, rest_ms) })
    })?;
    Ok(entries.map(|entry| entry.revents))
}

/// A descriptor of a process; readable once the process has ended.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; a success gives a descriptor that nobody else owns.
    unsafe {
        let fd = check_raw(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Kills the process behind a pidfd.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no signal information is passed (null), the rest are integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            null_mut::<libc::siginfo_t>(),
            0,
        )
    };
    check_raw(result).map(drop)
}

/// Lets [`interrupt`] take a thread out of a system call: without a handler the signal would end the
/// process.
pub(crate) fn allow_interrupts() -> io::Result<()> {
    extern "C" fn nothing(_signal: c_int) {}
    // SAFETY: a zeroed sigaction is valid, the handler touches nothing, and no restart is asked for.
    check(unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as libc::sighandler_t;
        libc::sigaction(libc::SIGUSR1, &raw const action, null_mut())
    })
    .map(drop)
}

/// Makes a thread's waiting system call end with EINTR; one that waits for nothing does not mind.
pub(crate) fn interrupt<T>(thread: &std::thread::JoinHandle<T>) {
    use std::os::unix::thread::JoinHandleExt;
    // SAFETY: the thread was not joined, since its handle is here, so its identity is still its own.
    // A thread that has ended is reported by an error, which is as good. The cast is for musl, whose
    // `pthread_t` is a pointer.
    let _ended =
        unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, libc::SIGUSR1) };
}

/// The effective user of this process.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: geteuid cannot fail and touches no memory.
    unsafe { libc::geteuid() }
}

/// The user at the other end of a unix socket, as it was when it connected.
pub(crate) fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: ucred is plain data, and `length` says how large it is.
    unsafe {
        let mut peer: libc::ucred = zeroed();
        let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or_default();
        check(libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        ))?;
        Ok(peer.uid)
    }
}

/// `FUSE_DEV_IOC_BACKING_OPEN` of linux/fuse.h: `_IOW(229, 1, struct fuse_backing_map)`.
const BACKING_OPEN: libc::Ioctl = 0x4010_e501;

/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, uint32_t)`.
const BACKING_CLOSE: libc::Ioctl = 0x4004_e502;

/// Registers a file that backs inodes of a FUSE connection; the kernel's number for it.
pub(crate) fn backing_open(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<u32> {
    /// `struct fuse_backing_map`.
    #[repr(C)]
    struct Map {
        fd: i32,
        flags: u32,
        padding: u64,
    }
    let map = Map {
        fd: file.as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    // SAFETY: the kernel reads a structure of this layout, which outlives the call.
    let id = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_OPEN, &raw const map) };
    u32::try_from(check(id)?).map_err(io::Error::other)
}

/// Takes the number of a registered file back; openings that use it go on.
pub(crate) fn backing_close(device: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    // SAFETY: the kernel reads one number, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE, &raw const id) };
    check(result).map(drop)
}

/// Where a sparse file has data from `from` on; none where it has no more.
pub(crate) fn seek_data(file: BorrowedFd<'_>, from: u64) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(from).map_err(io::Error::other)?;
    // SAFETY: plain integers.
    match unsafe { libc::lseek(file.as_raw_fd(), from, libc::SEEK_DATA) } {
        at if at >= 0 => Ok(u64::try_from(at).ok()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// mount(2) of a file system that takes text options.
pub(crate) fn mount(
    source: &str,
    target: &Path,
    kind: &CStr,
    flags: c_ulong,
    options: &str,
) -> io::Result<()> {
    let source = CString::new(source)?;
    let target = CString::new(target.as_os_str().as_bytes())?;
    let options = CString::new(options)?;
    // SAFETY: five C strings and a number, all alive during the call.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// umount2(2), never through a symbolic link.
pub(crate) fn unmount(target: &Path, detach: bool) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW | if detach { libc::MNT_DETACH } else { 0 };
    // SAFETY: a C string and a number.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// Keeps this process's memory from other processes of its user, and out of core dumps.
pub(crate) fn hide_memory() -> io::Result<()> {
    // SAFETY: integers alone.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}
