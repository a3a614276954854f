//! Health checks as processes: one at a time, ended in time with all that they started, and no part of the run.

use crate::common::checks::{ask_often, checked, is, logged, notes, noting, only, strict, touch};
use crate::common::{children, eventually, everywhere, fixture};
use std::fs;
use std::process::Stdio;

#[test]
fn a_check_that_hangs_is_killed_with_all_of_its_group() {
    for setup in everywhere() {
        let setup = strict(setup, "exec:sh -c 'echo asking; sleep 1000 & sleep 1000 & wait'")
            .env("GUARD_HEALTH_TIMEOUT", "200ms");
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1h");
        let mut guard = setup.env("GUARD_HEALTH_RETRIES", "2").fixture("deaf").start();
        let failed = guard.event("check-failed");
        assert_eq!(failed.get("error"), Some("took longer than GUARD_HEALTH_TIMEOUT=200ms: asking"));
        guard.event("failing");
        guard.line("got TERM");
        only(&guard, 1);
    }
}

#[test]
fn there_are_never_two_at_a_time() {
    for setup in everywhere() {
        let (directory, check) = noting("echo begin >> DIR/log; sleep 0.05; echo end >> DIR/log");
        let setup = checked(setup, &check).env("GUARD_HEALTH_INTERVAL", "5ms");
        let _guard = setup.fixture("serve").start();
        let lines = notes(&directory, "log", 16);
        for pair in lines[..16].chunks(2) {
            assert_eq!(pair, ["begin", "end"], "{lines:?}");
        }
    }
}

#[test]
fn a_check_ends_with_the_drain_and_none_follows() {
    for setup in everywhere() {
        let (directory, check) = noting("echo begun >> DIR/log; test ! -e DIR/hang || exec sleep 1000");
        let setup = checked(setup, &check).env("GUARD_DRAIN_DELAY", "1h").env("GUARD_STOP_TIMEOUT", "2h");
        let mut guard = setup.fixture("quit USR1 0 serve").start();
        guard.line("ready");
        let hang = touch(&directory, "hang");
        eventually("check that hangs", || children(guard.pid()).into_iter().find(|pid| is(*pid, "sleep")));
        let count = notes(&directory, "log", 1).len();
        fs::remove_file(hang).expect("it was there");
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        only(&guard, 1);
        ask_often(&guard);
        assert_eq!(notes(&directory, "log", 1).len(), count);
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.code(), 0);
        assert_eq!(notes(&directory, "log", 1).len(), count);
        assert!(logged(&guard, "check-failed").is_empty() && logged(&guard, "leftovers").is_empty());
    }
}

#[test]
fn a_loud_check_neither_hangs_nor_fills_the_log() {
    for setup in everywhere() {
        let check = "exec:sh -c 'yes loud | head -c 3000000; yes err | head -c 3000000 >&2; exit 1'";
        let mut guard = strict(setup, check).env("GUARD_HEALTH_RETRIES", "2").env("GUARD_RESTART", "never");
        guard = guard.fixture("serve");
        let mut guard = guard.start();
        assert_eq!(guard.code(), 143);
        let failed = logged(&guard, "check-failed");
        assert_eq!(failed.len(), 2, "{}", guard.transcript());
        for event in failed {
            let error = event.get("error").unwrap_or_default();
            assert!(error.starts_with("exited with code 1: loud\nloud") && error.len() <= 330, "{}", event.line);
        }
        assert!(guard.out().iter().all(|line| !line.contains("loud")), "{}", guard.transcript());
        assert!(guard.err().iter().all(|line| line.starts_with("guard time=")), "{}", guard.transcript());
    }
}

