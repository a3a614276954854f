//! What the app says of itself: that it is ready, alive, or about to end; and what follows where it does not.

use super::exit_code::Failure;
use super::state::{Instance, Run, RunId, RunState, Slot, Timestamp};
use super::{Action, Notice, Supervisor};
use crate::config::Readiness;
use crate::signal::Signal;
use std::time::Duration;

/// Between SIGABRT, which may write a core file, and SIGKILL.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) fn said_ready(&mut self, now: Timestamp, id: RunId) {
        if self.settings.ready.when == Readiness::Notify {
            self.ready(now, id);
        }
    }

    /// The run can take work.
    pub(super) fn ready(&mut self, now: Timestamp, id: RunId) {
        let Some(run) = self.run_mut(id) else { return };
        let RunState::Starting { .. } = run.state else { return };
        run.state = run.ready_state(now);
        run.ready_since = Some(now);
        if self.settings.ready.when != Readiness::Exec {
            self.report(Notice::Ready { run: id });
        }
        self.retire(now, id);
        self.restarted(id);
    }

    /// The app has begun to end by itself: it is given the time of a restart in place, and no second signal.
    pub(super) fn said_stopping(&mut self, now: Timestamp, id: RunId) {
        let timeout = self.settings.stop.restart_timeout;
        let Some(run) = self.run_mut(id) else { return };
        let kill_at = match run.state {
            RunState::Starting { .. } | RunState::Ready { .. } => Some(now.after(timeout)),
            RunState::Draining { kill_at, .. } => kill_at,
            RunState::Stopping { kill_at, .. } => {
                // It has heeded the message.
                run.state = RunState::Stopping { kill_at, signal: None };
                return;
            }
            RunState::Spawning | RunState::Killing { .. } => return,
            RunState::Sweeping { .. } | RunState::Clearing { .. } => return,
        };
        run.state = RunState::Stopping { kill_at, signal: None };
        self.report(Notice::Stopping { run: id });
    }

    pub(super) fn watchdog_ping(&mut self, now: Timestamp, id: RunId) {
        if let Some(run) = self.run_mut(id).filter(|run| run.is_ready()) {
            run.state = run.ready_state(now);
        }
    }

    pub(super) fn watchdog_period(&mut self, now: Timestamp, id: RunId, period: Duration) {
        if let Some(run) = self.run_mut(id) {
            run.watchdog = Some(period).filter(|period| !period.is_zero());
        }
        self.watchdog_ping(now, id);
    }

    /// Moves the ready timeout; in a stop only the step before the deadline.
    pub(super) fn timeout_extended(&mut self, now: Timestamp, id: RunId, time: Duration) {
        let Some(run) = self.run_mut(id) else { return };
        match &mut run.state {
            RunState::Starting { ready_by: Some(at) } => *at = now.after(time).max(*at),
            RunState::Stopping { signal: Some((at, _)), kill_at } => {
                let later = now.after(time).max(*at);
                *at = kill_at.map_or(later, |kill_at| later.min(kill_at));
            }
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => {}
            RunState::Draining { .. } | RunState::Stopping { .. } | RunState::Killing { .. } => {}
            RunState::Sweeping { .. } | RunState::Clearing { .. } => {}
        }
    }

    /// guard and the app stood still: what the app has not said meanwhile is not its fault. Stops do not wait.
    pub(super) fn overslept(&mut self, delay: Duration) {
        for run in self.instances.iter_mut().flat_map(Instance::runs_mut) {
            if let RunState::Starting { ready_by: Some(at) } | RunState::Ready { watchdog: Some(at) } = &mut run.state {
                *at = at.after(delay);
            }
            if let Some(checks) = &mut run.checks {
                checks.postpone(delay);
            }
        }
    }

    /// Ends a run that has failed though its main process lives. It serves nobody, so there is nothing to drain.
    pub(super) fn fail(&mut self, now: Timestamp, id: RunId, failure: Failure) {
        let (signal, timeout) = (self.settings.stop.signal.unwrap_or(Signal::TERM), self.settings.stop.restart_timeout);
        let Some(run) = self.run_mut(id).filter(|run| run.serves()) else { return };
        run.failure = Some(failure);
        self.report(Notice::Failing { run: id, failure });
        match failure {
            Failure::NotReady | Failure::Health => self.ask(now, id, signal, Some(now.after(timeout))),
            Failure::Watchdog => {
                self.set_state(id, RunState::Stopping { kill_at: Some(now.after(ABORT_TIMEOUT)), signal: None });
                self.actions.extend([Action::Signal(id, Signal::ABRT), Action::Signal(id, Signal::CONT)]);
            }
        }
    }

    /// Asks a run to stop: by its signal, or over Node's channel first, and after half of what is left by the signal.
    pub(super) fn ask(&mut self, now: Timestamp, id: RunId, signal: Signal, kill_at: Option<Timestamp>) {
        if self.settings.node_ipc {
            let left = kill_at.map_or(self.settings.stop.restart_timeout, |at| at.since(now));
            self.set_state(id, RunState::Stopping { kill_at, signal: Some((now.after(left / 2), signal)) });
            self.actions.push(Action::SayShutdown(id));
        } else {
            self.set_state(id, RunState::Stopping { kill_at, signal: None });
            self.report(Notice::StopSignal { run: id, signal });
            self.actions.push(Action::Stop(id, signal));
        }
        // A stopped process would neither see the signal nor read the message.
        self.actions.push(Action::Signal(id, Signal::CONT));
    }

    /// The message cannot be heard, or was not heeded: the signal follows.
    pub(super) fn send_after_all(&mut self, id: RunId, why: fn(RunId, Signal) -> Notice) {
        let Some(run) = self.run_mut(id) else { return };
        let RunState::Stopping { signal, .. } = &mut run.state else { return };
        if let Some((_, signal)) = signal.take() {
            self.report(why(id, signal));
            self.actions.extend([Action::Stop(id, signal), Action::Signal(id, Signal::CONT)]);
        }
    }

    /// Tells the runs whose drain has begun, where they can hear it.
    pub(super) fn announce(&mut self) {
        let Supervisor { instances, actions, settings, .. } = self;
        let draining = |run: &Run| matches!(run.state, RunState::Draining { .. }) && !run.announced;
        for run in instances.iter_mut().flat_map(Instance::runs_mut).filter(|run| settings.node_ipc && draining(run)) {
            run.announced = true;
            actions.push(Action::SayDrain(run.id));
        }
    }

    fn set_state(&mut self, id: RunId, state: RunState) {
        if let Some(run) = self.run_mut(id) {
            run.state = state;
        }
    }

    /// A run is ready that somebody may have asked for.
    fn restarted(&mut self, id: RunId) {
        let Some(instance) = self.instances.get_mut(id.instance) else { return };
        let new = matches!(&instance.slot, Slot::Live(run) if run.id == id);
        if new && std::mem::take(&mut instance.awaited) && !self.instances.iter().any(|instance| instance.awaited) {
            self.report(Notice::Restarted { run: id });
        }
    }

    /// The restart that somebody asked for comes to nothing.
    pub(super) fn restart_failed(&mut self, why: &'static str) {
        let awaited = self.instances.iter().any(|instance| instance.awaited);
        self.instances.iter_mut().for_each(|instance| instance.awaited = false);
        if awaited {
            self.report(Notice::RestartFailed { why });
        }
    }
}
