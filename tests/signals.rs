//! Which signals reach the app, and as what.

use crate::common::{
    self, Answer, Event, Guard, Setup, begin, child, children, eventually, everywhere, pid1, send, skipped,
    status_field,
};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Command;

/// Job control is its own topic below, TERM and INT are stop requests.
const TERMINAL_STOPS: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// As the fixture prints a signal.
fn name(signal: i32) -> String {
    const NAMES: [&str; 32] = [
        "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "", "CONT", "", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
        "IO", "PWR", "SYS",
    ];
    NAMES.get(signal as usize).map_or(signal.to_string(), |name| (*name).to_owned())
}

fn state(pid: i32) -> String {
    status_field(pid, "State:").chars().take(1).collect()
}

fn wait_for_state(pid: i32, wanted: &str) {
    eventually(&format!("state {wanted} of {pid}"), || (state(pid) == wanted).then_some(()));
}

/// Starts the fixture and waits until it serves; gives its pid as the test sees it, too.
fn serving(setup: Setup, words: &str) -> (Guard, i32) {
    let mut guard = setup.fixture(&format!("ids {words}")).start();
    let pid = guard.line_after("pid ").parse().unwrap();
    guard.line("ready");
    let outside = guard.pid_outside(pid);
    (guard, outside)
}

#[test]
fn every_signal_that_can_be_taken_is_forwarded() {
    for setup in everywhere() {
        // The contract: a signal mapped to itself is plainly forwarded.
        let setup = setup.env("GUARD_SIGNAL_MAP", "TERM=TERM,INT=INT").env("GUARD_RESTART", "never");
        let (mut guard, _) = serving(setup, "quit 64 5 serve");
        for signal in common::catchable().filter(|signal| !TERMINAL_STOPS.contains(signal)) {
            guard.signal(signal);
            guard.line(&format!("got {}", name(signal)));
        }
        assert_eq!(guard.code(), 5);
        assert_eq!(guard.out().iter().filter(|line| line.starts_with("got ")).count(), 64 - 3 - 3);
    }
}

/// Unlike the others they queue (`signal(7)`): one for each that was sent.
#[test]
fn real_time_signals_keep_their_number() {
    for setup in everywhere() {
        let (mut guard, _) = serving(setup, "serve");
        for _ in 0..100 {
            guard.signal(40);
        }
        for _ in 0..100 {
            guard.line("got 40");
        }
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        assert_eq!(guard.out().iter().filter(|line| **line == "got 40").count(), 100);
    }
}

#[test]
fn a_child_that_ends_is_no_signal_for_the_app() {
    for setup in everywhere() {
        let (mut guard, _) = serving(setup, "fork exit 0 . quit USR1 5 serve");
        guard.signal(libc::SIGCHLD);
        guard.signal(libc::SIGHUP);
        guard.line("got HUP");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert!(!guard.out().contains(&"got CHLD"), "{}", guard.transcript());
    }
}

/// The kernel has no room for another real-time signal, and keeps one of each other all the same.
#[test]
fn a_stop_request_that_comes_when_the_queue_is_full_is_heard() {
    if common::in_path("prlimit").is_none() {
        return skipped("there is no prlimit");
    }
    for (signal, name) in [(libc::SIGINT, "INT"), (libc::SIGTERM, "TERM")] {
        let setup = child().env("GUARD_SIGNAL_MAP", "40=ignore").env("GUARD_LOG", "debug");
        let (mut guard, _) = serving(setup, "quit INT 7 quit TERM 7 serve");
        let pid = guard.pid();
        let mut prlimit = Command::new("prlimit");
        let limited = begin(prlimit.args(["--sigpending=64", "--pid", &pid.to_string()]));
        assert_eq!(Answer::of(limited).code, 0);
        guard.signal(libc::SIGSTOP);
        wait_for_state(pid, "T");
        for _ in 0..2_000 {
            guard.signal(40);
        }
        guard.signal(signal);
        guard.signal(libc::SIGCONT);
        guard.line(&format!("got {name}"));
        assert_eq!(guard.code(), 7);
        assert!(guard.events().iter().any(|event| event.name() == "drain"), "{}", guard.transcript());
    }
}

