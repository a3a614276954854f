//! GUARD_HOLD behind the profiles of the engines: a port outlives the run that has bound it, or guard says why it cannot.

use crate::common::Answer;
use crate::container::{Container, Run, docker, podman};
use crate::engine::Engine;
use crate::image::image;
use std::fs;

tests![
    docker_holds_for_root,
    docker_holds_for_nobody_without_privileges,
    podman_holds_for_root,
    podman_holds_for_nobody_without_privileges,
    docker_holds_from_scratch,
    a_profile_that_denies_the_filter_is_told_and_the_app_binds_itself,
];

/// What the app binds while it has handlers, and it crashes at SIGUSR1.
const APP: &str = "listen 8080 quit USR1 1 quit TERM 3 serve";

/// The second crash in a row has the next run wait until somebody asks for it.
fn holding(run: Run) -> Run {
    let run = run.env("GUARD_HOLD", "on").env("GUARD_HOLD_TIMEOUT", "5m");
    run.env("GUARD_BACKOFF_INITIAL", "10m").env("GUARD_BACKOFF_MAX", "10m")
}

/// Crashes twice, so that no run lives, and gives what a client sees then, with guard's program at this path.
fn without_a_run(container: &mut Container, guard: &str) -> Answer {
    for run in 1..=2 {
        container.line("listening");
        container.line("ready");
        assert_eq!(container.event("ready").get("run"), Some(run.to_string().as_str()));
        container.kill("USR1");
        container.event("restart");
    }
    container.exec(&[guard, "probe", "tcp://127.0.0.1:8080"])
}

/// The next run listens at the same port, and the stop is the app's own.
fn goes_on(container: &mut Container, guard: &str) {
    container.exec(&[guard, "restart"]).yes("restarted: run 3 is ready");
    assert_eq!(container.exec(&[guard, "probe", "tcp://127.0.0.1:8080"]).code, 0);
    container.tell("stop");
    container.line("got TERM");
    assert_eq!(container.code(), 3);
}

fn holds(run: Run, guard: &str, fixture: &str) {
    let words = [fixture].into_iter().chain(APP.split(' '));
    let mut container = holding(run).command(words).start();
    assert_eq!(container.event("held").get("address"), Some("127.0.0.1:8080"));
    let answer = without_a_run(&mut container, guard);
    assert_eq!(answer.code, 0, "{answer:?}\n{}", container.transcript());
    let status = container.exec(&[guard, "status"]).out;
    assert!(status.contains("held: 127.0.0.1:8080, "), "{status}");
    goes_on(&mut container, guard);
    assert!(container.said("not-held").is_empty(), "{}", container.transcript());
}

fn docker_holds_for_root() {
    holds(docker(), "guard", "fixture");
}

const FOR_NOBODY: &str = "--user 65534 --cap-drop ALL --read-only --security-opt no-new-privileges";

fn docker_holds_for_nobody_without_privileges() {
    holds(docker().options(FOR_NOBODY), "guard", "fixture");
}

fn podman_holds_for_root() {
    holds(podman(), "guard", "fixture");
}

fn podman_holds_for_nobody_without_privileges() {
    // What Docker does by default: a tmpfs at /tmp is Podman's.
    holds(podman().options(FOR_NOBODY).options("--read-only-tmpfs=false"), "guard", "fixture");
}

fn docker_holds_from_scratch() {
    holds(Run::of(Engine::Docker, image(Engine::Docker, "scratch")), "/guard", "/fixture");
}

fn a_profile_that_denies_the_filter_is_told_and_the_app_binds_itself() {
    let profile = tempfile::NamedTempFile::new().expect("a file");
    let denies = r#"{ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["seccomp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }] }"#;
    fs::write(profile.path(), denies).expect("a file");
    let run = docker().options(&format!("--security-opt seccomp={}", profile.path().display()));
    let mut container = holding(run).fixture(APP).start();
    let event = container.event("not-held");
    assert!(event.get("msg").is_some_and(|msg| msg.contains("a seccomp profile forbids it")), "{event:?}");
    let answer = without_a_run(&mut container, "guard");
    assert_eq!(answer.code, 1, "nobody holds it: {answer:?}");
    goes_on(&mut container, "guard");
    assert!(container.said("held").is_empty(), "{}", container.transcript());
    assert_eq!(container.said("not-held").len(), 1, "{}", container.transcript());
}
