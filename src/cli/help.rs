//! `guard --help`, the pages of its subcommands, and `guard --version`.

use crate::config::subcommands::SUBCOMMANDS;
use crate::config::variables::VARIABLES;
use std::fmt::Write;

const OF_ASK: &str = "
  --timeout DURATION   how long the answer may take; by default 2s, or as long as guard itself may need
  --pid N              which guard, where several run here

exit codes: 0 for yes, 1 for no, 124 without an answer in time, 125 if guard could not be asked.
";

/// The page of the subcommand of this name, or the whole help text.
pub fn page(subcommand: Option<&str>) -> String {
    let Some(subcommand) = SUBCOMMANDS.iter().find(|known| Some(known.name) == subcommand) else {
        return text();
    };
    let options = if subcommand.arguments.ends_with("[--pid N]") { OF_ASK } else { "" };
    format!("{}\n\n{}\n{options}", subcommand.usage(), subcommand.about)
}

fn text() -> String {
    let mut text = String::from(
        "guard: the init process for containers. Runs COMMAND, reaps, restarts it in place, drains on SIGTERM.

usage:
  guard [OPTIONS] -- COMMAND [ARG]...   run COMMAND as the app
  guard check [OPTIONS] [-- COMMAND]    print the effective configuration, or every error
  guard ready                           exit 0 if the app can take work
  guard health                          exit 0 if the running guard has not given up
  guard status [--json | --settings]    what the running guard knows, or the settings in force
  guard stop | restart | reload         ask the running guard, and wait for the outcome
  guard scale N | auto | +N | -N        how many instances from now on
  guard probe URL [--timeout 1s] [--host NAME]
                                        exit 0 if a server answers: http://…, http+unix://… or tcp://…
  guard --help | --version              this page; guard SUBCOMMAND --help has more on each of the others

Each option is also a variable of the environment; an option wins. Durations: 500ms, 10s, 1m30s, a bare number is
seconds. Signals: TERM, SIGTERM, 15, RTMIN+3.

options, their variables and defaults:
",
    );
    for variable in VARIABLES {
        let _ = writeln!(text, "  {:<21} {} (default: {})", variable.flag(), variable.name, variable.default);
        let _ = writeln!(text, "  {:<21}   {}", "", variable.help);
        let _ = writeln!(text, "  {:<21}   takes {}", "", variable.takes);
    }
    text.push_str(
        "
exit codes: the app's own; 128+n for a death by signal n; 137 after a kill at the stop timeout; 126 and 127 if the
command cannot be executed or is not there; 125 for guard's own errors. Subcommands that ask the running guard exit
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
