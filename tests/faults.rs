//! What guard does where the kernel refuses it something for a while.

#![allow(unsafe_code, reason = "nix has no call for another process's limits")]

mod common;

use common::{eventually, everywhere};
use std::{fs, ptr};

#[test]
fn a_wait_that_fails_is_no_death() {
    for setup in everywhere() {
        let setup = setup.inherits("forbid wait4").env("GUARD_STOP_TIMEOUT", "1s");
        let mut guard = setup.fixture("fork exit 0 . serve").start();
        guard.line("ready");
        assert_eq!(guard.event("wait-failed").get("error"), Some("Operation not permitted"));
        guard.signal(libc::SIGUSR1);
        guard.line("got USR1");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 137, "{}", guard.transcript());
        assert_eq!(guard.out().iter().filter(|line| **line == "ready").count(), 1, "{}", guard.transcript());
    }
}

/// The number of guard's first socket, which is the one for its operator.
fn control_socket(pid: i32) -> Option<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("guard lives").flatten();
    let is_socket = |path| fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
    let sockets = descriptors.filter(|entry| is_socket(entry.path()));
    sockets.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|&number| number > 2).min()
}

#[test]
fn a_control_socket_that_cannot_be_opened_is_opened_later() {
    for (first, setup) in everywhere().into_iter().zip(everywhere()) {
        let mut guard = first.fixture("serve").start();
        guard.line("ready");
        let number = control_socket(guard.pid()).expect("a socket");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        let mut guard = setup.inherits(&format!("nofile {number}")).fixture("serve").start();
        guard.line("ready");
        guard.event("control-socket");
        assert_eq!(guard.ask(&["ready", "--timeout", "50ms"]).code, 125);
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: prlimit(2) writes a limit or reads one.
        let results = unsafe {
            let read = libc::prlimit(guard.pid(), libc::RLIMIT_NOFILE, ptr::null(), &raw mut limit);
            limit.rlim_cur = limit.rlim_max;
            [read, libc::prlimit(guard.pid(), libc::RLIMIT_NOFILE, &raw const limit, ptr::null_mut())]
        };
        assert_eq!(results, [0, 0]);
        eventually("an answer", || (guard.ask(&["ready"]).code == 0).then_some(()));
        let told = guard.events().iter().filter(|event| event.name() == "control-socket").count();
        assert_eq!(told, 1, "{}", guard.transcript());
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}
