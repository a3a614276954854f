//! From raw layers (flags over the environment) to one typed, complete and immutable [`Config`].
//!
//! [`Config::resolve`] collects every error, so that a user mends them all at once. Nothing here acts on the
//! configuration.

pub mod arguments;
pub mod codes;
mod defaults;
mod doubts;
pub mod duration;
pub mod entry;
pub mod instances;
pub mod layers;
pub mod limits;
mod list;
mod listen;
mod problems;
mod settings;
pub mod size;
pub mod subcommands;
mod suggest;
pub mod target;
pub mod user;
mod values;
mod variable;
pub mod variables;

use crate::platform::Platform;
pub use instances::Scale;
use layers::Layers;
pub use listen::{Listen, ListenAddress, TcpAddress};
pub use problems::ConfigErrors;
pub use settings::{
    Config, Diagnose, HealthCheck, HealthSettings, Hold, Instances, LogFormat, MOST_INSTANCES, MaxMemory, Meaning,
    Origin, Readiness, ReadySettings, RestartPolicy, RestartSettings, Scope, SignalMap, StopSettings, Warning,
    WarningKind,
};
use std::ffi::OsStr;
use variables::VARIABLES;

impl Config {
    /// The configuration that `layers` give, or every error in them.
    pub fn resolve(mut layers: Layers) -> Result<Config, ConfigErrors> {
        let mut platform = Platform::detect(|name| layers.environment(name));
        platform.own_timeout = platform.own_timeout.min(duration::LONGEST);
        let mut config = Config::of_platform(platform);
        let mut errors = std::mem::take(&mut layers.errors);
        let mut misread = Vec::new();
        let mut doubts = Vec::new();
        for variable in VARIABLES {
            let Some((origin, value)) = layers.value(variable) else { continue };
            config.origins.push((variable.name, origin));
            let read = value.to_str().ok_or_else(|| "not valid UTF-8".to_owned());
            if let Err(problem) = read.and_then(|text| (variable.set)(&mut config, text)) {
                errors.push(format!("{}: {problem}; it takes {}", layers.shown(variable.name), variable.takes));
                misread.push(variable.name);
            } else if let Some(doubt) = value
                .to_str()
                .filter(|_| {
                    // Another guard hands its stop timeout down in seconds.
                    let is_handed_down = variable.name == "GUARD_STOP_TIMEOUT" && origin == Origin::Environment;
                    variable.is_duration() && !(is_handed_down && layers.is_below_a_guard())
                })
                .and_then(duration::doubt)
            {
                let text = format!("{}: {doubt}", layers.shown(variable.name));
                doubts.push(Warning { kind: WarningKind::Doubt, variable: variable.name.to_owned(), text });
            }
        }
        // Where nobody has asked for it the app need not be a server, so its readiness does not wait for a socket.
        let holds_by_choice = config.origin("GUARD_HOLD") != Origin::Default && config.hold != Hold::Off;
        let several = config.instances != Instances::Number(1);
        if several && config.listen.is_empty() && config.origin("GUARD_HOLD") == Origin::Default {
            // They would take each other's ports.
            config.hold = Hold::All;
        }
        if config.health_check.is_some() && config.origin("GUARD_READY") == Origin::Default {
            config.ready.when = Readiness::Health;
        } else if holds_by_choice && config.origin("GUARD_READY") == Origin::Default {
            config.ready.when = Readiness::Listen;
        }
        if config.ready.when == Readiness::Health && config.origin("GUARD_READY_TIMEOUT") == Origin::Default {
            // The start period says how long the app may take, and without one the first check comes after an interval.
            let HealthSettings { start_period, interval, timeout, .. } = config.health;
            let least = if start_period.is_zero() { interval.saturating_add(timeout) } else { start_period };
            config.ready.timeout = config.ready.timeout.max(least);
        }
        if config.origin("GUARD_RESTART") == Origin::Default && layers.stdin.is_some() {
            config.restart.policy = RestartPolicy::Never;
            config.stdin = layers.stdin;
        }
        config.notify_socket = layers.environment("NOTIFY_SOCKET").map(OsStr::to_owned);
        if config.origin("GUARD_NOTIFY") == Origin::Default {
            config.notify = config.needs_notify() || config.notify_socket.is_some();
        }
        // A value that could not be read has its own error.
        let contradictions = config.contradictions().into_iter();
        let contradictions = contradictions.filter(|(names, _)| !names.iter().any(|name| misread.contains(name)));
        errors.extend(contradictions.map(|([name, _], error)| format!("{}: {error}", layers.shown(name))));
        let drain = config.stop.drain_delay.saturating_add(config.stop.drain_idle);
        let without_limit = platform.stop_timeout().saturating_add(drain);
        config.stop.restart_timeout = config.stop.timeout.unwrap_or(without_limit);
        doubts.extend(config.doubts(&layers));
        config.warnings = layers.unknown().chain(doubts).collect();
        config.command = std::mem::take(&mut layers.command);
        config.directory = config.chdir.clone();
        config.environment = layers.into_environment_of_the_app();
        errors.extend(config.ambiguous_variables());
        if errors.is_empty() {
            Ok(config)
        } else {
            // The user may have meant one of the unknown variables.
            errors.extend(config.warnings.iter().map(Warning::to_string));
            Err(ConfigErrors { errors, termination_log: config.termination_log })
        }
    }
}

#[cfg(test)]
mod tests;
