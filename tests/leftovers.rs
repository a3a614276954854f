//! Processes that outlive their run's main process: whose they are, how they are asked to go, who is left in peace.

use crate::common::clock::between;
use crate::common::{self, Event, Guard, child, children, eventually, everywhere, in_path, pid1, status_field};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How often the app or one of its processes said so.
fn count(guard: &Guard, line: &str) -> usize {
    guard.out().iter().filter(|said| **said == line).count()
}

fn logged(guard: &Guard, name: &str) -> Option<Event> {
    guard.events().into_iter().find(|event| event.name() == name)
}

#[test]
fn leftovers_of_a_crash_are_asked_to_go_before_the_next_run() {
    // In the run's group, in a session of its own, and a grandchild of a parent that is gone.
    for left in ["fork as left serve .", "fork setsid as left serve .", "fork fork setsid as left serve . exit 0 ."] {
        for setup in everywhere() {
            let setup = setup.fixture(&format!("before-run 2 {left} before-run 2 exit 1 quit TERM 0 serve"));
            let mut guard = setup.start();
            guard.line("left ready");
            guard.line("left got TERM");
            guard.line("ready");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 0);
            assert_eq!(count(&guard, "left got TERM"), 1);
            let leftovers = logged(&guard, "leftovers").expect("they are told of");
            assert!(leftovers.get("processes").is_some_and(|names| names.contains("fixture[")), "{}", leftovers.line);
        }
    }
}

/// As php-fpm that a script has started beside nginx: it begins a session, and writes its title over its environment. The new run of a
/// reload began after it, so it is of the old one.
#[test]
fn a_reload_ends_what_the_old_run_has_left_though_its_mark_cannot_be_read() {
    let uptime = || fs::read_to_string("/proc/uptime").expect("it is there");
    for setup in everywhere() {
        let words = "before-run 2 fork setsid huge-env as left quit TERM 0 serve . quit TERM 0 serve";
        let mut guard = setup.fixture(words).start();
        guard.line("left ready");
        guard.line("ready");
        // The kernel counts in hundredths of a second when a process has begun.
        let begun = uptime();
        eventually("another hundredth", || (uptime() != begun).then_some(()));
        let reload = guard.ask(&["reload"]);
        assert_eq!(reload.code, 0, "{}", reload.err);
        guard.line("left got TERM");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        assert_eq!(count(&guard, "left got TERM"), 1, "{}", guard.transcript());
    }
}

