//! GUARD_DIAGNOSE: guard asks a run once for a diagnosis, by a signal or a command, before it ends the run.
//!
//! A run that has failed is asked first, and stopped or aborted when its time is over. A run that is being stopped is asked
//! before its SIGKILL, which does not move. A run that reaches its memory limit is asked while it serves.

use super::exit_code::Failure;
use super::run_id::RunId;
use super::state::{Run, RunState};
use super::timestamp::Timestamp;
use super::{Action, Supervisor};
use std::time::Duration;

/// How far the diagnosis of a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Diagnosis {
    /// It was not asked.
    Unasked,
    /// guard asks it at this time, unless its stop is over before.
    Due(Timestamp),
    /// It was asked. A command may run.
    Asked,
    /// No command runs any more.
    Over,
}

/// When guard asks a run that gets SIGKILL at `kill_at`: `timeout` before that, and not in the first two thirds of what is left.
fn diagnosis_due(kill_at: Timestamp, now: Timestamp, timeout: Duration) -> Timestamp {
    let left = kill_at.since(now);
    now.after(left - timeout.min(left / 3))
}

impl Run {
    /// Until when it is asked for a diagnosis while it serves.
    pub(super) fn asked_until(&self) -> Option<Timestamp> {
        self.replace_at.filter(|_| self.is_too_large && self.diagnosis == Diagnosis::Asked)
    }

    /// When guard asks it, where it is being stopped.
    pub(super) fn diagnosis_at(&self) -> Option<Timestamp> {
        match self.diagnosis {
            Diagnosis::Due(at) => Some(at),
            Diagnosis::Unasked | Diagnosis::Asked | Diagnosis::Over => None,
        }
    }
}

impl Supervisor {
    /// Asks a run, once, and returns its time for that; `None` if it was asked before, or GUARD_DIAGNOSE is not set.
    pub(super) fn ask_for_diagnosis(&mut self, id: RunId) -> Option<Duration> {
        let timeout = self.settings.diagnose?;
        let run = self.run_mut(id)?;
        match run.diagnosis {
            Diagnosis::Unasked | Diagnosis::Due(_) => run.diagnosis = Diagnosis::Asked,
            Diagnosis::Asked | Diagnosis::Over => return None,
        }
        self.actions.push(Action::Diagnose(id));
        Some(timeout)
    }

    /// A run has failed: guard asks it for a diagnosis, or ends it where there is none.
    pub(super) fn diagnose_failed(&mut self, now: Timestamp, id: RunId, failure: Failure) {
        match self.ask_for_diagnosis(id) {
            Some(timeout) => {
                self.set_state(id, RunState::Diagnosing { failure, until: now.after(timeout), kill_at: None });
            }
            None => self.end_failed(now, id, failure, None),
        }
    }

    /// The command of a run's diagnosis has ended, or there is none.
    pub(super) fn diagnosed(&mut self, now: Timestamp, id: RunId) {
        let Some(run) = self.run_mut(id).filter(|run| run.diagnosis == Diagnosis::Asked) else { return };
        run.diagnosis = Diagnosis::Over;
        if let RunState::Diagnosing { failure, kill_at, .. } = run.state {
            self.end_failed(now, id, failure, kill_at);
        } else if run.serves() {
            self.lifetime_elapsed(now, id);
        }
    }

    /// The time of a failed run for its diagnosis is over, or a run that stops is to be asked before its SIGKILL.
    pub(super) fn diagnosis_timer_elapsed(&mut self, now: Timestamp, id: RunId) {
        let Some(run) = self.run_mut(id) else { return };
        match run.state {
            RunState::Diagnosing { failure, kill_at, .. } => {
                self.end_diagnosis(id);
                self.end_failed(now, id, failure, kill_at);
            }
            RunState::Stopping { .. } => {
                self.ask_for_diagnosis(id);
            }
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => {}
            RunState::Draining { .. } | RunState::Aborting { .. } | RunState::Killing { .. } => {}
            RunState::Sweeping { .. } | RunState::Clearing { .. } => {}
        }
    }

    /// Sets the time of the diagnosis of each run that stops by a deadline, and ends diagnoses that have lost their purpose: the
    /// run has got SIGKILL, or its main process has ended.
    pub(super) fn update_diagnoses(&mut self, now: Timestamp) {
        let Some(timeout) = self.settings.diagnose else { return };
        let mut over = Vec::new();
        for run in self.runs_mut() {
            match run.state {
                RunState::Stopping { kill_at: Some(at), .. } => match run.diagnosis {
                    Diagnosis::Unasked => run.diagnosis = Diagnosis::Due(diagnosis_due(at, now, timeout)),
                    Diagnosis::Due(due) => run.diagnosis = Diagnosis::Due(due.min(diagnosis_due(at, now, timeout))),
                    Diagnosis::Asked | Diagnosis::Over => {}
                },
                RunState::Stopping { kill_at: None, .. } | RunState::Diagnosing { .. } => {}
                // It has reached its memory limit, and is asked while it serves. A stop that comes meanwhile may begin with a drain.
                RunState::Ready { .. } | RunState::Draining { .. } if run.is_too_large => {}
                RunState::Spawning
                | RunState::Starting { .. }
                | RunState::Ready { .. }
                | RunState::Draining { .. }
                | RunState::Aborting { .. }
                | RunState::Killing { .. }
                | RunState::Sweeping { .. }
                | RunState::Clearing { .. } => over.extend((run.diagnosis == Diagnosis::Asked).then_some(run.id)),
            }
        }
        over.into_iter().for_each(|id| self.end_diagnosis(id));
    }

    pub(super) fn end_diagnosis(&mut self, id: RunId) {
        if let Some(run) = self.run_mut(id).filter(|run| run.diagnosis == Diagnosis::Asked) {
            run.diagnosis = Diagnosis::Over;
            self.actions.push(Action::EndDiagnosis(id));
        }
    }
}
