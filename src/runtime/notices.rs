//! The core's decisions as lines of the log.

use super::journal::{Journal, of_run};
use crate::config::Readiness;
use crate::config::duration::show;
use crate::report;
use crate::signal::Signal;
use crate::supervisor::{Ending, Failure, InPlace, NEVER, Notice, RunId, ShutdownCause, TimeLimit, UnsentData};
use log::Level;
use log::kv::Value;
use std::time::Duration;

impl Journal<'_> {
    /// A decision of the core's.
    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Restarting { next, ending, count, limit, delay } => {
                let (window, delay) = (report::time(self.config.restart.window), report::time(delay));
                let limit = limit.map_or_else(Value::null, Value::from);
                of_run!(self, Level::Warn, next, last = last(&ending), count, limit, window, delay; "restart");
            }
            Notice::RestartRequested { run, asker } => {
                let level = if self.is_asked { Level::Debug } else { Level::Info };
                of_run!(self, level, run, cause = asker.word(); "restart-in-place");
            }
            Notice::NotForwarded { signal } => self.dropped(signal),
            // The log has its start, and that it is ready.
            Notice::Concluded { request: InPlace::Restart, outcome: Ok(_) } => {}
            Notice::Concluded { request: InPlace::Restart, outcome: Err(why) } => log::warn!(why; "restart-failed"),
            Notice::Concluded { request: InPlace::Reload, outcome: Ok(run) } => {
                let msg = "the new run is ready, and the old one is over";
                of_run!(self, Level::Info, run, msg; "reloaded");
            }
            Notice::Concluded { request: InPlace::Reload, outcome: Err(why) } => log::error!(why; "reload-failed"),
            Notice::Scaling { from, to } => log::info!(from, to, msg = "number of instances"; "scale"),
            Notice::Scaled(Ok(instances)) => log::info!(instances; "scaled"),
            Notice::Scaled(Err(why)) => log::error!(why; "scale-failed"),
            Notice::Ready { run } => of_run!(self, Level::Info, run; "ready"),
            Notice::Failing { run, failure } => {
                let msg = self.why_failing(run, failure);
                of_run!(self, Level::Error, run, cause:% = failure.word(), msg:%; "failing");
            }
            Notice::CheckFailed { run, count, limit } => {
                of_run!(self, Level::Warn, run, count, limit, error:% = self.check(run); "check-failed");
            }
            Notice::Recovered { run } => of_run!(self, Level::Info, run; "check-passed"),
            Notice::Stopping { run } => {
                of_run!(self, Level::Info, run, msg = "the app says that it stops"; "stopping")
            }
            Notice::Ignored { what, why } => log::info!(what, why; "ignored"),
            Notice::ReloadQueued => {
                log::info!(what = "reload", msg = "one is under way; another follows"; "queued");
            }
            Notice::Reloading { old, new, asker } => {
                log::info!(instance = self.instance(new), old = old.number, new = new.number, cause = asker.word(); "reload");
            }
            Notice::Draining { cause, delay } => self.draining(cause, delay),
            Notice::ShutdownUndelivered { run, signal } => {
                of_run!(self, Level::Info, run, signal:%, msg = "Node's channel is closed or full"; "stop-signal");
            }
            Notice::ShutdownIgnored { run, signal } => {
                let msg = "the app does not obey Node's channel, or npm start keeps it from the app";
                of_run!(self, Level::Warn, run, signal:%, msg; "stop-signal");
            }
            Notice::StopSignal { run, signal } => {
                of_run!(self, Level::Info, run, signal:%; "stop-signal")
            }
            Notice::StoppedAtTerminal { run, ending } => {
                of_run!(self, Level::Info, run, last = last(&ending); "stopped-at-terminal");
            }
            Notice::StoppedByQuit { run, ending } => {
                let msg = "it ended after a SIGQUIT that guard forwarded, so it counts as stopped; \
                           with GUARD_STOP_SIGNAL=QUIT it begins a stop, with drain and deadline";
                of_run!(self, Level::Warn, run, last = last(&ending), msg; "stopped-by-quit");
            }
            Notice::Background { run } => {
                let msg = "the main process exited 0 and left others running: it has probably gone to the background; \
                           start it in the foreground (nginx -g 'daemon off;', httpd -DFOREGROUND, redis --daemonize no)";
                of_run!(self, Level::Warn, run, msg; "background");
            }
            Notice::KillRun { run, limit } => {
                let limit = match (limit, self.config.stop.timeout) {
                    (TimeLimit::Abort(time), _) => format!("{} after SIGABRT", show(time)),
                    (TimeLimit::Failure(time), _) => {
                        format!("after {}, which is all that a failed run has", show(time))
                    }
                    (TimeLimit::StopTimeout, _) => format!("after {}", self.limit()),
                };
                of_run!(self, Level::Error, run, msg:% = format!("still running {limit}: SIGKILL"); "kill");
            }
            Notice::KillLeftovers { run } => {
                of_run!(self, Level::Warn, run, msg = "leftovers still run: SIGKILL"; "kill")
            }
            Notice::KillUnmarked => log::warn!(msg = "daemons of no run still run: SIGKILL"; "kill"),
            Notice::Unkillable { run } => {
                of_run!(self, Level::Error, run, msg = "SIGKILL does not end it; the next run follows when it has ended"; "unkillable");
            }
            Notice::Abandoned { run, count } => {
                of_run!(self, Level::Error, run, count, msg = "SIGKILL does not end them; going on without"; "unkillable");
            }
            Notice::KillHook => log::warn!(msg = "pre-stop hook still runs at half the stop timeout: SIGKILL"; "kill"),
            Notice::KillEverything { reason } => {
                let Some(why) = self.why_killed(reason) else { return };
                let (count, names) = std::mem::take(&mut self.killed);
                self.cause = Some(format!("killed after {why} {names}").trim_end().to_owned());
                let msg = format!("still running after {why}: SIGKILL");
                if count > 0 {
                    log::error!(count, processes:% = names, msg:%; "kill");
                } else {
                    // There was no time for a walk of /proc.
                    log::error!(msg:%; "kill");
                }
            }
            Notice::Over { code } => self.over(code),
            Notice::StillConnected { connections } => {
                let msg = format!("still open after GUARD_DRAIN_IDLE={}", show(self.config.stop.drain_idle));
                log::warn!(connections, msg:%; "connections-left");
            }
            Notice::Lingering { unsent: UnsentData { connections, bytes } } => log::info!(
                connections, bytes, msg = "closed by the app, and still sending: waiting for them";
                "lingering"
            ),
            Notice::Unsent { unsent: UnsentData { connections, bytes } } => log::warn!(
                connections, bytes,
                msg = "closed by the app, not taken by the other side: lost with the container's network";
                "unsent"
            ),
            Notice::GiveUp { run, ending, limit, within } => {
                let restarts = if limit == 1 { "restart" } else { "restarts" };
                self.cause = Some(format!("gave up after {limit} {restarts} in {}", show(within)));
                let window = self.config.restart.window;
                of_run!(self, Level::Error, run, last = last(&ending), count = limit, limit, window = report::time(window); "give-up");
            }
            Notice::NotRestarted { run, ending, why } => {
                // Its first line said so, perhaps days ago.
                let default = self.config.why_never().filter(|_| why == NEVER);
                let why = default.map_or(why.to_owned(), |default| format!("{why} by default, {default}"));
                of_run!(self, Level::Info, run, last = last(&ending), why:%; "not-restarted");
            }
        }
    }

    /// guard's end begins.
    fn draining(&mut self, cause: ShutdownCause, delay: Duration) {
        let (delay, stop_timeout) = (report::time(delay), self.stop_timeout());
        let (signal, msg) = match cause {
            ShutdownCause::Signal(signal) => (signal, None),
            ShutdownCause::Pressed(signal @ Signal::HUP) => (signal, Some("the terminal is gone")),
            ShutdownCause::Pressed(signal @ Signal::WINCH) => (signal, Some("the terminal has another size")),
            ShutdownCause::Pressed(signal) => (signal, Some("a key at the terminal; a second Ctrl-C kills the app")),
            ShutdownCause::Request => {
                // Of an operator's request the journal knows already.
                self.cause.get_or_insert_with(|| "a file has changed".to_owned());
                return log::info!(delay, stop_timeout; "drain");
            }
            ShutdownCause::AppLeft | ShutdownCause::Finished { .. } => {
                return log::info!(delay, stop_timeout; "drain");
            }
        };
        self.cause = Some(format!("stopped by {signal}"));
        log::info!(signal:%, delay, stop_timeout, msg; "drain");
    }

    /// Why guard ends a run, and what set the limit.
    fn why_failing(&self, run: RunId, failure: Failure) -> String {
        let config = self.config;
        match failure {
            Failure::NotReady => {
                let (colon, why) = match config.ready.when {
                    Readiness::Exec => ("", ""),
                    Readiness::Listen => {
                        (": ", "the app does not listen on a TCP or unix socket, as far as guard may see")
                    }
                    Readiness::Notify => (": ", self.silence.as_str()),
                    Readiness::Health if self.check(run).is_empty() => ("", ""),
                    Readiness::Health => ("; the last check: ", self.check(run)),
                };
                format!("not ready within GUARD_READY_TIMEOUT={}{colon}{why}", show(config.ready.timeout))
            }
            Failure::Watchdog => "no WATCHDOG=1 in time, or WATCHDOG=trigger: SIGABRT".to_owned(),
            Failure::Memory => "more than GUARD_MAX_MEMORY before it was stable".to_owned(),
            Failure::Health => format!("health checks failed in a row: {}", config.health.retries),
        }
    }
}

/// How the last run ended, as GUARD_LAST_EXIT says it; a code is a number.
fn last(ending: &Ending) -> Value<'_> {
    if let Ending::Exited(code) = ending { Value::from(*code) } else { Value::from_display(ending) }
}
