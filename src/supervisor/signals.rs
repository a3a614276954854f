//! What a signal that guard receives means, and job control.

use super::run_id::RunId;
use super::state::{Asker, Instance, RunState, Slot};
use super::timestamp::Timestamp;
use super::{Action, Notice, Supervisor};
use crate::config::Scale;
use crate::config::{Meaning, Scope};
use crate::signal::Signal;

impl Supervisor {
    pub(super) fn main_suspended(&mut self, id: RunId) {
        // Without a shell above nobody could ever continue it.
        if self.settings.job_control {
            self.actions.push(Action::Suspend);
        }
        self.actions.push(Action::Thaw(id));
    }

    /// `pressed` where the terminal has sent the signal to the runs too.
    pub(super) fn signal_received(&mut self, now: Timestamp, signal: Signal, pressed: bool) {
        let mapped = self.settings.signal_map.iter().find(|(from, _)| *from == signal);
        let meaning = mapped.map(|(_, meaning)| *meaning);
        let suspends = suspends(signal);
        match meaning {
            Some(Meaning::Ignore) => {}
            Some(Meaning::Stop) => self.stop_requested(now, Some(signal), pressed),
            None if self.is_stop_request(signal) => self.stop_requested(now, Some(signal), pressed),
            None if pressed && ends_by_terminal(signal) => self.stop_requested(now, Some(signal), pressed),
            None if pressed && suspends => self.suspend_with_runs(),
            None if pressed => {}
            Some(_) | None if !self.begun() => self.early.push(signal),
            Some(Meaning::Restart) => self.restart(now, Asker::Operator, None),
            Some(Meaning::Reload) => self.reload_requested(now, Asker::Operator),
            Some(Meaning::ScaleUp) => self.scale_requested(now, Scale::More(1)),
            Some(Meaning::ScaleDown) => self.scale_requested(now, Scale::Fewer(1)),
            // The runs have got it from the terminal.
            Some(Meaning::Forward(other)) if pressed && other == signal => {}
            Some(Meaning::Forward(other)) => {
                self.forward(other);
                if suspends && !self.settings.init {
                    self.actions.push(Action::Suspend);
                }
            }
            None if suspends => self.suspend(signal),
            None => {
                self.forward(signal);
                if signal == Signal::QUIT {
                    self.note_quit(now);
                }
            }
        }
    }

    /// A change means what a mapped signal would. What nobody can take is no loss: the next run finds the files as they are.
    pub(super) fn file_changed(&mut self, now: Timestamp, meaning: Meaning) {
        match meaning {
            Meaning::Ignore => {}
            Meaning::Stop => self.stop_requested(now, None, false),
            Meaning::Restart => self.restart(now, Asker::File, None),
            Meaning::Reload => self.reload_requested(now, Asker::File),
            Meaning::ScaleUp => self.scale_requested(now, Scale::More(1)),
            Meaning::ScaleDown => self.scale_requested(now, Scale::Fewer(1)),
            Meaning::Forward(signal) => self.forward(signal),
        }
    }

    /// Every instance has had a run.
    fn begun(&self) -> bool {
        self.instances.iter().all(|instance| match &instance.slot {
            Slot::Waiting { .. } => instance.runs > 0,
            Slot::Live(run) => run.state != RunState::Spawning || run.id.number > 1,
            Slot::Finished => true,
        })
    }

    /// The first run lives, and gets the signals that came before it.
    pub(super) fn deliver_early_signals(&mut self, now: Timestamp) {
        if self.begun() && self.living().next().is_some() {
            for signal in std::mem::take(&mut self.early) {
                self.signal_received(now, signal, false);
            }
        }
    }

    /// Whether a signal is for guard itself, and not only for the app.
    pub fn takes(&self, signal: Signal) -> bool {
        self.is_stop_request(signal)
            || suspends(signal)
            || self.settings.signal_map.iter().any(|(from, _)| *from == signal)
    }

    fn is_stop_request(&self, signal: Signal) -> bool {
        [Some(Signal::TERM), Some(Signal::INT), self.settings.stop.signal].contains(&Some(signal))
    }

    fn forward(&mut self, signal: Signal) {
        let before = self.actions.len();
        let living = self.instances.iter().flat_map(Instance::living);
        self.actions.extend(living.map(|run| Action::Signal(run.id, signal)));
        if self.actions.len() == before {
            self.report(Notice::NotForwarded { signal });
        }
    }

    /// QUIT is the STOPSIGNAL of some images, and also how people take a JVM's thread dump. What the run does next tells
    /// which it was: see [`Supervisor::main_exited`].
    fn note_quit(&mut self, now: Timestamp) {
        let until = now.after(self.settings.stop.restart_timeout);
        for run in self.runs_mut().filter(|run| run.main_lives()) {
            run.quit_until = Some(until);
        }
    }

    /// A terminal's stop signal came to guard. As PID 1 nobody could continue it, so it is ignored.
    fn suspend(&mut self, signal: Signal) {
        if self.settings.init {
            return;
        }
        let scope = self.settings.scope;
        let living: Vec<RunId> = self.living().collect();
        self.actions.extend(living.into_iter().map(|id| match scope {
            Scope::Process => Action::Signal(id, signal),
            Scope::Group => Action::Freeze(id),
        }));
        self.actions.push(Action::Suspend);
    }

    /// The terminal has stopped its foreground, in which guard and its runs are.
    fn suspend_with_runs(&mut self) {
        if self.settings.job_control {
            let living: Vec<RunId> = self.living().collect();
            self.actions.push(Action::Suspend);
            self.actions.extend(living.into_iter().map(Action::Thaw));
        }
    }
}

/// What the terminal sends for Ctrl-C, for Ctrl-\, and when it is gone.
fn ends_by_terminal(signal: Signal) -> bool {
    [Signal::INT, Signal::QUIT, Signal::HUP].contains(&signal)
}

/// A terminal's stop signals.
fn suspends(signal: Signal) -> bool {
    [Signal::TSTP, Signal::TTIN, Signal::TTOU].contains(&signal)
}
