//! What an operator asks: `guard ready`, `health`, `status`, `stop`, `restart`, and who may.

mod common;

use common::{Answer, Guard, Setup, eventually, everywhere, in_path, pid1, skipped, spawn};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};

fn no(answer: &Answer, why: &str) {
    assert_eq!((answer.code, answer.out.trim_end()), (1, why), "{answer:?}");
}

fn yes(answer: &Answer, text: &str) {
    assert_eq!((answer.code, answer.out.trim_end()), (0, text), "{answer:?}");
}

/// A mount namespace of its own, in which no other test's guard is found: the options go on with what runs there.
fn alone() -> Option<Setup> {
    let unshare = in_path("unshare").filter(|_| nix::unistd::geteuid().is_root());
    if unshare.is_none() {
        skipped("a mount namespace of its own needs root");
    }
    unshare.map(|unshare| common::child().program(unshare).options(["--mount"]))
}

/// A command in the mount namespace of a guard that is alone there.
fn beside(guard: &Guard, words: &[&str]) -> Answer {
    let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
    command.args(["--target", &guard.pid().to_string(), "--mount", "--"]).args(words);
    let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().expect("it can be waited for");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

const GUARD: &str = env!("CARGO_BIN_EXE_guard");

#[test]
fn ready_and_health_say_what_they_are_for() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_DRAIN_DELAY", "5s").env("GUARD_STOP_TIMEOUT", "20s");
        let mut guard = setup.fixture("serve").start();
        guard.line("ready");
        yes(&guard.until_yes(&["ready"]), "ready");
        yes(&guard.ask(&["health"]), "alive");
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        no(&guard.ask(&["ready"]), "not ready: guard is stopping");
        yes(&guard.ask(&["health"]), "alive");
    }
}

#[test]
fn between_two_runs_it_is_alive_and_not_ready() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
        let mut guard = setup.fixture("exit 1").start();
        guard.event("restart");
        guard.event("restart");
        no(&guard.ask(&["ready"]), "not ready: the app is between two runs");
        yes(&guard.ask(&["health"]), "alive");
        let status = guard.ask(&["status"]).out;
        assert!(status.contains("backoff, next run in "), "{status}");
    }
}

#[test]
fn the_status_is_a_table_and_json() {
    for setup in everywhere() {
        let words = "notify STATUS=\u{1b}[31mred before-run 2 exit 7 serve";
        let mut guard = setup.fixture(words).start();
        guard.line("ready");
        let status = eventually("the status", || Some(guard.ask(&["status"]).out).filter(|text| text.contains("red")));
        let row: Vec<&str> = status.lines().last().expect("a row").split_whitespace().collect();
        assert_eq!([row[0], row[1], row[3], row[5], row[6]], ["0", "2", "ready", "1", "7"], "{status}");
        assert!(row[7].ends_with('M') && row[7] != "0.0M", "{status}");
        assert!(!status.contains('\u{1b}'), "no escapes reach the terminal: {status:?}");
        let json = guard.ask(&["status", "--json"]).out;
        for part in [r#""ready":true,"why":null"#, r#""run":2"#, r#""last_exit":"7""#, r#""status":"\u001b[31mred""#] {
            assert!(json.contains(part), "{part} in {json}");
        }
        if let Some(python) = in_path("python3") {
            let mut child =
                spawn(Command::new(python).args(["-m", "json.tool"]).stdin(Stdio::piped()).stdout(Stdio::null()));
            std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), json.as_bytes()).expect("a reader");
            assert!(child.wait().expect("it ends").success(), "{json}");
        }
    }
}

#[test]
fn a_restart_is_answered_when_the_new_run_is_ready_and_does_not_count() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_RESTARTS", "1").env("GUARD_READY", "notify");
        let mut guard = setup.fixture("env notify READY=1 serve").start();
        guard.event("ready");
        for number in 2..5 {
            yes(&guard.ask(&["restart"]), &format!("restarted: run {number} is ready"));
        }
        let lines = guard.lines_until("env GUARD_RUN=4");
        assert!(lines.iter().all(|line| !line.starts_with("env GUARD_RESTARTS=") || line.ends_with("=0")), "{lines:?}");
    }
}

#[test]
fn a_restart_whose_new_run_fails_is_answered_with_no() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify");
        let mut guard = setup.fixture("before-run 2 notify READY=1 before-run 2 serve exit 1").start();
        guard.event("ready");
        no(&guard.ask(&["restart"]), "not restarted: the new run failed before it was ready");
    }
}

