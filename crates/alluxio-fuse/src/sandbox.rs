//! What a daemon gives up before it parses a byte from afar.
//!
//! Between fork and exec ([`Cell::enter`]), while still root where the supervisor is: a session of its
//! own, no descriptor but the control socket, a mount namespace in which everything but its own
//! folders is read-only and no other mount of this product is seen, namespaces for IPC and the host
//! name, limits, and then no root, no capability, not even in the bounding set, and no way back.
//! After exec, before the first thread ([`confine`]): a filter that leaves it the system calls
//! of a program that serves files and talks to the network. What the filter does not know is answered
//! with ENOSYS, which is what libraries take as "do without it".
//!
//! The network stays: workers and stores are there. In a pod, where there is no root to begin with,
//! the pod's own security context does what namespaces would.
#![allow(
    unsafe_code,
    reason = "what happens between fork and exec, and seccomp, have no safe form"
)]

mod filter;

use std::ffi::{CStr, CString, c_int, c_uint, c_ulong};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::null;

use crate::sys::{check, check_raw};

pub(crate) use filter::confine;

/// Highest capability number to try; the kernel has 41 and says EINVAL above its last.
const LAST_CAPABILITY: c_ulong = 63;

/// Descriptors of a daemon: connections to workers, files of the cache, and room.
const MAX_DESCRIPTORS: u64 = 65_536;

/// Folders of its own that a daemon may write to: cache, log, metrics, staging, and room.
const MAX_WRITABLE: usize = 16;

/// The room that a daemon gets, prepared before the fork: after it nothing may be allocated.
#[derive(Debug)]
pub(crate) struct Cell {
    uid: u32,
    gid: u32,
    /// Existing folders that stay writable.
    writable: Vec<CString>,
    /// Mounts of this product. A copy of one in another daemon's namespace would keep it alive after
    /// its unmount.
    hidden: Vec<CString>,
    /// Most bytes of writable private memory.
    data_limit_bytes: Option<u64>,
}

impl Cell {
    /// Prepares a cell.
    pub(crate) fn new(
        uid: u32,
        gid: u32,
        writable: &[PathBuf],
        data_limit_bytes: Option<u64>,
    ) -> io::Result<Self> {
        if writable.len() > MAX_WRITABLE {
            return Err(io::Error::other("a daemon with too many writable folders"));
        }
        let as_text = |path: &PathBuf| CString::new(path.as_os_str().as_bytes());
        let writable: Result<_, _> = writable.iter().map(as_text).collect();
        let hidden: Result<_, _> = crate::supervisor::mounts_of_ours()?
            .iter()
            .map(as_text)
            .collect();
        Ok(Self {
            uid,
            gid,
            writable: writable?,
            hidden: hidden?,
            data_limit_bytes,
        })
    }

    /// Turns this process, just forked, into one with no privilege and no descriptor above 3.
    ///
    /// `control`, whose number is above 3, becomes descriptor 3. Only raw system calls are made: after
    /// a fork in a process with threads nothing else is safe. When the caller is not root the steps
    /// that need it are left out: there is nothing to drop then.
    pub(crate) fn enter(&self, control: RawFd) -> io::Result<()> {
        // SAFETY: system calls with integers and pointers to data prepared before the fork; no
        // allocation, no lock.
        unsafe {
            // Its own session: an interrupt typed at the terminal is for the supervisor, which
            // unmounts.
            check(libc::setsid())?;
            check(libc::dup2(control, 3))?;
            // Close on exec and not at once: the standard library reports a failed exec through a
            // descriptor of its own.
            let close_on_exec = libc::CLOSE_RANGE_CLOEXEC as c_uint;
            check_raw(libc::syscall(
                libc::SYS_close_range,
                4,
                c_uint::MAX,
                close_on_exec,
            ))?;
            self.limit()?;
            if libc::geteuid() == 0 {
                self.close_off();
                drop_root(self.uid, self.gid)?;
            }
            drop_capabilities()?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        }
        Ok(())
    }

