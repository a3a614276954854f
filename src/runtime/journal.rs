//! Facts and decisions as lines of the log, and the last of them as the termination log's word.

use super::leftovers;
use crate::config::duration::{show, show_seconds};
use crate::config::signal::Signal;
use crate::config::{Config, Origin};
use crate::report::LastWord;
use crate::supervisor::{CANNOT_EXECUTE, Ending, NOT_FOUND, Notice, OWN_ERROR, RunId, SpawnError};
use crate::sys::process::{self, Status, Usage};
use crate::sys::procfs::{self, Process};
use crate::sys::spawn::SpawnFailure;
use crate::sys::{Errno, Pid};
use log::Level;
use std::path::Path;
use std::time::Duration;

pub(super) struct Journal<'a> {
    config: &'a Config,
    last_word: LastWord,
    /// Why guard ends, where that is more than how the last run ended.
    cause: Option<String>,
    /// What ended last.
    last: String,
}

impl<'a> Journal<'a> {
    /// Opens the termination log.
    pub(super) fn new(config: &'a Config) -> Journal<'a> {
        let last_word = LastWord::open(config.termination_log.as_deref()).unwrap_or_else(|error| {
            log::warn!(error:% = error; "termination-log");
            LastWord::none()
        });
        Journal { config, last_word, cause: None, last: "nothing was started".to_owned() }
    }

    /// The first line, and the warnings that belong to it.
    pub(super) fn start(&self) {
        let config = self.config;
        let command: Vec<_> = config.command.iter().map(|word| word.to_string_lossy()).collect();
        log::info!(
            version = env!("CARGO_PKG_VERSION"),
            pid = process::id(),
            app:% = command.join(" "),
            stop_timeout:% = self.stop_timeout(),
            msg:% = format!("stop timeout: {}", self.stop_timeout_source());
            "start"
        );
        for unknown in &config.warnings {
            log::warn!(
                variable:% = unknown.name,
                msg:% = format!("no such variable; the nearest is {}", unknown.nearest);
                "unknown-variable"
            );
        }
        let parent = Some(process::parent()).filter(|&parent| parent == 1).and_then(procfs::process);
        let above = parent.filter(|init| procfs::is_shell(&init.name));
        if let Some(shell) = above {
            let name = shell.name;
            let msg =
                format!("the parent is {name} as PID 1, where signals end: start guard by exec, or as the entrypoint");
            log::warn!(msg:%; "shell-above");
        }
    }

    fn stop_timeout(&self) -> String {
        self.config.stop.timeout.map_or("none".to_owned(), show)
    }

    fn stop_timeout_source(&self) -> String {
        let platform = self.config.platform;
        match self.config.origin("GUARD_STOP_TIMEOUT") {
            Origin::Flag => "set by --stop-timeout".to_owned(),
            Origin::Environment => "set by GUARD_STOP_TIMEOUT".to_owned(),
            Origin::Default => {
                format!("the default for {}, whose own is {}", platform.name, show(platform.own_timeout))
            }
        }
    }

    /// The main process of a run was reaped.
    pub(super) fn exit(&mut self, run: RunId, pid: Pid, ending: Ending, uptime: Duration, usage: &Usage) {
        let expected = ending == Ending::Exited(0) || ending.is_in(&self.config.restart.success_codes);
        let level = if expected || self.cause.is_some() { Level::Info } else { Level::Warn };
        let run = run.number;
        let uptime = format!("{}s", show_seconds(uptime));
        let max_rss = format!("{}.{}M", usage.max_rss / 1024, usage.max_rss % 1024 * 10 / 1024);
        let (user, system) = (format!("{}s", show_seconds(usage.user)), format!("{}s", show_seconds(usage.system)));
        match ending {
            Ending::Exited(code) | Ending::NotSpawned(SpawnError { code, .. }) => log::log!(
                level, run, pid, code, uptime:%, max_rss:%, cpu_user:% = user, cpu_sys:% = system; "exit"
            ),
            Ending::Signaled(signal) => log::log!(
                level, run, pid, signal:%, uptime:%, max_rss:%, cpu_user:% = user, cpu_sys:% = system; "exit"
            ),
            Ending::OutOfMemory => log::log!(
                level, run, pid, signal:% = Signal::KILL, cause = "oom", uptime:%, max_rss:%, cpu_user:% = user,
                cpu_sys:% = system; "exit"
            ),
        }
        self.last = format!("run {run} {} after {uptime}", told(ending));
        if ending != Ending::Exited(0) {
            // Early, since an OOM kill of the whole container leaves no time for a last word.
            self.last_word.say(&self.reason());
        }
    }

    /// There is no process; returns what that means to the core.
    pub(super) fn spawn_failed(&mut self, run: RunId, failure: SpawnFailure, found: Option<&Path>) -> SpawnError {
        let (errno, code, problem) = self.explain(failure, found);
        let transient =
            [Errno::ETXTBSY, Errno::EIO, Errno::ESTALE, Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE]
                .contains(&errno);
        let command = self.config.command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        self.last = format!("{command}: {problem}");
        log::error!(run = run.number, command:%, code, error:% = problem; "spawn-failed");
        self.last_word.say(&self.reason());
        SpawnError { code, transient }
    }

    fn explain(&self, failure: SpawnFailure, found: Option<&Path>) -> (Errno, u8, String) {
        match failure {
            SpawnFailure::Clone(errno) => (
                errno,
                CANNOT_EXECUTE,
                format!("no new process ({}): is a limit of processes or memory reached?", errno.desc()),
            ),
            SpawnFailure::Directory(errno) => {
                let directory = self.config.chdir.as_deref().unwrap_or(Path::new(".")).display();
                (errno, OWN_ERROR, format!("GUARD_CHDIR={directory}: {}", errno.desc()))
            }
            SpawnFailure::Architecture => (Errno::ENOEXEC, CANNOT_EXECUTE, "built for another architecture".to_owned()),
            SpawnFailure::Shell(errno) => {
                let problem = format!("neither a binary nor a script with #!, and /bin/sh: {}", errno.desc());
                (errno, CANNOT_EXECUTE, problem)
            }
            SpawnFailure::Execute(errno @ (Errno::ENOENT | Errno::ENOTDIR)) => match found {
                Some(path) => {
                    let problem =
                        format!("{} is there, but not the interpreter or loader that it names", path.display());
                    (errno, NOT_FOUND, problem)
                }
                None => (errno, NOT_FOUND, "no such file".to_owned()),
            },
            SpawnFailure::Execute(errno) => (errno, CANNOT_EXECUTE, errno.desc().to_owned()),
        }
    }

    /// A signal was sent to a run or to a leftover of one. That it is gone already (ESRCH) is normal.
    pub(super) fn signalled(&self, run: RunId, signal: Signal, result: Result<(), Errno>) {
        match result {
            Ok(()) | Err(Errno::ESRCH) => log::debug!(run = run.number, signal:%; "signal"),
            Err(errno) => log::warn!(run = run.number, signal:%, error = errno.desc(); "signal-refused"),
        }
    }

    /// Leftovers are about to get a signal.
    pub(super) fn sweep(&self, run: RunId, signal: Signal, processes: &[Process]) {
        let (run, count, names) = (run.number, processes.len(), leftovers::names(processes));
        log::warn!(run, count, processes:% = names, signal:%; "leftovers");
    }

    pub(super) fn hook_ended(&self, status: Status) {
        match status {
            Status::Exited(0) => log::info!(code = 0; "pre-stop-ended"),
            Status::Exited(code) => log::warn!(code, msg = "failed; the stop goes on"; "pre-stop-ended"),
            Status::Signaled(signal) => log::warn!(signal:%, msg = "failed; the stop goes on"; "pre-stop-ended"),
        }
    }

    pub(super) fn hook_failed(&self, failure: SpawnFailure) {
        let (_, _, problem) = self.explain(failure, None);
        let command = self.config.pre_stop.join(" ");
        log::warn!(command:%, error:% = problem, msg = "the stop goes on without"; "pre-stop-failed");
    }

    /// A decision of the core's.
    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Restarting { run, ending, count, limit, delay } => {
                let window = show(self.config.restart.window);
                let limit = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
                let last = ending;
                log::warn!(run = run.number + 1, last:%, count, limit:%, window:%, delay:% = show(delay); "restart");
            }
            Notice::RestartRequested { run } => log::info!(run = run.number, msg = "asked for"; "restart-in-place"),
            Notice::NotForwarded { signal } => {
                log::info!(signal:%, msg = "no run lives that could take it"; "signal-dropped");
            }
            Notice::Ignored { what, why } => log::info!(what, why; "ignored"),
            Notice::Reloading { old, new } => log::info!(old = old.number, new = new.number; "reload"),
            Notice::ReloadFailed { old, new } => {
                log::error!(old = old.number, new = new.number, msg = "the old run stays"; "reload-failed");
            }
            Notice::Draining { signal, delay } => {
                let stop_timeout = self.stop_timeout();
                let delay = show(delay);
                match signal {
                    Some(signal) => {
                        self.cause = Some(format!("stopped by {signal}"));
                        log::info!(signal:%, delay:%, stop_timeout:%; "drain");
                    }
                    None => log::info!(delay:%, stop_timeout:%; "drain"),
                }
            }
            Notice::StopSignal { run, signal } => log::info!(run = run.number, signal:%; "stop-signal"),
            Notice::StoppedAtTerminal { run, ending } => {
                log::info!(run = run.number, last:% = ending; "stopped-at-terminal");
            }
            Notice::Background { run } => log::warn!(
                run = run.number,
                msg = "the main process exited 0 and left others running: it has probably gone to the background; \
                       start it in the foreground (nginx -g 'daemon off;', httpd -DFOREGROUND, redis --daemonize no)";
                "background"
            ),
            Notice::KillRun { run } => {
                let limit = match self.config.stop.timeout {
                    Some(_) => self.limit(),
                    None => format!("{}, since GUARD_STOP_TIMEOUT is none", show(self.config.stop.restart_timeout)),
                };
                log::error!(run = run.number, msg:% = format!("still running after {limit}: SIGKILL"); "kill");
            }
            Notice::KillLeftovers { run } => log::warn!(run = run.number, msg = "leftovers still run: SIGKILL"; "kill"),
            Notice::Unkillable { run } => {
                log::error!(run = run.number, msg = "SIGKILL does not end it; the run goes on"; "unkillable");
            }
            Notice::Abandoned { run, count } => {
                log::error!(run = run.number, count, msg = "SIGKILL does not end them; going on without"; "unkillable");
            }
            Notice::KillHook => log::warn!(msg = "pre-stop hook still runs at half the stop timeout: SIGKILL"; "kill"),
            Notice::KillEverything { interrupted } => {
                let left = leftovers::all().unwrap_or_default();
                let (count, names) = (left.len(), leftovers::names(&left));
                let why = if interrupted { "a second SIGINT".to_owned() } else { self.limit() };
                self.cause = Some(format!("killed after {why} {names}").trim_end().to_owned());
                let msg = format!("still running after {why}: SIGKILL");
                log::error!(count, processes:% = names, msg:%; "kill");
            }
            Notice::GiveUp { run, ending, limit, window } => {
                let window = show(window);
                self.cause = Some(format!("gave up after {limit} restarts in {window}"));
                log::error!(run = run.number, last:% = ending, count = limit, limit, window:%; "give-up");
            }
            Notice::NotRestarted { run, ending, why } => {
                log::info!(run = run.number, last:% = ending, why; "not-restarted");
            }
        }
    }

    /// The stop timeout, and whether anybody chose it.
    fn limit(&self) -> String {
        format!("GUARD_STOP_TIMEOUT={} ({})", self.stop_timeout(), self.stop_timeout_source())
    }

    /// The last line.
    pub(super) fn end(&self, code: u8) {
        self.last_word.say(&format!("exit code {code}: {}", self.reason()));
        log::info!(code, reason:% = self.reason(); "end");
    }

    fn reason(&self) -> String {
        self.cause.iter().chain([&self.last]).map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

fn told(ending: Ending) -> String {
    match ending {
        Ending::Exited(code) => format!("exited with code {code}"),
        Ending::Signaled(signal) => format!("died of {signal}"),
        Ending::OutOfMemory => "was killed for lack of memory".to_owned(),
        Ending::NotSpawned(error) => format!("could not be started (code {})", error.code),
    }
}
