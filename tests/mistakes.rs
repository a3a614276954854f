//! What people get wrong at first: guard names what was given, what is wrong with it, and the way out.

use crate::common::{self, Guard, child, pid1, port, program};

fn ended(guard: &mut Guard, code: i32) -> String {
    assert_eq!(guard.code(), code, "{}", guard.transcript());
    guard.transcript()
}

/// A command, what guard exits with, and what it says.
type Case<'a> = (&'a [&'a str], i32, &'a str);

#[test]
fn a_command_line_that_guard_cannot_read_has_the_nearest_one() {
    let cases: [Case; 10] = [
        (&["statu"], 125, "did you mean guard status?"),
        (&["chekc"], 125, "did you mean guard check?"),
        (&["help"], 125, "did you mean guard --help?"),
        (&["version"], 125, "did you mean guard --version?"),
        (&["--stop-timeout=3s", "check"], 125, "did you mean guard check?"),
        (&["--stop-timeout", "3s", "chekc"], 125, "did you mean guard check?"),
        (&["server", "--port", "80"], 125, "guard [OPTIONS] -- server --port 80"),
        (&["--stop-timout", "3s", "--", "true"], 125, "the nearest is --stop-timeout"),
        (&["--", ""], 125, "no command after --"),
        (&["--", "", "argument"], 125, "no command after --"),
    ];
    for (words, code, says) in cases {
        let mut guard = child().options(words.iter().copied()).start();
        let said = ended(&mut guard, code);
        assert!(said.contains(says), "{words:?}: {said}");
    }
    let mut guard = child().options(["server"]).start();
    assert!(!ended(&mut guard, 125).contains("did you mean"), "an app is no slip of the finger");
}

#[test]
fn a_bare_number_of_a_thousand_is_doubted_wherever_a_duration_is_taken() {
    let doubt = "20000 seconds (5h33m20s); did you mean 20000ms (20s)?";
    // In a mount namespace of its own, where no other guard can be asked to stop.
    if pid1().is_none() {
        return;
    }
    for (words, count) in [
        (&["check", "--stop-timeout", "20000"][..], 1),
        (&["check", "--health-timeout=20000"], 1),
        (&["--stop-timeout", "20000", "--", "true"], 1),
        (&["stop", "--timeout", "20000"], 1),
        (&["scale", "2", "--timeout=20000"], 1),
        (&["status", "--timeout", "20000"], 1),
        (&["probe", "http://127.0.0.1:1/", "--timeout", "20000"], 1),
        (&["stop", "--timeout", "999"], 0),
        (&["probe", "http://127.0.0.1:1/", "--timeout", "20000ms"], 0),
    ] {
        let setup = pid1().expect("it was there").env("GUARD_LOG", "warn");
        let mut guard = setup.options(words.iter().copied()).start();
        guard.code();
        assert_eq!(guard.transcript().matches(doubt).count(), count, "{words:?}: {}", guard.transcript());
    }
}

/// An outer guard says its stop timeout in seconds, so an inner one doubts nothing.
#[test]
fn a_stop_timeout_that_another_guard_has_handed_down_is_in_seconds() {
    let inner = env!("CARGO_BIN_EXE_guard");
    let mut guard = child().env("GUARD_STOP_TIMEOUT", "30m").app([inner, "--", "true"]).start();
    let said = ended(&mut guard, 0);
    assert!(said.contains("stop_timeout=30m") && !said.contains("did you mean"), "{said}");
}

#[test]
fn names_that_guard_hands_to_apps_are_no_settings() {
    for (name, nearest) in [("GUARD_INSTANCE", "GUARD_INSTANCES"), ("GUARD_RESTARTS", "GUARD_RESTART")] {
        let mut guard = child().env(name, "2").app(["true"]).start();
        let said = ended(&mut guard, 0);
        assert!(said.contains(&format!("{name} is no variable of guard's; the nearest is {nearest}")), "{said}");
    }
    // Below another guard they are that one's.
    let inner = env!("CARGO_BIN_EXE_guard");
    let mut guard = child().app([inner, "--", inner, "--", "true"]).start();
    let said = ended(&mut guard, 0);
    assert!(!said.contains("no variable"), "{said}");
}

