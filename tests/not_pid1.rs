//! Guard below another process: as a child subreaper, with its death taking the app along, and below another guard.

use crate::common::{self, child, children, eventually, everywhere, pid1, send, status_field};

/// An orphan goes to the nearest subreaper (`PR_SET_CHILD_SUBREAPER`, `prctl(2)`), or to PID 1.
#[test]
fn an_orphan_becomes_guards_child_and_is_reaped() {
    for setup in everywhere() {
        let mut guard = setup.fixture("fork fork setsid ids as orphan serve . exit 0 . serve").start();
        let orphan = guard.line_after("pid ").parse().unwrap();
        guard.line("ready");
        let orphan = guard.pid_outside(orphan);
        eventually("guard as the parent", || (status_field(orphan, "PPid:") == guard.pid().to_string()).then_some(()));
        send(orphan, libc::SIGKILL);
        // A zombie that nobody waits for would stay.
        eventually("the end of the orphan", || status_field(orphan, "State:").is_empty().then_some(()));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// Signals of one kind do not queue (`signal(7)`): of those that die while guard stands still, one SIGCHLD tells. They are
/// more than guard takes at a time.
#[test]
fn orphans_that_die_at_once_are_all_reaped() {
    const ORPHANS: usize = 100;
    for setup in everywhere() {
        let orphans = "fork fork setsid as orphan serve . exit 0 . ".repeat(ORPHANS);
        let mut guard = setup.fixture(&format!("{orphans} ids serve")).start();
        let app = guard.line_after("pid ").parse().unwrap();
        guard.line("ready");
        let (pid, app) = (guard.pid(), guard.pid_outside(app));
        let mut orphans =
            eventually("all orphans", || Some(children(pid)).filter(|children| children.len() == 1 + ORPHANS));
        orphans.retain(|child| *child != app);
        send(pid, libc::SIGSTOP);
        for &orphan in &orphans {
            send(orphan, libc::SIGKILL);
            eventually("a zombie", || status_field(orphan, "State:").starts_with('Z').then_some(()));
        }
        send(pid, libc::SIGCONT);
        eventually("the app as the only child", || (children(pid) == [app]).then_some(()));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// `PR_SET_PDEATHSIG`, `prctl(2)`. The kernel ends a namespace with its PID 1 anyway.
#[test]
fn a_killed_guard_takes_the_app_along() {
    let mut guard = child().fixture("before-run 2 exit 1 deaf serve").start();
    guard.line("ready"); // the second run: it holds for each
    guard.signal(libc::SIGKILL);
    // An app that lived on would hold stdout, and this would not return.
    let status = guard.status();
    assert_eq!(status.code(), None, "{status}");
}

#[test]
fn a_child_of_an_ordinary_process_is_not_nagged() {
    let mut guard = child().fixture("exit 0").start();
    assert_eq!(guard.code(), 0);
    assert!(!guard.events().iter().any(|event| event.get("level") == Some("warn")), "{}", guard.transcript());
}

/// A shell form ENTRYPOINT: `sh -c` is PID 1, gets the orchestrator's signals, and passes none on.
#[test]
fn a_shell_at_pid_1_is_worth_one_warning() {
    let Some(setup) = pid1() else { return };
    let guard = env!("CARGO_BIN_EXE_guard");
    let fixture = common::fixture().to_str().unwrap();
    let line = format!("{guard} -- {fixture} before-run 2 exit 1 exit 0; exit $?");
    let mut shell = setup.program("/bin/sh").options(["-c", &line]).start();
    assert_eq!(shell.code(), 0);
    let events = shell.events();
    let warnings: Vec<_> = events.iter().filter(|event| event.line.contains("shell")).collect();
    assert_eq!(warnings.len(), 1, "{}", shell.transcript());
    assert_eq!(warnings[0].get("level"), Some("warn"));
}

/// Each has a run 1, and both are PID 1 where the inner one has a PID namespace of its own.
#[test]
fn the_app_of_an_inner_guard_is_no_leftover_of_the_outer_ones_old_run() {
    for setup in everywhere() {
        let fixture = common::fixture().to_str().unwrap();
        let inner = [env!("CARGO_BIN_EXE_guard"), "--log=off", "--ready=notify", "--", fixture];
        let setup = setup.env("GUARD_SIGNAL_MAP", "USR1=reload").env("GUARD_READY", "notify");
        let mut guard = setup.app(inner.into_iter().chain(["notify", "READY=1", "quit", "TERM", "0", "serve"])).start();
        guard.line("ready");
        guard.event("ready");
        guard.signal(libc::SIGUSR1);
        guard.event("reloaded");
        for _ in 0..2 {
            guard.line_after(""); // of the new run and of the old one, in either order
        }
        guard.signal(libc::SIGUSR2);
        guard.line("got USR2");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 0);
        assert_eq!(guard.out().iter().filter(|line| **line == "got TERM").count(), 2, "{}", guard.transcript());
        assert!(guard.events().iter().all(|event| event.name() != "leftovers"), "{}", guard.transcript());
    }
}

#[test]
fn a_guard_in_a_guard_behaves() {
    for setup in everywhere() {
        let inner = env!("CARGO_BIN_EXE_guard");
        let fixture = common::fixture().to_str().unwrap();
        let setup = setup.env("GUARD_RESTART", "never").env("GUARD_STOP_TIMEOUT", "15s");
        let words = ["env", "before-run", "2", "exit", "1", "quit", "TERM", "7", "serve"];
        let mut guard = setup.app([inner, "--", fixture].into_iter().chain(words)).start();
        let first = guard.lines_until("end");
        // The inner guard does not know of `never`, and so restarts; its app's runs are its own, and so is the timeout.
        let second = guard.lines_until("end");
        for (environment, own) in
            [(first, ["GUARD_RUN=1", "GUARD_RESTARTS=0"]), (second, ["GUARD_RUN=2", "GUARD_RESTARTS=1"])]
        {
            for entry in own.into_iter().chain(["GUARD_INSTANCE=0", "GUARD_STOP_TIMEOUT=15"]) {
                assert_eq!(
                    environment.iter().filter(|line| **line == format!("env {entry}")).count(),
                    1,
                    "{environment:?}"
                );
            }
        }
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 7);
        assert_eq!(guard.out().iter().filter(|line| **line == "got TERM").count(), 1, "{}", guard.transcript());
        assert!(!guard.err().iter().any(|line| line.contains("level=warn") && line.contains("GUARD_")));
    }
}
