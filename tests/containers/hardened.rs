//! Read-only, without privileges: neither root nor a writable file nor a capability, behind the default seccomp profile.

use crate::common::Answer;
use crate::container::{Container, Run, docker, podman};

tests![docker_takes_everything_away, podman_takes_everything_away, a_hardened_guard_kills_in_time];

fn hardened(run: Run) -> Run {
    run.options("--read-only --user 65534:65534 --cap-drop ALL --security-opt no-new-privileges")
}

fn docker_takes_everything_away() {
    does_all_of_it(docker());
}

fn podman_takes_everything_away() {
    // What Docker does by default: a tmpfs at /tmp is Podman's.
    does_all_of_it(podman().options("--read-only-tmpfs=false"));
}

/// Asks as another user than the container's.
fn ask_as(container: &Container, user: &str, words: &[&str]) -> Answer {
    container.engine.ask(&[&["exec", "--user", user, &container.name, "guard"], words].concat())
}

fn does_all_of_it(run: Run) {
    let run = hardened(run).env("GUARD_READY", "notify");
    let words = "fork setsid as left serve . on USR1 READY=1 quit USR2 1 quit TERM 3 serve";
    let mut container = run.fixture(words).start();
    container.line("ready");
    has_nothing(&container);
    container.ask(&["ready"]).no("not ready: the app has not said yet that it is ready");
    container.kill("USR1");
    container.event("ready");
    container.ask(&["ready"]).yes("ready");

    // A crash, and what it leaves behind.
    container.kill("USR2");
    assert_eq!(container.event("leftovers").get("processes").map(|names| names.starts_with("fixture[")), Some(true));
    container.line("left got TERM");
    container.event("restart");
    container.line("ready");
    container.kill("USR1");
    container.event("ready");

    // root there has no capability either.
    for user in ["65534", "0"] {
        ask_as(&container, user, &["ready"]).yes("ready");
        ask_as(&container, user, &["health"]).yes("alive");
        let status = ask_as(&container, user, &["status", "--json"]);
        assert!(
            status.code == 0 && status.out.contains(r#""pid":1,"#) && !status.out.contains(r#""memory":null"#),
            "{status:?}"
        );
    }
    let refused = ask_as(&container, "1234", &["stop"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.err.contains("only root or uid 65534 may ask this guard"), "{refused:?}");

    container.tell("stop");
    container.line("got TERM");
    container.line("left got TERM");
    assert_eq!(container.code(), 3);
    assert_eq!(
        container.names(),
        [
            "start",
            "spawn",
            "ready",
            "exit",
            "leftovers",
            "restart",
            "spawn",
            "ready",
            "refused",
            "drain",
            "stop-signal",
            "exit",
            "leftovers",
            "end"
        ]
    );
}

/// It is as bare as it was asked for: otherwise the test says nothing.
fn has_nothing(container: &Container) {
    let answer = container.exec(&[
        "sh",
        "-c",
        "id -u; grep -E 'NoNewPrivs|Cap(Eff|Prm|Bnd)|Seccomp:' /proc/1/status; touch /tmp/x",
    ]);
    for part in ["65534\n", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(answer.out.contains(part), "{part}: {answer:?}");
    }
    assert_eq!(answer.out.matches("\t0000000000000000").count(), 3, "{answer:?}");
    assert!(answer.err.contains("Read-only file system"), "{answer:?}");
}

fn a_hardened_guard_kills_in_time() {
    let run = hardened(docker()).env("GUARD_STOP_TIMEOUT", "500ms");
    let mut container = run.fixture("fork setsid deaf as left serve . deaf serve").start();
    container.line("ready");
    container.tell("stop");
    assert_eq!(container.code(), 137);
    assert_eq!(container.names(), ["start", "spawn", "drain", "stop-signal", "kill", "exit", "end"]);
}
