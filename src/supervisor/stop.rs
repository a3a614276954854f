//! The end of one run: how it is asked to stop, how its main process ends, how its leftovers are swept, and what follows.
//!
//! The steps are: drain, stop signal, SIGKILL to the main process; then SIGTERM and SIGKILL to leftovers. An app that ends
//! earlier skips what is left of them. Where the run ends because guard ends, shutdown.rs has the deadline instead.

use super::exit_code::{Ending, Failure, contribution};
use super::policy::Verdict;
use super::run_id::RunId;
use super::state::{Cause, Idle, Mode, Run, RunState, Slot};
use super::timestamp::{Timestamp, earlier};
use super::{Action, LAST_DEADLINE, LEFTOVER_TIMEOUT, Notice, Supervisor, TimeLimit};
use crate::signal::Signal;
use std::time::Duration;

/// Between SIGABRT, which may write a core file, and SIGKILL.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a run has that is not ready in time or unhealthy, where the stop timeout is not shorter: it serves nobody.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(10);

impl Run {
    /// Begins the end of a run, or hastens one that has begun: no deadline moves later, and no signal is sent twice.
    ///
    /// After `delay` the run has as long as `idle` for its connections.
    pub(super) fn drain(
        &mut self,
        now: Timestamp,
        signal: Signal,
        [delay, idle]: [Duration; 2],
        kill_at: Option<Timestamp>,
    ) {
        self.state = match self.state {
            RunState::Starting { .. } | RunState::Ready { .. } => {
                RunState::Draining { signal, until: now.after(delay), idle: Idle::After(idle), kill_at }
            }
            RunState::Draining { until, idle: own_idle, kill_at: own, .. } => {
                let kill_at = earlier(own, kill_at);
                let (latest, idle) = match own_idle {
                    Idle::After(own) => (delay, Idle::After(own.min(idle))),
                    Idle::Now => (delay.saturating_add(idle), Idle::Now),
                    Idle::Led(_) => (delay.saturating_add(idle), Idle::Led(0)),
                };
                let until = until.min(now.after(latest));
                RunState::Draining { signal, until, idle, kill_at }
            }
            RunState::Stopping { kill_at: own, fallback } => {
                let kill_at = earlier(own, kill_at);
                // At half of what is left at most, as if the app had been told now.
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
}

impl Run {
    /// The app was told to stop, and not by guard; `false` where its end has gone further than that.
    pub(super) fn stop_without_signal(&mut self, kill_at: Option<Timestamp>) -> bool {
        let own = match self.state {
            RunState::Starting { .. } | RunState::Ready { .. } => None,
            RunState::Draining { kill_at, .. } | RunState::Diagnosing { kill_at, .. } => kill_at,
            RunState::Spawning | RunState::Stopping { .. } | RunState::Aborting { .. } => return false,
            RunState::Killing { .. } | RunState::Sweeping { .. } | RunState::Clearing { .. } => return false,
        };
        self.announced = true;
        self.state = RunState::Stopping { kill_at: earlier(own, kill_at), fallback: None };
        true
    }
}

impl Supervisor {
    /// The app says that it has begun to end. It is given the time of a restart in place, and no second signal.
    pub(super) fn said_stopping(&mut self, now: Timestamp, id: RunId) {
        let timeout = self.settings.stop.restart_timeout;
        let Some(run) = self.run_mut(id) else { return };
        let kill_at = match run.state {
            RunState::Starting { .. } | RunState::Ready { .. } => Some(now.after(timeout)),
            RunState::Draining { kill_at, .. } => kill_at,
            RunState::Stopping { kill_at, .. } => {
                // It does what Node's channel has told it, and needs no signal.
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
        self.diagnose_failed(now, id, failure);
    }

    /// The second half of [`Supervisor::run_failed`], within the deadline of a stop that began meanwhile.
    pub(super) fn end_failed(&mut self, now: Timestamp, id: RunId, failure: Failure, kill_at: Option<Timestamp>) {
        let stop = &self.settings.stop;
        let signal = stop.signal.unwrap_or(Signal::TERM);
        let within = |timeout| kill_at.map_or(now.after(timeout), |at| at.min(now.after(timeout)));
        match failure {
            Failure::NotReady | Failure::Health | Failure::Memory => {
                let kill_at = within(stop.restart_timeout.min(FAILURE_TIMEOUT));
                self.stop_main(now, id, signal, Some(kill_at));
            }
            Failure::Watchdog => {
                self.set_state(id, RunState::Aborting { kill_at: within(ABORT_TIMEOUT) });
                self.actions.extend([Action::Signal(id, Signal::ABRT), Action::Signal(id, Signal::CONT)]);
            }
        }
    }

    /// Tells the runs whose drain has begun, where they can hear it.
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
    pub(super) fn drain_delay_elapsed(&mut self, now: Timestamp) {
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

    /// The main process is still there when its time is over.
    pub(super) fn stop_timeout_elapsed(&mut self, now: Timestamp, id: RunId, aborted: bool) {
        let failed = matches!(self.run_mut(id).and_then(|run| run.cause), Some(Cause::Failed(_)));
        let limit = match aborted {
            true => TimeLimit::Abort(ABORT_TIMEOUT),
            false if failed && self.settings.stop.restart_timeout > FAILURE_TIMEOUT => {
                TimeLimit::Failure(FAILURE_TIMEOUT)
            }
            false => TimeLimit::StopTimeout,
        };
        self.set_state(id, RunState::Killing { give_up_at: Some(now.after(LAST_DEADLINE)) });
        self.actions.push(Action::Signal(id, Signal::KILL));
        self.report(Notice::KillRun { run: id, limit });
    }

    /// Not even SIGKILL ends the main process. It cannot be replaced, so what somebody asked for has failed: the current
    /// run goes on, and an old run stays beside the new one.
    pub(super) fn kill_timeout_elapsed(&mut self, now: Timestamp, id: RunId) {
        let serving = self.mode == Mode::Serving;
        let Some(instance) = self.instance_mut(id.instance) else { return };
        let is_current = instance.current().is_some_and(|run| run.id == id) && !instance.leaving;
        let Some(run) = instance.runs_mut().find(|run| run.id == id) else { return };
        if is_current && serving {
            run.state = run.ready_state(now);
            run.cause = None;
            run.ready_since.get_or_insert(now);
        } else {
            run.state = RunState::Killing { give_up_at: None };
        }
        self.report(Notice::Unkillable { run: id });
        self.in_place_failed(id.instance, "SIGKILL does not end the old run");
    }

    /// `left` where somebody at the terminal has told the app to exit.
    pub(super) fn main_exited(&mut self, now: Timestamp, id: RunId, ending: Ending, left: bool) {
        let (mode, terminal) = (self.mode, self.settings.terminal);
        let stable_after = self.settings.restart.stable_after;
        let Some(instance) = self.instance_mut(id.instance) else { return };
        let Some(run) = instance.runs_mut().find(|run| run.id == id) else { return };
        let failure = match run.cause {
            Some(Cause::Failed(failure)) => Some(failure),
            Some(Cause::Itself | Cause::Quit | Cause::Scale | Cause::Stop) | None => None,
            Some(Cause::Reload(_) | Cause::Restart(_)) => None,
        };
        let kill_at = match run.state {
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => None,
            RunState::Draining { kill_at, .. } | RunState::Stopping { kill_at, .. } => kill_at,
            RunState::Diagnosing { kill_at, .. } => kill_at,
            // The time for a core file is no stop deadline.
            RunState::Aborting { .. } => None,
            RunState::Killing { .. } if failure == Some(Failure::Watchdog) => None,
            RunState::Killing { .. } => Some(now),
            RunState::Sweeping { .. } | RunState::Clearing { .. } => return,
        };
        let is_killed = matches!(run.state, RunState::Killing { .. });
        let ending = match run.cause {
            Some(Cause::Failed(failure)) => Ending::Failed(failure, ending.code()),
            Some(Cause::Reload(_) | Cause::Restart(_)) if is_killed => Ending::Killed,
            Some(Cause::Reload(asker) | Cause::Restart(asker)) => Ending::Replaced(asker, ending.code()),
            Some(Cause::Itself | Cause::Quit | Cause::Scale | Cause::Stop) | None => ending,
        };
        let typed = left || terminal && ending.by_terminal();
        let by_itself = run.cause.is_none_or(|cause| cause == Cause::Itself);
        let stopped_at_terminal = mode == Mode::Serving && typed && by_itself;
        // What guard or an operator ends is followed as ever.
        let stopped_by_quit = run.quit_until.take().filter(|&until| now < until && by_itself && !stopped_at_terminal);
        if mode == Mode::Serving && stopped_by_quit.is_some() {
            run.end_for(Cause::Quit);
        }
        let kill_at = match mode {
            // guard's own end begins, and leaves more time.
            Mode::Serving if stopped_at_terminal => kill_at,
            Mode::Serving if stopped_by_quit.is_some() => earlier(kill_at, stopped_by_quit),
            Mode::Serving => earlier(kill_at, Some(now.after(LEFTOVER_TIMEOUT))),
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => earlier(kill_at, shutdown.kill_at),
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => kill_at,
        };
        let is_stable = run.ready_since.is_some_and(|since| now.since(since) >= stable_after);
        run.state = RunState::Sweeping { ending, kill_at, counted: false };
        if is_stable {
            instance.history.stable();
        }
        if stopped_at_terminal {
            self.report(Notice::StoppedAtTerminal { run: id, ending });
            self.begin_shutdown(now, None, false, None);
        }
        match mode {
            Mode::Serving | Mode::Draining(_) | Mode::Sweeping(_) => self.actions.push(Action::Sweep(id, Signal::TERM)),
            // Everything has got SIGKILL.
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {}
        }
    }

    pub(super) fn leftovers_counted(&mut self, now: Timestamp, id: RunId, count: usize) {
        let serving = self.mode == Mode::Serving;
        let Some(run) = self.run_mut(id) else { return };
        let cause = run.cause;
        match &mut run.state {
            RunState::Sweeping { ending, .. } | RunState::Clearing { ending, .. } if count == 0 => {
                let ending = *ending;
                self.run_over(now, id, ending);
            }
            RunState::Sweeping { ending, counted, .. } => {
                let is_background = *ending == Ending::Exited(0) && serving && cause.is_none();
                if !std::mem::replace(counted, true) && is_background {
                    self.report(Notice::Background { run: id });
                }
            }
            RunState::Clearing { left, .. } => *left = count,
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => {}
            RunState::Draining { .. } | RunState::Stopping { .. } | RunState::Diagnosing { .. } => {}
            RunState::Aborting { .. } | RunState::Killing { .. } => {}
        }
    }

    /// Leftovers are still there when their time is over.
    pub(super) fn sweep_timeout_elapsed(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        self.set_state(id, RunState::Clearing { ending, give_up_at: now.after(LAST_DEADLINE), left: 0 });
        self.actions.push(Action::Sweep(id, Signal::KILL));
        self.report(Notice::KillLeftovers { run: id });
    }

    /// Not even SIGKILL ends the leftovers: guard goes on without them.
    pub(super) fn clear_timeout_elapsed(&mut self, now: Timestamp, id: RunId, ending: Ending, left: usize) {
        self.report(Notice::Abandoned { run: id, count: left });
        self.run_over(now, id, ending);
    }

    /// Nothing is left of a run: decides what follows.
    fn run_over(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        self.actions.push(Action::Forget(id));
        let mode = self.mode;
        let Some(instance) = self.instance_mut(id.instance) else { return };
        if instance.retiring.take_if(|run| run.id == id).is_some() {
            return self.advance_reload(now);
        }
        if instance.leaving {
            instance.slot = Slot::Finished;
            return;
        }
        let cause = instance.current().and_then(|run| run.cause);
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
            }
            (Mode::Serving, Some(Cause::Itself | Cause::Failed(_) | Cause::Scale | Cause::Stop) | None) => {
                self.apply_policy(now, id, ending);
            }
            (Mode::Draining(_) | Mode::Sweeping(_), _) => self.finish_instance(id, ending, None),
            (Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done, _) => self.finish_instance(id, ending, None),
        }
    }

    /// What follows a run whose end nobody asked for.
    pub(super) fn apply_policy(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        self.new_run_failed(id.instance);
        let Supervisor { instances, settings, jitter, .. } = self;
        let Some(instance) = instances.iter_mut().find(|instance| instance.number == id.instance) else { return };
        let (limit, window) = (settings.restart.max, settings.restart.window);
        match instance.history.decide(now, ending, &settings.restart, jitter) {
            Verdict::Restart { count, delay } => {
                instance.last = Some(ending);
                instance.slot = Slot::Waiting { spawn_at: Some(now.after(delay)) };
                self.report(Notice::Restarting { run: id, ending, count, limit, delay });
                self.recount_cpus();
            }
            Verdict::GiveUp { limit } => {
                self.gave_up = true;
                let code = contribution(ending, &self.settings.restart).max(1);
                self.report(Notice::GiveUp { run: id, ending, limit, window });
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

    /// No run follows in this instance. `code` is what it contributes to guard's own, where that is not the run's.
    pub(super) fn finish_instance(&mut self, id: RunId, ending: Ending, code: Option<u8>) {
        let code = code.unwrap_or_else(|| contribution(ending, &self.settings.restart));
        if let Some(instance) = self.instance_mut(id.instance) {
            instance.last = Some(ending);
            instance.slot = Slot::Finished;
            self.note_failure(code);
        }
    }

    /// An instance has finished with this code; the first failure is what guard exits with in the end.
    pub(super) fn note_failure(&mut self, code: u8) {
        if code != 0 {
            self.failed.get_or_insert(code);
        }
    }

    pub(super) fn set_state(&mut self, id: RunId, state: RunState) {
        if let Some(run) = self.run_mut(id) {
            run.state = state;
        }
    }
}
