//! Values that are valid, and may not do what was meant. Each has its way out.

use super::duration::show;
use super::settings::{Config, Origin, Warning, WarningKind};

impl Config {
    /// What the values of this configuration leave in doubt.
    pub(super) fn doubts(&self) -> Vec<Warning> {
        let mut doubts = Vec::new();
        let mut add = |kind, variable: &str, text| doubts.push(Warning { kind, variable: variable.to_owned(), text });
        let platform = self.platform;
        let own = platform.own_timeout;
        if own.is_zero() {
            let setting = platform.setting;
            let text =
                format!("{} sends SIGKILL at once unless {setting} is set: set it, to 30 for instance", platform.name);
            add(WarningKind::Doubt, setting, text);
        }
        let chosen = self.origin("GUARD_STOP_TIMEOUT") != Origin::Default;
        if let Some(timeout) = self.stop.timeout.filter(|timeout| chosen && *timeout > own && !own.is_zero()) {
            let (timeout, own, setting) = (show(timeout), show(own), platform.setting);
            let way_out = if setting.is_empty() {
                "which cannot be raised".to_owned()
            } else {
                format!("unless {setting} is longer still")
            };
            let text = format!("GUARD_STOP_TIMEOUT={timeout}: longer than the {own} of {}, {way_out}", platform.name);
            add(WarningKind::Note, "GUARD_STOP_TIMEOUT", text);
        }
        doubts
    }
}
