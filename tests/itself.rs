//! `guard -- guard check`: behind an ENTRYPOINT the app is guard itself, which runs no app and stands in the outer one's place.

use crate::common::{self, Guard, Setup, child, everywhere, fixture};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;

const GUARD: &str = env!("CARGO_BIN_EXE_guard");

fn end(setup: Setup, expected: i32) -> Guard {
    let mut guard = setup.start();
    assert_eq!(guard.code(), expected, "{}", guard.transcript());
    guard
}

#[test]
fn check_shows_the_containers_own_settings_once() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_DRAIN_DELAY", "5s").env("GUARD_RESTART", "always").env("GUARD_BOGUS", "x");
        // Variables that an outer guard hands down are inherited too.
        let setup = setup.env("GUARD_RUN", "7").options(["--stable-after=3s", "--backoff-max=7s"]);
        let guard = end(setup.app([GUARD, "check", "--backoff-max=6s", "--", "true"]), 0);
        let rows = guard.out().iter().map(|line| line.split_whitespace().collect()).collect::<Vec<Vec<&str>>>();
        for row in [
            ["GUARD_DRAIN_DELAY", "5s", "environment"],
            ["GUARD_RESTART", "always", "environment"],
            ["GUARD_STABLE_AFTER", "3s", "--stable-after"],
            ["GUARD_BACKOFF_MAX", "6s", "--backoff-max"],
        ] {
            assert_eq!(rows.iter().filter(|found| **found == row).count(), 1, "{row:?}\n{}", guard.transcript());
        }
        assert!(guard.err().is_empty(), "no line of an outer guard's: {}", guard.transcript());
    }
}

/// The app is a script, so guard does not see that it will be guard.
#[test]
fn a_check_below_a_guard_says_that_it_does_not_see_the_settings() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_DRAIN_DELAY", "5s");
        let guard = end(setup.app(["sh", "-c", "\"$0\" check", GUARD]), 0);
        let hints = guard.out().iter().filter(|line| line.contains("--entrypoint guard")).count();
        assert_eq!(hints, 1, "{}", guard.transcript());
    }
}

#[test]
fn whatever_runs_no_app_has_guards_place() {
    for (words, code, said) in [
        (&["--version"][..], 0, concat!("guard ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], 0, "usage:"),
        (&["--restart=never", "-h"], 0, "usage:"),
        (&["stop", "--help"], 0, "guard stop"),
        (&["status", "--timeout=0"], 125, "no guard is running here"),
        (&["probe", "tcp://127.0.0.1:1"], 1, "tcp://127.0.0.1:1"),
        (&["ready", "--bogus"], 125, "--bogus"),
        (&["--bogus", "--", "true"], 125, "--bogus"),
        (&["check", "--restart=maybe"], 125, "GUARD_RESTART=maybe"),
        (&[], 125, "no command"),
    ] {
        let Some(setup) = common::pid1() else { return };
        // A mount namespace of its own comes with the PID namespace, so nobody else's guard answers.
        let guard = end(setup.env("GUARD_RESTART", "always").app([&[GUARD], words].concat()), code);
        let lines = [guard.out(), guard.err()].concat();
        assert!(lines.iter().any(|line| line.contains(said)), "{words:?}\n{}", guard.transcript());
        assert!(!lines.iter().any(|line| line.contains("event=")), "{words:?}\n{}", guard.transcript());
    }
}

#[test]
fn guard_is_known_by_its_file_whatever_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    symlink(GUARD, path("init")).unwrap();
    fs::create_dir(path("bin")).unwrap();
    symlink("../init", path("bin/tini")).unwrap();
    let search = format!("{}:{}", path("none").display(), path("bin").display());
    for command in [path("init").to_str().unwrap(), "tini"] {
        let guard = end(child().env("PATH", &search).app([command, "--version"]), 0);
        assert!(guard.err().is_empty(), "{}", guard.transcript());
    }
    let elsewhere = child().env("GUARD_CHDIR", directory.path()).app(["./init", "--version"]);
    assert!(end(elsewhere, 0).err().is_empty(), "a path from GUARD_CHDIR");
    // Another program of that name is an app like others.
    let script = "#!/bin/sh\necho \"$@ $GUARD_RUN\"\n";
    let other = common::program(directory.path(), "guard", script, 0o755);
    let guard = end(child().app([other.to_str().unwrap(), "--version"]), 0);
    assert_eq!(guard.out(), ["--version 1"]);
    assert_eq!(guard.events()[0].name(), "start");
}

/// npm has one script for all architectures, and a link to it.
#[test]
fn guard_is_known_by_the_script_of_its_npm_package() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let machine = path(&format!("package/{}", std::env::consts::ARCH));
    fs::create_dir_all(&machine).unwrap();
    fs::create_dir(path(".bin")).unwrap();
    fs::copy(GUARD, machine.join("guard")).unwrap();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/release/npm/guard"), path("package/guard")).unwrap();
    symlink("../package/guard", path(".bin/guard")).unwrap();
    let script = path(".bin/guard");
    let setup = child().env("PATH", "/usr/bin:/bin").env("GUARD_DRAIN_DELAY", "5s");
    let guard = end(setup.program(&script).app([script.to_str().unwrap(), "check"]), 0);
    let shows = |line: &&&str| line.starts_with("GUARD_DRAIN_DELAY") && line.contains("environment");
    assert_eq!(guard.out().iter().filter(shows).count(), 1, "{}", guard.transcript());
    assert!(guard.err().is_empty(), "no line of an outer guard's: {}", guard.transcript());
}

#[test]
fn a_nested_guard_that_runs_an_app_is_an_app() {
    for setup in everywhere() {
        let app = fixture().to_str().unwrap();
        let setup = setup.env("GUARD_STOP_TIMEOUT", "7s");
        let guard = end(setup.app([GUARD, "--restart=never", "--", app, "say", "inner", "exit", "0"]), 0);
        assert_eq!(guard.out(), ["inner"]);
        let starts = guard.events().iter().filter(|event| event.name() == "start").count();
        assert_eq!(starts, 2, "{}", guard.transcript());
    }
}

#[test]
fn signals_end_it_as_they_end_any_program() {
    // This server never answers, so the probe waits.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/");
    let mut guard = child().app([GUARD, "probe", &url, "--timeout", "1h"]).start();
    let (connection, _) = listener.accept().unwrap();
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.status().signal(), Some(libc::SIGTERM));
    drop(connection);
}
