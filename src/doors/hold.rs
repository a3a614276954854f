//! The door at which the processes of a run ask about their listening sockets, since a filter has them do so
//! (`seccomp_unotify(2)`).
//!
//! A process waits until its question is answered. Where the answer depends on the process's memory a copy of guard reads that,
//! and the door takes no other question of this run meanwhile: [`Hold::next`] gives [`Step::Reads`], its owner polls the report
//! instead of the questions, and calls [`Hold::memory_read`] when there is one. So a process whose memory cannot be read makes
//! its own run wait, for two tries of a second at most, and never guard.

use crate::config::Hold as Ports;
use crate::supervisor::RunId;
use crate::sys::caller::{self, Contents, Kind, Memory, Options, Socket};
use crate::sys::seccomp::{Answer, Call, Next, Question, Questions};
use crate::sys::{Errno, Pid};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Sockets of which guard remembers that they take IPv6 alone, or do not. They are forgotten in this order.
const MOST_REMEMBERED: usize = 64;

/// The questions of one run.
pub struct Hold {
    run: RunId,
    questions: Questions,
    /// What is held. Of a bind to another port guard learns no more than its address.
    ports: Ports,
    reading: Option<Reading>,
    /// A question that waits until guard can have a copy for it, and whether a copy has ended early for it already.
    postponed: Option<(Question, bool)>,
    /// What was set for a socket, by its inode (IPV6_V6ONLY, `ipv6(7)`).
    only_v6: VecDeque<(u64, bool)>,
}

/// A question whose answer waits for its caller's memory.
struct Reading {
    question: Question,
    socket: Socket,
    memory: Memory,
    /// A copy has ended early for this question before.
    is_last: bool,
}

/// A bind(2) of a TCP socket.
#[derive(Debug)]
pub struct Bind {
    pub socket: Socket,
    pub address: SocketAddr,
    pub only_v6: bool,
    /// accept(2) waits.
    pub waits: bool,
    pub close_on_exec: bool,
    /// What guard could read of the app's socket.
    pub options: Options,
    /// The app polls it already.
    pub polled: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// The owner answers.
    Bind(Question, Bind),
    /// listen(2) on a stream socket. The owner answers.
    Listen(Question, Socket),
    /// The question whether a stream socket listens already, which the kernel answers after the owner has.
    AcceptConn(Question, Socket),
    /// A copy of guard reads memory; see [`Hold::report`].
    Reads(Pid),
    /// There can be no copy now, or the first one has ended early. The owner calls [`Hold::next`] when there can, and polls
    /// nothing until then.
    Postponed,
    /// guard cannot look at who asks. The owner answers.
    Unreadable {
        question: Question,
        error: Errno,
    },
    /// A question was answered here, or withdrawn.
    Answered,
    Nothing,
    /// No process of the run lives.
    End,
}

impl Hold {
    pub fn new(run: RunId, questions: Questions, ports: Ports) -> Hold {
        Hold { run, questions, ports, reading: None, postponed: None, only_v6: VecDeque::new() }
    }

    pub fn run(&self) -> RunId {
        self.run
    }

