//! GUARD_MAX_LIFETIME and GUARD_MAX_MEMORY: a run that reaches one of them is replaced.
//!
//! A reload of its instance replaces such a run where sockets are held and GUARD_READY is not `exec`; elsewhere, and where the
//! reload is not possible, a restart in place does. Either way it is one instance at a time. Neither counts against the restart
//! limit. A run that reaches its memory limit before it is stable has failed: the restart policy decides what follows, so that a
//! limit which trips at once again and again ends in giving up.

use super::Supervisor;
use super::cause::{Asker, Cause};
use super::exit_code::Failure;
use super::in_place::Reload;
use super::run_id::RunId;
use super::state::{Instance, Mode, RunState};
use super::timestamp::Timestamp;
use std::time::Duration;

/// How often guard checks whether it may replace a run whose time is over: another instance may be in a reload, or the only one to serve.
const REPLACE_RETRY: Duration = Duration::from_secs(1);

impl Supervisor {
    /// When a run that begins now has had its time: up to a tenth sooner or later, so that a fleet does not replace its
    /// runs at once.
    pub(super) fn end_of_life(&mut self, now: Timestamp) -> Option<Timestamp> {
        let lifetime = self.settings.lifetime?;
        let tenth = lifetime / 10;
        Some(now.after(lifetime - tenth + self.jitter.up_to(tenth * 2)))
    }

    pub(super) fn lifetime_elapsed(&mut self, now: Timestamp, id: RunId) {
        // The time of its diagnosis is over.
        self.end_diagnosis(id);
        let Some(run) = self.run_mut(id) else { return };
        run.replace_at = Some(now.after(REPLACE_RETRY));
        let asker = if run.is_too_large { Asker::Memory } else { Asker::Lifetime };
        self.replace(now, id, asker);
    }

    /// The processes of a run use more memory than they may.
    pub(super) fn memory_exceeded(&mut self, now: Timestamp, id: RunId) {
        let stable_after = self.settings.restart.stable_after;
        let Some(run) = self.run_mut(id).filter(|run| run.serves()) else { return };
        if run.ready_since.is_none_or(|since| now.since(since) < stable_after) {
            self.run_failed(now, id, Failure::Memory);
        } else if !run.is_too_large {
            match self.ask_for_diagnosis(id) {
                Some(timeout) => self.diagnose_serving(now, id, timeout),
                None => self.replace(now, id, Asker::Memory),
            }
        }
    }

    /// A run is diagnosed while it serves. It may hang for that long: its watchdog and its checks wait, whatever it says and a check
    /// finds meanwhile.
    fn diagnose_serving(&mut self, now: Timestamp, id: RunId, timeout: Duration) {
        let Some(run) = self.run_mut(id) else { return };
        run.is_too_large = true;
        run.replace_at = Some(now.after(timeout));
        if let RunState::Ready { ping_by: Some(at) } = &mut run.state {
            *at = at.after(timeout);
        }
        if let Some(checks) = &mut run.checks {
            checks.postpone(timeout);
        }
    }

    /// Replaces the current run of an instance, unless that is about to happen.
    fn replace(&mut self, now: Timestamp, id: RunId, asker: Asker) {
        let can_reload = self.can_replace_unasked();
        // A reload that is queued is the next, and has the next outcome.
        let serving = self.mode == Mode::Serving && self.reload.is_none() && self.reload_again.is_none();
        let Some(instance) = self.instance_mut(id.instance) else { return };
        let Some(run) = instance.current().filter(|run| serving && run.id == id && run.serves()) else { return };
        // After a failed reload for memory guard assumes that two runs do not fit. An old run that SIGKILL has not ended leaves no
        // room for a reload.
        let in_place = run.was_kept && asker == Asker::Memory || instance.retiring.is_some();
        if can_reload && !in_place {
            self.reload_next(now, Reload::of(id.instance, asker));
        } else if self.may_be_down(id.instance, asker) {
            self.restart(now, asker, Some(id.instance));
        }
    }

    /// Whether a run may be down for its limit: no other instance stops for one, and a lifetime, which can wait long, also waits until
    /// another instance is ready.
    fn may_be_down(&self, instance: u32, asker: Asker) -> bool {
        let others = || self.instances.iter().filter(|other| other.number != instance && other.works());
        let stops = |other: &Instance| {
            let is_limit = |cause| matches!(cause, Cause::Restart(asker) if asker.is_limit());
            other.current().is_some_and(|run| run.cause.is_some_and(is_limit) && !run.is_stuck())
        };
        let can_wait = asker == Asker::Lifetime && others().next().is_some();
        !others().any(stops) && (!can_wait || self.any_ready(|other| other.number != instance))
    }
}
