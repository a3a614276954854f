//! `guard --help` and `guard --version`.

use crate::config::variables::VARIABLES;
use std::fmt::Write;

/// The whole help text.
pub fn text() -> String {
    let mut text = String::from(
        "guard: the init process for containers. Runs COMMAND, reaps, restarts it in place, drains on SIGTERM.

usage:
  guard [OPTIONS] -- COMMAND [ARG]...   run COMMAND as the app
  guard check [OPTIONS] [-- COMMAND]    print the effective configuration, or every error
  guard ready                           exit 0 if the app can take work
  guard health                          exit 0 if the running guard has not given up
  guard status [--json]                 what the running guard knows
  guard stop | restart | reload         ask the running guard, and wait for the outcome
  guard probe URL [--timeout 1s]        exit 0 if http://HOST:PORT/PATH or tcp://HOST:PORT answers
  guard --help | --version

Each option is also a variable of the environment; an option wins. Durations: 500ms, 10s, 1m30s, a bare number is
seconds. Signals: TERM, SIGTERM, 15, RTMIN+3.

options, their variables and defaults:
",
    );
    for variable in VARIABLES {
        let _ = writeln!(text, "  {:<21} {} (default: {})", variable.flag(), variable.name, variable.default);
        let _ = writeln!(text, "  {:<21}   {}", "", variable.help);
    }
    text.push_str(
        "
exit codes: the app's own; 128+n for a death by signal n; 137 after a kill at the stop timeout; 126 and 127 if the
command cannot be executed or is not there; 125 for guard's own errors. ready, health, status, stop and restart exit
with 0 for yes, 1 for no, 124 without an answer in time (--timeout DURATION), 125 if they could not ask (--pid N picks
one of several guards).
",
    );
    text
}

/// guard's name and version.
pub fn version() -> String {
    format!("guard {}\n", env!("CARGO_PKG_VERSION"))
}
