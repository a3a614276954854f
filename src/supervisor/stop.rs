//! How runs are stopped: at the end of guard, and for a restart in place.

use super::exit_code::{KILLED, of_signal};
use super::linger::Linger;
use super::restart::worth;
use super::state::{End, Instance, Mode, Run, RunState, Slot, Timestamp, earlier};
use super::{Action, Hook, LAST_DEADLINE, Notice, Supervisor};
use crate::signal::Signal;
use std::time::Duration;

impl Supervisor {
    pub(super) fn stop_requested(&mut self, now: Timestamp, signal: Option<Signal>) {
        let again = self.interrupted;
        self.interrupted |= signal == Some(Signal::INT);
        match self.mode {
            Mode::Serving => self.end(now, signal, None),
            // Kubelets repeat themselves, and apps quit hard on a second signal; a person at a terminal means it.
            Mode::Draining(_) | Mode::Sweeping(_) => {
                if signal == Some(Signal::INT) && again && self.settings.terminal {
                    self.kill_everything(now, true);
                }
            }
            // The app is gone, and whoever still presses Ctrl-C wants out.
            Mode::Lingering(_) if signal == Some(Signal::INT) && self.settings.terminal => self.leave(),
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {}
        }
    }

    /// guard's end begins: every run is drained within one stop timeout, and none follows.
    pub(super) fn end(&mut self, now: Timestamp, signal: Option<Signal>, code: Option<u8>) {
        let stop = &self.settings.stop;
        let (timeout, delay) = (stop.timeout, stop.drain_delay);
        let stop_signal = stop.signal.or(signal).unwrap_or(Signal::TERM);
        let kill_at = timeout.map(|timeout| now.after(timeout));
        let linger_until = kill_at.unwrap_or(now.after(stop.restart_timeout));
        self.mode = Mode::Draining(End { kill_at, linger_until, signal, code });
        self.reload = None;
        self.restart_failed("guard is stopping");
        for instance in &mut self.instances {
            // The new run of a reload was not yet started: the old one is the last.
            if let Slot::Waiting { .. } = instance.slot
                && let Some(run) = instance.retiring.take_if(|run| run.serves())
            {
                instance.slot = Slot::Live(run);
            }
            if let Slot::Waiting { .. } = instance.slot {
                let code = match instance.last {
                    Some(ending) => worth(ending, &self.settings.restart),
                    // Nothing was ever started: the end of guard is all there is to tell.
                    None => signal.map_or(1, of_signal),
                };
                instance.slot = Slot::Finished { code };
            }
            for run in instance.runs_mut() {
                drain(run, now, stop_signal, delay, kill_at);
            }
        }
        if code.is_none() || self.living().next().is_some() {
            self.report(Notice::Draining { signal, delay });
        }
        self.mark_drain();
        self.start_hook(now, timeout);
    }

    /// An operator's restart: each instance's run is drained and stopped within a stop timeout of its own.
    pub(super) fn restart_requested(&mut self, now: Timestamp) {
        if self.mode != Mode::Serving {
            return self.report(Notice::RestartFailed { why: "guard is stopping" });
        }
        let stop = &self.settings.stop;
        let (timeout, delay) = (stop.restart_timeout, stop.drain_delay);
        let signal = stop.signal.unwrap_or(Signal::TERM);
        let mut notices = Vec::new();
        for instance in &mut self.instances {
            if instance.retiring.as_ref().is_some_and(Run::serves) {
                notices.push(Notice::Ignored { what: "restart", why: "a reload is under way" });
                continue;
            }
            instance.awaited = true;
            match &mut instance.slot {
                Slot::Live(run) if run.serves() => {
                    run.asked = true;
                    drain(run, now, signal, delay, Some(now.after(timeout)));
                    notices.push(Notice::RestartRequested { run: run.id });
                }
                Slot::Waiting { until: Some(until) } => {
                    *until = now;
                    notices.push(Notice::Ignored { what: "backoff", why: "a restart was asked for" });
                }
                // It ends already: the next run follows as one that was asked for.
                Slot::Live(run) if !run.asked => {
                    run.asked = true;
                    notices.push(Notice::RestartRequested { run: run.id });
                }
                Slot::Live(_) => notices.push(Notice::Ignored { what: "restart", why: "one is under way" }),
                Slot::Waiting { until: None } | Slot::Finished { .. } => instance.awaited = false,
            }
        }
        notices.into_iter().for_each(|notice| self.report(notice));
        if !self.instances.iter().any(|instance| instance.awaited) {
            self.report(Notice::RestartFailed { why: "a reload is under way" });
        }
        self.mark_drain();
        self.start_hook(now, Some(timeout));
    }