    /// No core dumps, which would hold secrets; bounded descriptors and memory.
    ///
    /// # Safety
    /// For a process just forked.
    unsafe fn limit(&self) -> io::Result<()> {
        // SAFETY: a resource's number and a structure that outlives the call.
        unsafe {
            let none = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
            let mut files = none;
            check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut files))?;
            files.rlim_cur = files.rlim_max.min(MAX_DESCRIPTORS);
            files.rlim_max = files.rlim_cur;
            check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files))?;
            if let Some(bytes) = self.data_limit_bytes {
                let data = libc::rlimit {
                    rlim_cur: bytes,
                    rlim_max: bytes,
                };
                check(libc::setrlimit(libc::RLIMIT_DATA, &raw const data))?;
            }
        }
        Ok(())
    }

    /// Namespaces and a read-only tree, as far as the kernel and the container allow: a mount in a
    /// container without that right is better than none, and the daemon's log says what it got.
    ///
    /// # Safety
    /// For a process just forked, whose one thread this is.
    unsafe fn close_off(&self) {
        // SAFETY: system calls with integers and C strings that were made before the fork.
        unsafe {
            let apart = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
            if libc::unshare(apart) != 0 {
                return;
            }
            // Unmounts of the host go on to happen here, ours are not seen there.
            let (nothing, slave) = (null(), libc::MS_REC | libc::MS_SLAVE);
            if libc::mount(nothing, c"/".as_ptr(), nothing, slave, null()) != 0 {
                return;
            }
            for mountpoint in &self.hidden {
                libc::umount2(
                    mountpoint.as_ptr(),
                    libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW,
                );
            }
            let mut kept = [false; MAX_WRITABLE];
            for (folder, kept) in self.writable.iter().zip(&mut kept) {
                let at = folder.as_ptr();
                *kept = libc::mount(at, at, nothing, libc::MS_BIND | libc::MS_REC, null()) == 0;
            }
            let read_only = MountAttributes::set(ATTRIBUTE_RDONLY | ATTRIBUTE_NOSUID);
            if !read_only.apply(c"/") {
                return;
            }
            for (folder, kept) in self.writable.iter().zip(kept) {
                if kept {
                    MountAttributes::clear(ATTRIBUTE_RDONLY).apply(folder);
                }
            }
        }
    }
}

/// `MOUNT_ATTR_RDONLY` of linux/mount.h.
const ATTRIBUTE_RDONLY: u64 = 1;
/// `MOUNT_ATTR_NOSUID`.
const ATTRIBUTE_NOSUID: u64 = 2;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl MountAttributes {
    fn set(attributes: u64) -> Self {
        Self {
            set: attributes,
            clear: 0,
            propagation: 0,
            user_namespace: 0,
        }
    }

    fn clear(attributes: u64) -> Self {
        Self {
            set: 0,
            clear: attributes,
            propagation: 0,
            user_namespace: 0,
        }
    }

    /// mount_setattr(2) on a path and all mounts below it (Linux 5.12).
    fn apply(&self, path: &CStr) -> bool {
        // SAFETY: a C string, and a structure with its size, which outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                path.as_ptr(),
                libc::AT_RECURSIVE,
                std::ptr::from_ref(self),
                size_of::<Self>(),
            )
        };
        result == 0
    }
}

/// Whether this process's root is read-only, for the log.
pub(crate) fn is_root_read_only() -> bool {
    // SAFETY: a C string and room for the answer, which zeroed is valid.
    unsafe {
        let mut answer: libc::statvfs = std::mem::zeroed();
        libc::statvfs(c"/".as_ptr(), &raw mut answer) == 0 && answer.f_flag & libc::ST_RDONLY != 0
    }
}

/// Leaves root: no bounding set, no groups, the given user and group for good.
///
/// # Safety
/// For a process just forked: the C library's own wrappers would signal other threads.
unsafe fn drop_root(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: system calls with integers alone.
    unsafe {
        for capability in 0..=LAST_CAPABILITY {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                break;
            }
        }
        check_raw(libc::syscall(libc::SYS_setgroups, 0, 0))?;
        check_raw(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check_raw(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Empties the permitted, effective, inheritable and ambient capabilities.
///
/// # Safety
/// For a process just forked, whose one thread this is.
unsafe fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    // _LINUX_CAPABILITY_VERSION_3 of linux/capability.h: two triples of 32 bits.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let none = [0u32; 6];
    // SAFETY: the header and the data have the layout of capset(2) and outlive the calls.
    unsafe {
        check(libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        ))?;
        check_raw(libc::syscall(
            libc::SYS_capset,
            &raw const header,
            none.as_ptr(),
        ))?;
    }
    Ok(())
}
