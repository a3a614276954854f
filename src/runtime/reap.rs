//! Children that have ended: their owners, and the events for the core.

use super::children::{Owner, Successor};
use super::exits::Exit;
use super::journal::of_run;
use super::{RETRY, Runtime};
use crate::config::Meaning;
use crate::signal::Signal;
use crate::supervisor::{Ending, Event, KILLED, RunId, Timestamp};
use crate::sys::Pid;
use crate::sys::clock::Deadline;
use crate::sys::errno::reason;
use crate::sys::process::{self, Status, Usage, Wait};
use log::Level;
use std::cell::Cell;

/// How many children guard reaps before it is the turn of signals and doors.
const MOST: usize = 256;

/// What has happened to a child that is no orphan, or to one that was stopped (`wait4(2)`).
enum News {
    Ended(Owner, Pid, Status, Usage),
    Stopped(Pid, Signal),
}

/// An orphan that was reaped.
struct Orphan {
    pid: Pid,
    status: Status,
    usage: Usage,
}

/// Whether another process takes the place of a main process that has ended.
enum Succession {
    None,
    /// It does.
    Done,
    /// It would have, but has ended like this.
    Ended(Status, Usage),
}

/// What is known of guard's children as a whole.
#[derive(Default)]
pub(super) struct Reaping {
    /// Those of the last turn: a message may name one that ended before guard has read it.
    orphans: Vec<Orphan>,
    /// Empty between two turns.
    news: Vec<News>,
    /// When guard reaps though no SIGCHLD has come: at once where there was more to reap than its turn allowed, later
    /// where the kernel did not answer.
    pub(super) again_at: Option<Timestamp>,
    /// The kernel did not answer when guard last asked, and the log says so.
    failed: bool,
    /// When the walks through /proc of this turn end, where there was one.
    pub(super) walks_until: Cell<Option<Deadline>>,
    /// The last reap found no child at all, so there is no descendant either.
    pub(super) childless: bool,
    /// Since the last reap guard has seen that it has no children but those that it has started itself.
    pub(super) only_started: bool,
}

impl News {
    fn ended(&self) -> Option<Pid> {
        match self {
            News::Ended(_, pid, ..) => Some(*pid),
            News::Stopped(..) => None,
        }
    }

    /// Whether guard reads the kernel's count of out-of-memory kills at this news, however lately it has read it.
    fn may_be_oom_victim(&self) -> bool {
        match self {
            News::Ended(Owner::Run(_) | Owner::Check(_) | Owner::Diagnosis(_) | Owner::Hook, ..) => true,
            News::Ended(Owner::Copy | Owner::Nobody, _, status, _) => *status == Status::Signaled(Signal::KILL),
            News::Stopped(..) => false,
        }
    }
}

