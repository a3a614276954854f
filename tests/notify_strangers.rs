//! Who may speak on a run's notify socket, and what does no harm there: strangers, garbage, descriptors, floods.

use crate::common::notify::{barrier, speak};
use crate::common::{self, Guard, Setup, child, eventually, everywhere, fixture, pid1, send, skipped};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

fn setup(setup: Setup) -> Setup {
    setup.env("GUARD_READY", "notify").env("GUARD_STOP_TIMEOUT", "700ms")
}

/// A guard whose app has said nothing yet, and the socket where it would.
fn silent(setup: Setup) -> (Guard, String) {
    let mut guard = setup.fixture("env serve").start();
    let socket = guard.line_after("env NOTIFY_SOCKET=");
    guard.line("ready");
    (guard, socket)
}

fn open_descriptors(guard: &Guard) -> usize {
    fs::read_dir(format!("/proc/{}/fd", guard.pid())).map_or(0, Iterator::count)
}

#[test]
fn who_is_outside_of_the_namespace_is_refused_and_counted() {
    let Some(inside) = pid1() else { return };
    // A helper's word about its own end is refused too, and no reason to say nothing of strangers.
    let script = format!("{0} notify STOPPING=1 exit 0; exec {0} env serve", fixture().display());
    let mut guard = setup(inside).app(["sh", "-c", &script]).start();
    let socket = guard.line_after("env NOTIFY_SOCKET=");
    guard.line("ready");
    refused(&guard, 1);
    for _ in 0..3 {
        // The network namespace is the same, so it gets there.
        speak(&socket, b"READY=1\nSTATUS=mine", &[]).expect("it is sent");
    }
    refused(&guard, 4);
    assert_eq!(guard.ask(&["ready"]).code, 1);
    assert!(!guard.ask(&["status"]).out.contains("mine"));
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 143);
    assert_eq!(guard.events().iter().filter(|event| event.name() == "refused").count(), 1, "said once");
}

#[test]
fn who_is_in_the_namespace_is_heard_whoever_its_parent_is() {
    let (mut guard, socket) = silent(setup(child()));
    speak(&socket, b"READY=1", &[]).expect("it is sent");
    guard.event("ready");
}

#[test]
fn what_makes_no_sense_is_skipped() {
    let (mut guard, socket) = silent(setup(child()));
    let long = ["READY=1\n", &"X_LONG=1\n".repeat(1_000)].concat();
    let huge = vec![b'\n'; 150_000];
    for bytes in [b"", &b"\0"[..], b"READY=1\0\0", b"\0READY=1", b"\xff\xfe=\xc3\x28", long.as_bytes(), &huge] {
        speak(&socket, bytes, &[]).expect("it is sent");
    }
    speak(&socket, b"MAINPID=4294967297\nEXTEND_TIMEOUT_USEC=99999999999999999999999\nWATCHDOG_USEC=-1", &[])
        .expect("it is sent");
    barrier(&socket);
    assert_eq!(guard.ask(&["ready"]).code, 1);
    speak(&socket, b"READY=1\0", &[]).expect("it is sent");
    guard.event("ready");
    barrier(&socket);
    guard.signal(libc::SIGTERM);
    guard.line("got TERM");
    assert_eq!(guard.code(), 143);
}

#[test]
fn descriptors_to_be_kept_are_closed() {
    let (_guard, socket) = silent(setup(child()));
    let (mut own, other) = UnixStream::pair().expect("two sockets");
    own.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
    speak(&socket, b"FDSTORE=1\nFDNAME=mine", &[other.as_raw_fd()]).expect("it is sent");
    drop(other);
    assert_eq!(own.read(&mut [0]).expect("its other end is closed"), 0);
}