#[test]
fn a_run_that_leaves_nobody_behind_is_followed_at_once() {
    for setup in everywhere() {
        let mut guard = setup.fixture("before-run 2 exit 1 quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        assert!(logged(&guard, "leftovers").is_none(), "{}", guard.transcript());
    }
}

#[test]
fn deaf_leftovers_of_a_crash_are_killed_after_two_seconds() {
    for setup in everywhere() {
        let words = "before-run 2 fork setsid as left deaf serve . before-run 2 exit 1 quit TERM 0 serve";
        let mut guard = setup.fixture(words).start();
        let exit = guard.event("exit");
        guard.line("left got TERM");
        let restart = guard.event("restart");
        guard.line("ready");
        let waited = between(&exit, &restart);
        assert!(waited >= Duration::from_millis(1000) && waited < Duration::from_secs(6), "{waited:?}");
        eventually("new run alone", || (children(guard.pid()).len() == 1).then_some(()));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn the_next_run_finds_its_port_free() {
    // Below the range of ephemeral ports, where no client of another test can take it.
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let port = (first..first + 100).find(free).expect("a port is free");
    for setup in everywhere() {
        let words = format!(
            "before-run 2 fork setsid as worker listen {port} deaf serve . before-run 2 exit 1 listen {port} quit TERM 0"
        );
        let mut guard = setup.fixture(&words).start();
        guard.line("worker listening");
        guard.line("listening");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_stop_request_hurries_the_leftovers_of_a_crash() {
    for setup in everywhere() {
        let words = "fork setsid as left quit WINCH 0 serve . exit 4";
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "500ms").fixture(words).start();
        let exit = guard.event("exit");
        guard.line("left got TERM");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 4);
        let end = logged(&guard, "end").expect("guard says that it ends");
        assert!(between(&exit, &end) < Duration::from_millis(1900), "{}", guard.transcript());
        assert_eq!(guard.events().iter().filter(|event| event.name() == "restart").count(), 0);
    }
}

#[test]
fn who_has_no_mark_belongs_to_no_run() {
    for setup in everywhere() {
        // No event comes for what is not waited for, so the deadline of the stop is far beyond the test's.
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1h");
        let is_pid1 = setup.is_pid1();
        let words =
            "before-run 2 fork fork setsid clean-env as free ids serve . exit 0 . quit USR1 1 quit TERM 0 serve";
        let mut guard = setup.fixture(words).start();
        let pid = guard.line_after("free pid ").parse().unwrap();
        guard.line("free ready");
        guard.line("ready");
        let outside = guard.pid_outside(pid);
        guard.signal(libc::SIGUSR1);
        guard.line("ready");
        guard.signal_inside(pid, libc::SIGHUP);
        guard.line("free got HUP");
        guard.signal(libc::SIGTERM);
        guard.event("end");
        if !is_pid1 {
            // The last SIGKILL was for it too; were it not, the next line would wait in vain.
            eventually("end of the free process", || (!fs::exists(format!("/proc/{outside}")).unwrap()).then_some(()));
        }
        assert_eq!(guard.code(), 0);
        // At the end of PID 1 such a daemon has the time of leftovers.
        assert_eq!(count(&guard, "free got TERM"), usize::from(is_pid1), "{}", guard.transcript());
        assert_eq!(logged(&guard, "leftovers").is_some(), is_pid1, "{}", guard.transcript());
    }
}

/// As Debian's `service NAME start` starts them: their own children come to PID 1 when they end. One is itself the child of a
/// leftover, and comes to PID 1 when that has ended.
#[test]
fn a_daemon_that_has_cleared_its_environment_has_time_at_the_end_of_pid_1() {
    let service =
        "fork fork setsid clean-env fork setsid as worker linger 100 serve . as free linger 100 serve . exit 0 .";
    let of_a_leftover = "fork setsid fork setsid clean-env as free linger 100 serve . as worker linger 300 serve .";
    for (main, code) in [("quit TERM 3 serve", 3), ("exit 0", 0)] {
        for (daemon, last) in [(service, "free ready"), (of_a_leftover, "worker ready")] {
            let Some(setup) = pid1() else { return };
            let mut guard = setup.env("GUARD_STOP_TIMEOUT", "15s").fixture(&format!("{daemon} {main}")).start();
            guard.line(last);
            if code == 3 {
                guard.line("ready");
                guard.signal(libc::SIGTERM);
            }
            assert_eq!(guard.code(), code, "{}", guard.transcript());
            for line in ["free got TERM", "free done", "worker got TERM", "worker done"] {
                assert_eq!(count(&guard, line), 1, "{line}: {}", guard.transcript());
            }
            assert!(logged(&guard, "kill").is_none(), "{}", guard.transcript());
        }
    }
}

/// The client, and the shell that waits for it, are guard's children when the session that has begun them has ended.
#[test]
fn a_session_in_the_background_gets_the_answer_to_its_stop() {
    let Some(setup) = pid1() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let answer = directory.path().join("answer");
    let mut guard = setup.fixture("linger 300 serve").start();
    guard.line("ready");
    let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
    let namespaces: &[&str] =
        if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--preserve-credentials"] };
    command.args(namespaces).args(["--pid", "--mount", "--target", &guard.pid().to_string(), "--", "/bin/sh", "-c"]);
    command.arg(r#"("$0" stop; :) > "$1" &"#).arg(env!("CARGO_BIN_EXE_guard")).arg(&answer).env_clear();
    assert!(common::spawn(&mut command).wait().expect("a status").success());
    assert_eq!(guard.code(), 143);
    let answer = std::fs::read_to_string(answer).expect("an answer");
    assert!(answer.starts_with("stopped: "), "{answer}{}", guard.transcript());
    assert!(logged(&guard, "leftovers").is_none(), "{}", guard.transcript());
}

#[test]
fn a_deaf_daemon_that_has_cleared_its_environment_goes_at_the_deadline() {
    let Some(setup) = pid1() else { return };
    let daemon = "fork fork setsid clean-env as free deaf serve . exit 0 .";
    let setup = setup.env("GUARD_STOP_TIMEOUT", "1s");
    let mut guard = setup.fixture(&format!("{daemon} quit TERM 3 serve")).start();
    guard.line("free ready");
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 3);
    let (drain, end) = (logged(&guard, "drain").expect("a drain"), logged(&guard, "end").expect("an end"));
    assert!(between(&drain, &end) >= Duration::from_millis(500), "{}", guard.transcript());
    assert_eq!(count(&guard, "free got TERM"), 1, "{}", guard.transcript());
}

/// A process that somebody starts in guard's namespace, as `docker exec` does.
struct Session {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    fn start(guard: &Guard, words: &str) -> Session {
        let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
        let namespaces: &[&str] =
            if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--preserve-credentials"] };
        command.args(namespaces).args(["--pid", "--mount", "--target", &guard.pid().to_string()]);
        command.arg(common::fixture()).args(words.split(' ')).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = common::spawn(&mut command);
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        Session { child, stdout }
    }

    /// The next line; empty at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a pipe can be read");
        line.trim_end().to_owned()
    }
}

#[test]
fn exec_sessions_are_neither_asked_nor_waited_for_and_end_with_the_namespace() {
    let Some(setup) = pid1() else { return };
    let setup = setup.env("GUARD_STOP_TIMEOUT", "1h").fixture("quit USR1 1 quit TERM 0 serve");
    let mut guard = setup.start();
    guard.line("ready");
    let mut session = Session::start(&guard, "fork setsid as orphan serve . serve");
    assert_eq!(session.line(), "orphan ready");
    assert_eq!(session.line(), "ready");
    // The orphan of another session, whose parent is guard by now.
    let mut gone = Session::start(&guard, "fork setsid as orphan serve . exit 0");
    assert_eq!(gone.line(), "orphan ready");
    assert!(gone.child.wait().unwrap().success());

    guard.signal(libc::SIGUSR1);
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
    // SIGKILL is the last that they hear of, and the first. What a session has left to PID 1 is as any daemon.
    assert_eq!(session.line(), "");
    assert_eq!(gone.line(), "orphan got TERM");
    assert_eq!(gone.line(), "");
    assert_eq!(session.child.wait().unwrap().code(), None);
    assert_eq!(logged(&guard, "leftovers").expect("the orphan").get("count"), Some("1"), "{}", guard.transcript());
}

#[test]
fn at_the_stop_leftovers_have_the_time_that_is_left() {
    for left in ["fork as left linger 500 serve .", "fork setsid as left linger 500 serve ."] {
        for setup in everywhere() {
            let mut guard = setup.fixture(&format!("{left} quit TERM 3 serve")).start();
            guard.line("ready");
            guard.signal(libc::SIGTERM);
            guard.line("got TERM");
            guard.line("left got TERM");
            guard.line("left done");
            assert_eq!(guard.code(), 3);
            assert!(logged(&guard, "kill").is_none(), "{}", guard.transcript());
        }
    }
}

#[test]
fn a_stopped_leftover_is_woken() {
    for setup in everywhere() {
        let mut guard = setup.fixture("fork setsid as left ids quit TERM 0 serve . quit TERM 3 serve").start();
        let pid = guard.line_after("left pid ").parse().unwrap();
        guard.line("ready");
        let outside = guard.pid_outside(pid);
        guard.signal_inside(pid, libc::SIGSTOP);
        eventually("stopped leftover", || status_field(outside, "State:").starts_with('T').then_some(()));
        guard.signal(libc::SIGTERM);
        guard.line("left got TERM");
        assert_eq!(guard.code(), 3);
        assert!(logged(&guard, "kill").is_none(), "{}", guard.transcript());
    }
}

#[test]
fn a_deaf_leftover_is_killed_at_the_deadline_named_and_changes_no_code() {
    for code in [0, 3] {
        for setup in everywhere() {
            let setup = setup.env("GUARD_STOP_TIMEOUT", "1s");
            let mut guard =
                setup.fixture(&format!("fork setsid as left ids deaf serve . quit TERM {code} serve")).start();
            let pid = guard.line_after("left pid ");
            guard.line("ready");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), code);
            let (drain, kill) = (logged(&guard, "drain").unwrap(), logged(&guard, "kill").unwrap());
            let waited = between(&drain, &kill);
            assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(4), "{waited:?}");
            assert!(kill.line.contains(&format!("fixture[{pid}]")), "{}", kill.line);
            assert_eq!(count(&guard, "left got TERM"), 1);
        }
    }
}

