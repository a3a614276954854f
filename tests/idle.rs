//! With nothing to do guard does not wake up at all.

use crate::common::operator::{self, GUARD, beside};
use crate::common::port::Port;
use crate::common::{Guard, Setup, eventually, pid1, sleeps_at_rest, status_field};

/// Nothing is due for an hour, and all the doors are open.
const ALL_DOORS: [(&str, &str); 7] = [
    ("GUARD_NODE_IPC", "on"),
    ("GUARD_WATCHDOG", "1h"),
    ("GUARD_HEALTH_CHECK", "exec:/bin/true"),
    ("GUARD_HEALTH_INTERVAL", "1h"),
    ("GUARD_DIAGNOSE", "USR1"),
    ("GUARD_MAX_LIFETIME", "2h"),
    ("GUARD_DRAIN_IDLE", "5s"),
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
        let [held, http] = [Port::reserve(), Port::reserve()].map(|port| format!("127.0.0.1:{}", port.number));
        // What comes beside a watched path wakes guard, and other tests make files.
        let directory = tempfile::tempdir().expect("a directory");
        let watched = directory.path().join("watched");
        std::fs::create_dir(&watched).expect("ours");
        let setup = setup.env("GUARD_LISTEN", held).env("GUARD_HTTP", http);
        let setup = setup.env("GUARD_ON_CHANGE", format!("{}=HUP", watched.display()));
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

fn ask(guard: &Guard, words: &[&str]) {
    let answer = if guard.is_pid1() { guard.ask(words) } else { beside(guard, &[&[GUARD], words].concat()) };
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// In KiB, once guard waits.
fn resident(guard: &Guard) -> u32 {
    rest(guard);
    let text = status_field(guard.pid(), "VmRSS:");
    text.strip_suffix(" kB").and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Each thing that guard does brings pages of its code into memory.
#[test]
fn memory_is_as_small_after_work_as_after_the_start() {
    let settings = [("GUARD_LOG", "debug"), ("GUARD_MAX_MEMORY", "100T"), ("GUARD_HEALTH_CHECK", "exec:/bin/true")];
    for (setup, settings) in
        alone().map(|setup| (setup, &settings[..0])).chain(alone().map(|setup| (setup, &settings[..])))
    {
        let setup = settings.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        let mut guard = setup.fixture("quit USR1 1 quit TERM 0 serve").start();
        guard.line("ready");
        let first = resident(&guard);
        let is_small =
            |guard: &Guard| eventually("a small guard", || (resident(guard) < first + first / 4).then_some(()));
        ask(&guard, &["status"]);
        is_small(&guard);
        guard.signal(libc::SIGUSR1);
        guard.line("ready");
        is_small(&guard);
        ask(&guard, &["restart"]);
        is_small(&guard);
        if !settings.is_empty() {
            guard.event("memory");
            is_small(&guard);
        }
    }
}
