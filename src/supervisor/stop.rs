//! The stop of one run: drain, stop signal, SIGKILL to the main process.
//!
//! An app that ends earlier skips the steps that are left. What comes after its main process is in sweep.rs. Where guard itself
//! ends, shutdown.rs has the deadline.

use super::cause::Cause;
use super::exit_code::Failure;
use super::idle::Idle;
use super::run_id::RunId;
use super::state::{Mode, Run, RunState};
use super::timestamp::{Timestamp, earlier};
use super::{Action, LAST_DEADLINE, Notice, Supervisor, TimeLimit};
use crate::config::StopSettings;
use crate::signal::Signal;
use std::time::Duration;

/// Between SIGABRT, which may write a core file, and SIGKILL.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a run has that is not ready in time or unhealthy, where the stop timeout is not shorter: it serves nobody.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing can be done to an instance whose run SIGKILL does not end.
pub(super) const UNKILLABLE: &str = "SIGKILL does not end the old run";

/// How a run is drained and stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// The stop signal.
    pub(super) signal: Signal,
    /// From now to the stop signal.
    pub(super) delay: Duration,
    /// How much longer the stop signal waits for connections to end, at most.
    pub(super) idle: Duration,
    /// When the main process gets SIGKILL.
    pub(super) kill_at: Option<Timestamp>,
}

impl Drain {
    /// The drain of a run that ends while guard goes on: it has a stop timeout of its own.
    pub(super) fn in_place(now: Timestamp, stop: &StopSettings) -> Drain {
        Drain {
            signal: stop.signal.unwrap_or(Signal::TERM),
            delay: stop.drain_delay,
            idle: stop.drain_idle,
            kill_at: Some(now.after(stop.restart_timeout)),
        }
    }

    /// The same, where nobody is refused meanwhile: the stop signal comes at once.
    pub(super) fn at_once(now: Timestamp, stop: &StopSettings) -> Drain {
        Drain { delay: Duration::ZERO, idle: Duration::ZERO, ..Drain::in_place(now, stop) }
    }
}

impl Run {
    /// Begins the end of a run, or hastens one that has begun: no deadline moves later, and no signal is sent twice. The drain
    /// delay counts from the last request.
    pub(super) fn drain(&mut self, now: Timestamp, drain: Drain) {
        let Drain { signal, delay, idle, kill_at } = drain;
        self.state = match self.state {
            RunState::Starting { .. } | RunState::Ready { .. } => {
                RunState::Draining { signal, until: now.after(delay), idle: Idle::After(idle), kill_at }
            }
            RunState::Draining { until, idle: own_idle, kill_at: own, .. } => {
                let kill_at = earlier(own, kill_at);
                let whole = now.after(delay.saturating_add(idle));
                let (until, idle) = match own_idle {
                    Idle::After(own) => {
                        // Those who send requests learn of this one only now. The app keeps half of what is left.
                        let half = kill_at.map_or(now.after(delay), |at| now.after(at.since(now) / 2));
                        (now.after(delay).min(until.max(half)), Idle::After(own.min(idle)))
                    }
                    Idle::Now => (until.min(whole), Idle::Now),
                    Idle::Led(_) => (until.min(whole), Idle::Led(0)),
                };
                RunState::Draining { signal, until, idle, kill_at }
            }
            RunState::Stopping { kill_at: own, fallback } => {
                let kill_at = earlier(own, kill_at);
                self.is_hurried &= kill_at == own;
                // At half of what is left at most, as if the message were sent now.
                let half = kill_at.map(|at| now.after(at.since(now) / 2));
                let fallback = fallback.map(|(at, signal)| (half.map_or(at, |half| at.min(half)), signal));
                RunState::Stopping { kill_at, fallback }
            }
            RunState::Diagnosing { failure, until, kill_at: own } => {
                let third = kill_at.map(|at| now.after(at.since(now) / 3));
                let until = third.map_or(until, |third| until.min(third));
                RunState::Diagnosing { failure, until, kill_at: earlier(own, kill_at) }
            }
            RunState::Aborting { kill_at: own } => {
                RunState::Aborting { kill_at: kill_at.map_or(own, |at| own.min(at)) }
            }
            RunState::Sweeping { ending, kill_at: own, counted } => {
                RunState::Sweeping { ending, kill_at: earlier(own, kill_at), counted }
            }
            state @ (RunState::Spawning | RunState::Killing { .. } | RunState::Clearing { .. }) => state,
        };
    }

