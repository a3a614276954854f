//! What operators ask for while guard goes on: restart and reload.
//!
//! A restart stops the current run of each instance, and the next one follows at once. It is concluded when the new runs
//! of all of them are ready.
//!
//! A reload replaces the runs of one instance after the other: the new run starts beside the old one, the old one is
//! stopped when the new one is ready, and the next instance has its turn when the old one is over. Where no run serves,
//! the run that comes next is the new one. A reload that is asked for meanwhile follows this one. If a new run fails
//! before it is ready, the reload has failed: the old run stays, and the instances that are left keep theirs. They keep theirs too
//! if a new run was ready and ends by itself before the reload is over.
//!
//! Every request ends in one [`Action::Conclude`]; requests that are served together share it.

use super::action::{InPlace, Outcome};
use super::cause::{Asker, Cause};
use super::health::Checks;
use super::run_id::RunId;
use super::state::{Instance, Mode, Slot};
use super::stop::{Drain, UNKILLABLE};
use super::timestamp::Timestamp;
use super::{Action, Notice, Supervisor};
use crate::config::Readiness;

const STOPPING: Outcome = Err("guard is stopping");

const NEW_RUN_ENDED: &str = "a new run was ready, and has ended; runs that were not replaced yet stay";

const RELOADING: &str = "a reload is under way";

const NO_RUN: &str = "there is no run, and none will follow";

/// A reload that is under way. It replaces the runs of one instance after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reload {
    pub(super) asker: Asker,
    /// The instance whose turn it is.
    pub(super) instance: u32,
    /// The new run of that instance, once it is ready.
    pub(super) replaced_by: Option<RunId>,
    /// The new run of the instance before.
    pub(super) newest: Option<RunId>,
}

impl Reload {
    /// One that begins with this instance.
    pub(super) fn of(instance: u32, asker: Asker) -> Reload {
        Reload { asker, instance, replaced_by: None, newest: None }
    }
}

impl Supervisor {
    /// A restart in place, of all instances or of the one with this number: each run is drained and stopped within a stop
    /// timeout of its own. Nobody waits for the outcome of the restart of one.
    pub(super) fn restart(&mut self, now: Timestamp, asker: Asker, only: Option<u32>) {
        match self.mode {
            Mode::Serving => {}
            Mode::Draining(_) | Mode::Sweeping(_) | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {
                return self.conclude(InPlace::Restart, STOPPING);
            }
        }
        let timeout = self.settings.stop.restart_timeout;
        let drain = self.drain_of(now, only.is_some() && self.instances.len() > 1);
        let mut notices = Vec::new();
        let is_meant = |number| only.is_none_or(|only| only == number);
        // What a reload is replacing cannot be restarted, and a restart of the others alone would be half of one.
        if self.instances.iter().any(|i| is_meant(i.number) && i.serves_while_replaced()) {
            return self.refuse_restart(asker, only);
        }
        let leads = self.holds && self.any_ready(|instance| !is_meant(instance.number));
        let mut stuck = false;
        for instance in self.instances.iter_mut().filter(|i| !i.leaving && is_meant(i.number)) {
            match &mut instance.slot {
                Slot::Live(run) if run.serves() => {
                    run.end_for(Cause::Restart(asker));
                    run.begin_end(now, drain, leads);
                    notices.push(Notice::RestartRequested { run: run.id, asker });
                }
                Slot::Waiting { spawn_at: Some(at) } => {
                    *at = now;
                    notices.push(Notice::Ignored { what: "backoff", why: "a restart was asked for" });
                }
                Slot::Live(run) if run.is_stuck() => stuck = true,
                // It ends already: the next run follows as if this restart had ended it, and no later.
                Slot::Live(run) if run.cause < Some(Cause::Restart(asker)) => {
                    run.end_for(Cause::Restart(asker));
                    run.drain(now, drain);
                    notices.push(Notice::RestartRequested { run: run.id, asker });
                }
                Slot::Live(_) => notices.push(Notice::Ignored { what: "restart", why: "one is under way" }),
                Slot::Waiting { spawn_at: None } | Slot::Finished => continue,
            }
            instance.restarting |= only.is_none();
        }
        for notice in notices {
            self.report(notice);
        }
        if only.is_none() && stuck {
            self.conclude_restart(Err(UNKILLABLE));
        } else if only.is_none() && !self.is_restarting() {
            self.conclude(InPlace::Restart, Err(NO_RUN));
        }
        self.update_drain_file();
        // Both say that the container leaves.
        if self.drain_file {
            self.start_hook_for_drain(now, Some(timeout));
        }
        self.recount_cpus();
    }

    /// A reload replaces what is to be restarted.
    fn refuse_restart(&mut self, asker: Asker, only: Option<u32>) {
        if asker == Asker::File {
            // Nobody would ask again, and the new run may have read what the file was before.
            self.reload_again = self.reload_again.max(Some(asker));
            return self.report(Notice::ReloadQueued);
        }
        self.report(Notice::Ignored { what: "restart", why: RELOADING });
        // Who asks while another restart is under way shares its outcome.
        if only.is_none() && !self.is_restarting() {
            self.conclude(InPlace::Restart, Err(RELOADING));
        }
    }

