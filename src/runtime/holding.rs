//! GUARD_HOLD: what an app that knows nothing of guard listens on is held (`seccomp_unotify(2)`).
//!
//! At the first bind(2) of an address guard makes a socket of its own, and puts a duplicate in the place of the app's. The next
//! run's bind gets another duplicate of the same socket. Such a socket is in one state:
//!
//! | state | what it means | left when |
//! | --- | --- | --- |
//! | bound | a run has bound it, none has listened yet | a run listens → served; the run ends, or connects it → it is closed |
//! | served | a run that lives listens | the last such run ends → waiting |
//! | waiting | clients wait in its queue | a run listens → served; the hold timeout → refusing |
//! | refusing | clients are refused, and the port is still guard's | a run listens → served; its place is needed → it is closed |
//!
//! guard's end lets go of all (`Action::Release`); from then on the kernel does what apps ask for.

use super::Runtime;
use super::doors::{DoorId, MOST_COPIES, RETRY};
use crate::config::{Hold as Ports, Readiness};
use crate::doors::hold::{Bind, Hold, Step};
use crate::report::status::HeldStatus;
use crate::supervisor::{Event, RunId, Timestamp};
use crate::sys::caller::{self, Kind, Socket};
use crate::sys::poll::Poll;
use crate::sys::seccomp::{Answer, Channel, Question};
use crate::sys::{Errno, listen};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Sockets that guard makes for apps. What is bound beyond that is the app's own.
const MOST_SOCKETS: usize = 1024;

/// Doors that stay open for what has outlived its run unseen, such as a daemon that has left its run.
const MOST_DOORS: usize = 64;

/// So long a bind waits for a copy of guard. The kernel would refuse it an address that guard holds.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Questions that are answered in a turn.
const QUESTIONS: usize = 16;

/// Why a filter cannot be had.
const REASONS: [(Errno, &str); 5] = [
    (Errno::EBUSY, "GUARD_HOLD: another filter asks already, such as an outer guard's; the app binds as ever"),
    (Errno::ENOSYS, "GUARD_HOLD: the kernel has no such filter; the app binds as ever"),
    (Errno::EINVAL, "GUARD_HOLD: the kernel has no such filter; the app binds as ever"),
    (Errno::EPERM, "GUARD_HOLD: a seccomp profile forbids it; the app binds as ever"),
    (Errno::EACCES, "GUARD_HOLD: a seccomp profile forbids it; the app binds as ever"),
];

/// What a socket is held by. A later run that binds the same gets the same socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// Its family is the socket's: an app of IPv4 would misread the peers of a socket of IPv6.
    address: SocketAddr,
    only_v6: bool,
}

/// A socket of guard's own of which apps have duplicates.
struct Caught {
    key: Key,
    socket: OwnedFd,
    inode: u64,
    /// The user that bound it last.
    owner: u32,
    /// The run that bound it last.
    bound_by: RunId,
    /// Runs that live and listen on it.
    listening: Vec<RunId>,
    /// A run has listened on it.
    held: bool,
    refuse_at: Option<Timestamp>,
    refusing: bool,
}

/// Everything about GUARD_HOLD.
pub(super) struct Holding {
    ports: Ports,
    timeout: Duration,
    /// Each for the run of its number, some of which are over.
    doors: Vec<Hold>,
    sockets: Vec<Caught>,
    /// Since then questions wait for a copy of guard.
    starved_since: Option<Timestamp>,
    /// The filter cannot be had, and the core does not know yet.
    failed: bool,
    /// The log says that the app binds what GUARD_HOLD does not name.
    told: bool,
    /// The log says that guard may not look at an app's sockets.
    blind: bool,
    /// The log says that an app polls a socket which is not bound.
    polled: bool,
}

impl Holding {
    pub(super) fn new(ports: Ports, timeout: Duration) -> Holding {
        Holding {
            ports,
            timeout,
            doors: Vec::new(),
            sockets: Vec::new(),
            starved_since: None,
            failed: false,
            told: false,
            blind: false,
            polled: false,
        }
    }

    /// Whether a run is to have the filter.
    pub(super) fn is_on(&self) -> bool {
        self.ports != Ports::Off
    }

    pub(super) fn take_failure(&mut self) -> Option<Event> {
        std::mem::take(&mut self.failed).then_some(Event::CannotHold)
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.sockets.iter().filter_map(|caught| caught.refuse_at).min()
    }

    /// Queues whose time is over refuse their clients.
    pub(super) fn timer_elapsed(&mut self, now: Timestamp) {
        for caught in self.sockets.iter_mut().filter(|caught| caught.refuse_at.is_some_and(|at| at <= now)) {
            (caught.refuse_at, caught.refusing) = (None, true);
            listen::refuse(caught.socket.as_fd());
            log::warn!(address:% = caught.key.address, msg = "nobody has listened for GUARD_HOLD_TIMEOUT: clients are refused"; "not-held");
        }
    }