#[test]
fn guard_does_not_run_out_of_descriptors() {
    // As few as it needs itself, nearly, and enough for one such datagram.
    for limit in [24, 300] {
        let (mut guard, socket) = silent(setup(child().inherits(&format!("nofile {limit}"))));
        barrier(&socket); // it has opened all its own by now
        let before = open_descriptors(&guard);
        let (own, other) = UnixStream::pair().expect("two sockets");
        own.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
        for text in ["FDSTORE=1", "BARRIER=1", ""].iter().cycle().take(60) {
            speak(&socket, text.as_bytes(), &[other.as_raw_fd(); 253]).expect("it is sent");
        }
        drop(other);
        assert_eq!((&own).read(&mut [0]).expect("all are closed"), 0, "nofile {limit}");
        barrier(&socket);
        eventually("as many as before", || (open_descriptors(&guard) <= before).then_some(()));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn the_socket_of_an_earlier_run_is_closed_with_it() {
    let mut guard = setup(child()).fixture("env before-run 2 exit 1 serve").start();
    let old = guard.line_after("env NOTIFY_SOCKET=");
    let new = guard.line_after("env NOTIFY_SOCKET=");
    guard.line("ready");
    assert_ne!(old, new);
    assert_eq!(speak(&old, b"READY=1", &[]), Err(nix::Error::ENOENT));
    barrier(&new);
    assert_eq!(guard.ask(&["ready"]).code, 1);
}

#[test]
fn a_run_cannot_take_the_main_process_of_another() {
    let setup = setup(child()).env("GUARD_SIGNAL_MAP", "USR1=reload");
    let mut guard = setup.fixture("ids env serve").start();
    let run = |guard: &mut Guard| (guard.line_after("pid "), guard.line_after("env NOTIFY_SOCKET="));
    let (old, old_socket) = run(&mut guard);
    speak(&old_socket, b"READY=1", &[]).expect("it is sent");
    guard.event("ready");
    guard.signal(libc::SIGUSR1);
    let (new, new_socket) = run(&mut guard);
    speak(&new_socket, format!("MAINPID={old}").as_bytes(), &[]).expect("it is sent");
    barrier(&new_socket);
    send(new.parse().expect("a pid"), libc::SIGKILL);
    guard.event("reload-failed");
    assert!(!guard.events().iter().any(|event| event.name() == "main-process"), "{}", guard.transcript());
}

/// Two that never stop to speak, beside the app of these words.
fn flooded(setup: Setup, words: &str) -> Guard {
    let script = format!(
        "for name in 1 2; do $FIXTURE flood 2000000000 STATUS=flood,READY=1,WATCHDOG=1 & done; exec $FIXTURE {words}"
    );
    let mut guard = setup.env("FIXTURE", fixture()).app(["sh", "-c", &script]).start();
    guard.line("ready");
    eventually("the flood", || guard.ask(&["status"]).out.contains("flood").then_some(()));
    guard
}

#[test]
fn in_a_flood_signals_are_forwarded_and_a_stop_is_one() {
    for inside in everywhere() {
        let mut guard = flooded(setup(inside).env("GUARD_STOP_TIMEOUT", "20s"), "quit TERM 3 serve");
        guard.signal(libc::SIGUSR1);
        guard.line("got USR1");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 3, "the flood is swept");
    }
}

#[test]
fn in_a_flood_a_crash_is_followed_by_the_next_run() {
    for inside in everywhere() {
        let mut guard = flooded(setup(inside).env("GUARD_STOP_TIMEOUT", "20s"), "quit USR1 9 serve");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.event("restart").get("last"), Some("9"));
        guard.line("ready");
    }
}

