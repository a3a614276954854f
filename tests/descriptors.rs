//! Whatever opens with a run is closed with it.

use crate::common::{Guard, eventually, everywhere};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::{self, File};

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

/// Node sets O_NONBLOCK on pipes, and a Node that is killed does not take it back.
#[test]
fn no_run_inherits_the_flags_that_a_killed_one_has_set() {
    for setup in everywhere() {
        let stdin = File::open("/dev/null").expect("it is there");
        let setup = setup.stdin(stdin.try_clone().expect("a descriptor can be copied"));
        let set = "nonblock 0 nonblock 1 nonblock 2";
        let mut guard = setup.fixture(&format!("flags {set} before-run 3 die KILL flags exit 0")).start();
        let expected = ["end", "end", "end", "nonblock 0", "nonblock 1", "nonblock 2", "end"];
        assert_eq!((guard.code(), guard.out()), (0, expected.to_vec()), "{}", guard.transcript());
        let flags = fcntl(&stdin, FcntlArg::F_GETFL).expect("flags");
        assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK), "guard has left them as they were");
    }
}

/// A write that fails with EAGAIN loses what a program has to say, and one that waits for a moment loses nothing.
#[test]
fn a_run_beside_another_does_not_inherit_its_flags() {
    for setup in everywhere() {
        let mut guard = setup.fixture("flags nonblock 1 serve").start();
        assert_eq!(guard.lines_until("ready"), ["end"]);
        let reload = guard.ask(&["reload"]);
        assert_eq!(reload.code, 0, "{}", reload.err);
        guard.line("end");
        guard.signal(libc::SIGTERM);
        guard.code();
        let flags: Vec<_> =
            guard.out().into_iter().filter(|line| line.starts_with("nonblock") || *line == "end").collect();
        assert_eq!(flags, ["end"; 2], "{}", guard.transcript());
    }
}

#[test]
fn flags_that_guard_was_started_with_are_the_apps() {
    for setup in everywhere() {
        let stdin = File::open("/dev/null").expect("it is there");
        fcntl(&stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("flags");
        let mut guard = setup.stdin(stdin).fixture("flags before-run 2 exit 1 exit 0").start();
        assert_eq!((guard.code(), guard.out()), (0, ["nonblock 0", "end"].repeat(2)));
    }
}

#[test]
fn at_a_terminal_too() {
    for setup in everywhere() {
        let mut guard = setup.terminal().fixture("flags nonblock 0 before-run 2 die KILL serve").start();
        assert_eq!(guard.lines_until("ready"), ["end"; 2]);
    }
}