/// write(2) to a pipe that nobody reads raises SIGPIPE in the writer: guard's log must not become the app's signal.
#[test]
fn guards_own_broken_pipe_is_not_forwarded() {
    for setup in everywhere() {
        let (reader, writer): (OwnedFd, OwnedFd) = nix::unistd::pipe().unwrap();
        drop(reader);
        let mut guard = setup.env("GUARD_LOG", "trace").stderr(writer).fixture("quit USR2 5 serve").start();
        guard.line("ready");
        for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
            guard.signal(signal); // each is worth a line at this level
            guard.line(&format!("got {}", name(signal)));
        }
        // That was a failure: the next run is spawned and logged.
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        guard.signal(libc::SIGUSR2);
        assert_eq!(guard.code(), 5);
        assert!(!guard.out().contains(&"got PIPE"), "{}", guard.transcript());
    }
}

#[test]
fn term_and_int_are_stop_requests_and_hup_is_none() {
    for (signal, stops) in [(libc::SIGTERM, true), (libc::SIGINT, true), (libc::SIGHUP, false)] {
        for setup in everywhere() {
            // A failure that nobody asked for would be restarted.
            let (mut guard, _) = serving(setup, &format!("quit {signal} 7 quit USR1 8 serve"));
            guard.signal(signal);
            guard.line(&format!("got {}", name(signal)));
            if !stops {
                guard.line("ready");
                guard.signal(libc::SIGTERM);
                guard.line("got TERM");
                guard.signal(libc::SIGUSR1);
            }
            assert_eq!(guard.code(), if stops { 7 } else { 8 }, "{signal}");
        }
    }
}

/// Nobody is there to write his threads, so it is the STOPSIGNAL of an image.
#[test]
fn a_quit_in_a_backoff_is_a_stop() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "10m").env("GUARD_BACKOFF_MAX", "10m");
        let mut guard = setup.fixture("exit 4").start();
        (0..2).for_each(|_| _ = guard.event("restart"));
        guard.signal(libc::SIGQUIT);
        assert_eq!(guard.event("drain").get("signal"), Some("SIGQUIT"));
        assert_eq!(guard.code(), 4);
    }
}

/// Images of nginx and php-fpm have QUIT as their STOPSIGNAL, and an app that knows nothing of it dies of it.
#[test]
fn an_app_that_ends_after_a_forwarded_quit_has_been_stopped_by_it() {
    for (words, policy, code) in [
        ("default QUIT serve", "on-failure", 131),
        ("quit QUIT 0 serve", "always", 0),
        ("quit QUIT 7 serve", "on-failure", 7),
        ("quit QUIT 0 linger 300 serve", "always", 0),
        ("fork setsid as left linger 2500 serve . quit QUIT 0 serve", "always", 0),
    ] {
        for setup in everywhere() {
            let mut guard = setup.env("GUARD_RESTART", policy).fixture(words).start();
            guard.line("ready");
            guard.signal(libc::SIGQUIT);
            let stopped = guard.event("stopped-by-quit");
            assert!(stopped.line.contains("GUARD_STOP_SIGNAL=QUIT"), "{}", stopped.line);
            assert_eq!(guard.code(), code, "{words}");
            let told = guard.out().iter().filter(|line| **line == "left done").count();
            assert_eq!(told, usize::from(words.contains("left")), "leftovers have the time of a stop");
        }
    }
}

