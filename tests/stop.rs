//! From a stop request to guard's exit: in which order, with which signal, and how long at most.

use crate::common::clock::between;
use crate::common::{self, Event, Guard, child, eventually, everywhere, fixture, pid1, skipped, status_field};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// How often the app said so.
fn count(guard: &Guard, line: &str) -> usize {
    guard.out().iter().filter(|said| **said == line).count()
}

/// The fixture as a pre-stop hook.
fn hook(words: &str) -> String {
    format!("'{}' {words}", fixture().display())
}

/// One by name, of all that was logged so far.
fn logged(guard: &Guard, name: &str) -> Event {
    let event = guard.events().into_iter().find(|event| event.name() == name);
    event.unwrap_or_else(|| panic!("no {name}: {}", guard.transcript()))
}

#[test]
fn the_app_serves_on_through_the_drain_delay() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_DRAIN_DELAY", "1s").fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        guard.signal(libc::SIGUSR1);
        guard.line("got USR1");
        guard.line("got TERM");
        assert_eq!(guard.code(), 0);
        let waited = between(&logged(&guard, "drain"), &logged(&guard, "stop-signal"));
        assert!(waited >= milliseconds(500), "{waited:?}");
    }
}

#[test]
fn the_stop_signal_waits_for_the_hook() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_PRE_STOP", hook("as hook ids quit USR1 0 serve"));
        let mut guard = setup.fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        let pid = guard.line_after("hook pid ").parse().unwrap();
        guard.line("hook ready");
        guard.signal(libc::SIGUSR2);
        guard.line("got USR2");
        assert_eq!(count(&guard, "got TERM"), 0);
        guard.signal_inside(pid, libc::SIGUSR1);
        guard.line("got TERM");
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn the_hook_runs_beside_the_drain_delay() {
    let mut guard = child()
        .env("GUARD_DRAIN_DELAY", "1h")
        .env("GUARD_STOP_TIMEOUT", "2h")
        .env("GUARD_PRE_STOP", hook("as hook"))
        .fixture("deaf")
        .start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    guard.line("hook ready");
}

#[test]
fn the_drain_delay_is_waited_out_though_the_hook_is_done() {
    let setup = child().env("GUARD_DRAIN_DELAY", "500ms").env("GUARD_PRE_STOP", hook("exit 0"));
    let mut guard = setup.fixture("quit TERM 0 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
    let waited = between(&logged(&guard, "drain"), &logged(&guard, "stop-signal"));
    assert!(waited >= milliseconds(250), "{waited:?}");
}

#[test]
fn the_hook_is_killed_at_half_the_stop_timeout() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "2s").env("GUARD_PRE_STOP", hook("fork deaf serve . as hook deaf"));
        let mut guard = setup.fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 0);
        let waited = between(&logged(&guard, "drain"), &logged(&guard, "stop-signal"));
        assert!(waited >= milliseconds(500) && waited < milliseconds(2000), "{waited:?}");
        assert!(logged(&guard, "kill").line.contains("hook"));
    }
}

#[test]
fn a_hook_that_fails_is_logged_and_changes_nothing() {
    for (broken, event) in [(hook("exit 3"), "pre-stop-ended"), ("/no/such/hook".to_owned(), "pre-stop-failed")] {
        let mut guard = child().env("GUARD_PRE_STOP", &broken).fixture("quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 0);
        assert_eq!(logged(&guard, event).get("level"), Some("warn"));
    }
}

#[test]
fn the_drain_file_exists_exactly_while_guard_drains() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("draining");
        fs::write(&file, "from a guard that was killed").unwrap();
        let mut guard = setup.env("GUARD_DRAIN_FILE", &file).fixture("quit WINCH 0 serve").start();
        guard.line("ready");
        assert!(!file.exists(), "a file of an earlier guard is removed");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert!(file.exists());
        guard.signal(libc::SIGWINCH);
        assert_eq!(guard.code(), 0);
        assert!(!file.exists());
    }
}

/// The app may have put something else where the drain file is to be.
#[test]
fn the_drain_file_follows_no_link_and_waits_for_nobody() {
    let kinds = ["link", "dangling link", "fifo", "socket", "file", "directory"];
    for (setup, kind) in kinds.iter().flat_map(|kind| everywhere().into_iter().map(move |setup| (setup, *kind))) {
        let directory = tempfile::tempdir().unwrap();
        let [file, other, new] = ["draining", "other", "new"].map(|name| directory.path().join(name));
        fs::write(&other, "precious").unwrap();
        let mut guard = setup.env("GUARD_DRAIN_FILE", &file).fixture("quit WINCH 0 serve").start();
        guard.line("ready");
        match kind {
            "link" => symlink(&other, &file).unwrap(),
            "dangling link" => symlink(&new, &file).unwrap(),
            "fifo" => nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            "socket" => drop(UnixDatagram::bind(&file).unwrap()),
            "file" => fs::write(&file, "").unwrap(),
            _ => fs::create_dir(&file).unwrap(),
        }
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(fs::symlink_metadata(&file).unwrap().is_file(), kind != "directory", "{kind}");
        guard.signal(libc::SIGWINCH);
        assert_eq!(guard.code(), 0, "{kind}");
        assert_eq!(fs::symlink_metadata(&file).is_ok(), kind == "directory", "{kind}");
        assert!(fs::read(&other).unwrap() == b"precious" && !new.exists(), "{kind}");
    }
}

