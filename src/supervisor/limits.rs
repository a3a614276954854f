//! Runs that are replaced for what they have reached: GUARD_MAX_LIFETIME, or GUARD_MAX_MEMORY.
//!
//! Where sockets are held and a run tells when it is ready, a reload of its instance replaces it, elsewhere a restart in
//! place. Neither counts against the restart limit. A run that reaches its memory limit before it is stable has failed: the
//! restart policy decides what follows, so that a limit which trips at once again and again ends in giving up.

use super::Supervisor;
use super::exit_code::Failure;
use super::run_id::RunId;
use super::state::{Asker, Mode, Reload};
use super::timestamp::Timestamp;
use crate::config::Readiness;
use std::time::Duration;

/// A run whose time is over during the reload of another instance waits this long.
const LATER: Duration = Duration::from_secs(1);

impl Supervisor {
    /// When a run that begins now has had its time: up to a tenth sooner or later, so that a fleet does not replace its
    /// runs at once.
    pub(super) fn end_of_life(&mut self, now: Timestamp) -> Option<Timestamp> {
        let lifetime = self.settings.lifetime?;
        let tenth = lifetime / 10;
        Some(now.after(lifetime - tenth + self.jitter.up_to(tenth * 2)))
    }

    pub(super) fn lifetime_elapsed(&mut self, now: Timestamp, id: RunId) {
        if let Some(run) = self.run_mut(id) {
            run.replace_at = Some(now.after(LATER));
        }
        self.replace(now, id, Asker::Lifetime);
    }

    /// The processes of a run use more memory than they may.
    pub(super) fn memory_exceeded(&mut self, now: Timestamp, id: RunId) {
        let stable_after = self.settings.restart.stable_after;
        let Some(run) = self.run_mut(id).filter(|run| run.serves()) else { return };
        if run.ready_since.is_some_and(|since| now.since(since) >= stable_after) {
            self.replace(now, id, Asker::Memory);
        } else {
            self.run_failed(now, id, Failure::Memory);
        }
    }

    /// Replaces the current run of an instance, unless that is about to happen.
    fn replace(&mut self, now: Timestamp, id: RunId, asker: Asker) {
        let can_reload = self.settings.holds && self.settings.ready.when != Readiness::Exec;
        let serving = self.mode == Mode::Serving && self.reload.is_none();
        let Some(instance) = self.instance_mut(id.instance) else { return };
        let Some(run) = instance.current().filter(|run| serving && run.id == id && run.serves()) else { return };
        if can_reload && !run.was_kept {
            self.reload_next(now, Reload::of(id.instance, asker));
        } else {
            self.restart(now, asker, Some(id.instance));
        }
    }
}
