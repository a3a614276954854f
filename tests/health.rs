//! GUARD_HEALTH_CHECK: who does not answer is replaced, which plain Docker never does.

#![allow(clippy::disallowed_methods, reason = "the servers of the tests have threads")]

mod common;

use common::{Guard, Setup, descendants, eventually, everywhere, program};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Fast checks, without a start period.
fn setups() -> impl Iterator<Item = Setup> {
    everywhere().into_iter().map(|setup| {
        let setup = setup.env("GUARD_HEALTH_INTERVAL", "50ms").env("GUARD_HEALTH_START_PERIOD", "0");
        setup.env("GUARD_STOP_TIMEOUT", "700ms")
    })
}

/// A check that passes exactly while a file is there.
fn there(file: &Path) -> String {
    format!("exec:test -e '{}'", file.display())
}

fn count(guard: &Guard, name: &str) -> usize {
    guard.events().iter().filter(|event| event.name() == name).count()
}

/// A server that answers with 200 while it is told to, and with 500 otherwise.
fn server(well: &Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let well = Arc::clone(well);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let status = if well.load(Ordering::SeqCst) { "200 OK" } else { "500 Oops" };
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}

#[test]
fn the_first_success_is_readiness_and_failing_in_a_row_replaces_the_run() {
    for setup in setups() {
        let well = Arc::new(AtomicBool::new(false));
        let setup = setup.env("GUARD_HEALTH_CHECK", format!("http://{}/health", server(&well)));
        let setup = setup.env("GUARD_HEALTH_START_PERIOD", "1m").env("GUARD_HEALTH_RETRIES", "2");
        let mut guard = setup.fixture("env serve").start();
        guard.line("ready");
        assert_eq!(guard.ask(&["ready"]).code, 1, "GUARD_READY is health where there is a check");
        well.store(true, Ordering::SeqCst);
        guard.event("ready");
        assert_eq!(guard.ask(&["ready"]).code, 0);
        well.store(false, Ordering::SeqCst);
        let failed = guard.event("check-failed");
        assert_eq!((failed.get("count"), failed.get("limit")), (Some("1"), Some("2")));
        assert!(failed.get("error").is_some_and(|error| error.contains("status 500")), "{}", failed.line);
        assert_eq!(guard.event("failing").get("cause"), Some("health"));
        guard.line("env GUARD_LAST_EXIT=health");
        assert_eq!(guard.event("restart").get("count"), Some("1"), "it counts");
    }
}

#[test]
fn a_port_is_enough_for_tcp() {
    for setup in setups() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let setup = setup.env("GUARD_HEALTH_CHECK", format!("tcp://{address}")).env("GUARD_HEALTH_RETRIES", "1");
        let mut guard = setup.fixture("serve").start();
        guard.event("ready");
        drop(listener);
        assert!(guard.event("check-failed").line.contains("connection refused"));
        guard.event("failing");
    }
}

#[test]
fn giving_up_is_a_failure_whatever_the_app_exits_with() {
    for setup in setups() {
        let setup = setup.env("GUARD_HEALTH_CHECK", "exec:false").env("GUARD_HEALTH_RETRIES", "2");
        let setup = setup.env("GUARD_MAX_RESTARTS", "1").env("GUARD_READY", "exec");
        let mut guard = setup.fixture("quit TERM 0 serve").start();
        assert_eq!(guard.code(), 1);
        assert_eq!(count(&guard, "failing"), 2);
        assert!(guard.err().last().is_some_and(|line| line.contains("(health)")), "{}", guard.transcript());
    }
}

#[test]
fn a_failure_in_between_is_forgiven() {
    for setup in setups() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("well");
        fs::write(&file, "").expect("a file");
        let setup = setup.env("GUARD_HEALTH_CHECK", there(&file)).env("GUARD_HEALTH_RETRIES", "1000");
        let mut guard = setup.fixture("serve").start();
        guard.event("ready");
        for _ in 0..3 {
            fs::remove_file(&file).expect("it is there");
            assert_eq!(guard.event("check-failed").get("count"), Some("1"));
            fs::write(&file, "").expect("a file");
            guard.event("check-passed");
        }
    }
}

#[test]
fn in_the_start_period_failures_do_not_count() {
    for setup in setups() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let check = format!("exec:sh -c 'echo >> {}; exit 1'", log.display());
        let setup = setup.env("GUARD_HEALTH_CHECK", check).env("GUARD_HEALTH_RETRIES", "1");
        let setup = setup.env("GUARD_HEALTH_START_PERIOD", "1h").env("GUARD_READY", "exec");
        let mut guard = setup.fixture("serve").start();
        guard.line("ready");
        eventually("ten checks", || (fs::read(&log).map_or(0, |bytes| bytes.len()) >= 10).then_some(()));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        assert_eq!(count(&guard, "failing"), 0);
    }
}

