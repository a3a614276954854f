//! What guard hears, and in which order, however it waits: messages, deaths and signals, each in the presence of others.

#![allow(unsafe_code, reason = "nix has no call for leases")]

use crate::common::{self, Guard, Setup, catchable, everywhere, in_path, skipped, sleeps_at_rest};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

fn stop(mut guard: Guard) {
    guard.signal(libc::SIGTERM);
    guard.line("got TERM");
    assert_eq!(guard.code(), 143);
}

#[test]
fn whoever_speaks_is_heard() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify").fixture("on USR1 READY=1 on USR2 STATUS=well serve");
        let mut guard = setup.start();
        guard.line("ready");
        assert_eq!(guard.ask(&["ready"]).code, 1);
        guard.signal(libc::SIGUSR1);
        guard.event("ready");
        guard.ask(&["ready"]).yes("ready");
        guard.signal(libc::SIGUSR2);
        guard.line("got USR2");
        common::eventually("a status", || guard.ask(&["status"]).out.contains("well").then_some(()));
        sleeps_at_rest(guard.pid());
        stop(guard);
    }
}

#[test]
fn a_signal_and_a_message_at_once_are_both_heard() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify").fixture("fork on USR1 READY=1 as child ids serve . serve");
        let mut guard = setup.start();
        let child = guard.line_after("child pid ").parse().expect("a pid");
        guard.line("ready");
        let child = guard.pid_outside(child);
        for message_first in [true, false] {
            sleeps_at_rest(guard.pid());
            guard.signal(libc::SIGSTOP);
            common::eventually("a stop", || common::status_field(guard.pid(), "State:").starts_with('T').then_some(()));
            let speak = |guard: &mut Guard| {
                common::send(child, libc::SIGUSR1);
                guard.line("child got USR1");
            };
            if message_first {
                speak(&mut guard);
            }
            guard.signal(libc::SIGIO);
            if !message_first {
                speak(&mut guard);
            }
            guard.signal(libc::SIGCONT);
            guard.line("got IO");
        }
        guard.event("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn whoever_ends_is_followed() {
    for setup in everywhere() {
        let mut guard = setup.fixture("before-run 3 exit 1 ids serve").start();
        let main = guard.line_after("pid ").parse().expect("a pid");
        guard.line("ready");
        common::send(guard.pid_outside(main), libc::SIGKILL);
        guard.line("ready");
        stop(guard);
    }
}

#[test]
fn every_signal_comes_through() {
    const TERMINAL: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    const MEANING_MORE: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGCONT];
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_RESTART", "never").fixture("quit 64 3 serve").start();
        guard.line("ready");
        sleeps_at_rest(guard.pid());
        let signals: Vec<i32> = catchable().filter(|one| ![TERMINAL, MEANING_MORE].concat().contains(one)).collect();
        // Guard is stopped meanwhile, so that they all are there when it looks; the last is the one that ends the app.
        guard.signal(libc::SIGSTOP);
        signals.iter().for_each(|&signal| guard.signal(signal));
        guard.signal(libc::SIGCONT);
        assert_eq!(guard.code(), 3);
        let got = guard.out().iter().filter(|line| line.starts_with("got ") && **line != "got CONT").count();
        assert_eq!(got, signals.len(), "{}", guard.transcript());
    }
}

/// An app whose main process has died unseen, since guard is stopped; and the signals that came after that.
fn dead_unseen(setup: Setup, signals: &[i32]) -> Guard {
    let mut guard = setup.fixture("ids serve").start();
    let main = guard.line_after("pid ").parse().expect("a pid");
    guard.line("ready");
    let main = guard.pid_outside(main);
    guard.signal(libc::SIGSTOP);
    common::send(main, libc::SIGKILL);
    common::eventually("a zombie", || common::status_field(main, "State:").starts_with('Z').then_some(()));
    signals.iter().for_each(|&signal| guard.signal(signal));
    guard.signal(libc::SIGCONT);
    guard
}

/// It was meant for the run that has died, and would kill one that does not handle it yet.
#[test]
fn a_signal_from_after_the_death_of_a_run_is_not_for_the_next() {
    for setup in everywhere() {
        let mut guard = dead_unseen(setup, &[&[libc::SIGUSR1], &[libc::SIGRTMAX() - 1; 2_000][..]].concat());
        let mut dropped = ["signal-dropped"; 2].map(|name| guard.event(name).get("signal").map(str::to_owned));
        dropped.sort();
        assert_eq!(dropped.map(Option::unwrap), ["SIGRTMIN+29", "SIGUSR1"]);
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 143);
        assert_eq!(guard.out().iter().filter(|line| line.starts_with("got ")).count(), 1, "{}", guard.transcript());
        let restarts = guard.events().iter().filter(|event| event.name() == "restart").count();
        let said = guard.events().iter().filter(|event| event.name() == "signal-dropped").count();
        assert_eq!((restarts, said), (1, 2), "of each kind once\n{}", guard.transcript());
    }
}

