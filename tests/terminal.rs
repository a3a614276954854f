//! guard at a terminal, as under `docker run -it`: who gets the keys, and what becomes of the terminal.
//!
//! When a session's leader ends, the kernel hangs its terminal up and drops what nobody has read yet, so these tests wait
//! for the app's lines before the end.

use crate::common::{
    self, Guard, child, children, eventually, everywhere, fixture, in_path, send, skipped, status_field,
};

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
fn ctrl_c_is_a_stop_request_that_reaches_the_app_once() {
    for scope in ["process", "group"] {
        for setup in everywhere() {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let file = directory.path().join("draining");
            let setup = setup.terminal().env("GUARD_DRAIN_FILE", &file).env("GUARD_SIGNAL_SCOPE", scope);
            let words = "fork as worker quit TERM 0 quit URG 0 serve . quit URG 0 serve";
            let mut guard = setup.env("GUARD_STOP_TIMEOUT", "none").fixture(words).start();
            guard.line("ready");
            guard.press(CTRL_C);
            guard.lines(&["got INT", "worker got INT"]);
            assert_eq!(guard.event("drain").get("signal"), Some("SIGINT"));
            eventually("the drain file", || file.exists().then_some(()));
            // A higher number, so that it overtakes no second INT.
            guard.signal(libc::SIGWINCH);
            guard.line("got WINCH");
            assert_eq!((count(&guard, "got INT"), count(&guard, "worker got INT")), (1, 1));
            guard.signal(libc::SIGURG);
            assert_eq!(guard.code(), 0);
            assert_eq!(count(&guard, "got TERM"), 0, "{}", guard.transcript());
        }
    }
}

/// The kernel tells a writer that does not wait to come again while another one writes.
#[test]
fn what_the_app_writes_costs_guard_no_line() {
    const PYTHON: &str = "/usr/bin/python3";
    if !std::path::Path::new(PYTHON).exists() {
        return skipped("no python3");
    }
    // Fewer bytes than a terminal keeps that nobody reads.
    let script = "
import os, signal
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.signal(signal.SIGUSR2, lambda *_: os._exit(0))
os.write(1, b'serves\\n')
for _ in range(15000): os.write(1, b'x\\n')
while True: signal.pause()
";
    for setup in everywhere() {
        let setup = setup.program("/bin/sh").options(["-c", "exec \"$@\" 2>&1", "sh", env!("CARGO_BIN_EXE_guard")]);
        let mut guard = setup.terminal().env("GUARD_LOG", "debug").app([PYTHON, "-c", script]).start();
        guard.line("serves");
        for _ in 0..20 {
            guard.signal(libc::SIGUSR1);
            guard.ask(&["ready"]).yes("ready");
        }
        guard.signal(libc::SIGUSR2);
        assert_eq!(guard.code(), 0);
        let lines = |event: &str| guard.out().iter().filter(|line| line.contains(event)).count();
        assert_eq!((lines(" event=dropped "), lines(" event=signal ")), (0, 21));
    }
}

#[test]
fn after_ctrl_c_nothing_is_started_any_more() {
    for (words, policy, code) in
        [("quit INT 0 serve", "always", 0), ("quit INT 3 serve", "on-failure", 3), ("quit QUIT 3 serve", "always", 3)]
    {
        for setup in everywhere() {
            let mut guard = setup.terminal().env("GUARD_RESTART", policy).fixture(words).start();
            guard.line("ready");
            guard.press(if words.starts_with("quit INT") { CTRL_C } else { CTRL_BACKSLASH });
            assert_eq!(guard.code(), code, "{words}");
            assert_eq!(count(&guard, "ready"), 1, "no run follows");
        }
    }
}

