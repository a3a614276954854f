//! `guard --help`, the pages of its subcommands, and `guard --version`.

use crate::config::variables::VARIABLES;
use std::fmt::Write;

/// The subcommands: name, arguments, and what each does.
pub(super) const SUBCOMMANDS: [(&str, &str, &str); 9] = [
    ("check", "[OPTIONS] [-- COMMAND [ARG]...]", CHECK),
    ("ready", ASK, "Exits with 0 if the app can take work: ready, healthy, not draining, not between two runs."),
    ("health", ASK, "Exits with 0 if the running guard answers and has not given up, in a backoff and a drain too."),
    ("status", "[--json | --settings] [--timeout DURATION] [--pid N]", STATUS),
    ("stop", ASK, "Asks the running guard to stop the app and end, and waits until the last run has ended."),
    ("restart", ASK, "Stops the run and starts the next one, and waits until that is ready."),
    ("reload", ASK, "Starts the next run beside the old one, which then ends, and waits until the old run is over."),
    ("scale", "N|auto|+N|-N [--timeout DURATION] [--pid N]", SCALE),
    ("probe", "URL [--timeout DURATION] [--host NAME]", PROBE),
];

const ASK: &str = "[--timeout DURATION] [--pid N]";

const STATUS: &str =
    "Prints what the running guard knows: instances, runs, restarts, memory, CPU, and why a run is being ended.
--json prints it for programs, --settings the settings in force and where each comes from.";

const CHECK: &str =
    "Prints the configuration in force and where each value comes from, or every error, and what is in doubt.
The options are those of guard itself: see guard --help.";

const SCALE: &str =
    "Says how many instances there are from now on, 1 to 1024, auto for the container's CPU quota, or so many more or
fewer; waits until the new ones are ready, or the others are gone.";

const PROBE: &str = "Exits with 0 if a server answers within the timeout (1s by default). URL is one of
  http://HOST[:PORT][/PATH]       answers with a status from 200 to 399
  http+unix:///SOCKET[:/PATH]     the same, on a unix socket
  tcp://HOST:PORT                 accepts the connection
--host NAME is the Host that a request names, for servers that insist on theirs.";

const OF_ASK: &str = "
  --timeout DURATION   how long the answer may take; by default 2s, or as long as guard itself may need
  --pid N              which guard, where several run here

exit codes: 0 for yes, 1 for no, 124 without an answer in time, 125 if guard could not be asked.
";

/// How a subcommand is written; part of the errors about it.
pub fn usage(subcommand: &str) -> String {
    let arguments = SUBCOMMANDS.iter().find(|(name, ..)| *name == subcommand).map_or("", |(_, arguments, _)| arguments);
    format!("usage: guard {subcommand} {arguments}")
}

/// The page of a subcommand, or the whole help text.
pub fn page(subcommand: Option<&str>) -> String {
    let Some((name, arguments, about)) = SUBCOMMANDS.iter().find(|(name, ..)| Some(*name) == subcommand) else {
        return text();
    };
    let options = if arguments.contains("--pid") { OF_ASK } else { "" };
    format!("{}\n\n{about}\n{options}", usage(name))
}

pub(super) fn text() -> String {
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
  guard probe URL [--timeout 1s]        exit 0 if a server answers: http://…, http+unix://… or tcp://…
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
