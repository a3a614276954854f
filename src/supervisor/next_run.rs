//! After a run: the next one follows, its instance is finished, or guard ends.

use super::cause::Cause;
use super::exit_code::{Ending, SpawnError, contribution};
use super::policy::Verdict;
use super::run_id::RunId;
use super::shutdown::ShutdownCause;
use super::state::{Instance, Mode, Slot};
use super::timestamp::Timestamp;
use super::{Action, InPlace, Notice, Supervisor};
use crate::signal::Signal;

impl Supervisor {
    /// The run has no process. Where guard has never had one, and the error would stay, guard ends.
    pub(super) fn spawn_failed(&mut self, now: Timestamp, id: RunId, error: SpawnError) {
        let ending = Ending::NotSpawned(error);
        if self.restore_old_run(now, id) {
            return;
        }
        if !self.has_spawned && !error.transient {
            self.finish(now, id, ending, error.code);
        } else {
            self.apply_policy(now, id, ending);
        }
        self.count_restart(id, ending, None, false);
    }

    /// Nothing is left of a run: its cause or the restart policy decides what follows.
    pub(super) fn run_over(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        self.actions.push(Action::Forget(id));
        let cause = self.run_mut(id).and_then(|run| run.cause);
        let is_wanted = !matches!(cause, Some(Cause::Scale | Cause::Stop));
        let has_successor =
            is_wanted && self.instance_mut(id.instance).is_some_and(|i| i.retires(id) && i.runs > id.number);
        self.decide_what_follows(now, id, ending, cause);
        self.count_restart(id, ending, cause, has_successor);
    }

    /// Counts a run that is over, if another has followed it or will. The new run of a reload that has failed is none: the old
    /// one goes on.
    fn count_restart(&mut self, id: RunId, ending: Ending, cause: Option<Cause>, has_successor: bool) {
        let is_followed = has_successor
            || match self.instance_mut(id.instance).map(|instance| &instance.slot) {
                Some(Slot::Waiting { .. }) => true,
                Some(Slot::Live(_) | Slot::Finished) | None => false,
            };
        let asked = match cause {
            Some(Cause::Reload(asker)) => Some((InPlace::Reload, asker)),
            Some(Cause::Restart(asker)) => Some((InPlace::Restart, asker)),
            Some(Cause::Itself | Cause::Failed(_) | Cause::Quit | Cause::Scale | Cause::Stop) | None => None,
        };
        if is_followed {
            self.actions.push(Action::CountRestart { run: id, ending, asked });
        }
    }

    fn decide_what_follows(&mut self, now: Timestamp, id: RunId, ending: Ending, cause: Option<Cause>) {
        let mode = self.mode;
        let Some(instance) = self.instance_mut(id.instance) else { return };
        if instance.retires(id) {
            instance.retiring = None;
            // Where no new run lives, how the last one ended matters more.
            if instance.current().is_some() {
                instance.last = Some(ending);
            }
            return self.advance_reload(now);
        }
        if instance.leaving {
            instance.slot = Slot::Finished;
            return;
        }
        match (mode, cause) {
            (Mode::Serving, _) if self.restore_old_run(now, id) => {}
            (Mode::Serving, Some(Cause::Reload(_) | Cause::Restart(_))) => {
                if let Some(instance) = self.instance_mut(id.instance) {
                    instance.last = Some(ending);
                    instance.slot = Slot::Waiting { spawn_at: Some(now) };
                }
            }
            (Mode::Serving, Some(Cause::Quit)) => {
                self.new_run_failed(id.instance);
                self.finish_instance(id, ending, None);
                self.report(Notice::StoppedByQuit { run: id, ending });
                // Others that were in a backoff have not heard it, and have perhaps a new run by now. They are to stop as well.
                if self.runs().all(|run| run.quit_until.is_none()) && self.instances.iter().any(Instance::works) {
                    self.stop_requested(now, ShutdownCause::Signal(Signal::QUIT));
                }
            }
            (Mode::Serving, Some(Cause::Itself | Cause::Failed(_) | Cause::Scale | Cause::Stop) | None) => {
                self.apply_policy(now, id, ending);
            }
            (Mode::Draining(_) | Mode::Sweeping(_), _) => self.finish_instance(id, ending, None),
            (Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done, _) => self.finish_instance(id, ending, None),
        }
    }

    /// The restart policy decides what follows a run that has ended by itself or as a failure.
    fn apply_policy(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        self.new_run_failed(id.instance);
        let Supervisor { instances, settings, jitter, .. } = self;
        let Some(instance) = instances.iter_mut().find(|instance| instance.number == id.instance) else { return };
        let limit = settings.restart.max;
        match instance.history.decide(now, ending, &settings.restart, jitter) {
            Verdict::Restart { count, delay } => {
                instance.last = Some(ending);
                instance.slot = Slot::Waiting { spawn_at: Some(now.after(delay)) };
                let next = RunId { number: instance.runs + 1, ..id };
                self.report(Notice::Restarting { next, ending, count, limit, delay });
                self.recount_cpus();
            }
            Verdict::GiveUp { limit, within } => {
                self.gave_up = true;
                let code = contribution(ending, &self.settings.restart).max(1);
                self.report(Notice::GiveUp { run: id, ending, limit, within });
                self.finish(now, id, ending, code);
            }
            Verdict::Finish { code, why } => {
                self.finish_instance(id, ending, Some(code));
                self.report(Notice::NotRestarted { run: id, ending, why });
            }
            Verdict::Abort { code, why } => {
                self.report(Notice::NotRestarted { run: id, ending, why });
                self.finish(now, id, ending, code);
            }
        }
    }

    /// No run follows in this instance. `code` is what it contributes to guard's exit code; `None` is what its last run does.
    fn finish_instance(&mut self, id: RunId, ending: Ending, code: Option<u8>) {
        let code = code.unwrap_or_else(|| contribution(ending, &self.settings.restart));
        if let Some(instance) = self.instance_mut(id.instance) {
            instance.last = Some(ending);
            instance.slot = Slot::Finished;
            self.note_failure(code);
        }
    }

    /// An instance has finished with this code. guard exits with the first one that is not 0.
    pub(super) fn note_failure(&mut self, code: u8) {
        if code != 0 {
            self.failed.get_or_insert(code);
        }
    }

    /// No run follows in this instance, and guard ends with this code: the other instances are drained first.
    fn finish(&mut self, now: Timestamp, id: RunId, ending: Ending, code: u8) {
        self.finish_instance(id, ending, Some(code));
        self.begin_shutdown(now, ShutdownCause::Finished { code });
    }
}
