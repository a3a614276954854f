//! GUARD_DRAIN_IDLE: the stop signal waits until no connection is left, at most this long after the drain delay.
//!
//! All runs that wait share one count, since a connection is known by its port alone.

use super::run_id::RunId;
use super::state::{Idle, Run, RunState};
use super::timestamp::{Timestamp, earlier};
use super::{Action, Notice, Supervisor};
use crate::signal::Signal;
use std::time::Duration;

/// The pause after the first count. Each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The count of connections, while a run waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Count {
    /// When guard counts again; `None` until the last count is answered.
    pub(super) at: Option<Timestamp>,
    pause: Duration,
    /// At the last count.
    left: usize,
}

impl Run {
    /// The drain delay is over: what the stop signal needs, or `None` while the run waits for its connections.
    pub(super) fn delay_over(&mut self, now: Timestamp) -> Option<(RunId, Signal, Option<Timestamp>)> {
        let RunState::Draining { signal, until, idle, kill_at } = &mut self.state else { return None };
        if *until <= now
            && let Idle::After(time) = *idle
        {
            *idle = Idle::Now;
            *until = earlier(Some(until.after(time)), *kill_at)?;
        }
        (*until <= now).then_some((self.id, *signal, *kill_at))
    }

    fn waits_for_connections(&self) -> bool {
        matches!(self.state, RunState::Draining { idle: Idle::Now, .. })
    }
}

impl Supervisor {
    /// Begins to count when the first run waits, and ends it with the last one.
    pub(super) fn update_count(&mut self) {
        let waits = self.runs().any(Run::waits_for_connections);
        match (self.count, waits) {
            (None, true) => {
                self.count = Some(Count { at: None, pause: FIRST_PAUSE, left: 0 });
                self.actions.push(Action::CountConnections { first: true });
            }
            (Some(_), false) => self.count = None,
            (Some(_), true) | (None, false) => {}
        }
    }

    pub(super) fn count_timer_elapsed(&mut self) {
        if let Some(count) = &mut self.count {
            count.at = None;
            self.actions.push(Action::CountConnections { first: false });
        }
    }

    /// So many connections are left. Without any the runs have waited long enough.
    pub(super) fn connections_counted(&mut self, now: Timestamp, left: usize) {
        let Some(count) = self.count.as_mut().filter(|count| count.at.is_none()) else { return };
        *count = Count { at: Some(now.after(count.pause)), pause: (count.pause * 2).min(LONGEST_PAUSE), left };
        if left > 0 {
            return;
        }
        for run in self.runs_mut() {
            if let RunState::Draining { until, idle: Idle::Now, .. } = &mut run.state {
                *until = now.min(*until);
            }
        }
    }

    /// The stop signal goes to runs though connections are left.
    pub(super) fn report_connections(&mut self) {
        if let Some(Count { left: connections @ 1.., .. }) = self.count {
            self.report(Notice::StillConnected { connections });
        }
    }
}
