//! GUARD_DIAGNOSE: an app that hangs says what it has to say before guard ends it.

use crate::common::clock::between;
use crate::common::{Guard, Setup, child, everywhere, fixture, in_path, skipped};
use std::fs;
use std::time::Duration;

/// The fixture as the command.
fn command(words: &str) -> String {
    format!("exec:'{}' {words}", fixture().display())
}

/// A run that falls silent once it is ready.
fn silent(setup: Setup) -> Setup {
    let setup = setup.env("GUARD_READY", "notify").env("GUARD_WATCHDOG", "500ms").env("GUARD_RESTART", "never");
    setup.env("GUARD_STOP_TIMEOUT", "30s")
}

fn names(guard: &Guard) -> Vec<String> {
    guard.events().iter().map(|event| event.name().to_owned()).collect()
}

#[test]
fn a_silent_app_is_asked_by_a_signal_and_then_aborted() {
    for setup in everywhere() {
        let setup = silent(setup).env("GUARD_DIAGNOSE", "QUIT").env("GUARD_DIAGNOSE_TIMEOUT", "300ms");
        let mut guard = setup.fixture("default ABRT quit TERM 0 notify READY=1 serve").start();
        guard.line("got QUIT");
        let (asked, exit) = (guard.event("diagnose"), guard.event("exit"));
        assert_eq!(asked.get("by"), Some("SIGQUIT"));
        assert_eq!(exit.get("signal"), Some("SIGABRT"));
        assert!(between(&asked, &exit) >= Duration::from_millis(200), "{}", guard.transcript());
        assert_eq!(guard.code(), 134);
    }
}

#[test]
fn a_command_knows_the_main_process_and_what_follows_waits_for_it() {
    for setup in everywhere() {
        let setup = silent(setup).env("GUARD_DIAGNOSE", command("as asker env exit 3")).env("GUARD_MAIN_PID", "7");
        // As long as it takes, and not as long as it may.
        let setup = setup.env("GUARD_DIAGNOSE_TIMEOUT", "1h");
        let mut guard = setup.fixture("ids default ABRT notify READY=1 serve").start();
        let pid = guard.line_after("pid ");
        let lines = guard.lines_until("asker end");
        let mut pids = lines.iter().filter_map(|line| line.strip_prefix("asker env GUARD_MAIN_PID="));
        assert_eq!((pids.next(), pids.next()), (Some(pid.as_str()), None), "{lines:?}");
        assert!(lines.iter().any(|line| line == "asker env GUARD_RUN=1"), "{lines:?}");
        assert_eq!(guard.event("diagnose-ended").get("msg"), Some("exited with code 3"));
        assert_eq!(guard.code(), 134);
    }
}

#[test]
fn the_command_and_all_below_it_is_killed_when_its_time_is_over() {
    for setup in everywhere() {
        let setup = silent(setup).env("GUARD_DIAGNOSE_TIMEOUT", "300ms");
        let setup = setup.env("GUARD_DIAGNOSE", command("fork setpgid as below deaf serve . as asker deaf serve"));
        let mut guard = setup.fixture("default ABRT notify READY=1 serve").start();
        guard.line("below ready");
        assert_eq!(guard.event("diagnose-ended").get("msg"), Some("died of SIGKILL"));
        // Nobody is left that would keep guard's output open.
        assert_eq!(guard.code(), 134);
    }
}

#[test]
fn a_command_that_cannot_be_started_changes_nothing() {
    for setup in everywhere() {
        let setup = silent(setup).env("GUARD_DIAGNOSE", "exec:no-such-program").env("GUARD_DIAGNOSE_TIMEOUT", "1h");
        let mut guard = setup.fixture("default ABRT notify READY=1 serve").start();
        assert_eq!(guard.event("diagnose").get("by"), Some("exec:no-such-program"));
        guard.event("diagnose-failed");
        assert_eq!(guard.code(), 134);
    }
}

