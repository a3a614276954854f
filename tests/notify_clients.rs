//! Clients of sd_notify(3) that guard's authors did not write.

#![allow(clippy::disallowed_methods, reason = "the clock and the threads of the tests")]

use crate::common::{self, DEADLINE, Guard, Setup, everywhere, in_path, skipped};
use libsystemd::daemon::{NotifyState, notify, watchdog_enabled};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;

fn setups() -> impl Iterator<Item = Setup> {
    everywhere().into_iter().map(|setup| setup.env("GUARD_READY", "notify").env("GUARD_RESTART", "never"))
}

/// Waits until the run is ready, and has the words in its status.
fn ready(guard: &mut Guard, words: &str) {
    guard.event("ready");
    let status = common::eventually("the status", || {
        let status = guard.ask(&["status"]).out;
        status.contains(words).then_some(status)
    });
    assert!(status.contains("ready"), "{status}");
}

#[test]
fn systemd_notify() {
    if in_path("systemd-notify").is_none() {
        return skipped("there is no systemd-notify");
    }
    for setup in setups() {
        // It waits for guard's answer to a barrier.
        let app = "systemd-notify --ready --status='at work' && echo told && exec sleep 1000";
        let mut guard = setup.app(["sh", "-c", app]).start();
        guard.line("told");
        ready(&mut guard, "at work");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn systemd_notify_for_a_daemon() {
    if in_path("systemd-notify").is_none() {
        return skipped("there is no systemd-notify");
    }
    for setup in setups() {
        let launcher = "$FIXTURE as daemon quit TERM 5 serve & exec systemd-notify --ready --status=launched --pid=$!";
        let mut guard = setup.env("FIXTURE", common::fixture()).app(["sh", "-c", launcher]).start();
        guard.event("main-process");
        guard.line("daemon ready");
        assert!(guard.ask(&["status"]).out.contains("launched"));
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 5);
    }
}

#[test]
fn sdnotify_of_python() {
    let python = "/usr/bin/python3";
    let app = "import sdnotify, signal\n\
        n = sdnotify.SystemdNotifier(debug=True)\n\
        n.notify('READY=1')\n\
        n.notify('STATUS=speaks Python')\n\
        signal.sigwait([signal.SIGTERM])\n\
        n.notify('STOPPING=1')\n";
    if !has("/usr/bin/python3", "import sdnotify") {
        return;
    }
    for setup in setups() {
        let mask = format!("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n{app}");
        let mut guard = setup.app([python, "-c", &mask]).start();
        ready(&mut guard, "speaks Python");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

/// The app of the next test: this test, executed by guard.
#[test]
#[ignore = "runs below guard alone"]
fn as_an_app() {
    let say = |states: &[NotifyState]| notify(false, states).expect("a socket");
    assert!(say(&[NotifyState::Status("speaks Rust".to_owned()), NotifyState::Ready]));
    while watchdog_enabled(false).is_some() {
        say(&[NotifyState::Watchdog]);
        thread::yield_now();
    }
}

#[test]
fn libsystemd_of_rust() {
    for setup in setups() {
        let own = std::env::current_exe().expect("a program has a path");
        let words = ["--ignored", "--exact", "notify_clients::as_an_app"].map(Into::into);
        let app = [own.into_os_string()].into_iter().chain(words);
        let mut guard = setup.env("GUARD_WATCHDOG", "2s").app(app).start();
        ready(&mut guard, "speaks Rust");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        assert!(!guard.events().iter().any(|event| event.name() == "failing"), "{}", guard.transcript());
    }
}

/// The app of the next test: this test, executed by guard.
#[test]
#[ignore = "runs below guard alone"]
fn as_another_app() {
    let status = sd_notify::NotifyState::Status("speaks Rust too");
    sd_notify::notify(&[status, sd_notify::NotifyState::Ready]).expect("a socket");
    loop {
        thread::park();
    }
}

/// Version 0.5 of it takes the variable for a path, whatever it begins with.
#[test]
fn sd_notify_of_rust() {
    for setup in setups() {
        let own = std::env::current_exe().expect("a program has a path");
        let words = ["--ignored", "--exact", "notify_clients::as_another_app"].map(Into::into);
        let mut guard = setup.app([own.into_os_string()].into_iter().chain(words)).start();
        ready(&mut guard, "speaks Rust too");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// Whether a line of Debian's Python or Ruby is done without an error.
fn has(program: &str, line: &str) -> bool {
    let option = if program.ends_with("ruby") { "-e" } else { "-c" };
    let mut command = std::process::Command::new(program);
    command.args([option, line]).stderr(std::process::Stdio::null());
    let has = Path::new(program).exists() && common::spawn(&mut command).wait().is_ok_and(|status| status.success());
    if !has {
        skipped(&format!("{program} cannot {line}"));
    }
    has
}

#[test]
fn systemd_of_python() {
    let python = "/usr/bin/python3";
    if !has(python, "import systemd.daemon") {
        return;
    }
    let app = "import signal, systemd.daemon\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n\
        assert systemd.daemon.notify('READY=1\\nSTATUS=speaks for systemd')\n\
        signal.sigwait([signal.SIGTERM])\n\
        assert systemd.daemon.notify('STOPPING=1')\n";
    for setup in setups() {
        let mut guard = setup.app([python, "-c", app]).start();
        ready(&mut guard, "speaks for systemd");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

/// A Rack application, and the options of Puma that serve it on any port.
fn puma(directory: &Path) -> [&'static str; 6] {
    std::fs::write(directory.join("config.ru"), "run ->(_) { [200, {}, ['done']] }\n").expect("a file");
    ["/usr/bin/puma", "--environment", "none", "--bind", "tcp://127.0.0.1:0", "config.ru"]
}

const PUMA: &str = "require 'puma'; require 'sd_notify'";

/// Puma 6 to 8 have a copy of sd_notify of their own, word for word; Debian's Puma 5 has it beside it. It takes the
/// variable for a path, and Puma does not start where there is no such file.
#[test]
fn puma_with_its_sd_notify() {
    if !has("/usr/bin/ruby", PUMA) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    for setup in setups() {
        let setup = setup.directory(directory.path()).env("GUARD_WATCHDOG", "4s");
        let mut guard = setup.app(puma(directory.path())).start();
        guard.event("ready");
        guard.line("Use Ctrl-C to stop");
        guard.signal(libc::SIGTERM);
        guard.line("- Gracefully stopping, waiting for requests to finish");
        assert_eq!(guard.code(), 143);
        assert!(!guard.events().iter().any(|event| event.name() == "failing"), "{}", guard.transcript());
    }
}

#[test]
fn puma_behind_guards_defaults() {
    if !has("/usr/bin/ruby", PUMA) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    for setup in everywhere() {
        let mut guard = setup.directory(directory.path()).app(puma(directory.path())).start();
        guard.line("Use Ctrl-C to stop");
        guard.signal(libc::SIGTERM);
        guard.line("- Gracefully stopping, waiting for requests to finish");
        assert_eq!(guard.code(), 143);
        assert!(!guard.out().iter().any(|line| line.contains("systemd")), "{}", guard.transcript());
    }
}

/// Debian's, or one of another Python's.
fn gunicorn() -> Option<PathBuf> {
    let gunicorn = in_path("gunicorn");
    if gunicorn.is_none() {
        skipped("there is no gunicorn");
    }
    gunicorn
}

#[test]
fn gunicorn_with_a_request_in_flight() {
    let Some(gunicorn) = gunicorn() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    // The request is in flight until somebody writes to the pipe.
    let app = "import sys\n\
        def app(environ, start_response):\n\
        \x20   print('begun', flush=True)\n\
        \x20   open('go').read()\n\
        \x20   start_response('200 OK', [('Content-Length', '4')])\n\
        \x20   return [b'done']\n";
    std::fs::write(directory.path().join("slow.py"), app).expect("a file");
    nix::unistd::mkfifo(&directory.path().join("go"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for setup in setups() {
        let setup = setup.directory(directory.path()).env("HOME", directory.path());
        let words = ["--bind", "127.0.0.1:0", "slow:app"].map(Into::into);
        let mut guard = setup.app([gunicorn.clone().into_os_string()].into_iter().chain(words)).start();
        let line = guard.log_line("the address", |line| line.contains("Listening at: http://"));
        let address = line.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
        let mut stream = TcpStream::connect(address).expect("it listens");
        ready(&mut guard, "Gunicorn arbiter booted");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        guard.line("begun");
        guard.signal(libc::SIGTERM);
        guard.event("stop-signal");
        std::fs::write(directory.path().join("go"), "").expect("the request waits for it");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer}");
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn redis_as_debian_builds_it() {
    if in_path("redis-server").is_none() {
        return skipped("there is no redis-server");
    }
    let directory = tempfile::tempdir().expect("a directory");
    for setup in setups() {
        let words = "redis-server --supervised systemd --port 0 --unixsocket ./socket --save --dir .";
        let mut guard = setup.directory(directory.path()).app(words.split(' ')).start();
        ready(&mut guard, "Ready to accept connections");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}