    /// The main process of a run has ended.
    pub(super) fn run_ended(&mut self, run: RunId, now: Timestamp, poll: &Poll) {
        self.keep(|caught| caught.held || caught.bound_by != run, poll);
        for caught in self.sockets.iter_mut().filter(|caught| caught.held && !caught.refusing) {
            // The run may have shut it down.
            let _ = listen::listen(caught.socket.as_fd());
            caught.listening.retain(|other| *other != run);
            if caught.listening.is_empty() && caught.refuse_at.is_none() {
                caught.refuse_at = Some(now.after(self.timeout));
            }
        }
    }

    /// Lets go of all.
    pub(super) fn release(&mut self, poll: &Poll) {
        self.ports = Ports::Off;
        self.keep(|_| false, poll);
    }

    /// There is no way to hold anything.
    fn give_up(&mut self, poll: &Poll) {
        self.release(poll);
        self.failed = true;
    }

    /// Lets go of the sockets that an app has bound and connected: guard must not keep a connection open that the app closes.
    pub(super) fn let_clients_go(&mut self, poll: &Poll) {
        self.keep(|caught| caught.held || listen::is_unconnected(caught.socket.as_fd()), poll);
    }

    /// Closes a socket. Where the app has a duplicate the poll would go on with it.
    fn close(&mut self, index: usize, poll: &Poll) {
        poll.remove(self.sockets[index].socket.as_fd());
        self.sockets.remove(index);
    }

