//! An app that the kernel's out-of-memory killer chose, in a memory cgroup of its own with a real limit.

#[path = "common/cgroup.rs"]
mod cgroup;
mod common;

use cgroup::Cgroup;
use common::{Guard, Setup, everywhere, fixture};

const LIMIT: u64 = 32 << 20;

/// Guard in the cgroup, with a shell script as the app.
fn start(cgroup: &Cgroup, setup: Setup, script: &str) -> Guard {
    cgroup.setup(setup).app(["sh", "-c", script]).start()
}

/// Reads a line that never ends into memory.
const EAT: &str = "exec tail /dev/zero";

#[test]
fn an_out_of_memory_kill_is_told_as_such() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(LIMIT) else { return };
        let serve = format!("exec '{}' env quit TERM 0 serve", fixture().display());
        let mut guard = start(&cgroup, setup, &format!("[ $GUARD_RUN = 1 ] && {EAT}; {serve}"));
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), Some("oom")), "{}", exit.line);
        assert_eq!(guard.event("restart").get("last"), Some("oom"));
        let environment = guard.lines_until("end");
        assert!(environment.contains(&"env GUARD_LAST_EXIT=oom".to_owned()), "{environment:?}");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn an_out_of_memory_kill_may_be_a_reason_not_to_restart() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(LIMIT) else { return };
        let mut guard = start(&cgroup, setup.env("GUARD_NO_RESTART_CODES", "oom"), EAT);
        assert_eq!(guard.code(), 137);
        assert!(guard.events().iter().all(|event| event.name() != "restart"), "{}", guard.transcript());
    }
}

#[test]
fn a_sigkill_from_somebody_else_is_no_lack_of_memory() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(LIMIT) else { return };
        // An OOM kill in an earlier run is none of this one's.
        let script = format!(
            "case $GUARD_RUN in 1) {EAT};; 2) kill -KILL $$;; esac; exec '{}' env quit TERM 0 serve",
            fixture().display()
        );
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "0");
        let mut guard = start(&cgroup, setup, &script);
        assert_eq!(guard.event("exit").get("cause"), Some("oom"));
        let second = guard.event("exit");
        assert_eq!((second.get("signal"), second.get("cause")), (Some("SIGKILL"), None), "{}", second.line);
        let environment = guard.lines_until("end");
        assert!(environment.contains(&"env GUARD_LAST_EXIT=SIGKILL".to_owned()), "{environment:?}");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn guards_own_sigkill_is_no_lack_of_memory() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(LIMIT) else { return };
        // A worker is chosen first, so the kernel has counted a kill when guard ends the deaf main process.
        let script = format!("sh -c '{EAT}'; exec '{}' env deaf serve", fixture().display());
        let mut guard = start(&cgroup, setup.env("GUARD_STOP_TIMEOUT", "200ms"), &script);
        guard.lines_until("end");
        guard.line("ready");
        guard.ask(&["restart"]).yes("restarted: run 2 is ready");
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), Some("operator")), "{}", exit.line);
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137);
    }
}

/// The kernel has counted a kill, of another process and some time ago.
#[test]
fn a_worker_that_was_chosen_before_is_not_blamed_for_a_later_sigkill() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(LIMIT) else { return };
        // The worker is an orphan, and signal 0 reaches it until guard has reaped it.
        let worker = "worker=$(tail /dev/zero >/dev/null & echo $!); while kill -0 $worker; do :; done 2>/dev/null";
        let mut guard = start(&cgroup, setup.env("GUARD_RESTART", "never"), &format!("{worker}; kill -KILL $$"));
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), None), "{}", exit.line);
        assert_eq!(guard.code(), 137);
    }
}

/// A shell tells of its child's death in its own exit code.
#[test]
fn an_out_of_memory_kill_below_a_shell_is_told_as_such() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(LIMIT) else { return };
        let script = "[ $GUARD_RUN = 1 ] || exit 137; sh -c 'tail /dev/zero; exit $?'";
        let mut guard = start(&cgroup, setup.env("GUARD_MAX_RESTARTS", "1"), script);
        let exit = guard.event("exit");
        assert_eq!((exit.get("code"), exit.get("cause")), (Some("137"), Some("oom")), "{}", exit.line);
        assert_eq!(guard.event("restart").get("last"), Some("oom"));
        let exit = guard.event("exit");
        assert_eq!((exit.get("code"), exit.get("cause")), (Some("137"), None), "not every 137: {}", exit.line);
        assert_eq!(guard.code(), 137);
    }
}