    /// A restart of all instances waits for a new run to be ready.
    pub(super) fn is_restarting(&self) -> bool {
        self.instances.iter().any(|instance| instance.restarting)
    }

    /// Whether a reload can replace a run that nobody has asked to replace: the new run gets the sockets of the old one, and says when
    /// it is ready. Elsewhere a restart in place does, since the new run may need what the old one has.
    pub(super) fn can_replace_unasked(&self) -> bool {
        self.holds && self.settings.ready.when != Readiness::Exec
    }

    /// A reload; for a changed file a restart in place where a reload may not be possible.
    pub(super) fn reload_for(&mut self, now: Timestamp, asker: Asker) {
        if asker == Asker::File && !self.can_replace_unasked() {
            self.restart(now, asker, None);
        } else {
            self.reload_requested(now, asker);
        }
    }

    pub(super) fn reload_requested(&mut self, now: Timestamp, asker: Asker) {
        match self.mode {
            Mode::Serving if self.reload.is_some() || self.reload_is_delayed() => {
                self.reload_again = self.reload_again.max(Some(asker));
                self.report(Notice::ReloadQueued);
            }
            Mode::Serving => {
                self.reload_next(now, Reload::of(0, asker));
                self.recount_cpus();
            }
            Mode::Draining(_) | Mode::Sweeping(_) | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {
                self.conclude(InPlace::Reload, STOPPING);
            }
        }
    }

    /// After a reload that has failed the old run may still end, or not be back in its place yet.
    fn reload_is_delayed(&self) -> bool {
        self.instances.iter().any(Instance::delays_reload)
    }

    /// A reload was asked for while another ran, which is concluded now.
    pub(super) fn begin_queued_reload(&mut self, now: Timestamp) {
        if self.reload.is_none()
            && !self.reload_is_delayed()
            && let Some(asker) = self.reload_again.take()
        {
            self.reload_for(now, asker);
        }
    }

    /// Goes on with the first instance from the reload's on that has a run, or will have one. The reload is concluded
    /// where there is none.
    pub(super) fn reload_next(&mut self, now: Timestamp, reload: Reload) {
        let Reload { asker, instance: from, newest, .. } = reload;
        let drain = Drain::at_once(now, &self.settings.stop);
        for instance in self.instances.iter_mut().filter(|instance| instance.number >= from && !instance.leaving) {
            if instance.retiring.is_some() {
                return self.conclude_reload(Err("an old run has not ended yet"));
            }
            match &mut instance.slot {
                Slot::Live(run) if run.serves() => {
                    let slot = std::mem::replace(&mut instance.slot, Slot::Waiting { spawn_at: Some(now) });
                    if let Slot::Live(run) = slot {
                        instance.retiring = Some(run);
                    }
                }
                Slot::Waiting { spawn_at: Some(at) } => *at = now,
                Slot::Live(run) if run.is_stuck() => return self.conclude_reload(Err(UNKILLABLE)),
                Slot::Live(run) => {
                    run.end_for(Cause::Reload(asker));
                    run.drain(now, drain);
                }
                Slot::Waiting { spawn_at: None } | Slot::Finished => continue,
            }
            self.reload = Some(Reload { instance: instance.number, ..reload });
            return;
        }
        self.conclude_reload(newest.ok_or(NO_RUN));
    }

    /// Goes on with the next instance if the new run of this one is ready and the old one is over.
    pub(super) fn advance_reload(&mut self, now: Timestamp) {
        let Some(reload @ Reload { replaced_by: Some(new), .. }) = self.reload else { return };
        if self.instance_mut(reload.instance).is_none_or(|instance| instance.retiring.is_none()) {
            self.reload_after_instance(now, reload, Some(new));
        }
    }

    /// Goes on with the instances after the reload's, where it is meant for all.
    pub(super) fn reload_after_instance(&mut self, now: Timestamp, reload: Reload, newest: Option<RunId>) {
        if reload.asker.is_limit() {
            self.conclude_reload(newest.ok_or(NO_RUN));
        } else {
            let next = reload.instance.saturating_add(1);
            self.reload_next(now, Reload { newest, ..Reload::of(next, reload.asker) });
        }
    }

    /// A run is ready. If it is the new one of a reload, the old one beside it is stopped: without a drain delay, since
    /// the new one serves. Where sockets are held new connections are led to the new one first.
    pub(super) fn new_run_ready(&mut self, now: Timestamp, id: RunId) {
        let (drain, holds) = (Drain::at_once(now, &self.settings.stop), self.holds);
        let asker = self.reload.map_or(Asker::Operator, |reload| reload.asker);
        let Some(instance) = self.instance_mut(id.instance) else { return };
        if instance.current().is_none_or(|run| run.id != id) {
            return;
        }
        if let Some(old) = instance.retiring.as_mut().filter(|old| old.serves()) {
            old.end_for(Cause::Reload(asker));
            old.begin_end(now, drain, holds);
            let old = old.id;
            self.report(Notice::Reloading { old, new: id, asker });
        }
        self.restarted_run_ready(id);
        if let Some(reload) = self.reload.as_mut().filter(|reload| reload.instance == id.instance) {
            reload.replaced_by = Some(id);
        }
        self.advance_reload(now);
    }

