//! guard works in `/`, so that no volume is busy because of guard; the app, hooks and health checks, and relative paths,
//! notice nothing of that.

use crate::common::{Guard, Setup, child, eventually, everywhere, fixture_at, pid1, program, skipped};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn cwd(guard: &Guard) -> PathBuf {
    fs::read_link(format!("/proc/{}/cwd", guard.pid())).expect("guard runs")
}

/// A directory with a fixture called `app` in it.
fn directory() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    fixture_at(directory.path(), "app");
    let path = directory.path().to_str().unwrap().to_owned();
    (directory, path)
}

/// The fixture as `./app`, with these words.
fn app(setup: Setup, words: &str) -> Setup {
    setup.app(["./app"].into_iter().chain(words.split(' ')))
}

#[test]
fn guard_works_in_the_root_and_each_run_where_guard_was_started() {
    let (directory, path) = directory();
    for setup in everywhere() {
        let mut guard = app(setup.directory(directory.path()), "cwd before-run 2 exit 1 quit TERM 0 serve").start();
        for _run in 1..=2 {
            assert_eq!(guard.line_after("cwd "), path);
        }
        guard.line("ready");
        assert_eq!(cwd(&guard), Path::new("/"));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn relative_paths_are_meant_from_where_guard_was_started() {
    let (directory, path) = directory();
    fs::create_dir(directory.path().join("inner")).unwrap();
    fixture_at(&directory.path().join("inner"), "app");
    program(directory.path().join("inner").as_path(), "hook", "#!/bin/sh\nexec touch hooked", 0o755);
    program(directory.path().join("inner").as_path(), "check", "#!/bin/sh\nexec touch checked", 0o755);
    let at = |name: &str| directory.path().join(name);
    for setup in everywhere() {
        let setup = setup.directory(directory.path()).env("GUARD_CHDIR", "inner").env("GUARD_DRAIN_FILE", "draining");
        let setup = setup.env("GUARD_TERMINATION_LOG", "last").env("GUARD_PRE_STOP", "./hook");
        let setup = setup.env("GUARD_HEALTH_CHECK", "exec:./check");
        let mut guard = app(setup, "cwd before-run 2 exit 1 quit WINCH 7 serve").start();
        for _run in 1..=2 {
            assert_eq!(guard.line_after("cwd "), format!("{path}/inner"));
        }
        guard.line("ready");
        eventually("a check", || at("inner/checked").exists().then_some(()));
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        eventually("the hook", || at("inner/hooked").exists().then_some(()));
        assert!(at("draining").exists());
        guard.signal(libc::SIGWINCH);
        assert_eq!(guard.code(), 7);
        assert!(!at("draining").exists());
        assert!(fs::read_to_string(at("last")).unwrap().starts_with("exit code 7: "));
        for name in ["inner/checked", "inner/hooked", "last"] {
            fs::remove_file(at(name)).unwrap();
        }
    }
}

#[test]
fn a_directory_that_is_gone_is_named() {
    for by_variable in [true, false] {
        for setup in everywhere() {
            let (directory, path) = directory();
            let setup = if by_variable { setup.env("GUARD_CHDIR", &path) } else { setup.directory(directory.path()) };
            let setup = setup.env("GUARD_MAX_RESTARTS", "1");
            let mut guard = app(setup, "quit USR1 1 serve").start();
            guard.line("ready");
            drop(directory);
            guard.signal(libc::SIGUSR1);
            assert_eq!(guard.code(), 125);
            let name =
                if by_variable { format!("GUARD_CHDIR={path}: ") } else { format!("the working directory {path}: ") };
            let error = guard.event("spawn-failed").get("error").map(str::to_owned);
            assert_eq!(error, Some(name + "No such file or directory"));
        }
    }
}

/// The message for a file whose interpreter is missing names the file where the app would have found it.
#[test]
fn a_relative_file_that_cannot_be_executed_is_found_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    program(directory.path(), "app", "#!/no/such/interpreter", 0o755);
    for setup in everywhere() {
        let mut guard = setup.directory(directory.path()).app(["./app"]).start();
        assert_eq!(guard.code(), 127);
        let event = guard.event("spawn-failed");
        assert!(event.line.contains("app is there, but not the interpreter"), "{}", event.line);
    }
}

/// A container's user may work in a directory below one that only root may search.
#[test]
fn where_the_directory_cannot_be_entered_by_its_path_guard_stays_there() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("another user needs root");
    }
    let (directory, path) = directory();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fixture_at(&inner, "app");
    fs::set_permissions(&inner, Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    for setup in [Some(child()), pid1()].into_iter().flatten() {
        let setup = setup.directory(&inner).inherits("setuid 65534").env("GUARD_DRAIN_FILE", "draining");
        let mut guard = app(setup, "cwd before-run 2 exit 1 quit WINCH 0 serve").start();
        for _run in 1..=2 {
            assert_eq!(guard.line_after("cwd "), format!("{path}/inner"));
        }
        guard.line("ready");
        assert_eq!(cwd(&guard), inner);
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert!(inner.join("draining").exists());
        guard.signal(libc::SIGWINCH);
        assert_eq!(guard.code(), 0);
        assert!(!inner.join("draining").exists());
    }
}
