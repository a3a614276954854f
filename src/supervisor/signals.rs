//! What a signal that guard receives means, and job control.

use super::cause::Asker;
use super::run_id::RunId;
use super::shutdown::ShutdownCause;
use super::state::{Instance, Slot};
use super::timestamp::Timestamp;
use super::{Action, Notice, Supervisor};
use crate::config::{Meaning, Scale, Scope};
use crate::signal::Signal;

impl Supervisor {
    /// The terminal has stopped a main process.
    pub(super) fn main_suspended(&mut self, id: RunId) {
        // Without a shell above nobody could ever continue it.
        if self.settings.job_control {
            self.actions.push(Action::Suspend);
        }
        self.actions.push(Action::Thaw(id));
    }

    /// guard has got a signal, and its runs have not.
    pub(super) fn signal_received(&mut self, now: Timestamp, signal: Signal) {
        match self.mapped_to(signal) {
            Some(meaning) => self.mapped_signal_received(now, signal, meaning, ShutdownCause::Signal(signal)),
            None if self.is_stop_request(signal) => self.stop_requested(now, ShutdownCause::Signal(signal)),
            None if !self.begun() => self.early.push(signal),
            None if suspends(signal) => self.suspend(signal),
            // In a backoff it is the STOPSIGNAL of an image, since there is nobody of whom it could ask anything else.
            None if signal == Signal::QUIT && self.runs().next().is_none() => {
                self.stop_requested(now, ShutdownCause::Signal(signal));
            }
            None => {
                self.forward(signal);
                if signal == Signal::QUIT {
                    self.note_quit(now);
                }
            }
        }
    }

    /// The terminal has sent a signal to guard and its runs at once.
    pub(super) fn signal_pressed(&mut self, now: Timestamp, signal: Signal) {
        let means_stop = self.is_stop_request(signal) || ends_by_terminal(signal);
        match self.mapped_to(signal) {
            // The runs have got it from the terminal.
            Some(Meaning::Forward(other)) if other == signal && self.begun() => {}
            Some(meaning) => self.mapped_signal_received(now, signal, meaning, ShutdownCause::Pressed(signal)),
            None if means_stop => self.stop_requested(now, ShutdownCause::Pressed(signal)),
            None if suspends(signal) => self.suspend_with_runs(),
            None => {}
        }
    }

    /// A signal of GUARD_SIGNAL_MAP. Before the first run it waits, unless it is ignored or means a stop.
    fn mapped_signal_received(&mut self, now: Timestamp, signal: Signal, meaning: Meaning, cause: ShutdownCause) {
        let waits = match meaning {
            Meaning::Ignore | Meaning::Stop => false,
            Meaning::Restart | Meaning::Reload | Meaning::ScaleUp | Meaning::ScaleDown => !self.begun(),
            Meaning::Forward(_) => !self.begun(),
        };
        if waits {
            return self.early.push(signal);
        }
        self.carry_out(now, meaning, Asker::Operator, cause);
        if matches!(meaning, Meaning::Forward(_)) && suspends(signal) && !self.settings.init {
            self.actions.push(Action::Suspend);
        }
    }

    /// A file of GUARD_ON_CHANGE has changed. A signal that no run can take is no loss: the next run finds the files as they
    /// are.
    pub(super) fn file_changed(&mut self, now: Timestamp, meaning: Meaning) {
        self.carry_out(now, meaning, Asker::File, ShutdownCause::Request);
    }

    /// Does what a mapped signal or a changed file means.
    fn carry_out(&mut self, now: Timestamp, meaning: Meaning, asker: Asker, cause: ShutdownCause) {
        match meaning {
            Meaning::Ignore => {}
            Meaning::Stop => self.stop_requested(now, cause),
            Meaning::Restart => self.restart(now, asker, None),
            Meaning::Reload => self.reload_for(now, asker),
            Meaning::ScaleUp => self.scale_requested(now, Scale::More(1)),
            Meaning::ScaleDown => self.scale_requested(now, Scale::Fewer(1)),
            Meaning::Forward(signal) => self.forward(signal),
        }
    }

    /// What GUARD_SIGNAL_MAP says of a signal.
    fn mapped_to(&self, signal: Signal) -> Option<Meaning> {
        self.settings.signal_map.iter().find(|(from, _)| *from == signal).map(|(_, meaning)| *meaning)
    }

    /// Every instance has had a run.
    fn begun(&self) -> bool {
        self.instances.iter().all(|instance| match &instance.slot {
            Slot::Waiting { .. } => instance.runs > 0,
            Slot::Live(_) | Slot::Finished => true,
        })
    }

    /// The first run lives, and gets the signals that came before it.
    pub(super) fn deliver_early_signals(&mut self, now: Timestamp) {
        if self.begun() && self.living().next().is_some() {
            for signal in std::mem::take(&mut self.early) {
                self.signal_received(now, signal);
            }
        }
    }

    /// Whether a signal is for guard itself, and not only for the app.
    pub fn takes(&self, signal: Signal) -> bool {
        self.is_stop_request(signal) || suspends(signal) || self.mapped_to(signal).is_some()
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

    /// QUIT is the STOPSIGNAL of some images, and people send it for a JVM's thread dump. A run that ends soon after it has been
    /// stopped by it: see `sweep.rs`.
    fn note_quit(&mut self, now: Timestamp) {
        let until = now.after(self.settings.stop.restart_timeout);
        for run in self.runs_mut().filter(|run| run.main_lives()) {
            run.quit_until = Some(until);
        }
    }

    /// A terminal's stop signal came to guard. As PID 1 nobody could continue it, so it is ignored.
    fn suspend(&mut self, signal: Signal) {
        if self.settings.init {
            let why = "nobody could continue PID 1; GUARD_SIGNAL_MAP=TSTP=TSTP passes it on";
            return self.report(Notice::Ignored { what: "TSTP, TTIN or TTOU", why });
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

fn ends_by_terminal(signal: Signal) -> bool {
    Signal::TERMINAL_ENDS.contains(&signal)
}

fn suspends(signal: Signal) -> bool {
    Signal::TERMINAL_STOPS.contains(&signal)
}
