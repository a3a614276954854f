//! GUARD_READY=listen: while a run starts, guard searches its processes for a socket that listens. With the filter of GUARD_HOLD the
//! run tells guard, unless it goes another way than the system calls that the filter sees (a 32-bit program, io_uring). So there
//! guard searches late.

use super::Runtime;
use super::journal::of_run;
use crate::config::Readiness;
use crate::supervisor::{Event, RunId, Timestamp};
use crate::sys::clock::Deadline;
use crate::sys::{Pid, listeners, procfs};
use log::Level;
use std::time::Duration;

/// Before the first search. Each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long guard searches at first. Later searches may take as long as the pause before them, up to [`LONGEST_SEARCH`]: a container
/// with a tenth of a CPU gets 10 ms of it in each 100 ms (`cpu.max` of `cgroups(7)`).
const FIRST_SEARCH: Duration = Duration::from_millis(50);

const LONGEST_SEARCH: Duration = Duration::from_millis(250);

/// Before the first search of a run that tells guard when it listens.
const FIRST_PAUSE_WITH_FILTER: Duration = Duration::from_secs(1);

/// When guard searches again.
#[derive(Default)]
pub(super) struct ListenerSearch {
    pub(super) due: Option<Timestamp>,
    pause: Duration,
    /// What listened already when a run was about to start beside others of which guard cannot see what they have, by inode.
    older: Vec<(RunId, Vec<u64>)>,
}

impl Runtime<'_> {
    /// A run is about to start. Where guard may not see what runs have open it will not know the new one's sockets from the others'.
    /// The kernel takes milliseconds for its tables.
    pub(super) fn note_listeners(&mut self, run: RunId) {
        let knows = self.holding.is_on() || self.held.any_listens();
        let is_searched = self.config.ready.when == Readiness::Listen && !knows;
        if is_searched && self.children.started().any(|pid| listeners::is_hidden(&pid)) {
            self.listener_search.older.push((run, listeners::all(Deadline::after(FIRST_SEARCH))));
        }
    }

    /// A run has started, and may have to listen to be ready.
    pub(super) fn expect_listener(&mut self, run: RunId) {
        if self.config.ready.when == Readiness::Listen {
            let pause = if self.holding.hears(run) { FIRST_PAUSE_WITH_FILTER } else { FIRST_PAUSE };
            let search = &mut self.listener_search;
            let due = self.clock.now().after(pause);
            search.due = Some(search.due.map_or(due, |other| other.min(due)));
            search.pause = FIRST_PAUSE;
        }
    }

    /// Searches the processes of each run that starts.
    pub(super) fn find_listeners(&mut self) {
        self.listener_search.due = None;
        let is_handed_listener = |run: &RunId| self.held.any_listens() && !self.holding.hears(*run);
        let (listening, mut starting): (Vec<RunId>, Vec<RunId>) =
            self.supervisor.starting().partition(is_handed_listener);
        for run in listening {
            self.dispatch(Event::Listens(run));
        }
        self.listener_search.older.retain(|(run, _)| starting.contains(run));
        if starting.is_empty() {
            return;
        }
        let now = self.clock.now();
        let is_late = |id| self.children.get(id).is_some_and(|run| now.since(run.started) >= FIRST_PAUSE_WITH_FILTER);
        starting.retain(|run| !self.holding.hears(*run) || is_late(*run));
        let deadline = Deadline::after(self.listener_search.pause.clamp(FIRST_SEARCH, LONGEST_SEARCH));
        let seen = if starting.is_empty() { None } else { procfs::descendants(deadline) };
        let seen = seen.map_or_else(Vec::new, |seen| seen.processes);
        for run in starting {
            let Some(main) = self.children.main(run) else { continue };
            let mut tree: Vec<Pid> = vec![main];
            for process in &seen {
                if tree.contains(&process.parent) && !tree.contains(&process.pid) {
                    tree.push(process.pid);
                }
            }
            // Of guard's own the run itself tells when it listens, as it does where guard may not see what it has.
            let is_guards = |inode| self.holding.listens(inode);
            let older = self.listener_search.older.iter().find(|(of, _)| *of == run);
            let is_older = |inode| older.is_some_and(|(_, inodes)| inodes.contains(&inode)) || self.holding.hears(run);
            if listeners::any_listens(&tree, &is_guards, &is_older, deadline) {
                if self.holding.hears(run) && !self.held.any_listens() {
                    of_run!(self.journal, Level::Warn, run, msg = "GUARD_HOLD: the app listens in a way that guard does not see (32-bit, io_uring), and is not held"; "not-held");
                }
                self.dispatch(Event::Listens(run));
            }
        }
        let pause = (self.listener_search.pause * 2).min(LONGEST_PAUSE);
        (self.listener_search.due, self.listener_search.pause) = (Some(self.clock.now().after(pause)), pause);
    }
}
