//! Who has ended, whose it was, and what that means to the core.

use super::children::{Heir, Owner};
use super::{MOST_ORPHANS, Runtime};
use crate::signal::Signal;
use crate::supervisor::{Ending, Event, RunId};
use crate::sys::Pid;
use crate::sys::process::{self, Status, Usage, Wait};

/// Whether another process takes the place of a main process that has ended.
enum Succession {
    None,
    /// It does.
    Done,
    /// It would have, but has ended like this.
    Ended(Status, Usage),
}

impl Runtime<'_> {
    /// Takes every dead child, and tells the core of those it knows. Where there are many it lets the others have a turn
    /// in between, lest a flood of orphans holds back a signal.
    pub(super) fn reap(&mut self) {
        let mut events = Vec::new();
        let before = self.signals.reaped();
        let (mut orphans, mut others) = (0, 0);
        let mut ended = Vec::new();
        self.childless = loop {
            if orphans == MOST_ORPHANS {
                self.signals.expect_child_news();
                break false;
            }
            match process::wait() {
                Wait::Ended(pid, status, usage) => {
                    let owner = self.children.owner(pid);
                    ended.push(pid);
                    *(if owner == Owner::Nobody { &mut orphans } else { &mut others }) += 1;
                    events.extend(self.ended(owner, pid, status, usage));
                }
                Wait::Stopped(pid, signal) => events.extend(self.stopped(pid, signal)),
                Wait::Nothing => break false,
                Wait::NoChildren => break true,
            }
        };
        let any = orphans + others > 0;
        if self.childless {
            events.extend(self.lost());
        }
        let sweeping: Vec<_> = self.children.runs().filter(|run| run.sweeping.is_some()).map(|run| run.id).collect();
        // Whoever is waited for is no mere orphan.
        if others == 0 && sweeping.is_empty() && !self.killing {
            self.count_orphans(before, orphans);
        } else {
            self.end_stream();
        }
        for event in events {
            self.dispatch(event);
        }
        if any && !self.killing {
            for id in sweeping {
                if self.may_have_lost(id, &ended) {
                    let event = self.count_leftovers(id);
                    self.dispatch(event);
                }
            }
        }
        if self.killing && self.childless {
            self.dispatch(Event::NothingLeft);
        } else if self.killing && any {
            self.kill_everything();
        }
    }

    fn ended(&mut self, owner: Owner, pid: Pid, status: Status, usage: Usage) -> Option<Event> {
        match owner {
            Owner::Run(id) => {
                self.children.get_mut(id)?.reaped = true;
                // What it said before it died is read before its death is believed.
                self.hear_last(id);
                let (status, usage) = match self.succeed(id, pid, status) {
                    Succession::Done => return None,
                    Succession::Ended(status, usage) => (status, usage),
                    Succession::None => (status, usage),
                };
                let run = self.children.get_mut(id)?;
                run.channel = None;
                let oom_kills = || self.oom_kills.as_ref()?.as_ref()?.read();
                let struck = || oom_kills().zip(run.oom_kills).is_some_and(|(now, before)| now > before);
                let ending = match status {
                    Status::Exited(code) => Ending::Exited(code),
                    Status::Signaled(Signal::KILL) if !run.killed && struck() => Ending::OutOfMemory,
                    Status::Signaled(signal) => Ending::Signaled(signal),
                };
                let uptime = self.clock.now().since(run.started);
                self.journal.exit(id, pid, ending, uptime, &usage);
                self.pass_foreground();
                Some(Event::Exited(id, ending))
            }
            Owner::Check(id) => self.check_ended(id, pid, status),
            Owner::Hook => {
                self.children.hook = None;
                self.journal.hook_ended(status);
                Some(Event::HookEnded)
            }
            Owner::Nobody => {
                log::debug!(pid; "reaped");
                self.children.note_heir(pid, status, usage);
                None
            }
        }
    }

    /// The main process of a run has ended. If it has named another, which is guard's child by now, the run goes on; but
    /// not if it has failed, since who hands over does that in the end, nor if it was to end, since the other has not been
    /// told: as a leftover it will be.
    fn succeed(&mut self, id: RunId, old: Pid, status: Status) -> Succession {
        let heir = self.children.get_mut(id).and_then(|run| run.heir.take()).filter(|_| status == Status::Exited(0));
        let may_be_main = |pid| self.children.owner(pid) == Owner::Nobody && process::is_child(pid);
        match heir {
            Some(Heir::Alive(pid)) if !self.supervisor.is_stopping(id) && may_be_main(pid) => {
                let Some(run) = self.children.get_mut(id) else { return Succession::None };
                (run.pid, run.reaped) = (pid, false);
                log::info!(run = id.number, pid, old; "main-process");
                self.pass_foreground();
                Succession::Done
            }
            Some(Heir::Ended(status, usage)) => Succession::Ended(status, usage),
            Some(Heir::Alive(_)) | None => Succession::None,
        }
    }

    fn stopped(&self, pid: Pid, signal: Signal) -> Option<Event> {
        match self.children.owner(pid) {
            // SIGSTOP is somebody's will; the others come from a terminal.
            Owner::Run(id) if signal == Signal::TSTP => Some(Event::Suspended(id)),
            Owner::Run(id) if signal != Signal::STOP => self.starved(id, pid, signal),
            Owner::Run(_) | Owner::Check(_) | Owner::Hook | Owner::Nobody => None,
        }
    }

    /// A run wants the terminal from the background (TTIN, TTOU). To continue one that cannot have it would only stop
    /// it again, and so on.
    fn starved(&self, id: RunId, pid: Pid, signal: Signal) -> Option<Event> {
        let has_it = self.children.newest_main() == Some(pid)
            && self.terminal.as_ref().is_some_and(|terminal| !terminal.is_held() || terminal.give(pid));
        if !has_it {
            log::warn!(run = id.number, signal:%, msg = "stopped: another has the terminal"; "stopped");
        }
        has_it.then_some(Event::Suspended(id))
    }

    /// Whether one of a run's leftovers may be among those that have ended: a look at all processes for each orphan of somebody
    /// else's would cost much.
    fn may_have_lost(&self, id: RunId, ended: &[Pid]) -> bool {
        let left = self.children.get(id).and_then(|run| run.left.as_ref());
        self.childless || left.is_none_or(|left| left.iter().any(|pid| ended.contains(pid)))
    }

    /// Runs that must have ended though nobody saw it: there is no child left (ECHILD, `wait(2)`).
    fn lost(&mut self) -> Vec<Event> {
        let lost: Vec<_> = self.children.runs().filter(|run| !run.reaped).map(|run| run.id).collect();
        for &id in &lost {
            if let Some(run) = self.children.get_mut(id) {
                run.reaped = true;
            }
            log::error!(run = id.number; "lost");
        }
        lost.into_iter().map(|id| Event::Exited(id, Ending::Exited(1))).collect()
    }
}
