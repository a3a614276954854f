//! Facts and decisions as lines of the log, and the last of them as the termination log's word.

use super::leftovers;
use crate::config::Config;
use crate::config::duration::show;
use crate::report::{self, LastWord};
use crate::signal::Signal;
use crate::supervisor::{KillReason, RunId};
use crate::sys::errno::reason;
use crate::sys::process::Status;
use crate::sys::procfs::Process;
use crate::sys::signal_set::SignalSet;
use crate::sys::{Errno, Pid};
use log::kv::{self, Source, Value, VisitSource};
use log::{Level, Record};
use std::path::Path;

/// The lines of the log, and the termination log. Its owner calls [`Journal::start`] first, then a method for each fact and each
/// notice, and [`Journal::end`] last.
pub(super) struct Journal<'a> {
    pub(super) config: &'a Config,
    last_word: LastWord,
    /// A word could not be written there.
    unwritten: bool,
    /// Why guard ends, where that is more than how the last run ended.
    pub(super) cause: Option<String>,
    /// How many instances there are.
    pub(super) instances: u32,
    /// What is known of each instance that has had a run, by its number.
    of_instances: Vec<(u32, InstanceRecord)>,
    /// What the last SIGKILL has ended, as far as it was seen: how many, and the names of some.
    pub(super) killed: (usize, String),
    /// Why a run may have said nothing, for the line that it is not ready.
    pub(super) silence: String,
    /// A client's request is being done, and has a line of its own.
    pub(super) is_asked: bool,
    /// The pre-stop hook got a signal from guard.
    pub(super) hook_signalled: bool,
    /// Signals that came while no run lived, since the last start.
    dropped: SignalSet,
}

/// What the journal remembers of an instance.
#[derive(Default)]
pub(super) struct InstanceRecord {
    /// How the last run ended; empty while none has since the last start.
    pub(super) last: String,
    /// How the last run that had a process ended.
    pub(super) last_run: String,
    /// Why the last health check failed.
    pub(super) check: String,
}

/// Writes one line about a run, with its instance where there are several. The pairs and the event are as in the macros of `log`:
/// `of_run!(journal, Level::Warn, run, count, signal:%, msg = "why"; "event")`. Each of those would make its whole record in place.
macro_rules! of_run {
    ($journal:expr, $level:expr, $run:expr $(, $key:ident $(: $shown:tt)? $(= $value:expr)?)*; $event:expr) => {
        $journal.of_run($level, $run, $event, &[$((stringify!($key), of_run!(@$key $(: $shown)? $(= $value)?))),*])
    };
    (@$key:ident) => { log::kv::Value::from($key) };
    (@$key:ident = $value:expr) => { log::kv::Value::from($value) };
    (@$key:ident: %) => { log::kv::Value::from_display(&$key) };
    (@$key:ident: % = $value:expr) => { log::kv::Value::from_display(&$value) };
}
pub(super) use of_run;

/// What a line about a run says: which run, and the rest.
struct OfRun<'a> {
    head: [(&'static str, Value<'a>); 2],
    pairs: &'a [(&'a str, Value<'a>)],
}

impl Source for OfRun<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        self.head.visit(visitor)?;
        self.pairs.visit(visitor)
    }
}

impl<'a> Journal<'a> {
    pub(super) fn new(config: &'a Config, instances: u32) -> Journal<'a> {
        Journal {
            config,
            last_word: LastWord::none(),
            unwritten: false,
            cause: None,
            instances,
            of_instances: Vec::new(),
            killed: (0, String::new()),
            silence: String::new(),
            is_asked: false,
            hook_signalled: false,
            dropped: SignalSet::EMPTY,
        }
    }

    /// One line about a run; see the macro of this name.
    pub(super) fn of_run(&self, level: Level, run: RunId, event: &str, pairs: &[(&str, Value)]) {
        if level > log::max_level() {
            return;
        }
        let pairs = OfRun { head: [("instance", self.instance(run)), ("run", run.number.into())], pairs };
        let mut record = Record::builder();
        record.level(level).target(module_path!()).key_values(&pairs);
        log::logger().log(&record.args(format_args!("{event}")).build());
    }

    /// A run's instance, as log lines have it: only where there are several.
    pub(super) fn instance(&self, run: RunId) -> Value<'static> {
        if self.instances > 1 { Value::from(run.instance) } else { Value::null() }
    }

    /// There are so many instances now, with these numbers in order. The termination log says nothing of others.
    pub(super) fn keep_instances(&mut self, count: u32, numbers: &[u32]) {
        self.instances = count;
        self.of_instances.retain(|(number, _)| numbers.binary_search(number).is_ok());
    }

