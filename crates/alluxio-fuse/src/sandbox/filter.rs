//! The system calls that a daemon keeps.
//!
//! An allow list, as a program for the kernel's packet filter: first the architecture (numbers mean
//! something else under another), then one comparison a call. Since Linux 5.11 the kernel remembers
//! per number that a call is always allowed, so the list's length costs nothing.

use std::ffi::{c_long, c_ulong};
use std::io;

use crate::sys::{check, check_raw};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Files, memory, threads, time, sockets. Not here, among others: exec, ptrace, mount and its
/// relatives, namespaces, keys, modules, `bpf`, `io_uring`, other processes' memory, ioctl other than
/// [`IOCTLS`].
const ALLOWED: &[c_long] = &[
    // Files.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_utimensat,
    libc::SYS_flock,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_umask,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_memfd_create,
    libc::SYS_fgetxattr,
    libc::SYS_getxattr,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_msync,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    // Threads and signals of this process.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_pidfd_open,
    // Facts.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_capget,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_accept,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
];

/// Older names of some of the above, which C libraries still use where they exist.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_chmod,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_getrlimit,
    libc::SYS_arch_prctl,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[c_long] = &[];

/// FIONREAD, FIONBIO, FIOCLEX, FIONCLEX and TCGETS: what sockets and "is this a terminal" need.
const IOCTLS: [u32; 5] = [0x541b, 0x5421, 0x5451, 0x5450, 0x5401];

// linux/bpf_common.h and linux/seccomp.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
/// Places in `struct seccomp_data`: the call's number, the architecture, the second argument.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const SECOND_ARGUMENT_AT: u32 = 24;
/// SECCOMP_SET_MODE_FILTER and its flag to do so in every thread.
const SET_MODE_FILTER: c_ulong = 1;
const FLAG_TSYNC: c_ulong = 1;

/// Puts this process, all of its threads and those to come behind the filter.
pub(crate) fn confine() -> io::Result<()> {
    let mut program = program();
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: numbers, and a program that outlives the call, which copies it.
    unsafe {
        // Without it only root may filter; whoever started the daemon has done so already.
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check_raw(libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            FLAG_TSYNC,
            &raw const filter,
        ))?;
    }
    Ok(())
}

/// Each allowed number is compared and returned on the spot, so no jump is longer than one step.
fn program() -> Vec<libc::sock_filter> {
    let refuse = ERRNO | libc::ENOSYS.cast_unsigned();
    let mut program = vec![
        statement(LOAD_WORD, ARCHITECTURE_AT),
        skip_unless_equal(ARCHITECTURE, 1, 0),
        statement(RETURN, refuse),
        statement(LOAD_WORD, NUMBER_AT),
    ];
    for number in ALLOWED.iter().chain(ALLOWED_HERE) {
        // Numbers are small.
        let number = u32::try_from(*number).unwrap_or(u32::MAX);
        program.push(skip_unless_equal(number, 0, 1));
        program.push(statement(RETURN, ALLOW));
    }
    let ioctl = u32::try_from(libc::SYS_ioctl).unwrap_or(u32::MAX);
    program.push(skip_unless_equal(ioctl, 1, 0));
    program.push(statement(RETURN, refuse));
    program.push(statement(LOAD_WORD, SECOND_ARGUMENT_AT));
    for request in IOCTLS {
        program.push(skip_unless_equal(request, 0, 1));
        program.push(statement(RETURN, ALLOW));
    }
    program.push(statement(RETURN, refuse));
    program
}

fn statement(code: u16, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k: value,
    }
}

/// How many statements to pass over where the loaded word is the value, and where it is not.
fn skip_unless_equal(value: u32, if_equal: u8, if_not: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: JUMP_IF_EQUAL,
        jt: if_equal,
        jf: if_not,
        k: value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says to a call, by a small machine for the three statements that it uses.
    fn verdict(architecture: u32, number: c_long, second: u32) -> u32 {
        let (program, mut at, mut word) = (program(), 0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD_WORD if step.k == ARCHITECTURE_AT => word = architecture,
                LOAD_WORD if step.k == NUMBER_AT => word = u32::try_from(number).unwrap_or(0),
                LOAD_WORD => word = second,
                JUMP_IF_EQUAL if word == step.k => at += usize::from(step.jt),
                JUMP_IF_EQUAL => at += usize::from(step.jf),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn what_serves_files_is_allowed_and_what_leaves_the_cell_is_not() {
        let refuse = ERRNO | libc::ENOSYS.cast_unsigned();
        for number in [libc::SYS_read, libc::SYS_recvmmsg, libc::SYS_connect] {
            assert_eq!(verdict(ARCHITECTURE, number, 0), ALLOW);
        }
        for number in [
            libc::SYS_execve,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_bpf,
            libc::SYS_process_vm_readv,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
        ] {
            assert_eq!(verdict(ARCHITECTURE, number, 0), refuse);
        }
        assert_eq!(verdict(0x4000_0003, libc::SYS_read, 0), refuse);
        assert_eq!(verdict(ARCHITECTURE, libc::SYS_ioctl, 0x5421), ALLOW);
        // TIOCSTI types into a terminal.
        assert_eq!(verdict(ARCHITECTURE, libc::SYS_ioctl, 0x5412), refuse);
    }
}
