//! guard(1), for manual(1): made from the same tables as `--help`, when tests are built, so the program carries none of it.
//!
//! `release/man FILE` writes it.

use super::help;
use crate::config::layers::HANDED_DOWN;
use crate::config::subcommands::{SUBCOMMANDS, Subcommand};
use crate::config::variables::VARIABLES;
use std::fmt::Write;
use std::path::PathBuf;

/// What an outer guard says to its app, in words; the names are those of [`HANDED_DOWN`].
fn meaning(handed_down: &str) -> &'static str {
    match handed_down {
        "GUARD_ID" => "Which guard this is, so that guards below one another tell their runs apart.",
        "GUARD_RUN" => "The number of the run, from 1 on.",
        "GUARD_INSTANCE" => "The number of the instance, from 0 on.",
        "GUARD_RESTARTS" => "How many restarts there were that nobody asked for.",
        "GUARD_LAST_EXIT" => {
            "How the run before ended: an exit code, the name of a signal (with +core where a core was written), oom, watchdog, health, not-ready, memory-limit, lifetime, changed-file, operator or deadline, or the name of the errno of a start that failed; not set in the first run."
        }
        "GUARD_MAIN_PID" => "For the command of GUARD_DIAGNOSE alone: the pid of the main process.",
        "GUARD_STOP_SIGNAL_RECEIVED" => "For the pre-stop hook alone: the signal that asked for the stop.",
        "GUARD_STOP_TIME_LEFT" => "For the pre-stop hook alone: the seconds that are left of the stop timeout.",
        other => panic!("src/cli/man.rs does not say what {other} means"),
    }
}

/// Text as roff has it: no character that would begin a request, an escape or a typographic sign (`groff_char(7)`).
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('^', "\\(ha");
    let text = text.replace('~', "\\(ti").replace('`', "\\(ga");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

/// A text of several lines, each on a line of its own.
fn lines(text: &str) -> String {
    text.lines().map(|line| roff(line.trim())).collect::<Vec<_>>().join("\n.br\n")
}

/// Paragraphs as they stand in roff, between two headings.
const DESCRIPTION: &str = r"
.B guard
runs
.I COMMAND
as the app of a container, as PID 1 or below another process.
It reaps orphans, forwards signals, restarts the app in place when it fails, and turns a stop request (SIGTERM, SIGINT, SIGQUIT
at a terminal, or
.BR GUARD_STOP_SIGNAL )
into a drain: drain file, pre\-stop hook, drain delay, stop signal, and SIGKILL at the stop timeout.
After too many restarts it gives up, and exits with the app's code.
.PP
Every setting is an option and a variable of the environment; the option wins.
An empty variable counts as not set.
.B guard check
prints the settings in force, or every error.
";

const OF_A_RUNNING_GUARD: &str = r".B \-\-timeout
limits how long the answer may take, and
.B \-\-pid
picks one of several guards.
";

const AFTER_THE_OPTIONS: &str = r"
Durations are 500ms, 10s or 1m30s; a bare number is seconds.
Signals are TERM, SIGTERM, 15 or RTMIN+3.
";

const EXIT_STATUS: &str = r#"
.B guard
exits with the app's own code, and with
.TP
.RI 128+ n
if the app died of signal
.I n
.TP
.B 137
if the app had to be killed at the stop timeout
.TP
.BR 126 ", " 127
if the command cannot be executed, or is not there
.TP
.B 125
if the error is guard's own, such as a setting that it cannot read
.PP
The commands that ask a running guard exit with 0 for yes, 1 for no, 124 without an answer in time, and 125 if they could not ask.
.B guard probe
exits with 0 if the server answered and with 1 if it did not.
"#;

const FILES: &str = r"
.TP
.I /dev/termination\-log
The last word, where this file is there and
.B GUARD_TERMINATION_LOG
names no other.
";

const EXAMPLES: &str = r#"
An image whose app is restarted and drained:
.PP
.EX
FROM node:20\-slim
COPY \-\-from=guard /guard /usr/local/bin/guard
COPY . /app
ENTRYPOINT ["guard", "\-\-"]
CMD ["node", "/app/server.js"]
.EE
.PP
What would be in force there:
.PP
.EX
docker run \-\-rm \-\-env GUARD_DRAIN_DELAY=5s IMAGE guard check
.EE
"#;

