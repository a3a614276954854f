//! Several instances of the app: they start at once, live and end each for itself, and make up guard's answers together.

use crate::common::operator::{GUARD, alone};
use crate::common::{self, Guard, Setup, descendants, eventually, everywhere, send, status_field};
use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// So many instances, whose lines begin with the numbers of instance and run.
fn start(setup: Setup, instances: u32, words: &str) -> Guard {
    setup.env("GUARD_INSTANCES", instances.to_string()).fixture(&format!("tagged {words}")).start()
}

/// The next lines of the app's, in any order.
fn lines(guard: &mut Guard, count: usize) -> BTreeSet<String> {
    (0..count).map(|_| guard.line_after("")).collect()
}

fn all_ready(guard: &mut Guard, instances: u32) {
    let expected = (0..instances).map(|instance| format!("{instance}.1 ready")).collect();
    let ready = lines(guard, usize::try_from(instances).expect("a few"));
    assert_eq!(ready, expected);
}

/// What `guard status --json` says of an instance.
fn row(guard: &Guard, instance: u32) -> String {
    let json = guard.ask(&["status", "--json"]).out;
    let rows = json.split(r#"{"instance":"#);
    rows.skip(1).find(|row| row.starts_with(&format!("{instance},"))).unwrap_or_else(|| panic!("{json}")).to_owned()
}

/// Sends a signal to the main process of an instance.
fn kill(guard: &Guard, instance: u32, signal: i32) {
    let row = row(guard, instance);
    let pid = row.split_once(r#""pid":"#).and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
    let pid = pid.unwrap_or_else(|| panic!("no pid in {row}"));
    if guard.is_pid1() { guard.signal_inside(pid, signal) } else { send(pid, signal) }
}

#[test]
fn each_instance_knows_its_number_and_counts_its_own_runs() {
    for setup in everywhere() {
        let mut guard = start(setup.env("NODE_APP_INSTANCE", "of somebody else"), 3, "env serve");
        let mut said = BTreeSet::new();
        while said.iter().filter(|line: &&String| line.ends_with(" ready")).count() < 3 {
            said.extend(lines(&mut guard, 1));
        }
        let tells = |said: &BTreeSet<String>, run: &str, variable: &str| {
            let prefix = format!("{run} env {variable}=");
            let values: Vec<_> = said.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
            values.join(" and ")
        };
        for (run, instance) in [("0.1", "0"), ("1.1", "1"), ("2.1", "2")] {
            let numbers = ["GUARD_INSTANCE", "NODE_APP_INSTANCE", "GUARD_RUN", "GUARD_RESTARTS", "GUARD_LAST_EXIT"];
            assert_eq!(numbers.map(|name| tells(&said, run, name)), [instance, instance, "1", "0", ""], "{run}");
        }
        kill(&guard, 1, libc::SIGKILL);
        let mut said = BTreeSet::new();
        while !said.contains("1.2 ready") {
            said.extend(lines(&mut guard, 1));
        }
        assert!(said.iter().all(|line| line.starts_with("1.2 ")), "the others live on: {said:?}");
        let numbers = ["GUARD_INSTANCE", "GUARD_RUN", "GUARD_RESTARTS", "GUARD_LAST_EXIT"];
        assert_eq!(numbers.map(|name| tells(&said, "1.2", name)), ["1", "2", "1", "SIGKILL"]);
        for event in ["exit", "restart"] {
            assert_eq!(guard.event(event).get("instance"), Some("1"), "{event}");
        }
    }
}

#[test]
fn a_single_instance_is_not_numbered_in_the_log_or_for_node() {
    for setup in everywhere() {
        let mut guard = start(setup, 1, "before-run 2 exit 1 env serve");
        let said = guard.lines_until("0.2 end");
        assert!(said.contains(&"0.2 env GUARD_INSTANCE=0".to_owned()), "{said:?}");
        assert!(!said.iter().any(|line| line.contains("NODE_APP_INSTANCE")), "{said:?}");
        assert_eq!(guard.event("exit").get("instance"), None);
    }
}

#[test]
fn guard_is_ready_while_one_instance_can_take_work() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("outer");
        let outer = UnixDatagram::bind(&path).expect("a socket");
        outer.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
        let setup = setup.env("GUARD_READY", "notify").env("NOTIFY_SOCKET", &path);
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
        let mut guard = start(setup, 3, "in-instance 1 notify READY=1 serve");
        all_ready(&mut guard, 3);
        assert_eq!(guard.event("ready").get("instance"), Some("1"));
        let mut word = [0; 16];
        let count = outer.recv(&mut word).expect("guard says so");
        assert_eq!(&word[..count], b"READY=1");
        guard.ask(&["ready"]).yes("ready");
        // The second restart in a row waits for an hour.
        kill(&guard, 1, libc::SIGKILL);
        guard.line("1.2 ready");
        guard.until_yes(&["ready"]);
        kill(&guard, 1, libc::SIGKILL);
        guard.event("restart");
        guard.event("restart");
        let answer = guard.ask(&["ready"]);
        assert_eq!((answer.code, answer.out.starts_with("not ready: ")), (1, true), "{answer:?}");
    }
}