#[test]
fn a_device_is_no_drain_file() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("null");
    let mode = nix::sys::stat::Mode::S_IRWXU;
    // /dev/null's number.
    let made = nix::sys::stat::mknod(&device, nix::sys::stat::SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 3));
    if made.is_err() {
        return skipped("this user may make no device");
    }
    let mut guard = child().env("GUARD_DRAIN_FILE", &device).fixture("quit TERM 0 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
    assert!(device.exists(), "{}", guard.transcript());
}

#[test]
fn a_drain_file_that_cannot_be_made_is_no_obstacle() {
    let setup = child().env("GUARD_DRAIN_FILE", "/no/such/directory/draining");
    let mut guard = setup.fixture("quit TERM 0 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
}

#[test]
fn the_app_gets_the_signal_that_came_or_the_one_that_is_set() {
    // An empty variable counts as not set.
    for (stop_signal, map, sent, expected) in [
        ("", "", libc::SIGTERM, "TERM"),
        ("", "", libc::SIGINT, "INT"),
        ("QUIT", "", libc::SIGTERM, "QUIT"),
        ("QUIT", "", libc::SIGQUIT, "QUIT"),
        ("USR1", "", libc::SIGINT, "USR1"),
        ("RTMIN+3", "WINCH=stop", libc::SIGWINCH, "37"),
    ] {
        for setup in everywhere() {
            let setup = setup.env("GUARD_STOP_SIGNAL", stop_signal).env("GUARD_SIGNAL_MAP", map);
            let mut guard = setup.fixture(&format!("quit {expected} 0 serve")).start();
            guard.line("ready");
            guard.signal(sent);
            guard.event("drain");
            assert_eq!(guard.code(), 0);
            // CONT comes along, and before a signal of a higher number where both are pending.
            let got: Vec<_> = guard.out().into_iter().filter(|line| !["ready", "got CONT"].contains(line)).collect();
            assert_eq!(got, [format!("got {expected}")]);
        }
    }
}

#[test]
fn quit_is_no_stop_request_of_itself() {
    let mut guard = child().fixture("quit TERM 0 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGQUIT);
    guard.line("got QUIT");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
    assert_eq!(logged(&guard, "drain").get("signal"), Some("SIGTERM"));
}

#[test]
fn asking_again_changes_nothing() {
    for signals in [[libc::SIGTERM, libc::SIGTERM], [libc::SIGINT, libc::SIGINT], [libc::SIGTERM, libc::SIGINT]] {
        for setup in everywhere() {
            let mut guard = setup.fixture("quit WINCH 3 serve").start();
            guard.line("ready");
            guard.signal(signals[0]);
            guard.event("stop-signal");
            guard.line("got CONT"); // which comes after the stop signal
            for _ in 0..3 {
                guard.signal(signals[1]);
            }
            // A higher number, so that it overtakes none of them.
            guard.signal(libc::SIGWINCH);
            assert_eq!(guard.code(), 3);
            assert_eq!(count(&guard, "got TERM") + count(&guard, "got INT"), 1, "{}", guard.transcript());
        }
    }
}

#[test]
fn a_deaf_app_is_killed_at_the_stop_timeout_and_the_log_says_whose_it_was() {
    for (name, value, timeout, named) in [
        ("GUARD_STOP_TIMEOUT", "500ms", 500, "GUARD_STOP_TIMEOUT=500ms"),
        ("NOMAD_ALLOC_ID", "1", 4000, "GUARD_STOP_TIMEOUT=4s"),
    ] {
        for setup in everywhere() {
            let mut guard = setup.env(name, value).fixture("deaf").start();
            guard.line("ready");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 137);
            let (drain, kill) = (logged(&guard, "drain"), logged(&guard, "kill"));
            let waited = between(&drain, &kill);
            assert!(waited >= milliseconds(timeout - 1), "{waited:?}");
            assert!(kill.line.contains(named), "{}", kill.line);
            assert_eq!(kill.line.contains("default"), name != "GUARD_STOP_TIMEOUT", "{}", kill.line);
            assert_eq!(count(&guard, "ready"), 1);
        }
    }
}

#[test]
fn the_drain_delay_and_the_hook_are_part_of_the_stop_timeout() {
    let mut guard = child()
        .env("GUARD_STOP_TIMEOUT", "1s")
        .env("GUARD_DRAIN_DELAY", "700ms")
        .env("GUARD_PRE_STOP", hook("deaf"))
        .fixture("deaf")
        .start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 137);
    let kills: Vec<Event> = guard.events().into_iter().filter(|event| event.name() == "kill").collect();
    let waited = between(&logged(&guard, "drain"), kills.last().expect("the app was killed"));
    assert!(waited >= milliseconds(999) && waited < milliseconds(1500), "{waited:?}");
}

