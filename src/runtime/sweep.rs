//! How leftovers are signalled, and how guard finds out that they have ended.
//!
//! SIGKILL comes before any walk of /proc (`kill.rs`), so not even a fork bomb escapes. Walks are bounded in time
//! (`leftovers.rs`) and kept apart by a [`Pace`], so that processes which come and go without an end cannot keep guard busy.

use super::Runtime;
use super::kill::kill_processes;
use super::leftovers::{LONGEST_WALK, Leftovers, Receivers};
use super::pace::Pace;
use crate::config::Scope;
use crate::signal::Signal;
use crate::supervisor::{Event, RunId, Timestamp};
use crate::sys::procfs::{self, Process, State};
use crate::sys::{Pid, signals};
use std::collections::HashSet;
use std::time::Duration;

/// A run's leftovers after they were signalled.
#[derive(Debug)]
pub(super) struct Sweep {
    signal: Signal,
    /// The leftovers that lived at the last walk.
    left: HashSet<Pid>,
    /// No others lived then.
    complete: bool,
    /// There is no /proc.
    blind: bool,
    pace: Pace,
    /// Those that have got SIGSTOP before SIGKILL, in so many walks.
    stopped: HashSet<Pid>,
    stops: u32,
}

/// Walks in which guard stops leftovers, and goes on to the next where it has found others.
const MOST_STOPS: u32 = 12;

/// How long everything stands still at most.
const LONGEST_FREEZE: Duration = Duration::from_secs(1);

/// What is left of a run.
enum Found {
    Seen(Leftovers),
    /// Without /proc, the run's group is all that can be seen and reached.
    Group(Pid),
    Nothing,
}

