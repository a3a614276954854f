//! GUARD_MAX_MEMORY, GUARD_MAX_LIFETIME, and what is told of why a run has ended.

use crate::common::{self, Guard, Setup, everywhere, in_path, skipped};
use std::fs;

/// An app in Python, which says what it does.
fn python(setup: Setup, script: &str) -> Option<Setup> {
    let Some(python) = in_path("python3") else {
        skipped("there is no python3");
        return None;
    };
    let head = "import os, signal, sys, time\ndef say(text): print(text, flush=True)\n\
                def wait(): signal.pause()\nsay('last %s' % os.environ.get('GUARD_LAST_EXIT'))\n";
    Some(setup.app([python.into_os_string(), "-c".into(), format!("{head}{script}").into()]))
}

/// Waits for the app's word, and returns what follows it.
fn last(guard: &mut Guard) -> String {
    guard.line_after("last ")
}

#[test]
fn an_instance_that_grows_beyond_the_limit_is_restarted_gracefully() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_MEMORY", "64M").env("GUARD_STABLE_AFTER", "0s");
        // A child uses what there is too much: the whole tree counts.
        let script = "def end(*_):\n say('ends')\n sys.exit(0)\nsignal.signal(signal.SIGTERM, end)\n\
                      if os.environ['GUARD_RUN'] == '1' and os.fork() == 0:\n \
                      signal.signal(signal.SIGTERM, signal.SIG_DFL)\n kept = bytearray(os.urandom(1)) * (100 << 20)\n wait()\n\
                      wait()";
        let Some(setup) = python(setup, script) else { return };
        let mut guard = setup.start();
        assert_eq!(last(&mut guard), "None");
        let event = guard.event("memory-limit");
        assert_eq!((event.get("run"), event.get("limit")), (Some("1"), Some("64.0M")));
        guard.line("ends");
        assert_eq!(guard.event("restart-in-place").get("cause"), Some("memory-limit"));
        let exit = guard.event("exit");
        assert_eq!((exit.get("code"), exit.get("cause")), (Some("0"), Some("memory-limit")));
        assert_eq!(last(&mut guard), "memory-limit");
        let status = guard.ask(&["status"]).out;
        assert!(status.contains("run 1 exited with code 0 after "), "{status}");
        assert!(status.contains(" (memory-limit), peak memory "), "{status}");
        assert!(guard.ask(&["status", "--json"]).out.contains(r#""last_exit":"memory-limit","last_run":"run 1 "#));
    }
}

#[test]
fn a_limit_that_trips_at_once_again_and_again_gives_up() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_MEMORY", "32M").env("GUARD_MAX_RESTARTS", "2");
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "10ms");
        let Some(setup) = python(setup, "kept = bytearray(os.urandom(1)) * (64 << 20)\nwait()") else { return };
        let mut guard = setup.start();
        assert_ne!(guard.code(), 0);
        let events = guard.events();
        let failing: Vec<_> = events.iter().filter(|event| event.name() == "failing").collect();
        assert_eq!(failing.len(), 3, "{}", guard.transcript());
        assert!(failing.iter().all(|event| event.get("cause") == Some("memory-limit")));
        assert!(events.iter().any(|event| event.name() == "give-up"));
    }
}

/// Redis while it saves, prefork servers: each worker's resident set holds what all of them share.
#[test]
fn what_forks_share_counts_once() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_MEMORY", "120M").env("GUARD_LOG", "debug");
        let script = "kept = bytearray(os.urandom(1)) * (64 << 20)\nfor _ in range(4):\n if os.fork() == 0: wait()\n\
                      say('forked')\nwait()";
        let Some(setup) = python(setup, script) else { return };
        let mut guard = setup.start();
        guard.line("forked");
        // guard has looked, and looks again after the second.
        for _ in 0..2 {
            let look = guard.event("memory");
            let memory = look.get("memory").and_then(|memory| memory.strip_suffix('M')?.parse::<f64>().ok());
            assert!(memory.is_some_and(|memory| memory < 120.0), "{}", guard.transcript());
        }
        let status = guard.ask(&["status", "--json"]).out;
        assert!(status.contains(r#""run":1,"#), "{status}");
        assert!(!guard.events().iter().any(|event| event.name() == "memory-limit"), "{}", guard.transcript());
    }
}

