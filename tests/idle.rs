//! With nothing to do guard does not wake up at all.

mod common;
#[path = "common/operator.rs"]
mod operator;

use common::{Guard, Setup, pid1, sleeps_at_rest, status_field};
use operator::{GUARD, beside};

/// Nothing is due for an hour, and all the doors are open.
const ALL_DOORS: [(&str, &str); 4] = [
    ("GUARD_NODE_IPC", "on"),
    ("GUARD_WATCHDOG", "1h"),
    ("GUARD_HEALTH_CHECK", "exec:/bin/true"),
    ("GUARD_HEALTH_INTERVAL", "1h"),
];

/// The app is a shell, so that a second passes for it and not for the test.
const RESTARTED: &str = "test $GUARD_RUN = 2 || exit 1; echo ready; sleep 1; echo later; read wait";

/// As PID 1, and as a child: in mount namespaces of their own, since whoever asks one guard of several asks them all.
fn alone() -> impl Iterator<Item = Setup> {
    pid1().into_iter().chain(operator::alone().map(|setup| setup.options([GUARD])))
}

fn wake_ups(guard: &Guard) -> String {
    status_field(guard.pid(), "voluntary_ctxt_switches:")
}

/// The wake-ups so far, once guard waits.
fn rest(guard: &Guard) -> String {
    sleeps_at_rest(guard.pid())
}

#[test]
fn no_wake_up_without_a_cause() {
    for setup in alone() {
        let mut guard = setup.terminal().app(["sh", "-c", RESTARTED]).start();
        guard.line("ready");
        let before = rest(&guard);
        guard.line("later");
        assert_eq!(wake_ups(&guard), before);
    }
}

#[test]
fn open_doors_wake_nobody() {
    for setup in alone() {
        let is_pid1 = setup.is_pid1();
        let setup = ALL_DOORS.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        let mut guard = setup.terminal().app(["sh", "-c", "sleep 3; echo later; read wait"]).start();
        guard.event("ready");
        let answer = if is_pid1 { guard.ask(&["ready"]) } else { beside(&guard, &[GUARD, "ready"]) };
        answer.yes("ready");
        let before = rest(&guard);
        // No key: what is typed wakes guard.
        guard.line("later");
        assert_eq!(wake_ups(&guard), before);
    }
}