#[test]
fn in_a_flood_the_deadline_holds() {
    for inside in everywhere() {
        let mut guard = flooded(setup(inside), "deaf serve");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn without_the_network_of_the_host_it_works_as_well() {
    let Some(inside) = pid1().filter(|_| nix::unistd::geteuid().is_root()) else {
        return skipped("a network namespace of its own needs root");
    };
    let guard = env!("CARGO_BIN_EXE_guard");
    let words = ["--net", "--", guard, "--ready", "notify", "--"];
    let app = fixture().to_str().expect("UTF-8");
    let unshare = common::in_path("unshare").expect("it has made the PID namespace");
    let mut guard = inside.program(unshare).options(words).options([app, "notify", "READY=1", "serve"]).start();
    guard.event("ready");
}

/// A guard whose app, or what is below it, has another user than guard. `$OTHER WORDS` says something as user 65534.
fn with_other_users(script: &str) -> Option<Guard> {
    let Some(inside) = pid1().filter(|_| nix::unistd::geteuid().is_root()) else {
        skipped("only root can be another user");
        return None;
    };
    let other = format!("{} in setuid 65534 -- {}", fixture().display(), fixture().display());
    let setup = inside.env("FIXTURE", fixture()).env("OTHER", other).env("GUARD_STOP_TIMEOUT", "2s");
    let setup = setup.env("GUARD_READY", "notify").env("GUARD_WATCHDOG", "1h");
    let mut guard = setup.env("GUARD_LOG", "debug").app(["sh", "-c", script]).start();
    guard.event("spawn");
    Some(guard)
}

fn refused(guard: &Guard, count: u32) {
    let expected = format!(r#""refused":{count}"#);
    eventually("those that are refused", || guard.ask(&["status", "--json"]).out.contains(&expected).then_some(()));
}

#[test]
fn another_user_cannot_end_or_change_a_run() {
    let script = "for text in WATCHDOG=trigger WATCHDOG_USEC=1 MAINPID=%; do $OTHER notify $text exit 0; done
        $OTHER notify READY=1,STATUS=heard,WATCHDOG=1,EXTEND_TIMEOUT_USEC=1,RELOADING=1,READY=1 exit 0
        exec $FIXTURE serve";
    let Some(mut guard) = with_other_users(script) else { return };
    guard.event("refused");
    guard.event("ready");
    guard.line("ready");
    refused(&guard, 3);
    assert!(guard.ask(&["status"]).out.contains("heard"));
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 143);
    let events = guard.events();
    assert_eq!(events.iter().filter(|event| event.name() == "refused").count(), 1, "said once a run");
    assert!(!events.iter().any(|event| ["failing", "heir"].contains(&event.name())), "{}", guard.transcript());
}

#[test]
fn root_and_the_main_process_s_user_may_change_a_run() {
    for helper in ["$FIXTURE", "$OTHER"] {
        // The main process drops to the other user's id as well.
        let script = format!(
            "(until grep -q '^Uid:.65534' /proc/$$/status; do :; done; {helper} notify WATCHDOG=trigger exit 0) &
             exec $OTHER notify READY=1 default ABRT serve"
        );
        let Some(mut guard) = with_other_users(&script) else { return };
        assert_eq!(guard.event("failing").get("cause"), Some("watchdog"), "{helper}");
        assert_eq!(guard.event("exit").get("signal"), Some("SIGABRT"));
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

#[test]
fn the_orphan_of_an_exec_session_becomes_no_main_process() {
    let script = "exec $FIXTURE notify READY=1 env quit TERM 0 serve";
    let Some(mut guard) = with_other_users(script) else { return };
    let socket = guard.line_after("env NOTIFY_SOCKET=");
    guard.line("ready");
    let enter = |words: &[&str]| {
        let mut command = std::process::Command::new(common::in_path("nsenter").expect("who has unshare has nsenter"));
        command.args(["--target", &guard.pid().to_string(), "--pid", "--mount", "--"]).args(words);
        common::Answer::of(common::begin(command.env_clear().env("NOTIFY_SOCKET", &socket)))
    };
    let orphan = enter(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]).out.trim().to_owned();
    let fixture = fixture().to_str().expect("UTF-8");
    assert_eq!(enter(&[fixture, "notify", &format!("MAINPID={orphan}"), "exit", "0"]).code, 0);
    refused(&guard, 1);
    assert_eq!(guard.event("refused").get("run"), Some("1"));
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0, "and nobody waits for the orphan");
    assert!(!guard.events().iter().any(|event| event.name() == "main-process"), "{}", guard.transcript());
}