#[test]
fn a_quit_that_an_app_has_outlived_for_the_stop_timeout_has_not_stopped_it() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "300ms");
        let words = "before-run 2 quit USR1 1 before-run 2 linger 400 quit TERM 0 serve";
        let mut guard = setup.fixture(words).start();
        guard.line("ready");
        guard.signal(libc::SIGQUIT);
        guard.line("got QUIT");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.event("restart").get("last"), Some("1"));
        assert!(guard.events().iter().all(|event| event.name() != "drain"), "{}", guard.transcript());
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn the_configured_stop_signal_is_sent_and_is_a_request_itself() {
    for received in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
        for (stop_signal, expected) in [("QUIT", "QUIT"), ("SIGQUIT", "QUIT"), ("3", "QUIT"), ("RTMIN+3", "37")] {
            let (mut guard, _) =
                serving(child().env("GUARD_STOP_SIGNAL", stop_signal), &format!("quit {expected} 7 quit QUIT 8 serve"));
            if received == libc::SIGQUIT && expected == "37" {
                continue; // no request then
            }
            guard.signal(received);
            guard.line(&format!("got {expected}"));
            assert_eq!(guard.code(), 7);
        }
    }
}

#[test]
fn a_signal_mapped_to_another_arrives_as_that() {
    for setup in everywhere() {
        let (mut guard, _) =
            serving(setup.env("GUARD_SIGNAL_MAP", "HUP=USR2,RTMIN+3=WINCH,USR1=SIGRTMIN+4,TSTP=QUIT"), "serve");
        for (sent, got) in [(libc::SIGHUP, "USR2"), (37, "WINCH"), (libc::SIGUSR1, "38"), (libc::SIGTSTP, "QUIT")] {
            guard.signal(sent);
            guard.line(&format!("got {got}"));
        }
        assert!(!guard.out().iter().any(|line| ["got HUP", "got 37", "got USR1"].contains(line)));
    }
}

#[test]
fn a_signal_mapped_to_ignore_does_not_arrive() {
    for setup in everywhere() {
        let (mut guard, _) = serving(setup.env("GUARD_SIGNAL_MAP", "HUP=ignore,INT=ignore"), "serve");
        guard.signal(libc::SIGHUP);
        guard.signal(libc::SIGINT);
        guard.signal(libc::SIGUSR1);
        guard.line("got USR1");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        assert_eq!(
            guard.out().into_iter().filter(|line| line.starts_with("got")).collect::<Vec<_>>(),
            ["got USR1", "got TERM"]
        );
    }
}

#[test]
fn a_signal_mapped_to_stop_is_a_stop_request() {
    for setup in everywhere() {
        let (mut guard, _) = serving(setup.env("GUARD_SIGNAL_MAP", "USR1=stop"), "quit USR1 7 serve");
        guard.signal(libc::SIGUSR1);
        guard.line("got USR1"); // GUARD_STOP_SIGNAL is by default the signal received
        assert_eq!(guard.code(), 7);
    }
    let setup = child().env("GUARD_SIGNAL_MAP", "USR1=stop").env("GUARD_STOP_SIGNAL", "WINCH");
    let (mut guard, _) = serving(setup, "quit WINCH 7 serve");
    guard.signal(libc::SIGUSR1);
    guard.line("got WINCH");
    assert_eq!(guard.code(), 7);
}

