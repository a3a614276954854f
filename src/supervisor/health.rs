//! Health checks: when the next one is due, and how many have failed in a row.

use super::exit_code::Failure;
use super::state::{RunId, Timestamp};
use super::{Action, Notice, Supervisor};
use crate::config::{HealthSettings, Readiness};
use std::time::Duration;

/// Before the first check of a run, which needs a moment to listen.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The health checks of a run that serves: one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Checks {
    check: Check,
    /// Failures in a row that count.
    failures: u32,
    /// Until then failures do not count; `None` since the first success.
    lenient_until: Option<Timestamp>,
    /// Before the next check: in the start period it grows from a short one, lest a fast app waits for a slow interval.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Check {
    Due(Timestamp),
    Running { kill_at: Timestamp },
    Killed,
}

impl Checks {
    pub(super) fn begin(now: Timestamp, settings: HealthSettings) -> Checks {
        let lenient = !settings.start_period.is_zero();
        let pause = if lenient { FIRST_PAUSE.min(settings.interval) } else { settings.interval };
        let lenient_until = lenient.then(|| now.after(settings.start_period));
        Checks { check: Check::Due(now.after(pause)), failures: 0, lenient_until, pause }
    }

    /// When a check starts, or is killed.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        match self.check {
            Check::Due(at) | Check::Running { kill_at: at } => Some(at),
            Check::Killed => None,
        }
    }

    /// A check is under way, killed or not.
    pub(super) fn is_running(&self) -> bool {
        match self.check {
            Check::Due(_) => false,
            Check::Running { .. } | Check::Killed => true,
        }
    }

    pub(super) fn postpone(&mut self, delay: Duration) {
        match &mut self.check {
            Check::Due(at) | Check::Running { kill_at: at } => *at = at.after(delay),
            Check::Killed => {}
        }
        self.lenient_until = self.lenient_until.map(|at| at.after(delay));
    }

    /// Takes an outcome, and returns whether it counts as a failure.
    fn ended(&mut self, now: Timestamp, passed: bool, settings: HealthSettings) -> bool {
        let lenient = self.lenient_until.is_some_and(|until| now < until);
        if passed {
            self.failures = 0;
            self.lenient_until = None;
        } else if !lenient {
            self.failures += 1;
        }
        self.pause = if lenient && !passed { (self.pause * 2).min(settings.interval) } else { settings.interval };
        self.check = Check::Due(now.after(self.pause));
        !passed && !lenient
    }
}

impl Supervisor {
    /// A check has ended. One that ends after its run has ceased to serve means nothing.
    pub(super) fn checked(&mut self, now: Timestamp, id: RunId, passed: bool) {
        let (Some(settings), when) = (self.settings.health, self.settings.ready.when) else { return };
        let Some(run) = self.run_mut(id) else { return };
        let Some(checks) = run.checks.as_mut().filter(|checks| checks.is_running()) else { return };
        let before = checks.failures;
        let counts = checks.ended(now, passed, settings);
        let (count, limit) = (checks.failures, settings.retries);
        if counts {
            self.report(Notice::CheckFailed { run: id, count, limit });
        } else if passed && before > 0 {
            self.report(Notice::Recovered { run: id });
        }
        if count >= limit {
            self.fail(now, id, Failure::Health);
        } else if passed && when == Readiness::Health {
            self.ready(now, id);
        }
    }

    /// Starts the check that is due, or ends the one that takes too long.
    pub(super) fn check_timeout(&mut self, now: Timestamp, id: RunId) {
        let Some(settings) = self.settings.health else { return };
        let Some(checks) = self.run_mut(id).and_then(|run| run.checks.as_mut()) else { return };
        match checks.check {
            Check::Due(at) if at <= now => {
                checks.check = Check::Running { kill_at: now.after(settings.timeout) };
                self.actions.push(Action::StartCheck(id));
            }
            Check::Running { kill_at } if kill_at <= now => {
                checks.check = Check::Killed;
                self.actions.push(Action::KillCheck(id));
            }
            Check::Due(_) | Check::Running { .. } | Check::Killed => {}
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
        match &mut self.check {
            Check::Due(at) | Check::Running { kill_at: at } => *at = shift(*at),
            Check::Killed => {}
        }
        self.lenient_until = self.lenient_until.map(shift);
    }
}
