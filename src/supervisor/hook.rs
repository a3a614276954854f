//! The pre-stop hook: it runs beside the drain delay, and the stop signal waits for both.
//!
//! There is one hook at a time. A drain that begins while a hook runs shares it.

use super::state::{Mode, Run, RunState};
use super::timestamp::{Timestamp, earlier};
use super::{Action, Notice, Supervisor};
use crate::signal::Signal;
use std::time::Duration;

/// A pre-stop hook that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hook {
    pub(super) kill_at: Option<Timestamp>,
    /// No run waits for it any more, and it has got SIGTERM.
    pub(super) released: bool,
    /// Another one starts when it has ended.
    pub(super) again: bool,
}

impl Supervisor {
    /// Starts the hook if a run is draining.
    pub(super) fn start_hook_for_drain(&mut self, now: Timestamp, timeout: Option<Duration>) {
        if self.is_hook_awaited() {
            self.start_hook(now, timeout);
        }
    }

    /// Starts the hook, if there is one. It is killed at half of `timeout`.
    pub(super) fn start_hook(&mut self, now: Timestamp, timeout: Option<Duration>) {
        if !self.settings.pre_stop {
            return;
        }
        let kill_at = timeout.map(|timeout| now.after(timeout / 2));
        match &mut self.hook {
            // It is on its way out, for a run that has ended. This drain gets a hook of its own.
            Some(hook) if hook.released => {
                *hook = Hook { kill_at, released: true, again: true };
                self.actions.push(Action::SignalHook(Signal::KILL));
            }
            Some(hook) => hook.kill_at = earlier(hook.kill_at, kill_at),
            None => {
                self.hook = Some(Hook { kill_at, released: false, again: false });
                self.push_hook(now);
            }
        }
    }

    pub(super) fn hook_ended(&mut self, now: Timestamp) {
        self.hook = self.hook.filter(|hook| hook.again).map(|hook| Hook { released: false, again: false, ..hook });
        if self.hook.is_some() {
            self.push_hook(now);
        }
    }

    pub(super) fn hook_timeout_elapsed(&mut self) {
        if let Some(hook) = &mut self.hook {
            *hook = Hook { kill_at: None, again: false, ..*hook };
            self.actions.push(Action::SignalHook(Signal::KILL));
            self.report(Notice::KillHook);
        }
    }

    /// The hook of a restart has lost its purpose when no run waits for it any more: it gets SIGTERM, as leftovers do. The
    /// hook of a stop has its time in any case, since it may be about to deregister something.
    pub(super) fn release_hook(&mut self) {
        let awaited = self.is_hook_awaited();
        match self.mode {
            Mode::Serving => {
                if let Some(hook) = self.hook.as_mut().filter(|_| !awaited) {
                    hook.again = false;
                    if !std::mem::replace(&mut hook.released, true) {
                        self.actions.push(Action::SignalHook(Signal::TERM));
                    }
                }
            }
            Mode::Draining(_) | Mode::Sweeping(_) | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {}
        }
    }

    /// A run waits for the hook before it gets its stop signal.
    fn is_hook_awaited(&self) -> bool {
        self.runs().any(Run::is_draining)
    }

    fn push_hook(&mut self, now: Timestamp) {
        let (signal, own) = match self.mode {
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => (shutdown.signal, shutdown.kill_at),
            Mode::Serving | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => (None, None),
        };
        let kill_at = |run: &Run| match run.state {
            RunState::Draining { kill_at, .. } => kill_at,
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => None,
            RunState::Stopping { .. } | RunState::Diagnosing { .. } => None,
            RunState::Aborting { .. } | RunState::Killing { .. } => None,
            RunState::Sweeping { .. } | RunState::Clearing { .. } => None,
        };
        let left = self.runs().filter_map(kill_at).chain(own).min().map(|at| at.since(now));
        self.actions.push(Action::StartHook { signal, left });
    }
}
