//! What the processes of runs ask about their sockets, and who answers (GUARD_HOLD, `doors/hold.rs`).

use super::Runtime;
use super::doors::{COPY_RETRY, DoorId, MOST_COPIES};
use super::journal::of_run;
use crate::config::Readiness;
use crate::doors::hold::{Hold, Step};
use crate::supervisor::{Event, RunId};
use crate::sys::Errno;
use crate::sys::caller::{Kind, Socket};
use crate::sys::errno::reason;
use crate::sys::file::errno_of;
use crate::sys::procfs;
use crate::sys::seccomp::{self, Answer, Call, Channel, Question};
use log::Level;
use std::time::Duration;

/// Doors that stay open for what has outlived its run unseen, such as a daemon that has left its run.
const MOST_DOORS: usize = 64;

/// How long a bind waits for a copy of guard. The kernel would refuse it an address that guard holds.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long after a bind began to wait the log says why.
const STARVED: Duration = Duration::from_secs(1);

/// How many runs in a row may end before they have told guard of their filter. Somebody may have killed one, but a profile may kill
/// all for it.
const MOST_LOST: u32 = 3;

/// Questions that are answered in a turn.
const QUESTIONS: usize = 16;

const NO_FILTER: &str = "GUARD_HOLD: the kernel has no such filter; the app binds as ever";

/// Why a filter cannot be had.
const REASONS: [(Errno, &str); 5] = [
    (Errno::EBUSY, "GUARD_HOLD: another filter asks already, such as an outer guard's; the app binds as ever"),
    (Errno::ENOSYS, NO_FILTER),
    (Errno::EINVAL, NO_FILTER),
    (Errno::EPERM, "GUARD_HOLD: a seccomp profile forbids it; the app binds as ever"),
    (Errno::EACCES, "GUARD_HOLD: a seccomp profile forbids it; the app binds as ever"),
];

impl Runtime<'_> {
    /// A way for a run to ask guard, where its sockets are to be held.
    pub(super) fn open_hold(&mut self) -> Result<Option<Channel>, Errno> {
        if !self.holding.is_on() {
            return Ok(None);
        }
        let msg = if !procfs::is_own() {
            "GUARD_HOLD: there is no /proc of guard's own, in which it looks at the app's sockets; the app binds as ever"
        } else if !seccomp::is_supported() {
            NO_FILTER
        } else {
            let opened = Channel::open(|descriptor| self.held.make_room(descriptor));
            return opened.map(Some).map_err(|error| errno_of(&error));
        };
        log::warn!(msg; "not-held");
        self.holding.release(&self.poll);
        Ok(None)
    }

    /// A run has started with the filter, or without.
    pub(super) fn begin_hold(&mut self, run: RunId, channel: Channel) {
        let questions = match channel.receive() {
            Ok(questions) => questions,
            Err(error) => {
                let known = REASONS.iter().find(|(errno, _)| *errno == error);
                self.holding.lost += 1;
                if known.is_none() && self.holding.lost < MOST_LOST {
                    let msg = "GUARD_HOLD: this run has no filter, and binds as ever";
                    of_run!(self.journal, Level::Warn, run, error = reason(error), msg; "not-held");
                    // One that is killed before it has told guard binds nothing.
                    if self.children.main(run).is_some_and(|pid| !procfs::is_dying(pid)) {
                        self.holding.let_go_of_free(&self.poll);
                    }
                    return;
                }
                let why = known.map_or("GUARD_HOLD: the filter cannot be had; the app binds as ever", |(_, why)| *why);
                log::warn!(error = reason(error), msg = why; "not-held");
                return self.holding.release(&self.poll);
            }
        };
        self.holding.lost = 0;
        let hold = Hold::new(run, questions, self.config.hold.clone());
        if let Err(error) = self.poll.add(hold.descriptor(), DoorId::Hold(run).token()) {
            // Its binds would wait for ever: without a reader the kernel refuses them.
            log::error!(error = reason(error); "not-held");
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
            if waited.is_some_and(|waited| waited >= STARVED)
                && !std::mem::replace(&mut self.holding.starved_logged, true)
            {
                of_run!(self.journal, Level::Warn, run, msg = "GUARD_HOLD: a bind waits, since guard cannot look at it; is a limit of processes or descriptors reached?"; "not-held");
            }
            // Once guard's end has let go of all sockets the kernel does what the app asks for; a process that waits hears no signal.
            let may_wait = waited.is_none_or(|waited| waited < LONGEST_WAIT) && self.holding.is_on();
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
        (self.holding.starved_since, self.holding.starved_logged) = (None, false);
    }

    /// Polls the questions of a run again. Where that cannot be its binds would wait for ever: without a reader the kernel refuses them.
    fn poll_hold(&mut self, run: RunId) {
        if let Some(door) = self.holding.door(run)
            && let Err(error) = self.poll.add(door.descriptor(), DoorId::Hold(run).token())
        {
            of_run!(self.journal, Level::Error, run, error = reason(error); "not-held");
            self.holding.doors.retain(|door| door.run() != run);
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
                let now = self.clock.now();
                let answer =
                    if lives { self.holding.bind(run, &question, &bind, now, &self.poll) } else { Answer::GoOn };
                self.answer_hold(run, &question, answer);
            }
            Step::AcceptConn(question, Socket { inode, .. }) => {
                // Who finds that it listens already makes no listen(2).
                let serves = lives && self.serves_at(run, inode);
                self.answer_hold(run, &question, Answer::GoOn);
                self.note_listener(run, serves);
            }
            Step::Listen(question, socket) => {
                let answer = self.holding.listen(
                    run,
                    socket,
                    lives.then(|| self.clock.now()),
                    self.journal.instance(run),
                    &self.poll,
                );
                self.lead_connections();
                self.answer_hold(run, &question, answer);
                if answer == Answer::Done {
                    self.dispatch(Event::Holds);
                }
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
                self.note_copy(copy);
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
                self.resting.retry_at = Some(now.after(COPY_RETRY));
                return false;
            }
            Step::Unreadable { question, error } => {
                self.holding.note_unreadable(run, &question, error, &self.poll);
                self.answer_hold(run, &question, Answer::GoOn);
                self.note_listener(run, question.call == Call::Listen && lives);
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

    /// A run serves at a socket of its own that guard holds, if this is one and listens.
    fn serves_at(&mut self, run: RunId, inode: u64) -> bool {
        let mut pools = self.held.pools().chain(self.holding.pools());
        let pool = pools.find(|pool| pool.is_listening(run, inode));
        pool.map(|pool| pool.serve(run, self.clock.now())).is_some()
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
