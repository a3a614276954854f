//! GUARD_READY=listen without the filter of GUARD_HOLD: while a run starts, guard searches its processes for a socket that
//! listens.

use super::Runtime;
use crate::config::Readiness;
use crate::supervisor::{Event, RunId, Timestamp};
use crate::sys::clock::Deadline;
use crate::sys::listeners::any_listens;
use crate::sys::{Pid, procfs};
use std::time::Duration;

/// Before the first search. Each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_SEARCH: Duration = Duration::from_millis(50);

/// When guard searches again.
#[derive(Default)]
pub(super) struct ListenerSearch {
    pub(super) due: Option<Timestamp>,
    pause: Duration,
}

impl Runtime<'_> {
    /// A run has started, and may have to listen to be ready.
    pub(super) fn expect_listener(&mut self, run: RunId) {
        if self.config.ready.when == Readiness::Listen && !self.holding.hears(run) {
            self.listener_search =
                ListenerSearch { due: Some(self.clock.now().after(FIRST_PAUSE)), pause: FIRST_PAUSE };
        }
    }

    /// Searches the processes of each run that starts.
    pub(super) fn find_listeners(&mut self) {
        self.listener_search.due = None;
        let starting: Vec<RunId> = self.supervisor.starting().filter(|run| !self.holding.hears(*run)).collect();
        if starting.is_empty() {
            return;
        }
        let deadline = Deadline::after(LONGEST_SEARCH);
        let seen = procfs::descendants(deadline).map_or_else(Vec::new, |seen| seen.processes);
        for run in starting {
            let Some(main) = self.children.main(run) else { continue };
            let mut tree: Vec<Pid> = vec![main];
            for process in &seen {
                if tree.contains(&process.parent) && !tree.contains(&process.pid) {
                    tree.push(process.pid);
                }
            }
            if any_listens(&tree, deadline) {
                self.dispatch(Event::Listens(run));
            }
        }
        let pause = (self.listener_search.pause * 2).min(LONGEST_PAUSE);
        self.listener_search = ListenerSearch { due: Some(self.clock.now().after(pause)), pause };
    }
}