#[test]
fn who_never_gets_well_in_time_is_not_ready() {
    for setup in setups() {
        let setup = setup.env("GUARD_HEALTH_CHECK", "exec:false").env("GUARD_HEALTH_START_PERIOD", "1h");
        let setup = setup.env("GUARD_READY_TIMEOUT", "200ms").env("GUARD_RESTART", "never");
        let mut guard = setup.fixture("serve").start();
        assert_eq!(guard.event("failing").get("cause"), Some("not-ready"));
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn a_check_that_hangs_is_killed_with_all_that_it_started() {
    for setup in setups() {
        let setup = setup.env("GUARD_HEALTH_CHECK", "exec:sh -c 'sleep 1000 & wait'").env("GUARD_READY", "exec");
        let setup = setup.env("GUARD_HEALTH_TIMEOUT", "100ms").env("GUARD_HEALTH_RETRIES", "1000");
        let mut guard = setup.fixture("serve").start();
        for _ in 0..3 {
            assert!(guard.event("check-failed").line.contains("took longer than GUARD_HEALTH_TIMEOUT=100ms"));
        }
        // The app and its like, and one check with its child at most.
        assert!(descendants(guard.pid()).len() <= 3, "{}", guard.transcript());
    }
}

#[test]
fn checks_never_overlap_and_end_with_the_drain() {
    for setup in setups() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let check = format!("exec:sh -c 'echo begin >> {0}; sleep 0.1; echo end >> {0}'", log.display());
        let setup = setup.env("GUARD_HEALTH_CHECK", check).env("GUARD_HEALTH_INTERVAL", "10ms");
        let setup = setup.env("GUARD_STOP_TIMEOUT", "20s").env("GUARD_DRAIN_DELAY", "500ms");
        let mut guard = setup.fixture("serve").start();
        let lines = || fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
        eventually("some checks", || (lines().len() >= 7).then_some(()));
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        let before = lines();
        guard.line("got TERM");
        let begun = |lines: &[String]| lines.iter().filter(|line| *line == "begin").count();
        // One that began just before was killed, none has begun since.
        assert!(begun(&lines()) <= begun(&before) + 1, "{before:?} {:?}", lines());
        for pair in before.chunks(2).filter(|pair| pair.len() == 2) {
            assert_eq!(pair, ["begin", "end"], "{before:?}");
        }
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn what_a_check_says_is_in_the_log_and_nowhere_else() {
    for setup in setups() {
        let check = "exec:sh -c 'echo wrong; cat; yes | head -c 1000000; exit 1'";
        let setup = setup.env("GUARD_HEALTH_CHECK", check).env("GUARD_READY", "exec").env("GUARD_HEALTH_RETRIES", "2");
        let setup = setup.env("GUARD_RESTART", "never").stdin(std::process::Stdio::piped());
        let mut guard = setup.fixture("serve").start();
        let error = guard.event("check-failed").get("error").map(str::to_owned);
        assert!(error.is_some_and(|error| error.starts_with("wrong") && error.len() < 500));
        assert_eq!(guard.code(), 143);
        assert!(guard.out().iter().all(|line| !line.contains("wrong") && *line != "y"), "{:?}", guard.out());
    }
}

#[test]
fn a_check_that_cannot_be_started_says_why() {
    for setup in setups() {
        let setup = setup.env("GUARD_HEALTH_CHECK", "exec:/not/there").env("GUARD_READY", "exec");
        let mut guard = setup.env("GUARD_RESTART", "never").fixture("serve").start();
        assert!(guard.event("check-failed").line.contains("no such file"));
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn a_check_knows_the_run() {
    for setup in setups() {
        let check = "exec:sh -c 'test \"$GUARD_RUN $GUARD_INSTANCE\" = \"1 0\" && test -z \"$NOTIFY_SOCKET\"'";
        let mut guard = setup.env("GUARD_HEALTH_CHECK", check).fixture("serve").start();
        guard.event("ready");
    }
}

#[test]
fn a_sick_app_that_ignores_its_signal_is_killed_at_the_stop_timeout() {
    for setup in setups() {
        let setup = setup.env("GUARD_HEALTH_CHECK", "exec:false").env("GUARD_READY", "exec");
        let mut guard = setup.env("GUARD_RESTART", "never").fixture("deaf serve").start();
        guard.line("got TERM");
        assert!(guard.event("kill").line.contains("GUARD_STOP_TIMEOUT=700ms"));
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn guard_probes_with_its_own_binary_even_if_that_was_replaced() {
    for setup in setups() {
        let directory = tempfile::tempdir().expect("a directory");
        let binary = fs::read(env!("CARGO_BIN_EXE_guard")).expect("a binary");
        let copy = program(directory.path(), "copy", binary, 0o755);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = format!("tcp://{}", listener.local_addr().expect("an address"));
        let setup = setup.program(&copy).env("GUARD_HEALTH_CHECK", target).env("GUARD_HEALTH_INTERVAL", "300ms");
        let mut guard = setup.fixture("serve").start();
        guard.line("ready");
        fs::remove_file(&copy).expect("it is there");
        guard.event("ready");
    }
}
