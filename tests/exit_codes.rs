//! What guard exits with, row by row of docs/exit-codes.md.

use crate::common::{Setup, child, everywhere, fixture_at, pid1, program};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

/// Runs the fixture until guard has ended, and gives guard's exit code.
fn code(setup: Setup, words: &str) -> i32 {
    setup.fixture(words).start().code()
}

#[test]
fn the_apps_own_code() {
    for own in [0, 1, 42, 125, 126, 127, 255] {
        for setup in everywhere() {
            assert_eq!(code(setup.env("GUARD_RESTART", "never"), &format!("exit {own}")), own);
        }
    }
}

#[test]
fn success_is_not_restarted_by_default() {
    for setup in everywhere() {
        let mut guard = setup.fixture("say once exit 0").start();
        assert_eq!(guard.code(), 0);
        assert_eq!(guard.out(), ["once"]);
    }
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    for signal in [libc::SIGHUP, libc::SIGABRT, libc::SIGKILL, libc::SIGSEGV, libc::SIGPIPE, libc::SIGTERM] {
        for setup in everywhere() {
            assert_eq!(code(setup.env("GUARD_RESTART", "never"), &format!("die {signal}")), 128 + signal);
        }
    }
}

/// The C libraries keep 32 and 33 to themselves, and wait wrappers that know no real-time signal wait for ever.
#[test]
fn death_by_a_real_time_signal_is_128_and_its_number() {
    for signal in [32, 33, 34, 35, 50, 64] {
        for setup in everywhere() {
            assert_eq!(code(setup.env("GUARD_RESTART", "never"), &format!("die {signal}")), 128 + signal);
        }
    }
}

#[test]
fn after_a_stop_the_apps_own_code() {
    for own in [0, 3, 143] {
        for setup in everywhere() {
            let mut guard = setup.fixture(&format!("quit TERM {own} serve")).start();
            guard.line("ready");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), own);
            assert_eq!(guard.out(), ["ready", "got TERM"]);
        }
    }
}

#[test]
fn after_a_stop_the_signal_that_the_app_died_of() {
    for (signal, name) in [(libc::SIGTERM, "TERM"), (libc::SIGINT, "INT")] {
        for setup in everywhere() {
            let mut guard = setup.fixture(&format!("default {name} serve")).start();
            guard.line("ready");
            guard.signal(signal);
            assert_eq!(guard.code(), 128 + signal);
        }
    }
}

#[test]
fn killed_at_the_stop_timeout_is_137() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "300ms").fixture("deaf serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        guard.event("kill");
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("killed")), (Some("SIGKILL"), Some("deadline")), "{}", exit.line);
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn a_killed_leftover_changes_no_code() {
    for setup in everywhere() {
        let words = "fork setsid as daemon deaf serve . quit TERM 5 serve";
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "300ms").fixture(words).start();
        guard.line("daemon ready");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("daemon got TERM");
        assert_eq!(guard.code(), 5);
    }
}

#[test]
fn a_command_that_is_not_there_is_127_and_said_once() {
    for command in ["/no/such/command", "./no-such-command", "no-such-command"] {
        for setup in everywhere() {
            let mut guard = setup.env("GUARD_RESTART", "always").env("PATH", "/usr/bin:/bin").app([command]).start();
            assert_eq!(guard.code(), 127);
            let errors = guard.events().into_iter().filter(|event| event.get("level") == Some("error"));
            assert_eq!(errors.filter(|event| event.line.contains(command)).count(), 1, "{}", guard.transcript());
            assert!(guard.events().iter().all(|event| event.name() != "restart"), "{}", guard.transcript());
        }
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_126_and_said_once() {
    let directory = tempfile::tempdir().unwrap();
    let text = program(directory.path(), "text", "exit 0", 0o644);
    for command in [text.as_path(), directory.path()] {
        for setup in everywhere() {
            let mut guard = setup.env("GUARD_RESTART", "always").app([command]).start();
            assert_eq!(guard.code(), 126);
            let errors = guard.events().into_iter().filter(|event| event.get("level") == Some("error"));
            let named = errors.filter(|event| event.line.contains(command.to_str().unwrap()));
            assert_eq!(named.count(), 1, "{}", guard.transcript());
            assert!(guard.events().iter().all(|event| event.name() != "restart"), "{}", guard.transcript());
        }
    }
}

/// Images with PATH=/root/.local/bin:… have one for every user but root.
#[test]
fn a_directory_of_path_that_may_not_be_searched_has_no_command() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o000)).unwrap();
    let directory = directory.path().display();
    for path in [format!("{directory}:/usr/bin"), directory.to_string()] {
        let mut setup = child().env("PATH", path);
        if nix::unistd::geteuid().is_root() {
            setup = setup.inherits("setuid 65534");
        }
        let mut guard = setup.app(["no-such-command"]).start();
        assert_eq!(guard.code(), 127, "{}", guard.transcript());
    }
}