    /// What to poll for questions.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.questions.as_fd()
    }

    /// What to poll instead while memory is read.
    pub fn report(&self) -> Option<BorrowedFd<'_>> {
        self.reading.as_ref().map(|reading| reading.memory.report.as_fd())
    }

    pub fn is_postponed(&self) -> bool {
        self.postponed.is_some()
    }

    /// Takes the next question, unless memory is read. With `may_copy` guard may have one more copy; where there can be none a
    /// question waits for one if `may_wait`, else it is [`Step::Unreadable`].
    pub fn next(&mut self, may_copy: bool, may_wait: bool) -> Step {
        if self.reading.is_some() {
            return Step::Nothing;
        }
        let (next, is_last) = match self.postponed.take() {
            Some((question, is_last)) => (Next::Question(question), is_last),
            None => (self.questions.next(), false),
        };
        let question = match next {
            Next::Question(question) => question,
            Next::Withdrawn => return Step::Answered,
            Next::Nothing => return Step::Nothing,
            Next::End => return Step::End,
        };
        let socket = match caller::socket_of(question.caller, question.socket) {
            Ok(Some(socket)) => socket,
            Ok(None) => return self.go_on(&question),
            // Guard may have a descriptor or memory for it in a moment.
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) if may_wait => {
                self.postponed = Some((question, is_last));
                return Step::Postponed;
            }
            Err(error) => return Step::Unreadable { question, error },
        };
        let (address, length) = match (question.call, socket.kind) {
            (Call::Listen, Kind::Tcp { .. } | Kind::Stream) => return Step::Listen(question, socket),
            (Call::AcceptConn, Kind::Tcp { .. } | Kind::Stream) => return Step::AcceptConn(question, socket),
            (Call::Bind { address, length }, Kind::Tcp { .. }) => (address, length),
            (Call::OnlyV6 { value, length }, Kind::Tcp { v6: true }) => (value, length),
            (Call::Listen | Call::AcceptConn | Call::Bind { .. } | Call::OnlyV6 { .. }, _) => {
                return self.go_on(&question);
            }
        };
        // The kernel takes an int, and refuses an address that is longer than any can be (`struct sockaddr_storage`).
        let length = usize::try_from(length as i32).unwrap_or(0);
        if !(1..=128).contains(&length) {
            return self.go_on(&question);
        }
        let length = length.min(caller::LONGEST);
        let is_held = |bytes: &[u8]| match (question.call, socket.kind) {
            (Call::Bind { .. }, Kind::Tcp { v6 }) => {
                caller::address(bytes, v6).is_some_and(|address| self.ports.contains(address.port()))
            }
            (Call::Bind { .. } | Call::Listen | Call::AcceptConn | Call::OnlyV6 { .. }, _) => false,
        };
        let asks = caller::Asks { pid: question.caller, number: question.socket, inode: socket.inode };
        let read = || caller::read_memory(asks, address, length, &is_held).ok();
        match may_copy.then(read).flatten() {
            Some(memory) => {
                let copy = memory.copy;
                self.reading = Some(Reading { question, socket, memory, is_last });
                Step::Reads(copy)
            }
            None if may_wait => {
                self.postponed = Some((question, is_last));
                Step::Postponed
            }
            None => Step::Unreadable { question, error: Errno::EAGAIN },
        }
    }

    /// The copy has read what was needed, or has ended without.
    pub fn memory_read(&mut self) -> Step {
        let Some(Reading { question, socket, memory, is_last }) = self.reading.take() else { return Step::Nothing };
        let Contents { bytes, options, polled } = match memory.take() {
            Ok(read) => read,
            // The CPU is starved, perhaps. If the call went on the kernel would refuse an address that guard holds.
            Err(Errno::ETIMEDOUT) if !is_last => return self.postpone(question),
            Err(error) => return Step::Unreadable { question, error },
        };
        match (question.call, socket.kind) {
            (Call::Bind { .. }, Kind::Tcp { v6 }) => {
                let address = caller::address(&bytes, v6).filter(|address| address.port() != 0);
                let Some(address) = address else { return self.go_on(&question) };
                let (waits, close_on_exec) = match caller::flags_of(question.caller, question.socket) {
                    Ok(flags) => flags,
                    // The caller is gone, or has closed it.
                    Err(Errno::ENOENT | Errno::ESRCH) => return self.go_on(&question),
                    Err(_) if !is_last => return self.postpone(question),
                    Err(error) => return Step::Unreadable { question, error },
                };
                let only_v6 = v6 && self.takes_only_v6(socket.inode);
                // What was read is of somebody else with the same pid, if the caller waits no more.
                if !self.questions.is_waiting(&question) {
                    return Step::Answered;
                }
                Step::Bind(question, Bind { socket, address, only_v6, waits, close_on_exec, options, polled })
            }
            (Call::OnlyV6 { .. }, _) => {
                if let Some(&bytes) = bytes.first_chunk::<4>() {
                    self.only_v6.retain(|(inode, _)| *inode != socket.inode);
                    self.only_v6.truncate(MOST_REMEMBERED - 1);
                    self.only_v6.push_front((socket.inode, i32::from_ne_bytes(bytes) != 0));
                }
                self.go_on(&question)
            }
            (Call::Bind { .. } | Call::Listen | Call::AcceptConn, _) => self.go_on(&question),
        }
    }

    /// The question is tried once more.
    fn postpone(&mut self, question: Question) -> Step {
        self.postponed = Some((question, true));
        Step::Postponed
    }

    fn takes_only_v6(&self, inode: u64) -> bool {
        let set = self.only_v6.iter().find(|(of, _)| *of == inode);
        set.map_or_else(caller::only_v6_by_default, |(_, only)| *only)
    }

    fn go_on(&self, question: &Question) -> Step {
        self.answer(question, Answer::GoOn);
        Step::Answered
    }

    /// Puts a duplicate of a socket of guard's in the place of the caller's.
    pub fn replace(&self, question: &Question, socket: BorrowedFd, close_on_exec: bool) -> Result<(), Errno> {
        self.questions.replace(question, socket, close_on_exec)
    }

    /// Whether who asks still waits.
    pub fn is_waiting(&self, question: &Question) -> bool {
        self.questions.is_waiting(question)
    }

    /// Answers. Where nobody waits any more there is nothing to do.
    pub fn answer(&self, question: &Question, answer: Answer) {
        let _ = self.questions.answer(question, answer);
    }
}