#[test]
fn a_signal_mapped_to_restart_starts_the_next_run() {
    for setup in everywhere() {
        let (mut guard, _) = serving(setup.env("GUARD_SIGNAL_MAP", "USR1=restart"), "serve");
        guard.signal(libc::SIGUSR1);
        guard.line("got TERM"); // no stop signal came, so TERM it is
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn the_log_names_the_setting_where_a_signal_that_was_passed_on_has_ended_the_app() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_BACKOFF_INITIAL", "0").app(["sleep", "1000"]).start();
        guard.event("spawn");
        guard.signal(libc::SIGRTMIN() + 3);
        let exit = guard.event("exit");
        let signal = exit.get("signal").expect("it died of it").to_owned();
        let hint = format!("guard has passed {signal} on; GUARD_STOP_SIGNAL={signal} makes it a stop request");
        assert_eq!(exit.get("msg"), Some(hint.as_str()), "{}", guard.transcript());
        guard.event("spawn");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.event("exit").get("msg"), None, "{}", guard.transcript());
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn a_stop_signal_mapped_to_itself_is_plainly_forwarded() {
    for setup in everywhere() {
        let (mut guard, _) = serving(setup.env("GUARD_SIGNAL_MAP", "TERM=TERM"), "deaf serve");
        for _ in 0..2 {
            guard.signal(libc::SIGTERM);
            guard.line("got TERM");
        }
        assert!(guard.events().iter().all(|event| !["drain", "stop-signal"].contains(&event.name())));
    }
}

#[test]
fn scope_process_is_the_main_process_alone() {
    for setup in everywhere() {
        let (mut guard, _) = serving(setup, "fork ids as worker serve . serve");
        let worker = children_of_main(&guard)[0];
        guard.signal(libc::SIGHUP);
        guard.line("got HUP");
        send(worker, libc::SIGUSR1);
        guard.line("worker got USR1");
        assert!(!guard.out().contains(&"worker got HUP"), "{}", guard.transcript());
    }
}

fn children_of_main(guard: &Guard) -> Vec<i32> {
    children(children(guard.pid())[0])
}

#[test]
fn scope_group_is_the_runs_whole_group() {
    for setup in everywhere() {
        let words = "fork as worker quit TERM 0 serve . fork setsid as daemon serve . quit TERM 7 serve";
        let (mut guard, _) = serving(setup.env("GUARD_SIGNAL_SCOPE", "group"), words);
        for signal in [libc::SIGHUP, libc::SIGQUIT, 33, 40] {
            guard.signal(signal);
            let line = format!("got {}", name(signal));
            guard.lines(&[&line, &format!("worker {line}")]);
        }
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 7);
        let workers = guard.out().into_iter().filter(|line| *line == "worker got TERM").count();
        assert_eq!(workers, 1, "once, and not as a leftover again\n{}", guard.transcript());
        assert!(!guard.out().contains(&"daemon got HUP"), "{}", guard.transcript());
    }
}

#[test]
fn a_main_process_that_has_left_its_group_gets_what_the_group_gets() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_SIGNAL_SCOPE", "group");
        let (mut guard, _) = serving(setup, "fork as worker quit TERM 0 serve . leave-group quit TERM 7 serve");
        guard.signal(libc::SIGHUP);
        guard.lines(&["got HUP", "worker got HUP"]);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 7);
        for line in ["got HUP", "worker got HUP", "got TERM", "worker got TERM"] {
            let times = guard.out().iter().filter(|said| **said == line).count();
            assert_eq!(times, 1, "{line}\n{}", guard.transcript());
        }
    }
}

/// Apps quit hard on a second signal. Whoever is not in the group gets its first as a leftover.
#[test]
fn who_got_the_stop_signal_with_the_group_gets_no_second_one() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_SIGNAL_SCOPE", "group").env("GUARD_STOP_TIMEOUT", "500ms");
        let (mut guard, _) =
            serving(setup, "fork as worker deaf serve . fork setsid as daemon serve . quit TERM 7 serve");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 7, "{}", guard.transcript());
        for who in ["worker", "daemon"] {
            let line = format!("{who} got TERM");
            assert_eq!(guard.out().iter().filter(|said| **said == line).count(), 1, "{}", guard.transcript());
        }
        let leftovers: Vec<_> = guard.events().into_iter().filter(|event| event.name() == "leftovers").collect();
        let signals: Vec<_> = leftovers.iter().map(|event| event.get("signal")).collect();
        assert_eq!(signals, [None, Some("SIGTERM")], "{}", guard.transcript());
    }
}

