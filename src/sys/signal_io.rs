//! Signal-driven I/O: a descriptor announces by a signal that there is something to read (O_ASYNC, `fcntl(2)`). Whoever
//! waits for signals need not wait for descriptors besides.

use super::{Errno, process};
use crate::config::signal::Signal;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The signal that announces. Real-time signals queue, so one of the same number that somebody sends is not lost among
/// them; and the last of them goes before no other (`signal(7)`).
pub(super) const BELL: Signal = Signal::RTMAX;

/// What the kernel sends instead where no more can be queued (F_SETSIG, `fcntl(2)`).
pub(super) const SPARE_BELL: Signal = Signal::IO;

/// <asm-generic/fcntl.h>
const F_SETSIG: libc::c_int = 10;

/// Has a socket or a pipe announce from now on that something has come, or that its other end was closed. The kernel does so
/// in the name of the user who asks for it here: after a change of user it is to be asked again.
pub(super) fn announce(descriptor: BorrowedFd) -> Result<(), Errno> {
    let (descriptor, on): (_, libc::c_int) = (descriptor.as_raw_fd(), 1);
    // SAFETY: fcntl(2) with these commands takes a number, and ioctl(2) with FIOASYNC reads one.
    unsafe {
        Errno::result(libc::fcntl(descriptor, libc::F_SETOWN, process::id()))?;
        Errno::result(libc::fcntl(descriptor, F_SETSIG, libc::c_int::from(BELL.number())))?;
        Errno::result(libc::ioctl(descriptor, libc::FIOASYNC, &raw const on)).map(drop)
    }
}

/// Whether a signal is an announcement: only the kernel itself says positive codes (si_code, `sigaction(2)`).
pub(super) fn is_announcement(signal: Signal, code: i32) -> bool {
    (signal == BELL || signal == SPARE_BELL) && code > 0
}
