//! What an operator asks for: `guard stop`, `guard restart` and `guard reload`, which wait for their outcome.

use crate::common::operator::{GUARD, alone, beside, name};
use crate::common::{Answer, Guard, begin, child, descendants, eventually, everywhere, send, skipped};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Clients that ask for this, and have been heard.
fn clients(guard: &mut Guard, words: &[&str], count: usize) -> Vec<Child> {
    let clients = (0..count).map(|_| begin(&mut guard.client(words))).collect();
    (0..count).for_each(|_| drop(guard.event("asked")));
    clients
}

/// Ends a client without a word: what entered a namespace for it is its parent.
fn kill(mut client: Child) {
    let pid = i32::try_from(client.id()).expect("a pid");
    let client_itself = descendants(pid);
    client_itself.into_iter().chain([pid]).for_each(|pid| send(pid, libc::SIGKILL));
    client.wait().expect("it has ended");
}

#[test]
fn a_restart_is_answered_when_the_new_run_is_ready_and_does_not_count() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_RESTARTS", "1").env("GUARD_READY", "notify");
        let mut guard = setup.fixture("env notify READY=1 serve").start();
        guard.event("ready");
        for number in 2..5 {
            guard.ask(&["restart"]).yes(&format!("restarted: run {number} is ready"));
        }
        let lines = guard.lines_until("env GUARD_RUN=4");
        assert!(lines.iter().all(|line| !line.starts_with("env GUARD_RESTARTS=") || line.ends_with("=0")), "{lines:?}");
    }
}

#[test]
fn a_reload_is_answered_when_the_old_run_is_over_and_does_not_count() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_RESTARTS", "1").env("GUARD_READY", "notify");
        let mut guard = setup.fixture("notify READY=1 serve").start();
        guard.event("ready");
        for number in 2..5 {
            guard.ask(&["reload"]).yes(&format!("reloaded: run {number} is ready"));
            let status = guard.ask(&["status", "--json"]).out;
            assert!(status.contains(&format!(r#""run":{number},"#)) && status.contains(r#""restarts":0"#), "{status}");
        }
        let old: Vec<_> = (1..4).map(|_| guard.event("exit").get("run").expect("a run").to_owned()).collect();
        assert_eq!(old, ["1", "2", "3"]);
    }
}

#[test]
fn a_reload_whose_new_run_fails_is_answered_with_no_and_the_old_run_stays() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify");
        let mut guard = setup.fixture("before-run 2 notify READY=1 before-run 2 serve exit 1").start();
        guard.event("ready");
        guard.ask(&["reload"]).no("not reloaded: the new run failed before it was ready; the old run stays");
        guard.ask(&["ready"]).yes("ready");
    }
}

#[test]
fn a_reload_that_is_asked_for_during_another_follows_it() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify").env("GUARD_READY_TIMEOUT", "1h");
        let mut guard = setup.fixture("on USR1 READY=1 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        guard.event("ready");
        let first = clients(&mut guard, &["reload"], 1);
        guard.line("ready");
        let second = clients(&mut guard, &["reload"], 2);
        guard.event("queued");
        guard.signal(libc::SIGUSR1);
        first.into_iter().for_each(|client| Answer::of(client).yes("reloaded: run 2 is ready"));
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        second.into_iter().for_each(|client| Answer::of(client).yes("reloaded: run 3 is ready"));
    }
}

#[test]
fn a_restart_whose_new_run_fails_is_answered_with_no() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify");
        let mut guard = setup.fixture("before-run 2 notify READY=1 before-run 2 serve exit 1").start();
        guard.event("ready");
        guard.ask(&["restart"]).no("not restarted: the new run failed before it was ready");
    }
}

/// Its end is guard's own, and as PID 1 that of everybody: the client has a moment to read its answer.
#[test]
fn a_restart_that_ends_guard_is_answered_too() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify").env("GUARD_RESTART", "never");
        let mut guard = setup.fixture("before-run 2 notify READY=1 before-run 2 serve exit 7").start();
        guard.event("ready");
        guard.ask(&["restart"]).no("not restarted: the new run failed before it was ready");
        assert_eq!(guard.code(), 7);
    }
}

