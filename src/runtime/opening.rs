//! The first line of the log, and where the values in it come from.

use super::journal::Journal;
use crate::config::duration::show;
use crate::config::{Origin, Warning, WarningKind};
use crate::report;
use crate::shell::is_shell;
use crate::sys::{process, procfs};

impl Journal<'_> {
    /// The first line, and the warnings that belong to it. Opens the termination log.
    pub(super) fn start(&mut self) {
        let config = self.config;
        log::info!(
            version = env!("CARGO_PKG_VERSION"),
            pid = process::id(),
            app:% = config.command_line(),
            stop_timeout = self.stop_timeout(),
            msg:% = format!(
                "stop timeout: {}{}{}",
                self.stop_timeout_source(),
                self.stop_signal_source(),
                self.restart_source()
            );
            "start"
        );
        self.open_termination_log();
        for Warning { kind, variable, text } in config.warnings.iter().chain(&report::surroundings::doubts(config)) {
            match kind {
                WarningKind::UnknownVariable => log::warn!(variable:%, msg:% = text; "unknown-variable"),
                WarningKind::Doubt => log::warn!(variable:%, msg:% = text; "setting"),
                WarningKind::Note => log::info!(variable:%, msg:% = text; "setting"),
            }
        }
        let parent = Some(process::parent()).filter(|&parent| parent == 1).and_then(procfs::name);
        if let Some(name) = parent.filter(|name| is_shell(name)) {
            let msg =
                format!("the parent is {name} as PID 1, where signals end: start guard by exec, or as the entrypoint");
            log::warn!(msg:%; "shell-above");
        }
    }

    fn stop_timeout_source(&self) -> String {
        let platform = self.config.platform;
        match self.config.origin("GUARD_STOP_TIMEOUT") {
            Origin::Flag => "set by --stop-timeout".to_owned(),
            Origin::Environment => "set by GUARD_STOP_TIMEOUT".to_owned(),
            Origin::Default => {
                let seen_by = if platform.seen_by.is_empty() { "" } else { ", seen by " };
                let own = show(platform.own_timeout);
                format!("the default for {}{seen_by}{}, whose own is {own}", platform.name, platform.seen_by)
            }
        }
    }

    /// Which stop signal a platform has chosen that asks with another one; empty elsewhere.
    fn stop_signal_source(&self) -> String {
        let platform = self.config.platform;
        let by_platform = platform.interrupts && self.config.origin("GUARD_STOP_SIGNAL") == Origin::Default;
        match self.config.stop.signal.filter(|_| by_platform) {
            Some(signal) => format!("; stop signal: {signal}, since {} asks with SIGINT", platform.name),
            None => String::new(),
        }
    }

    /// Why GUARD_RESTART is what nobody would expect.
    fn restart_source(&self) -> String {
        self.config.why_never().map_or_else(String::new, |why| format!("; GUARD_RESTART is never by default, {why}"))
    }

    /// The stop timeout, and whether anybody chose it.
    pub(super) fn limit(&self) -> String {
        let by = match self.config.origin("GUARD_STOP_TIMEOUT") {
            Origin::Environment => "as set".to_owned(),
            Origin::Flag | Origin::Default => self.stop_timeout_source(),
        };
        match self.config.stop.timeout {
            Some(timeout) => format!("GUARD_STOP_TIMEOUT={} ({by})", show(timeout)),
            None => format!("{}, since GUARD_STOP_TIMEOUT is none", show(self.config.stop.restart_timeout)),
        }
    }
}
