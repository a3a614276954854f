//! The end of a run: its main process ends, its leftovers are swept, and the policy decides what follows.

use super::exit_code::{Ending, Failure};
use super::restart::{Verdict, worth};
use super::state::{Mode, RunId, RunState, Slot, Timestamp, earlier};
use super::{Action, LAST_DEADLINE, LEFTOVER_TIMEOUT, Notice, Supervisor};
use crate::signal::Signal;

impl Supervisor {
    pub(super) fn exited(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        let mode = self.mode;
        let (terminal, stable_after) = (self.settings.terminal, self.settings.restart.stable_after);
        let shell = self.settings.shell;
        let Some(instance) = self.instances.get_mut(id.instance) else { return };
        let Some(run) = instance.runs_mut().find(|run| run.id == id) else { return };
        let kill_at = match run.state {
            // What a core file may take is no stop deadline.
            RunState::Stopping { .. } | RunState::Killing { .. } if run.failure == Some(Failure::Watchdog) => None,
            RunState::Draining { kill_at, .. } | RunState::Stopping { kill_at, .. } => kill_at,
            RunState::Killing { .. } => Some(now),
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => None,
            RunState::Sweeping { .. } | RunState::Clearing { .. } => return,
        };
        let ending = run.failure.map_or(ending, |failure| Ending::Failed(failure, ending.code()));
        let typed = terminal && ending.by_terminal() || shell && matches!(ending, Ending::Exited(1..));
        let stopped = mode == Mode::Serving && typed && !run.asked;
        let kill_at = match mode {
            // guard's own end begins, and leaves more time.
            Mode::Serving if stopped => kill_at,
            Mode::Serving => earlier(kill_at, Some(now.after(LEFTOVER_TIMEOUT))),
            Mode::Draining(end) | Mode::Sweeping(end) => earlier(kill_at, end.kill_at),
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => kill_at,
        };
        let stable = run.failure.is_none() && run.ready_since.is_some_and(|since| now.since(since) >= stable_after);
        run.state = RunState::Sweeping { ending, kill_at, told: false };
        if stable {
            instance.history.stable();
        }
        if stopped {
            self.report(Notice::StoppedAtTerminal { run: id, ending });
            self.end(now, None, None);
        }
        if !matches!(mode, Mode::Killing { .. } | Mode::Lingering(_)) {
            self.actions.push(Action::Sweep(id, Signal::TERM));
        }
    }

    pub(super) fn leftovers(&mut self, now: Timestamp, id: RunId, count: usize) {
        let serving = self.mode == Mode::Serving;
        let Some(run) = self.run_mut(id) else { return };
        let asked = run.asked;
        match &mut run.state {
            RunState::Sweeping { ending, .. } | RunState::Clearing { ending, .. } if count == 0 => {
                let ending = *ending;
                self.gone(now, id, ending);
            }
            RunState::Sweeping { ending, told, .. } => {
                let background = *ending == Ending::Exited(0) && serving && !asked;
                if !std::mem::replace(told, true) && background {
                    self.report(Notice::Background { run: id });
                }
            }
            RunState::Clearing { left, .. } => *left = count,
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => {}
            RunState::Draining { .. } | RunState::Stopping { .. } | RunState::Killing { .. } => {}
        }
    }

    /// The run has ended and nothing of it is left: decides what follows.
    fn gone(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        let Some(instance) = self.instances.get_mut(id.instance) else { return };
        if instance.retiring.as_ref().is_some_and(|run| run.id == id) {
            instance.retiring = None;
            self.reload_on(now);
            return;
        }
        if self.mode == Mode::Serving && self.restore(id) {
            return;
        }
        let Some(instance) = self.instances.get_mut(id.instance) else { return };
        let asked = match &instance.slot {
            Slot::Live(run) => run.asked,
            Slot::Waiting { .. } | Slot::Finished { .. } => false,
        };
        if asked && self.mode == Mode::Serving {
            instance.last = Some(ending);
            instance.slot = Slot::Waiting { until: Some(now) };
        } else {
            self.follow(now, id, ending);
        }
    }