#[test]
fn a_restart_in_a_backoff_does_not_wait_for_its_end() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
        let mut guard = setup.fixture("before-run 3 exit 1 serve").start();
        guard.event("restart");
        guard.event("restart");
        guard.ask(&["restart"]).yes("restarted: run 3 is ready");
    }
}

#[test]
fn a_restart_during_a_stop_is_answered_with_no() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "20s").fixture("deaf serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        guard.ask(&["restart"]).no("not restarted: guard is stopping");
    }
}

#[test]
fn a_stop_is_answered_before_everything_is_killed() {
    for setup in everywhere() {
        let mut guard = setup.fixture("quit TERM 3 serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let answer = guard.ask(&["stop"]);
        assert!(
            answer.code == 0 && answer.out.starts_with("stopped: asked to stop; run 1 exited with code 3"),
            "{answer:?}"
        );
        assert_eq!(guard.code(), 3);
    }
}

#[test]
fn a_restart_whose_new_run_ends_guard_is_answered_too() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_NO_RESTART_CODES", "3").env("GUARD_READY", "notify");
        let mut guard = setup.fixture("before-run 2 notify READY=1 before-run 2 serve exit 3").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        guard.ask(&["restart"]).no("not restarted: the new run failed before it was ready");
        assert_eq!(guard.code(), 3);
    }
}

#[test]
fn a_stop_that_needs_a_kill_came_all_the_same() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "300ms").fixture("deaf serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let answer = guard.ask(&["stop"]);
        assert!(answer.code == 0 && answer.out.contains("killed after GUARD_STOP_TIMEOUT=300ms"), "{answer:?}");
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn who_asks_later_is_answered_too() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "20s").fixture("quit USR1 0 serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let clients = clients(&mut guard, &["stop"], 3);
        guard.line("got TERM");
        guard.signal(libc::SIGUSR1);
        for client in clients {
            let answer = Answer::of(client);
            assert!(answer.code == 0 && answer.out.starts_with("stopped: asked to stop; run 1 exited"), "{answer:?}");
        }
        assert_eq!(guard.code(), 0);
        assert_eq!(guard.out(), ["ready", "got TERM", "got CONT", "got USR1"], "asking again changes nothing");
    }
}

#[test]
fn a_client_that_dies_holds_up_nothing() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "20s").fixture("quit USR1 0 serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        clients(&mut guard, &["stop"], 1).into_iter().for_each(kill);
        guard.line("got TERM");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.code(), 0);
    }
}

/// guard lets 64 clients wait at a time.
#[test]
fn clients_that_have_died_take_no_place() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify").env("GUARD_READY_TIMEOUT", "1h");
        let mut guard = setup.fixture("before-run 2 notify READY=1 serve").start();
        guard.event("ready");
        clients(&mut guard, &["restart"], 64).into_iter().for_each(kill);
        guard.line("ready");
        let last = begin(&mut guard.client(&["restart", "--timeout", "100ms"]));
        guard.event("asked");
        assert_eq!(Answer::of(last).code, 124);
    }
}

#[test]
fn a_guard_that_stands_still_is_not_waited_for() {
    for setup in everywhere() {
        let mut guard = setup.fixture("serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        guard.signal(libc::SIGSTOP);
        let answer = guard.ask(&["ready", "--timeout", "200ms"]);
        assert_eq!(answer.code, 124, "{answer:?}");
        guard.signal(libc::SIGCONT);
        guard.until_yes(&["ready"]).yes("ready");
    }
}

#[test]
fn two_who_ask_for_a_restart_get_the_same_one() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "20s").fixture("quit USR1 0 serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let clients = clients(&mut guard, &["restart"], 2);
        guard.line("got TERM");
        guard.signal(libc::SIGUSR1);
        clients.into_iter().for_each(|client| Answer::of(client).yes("restarted: run 2 is ready"));
    }
}

