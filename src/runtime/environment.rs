//! The environment that the app and the hooks get.

use crate::config::{Config, duration};
use crate::supervisor::{Ending, RunId};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

/// The part that is the same for every run.
pub(super) struct Environment {
    entries: Vec<CString>,
}

impl Environment {
    pub(super) fn new(config: &Config) -> Environment {
        let mut environment = Environment { entries: Vec::new() };
        for (name, value) in &config.environment {
            environment.set(name, value);
        }
        let timeout = config.stop.timeout.map_or("none".to_owned(), duration::show_seconds);
        environment.set("GUARD_STOP_TIMEOUT", timeout);
        environment
    }

    /// For the pre-stop hook, which belongs to no run.
    pub(super) fn for_hook(&self) -> &[CString] {
        &self.entries
    }

    /// For a run: which one it is, and what came before.
    pub(super) fn for_run(&self, run: RunId, restarts: u32, last: Option<Ending>) -> Vec<CString> {
        let mut environment = Environment { entries: self.entries.clone() };
        environment.set("GUARD_RUN", run.number.to_string());
        environment.set("GUARD_INSTANCE", run.instance.to_string());
        environment.set("GUARD_RESTARTS", restarts.to_string());
        if let Some(last) = last {
            environment.set("GUARD_LAST_EXIT", last.to_string());
        }
        environment.entries
    }

    fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        let entry = [name.as_ref().as_bytes(), b"=", value.as_ref().as_bytes()].concat();
        // Neither the environment nor the command line can hold a NUL byte.
        self.entries.extend(CString::new(entry));
    }
}
