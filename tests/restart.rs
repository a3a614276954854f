//! When a run that ended is followed by another, how soon, and how often.

use crate::common::clock::{between, duration};
use crate::common::{Event, Guard, Setup, child, everywhere, fixture_at};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// No limit but the one of the test, and no wait.
fn at_once(setup: Setup) -> Setup {
    setup.env("GUARD_BACKOFF_INITIAL", "0").env("GUARD_BACKOFF_MAX", "0")
}

fn restarts(guard: &Guard) -> Vec<Event> {
    guard.events().into_iter().filter(|event| event.name() == "restart").collect()
}

fn delays(guard: &Guard) -> Vec<Duration> {
    restarts(guard).iter().map(|event| duration(event.get("delay").expect("a restart has a delay"))).collect()
}

#[test]
fn the_first_restart_is_immediate_and_then_the_delay_doubles_up_to_its_limit() {
    let mut drawn = Vec::new();
    for _ in 0..2 {
        let mut guard = child()
            .env("GUARD_BACKOFF_INITIAL", "40ms")
            .env("GUARD_BACKOFF_MAX", "200ms")
            .env("GUARD_MAX_RESTARTS", "7")
            .fixture("exit 3")
            .start();
        assert_eq!(guard.code(), 3);
        let delays = delays(&guard);
        let full = [0, 40, 80, 160, 200, 200, 200].map(milliseconds);
        assert_eq!(delays.len(), full.len(), "{}", guard.transcript());
        for (delay, full) in delays.iter().zip(full) {
            // The log shows whole milliseconds.
            assert!(*delay <= full && *delay + milliseconds(1) > full / 2, "{delay:?} of {full:?}");
        }
        let events = guard.events();
        let exits: Vec<&Event> = events.iter().filter(|event| event.name() == "exit").collect();
        for (pair, delay) in exits.windows(2).zip(&delays) {
            let waited = between(pair[0], pair[1]);
            assert!(waited + milliseconds(2) >= *delay, "waited {waited:?} instead of {delay:?}");
        }
        drawn.push(delays);
    }
    assert_ne!(drawn[0], drawn[1], "two guards draw the same delays, so a fleet restarts as one");
}

#[test]
fn a_stable_run_ends_the_row() {
    let mut guard = child()
        .env("GUARD_STABLE_AFTER", "300ms")
        .env("GUARD_BACKOFF_INITIAL", "100ms")
        .fixture("before-run 3 exit 1 quit USR1 1 linger 400 serve")
        .start();
    guard.line("ready");
    guard.signal(libc::SIGUSR1);
    for _ in 0..3 {
        guard.event("restart");
    }
    let delays = delays(&guard);
    assert_eq!(delays[0], Duration::ZERO);
    assert!(delays[1] >= milliseconds(50), "{delays:?}");
    assert_eq!(delays[2], Duration::ZERO, "the third run was stable: {delays:?}");
    let events = restarts(&guard);
    assert_eq!(events[2].get("count"), Some("3"), "the restarts are still inside the window");
}

#[test]
fn gives_up_at_the_limit_with_the_last_code() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let word = directory.path().join("termination-log");
        let setup = at_once(setup).env("GUARD_MAX_RESTARTS", "2").env("GUARD_TERMINATION_LOG", &word);
        let mut guard = setup.fixture("say run before-run 3 exit 5 exit 7").start();
        assert_eq!(guard.code(), 7);
        assert_eq!(guard.out(), ["run", "run", "run"]);
        let counts: Vec<_> = restarts(&guard).iter().map(|event| event.get("count").map(str::to_owned)).collect();
        assert_eq!(counts, [Some("1".to_owned()), Some("2".to_owned())]);
        let given_up = guard.events().into_iter().find(|event| event.name() == "give-up").expect("a line says so");
        assert_eq!((given_up.get("limit"), given_up.get("window")), (Some("2"), Some("5m")));
        let word = fs::read_to_string(word).unwrap();
        assert!(word.contains("gave up after 2 restarts in 5m"), "{word}");
    }
}

#[test]
fn giving_up_by_signal_is_128_and_the_signal() {
    let mut guard = at_once(child()).env("GUARD_MAX_RESTARTS", "1").fixture("die SEGV").start();
    assert_eq!(guard.code(), 128 + 11);
}

#[test]
fn successes_under_always_count_and_giving_up_on_them_is_a_failure() {
    let setup = at_once(child()).env("GUARD_RESTART", "always").env("GUARD_MAX_RESTARTS", "2");
    let mut guard = setup.fixture("say run exit 0").start();
    assert_eq!(guard.code(), 1);
    assert_eq!(guard.out(), ["run", "run", "run"]);
}

