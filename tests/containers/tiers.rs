//! Two tiers: guard restarts the app in place, and the engine restarts the container when guard has given up.

use crate::container::docker;

tests![
    a_crash_is_mended_in_place,
    the_engine_restarts_what_guard_gave_up,
    the_engine_counts_too,
    a_stop_is_not_a_failure_to_the_engine,
    what_the_engine_has_stopped_stays_stopped,
    what_no_restart_can_mend_is_the_engines_at_once,
];

fn a_crash_is_mended_in_place() {
    let mut container = docker().options("--restart on-failure").fixture("before-run 3 die SEGV env serve").start();
    container.line("env GUARD_LAST_EXIT=SIGSEGV");
    container.line("ready");
    assert_eq!(container.inspect("{{.RestartCount}}"), "0");
}

fn the_engine_restarts_what_guard_gave_up() {
    let run = docker().options("--restart on-failure:2").env("GUARD_MAX_RESTARTS", "1");
    let container = run.fixture("exit 7").start_detached();
    container.until("{{.RestartCount}} {{.State.Status}}", "2 exited");
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "7");
    let mut log = container.log();
    log.status();
    let count = |name| log.events().iter().filter(|event| event.name() == name).count();
    assert_eq!((count("start"), count("restart"), count("give-up"), count("end")), (3, 3, 3, 3));
}

fn the_engine_counts_too() {
    let run = docker().options("--restart on-failure:3").env("GUARD_RESTART", "never");
    let container = run.fixture("exit 9").start_detached();
    container.until("{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}", "3 exited 9");
}

fn a_stop_is_not_a_failure_to_the_engine() {
    let container = docker().options("--restart on-failure").fixture("quit TERM 0 serve").start_detached();
    container.log().line("ready");
    assert_eq!(container.exec(&["guard", "stop"]).code, 0);
    container.until("{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "exited 0 0");
}

fn what_the_engine_has_stopped_stays_stopped() {
    let container = docker().options("--restart on-failure").fixture("quit TERM 143 serve").start_detached();
    container.log().line("ready");
    container.tell("stop");
    container.until("{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "exited 143 0");
}

fn what_no_restart_can_mend_is_the_engines_at_once() {
    let run = docker().options("--restart on-failure:1").env("GUARD_NO_RESTART_CODES", "78");
    let container = run.fixture("exit 78").start_detached();
    container.until("{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}", "1 exited 78");
    let mut log = container.log();
    log.status();
    assert!(log.events().iter().all(|event| event.name() != "restart"));
}