    /// Without it guard runs all the same.
    pub(super) fn open_termination_log(&mut self) {
        let path = self.config.termination_log.as_deref();
        self.last_word = LastWord::open(path).unwrap_or_else(|error| {
            log::warn!(path = path.map(Path::to_string_lossy).as_deref(), error:%; "termination-log");
            LastWord::none()
        });
    }

    pub(super) fn of_instance(&mut self, run: RunId) -> &mut InstanceRecord {
        let known = self.of_instances.iter().position(|(number, _)| *number == run.instance);
        let index = known.unwrap_or_else(|| {
            self.of_instances.push((run.instance, InstanceRecord::default()));
            self.of_instances.len() - 1
        });
        &mut self.of_instances[index].1
    }

    /// Why the last health check of the run's instance failed; empty if none has since the last that passed.
    pub(super) fn check(&self, run: RunId) -> &str {
        self.of_instances.iter().find(|(number, _)| *number == run.instance).map_or("", |(_, record)| &record.check)
    }

    /// How the last run of an instance that had a process ended, in a sentence; empty if there was none.
    pub(super) fn last_run(&self, number: u32) -> &str {
        let record = self.of_instances.iter().find(|(known, _)| *known == number);
        record.map_or("", |(_, record)| &record.last_run)
    }

    /// A health check has passed.
    pub(super) fn check_passed(&mut self, run: RunId) {
        self.of_instance(run).check.clear();
    }

    /// The stop timeout as a value of the log, which says nothing where there is none.
    pub(super) fn stop_timeout(&self) -> Value<'static> {
        self.config.stop.timeout.map_or_else(Value::null, report::time)
    }

    /// The main process of a run has begun.
    pub(super) fn spawned(&mut self, run: RunId, pid: Pid) {
        let record = self.of_instance(run);
        record.last.clear();
        record.check.clear();
        self.dropped = SignalSet::EMPTY;
        of_run!(self, Level::Info, run, pid; "spawn");
    }

    /// No run lives that could take this signal. The log says so once for each signal, since it may come again and again.
    pub(super) fn dropped(&mut self, signal: Signal) {
        // SIGCONT was for guard itself.
        if signal != Signal::CONT && !self.dropped.contains(signal) {
            self.dropped = self.dropped.with(signal);
            log::info!(signal:%, msg = "no run lives that could take it"; "signal-dropped");
        }
    }

    /// A signal was sent to a run or to a leftover of one. That it has ended already (ESRCH) is normal.
    pub(super) fn signalled(&self, run: RunId, signal: Signal, result: Result<(), Errno>) {
        match result {
            Ok(()) | Err(Errno::ESRCH) => {
                of_run!(self, Level::Debug, run, signal:%; "signal")
            }
            Err(errno) => {
                of_run!(self, Level::Warn, run, signal:%, error = reason(errno); "signal-refused")
            }
        }
    }

    /// Leftovers have got a signal. Many programs leave some at every end, as a worker that ends when its master's pipe does.
    pub(super) fn swept(&self, run: RunId, signal: Signal, processes: &[Process]) {
        let level = if signal == Signal::KILL { Level::Warn } else { Level::Info };
        if !processes.is_empty() && log::log_enabled!(level) {
            let (count, names) = (processes.len(), leftovers::names(processes));
            of_run!(self, level, run, count, processes:% = names, signal:%; "leftovers");
        }
    }

    /// Daemons that belong to no run have got SIGTERM, since guard ends.
    pub(super) fn unmarked_terminated(&self, processes: &[Process]) {
        if !processes.is_empty() && log::log_enabled!(Level::Info) {
            let (count, names) = (processes.len(), leftovers::names(processes));
            log::info!(count, processes:% = names, signal:% = Signal::TERM, msg = "daemons of no run"; "leftovers");
        }
    }

    /// Leftovers have got the stop signal with their group, and get time alone.
    pub(super) fn leftovers_spared(&self, run: RunId, processes: &[Process]) {
        if !processes.is_empty() && log::log_enabled!(Level::Info) {
            let (count, names) = (processes.len(), leftovers::names(processes));
            let msg = "they have got the stop signal, and still run";
            of_run!(self, Level::Info, run, count, processes:% = names, msg; "leftovers");
        }
    }

    pub(super) fn hook_ended(&self, status: Status) {
        match status {
            Status::Exited(0) => log::info!(code = 0; "pre-stop-ended"),
            Status::Signaled(signal) if self.hook_signalled => {
                log::info!(signal:%, msg = "by guard: no run waits for it, or its time is over"; "pre-stop-ended")
            }
            Status::Exited(code) => log::warn!(code, msg = "failed; the stop goes on"; "pre-stop-ended"),
            Status::Signaled(signal) => log::warn!(signal:%, msg = "failed; the stop goes on"; "pre-stop-ended"),
        }
    }

    pub(super) fn diagnosis_ended(&self, run: RunId, status: Status) {
        let how = match status {
            Status::Exited(code) => format!("exited with code {code}"),
            Status::Signaled(signal) => format!("died of {signal}"),
        };
        of_run!(self, Level::Info, run, msg:% = how; "diagnose-ended");
    }

    /// A health check was reaped, and has not passed. Whether that counts is the core's to say.
    pub(super) fn check_failed(&mut self, run: RunId, status: Status, killed: bool, said: String) {
        let check = match status {
            _ if killed => {
                format!("took longer than GUARD_HEALTH_TIMEOUT={}{}", show(self.config.health.timeout), quoted(&said))
            }
            // guard's own probe says all there is.
            Status::Exited(_) if !said.is_empty() && self.config.is_probed() => said,
            Status::Exited(code) => format!("exited with code {code}{}", quoted(&said)),
            Status::Signaled(signal) => format!("died of {signal}{}", quoted(&said)),
        };
        of_run!(self, Level::Debug, run, error:% = check; "check");
        self.of_instance(run).check = check;
    }

    /// The last word of the termination log. It is there before guard waits for connections, since the orchestrator may not wait.
    pub(super) fn over(&mut self, code: u8) {
        self.write_down(&format!("exit code {code}: {}", self.reason()));
    }

    /// Writes this to the termination log. The log has the first error only; a later write may find room again.
    pub(super) fn write_down(&mut self, text: &str) {
        if let Err(error) = self.last_word.say(text)
            && !std::mem::replace(&mut self.unwritten, true)
        {
            log::warn!(error:%; "termination-log");
        }
    }

    /// The last line.
    pub(super) fn end(&self, code: u8) {
        log::info!(code, reason:% = self.reason(); "end");
    }

    /// Why guard ends, and how the last run of each instance ended.
    pub(super) fn reason(&self) -> String {
        let nothing = self.of_instances.is_empty().then(|| "nothing was started".to_owned());
        let ended = self.of_instances.iter().filter(|(_, record)| !record.last.is_empty());
        let last = ended.map(|(number, InstanceRecord { last, .. })| match self.instances {
            ..=1 => last.clone(),
            2.. => format!("instance {number}: {last}"),
        });
        let parts: Vec<String> = self.cause.clone().into_iter().chain(nothing).chain(last).collect();
        parts.join("; ")
    }

    /// SIGKILL is about to go to everything, for this reason.
    pub(super) fn note_kill(&mut self, reason: KillReason) {
        if let Some(why) = self.why_killed(reason) {
            self.cause = Some(format!("killed after {why}"));
        }
    }

    /// What everything is killed after; `None` where every run has ended in time.
    pub(super) fn why_killed(&self, reason: KillReason) -> Option<String> {
        match reason {
            KillReason::AllEnded => None,
            KillReason::StopTimeout => Some(self.limit()),
            KillReason::Interrupted => Some("a second SIGINT".to_owned()),
        }
    }
}

