//! Processes whose parents are gone, and that guard reaps.

use crate::common::{Guard, children, eventually, everywhere, send, sleeps_at_rest, status_field};
use std::fs;

#[test]
fn orphans_are_reaped() {
    for setup in everywhere() {
        let orphans = "fork fork setsid exit 0 . exit 0 . ".repeat(50);
        let mut guard = setup.fixture(&format!("fork {orphans} exit 0 . quit TERM 0 serve")).start();
        guard.line("ready");
        let pid = guard.pid();
        // The fixture never waits for its own child, and no init could do that for it.
        let main = eventually("a single child", || match children(pid)[..] {
            [main] => Some(main),
            _ => None,
        });
        assert!(!status_field(main, "State:").starts_with('Z'));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn orphans_do_not_end_the_app() {
    for setup in everywhere() {
        let words = "fork fork setsid as orphan ids serve . exit 0 . quit TERM 0 serve";
        let mut guard = setup.fixture(words).start();
        let orphan = guard.line_after("orphan pid ").parse().unwrap();
        guard.line("orphan ready");
        guard.line("ready");
        let outside = guard.pid_outside(orphan);
        let parent = guard.pid().to_string();
        eventually("orphan", || (status_field(outside, "PPid:") == parent).then_some(()));
        send(outside, libc::SIGKILL);
        eventually("reaped orphan", || (!fs::exists(format!("/proc/{outside}")).unwrap()).then_some(()));
        guard.signal(libc::SIGUSR2);
        guard.line("got USR2");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

/// Of several that end at once one SIGCHLD may tell, which names the first of them.
#[test]
fn who_ends_together_with_orphans_is_not_overlooked() {
    let unlimited = [("GUARD_MAX_RESTARTS", "unlimited"), ("GUARD_BACKOFF_INITIAL", "0"), ("GUARD_BACKOFF_MAX", "0")];
    for setup in everywhere() {
        let setup = unlimited.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        let mut guard = setup.fixture("fork as orphan fork serve . fork serve . exit 0 . ids serve").start();
        for _ in 0..50 {
            let main = guard.line_after("pid ").parse().expect("a pid");
            guard.line("ready");
            send(-guard.pid_outside(main), libc::SIGKILL);
        }
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143, "{}", guard.transcript());
    }
}

/// The only child that lives.
fn only_child(guard: &Guard) -> i32 {
    eventually("a single child", || match children(guard.pid())[..] {
        [main] if !status_field(main, "State:").starts_with('Z') => Some(main),
        _ => None,
    })
}

#[test]
fn a_stream_of_orphans_keeps_nobody_else_waiting_and_all_are_reaped() {
    let floods = "before-run 3 fork setsid as flood orphans . ".repeat(3);
    for setup in everywhere() {
        let mut guard = setup.fixture(&format!("{floods} ids quit TERM 7 serve")).start();
        for _ in 1..3 {
            let main = guard.line_after("pid ").parse().expect("a pid");
            guard.line("ready");
            guard.signal(libc::SIGUSR2);
            guard.line("got USR2");
            send(guard.pid_outside(main), libc::SIGKILL);
        }
        let main = guard.line_after("pid ").parse().expect("a pid");
        guard.line("ready");
        assert_eq!(only_child(&guard), guard.pid_outside(main));
        sleeps_at_rest(guard.pid());
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 7);
    }
}
