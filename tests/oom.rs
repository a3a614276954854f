//! An app that the kernel's out-of-memory killer chose: in a memory cgroup of its own with a real limit, or as far as a file says
//! that is mounted in place of the kernel's count.

#![allow(clippy::disallowed_methods, reason = "the clock of the tests")]

use crate::common::cgroup::Cgroup;
use crate::common::{Guard, Setup, eventually, everywhere, fixture, pid1};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

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
        // The worker is an orphan.
        let script = "(tail /dev/zero >/dev/null &); echo pid $$; exec sleep 1000";
        let mut guard = start(&cgroup, setup.env("GUARD_RESTART", "never").env("GUARD_LOG", "debug"), script);
        let pid = guard.line_after("pid ");
        guard.event("reaped");
        kill(&guard, &pid);
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), None), "{}", exit.line);
        assert_eq!(guard.code(), 137);
    }
}

/// The worker's own parent has reaped it, so nothing but the kernel tells guard of it.
#[test]
fn a_worker_that_was_chosen_and_reaped_by_its_parent_is_not_blamed_for_a_later_sigkill() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(LIMIT) else { return };
        // Each time the kernel notifies once more. It is to choose none but these, though it has not freed the memory of the last one.
        let script = "eat() { (echo 1000 >/proc/self/oom_score_adj; exec tail /dev/zero); }
            eat; eat; sleep 2; eat; sleep 2; kill -KILL $$";
        let mut guard = start(&cgroup, setup.env("GUARD_RESTART", "never"), script);
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), None), "{}", exit.line);
        assert_eq!(guard.code(), 137);
    }
}

/// The limit is one of a cgroup above guard's, which with version 2 has no memory controller of its own.
#[test]
fn an_out_of_memory_kill_by_a_limit_above_is_told_as_such() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(LIMIT) else { return };
        let leaf = cgroup.below();
        let mut guard = start(&leaf, setup.env("GUARD_NO_RESTART_CODES", "oom"), EAT);
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), Some("oom")), "{}", exit.line);
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

/// A directory in place of the kernel's cgroups.
struct Counter(TempDir);

impl Counter {
    fn new() -> Counter {
        let counter = Counter(tempfile::tempdir().expect("a directory"));
        counter.set(3);
        counter
    }

    /// So many processes were killed so far.
    fn set(&self, kills: u32) {
        fs::write(self.path().join("memory.events"), format!("oom 0\noom_kill {kills}\n")).expect("ours");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// guard knows the count by now, from which it counts on.
    fn start(&self, setup: Setup, words: &str) -> Guard {
        let mut guard = self.setup(setup).fixture(words).start();
        guard.event("spawn");
        guard
    }

    /// The app is still to be named.
    fn setup(&self, setup: Setup) -> Setup {
        let mount = format!("mount --bind {} /sys/fs/cgroup && exec \"$@\"", self.path().display());
        let setup = setup.program("/bin/sh").options(["-c", &mount, "sh", env!("CARGO_BIN_EXE_guard")]);
        setup.env("GUARD_RESTART", "never")
    }
}

fn kill(guard: &Guard, pid: &str) {
    guard.signal_inside(pid.parse().expect("a pid"), libc::SIGKILL);
}

/// What a try tells if guard waited for it: it waits for a second for the victim of a kill that was counted, and a busy machine
/// may take longer, though not each time. A try tells besides how long ago the kill was counted.
fn in_time<T>(attempt: impl Fn(Setup) -> (T, Duration)) -> Option<T> {
    for _ in 0..20 {
        let (told, since) = attempt(pid1()?);
        if since < Duration::from_millis(900) {
            return Some(told);
        }
    }
    panic!("slower than guard waits, each time");
}

/// The kernel counts a kill before the victim ends, which may take a while.
#[test]
fn a_check_that_ends_between_the_count_and_the_victims_end_explains_nothing() {
    let exit = in_time(|setup| {
        let counter = Counter::new();
        let begun = counter.path().join("begun");
        let check = format!("exec:sh -c 'echo >>{}'", begun.display());
        let setup = setup.env("GUARD_HEALTH_CHECK", check).env("GUARD_HEALTH_INTERVAL", "20ms");
        let mut guard = counter.start(setup, "ids serve");
        let pid = guard.line_after("pid ");
        guard.line("ready");
        let counted = Instant::now();
        counter.set(4);
        let checks = || fs::read_to_string(&begun).unwrap_or_default().len();
        let before = checks();
        // guard has reaped one that began after the count when the next one begins.
        eventually("two checks", || (checks() >= before + 2).then_some(()));
        kill(&guard, &pid);
        (guard.event("exit"), counted.elapsed())
    });
    let Some(exit) = exit else { return };
    assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), Some("oom")), "{}", exit.line);
}

#[test]
fn a_kill_is_explained_by_one_death() {
    for kills in [1, 2] {
        let exit = in_time(|setup| {
            let counter = Counter::new();
            let words = "fork fork as orphan ids serve . exit 0 . ids serve";
            let mut guard = counter.start(setup.env("GUARD_LOG", "debug"), words);
            let orphan = guard.line_after("orphan pid ");
            let pid = guard.line_after("pid ");
            guard.line("ready");
            let counted = Instant::now();
            counter.set(3 + kills);
            kill(&guard, &orphan);
            assert_eq!(guard.event("reaped").get("pid"), Some(orphan.as_str()));
            kill(&guard, &pid);
            (guard.event("exit"), counted.elapsed())
        });
        let Some(exit) = exit else { return };
        assert_eq!(exit.get("cause"), (kills == 2).then_some("oom"), "{}", exit.line);
    }
}

/// A worker was chosen, and its own parent has reaped it.
#[test]
fn a_kill_explains_no_death_that_comes_much_later() {
    let Some(setup) = pid1() else { return };
    let counter = Counter::new();
    let setup = setup.env("GUARD_HEALTH_CHECK", "exec:false").env("GUARD_HEALTH_INTERVAL", "1s");
    let setup =
        setup.env("GUARD_READY", "exec").env("GUARD_HEALTH_RETRIES", "1000").env("GUARD_HEALTH_START_PERIOD", "0s");
    let mut guard = counter.start(setup, "ids serve");
    let pid = guard.line_after("pid ");
    guard.line("ready");
    counter.set(4);
    (0..3).for_each(|_| _ = guard.event("check-failed"));
    kill(&guard, &pid);
    let exit = guard.event("exit");
    assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), None), "{}", guard.transcript());
}

/// The same, and some other orphan has ended since, of which guard thinks nothing: the first one, or the second in a row.
#[test]
fn a_kill_that_was_counted_at_an_orphans_end_explains_no_death_that_comes_much_later() {
    let count = "printf 'oom 1\\noom_kill 4\\n' >/sys/fs/cgroup/memory.events";
    // It ends when it is guard's child: otherwise the shell that has started it may reap it.
    let until_it_is_one = "until read -r _ _ _ parent _ </proc/self/stat && [ $parent = 1 ]; do :; done";
    let orphan = format!(
        "orphan=$(sh -c '{until_it_is_one}' >/dev/null & echo $!); while kill -0 $orphan; do :; done 2>/dev/null"
    );
    let orphan = orphan.as_str();
    for before in [":", orphan] {
        let Some(setup) = pid1() else { return };
        let counter = Counter::new();
        let script = format!("{before}; {count}; {orphan}; sleep 2; kill -KILL $$");
        let mut guard = counter.setup(setup).app(["sh", "-c", &script]).start();
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), None), "{}", guard.transcript());
    }
}
