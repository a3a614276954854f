//! What the pre-stop hook is told, and that a stop never depends on it. tests/stop.rs has its place in the order.

use crate::common::{Guard, Setup, child, descendants, eventually, everywhere, fixture, program, spawn};
use std::process::Stdio;

/// The fixture as a pre-stop hook.
fn hook(words: &str) -> String {
    format!("'{}' {words}", fixture().display())
}

/// An app whose hook prints its environment.
fn telling(setup: Setup) -> Setup {
    setup.env("GUARD_PRE_STOP", hook("as hook env exit 0")).env("GUARD_STOP_TIMEOUT", "20s")
}

/// The environment of the hook.
struct Told(Vec<String>);

impl Told {
    fn hear(guard: &mut Guard) -> Told {
        Told(guard.lines_until("hook end"))
    }

    /// A variable, which is there once at most.
    fn get(&self, name: &str) -> Option<&str> {
        let values =
            || self.0.iter().filter_map(|line| line.strip_prefix("hook env ")?.strip_prefix(name)?.strip_prefix('='));
        assert!(values().count() <= 1, "{name}: {:?}", self.0);
        values().next()
    }

    /// What is left is no more than there was, and not much less.
    fn is_left(&self, timeout: f64) {
        let left: f64 = self.get("GUARD_STOP_TIME_LEFT").and_then(|left| left.parse().ok()).expect("a number");
        assert!(left <= timeout && left > timeout / 2.0, "{left} of {timeout}");
    }
}

#[test]
fn the_hook_knows_which_signal_came_and_how_much_time_is_left() {
    // The one that came, whatever the app gets.
    for (signal, name, stop_signal) in [
        (libc::SIGTERM, "SIGTERM", ""),
        (libc::SIGINT, "SIGINT", ""),
        (libc::SIGTERM, "SIGTERM", "QUIT"),
        (libc::SIGWINCH, "SIGWINCH", "QUIT"),
    ] {
        for setup in everywhere() {
            let setup = telling(setup).env("GUARD_STOP_SIGNAL", stop_signal).env("GUARD_SIGNAL_MAP", "WINCH=stop");
            let mut guard = setup.fixture("quit TERM 0 quit INT 0 quit QUIT 0 serve").start();
            guard.line("ready");
            guard.signal(signal);
            let told = Told::hear(&mut guard);
            assert_eq!(told.get("GUARD_STOP_SIGNAL_RECEIVED"), Some(name));
            assert_eq!(told.get("GUARD_STOP_TIMEOUT"), Some("20"));
            told.is_left(20.0);
            assert_eq!(guard.code(), 0);
        }
    }
}

#[test]
fn no_signal_came_where_an_operator_asked() {
    for (words, signal, is_end) in
        [(&["stop"][..], None, true), (&["restart"], None, false), (&[], Some(libc::SIGUSR1), false)]
    {
        for setup in everywhere() {
            // As if from an outer guard.
            let setup = telling(setup).env("GUARD_STOP_SIGNAL_RECEIVED", "SIGHUP").env("GUARD_STOP_TIME_LEFT", "1");
            let mut guard = setup.env("GUARD_SIGNAL_MAP", "USR1=restart").fixture("quit TERM 0 serve").start();
            guard.line("ready");
            let client = match signal {
                Some(signal) => {
                    guard.signal(signal);
                    None
                }
                None => {
                    guard.until_yes(&["ready"]);
                    Some(spawn(guard.client(words).stdout(Stdio::null())))
                }
            };
            let told = Told::hear(&mut guard);
            assert_eq!(told.get("GUARD_STOP_SIGNAL_RECEIVED"), None, "{words:?}");
            told.is_left(20.0);
            assert!(client.is_none_or(|mut client| client.wait().is_ok_and(|status| status.success())), "{words:?}");
            if is_end {
                assert_eq!(guard.code(), 0);
            } else {
                guard.line("ready");
            }
        }
    }
}