#[test]
fn an_elf_file_of_another_architecture_is_126_and_named_so() {
    let directory = tempfile::tempdir().unwrap();
    // elf(5): a 64-bit little-endian executable of a machine that there is none of, nor an emulator for it.
    let mut elf = [0; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16..20].copy_from_slice(&[2, 0, 0xee, 0xee]);
    let binary = program(directory.path(), "program", elf, 0o755);
    for setup in everywhere() {
        let mut guard = setup.app([&binary]).start();
        assert_eq!(guard.code(), 126);
        assert!(guard.err().join("\n").contains("built for another architecture"), "{}", guard.transcript());
    }
}

#[test]
fn a_script_without_shebang_runs_under_sh() {
    let directory = tempfile::tempdir().unwrap();
    let script = program(directory.path(), "script", "echo \"$0: $1\"\nexit 7\n", 0o755);
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_RESTART", "never").app([script.to_str().unwrap(), "two words"]).start();
        guard.line(&format!("{}: two words", script.display()));
        assert_eq!(guard.code(), 7);
    }
    for setup in everywhere() {
        let mut guard =
            setup.env("PATH", directory.path()).env("GUARD_RESTART", "never").app(["script", "found"]).start();
        guard.line(&format!("{}: found", script.display()));
        assert_eq!(guard.code(), 7);
    }
}

#[test]
fn an_empty_script_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let script = program(directory.path(), "empty", "", 0o755);
    assert_eq!(child().app([script]).start().code(), 0);
}

#[test]
fn a_script_without_shebang_is_126_where_there_is_no_sh() {
    let Some(setup) = pid1() else { return };
    let directory = tempfile::tempdir().unwrap();
    let script = program(directory.path(), "script", "exit 0\n", 0o755);
    let shells = fs::canonicalize("/bin/sh").unwrap().parent().unwrap().display().to_string();
    let mut guard = setup.inherits(&format!("hide {shells}")).app([script]).start();
    assert_eq!(guard.code(), 126);
}

#[test]
fn a_script_whose_interpreter_is_missing_is_127() {
    let directory = tempfile::tempdir().unwrap();
    let script = program(directory.path(), "script", "#!/no/such/interpreter\n", 0o755);
    for setup in everywhere() {
        let mut guard = setup.app([&script]).start();
        assert_eq!(guard.code(), 127);
        // execve(2) says the same of a file that is missing itself, and people look for the wrong one.
        assert!(guard.err().join("\n").contains("interpreter"), "{}", guard.transcript());
    }
}

#[test]
fn a_bad_configuration_is_125_and_nothing_runs() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_RESTART", "sometimes").env("GUARD_STOP_TIMEOUT", "soon");
        let mut guard = setup.fixture("say started exit 0").start();
        assert_eq!(guard.code(), 125);
        assert!(guard.out().is_empty(), "{}", guard.transcript());
        for part in ["GUARD_RESTART", "sometimes", "GUARD_STOP_TIMEOUT", "soon"] {
            assert!(guard.err().join("\n").contains(part), "{part}\n{}", guard.transcript());
        }
    }
}

#[test]
fn a_bad_command_line_is_125() {
    for options in [vec!["--no-such-option"], vec!["--stop-timeout"], vec!["no-such-subcommand"], vec![]] {
        let mut guard = child().options(options).start();
        assert_eq!(guard.code(), 125);
        assert!(guard.out().is_empty() && !guard.err().is_empty(), "{}", guard.transcript());
    }
    assert_eq!(child().options(["--"]).start().code(), 125);
}

