//! Taking signals: TERM and INT through signal-hook, all others, real-time ones included, as they are, blocked.
//!
//! A handler per signal would cost a millisecond at the start, and a handler for CHLD two system calls for each orphan;
//! and neither signal-hook nor nix takes every number.

use super::poll::{Poll, Token};
use super::signal_io::{BELL, announce, is_announcement};
use super::signal_set::{SignalSet, change_mask};
use super::{Errno, Pid, process, socket};
use crate::signal::Signal;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::time::TimeSpec;
use signal_hook::low_level::pipe;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null;
use std::time::Duration;

/// The signals that signal-hook carries.
const HANDLED: [Signal; 2] = [Signal::TERM, Signal::INT];

/// What a poll knows them by.
const TOKENS: [Token; 2] = [Token::MAX, Token::MAX - 1];

/// Children that are reaped while guard waits for something else, since nobody asks how they have ended.
#[derive(Clone, Copy)]
pub struct Orphans {
    /// All but this one.
    pub but: Pid,
    /// The wait ends after so many.
    pub most: u32,
}

/// Where signals come in. There is one for the whole process.
pub struct Signals {
    /// Each handled signal with the pipe that its handler writes to.
    handled: [(Signal, File); 2],
    /// All but the handled ones, which stay blocked.
    rest: SignalSet,
    /// The descriptor for those (`signalfd(2)`).
    descriptor: File,
    /// guard's own pid, which its own SIGPIPE and SIGXFSZ name as the sender.
    own: Pid,
    /// Those that were taken, in no particular order.
    taken: VecDeque<Signal>,
    /// What was taken may have come after something happened to a child.
    child_news: bool,
    /// A descriptor may have announced itself.
    bell: bool,
    /// Orphans that were reaped while guard waited.
    reaped: u32,
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
            libc::syscall(libc::SYS_signalfd4, -1, &raw const rest, size_of::<SignalSet>(), flags)
        };
        let descriptor = Errno::result(libc::c_int::try_from(descriptor).unwrap_or(-1))?;
        // SAFETY: the descriptor is new, and nobody else's.
        let descriptor = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        for ((_, pipe), token) in handled.iter().zip(TOKENS) {
            poll.add(pipe.as_fd(), token)?;
        }
        change_mask(libc::SIG_SETMASK, rest);
        let (own, taken) = (process::id(), VecDeque::new());
        Ok(Signals { handled, rest, descriptor, own, taken, child_news: false, bell: false, reaped: 0 })
    }

    /// Whether descriptors announce themselves by signals here, which not every sandbox lets them do: tried with a socket
    /// and a pipe.
    pub fn tell_of_descriptors(&mut self) -> bool {
        [socket::channel(), socket::pipe()].into_iter().all(|pair| {
            let Ok((reader, writer)) = pair else { return false };
            let written = announce(reader.as_fd()).and_then(|()| nix::unistd::write(&writer, b"!"));
            // In this order, since the other's end would be announced too.
            drop(reader);
            let Ok(Some(info)) = next_of(SignalSet::EMPTY.with(BELL), Some(Duration::ZERO)) else { return false };
            let announced = is_announcement(BELL, info.code);
            if !announced {
                self.sort(&info);
            }
            written.is_ok() && announced
        })
    }

    /// Waits until a signal comes or no time is left, and takes all that are there; one that has come alone and that `pass`
    /// deals with is not taken. `true` if a descriptor may have announced itself. An error where this cannot be waited for.
    ///
    /// Orphans that end meanwhile are reaped, and the wait goes on: what is `left` is asked anew. That is all that is done for
    /// one, so that it costs no more than it must.
    pub fn wait(
        &mut self,
        left: impl Fn() -> Option<Duration>,
        orphans: Option<Orphans>,
        pass: impl FnOnce(Signal) -> bool,
    ) -> Result<bool, Errno> {
        let info = loop {
            let info = match next_of(self.rest, left()) {
                Ok(Some(info)) => info,
                Ok(None) => return Ok(false),
                // A handler has just written to its pipe, or guard was stopped for a while: there may be anything.
                Err(Errno::EINTR) => {
                    self.take_rest();
                    self.bell = false;
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            let Some(Orphans { but, most }) = orphans else { break info };
            if !info.ended().is_some_and(|pid| pid != but && process::reap(pid)) {
                break info;
            }
            self.reaped += 1;
            // What comes after SIGCHLD (`signal(7)`) is to have its turn.
            if self.reaped >= most || process::has_news() {
                break info;
            }
        };
        let alone = pending() == SignalSet::EMPTY;
        if !(alone && self.meaning(&info).is_some_and(pass)) {
            self.sort(&info);
        }
        if !alone {
            self.take_rest();
        }
        Ok(std::mem::take(&mut self.bell))
    }

    /// Waits until a signal comes, a poll has something or the time is over, and takes some of the signals that are there.
    /// `true` if the poll may have something, be it that a descriptor announced itself only after the wait: the next wait may
    /// be for signals alone, and that one is taken.
    pub fn wait_beside(&mut self, poll: &Poll, timeout: PollTimeout) -> bool {
        let both = [self.descriptor.as_fd(), poll.as_fd()];
        let mut both = both.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        // An error may be that a handler has just written to its pipe.
        let news = nix::poll::poll(&mut both, timeout).map(|_| both.map(|one| one.any().unwrap_or(true)));
        let [signals, others] = news.unwrap_or([true, true]);
        if signals {
            self.take_rest();
        }
        others | std::mem::take(&mut self.bell)
    }

    /// Takes the signal behind this token, if it is one of theirs. `false` if the token is not theirs.
    pub fn take(&mut self, token: Token) -> bool {
        let Some(index) = TOKENS.iter().position(|&own| own == token) else { return false };
        let (signal, pipe) = &mut self.handled[index];
        if pipe.read(&mut [0; 64]).is_ok() {
            self.taken.push_back(*signal);
        }
        // SIGCHLD comes another way, and may be on it.
        self.child_news = true;
        true
    }

    /// The next of those that were taken, without SIGCHLD and what guard's own writes have brought.
    pub fn pop(&mut self) -> Option<Signal> {
        self.taken.pop_front()
    }

    /// Whether some were taken.
    pub fn any(&self) -> bool {
        !self.taken.is_empty()
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

    /// How many orphans the waits since this was last asked have reaped, each of which had woken guard.
    pub fn reaped(&mut self) -> u32 {
        std::mem::take(&mut self.reaped)
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

    /// Takes what is there, up to a bound.
    fn take_rest(&mut self) {
        const AT_ONCE: usize = 8;
        const MOST_READS: usize = 16;
        let mut infos = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; AT_ONCE];
        for _ in 0..MOST_READS {
            // SAFETY: read(2) writes at most the size of the array, in whole records.
            let count =
                unsafe { libc::read(self.descriptor.as_raw_fd(), infos.as_mut_ptr().cast(), size_of_val(&infos)) };
            let records = usize::try_from(count).unwrap_or(0) / size_of::<libc::signalfd_siginfo>();
            for info in &infos[..records] {
                // SAFETY: so many records were written.
                let info = unsafe { info.assume_init_ref() };
                // The kernel has both as signed numbers too.
                let [number, pid] = [info.ssi_signo, info.ssi_pid].map(|number| number as i32);
                self.sort(&Info { number, code: info.ssi_code, pid });
            }
            if records < AT_ONCE {
                return;
            }
        }
        // There may be more, SIGCHLD among them.
        self.child_news = true;
    }

    fn sort(&mut self, info: &Info) {
        match Signal::from_number(info.number) {
            Some(Signal::CHLD) => self.child_news = true,
            Some(signal) if is_announcement(signal, info.code) => self.bell = true,
            Some(signal) => {
                // Without memory the kernel does not say what it is about.
                self.bell |= signal == BELL;
                self.taken.extend(self.meaning(info));
            }
            None => {}
        }
    }

    /// The signal that came, unless it is for guard alone to know.
    fn meaning(&self, info: &Info) -> Option<Signal> {
        let own = |signal| match signal {
            Signal::CHLD => true,
            Signal::PIPE | Signal::XFSZ => info.pid == self.own,
            _ => is_announcement(signal, info.code),
        };
        Signal::from_number(info.number).filter(|&signal| !own(signal))
    }
}

/// What is known of a signal that came (siginfo_t, `sigaction(2)`).
struct Info {
    number: i32,
    code: i32,
    /// Whoever sent it, where that was a process, or has ended.
    pid: Pid,
}

impl Info {
    /// The child that has ended.
    fn ended(&self) -> Option<Pid> {
        let ended = matches!(self.code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED);
        (self.number == libc::SIGCHLD && ended).then_some(self.pid)
    }
}

/// Takes a blocked signal of this set as soon as there is one; `None` if none came in time (`rt_sigtimedwait(2)`).
fn next_of(set: SignalSet, timeout: Option<Duration>) -> Result<Option<Info>, Errno> {
    // The structure has seconds with a sign.
    let timeout = timeout.map(|timeout| TimeSpec::from(timeout.min(Duration::from_secs(i32::MAX as u64))));
    let timeout = timeout.as_ref().map_or(null(), |timeout| &raw const *timeout.as_ref());
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    // SAFETY: rt_sigtimedwait(2) reads a set of this size and a time, and writes what is known of a signal that it returns.
    let info = unsafe {
        let (set, size) = (&raw const set, size_of::<SignalSet>());
        match libc::syscall(libc::SYS_rt_sigtimedwait, set, info.as_mut_ptr(), timeout, size) {
            -1 => Err(Errno::last()),
            _ => Ok(info.assume_init_ref()),
        }
    };
    match info {
        // SAFETY: the kernel fills in all of the structure; where the signal has no sender, this is a number as well.
        Ok(info) => Ok(Some(Info { number: info.si_signo, code: info.si_code, pid: unsafe { info.si_pid() } })),
        Err(Errno::EAGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The signals that have come and were not taken (`sigpending(2)`); where that is not told, all.
fn pending() -> SignalSet {
    let mut set = SignalSet::FULL;
    // SAFETY: rt_sigpending(2) writes a set of this size.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, size_of::<SignalSet>()) };
    set
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A signal for this thread alone, with a code that only the kernel or the process itself may give it.
    fn raise(signal: Signal, code: i32) {
        // SAFETY: it is plain data, for which all zeros is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        (info.si_signo, info.si_code) = (signal.number().into(), code);
        // SAFETY: rt_tgsigqueueinfo(2) reads one such structure.
        let result = unsafe {
            let (process, thread, number) = (process::id(), libc::gettid(), libc::c_int::from(signal.number()));
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, number, &raw const info)
        };
        assert_eq!(result, 0);
    }

    fn taken(signals: &mut Signals) -> Vec<Signal> {
        std::iter::from_fn(|| signals.pop()).collect()
    }

    /// One after the other, since there is one [`Signals`] for the whole process.
    #[test]
    fn no_announcement_is_lost() {
        const POLL_IN: i32 = 1;
        let nothing = Poll::new().expect("a poll");
        let mut signals = Signals::new(&nothing).expect("signals");
        let at_once = || Some(Duration::ZERO);
        // It came after the poll had nothing, and before the signals were taken.
        raise(Signal::CONT, libc::SI_TKILL);
        raise(BELL, POLL_IN);
        assert!(signals.wait_beside(&nothing, PollTimeout::ZERO));
        assert_eq!(taken(&mut signals), [Signal::CONT]);
        // Without memory the kernel says no more than this of its own.
        raise(BELL, libc::SI_USER);
        assert_eq!(signals.wait(at_once, None, |_| false), Ok(true));
        assert_eq!(taken(&mut signals), [BELL]);
        assert_eq!(signals.wait(at_once, None, |_| false), Ok(false));
    }
}
