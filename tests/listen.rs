//! Listening sockets that guard hands to each run (`sd_listen_fds(3)`).

mod common;

use common::{Guard, Setup, everywhere};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

/// A guard that was handed a socket, as Podman and systemd do it.
fn handed(setup: Setup, socket: TcpListener, words: &str) -> Setup {
    let script = format!(
        "exec 3<&0 4</dev/null 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:other LISTEN_PIDFDID=7 exec {} \"$@\"",
        env!("CARGO_BIN_EXE_guard")
    );
    let setup = setup.program("/bin/sh").options(["-c", &script, "guard"]).stdin(OwnedFd::from(socket));
    setup.fixture(words)
}

/// What the fixture's `env` says next.
fn environment(guard: &mut Guard) -> BTreeMap<String, String> {
    let lines = guard.lines_until("end");
    let entries = lines.iter().filter_map(|line| line.strip_prefix("env ")?.split_once('='));
    entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn sockets_that_guard_was_handed_are_for_each_run() {
    for setup in everywhere() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let setup = handed(setup, socket, "ids env fds before-run 2 exit 1 serve");
        let mut guard = setup.env("GUARD_NODE_IPC", "on").start();
        for run in 1..=2 {
            let pid = guard.line_after("pid ");
            let environment = environment(&mut guard);
            let value = |name| environment.get(name).map(String::as_str);
            assert_eq!(value("LISTEN_PID"), Some(pid.as_str()), "the run's own, in run {run}");
            assert_eq!(value("LISTEN_FDS"), Some("2"));
            assert_eq!(value("LISTEN_FDNAMES"), Some("web:other"));
            assert_eq!(value("LISTEN_PIDFDID"), None, "it would name guard");
            let descriptors = guard.lines_until("end");
            assert!(descriptors.iter().any(|line| line.starts_with("fd 3 socket:")), "{descriptors:?}");
            assert!(descriptors.iter().any(|line| line == "fd 4 /dev/null"), "{descriptors:?}");
            let channel = value("NODE_CHANNEL_FD").expect("a channel").parse::<i32>().expect("a number");
            assert!(channel > 4, "{channel}");
        }
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn sockets_of_somebody_else_are_left_alone() {
    for setup in everywhere() {
        let setup = setup.env("LISTEN_PID", "4711").env("LISTEN_FDS", "1").fixture("env exit 0");
        let mut guard = setup.start();
        let environment = environment(&mut guard);
        assert_eq!(environment.get("LISTEN_PID").map(String::as_str), Some("4711"));
        assert_eq!(guard.code(), 0);
    }
}
