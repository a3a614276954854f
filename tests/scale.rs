//! `guard scale` and its signals: how many instances from now on.

use crate::common::cgroup::Cgroup;
use crate::common::{self, Answer, Guard, Setup, begin, child, everywhere};
use std::collections::BTreeSet;

fn start(setup: Setup, instances: u32, words: &str) -> Guard {
    let setup = setup.env("GUARD_INSTANCES", instances.to_string());
    let mut guard = setup.fixture(&format!("tagged {words}")).start();
    (0..instances).for_each(|_| drop(guard.line_after("")));
    guard
}

/// The next run that says this.
fn who(guard: &mut Guard, what: &str) -> String {
    loop {
        if let Some(run) = guard.line_after("").strip_suffix(&format!(" {what}")) {
            return run.to_owned();
        }
    }
}

/// The instances and runs that `guard status` shows, as `0.1`.
fn runs(guard: &Guard) -> Vec<String> {
    let json = guard.ask(&["status", "--json"]).out;
    let number = |row: &str, key: &str| row.split_once(key)?.1.split(',').next().map(str::to_owned);
    let rows = json.split(r#"{"instance":"#).skip(1);
    rows.map(|row| format!("{}.{}", row.split(',').next().unwrap_or(""), number(row, r#""run":"#).expect("a run")))
        .collect()
}

#[test]
fn more_instances_are_started_and_waited_for() {
    for setup in everywhere() {
        let mut guard = start(setup.env("GUARD_READY", "notify"), 1, "on USR1 READY=1 serve");
        guard.signal(libc::SIGUSR1);
        guard.until_yes(&["ready"]);
        let client = begin(&mut guard.client(&["scale", "3"]));
        let ready: BTreeSet<String> = (0..2).map(|_| who(&mut guard, "ready")).collect();
        assert_eq!(ready, ["1.1", "2.1"].map(str::to_owned).into());
        assert_eq!(guard.event("scale").get("to"), Some("3"));
        guard.signal(libc::SIGUSR1);
        Answer::of(client).yes("scaled: 3 instances");
        assert_eq!(runs(&guard), ["0.1", "1.1", "2.1"]);
    }
}

#[test]
fn fewer_instances_are_drained_and_waited_for_and_never_started_again() {
    for setup in everywhere() {
        let mut guard = start(setup.env("GUARD_DRAIN_DELAY", "200ms"), 4, "linger 300 quit TERM 1 serve");
        guard.ask(&["scale", "2"]).yes("scaled: 2 instances");
        assert_eq!(runs(&guard), ["0.1", "1.1"]);
        guard.ask(&["ready"]).yes("ready");
        let told: BTreeSet<String> = (0..2).map(|_| who(&mut guard, "got TERM")).collect();
        assert_eq!(told, ["2.1", "3.1"].map(str::to_owned).into());
        // A number is free again, and its runs are numbered on.
        guard.ask(&["scale", "+1"]).yes("scaled: 3 instances");
        assert_eq!(runs(&guard), ["0.1", "1.1", "2.2"]);
        guard.ask(&["scale", "-2"]).yes("scaled: 1 instance");
        guard.ask(&["scale", "1"]).yes("scaled: 1 instance");
        guard.ask(&["scale", "-1"]).no("not scaled: there can be 1 to 1024 instances");
        assert!(guard.events().iter().all(|event| event.name() != "restart"), "{}", guard.transcript());
    }
}

#[test]
fn a_scale_whose_new_instance_fails_is_answered_with_no() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_READY", "notify");
        let mut guard = start(setup, 1, "in-instance 1 before-run 2 exit 3 notify READY=1 serve");
        guard.until_yes(&["ready"]);
        guard.ask(&["scale", "2"]).no("not scaled: the new run failed before it was ready");
        guard.line_after("1.2 ");
    }
}

#[test]
fn an_instance_that_does_not_stop_is_killed_within_a_stop_timeout_of_its_own() {
    for setup in everywhere() {
        let guard = start(setup.env("GUARD_STOP_TIMEOUT", "300ms"), 2, "deaf serve");
        guard.ask(&["scale", "1"]).yes("scaled: 1 instance");
        assert_eq!(runs(&guard), ["0.1"]);
    }
}

#[test]
fn mapped_signals_scale_too() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_SIGNAL_MAP", "TTIN=scale+,TTOU=scale-");
        let mut guard = start(setup, 1, "serve");
        guard.signal(libc::SIGTTIN);
        guard.line("1.1 ready");
        assert_eq!(guard.event("scaled").get("instances"), Some("2"));
        guard.signal(libc::SIGTTOU);
        guard.line("1.1 got TERM");
        assert_eq!(guard.event("scaled").get("instances"), Some("1"));
        guard.signal(libc::SIGTTOU);
        assert_eq!(guard.event("ignored").get("why"), Some("there can be 1 to 1024 instances"));
        guard.ask(&["ready"]).yes("ready");
    }
}

#[test]
fn one_who_is_overtaken_by_the_opposite_hears_so() {
    for setup in everywhere() {
        let mut guard = start(setup.env("GUARD_READY", "notify"), 1, "on USR1 READY=1 serve");
        guard.signal(libc::SIGUSR1);
        guard.until_yes(&["ready"]);
        let up = begin(&mut guard.client(&["scale", "+1"]));
        guard.line("1.1 ready");
        let down = guard.ask(&["scale", "1"]);
        down.yes("scaled: 1 instance");
        Answer::of(up).no("not scaled: others have asked for 1 meanwhile");
    }
}

#[test]
fn a_stop_during_a_scale_wins() {
    for setup in everywhere() {
        let mut guard = start(setup.env("GUARD_READY", "notify"), 1, "quit TERM 0 serve");
        let client = begin(&mut guard.client(&["scale", "3"]));
        (0..2).for_each(|_| drop(guard.line_after("")));
        guard.signal(libc::SIGTERM);
        Answer::of(client).no("not scaled: guard is stopping");
        assert_eq!(guard.code(), 0);
        let told = guard.out().into_iter().filter(|line| line.ends_with("got TERM")).count();
        assert_eq!(told, 3);
    }
}

#[test]
fn auto_reads_the_quota_again_at_a_scale_and_at_each_restart() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::with_quota(100_000) else { return };
        let setup = cgroup.setup(setup).env("GUARD_INSTANCES", "auto");
        let mut guard = setup.fixture("tagged serve").start();
        guard.line("0.1 ready");
        assert!(cgroup.quota(300_000));
        guard.ask(&["scale", "auto"]).yes("scaled: 3 instances");
        assert!(cgroup.quota(150_000));
        guard.ask(&["restart"]).yes("restarted: the new runs are ready");
        let is_one_of = |number: u32| {
            let json = guard.ask(&["status", "--json"]).out;
            (json.matches(r#"{"instance":"#).count() == usize::try_from(number).expect("a few")).then_some(())
        };
        common::eventually("two instances", || is_one_of(2));
        guard.ask(&["scale", "1"]).yes("scaled: 1 instance");
        guard.ask(&["restart"]).yes("restarted: run 3 is ready");
        assert!(is_one_of(1).is_some(), "a number was asked for");
    }
}

#[test]
fn what_is_no_number_is_refused_with_the_usage() {
    for words in [&["scale"][..], &["scale", "0"], &["scale", "many"], &["scale", "2", "3"], &["scale", "1025"]] {
        let mut client = child().options(words.iter().copied()).start();
        assert_eq!(client.code(), 125);
        assert!(client.err().iter().any(|line| line.contains("usage: guard scale N|auto|+N|-N")), "{words:?}");
    }
}
