//! The line of a main process that has ended, and what the termination log says of it.

use super::journal::Journal;
use crate::config::duration::show;
use crate::report;
use crate::signal::Signal;
use crate::supervisor::{Ending, RunId};
use crate::sys::Pid;
use crate::sys::process::{Status, Usage};
use log::Level;
use log::kv::Value;
use std::time::Duration;

/// The end of a main process.
pub(super) struct Exit<'a> {
    pub(super) run: RunId,
    pub(super) pid: Pid,
    /// As the kernel reports it.
    pub(super) status: Status,
    pub(super) usage: Usage,
    /// As the core gets it.
    pub(super) ending: Ending,
    /// Why guard or an operator has ended the run; `None` where neither has.
    pub(super) why: Option<&'static str>,
    /// Its end is part of a restart, a reload or a scale.
    pub(super) is_replaced: bool,
    /// It has got SIGKILL from guard, since its time was over.
    pub(super) is_killed: bool,
    /// The last signal that guard has passed on to it.
    pub(super) passed_on: Option<Signal>,
    pub(super) uptime: Duration,
    /// Its last STATUS (`sd_notify(3)`).
    pub(super) says: &'a str,
}

impl Journal<'_> {
    /// The main process of a run was reaped.
    pub(super) fn exit(&mut self, exit: &Exit) {
        let Exit { pid, status, usage, ending, why, .. } = *exit;
        let expected = ending.is_success(&self.config.restart.success_codes);
        let planned = self.cause.is_some() || exit.is_replaced && !exit.is_killed;
        let level = if expected || planned { Level::Info } else { Level::Warn };
        let (instance, run) = (self.instance(exit.run), exit.run.number);
        let says = report::shorten(exit.says.to_owned());
        let (code, signal) = match status {
            Status::Exited(code) => (Value::from(code), None),
            Status::Signaled(signal) => (Value::null(), Some(signal.to_string())),
        };
        let [signal, cause, core, killed, status] = [
            signal.as_deref(),
            if ending == Ending::OutOfMemory { Some("oom") } else { why },
            usage.dumped.then_some("written"),
            exit.is_killed.then_some("deadline"),
            Some(says.as_str()).filter(|says| !says.is_empty()),
        ]
        .map(|word| word.map_or_else(Value::null, Value::from));
        let msg = exit.hint().filter(|_| self.cause.is_none());
        let (uptime, max_rss) = (report::time(exit.uptime), report::size(exit.peak_memory()));
        let [cpu_user, cpu_sys] = [usage.user, usage.system].map(report::time);
        log::log!(
            level, instance, run, pid, code, signal, cause, core, killed, uptime, max_rss, cpu_user, cpu_sys, status, msg;
            "exit"
        );
        let record = self.of_instance(exit.run);
        record.last = exit.sentence(&says);
        record.last_run.clone_from(&record.last);
        if ending != Ending::Exited(0) {
            // Early, since an OOM kill of the whole container leaves no time for a last word.
            self.write_down(&self.reason());
        }
    }
}

impl Exit<'_> {
    /// In bytes.
    fn peak_memory(&self) -> u64 {
        self.usage.max_rss.saturating_mul(1024)
    }

    /// What may help where it died of a signal that was not meant to end it.
    fn hint(&self) -> Option<String> {
        let signal = self.passed_on.filter(|signal| self.status == Status::Signaled(*signal))?;
        // A run that a QUIT has stopped has a line of its own.
        let is_hinted = self.why.is_none() && ![Signal::QUIT, Signal::KILL].contains(&signal);
        is_hinted.then(|| format!("guard has passed {signal} on; GUARD_STOP_SIGNAL={signal} makes it a stop request"))
    }

    fn sentence(&self, says: &str) -> String {
        let reason = self.why.map_or_else(String::new, |why| format!(" ({why})"));
        let at_the_deadline = if self.is_killed { ", killed at the deadline" } else { "" };
        let said = if says.is_empty() { String::new() } else { format!(", status \"{says}\"") };
        format!(
            "run {} {} after {}{reason}{at_the_deadline}, peak memory {}, CPU {}{said}",
            self.run.number,
            predicate(self.ending),
            show(self.uptime),
            report::mebibytes(self.peak_memory()),
            show(self.usage.user + self.usage.system),
        )
    }
}

/// What a sentence says of a run that ended like this.
fn predicate(ending: Ending) -> String {
    match ending {
        Ending::Exited(code) => format!("exited with code {code}"),
        Ending::Signaled(signal) => format!("died of {signal}"),
        Ending::Dumped(signal) => format!("died of {signal} (core dumped)"),
        Ending::Replaced(asker, code) => format!("was replaced ({}) with code {code}", asker.word()),
        Ending::Killed => "was killed at the deadline".to_owned(),
        Ending::OutOfMemory => "was killed for lack of memory".to_owned(),
        Ending::NotSpawned(error) => format!("could not be started (code {})", error.code),
        Ending::Failed(failure, code) => format!("failed ({}) with code {code}", failure.word()),
    }
}