#[test]
fn an_app_that_ignores_ctrl_c_is_killed_at_the_deadline_and_the_log_says_so() {
    for setup in everywhere() {
        let mut guard = setup.terminal().env("GUARD_STOP_TIMEOUT", "300ms").fixture("deaf").start();
        guard.line("ready");
        guard.press(CTRL_C);
        guard.event("drain");
        assert!(guard.event("kill").line.contains("GUARD_STOP_TIMEOUT=300ms"));
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn a_second_ctrl_c_kills_at_once() {
    for setup in everywhere() {
        let mut guard = setup.terminal().env("GUARD_STOP_TIMEOUT", "none").fixture("deaf").start();
        guard.line("ready");
        guard.press(CTRL_C);
        guard.event("drain");
        guard.press(CTRL_C);
        assert_eq!(guard.code(), 137);
    }
}

/// As a REPL wants it, which takes the key to give up a line.
#[test]
fn mapped_to_ignore_the_key_is_the_apps_alone() {
    for setup in everywhere() {
        let setup = setup.terminal().env("GUARD_SIGNAL_MAP", "INT=ignore");
        let mut guard = setup.fixture("quit WINCH 0 serve").start();
        guard.line("ready");
        guard.press(CTRL_C);
        guard.line("got INT");
        guard.press(CTRL_C);
        guard.line("got INT");
        guard.resize(41, 101);
        assert_eq!(guard.code(), 0);
        assert_eq!((count(&guard, "got INT"), count(&guard, "got WINCH")), (2, 1));
        assert!(!has_logged(&guard, "drain"), "{}", guard.transcript());
    }
}

/// As timeout(1) does, which the terminal then does not reach.
#[test]
fn an_app_that_has_left_the_group_gets_its_stop_signal_from_guard() {
    for words in ["setpgid quit URG 4 serve", "setsid quit URG 4 serve"] {
        for setup in everywhere() {
            let mut guard = setup.terminal().fixture(words).start();
            guard.line("ready");
            guard.press(CTRL_C);
            guard.line("got INT");
            guard.signal(libc::SIGURG);
            assert_eq!(guard.code(), 4);
            assert_eq!(count(&guard, "got INT"), 1);
        }
    }
}

#[test]
fn with_scope_group_each_process_of_the_run_gets_signals_once() {
    for setup in everywhere() {
        let setup = setup.terminal().env("GUARD_SIGNAL_SCOPE", "group");
        let mut guard = setup.fixture("fork as worker quit TERM 0 serve . quit TERM 0 linger 50 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        guard.lines(&["got USR1", "worker got USR1"]);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        for line in ["got USR1", "got TERM", "worker got USR1", "worker got TERM"] {
            assert_eq!(count(&guard, line), 1, "{line}: {}", guard.transcript());
        }
    }
}

/// Apache httpd does so for a graceful restart. guard is in that group, and must not pass the signal on.
#[test]
fn what_an_app_sends_to_its_own_group_comes_to_it_once() {
    for setup in everywhere() {
        // A shell that is about to read would run no trap before there is something to read.
        let script = "trap 'echo again; kill -USR2 0' HUP; trap 'echo got' USR2; trap 'exit 0' TERM; echo ready; \
                      while :; do sleep 0.05; done";
        let mut guard = setup.terminal().app(["sh", "-c", script]).start();
        guard.line("ready");
        guard.signal(libc::SIGHUP);
        guard.line("got");
        guard.signal(libc::SIGHUP);
        guard.line("got");
        guard.signal(libc::SIGTERM);
        guard.status();
        assert_eq!((count(&guard, "again"), count(&guard, "got")), (2, 2), "{}", guard.transcript());
    }
}

#[test]
fn a_hook_finds_nothing_at_stdin() {
    for setup in everywhere() {
        let setup = setup.terminal().env("GUARD_PRE_STOP", "cat").env("GUARD_STOP_TIMEOUT", "1h");
        let mut guard = setup.fixture("quit INT 0 serve").start();
        guard.line("ready");
        guard.press(CTRL_C);
        assert_eq!(guard.code(), 0);
        assert_eq!(
            guard.events().iter().find(|event| event.name() == "pre-stop-ended").and_then(|e| e.get("code")),
            Some("0")
        );
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
            assert!(has_logged(&guard, "drain"), "{}", guard.transcript());
        }
    }
}

/// Lines of a shell's that a person types, and what guard exits with then.
const TYPED: [(&[&str], i32); 4] =
    [(&["exit 3\n"], 3), (&["false\n", "exit\n"], 1), (&["sleep 0; exit 4\n"], 4), (&["exit 0\n"], 0)];

#[test]
fn who_leaves_a_shell_has_left_it_however_it_was_started() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let entrypoint =
        common::program(directory.path(), "docker-entrypoint.sh", "#!/bin/sh\nset -e\nexec \"$@\"\n", 0o755);
    let entrypoint = entrypoint.to_str().expect("UTF-8");
    let mut commands = vec![vec!["sh"], vec!["env", "sh"], vec![entrypoint, "sh", "-i"]];
    commands.push(vec!["sh", "-c", "sh; exit $?"]);
    match in_path("bash") {
        Some(_) => commands.extend([vec!["bash", "--norc"], vec![entrypoint, "bash", "--norc"]]),
        None => skipped("there is no bash"),
    }
    match in_path("su") {
        // It gives the shell a session of its own, without job control.
        Some(_) if nix::unistd::geteuid().is_root() => commands.push(vec!["su", "-c", "sh"]),
        Some(_) | None => skipped("su asks for a password, or is not there"),
    }
    for command in commands {
        for (lines, code) in TYPED {
            for policy in ["on-failure", "always"] {
                for setup in everywhere() {
                    let setup = setup.terminal().env("PS1", "").env("GUARD_RESTART", policy).env("TERM", "dumb");
                    let mut shell = setup.app(command.clone()).start();
                    for line in lines {
                        shell.press(line);
                    }
                    assert_eq!(shell.code(), code, "{command:?} {lines:?}");
                    assert!(!has_logged(&shell, "restart"), "{}", shell.transcript());
                }
            }
        }
    }
}