#[test]
fn a_percentage_is_of_the_containers_limit_and_shared() {
    if common::pid1().is_none() {
        return;
    }
    let Some(python) = in_path("python3") else { return skipped("there is no python3") };
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("memory.max"), "209715200\n").expect("ours");
    let script = "import os,signal\nkept = bytearray(b'1') * (60 << 20)\nprint('ready', flush=True)\nsignal.pause()";
    for (limited, instances) in [(true, "2"), (true, "1"), (false, "1")] {
        if !limited {
            fs::write(directory.path().join("memory.max"), "max\n").expect("ours");
        }
        // In the namespace of this guard another directory is the root of the cgroups.
        let mount = format!("mount --bind {} /sys/fs/cgroup && exec \"$@\"", directory.path().display());
        let mut setup =
            common::pid1().expect("as before").env("GUARD_MAX_MEMORY", "50%").env("GUARD_STABLE_AFTER", "0s");
        setup = setup.env("GUARD_INSTANCES", instances).env("GUARD_HOLD", "off");
        setup = setup.program("/bin/sh").options(["-c", &mount, "sh", env!("CARGO_BIN_EXE_guard")]);
        let mut guard = setup.app([python.as_os_str(), "-c".as_ref(), script.as_ref()]).start();
        guard.line("ready");
        if !limited {
            assert_eq!(guard.event("no-memory-limit").get("max_memory"), Some("50%"));
        } else if instances == "2" {
            // 60 MiB are more than 25 % of 200 MiB.
            assert_eq!(guard.event("memory-limit").get("limit"), Some("50.0M"));
        } else {
            // 25 % of another limit.
            fs::write(directory.path().join("memory.max"), "104857600\n").expect("ours");
            assert_eq!(guard.event("memory-limit").get("limit"), Some("50.0M"), "read again at each look");
        }
    }
}

/// Its first run is ready, and takes memory at USR1. The others end at once and leave a process behind that takes two seconds.
const FAILING_RELOAD: &str = r"
import os, signal, socket
kept = []
signal.signal(signal.SIGUSR1, lambda *_: kept.append(bytearray(b'1') * (60 << 20)))
if os.environ['GUARD_RUN'] == '1':
    name = os.environ['NOTIFY_SOCKET'].replace('@', '\0')
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', name)
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork(): os._exit(3)
while True: signal.pause()
";

/// While what the new run of a reload has left behind is swept no run serves as the current one. The old one has its limit again
/// when it stays.
#[test]
fn a_run_that_stays_after_a_failed_reload_is_looked_at_again() {
    let Some(python) = in_path("python3") else { return skipped("there is no python3") };
    let setup = common::child().env("GUARD_MAX_MEMORY", "50M").env("GUARD_STABLE_AFTER", "0s");
    let setup = setup.env("GUARD_READY", "notify").app([python.as_os_str(), "-c".as_ref(), FAILING_RELOAD.as_ref()]);
    let mut guard = setup.start();
    guard.event("ready");
    // guard looks half a second after a start, and the sweep takes two.
    guard.ask(&["reload"]).no("not reloaded: the new run failed before it was ready; the old run stays");
    guard.signal(libc::SIGUSR1);
    assert_eq!(guard.event("memory-limit").get("run"), Some("1"), "{}", guard.transcript());
}

/// The first runs are ready, and one of them takes memory at USR1. The others never are.
const RELOAD_THAT_TAKES_LONG: &str = r"
import os, signal, socket
kept = []
def grow(*_):
    if os.environ['GUARD_INSTANCE'] == '1': kept.append(bytearray(b'1') * (60 << 20))
signal.signal(signal.SIGUSR1, grow)
if os.environ['GUARD_RUN'] == '1':
    name = os.environ['NOTIFY_SOCKET'].replace('@', '\0')
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', name)
print('up', os.environ['GUARD_INSTANCE'], os.environ['GUARD_RUN'], flush=True)
while True: signal.pause()
";

#[test]
fn a_run_that_waits_for_the_reload_of_another_instance_is_told_to_be_too_large_once() {
    let Some(python) = in_path("python3") else { return skipped("there is no python3") };
    let setup = common::child().env("GUARD_MAX_MEMORY", "50M").env("GUARD_STABLE_AFTER", "0s");
    let setup = setup.env("GUARD_INSTANCES", "2").env("GUARD_HOLD", "off").env("GUARD_SIGNAL_MAP", "USR2=reload");
    let setup = setup.env("GUARD_READY", "notify").env("GUARD_READY_TIMEOUT", "4s");
    let mut guard = setup.app([python.as_os_str(), "-c".as_ref(), RELOAD_THAT_TAKES_LONG.as_ref()]).start();
    guard.event("ready");
    guard.event("ready");
    guard.signal(libc::SIGUSR2);
    guard.line("up 0 2");
    guard.signal(libc::SIGUSR1);
    guard.event("memory-limit");
    guard.event("reload-failed");
    guard.event("restart-in-place");
    let told = guard.events().into_iter().filter(|event| event.name() == "memory-limit").count();
    assert_eq!(told, 1, "{}", guard.transcript());
}

