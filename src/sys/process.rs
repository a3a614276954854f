//! Waiting for children, and facts about the process itself.

use super::{Errno, Pid};
use crate::signal::Signal;
use std::ffi::{CStr, c_char};
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The result of `wait4(2)`.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// A child has ended and was reaped.
    Ended(Pid, Status, Usage),
    /// A child was stopped by this signal.
    Stopped(Pid, Signal),
    /// Children live, and nothing has happened to them.
    Nothing,
    /// There are no children.
    NoChildren,
    /// The kernel did not answer, which says nothing of the children.
    Failed(Errno),
}

/// How a process ended. nix's decoder refuses real-time signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exited(u8),
    Signaled(Signal),
}

/// What a process used, its reaped children included (`getrusage(2)`), and what it has left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Largest resident set, in KiB.
    pub max_rss: u64,
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The kernel has written a core file of it (`wait(2)`).
    pub dumped: bool,
}

impl Usage {
    fn new(usage: &libc::rusage, raw: libc::c_int) -> Usage {
        let max_rss = u64::try_from(usage.ru_maxrss).unwrap_or(0);
        Usage {
            max_rss,
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            dumped: libc::WCOREDUMP(raw),
        }
    }
}

/// Takes the next thing that has happened to a child, without waiting for one.
pub fn wait() -> Wait {
    let mut raw: libc::c_int = 0;
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: wait4(2) writes a status and a usage into what it is given.
    let result = unsafe { libc::wait4(-1, &raw mut raw, libc::WNOHANG | libc::WUNTRACED, usage.as_mut_ptr()) };
    match Errno::result(result) {
        Ok(0) => Wait::Nothing,
        Ok(pid) if libc::WIFSTOPPED(raw) => {
            Signal::from_number(libc::WSTOPSIG(raw)).map_or(Wait::Nothing, |signal| Wait::Stopped(pid, signal))
        }
        // SAFETY: where there is a pid, there is a usage.
        Ok(pid) => Wait::Ended(pid, decode(raw), Usage::new(unsafe { usage.assume_init_ref() }, raw)),
        Err(Errno::ECHILD) => Wait::NoChildren,
        Err(error) => Wait::Failed(error),
    }
}

/// Reaps this child if it has ended. The kernel does not count up what it has used.
pub fn reap(pid: Pid) -> Option<Status> {
    let mut raw: libc::c_int = 0;
    // SAFETY: wait4(2) writes a status, and no usage where it is given no place for one.
    let result = unsafe { libc::wait4(pid, &raw mut raw, libc::WNOHANG, std::ptr::null_mut()) };
    (result > 0).then(|| decode(raw))
}

fn decode(raw: libc::c_int) -> Status {
    match Signal::from_number(libc::WTERMSIG(raw)) {
        Some(signal) => Status::Signaled(signal),
        // WEXITSTATUS has eight bits (wait(2)).
        None => Status::Exited(u8::try_from(libc::WEXITSTATUS(raw)).unwrap_or(u8::MAX)),
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// The variables of the process, each as `NAME=value` (`environ(7)`).
pub fn environment() -> Vec<&'static CStr> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    /// Most containers have fewer.
    const USUAL: usize = 64;
    let mut entries = Vec::with_capacity(USUAL);
    // SAFETY: a list of strings that ends with a null pointer, or none; nothing in guard ever changes it.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            entries.push(CStr::from_ptr(*next));
            next = next.add(1);
        }
    }
    entries
}

/// guard's own pid.
pub fn id() -> Pid {
    nix::unistd::getpid().as_raw()
}

/// The process group and the session that guard is in; 0 where they are from outside of the PID namespace.
pub fn group_and_session() -> (Pid, Pid) {
    let session = nix::unistd::getsid(None).map_or(0, nix::unistd::Pid::as_raw);
    (nix::unistd::getpgrp().as_raw(), session)
}

/// The process group of another process (`getpgid(2)`); `None` where there is no such process.
pub fn group_of(pid: Pid) -> Option<Pid> {
    nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).ok().map(nix::unistd::Pid::as_raw)
}

/// The pid of guard's parent; 0 where it is outside of the PID namespace.
pub fn parent() -> Pid {
    nix::unistd::getppid().as_raw()
}

/// The user that guard acts as (`geteuid(2)`).
pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The same with the group (`getegid(2)`).
pub fn effective_ids() -> (u32, u32) {
    (effective_uid(), nix::unistd::getegid().as_raw())
}

/// The user that another process acts as; `None` where that cannot be read.
pub fn effective_uid_of(pid: Pid) -> Option<u32> {
    // The line is among the first ten (`proc_pid_status(5)`). The owner of the directory may be another one, see there.
    let mut start = [0; 1024];
    let count = File::open(format!("/proc/{pid}/status")).ok()?.read(&mut start).ok()?;
    let text = String::from_utf8_lossy(&start[..count]);
    let users = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The inode that names guard's mount namespace (`namespaces(7)`); `None` without a /proc.
pub fn mount_namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/mnt").ok().map(|namespace| namespace.ino())
}

/// A descriptor that becomes readable when the process ends (`pidfd_open(2)`), closed on exec. Fails for one that is
/// not there, and where the kernel is older than 5.3 or the call is forbidden.
pub fn watch_process(pid: Pid) -> std::io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes any pid, and no flags.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = Errno::result(libc::c_int::try_from(descriptor).unwrap_or(-1))?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether this is a child of guard's, living or not yet reaped.
pub fn is_child(pid: Pid) -> bool {
    ended_child(pid).is_some()
}

/// Whether this is a child of guard's that has ended and was not reaped.
pub fn is_zombie(pid: Pid) -> bool {
    ended_child(pid) == Some(pid)
}

/// The pid of this child of guard's if it has ended, 0 if it lives; `None` if guard has no such child (`waitid(2)`).
fn ended_child(pid: Pid) -> Option<Pid> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let id = libc::id_t::try_from(pid).unwrap_or(0);
    // SAFETY: siginfo_t is plain data, for which all zeros is a value, and waitid(2) writes one.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        (libc::waitid(libc::P_PID, id, &raw mut info, flags) == 0).then(|| info.si_pid())
    }
}

/// Makes guard the one that orphans among its descendants are handed to (`PR_SET_CHILD_SUBREAPER`, `prctl(2)`).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl(2) with this option takes one flag.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as libc::c_ulong, 0, 0, 0) })?;
    Ok(())
}
