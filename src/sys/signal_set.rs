//! Sets of signals, and the mask of the thread, with every number that the kernel has (`signal(7)`).

use crate::signal::Signal;

/// A set of signals, as the kernel has it: bit n - 1 is signal n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct SignalSet(u64);

impl SignalSet {
    pub const EMPTY: SignalSet = SignalSet(0);
    pub const FULL: SignalSet = SignalSet(u64::MAX);

    /// The set whose kernel form this is.
    pub fn from_bits(bits: u64) -> SignalSet {
        SignalSet(bits)
    }

    /// The kernel's form.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// This set and `signal`.
    #[must_use]
    pub fn with(self, signal: Signal) -> SignalSet {
        SignalSet(self.0 | 1 << (signal.number() - 1))
    }

    /// This set without the signals of `other`.
    #[must_use]
    pub fn without(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 & !other.0)
    }

    /// Whether `signal` is in it.
    pub fn contains(self, signal: Signal) -> bool {
        self.0 & 1 << (signal.number() - 1) != 0
    }
}

/// The blocked signals that have come and that nobody has taken (`sigpending(2)`).
pub(super) fn pending() -> SignalSet {
    let mut set = SignalSet::EMPTY;
    // SAFETY: rt_sigpending(2) writes one 64-bit set.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, size_of::<SignalSet>()) };
    set
}

/// Changes the mask of the calling thread and returns the old one. The C library's own function leaves the signals that
/// it keeps for itself (32 to 34) as they are.
pub(super) fn change_mask(how: libc::c_int, set: SignalSet) -> SignalSet {
    let mut old = SignalSet::EMPTY;
    // SAFETY: rt_sigprocmask(2) reads one 64-bit set and writes another; with these arguments it cannot fail.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut old, size_of::<SignalSet>());
    }
    old
}
