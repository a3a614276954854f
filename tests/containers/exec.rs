//! `docker exec`: sessions that guard leaves alone, and its subcommands asked through it.

use crate::common::{Guard, eventually};
use crate::container::{Container, Run, docker, podman};
use std::io::Write;

tests![
    a_session_outlives_restarts_and_ends_with_the_container,
    the_child_of_a_session_is_nobodys_leftover,
    an_operator_asks_through_docker_exec,
    an_operator_asks_through_podman_exec,
    readiness_and_liveness_differ_in_a_backoff,
    another_user_is_refused,
    guard_stop_ends_the_container,
];

/// A shell in the container that echoes what it is told.
fn session(container: &Container) -> Guard {
    let mut session = container.session(&["sh", "-c", "echo begun; while read line; do echo heard $line; done"]);
    session.line("begun");
    session
}

fn tell(session: &mut Guard, line: &str) {
    let stdin = session.stdin.as_mut().expect("a pipe");
    writeln!(stdin, "{line}").expect("the session reads");
}

fn a_session_outlives_restarts_and_ends_with_the_container() {
    let mut container = docker().fixture("before-run 2 quit USR1 1 quit TERM 0 serve").start();
    container.line("ready");
    let mut session = session(&container);
    container.kill("USR1");
    container.event("restart");
    container.line("ready");
    container.ask(&["restart"]).yes("restarted: run 3 is ready");
    tell(&mut session, "me");
    session.line("heard me");
    container.tell("stop");
    assert_eq!(container.code(), 0, "it was not waited for");
    assert_eq!(session.code(), 137);
    assert!(container.said("leftovers").is_empty() && container.said("kill").is_empty());
}

/// An orphan of a session becomes guard's child, and is reaped; a restart of the app leaves it alone.
fn the_child_of_a_session_is_nobodys_leftover() {
    let mut container = docker().fixture("quit TERM 0 serve").start();
    container.line("ready");
    let answer = container.exec(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]);
    let pid = answer.out.trim().to_owned();
    let parent = || container.exec(&["sh", "-c", &format!("cut -d' ' -f4 /proc/{pid}/stat")]).out.trim().to_owned();
    eventually("a new parent", || (parent() == "1").then_some(()));
    container.ask(&["restart"]).yes("restarted: run 2 is ready");
    assert_eq!(parent(), "1");
    assert_eq!(container.exec(&["sh", "-c", &format!("kill {pid}")]).code, 0);
    eventually("it is reaped", || (container.exec(&["test", "-d", &format!("/proc/{pid}")]).code == 1).then_some(()));
}

fn an_operator_asks_through_docker_exec() {
    is_asked(docker());
}

fn an_operator_asks_through_podman_exec() {
    is_asked(podman());
}

fn is_asked(run: Run) {
    let mut container = run.env("GUARD_READY", "notify").fixture("on USR1 READY=1 quit TERM 0 serve").start();
    container.line("ready");
    container.ask(&["ready"]).no("not ready: the app has not said yet that it is ready");
    container.ask(&["health"]).yes("alive");
    container.kill("USR1");
    container.event("ready");
    container.ask(&["ready"]).yes("ready");
    let status = container.ask(&["status", "--json"]);
    assert!(status.code == 0 && status.out.contains(r#""pid":1,"#), "{status:?}");
    assert!(container.ask(&["status"]).out.contains("fixture"));
}

fn readiness_and_liveness_differ_in_a_backoff() {
    let run = docker().env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
    let mut container = run.fixture("exit 1").start();
    container.event("restart");
    container.event("restart");
    container.until_yes(&["health"]).yes("alive");
    container.ask(&["ready"]).no("not ready: the app is between two runs");
    container.tell("stop");
    assert_eq!(container.code(), 1, "the last run's");
}

fn another_user_is_refused() {
    let mut container = docker().start();
    container.line("ready");
    let answer = container.engine.ask(&["exec", "--user", "1234", &container.name, "guard", "restart"]);
    assert_eq!(answer.code, 125, "{answer:?}");
    assert!(answer.err.contains("only root may ask this guard"), "{answer:?}");
}

fn guard_stop_ends_the_container() {
    let mut container = docker().fixture("quit TERM 5 linger 100 serve").start();
    container.line("ready");
    let answer = container.ask(&["stop"]);
    assert!(answer.code == 0 || answer.code == 137, "{answer:?}");
    assert_eq!(container.code(), 5);
}
