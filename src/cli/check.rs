//! `guard check`: the effective configuration, and the layer that each value comes from.

use crate::config::variables::VARIABLES;
use crate::config::{Config, Origin, duration};
use crate::report::surroundings;
use crate::text::printable;
use std::fmt::Write;

/// Columns are at most this wide; a longer value moves the rest of its line to the right.
const WIDEST: usize = 50;

/// A table of all variables, and the warnings.
pub fn text(config: &Config) -> String {
    let mut text = String::new();
    let command = if config.command.is_empty() { "none given".to_owned() } else { config.command_line() };
    let _ = writeln!(text, "command: {}", printable(&command));
    let platform = config.platform;
    let own = duration::show(platform.own_timeout);
    let seen_by = if platform.seen_by.is_empty() { "" } else { ", seen by " };
    let _ =
        writeln!(text, "platform: {}{seen_by}{}, whose own stop timeout is {own}\n", platform.name, platform.seen_by);
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0).min(WIDEST);
    let values: Vec<String> = VARIABLES.iter().map(|variable| printable(&(variable.show)(config))).collect();
    let name_width = width(&mut VARIABLES.iter().map(|variable| variable.name.len()));
    let value_width = width(&mut values.iter().map(String::len));
    for (variable, value) in VARIABLES.iter().zip(&values) {
        let origin = match config.origin(variable.name) {
            Origin::Default
                if variable.name == "GUARD_RESTART"
                    && let Some(why) = config.why_never() =>
            {
                format!("default, {why}")
            }
            Origin::Default => "default".to_owned(),
            Origin::Environment => "environment".to_owned(),
            Origin::Flag => variable.flag(),
        };
        let _ = writeln!(text, "{:<name_width$}  {value:<value_width$}  {origin}", variable.name);
    }
    let around = surroundings::doubts(config).into_iter().chain(surroundings::doubt_of_command(config));
    for warning in config.warnings.iter().cloned().chain(around) {
        let _ = writeln!(text, "\n{}", printable(&warning.to_string()));
    }
    text
}
