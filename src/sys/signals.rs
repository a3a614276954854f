//! Taking signals: TERM through signal-hook, all others blocked and read from one descriptor (`signalfd(2)`).
//!
//! A handler for each signal would cost a millisecond at the start, and signal-hook and nix refuse some numbers. INT is read
//! from the descriptor, since that says whether a key at the terminal has sent it.

use super::clock::cpu_time;
use super::disposition::discard_queued;
use super::poll::{Poll, Token, Tokens};
use super::signal_set::{SignalSet, change_mask, pending};
use super::{Errno, Pid, process};
use crate::signal::Signal;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use signal_hook::{flag, low_level::pipe};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The signal that signal-hook carries.
const HANDLED: Signal = Signal::TERM;

/// The tokens of the two descriptors in the poll.
const HANDLER_RAN: Token = Token::MAX;
const BLOCKED_CAME: Token = Token::MAX - 1;

/// The si_code of a SIGIO for room to write (`sigaction(2)`).
const POLL_OUT: i32 = 2;

/// What SIGCHLD tells of a process that has ended (`sigaction(2)`).
const HAS_ENDED: [i32; 3] = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED];

/// Signals that guard reads at most at a time, and the CPU time that it takes for that. The kernel walks through the whole queue for
/// each of them, and by default a user may queue some 100,000 (RLIMIT_SIGPENDING, `getrlimit(2)`).
const MOST: usize = 128;
const LONGEST: Duration = Duration::from_millis(20);

/// The first of the signals that queue (`signal(7)`).
const FIRST_REAL_TIME: i32 = 32;

/// Who has sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The kernel (a positive si_code, `sigaction(2)`), as for a key at the terminal.
    Kernel,
    /// A process of this PID namespace.
    Process(Pid),
    /// Another process, or nobody knows.
    Other,
}

/// What is left of the blocked signals after some were read.
#[derive(PartialEq, Eq)]
enum Rest {
    Nothing,
    More,
    /// To read so few has taken so long that the queue must be long.
    Flood,
}

/// The signals that guard gets. There is one value for the whole process.
///
/// After each wait its owner calls [`Signals::receive`], and then takes the signals with [`Signals::pop`].
pub struct Signals {
    /// The flag that the handler sets. It cannot be lost, as a write to the pipe could.
    handled: Arc<AtomicBool>,
    /// The handler writes to this pipe, which ends a wait.
    pipe: File,
    /// The descriptor for the blocked signals, which are all others.
    descriptor: File,
    /// guard's own pid, which its own SIGPIPE and SIGXFSZ name as the sender, and the SIGCONT that it sends to its group.
    own: Pid,
    received: VecDeque<(Signal, Sender)>,
    /// The descriptor was not read until it was empty.
    more: bool,
    /// SIGCHLD may have come since [`Signals::take_child_news`] was last called.
    child_news: bool,
    /// The process that the last SIGCHLD has told of, if it has ended.
    ended: Option<Pid>,
}

impl Signals {
    /// Takes over every signal that can be taken. Errors are those of the calls that make descriptors.
    pub fn new(poll: &Poll) -> io::Result<Signals> {
        // With an inherited SIG_IGN the kernel itself would reap, and guard would get no status (`wait(2)`).
        // SAFETY: signal(2) with this constant installs no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let handled = Arc::new(AtomicBool::new(false));
        // A handler keeps to the order of registration, so the flag is set when the wait ends.
        flag::register(HANDLED.number().into(), Arc::clone(&handled))?;
        pipe::register(HANDLED.number().into(), writer)?;
        let blocked = SignalSet::FULL.without(SignalSet::EMPTY.with(HANDLED));
        // SAFETY: signalfd4(2) reads one 64-bit set and returns a new descriptor or -1.
        let descriptor = unsafe {
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            libc::syscall(libc::SYS_signalfd4, -1, &raw const blocked, size_of::<SignalSet>(), flags)
        };
        let descriptor = Errno::result(libc::c_int::try_from(descriptor).unwrap_or(-1))?;
        // SAFETY: the descriptor is new, and nobody else's.
        let descriptor = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        poll.add(reader.as_fd(), HANDLER_RAN)?;
        poll.add_edge(descriptor.as_fd(), BLOCKED_CAME)?;
        change_mask(libc::SIG_SETMASK, blocked);
        let (pipe, own) = (File::from(reader), process::id());
        Ok(Signals {
            handled,
            pipe,
            descriptor,
            own,
            received: VecDeque::new(),
            more: false,
            child_news: false,
            ended: None,
        })
    }

    /// Receives signals after a wait that returned `tokens`: those that came before the wait ended, up to a bound.
    /// [`Signals::pop`] then has them, and [`Signals::take_child_news`] tells of SIGCHLD.
    pub fn receive(&mut self, tokens: &Tokens) {
        let came = |token| tokens.iter().any(|other| other == token);
        if came(HANDLER_RAN) {
            let _ = self.pipe.read(&mut [0; 64]);
        }
        // The flag comes first: a child that ended before a stop request is then known to have ended.
        let stop = self.receive_handled();
        if stop || self.more || came(BLOCKED_CAME) {
            let rest = self.read_blocked(|_| true);
            self.more = rest != Rest::Nothing;
            if rest == Rest::Flood {
                self.fold_queues(SignalSet::EMPTY);
            }
            // SIGCHLD may be among those that are left.
            self.child_news |= self.more;
        }
    }