#[test]
fn without_descriptors_to_begin_with_it_is_125() {
    for setup in everywhere() {
        // Three are stdin, stdout and stderr, and the dynamic loader wants a fourth.
        let mut guard = setup.inherits("nofile 4").fixture("say started exit 0").start();
        assert_eq!(guard.code(), 125);
        assert!(guard.out().is_empty() && !guard.err().is_empty(), "{}", guard.transcript());
    }
}

#[test]
fn success_codes_become_0_and_are_not_restarted() {
    let cases = [
        ("3", "exit 3"),
        ("1,3,TERM", "exit 3"),
        ("TERM", "die TERM"),
        ("SIGTERM", "die TERM"),
        // What a shell would show is one number, whether by exit or by signal.
        ("143", "die TERM"),
        ("TERM", "exit 143"),
        ("RTMIN+1", "die 35"),
        ("163", "die 35"),
        ("3", "exit 0"),
    ];
    for (codes, words) in cases {
        for setup in everywhere() {
            let mut guard = setup.env("GUARD_SUCCESS_CODES", codes).fixture(&format!("say once {words}")).start();
            assert_eq!(guard.code(), 0, "{codes}, {words}");
            assert_eq!(guard.out(), ["once"], "{codes}, {words}");
        }
    }
}

#[test]
fn success_codes_count_after_a_stop_too() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_SUCCESS_CODES", "143").fixture("quit TERM 143 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_kill_at_the_stop_timeout_is_no_success_of_the_stop_signal() {
    let setup = child().env("GUARD_SUCCESS_CODES", "TERM").env("GUARD_STOP_TIMEOUT", "200ms");
    let mut guard = setup.fixture("deaf serve").start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 137);
}

#[test]
fn no_restart_codes_end_guard_at_once() {
    let cases = [("2", "exit 2", 2), ("2,78", "exit 78", 78), ("SEGV", "die SEGV", 139), ("139", "die SEGV", 139)];
    for (codes, words, expected) in cases {
        for policy in ["on-failure", "always"] {
            for setup in everywhere() {
                let setup = setup.env("GUARD_NO_RESTART_CODES", codes).env("GUARD_RESTART", policy);
                let mut guard = setup.fixture(&format!("say once {words}")).start();
                assert_eq!(guard.code(), expected, "{codes}, {words}, {policy}");
                assert_eq!(guard.out(), ["once"], "{codes}, {words}, {policy}");
            }
        }
    }
}

#[test]
fn another_failure_is_restarted_despite_no_restart_codes() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_NO_RESTART_CODES", "2").fixture("before-run 2 exit 3 exit 2").start();
        assert_eq!(guard.code(), 2);
        assert_eq!(guard.events().iter().filter(|event| event.name() == "exit").count(), 2);
    }
}

/// The signal is pending when guard starts, so there is no moment at which it would come too late.
#[test]
fn a_stop_before_the_first_spawn_is_128_and_the_signal() {
    for (signal, number) in [("TERM", libc::SIGTERM), ("INT", libc::SIGINT), ("USR1", libc::SIGUSR1), ("40", 40)] {
        for setup in everywhere() {
            let setup = setup.inherits(&format!("block {signal} raise {signal}"));
            let setup = setup.env("GUARD_SIGNAL_MAP", "USR1=stop,RTMIN+6=stop");
            let mut guard = setup.fixture("say started exit 0").start();
            assert_eq!(guard.code(), 128 + number, "{signal}");
            assert!(guard.out().is_empty(), "{}", guard.transcript());
        }
    }
}