#[test]
fn an_unhealthy_app_and_one_that_is_never_ready_are_asked_before_their_stop_signal() {
    let directory = tempfile::tempdir().expect("a directory");
    let ill = directory.path().join("ill");
    let check = format!("exec:test ! -e '{}'", ill.display());
    for (name, value) in [("GUARD_HEALTH_CHECK", check.as_str()), ("GUARD_READY", "notify")] {
        for setup in everywhere() {
            let setup = setup.env(name, value).env("GUARD_READY_TIMEOUT", "1s").env("GUARD_RESTART", "never");
            let setup = setup.env("GUARD_HEALTH_INTERVAL", "50ms").env("GUARD_HEALTH_START_PERIOD", "0");
            let setup = setup.env("GUARD_DIAGNOSE", "USR1").env("GUARD_DIAGNOSE_TIMEOUT", "200ms");
            let mut guard = setup.fixture("quit TERM 4 serve").start();
            guard.line("ready");
            fs::write(&ill, "").expect("ours");
            guard.line("got USR1");
            guard.line("got TERM");
            assert_eq!(guard.code(), 4, "{name}");
            let names = names(&guard);
            let place = |name: &str| names.iter().position(|known| known == name);
            assert!(place("failing") < place("diagnose") && place("diagnose") < place("stop-signal"), "{names:?}");
            fs::remove_file(&ill).expect("ours");
        }
    }
}

#[test]
fn what_does_not_stop_is_asked_before_it_is_killed_and_not_later() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_DIAGNOSE", "QUIT").env("GUARD_STOP_TIMEOUT", "1500ms");
        let mut guard = setup.fixture("deaf serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        guard.line("got QUIT");
        assert_eq!(guard.code(), 137);
        let at = |name: &str| guard.events().into_iter().find(|event| event.name() == name).expect("in the log");
        let (drain, asked, killed) = (at("drain"), at("diagnose"), at("kill"));
        assert!(between(&drain, &asked) >= Duration::from_millis(990), "two thirds: {}", guard.transcript());
        assert!(between(&drain, &killed) < Duration::from_millis(2500), "{}", guard.transcript());
    }
}

#[test]
fn what_stops_in_time_is_not_asked() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_DIAGNOSE", "QUIT").fixture("linger 100 quit TERM 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        assert!(!names(&guard).contains(&"diagnose".to_owned()), "{}", guard.transcript());
    }
}

#[test]
fn a_wrong_value_is_refused() {
    for value in ["KILL", "STOP", "exec:", "jstack 1"] {
        let mut guard = child().env("GUARD_DIAGNOSE", value).fixture("exit 0").start();
        assert_eq!(guard.code(), 125, "{value}");
    }
}

/// A directory with one file, and its path.
fn script(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn a_jvm_that_does_not_stop_writes_its_threads() {
    if in_path("javac").is_none() {
        return skipped("there is no JDK");
    }
    let text = "class Hang { public static void main(String[] args) throws Exception {
        var hook = new Thread(() -> { while (true) try { Thread.sleep(1000); } catch (InterruptedException e) {} }, \"stuck-hook\");
        Runtime.getRuntime().addShutdownHook(hook);
        System.out.println(\"ready\");
        Thread.sleep(1000000);
    } }";
    for setup in everywhere() {
        let (_directory, path) = script("Hang.java", text);
        let setup = setup.env("GUARD_DIAGNOSE", "QUIT").env("GUARD_STOP_TIMEOUT", "6s");
        let mut guard = setup.app(["java", &path]).start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line_after("Full thread dump");
        guard.line_after("\"stuck-hook\"");
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn node_writes_a_report() {
    if in_path("node").is_none() {
        return skipped("there is no node");
    }
    let text = "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log('ready')";
    for setup in everywhere() {
        let (directory, path) = script("server.js", text);
        let reports = format!("--report-directory={}", directory.path().display());
        let setup = setup.env("GUARD_DIAGNOSE", "USR2").env("GUARD_STOP_TIMEOUT", "6s");
        let mut guard = setup.app(["node", "--report-on-signal", &reports, &path]).start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137);
        let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let report =
            files.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).expect("a report");
        assert!(fs::read_to_string(report).unwrap().contains("\"javascriptStack\""));
    }
}

#[test]
fn node_writes_a_heap_snapshot() {
    if in_path("node").is_none() {
        return skipped("there is no node");
    }
    let text = "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log('ready')";
    for setup in everywhere() {
        let (directory, path) = script("server.js", text);
        // Node writes it into its working directory.
        let setup = setup.env("GUARD_DIAGNOSE", "USR2").env("GUARD_STOP_TIMEOUT", "12s").directory(directory.path());
        let mut guard = setup.app(["node", "--heapsnapshot-signal=SIGUSR2", &path]).start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137);
        let mut files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let snapshot =
            files.find(|path| path.extension().is_some_and(|end| end == "heapsnapshot")).expect("a snapshot");
        assert!(fs::read_to_string(snapshot).unwrap().starts_with("{\"snapshot\":"), "{}", guard.transcript());
    }
}

