//! How containers end and begin again: `stop`, `kill`, `restart`, `pause`, and the signal that an image names.

use crate::common::clock::between;
use crate::common::send;
use crate::container::{Run, docker, podman};
use nix::libc::SIGTERM;
use std::time::Duration;

tests![
    docker_stop_is_a_drain,
    podman_stop_is_a_drain,
    an_app_that_does_not_stop_is_killed_before_docker_does_it,
    an_app_that_does_not_stop_is_killed_before_podman_does_it,
    a_shorter_stop_of_dockers_kills_guard,
    a_shorter_stop_of_dockers_wants_a_shorter_timeout_of_guards,
    docker_kill_sends_a_signal_through,
    docker_kill_ends_everything,
    docker_restart_begins_at_run_1,
    the_stop_signal_of_an_image_is_guards_when_it_is_named,
    the_stop_signal_of_an_image_is_forwarded_when_it_is_not,
    a_stop_request_while_paused_is_a_stop_when_thawed,
    the_watchdog_does_not_bite_a_thawed_app,
    cmd_is_the_app_and_what_follows_the_image_replaces_it,
];

fn docker_stop_is_a_drain() {
    is_a_drain(docker());
}

fn podman_stop_is_a_drain() {
    is_a_drain(podman());
}

fn is_a_drain(run: Run) {
    let mut container = run.fixture("quit TERM 3 linger 100 serve").start();
    container.line("ready");
    container.tell("stop");
    container.line("got TERM");
    container.line("done");
    assert_eq!(container.code(), 3);
    assert_eq!(container.inspect("{{.State.ExitCode}} {{.State.OOMKilled}}"), "3 false");
    assert_eq!(container.names(), ["start", "spawn", "drain", "stop-signal", "exit", "end"]);
}

fn an_app_that_does_not_stop_is_killed_before_docker_does_it() {
    is_killed_by_guard(docker());
}

fn an_app_that_does_not_stop_is_killed_before_podman_does_it() {
    is_killed_by_guard(podman());
}

/// With all defaults: guard's 8.3 s are less than the engine's 10.
fn is_killed_by_guard(run: Run) {
    let mut container = run.fixture("deaf").start();
    container.line("ready");
    container.tell("stop");
    assert_eq!(container.code(), 137);
    let kill = container.said("kill").pop().expect("guard's own SIGKILL").line;
    assert!(kill.contains("GUARD_STOP_TIMEOUT=8.3s (the default for Docker, Podman"), "{kill}");
    assert_eq!(container.said("end").len(), 1, "guard had the last word");
}

fn a_shorter_stop_of_dockers_kills_guard() {
    let mut container = docker().fixture("deaf").start();
    container.line("ready");
    container.tell("stop --time 1");
    assert_eq!(container.code(), 137);
    assert_eq!(container.names(), ["start", "spawn", "drain", "stop-signal"], "no time for anything else");
}

fn a_shorter_stop_of_dockers_wants_a_shorter_timeout_of_guards() {
    let mut container = docker().env("GUARD_STOP_TIMEOUT", "500ms").fixture("deaf").start();
    container.line("ready");
    container.tell("stop --time 5");
    assert_eq!(container.code(), 137);
    assert_eq!(container.said("end").len(), 1);
}

fn docker_kill_sends_a_signal_through() {
    let mut container = docker().fixture("quit TERM 0 serve").start();
    container.line("ready");
    for (signal, got) in [("USR1", "got USR1"), ("SIGHUP", "got HUP"), ("WINCH", "got WINCH"), ("RTMIN+3", "got 37")] {
        container.kill(signal);
        container.line(got);
    }
    container.kill("QUIT");
    container.line("got QUIT");
    assert!(container.said("drain").is_empty(), "people take thread dumps with QUIT");
    container.kill("INT");
    container.event("drain");
    container.line("got INT");
    container.kill("USR2");
    container.line("got USR2");
    container.kill("KILL");
    assert_eq!(container.code(), 137);
}

fn docker_kill_ends_everything() {
    let mut container = docker().fixture("fork setsid as worker serve . serve").start();
    container.line("worker ready");
    container.line("ready");
    container.tell("kill");
    assert_eq!(container.code(), 137);
    assert_eq!(container.inspect("{{.State.Running}} {{.State.ExitCode}}"), "false 137");
}

fn docker_restart_begins_at_run_1() {
    let mut container = docker().fixture("before-run 2 exit 1 env serve").start();
    container.line("env GUARD_RUN=2");
    container.line("ready");
    container.tell("restart");
    // The client's exit code is not asked for: Docker may tell it that of the container that already runs again, 0.
    container.code();
    let mut log = container.log();
    log.line("got TERM");
    log.line("env GUARD_RUN=2");
    log.line("ready");
    log.event("restart");
    assert_eq!(log.event("end").get("code"), Some("143"));
    assert_eq!(log.event("restart").get("run"), Some("2"));
    assert_eq!(container.inspect("{{.RestartCount}}"), "0");
}

fn the_stop_signal_of_an_image_is_guards_when_it_is_named() {
    let run = docker().options("--stop-signal QUIT").env("GUARD_STOP_SIGNAL", "QUIT");
    let mut container = run.fixture("quit QUIT 0 serve").start();
    container.line("ready");
    container.tell("stop");
    container.line("got QUIT");
    assert_eq!(container.code(), 0);
    assert_eq!(container.names(), ["start", "spawn", "drain", "stop-signal", "exit", "end"]);
}

fn the_stop_signal_of_an_image_is_forwarded_when_it_is_not() {
    let mut container = docker().options("--stop-signal QUIT").fixture("quit QUIT 0 serve").start();
    container.line("ready");
    container.tell("stop");
    container.line("got QUIT");
    assert_eq!(container.code(), 0);
    assert_eq!(
        container.names(),
        ["start", "spawn", "exit", "stopped-by-quit", "end"],
        "no drain: it was not asked for"
    );
}

fn a_stop_request_while_paused_is_a_stop_when_thawed() {
    let mut container = docker().fixture("quit TERM 0 serve").start();
    container.line("ready");
    container.tell("pause");
    // `docker kill` refuses a paused container; what a host or a kubelet sends waits in it.
    let pid = container.inspect("{{.State.Pid}}").parse().expect("a pid");
    send(pid, SIGTERM);
    container.tell("unpause");
    container.line("got TERM");
    assert_eq!(container.code(), 0);
}

/// Frozen for seconds longer than the watchdog waits. What goes by meanwhile is the time of another container.
fn the_watchdog_does_not_bite_a_thawed_app() {
    let watched = |every| {
        let run = docker().env("GUARD_READY", "notify").env("GUARD_WATCHDOG", every);
        run.env("GUARD_RESTART", "never").fixture("on USR1 WATCHDOG=1 notify READY=1 serve").start()
    };
    let (mut frozen, mut other) = (watched("2s"), watched("4s"));
    frozen.event("ready");
    frozen.tell("pause");
    let bitten = other.event("failing");
    frozen.tell("unpause");
    frozen.kill("USR1");
    frozen.line("got USR1");
    assert_eq!(frozen.names(), ["start", "spawn", "ready"]);
    // With nothing more to hear, it bites in the end, after a whole period.
    let waited = between(&bitten, &frozen.event("failing"));
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");
}

fn cmd_is_the_app_and_what_follows_the_image_replaces_it() {
    let mut container = docker().start();
    container.line("ready");
    assert_eq!(container.event("start").get("app"), Some("fixture serve"));
    let mut container = docker().command(["fixture", "args", "exit", "0"]).start();
    container.line("arg 1 args");
    assert_eq!(container.code(), 0);
}