    /// The terminal has sent the app the stop signal, so guard sends none; `false` if the run has got one already, or has ended.
    pub(super) fn stop_without_signal(&mut self, kill_at: Option<Timestamp>) -> bool {
        let own = match self.state {
            RunState::Starting { .. } | RunState::Ready { .. } => None,
            RunState::Draining { kill_at, .. } | RunState::Diagnosing { kill_at, .. } => kill_at,
            RunState::Spawning | RunState::Stopping { .. } | RunState::Aborting { .. } => return false,
            RunState::Killing { .. } | RunState::Sweeping { .. } | RunState::Clearing { .. } => return false,
        };
        self.state = RunState::Stopping { kill_at: earlier(own, kill_at), fallback: None };
        true
    }
}

impl Supervisor {
    /// The drain of runs that end while guard goes on. Where sockets are held nobody is refused, since connections wait there for the
    /// next run. Where other instances go on (`some`) the connections of these runs are not known from theirs.
    pub(super) fn drain_of(&self, now: Timestamp, some: bool) -> Drain {
        let stop = &self.settings.stop;
        let drain = if self.holds { Drain::at_once(now, stop) } else { Drain::in_place(now, stop) };
        if some { Drain { idle: Duration::ZERO, ..drain } } else { drain }
    }

    /// The app says that it has begun to end. It is given the time of a restart in place, and no second signal.
    pub(super) fn said_stopping(&mut self, now: Timestamp, id: RunId) {
        let timeout = self.settings.stop.restart_timeout;
        let Some(run) = self.run_mut(id) else { return };
        let kill_at = match run.state {
            RunState::Starting { .. } | RunState::Ready { .. } => Some(now.after(timeout)),
            RunState::Draining { kill_at, .. } => kill_at,
            RunState::Stopping { kill_at, .. } => {
                // It obeys the message over Node's channel, and needs no signal.
                run.state = RunState::Stopping { kill_at, fallback: None };
                return;
            }
            RunState::Diagnosing { kill_at, .. } => kill_at.or(Some(now.after(timeout))),
            RunState::Spawning | RunState::Aborting { .. } | RunState::Killing { .. } => return,
            RunState::Sweeping { .. } | RunState::Clearing { .. } => return,
        };
        run.end_for(Cause::Itself);
        run.state = RunState::Stopping { kill_at, fallback: None };
        self.report(Notice::Stopping { run: id });
    }

    /// Ends a run that has failed though its main process lives. It serves nobody, so there is nothing to drain.
    pub(super) fn run_failed(&mut self, now: Timestamp, id: RunId, failure: Failure) {
        let Some(run) = self.run_mut(id).filter(|run| run.serves()) else { return };
        run.end_for(Cause::Failed(failure));
        run.ready_since = None;
        self.report(Notice::Failing { run: id, failure });
        self.ready_run_fails(now, id);
        self.diagnose_failed(now, id, failure);
    }

    /// The second half of [`Supervisor::run_failed`], within the deadline of a stop that began meanwhile.
    pub(super) fn end_failed(&mut self, now: Timestamp, id: RunId, failure: Failure, kill_at: Option<Timestamp>) {
        let stop = &self.settings.stop;
        let signal = stop.signal.unwrap_or(Signal::TERM);
        let within = |timeout| kill_at.map_or(now.after(timeout), |at| at.min(now.after(timeout)));
        match failure {
            Failure::NotReady | Failure::Health | Failure::Memory => {
                let is_shorter = stop.timeout.is_none_or(|timeout| timeout > FAILURE_TIMEOUT);
                let kill_at = within(stop.timeout.map_or(FAILURE_TIMEOUT, |timeout| timeout.min(FAILURE_TIMEOUT)));
                if let Some(run) = self.run_mut(id) {
                    run.is_hurried = is_shorter && kill_at == now.after(FAILURE_TIMEOUT);
                }
                self.stop_main(now, id, signal, Some(kill_at));
            }
            Failure::Watchdog => {
                self.set_state(id, RunState::Aborting { kill_at: within(ABORT_TIMEOUT) });
                self.actions.extend([Action::Signal(id, Signal::ABRT), Action::Signal(id, Signal::CONT)]);
            }
        }
    }

