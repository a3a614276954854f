//! Signal-driven I/O: a descriptor announces by a signal that there is something to read (O_ASYNC, `fcntl(2)`). Whoever
//! waits for signals need not wait for descriptors besides.

use super::{Errno, Pid, process};
use crate::signal::Signal;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The signal that announces, unless another is asked for.
pub(super) const BELL: Signal = Signal::IO;

/// `struct f_owner_ex` with F_OWNER_TID, <asm-generic/fcntl.h>.
#[repr(C)]
struct Thread {
    kind: libc::c_int,
    id: Pid,
}

const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

/// Has a socket or a pipe announce from now on that something has come, or that its other end was closed. The kernel does so
/// in the name of the user who asks for it here: after a change of user it is to be asked again.
///
/// It is announced to the thread, of which guard has one, while what others send and SIGCHLD are for the process
/// (`signal(7)`). So it is not merged with a signal that somebody sends, and comes before all of them.
pub(super) fn announce(descriptor: BorrowedFd) -> Result<(), Errno> {
    let (descriptor, on): (_, libc::c_int) = (descriptor.as_raw_fd(), 1);
    let owner = Thread { kind: F_OWNER_TID, id: process::id() };
    // SAFETY: fcntl(2) with this command reads such a structure, and ioctl(2) with FIOASYNC a number.
    unsafe {
        Errno::result(libc::fcntl(descriptor, F_SETOWN_EX, &raw const owner))?;
        Errno::result(libc::ioctl(descriptor, libc::FIOASYNC, &raw const on)).map(drop)
    }
}

/// Whether a signal is an announcement: only the kernel itself says positive codes (si_code, `sigaction(2)`).
pub(super) fn is_announcement(signal: Signal, code: i32) -> bool {
    signal == BELL && code > 0
}
