//! What the app says of itself while it works: that it is ready, that it is alive, and that it needs more time.

use super::run_id::RunId;
use super::state::RunState;
use super::timestamp::Timestamp;
use super::{Notice, Supervisor};
use crate::config::Readiness;
use std::time::Duration;

impl Supervisor {
    pub(super) fn said_ready(&mut self, now: Timestamp, id: RunId) {
        if self.settings.ready.when == Readiness::Notify {
            self.run_ready(now, id);
        }
    }

    pub(super) fn listens(&mut self, now: Timestamp, id: RunId) {
        if self.settings.ready.when == Readiness::Listen {
            self.run_ready(now, id);
        }
    }

    /// The run can take work.
    pub(super) fn run_ready(&mut self, now: Timestamp, id: RunId) {
        let Some(run) = self.run_mut(id) else { return };
        let RunState::Starting { .. } = run.state else { return };
        run.state = run.ready_state(now);
        run.ready_since = Some(now);
        if self.settings.ready.when != Readiness::Exec {
            self.report(Notice::Ready { run: id });
        }
        self.new_run_ready(now, id);
    }

    pub(super) fn watchdog_pinged(&mut self, now: Timestamp, id: RunId) {
        if let Some(run) = self.run_mut(id).filter(|run| run.is_ready()) {
            run.state = run.ready_state(run.asked_until().map_or(now, |until| now.max(until)));
        }
    }

    pub(super) fn watchdog_period_changed(&mut self, now: Timestamp, id: RunId, period: Duration) {
        if let Some(run) = self.run_mut(id) {
            run.watchdog = Some(period).filter(|period| !period.is_zero());
        }
        self.watchdog_pinged(now, id);
    }

    /// Moves the ready timeout; in a stop only the step before the deadline.
    pub(super) fn timeout_extended(&mut self, now: Timestamp, id: RunId, time: Duration) {
        let Some(run) = self.run_mut(id) else { return };
        match &mut run.state {
            RunState::Starting { ready_by: Some(at) } => *at = now.after(time).max(*at),
            RunState::Stopping { fallback: Some((at, _)), kill_at } => {
                let later = now.after(time).max(*at);
                *at = kill_at.map_or(later, |kill_at| later.min(kill_at));
            }
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => {}
            RunState::Draining { .. } | RunState::Stopping { .. } | RunState::Diagnosing { .. } => {}
            RunState::Aborting { .. } | RunState::Killing { .. } => {}
            RunState::Sweeping { .. } | RunState::Clearing { .. } => {}
        }
    }

    /// guard and the app stood still, so the app could not say anything. Stop deadlines do not move.
    pub(super) fn overslept(&mut self, delay: Duration) {
        for run in self.runs_mut() {
            if let RunState::Starting { ready_by: Some(at) } | RunState::Ready { ping_by: Some(at) } = &mut run.state {
                *at = at.after(delay);
            }
            if let Some(checks) = &mut run.checks {
                checks.postpone(delay);
            }
        }
    }
}