    fn keep(&mut self, is_kept: impl Fn(&Caught) -> bool, poll: &Poll) {
        let closed = self.sockets.iter().filter(|caught| !is_kept(caught) && !caught.held);
        closed.for_each(|caught| poll.remove(caught.socket.as_fd()));
        self.sockets.retain(is_kept);
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = HeldStatus> {
        self.sockets.iter().filter(|caught| caught.held).map(|caught| HeldStatus {
            address: caught.key.address.to_string(),
            name: None,
            queue: listen::queue(caught.socket.as_fd()),
            refusing: caught.refusing,
        })
    }

    fn door(&self, run: RunId) -> Option<&Hold> {
        self.doors.iter().find(|door| door.run() == run)
    }

    fn door_mut(&mut self, run: RunId) -> Option<&mut Hold> {
        self.doors.iter_mut().find(|door| door.run() == run)
    }

    /// Whether a run asks guard when it listens.
    pub(super) fn hears(&self, run: RunId) -> bool {
        self.door(run).is_some()
    }

    fn wants(&self, port: u16) -> bool {
        port != 0
            && match &self.ports {
                Ports::Off => false,
                Ports::All => true,
                Ports::These(ports) => ports.contains(&port),
            }
    }

    /// The socket of guard's that a bind gets. The error is the answer.
    fn socket_for(&mut self, run: RunId, question: &Question, bind: &Bind, poll: &Poll) -> Result<usize, Answer> {
        let key = Key { address: bind.address, only_v6: bind.only_v6 };
        if !self.wants(key.address.port()) {
            let is_named = self.sockets.is_empty() && key.address.port() != 0 && matches!(self.ports, Ports::These(_));
            if is_named && !std::mem::replace(&mut self.told, true) {
                log::info!(address:% = key.address, msg = "GUARD_HOLD names other ports"; "not-held");
            }
            return Err(Answer::GoOn);
        }
        if let Some(caught) = self.sockets.iter().find(|caught| caught.inode == bind.socket.inode) {
            // A signal has interrupted the bind after guard did its part, and it is tried again.
            return Err(if caught.key == key { Answer::Done } else { Answer::GoOn });
        }
        if bind.polled {
            if !std::mem::replace(&mut self.polled, true) {
                log::warn!(address:% = key.address, msg = "GUARD_HOLD: the app polls its socket before it binds it, and would miss the clients of another in its place; it binds as ever"; "not-held");
            }
            return Err(Answer::GoOn);
        }
        if !caller::shares_network(question.caller) || !caller::may_bind(question.caller, key.address.port()) {
            return Err(Answer::GoOn);
        }
        if let Some(index) = self.sockets.iter().position(|caught| caught.key == key) {
            let caught = &mut self.sockets[index];
            if caught.owner != bind.socket.owner && !caught.listening.is_empty() {
                // A worker without privileges is not to take the clients of the app that it belongs to.
                return Err(Answer::Failed(Errno::EADDRINUSE));
            }
            caught.owner = bind.socket.owner;
            if caught.held || listen::is_unconnected(caught.socket.as_fd()) {
                caught.bound_by = run;
                return Ok(index);
            }
            self.close(index, poll);
        }
        if self.sockets.len() >= MOST_SOCKETS {
            let unused = self.sockets.iter().position(|caught| caught.refusing).ok_or(Answer::GoOn)?;
            self.close(unused, poll);
        }
        let socket = listen::bind_as(key.address, key.only_v6, bind.multipath, |socket| bind.options.give_to(socket))
            .and_then(listen::spare);
        // What guard cannot do for other reasons the app may.
        const ITS_OWN: [Errno; 3] = [Errno::EADDRINUSE, Errno::EADDRNOTAVAIL, Errno::EACCES];
        let socket =
            socket.map_err(|error| if ITS_OWN.contains(&error) { Answer::Failed(error) } else { Answer::GoOn })?;
        let inode = listen::inode(socket.as_fd()).ok_or(Answer::GoOn)?;
        // Guard may not hold the connection of a client open that has bound its end.
        poll.add_for_changes(socket.as_fd(), DoorId::Bound.token()).map_err(|_| Answer::GoOn)?;
        self.sockets.push(Caught {
            key,
            socket,
            inode,
            owner: bind.socket.owner,
            bound_by: run,
            listening: Vec::new(),
            held: false,
            refuse_at: None,
            refusing: false,
        });
        Ok(self.sockets.len() - 1)
    }

    fn bind(&mut self, run: RunId, question: &Question, bind: &Bind, poll: &Poll) -> Answer {
        let index = match self.socket_for(run, question, bind, poll) {
            Ok(index) => index,
            Err(answer) => return answer,
        };
        let caught = &self.sockets[index];
        // All duplicates share this, and a run that listens already has it as it wants it.
        if caught.listening.is_empty() || !bind.waits {
            listen::set_waiting(caught.socket.as_fd(), bind.waits);
        }
        let replaced = self.door(run).map(|door| door.replace(question, caught.socket.as_fd(), bind.close_on_exec));
        match replaced {
            Some(Ok(())) => Answer::Done,
            Some(Err(_)) | None => {
                // Who asked is gone, or the kernel is older than 5.9.
                if !caught.held {
                    self.close(index, poll);
                }
                Answer::GoOn
            }
        }
    }

    /// Answers a listen(2). The kernel would make the queue shorter than it can be.
    fn listen(&mut self, run: RunId, lives: bool, socket: Socket, poll: &Poll) -> Answer {
        let Some(caught) = self.sockets.iter_mut().find(|caught| caught.inode == socket.inode) else {
            return Answer::GoOn;
        };
        if let Err(error) = listen::listen(caught.socket.as_fd()) {
            return Answer::Failed(error);
        }
        if lives {
            caught.refuse_at = None;
            if !caught.listening.contains(&run) {
                caught.listening.push(run);
            }
        }
        if !std::mem::replace(&mut caught.held, true) {
            // Each client would wake guard.
            poll.remove(caught.socket.as_fd());
            log::info!(address:% = caught.key.address, run = run.number; "held");
        } else if caught.refusing {
            log::info!(address:% = caught.key.address, run = run.number; "held-again");
        }
        caught.refusing = false;
        Answer::Done
    }
}

impl Runtime<'_> {
    /// A way for a run to ask guard, where its sockets are to be held.
    pub(super) fn open_hold(&mut self) -> Option<Channel> {
        if !self.holding.is_on() {
            return None;
        }
        if !caller::is_visible() {
            log::warn!(msg = "GUARD_HOLD: there is no /proc, in which guard looks at the app's sockets; the app binds as ever"; "not-held");
            self.holding.give_up(&self.poll);
            return None;
        }
        match Channel::open(|descriptor| self.held.make_room(descriptor)) {
            Ok(channel) => Some(channel),
            Err(error) => {
                log::warn!(error:%; "not-held");
                None
            }
        }
    }

    /// A run has started with the filter, or without.
    pub(super) fn begin_hold(&mut self, run: RunId, channel: Channel) {
        let questions = match channel.receive() {
            Ok(questions) => questions,
            Err(error) => {
                let known = REASONS.iter().find(|(errno, _)| *errno == error);
                let why = known.map_or("GUARD_HOLD: the filter cannot be had; the app binds as ever", |(_, why)| *why);
                log::warn!(error = error.desc(), msg = why; "not-held");
                return self.holding.give_up(&self.poll);
            }
        };
        let hold = Hold::new(run, questions);
        if let Err(error) = self.poll.add(hold.descriptor(), DoorId::Hold(run).token()) {
            // Its binds would wait for ever: without a reader the kernel refuses them.
            log::error!(error = error.desc(); "not-held");
            return;
        }
        let is_over = |door: &Hold| self.children.main(door.run()).is_none();
        let over = self.holding.doors.iter().filter(|door| is_over(door)).count();
        if over >= MOST_DOORS
            && let Some(oldest) = self.holding.doors.iter().position(is_over)
        {
            let oldest = self.holding.doors.remove(oldest);
            self.poll.remove(oldest.descriptor());
        }
        self.holding.doors.push(hold);
    }

