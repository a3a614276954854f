//! guard at a terminal, as under `docker run -it`: who gets the keys, and what becomes of the terminal.
//!
//! When a session's leader ends, the kernel hangs its terminal up and drops what nobody has read yet, so these tests wait
//! for the app's lines before the end.

mod common;

use common::{Guard, child, children, eventually, everywhere, fixture, pid1, send, status_field};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// How often the app said so.
fn count(guard: &Guard, line: &str) -> usize {
    guard.out().iter().filter(|said| **said == line).count()
}

fn has_logged(guard: &Guard, name: &str) -> bool {
    guard.events().iter().any(|event| event.name() == name)
}

fn wait_for_state(pid: i32, wanted: char) {
    eventually(&format!("state {wanted} of {pid}"), || status_field(pid, "State:").starts_with(wanted).then_some(()));
}

#[test]
fn every_run_is_in_the_foreground() {
    for setup in everywhere() {
        let mut guard = setup.terminal().fixture("foreground before-run 3 exit 1 serve").start();
        assert_eq!(guard.lines_until("ready"), ["foreground yes"; 3]);
    }
}

#[test]
fn ctrl_c_reaches_the_app_alone_and_once() {
    for setup in everywhere() {
        let mut guard = setup.terminal().fixture("quit URG 0 serve").start();
        guard.line("ready");
        guard.press(CTRL_C);
        guard.line("got INT");
        // A higher number, so that it overtakes no second INT.
        guard.signal(libc::SIGWINCH);
        guard.line("got WINCH");
        assert_eq!(count(&guard, "got INT"), 1);
        guard.signal(libc::SIGURG);
        assert_eq!(guard.code(), 0);
        assert!(!has_logged(&guard, "drain"), "{}", guard.transcript());
    }
}

#[test]
fn an_end_by_a_key_is_a_stop() {
    for (words, key, code) in [
        ("default INT serve", CTRL_C, 130),
        ("quit INT 130 serve", CTRL_C, 130),
        ("quit INT 0 serve", CTRL_C, 0),
        ("quit QUIT 131 serve", CTRL_BACKSLASH, 131),
    ] {
        for setup in everywhere() {
            let mut guard = setup.terminal().fixture(words).start();
            guard.line("ready");
            guard.press(key);
            assert_eq!(guard.code(), code, "{words}");
            assert_eq!(count(&guard, "ready"), 1, "no run follows");
            assert_eq!(has_logged(&guard, "stopped-at-terminal"), code != 0, "{}", guard.transcript());
        }
    }
}

#[test]
fn leftovers_of_an_app_that_a_key_ended_have_their_time() {
    for setup in everywhere() {
        let words = "fork setsid as left ids quit WINCH 0 serve . default INT serve";
        let mut guard = setup.terminal().fixture(words).start();
        let left = guard.line_after("left pid ").parse().unwrap();
        guard.line("ready");
        guard.press(CTRL_C);
        guard.line("left got TERM");
        guard.signal_inside(left, libc::SIGWINCH);
        assert_eq!(guard.code(), 130);
        assert!(!has_logged(&guard, "kill"), "{}", guard.transcript());
    }
}

#[test]
fn without_a_terminal_the_same_end_is_a_failure() {
    for words in ["die INT", "exit 130"] {
        let mut guard = child().fixture(&format!("before-run 2 {words} quit TERM 0 serve")).start();
        guard.event("restart");
        guard.line("ready");
    }
}

#[test]
fn any_other_crash_at_a_terminal_is_restarted() {
    let mut guard = child().terminal().fixture("before-run 2 exit 1 serve").start();
    guard.event("restart");
    guard.line("ready");
}

#[test]
fn ctrl_c_during_a_backoff_is_guards_own() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
        let mut guard = setup.terminal().fixture("exit 6").start();
        guard.event("restart");
        guard.event("restart");
        guard.press(CTRL_C);
        assert_eq!(guard.code(), 6);
        assert!(guard.events().iter().any(|event| event.name() == "drain" && event.get("signal") == Some("SIGINT")));
    }
}

#[test]
fn a_second_interrupt_kills_at_once() {
    for setup in everywhere() {
        let mut guard = setup.terminal().env("GUARD_STOP_TIMEOUT", "none").fixture("deaf").start();
        guard.line("ready");
        guard.signal(libc::SIGINT);
        guard.line("got INT");
        guard.signal(libc::SIGINT);
        assert_eq!(guard.code(), 137);
        assert_eq!(count(&guard, "got INT"), 1);
    }
}

/// A shell line that prints `icanon` or `-icanon`, as the terminal's mode is.
const SHOW_MODE: &str = "stty -a | tr ' ;' '\\n\\n' | grep icanon";