/// A shell's trap runs commands, which did not exist when the signal came.
#[test]
fn what_cleans_up_after_the_stop_signal_gets_none() {
    const WORKER: &str = r#"
        trap 'sh -c "echo cleaning; read go <clean; echo clean"; exit' TERM
        echo worker; sleep 1000 & wait"#;
    const MAIN: &str = r#"cd "$1"; trap 'read go <end; exit 3' TERM; sh -c "$2" & sleep 1000 & wait"#;
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipes = ["clean", "end"].map(|name| directory.path().join(name));
        pipes.iter().for_each(|pipe| nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe"));
        let [clean, end] = pipes.map(|pipe| File::options().read(true).write(true).open(pipe).expect("a pipe"));
        let path = directory.path().to_str().expect("a path");
        let setup = setup.env("GUARD_SIGNAL_SCOPE", "group").app(["sh", "-c", MAIN, "sh", path, WORKER]);
        let mut guard = setup.start();
        guard.line("worker");
        guard.signal(libc::SIGTERM);
        guard.line("cleaning");
        (&end).write_all(b"\n").expect("it is read");
        guard.event("leftovers");
        (&clean).write_all(b"\n").expect("it is read");
        guard.line("clean");
        assert_eq!(guard.code(), 3, "{}", guard.transcript());
        let told = |event: &Event| event.name() == "leftovers" && event.get("signal").is_some();
        assert!(!guard.events().iter().any(told), "{}", guard.transcript());
    }
}

/// Whoever writes more to a file than he may gets SIGXFSZ (`setrlimit(2)`).
#[test]
fn what_the_log_brings_upon_guard_is_not_the_apps() {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let script =
        format!("ulimit -f 1; exec '{}' -- '{}' serve", env!("CARGO_BIN_EXE_guard"), common::fixture().display());
    let setup = child().program("/bin/sh").options(["-c", &script]).env("GUARD_LOG", "debug");
    let mut guard = setup.stderr(log.reopen().expect("it is there")).start();
    guard.line("ready");
    for _ in 0..20 {
        guard.signal(libc::SIGURG);
        guard.line("got URG");
    }
    assert!(log.as_file().metadata().expect("it is there").len() >= 512, "the limit is reached");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 143);
    assert!(!guard.out().contains(&"got XFSZ"), "{}", guard.transcript());
}

#[test]
fn the_terminals_stops_are_ignored_as_pid_1() {
    let Some(setup) = pid1() else { return };
    let (mut guard, app) = serving(setup, "serve");
    for signal in TERMINAL_STOPS {
        guard.signal(signal);
    }
    guard.signal(libc::SIGUSR1);
    guard.line("got USR1");
    for pid in [guard.pid(), app] {
        assert_ne!(state(pid), "T");
    }
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 143);
    assert_eq!(guard.out().iter().filter(|line| line.starts_with("got")).count(), 2, "{}", guard.transcript());
}