/// Real-time signals queue, and the kernel walks through the queue for each that guard reads.
#[test]
fn a_flood_of_real_time_signals_keeps_nobody_waiting() {
    const PYTHON: &str = "/usr/bin/python3";
    if !Path::new(PYTHON).exists() {
        return common::skipped("there is no python3");
    }
    let app = "
import os, signal, sys
guard, every = os.getppid(), range(34, 65)
for number in every: signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        for number in every: os.kill(guard, number)
print('floods', flush=True)
while True: signal.pause()
";
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1s").env("GUARD_BACKOFF_INITIAL", "0");
        let mut guard = setup.app([PYTHON, "-c", app]).start();
        guard.line("floods");
        // Enough for reads that take a millisecond each, and other processes of the user still have room.
        let most = libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 };
        // SAFETY: prlimit(2) reads one structure.
        let done =
            unsafe { libc::prlimit(guard.pid(), libc::RLIMIT_SIGPENDING, &raw const most, std::ptr::null_mut()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        let queued = || {
            let counts = common::status_field(guard.pid(), "SigQ:");
            let count = counts.split('/').next().and_then(|count| count.trim().parse::<u32>().ok());
            count.filter(|count| *count > 15_000)
        };
        common::eventually("a long queue", queued);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn after_a_stop_request_there_is_no_run_though_one_has_died_before() {
    for setup in everywhere() {
        let mut guard = dead_unseen(setup, &[libc::SIGTERM]);
        assert_eq!(guard.code(), 137);
        assert_eq!(guard.out().iter().filter(|line| **line == "ready").count(), 1, "{}", guard.transcript());
    }
}

/// Whoever opens or executes a file waits until its lease is returned (`fcntl(2)`).
struct Lease(File);

impl Lease {
    fn of(path: &Path) -> Lease {
        let file = File::open(path).expect("it is there");
        /// <asm-generic/fcntl.h>
        const F_SETSIG: libc::c_int = 10;
        // Whoever waits is told of by a signal, which is to be one that does nothing.
        // SAFETY: fcntl(2) takes integers here.
        let results = [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_WRLCK)]
            .map(|(command, argument)| unsafe { libc::fcntl(file.as_raw_fd(), command, argument) });
        assert_eq!(results, [0, 0]);
        Lease(file)
    }

    fn is_waited_for(&self) -> bool {
        // SAFETY: as above.
        unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLEASE) != libc::F_WRLCK }
    }

    fn give_back(self) {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) }, 0);
    }
}

#[test]
fn a_signal_from_during_the_first_spawn_reaches_the_run() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let app = common::fixture_at(directory.path(), "app");
    for setup in everywhere() {
        let lease = Lease::of(&app);
        // Blocked for the app, so that it cannot come before the app can take it.
        let setup = setup.inherits("block 64").app([app.as_os_str(), "serve".as_ref()]);
        let mut guard = setup.start();
        common::eventually("the spawn", || lease.is_waited_for().then_some(()));
        guard.signal(64);
        lease.give_back();
        guard.line("got 64");
        stop(guard);
    }
}

/// guard takes all signals when a main process has ended. One of them may tell of a child that has ended since guard reaped.
#[test]
fn a_child_that_ends_while_guard_deals_with_another_is_reaped() {
    let Some(strace) = in_path("strace") else { return skipped("there is no strace") };
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        // The second instance waits until guard has reaped the first, and ends while guard reads how often memory was short.
        let app = "if [ $GUARD_INSTANCE = 0 ]; then echo $$ >new; mv new pid; exec sleep 1000; fi
            while ! pid=$(cat pid 2>/dev/null); do :; done
            echo first $pid
            while kill -0 $pid 2>/dev/null; do :; done
            sleep 0.1";
        let setup = setup.directory(directory.path()).env("GUARD_INSTANCES", "2").env("GUARD_HOLD", "off");
        let setup = setup.env("GUARD_RESTART", "never").program(&strace);
        let trace = directory.path().join("trace");
        let setup = setup.options(["-D", "-qq", "-e", "inject=pread64:delay_enter=500000", "-o"]).options([&trace]);
        let mut guard = setup.options([env!("CARGO_BIN_EXE_guard")]).app(["sh", "-c", app]).start();
        let first = guard.line_after("first ").parse().expect("a pid");
        guard.signal_inside(first, libc::SIGKILL);
        assert_eq!(guard.code(), 137, "{}", guard.transcript());
        if !std::fs::read_to_string(trace).expect("strace has written it").contains("(DELAYED)") {
            return skipped("there is no memory cgroup whose count guard would read");
        }
    }
}
