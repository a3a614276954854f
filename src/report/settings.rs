//! The settings in force, and the layer that each comes from, as `guard check` and `guard status --settings` print them. Long
//! values are cut, so that the table fits into a datagram.

use super::format::shorten;
use crate::config::variables::VARIABLES;
use crate::config::{Config, Origin, duration};
use crate::text::printable;
use std::fmt::Write;

/// Columns are at most this wide; a longer value moves the rest of its line to the right.
const WIDEST: usize = 50;

/// The command, the platform, and a table of all variables.
pub fn table(config: &Config) -> String {
    let mut text = String::new();
    let command = if config.command.is_empty() { "none given".to_owned() } else { config.command_line() };
    let _ = writeln!(text, "command: {}", printable(&shorten(command)));
    let platform = config.platform;
    let own = duration::show(platform.own_timeout);
    let seen_by = if platform.seen_by.is_empty() { "" } else { ", seen by " };
    let _ =
        writeln!(text, "platform: {}{seen_by}{}, whose own stop timeout is {own}\n", platform.name, platform.seen_by);
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0).min(WIDEST);
    let values: Vec<String> = VARIABLES.iter().map(|variable| printable(&shorten((variable.show)(config)))).collect();
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
    text
}
