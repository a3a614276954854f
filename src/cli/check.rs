//! `guard check`: the effective configuration, and what is in doubt.

use crate::config::{Config, Warning};
use crate::report::{settings, surroundings};
use crate::text::printable;
use std::fmt::Write;

/// A table of all variables, and the warnings, with those of a trial. Below another guard the settings are not those of the
/// container.
pub fn text(config: &Config, tried: Vec<Warning>, is_below_a_guard: bool) -> String {
    let mut text = settings::table(config, config.instances);
    if is_below_a_guard {
        text += "\nnote: below another guard, whose settings are hidden: docker run --entrypoint guard IMAGE check\n";
    }
    let around = surroundings::doubts(config).into_iter().chain(surroundings::doubts_of_check(config)).chain(tried);
    for warning in config.warnings.iter().cloned().chain(around) {
        let _ = writeln!(text, "\n{}", printable(&warning.to_string()));
    }
    text
}
