//! GUARD_PRE_STOP: what the hook is told, and that its failure changes nothing. What it waits for is in tests/stop.rs.

mod common;

use common::{Guard, Setup, everywhere, fixture};

/// The hook prints its environment, and fails.
fn setups() -> impl Iterator<Item = Setup> {
    let hook = format!("'{}' as hook env exit 1", fixture().display());
    let setup = move |setup: Setup| setup.env("GUARD_PRE_STOP", &hook).env("GUARD_STOP_TIMEOUT", "20s");
    everywhere().into_iter().map(setup)
}

/// What the hook was told: the signal, and the seconds that are left.
fn told(guard: &mut Guard) -> (Option<String>, String) {
    let lines = guard.lines_until("hook end");
    let value = |name: &str| {
        let entries = lines.iter().filter_map(|line| line.strip_prefix("hook env "));
        entries.filter_map(|entry| entry.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned).next()
    };
    assert_eq!(value("GUARD_STOP_TIMEOUT").as_deref(), Some("20"), "{lines:?}");
    assert_eq!(value("GUARD_RUN"), None, "a hook belongs to no run");
    (value("GUARD_STOP_SIGNAL_RECEIVED"), value("GUARD_STOP_TIME_LEFT").expect("the time that is left"))
}

#[test]
fn the_hook_knows_which_signal_came_and_how_long_it_has() {
    for (signal, name) in [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT")] {
        for setup in setups() {
            let mut guard = setup.fixture("quit TERM 0 quit INT 0 serve").start();
            guard.line("ready");
            guard.signal(signal);
            assert_eq!(told(&mut guard), (Some(name.to_owned()), "20".to_owned()));
            assert_eq!(guard.code(), 0, "its failure changes nothing");
            let failed = guard.events().into_iter().find(|event| event.name() == "pre-stop-ended");
            assert_eq!(failed.and_then(|event| event.get("code").map(str::to_owned)).as_deref(), Some("1"));
        }
    }
}

#[test]
fn without_a_signal_it_is_told_none() {
    for setup in setups() {
        let mut guard = setup.fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        assert_eq!(guard.ask(&["restart"]).code, 0);
        assert_eq!(told(&mut guard), (None, "20".to_owned()));
        guard.line("ready");
        assert_eq!(guard.ask(&["stop"]).code, 0);
        assert_eq!(told(&mut guard), (None, "20".to_owned()));
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn without_a_deadline_it_is_told_none() {
    for setup in setups() {
        let setup =
            setup.env("GUARD_STOP_TIMEOUT", "none").env("GUARD_PRE_STOP", "sh -c 'echo left $GUARD_STOP_TIME_LEFT'");
        let mut guard = setup.fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("left none");
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_hook_that_cannot_be_started_is_told_of() {
    for setup in setups() {
        let mut guard = setup.env("GUARD_PRE_STOP", "/not/there").fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert!(guard.event("pre-stop-failed").line.contains("no such file"));
        assert_eq!(guard.code(), 0);
    }
}
