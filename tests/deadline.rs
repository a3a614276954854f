//! The stop deadline is hard, and a crash is followed by a restart, whatever the app has become: a fork bomb, thousands of
//! processes, a starved CPU, a process that is hard to look at.

mod common;

use common::clock::between;
use common::pids::Pids;
use common::{Event, Guard, child, eventually, everywhere, pid1, status_field};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What guard may take from the deadline to its end, on a busy machine, and far more where it was built for debugging.
const SLACK: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2_000 } else { 600 });

/// These experiments take the whole machine, so each is alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn logged(guard: &Guard, name: &str) -> Event {
    let found = guard.events().into_iter().find(|event| event.name() == name);
    found.unwrap_or_else(|| panic!("no {name}\n{}", guard.transcript()))
}

/// Stops guard, which must kill in time, and end in time.
fn stop_in_time(guard: &mut Guard, timeout: Duration, codes: &[i32]) {
    guard.signal(libc::SIGTERM);
    let code = guard.code();
    assert!(codes.contains(&code), "{}", guard.transcript());
    let [drain, kill, end] = ["drain", "kill", "end"].map(|name| logged(guard, name));
    // A starved guard writes its first line some time after it has heard the signal.
    assert!(between(&drain, &kill) >= timeout / 2, "{}", guard.transcript());
    assert!(between(&drain, &end) <= timeout + SLACK, "{}", guard.transcript());
    // As far as there is time for names.
    assert!(kill.get("processes").is_none_or(|names| names.contains("fixture[")), "{}", kill.line);
}

/// Each way to be in the way: what the app does first, and its exit code at the stop.
fn workers_and_leftovers(words: &str) -> [(String, i32); 2] {
    [(format!("{words} deaf serve"), 137), (format!("{words} quit TERM 3 serve"), 3)]
}

#[test]
fn a_fork_bomb_does_not_move_the_deadline() {
    let _alone = alone();
    for (words, codes) in [
        ("fork bomb . deaf serve", &[137][..]),
        // The main process may be too starved to end in time.
        ("fork bomb . quit TERM 3 serve", &[3, 137]),
        ("fork setsid bomb . quit TERM 3 serve", &[3, 137]),
    ] {
        for setup in everywhere() {
            let Some(pids) = Pids::limited_to(400) else { return };
            let setup = setup.env("GUARD_STOP_TIMEOUT", "1s").inherits(&pids.words());
            let mut guard = setup.fixture(words).start();
            guard.line("ready");
            eventually("a bomb", || (pids.count() >= 390).then_some(()));
            stop_in_time(&mut guard, Duration::from_secs(1), codes);
            // Whoever was killed needs the CPU for its end, and elsewhere than below PID 1 somebody who reaps it.
            eventually("the end of all", || (pids.count() == 0).then_some(()));
        }
    }
}

#[test]
fn a_starved_cpu_does_not_move_the_deadline() {
    let _alone = alone();
    for (words, code) in workers_and_leftovers("spin 200") {
        for setup in everywhere() {
            let setup = setup.env("GUARD_STOP_TIMEOUT", "2s").inherits("cpu 0");
            let mut guard = setup.fixture(&words).start();
            guard.line("ready");
            stop_in_time(&mut guard, Duration::from_secs(2), &[code, 137]);
        }
    }
}

#[test]
fn thousands_of_idle_processes_do_not_move_the_deadline() {
    let _alone = alone();
    for (words, code) in workers_and_leftovers("crowd 2000") {
        for setup in everywhere() {
            let mut guard = setup.env("GUARD_STOP_TIMEOUT", "1s").fixture(&words).start();
            guard.line("ready");
            stop_in_time(&mut guard, Duration::from_secs(1), &[code]);
        }
    }
}

#[test]
fn a_crash_that_leaves_them_behind_is_followed_by_the_next_run() {
    let _alone = alone();
    for left in ["fork bomb .", "fork setsid bomb .", "crowd 2000", "fork setsid crowd 2000 as left serve ."] {
        for setup in everywhere() {
            let Some(pids) = Pids::limited_to(if left.contains("bomb") { 300 } else { 3000 }) else { return };
            let words = format!("before-run 2 {left} before-run 2 exit 1 quit TERM 0 serve");
            let mut guard = setup.inherits(&pids.words()).fixture(&words).start();
            let exit = guard.event("exit");
            let restart = guard.event("restart");
            assert!(between(&exit, &restart) < Duration::from_millis(2_500) + SLACK, "{}", guard.transcript());
            guard.line("ready");
            // guard, the app, and what unshare needs.
            eventually("the new run alone", || (pids.count() <= 3).then_some(()));
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 0);
        }
    }
}