#[test]
fn there_are_restarts_without_limit() {
    let setup = at_once(child()).env("GUARD_MAX_RESTARTS", "unlimited");
    let mut guard = setup.fixture("before-run 30 exit 1 say enough exit 0").start();
    assert_eq!(guard.code(), 0);
    assert_eq!(guard.out(), ["enough"]);
    assert_eq!(restarts(&guard).len(), 29);
}

#[test]
fn never_means_never_and_so_does_a_limit_of_none() {
    for (name, value) in [("GUARD_RESTART", "never"), ("GUARD_MAX_RESTARTS", "0")] {
        let mut guard = child().env(name, value).fixture("say run exit 4").start();
        assert_eq!(guard.code(), 4);
        assert_eq!(guard.out(), ["run"]);
    }
    let setup = child().env("GUARD_RESTART", "always").env("GUARD_MAX_RESTARTS", "0");
    let mut guard = setup.fixture("say run exit 0").start();
    assert_eq!(guard.code(), 0);
    assert_eq!(guard.out(), ["run"]);
}

#[test]
fn success_ends_guard_unless_always_is_wanted() {
    let mut guard = at_once(child()).fixture("say run before-run 2 exit 1 exit 0").start();
    assert_eq!(guard.code(), 0);
    assert_eq!(guard.out(), ["run", "run"]);
}

#[test]
fn a_restart_is_forgotten_when_it_is_old_and_a_run_since_was_stable() {
    let setup = at_once(child())
        .env("GUARD_MAX_RESTARTS", "1")
        .env("GUARD_RESTART_WINDOW", "1s")
        .env("GUARD_STABLE_AFTER", "100ms");
    let mut guard = setup.fixture("quit USR1 1 linger 1200 before-run 4 serve exit 9").start();
    for _ in 0..3 {
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
    }
    // The fourth run ends at once, while the third restart is young.
    assert_eq!(guard.code(), 9);
    let counts: Vec<_> = restarts(&guard).iter().map(|event| event.get("count").map(str::to_owned)).collect();
    assert_eq!(counts, vec![Some("1".to_owned()); 3]);
}

#[test]
fn an_old_restart_counts_while_no_run_was_stable() {
    let setup = at_once(child()).env("GUARD_MAX_RESTARTS", "1").env("GUARD_RESTART_WINDOW", "100ms");
    let mut guard = setup.fixture("quit USR1 6 linger 200 serve").start();
    for _ in 0..2 {
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
    }
    assert_eq!(guard.code(), 6);
    assert_eq!(restarts(&guard).len(), 1);
}

/// The GUARD_ variables that a run prints with `env`, sorted.
fn told(guard: &mut Guard) -> Vec<String> {
    let lines = guard.lines_until("end");
    let mut told: Vec<String> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("env "))
        .filter(|line| line.starts_with("GUARD_") && !line.starts_with("GUARD_ID="))
        .map(str::to_owned)
        .collect();
    told.sort_unstable();
    told
}

