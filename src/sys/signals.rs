//! Taking signals: TERM and INT through signal-hook, all others, real-time ones included, from one signalfd.
//!
//! A handler per signal would cost a millisecond at the start, and a handler for CHLD two system calls for each orphan;
//! and neither signal-hook nor nix takes every number.

use super::poll::{Poll, Token};
use super::{Errno, Pid};
use crate::config::signal::Signal;
use signal_hook::low_level::pipe;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// A set of signals, as the kernel has it: bit n - 1 is signal n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Changes the mask of the calling thread and returns the old one. The C library's own function leaves the signals that
/// it keeps for itself (32 to 34) as they are.
pub(super) fn change_mask(how: libc::c_int, set: SignalSet) -> SignalSet {
    let mut old = SignalSet::EMPTY;
    // SAFETY: rt_sigprocmask(2) reads one 64-bit set and writes another; with these arguments it cannot fail.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set.0, &raw mut old.0, size_of::<u64>());
    }
    old
}

/// The signals that signal-hook carries.
const HANDLED: [Signal; 2] = [Signal::TERM, Signal::INT];

/// What a poll knows them by: the signalfd, then each of [`HANDLED`].
const TOKENS: [Token; 3] = [Token::MAX, Token::MAX - 1, Token::MAX - 2];

/// Where signals come in. There is one for the whole process.
pub struct Signals {
    /// Each handled signal with the pipe that its handler writes to.
    handled: [(Signal, File); 2],
    /// The rest: a signalfd (`signalfd(2)`).
    rest: File,
    /// guard's own pid, which its own SIGPIPE names as the sender.
    own: u32,
    /// Those that were taken, in no particular order.
    taken: VecDeque<Signal>,
    /// What was taken may have come after something happened to a child.
    child_news: bool,
}

impl Signals {
    /// Takes over every signal that can be taken; errors are those of the calls that make descriptors.
    pub fn new(poll: &Poll) -> io::Result<Signals> {
        // With an inherited SIG_IGN the kernel itself would reap, and guard would never hear of it (`wait(2)`).
        // SAFETY: signal(2) with this constant installs no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let [term, int] = HANDLED;
        let handled = [(term, pipe_of(term)?), (int, pipe_of(int)?)];
        let rest = SignalSet::FULL.without(HANDLED.into_iter().fold(SignalSet::EMPTY, SignalSet::with));
        // SAFETY: signalfd4(2) reads one 64-bit set and returns a new descriptor or -1.
        let descriptor = unsafe {
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            libc::syscall(libc::SYS_signalfd4, -1, &raw const rest.0, size_of::<u64>(), flags)
        };
        let descriptor = Errno::result(libc::c_int::try_from(descriptor).unwrap_or(-1))?;
        // SAFETY: the descriptor is new, and nobody else's.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        let [(_, term), (_, int)] = &handled;
        for (file, token) in [&file, term, int].into_iter().zip(TOKENS) {
            poll.add(file.as_fd(), token)?;
        }
        change_mask(libc::SIG_SETMASK, rest);
        Ok(Signals { handled, rest: file, own: std::process::id(), taken: VecDeque::new(), child_news: false })
    }

    /// Takes the signals behind this token, if it is one of theirs: at most a few. `false` if the token is not theirs.
    pub fn take(&mut self, token: Token) -> bool {
        match TOKENS.iter().position(|&own| own == token) {
            Some(0) => self.take_rest(),
            Some(index) => {
                let (signal, pipe) = &mut self.handled[index - 1];
                if pipe.read(&mut [0; 64]).is_ok() {
                    self.taken.push_back(*signal);
                }
                // SIGCHLD comes another way, and may be on it.
                self.child_news = true;
            }
            None => return false,
        }
        true
    }

    /// The next of those that were taken, without SIGCHLD and guard's own SIGPIPE.
    pub fn pop(&mut self) -> Option<Signal> {
        self.taken.pop_front()
    }

    /// Whether a child may have ended or stopped before what was taken since this was last asked.
    pub fn child_news(&mut self) -> bool {
        std::mem::take(&mut self.child_news)
    }

    /// What [`Signals::child_news`] would say; it is not asked by this.
    pub fn has_child_news(&self) -> bool {
        self.child_news
    }

    /// There is more to learn of children than was, and no signal may tell.
    pub fn expect_child_news(&mut self) {
        self.child_news = true;
    }

    /// Lets SIGCHLD come to nothing, so that it wakes nobody.
    pub fn ignore_children(&mut self) {
        change_mask(libc::SIG_UNBLOCK, SignalSet::EMPTY.with(Signal::CHLD));
    }

    /// Takes SIGCHLD again, after [`Signals::ignore_children`]. Nothing will tell of a child that has ended meanwhile.
    pub fn heed_children(&mut self) {
        change_mask(libc::SIG_BLOCK, SignalSet::EMPTY.with(Signal::CHLD));
        self.expect_child_news();
    }

    fn take_rest(&mut self) {
        const AT_ONCE: usize = 8;
        let mut infos = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; AT_ONCE];
        // SAFETY: read(2) writes at most the size of the array, in whole records.
        let count = unsafe { libc::read(self.rest.as_raw_fd(), infos.as_mut_ptr().cast(), size_of_val(&infos)) };
        let records = usize::try_from(count).unwrap_or(0) / size_of::<libc::signalfd_siginfo>();
        // There may be more.
        self.child_news |= records == AT_ONCE;
        for info in &infos[..records] {
            // SAFETY: so many records were written.
            let info = unsafe { info.assume_init_ref() };
            match i32::try_from(info.ssi_signo).ok().and_then(Signal::from_number) {
                Some(Signal::CHLD) => self.child_news = true,
                Some(Signal::PIPE) if info.ssi_pid == self.own => {}
                signal => self.taken.extend(signal),
            }
        }
    }
}

/// Has every delivery of a signal write to a pipe, and returns the end to read.
fn pipe_of(signal: Signal) -> io::Result<File> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?;
    pipe::register(signal.number().into(), writer)?;
    Ok(File::from(reader))
}

/// Sends a signal to a process (`kill(2)`).
pub fn send(pid: Pid, signal: Signal) -> Result<(), Errno> {
    // SAFETY: kill(2) takes any numbers.
    Errno::result(unsafe { libc::kill(pid, signal.number().into()) }).map(drop)
}

/// Sends a signal to every process of a group (`kill(2)`).
pub fn send_to_group(group: Pid, signal: Signal) -> Result<(), Errno> {
    send(-group, signal)
}

/// Whether a process of this group is there, a zombie included (`kill(2)`, signal 0).
pub fn group_lives(group: Pid) -> bool {
    // SAFETY: as above.
    Errno::result(unsafe { libc::kill(-group, 0) }) != Err(Errno::ESRCH)
}

/// SIGKILL to every process that guard may signal, in its whole PID namespace but itself (`kill(2)`, pid -1).
/// For PID 1 only. Says nothing of who is left.
pub fn kill_all() {
    let _ = send(-1, Signal::KILL);
}
