//! A copy of guard that may wait where guard must not: for a descriptor to close, for another process's memory.

use super::signal_set::{SignalSet, change_mask};
use super::{Errno, Pid};

/// Starts a copy of guard that does `work` and ends (`fork(2)`). Fails with `EAGAIN` at a limit of processes, with
/// `ENOMEM` without memory.
///
/// The copy has a descriptor table of its own and a process group of its own, and no signal but SIGKILL ends it. It is a
/// child like any other: it must be reaped, and guard does not wait for it here.
pub fn spawn_copy(work: impl FnOnce()) -> Result<Pid, Errno> {
    let old = change_mask(libc::SIG_SETMASK, SignalSet::FULL);
    // SAFETY: guard has one thread, so the copy finds no lock that nobody will release.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: setpgid(2), prctl(2) and _exit(2) take plain numbers; _exit runs nothing of guard's.
        unsafe {
            libc::setpgid(0, 0);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
            work();
            libc::_exit(0)
        }
    }
    change_mask(libc::SIG_SETMASK, old);
    Errno::result(pid)
}

/// Waits until a copy has ended, or a child that has not become another program, and reaps it.
pub fn wait_for_copy(pid: Pid) {
    // SAFETY: waitpid(2) may be given no place for the status.
    while Errno::result(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }) == Err(Errno::EINTR) {}
}