    /// Sends `drain` over Node's channel to the runs whose drain has begun.
    pub(super) fn announce_drains(&mut self) {
        if !self.settings.node_ipc {
            return;
        }
        let Supervisor { instances, actions, .. } = self;
        let runs = instances.iter_mut().flat_map(|instance| instance.runs_mut());
        for run in runs.filter(|run| run.is_draining() && !run.announced) {
            run.announced = true;
            actions.push(Action::SayDrain(run.id));
        }
    }

    /// Stops every run whose drain delay is over and that waits for no hook and no connection.
    pub(super) fn stop_drained_runs(&mut self, now: Timestamp) {
        if self.hook.is_some() {
            return;
        }
        self.count_queues(now);
        let due: Vec<_> = self.runs_mut().filter_map(|run| run.delay_over(now)).collect();
        if !due.is_empty() {
            self.report_connections();
        }
        for (id, signal, kill_at) in due {
            self.stop_main(now, id, signal, kill_at);
        }
    }

    /// Asks a run to stop: by its signal, or over Node's channel first, and after half of what is left by the signal.
    fn stop_main(&mut self, now: Timestamp, id: RunId, signal: Signal, kill_at: Option<Timestamp>) {
        if self.mode != Mode::Serving {
            self.release_sockets();
        }
        if self.settings.node_ipc {
            let left = kill_at.map_or(self.settings.stop.restart_timeout, |at| at.since(now));
            self.set_state(id, RunState::Stopping { kill_at, fallback: Some((now.after(left / 2), signal)) });
            // A stopped process would not read the message.
            self.actions.extend([Action::SayShutdown(id), Action::Signal(id, Signal::CONT)]);
        } else {
            self.set_state(id, RunState::Stopping { kill_at, fallback: None });
            self.send_stop_signal(id, signal);
            self.report(Notice::StopSignal { run: id, signal });
        }
    }

    /// Node's channel is closed or full: the signal follows at once.
    pub(super) fn shutdown_undelivered(&mut self, id: RunId) {
        if let Some(signal) = self.send_fallback(id) {
            self.report(Notice::ShutdownUndelivered { run: id, signal });
        }
    }

    /// The app has got the message and is still there after half of the time: the signal follows.
    pub(super) fn shutdown_ignored(&mut self, id: RunId) {
        if let Some(signal) = self.send_fallback(id) {
            self.report(Notice::ShutdownIgnored { run: id, signal });
        }
    }

    fn send_fallback(&mut self, id: RunId) -> Option<Signal> {
        let RunState::Stopping { fallback, .. } = &mut self.run_mut(id)?.state else { return None };
        let (_, signal) = fallback.take()?;
        self.send_stop_signal(id, signal);
        Some(signal)
    }

    fn send_stop_signal(&mut self, id: RunId, signal: Signal) {
        // A stopped process would not see the signal.
        self.actions.extend([Action::Stop(id, signal), Action::Signal(id, Signal::CONT)]);
    }

    /// The main process still lives when its time is over.
    pub(super) fn stop_timeout_elapsed(&mut self, now: Timestamp, id: RunId) {
        let is_hurried = self.run_mut(id).is_some_and(|run| run.is_hurried);
        let limit = if is_hurried { TimeLimit::Failure(FAILURE_TIMEOUT) } else { TimeLimit::StopTimeout };
        self.kill_main(now, id, limit);
    }

    /// The main process still lives when its time to write a core file is over.
    pub(super) fn abort_timeout_elapsed(&mut self, now: Timestamp, id: RunId) {
        self.kill_main(now, id, TimeLimit::Abort(ABORT_TIMEOUT));
    }

    fn kill_main(&mut self, now: Timestamp, id: RunId, limit: TimeLimit) {
        self.set_state(id, RunState::Killing { give_up_at: Some(now.after(LAST_DEADLINE)) });
        self.actions.push(Action::Kill(id));
        self.report(Notice::KillRun { run: id, limit });
    }

    /// Not even SIGKILL ends the main process. Nothing takes its place before it has ended, so what somebody asked for has
    /// failed.
    pub(super) fn kill_timeout_elapsed(&mut self, id: RunId) {
        self.set_state(id, RunState::Killing { give_up_at: None });
        self.report(Notice::Unkillable { run: id });
        self.in_place_failed(id.instance, UNKILLABLE);
    }

    pub(super) fn set_state(&mut self, id: RunId, state: RunState) {
        if let Some(run) = self.run_mut(id) {
            run.state = state;
        }
    }
}
