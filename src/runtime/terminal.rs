//! The terminal: which signals of its keys are events, and whether a person has told an app to exit.
//!
//! docs/design.md says which process is in which group, and which keys it gets.

use super::Runtime;
use super::journal::of_run;
use crate::signal::Signal;
use crate::supervisor::{Event, RunId, Timestamp};
use crate::sys::Pid;
use crate::sys::signals::{self, Sender};
use crate::sys::terminal::Terminal;
use log::Level;
use std::time::Duration;

/// An app that exits so soon after it has read what was typed exits because of it.
const SOON: Duration = Duration::from_secs(2);

/// The pause before guard checks again who has the foreground: a line may be there before the shell that reads it.
const LATER: Duration = Duration::from_secs(1);

/// What was typed since the last run began.
#[derive(Default)]
pub(super) struct Typed {
    /// When somebody last did.
    at: Option<Timestamp>,
    /// When guard checks again who has the foreground.
    pub(super) check_at: Option<Timestamp>,
    /// A run has taken the foreground for itself.
    taken: bool,
}

impl Runtime<'_> {
    /// What a signal that guard has received means to the core; `None` where it is nothing to guard.
    pub(super) fn event_of_signal(&mut self, signal: Signal, sender: Sender) -> Option<Event> {
        let Some(terminal) = &mut self.terminal else { return Some(Event::Signal(signal)) };
        match sender {
            // `take_typing` takes these.
            Sender::Kernel if signal == Signal::IO => return None,
            Sender::Kernel if terminal.sends(signal) => return Some(Event::Pressed(signal)),
            // The main process has got it with the group. It might send the next one for each that guard passes on.
            Sender::Process(pid) if terminal.is_member(pid) && !self.supervisor.takes(signal) => return None,
            Sender::Kernel | Sender::Process(_) | Sender::Other => {}
        }
        if signal == Signal::CONT {
            terminal.refresh();
        }
        Some(Event::Signal(signal))
    }

    /// Gives the terminal to the run that is about to begin, as it was at the start, and waits for what is typed.
    pub(super) fn offer_terminal(&mut self) {
        self.take_terminal_back();
        self.restore_terminal();
        let Some(terminal) = &self.terminal else { return };
        terminal.watch(true);
        self.typed.taken = false;
        if self.children.runs().all(|run| run.reaped) {
            (self.typed.at, self.typed.check_at) = (None, None);
        }
        if terminal.has_input() {
            self.note_typed();
        }
    }

    /// A run that has ended may have left another group in the foreground.
    pub(super) fn take_terminal_back(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.take_back();
        }
    }

    /// Gives the terminal the modes that it had at the start.
    pub(super) fn restore_terminal(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
    }

    /// Takes the SIGIO that says that something was typed.
    pub(super) fn take_typing(&mut self) {
        if self.terminal.is_some() && !self.signals.take(&[Signal::IO], Sender::Kernel).is_empty() {
            self.note_typed();
        }
    }

    /// A main process has ended. A key that may be the reason comes before its end.
    pub(super) fn take_last_keys(&mut self) {
        self.take_typing();
        if self.terminal.is_some() {
            self.check_foreground();
            for signal in self.signals.take(&Signal::TERMINAL_ENDS, Sender::Kernel) {
                self.dispatch(Event::Pressed(signal));
            }
        }
    }

    fn note_typed(&mut self) {
        self.check_foreground();
        if self.terminal.as_ref().is_some_and(Terminal::is_held) {
            let now = self.clock.now();
            self.typed.at = Some(now);
            self.typed.check_at = (!self.typed.taken).then(|| now.after(LATER));
        }
    }

    pub(super) fn check_foreground(&mut self) {
        self.typed.check_at = None;
        if let Some(terminal) = &mut self.terminal
            && terminal.is_taken()
        {
            self.typed.taken = true;
            // There is no more to learn.
            terminal.watch(false);
        }
    }

    /// Whether a person at the terminal has asked the run to exit that has exited now.
    pub(super) fn was_asked_to_exit(&self) -> bool {
        let is_read = || self.terminal.as_ref().is_some_and(|terminal| !terminal.has_input());
        let soon = |at: Timestamp| self.clock.now().since(at) < SOON;
        self.typed.taken || self.typed.at.is_some_and(soon) && is_read()
    }

    /// The terminal has sent the stop signal. A main process that has left guard's group has not got it.
    pub(super) fn stop_unreached(&mut self, id: RunId, signal: Signal) {
        let reaches = |pid: Pid| self.terminal.as_ref().is_some_and(|terminal| terminal.reaches(pid, signal));
        if self.children.main(id).is_some_and(|pid| !reaches(pid)) {
            of_run!(self.journal, Level::Info, id, signal:%; "stop-signal");
            self.signal(id, signal);
            self.signal(id, Signal::CONT);
        }
    }

    pub(super) fn is_in_shared_group(&self, pid: Pid) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| terminal.is_member(pid))
    }

    /// Sends a signal to the processes of a run, besides its main process, that are in the group that it shares with guard.
    pub(super) fn signal_members(&mut self, id: RunId, signal: Signal) {
        let Some(group) = self.children.shared_group else { return };
        let Some(found) = self.find_leftovers(id) else { return };
        for process in found.living.iter().filter(|process| process.group == group) {
            let _ = signals::send(process.pid, signal);
        }
    }

    /// Stops guard until somebody continues it.
    pub(super) fn suspend(&mut self) {
        signals::suspend();
        // What came before guard was continued is over.
        self.signals.take(&Signal::TERMINAL_STOPS, Sender::Kernel);
        if let Some(terminal) = &mut self.terminal {
            terminal.refresh();
        }
    }

    /// Continues a run, and whatever else the terminal has stopped with it.
    pub(super) fn thaw(&self, id: RunId) {
        if let Some(group) = self.terminal.as_ref().map(Terminal::group) {
            let _ = signals::send_to_group(group, Signal::CONT);
        }
        self.signal_group(id, Signal::CONT);
    }
}
