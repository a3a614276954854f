//! The environment that the app, its health checks and the hooks get.

use crate::config::{Config, duration};
use crate::signal::Signal;
use crate::supervisor::{Ending, RunId};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::Duration;

/// Variables, each as `NAME=value`.
#[derive(Clone)]
pub(super) struct Environment {
    /// Entries that guard was started with.
    inherited: Rc<Vec<&'static CStr>>,
    /// Entries that guard adds.
    added: Vec<CString>,
}

/// Variables of a manager above guard, which are for guard alone (`sd_notify(3)`, `sd_watchdog_enabled(3)`). guard gives the
/// app variables of the same names.
const OF_MANAGER: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Variables of a Node channel above guard. The app does not get them where guard opens a channel of its own.
const OF_NODE: [&str; 2] = ["NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE"];

impl Environment {
    pub(super) fn new(config: &Config) -> Environment {
        let is_taken = |name: &OsStr| {
            OF_MANAGER.iter().any(|taken| name == *taken)
                || config.node_ipc && OF_NODE.iter().any(|taken| name == *taken)
        };
        let kept = config.environment.iter().filter(|entry| !is_taken(entry.name())).map(|entry| entry.text());
        let mut environment = Environment { inherited: Rc::new(kept.collect()), added: Vec::new() };
        environment.set("GUARD_STOP_TIMEOUT", seconds(config.stop.timeout));
        environment
    }

    /// For the pre-stop hook, which belongs to no run: adds the signal that guard received, and the time until SIGKILL.
    pub(super) fn for_hook(&self, signal: Option<Signal>, left: Option<Duration>) -> Environment {
        let mut environment = self.clone();
        if let Some(signal) = signal {
            environment.set("GUARD_STOP_SIGNAL_RECEIVED", signal.to_string());
        }
        environment.set("GUARD_STOP_TIME_LEFT", seconds(left));
        environment
    }

    /// For a run and its health checks: adds the numbers of the run and its instance, one of `instances`.
    pub(super) fn for_run(&self, run: RunId, instances: usize) -> Environment {
        let mut environment = self.clone();
        environment.set("GUARD_RUN", run.number.to_string());
        environment.set("GUARD_INSTANCE", run.instance.to_string());
        if instances > 1 {
            // Of two entries the first would count.
            let inherited = environment.inherited.iter().copied();
            let is_other = |entry: &&CStr| !entry.to_bytes().starts_with(b"NODE_APP_INSTANCE=");
            if !inherited.clone().all(|entry| is_other(&entry)) {
                environment.inherited = Rc::new(inherited.filter(is_other).collect());
            }
            environment.set("NODE_APP_INSTANCE", run.instance.to_string());
        }
        environment
    }

    /// For the app: adds the number of restarts, and how the last run ended.
    pub(super) fn set_history(&mut self, restarts: u32, last: Option<Ending>) {
        self.set("GUARD_RESTARTS", restarts.to_string());
        if let Some(last) = last {
            self.set("GUARD_LAST_EXIT", last.to_string());
        }
    }

    pub(super) fn entries(&self) -> Vec<&CStr> {
        self.inherited.iter().copied().chain(self.added.iter().map(CString::as_c_str)).collect()
    }

    pub(super) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.added.extend(entry(name.as_ref(), value.as_ref()));
    }
}

/// `None` if name or value holds a NUL byte, which would end the entry.
fn entry(name: &OsStr, value: &OsStr) -> Option<CString> {
    // With room for the NUL at its end.
    let mut entry = Vec::with_capacity(name.len() + value.len() + 2);
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'=');
    entry.extend_from_slice(value.as_bytes());
    CString::new(entry).ok()
}

/// A bare number of seconds, so that no app needs to parse a duration.
fn seconds(duration: Option<Duration>) -> String {
    duration.map_or("none".to_owned(), duration::show_seconds)
}
