//! What guard does where the kernel refuses it something for a while.

#![allow(unsafe_code, reason = "nix has no call for another process's limits")]

use crate::common::{self, eventually, everywhere};
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
        let limit = limit(guard.pid(), libc::RLIMIT_NOFILE);
        set_limit(guard.pid(), libc::RLIMIT_NOFILE, limit.rlim_max);
        eventually("an answer", || (guard.ask(&["ready"]).code == 0).then_some(()));
        let told = guard.events().iter().filter(|event| event.name() == "control-socket").count();
        assert_eq!(told, 1, "{}", guard.transcript());
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn leftovers_are_found_as_soon_as_there_are_descriptors_again() {
    for setup in everywhere() {
        let words = "before-run 2 fork setsid as left ids serve . quit USR1 1 quit TERM 0 serve";
        let mut guard = setup.fixture(words).start();
        guard.line("left ready");
        guard.line("ready");
        let before = limit(guard.pid(), libc::RLIMIT_NOFILE).rlim_cur;
        set_limit(guard.pid(), libc::RLIMIT_NOFILE, 3);
        guard.signal(libc::SIGUSR1);
        guard.event("exit");
        set_limit(guard.pid(), libc::RLIMIT_NOFILE, before);
        guard.line("left got TERM");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

/// What guard opens for a run is part of its start: without it the run would be another than the one that was asked for.
#[test]
fn a_run_for_which_guard_has_no_descriptor_is_tried_again() {
    for wanted in [("GUARD_HOLD", "on"), ("GUARD_READY", "notify"), ("GUARD_NODE_IPC", "on")] {
        for setup in everywhere() {
            let port =
                std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
            let setup = setup.env(wanted.0, wanted.1).env("GUARD_MAX_RESTARTS", "unlimited");
            let setup = setup.env("GUARD_BACKOFF_MAX", "100ms").env("GUARD_NOTIFY", "on");
            let words = format!("notify READY=1 listen {} quit USR1 1 quit TERM 0 serve", port.port());
            let mut guard = setup.fixture(&words).start();
            guard.line("ready");
            let before = limit(guard.pid(), libc::RLIMIT_NOFILE).rlim_cur;
            set_limit(guard.pid(), libc::RLIMIT_NOFILE, 3);
            guard.signal(libc::SIGUSR1);
            let failed = guard.event("spawn-failed");
            assert_eq!(failed.get("errno"), Some("EMFILE"), "{}", guard.transcript());
            set_limit(guard.pid(), libc::RLIMIT_NOFILE, before);
            guard.line("ready");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 0, "{}", guard.transcript());
        }
    }
}

#[test]
fn without_memory_guard_goes_on() {
    for setup in everywhere() {
        let settings = [("GUARD_BACKOFF_MAX", "100ms"), ("GUARD_STOP_TIMEOUT", "1s"), ("GUARD_LOG", "debug")];
        let setup = settings.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        let mut guard = setup.fixture("fork as worker deaf serve . ids deaf serve").start();
        let main = guard.line_after("pid ").parse().expect("a pid");
        guard.line("ready");
        let before = limit(guard.pid(), libc::RLIMIT_AS).rlim_cur;
        // guard gets no memory at all, and neither does the next run, which begins with guard's limits.
        set_limit(guard.pid(), libc::RLIMIT_AS, 4096);
        common::send(guard.pid_outside(main), libc::SIGKILL);
        for _ in 0..3 {
            guard.event("restart");
            assert_eq!(guard.ask(&["status"]).code, 0, "{}", guard.transcript());
        }
        set_limit(guard.pid(), libc::RLIMIT_AS, before);
        guard.line("ready");
        set_limit(guard.pid(), libc::RLIMIT_AS, 4096);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137, "{}", guard.transcript());
        assert!(guard.events().iter().any(|event| event.name() == "end"), "{}", guard.transcript());
    }
}

fn limit(pid: i32, resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: prlimit(2) writes a limit.
    assert_eq!(unsafe { libc::prlimit(pid, resource, ptr::null(), &raw mut limit) }, 0);
    limit
}

/// Sets the soft limit.
fn set_limit(pid: i32, resource: libc::__rlimit_resource_t, soft: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: soft, ..limit(pid, resource) };
    // SAFETY: prlimit(2) reads a limit.
    assert_eq!(unsafe { libc::prlimit(pid, resource, &raw const limit, ptr::null_mut()) }, 0);
}
