//! GUARD_HEALTH_CHECK: when a run is ready, and that an unhealthy one is replaced. tests/checks.rs has the checks themselves.

#![allow(clippy::disallowed_methods, reason = "the threads of the tests")]

use crate::common::checks::{ask_often, checked, failing, logged, notes, noting, strict, touch};
use crate::common::clock::between;
use crate::common::port::Port;
use crate::common::{DEADLINE, child, descendants, eventually, everywhere, fixture, program};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// A server that is well or not, and tells of each request.
struct Server {
    url: String,
    well: Arc<AtomicBool>,
    asked: Receiver<bool>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/health", listener.local_addr().expect("it is bound"));
        let well = Arc::new(AtomicBool::new(false));
        let (sender, asked) = channel();
        let state = well.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 1024]);
                let well = state.load(Ordering::SeqCst);
                let status = if well { "200 OK" } else { "503 Service Unavailable" };
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
                if sender.send(well).is_err() {
                    return;
                }
            }
        });
        Server { url, well, asked }
    }

    fn set(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }

    /// Waits for an answer of this kind.
    fn answers(&self, well: bool) {
        while self.asked.recv_timeout(DEADLINE).expect("a request") != well {}
    }
}

#[test]
fn the_first_success_is_readiness_and_ends_the_start_period() {
    for setup in everywhere() {
        let server = Server::start();
        let setup = checked(setup, &server.url).env("GUARD_HEALTH_RETRIES", "2");
        let mut guard = setup.fixture("env serve").start();
        guard.line("ready");
        (0..5).for_each(|_| server.answers(false));
        assert_eq!(guard.ask(&["ready"]).code, 1);
        server.set(true);
        guard.event("ready");
        assert_eq!(guard.ask(&["ready"]).code, 0);
        assert!(logged(&guard, "check-failed").is_empty(), "{}", guard.transcript());
        // In the middle of the start period of 60 s.
        server.set(false);
        for count in ["1", "2"] {
            let failed = guard.event("check-failed");
            assert_eq!((failed.get("count"), failed.get("limit")), (Some(count), Some("2")));
            assert!(failed.get("error").is_some_and(|error| error.contains("status 503")), "{}", failed.line);
        }
        assert_eq!(guard.event("failing").get("cause"), Some("health"));
        guard.line("got TERM");
        assert_eq!(guard.event("restart").get("count"), Some("1"));
        guard.line("env GUARD_LAST_EXIT=health");
        guard.line("ready");
        assert_eq!(guard.ask(&["ready"]).code, 1);
        server.set(true);
        assert_eq!(guard.event("ready").get("run"), Some("2"));
    }
}

#[test]
fn a_port_that_somebody_listens_at_is_readiness() {
    for setup in everywhere() {
        let port = Port::reserve();
        let setup = checked(setup, &format!("tcp://127.0.0.1:{}", port.number)).env("GUARD_LOG", "debug");
        let mut guard = setup.fixture("serve").start();
        let refused = guard.event("check");
        assert!(refused.line.contains("connection refused"), "{}", refused.line);
        assert_eq!(guard.ask(&["ready"]).code, 1);
        port.listen();
        guard.event("ready");
        assert_eq!(guard.ask(&["ready"]).code, 0);
    }
}

#[test]
fn a_command_that_exits_0_is_readiness() {
    for setup in everywhere() {
        let (directory, check) = noting("echo begun >> DIR/log; test -e DIR/well");
        let mut guard = checked(setup, &check).fixture("serve").start();
        notes(&directory, "log", 3);
        assert_eq!(guard.ask(&["ready"]).code, 1);
        touch(&directory, "well");
        guard.event("ready");
        assert_eq!(guard.ask(&["ready"]).code, 0);
    }
}

#[test]
fn failures_count_once_the_start_period_is_over() {
    for setup in everywhere() {
        let setup = strict(setup, "exec:false").env("GUARD_HEALTH_START_PERIOD", "1s");
        let mut guard = setup.fixture("serve").start();
        let start = guard.event("start");
        let failed = guard.event("check-failed");
        assert!(between(&start, &failed) >= Duration::from_millis(500), "{}", guard.transcript());
        assert!(failed.line.contains("exited with code 1"), "{}", failed.line);
        guard.event("failing");
    }
}

