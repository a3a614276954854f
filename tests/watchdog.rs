//! GUARD_WATCHDOG: an app that hangs is found out, and replaced.

use crate::common::{self, Setup, everywhere, send};
use std::time::{Duration, Instant};

fn setups() -> impl Iterator<Item = Setup> {
    let setup = |setup: Setup| setup.env("GUARD_READY", "notify").env("GUARD_STOP_TIMEOUT", "5s");
    everywhere().into_iter().map(setup)
}

#[test]
fn an_app_that_falls_silent_is_aborted_and_replaced() {
    for setup in setups() {
        let setup = setup.env("GUARD_WATCHDOG", "150ms");
        // Without a handler it dies of the signal.
        let mut guard = setup.fixture("env notify READY=1 default ABRT before-run 2 serve exit 0").start();
        assert_eq!(guard.event("failing").get("cause"), Some("watchdog"));
        assert_eq!(guard.event("exit").get("signal"), Some("SIGABRT"));
        guard.line("env GUARD_LAST_EXIT=watchdog");
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn the_app_knows_its_time_and_that_it_is_meant() {
    for setup in setups() {
        let setup = setup.env("GUARD_WATCHDOG", "1m").env("WATCHDOG_USEC", "7").env("WATCHDOG_PID", "8");
        let mut guard = setup.fixture("ids env exit 0").start();
        let pid = guard.line_after("pid ");
        let lines = guard.lines_until("end");
        let values = |name: &str| -> Vec<&str> {
            lines.iter().filter_map(|line| line.strip_prefix("env ")?.strip_prefix(name)).collect()
        };
        assert_eq!((values("WATCHDOG_PID="), values("WATCHDOG_USEC=")), (vec![pid.as_str()], vec!["60000000"]));
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn without_a_watchdog_nothing_of_it_is_handed_over() {
    for setup in everywhere() {
        let mut guard = setup.env("WATCHDOG_USEC", "7").env("WATCHDOG_PID", "8").fixture("env exit 0").start();
        let lines = guard.lines_until("end");
        assert!(!lines.iter().any(|line| line.contains("WATCHDOG")), "{lines:?}");
    }
}

/// Nothing but guard has stood still.
#[expect(clippy::disallowed_methods, reason = "the time that guard stands still")]
#[test]
fn what_has_come_while_guard_stood_still_counts_before_the_deadline() {
    for setup in setups() {
        let setup = setup.env("GUARD_READY_TIMEOUT", "500ms");
        let mut guard = setup.fixture("ids on USR1 READY=1 serve").start();
        let pid = guard.line_after("pid ").parse().expect("a number");
        guard.line("ready");
        let begun = Instant::now();
        guard.signal(libc::SIGSTOP);
        guard.signal_inside(pid, libc::SIGUSR1);
        guard.line("got USR1");
        common::eventually("the timeout is over", || (begun.elapsed() > Duration::from_millis(550)).then_some(()));
        guard.signal(libc::SIGCONT);
        guard.event("ready");
    }
}

#[test]
fn it_begins_with_readiness() {
    for setup in setups() {
        let setup = setup.env("GUARD_WATCHDOG", "100ms");
        let mut guard = setup.fixture("on USR1 READY=1 default ABRT serve").start();
        guard.line("ready");
        // Each client takes some milliseconds.
        (0..60).for_each(|_| assert_eq!(guard.ask(&["ready"]).code, 1));
        assert!(!guard.events().iter().any(|event| event.name() == "failing"), "{}", guard.transcript());
        guard.signal(libc::SIGUSR1);
        guard.event("failing");
    }
}

#[test]
fn an_app_can_say_that_it_is_ill_set_another_time_and_switch_it_off() {
    for (words, silent) in [
        ("notify READY=1,WATCHDOG=trigger", false),
        ("notify WATCHDOG_USEC=100000,READY=1", false),
        ("notify READY=1 notify WATCHDOG_USEC=100000", false),
        ("notify READY=1,WATCHDOG_USEC=0", true),
    ] {
        for setup in setups() {
            let setup = setup.env("GUARD_WATCHDOG", if silent { "100ms" } else { "none" });
            let mut guard = setup.fixture(&format!("{words} default ABRT serve")).start();
            if silent {
                guard.event("ready");
                guard.line("ready");
                (0..60).for_each(|_| assert_eq!(guard.ask(&["ready"]).code, 0, "{words}"));
            } else {
                assert_eq!(guard.event("failing").get("cause"), Some("watchdog"), "{words}");
            }
        }
    }
}

#[test]
fn who_ignores_sigabrt_is_killed_after_five_seconds() {
    for setup in setups() {
        let setup = setup.env("GUARD_WATCHDOG", "100ms").env("GUARD_RESTART", "never");
        let worker = "fork setsid as worker linger 300 quit TERM 0 serve .";
        let mut guard = setup.fixture(&format!("{worker} notify READY=1 deaf serve")).start();
        guard.line("got ABRT");
        assert!(guard.event("kill").line.contains("still running 5s after SIGABRT"));
        // What is left has time of its own.
        guard.line("worker got TERM");
        guard.line("worker done");
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn a_stopped_app_can_be_aborted() {
    for setup in setups() {
        let setup = setup.env("GUARD_WATCHDOG", "100ms").env("GUARD_RESTART", "never");
        assert_eq!(setup.fixture("notify READY=1 freeze serve").start().code(), 134);
    }
}

#[test]
fn standing_still_together_is_no_failure() {
    for setup in setups() {
        // The watchdog is longer than what a busy machine may take between the thaw of one and of the other.
        let setup = setup.env("GUARD_WATCHDOG", "2s");
        let mut guard = setup.env("FIXTURE", common::fixture()).app(["sh", "-c", BEATS]).start();
        let app: i32 = guard.line_after("pid ").parse().expect("a pid");
        guard.event("ready");
        guard.line("beat");
        let (own, app) = (guard.pid(), guard.pid_outside(app));
        [app, own].into_iter().for_each(|pid| send(pid, libc::SIGSTOP));
        let mut clock = everywhere().remove(0).app(["sleep", "4"]).start();
        assert_eq!(clock.code(), 0);
        [app, own].into_iter().for_each(|pid| send(pid, libc::SIGCONT));
        (0..3).for_each(|_| guard.line("beat"));
        assert!(!guard.events().iter().any(|event| event.name() == "failing"), "{}", guard.transcript());
    }
}

/// A shell has no datagrams, so the fixture speaks for it.
const BEATS: &str = "echo pid $$; $FIXTURE notify READY=1 exit 0
while :; do $FIXTURE notify WATCHDOG=1 exit 0; echo beat; sleep 0.3; done";