#[test]
fn python_writes_its_stacks_though_it_spins() {
    if in_path("python3").is_none() {
        return skipped("there is no python3");
    }
    let text = "import faulthandler, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
faulthandler.register(signal.SIGUSR1, file=sys.stdout, all_threads=True)
def spin():
    while True: pass
print('ready', flush=True)
spin()";
    for setup in everywhere() {
        let (_directory, path) = script("app.py", text);
        let setup = setup.env("GUARD_DIAGNOSE", "USR1").env("GUARD_STOP_TIMEOUT", "3s");
        let mut guard = setup.app(["python3", &path]).start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137);
        assert!(guard.out().iter().any(|line| line.ends_with(" in spin")), "{}", guard.transcript());
    }
}

/// Without a line in the app, which ends of it.
#[test]
fn python_that_is_aborted_writes_its_stacks() {
    if in_path("python3").is_none() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let (_directory, path) = script("app.py", "def spin():\n while True: pass\nspin()");
        let setup = setup.env("GUARD_DIAGNOSE", "ABRT").env("PYTHONFAULTHANDLER", "1").env("GUARD_LIMIT_CORE", "0");
        let setup = setup.env("GUARD_READY", "notify").env("GUARD_READY_TIMEOUT", "1s").env("GUARD_RESTART", "never");
        let mut guard = setup.app(["python3", &path]).start();
        assert_eq!(guard.event("exit").get("cause"), Some("not-ready"));
        guard.code();
        assert!(guard.err().iter().any(|line| line.ends_with(" in spin")), "{}", guard.transcript());
    }
}

/// Prometheus is a program in Go. QUIT ends it, after it has written its goroutines; the failure that came first counts.
#[test]
fn go_writes_its_goroutines_and_the_restart_follows_the_failure() {
    if in_path("prometheus").is_none() {
        return skipped("there is no prometheus");
    }
    for setup in everywhere() {
        let (directory, config) = script("prometheus.yaml", "");
        let setup = setup.env("GUARD_DIAGNOSE", "QUIT").env("GOTRACEBACK", "all").env("GUARD_DIAGNOSE_TIMEOUT", "15s");
        let setup = setup.env("GUARD_HEALTH_CHECK", "exec:test -e healthy").env("GUARD_HEALTH_INTERVAL", "200ms");
        let setup = setup.env("GUARD_HEALTH_RETRIES", "1").directory(directory.path()).env("GUARD_MAX_RESTARTS", "1");
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "10ms");
        let healthy = directory.path().join("healthy");
        let line = ["prometheus", "--config.file", &config, "--web.listen-address", "127.0.0.1:0"];
        let mut guard = setup.app(line).start();
        // Before that QUIT ends it without a word.
        guard.log_line("server that is up", |line| line.contains("Server is ready to receive web requests"));
        fs::write(&healthy, "").unwrap();
        guard.event("ready");
        fs::remove_file(&healthy).unwrap();
        let exit = guard.event("exit");
        assert_eq!((exit.get("code"), exit.get("cause")), (Some("2"), Some("health")), "{}", exit.line);
        assert_eq!(guard.event("restart").get("last"), Some("health"));
        let lines = guard.err();
        assert!(lines.iter().any(|line| line.starts_with("SIGQUIT: quit")), "{}", guard.transcript());
        assert!(lines.iter().any(|line| line.starts_with("goroutine ")), "{}", guard.transcript());
    }
}
