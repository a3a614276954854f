//! The very beginning: guard has a `main` of the C library's kind. Rust's runtime would change SIGPIPE, fill closed descriptors and
//! install handlers before it called one of Rust's, and a signal that reaches PID 1 before it is blocked is lost for good.

use super::disposition::is_ignored;
use super::signal_set::{SignalSet, change_mask};
use crate::signal::Signal;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

static MASK: AtomicU64 = AtomicU64::new(0);
static IGNORED: AtomicU64 = AtomicU64::new(0);

/// The status flags of descriptors 0 to 2 (`F_GETFL`, `fcntl(2)`).
static FLAGS: [AtomicI32; 3] = [const { AtomicI32::new(CLOSED) }; 3];

const CLOSED: libc::c_int = -1;

/// The signals whose disposition guard changes, and sets back in a child. All others are left as they were.
pub(super) const CHANGED: [Signal; 2] = [Signal::PIPE, Signal::TERM];

/// What guard was started with, and what a child of its is to be started with.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// The signal mask.
    pub mask: SignalSet,
    /// Those of [`CHANGED`] whose disposition was SIG_IGN.
    pub ignored: SignalSet,
}

/// What was there at the beginning.
pub fn inherited() -> Inherited {
    Inherited {
        mask: SignalSet::from_bits(MASK.load(Ordering::Relaxed)),
        ignored: SignalSet::from_bits(IGNORED.load(Ordering::Relaxed)),
    }
}

/// Where the C library begins. The binary of the unit tests has a runtime of its own, which must stay interruptible.
///
/// # Safety
///
/// `argv` holds `argc` strings that are there until the end (`execve(2)`).
#[cfg(not(test))]
#[unsafe(no_mangle)]
unsafe extern "C" fn main(argc: libc::c_int, argv: *const *const libc::c_char) -> libc::c_int {
    begin();
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: as above.
    let argument = |index| unsafe { std::ffi::CStr::from_ptr(*argv.add(index)) }.to_bytes().to_vec();
    let arguments = (1..count).map(argument).map(std::os::unix::ffi::OsStringExt::from_vec).collect();
    crate::start(arguments).into()
}

#[cfg_attr(test, expect(dead_code))]
fn begin() {
    MASK.store(change_mask(libc::SIG_BLOCK, SignalSet::FULL).bits(), Ordering::Relaxed);
    let ignored = CHANGED.into_iter().filter(|&signal| is_ignored(signal));
    IGNORED.store(ignored.fold(SignalSet::EMPTY, SignalSet::with).bits(), Ordering::Relaxed);
    // A pipe that nobody reads is an error of write(2), and ends nobody.
    // SAFETY: signal(2) with one of its two constants installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    for (descriptor, flags) in (0..).zip(&FLAGS) {
        // SAFETY: fcntl(2) with this command takes any number.
        flags.store(unsafe { libc::fcntl(descriptor, libc::F_GETFL) }, Ordering::Relaxed);
        if flags.load(Ordering::Relaxed) == CLOSED {
            fill();
        }
    }
}

/// Gives the standard descriptors the status flags that guard found at its start. They belong to the open file, which guard,
/// its children and others share (`open(2)`), so an app that is killed leaves O_NONBLOCK behind.
pub fn restore_flags() {
    for (descriptor, flags) in (0..).zip(&FLAGS) {
        let found = flags.load(Ordering::Relaxed);
        // SAFETY: fcntl(2) with these commands takes integers.
        unsafe {
            if found != CLOSED && libc::fcntl(descriptor, libc::F_GETFL) != found {
                libc::fcntl(descriptor, libc::F_SETFL, found);
            }
        }
    }
}

/// Undoes the block, for a guard that runs no app and is to end like any program.
pub fn unblock_signals() {
    change_mask(libc::SIG_SETMASK, inherited().mask);
}

/// A standard descriptor that is closed would become one of guard's own. What fills it closes itself on exec, so the app
/// finds it closed as before.
fn fill() {
    // SAFETY: open(2) and epoll_create1(2) take a string and flags, and the descriptor that they return, the lowest that is
    // free, is meant to stay open.
    unsafe {
        if libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) == -1 {
            libc::epoll_create1(libc::EPOLL_CLOEXEC);
        }
    }
}