#[test]
fn a_run_is_told_which_it_is_and_how_the_last_one_ended() {
    for setup in everywhere() {
        let mut guard = at_once(setup).fixture("env before-run 2 exit 1 before-run 3 die SEGV exit 0").start();
        let timeout = "GUARD_STOP_TIMEOUT=8.3";
        assert_eq!(told(&mut guard), ["GUARD_INSTANCE=0", "GUARD_RESTARTS=0", "GUARD_RUN=1", timeout]);
        let second = ["GUARD_INSTANCE=0", "GUARD_LAST_EXIT=1", "GUARD_RESTARTS=1", "GUARD_RUN=2", timeout];
        assert_eq!(told(&mut guard), second);
        let third = ["GUARD_INSTANCE=0", "GUARD_LAST_EXIT=SIGSEGV", "GUARD_RESTARTS=2", "GUARD_RUN=3", timeout];
        assert_eq!(told(&mut guard), third);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_mapped_restart_stops_the_run_and_starts_the_next_without_counting() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let draining = directory.path().join("draining");
        let mut guard = at_once(setup)
            .env("GUARD_SIGNAL_MAP", "USR1=restart")
            .env("GUARD_STOP_SIGNAL", "QUIT")
            .env("GUARD_DRAIN_FILE", &draining)
            .env("GUARD_MAX_RESTARTS", "1")
            .fixture("env quit USR2 0 quit TERM 5 serve")
            .start();
        for run in 1..4 {
            let told = told(&mut guard);
            assert!(told.contains(&format!("GUARD_RUN={run}")), "{told:?}");
            assert!(told.contains(&"GUARD_RESTARTS=0".to_owned()), "{told:?}");
            assert_eq!(told.contains(&"GUARD_LAST_EXIT=operator".to_owned()), run > 1, "{told:?}");
            guard.line("ready");
            assert!(!draining.exists());
            guard.signal(libc::SIGUSR1);
            guard.line("got QUIT");
            assert!(draining.exists());
            // The run takes its time; what is not asked for it is still forwarded to.
            guard.signal(libc::SIGUSR2);
            guard.line("got USR2");
        }
        guard.line("ready");
        assert!(restarts(&guard).is_empty(), "{}", guard.transcript());
        guard.signal(libc::SIGTERM);
        guard.line("got QUIT");
        guard.signal(libc::SIGUSR2);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_mapped_restart_has_its_drain_delay_and_its_deadline() {
    let mut guard = child()
        .env("GUARD_SIGNAL_MAP", "USR1=restart")
        .env("GUARD_DRAIN_DELAY", "300ms")
        .env("GUARD_STOP_TIMEOUT", "600ms")
        .fixture("env deaf serve")
        .start();
    guard.line("ready");
    guard.signal(libc::SIGUSR1);
    let asked = guard.event("restart-in-place");
    let stop = guard.event("stop-signal");
    let kill = guard.event("kill");
    assert!(between(&asked, &stop) >= milliseconds(299), "{}", guard.transcript());
    assert!(between(&asked, &kill) >= milliseconds(599), "{}", guard.transcript());
    guard.line("got TERM");
    let told = told(&mut guard);
    assert!(told.contains(&"GUARD_LAST_EXIT=deadline".to_owned()), "{told:?}");
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 137);
}

#[test]
fn a_mapped_restart_works_where_no_other_is_wanted() {
    let setup = child().env("GUARD_RESTART", "never").env("GUARD_SIGNAL_MAP", "USR1=restart");
    let mut guard = setup.fixture("quit TERM 3 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGUSR1);
    guard.line("got TERM");
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 3);
}

#[test]
fn a_stop_request_during_a_mapped_restart_means_that_no_run_follows() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_SIGNAL_MAP", "USR1=restart");
        let mut guard = setup.fixture("quit WINCH 4 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        guard.line("got TERM");
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        guard.signal(libc::SIGWINCH);
        assert_eq!(guard.code(), 4);
        let out = guard.out();
        for once in ["ready", "got TERM"] {
            assert_eq!(out.iter().filter(|line| **line == once).count(), 1, "one run, asked once: {out:?}");
        }
    }
}

#[test]
fn a_mapped_reload_starts_the_new_run_before_it_stops_the_old() {
    for setup in everywhere() {
        let mut guard = setup
            .env("GUARD_SIGNAL_MAP", "USR2=reload")
            .env("GUARD_MAX_RESTARTS", "1")
            .env("GUARD_LOG", "debug")
            .fixture("before-run 2 as first before-run 2 quit WINCH 0 before-run 2 serve quit USR1 1 quit TERM 0")
            .start();
        guard.event("spawn");
        guard.line("first ready");
        guard.signal(libc::SIGUSR2);
        // In this order.
        guard.event("spawn");
        guard.event("stop-signal");
        let mut lines = [(); 3].map(|()| guard.line_after(""));
        lines.sort_unstable();
        assert_eq!(lines, ["first got CONT", "first got TERM", "ready"]);
        guard.signal(libc::SIGWINCH);
        guard.event("exit");
        // The reload was no restart that counts, and the new run is watched over as the old one was.
        guard.signal(libc::SIGUSR1);
        let restart = guard.event("restart");
        assert_eq!(restart.get("count"), Some("1"));
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_reload_whose_new_run_cannot_be_started_has_failed_and_the_old_run_stays() {
    let directory = tempfile::tempdir().unwrap();
    let app = fixture_at(directory.path(), "app");
    let setup = child().env("GUARD_SIGNAL_MAP", "USR2=reload");
    let mut guard = setup.app([app.as_os_str(), "quit".as_ref(), "TERM".as_ref(), "6".as_ref()]).start();
    guard.line("ready");
    fs::remove_file(&app).unwrap();
    guard.signal(libc::SIGUSR2);
    guard.event("reload-failed");
    guard.signal(libc::SIGHUP);
    guard.line("got HUP");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 6);
    assert_eq!(guard.out(), ["ready", "got HUP", "got TERM"]);
}

#[test]
fn a_mapped_restart_ends_a_backoff() {
    for setup in everywhere() {
        let mut guard = setup
            .env("GUARD_SIGNAL_MAP", "USR1=restart")
            .env("GUARD_BACKOFF_INITIAL", "1h")
            .env("GUARD_BACKOFF_MAX", "1h")
            .fixture("before-run 3 exit 1 serve")
            .start();
        guard.event("restart");
        guard.event("restart");
        guard.signal(libc::SIGUSR1);
        guard.line("ready");
    }
}

#[test]
fn a_command_that_is_gone_at_a_restart_is_a_failed_run() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let app = fixture_at(directory.path(), "app");
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "50ms").env("GUARD_BACKOFF_MAX", "50ms");
        let mut guard = setup.app([app.as_os_str(), "quit".as_ref(), "USR1".as_ref(), "1".as_ref()]).start();
        guard.line("ready");
        let away = directory.path().join("away");
        fs::rename(&app, &away).unwrap();
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.event("restart").get("delay"), Some("0s"));
        for _ in 0..2 {
            guard.event("spawn-failed");
            let restart = guard.event("restart");
            let delay = duration(restart.get("delay").unwrap());
            assert!(delay >= milliseconds(25), "{delay:?}");
        }
        fs::rename(&away, &app).unwrap();
        guard.line("ready");
    }
}