    /// Somebody of a run asks.
    pub(super) fn handle_hold(&mut self, run: RunId) {
        for _ in 0..QUESTIONS {
            let may_copy = self.children.copies.len() < MOST_COPIES && !self.ending.killing;
            let waited = self.holding.starved_since.map(|since| self.clock.now().since(since));
            let may_wait = waited.is_none_or(|waited| waited < LONGEST_WAIT) && !self.ending.killing;
            let Some(step) = self.holding.door_mut(run).map(|door| door.next(may_copy, may_wait)) else { return };
            if matches!(step, Step::Nothing) || !self.take_step(run, step) {
                return;
            }
        }
    }

    /// There may be room for a copy of guard: takes the questions that wait for one.
    pub(super) fn resume_hold(&mut self) {
        if self.holding.starved_since.is_none() {
            return;
        }
        let postponed = self.holding.doors.iter().filter(|door| door.is_postponed()).map(Hold::run);
        for run in postponed.collect::<Vec<RunId>>() {
            self.poll_hold(run);
            self.handle_hold(run);
            if self.holding.door(run).is_some_and(Hold::is_postponed) {
                return;
            }
        }
        self.holding.starved_since = None;
    }

    fn poll_hold(&self, run: RunId) {
        if let Some(door) = self.holding.door(run)
            && let Err(error) = self.poll.add(door.descriptor(), DoorId::Hold(run).token())
        {
            log::error!(error = error.desc(); "not-held");
        }
    }

    /// A copy of guard has read the memory of somebody who asks.
    pub(super) fn handle_hold_memory(&mut self, run: RunId) {
        let Some(door) = self.holding.door_mut(run) else { return };
        if let Some(report) = door.report() {
            self.poll.remove(report);
        }
        let step = door.memory_read();
        self.poll_hold(run);
        self.take_step(run, step);
    }

    /// Answers; `false` if no other question can be taken now.
    fn take_step(&mut self, run: RunId, step: Step) -> bool {
        // What has outlived its run holds nothing.
        let lives = self.children.main(run).is_some();
        match step {
            Step::Bind(question, bind) => {
                let answer = if lives { self.holding.bind(run, &question, &bind, &self.poll) } else { Answer::GoOn };
                self.answer_hold(run, &question, answer);
            }
            Step::Listen(question, socket) => {
                let answer = self.holding.listen(run, lives, socket, &self.poll);
                self.answer_hold(run, &question, answer);
                let listens = match answer {
                    Answer::GoOn => matches!(socket.kind, Kind::Tcp { .. } | Kind::Stream),
                    Answer::Done => true,
                    Answer::Failed(_) => false,
                };
                self.note_listener(run, listens && lives);
            }
            Step::Reads(copy) => {
                // Others that wait have a new chance.
                self.holding.starved_since = self.holding.starved_since.map(|_| self.clock.now());
                self.children.copies.push(copy);
                self.reaping.childless = false;
                let Some(door) = self.holding.door(run) else { return false };
                self.poll.remove(door.descriptor());
                let report = door.report().map(|report| self.poll.add(report, DoorId::HoldMemory(run).token()));
                if let Some(Err(_)) = report {
                    self.handle_hold_memory(run);
                }
                return false;
            }
            Step::Postponed => {
                if let Some(door) = self.holding.door(run) {
                    self.poll.remove(door.descriptor());
                }
                let now = self.clock.now();
                self.holding.starved_since.get_or_insert(now);
                self.resting.retry_at = Some(now.after(RETRY));
                return false;
            }
            Step::Unreadable { error, listens } => {
                if !std::mem::replace(&mut self.holding.blind, true) {
                    log::warn!(error = error.desc(), msg = "GUARD_HOLD: guard may not look at the app's sockets, which has another user; it binds as ever"; "not-held");
                }
                self.note_listener(run, listens && lives);
            }
            Step::Answered | Step::Nothing => {}
            Step::End => {
                if let Some(door) = self.holding.door(run) {
                    self.poll.remove(door.descriptor());
                }
                self.holding.doors.retain(|door| door.run() != run);
                return false;
            }
        }
        true
    }

    /// A run listens, if `listens`.
    fn note_listener(&mut self, run: RunId, listens: bool) {
        if listens && self.config.ready.when == Readiness::Listen {
            self.dispatch(Event::Listens(run));
        }
    }

    fn answer_hold(&self, run: RunId, question: &Question, answer: Answer) {
        if let Some(door) = self.holding.door(run) {
            door.answer(question, answer);
        }
    }
}
