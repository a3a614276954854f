//! How leftovers, and in the end everything, are signalled, and how guard finds out that they are gone.
//!
//! SIGKILL goes to groups before it goes to single processes, and before any look at /proc: the kernel signals a whole
//! group at one moment at which none of its members can fork (`kill(2)`), so not even a fork bomb escapes. Looks are
//! bounded in time (`leftovers.rs`) and kept apart by a [`Pace`], so that processes which come and go without an end
//! cannot keep guard busy.

use super::Runtime;
use super::leftovers::{LONGEST_WALK, Leftovers, Receivers, whole_groups};
use crate::config::Scope;
use crate::signal::Signal;
use crate::supervisor::{Event, RunId, Timestamp};
use crate::sys::procfs::{self, Process, State};
use crate::sys::{Pid, process, signals};
use std::collections::HashSet;
use std::time::Duration;

/// The pause before the third look at a run's leftovers. Each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Keeps looks apart. The first one that is asked for comes at once, since most leftovers end at once.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Timestamp>,
    /// No look before this.
    earliest: Timestamp,
    pause: Duration,
}

impl Pace {
    /// Asks for a look as soon as the pace allows.
    fn ask(&mut self, now: Timestamp) {
        let at = now.max(self.earliest);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Asks for a look after the longest pause: the last one has run out of time, so the next would too.
    fn ask_later(&mut self, now: Timestamp) {
        self.due.get_or_insert(now.after(LONGEST_PAUSE));
    }

    /// Asks for one at once, which costs nothing.
    fn ask_now(&mut self, now: Timestamp) {
        self.due = Some(now);
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// A look that was asked for has been taken.
    fn taken(&mut self, now: Timestamp) {
        self.due = None;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.earliest = now.after(self.pause);
    }
}

/// A run's leftovers after they were signalled.
#[derive(Debug)]
pub(super) struct Sweep {
    signal: Signal,
    /// The leftovers that lived at the last look.
    left: HashSet<Pid>,
    /// No others lived then.
    complete: bool,
    /// There is no /proc to look at.
    blind: bool,
    pace: Pace,
}

/// What is left of a run.
enum Found {
    Seen(Leftovers),
    /// Without /proc, the run's group is all that can be seen and reached.
    Group(Pid),
    Nothing,
}

impl Runtime<'_> {
    /// Notes which processes got SIGTERM with the main process's group, and so are not to get it again as leftovers. Comes
    /// after the signal, which does not wait for a look.
    pub(super) fn note_receivers(&mut self, id: RunId, signal: Signal) {
        if self.config.signal_scope == Scope::Process || signal != Signal::TERM {
            return;
        }
        // Not the run's, which is another one after MAINPID.
        let Some(main) = self.children.main(id) else { return };
        let group = self.children.shared_group.filter(|_| self.is_in_shared_group(main)).unwrap_or(main);
        let told = self.descendants(LONGEST_WALK).map(|seen| Receivers::new(&seen, group)).unwrap_or_default();
        if let Some(run) = self.children.get_mut(id) {
            run.receivers = told;
        }
    }

    /// Signals the leftovers of a run. The answer counts them as they were before SIGTERM: their ends are events of their
    /// own.
    pub(super) fn sweep(&mut self, id: RunId, signal: Signal) -> Event {
        if signal == Signal::KILL && !self.reaping.childless {
            self.kill_group(id);
        }
        let found = self.find(id);
        match &found {
            Found::Seen(leftovers) if signal == Signal::KILL => {
                self.kill(id, leftovers);
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
        if let Some(run) = self.children.get_mut(id) {
            run.sweep = Some(Sweep {
                signal,
                left: HashSet::new(),
                complete: true,
                blind: matches!(found, Found::Group(_)),
                pace: Pace::default(),
            });
        }
        self.count(id, &found)
    }

    /// Asks the leftovers of a run to end: the run's group as a whole, the others one by one.
    fn terminate(&self, id: RunId, signal: Signal, leftovers: &Leftovers) {
        let Some(run) = self.children.get(id) else { return };
        // Apps quit hard on a second signal.
        let (told, others) = run.receivers.split(&leftovers.living);
        self.journal.leftovers_told(id, &told);
        self.journal.swept(id, signal, &others);
        let group = Some(run.group).filter(|&group| run.receivers.is_empty() && signals::group_lives(group));
        if let Some(group) = group {
            self.journal.signalled(id, signal, signals::send_to_group(group, signal));
            if !leftovers.complete {
                let _ = signals::send_to_group(group, Signal::CONT);
            }
        }
        for process in others {
            if group != Some(process.group) {
                self.journal.signalled(id, signal, signals::send(process.pid, signal));
            }
            // It would never see SIGTERM.
            if process.state == State::Stopped {
                let _ = signals::send(process.pid, Signal::CONT);
            }
        }
    }

    /// SIGKILL to the leftovers that were seen: to whole groups first.
    fn kill(&self, id: RunId, leftovers: &Leftovers) {
        let group = self.children.get(id).map(|run| run.group);
        let rest: Vec<Process> =
            leftovers.living.iter().copied().filter(|process| Some(process.group) != group).collect();
        kill_processes(&rest, &leftovers.descendants);
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
        let found = self.find(id);
        if let Found::Seen(leftovers) = &found {
            if signal == Signal::KILL {
                self.kill(id, leftovers);
            } else if !complete {
                let left = self.children.get(id).and_then(|run| run.sweep.as_ref()).map(|sweep| &sweep.left);
                let is_new = |process: &&Process| left.is_some_and(|left| !left.contains(&process.pid));
                let new: Vec<Process> = leftovers.living.iter().filter(is_new).copied().collect();
                self.terminate_unseen(id, signal, &new);
            }
        }
        let now = self.clock.now();
        if let Some(sweep) = self.children.get_mut(id).and_then(|run| run.sweep.as_mut()) {
            sweep.pace.taken(now);
        }
        self.count(id, &found)
    }

    /// Signals leftovers that the first look had no time for.
    fn terminate_unseen(&self, id: RunId, signal: Signal, processes: &[Process]) {
        let Some(run) = self.children.get(id) else { return };
        let (_, others) = run.receivers.split(processes);
        // The group has got it as a whole.
        for process in others.iter().filter(|process| process.group != run.group) {
            self.journal.signalled(id, signal, signals::send(process.pid, signal));
            if process.state == State::Stopped {
                let _ = signals::send(process.pid, Signal::CONT);
            }
        }
    }

    fn find(&mut self, id: RunId) -> Found {
        if self.reaping.childless {
            return Found::Nothing;
        }
        let group = self.children.get(id).map(|run| run.group);
        if self.has_only_started() && !group.is_some_and(signals::group_lives) {
            return Found::Nothing;
        }
        // A look is no snapshot: a process may fork and end during it, and be missed with its child. So nothing counts as
        // gone before two looks have missed it.
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
        self.journal.unmarked_told(&new);
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
            self.ending.unmarked = Some(Sweep { signal: Signal::TERM, left, complete, blind: false, pace });
        }
        Event::UnmarkedCounted(count)
    }

    /// Whether guard has no children but those that it has started itself and not yet reaped. What a process leaves behind is
    /// guard's child from its end on, so then nothing is left of a run whose main process was reaped. With many instances this
    /// takes the place of a look at all of their processes for each that ends.
    fn has_only_started(&mut self) -> bool {
        if !self.reaping.only_started {
            let mut started: Vec<Pid> = self.children.started().chain(self.children.copies.iter().copied()).collect();
            started.sort_unstable();
            // A child that the kernel has missed the first time is hardly missed again.
            let look = || {
                procfs::children().is_some_and(|seen| {
                    seen.len() == started.len() && seen.iter().all(|child| started.binary_search(child).is_ok())
                })
            };
            self.reaping.only_started = look() && look();
        }
        self.reaping.only_started
    }

    /// How many are left.
    fn count(&mut self, id: RunId, found: &Found) -> Event {
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
            // No reaped child tells of a process that guard has not seen.
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

    /// Children were reaped: asks for a look where one of them may have been a leftover that is waited for. A look for each
    /// orphan of somebody else's would cost much.
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
            self.ending.last_blow.ask(now);
        }
    }

    /// When the next look is due that was asked for.
    pub(super) fn next_recount(&self) -> Option<Timestamp> {
        if self.ending.killing {
            return self.ending.last_blow.due;
        }
        let unmarked = self.ending.unmarked.as_ref().and_then(|sweep| sweep.pace.due);
        self.children.runs().filter_map(|run| run.sweep.as_ref()?.pace.due).chain(unmarked).min()
    }

    /// Takes the looks that are due.
    pub(super) fn recount_due(&mut self) {
        if self.next_recount().is_none() {
            return;
        }
        let now = self.clock.now();
        if self.ending.killing {
            if self.ending.last_blow.is_due(now) {
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

    /// SIGKILL to everything that guard can reach. Comes again after children were reaped, for what has come since.
    pub(super) fn kill_everything(&mut self) {
        if self.init {
            signals::kill_all();
        } else {
            let killed = self.kill_known();
            if let Some(mut seen) = self.descendants(LONGEST_WALK) {
                seen.processes.retain(|process| !killed.contains(&process.group));
                // A daemon that hops from pid to pid is only seen by its zombies, which are in its group.
                kill_processes(&seen.processes, &seen.processes);
            }
        }
        let now = self.clock.now();
        self.ending.last_blow.taken(now);
        if !self.init {
            // A process that was missed and does not end wakes nobody.
            self.ending.last_blow.ask(now);
        }
    }

    /// Sends a signal to a hook or a health check and to all below it, as far as a short look shows them: `timeout` and
    /// others put what they start into groups of their own.
    pub(super) fn signal_tree(&self, root: Pid, signal: Signal) {
        if signal == Signal::KILL {
            // Whoever is stopped starts nothing while guard looks, and leaves no orphans.
            let _ = signals::send_to_group(root, Signal::STOP);
        }
        let below = procfs::descendants_of(root, self.end_of_brief_walk());
        let _ = signals::send_to_group(root, signal);
        let mut rest = below.map_or_else(Vec::new, |seen| seen.processes);
        rest.retain(|process| process.lives() && process.group != root);
        if signal == Signal::KILL {
            kill_processes(&rest, &rest);
        } else {
            for process in rest {
                let _ = signals::send(process.pid, signal);
            }
        }
    }

    /// SIGKILL to what is known without /proc: what guard has started, and its groups, which are returned.
    pub(super) fn kill_known(&self) -> Vec<Pid> {
        for started in self.children.started() {
            let _ = signals::send(started, Signal::KILL);
        }
        let groups = self.children.runs().flat_map(|run| [run.group, run.pid]).chain(self.children.auxiliaries());
        groups.filter(|&group| signals::send_to_group(group, Signal::KILL).is_ok()).collect()
    }
}

/// SIGKILL to these processes, some of all descendants: to whole groups where nobody else is in them, then to each that is
/// left.
fn kill_processes(condemned: &[Process], descendants: &[Process]) {
    let groups = whole_groups(condemned, descendants, process::group_and_session(), procfs::exists);
    let groups: HashSet<Pid> = groups.into_iter().collect();
    for &group in &groups {
        let _ = signals::send_to_group(group, Signal::KILL);
    }
    for process in condemned.iter().filter(|process| !groups.contains(&process.group)) {
        let _ = signals::send(process.pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(Duration::from_millis(milliseconds))
    }

    #[test]
    fn looks_come_at_once_and_then_ever_later() {
        let mut pace = Pace::default();
        let mut now = at(1_000);
        let mut times = Vec::new();
        // Something has ended at every moment.
        for millisecond in 1_000..3_000 {
            now = at(millisecond);
            pace.ask(now);
            if pace.is_due(now) {
                pace.taken(now);
                times.push(millisecond - 1_000);
            }
        }
        assert_eq!(times[..8], [0, 5, 15, 35, 75, 155, 315, 565]);
        assert!(times.len() <= 14, "{times:?}");
        pace.ask_now(now);
        assert!(pace.is_due(now));
    }
}
