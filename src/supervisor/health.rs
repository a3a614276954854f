//! Health checks: when the next one is due, and how many have failed in a row.
//!
//! Checks of a run never overlap, and end when the run ceases to serve.

use super::exit_code::Failure;
use super::run_id::RunId;
use super::timestamp::Timestamp;
use super::{Action, Notice, Supervisor};
use crate::config::{HealthSettings, Readiness};
use std::time::Duration;

/// Before the first check of a run, which needs a moment to listen.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The health checks of a run that serves. [`Supervisor::check_timer_elapsed`] starts a check, and kills one that takes too
/// long; [`Supervisor::check_ended`] takes the outcome of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Checks {
    phase: CheckPhase,
    /// Failures in a row that count.
    failures: u32,
    /// Until then failures do not count; `None` since the first success.
    lenient_until: Option<Timestamp>,
    /// Before the next check. In the start period it grows from a short one, so that a fast app is ready early.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CheckPhase {
    Due(Timestamp),
    Running { kill_at: Timestamp },
    Killed,
}

impl Checks {
    pub(super) fn begin(now: Timestamp, settings: HealthSettings) -> Checks {
        let lenient = !settings.start_period.is_zero();
        let pause = if lenient { FIRST_PAUSE.min(settings.interval) } else { settings.interval };
        let lenient_until = lenient.then(|| now.after(settings.start_period));
        Checks { phase: CheckPhase::Due(now.after(pause)), failures: 0, lenient_until, pause }
    }

    /// When a check starts, or is killed.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            CheckPhase::Due(at) | CheckPhase::Running { kill_at: at } => Some(at),
            CheckPhase::Killed => None,
        }
    }

    /// A check is under way, killed or not.
    pub(super) fn is_running(&self) -> bool {
        match self.phase {
            CheckPhase::Due(_) => false,
            CheckPhase::Running { .. } | CheckPhase::Killed => true,
        }
    }

    pub(super) fn postpone(&mut self, delay: Duration) {
        match &mut self.phase {
            CheckPhase::Due(at) | CheckPhase::Running { kill_at: at } => *at = at.after(delay),
            CheckPhase::Killed => {}
        }
        self.lenient_until = self.lenient_until.map(|at| at.after(delay));
    }

    /// Takes an outcome, and returns whether it counts as a failure.
    fn take_outcome(&mut self, now: Timestamp, passed: bool, settings: HealthSettings) -> bool {
        let lenient = self.lenient_until.is_some_and(|until| now < until);
        if passed {
            self.failures = 0;
            self.lenient_until = None;
        } else if !lenient {
            self.failures += 1;
        }
        self.pause = if lenient && !passed { (self.pause * 2).min(settings.interval) } else { settings.interval };
        self.phase = CheckPhase::Due(now.after(self.pause));
        !passed && !lenient
    }
}

impl Supervisor {
    /// A check has ended. Its outcome means nothing if the run has ceased to serve.
    pub(super) fn check_ended(&mut self, now: Timestamp, id: RunId, passed: bool) {
        let (Some(settings), when) = (self.settings.health, self.settings.ready.when) else { return };
        let Some(run) = self.run_mut(id) else { return };
        let asked_until = run.asked_until();
        let Some(checks) = run.checks.as_mut().filter(|checks| checks.is_running()) else { return };
        if let Some(until) = asked_until {
            checks.phase = CheckPhase::Due(until.after(settings.interval));
            return;
        }
        let before = checks.failures;
        let counts = checks.take_outcome(now, passed, settings);
        let (count, limit) = (checks.failures, settings.retries);
        if counts {
            self.report(Notice::CheckFailed { run: id, count, limit });
        } else if passed && before > 0 {
            self.report(Notice::Recovered { run: id });
        }
        if count >= limit {
            self.run_failed(now, id, Failure::Health);
        } else if passed && when == Readiness::Health {
            self.run_ready(now, id);
        }
    }

    /// The deadline of a run's checks has passed: starts the check that is due, or kills the one that takes too long.
    pub(super) fn check_timer_elapsed(&mut self, now: Timestamp, id: RunId) {
        let Some(settings) = self.settings.health else { return };
        let Some(checks) = self.run_mut(id).and_then(|run| run.checks.as_mut()) else { return };
        match checks.phase {
            CheckPhase::Due(_) => {
                checks.phase = CheckPhase::Running { kill_at: now.after(settings.timeout) };
                self.actions.push(Action::StartCheck(id));
            }
            CheckPhase::Running { .. } => {
                checks.phase = CheckPhase::Killed;
                self.actions.push(Action::KillCheck(id));
            }
            CheckPhase::Killed => {}
        }
    }

    /// A run that no longer serves is not checked any more.
    pub(super) fn end_checks(&mut self) {
        let Supervisor { instances, actions, .. } = self;
        for run in instances.iter_mut().flat_map(|instance| instance.runs_mut()).filter(|run| !run.serves()) {
            if run.checks.take().is_some_and(|checks| checks.is_running()) {
                actions.push(Action::KillCheck(run.id));
            }
        }
    }
}

#[cfg(test)]
impl Checks {
    /// Moves all times.
    pub(super) fn shift(&mut self, shift: &impl Fn(Timestamp) -> Timestamp) {
        match &mut self.phase {
            CheckPhase::Due(at) | CheckPhase::Running { kill_at: at } => *at = shift(*at),
            CheckPhase::Killed => {}
        }
        self.lenient_until = self.lenient_until.map(shift);
    }
}
