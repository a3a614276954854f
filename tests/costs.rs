//! What is not asked for costs nothing: no descriptor, and no system call of a feature that is off.

use crate::common::{Guard, Setup, child, everywhere, in_path, skipped, sleeps_at_rest};
use std::fs;
use std::path::Path;

/// What guard has open besides what it was started with, by kind, in order.
fn open(guard: &Guard) -> Vec<String> {
    let directory = format!("/proc/{}/fd", guard.pid());
    let mut kinds: Vec<String> = fs::read_dir(directory)
        .expect("guard lives")
        .filter_map(|entry| {
            let entry = entry.expect("its own directory");
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?.display().to_string();
            let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind).to_owned();
            (number > 2).then(|| if kind == "anon_inode" { target } else { kind })
        })
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn a_guard_that_is_asked_for_nothing_has_no_descriptor_of_a_feature() {
    for setup in everywhere() {
        let mut guard = setup.fixture("serve").start();
        guard.line("ready");
        sleeps_at_rest(guard.pid());
        let kinds = open(&guard);
        let count = |what: &str| kinds.iter().filter(|kind| kind.contains(what)).count();
        // The poll, signals, the control socket; signal-hook's pipe, and stderr opened again for guard alone.
        let expected = [("eventpoll", 1), ("signalfd", 1), ("socket", 1), ("pipe", 3)];
        for (what, number) in expected {
            assert_eq!(count(what), number, "{what} of {kinds:?}");
        }
        // The kernel's count of its out-of-memory kills, and its notices of them, where there are such.
        let others = kinds.iter().filter(|kind| !expected.iter().any(|(what, _)| kind.contains(what)));
        assert!(others.clone().all(|kind| kind.contains("memory.") || kind.contains("eventfd")), "{kinds:?}");
    }
}

/// Guard under strace(1), which is no child of the test's and not guard's parent.
fn traced(setup: Setup, to: &Path) -> Setup {
    setup
        .program(in_path("strace").expect("the test has looked"))
        .options(["-D", "-qq", "-s", "200", "-o"])
        .options([to.as_os_str(), env!("CARGO_BIN_EXE_guard").as_ref()])
}

/// What features call or read. Before a drain nothing of it comes where they are off.
const OF_FEATURES: [&str; 14] = [
    "inotify",
    "timerfd",
    "smaps",
    "memory.max",
    "memory.limit_in_bytes",
    "cpu.max",
    "/etc/passwd",
    "/etc/group",
    "setgroups",
    "setresuid",
    "setrlimit",
    "/proc/net/tcp",
    "seccomp",
    "listen(",
];

/// What guard does from its start to its stop request, with a crash, a restart, a signal and a question on the way.
fn calls(settings: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    let setup = settings.iter().fold(child(), |setup, (name, value)| setup.env(name, value));
    let mut guard = traced(setup, &trace).fixture("quit HUP 1 quit TERM 0 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGHUP);
    guard.line("got HUP");
    guard.line("ready");
    guard.signal(libc::SIGUSR1);
    guard.line("got USR1");
    assert_eq!(guard.ask(&["ready"]).code, 0, "{}", guard.transcript());
    assert_eq!(guard.ask(&["restart"]).code, 0, "{}", guard.transcript());
    guard.line("ready");
    sleeps_at_rest(guard.pid());
    let calls = fs::read_to_string(&trace).expect("a trace");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0, "{}", guard.transcript());
    assert!(calls.contains("clone"), "{calls}");
    calls
}

#[test]
fn what_is_off_makes_no_system_call() {
    if in_path("strace").is_none() {
        return skipped("there is no strace");
    }
    let plain = calls(&[]);
    for what in OF_FEATURES {
        let found = plain.lines().find(|line| line.contains(what));
        assert_eq!(found, None, "{what}");
    }
    // What comes in a drain alone does not come before, though it is asked for.
    let asked = calls(&[("GUARD_DRAIN_IDLE", "1s"), ("GUARD_DIAGNOSE", "QUIT"), ("GUARD_MAX_LIFETIME", "1h")]);
    for what in OF_FEATURES {
        let found = asked.lines().find(|line| line.contains(what));
        assert_eq!(found, None, "{what}");
    }
    // The trace would show it.
    let limited = calls(&[("GUARD_MAX_MEMORY", "50%")]);
    assert!(limited.contains("memory.max") || limited.contains("memory.limit_in_bytes"), "{limited}");
}