#[test]
fn giving_up_on_a_command_that_is_gone_is_127() {
    let directory = tempfile::tempdir().unwrap();
    let app = fixture_at(directory.path(), "app");
    let setup = at_once(child()).env("GUARD_MAX_RESTARTS", "2");
    let mut guard = setup.app([app.as_os_str(), "quit".as_ref(), "USR1".as_ref(), "1".as_ref()]).start();
    guard.line("ready");
    fs::remove_file(&app).unwrap();
    guard.signal(libc::SIGUSR1);
    assert_eq!(guard.code(), 127);
    assert_eq!(guard.events().iter().filter(|event| event.name() == "spawn-failed").count(), 2);
}

#[test]
fn what_a_pipe_or_a_file_feeds_runs_once() {
    let script = "echo working; exit 3\n";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("script");
    fs::write(&path, script).expect("it can be written");
    for is_pipe in [true, false] {
        for setup in everywhere() {
            let stdin = if is_pipe { Stdio::piped() } else { File::open(&path).expect("it is there").into() };
            let mut guard = setup.stdin(stdin).app(["sh"]).start();
            if let Some(mut pipe) = guard.stdin.take() {
                pipe.write_all(script.as_bytes()).expect("the app reads");
            }
            assert_eq!((guard.code(), guard.out()), (3, vec!["working"]));
            let start = guard.events().remove(0);
            let feeder = if is_pipe { "stdin is a pipe" } else { "stdin is a regular file" };
            let why =
                start.get("msg").is_some_and(|msg| msg.contains("GUARD_RESTART is never") && msg.contains(feeder));
            assert!(why, "{}", start.line);
        }
    }
}

#[test]
fn guard_check_tells_the_default_for_a_pipe() {
    let mut guard = child().options(["check"]).stdin(Stdio::piped()).start();
    drop(guard.stdin.take());
    assert_eq!(guard.code(), 0);
    let line = guard.out().into_iter().find(|line| line.starts_with("GUARD_RESTART ")).unwrap_or_default().to_owned();
    assert!(line.contains("never") && line.contains("default, since stdin is a pipe"), "{}", guard.transcript());
}

#[test]
fn said_explicitly_a_policy_holds_for_a_pipe_too() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_RESTART", "on-failure").stdin(Stdio::piped());
        let mut guard = setup.fixture("before-run 2 exit 1 exit 0").start();
        assert_eq!(guard.code(), 0);
        assert_eq!(restarts(&guard).len(), 1);
        assert!(!guard.err()[0].contains("stdin"), "{}", guard.transcript());
    }
}

#[test]
fn a_socket_at_stdin_changes_nothing() {
    let (_own, stdin) = UnixStream::pair().expect("two sockets");
    let mut guard = child().stdin(OwnedFd::from(stdin)).fixture("before-run 2 exit 1 exit 0").start();
    assert_eq!(guard.code(), 0);
    assert_eq!(restarts(&guard).len(), 1);
}
