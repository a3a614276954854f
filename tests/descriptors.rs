//! Whatever opens with a run is closed with it.

mod common;

use common::{Guard, eventually, everywhere};
use std::fs;

fn open_descriptors(guard: &Guard) -> usize {
    fs::read_dir(format!("/proc/{}/fd", guard.pid())).expect("guard lives").count()
}

const ALL_DOORS: [(&str, &str); 7] = [
    ("GUARD_READY", "notify"),
    ("GUARD_NODE_IPC", "on"),
    ("GUARD_WATCHDOG", "1h"),
    ("GUARD_HEALTH_CHECK", "exec:/bin/true"),
    ("GUARD_HEALTH_INTERVAL", "20ms"),
    ("GUARD_PRE_STOP", "/bin/true"),
    // Half of it passes before the signal, as nobody here listens on the channel.
    ("GUARD_STOP_TIMEOUT", "200ms"),
];

#[test]
fn after_many_runs_as_many_are_open_as_in_the_first() {
    for setup in everywhere() {
        let setup = ALL_DOORS.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        let setup = setup.env("GUARD_MAX_RESTARTS", "unlimited").env("GUARD_BACKOFF_MAX", "1ms");
        let mut guard =
            setup.env("GUARD_BACKOFF_INITIAL", "1ms").fixture("notify READY=1 quit USR1 1 quit TERM 0 serve").start();
        guard.event("ready");
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let first = open_descriptors(&guard);
        for _ in 0..10 {
            guard.signal(libc::SIGUSR1);
            guard.event("ready");
            guard.line("ready");
            assert_eq!(guard.ask(&["restart"]).code, 0);
            guard.line("ready");
        }
        // A health check has a pipe of its own while it runs, now and then.
        eventually("as few descriptors", || (open_descriptors(&guard) <= first).then_some(()));
        let status = guard.ask(&["status", "--json"]).out;
        assert!(status.contains(r#""run":21,"#) && status.contains(r#""restarts":10,"#), "{status}");
    }
}