    /// Starts the pre-stop hook if a run is there to wait for it. A hook that runs already serves this drain too.
    fn start_hook(&mut self, now: Timestamp, timeout: Option<Duration>) {
        if !self.settings.pre_stop || !self.is_hook_awaited() {
            return;
        }
        let kill_at = timeout.map(|timeout| now.after(timeout / 2));
        match &mut self.hook {
            // It is on its way out, for a run that has ended. This drain gets one of its own.
            Some(hook) if hook.told => {
                *hook = Hook { kill_at, told: true, again: true };
                self.actions.push(Action::SignalHook(Signal::KILL));
            }
            Some(hook) => hook.kill_at = earlier(hook.kill_at, kill_at),
            None => {
                self.hook = Some(Hook { kill_at, told: false, again: false });
                self.tell_hook(now);
            }
        }
    }

    /// A run waits for the hook before it is told.
    fn is_hook_awaited(&self) -> bool {
        self.runs().any(|run| matches!(run.state, RunState::Draining { .. }))
    }

    pub(super) fn hook_ended(&mut self, now: Timestamp) {
        let waits = self.is_hook_awaited();
        self.hook = match self.hook {
            Some(hook) if hook.again && waits => {
                self.tell_hook(now);
                Some(Hook { told: false, again: false, ..hook })
            }
            Some(_) | None => None,
        };
    }

    fn tell_hook(&mut self, now: Timestamp) {
        let signal = match self.mode {
            Mode::Draining(end) | Mode::Sweeping(end) => end.signal,
            Mode::Serving | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => None,
        };
        let kill_at = |run: &Run| match run.state {
            RunState::Draining { kill_at, .. } => kill_at,
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => None,
            RunState::Stopping { .. } | RunState::Killing { .. } => None,
            RunState::Sweeping { .. } | RunState::Clearing { .. } => None,
        };
        let left = self.runs().filter_map(kill_at).min().map(|at| at.since(now));
        self.actions.push(Action::StartHook { signal, left });
    }

