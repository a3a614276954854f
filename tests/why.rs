//! Why a run ended: the exit line, `guard status`, GUARD_LAST_EXIT and the termination log tell the same, for each reason.

use crate::common::cgroup::Cgroup;
use crate::common::{self, Guard, Setup, everywhere, fixture, skipped};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// One way to end.
struct Reason {
    settings: &'static [(&'static str, &'static str)],
    /// What the first run does; the next one prints its environment and serves.
    first: &'static str,
    /// GUARD_LAST_EXIT.
    word: &'static str,
    /// Of the exit line.
    fields: &'static [(&'static str, &'static str)],
    /// The sentence without its figures.
    sentence: [&'static str; 2],
}

const NEVER: &str = "1h";

const REASONS: [Reason; 11] = [
    Reason {
        settings: &[],
        first: "exit 3",
        word: "3",
        fields: &[("code", "3")],
        sentence: ["exited with code 3 after ", "s, peak memory "],
    },
    Reason {
        settings: &[("GUARD_RESTART", "always")],
        first: "exit 0",
        word: "0",
        fields: &[("code", "0")],
        sentence: ["exited with code 0 after ", "s, peak memory "],
    },
    Reason {
        settings: &[("GUARD_LIMIT_CORE", "0")],
        first: "die SEGV",
        word: "SIGSEGV",
        fields: &[("signal", "SIGSEGV")],
        sentence: ["died of SIGSEGV after ", "s, peak memory "],
    },
    Reason {
        settings: &[("GUARD_READY", "notify"), ("GUARD_WATCHDOG", "300ms"), ("GUARD_LIMIT_CORE", "0")],
        first: "serve",
        word: "watchdog",
        fields: &[("signal", "SIGABRT"), ("cause", "watchdog")],
        sentence: ["died of SIGABRT after ", "s (watchdog), peak memory "],
    },
    Reason {
        settings: &[
            ("GUARD_HEALTH_CHECK", "exec:sh -c 'test $GUARD_RUN = 2'"),
            ("GUARD_HEALTH_INTERVAL", "500ms"),
            ("GUARD_HEALTH_RETRIES", "2"),
            ("GUARD_HEALTH_START_PERIOD", "0"),
        ],
        first: "serve",
        word: "health",
        fields: &[("code", "143"), ("cause", "health")],
        sentence: ["exited with code 143 after ", "s (health), peak memory "],
    },
    Reason {
        settings: &[("GUARD_READY", "notify"), ("GUARD_READY_TIMEOUT", "500ms")],
        first: "serve",
        word: "not-ready",
        fields: &[("code", "143"), ("cause", "not-ready")],
        sentence: ["exited with code 143 after ", "s (not-ready), peak memory "],
    },
    Reason {
        settings: &[("GUARD_MAX_MEMORY", "4K")],
        first: "serve",
        word: "memory-limit",
        fields: &[("code", "143"), ("cause", "memory-limit")],
        sentence: ["exited with code 143 after ", "s (memory-limit), peak memory "],
    },
    Reason {
        settings: &[("GUARD_MAX_LIFETIME", "2s")],
        first: "serve",
        word: "lifetime",
        fields: &[("code", "143"), ("cause", "lifetime")],
        sentence: ["exited with code 143 after ", "s (lifetime), peak memory "],
    },
    Reason {
        settings: &[],
        first: "serve",
        word: "changed-file",
        fields: &[("code", "143"), ("cause", "changed-file")],
        sentence: ["exited with code 143 after ", "s (changed-file), peak memory "],
    },
    Reason {
        settings: &[],
        first: "serve",
        word: "operator",
        fields: &[("code", "143"), ("cause", "operator"), ("level", "info")],
        sentence: ["exited with code 143 after ", "s (operator), peak memory "],
    },
    Reason {
        settings: &[("GUARD_STOP_TIMEOUT", "1s")],
        first: "deaf",
        word: "deadline",
        fields: &[("signal", "SIGKILL"), ("cause", "operator"), ("killed", "deadline")],
        sentence: ["died of SIGKILL after ", "s (operator), killed at the deadline, peak memory "],
    },
];

/// Guard with a termination log, a file that it watches, and a directory for a core file.
fn prepare(setup: Setup, directory: &Path) -> Setup {
    fs::write(directory.join("watched"), "1").expect("ours");
    let setup = setup.env("GUARD_TERMINATION_LOG", directory.join("last-word")).env("GUARD_NOTIFY", "on");
    let setup = setup.env("GUARD_ON_CHANGE", format!("{}=restart", directory.join("watched").display()));
    // The second run stays what it is, or is the last one for long.
    let setup = setup.env("GUARD_BACKOFF_INITIAL", NEVER).env("GUARD_BACKOFF_MAX", NEVER);
    setup.env("GUARD_CHDIR", directory)
}

/// The four places say it.
fn is_told(guard: &mut Guard, directory: &Path, reason: &Reason) {
    let exit = guard.event("exit");
    for (key, value) in reason.fields {
        assert_eq!(exit.get(key), Some(*value), "{key} of {}: {}", reason.word, exit.line);
    }
    for key in ["uptime", "max_rss", "cpu_user", "cpu_sys"] {
        assert!(exit.get(key).is_some(), "{key} of {}: {}", reason.word, exit.line);
    }
    assert_eq!(exit.get("status"), Some("busy"), "{}", exit.line);

    let environment = guard.lines_until("end");
    let last = format!("env GUARD_LAST_EXIT={}", reason.word);
    assert!(environment.contains(&last), "{last} in {environment:?}");

    let holds = |text: &str, quote: &str| {
        let [first, second] = reason.sentence;
        // The next run may have ended in the same way by now.
        let rest = text.split_once(first).map(|(_, rest)| rest);
        let rest = rest.and_then(|rest| rest.split_once(second)).map(|(_, rest)| rest);
        let said = format!(", status {quote}busy{quote}");
        assert!(rest.is_some_and(|rest| rest.contains(", CPU ") && rest.contains(&said)), "{}: {text}", reason.word);
    };
    // Nothing has failed where an app exits with 0.
    if reason.word != "0" {
        holds(&fs::read_to_string(directory.join("last-word")).expect("a last word"), "\"");
    }
    let status = guard.ask(&["status", "--json"]).out;
    holds(&status, "\\\"");
    assert!(status.contains(&format!(r#""last_exit":"{}","#, reason.word)), "{status}");
    let table = guard.ask(&["status"]).out;
    holds(&table, "\"");
    assert!(table.split_whitespace().any(|word| word == reason.word), "{table}");
}

#[test]
fn every_reason_is_told_in_all_places() {
    for reason in REASONS {
        for setup in everywhere() {
            let directory = TempDir::new().expect("a directory");
            let setup = prepare(setup, directory.path());
            let setup = reason.settings.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
            let ready = if reason.word == "not-ready" { "" } else { "READY=1," };
            // What a run does from its second on comes first, since the last word of the first may be that it ends.
            let words = format!("notify {ready}STATUS=busy env default ABRT before-run 2 {} serve", reason.first);
            let mut guard = setup.fixture(&words).start();
            guard.line("end");
            match reason.word {
                "changed-file" => {
                    guard.line("ready");
                    fs::write(directory.path().join("watched"), "22").expect("ours");
                }
                "operator" | "deadline" => {
                    guard.line("ready");
                    assert_eq!(guard.ask(&["restart"]).code, 0, "{}", guard.transcript());
                }
                _ => {}
            }
            is_told(&mut guard, directory.path(), &reason);
        }
    }
}

/// The fixture never leaves a core file, so another program dies.
#[test]
fn a_core_file_is_told_in_all_places() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with(['|', '/', '@']) {
        return skipped("the host's core_pattern leads out of the working directory");
    }
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let setup = prepare(setup, directory.path()).env("FIXTURE", fixture()).env("GUARD_LIMIT_CORE", "unlimited");
        let script = "[ $GUARD_RUN = 1 ] || exec $FIXTURE env serve; $FIXTURE notify STATUS=busy exit 0; kill -SEGV $$";
        let mut guard = setup.app(["sh", "-c", script]).start();
        let reason = Reason {
            settings: &[],
            first: "",
            word: "SIGSEGV+core",
            fields: &[("signal", "SIGSEGV"), ("core", "written")],
            sentence: ["died of SIGSEGV (core dumped) after ", "s, peak memory "],
        };
        is_told(&mut guard, directory.path(), &reason);
    }
}

#[test]
fn a_sigkill_that_somebody_has_asked_for_came_at_no_deadline() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_SIGNAL_MAP", "HUP=KILL").env("GUARD_RESTART", "never");
        let mut guard = setup.fixture("serve").start();
        guard.line("ready");
        guard.signal(libc::SIGHUP);
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("killed")), (Some("SIGKILL"), None), "{}", guard.transcript());
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn a_lack_of_memory_is_told_in_all_places() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(32 << 20) else { return };
        let directory = TempDir::new().expect("a directory");
        let setup = cgroup.setup(prepare(setup, directory.path())).env("FIXTURE", fixture());
        // The shell's pid stays that of the main process, whose STATUS counts.
        let script =
            "[ $GUARD_RUN = 1 ] || exec $FIXTURE env serve; $FIXTURE notify STATUS=busy exit 0; exec tail /dev/zero";
        let mut guard = setup.app(["sh", "-c", script]).start();
        let reason = Reason {
            settings: &[],
            first: "",
            word: "oom",
            fields: &[("signal", "SIGKILL"), ("cause", "oom")],
            sentence: ["was killed for lack of memory after ", "s, peak memory "],
        };
        is_told(&mut guard, directory.path(), &reason);
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_told_by_the_errnos_name() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let text = "#!/bin/sh\necho last $GUARD_LAST_EXIT\n[ $GUARD_RUN = 1 ] || exec sleep 1000\nmv \"$0\" \"$0.off\"\nexit 1\n";
        let app = common::program(directory.path(), "app", text, 0o755);
        let setup = prepare(setup, directory.path()).env("GUARD_SIGNAL_MAP", "USR1=restart");
        let mut guard = setup.app([&app]).start();
        guard.line("last");
        assert_eq!(guard.event("spawn-failed").get("errno"), Some("ENOENT"));
        let status = guard.ask(&["status", "--json"]).out;
        assert!(status.contains(r#""last_exit":"ENOENT""#), "{status}");
        assert!(status.contains(r#""last_run":"run 2 could not be started (ENOENT)""#), "{status}");
        // guard answers when it has written the word.
        let word = fs::read_to_string(directory.path().join("last-word")).expect("a last word");
        assert!(word.contains("(ENOENT)"), "{word}");
        assert!(guard.ask(&["status"]).out.contains("ENOENT"));
        fs::rename(app.with_extension("off"), &app).expect("ours");
        guard.signal(libc::SIGUSR1);
        guard.line("last ENOENT");
    }
}