#[test]
fn unhealthy_runs_count_against_the_limit_and_are_failures_whatever_their_code() {
    for (words, code) in [("quit TERM 5", 5), ("quit TERM 0", 1)] {
        for setup in everywhere() {
            let (_directory, check, serving) = failing();
            let setup = strict(setup, &check).env("GUARD_MAX_RESTARTS", "2").env("GUARD_SUCCESS_CODES", "5");
            let setup = setup.env("GUARD_BACKOFF_INITIAL", "10ms").env("GUARD_NO_RESTART_CODES", "6");
            let mut guard = setup.fixture(&format!("{serving} {words} env serve")).start();
            assert_eq!(guard.code(), code);
            assert_eq!(logged(&guard, "failing").len(), 3);
            let said: Vec<_> =
                guard.out().into_iter().filter_map(|line| line.strip_prefix("env GUARD_LAST_EX")).collect();
            assert_eq!(said, ["IT=health", "IT=health"]);
            let give_up = logged(&guard, "give-up");
            assert_eq!(give_up.first().and_then(|event| event.get("last")), Some("health"), "{}", guard.transcript());
        }
    }
}

#[test]
fn a_success_in_between_begins_the_count_anew() {
    for setup in everywhere() {
        let script = "echo begun >> DIR/log; test $(($(wc -l < DIR/log) % 2)) = 0";
        let (directory, check) = noting(script);
        let setup = strict(setup, &check).env("GUARD_HEALTH_RETRIES", "2");
        let mut guard = setup.fixture("serve").start();
        notes(&directory, "log", 8);
        (0..3).for_each(|_| drop(guard.event("check-passed")));
        let counts: Vec<_> =
            logged(&guard, "check-failed").iter().map(|event| event.get("count") == Some("1")).collect();
        assert!(counts.len() >= 3 && counts.iter().all(|first| *first), "{}", guard.transcript());
        assert!(logged(&guard, "failing").is_empty(), "{}", guard.transcript());
    }
}

#[test]
fn a_new_run_that_is_not_well_is_no_reload() {
    for setup in everywhere() {
        let (directory, check) = noting("test ! -e DIR/ill-$GUARD_RUN");
        let setup = checked(setup, &check).env("GUARD_SIGNAL_MAP", "USR1=reload").env("GUARD_READY_TIMEOUT", "3s");
        let mut guard = setup.fixture("quit TERM 0 env serve").start();
        guard.event("ready");
        touch(&directory, "ill-2");
        guard.signal(libc::SIGUSR1);
        let failing = guard.event("failing");
        assert_eq!((failing.get("run"), failing.get("cause")), (Some("2"), Some("not-ready")));
        guard.event("reload-failed");
        assert_eq!(guard.ask(&["ready"]).code, 0);
        // The next one is well.
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.event("ready").get("run"), Some("3"));
        guard.event("reload");
        guard.line("env GUARD_RUN=3");
    }
}

#[test]
fn an_old_run_that_gets_ill_during_a_reload_does_not_wait_for_the_new_one() {
    for setup in everywhere() {
        let (directory, check) = noting("test ! -e DIR/ill-$GUARD_RUN");
        let setup = checked(setup, &check).env("GUARD_SIGNAL_MAP", "USR1=reload");
        let mut guard = setup.fixture("quit TERM 0 env serve").start();
        guard.event("ready");
        let ill = touch(&directory, "ill-2");
        guard.signal(libc::SIGUSR1);
        guard.line("env GUARD_RUN=2");
        touch(&directory, "ill-1");
        let failing = guard.event("failing");
        assert_eq!((failing.get("run"), failing.get("cause")), (Some("1"), Some("health")));
        assert_eq!(guard.event("exit").get("run"), Some("1"));
        fs::remove_file(ill).expect("it was there");
        assert_eq!(guard.event("ready").get("run"), Some("2"));
        guard.until_yes(&["ready"]);
        ask_often(&guard);
        assert!(logged(&guard, "restart").is_empty(), "{}", guard.transcript());
    }
}

#[test]
fn a_restart_asked_for_while_an_unhealthy_run_ends_does_not_count() {
    for setup in everywhere() {
        let (directory, check) = noting("test ! -e DIR/ill-$GUARD_RUN");
        let setup = checked(setup, &check).env("GUARD_SIGNAL_MAP", "USR1=restart").env("GUARD_MAX_RESTARTS", "0");
        let mut guard = setup.fixture("quit WINCH 7 env serve").start();
        guard.line("ready");
        guard.event("ready");
        touch(&directory, "ill-1");
        guard.event("failing");
        guard.line("got TERM");
        guard.signal(libc::SIGUSR1);
        guard.event("restart-in-place");
        guard.signal(libc::SIGWINCH);
        guard.line("env GUARD_RESTARTS=0");
        assert_eq!(guard.event("ready").get("run"), Some("2"));
    }
}