#[test]
fn it_belongs_to_no_run_and_does_not_speak_for_one() {
    let setup = telling(child()).env("OWN", "value").env("GUARD_NODE_IPC", "on").env("GUARD_WATCHDOG", "1h");
    let mut guard = setup.fixture("quit TERM 0 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    let told = Told::hear(&mut guard);
    assert_eq!(told.get("OWN"), Some("value"));
    for name in ["GUARD_RUN", "GUARD_INSTANCE", "NOTIFY_SOCKET", "WATCHDOG_USEC", "NODE_CHANNEL_FD", "GUARD_PRE_STOP"] {
        assert_eq!(told.get(name), None, "{name}");
    }
}

#[test]
fn without_a_stop_timeout_there_is_no_end_of_the_time() {
    let mut guard = telling(child()).env("GUARD_STOP_TIMEOUT", "none").fixture("quit TERM 0 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    let told = Told::hear(&mut guard);
    assert_eq!((told.get("GUARD_STOP_TIMEOUT"), told.get("GUARD_STOP_TIME_LEFT")), (Some("none"), Some("none")));
    assert_eq!(guard.code(), 0);
}

#[test]
fn in_a_restart_too_it_is_killed_at_half_the_stop_timeout() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "2s").env("GUARD_SIGNAL_MAP", "USR1=restart");
        let setup = setup.env("GUARD_PRE_STOP", hook("fork deaf serve . as hook deaf"));
        let mut guard = setup.fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        assert!(guard.event("kill").line.contains("hook"));
        let ended = guard.event("pre-stop-ended");
        assert_eq!((ended.get("signal"), ended.get("level")), (Some("SIGKILL"), Some("info")), "guard's own doing");
        guard.line("got TERM");
        while guard.event("spawn").get("run") != Some("2") {}
    }
}

/// It has no mark by which it could be found later.
#[test]
fn what_a_killed_hook_has_put_into_groups_of_its_own_goes_with_it() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1s").env("GUARD_SIGNAL_MAP", "USR1=restart");
        let setup = setup.env("GUARD_PRE_STOP", hook("fork setpgid fork deaf serve . deaf serve . as hook deaf"));
        let mut guard = setup.fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        assert!(guard.event("kill").line.contains("hook"));
        while guard.event("spawn").get("run") != Some("2") {}
        eventually("the run alone", || (descendants(guard.pid()).len() == 1).then_some(()));
    }
}

#[test]
fn a_stop_has_its_hook_though_the_run_has_failed_and_ends_already() {
    for setup in everywhere() {
        let setup = telling(setup).env("GUARD_STOP_TIMEOUT", "4s").env("GUARD_READY", "notify");
        let mut guard = setup.env("GUARD_READY_TIMEOUT", "100ms").fixture("deaf serve").start();
        assert_eq!(guard.event("failing").get("cause"), Some("not-ready"));
        guard.signal(libc::SIGTERM);
        assert_eq!(Told::hear(&mut guard).get("GUARD_STOP_SIGNAL_RECEIVED"), Some("SIGTERM"));
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn a_hook_that_cannot_be_executed_or_dies_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = program(directory.path(), "plain", "#!/bin/sh\n", 0o644);
    let orphan = program(directory.path(), "orphan", "#!/no/such/shell\n", 0o755);
    for (broken, event, part) in [
        (plain.display().to_string(), "pre-stop-failed", "may not be executed"),
        (orphan.display().to_string(), "pre-stop-failed", "interpreter"),
        (directory.path().display().to_string(), "pre-stop-failed", "is a directory"),
        ("no-such-hook --now".to_owned(), "pre-stop-failed", "no-such-hook --now"),
        (hook("die SEGV"), "pre-stop-ended", "SIGSEGV"),
    ] {
        for setup in everywhere() {
            let mut guard = setup.env("GUARD_PRE_STOP", &broken).fixture("quit TERM 4 serve").start();
            guard.line("ready");
            guard.signal(libc::SIGTERM);
            let event = guard.event(event);
            assert_eq!(event.get("level"), Some("warn"), "{}", event.line);
            assert!(event.line.contains(part), "{part}: {}", event.line);
            guard.line("got TERM");
            assert_eq!(guard.code(), 4);
        }
    }
}
