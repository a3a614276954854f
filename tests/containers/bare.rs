//! Images with guard and the app and nothing else: no shell, no C library, no /tmp, no /etc/passwd.

use crate::container::{Run, docker};
use crate::engine::Engine;
use crate::image::image;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

tests![
    docker_runs_guard_from_scratch,
    podman_runs_guard_from_scratch,
    guards_own_words_need_nothing_else,
    a_script_needs_a_shell,
    a_command_that_is_not_there_is_127,
    without_a_proc_the_group_is_swept,
];

fn scratch(engine: Engine) -> Run {
    Run::of(engine, image(engine, "scratch"))
}

fn docker_runs_guard_from_scratch() {
    runs(Engine::Docker);
}

fn podman_runs_guard_from_scratch() {
    runs(Engine::Podman);
}

/// A health check and a hook too: neither takes a shell.
fn runs(engine: Engine) {
    let run = scratch(engine)
        .env("GUARD_HEALTH_CHECK", "tcp://127.0.0.1:8080")
        .env("GUARD_PRE_STOP", "/fixture say hook exit 0");
    let words = "/fixture fork setsid as left serve . listen 8080 before-run 2 quit USR1 1 quit TERM 3 serve";
    let mut container = run.command(words.split(' ')).start();
    container.line("ready");
    container.event("ready");
    container.kill("USR1");
    container.event("leftovers");
    container.line("ready");
    container.event("ready");
    let ask = |words: &[&str]| container.exec(&[&["/guard"], words].concat());
    ask(&["ready"]).yes("ready");
    assert!(ask(&["status"]).out.contains("/fixture"));
    ask(&["probe", "tcp://127.0.0.1:8080"]);
    ask(&["restart"]).yes("restarted: run 3 is ready");
    container.tell("stop");
    container.line("hook");
    container.line("got TERM");
    assert_eq!(container.code(), 3);
}

fn guards_own_words_need_nothing_else() {
    let one_off = |words: &str| {
        let run = scratch(Engine::Docker).options("--network none --entrypoint /guard").env("GUARD_STOP_TIMEOUT", "7s");
        let mut container = run.command(words.split(' ')).start();
        let code = container.code();
        (code, container.out().join("\n"), container.err().join("\n"))
    };
    assert_eq!(one_off("--version"), (0, concat!("guard ", env!("CARGO_PKG_VERSION")).to_owned(), String::new()));
    let (code, checked, _) = one_off("check");
    assert!(
        code == 0 && checked.lines().any(|line| line.contains("GUARD_STOP_TIMEOUT") && line.contains("7s")),
        "{checked}"
    );
    assert_eq!(one_off("check --restart sometimes").0, 125);
    let (code, _, why) = one_off("probe tcp://127.0.0.1:1");
    assert!(code == 1 && why.contains("refused"), "{why}");
    let (code, _, why) = one_off("probe http://nowhere.invalid/ --timeout 3s");
    assert!(code == 1 && why.contains("nowhere.invalid"), "{why}");
    assert_eq!(one_off("status").0, 125, "no guard runs there");
}

fn a_script_needs_a_shell() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("script");
    fs::write(&script, "echo from a script\n").expect("a file");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("its owner may");
    let mount = format!("--volume {}:/script:ro", script.display());

    let mut container = docker().options(&mount).command(["/script"]).start();
    container.line("from a script");
    assert_eq!(container.code(), 0);

    let mut container = scratch(Engine::Docker).options(&mount).command(["/script"]).start();
    assert_eq!(container.code(), 126);
    let failed = container.event("spawn-failed");
    assert_eq!(
        failed.get("error"),
        Some("it is no binary and has no #! line, and /bin/sh cannot run it: No such file or directory")
    );
    assert_eq!(container.names(), ["start", "spawn-failed", "end"]);
}

fn a_command_that_is_not_there_is_127() {
    for command in ["/no/such/app", "no-such-app"] {
        let mut container = scratch(Engine::Docker).command([command]).start();
        assert_eq!(container.code(), 127);
        let failed = container.event("spawn-failed");
        assert!(failed.get("error").is_some_and(|error| error.starts_with("no such file")), "{}", failed.line);
    }
}

/// What remains where not even /proc can be read: as in an engine that mounts none.
fn without_a_proc_the_group_is_swept() {
    let run = docker().options("--cap-add SYS_ADMIN --security-opt apparmor=unconfined --entrypoint sh");
    let fixture = "fixture fork as left serve . quit USR1 1 quit TERM 3 serve";
    let script = format!("umount --recursive --lazy /proc && exec guard -- {fixture}");
    let mut container = run.command(["-c", &script]).start();
    container.line("ready");
    container.kill("USR1");
    container.line("left got TERM");
    container.event("restart");
    container.line("ready");
    container.tell("stop");
    container.line("left got TERM");
    assert_eq!(container.code(), 3);
}