#[test]
fn a_run_that_never_gets_well_is_not_ready_in_time() {
    for setup in everywhere() {
        let setup = checked(setup, "exec:sh -c 'echo no database; exit 4'").env("GUARD_READY_TIMEOUT", "1s");
        let mut guard = setup.fixture("env before-run 2 serve exit 0").start();
        let failing = guard.event("failing");
        assert_eq!((failing.get("run"), failing.get("cause")), (Some("1"), Some("not-ready")));
        for part in ["GUARD_READY_TIMEOUT=1s", "no database"] {
            assert!(failing.line.contains(part), "{}", failing.line);
        }
        guard.line("env GUARD_LAST_EXIT=not-ready");
        assert_eq!(guard.code(), 0);
        assert!(logged(&guard, "check-failed").is_empty(), "{}", guard.transcript());
    }
}

#[test]
fn who_does_not_heed_the_stop_signal_is_killed_at_the_stop_timeout() {
    for setup in everywhere() {
        let (_directory, check, serving) = failing();
        let setup = strict(setup, &check).env("GUARD_STOP_TIMEOUT", "500ms").env("GUARD_RESTART", "never");
        let mut guard = setup.fixture(&format!("{serving} deaf")).start();
        assert_eq!(guard.code(), 137);
        assert!(guard.out().contains(&"got TERM"), "{}", guard.transcript());
        let (failing, kill) = (logged(&guard, "failing").remove(0), logged(&guard, "kill").remove(0));
        assert!(kill.line.contains("GUARD_STOP_TIMEOUT=500ms"), "{}", kill.line);
        assert!(between(&failing, &kill) >= Duration::from_millis(250), "{}", guard.transcript());
    }
}

/// Nobody waits two minutes, as on Fargate, for a run that serves nobody.
#[test]
fn a_failed_run_that_hangs_has_ten_seconds_however_long_the_stop_timeout_is() {
    let (_directory, check, serving) = failing();
    let setup = strict(child(), &check).env("GUARD_STOP_TIMEOUT", "2m").env("GUARD_RESTART", "never");
    let mut guard = setup.fixture(&format!("{serving} deaf")).start();
    assert_eq!(guard.code(), 137);
    let (failing, kill) = (logged(&guard, "failing").remove(0), logged(&guard, "kill").remove(0));
    assert!(between(&failing, &kill) >= Duration::from_millis(9_999), "{}", guard.transcript());
    assert!(kill.line.contains("after 10s") && !kill.line.contains("GUARD_STOP_TIMEOUT"), "{}", kill.line);
}

/// `timeout` puts itself and what it runs into a group of its own.
#[test]
fn what_a_killed_check_has_put_into_groups_of_its_own_goes_with_it() {
    for setup in everywhere() {
        let check = "exec:sh -c 'timeout 1000 sleep 1000 || exit 1'";
        let setup = checked(setup, check).env("GUARD_HEALTH_TIMEOUT", "200ms").env("GUARD_HEALTH_INTERVAL", "50ms");
        let mut guard = setup.env("GUARD_READY", "exec").env("GUARD_LOG", "debug").fixture("serve").start();
        guard.line("ready");
        for _ in 0..5 {
            assert!(guard.event("check").line.contains("GUARD_HEALTH_TIMEOUT"), "{}", guard.transcript());
        }
        // The app, and the three processes of the check that runs now.
        eventually("end of the checks", || (descendants(guard.pid()).len() <= 4).then_some(()));
    }
}

#[test]
fn an_unhealthy_run_is_not_drained_since_nobody_is_to_be_told() {
    for setup in everywhere() {
        let hook = format!("'{}' say hook exit 0", fixture().display());
        let (_directory, check, serving) = failing();
        let setup = strict(setup, &check).env("GUARD_DRAIN_DELAY", "1h").env("GUARD_STOP_TIMEOUT", "2h");
        let setup = setup.env("GUARD_PRE_STOP", hook).env("GUARD_RESTART", "never").env("GUARD_STOP_SIGNAL", "QUIT");
        let mut guard = setup.fixture(&format!("{serving} quit QUIT 3 serve")).start();
        assert_eq!(guard.code(), 3);
        assert!(!guard.out().contains(&"hook"), "{}", guard.transcript());
    }
}

#[test]
fn a_probe_needs_no_file_of_guards() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let guard = fs::read(env!("CARGO_BIN_EXE_guard")).expect("guard can be read");
        let path = program(directory.path(), "guard", guard, 0o755);
        let server = Server::start();
        let mut guard = checked(setup, &server.url).program(&path).fixture("serve").start();
        server.answers(false);
        fs::remove_file(&path).expect("it was there");
        program(directory.path(), "guard", "#!/bin/sh\nexit 0\n", 0o755);
        server.set(true);
        guard.event("ready");
        server.set(false);
        guard.event("failing");
    }
}
