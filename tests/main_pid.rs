//! A main process that names another one in its place (MAINPID, `sd_notify(3)`): a daemon that goes to the background.

use crate::common::{self, Setup, eventually, everywhere, fixture, status_field};

fn setups() -> impl Iterator<Item = Setup> {
    everywhere().into_iter().map(|setup| setup.env("GUARD_READY", "notify").env("GUARD_STOP_TIMEOUT", "5s"))
}

#[test]
fn a_daemon_takes_the_place_of_its_launcher() {
    for setup in setups() {
        let daemon = "fork setsid as daemon notify MAINPID=%,READY=1 quit TERM 5 on USR1 STATUS=heard serve .";
        let mut guard = setup.fixture(&format!("{daemon} exit 0")).start();
        guard.line("daemon ready");
        let event = guard.event("main-process");
        assert_ne!(event.get("pid"), event.get("old"));
        assert_eq!(guard.ask(&["ready"]).out, "ready\n");
        let pid = format!(r#""pid":{}"#, event.get("pid").expect("a pid"));
        assert!(guard.ask(&["status", "--json"]).out.contains(&pid), "{pid}");
        guard.signal(libc::SIGUSR1);
        guard.line("daemon got USR1");
        guard.signal(libc::SIGTERM);
        guard.line("daemon got TERM");
        assert_eq!(guard.code(), 5, "its code is the run's");
        assert!(!guard.events().iter().any(|event| event.name() == "background"), "{}", guard.transcript());
    }
}

#[test]
fn a_daemon_may_fork_twice_and_forget_its_environment() {
    for setup in setups() {
        let daemon = "notify MAINPID=%,READY=1 clean-env as daemon quit TERM 5 quit USR1 9 serve";
        let launcher = format!("fork setsid fork {daemon} . exit 0 . quit USR2 0 serve");
        let mut guard = setup.env("GUARD_LOG", "debug").fixture(&launcher).start();
        for _ in 0..2 {
            let heir: i32 = guard.event("heir").get("pid").and_then(|pid| pid.parse().ok()).expect("a pid");
            guard.line("ready");
            // The one between has to end first, as a launcher knows that waits for it.
            let (own, daemon) = (guard.pid().to_string(), guard.pid_outside(heir));
            eventually("the daemon as guard's child", || (status_field(daemon, "PPid:") == own).then_some(()));
            guard.signal(libc::SIGUSR2);
            guard.event("main-process");
            guard.signal(libc::SIGUSR1);
            guard.line("daemon got USR1");
            assert_eq!(guard.event("restart").get("last"), Some("9"));
        }
    }
}

#[test]
fn the_crash_of_a_daemon_is_the_end_of_the_run() {
    for setup in setups() {
        let daemon = "fork setsid as daemon notify MAINPID=%,READY=1 quit USR1 9 serve .";
        let mut guard = setup.fixture(&format!("before-run 2 {daemon} before-run 2 exit 0 exit 0")).start();
        guard.line("daemon ready");
        guard.event("main-process");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.event("restart").get("last"), Some("9"));
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_deaf_daemon_is_killed_at_the_stop_timeout() {
    for setup in setups() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "700ms");
        let mut guard = setup.fixture("fork setsid as daemon notify MAINPID=%,READY=1 deaf serve . exit 0").start();
        guard.line("daemon ready");
        guard.event("main-process");
        guard.signal(libc::SIGTERM);
        guard.line("daemon got TERM");
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn others_of_the_run_stay_until_the_daemon_has_ended() {
    for setup in setups() {
        let words = "fork setsid as helper serve . fork setsid as daemon notify MAINPID=%,READY=1 serve . exit 0";
        let mut guard = setup.fixture(words).start();
        guard.event("main-process");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        assert_eq!(guard.out(), ["helper ready", "daemon ready", "daemon got TERM", "helper got TERM"]);
    }
}

/// With scope `group` the stop signal goes to the daemon's group, or to the daemon alone where it has none of its own.
/// Whoever was in the launcher's group only has not got it.
#[test]
fn the_group_that_is_told_is_the_daemons() {
    for setsid in ["", "setsid"] {
        for setup in setups() {
            let setup = setup.env("GUARD_SIGNAL_SCOPE", "group").env("GUARD_STOP_TIMEOUT", "500ms");
            let daemon =
                format!("{setsid} fork as worker deaf serve . as daemon notify MAINPID=%,READY=1 quit TERM 5 serve");
            let mut guard = setup.fixture(&format!("fork as helper serve . fork {daemon} . exit 0")).start();
            guard.event("main-process");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 5, "{}", guard.transcript());
            for who in ["helper", "worker", "daemon"] {
                let line = format!("{who} got TERM");
                assert_eq!(guard.out().iter().filter(|said| **said == line).count(), 1, "{}", guard.transcript());
            }
        }
    }
}

#[test]
fn a_daemon_that_has_died_before_its_launcher_has_ended_the_run() {
    for setup in setups() {
        // Its parent leaves it to guard, which reaps it while the launcher lives.
        let words = "fork setsid fork notify MAINPID=% exit 7 . exit 0 . quit USR1 0 serve";
        let setup = setup.env("GUARD_RESTART", "never").env("GUARD_LOG", "debug");
        let mut guard = setup.fixture(words).start();
        let heir = guard.event("heir").get("pid").map(str::to_owned);
        guard.log_line("its end", |line| {
            common::Event::parse(line)
                .is_some_and(|event| event.name() == "reaped" && event.get("pid") == heir.as_deref())
        });
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.code(), 7);
    }
}

