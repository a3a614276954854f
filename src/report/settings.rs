//! The settings in force, and the layer that each comes from, as `guard check` and `guard status --settings` print them. Long
//! values are cut, so that the table fits into a datagram.

use super::format::shorten;
use crate::config::variables::VARIABLES;
use crate::config::{Config, Instances, Origin, duration};
use crate::text::printable;
use std::fmt::Write;

/// Columns are at most this wide; a longer value moves the rest of its line to the right.
const WIDEST: usize = 50;

/// The command, the platform, and a table of all variables. `instances` is what was asked for last, by `guard scale` perhaps.
pub fn table(config: &Config, instances: Instances) -> String {
    let mut text = String::new();
    let command = if config.command.is_empty() { "none given".to_owned() } else { config.command_line() };
    let _ = writeln!(text, "command: {}", printable(&shorten(command)));
    let platform = config.platform;
    let own = duration::show(platform.own_timeout);
    let seen_by = if platform.seen_by.is_empty() { "" } else { ", seen by " };
    let _ =
        writeln!(text, "platform: {}{seen_by}{}, whose own stop timeout is {own}\n", platform.name, platform.seen_by);
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0).min(WIDEST);
    let is_scaled = |name| name == "GUARD_INSTANCES" && instances != config.instances;
    let values = VARIABLES.iter().map(|variable| {
        let set = || printable(&shorten((variable.show)(config)));
        if is_scaled(variable.name) { instances.to_string() } else { set() }
    });
    let values: Vec<String> = values.collect();
    let name_width = width(&mut VARIABLES.iter().map(|variable| variable.name.len()));
    let value_width = width(&mut values.iter().map(String::len));
    for (variable, value) in VARIABLES.iter().zip(&values) {
        let origin = match config.origin(variable.name) {
            _ if is_scaled(variable.name) => "scaled".to_owned(),
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
    text
}
