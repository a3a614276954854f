//! GUARD_MAX_MEMORY in memory cgroups with real limits, and with servers that share memory among their processes.

use crate::common::cgroup::Cgroup;
use crate::common::{self, Event, Guard, Setup, begin, descendants, eventually, everywhere, in_path, skipped};
use std::fs;
use std::path::Path;
use std::process::Command;

const MEBIBYTE: u64 = 1 << 20;

/// An app in Python, which can take memory for good.
fn python(setup: Setup, script: &str) -> Option<Setup> {
    let Some(python) = in_path("python3") else {
        skipped("there is no python3");
        return None;
    };
    let head = "import os, signal, sys, time\ndef say(text): print(text, flush=True)\n\
                kept = []\ndef take(mebibytes): kept.append(bytearray(b'1') * (mebibytes << 20))\n\
                def end(*_):\n say('ends')\n os._exit(0)\n\
                signal.signal(signal.SIGTERM, end)\nrun = os.environ['GUARD_RUN']\n";
    Some(setup.app([python.into_os_string(), "-c".into(), format!("{head}{script}").into()]))
}

/// A size of the log in MiB.
fn mebibytes(event: &Event, key: &str) -> f64 {
    let text = event.get(key).unwrap_or_default();
    let number = |unit| text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
    number("M").or_else(|| number("K").map(|kibibytes| kibibytes / 1024.0)).unwrap_or_else(|| panic!("{}", event.line))
}

/// What guard finds next of a run that is above the least.
fn look(guard: &mut Guard, least: f64) -> Event {
    loop {
        let look = guard.event("memory");
        if mebibytes(&look, "memory") > least {
            return look;
        }
    }
}

fn said(guard: &Guard, name: &str) -> bool {
    guard.events().iter().any(|event| event.name() == name)
}

/// A pod may be resized in place.
#[test]
fn a_percentage_counts_from_the_first_limit_on_that_the_cgroup_gets() {
    // What the kernel says of a cgroup without a limit.
    const NONE: u64 = i64::MAX as u64 & !4095;
    let (Some(setup), Some(cgroup)) = (common::pid1(), Cgroup::new(NONE)) else { return };
    let setup = cgroup.setup(setup).env("GUARD_MAX_MEMORY", "50%").env("GUARD_STABLE_AFTER", "0s");
    let Some(setup) = python(setup, "take(64)\nsay('took')\nsignal.pause()") else { return };
    let mut guard = setup.start();
    guard.event("no-memory-limit");
    guard.line("took");
    assert!(cgroup.limit(100 * MEBIBYTE));
    assert_eq!(guard.event("memory-limit").get("limit"), Some("50.0M"));
}

#[test]
fn a_percentage_is_of_the_cgroups_limit_which_may_change() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(96 * MEBIBYTE) else { return };
        let setup = cgroup.setup(setup).env("GUARD_MAX_MEMORY", "50%").env("GUARD_STABLE_AFTER", "0s");
        let script = "take(64)\nsay('took')\nsignal.pause()";
        let Some(setup) = python(setup.env("GUARD_LOG", "debug"), script) else { return };
        let mut guard = setup.start();
        // It may end before it can say that it took so much.
        assert_eq!(guard.event("memory-limit").get("limit"), Some("48.0M"));
        guard.line("ends");
        assert!(cgroup.limit(400 * MEBIBYTE));
        guard.line("took");
        let look = look(&mut guard, 60.0);
        assert_eq!((look.get("run"), look.get("limit")), (Some("2"), Some("200.0M")), "{}", guard.transcript());
        // As the run stays, there is nothing to wait for but another look, by the limit of that time.
        assert!(cgroup.limit(100 * MEBIBYTE));
        let exceeded = guard.event("memory-limit");
        assert_eq!((exceeded.get("run"), exceeded.get("limit")), (Some("2"), Some("50.0M")));
        guard.line("ends");
        assert!(cgroup.limit(400 * MEBIBYTE));
        guard.signal(libc::SIGTERM);
        guard.code();
        assert!(guard.events().iter().all(|event| event.get("cause") != Some("oom")), "{}", guard.transcript());
    }
}

/// An app that is at rest, and then grows by up to 50 MiB a second.
#[test]
fn a_run_that_begins_to_grow_is_restarted_before_the_kernel_kills_it() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(160 * MEBIBYTE) else { return };
        let setup = cgroup.setup(setup).env("GUARD_MAX_MEMORY", "70%").env("GUARD_STABLE_AFTER", "0s");
        let grow = "if run == '1':
 signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
 say('rests')
 signal.sigwait([signal.SIGUSR1])
 while True:
  take(1)
  time.sleep(0.02)
signal.pause()";
        let Some(setup) = python(setup.env("GUARD_LOG", "debug"), grow) else { return };
        let mut guard = setup.start();
        guard.line("rests");
        // guard has seen that it rests, and looks again only after a while.
        (0..2).for_each(|_| _ = guard.event("memory"));
        guard.signal(nix::libc::SIGUSR1);
        let exit = guard.event("exit");
        assert_eq!((exit.get("code"), exit.get("cause")), (Some("0"), Some("memory-limit")), "{}", guard.transcript());
        assert_eq!(guard.event("spawn").get("run"), Some("2"));
    }
}