#[test]
fn elsewhere_guard_stops_and_continues_with_the_app() {
    for signal in TERMINAL_STOPS {
        let (mut guard, app) = serving(child(), &format!("default {} serve", name(signal)));
        guard.signal(signal);
        wait_for_state(app, "T");
        wait_for_state(guard.pid(), "T");
        guard.signal(libc::SIGCONT);
        guard.line("got CONT");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn an_app_that_handles_the_terminals_stop_gets_it() {
    for signal in TERMINAL_STOPS {
        let (mut guard, _) = serving(child(), "serve");
        guard.signal(signal);
        guard.line(&format!("got {}", name(signal)));
        wait_for_state(guard.pid(), "T");
        guard.signal(libc::SIGCONT);
        guard.line("got CONT");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// The group's members would see the signal each, and whoever handles it would go on: SIGSTOP is for all.
#[test]
fn with_scope_group_the_whole_group_stops() {
    for signal in TERMINAL_STOPS {
        let (mut guard, app) = serving(child().env("GUARD_SIGNAL_SCOPE", "group"), "fork as worker serve . serve");
        let worker = children(app)[0];
        guard.signal(signal);
        for pid in [app, worker, guard.pid()] {
            wait_for_state(pid, "T");
        }
        guard.signal(libc::SIGCONT);
        for pid in [app, worker] {
            eventually("the group to go on", || (state(pid) != "T").then_some(()));
        }
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        assert!(!guard.out().contains(&format!("got {}", name(signal)).as_str()), "{}", guard.transcript());
    }
}

#[test]
fn a_stopped_app_is_continued_to_be_stopped() {
    for scope in ["process", "group"] {
        for setup in everywhere() {
            let words = "fork as worker serve . serve";
            let (mut guard, app) = serving(setup.env("GUARD_SIGNAL_SCOPE", scope), words);
            let worker = children(app)[0];
            for pid in [app, worker] {
                send(pid, libc::SIGSTOP);
                wait_for_state(pid, "T");
            }
            guard.signal(libc::SIGTERM);
            guard.line("got TERM");
            // The worker of scope `process` is a leftover then, and as frozen.
            assert_eq!(guard.code(), 143, "{scope}");
            assert!(guard.out().contains(&"worker got TERM"), "{scope}\n{}", guard.transcript());
        }
    }
}

/// What was pending when guard started belongs to the first run, and nothing later is lost.
#[test]
fn a_signal_from_before_the_first_spawn_reaches_the_first_run() {
    for setup in everywhere() {
        // Blocked for the app too, so that it cannot come before the app can take it.
        let setup = setup.inherits("block USR1 block 40 raise USR1 raise 40").fixture("quit 40 5 serve");
        let mut guard = setup.env("GUARD_RESTART", "never").start();
        guard.line("got USR1");
        guard.line("got 40");
        assert_eq!(guard.code(), 5);
    }
}

#[test]
fn signals_sent_while_guard_starts_are_not_lost() {
    for scope in ["process", "group"].repeat(8) {
        for setup in everywhere() {
            let setup = setup.inherits("block USR1").env("GUARD_RESTART", "never").env("GUARD_SIGNAL_SCOPE", scope);
            let mut guard = setup.fixture("quit USR1 5 serve").start();
            wait_until_blocked(&guard, libc::SIGUSR1);
            guard.signal(libc::SIGUSR1);
            assert_eq!(guard.code(), 5);
        }
    }
}

#[test]
fn a_stop_request_sent_while_guard_starts_is_not_lost() {
    for _ in 0..15 {
        for setup in everywhere() {
            let mut guard = setup.fixture("serve").start();
            wait_until_blocked(&guard, libc::SIGTERM);
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 143);
        }
    }
}

/// Until guard holds a signal back, or handles TERM, as it does before it waits for any: what came before is lost to any
/// init.
fn wait_until_blocked(guard: &Guard, signal: i32) {
    let pid = guard.pid();
    let holds = |key, signal: i32| {
        u64::from_str_radix(&status_field(pid, key), 16).is_ok_and(|mask| mask >> (signal - 1) & 1 == 1)
    };
    let ready =
        || status_field(pid, "Name:") == "guard" && (holds("SigBlk:", signal) || holds("SigCgt:", libc::SIGTERM));
    eventually("guard that holds signals back", || ready().then_some(()));
}

/// Without CAP_KILL root may not signal another user's process (`kill(2)`), and neither may guard.
#[test]
fn a_signal_that_guard_may_not_send_is_waited_out() {
    let Some(setup) = pid1() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can run the app as another user");
    }
    const CAP_KILL: i32 = 5;
    let setup = setup.inherits(&format!("uncap {CAP_KILL}")).env("GUARD_STOP_TIMEOUT", "500ms");
    let mut guard = setup.fixture("setuid 65534 deaf serve").start();
    guard.line("ready");
    guard.signal(libc::SIGHUP);
    guard.event("signal-refused");
    guard.signal(libc::SIGTERM);
    guard.event("signal-refused");
    assert_eq!(guard.code(), 137);
    // SIGCONT alone is allowed within a session.
    assert_eq!(guard.out(), ["ready", "got CONT"]);
}