#[test]
fn the_leftovers_of_a_last_run_are_asked_to_go_too() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_RESTART", "never");
        let mut guard = setup.fixture("fork setsid as left linger 300 serve . exit 5").start();
        guard.line("left got TERM");
        guard.line("left done");
        assert_eq!(guard.code(), 5);
    }
}

#[test]
fn a_main_process_that_goes_to_the_background_is_told_of() {
    for setup in everywhere() {
        let mut guard = setup.fixture("fork setsid as daemon serve . exit 0").start();
        guard.line("daemon got TERM");
        assert_eq!(guard.code(), 0);
        let background = logged(&guard, "background").expect("a line says so");
        assert!(background.line.contains("foreground"), "{}", background.line);
    }
}

#[test]
fn a_daemon_of_an_earlier_run_is_not_taken_for_the_next_ones() {
    let mut guard = child().fixture("fork setsid as left serve . before-run 3 exit 1 quit TERM 0 serve").start();
    for _ in 0..2 {
        guard.line("left ready");
        guard.line("left got TERM");
    }
    guard.line("left ready");
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    guard.line("got TERM");
    guard.line("left got TERM");
    assert_eq!(guard.code(), 0);
    assert_eq!(count(&guard, "left got TERM"), 3);
}

#[test]
fn who_was_to_succeed_a_main_process_that_is_stopped_is_told_too() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1m").env("GUARD_NOTIFY", "on");
        let mut guard = setup.fixture("fork setsid as heir notify MAINPID=% serve . serve").start();
        guard.line("heir ready");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        guard.line("heir got TERM");
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn a_main_process_that_names_itself_has_no_successor() {
    for setup in everywhere() {
        // The daemon is reaped by guard, and its code is not the run's.
        let daemon = "fork fork setsid notify MAINPID=% exit 7 . exit 0 .";
        let setup = setup.env("GUARD_RESTART", "never").env("GUARD_LOG", "debug").env("GUARD_NOTIFY", "on");
        let mut guard = setup.fixture(&format!("{daemon} notify MAINPID=% quit TERM 0 serve")).start();
        guard.line("ready");
        guard.event("reaped");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}