    /// Sends the stop signal to every run whose drain delay is over and that waits for no hook.
    pub(super) fn tell(&mut self, now: Timestamp) {
        if self.hook.is_some() {
            return;
        }
        let due = |run: &Run| match run.state {
            RunState::Draining { signal, until, kill_at } if until <= now => Some((run.id, signal, kill_at)),
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } | RunState::Draining { .. } => None,
            RunState::Stopping { .. } | RunState::Killing { .. } => None,
            RunState::Sweeping { .. } | RunState::Clearing { .. } => None,
        };
        let due: Vec<_> = self.runs().filter_map(due).collect();
        for (id, signal, kill_at) in due {
            self.ask(now, id, signal, kill_at);
        }
    }

    /// A hook that no run waits for any more has lost its purpose: it is a leftover like others.
    pub(super) fn release_hook(&mut self) {
        let waits = self.is_hook_awaited();
        if let Some(hook) = self.hook.as_mut().filter(|hook| !hook.told && !waits) {
            hook.told = true;
            self.actions.push(Action::SignalHook(Signal::TERM));
        }
    }

    /// Moves guard's own end along: from Draining to Sweeping to the last blow.
    pub(super) fn proceed(&mut self, now: Timestamp) {
        if let Mode::Draining(end) = self.mode
            && self.living().next().is_none()
        {
            self.mode = Mode::Sweeping(end);
        }
        let over = self.instances.iter().all(|instance| match instance.slot {
            Slot::Finished { .. } => instance.retiring.is_none(),
            Slot::Waiting { .. } | Slot::Live(_) => false,
        });
        if over && self.hook.is_none() {
            let code = self.code();
            self.last_blow(now, code, self.linger_until(now, code));
        }
    }

    /// The stop timeout passed, or a person at the terminal has had enough.
    pub(super) fn kill_everything(&mut self, now: Timestamp, interrupted: bool) {
        let mains = self.living().count();
        let code = match (self.mode, mains) {
            (Mode::Draining(End { code: Some(code), .. }), _) => code,
            (_, 0) => self.code(),
            (_, _) => KILLED,
        };
        self.report(Notice::KillEverything { interrupted });
        // Whoever's time is over waits for no connection either.
        self.last_blow(now, code, now);
    }

    fn last_blow(&mut self, now: Timestamp, code: u8, linger_until: Timestamp) {
        self.mode = Mode::Killing { code, give_up_at: now.after(LAST_DEADLINE), linger_until };
        self.actions.push(Action::KillEverything);
    }

    /// Everything is reaped, or will not be in time.
    pub(super) fn nothing_left(&mut self, now: Timestamp) {
        if let Mode::Killing { code, linger_until, .. } = self.mode {
            self.begin_linger(now, code, linger_until);
        }
    }

    /// What guard exits with as things are: the code that was settled, or the first instance's that is no success.
    fn code(&self) -> u8 {
        let settled = match self.mode {
            Mode::Draining(end) | Mode::Sweeping(end) => end.code,
            Mode::Killing { code, .. } | Mode::Lingering(Linger { code, .. }) => Some(code),
            Mode::Serving | Mode::Done => None,
        };
        let codes = self.instances.iter().map(|instance| match &instance.slot {
            Slot::Finished { code } => *code,
            Slot::Live(Run {
                state: RunState::Sweeping { ending, .. } | RunState::Clearing { ending, .. }, ..
            }) => worth(*ending, &self.settings.restart),
            Slot::Live(_) | Slot::Waiting { .. } => 0,
        });
        settled.unwrap_or_else(|| codes.into_iter().find(|&code| code != 0).unwrap_or(0))
    }

    /// Keeps the drain file in step: it is there while guard ends, and while a run is being restarted in place.
    pub(super) fn mark_drain(&mut self) {
        let restarting = |instance: &Instance| match &instance.slot {
            Slot::Live(run) => run.asked,
            Slot::Waiting { .. } | Slot::Finished { .. } => false,
        };
        let draining = match self.mode {
            Mode::Serving => self.instances.iter().any(restarting),
            Mode::Draining(_) | Mode::Sweeping(_) => true,
            Mode::Killing { .. } | Mode::Lingering(_) => self.draining,
            Mode::Done => false,
        };
        if std::mem::replace(&mut self.draining, draining) != draining {
            self.actions.push(Action::Draining(draining));
        }
    }
}

/// Begins the end of a run, or hastens one that has begun: no deadline moves later, and no signal is sent twice.
pub(super) fn drain(run: &mut Run, now: Timestamp, signal: Signal, delay: Duration, kill_at: Option<Timestamp>) {
    run.state = match run.state {
        RunState::Starting { .. } | RunState::Ready { .. } => {
            RunState::Draining { signal, until: now.after(delay), kill_at }
        }
        RunState::Draining { until, kill_at: own, .. } => {
            RunState::Draining { signal, until: until.min(now.after(delay)), kill_at: earlier(own, kill_at) }
        }
        RunState::Stopping { kill_at: own, signal } => {
            let kill_at = earlier(own, kill_at);
            // Still after half of what is left at most.
            let half = kill_at.map(|at| now.after(at.since(now) / 2));
            let signal = signal.map(|(at, signal)| (half.map_or(at, |half| at.min(half)), signal));
            RunState::Stopping { kill_at, signal }
        }
        RunState::Sweeping { ending, kill_at: own, told } => {
            RunState::Sweeping { ending, kill_at: earlier(own, kill_at), told }
        }
        state @ (RunState::Spawning | RunState::Killing { .. } | RunState::Clearing { .. }) => state,
    };
}