#[test]
fn every_run_begins_with_the_terminals_modes_as_they_were() {
    for setup in everywhere() {
        let serve = format!("exec '{}'", fixture().display());
        let script = format!("{SHOW_MODE}; stty -icanon; {SHOW_MODE}; [ $GUARD_RUN = 3 ] && {serve}");
        let mut guard = setup.terminal().app(["sh", "-c", &script]).start();
        assert_eq!(guard.lines_until("ready"), ["icanon", "-icanon"].repeat(3));
    }
}

#[test]
fn a_shell_gets_its_terminal_back() {
    let guard = env!("CARGO_BIN_EXE_guard");
    let fixture = fixture().display();
    let script = format!("'{guard}' -- sh -c 'stty -icanon'; {SHOW_MODE}; '{fixture}' foreground; exit");
    let mut shell = child().terminal().program("/bin/sh").options(["-c", &script]).start();
    assert_eq!(shell.lines_until("ready"), ["icanon", "foreground yes"]);
}

/// As PID 1, and where guard leads a session that somebody without job control has begun for it.
#[test]
fn where_nobody_could_continue_it_ctrl_z_freezes_nothing() {
    // A worker in the app's group is frozen, and thawed, as well.
    for words in ["default TSTP serve", "fork as worker default TSTP serve . default TSTP serve"] {
        for setup in everywhere() {
            let mut guard = setup.terminal().fixture(words).start();
            guard.line("ready");
            guard.press(CTRL_Z);
            guard.line("got CONT"); // the key throws away what was printed before it
            guard.signal(libc::SIGUSR1);
            guard.line("got USR1");
            guard.press(CTRL_Z);
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 143);
        }
    }
}

#[test]
fn below_a_shell_ctrl_z_stops_both_and_sigcont_continues_both() {
    let words = "ids default TSTP default CONT quit TERM 0 serve";
    let script = format!("'{}' -- '{}' {words}; exit $?", env!("CARGO_BIN_EXE_guard"), fixture().display());
    let mut shell = child().terminal().program("/bin/sh").options(["-c", &script]).start();
    let app: i32 = shell.line_after("pid ").parse().unwrap();
    shell.line("ready");
    let guard = children(shell.pid())[0];
    for _ in 0..2 {
        shell.press(CTRL_Z);
        wait_for_state(guard, 'T');
        wait_for_state(app, 'T');
        send(guard, libc::SIGCONT);
        wait_for_state(guard, 'S');
        wait_for_state(app, 'S');
        send(guard, libc::SIGUSR1);
        shell.line("got USR1");
    }
    shell.press(CTRL_C);
    shell.line("got INT");
    send(guard, libc::SIGTERM);
    assert_eq!(shell.code(), 0);
}

/// Which the kernel tells the foreground and the session's leader by SIGHUP.
#[test]
fn the_end_of_the_terminal_is_a_stop() {
    for setup in everywhere() {
        let mut guard = setup.terminal().fixture("default HUP serve").start();
        guard.line("ready");
        guard.signal(libc::SIGHUP);
        assert_eq!(guard.code(), 129);
        assert!(has_logged(&guard, "stopped-at-terminal"), "{}", guard.transcript());
    }
}

#[test]
fn after_a_reload_the_new_run_has_the_terminal() {
    for setup in everywhere() {
        let setup = setup.terminal().env("GUARD_SIGNAL_MAP", "USR2=reload");
        let mut guard = setup.fixture("foreground quit INT 0 quit TERM 0 serve").start();
        assert_eq!(guard.lines_until("ready"), ["foreground yes"]);
        guard.signal(libc::SIGUSR2);
        guard.event("exit");
        guard.line("foreground yes");
        guard.line("ready");
        guard.press(CTRL_C);
        guard.line("got INT");
        assert_eq!(guard.code(), 0);
        assert!(!has_logged(&guard, "drain"), "the key is the app's alone: {}", guard.transcript());
    }
}

#[test]
fn a_run_that_cannot_have_the_terminal_is_left_stopped() {
    // To continue it would only stop it again, and guard would do nothing else.
    let reader = "echo ready; trap : TERM; while :; do read line; done";
    let Some(setup) = pid1() else { return };
    let setup = setup.terminal().env("GUARD_SIGNAL_MAP", "USR2=reload").env("GUARD_STOP_TIMEOUT", "1s");
    let mut guard = setup.app(["sh", "-c", reader]).start();
    guard.line("ready");
    guard.signal(libc::SIGUSR2);
    guard.event("stopped");
    guard.event("kill");
    let stopped = guard.events().iter().filter(|event| event.name() == "stopped").count();
    assert!(stopped < 5, "{}", guard.transcript());
}
