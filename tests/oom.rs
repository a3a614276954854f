//! An app that the kernel's out-of-memory killer chose, in a memory cgroup of its own with a real limit.

mod common;

use common::{Guard, Setup, eventually, everywhere, fixture, skipped};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const LIMIT: &str = "33554432";

/// A cgroup below the tests' own, removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// None where no memory cgroup can be made: that takes root, and a writable hierarchy (`cgroups(7)`).
    fn new() -> Option<Cgroup> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("guard-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let made = memberships.lines().find_map(|line| {
            let fields: Vec<&str> = line.splitn(3, ':').collect();
            let [_, controllers, own] = fields[..] else { return None };
            let own = own.trim_start_matches('/');
            match controllers {
                "" => Cgroup::below(&Path::new("/sys/fs/cgroup").join(own), &name, "memory.max"),
                "memory" => {
                    Cgroup::below(&Path::new("/sys/fs/cgroup/memory").join(own), &name, "memory.limit_in_bytes")
                }
                _ => None,
            }
        });
        if made.is_none() {
            skipped("no memory cgroup can be made here");
        }
        made
    }

    fn below(parent: &Path, name: &str, limit: &str) -> Option<Cgroup> {
        // Version 2 hands the controller down only if it is told so, and only where no process is in between.
        let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        let path = parent.join(name);
        fs::create_dir(&path).ok()?;
        let cgroup = Cgroup(path);
        fs::write(cgroup.0.join(limit), LIMIT).ok()?;
        // Where there is swap, it is no way out.
        let _ = fs::write(cgroup.0.join("memory.swap.max"), "0");
        let _ = fs::write(cgroup.0.join("memory.memsw.limit_in_bytes"), LIMIT);
        Some(cgroup)
    }

    /// Guard in the cgroup, with a shell script as the app.
    fn start(&self, setup: Setup, script: &str) -> Guard {
        let enter = format!("echo $$ >'{}/cgroup.procs' && exec \"$@\"", self.0.display());
        let guard = env!("CARGO_BIN_EXE_guard");
        setup.program("/bin/sh").options(["-c", &enter, "sh", guard]).app(["sh", "-c", script]).start()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Some time may pass until the kernel counts the last process as gone.
        let removed = || fs::remove_dir(&self.0).ok();
        if std::thread::panicking() {
            removed();
        } else {
            eventually("end of the cgroup", removed);
        }
    }
}

/// Reads a line that never ends into memory.
const EAT: &str = "exec tail /dev/zero";

#[test]
fn an_out_of_memory_kill_is_told_as_such() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new() else { return };
        let serve = format!("exec '{}' env quit TERM 0 serve", fixture().display());
        let mut guard = cgroup.start(setup, &format!("[ $GUARD_RUN = 1 ] && {EAT}; {serve}"));
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
        let Some(cgroup) = Cgroup::new() else { return };
        let mut guard = cgroup.start(setup.env("GUARD_NO_RESTART_CODES", "oom"), EAT);
        assert_eq!(guard.code(), 137);
        assert!(guard.events().iter().all(|event| event.name() != "restart"), "{}", guard.transcript());
    }
}

#[test]
fn a_sigkill_from_somebody_else_is_no_lack_of_memory() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new() else { return };
        // An OOM kill in an earlier run is none of this one's.
        let script = format!(
            "case $GUARD_RUN in 1) {EAT};; 2) kill -KILL $$;; esac; exec '{}' env quit TERM 0 serve",
            fixture().display()
        );
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "0");
        let mut guard = cgroup.start(setup, &script);
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
        let Some(cgroup) = Cgroup::new() else { return };
        // A worker is chosen first, so the kernel has counted a kill when guard ends the deaf main process.
        let script = format!("sh -c '{EAT}'; exec '{}' env deaf serve", fixture().display());
        let mut guard = cgroup.start(setup.env("GUARD_STOP_TIMEOUT", "200ms"), &script);
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
        let Some(cgroup) = Cgroup::new() else { return };
        // The worker is an orphan, and signal 0 reaches it until guard has reaped it.
        let worker = "worker=$(tail /dev/zero >/dev/null & echo $!); while kill -0 $worker; do :; done 2>/dev/null";
        let mut guard = cgroup.start(setup.env("GUARD_RESTART", "never"), &format!("{worker}; kill -KILL $$"));
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), None), "{}", exit.line);
        assert_eq!(guard.code(), 137);
    }
}

/// A shell tells of its child's death in its own exit code.
#[test]
fn an_out_of_memory_kill_below_a_shell_is_told_as_such() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new() else { return };
        let script = "[ $GUARD_RUN = 1 ] || exit 137; sh -c 'tail /dev/zero; exit $?'";
        let mut guard = cgroup.start(setup.env("GUARD_MAX_RESTARTS", "1"), script);
        let exit = guard.event("exit");
        assert_eq!((exit.get("code"), exit.get("cause")), (Some("137"), Some("oom")), "{}", exit.line);
        assert_eq!(guard.event("restart").get("last"), Some("oom"));
        let exit = guard.event("exit");
        assert_eq!((exit.get("code"), exit.get("cause")), (Some("137"), None), "not every 137: {}", exit.line);
        assert_eq!(guard.code(), 137);
    }
}
