//! Programs that go to the background by themselves.

use super::{app, begun, checked, drains, finishes_requests};
use crate::common::client::Client;
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::image::image;
use crate::steps::{address, crash};

tests![
    guard_says_how_to_keep_a_daemon_in_the_foreground,
    guard_says_so_of_setsid,
    guard_says_so_of_start_stop_daemon,
    guard_says_so_of_nginx,
    a_crash_of_a_daemon_that_tells_its_pid_leaves_its_port_free,
    a_daemon_that_tells_its_pid_gets_the_stop_signal,
    start_stop_daemon_in_the_foreground_finishes_requests,
];

/// It exits with 0, is not restarted, and leaves nothing behind.
fn is_told(run: Run) {
    let mut app = run.start();
    let hint = app.event("background");
    assert!(hint.line.contains("start it in the foreground"), "{}", hint.line);
    assert_eq!(app.code(), 0, "{}", app.transcript());
    assert!(app.said("restart").is_empty() && app.said("kill").is_empty(), "{}", app.transcript());
}

fn guard_says_how_to_keep_a_daemon_in_the_foreground() {
    is_told(app().command(["python3", "daemon.py"]));
}

fn guard_says_so_of_setsid() {
    is_told(app().command(["sh", "-c", "setsid node server.js & "]));
}

fn guard_says_so_of_start_stop_daemon() {
    is_told(app().command("start-stop-daemon --start --background --exec /usr/bin/node -- server.js".split(' ')));
}

fn guard_says_so_of_nginx() {
    is_told(Run::of(Engine::Docker, image(Engine::Docker, "servers")).command(["nginx"]));
}

/// It says by MAINPID which process it is then.
fn daemon() -> Container {
    let mut daemon = begun(app().env("GUARD_READY", "notify").command(["python3", "daemon.py", "tell"]));
    daemon.event("main-process");
    daemon
}

fn a_crash_of_a_daemon_that_tells_its_pid_leaves_its_port_free() {
    let mut daemon = daemon();
    let answers = |daemon: &Container| Client::connect(&address(daemon, 8080)).get("/", "pid ");
    answers(&daemon);
    crash(&mut daemon);
    assert_eq!(daemon.event("ready").get("run"), Some("2"));
    answers(&daemon);
}

fn a_daemon_that_tells_its_pid_gets_the_stop_signal() {
    let mut daemon = daemon();
    daemon.tell("stop");
    assert_eq!(daemon.code(), 143, "it has no handler");
    assert_eq!(daemon.said("exit").len(), 1, "the launcher's end was none of the run");
    assert!(daemon.said("leftovers").is_empty() && daemon.said("kill").is_empty(), "{}", daemon.transcript());
}

/// Without --background it becomes the program, with / as its directory.
fn start_stop_daemon_in_the_foreground_finishes_requests() {
    let line = "start-stop-daemon --start --exec /usr/bin/node -- /app/server.js";
    finishes_requests(checked(app().command(line.split(' '))), drains, 0);
}