#[test]
fn a_busy_file_at_the_first_spawn_is_tried_again() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let app = fixture_at(directory.path(), "app");
        let writer = fs::OpenOptions::new().append(true).open(&app).unwrap();
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "10ms").env("GUARD_BACKOFF_MAX", "10ms");
        let mut guard = setup.env("GUARD_MAX_RESTARTS", "unlimited").app([app.to_str().unwrap(), "say", "ran"]).start();
        guard.event("spawn-failed");
        guard.event("spawn-failed"); // execve(2): ETXTBSY
        drop(writer);
        guard.line("ran");
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// fork(2), EAGAIN: the limit counts a user's processes, and root has none, so root runs guard as a user without others.
#[test]
fn a_process_that_cannot_be_made_at_the_first_spawn_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let guard = program(directory.path(), "guard", fs::read(env!("CARGO_BIN_EXE_guard")).unwrap(), 0o755);
    let limit = if nix::unistd::geteuid().is_root() { "setuid 54321 nproc 1" } else { "nproc 1" };
    let setup =
        child().program(guard).inherits(limit).env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
    let mut guard = setup.app(["/bin/echo", "ran"]).start();
    for _ in 0..2 {
        guard.event("spawn-failed");
        guard.event("restart"); // the first is immediate
    }
    guard.signal(libc::SIGTERM);
    assert_ne!(guard.code(), 0);
    assert!(guard.out().is_empty(), "{}", guard.transcript());
}

#[test]
fn after_the_first_spawn_a_missing_file_is_a_failed_run() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let (app, away) = (fixture_at(directory.path(), "app"), directory.path().join("away"));
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "10ms").env("GUARD_BACKOFF_MAX", "10ms");
        let setup = setup.env("GUARD_MAX_RESTARTS", "unlimited");
        let mut guard = setup.app([app.to_str().unwrap(), "ids", "quit", "USR1", "1", "quit", "TERM", "3"]).start();
        guard.line("ready");
        fs::rename(&app, &away).unwrap();
        guard.signal(libc::SIGUSR1);
        guard.event("spawn-failed");
        guard.event("spawn-failed");
        fs::rename(&away, &app).unwrap();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 3);
    }
}

#[test]
fn giving_up_is_the_last_runs_code() {
    for (words, expected) in [("exit 7", 7), ("die SEGV", 139), ("die 34", 162), ("before-run 3 exit 7 exit 8", 8)] {
        for setup in everywhere() {
            let setup = setup.env("GUARD_MAX_RESTARTS", "2").env("GUARD_BACKOFF_INITIAL", "1ms");
            let mut guard = setup.fixture(&format!("say run {words}")).start();
            assert_eq!(guard.code(), expected, "{words}");
            assert_eq!(guard.out(), ["run"; 3], "{words}");
            assert_eq!(guard.events().iter().filter(|event| event.name() == "give-up").count(), 1, "{words}");
        }
    }
}

#[test]
fn giving_up_on_successes_is_1() {
    for success in ["exit 0", "exit 4"] {
        let setup = child().env("GUARD_RESTART", "always").env("GUARD_SUCCESS_CODES", "4");
        let setup = setup.env("GUARD_MAX_RESTARTS", "1");
        let mut guard = setup.fixture(&format!("say run {success}")).start();
        assert_eq!(guard.code(), 1, "{success}");
        assert_eq!(guard.out(), ["run"; 2], "{success}");
    }
}

/// No restarts allowed is the policy `never`, which gives nothing up.
#[test]
fn no_restarts_allowed_is_the_apps_own_code() {
    for (words, expected) in [("exit 0", 0), ("exit 7", 7)] {
        let setup = child().env("GUARD_RESTART", "always").env("GUARD_MAX_RESTARTS", "0");
        let mut guard = setup.fixture(&format!("say once {words}")).start();
        assert_eq!(guard.code(), expected);
        assert_eq!(guard.out(), ["once"]);
    }
}

#[test]
fn a_stop_during_a_backoff_is_the_last_runs_code() {
    for (words, expected) in [("exit 7", 7), ("die SEGV", 139), ("exit 0", 0), ("before-run 2 exit 7 exit 8", 8)] {
        for setup in everywhere() {
            let setup = setup.env("GUARD_RESTART", "always");
            let setup = setup.env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
            let mut guard = setup.fixture(&format!("say run {words}")).start();
            guard.event("restart"); // the first is immediate
            guard.event("restart");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), expected, "{words}");
            assert_eq!(guard.out(), ["run"; 2], "{words}");
        }
    }
}