#[test]
fn a_daemon_that_dies_together_with_its_launcher_is_the_run_all_the_same() {
    for setup in setups() {
        // A child of the launcher's: guard gets both at once.
        let setup = setup.env("GUARD_RESTART", "never");
        assert_eq!(setup.fixture("fork setsid notify MAINPID=% exit 7 . exit 0").start().code(), 7);
    }
}

/// Whoever hands over exits with 0 in the end.
#[test]
fn a_main_process_that_fails_has_not_handed_over() {
    for setup in setups() {
        let daemon = "fork setsid as daemon notify MAINPID=%,READY=1 serve .";
        let mut guard =
            setup.fixture(&format!("before-run 2 {daemon} before-run 2 exit 7 notify READY=1 serve")).start();
        guard.line("daemon ready");
        assert_eq!(guard.event("exit").get("code"), Some("7"));
        guard.line("daemon got TERM");
        assert_eq!(guard.event("restart").get("last"), Some("7"));
        guard.line("ready");
        assert!(!guard.events().iter().any(|event| event.name() == "main-process"), "{}", guard.transcript());
    }
}

#[test]
fn a_daemon_that_ends_well_hides_no_crash_of_its_launcher() {
    for setup in setups() {
        let daemon = "fork setsid fork notify MAINPID=%,READY=1 exit 0 . exit 0 .";
        let mut guard = setup.fixture(&format!("{daemon} before-run 2 die SEGV serve")).start();
        assert_eq!(guard.event("restart").get("last"), Some("SIGSEGV"));
        guard.line("ready");
    }
}

#[test]
fn a_main_process_may_name_itself() {
    for setup in setups() {
        let mut guard = setup.fixture("notify MAINPID=%,READY=1 quit TERM 4 serve").start();
        guard.event("ready");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 4);
        assert!(!guard.events().iter().any(|event| event.name() == "main-process"));
    }
}

#[test]
fn a_main_process_that_cannot_be_is_none() {
    for pid in ["1", "0", "-1", "999999", "x", ""] {
        for setup in setups() {
            let mut guard = setup.fixture(&format!("notify MAINPID={pid},READY=1 exit 0")).start();
            assert_eq!(guard.code(), 0, "MAINPID={pid}");
            assert!(!guard.events().iter().any(|event| event.name() == "main-process"));
        }
    }
}

#[test]
fn neither_guard_nor_the_child_of_another_can_be_the_main_process() {
    for setup in setups() {
        let grandchild = "fork setsid fork as grandchild notify MAINPID=% serve . as child serve . exit 0";
        let mut guard = setup.fixture(grandchild).start();
        assert_eq!(guard.code(), 0);
        assert!(!guard.events().iter().any(|event| event.name() == "main-process"), "{}", guard.transcript());
    }
    for setup in setups() {
        let script = "exec $FIXTURE notify MAINPID=$PPID exit 0";
        let mut guard = setup.env("FIXTURE", fixture()).app(["sh", "-c", script]).start();
        assert_eq!(guard.code(), 0);
        assert!(!guard.events().iter().any(|event| event.name() == "main-process"), "{}", guard.transcript());
    }
}

/// A daemon that takes over would wait for a stop signal that it never gets.
#[test]
fn no_daemon_takes_over_from_a_run_that_stops() {
    for setup in setups() {
        let daemon = "fork setsid as daemon notify MAINPID=%,READY=1 quit TERM 5 serve .";
        let mut guard = setup.fixture(&format!("{daemon} quit TERM 0 serve")).start();
        guard.line("daemon ready");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("daemon got TERM");
        assert_eq!(guard.code(), 0, "the main process's own code\n{}", guard.transcript());
        assert!(!guard.events().iter().any(|event| event.name() == "main-process"), "{}", guard.transcript());
    }
}