#[test]
fn what_may_come_later_is_a_note() {
    for (name, value, note) in [
        ("GUARD_ON_CHANGE", "/no/such/file=HUP", "GUARD_ON_CHANGE=/no/such/file: nothing is there yet"),
        ("GUARD_ENV_FILES", "SECRET", "GUARD_ENV_FILES=SECRET: neither SECRET_FILE nor SECRET is set"),
    ] {
        let mut guard = child().env(name, value).options(["check"]).start();
        let said = ended(&mut guard, 0);
        assert!(said.contains(&format!("note: {note}")), "{said}");
    }
    let mut guard = child().env("GUARD_ENV_FILES", "SECRET").env("SECRET", "1").options(["check"]).start();
    assert!(!ended(&mut guard, 0).contains("note: "), "{}", guard.transcript());
    let mut guard = child().env("GUARD_TERMINATION_LOG", "/no/such/log").app(["true"]).start();
    let event = guard.event("termination-log");
    assert!(event.line.contains("/no/such/log"), "{}", event.line);
    assert_eq!(guard.code(), 0);
}

#[test]
fn a_memory_limit_without_a_unit_is_doubted() {
    for (value, doubted) in [("450", true), ("1048576", false), ("450M", false), ("100K", false)] {
        let mut guard = child().env("GUARD_MAX_MEMORY", value).options(["check"]).start();
        let said = ended(&mut guard, 0);
        let doubt = format!("GUARD_MAX_MEMORY={value}: {value} bytes; did you mean {value}M?");
        assert_eq!(said.contains(&doubt), doubted, "{said}");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_told_with_the_way_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    program(at, "windows", "#!/bin/sh\r\necho started\r\n", 0o755);
    program(at, "no-interpreter", "#! /no/such/interpreter -x\n", 0o755);
    program(at, "not-executable", "#!/bin/sh\necho started\n", 0o644);
    let path = at.display().to_string();
    let interpreter = "is there, but not the interpreter /no/such/interpreter that it names";
    let cases: [Case; 11] = [
        (
            &["windows"],
            127,
            "windows is there, but not the interpreter /bin/sh that it names; its lines end in CRLF: turn them into LF",
        ),
        (&["./windows"], 127, "its lines end in CRLF"),
        (&["no-interpreter"], 127, interpreter),
        (&["not-executable"], 126, "/not-executable may not be executed; chmod +x it"),
        (&["./"], 126, "is a directory"),
        // Who reads the line has read the path.
        (&["/etc"], 126, "it is a directory"),
        (&["--log", "debug"], 127, "no such file in PATH; options of guard's come before --"),
        (&["no-such-program", "x"], 127, "no such file in PATH; install it, or write its whole path"),
        (&["./no-such-program"], 127, "no such file; install it, or write its right path"),
        (&["node server.js"], 127, "no such file; these are several words: write each by itself, or use sh -c"),
        (&["cd", "/app"], 127, "no such file; it is a shell's own: use sh -c"),
    ];
    for (words, code, says) in cases {
        let setup = || child().env("PATH", format!("{path}:/usr/bin:/bin")).directory(at).app(words.iter().copied());
        let mut guard = setup().start();
        let said = ended(&mut guard, code);
        let error = guard.event("spawn-failed");
        assert!(error.get("error").is_some_and(|error| error.contains(says)), "{words:?}: {said}");
        // It is known before, too.
        let mut check = setup().options(["check"]).start();
        let said = ended(&mut check, 0);
        assert!(said.contains("warning: the command: ") && said.contains(says), "{words:?}: {said}");
    }
}

/// GUARD_HOLD names a port, and the app listens on another one.
#[test]
fn a_held_port_that_the_app_does_not_bind_is_told() {
    let [held, bound] = [(); 2].map(|()| port::Port::reserve().number);
    let setup = child().env("GUARD_HOLD", held.to_string()).env("GUARD_MAX_RESTARTS", "1").env("GUARD_READY", "exec");
    let mut guard = setup.fixture(&format!("listen {bound} exit 1")).start();
    let event = guard.event("not-held");
    if event.get("msg").is_some_and(|msg| msg.contains("the app binds as ever")) {
        return common::skipped("no filter can be had here");
    }
    assert_eq!(event.get("address"), Some(format!("127.0.0.1:{bound}").as_str()));
    assert!(event.line.contains("GUARD_HOLD names other ports"), "{}", event.line);
    assert_eq!(guard.code(), 1);
    assert_eq!(guard.transcript().matches("GUARD_HOLD names other ports").count(), 1, "once is enough");
}
