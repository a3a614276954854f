//! What the kernel does with a signal that nobody handles (`sigaction(2)`), for every number that it has: the C library's wrapper
//! refuses the signals that it keeps for itself.

use crate::signal::Signal;
use std::ptr;

/// The kernel's own sigaction structure.
#[repr(C)]
struct Action {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

impl Action {
    fn with(handler: usize) -> Action {
        Action { handler, flags: 0, restorer: 0, mask: 0 }
    }
}

/// Whether guard ignores a signal.
pub(super) fn is_ignored(signal: Signal) -> bool {
    let mut old = Action::with(libc::SIG_DFL);
    // SAFETY: a null pointer changes nothing, and `old` is a structure of the kernel's layout.
    unsafe { change(signal, ptr::null(), &raw mut old) && old.handler == libc::SIG_IGN }
}

/// Throws away every instance of a blocked signal that is queued, which guard has no handler for. The kernel does so when a signal
/// becomes ignored, in one walk of the queue.
pub(super) fn discard_queued(signal: Signal) {
    for action in [libc::SIG_IGN, libc::SIG_DFL].map(Action::with) {
        // SAFETY: neither is a function that could be called.
        unsafe { change(signal, &raw const action, ptr::null_mut()) };
    }
}

/// # Safety
///
/// Each pointer is null or one to an [`Action`], whose handler is a constant or a handler.
unsafe fn change(signal: Signal, new: *const Action, old: *mut Action) -> bool {
    // SAFETY: rt_sigaction(2) reads and writes structures of this layout, as the caller promises.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, libc::c_int::from(signal.number()), new, old, size_of::<u64>()) == 0
    }
}
