//! Errors of a configuration.

use super::duration;
use super::listen::ListenAddress;
use super::settings::{Config, Origin, Readiness};
use crate::text::printable;
use std::fmt;
use std::path::PathBuf;

/// Every error of a configuration. Shown, each is one line, whatever was given.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    pub errors: Vec<String>,
    /// The termination log, which gets them too, as far as it is known.
    pub termination_log: Option<PathBuf>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.errors.iter().map(|error| printable(error)).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Config {
    /// What is wrong with two values that are each valid and contradict each other, with the names of the two variables. The
    /// first one is wrong.
    pub(super) fn contradictions(&self) -> Vec<([&'static str; 2], String)> {
        let mut errors = Vec::new();
        let (delay, idle) = (self.stop.drain_delay, self.stop.drain_idle);
        let drain = delay.saturating_add(idle);
        if let Some(timeout) = self.stop.timeout.filter(|&timeout| !drain.is_zero() && drain >= timeout) {
            let by_delay = delay >= timeout || idle.is_zero();
            let (name, with) =
                if by_delay { ("GUARD_DRAIN_DELAY", "") } else { ("GUARD_DRAIN_IDLE", " with GUARD_DRAIN_DELAY") };
            let whose = if self.origin("GUARD_STOP_TIMEOUT") == Origin::Default { ", a default" } else { "" };
            let error = format!(
                "leaves the app no time to stop; it takes less{with} than GUARD_STOP_TIMEOUT ({}{whose})",
                duration::show(timeout),
            );
            errors.push(([name, "GUARD_STOP_TIMEOUT"], error));
        }
        let restart = &self.restart;
        // A lower maximum alone simply caps the default.
        let chosen = self.origin("GUARD_BACKOFF_INITIAL") != Origin::Default;
        if chosen && restart.backoff_initial > restart.backoff_max {
            let most = duration::show(restart.backoff_max);
            let error = format!("more than GUARD_BACKOFF_MAX; it takes {most} at most");
            errors.push((["GUARD_BACKOFF_INITIAL", "GUARD_BACKOFF_MAX"], error));
        }
        if self.ready.when == Readiness::Health && self.health_check.is_none() {
            let error = "there is no health check; it takes a GUARD_HEALTH_CHECK beside it";
            errors.push((["GUARD_READY", "GUARD_HEALTH_CHECK"], error.to_owned()));
        }
        if !self.notify && self.watchdog.is_some() {
            let error = "the app has no way to send the WATCHDOG=1 that GUARD_WATCHDOG waits for; it \
                         takes on beside GUARD_WATCHDOG";
            errors.push((["GUARD_NOTIFY", "GUARD_WATCHDOG"], error.to_owned()));
        }
        // A Node app says it over its channel.
        if !self.notify && self.ready.when == Readiness::Notify && !self.node_ipc {
            let error = "the app has no way to say that it is ready; with GUARD_READY=notify it takes on, \
                         or off beside GUARD_NODE_IPC=on";
            errors.push((["GUARD_NOTIFY", "GUARD_READY"], error.to_owned()));
        }
        if let Some(code) = restart.success_codes.common(&restart.no_restart_codes) {
            let error = format!("{code} is in GUARD_SUCCESS_CODES too; it takes failures only");
            errors.push((["GUARD_NO_RESTART_CODES", "GUARD_SUCCESS_CODES"], error));
        }
        let http = self.http.map(ListenAddress::Tcp);
        if let Some(listen) = self.listen.iter().find(|listen| Some(&listen.address) == http.as_ref()) {
            let error = format!("GUARD_HTTP has this port ({}); each takes its own", listen.address);
            errors.push((["GUARD_LISTEN", "GUARD_HTTP"], error));
        }
        errors
    }

    /// Errors of variables that GUARD_ENV_FILES names and that are set themselves, too.
    pub(super) fn ambiguous_variables(&self) -> impl Iterator<Item = String> {
        let is_twice = |name: &&String| self.set_variable_of_the_app(name).is_some() && self.file_of(name).is_some();
        self.env_files
            .iter()
            .filter(is_twice)
            .map(|name| format!("GUARD_ENV_FILES={name}: {name} and {name}_FILE are both set; it takes one of them"))
    }
}