#[test]
fn a_restart_in_a_backoff_does_not_wait_for_its_end() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
        let mut guard = setup.fixture("before-run 3 exit 1 serve").start();
        guard.event("restart");
        guard.event("restart");
        yes(&guard.ask(&["restart"]), "restarted: run 3 is ready");
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
        no(&guard.ask(&["restart"]), "not restarted: guard is stopping");
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
        let clients: Vec<_> = (0..3)
            .map(|_| spawn(guard.client(&["stop"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())))
            .collect();
        (0..3).for_each(|_| drop(guard.event("asked")));
        guard.line("got TERM");
        guard.signal(libc::SIGUSR1);
        for client in clients {
            let output = client.wait_with_output().expect("it ends");
            assert!(output.status.success() && output.stdout.starts_with(b"stopped: "), "{output:?}");
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
        let mut client =
            spawn(guard.client(&["stop"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        guard.event("asked");
        client.kill().expect("it lives");
        client.wait().expect("it has ended");
        guard.line("got TERM");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn another_user_is_refused_and_told_so() {
    let (Some(setup), Some(setpriv)) = (pid1(), in_path("setpriv")) else { return skipped("there is no setpriv") };
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can be another user");
    }
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
    command.args(["--target", &guard.pid().to_string(), "--pid", "--mount", "--"]).arg(setpriv);
    command.args(["--reuid", "65534", "--clear-groups", GUARD, "stop"]);
    let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "guard: only root or uid 0 may ask this guard\n");
    guard.event("refused");
    assert!(guard.ask(&["status", "--json"]).out.contains(r#""refused":1"#));
}

#[test]
fn from_another_pid_namespace_nobody_is_heard() {
    let Some(setup) = pid1() else { return };
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let namespace = std::fs::metadata(format!("/proc/{}/ns/mnt", guard.pid())).expect("guard lives");
    let name = format!("guard/{}", std::os::unix::fs::MetadataExt::ino(&namespace));
    let address = SocketAddr::from_abstract_name(name).expect("a name");
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.send_to_addr(b"guard 1 stop", &address).expect("guard has a socket of this name");
    guard.event("refused");
    yes(&guard.ask(&["ready"]), "ready");
}

#[test]
fn without_a_guard_the_message_says_where_it_was_looked_for() {
    let Some(alone) = alone() else { return };
    let mut client = alone.options([GUARD, "ready"]).start();
    assert_eq!(client.code(), 125);
    let err = client.err().join("\n");
    assert!(err.contains("guard: no guard is running here: looked for @guard/"), "{err}");
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
        yes(&guard.until_yes(&["ready"]), "ready");
    }
}

#[test]
fn where_two_guards_answer_the_client_says_so() {
    let Some(setup) = alone() else { return };
    let app = common::fixture().to_str().expect("UTF-8");
    let mut guard = setup.options([GUARD]).app([GUARD, "--", app, "serve"]).start();
    guard.line("ready");
    let answer = eventually("both", || {
        let answer = beside(&guard, &[GUARD, "status"]);
        (answer.code == 125 && answer.err.contains("more than one")).then_some(answer)
    });
    assert!(answer.err.contains(&format!("--pid {}  ", guard.pid())), "{answer:?}");
    assert!(answer.err.contains(app), "it says which is which: {answer:?}");
    let pid = guard.pid().to_string();
    yes(&beside(&guard, &[GUARD, "ready", "--pid", &pid]), "ready");
    assert_eq!(beside(&guard, &[GUARD, "ready", "--pid", "1"]).code, 125);
}

#[test]
fn a_squatter_on_the_name_is_no_guard() {
    let Some(setup) = alone() else { return };
    let Some(python) = in_path("python3") else { return skipped("there is no python3") };
    // As another user it takes the name first, and answers everything with yes.
    let squatter = "import os, socket, sys\n\
        name = b'\\0guard/%d' % os.stat('/proc/self/ns/mnt').st_ino\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        s.bind(name)\n\
        if not os.fork():\n\
        \x20   os.setuid(65534)\n\
        \x20   while True:\n\
        \x20       _, who = s.recvfrom(100)\n\
        \x20       s.sendto(b'yes ready', who)\n\
        os.execv(sys.argv[1], sys.argv[1:])\n";
    let app = common::fixture().to_str().expect("UTF-8");
    let python = python.to_str().expect("UTF-8");
    let setup = setup.options([python, "-c", squatter, GUARD, "--ready", "notify", "--", app, "serve"]);
    let mut guard = setup.start();
    guard.line("ready");
    let user = ["setpriv", "--reuid", "65533", "--clear-groups", GUARD, "ready", "--timeout", "500ms"];
    let answer = eventually("guard itself", || {
        let answer = beside(&guard, &[GUARD, "ready", "--pid", &guard.pid().to_string()]);
        (answer.code != 125).then_some(answer)
    });
    no(&answer, "not ready: the app has not said yet that it is ready");
    let answer = beside(&guard, &user);
    assert_eq!(answer.code, 125, "another user's yes is not believed: {answer:?}");
}

#[test]
fn a_flood_of_requests_delays_nothing() {
    let Some(setup) = alone() else { return };
    let setup = setup.env("GUARD_STOP_TIMEOUT", "5s").options([GUARD]);
    let mut guard = setup.fixture("before-run 2 quit USR1 1 serve").start();
    guard.line("ready");
    eventually("guard", || (beside(&guard, &[GUARD, "ready"]).code == 0).then_some(()));
    let Some(python) = in_path("python3") else { return skipped("there is no python3") };
    let flood = "import os, socket, sys\n\
        name = b'\\0guard/%d' % os.stat('/proc/self/ns/mnt').st_ino\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        s.bind('')\n\
        try:\n\
        \x20   while True: s.sendto(b'guard 1 status', name)\n\
        except OSError: pass\n";
    let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
    command.args(["--target", &guard.pid().to_string(), "--mount", "--"]).arg(python).args(["-c", flood]);
    let mut flood = spawn(&mut command);
    guard.signal(libc::SIGUSR1);
    guard.event("restart");
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    guard.line("got TERM");
    assert_eq!(guard.code(), 143);
    flood.kill().ok();
    flood.wait().expect("it has ended");
}