/// The whole page, with the day of its release.
fn text(date: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH GUARD 1 \"{}\" \"guard {version}\" \"User Commands\"\n", date);
    page.push_str(".SH NAME\nguard \\- the init process for containers\n.SH SYNOPSIS\n");
    page.push_str(".B guard\n[OPTIONS] \\-\\- COMMAND [ARG]...\n");
    for Subcommand { name, arguments, .. } in &SUBCOMMANDS {
        let _ = write!(page, ".br\n.B guard {name}\n{}\n", roff(arguments));
    }
    let _ = write!(page, ".br\n.B guard\n\\-\\-help | \\-\\-version\n.SH DESCRIPTION{DESCRIPTION}.SH COMMANDS\n");
    for Subcommand { name, arguments, about, .. } in &SUBCOMMANDS {
        let _ = write!(page, ".TP\n.B guard {name}\n{}\n", lines(about));
        if arguments.contains("--pid") {
            let _ = write!(page, "{OF_A_RUNNING_GUARD}");
        }
    }
    page.push_str(".SH OPTIONS\n");
    for variable in VARIABLES {
        let (flag, name) = (roff(&variable.flag()), roff(variable.name));
        let _ = write!(page, ".TP\n.BR {flag} \", \" {name}\n{}.\n", roff(variable.help));
        let _ = writeln!(page, "Takes {}. Default: {}.", roff(variable.takes), roff(variable.default));
    }
    let _ = writeln!(page, ".PP{AFTER_THE_OPTIONS}.SH EXIT STATUS{EXIT_STATUS}.SH ENVIRONMENT");
    page.push_str(
        "guard reads the variables above, takes them away, and gives these to the app, the hook and the checks:\n",
    );
    for name in HANDED_DOWN {
        let _ = write!(page, ".TP\n.B {name}\n{}\n", roff(meaning(name)));
    }
    page.push_str(".PP\nThe app has GUARD_STOP_TIMEOUT besides, as it is in force, and what a setting adds: NOTIFY_SOCKET, WATCHDOG_USEC,\n");
    page.push_str("NODE_CHANNEL_FD, NODE_APP_INSTANCE, LISTEN_FDS.\n");
    let _ = write!(page, ".SH FILES{FILES}.SH EXAMPLES{EXAMPLES}");
    page.push_str(".SH SEE ALSO\n.BR sd_notify (3),\n.BR signal (7),\n.BR pid_namespaces (7)\n");
    page
}

#[test]
fn the_man_page_has_every_command_and_every_setting() {
    let page = text("2026-01-01");
    for variable in VARIABLES {
        assert!(page.contains(&roff(&variable.flag())) && page.contains(variable.name), "{}", variable.name);
    }
    let overview = help::page(None);
    for Subcommand { name, .. } in &SUBCOMMANDS {
        assert!(page.contains(&format!(".TP\n.B guard {name}\n")), "{name}");
        let is_named = [format!(" guard {name} "), format!(" | {name} ")].iter().any(|words| overview.contains(words));
        assert!(is_named, "guard --help names {name}");
    }
    let requests = page.lines().filter(|line| line.starts_with('.'));
    let unknown: Vec<&str> = requests
        .filter(|line| {
            let request = line[1..].split(' ').next().unwrap_or_default();
            !["TH", "SH", "TP", "PP", "B", "BR", "I", "RI", "br", "EX", "EE"].contains(&request)
        })
        .collect();
    assert!(unknown.is_empty(), "a line of text that roff takes for a request: {unknown:?}");
}

#[test]
#[ignore = "no test: release/man gets the page by it"]
#[expect(clippy::disallowed_methods, reason = "what release/man says, no settings of guard's")]
fn write_the_man_page() {
    let file = PathBuf::from(std::env::var_os("MAN_PAGE").expect("MAN_PAGE names a file"));
    let date = std::env::var("MAN_PAGE_DATE").expect("MAN_PAGE_DATE is a day");
    std::fs::write(&file, text(&date)).expect("the man page can be written");
}
