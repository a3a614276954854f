//! GUARD_READY=listen: while a run starts, guard searches its processes for a socket that listens. With the filter of GUARD_HOLD the
//! run tells guard, unless it goes another way than the system calls that the filter sees (a 32-bit program, io_uring). So there
//! guard searches late.

use super::Runtime;
use super::journal::of_run;
use crate::config::Readiness;
use crate::supervisor::{Event, RunId, Timestamp};
use crate::sys::clock::Deadline;
use crate::sys::listeners::any_listens;
use crate::sys::{Pid, procfs};
use log::Level;
use std::time::Duration;

/// Before the first search. Each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_SEARCH: Duration = Duration::from_millis(50);

/// Before the first search of a run that tells guard when it listens.
const FIRST_PAUSE_WITH_FILTER: Duration = Duration::from_secs(1);

/// When guard searches again.
#[derive(Default)]
pub(super) struct ListenerSearch {
    pub(super) due: Option<Timestamp>,
    pause: Duration,
}

impl Runtime<'_> {
    /// A run has started, and may have to listen to be ready.
    pub(super) fn expect_listener(&mut self, run: RunId) {
        if self.config.ready.when == Readiness::Listen {
            let pause = if self.holding.hears(run) { FIRST_PAUSE_WITH_FILTER } else { FIRST_PAUSE };
            let search = &mut self.listener_search;
            let due = self.clock.now().after(pause);
            *search = ListenerSearch { due: Some(search.due.map_or(due, |other| other.min(due))), pause: FIRST_PAUSE };
        }
    }

    /// Searches the processes of each run that starts.
    pub(super) fn find_listeners(&mut self) {
        self.listener_search.due = None;
        let now = self.clock.now();
        let is_late = |id| self.children.get(id).is_some_and(|run| now.since(run.started) >= FIRST_PAUSE_WITH_FILTER);
        let mut starting: Vec<RunId> = self.supervisor.starting().collect();
        if starting.is_empty() {
            return;
        }
        starting.retain(|run| !self.holding.hears(*run) || is_late(*run));
        let deadline = Deadline::after(LONGEST_SEARCH);
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
            if any_listens(&tree, deadline) {
                if self.holding.hears(run) && self.config.listen.is_empty() {
                    of_run!(self.journal, Level::Warn, run, msg = "GUARD_HOLD: the app listens in a way that guard does not see (32-bit, io_uring), and is not held"; "not-held");
                }
                self.dispatch(Event::Listens(run));
            }
        }
        let pause = (self.listener_search.pause * 2).min(LONGEST_PAUSE);
        self.listener_search = ListenerSearch { due: Some(self.clock.now().after(pause)), pause };
    }
}