#[test]
fn a_restart_goes_on_without_the_one_who_asked_for_it() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "20s").fixture("quit USR1 0 serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        clients(&mut guard, &["restart"], 1).into_iter().for_each(kill);
        guard.line("got TERM");
        guard.signal(libc::SIGUSR1);
        guard.line("ready");
        guard.ask(&["ready"]).yes("ready");
    }
}

#[test]
fn a_stop_ends_the_wait_for_a_restart() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "20s").fixture("deaf serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let clients = clients(&mut guard, &["restart"], 1);
        guard.line("got TERM");
        guard.signal(libc::SIGTERM);
        clients.into_iter().for_each(|client| Answer::of(client).no("not restarted: guard is stopping"));
    }
}

#[test]
fn who_loses_patience_changes_nothing() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "20s").fixture("quit USR1 4 serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let answer = guard.ask(&["stop", "--timeout", "200ms"]);
        assert_eq!((answer.code, answer.err.as_str()), (124, "guard: guard has not answered in time\n"));
        guard.line("got TERM");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.code(), 4);
    }
}

#[test]
fn the_death_of_guard_ends_the_wait() {
    let mut guard = child().env("GUARD_STOP_TIMEOUT", "5s").fixture("deaf serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let clients = clients(&mut guard, &["stop"], 1);
    guard.signal(libc::SIGKILL);
    for client in clients {
        let answer = Answer::of(client);
        assert_eq!((answer.code, answer.err.as_str()), (124, "guard: guard has ended without an answer\n"));
    }
}

#[test]
fn a_flood_of_requests_delays_nothing() {
    let Some(setup) = alone() else { return };
    let setup = setup.env("GUARD_STOP_TIMEOUT", "5s").options([GUARD]);
    let mut guard = setup.fixture("before-run 2 quit USR1 1 serve").start();
    guard.line("ready");
    eventually("guard", || (beside(&guard, &[GUARD, "ready"]).code == 0).then_some(()));
    let (pid, sent) = (guard.pid(), AtomicUsize::new(0));
    let flood = |number| {
        let own = SocketAddr::from_abstract_name(format!("flood/{pid}/{number}")).expect("a name");
        let socket = UnixDatagram::bind_addr(&own).expect("a socket");
        let address = SocketAddr::from_abstract_name(name(pid)).expect("a name");
        // Until guard's end closes the other one.
        while socket.send_to_addr(b"guard 1 status", &address).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    };
    let more = |count| {
        let goal = sent.load(Ordering::Relaxed) + count;
        eventually("flood", || (sent.load(Ordering::Relaxed) >= goal).then_some(()));
    };
    // guard ends with this block, and the flood with guard.
    thread::scope(|scope| {
        let mut guard = guard;
        // More of them than guard can keep up with.
        let flood = &flood;
        (0..4).for_each(|number| drop(scope.spawn(move || flood(number))));
        more(1_000);
        guard.signal(libc::SIGUSR1);
        guard.event("restart");
        guard.line("ready");
        more(1_000);
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 143, "nobody had to be killed: guard was on time");
    });
    assert!(sent.into_inner() > 2_000);
}

/// Its exit waits for a file that nobody can close.
#[test]
fn a_run_that_sigkill_does_not_end_is_not_ready() {
    for setup in everywhere().into_iter().filter(|_| nix::unistd::geteuid().is_root()) {
        let setup = setup.env("GUARD_READY", "notify").env("GUARD_STOP_TIMEOUT", "1s");
        let mut guard = setup.fixture("hung-file READY=1 1").start();
        if guard.line_after("fuse ") == "no" {
            return skipped("there is no /dev/fuse");
        }
        guard.event("ready");
        for _ in 0..2 {
            guard.ask(&["restart"]).no("not restarted: SIGKILL does not end the old run");
            guard.ask(&["ready"]).no("not ready: the app is stopping");
        }
        assert_eq!(guard.ask(&["health"]).code, 0);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137);
    }
}