#[test]
fn guard_exits_when_all_instances_are_finished_with_the_first_failures_code() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_RESTART", "never");
        let mut guard = start(setup, 4, "quit USR1 0 quit USR2 3 quit HUP 5 serve");
        all_ready(&mut guard, 4);
        for (instance, signal) in [(1, libc::SIGUSR1), (3, libc::SIGHUP), (0, libc::SIGUSR2)] {
            kill(&guard, instance, signal);
            let exit = guard.event("not-restarted");
            assert_eq!(exit.get("instance"), Some(instance.to_string().as_str()));
            guard.ask(&["ready"]).yes("ready");
        }
        assert!(row(&guard, 1).contains(r#""state":"finished""#));
        kill(&guard, 2, libc::SIGUSR1);
        assert_eq!(guard.code(), 5, "{}", guard.transcript());
    }
}

#[test]
fn a_success_finishes_one_instance_alone() {
    for setup in everywhere() {
        let mut guard = start(setup, 2, "quit USR1 0 serve");
        all_ready(&mut guard, 2);
        kill(&guard, 0, libc::SIGUSR1);
        guard.event("not-restarted");
        kill(&guard, 1, libc::SIGKILL);
        guard.line("1.2 ready");
        kill(&guard, 1, libc::SIGUSR1);
        assert_eq!(guard.code(), 0, "a crash that a restart has mended is none");
    }
}

#[test]
fn an_instance_that_gives_up_has_the_others_drained_first() {
    for setup in everywhere() {
        let word = tempfile::NamedTempFile::new().expect("a file");
        let setup = setup.env("GUARD_MAX_RESTARTS", "1").env("GUARD_TERMINATION_LOG", word.path());
        let mut guard = start(setup, 3, "quit USR1 7 quit TERM 0 serve");
        all_ready(&mut guard, 3);
        kill(&guard, 1, libc::SIGUSR1);
        guard.line("1.2 ready");
        kill(&guard, 1, libc::SIGUSR1);
        assert_eq!(guard.event("give-up").get("instance"), Some("1"));
        assert_eq!(guard.code(), 7);
        let out = guard.out();
        for instance in ["0", "2"] {
            assert!(out.contains(&format!("{instance}.1 got TERM").as_str()), "{}", guard.transcript());
        }
        let word = std::fs::read_to_string(word.path()).expect("it is there");
        assert!(
            word.contains("gave up after 1 restart") && word.contains("instance 1: run 2 exited with code 7"),
            "{word}"
        );
    }
}