#[test]
fn a_run_is_replaced_when_it_has_had_its_time() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_LIFETIME", "300ms").env("GUARD_MAX_RESTARTS", "1");
        let mut guard = setup.fixture("quit TERM 0 env serve").start();
        for run in 1..=4 {
            guard.line("ready");
            guard.line("got TERM");
            let exit = guard.event("exit");
            assert_eq!((exit.get("run"), exit.get("cause")), (Some(run.to_string().as_str()), Some("lifetime")));
        }
        guard.line("env GUARD_LAST_EXIT=lifetime");
        assert!(!guard.events().iter().any(|event| event.name() == "restart"), "{}", guard.transcript());
    }
}

#[test]
fn a_held_app_is_replaced_by_a_reload() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_LIFETIME", "500ms").env("GUARD_READY", "notify");
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup.env("GUARD_LISTEN", format!("unix:{}/socket", directory.path().display()));
        let mut guard = setup.fixture("tagged notify READY=1 serve").start();
        guard.line("0.1 ready");
        // The new run comes first.
        guard.line("0.2 ready");
        let reload = guard.event("reload");
        assert_eq!((reload.get("old"), reload.get("cause")), (Some("1"), Some("lifetime")));
        guard.event("reloaded");
    }
}

#[test]
fn why_a_run_ended_is_told() {
    for setup in everywhere() {
        let word = tempfile::NamedTempFile::new().expect("a file");
        let setup =
            setup.env("GUARD_TERMINATION_LOG", word.path()).env("GUARD_LIMIT_CORE", "0").env("GUARD_NOTIFY", "on");
        let setup = setup.env("GUARD_SIGNAL_MAP", "USR1=restart").env("GUARD_STOP_TIMEOUT", "2s");
        let mut guard = setup.fixture("env notify STATUS=full deaf serve").start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        let exit = guard.event("exit");
        assert_eq!(
            ["signal", "cause", "killed", "status", "core"].map(|key| exit.get(key)),
            [Some("SIGKILL"), Some("operator"), Some("deadline"), Some("full"), None]
        );
        guard.line("env GUARD_LAST_EXIT=deadline");
        let text = fs::read_to_string(word.path()).expect("the last word");
        assert!(text.starts_with("run 1 died of SIGKILL after 2"), "{text}");
        assert!(text.contains("s (operator), killed at the deadline, peak memory "), "{text}");
        assert!(text.trim_end().ends_with(", status \"full\""), "{text}");
    }
}

#[test]
fn a_command_that_is_gone_is_told_by_the_errnos_name() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let app = common::program(
            directory.path(),
            "app",
            "#!/bin/sh\necho last $GUARD_LAST_EXIT\nmv \"$0\" \"$0.off\"\nexit 1\n",
            0o755,
        );
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "300ms").env("GUARD_BACKOFF_MAX", "300ms");
        let mut guard = setup.app([&app]).start();
        guard.line("last");
        assert_eq!(guard.event("spawn-failed").get("errno"), Some("ENOENT"));
        fs::rename(app.with_extension("off"), &app).expect("ours");
        guard.line("last ENOENT");
    }
}

#[test]
fn without_restarts_the_limits_do_nothing_and_nonsense_is_an_error() {
    let setup =
        || common::child().env("GUARD_RESTART", "never").env("GUARD_MAX_LIFETIME", "1s").env("GUARD_MAX_MEMORY", "1K");
    let mut guard = setup().app(["sh", "-c", "sleep 1.5; exit 3"]).start();
    assert_eq!(guard.code(), 3);
    let warned = guard.events().into_iter().filter(|event| event.name() == "setting").count();
    assert_eq!(warned, 2, "{}", guard.transcript());
    for value in ["101%", "0%", "0", "much", "5.5%"] {
        let mut guard = common::child().env("GUARD_MAX_MEMORY", value).fixture("exit 0").start();
        assert_eq!(guard.code(), 125, "{value}");
    }
}