/// What follows a colon, if there is something.
fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::spawn::SpawnFailure;

    fn config() -> Config {
        Config::of_line("-- app")
    }

    fn of(instance: u32, number: u32) -> RunId {
        RunId { instance, number }
    }

    #[test]
    fn the_instance_is_told_where_there_are_several() {
        let config = config();
        let told = |instances| Journal::new(&config, instances).instance(of(1, 3)).to_u64();
        assert_eq!((told(1), told(2)), (None, Some(1)));
    }

    #[test]
    fn what_is_known_of_one_instance_is_not_said_of_another() {
        let config = config();
        let mut journal = Journal::new(&config, 2);
        assert_eq!(journal.reason(), "nothing was started");
        journal.check_failed(of(0, 1), Status::Exited(1), false, "no answer".to_owned());
        assert_eq!((journal.check(of(0, 1)), journal.check(of(1, 1))), ("exited with code 1: no answer", ""));
        journal.check_passed(of(1, 1));
        journal.spawn_failed(of(1, 1), SpawnFailure::Execute(Errno::ENOENT), Some("no such file".to_owned()));
        journal.spawn_failed(of(0, 1), SpawnFailure::Architecture, None);
        let zero = "instance 0: app: built for another architecture (ENOEXEC)";
        assert_eq!(journal.reason(), format!("{zero}; instance 1: app: no such file (ENOENT)"));
        assert_eq!(journal.check(of(0, 1)), "exited with code 1: no answer");
        journal.spawned(of(1, 2), 11);
        assert_eq!(journal.reason(), zero);
        journal.spawned(of(0, 2), 12);
        assert_eq!((journal.reason().as_str(), journal.check(of(0, 2))), ("", ""));
    }
}