impl Runtime<'_> {
    /// Reaps every child that has ended, and gives the core the ends of those that guard has started.
    ///
    /// Where a main process has ended guard reads the runs' sockets once more between the reaping and the events: what a
    /// process said before it ended is in its socket by then.
    pub(super) fn reap(&mut self) {
        self.wait_for_children();
        let killed =
            self.reaping.orphans.iter().filter(|orphan| orphan.status == Status::Signaled(Signal::KILL)).count();
        if killed > 0 || self.reaping.news.iter().any(News::may_be_oom_victim) {
            self.count_oom_kills();
        } else if !self.reaping.orphans.is_empty() || !self.reaping.news.is_empty() {
            self.count_oom_kills_without_notice();
        }
        if self.sweeps() {
            let Reaping { orphans, news, .. } = &self.reaping;
            let orphans = orphans.iter().map(|orphan| orphan.pid);
            let ended: Vec<Pid> = orphans.chain(news.iter().filter_map(News::ended)).collect();
            if !ended.is_empty() {
                self.note_reaped(&ended);
            }
        }
        if self.reaping.news.iter().any(|news| matches!(news, News::Ended(Owner::Run(_), ..))) {
            self.read_last_words();
        }
        // Orphans come first, since one may be the process that a main process has named its successor.
        for orphan in &self.reaping.orphans {
            log::debug!(pid = orphan.pid; "reaped");
            self.counters.orphans_reaped += 1;
            self.children.note_ended_successor(orphan.pid, orphan.status, orphan.usage);
        }
        if !self.reaping.news.is_empty() {
            self.handle_news();
        }
        // Main processes come first, since SIGKILL may have come to their workers from them (PR_SET_PDEATHSIG).
        for _ in 0..killed {
            self.take_oom_kill();
        }
        if self.reaping.childless {
            for event in self.end_lost_runs() {
                self.dispatch(event);
            }
        }
        if self.ending.killing && self.reaping.childless {
            self.dispatch(Event::NothingLeft);
        } else if self.reaping.again_at.is_none() {
            self.recount_due();
        }
    }

    /// guard has made a copy of itself, which is a child of its own.
    pub(super) fn note_copy(&mut self, copy: Pid) {
        self.children.copies.push(copy);
        self.reaping.childless = false;
    }

    /// Reads what came before a main process ended.
    fn read_last_words(&mut self) {
        // A copy of guard may have received a message meanwhile, which then counts as read.
        self.wake_doors(false);
        self.handle_last_messages();
        // Signals that are queued for a run that has ended are not for the next one.
        self.signals.receive_all();
        self.take_last_keys();
    }

    fn handle_news(&mut self) {
        self.has_worked = true;
        // The kernel does not tell which ended first. That a new run has ended by itself is heard before the end of an old one
        // that stops for it, after which the reload would go on.
        let is_stopped = |news: &News| match news {
            News::Ended(Owner::Run(id), ..) => self.supervisor.is_stopping(*id),
            News::Ended(..) | News::Stopped(..) => false,
        };
        let (stopped, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.reaping.news).into_iter().partition(is_stopped);
        for news in others.into_iter().chain(stopped) {
            let event = match news {
                News::Ended(owner, pid, status, usage) => self.ended(owner, pid, status, usage),
                News::Stopped(pid, signal) => self.stopped(pid, signal),
            };
            if let Some(event) = event {
                self.dispatch(event);
            }
        }
    }

    /// Asks the kernel what has happened to children, up to a bound. A main process that has ended gets no signal from
    /// here on, since its pid may soon be another's.
    fn wait_for_children(&mut self) {
        self.reaping.orphans.clear();
        self.reaping.childless = false;
        self.reaping.only_started = false;
        self.reaping.again_at = None;
        if let Some(pid) = self.named_orphan()
            && let Some(status) = process::reap(pid)
        {
            self.reaping.orphans.push(Orphan { pid, status, usage: Usage::default() });
        }
        while self.reaping.orphans.len() + self.reaping.news.len() < MOST {
            match process::wait() {
                Wait::Ended(pid, status, usage) => {
                    let owner = self.children.owner(pid);
                    if let Owner::Run(id) = owner
                        && let Some(run) = self.children.get_mut(id)
                    {
                        run.reaped = true;
                    }
                    match owner {
                        Owner::Nobody => self.reaping.orphans.push(Orphan { pid, status, usage }),
                        Owner::Run(_) | Owner::Check(_) | Owner::Diagnosis(_) | Owner::Hook | Owner::Copy => {
                            self.reaping.news.push(News::Ended(owner, pid, status, usage));
                        }
                    }
                }
                Wait::Stopped(pid, signal) => self.reaping.news.push(News::Stopped(pid, signal)),
                Wait::Nothing => {
                    self.reaping.failed = false;
                    return;
                }
                Wait::NoChildren => {
                    self.reaping.childless = true;
                    return;
                }
                Wait::Failed(error) => {
                    if !std::mem::replace(&mut self.reaping.failed, true) {
                        log::error!(error = reason(error), msg = "wait4(2) fails; guard tries again"; "wait-failed");
                    }
                    self.reaping.again_at = Some(self.clock.now().after(RETRY));
                    return;
                }
            }
        }
        // At once: that time is over.
        self.reaping.again_at = Some(Timestamp::default());
    }

    /// The orphan that SIGCHLD has told of. Nobody asks what it has used, unless it may have become a main process (MAINPID).
    fn named_orphan(&mut self) -> Option<Pid> {
        let may_be_main = self.config.notify;
        self.signals.take_ended().filter(|pid| !may_be_main && self.children.owner(*pid) == Owner::Nobody)
    }

    fn ended(&mut self, owner: Owner, pid: Pid, status: Status, usage: Usage) -> Option<Event> {
        match owner {
            Owner::Run(id) => self.main_ended(id, pid, status, usage),
            Owner::Check(id) => self.check_ended(id, pid, status),
            Owner::Diagnosis(id) => Some(self.diagnosis_ended(id, pid, status)),
            Owner::Hook => {
                self.children.hook = None;
                self.journal.hook_ended(status);
                Some(Event::HookEnded)
            }
            Owner::Copy => {
                self.children.copies.retain(|copy| *copy != pid);
                None
            }
            Owner::Nobody => None,
        }
    }

    fn main_ended(&mut self, id: RunId, pid: Pid, status: Status, usage: Usage) -> Option<Event> {
        let (status, usage) = match self.hand_over(id, pid, status) {
            Succession::Done => return None,
            Succession::Ended(status, usage) => (status, usage),
            Succession::None => (status, usage),
        };
        self.free_sockets_of(id);
        let channel = self.children.get_mut(id)?.channel.take();
        channel.into_iter().for_each(|channel| self.close(channel));
        let is_killed = self.children.get(id)?.killed;
        let ending = match status {
            // A shell whose child was chosen exits with the code of such a death.
            Status::Signaled(Signal::KILL) | Status::Exited(KILLED) if !is_killed && self.take_oom_kill() => {
                Ending::OutOfMemory
            }
            Status::Exited(code) => Ending::Exited(code),
            Status::Signaled(signal) if usage.dumped => Ending::Dumped(signal),
            Status::Signaled(signal) => Ending::Signaled(signal),
        };
        let run = self.children.get(id)?;
        let (uptime, why) = (self.clock.now().since(run.started), self.supervisor.why_ended(id));
        self.journal.exit(&Exit {
            run: id,
            pid,
            status,
            usage,
            ending,
            why,
            is_replaced: self.supervisor.is_replaced(id),
            is_killed: is_killed && status == Status::Signaled(Signal::KILL),
            passed_on: run.passed_on.filter(|signal| !self.is_sent_for_files(*signal)),
            uptime,
            says: &run.status,
        });
        let left = matches!(status, Status::Exited(_)) && self.was_asked_to_exit();
        self.take_terminal_back();
        Some(if left { Event::Left(id, ending) } else { Event::Exited(id, ending) })
    }

    /// Whether guard itself sends this signal, when a file has changed.
    fn is_sent_for_files(&self, signal: Signal) -> bool {
        self.config.on_change.iter().any(|(_, meaning)| *meaning == Meaning::Forward(signal))
    }

    /// How a child ended that was nobody's and was reaped in the last turn.
    pub(super) fn ended_lately(&self, pid: Pid) -> Option<(Status, Usage)> {
        let orphan = self.reaping.orphans.iter().find(|orphan| orphan.pid == pid)?;
        Some((orphan.status, orphan.usage))
    }

    /// The main process of a run has ended. If it has named a successor that is guard's child by now, the run goes on with
    /// that. A main process that failed hands over to nobody. In a run that stops the successor has not got the stop signal,
    /// so it gets SIGTERM as a leftover.
    fn hand_over(&mut self, id: RunId, old: Pid, status: Status) -> Succession {
        let successor =
            self.children.get_mut(id).and_then(|run| run.successor.take()).filter(|_| status == Status::Exited(0));
        let may_be_main = |pid| self.children.owner(pid) == Owner::Nobody && process::is_child(pid);
        match successor {
            Some(Successor::Alive(pid)) if !self.supervisor.is_stopping(id) && may_be_main(pid) => {
                let Some(run) = self.children.get_mut(id) else { return Succession::None };
                (run.pid, run.reaped) = (pid, false);
                of_run!(self.journal, Level::Info, id, pid, old; "main-process");
                Succession::Done
            }
            Some(Successor::Ended(status, usage)) => Succession::Ended(status, usage),
            Some(Successor::Alive(_)) | None => Succession::None,
        }
    }

    fn stopped(&self, pid: Pid, signal: Signal) -> Option<Event> {
        match self.children.owner(pid) {
            // Somebody sends SIGSTOP on purpose; the other stop signals come from a terminal.
            Owner::Run(id) if signal == Signal::TSTP => Some(Event::Suspended(id)),
            Owner::Run(id) if signal != Signal::STOP => {
                self.lend_terminal(id, pid, signal);
                None
            }
            Owner::Run(_) | Owner::Check(_) | Owner::Diagnosis(_) | Owner::Hook | Owner::Copy | Owner::Nobody => None,
        }
    }

    /// A run wants the terminal from the background (TTIN, TTOU). One that has made a group of its own, as timeout(1) does,
    /// gets the foreground. guard does not continue a run that cannot have it, since that would only stop it again.
    fn lend_terminal(&self, id: RunId, pid: Pid, signal: Signal) {
        if self.terminal.as_ref().is_some_and(|terminal| terminal.lend(pid)) {
            self.signal_group(id, Signal::CONT);
        } else {
            of_run!(self.journal, Level::Warn, id, signal:%, msg = "stopped: another has the terminal"; "stopped");
        }
    }

    /// Runs that have ended unseen: guard has no child left (ECHILD, `wait(2)`).
    fn end_lost_runs(&mut self) -> Vec<Event> {
        let lost: Vec<_> = self.children.runs().filter(|run| !run.reaped).map(|run| run.id).collect();
        for &id in &lost {
            if let Some(run) = self.children.get_mut(id) {
                run.reaped = true;
            }
            self.free_sockets_of(id);
            of_run!(self.journal, Level::Error, id; "lost");
        }
        lost.into_iter().map(|id| Event::Exited(id, Ending::Exited(1))).collect()
    }
}