#[test]
fn a_command_that_is_not_there_is_named_at_once() {
    for setup in everywhere() {
        // In the start period, in which failures do not count.
        let setup = checked(setup, "exec:/no/such/check --deep").env("GUARD_READY_TIMEOUT", "500ms");
        let mut guard = setup.env("GUARD_RESTART", "never").fixture("serve").start();
        let event = guard.event("check-not-started");
        assert_eq!(event.get("level"), Some("warn"));
        assert!(event.line.contains("/no/such/check") && event.line.contains("no such file"), "{}", event.line);
        let failing = guard.event("failing");
        assert_eq!(failing.get("cause"), Some("not-ready"));
        assert!(failing.line.contains("no such file"), "{}", failing.line);
        assert_eq!(guard.code(), 143);
        assert_eq!(logged(&guard, "check-not-started").len(), 1, "once is enough: {}", guard.transcript());
    }
}

#[test]
fn a_check_knows_its_run_and_finds_nothing_at_stdin() {
    for setup in everywhere() {
        let (directory, check) = noting("env > DIR/new; cat >> DIR/new; echo end >> DIR/new; mv DIR/new DIR/seen");
        let setup = checked(setup, &check).env("GUARD_SIGNAL_MAP", "USR1=restart").stdin(Stdio::piped());
        let mut guard = setup.env("OWN", "value").fixture("quit TERM 0 serve").start();
        guard.event("ready");
        let lines = notes(&directory, "seen", 3);
        for line in ["GUARD_RUN=1", "GUARD_INSTANCE=0", "GUARD_STOP_TIMEOUT=15", "OWN=value", "end"] {
            assert!(lines.iter().any(|seen| seen == line), "{line}: {lines:?}");
        }
        let own = ["NOTIFY_SOCKET=", "GUARD_HEALTH_CHECK=", "GUARD_SIGNAL_MAP="];
        assert!(!lines.iter().any(|seen| own.iter().any(|name| seen.starts_with(name))), "{lines:?}");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.event("ready").get("run"), Some("2"));
        assert!(notes(&directory, "seen", 3).contains(&"GUARD_RUN=2".to_owned()));
        drop(guard.stdin.take());
    }
}

#[test]
fn a_check_dies_with_its_run_and_is_nobodys_orphan() {
    for setup in everywhere() {
        let (directory, check) = noting("echo begun >> DIR/log; exec sleep 1000");
        let setup = strict(setup, &check).env("GUARD_HEALTH_TIMEOUT", "1h").env("GUARD_LOG", "debug");
        let mut guard = setup.fixture("quit USR1 3 quit TERM 0 serve").start();
        for run in 1..4 {
            guard.line("ready");
            eventually("check that hangs", || children(guard.pid()).into_iter().find(|pid| is(*pid, "sleep")));
            notes(&directory, "log", run);
            if run < 3 {
                guard.signal(libc::SIGUSR1);
            }
        }
        only(&guard, 2);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        for event in ["reaped", "leftovers", "background", "unkillable"] {
            assert!(logged(&guard, event).is_empty(), "{}", guard.transcript());
        }
    }
}

#[test]
fn a_daemon_that_a_check_leaves_behind_ends_with_the_run() {
    for setup in everywhere() {
        let leave = format!(
            "test -e DIR/left && exit 0; touch DIR/left; exec '{}' fork setsid deaf serve . exit 0",
            fixture().display()
        );
        let (_directory, check) = noting(&leave);
        let setup = checked(setup, &check).env("GUARD_STOP_TIMEOUT", "5s");
        let mut guard = setup.fixture("quit USR1 3 serve").start();
        guard.event("ready");
        let app = "fixture";
        eventually("daemon", || {
            Some(()).filter(|()| children(guard.pid()).iter().filter(|pid| is(**pid, app)).count() == 2)
        });
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.event("leftovers").get("count"), Some("1"));
        // It is deaf.
        guard.event("kill");
        assert_eq!(guard.event("restart").get("last"), Some("3"));
        guard.event("ready");
        eventually("end of it", || {
            Some(()).filter(|()| children(guard.pid()).iter().filter(|pid| is(**pid, app)).count() == 1)
        });
    }
}