/// A process below the main process that shares neither its session nor its environment.
#[test]
fn what_lives_below_the_main_process_counts_whatever_its_environment_is() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_MAX_MEMORY", "64M").env("GUARD_STABLE_AFTER", "0s");
        let below = "if run == '1':
 if os.fork() == 0:
  os.setsid()
  os.execve(sys.executable, [sys.executable, '-c', 'kept = b\"1\" * (96 << 20); import signal; signal.pause()'], {})
signal.pause()";
        let Some(setup) = python(setup, below) else { return };
        let mut guard = setup.start();
        let exit = guard.event("exit");
        assert_eq!(exit.get("cause"), Some("memory-limit"), "{}", guard.transcript());
        assert_eq!(guard.event("spawn").get("run"), Some("2"));
    }
}

#[test]
fn a_limit_of_the_container_that_trips_at_once_again_and_again_gives_up() {
    for setup in everywhere() {
        let Some(cgroup) = Cgroup::new(128 * MEBIBYTE) else { return };
        let setup = cgroup.setup(setup).env("GUARD_MAX_MEMORY", "25%").env("GUARD_MAX_RESTARTS", "2");
        let Some(setup) = python(setup.env("GUARD_BACKOFF_INITIAL", "10ms"), "take(48)\nsignal.pause()") else {
            return;
        };
        let mut guard = setup.start();
        assert_eq!(guard.code(), 1, "{}", guard.transcript());
        let failing = guard.events().into_iter().filter(|event| event.get("cause") == Some("memory-limit"));
        assert_eq!(failing.filter(|event| event.name() == "failing").count(), 3, "{}", guard.transcript());
        assert!(said(&guard, "give-up"));
    }
}

/// The resident sets of all below guard, in bytes: what forks share counts once for each.
fn resident_sets(guard: &Guard) -> u64 {
    let pages = |pid: i32| -> Option<u64> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split(' ').nth(1)?.parse().ok()
    };
    descendants(guard.pid()).into_iter().filter_map(pages).sum::<u64>() * 4096
}

/// Waits until the resident sets are above the limit, and guard has looked twice since then and found the run to be below it.
fn is_below_its_limit(guard: &mut Guard, limit: u64) {
    eventually("resident sets above the limit", || (resident_sets(guard) > limit * MEBIBYTE).then_some(()));
    // What was said before that does not count.
    let before = guard.events().into_iter().filter(|event| event.name() == "memory").count();
    while guard.events().into_iter().filter(|event| event.name() == "memory").count() < before + 3 {
        guard.event("memory");
    }
    assert!(resident_sets(guard) > limit * MEBIBYTE, "they are above it still");
    assert!(!said(guard, "memory-limit") && !said(guard, "exit"), "{}", guard.transcript());
}

#[test]
fn redis_while_it_saves_is_left_alone() {
    if in_path("redis-server").is_none() || in_path("redis-cli").is_none() {
        return skipped("there is no redis-server");
    }
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("socket");
        let path = |path: &Path| path.display().to_string();
        let line =
            ["redis-server", "--port", "0", "--save", "", "--enable-debug-command", "yes", "--rdbcompression", "no"];
        let own = ["--unixsocket".to_owned(), path(&socket), "--dir".to_owned(), path(directory.path())];
        let setup = setup.env("GUARD_MAX_MEMORY", "150M").env("GUARD_LOG", "debug").env("GUARD_STABLE_AFTER", "0s");
        let setup = setup.env("GUARD_HEALTH_CHECK", format!("exec:redis-cli -s {} ping", path(&socket)));
        let mut guard = setup.app(line.map(str::to_owned).into_iter().chain(own)).start();
        guard.event("ready");
        let redis = |words: &[&str]| {
            let answer = common::Answer::of(begin(Command::new("redis-cli").arg("-s").arg(&socket).args(words)));
            assert_eq!(answer.code, 0, "{words:?} {answer:?}");
            answer.out
        };
        redis(&["debug", "populate", "200000", "key", "400"]);
        // Its child takes twenty seconds, and touches nearly all that the two share.
        redis(&["config", "set", "rdb-key-save-delay", "100"]);
        redis(&["bgsave"]);
        is_below_its_limit(&mut guard, 150);
        assert!(redis(&["info", "persistence"]).contains("rdb_bgsave_in_progress:1"), "{}", guard.transcript());
    }
}

#[test]
fn workers_of_gunicorn_that_were_forked_after_the_app_was_loaded_are_left_alone() {
    if in_path("gunicorn").is_none() {
        return skipped("there is no gunicorn");
    }
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let app =
            "table = bytearray(b'1') * (80 << 20)\ndef app(environ, start):\n start('200 OK', [])\n return [b'']\n";
        fs::write(directory.path().join("big.py"), app).expect("ours");
        let socket = format!("unix:{}/socket", directory.path().display());
        let setup = setup.env("GUARD_MAX_MEMORY", "220M").env("GUARD_LOG", "debug").env("GUARD_STABLE_AFTER", "0s");
        let setup = setup.env("GUARD_READY", "notify").directory(directory.path());
        let mut guard = setup.app(["gunicorn", "--preload", "--workers", "4", "--bind", &socket, "big:app"]).start();
        guard.event("ready");
        is_below_its_limit(&mut guard, 220);
    }
}
