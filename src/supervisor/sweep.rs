//! After the main process of a run: its leftovers get SIGTERM, and SIGKILL when their time is over. next_run.rs decides what
//! follows.

use super::cause::{Asker, Cause};
use super::exit_code::{Ending, Failure};
use super::run_id::RunId;
use super::shutdown::ShutdownCause;
use super::state::{Mode, Run, RunState};
use super::timestamp::{Timestamp, earlier};
use super::{Action, CLEAR_TIMEOUT, LEFTOVER_TIMEOUT, Notice, Supervisor};
use crate::signal::Signal;

impl Run {
    /// The deadline of the stop in which the main process has ended now; its leftovers share it.
    fn stop_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => None,
            RunState::Draining { kill_at, .. } | RunState::Stopping { kill_at, .. } => kill_at,
            RunState::Diagnosing { kill_at, .. } | RunState::Sweeping { kill_at, .. } => kill_at,
            // The time for a core file is no stop deadline.
            RunState::Aborting { .. } | RunState::Clearing { .. } => None,
            RunState::Killing { .. } if self.cause == Some(Cause::Failed(Failure::Watchdog)) => None,
            RunState::Killing { .. } => Some(now),
        }
    }

    /// How the run has ended, where guard knows more than the kernel does: why it has ended the run.
    fn ending_with_cause(&self, ending: Ending) -> Ending {
        let is_killed = matches!(self.state, RunState::Killing { .. });
        match self.cause {
            Some(Cause::Failed(failure)) => Ending::Failed(failure, ending.code()),
            Some(Cause::Itself | Cause::Reload(_) | Cause::Restart(_) | Cause::Stop) if is_killed => Ending::Killed,
            Some(Cause::Reload(asker) | Cause::Restart(asker)) => Ending::Replaced(asker, ending.code()),
            Some(Cause::Itself | Cause::Quit | Cause::Scale | Cause::Stop) | None => ending,
        }
    }
}

impl Supervisor {
    /// The main process of a run was reaped.
    pub(super) fn main_exited(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        let at_terminal = self.settings.terminal && ending.by_terminal();
        self.sweep(now, id, ending, at_terminal);
    }

    /// The main process of a run was reaped after a person at the terminal has told it to exit.
    pub(super) fn main_left(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        self.sweep(now, id, ending, true);
    }

    /// Sweeps the leftovers of a run. guard's own end begins if a person at the terminal has ended the run.
    fn sweep(&mut self, now: Timestamp, id: RunId, ending: Ending, at_terminal: bool) {
        let mode = self.mode;
        let stable_after = self.settings.restart.stable_after;
        let Some(instance) = self.instance_mut(id.instance) else { return };
        let Some(run) = instance.runs_mut().find(|run| run.id == id && run.main_lives()) else { return };
        if mode == Mode::Serving && run.asked_until().is_some() && run.cause.is_none() && !at_terminal {
            // It was asked what takes so much memory, and has ended of that.
            run.end_for(Cause::Restart(Asker::Memory));
        }
        let by_itself = run.cause.is_none_or(|cause| cause == Cause::Itself);
        let stopped_at_terminal = mode == Mode::Serving && at_terminal && by_itself;
        // What guard or an operator ends is no stop by QUIT.
        let quit_until = run.quit_until.take().filter(|&until| now < until && by_itself && !stopped_at_terminal);
        let (kill_at, ending) = (run.stop_deadline(now), run.ending_with_cause(ending));
        if mode == Mode::Serving && quit_until.is_some() {
            run.end_for(Cause::Quit);
        }
        let kill_at = match mode {
            // guard's own end begins, and leaves more time.
            Mode::Serving if stopped_at_terminal => kill_at,
            Mode::Serving if quit_until.is_some() => earlier(kill_at, quit_until),
            Mode::Serving => earlier(kill_at, Some(now.after(LEFTOVER_TIMEOUT))),
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => earlier(kill_at, shutdown.kill_at),
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => kill_at,
        };
        // Nobody has asked for its end.
        let fails = run.cause.is_none_or(|cause| matches!(cause, Cause::Itself | Cause::Failed(_) | Cause::Quit));
        let is_stable = run.ready_since.is_some_and(|since| now.since(since) >= stable_after);
        run.state = RunState::Sweeping { ending, kill_at, counted: false };
        if is_stable {
            instance.history.stable();
        }
        if stopped_at_terminal {
            self.report(Notice::StoppedAtTerminal { run: id, ending });
            self.begin_shutdown(now, ShutdownCause::AppLeft);
        }
        if fails {
            self.ready_run_fails(now, id);
        }
        match mode {
            Mode::Serving | Mode::Draining(_) | Mode::Sweeping(_) => self.actions.push(Action::Sweep(id, Signal::TERM)),
            // Everything has got SIGKILL.
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {}
        }
    }

    /// The runtime has counted leftovers that live. The run is over when none does.
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

    /// Leftovers still live when their time is over: they get SIGKILL.
    pub(super) fn sweep_timeout_elapsed(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        self.set_state(id, RunState::Clearing { ending, give_up_at: now.after(CLEAR_TIMEOUT), left: 0 });
        self.actions.push(Action::Sweep(id, Signal::KILL));
        self.report(Notice::KillLeftovers { run: id });
    }

    /// SIGKILL does not end the leftovers: guard goes on without them.
    pub(super) fn clear_timeout_elapsed(&mut self, now: Timestamp, id: RunId, ending: Ending, left: usize) {
        self.report(Notice::Abandoned { run: id, count: left });
        self.run_over(now, id, ending);
    }
}