#[test]
fn the_restart_limit_is_each_instances_own() {
    for setup in everywhere() {
        let mut guard = start(setup.env("GUARD_MAX_RESTARTS", "2"), 3, "quit TERM 0 before-run 3 exit 1 serve");
        let ready = lines(&mut guard, 3);
        assert_eq!(ready, ["0.3 ready", "1.3 ready", "2.3 ready"].map(str::to_owned).into());
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn each_instance_has_health_checks_of_its_own() {
    for setup in everywhere() {
        // Those of instance 1 fail when all serve.
        let directory = tempfile::tempdir().expect("a directory");
        let ill = directory.path().join("ill");
        let check = format!("exec:sh -c '[ $GUARD_INSTANCE.$GUARD_RUN != 1.1 ] || [ ! -e {} ]'", ill.display());
        let setup = setup.env("GUARD_HEALTH_CHECK", check);
        let setup = setup.env("GUARD_HEALTH_START_PERIOD", "0").env("GUARD_HEALTH_INTERVAL", "50ms");
        let mut guard = start(setup, 3, "quit TERM 0 serve");
        all_ready(&mut guard, 3);
        std::fs::write(ill, "").expect("ours");
        assert_eq!(guard.event("failing").get("instance"), Some("1"));
        guard.line("1.1 got TERM");
        guard.line("1.2 ready");
        guard.until_yes(&["ready"]);
        assert!(row(&guard, 1).contains(r#""last_exit":"health""#));
        for instance in [0, 2] {
            assert!(row(&guard, instance).contains(r#""run":1,"#));
        }
    }
}

#[test]
fn a_stop_reaches_every_instance_once() {
    for setup in everywhere() {
        let mut guard = start(setup, 64, "quit TERM 0 serve");
        all_ready(&mut guard, 64);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        let told: Vec<_> = guard.out().into_iter().filter(|line| line.ends_with(" got TERM")).collect();
        assert_eq!((told.len(), told.iter().collect::<BTreeSet<_>>().len()), (64, 64));
    }
}

#[test]
fn a_command_that_is_not_there_ends_guard_at_once() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_INSTANCES", "3").app(["/not/there"]).start();
        assert_eq!(guard.code(), 127);
        assert_eq!(guard.events().iter().filter(|event| event.name() == "spawn-failed").count(), 1);
    }
}

#[test]
fn other_numbers_are_an_error() {
    for value in ["0", "1025", "-1", "+2", "two", "1.5"] {
        let mut guard = common::child().env("GUARD_INSTANCES", value).fixture("serve").start();
        assert_eq!(guard.code(), 125, "{value}");
        let takes = "it takes a number from 1 to 1024, or auto";
        assert!(
            guard.err().iter().any(|line| line.contains(&format!("GUARD_INSTANCES={value}: ")) && line.contains(takes))
        );
    }
}

/// guard with a tree of cgroups of the test's own making, which a script fills.
fn in_cgroups(script: &str) -> Option<Setup> {
    let script = format!("mount -t tmpfs none /sys/fs/cgroup && cd /sys/fs/cgroup && {script} && cd / && exec \"$@\"");
    Some(alone()?.options(["sh", "-c", &script, "sh", GUARD]).env("GUARD_INSTANCES", "auto"))
}

#[test]
fn auto_is_the_cpu_quota_rounded_up() {
    let v1 = "mkdir cpu && echo 250000 > cpu/cpu.cfs_quota_us && echo 100000 > cpu/cpu.cfs_period_us";
    for (script, instances) in [("echo 150000 100000 > cpu.max", 2), ("echo 30000 100000 > cpu.max", 1), (v1, 3)] {
        let Some(setup) = in_cgroups(script) else { return };
        let mut guard = setup.fixture("tagged quit TERM 0 serve").start();
        all_ready(&mut guard, instances);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        let ready = guard.out().into_iter().filter(|line| line.ends_with("ready")).count();
        assert_eq!(u32::try_from(ready), Ok(instances), "{script}");
        assert!(guard.events().iter().all(|event| event.name() != "no-cpu-quota"), "{}", guard.transcript());
    }
}

#[test]
fn auto_without_a_quota_is_one_instance_and_a_warning() {
    for script in ["echo max 100000 > cpu.max", "true"] {
        let Some(setup) = in_cgroups(script) else { return };
        let mut guard = setup.fixture("tagged quit TERM 0 serve").start();
        all_ready(&mut guard, 1);
        assert_eq!(guard.event("no-cpu-quota").get("level"), Some("warn"));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        assert_eq!(guard.events()[0].name(), "start", "{}", guard.transcript());
    }
    for (script, warns) in [("true", true), ("echo 200000 100000 > cpu.max", false)] {
        let Some(setup) = in_cgroups(script) else { return };
        let mut check = setup.options(["check"]).app(["true"]).start();
        assert_eq!(check.code(), 0);
        let warned = check.out().iter().any(|line| line.contains("GUARD_INSTANCES=auto: there is no CPU quota here"));
        assert_eq!(warned, warns, "{script}: {}", check.transcript());
    }
}

#[test]
fn a_reload_replaces_one_instance_after_the_other() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify");
        let mut guard = start(setup, 2, "notify READY=1 serve");
        all_ready(&mut guard, 2);
        guard.ask(&["reload"]).yes("reloaded: the new runs are ready");
        for instance in ["0", "1"] {
            // The new run is ready, and only then is the old one told.
            let reload = guard.event("reload");
            assert_eq!(
                (reload.get("instance"), reload.get("old"), reload.get("new")),
                (Some(instance), Some("1"), Some("2"))
            );
            let exit = guard.event("exit");
            assert_eq!((exit.get("instance"), exit.get("run")), (Some(instance), Some("1")));
        }
        guard.event("reloaded");
    }
}

/// guard hears of both ends at once, the old run's first in the kernel's order.
#[test]
fn a_new_run_that_ends_together_with_the_old_one_is_the_last_of_its_reload() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "60s").env("GUARD_SIGNAL_MAP", "USR1=reload");
        let mut guard = start(setup, 2, "ids deaf serve");
        let mut said = BTreeSet::new();
        let mut until = |guard: &mut Guard, wanted: &[&str]| {
            while wanted.iter().any(|line| !said.contains(*line)) {
                said.extend(lines(guard, 1));
            }
            said.clone()
        };
        until(&mut guard, &["0.1 ready", "1.1 ready"]);
        guard.signal(libc::SIGUSR1);
        let said = until(&mut guard, &["0.2 ready", "0.1 got TERM"]);
        guard.signal(libc::SIGSTOP);
        let state = |pid: i32, wanted: &str| status_field(pid, "State:").starts_with(wanted);
        eventually("guard that is stopped", || state(guard.pid(), "T").then_some(()));
        for prefix in ["0.1 pid ", "0.2 pid "] {
            let pid = said.iter().find_map(|line| line.strip_prefix(prefix)?.parse().ok()).expect("it has told");
            if guard.is_pid1() { guard.signal_inside(pid, libc::SIGKILL) } else { send(pid, libc::SIGKILL) }
        }
        let zombies = || descendants(guard.pid()).into_iter().filter(|pid| state(*pid, "Z")).count();
        eventually("two that have ended", || (zombies() == 2).then_some(()));
        guard.signal(libc::SIGCONT);
        guard.event("reload-failed");
        guard.line("0.3 ready");
        let spawned = guard.events().into_iter().filter(|event| event.name() == "spawn");
        assert_eq!(spawned.filter(|event| event.get("instance") == Some("1")).count(), 1, "{}", guard.transcript());
    }
}

#[test]
fn a_status_of_hundreds_of_instances_is_told() {
    // Longer than the kernel's default for a datagram.
    const LONG: usize = 212_992;
    let setup = common::child().env("GUARD_INSTANCES", "500").env("GUARD_READY", "notify");
    let says = format!("notify STATUS={} notify READY=1 serve", "x".repeat(400));
    let mut guard = setup.fixture(&says).start();
    for _ in 0..500 {
        guard.event("ready");
    }
    for words in [&["status"][..], &["status", "--json"]] {
        let answer = guard.ask(words);
        assert_eq!((answer.code, answer.out.matches(&"x".repeat(400)).count()), (0, 500), "{}", answer.err);
        assert!(answer.out.len() > LONG, "{}", answer.out.len());
    }
}
