//! `guard check`: the effective configuration, and where each value comes from.

use crate::config::variables::VARIABLES;
use crate::config::{Config, Origin, duration};
use std::fmt::Write;

/// A table of all variables, and what is worth a warning.
pub fn text(config: &Config) -> String {
    let mut text = String::new();
    let command: Vec<_> = config.command.iter().map(|word| word.to_string_lossy()).collect();
    let _ = writeln!(text, "command: {}", if command.is_empty() { "none given".to_owned() } else { command.join(" ") });
    let platform = config.platform;
    let own = duration::show(platform.own_timeout);
    let _ = writeln!(text, "platform: {}, whose own stop timeout is {own}\n", platform.name);
    for variable in &VARIABLES {
        let origin = match config.origin(variable.name) {
            Origin::Default => "default".to_owned(),
            Origin::Environment => "environment".to_owned(),
            Origin::Flag => variable.flag(),
        };
        let _ = writeln!(text, "{:<23} {:<23} {origin}", variable.name, (variable.show)(config));
    }
    for unknown in &config.warnings {
        let _ =
            writeln!(text, "\nwarning: {} is no variable of guard's; the nearest is {}", unknown.name, unknown.nearest);
    }
    text
}