/// The shell exits long after the line was typed.
#[test]
fn a_shell_that_has_the_foreground_exits_as_told_whenever_that_is() {
    for setup in everywhere() {
        let mut shell = setup.terminal().env("PS1", "").app(["sh"]).start();
        shell.press("sleep 3; exit 5\n");
        assert_eq!(shell.code(), 5);
        assert!(has_logged(&shell, "stopped-at-terminal"), "{}", shell.transcript());
    }
}

/// Nobody has typed a line.
#[test]
fn who_has_taken_the_foreground_exits_as_told_though_nothing_was_typed() {
    if in_path("python3").is_none() {
        return skipped("there is no python3");
    }
    let takes_it = "
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
signal.signal(signal.SIGINT, lambda *_: sys.exit(3))
os.setpgid(0, 0)
os.tcsetpgrp(0, os.getpid())
print('has it', flush=True)
while True: signal.pause()";
    for setup in everywhere() {
        let setup = setup.terminal().env("GUARD_RESTART", "always");
        let mut guard = setup.app(["python3", "-c", takes_it]).start();
        guard.line("has it");
        guard.press(CTRL_C);
        assert_eq!(guard.code(), 3);
        assert!(has_logged(&guard, "stopped-at-terminal"), "{}", guard.transcript());
    }
}

/// Somebody types at a shell, in whose background guard is.
#[test]
fn what_another_program_reads_tells_no_app_to_exit() {
    let guard = env!("CARGO_BIN_EXE_guard");
    let app = format!("'{guard}' --restart always -- '{}' quit USR1 1 serve", fixture().display());
    let mut shell = child()
        .terminal()
        .program("/bin/sh")
        .options(["-c", &format!("set -m; {app} & read line; echo read; wait")])
        .start();
    shell.line("ready");
    shell.press("a line\n");
    shell.line("read");
    send(children(shell.pid())[0], libc::SIGUSR1);
    shell.event("restart");
    shell.line("ready");
    send(children(shell.pid())[0], libc::SIGTERM);
}