#[test]
fn without_a_stop_timeout_the_kill_is_left_to_others() {
    let mut guard = child().env("GUARD_STOP_TIMEOUT", "none").fixture("env quit WINCH 6 serve").start();
    assert!(guard.lines_until("end").contains(&"env GUARD_STOP_TIMEOUT=none".to_owned()));
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    guard.line("got TERM");
    guard.signal(libc::SIGWINCH);
    assert_eq!(guard.code(), 6);
}

#[test]
fn a_crash_in_the_drain_is_an_exit() {
    for (words, code) in [("quit WINCH 9", 9), ("default WINCH default SEGV", 128 + 11)] {
        for setup in everywhere() {
            let mut guard = setup.fixture(&format!("{words} quit USR1 0 serve")).start();
            guard.line("ready");
            guard.signal(libc::SIGTERM);
            guard.line("got TERM");
            guard.signal(if code == 9 { libc::SIGWINCH } else { libc::SIGSEGV });
            assert_eq!(guard.code(), code);
            assert_eq!(count(&guard, "ready"), 1, "no run follows");
        }
    }
}

#[test]
fn a_crash_in_the_drain_delay_is_an_exit_too() {
    let setup = child().env("GUARD_DRAIN_DELAY", "1h").env("GUARD_STOP_TIMEOUT", "2h");
    let mut guard = setup.fixture("quit USR1 9 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    guard.event("drain");
    guard.signal(libc::SIGUSR1);
    assert_eq!(guard.code(), 9);
    assert_eq!(count(&guard, "ready"), 1);
}

#[test]
fn a_stop_during_a_backoff_exits_at_once_with_the_last_code() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
        let mut guard = setup.env("GUARD_DRAIN_DELAY", "1s").fixture("say run exit 6").start();
        guard.event("restart");
        guard.event("restart");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 6);
        assert_eq!(guard.out(), ["run", "run"]);
        let waited = between(&logged(&guard, "drain"), &logged(&guard, "end"));
        assert!(waited < milliseconds(900), "there is nobody to drain: {waited:?}");
    }
}

#[test]
fn a_stopped_app_is_woken_by_the_stop() {
    for setup in everywhere() {
        let mut guard = setup.fixture("ids quit TERM 0 serve").start();
        let pid = guard.line_after("pid ").parse().unwrap();
        guard.line("ready");
        let outside = guard.pid_outside(pid);
        guard.signal_inside(pid, libc::SIGSTOP);
        eventually("stopped app", || status_field(outside, "State:").starts_with('T').then_some(()));
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn an_app_that_may_not_be_signalled_cannot_keep_guard_from_leaving() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("another user's app needs root");
    }
    const CAP_KILL: i32 = 5; // capabilities(7)
    for setup in everywhere() {
        let is_pid1 = setup.is_pid1();
        let setup = setup.inherits(&format!("uncap {CAP_KILL}")).env("GUARD_STOP_TIMEOUT", "1s");
        let mut guard = setup.fixture("setuid 65534 ids deaf").start();
        let pid = guard.line_after("pid ").parse().unwrap();
        guard.line("ready");
        let outside = guard.pid_outside(pid);
        guard.signal(libc::SIGTERM);
        guard.event("signal-refused");
        guard.event("end");
        if !is_pid1 {
            // No namespace ends with guard, and nobody but the test may end the app.
            common::send(outside, libc::SIGKILL);
        }
        assert_eq!(guard.code(), 137);
        assert_eq!(count(&guard, "got TERM"), 0);
        let waited = between(&logged(&guard, "drain"), &logged(&guard, "end"));
        assert!(waited >= milliseconds(999) && waited < milliseconds(4000), "{waited:?}");
    }
}

#[test]
fn as_pid_1_nothing_survives_the_end() {
    let Some(setup) = pid1() else { return };
    let mut guard = setup.env("GUARD_STOP_TIMEOUT", "500ms").fixture("fork setsid deaf clean-env serve . deaf").start();
    guard.line("ready");
    guard.line("ready");
    let below = common::descendants(guard.pid());
    assert_eq!(below.len(), 2);
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 137);
    for pid in below {
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "{pid} lives");
    }
}
