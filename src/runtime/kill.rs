//! SIGKILL to everything, or to a tree of processes.
//!
//! It goes to groups before it goes to single processes: the kernel signals a whole group at one moment at which none of its members
//! can fork (`kill(2)`).

use super::Runtime;
use super::children::RunProcess;
use super::leftovers::{LONGEST_WALK, whole_groups};
use crate::signal::Signal;
use crate::sys::procfs::{self, Process};
use crate::sys::{Pid, process, signals};
use std::collections::HashSet;

impl Runtime<'_> {
    /// SIGKILL to everything that guard can reach. Comes again after children were reaped, for what has come since.
    pub(super) fn kill_everything(&mut self) {
        if self.init {
            // Nothing comes before it: thousands that have got SIGKILL keep guard from the CPU until they have ended.
            signals::send_to_all(Signal::KILL);
            self.ending.kill_pace.taken_by_all(self.clock.now());
            return;
        }
        let killed = self.kill_known();
        if let Some(mut seen) = self.descendants(LONGEST_WALK) {
            seen.processes.retain(|process| !killed.contains(&process.group));
            // A daemon that hops from pid to pid is only seen by its zombies, which are in its group.
            kill_processes(&seen.processes, &seen.processes);
        }
        let now = self.clock.now();
        self.ending.kill_pace.taken(now);
        // A process that was missed and does not end wakes nobody.
        self.ending.kill_pace.ask(now);
    }

    /// Sends a signal to a hook or a health check and to all its descendants that a short walk of /proc finds: `timeout` and
    /// others put what they start into groups of their own.
    pub(super) fn signal_tree(&self, root: Pid, signal: Signal) {
        if signal == Signal::KILL {
            // A stopped process starts nothing during the walk, and leaves no orphans.
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
        let other = |run: &RunProcess| Some(run.pid).filter(|pid| *pid != run.group);
        let groups = self.children.runs().flat_map(|run| std::iter::once(run.group).chain(other(run)));
        groups
            .chain(self.children.auxiliaries())
            .filter(|&group| signals::send_to_group(group, Signal::KILL).is_ok())
            .collect()
    }
}

/// SIGKILL to these processes, some of all descendants: to whole groups where nobody else is in them, then to each that is
/// left.
pub(super) fn kill_processes(condemned: &[Process], descendants: &[Process]) {
    let groups = whole_groups(condemned, descendants, process::group_and_session(), procfs::exists);
    let groups: HashSet<Pid> = groups.into_iter().collect();
    for &group in &groups {
        let _ = signals::send_to_group(group, Signal::KILL);
    }
    for process in condemned.iter().filter(|process| !groups.contains(&process.group)) {
        let _ = signals::send(process.pid, Signal::KILL);
    }
}