    /// A restart is concluded when the last of its new runs is ready.
    fn restarted_run_ready(&mut self, id: RunId) {
        let Some(instance) = self.instance_mut(id.instance) else { return };
        instance.awaited = false;
        let was_awaited = std::mem::take(&mut instance.restarting);
        if was_awaited && !self.is_restarting() {
            self.conclude(InPlace::Restart, Ok(id));
        }
    }

    /// A run fails, or its main process has ended by itself. If it is one that a reload has started, and was ready, the reload has
    /// failed. The old run beside it serves again where it knows nothing of its end.
    pub(super) fn ready_run_fails(&mut self, now: Timestamp, id: RunId) {
        let Some(reload) = self.reload.filter(|_| self.mode == Mode::Serving) else { return };
        let is_in_turn = reload.instance == id.instance && reload.replaced_by == Some(id);
        let was_in_turn = id.instance < reload.instance && !reload.asker.is_limit();
        let (health, replace_at) = (self.settings.health, self.end_of_life(now));
        let Some(instance) = self.instance_mut(id.instance) else { return };
        if instance.retires(id) || !is_in_turn && !was_in_turn {
            return;
        }
        if let Some(old) = instance.retiring.as_mut().filter(|run| run.is_only_led_away()) {
            (old.state, old.cause) = (old.ready_state(now), None);
            old.checks = health.map(|health| Checks::begin(now, health));
            if reload.asker.is_limit() {
                old.outlast_limit(replace_at);
            }
        }
        self.conclude_reload(Err(NEW_RUN_ENDED));
    }

    /// The new run of a reload is over, and the old one was not told to end: it stays. If the new run has not been ready the reload
    /// has failed. `false` if this run is no such run.
    pub(super) fn restore_old_run(&mut self, now: Timestamp, new: RunId) -> bool {
        let (asker, replace_at) = (self.reload.map(|reload| reload.asker), self.end_of_life(now));
        let Some(instance) = self.instance_mut(new.instance) else { return false };
        let Some(mut old) = instance.retiring.take_if(|run| run.serves()) else { return false };
        let (id, is_ready) = (old.id, old.is_ready());
        if asker.is_some_and(Asker::is_limit) {
            old.outlast_limit(replace_at);
        }
        instance.slot = Slot::Live(old);
        if self.reload.is_some_and(|reload| reload.instance == new.instance) {
            self.conclude_reload(Err("the new run failed before it was ready; the old run stays"));
        }
        if is_ready {
            // A restart may have asked for this run before the reload did.
            self.restarted_run_ready(id);
        }
        true
    }

    /// A run has ended by itself. If it is a new run that somebody waits for, what they asked for has failed.
    pub(super) fn new_run_failed(&mut self, number: u32) {
        let why = "the new run failed before it was ready";
        if self.instance_mut(number).is_some_and(|instance| instance.restarting) {
            self.conclude_restart(Err(why));
        }
        if self.reload.is_some_and(|reload| reload.instance == number && reload.replaced_by.is_none()) {
            self.conclude_reload(Err(why));
        }
        if self.scaling && self.instance_mut(number).is_some_and(|instance| instance.awaited) {
            self.conclude_scale(Err(why));
        }
    }

    /// What was asked for cannot be done to this instance.
    pub(super) fn in_place_failed(&mut self, number: u32, why: &'static str) {
        if self.instance_mut(number).is_some_and(|instance| instance.restarting) {
            self.conclude_restart(Err(why));
        }
        if self.reload.is_some_and(|reload| reload.instance == number) {
            self.conclude_reload(Err(why));
        }
        if self.scaling && self.instance_mut(number).is_some_and(|instance| instance.leaving) {
            self.conclude_scale(Err(why));
        }
    }

    /// guard's end begins, and everything that was asked for has failed.
    pub(super) fn abandon_in_place(&mut self) {
        if self.is_restarting() {
            self.conclude_restart(STOPPING);
        }
        if self.reload.is_some() {
            self.conclude_reload(STOPPING);
        }
        if self.reload_again.take().is_some() {
            self.conclude(InPlace::Reload, STOPPING);
        }
        if self.scaling {
            self.conclude_scale(Err("guard is stopping"));
        }
    }

    /// Nobody waits for this restart any more.
    fn conclude_restart(&mut self, outcome: Outcome) {
        self.instances.iter_mut().for_each(|instance| instance.restarting = false);
        self.conclude(InPlace::Restart, outcome);
    }

    /// The reload is over, and the next one may begin.
    fn conclude_reload(&mut self, outcome: Outcome) {
        self.reload = None;
        self.conclude(InPlace::Reload, outcome);
    }

    pub(super) fn conclude(&mut self, request: InPlace, outcome: Outcome) {
        self.actions.push(Action::Conclude { request, outcome });
        self.report(Notice::Concluded { request, outcome });
    }
}