    /// Receives every signal that is queued now, each number once. guard calls it when a main process has ended, so that
    /// no signal that was queued for that run reaches the next one.
    pub fn receive_all(&mut self) {
        self.receive_handled();
        let mut seen = SignalSet::EMPTY;
        let rest = self.read_blocked(|signal| {
            let is_new = !seen.contains(signal);
            seen = seen.with(signal);
            is_new
        });
        self.more = rest != Rest::Nothing;
        if self.more {
            self.fold_queues(seen);
        }
        self.child_news |= self.more;
    }

    /// Whether [`Signals::receive`] is to be called again though no token has come.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// The next signal that was received, without SIGCHLD and those that guard itself has caused or sent.
    pub fn pop(&mut self) -> Option<(Signal, Sender)> {
        self.received.pop_front()
    }

    /// Takes the signals of this list that this sender has sent, before their turn.
    pub fn take(&mut self, signals: &[Signal], sender: Sender) -> Vec<Signal> {
        let mut taken = Vec::new();
        self.received.retain(|(signal, by)| {
            let is_one = *by == sender && signals.contains(signal);
            taken.extend(is_one.then_some(*signal));
            !is_one
        });
        taken
    }

    /// Whether a child may have ended or stopped since this was last called.
    pub fn take_child_news(&mut self) -> bool {
        std::mem::take(&mut self.child_news)
    }

    /// Whether [`Signals::take_child_news`] would tell of a child, though no token comes any more.
    pub fn has_child_news(&self) -> bool {
        self.child_news
    }

    /// A process that has ended since this was last called. Others may have ended with it, since the kernel keeps one
    /// SIGCHLD at a time.
    pub fn take_ended(&mut self) -> Option<Pid> {
        self.ended.take()
    }

    /// Takes the flag of the handled signal; `true` if it was set.
    fn receive_handled(&mut self) -> bool {
        let is_set = self.handled.swap(false, Ordering::AcqRel);
        if is_set {
            self.received.push_back((HANDLED, Sender::Other));
        }
        is_set
    }

    /// Throws away what is queued of the real-time signals, and receives each number once, but for those that were seen.
    fn fold_queues(&mut self, seen: SignalSet) {
        let pending = pending();
        for signal in (FIRST_REAL_TIME..).map_while(Signal::from_number).filter(|signal| pending.contains(*signal)) {
            discard_queued(signal);
            if !seen.contains(signal) {
                self.received.push_back((signal, Sender::Other));
            }
        }
    }

    /// Reads blocked signals and keeps those that are wanted and not for guard alone.
    fn read_blocked(&mut self, mut wanted: impl FnMut(Signal) -> bool) -> Rest {
        const AT_ONCE: usize = 8;
        let mut infos = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; AT_ONCE];
        let mut begun = None;
        for _ in 0..MOST / AT_ONCE {
            // SAFETY: read(2) writes at most the size of the array, in whole records.
            let count =
                unsafe { libc::read(self.descriptor.as_raw_fd(), infos.as_mut_ptr().cast(), size_of_val(&infos)) };
            let records = usize::try_from(count).unwrap_or(0) / size_of::<libc::signalfd_siginfo>();
            for info in &infos[..records] {
                // SAFETY: so many records were written.
                let info = unsafe { info.assume_init_ref() };
                let sender = match Pid::try_from(info.ssi_pid) {
                    _ if info.ssi_code > 0 => Sender::Kernel,
                    Ok(pid @ 1..) => Sender::Process(pid),
                    Ok(_) | Err(_) => Sender::Other,
                };
                match i32::try_from(info.ssi_signo).ok().and_then(Signal::from_number) {
                    Some(Signal::CHLD) => {
                        self.child_news = true;
                        self.ended = Pid::try_from(info.ssi_pid).ok().filter(|_| HAS_ENDED.contains(&info.ssi_code));
                    }
                    Some(Signal::PIPE | Signal::XFSZ | Signal::CONT) if sender == Sender::Process(self.own) => {}
                    // There is room to write, which guard has not asked for.
                    Some(Signal::IO) if info.ssi_code == POLL_OUT => {}
                    Some(signal) if wanted(signal) => self.received.push_back((signal, sender)),
                    Some(_) | None => {}
                }
            }
            if records < AT_ONCE {
                return Rest::Nothing;
            }
            let now = cpu_time();
            if now.saturating_sub(*begun.get_or_insert(now)) >= LONGEST {
                return Rest::Flood;
            }
        }
        Rest::More
    }
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

/// Stops guard itself until it gets SIGCONT.
pub fn suspend() {
    let _ = send(process::id(), Signal::STOP);
}

/// Whether a process of this group is there, a zombie included (`kill(2)`, signal 0).
pub fn group_lives(group: Pid) -> bool {
    // SAFETY: as above.
    Errno::result(unsafe { libc::kill(-group, 0) }) != Err(Errno::ESRCH)
}

/// Signals every process that guard may signal, in its whole PID namespace but itself (`kill(2)`, pid -1), at one moment. For PID 1
/// only. Its result is no answer: it is 0 even where every process has refused.
pub fn send_to_all(signal: Signal) {
    let _ = send(-1, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_request_is_not_lost_where_the_handler_cannot_write() {
        let mut signals = Signals::new(&Poll::new().expect("a poll")).expect("signals");
        // Nobody reads the pipe any more.
        signals.pipe = File::open("/dev/null").expect("it is there");
        // SAFETY: raise(3) takes any number; TERM has a handler by now.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        signals.receive(&Tokens::none());
        assert_eq!(signals.pop(), Some((Signal::TERM, Sender::Other)));
        assert_eq!(signals.pop(), None);
    }
}