    /// What follows a run that nobody asked to end, or the last one of all.
    pub(super) fn follow(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        let Supervisor { instances, settings, jitter, mode, .. } = self;
        let Some(instance) = instances.get_mut(id.instance) else { return };
        instance.last = Some(ending);
        if *mode != Mode::Serving {
            instance.slot = Slot::Finished { code: worth(ending, &settings.restart) };
            return;
        }
        let verdict = instance.history.decide(now, ending, &settings.restart, jitter);
        if instance.awaited {
            self.restart_failed("the new run failed before it was ready");
        }
        let Supervisor { instances, settings, .. } = self;
        let Some(instance) = instances.get_mut(id.instance) else { return };
        match verdict {
            Verdict::Restart { count, delay } => {
                instance.slot = Slot::Waiting { until: Some(now.after(delay)) };
                let limit = settings.restart.max;
                self.report(Notice::Restarting { run: id, ending, count, limit, delay });
            }
            Verdict::GiveUp { limit } => {
                self.gave_up = true;
                let window = settings.restart.window;
                self.report(Notice::GiveUp { run: id, ending, limit, window });
                let code = worth(ending, &self.settings.restart).max(1);
                self.finish(now, id, ending, code);
            }
            Verdict::Finish { code, why } => {
                instance.slot = Slot::Finished { code };
                self.report(Notice::NotRestarted { run: id, ending, why });
            }
            Verdict::Abort { code, why } => {
                self.report(Notice::NotRestarted { run: id, ending, why });
                self.finish(now, id, ending, code);
            }
        }
    }

    /// An instance is done for good and takes guard along: the other instances are drained first.
    pub(super) fn finish(&mut self, now: Timestamp, id: RunId, ending: Ending, code: u8) {
        if let Some(instance) = self.instances.get_mut(id.instance) {
            instance.last = Some(ending);
            instance.slot = Slot::Finished { code };
        }
        self.end(now, None, Some(code));
    }

    /// A deadline of a run other than its drain delay has passed.
    pub(super) fn run_timeout(&mut self, now: Timestamp, id: RunId) {
        let Some(run) = self.run_mut(id) else { return };
        let failure = run.failure;
        match run.state {
            RunState::Starting { ready_by: Some(at) } if at <= now => self.fail(now, id, Failure::NotReady),
            RunState::Ready { watchdog: Some(at) } if at <= now => self.fail(now, id, Failure::Watchdog),
            RunState::Starting { .. } | RunState::Ready { .. } => self.check_timeout(now, id),
            RunState::Stopping { signal: Some((at, _)), kill_at } if kill_at.is_none_or(|kill_at| at < kill_at) => {
                self.send_after_all(id, |run, signal| Notice::Unheeded { run, signal });
            }
            RunState::Draining { .. } | RunState::Stopping { .. } => {
                run.state = RunState::Killing { give_up_at: now.after(LAST_DEADLINE) };
                self.report(Notice::KillRun { run: id, failure });
                self.actions.push(Action::Signal(id, Signal::KILL));
            }
            RunState::Sweeping { ending, .. } => {
                run.state = RunState::Clearing { ending, give_up_at: now.after(LAST_DEADLINE), left: 0 };
                self.report(Notice::KillLeftovers { run: id });
                self.actions.push(Action::Sweep(id, Signal::KILL));
            }
            RunState::Clearing { ending, left, .. } => {
                self.report(Notice::Abandoned { run: id, count: left });
                self.gone(now, id, ending);
            }
            RunState::Killing { .. } => {
                // A main process that lives cannot be replaced: it stays, and the restart has failed.
                run.state = run.ready_state(now);
                run.asked = false;
                run.failure = None;
                self.report(Notice::Unkillable { run: id });
                self.restart_failed("SIGKILL does not end the old run");
            }
            RunState::Spawning => {}
        }
    }
}
