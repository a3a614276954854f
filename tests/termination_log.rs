//! The termination log: a short file that says why a container ended.

use crate::common::{child, everywhere, fixture, pid1};
use std::fs;
use std::path::PathBuf;

struct Word {
    directory: tempfile::TempDir,
}

impl Word {
    fn new() -> Word {
        Word { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("termination-log")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }
}

#[test]
fn a_failure_is_written_down_before_the_next_run() {
    for setup in everywhere() {
        let word = Word::new();
        let setup = setup.env("GUARD_TERMINATION_LOG", word.path());
        let mut guard = setup.fixture("before-run 2 die SEGV quit TERM 0 serve").start();
        guard.line("ready");
        // An OOM kill of the whole container would come without a warning.
        assert!(word.text().contains("SIGSEGV"), "{}", word.text());
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn the_last_word_replaces_what_was_there() {
    let word = Word::new();
    fs::write(word.path(), "from an earlier container\n".repeat(100)).unwrap();
    let setup = child().env("GUARD_TERMINATION_LOG", word.path()).env("GUARD_RESTART", "never");
    let mut guard = setup.fixture("exit 7").start();
    assert_eq!(guard.code(), 7);
    let text = word.text();
    assert!(text.contains('7') && !text.contains("earlier"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_link_to_a_file_is_not_followed() {
    for setup in everywhere() {
        let word = Word::new();
        let other = word.directory.path().join("other");
        fs::write(&other, "untouched").unwrap();
        std::os::unix::fs::symlink(&other, word.path()).unwrap();
        let mut guard = setup.env("GUARD_TERMINATION_LOG", word.path()).fixture("exit 0").start();
        assert_eq!(guard.code(), 0);
        assert!(guard.events().iter().any(|event| event.name() == "termination-log"), "{}", guard.transcript());
        assert_eq!(fs::read_to_string(other).unwrap(), "untouched");
    }
}

#[test]
fn what_cannot_be_written_is_told_once() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_TERMINATION_LOG", "/dev/full").env("GUARD_MAX_RESTARTS", "1");
        let mut guard = setup.env("GUARD_BACKOFF_INITIAL", "0").fixture("exit 7").start();
        assert_eq!(guard.code(), 7);
        let told: Vec<_> = guard.events().into_iter().filter(|event| event.name() == "termination-log").collect();
        assert_eq!(told.len(), 1, "{}", guard.transcript());
        assert!(told[0].get("error").is_some_and(|error| error.contains("No space left")), "{}", told[0].line);
    }
}

#[test]
fn a_device_is_as_good() {
    let mut guard =
        child().env("GUARD_TERMINATION_LOG", "/dev/null").env("GUARD_RESTART", "never").fixture("exit 7").start();
    assert_eq!(guard.code(), 7);
    assert!(guard.events().iter().all(|event| event.name() != "termination-log"), "{}", guard.transcript());
}

#[test]
fn the_kill_at_the_stop_timeout_is_the_last_word() {
    for setup in everywhere() {
        let word = Word::new();
        let setup = setup.env("GUARD_TERMINATION_LOG", word.path()).env("GUARD_STOP_TIMEOUT", "200ms");
        let mut guard = setup.fixture("deaf").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137);
        let text = word.text();
        assert!(text.contains("137") && text.contains("GUARD_STOP_TIMEOUT=200ms"), "{text}");
    }
}

#[test]
fn a_command_that_is_not_there_is_the_last_word() {
    let word = Word::new();
    let mut guard = child().env("GUARD_TERMINATION_LOG", word.path()).app(["/no/such/app"]).start();
    assert_eq!(guard.code(), 127);
    let text = word.text();
    assert!(text.contains("/no/such/app") && text.contains("127"), "{text}");
}

/// What people look for first in a container that does not start.
#[test]
fn a_bad_configuration_is_the_last_word() {
    let word = Word::new();
    if let Some(setup) = pid1() {
        let setup = setup.env("GUARD_TERMINATION_LOG", word.path()).env("GUARD_STOP_TIMEOUT", "x");
        assert_eq!(setup.env("GUARD_RESTART", "y").fixture("exit 0").start().code(), 125);
        let text = word.text();
        assert!(text.starts_with("exit code 125: "), "{text}");
        assert!(text.contains("GUARD_STOP_TIMEOUT=x") && text.contains("GUARD_RESTART=y"), "{text}");
    }
}

/// A mistyped command in an exec session would run as an app, and has no right to the word of the guard that runs.
#[test]
fn who_is_not_pid_1_has_no_word_before_it_runs() {
    let word = Word::new();
    fs::write(word.path(), "run 1 died of SIGSEGV\n").unwrap();
    let setup = child().env("GUARD_TERMINATION_LOG", word.path()).env("GUARD_STOP_TIMEOUT", "x");
    assert_eq!(setup.fixture("exit 0").start().code(), 125);
    assert_eq!(word.text(), "run 1 died of SIGSEGV\n");
}

/// Below `docker run --init` the guard has the word though it is not PID 1, and a nested guard has not.
#[test]
fn the_word_is_the_first_guards_and_no_other_writes_over_it() {
    for setup in everywhere() {
        let word = Word::new();
        // The app is a guard of its own, in the same container.
        let inner = [env!("CARGO_BIN_EXE_guard"), "--termination-log"].map(Into::into);
        let app = [fixture().as_os_str().to_owned(), "before-run".into(), "2".into(), "die".into(), "SEGV".into()];
        let line = inner
            .into_iter()
            .chain([word.path().into(), "--log=debug".into(), "--max-restarts=1".into(), "--".into()])
            .chain(app);
        let setup =
            setup.env("GUARD_TERMINATION_LOG", word.path()).env("GUARD_LOG", "debug").env("GUARD_RESTART", "never");
        let mut guard = setup.app(line).start();
        let skipped = guard.event("termination-log");
        assert_eq!(skipped.get("msg"), Some("another guard writes it"), "{}", skipped.line);
        assert_eq!(word.text(), "", "the first guard has said nothing yet, and emptied it");
        guard.event("restart");
        guard.signal(libc::SIGTERM);
        guard.code();
        assert!(word.text().contains("stopped by SIGTERM"), "{}", word.text());
    }
}

/// The client of a container that guard runs in has no word in it.
#[test]
fn a_check_leaves_it_alone() {
    let word = Word::new();
    fs::write(word.path(), "run 1 died of SIGSEGV\n").unwrap();
    for value in ["5s", "x"] {
        let setup = child().env("GUARD_TERMINATION_LOG", word.path()).env("GUARD_STOP_TIMEOUT", value);
        setup.options(["check"]).start().status();
        assert_eq!(word.text(), "run 1 died of SIGSEGV\n");
    }
}

#[test]
fn it_is_never_longer_than_kubernetes_reads() {
    let word = Word::new();
    let command = format!("/{}", "ä".repeat(4000));
    let mut guard = child().env("GUARD_TERMINATION_LOG", word.path()).app([command]).start();
    assert!([126, 127].contains(&guard.code()));
    let bytes = fs::read(word.path()).unwrap();
    assert!(!bytes.is_empty() && bytes.len() <= 4096, "{} bytes", bytes.len());
    String::from_utf8(bytes).expect("no character is cut in two");
}

#[test]
fn a_file_that_cannot_be_written_is_no_obstacle() {
    for path in ["/no/such/directory/termination-log", "/dev/full", "/proc/self/status", "/"] {
        let mut guard = child().env("GUARD_TERMINATION_LOG", path).fixture("before-run 2 exit 1 exit 0").start();
        assert_eq!(guard.code(), 0, "{path}");
        assert_eq!(guard.events().first().map(|event| event.name()), Some("start"), "{path}");
    }
}

#[test]
fn a_fifo_without_a_reader_is_not_waited_for() {
    let word = Word::new();
    nix::unistd::mkfifo(&word.path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let setup = child().env("GUARD_TERMINATION_LOG", word.path()).env("GUARD_RESTART", "never");
    assert_eq!(setup.fixture("exit 5").start().code(), 5);
}

#[test]
fn the_app_does_not_inherit_it() {
    let word = Word::new();
    let mut guard = child().env("GUARD_TERMINATION_LOG", word.path()).fixture("env fds exit 0").start();
    let environment = guard.lines_until("end");
    assert!(!environment.iter().any(|line| line.contains("TERMINATION_LOG")), "{environment:?}");
    let descriptors = guard.lines_until("end");
    assert!(!descriptors.iter().any(|line| line.contains("termination-log")), "{descriptors:?}");
    assert_eq!(guard.code(), 0);
}
