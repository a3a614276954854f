//! `-it`: a shell behind guard, and an app that guard restarts, at a terminal that the test has.
//!
//! The client's terminal is the test's own; the one inside is the engine's, and echoes keys until somebody says otherwise.
//! guard's log comes over it too, among the app's lines.

use crate::common::{Event, eventually};
use crate::container::{Container, Run, docker, podman};

tests![
    a_shell_has_its_jobs_under_docker,
    a_shell_has_its_jobs_under_podman,
    the_code_of_a_shell_is_the_containers,
    a_restarted_app_has_the_terminal,
    ctrl_c_reaches_an_app_once_under_docker,
    ctrl_c_reaches_an_app_once_under_podman,
    an_app_that_ctrl_c_ends_is_not_restarted,
    ctrl_c_in_a_backoff_ends_guard,
    ctrl_z_stops_nothing_that_nobody_could_continue,
];

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// A shell without a prompt that echoes nothing, at whose terminal lines are what was printed.
fn shell(run: Run) -> Container {
    let mut shell = run.terminal().option("--env", "PS1=").command(["dash"]).start();
    shell.press("stty -echo; echo quiet\n");
    shell.line("quiet");
    shell
}

/// The fixture at a terminal that echoes nothing, in every run anew: guard gives each the terminal as it was at first.
fn at_terminal(run: Run, words: &str) -> Container {
    run.terminal().command(["sh", "-c", &format!("stty -echo; exec fixture {words}")]).start()
}

/// How often the container said so.
fn count(container: &Container, line: &str) -> usize {
    container.out().iter().filter(|said| **said == line).count()
}

/// The events of guard's log that came over the terminal.
fn logged(container: &Container, name: &str) -> bool {
    container.out().iter().filter_map(|line| Event::parse(line)).any(|event| event.name() == name)
}

/// Whether guard took a key for a stop request.
fn asked_by_a_key(container: &Container) -> bool {
    let mut events = container.out().into_iter().filter_map(Event::parse);
    events.any(|event| event.name() == "drain" && event.get("signal").is_some())
}

fn a_shell_has_its_jobs_under_docker() {
    has_its_jobs(docker());
}

fn a_shell_has_its_jobs_under_podman() {
    has_its_jobs(podman());
}

/// Keys and the size of the window are for the job in the foreground, the shell lives on.
fn has_its_jobs(run: Run) {
    let mut shell = shell(run);
    shell.press("fixture default TSTP quit QUIT 3 serve\n");
    shell.line("ready");
    shell.press(CTRL_C);
    shell.line("got INT");
    shell.press(CTRL_Z);
    shell.press("echo back\n");
    shell.line("back");
    shell.press("fg\n");
    shell.line("got CONT");
    shell.resize(41, 101);
    shell.line("got WINCH");
    shell.press(CTRL_BACKSLASH);
    shell.line("got QUIT");
    shell.press("echo code $?; stty size\n");
    shell.line("code 3");
    shell.line("41 101");
    assert_eq!(count(&shell, "got INT"), 1);
    shell.press("exit 0\n");
    assert_eq!(shell.code(), 0);
    assert!(!asked_by_a_key(&shell) && !logged(&shell, "restart"), "{}", shell.transcript());
}

fn the_code_of_a_shell_is_the_containers() {
    for (last, code) in [("exit 3", 3), ("false; exit", 1), ("exit 0", 0)] {
        let mut shell = shell(docker());
        shell.press(&format!("{last}\n"));
        assert_eq!(shell.code(), code, "{last}");
    }
}

fn a_restarted_app_has_the_terminal() {
    let mut app = at_terminal(docker(), "foreground before-run 3 exit 1 serve");
    assert_eq!(app.lines_until("ready").iter().filter(|line| *line == "foreground yes").count(), 3);
    app.resize(42, 102);
    app.line("got WINCH");
    assert_eq!(app.exec(&["sh", "-c", "stty size </dev/console"]).out, "42 102\n");
}

fn ctrl_c_reaches_an_app_once_under_docker() {
    is_reached_once(docker());
}

fn ctrl_c_reaches_an_app_once_under_podman() {
    is_reached_once(podman());
}

fn is_reached_once(run: Run) {
    let mut app = at_terminal(run.env("GUARD_STOP_TIMEOUT", "1h"), "before-run 2 exit 1 quit URG 4 serve");
    app.line("ready");
    app.press(CTRL_C);
    app.line("got INT");
    // A higher number, which overtakes no second INT.
    app.kill("USR1");
    app.line("got USR1");
    assert_eq!(count(&app, "got INT"), 1);
    app.kill("URG");
    assert_eq!(app.code(), 4);
}

fn an_app_that_ctrl_c_ends_is_not_restarted() {
    for (words, code) in [("default INT serve", 130), ("quit INT 3 serve", 3), ("quit INT 0 serve", 0)] {
        let mut app = at_terminal(docker(), words);
        app.line("ready");
        app.press(CTRL_C);
        assert_eq!(app.code(), code, "{words}");
        assert_eq!(count(&app, "ready"), 1, "{}", app.transcript());
    }
}

fn ctrl_c_in_a_backoff_ends_guard() {
    let run = docker().env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
    let mut app = at_terminal(run, "before-run 2 exit 1 say second exit 6");
    app.line("second");
    eventually("a backoff", || app.ask(&["ready"]).out.contains("between two runs").then_some(()));
    app.press(CTRL_C);
    assert_eq!(app.code(), 6);
}

/// guard as PID 1 has no shell above it that could say `fg`.
fn ctrl_z_stops_nothing_that_nobody_could_continue() {
    let mut app = at_terminal(docker(), "default TSTP serve");
    app.line("ready");
    app.press(CTRL_Z);
    app.resize(43, 103);
    app.line("got WINCH");
}
