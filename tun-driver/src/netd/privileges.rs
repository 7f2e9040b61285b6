//! Gives up what is not needed, before the first byte of anybody is read.
//!
//! What stays: the user root without his powers (files of his own can be read and written: the socket, resolv.conf), the
//! one capability CAP_NET_ADMIN, and the system calls in [`CALLS`]. No program can be started, no user changed, nothing
//! mounted, no other process touched.

use std::{collections::BTreeMap, io};

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, setrlimit, umask},
    thread::{
        CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

/// Gives up privileges of the calling thread, and of all that it starts; to be called before there are others.
///
/// # Errors
/// CAP_NET_ADMIN is missing, or the system keeps us from giving something up.
pub(super) fn drop_privileges() -> anyhow::Result<()> {
    use anyhow::Context as _;
    umask(Mode::from_raw_mode(0o077));
    // No core dump: it would hold what users asked for.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot forbid core dumps")?;
    drop_capabilities().context("cannot keep CAP_NET_ADMIN, which postern-netd needs, and drop all others")?;
    set_no_new_privs(true).context("cannot forbid new privileges")?;
    match filter() {
        Some(filter) => apply_filter_all_threads(&filter?).context("cannot filter system calls")?,
        None => tracing::warn!("no filter of system calls for this kind of processor"),
    }
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    for capability in CapabilitySet::all().iter().filter(|one| *one != CapabilitySet::NET_ADMIN) {
        // What this kernel does not know, nobody has.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            // Under a service manager that limits us already there is nothing to take from, and no right to take it.
            match remove_capability_from_bounding_set(capability) {
                Ok(()) | Err(rustix::io::Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    clear_ambient_capability_set()?;
    let only = CapabilitySet::NET_ADMIN;
    set_capabilities(None, CapabilitySets { effective: only, permitted: only, inheritable: CapabilitySet::empty() })?;
    Ok(())
}

/// Allows [`CALLS`]; everything else fails with EPERM.
fn filter() -> Option<anyhow::Result<BpfProgram>> {
    let processor = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let allowed: BTreeMap<i64, Vec<_>> = CALLS.iter().chain(OLD_CALLS).map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let built = SeccompFilter::new(allowed, refuse, SeccompAction::Allow, processor).and_then(TryInto::try_into);
    Some(built.map_err(Into::into))
}

/// What the runtime, sockets, the TUN device, D-Bus and the files of the resolver need.
const CALLS: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_getxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_ioctl,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listen,
    libc::SYS_listxattr,
    libc::SYS_lseek,
    libc::SYS_lsetxattr,
    libc::SYS_madvise,
    libc::SYS_mkdirat,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendfile,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_setxattr,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_tgkill,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The same by their older names, which newer processors do not have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[libc::c_long] = &[];
