//! GUARD_DIAGNOSE: the signal or the command that asks a run for a diagnosis.

use super::{Runtime, hooks};
use crate::config::Diagnose;
use crate::signal::Signal;
use crate::supervisor::{Event, RunId};
use crate::sys::Pid;
use crate::sys::process::Status;
use crate::sys::spawn::Output;

impl Runtime<'_> {
    /// Sends the signal, or starts the command as a hook is started. A command that cannot be started has ended.
    pub(super) fn diagnose(&mut self, id: RunId) -> Option<Event> {
        let config = self.config;
        let (main, instance) = (self.children.main(id)?, self.journal.instance(id));
        let how = config.diagnose.as_ref()?;
        log::warn!(instance, run = id.number, by:% = how; "diagnose");
        let words = match how {
            Diagnose::Signal(signal) => {
                self.signal(id, *signal);
                // A stopped process would not see it.
                self.signal(id, Signal::CONT);
                return None;
            }
            Diagnose::Exec(words) => words,
        };
        let mut environment = self.launch.environment.for_run(id, self.supervisor.instance_count());
        environment.set("GUARD_MAIN_PID", main.to_string());
        let program = hooks::program(config, words);
        match self.start_beside(&program, &environment, Output::WithoutStdin) {
            Ok(pid) => {
                self.children.diagnoses.push((id, pid));
                None
            }
            Err(problem) => {
                self.journal.diagnosis_failed(id, &problem);
                Some(Event::Diagnosed(id))
            }
        }
    }

    /// SIGKILL to the command: its time is over, or it has lost its purpose.
    pub(super) fn end_diagnosis(&mut self, id: RunId) {
        if let Some((_, pid)) = self.children.diagnoses.iter().find(|(run, _)| *run == id) {
            self.signal_tree(*pid, Signal::KILL);
        }
    }

    /// The command was reaped.
    pub(super) fn diagnosis_ended(&mut self, id: RunId, pid: Pid, status: Status) -> Event {
        self.children.diagnoses.retain(|(_, known)| *known != pid);
        self.journal.diagnosis_ended(id, status);
        Event::Diagnosed(id)
    }
}