impl Runtime<'_> {
    /// Notes which processes got SIGTERM with the main process's group, and so are not to get it again as leftovers. Comes
    /// after the signal, which does not wait for a walk of /proc.
    pub(super) fn note_receivers(&mut self, id: RunId, signal: Signal) {
        if self.config.signal_scope == Scope::Process || signal != Signal::TERM {
            return;
        }
        // Not the run's, which is another one after MAINPID.
        let Some(main) = self.children.main(id) else { return };
        let group = self.children.shared_group.filter(|_| self.is_in_shared_group(main)).unwrap_or(main);
        let receivers = self.descendants(LONGEST_WALK).map(|seen| Receivers::new(&seen, group)).unwrap_or_default();
        if let Some(run) = self.children.get_mut(id) {
            run.receivers = receivers;
        }
    }

    /// Signals the leftovers of a run. The answer counts them as they were before SIGTERM: their ends are events of their
    /// own.
    pub(super) fn sweep(&mut self, id: RunId, signal: Signal) -> Event {
        if signal == Signal::KILL && !self.reaping.childless {
            self.kill_group(id);
        }
        let found = self.find_left_of(id);
        if let Some(run) = self.children.get_mut(id) {
            run.sweep = Some(Sweep {
                signal,
                left: HashSet::new(),
                complete: true,
                blind: matches!(found, Found::Group(_)),
                pace: Pace::default(),
                stopped: HashSet::new(),
                stops: 0,
            });
        }
        match &found {
            Found::Seen(leftovers) if signal == Signal::KILL => {
                self.kill_seen(id, leftovers);
                let killed = [&leftovers.living[..], &leftovers.killed].concat();
                self.journal.swept(id, signal, &killed);
            }
            Found::Seen(leftovers) => self.terminate(id, signal, leftovers),
            Found::Group(group) => {
                self.journal.signalled(id, signal, signals::send_to_group(*group, signal));
                let _ = signals::send_to_group(*group, Signal::CONT);
            }
            Found::Nothing => {}
        }
        self.leftovers_event(id, &found)
    }

    /// Asks the leftovers of a run to end: the run's group as a whole, the others one by one.
    fn terminate(&self, id: RunId, signal: Signal, leftovers: &Leftovers) {
        let Some(run) = self.children.get(id) else { return };
        // Apps quit hard on a second signal.
        let (spared, others) = run.receivers.split(&leftovers.living);
        self.journal.leftovers_spared(id, &spared);
        self.journal.swept(id, signal, &others);
        let group = Some(run.group).filter(|&group| run.receivers.is_empty() && signals::group_lives(group));
        if let Some(group) = group {
            self.journal.signalled(id, signal, signals::send_to_group(group, signal));
            if !leftovers.complete {
                let _ = signals::send_to_group(group, Signal::CONT);
            }
        }
        self.signal_each(id, signal, &others, group);
    }

    /// Signals processes one by one, but for those of a group that has got the signal as a whole.
    fn signal_each(&self, id: RunId, signal: Signal, processes: &[Process], group: Option<Pid>) {
        for process in processes {
            if group != Some(process.group) {
                self.journal.signalled(id, signal, signals::send(process.pid, signal));
            }
            // It would never see SIGTERM.
            if process.state == State::Stopped {
                let _ = signals::send(process.pid, Signal::CONT);
            }
        }
    }

    /// SIGKILL to the leftovers that were seen: to whole groups first. Several get SIGSTOP before, until a walk finds no others: each
    /// that is killed makes room for a fork of another, and none forks that has a signal pending (ERESTARTNOINTR, `fork(2)` of the
    /// kernel). Where the second walk finds others they are a bomb.
    fn kill_seen(&mut self, id: RunId, leftovers: &Leftovers) {
        let now = self.clock.now();
        let Some(run) = self.children.get_mut(id) else { return };
        let rest: Vec<Process> =
            leftovers.living.iter().copied().filter(|process| process.group != run.group).collect();
        if let Some(sweep) = run.sweep.as_mut().filter(|_| rest.len() > 1) {
            let new: Vec<Pid> =
                rest.iter().map(|process| process.pid).filter(|&pid| sweep.stopped.insert(pid)).collect();
            for &pid in &new {
                let _ = signals::send(pid, Signal::STOP);
            }
            if sweep.stops < MOST_STOPS && (!new.is_empty() || !leftovers.complete) {
                sweep.stops += 1;
                sweep.pace.ask_now(now);
                if self.init && sweep.stops > 1 {
                    self.kill_frozen(id);
                }
                return;
            }
        }
        kill_processes(&rest, &leftovers.descendants);
    }

    /// Everything in the PID namespace stands still until guard has seen it all, and killed what is left of the run.
    fn kill_frozen(&mut self, id: RunId) {
        signals::send_to_all(Signal::STOP);
        let end = self.before_next_kill(LONGEST_FREEZE);
        loop {
            self.reaping.walks_until.set(Some(end));
            let found = self.find_leftovers(id);
            if let Some(Leftovers { living, descendants, complete, .. }) = &found
                && (*complete || end.left().is_zero())
            {
                kill_processes(living, descendants);
            }
            if end.left().is_zero() || found.is_none_or(|found| found.complete) {
                break;
            }
        }
        signals::send_to_all(Signal::CONT);
    }

    fn kill_group(&self, id: RunId) {
        if let Some(run) = self.children.get(id) {
            self.journal.signalled(id, Signal::KILL, signals::send_to_group(run.group, Signal::KILL));
        }
    }

    /// Looks again for leftovers of a run that has been swept.
    fn recount(&mut self, id: RunId) -> Event {
        let swept = self.children.get(id).and_then(|run| run.sweep.as_ref());
        let (signal, complete) = swept.map_or((Signal::TERM, true), |sweep| (sweep.signal, sweep.complete));
        if signal == Signal::KILL && !self.reaping.childless {
            self.kill_group(id);
        }
        let found = self.find_left_of(id);
        let now = self.clock.now();
        if let Some(sweep) = self.children.get_mut(id).and_then(|run| run.sweep.as_mut()) {
            sweep.pace.taken(now);
        }
        if let Found::Seen(leftovers) = &found {
            if signal == Signal::KILL {
                self.kill_seen(id, leftovers);
            } else if !complete {
                let left = self.children.get(id).and_then(|run| run.sweep.as_ref()).map(|sweep| &sweep.left);
                let is_new = |process: &&Process| left.is_some_and(|left| !left.contains(&process.pid));
                let new: Vec<Process> = leftovers.living.iter().filter(is_new).copied().collect();
                self.terminate_unseen(id, signal, &new);
            }
        }
        self.leftovers_event(id, &found)
    }

    /// Signals leftovers that the first walk had no time for.
    fn terminate_unseen(&self, id: RunId, signal: Signal, processes: &[Process]) {
        let Some(run) = self.children.get(id) else { return };
        let (_, others) = run.receivers.split(processes);
        self.signal_each(id, signal, &others, Some(run.group));
    }

    fn find_left_of(&mut self, id: RunId) -> Found {
        if self.reaping.childless {
            return Found::Nothing;
        }
        let group = self.children.get(id).map(|run| run.group);
        if self.has_only_started() && !group.is_some_and(signals::group_lives) {
            return Found::Nothing;
        }
        // A walk is no snapshot: a process may fork and end during it, and be missed with its child. So a process counts as
        // ended only when two walks have missed it.
        let is_none = |found: &Option<Leftovers>| {
            found.as_ref().is_some_and(|found| found.complete && found.living.is_empty() && found.killed.is_empty())
        };
        let mut found = self.find_leftovers(id);
        if is_none(&found) {
            found = self.find_leftovers(id);
        }
        let group = self.children.get(id).map(|run| run.group).filter(|&group| signals::group_lives(group));
        match (found, group) {
            (Some(mut leftovers), group) => {
                // A process that was missed both times, unless it is a zombie.
                leftovers.complete &= group.is_none() || leftovers.zombies || !leftovers.living.is_empty();
                Found::Seen(leftovers)
            }
            (None, Some(group)) => Found::Group(group),
            (None, None) => Found::Nothing,
        }
    }

    /// Asks the children of PID 1 to end that belong to no run. Looks again at each reap, since the end of one may hand its
    /// own children to guard, which are asked then.
    pub(super) fn sweep_unmarked(&mut self) -> Event {
        let (found, complete) = self.find_unmarked();
        let known = self.ending.unmarked.take().map(|sweep| (sweep.left, sweep.pace));
        let (known, mut pace) = known.unwrap_or_default();
        let new: Vec<Process> = found.iter().filter(|process| !known.contains(&process.pid)).copied().collect();
        self.journal.unmarked_terminated(&new);
        for process in new {
            let _ = signals::send(process.pid, Signal::TERM);
            let _ = signals::send(process.pid, Signal::CONT);
        }
        let left: HashSet<Pid> = found.iter().map(|process| process.pid).collect();
        let count = left.len().max(usize::from(!complete));
        if !complete {
            pace.ask_later(self.clock.now());
        }
        if count > 0 {
            let (stopped, stops) = (HashSet::new(), 0);
            self.ending.unmarked =
                Some(Sweep { signal: Signal::TERM, left, complete, blind: false, pace, stopped, stops });
        }
        Event::UnmarkedCounted(count)
    }

    /// Whether guard has no children but those that it has started itself and not yet reaped. What a process leaves behind is
    /// guard's child from its end on, so then nothing is left of a run whose main process was reaped. With many instances this
    /// takes the place of a walk through all of their processes for each that ends.
    fn has_only_started(&mut self) -> bool {
        if !self.reaping.only_started {
            let started: HashSet<Pid> = self.children.started().chain(self.children.copies.iter().copied()).collect();
            // A child that the kernel has missed the first time is hardly missed again.
            let sees_no_other = || {
                procfs::children()
                    .is_some_and(|seen| seen.len() == started.len() && seen.iter().all(|child| started.contains(child)))
            };
            self.reaping.only_started = sees_no_other() && sees_no_other();
        }
        self.reaping.only_started
    }

    /// How many are left.
    fn leftovers_event(&mut self, id: RunId, found: &Found) -> Event {
        let now = self.clock.now();
        let (count, left, complete) = match found {
            Found::Nothing => (0, HashSet::new(), true),
            Found::Group(_) => (1, HashSet::new(), false),
            Found::Seen(Leftovers { living, complete, .. }) => {
                let left: HashSet<Pid> = living.iter().map(|process| process.pid).collect();
                (left.len().max(usize::from(!complete)), left, *complete)
            }
        };
        if let Some(sweep) = self.children.get_mut(id).and_then(|run| run.sweep.as_mut()) {
            (sweep.left, sweep.complete) = (left, complete);
            // A process that guard has not seen is in no list of reaped children.
            if !complete && !sweep.blind {
                sweep.pace.ask_later(now);
            }
        }
        Event::Leftovers(id, count)
    }

    /// Whether processes end that guard waits for.
    pub(super) fn sweeps(&self) -> bool {
        self.ending.killing || self.ending.unmarked.is_some() || self.children.runs().any(|run| run.sweep.is_some())
    }

    /// Children were reaped: asks for a walk if one of them may have been a leftover that guard waits for. A walk for each
    /// other orphan would cost much.
    pub(super) fn note_reaped(&mut self, ended: &[Pid]) {
        if !self.sweeps() {
            return;
        }
        let (now, childless) = (self.clock.now(), self.reaping.childless);
        let unmarked = self.ending.unmarked.as_mut();
        for sweep in self.children.runs_mut().filter_map(|run| run.sweep.as_mut()).chain(unmarked) {
            if childless {
                sweep.pace.ask_now(now);
            } else if sweep.blind || ended.iter().any(|pid| sweep.left.contains(pid)) {
                sweep.pace.ask(now);
            }
        }
        if self.ending.killing {
            self.ending.kill_pace.ask(now);
        }
    }

    /// When the next walk is due.
    pub(super) fn next_recount(&self) -> Option<Timestamp> {
        if self.ending.killing {
            return self.ending.kill_pace.due;
        }
        let unmarked = self.ending.unmarked.as_ref().and_then(|sweep| sweep.pace.due);
        self.children.runs().filter_map(|run| run.sweep.as_ref()?.pace.due).chain(unmarked).min()
    }

    /// Makes the walks that are due.
    pub(super) fn recount_due(&mut self) {
        if self.next_recount().is_none() {
            return;
        }
        let now = self.clock.now();
        if self.ending.killing {
            if self.ending.kill_pace.is_due(now) {
                self.kill_everything();
            }
            return;
        }
        let is_due = |sweep: &Sweep| sweep.pace.is_due(now);
        let due = self.children.runs().filter(|run| run.sweep.as_ref().is_some_and(is_due));
        let due: Vec<RunId> = due.map(|run| run.id).collect();
        for id in due {
            let event = self.recount(id);
            self.dispatch(event);
        }
        if self.ending.unmarked.as_ref().is_some_and(is_due) {
            if let Some(sweep) = &mut self.ending.unmarked {
                sweep.pace.taken(now);
            }
            let event = self.sweep_unmarked();
            self.dispatch(event);
        }
    }
}
