//! Values that are valid, and may not do what was meant. Each has its way out.

use super::duration::show;
use super::settings::{Config, Origin, Warning, WarningKind};

impl Config {
    /// What the values of this configuration leave in doubt.
    pub(super) fn doubts(&self) -> Vec<Warning> {
        let mut doubts = Vec::new();
        let mut add = |kind, variable: &str, text| doubts.push(Warning { kind, variable: variable.to_owned(), text });
        let platform = self.platform;
        let chosen = self.origin("GUARD_STOP_TIMEOUT") != Origin::Default;
        if let Some(timeout) = self.stop.timeout.filter(|timeout| chosen && *timeout > platform.own_timeout) {
            let text = format!(
                "GUARD_STOP_TIMEOUT={}: longer than the {} of {}, unless the platform's own stop timeout was raised too",
                show(timeout),
                show(platform.own_timeout),
                platform.name,
            );
            add(WarningKind::Note, "GUARD_STOP_TIMEOUT", text);
        }
        doubts
    }
}