#[test]
fn a_key_within_a_shell_is_for_its_foreground_job() {
    for setup in everywhere() {
        let mut shell = setup.terminal().env("PS1", "").app(["sh"]).start();
        shell.press(&format!("'{}' quit QUIT 3 serve\n", fixture().display()));
        shell.line("ready");
        shell.press(CTRL_C);
        shell.line("got INT");
        shell.press(CTRL_BACKSLASH);
        shell.line("got QUIT");
        shell.press("echo code $?\n");
        shell.line("code 3");
        shell.press(CTRL_C); // at the prompt, which begins anew
        shell.log_line("a new line", str::is_empty);
        shell.press("echo here\n");
        shell.line("here");
        shell.press("exit 0\n");
        assert_eq!(shell.code(), 0);
        assert!(!shell.events().iter().any(|event| event.get("signal") == Some("SIGINT")), "{}", shell.transcript());
    }
}

/// The foreground is the killed shell's still, and the next run has it all the same.
#[test]
fn a_shell_that_is_killed_is_restarted_and_has_the_foreground_again() {
    for setup in everywhere() {
        let mut shell = setup.terminal().env("PS1", "").app(["sh"]).start();
        for _ in 0..2 {
            shell.press(&format!("'{}' foreground exit 0\n", fixture().display()));
            shell.line("foreground yes");
            shell.press("kill -9 $$\n");
            shell.event("restart");
        }
        shell.press("exit 3\n");
        assert_eq!(shell.code(), 3);
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

/// People press Enter to have some space between lines.
#[test]
fn what_an_app_does_not_read_does_not_tell_it_to_exit() {
    for setup in everywhere() {
        let mut guard = setup.terminal().fixture("quit USR1 1 serve").start();
        for _ in 0..2 {
            guard.line("ready");
            guard.press("\n");
            guard.signal(libc::SIGUSR1);
            guard.event("restart");
        }
    }
}

/// It died of a signal, so it has not exited because of what was typed.
#[test]
fn what_one_run_has_read_does_not_tell_the_next_one_to_exit() {
    for setup in everywhere() {
        let script =
            "case $GUARD_RUN in 1) read line; kill -SEGV $$;; 2) exit 1;; *) echo serves; exec sleep 1000;; esac";
        let setup = setup.terminal().env("GUARD_BACKOFF_INITIAL", "10ms").env("GUARD_LIMIT_CORE", "0");
        let mut guard = setup.app(["sh", "-c", script]).start();
        guard.event("spawn");
        guard.press("a line\n");
        guard.line("serves");
        assert!(!has_logged(&guard, "stopped-at-terminal"), "{}", guard.transcript());
    }
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
    for setup in everywhere() {
        let script = "echo ready; while read line; do echo read $line; [ $line = two ] && exit 0; done";
        let mut guard = setup.terminal().app(["sh", "-c", script]).start();
        guard.line("ready");
        for word in ["one", "two"] {
            guard.press(CTRL_Z);
            guard.press(&format!("{word}\n"));
            guard.line(&format!("read {word}"));
        }
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn below_a_shell_with_job_control_ctrl_z_stops_both_and_fg_continues_both() {
    let words = "ids default TSTP quit INT 0 serve";
    let script =
        format!("set -m; '{}' -- '{}' {words}; fg; fg; exit $?", env!("CARGO_BIN_EXE_guard"), fixture().display());
    let mut shell = child().terminal().program("/bin/sh").options(["-c", &script]).start();
    let app: i32 = shell.line_after("pid ").parse().unwrap();
    shell.line("ready");
    let guard = children(shell.pid())[0];
    for _ in 0..2 {
        shell.press(CTRL_Z);
        // The shell has seen guard stop, and has said fg.
        shell.line("got CONT");
        wait_for_state(guard, 'S');
        wait_for_state(app, 'S');
        send(guard, libc::SIGUSR1);
        shell.line("got USR1");
    }
    shell.press(CTRL_C);
    shell.line("got INT");
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
        assert_eq!(count(&guard, "got INT"), 1);
    }
}