/// Each process has a group of its own, and forks as soon as another one's end makes room. Elsewhere than as PID 1 guard cannot stop
/// all of them at one moment.
#[test]
fn a_bomb_of_many_sessions_is_over_before_the_next_run() {
    let Some(setup) = pid1() else { return };
    let _alone = alone();
    let Some(pids) = Pids::limited_to(300) else { return };
    let words = "before-run 2 fork session-bomb . before-run 2 exit 1 quit TERM 0 serve";
    let mut guard = setup.inherits(&pids.words()).fixture(words).start();
    guard.event("exit");
    guard.line("ready");
    eventually("the new run alone", || (pids.count() <= 3).then_some(()));
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
}

#[test]
fn with_the_group_the_stop_signal_waits_for_no_look() {
    let _alone = alone();
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "800ms").env("GUARD_SIGNAL_SCOPE", "group");
        let mut guard = setup.fixture("crowd 4000 linger 600 quit TERM 3 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 3, "it ended in time\n{}", guard.transcript());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the time that a client waits")]
fn an_environment_of_a_gigabyte_costs_guard_nothing() {
    let _alone = alone();
    for setup in everywhere() {
        let words = "before-run 2 fork setsid huge-env as left quit TERM 0 serve . quit USR1 1 quit TERM 0 serve";
        let mut guard = setup.fixture(words).start();
        guard.line("left ready");
        guard.line("ready");
        let begun = Instant::now();
        assert_eq!(guard.ask(&["status"]).code, 0);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        guard.signal(libc::SIGUSR1);
        // Its mark cannot be read, and no other run lives.
        guard.line("left got TERM");
        guard.line("ready");
        let peak = status_field(guard.pid(), "VmHWM:");
        let peak: u64 = peak.split(' ').next().and_then(|size| size.parse().ok()).expect("a size in kB");
        assert!(peak < 16_384, "{peak} kB");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

/// Below a guard that is not PID 1, which cannot signal a whole namespace.
#[test]
fn a_daemon_that_hops_from_pid_to_pid_ends_with_guard() {
    let _alone = alone();
    for daemon in ["fork hop .", "fork setsid hop ."] {
        let Some(pids) = Pids::limited_to(3000) else { return };
        let setup = child().env("GUARD_STOP_TIMEOUT", "1s").inherits(&pids.words());
        let mut guard = setup.fixture(&format!("{daemon} quit TERM 3 serve")).start();
        guard.line("hop");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        // Otherwise the daemon would hold guard's output.
        assert_eq!(guard.code(), 3);
        let [drain, end] = ["drain", "end"].map(|name| logged(&guard, name));
        assert!(between(&drain, &end) < Duration::from_secs(1) + SLACK, "{}", guard.transcript());
        assert_eq!(pids.count(), 0);
    }
}

/// Somebody who may mount has put another file system over /proc.
#[test]
fn a_forged_proc_with_a_cycle_holds_nothing_up() {
    let script = r#"
        [ "$GUARD_RUN" = 1 ] || exit 0
        setsid "$0" as left serve & pid=$!
        until grep -q fixture /proc/$pid/comm && grep -q '^State:.S' /proc/$pid/status; do :; done
        stat=$(cat /proc/$pid/stat)
        mount -t tmpfs none /proc
        mkdir -p /proc/thread-self /proc/$PPID/task/$PPID /proc/$pid/task/$pid
        ln -s $PPID /proc/self
        echo "$pid " > /proc/thread-self/children
        echo "$pid $pid " > /proc/$PPID/task/$PPID/children
        echo "$pid $PPID $pid " > /proc/$pid/task/$pid/children
        echo "$stat" > /proc/$pid/stat
        printf "GUARD_ID=$GUARD_ID\0GUARD_RUN=1\0GUARD_INSTANCE=0\0" > /proc/$pid/environ
        exit 1
    "#;
    let fixture = common::fixture().to_str().expect("UTF-8");
    let line = [env!("CARGO_BIN_EXE_guard"), "--", "/bin/sh", "-c", script, fixture];
    // guard reads its descendants in another way where it is not PID 1, here below a shell.
    for below in [&["-c", "exec \"$@\"", "sh"][..], &["-c", "\"$@\"; exit $?", "sh"]] {
        let Some(setup) = pid1() else { return };
        let mut guard = setup.program("/bin/sh").options(below.iter().chain(&line).copied()).start();
        guard.line("left got TERM");
        assert_eq!(guard.code(), 0);
        let leftovers = logged(&guard, "leftovers");
        assert_eq!(leftovers.get("count"), Some("1"), "{}", leftovers.line);
    }
}
