//! Guards with health checks, checks that leave notes, and a look at what is below guard.

use crate::common::{Event, Guard, Setup, descendants, eventually, program, status_field};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// Guard with a health check often enough for a test, and with time enough for a busy machine.
pub(crate) fn checked(setup: Setup, check: &str) -> Setup {
    let setup = setup.env("GUARD_HEALTH_CHECK", check).env("GUARD_STOP_TIMEOUT", "15s");
    setup.env("GUARD_HEALTH_INTERVAL", "30ms").env("GUARD_HEALTH_TIMEOUT", "15s")
}

/// The same, whose every failure counts.
pub(crate) fn strict(setup: Setup, check: &str) -> Setup {
    checked(setup, check).env("GUARD_HEALTH_START_PERIOD", "0").env("GUARD_READY", "exec")
}

/// A directory for checks to leave notes in, and the check that a script makes; it calls the directory DIR.
pub(crate) fn noting(script: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let script = script.replace("DIR", &directory.path().display().to_string());
    let path = program(directory.path(), "check", format!("#!/bin/sh\n{script}\n"), 0o755);
    (directory, format!("exec:'{}'", path.display()))
}

/// The check that fails when a run serves, not before: what a signal then does is what the fixture's words say. The directory
/// is that of the fixture's `serving`.
pub(crate) fn failing() -> (TempDir, String, String) {
    let (directory, check) = noting("until test -e DIR/serving-$GUARD_RUN; do sleep 0.01; done; exit 1");
    let serving = format!("serving {}", directory.path().display());
    (directory, check, serving)
}

/// The lines of a note, once there are so many.
pub(crate) fn notes(directory: &TempDir, name: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines in {name}"), || {
        let text = fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        Some(text.lines().map(str::to_owned).collect::<Vec<_>>()).filter(|lines| lines.len() >= count)
    })
}

pub(crate) fn touch(directory: &TempDir, name: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, "").expect("a temporary file can be written");
    path
}

/// All of one kind that were logged so far.
pub(crate) fn logged(guard: &Guard, name: &str) -> Vec<Event> {
    guard.events().into_iter().filter(|event| event.name() == name).collect()
}

/// Guard has this many processes below it, and no more: zombies count, too.
pub(crate) fn only(guard: &Guard, count: usize) {
    eventually(&format!("state with {count} processes below guard"), || {
        Some(()).filter(|()| descendants(guard.pid()).len() == count)
    });
}

/// Passes time, in which guard turns often: each question is an event and takes some milliseconds.
pub(crate) fn ask_often(guard: &Guard) {
    // On a busy machine an answer may take longer than the client waits by itself.
    (0..40).for_each(|_| assert_eq!(guard.ask(&["health", "--timeout", "20s"]).code, 0));
}

/// Whether a process is called so.
pub(crate) fn is(pid: i32, name: &str) -> bool {
    status_field(pid, "Name:") == name
}
