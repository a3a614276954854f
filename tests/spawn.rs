//! What the app starts with: signals, process group, descriptors, directory, program and environment.

use crate::common::{self, Guard, Setup, child, everywhere, fixture, fixture_at, program};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The mask of signals, as /proc/PID/status prints it.
fn mask(signals: &[i32]) -> String {
    format!("{:016x}", signals.iter().fold(0_u64, |mask, signal| mask | 1 << (signal - 1)))
}

fn stop(mut guard: Guard) {
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 143);
}

#[test]
fn signals_are_at_their_defaults_and_none_is_blocked() {
    for setup in everywhere() {
        let mut guard = setup.fixture("signals before-run 2 exit 1 serve").start();
        for _run in 1..=2 {
            assert_eq!(guard.line_after("blocked "), mask(&[]));
            assert_eq!(guard.line_after("ignored "), mask(&[]));
        }
        guard.line("ready");
        stop(guard);
    }
}

#[test]
fn the_mask_is_the_one_that_guard_was_started_with() {
    for setup in everywhere() {
        let setup = setup.inherits("block HUP block TERM block CHLD block TSTP block 32 block 33 block 40 block 64");
        let mut guard = setup.fixture("signals before-run 2 exit 1 serve").start();
        for _run in 1..=2 {
            let blocked = [libc::SIGHUP, libc::SIGTERM, libc::SIGCHLD, libc::SIGTSTP, 32, 33, 40, 64];
            assert_eq!(guard.line_after("blocked "), mask(&blocked));
        }
        guard.line("ready");
        stop(guard);
    }
}

#[test]
fn ignored_signals_stay_ignored() {
    for setup in everywhere() {
        let setup = setup.inherits("ignore HUP ignore PIPE ignore TERM ignore TSTP ignore WINCH ignore 33 ignore 50");
        let mut guard = setup.fixture("signals before-run 2 exit 1 serve").start();
        for _run in 1..=2 {
            let ignored = [libc::SIGHUP, libc::SIGPIPE, libc::SIGTERM, libc::SIGTSTP, libc::SIGWINCH, 33, 50];
            assert_eq!(guard.line_after("ignored "), mask(&ignored));
        }
        guard.line("ready");
        stop(guard);
    }
}

/// With SIGCHLD ignored the kernel reaps, and wait(2) finds no child: tini and catatonit hang then.
#[test]
fn an_ignored_sigchld_is_guards_trouble_and_not_the_apps() {
    for setup in everywhere() {
        let setup = setup.inherits("ignore CHLD").env("GUARD_RESTART", "never");
        let mut guard = setup.fixture("signals exit 3").start();
        assert_eq!(guard.line_after("ignored "), mask(&[]));
        assert_eq!(guard.code(), 3);
    }
}

#[test]
fn each_run_has_a_process_group_of_its_own() {
    for setup in everywhere() {
        let mut guard = setup.fixture("ids before-run 2 exit 1 serve").start();
        for _run in 1..=2 {
            let pid = guard.line_after("pid ");
            assert_eq!(guard.line_after("pgid "), pid);
            assert_ne!(guard.line_after("sid "), pid, "the session is guard's");
        }
        guard.line("ready");
        stop(guard);
    }
}

fn descriptors(guard: &mut Guard) -> Vec<String> {
    let lines = guard.lines_until("end");
    lines.iter().filter_map(|line| Some(line.strip_prefix("fd ")?.split_once(' ')?.0.to_owned())).collect()
}

#[test]
fn every_inherited_descriptor_is_passed_and_none_of_guards() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let setup = setup.inherits("open 5 open 9 open 200");
        let setup = setup.env("GUARD_TERMINATION_LOG", directory.path().join("last-word"));
        let setup = setup.env("GUARD_DRAIN_FILE", directory.path().join("drains"));
        let mut guard = setup.fixture("fds before-run 3 exit 1 serve").start();
        for _run in 1..=3 {
            assert_eq!(descriptors(&mut guard), ["0", "1", "2", "5", "9", "200"]);
        }
        guard.line("ready");
        stop(guard);
    }
}

#[test]
fn closed_standard_descriptors_stay_closed_for_the_app() {
    for (closed, open) in [("close 0", vec!["1", "2"]), ("close 2", vec!["0", "1"]), ("close 0 close 2", vec!["1"])] {
        for setup in everywhere() {
            let mut guard = setup.inherits(closed).fixture("fds before-run 2 exit 1 serve").start();
            for _run in 1..=2 {
                assert_eq!(descriptors(&mut guard), open, "{closed}");
            }
            guard.line("ready");
            stop(guard);
        }
    }
}

#[test]
fn all_standard_descriptors_may_be_closed() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        let setup = setup.inherits("close 0 close 1 close 2").env("GUARD_RESTART", "never");
        let mut guard = setup.fixture(&format!("into {} fds exit 3", output.display())).start();
        assert_eq!(guard.code(), 3);
        assert_eq!(fs::read_to_string(&output).unwrap(), format!("fd 101 {}\nend\n", output.display()));
    }
}

#[test]
fn standard_descriptors_are_guards_own() {
    let directory = tempfile::tempdir().unwrap();
    let (input, errors) = (directory.path().join("input"), directory.path().join("errors"));
    fs::write(&input, "").unwrap();
    let setup = child().stdin(fs::File::open(&input).unwrap()).stderr(fs::File::create(&errors).unwrap());
    let mut guard = setup.fixture("fds exit 0").start();
    assert_eq!(guard.line_after("fd 0 "), input.to_str().unwrap());
    assert!(guard.line_after("fd 1 ").starts_with("pipe:"));
    assert_eq!(guard.line_after("fd 2 "), errors.to_str().unwrap());
    assert_eq!(guard.code(), 0);
}

#[test]
fn the_working_directory_is_inherited_or_as_configured() {
    let (inherited, configured) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for setup in everywhere() {
        let mut guard = setup.directory(inherited.path()).fixture("cwd exit 0").start();
        assert_eq!(guard.line_after("cwd "), inherited.path().to_str().unwrap());
        assert_eq!(guard.code(), 0);
    }
    for setup in everywhere() {
        let setup = setup.directory(inherited.path()).env("GUARD_CHDIR", configured.path());
        let mut guard = setup.fixture("cwd before-run 2 exit 1 exit 0").start();
        for _run in 1..=2 {
            assert_eq!(guard.line_after("cwd "), configured.path().to_str().unwrap());
        }
        assert_eq!(guard.code(), 0);
    }
}

/// Directories for a search: `good` has the app, `text` a file of its name that cannot be executed, `bare` nothing.
struct Search(tempfile::TempDir);

impl Search {
    fn new() -> Search {
        let search = Search(tempfile::tempdir().unwrap());
        for name in ["good", "text", "bare"] {
            fs::create_dir(search.at(name)).unwrap();
        }
        symlink(fixture(), search.0.path().join("good/app")).unwrap();
        program(Path::new(&search.at("text")), "app", "exit 1", 0o644);
        search
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Runs `app`, found by a PATH from the directory `from`.
    fn run(&self, setup: Setup, path: &str, from: &str) -> Guard {
        setup.env("PATH", path).directory(self.at(from)).app(["app", "args", "exit", "0"]).start()
    }
}

/// As `execvp(3)` has it.
#[test]
fn the_path_is_searched_in_its_order() {
    let search = Search::new();
    let [good, text, bare] = ["good", "text", "bare"].map(|name| search.at(name));
    let missing = search.at("missing");
    for (path, from) in [
        (good.clone(), "bare"),
        (format!("{bare}:{missing}:{good}"), "bare"),
        // EACCES does not end the search,
        (format!("{text}:{good}"), "bare"),
        // nor does a file in a directory's place.
        (format!("{good}/app:{good}"), "bare"),
        // An empty element is the working directory, wherever it stands.
        (format!(":{bare}"), "good"),
        (format!("{bare}:"), "good"),
        (format!("{bare}::{missing}"), "good"),
        (String::new(), "good"),
    ] {
        for setup in everywhere() {
            let mut guard = search.run(setup, &path, from);
            assert_eq!(guard.line_after("arg 0 "), "app", "{path}");
            assert_eq!(guard.code(), 0, "{path}");
        }
    }
}

#[test]
fn what_the_search_met_decides_between_126_and_127() {
    let search = Search::new();
    let [good, text, bare] = ["good", "text", "bare"].map(|name| search.at(name));
    for (path, from, expected) in [
        // EACCES is remembered, and told when nothing better comes.
        (format!("{text}:{bare}"), "bare", 126),
        (text.clone(), "bare", 126),
        (bare.clone(), "good", 127),
        (format!("{good}/app"), "good", 127),
        (String::new(), "bare", 127),
    ] {
        for setup in everywhere() {
            assert_eq!(search.run(setup, &path, from).code(), expected, "{path}");
        }
    }
}

#[test]
fn without_a_path_the_usual_directories_are_searched() {
    for setup in everywhere() {
        let setup = setup.without_env("PATH").env("GUARD_RESTART", "never");
        assert_eq!(setup.app(["sh", "-c", "exit 3"]).start().code(), 3);
    }
    let search = Search::new();
    let setup = child().without_env("PATH").directory(search.at("good"));
    assert_eq!(setup.app(["app", "exit", "0"]).start().code(), 127, "the working directory is none of them");
}

#[test]
fn a_command_with_a_slash_is_not_searched_for() {
    let search = Search::new();
    let setup = || child().env("PATH", search.at("good"));
    assert_eq!(setup().directory(search.at("bare")).app(["./app", "exit", "0"]).start().code(), 127);
    let mut guard = setup().directory(search.0.path()).app(["good/app", "args", "exit", "0"]).start();
    assert_eq!(guard.line_after("arg 0 "), "good/app");
    assert_eq!(guard.code(), 0);
}

fn environment(guard: &mut Guard) -> BTreeSet<String> {
    let lines = guard.lines_until("end");
    let entry = |entry: &str| match entry.split_once('=') {
        Some(("GUARD_ID", id)) if id.len() == 16 => "GUARD_ID=…".to_owned(),
        _ => entry.to_owned(),
    };
    lines.iter().filter_map(|line| line.strip_prefix("env ")).map(entry).collect()
}

fn set<const N: usize>(entries: [&str; N]) -> BTreeSet<String> {
    entries.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_environment_is_the_containers_and_what_guard_hands_over() {
    for setup in everywhere() {
        let setup = setup.env("PATH", "/bin").env("FOO", "bar baz").env("EMPTY", "");
        let mut guard = setup.fixture("env before-run 2 exit 7 before-run 3 die SEGV exit 0").start();
        let always = ["GUARD_ID=…", "PATH=/bin", "FOO=bar baz", "EMPTY=", "GUARD_INSTANCE=0", "GUARD_STOP_TIMEOUT=8.3"];
        for own in [
            ["GUARD_RUN=1", "GUARD_RESTARTS=0", ""],
            ["GUARD_RUN=2", "GUARD_RESTARTS=1", "GUARD_LAST_EXIT=7"],
            ["GUARD_RUN=3", "GUARD_RESTARTS=2", "GUARD_LAST_EXIT=SIGSEGV"],
        ] {
            let own = own.into_iter().filter(|entry| !entry.is_empty());
            let expected: BTreeSet<String> = always.into_iter().chain(own).map(str::to_owned).collect();
            assert_eq!(environment(&mut guard), expected);
        }
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn guards_configuration_is_taken_out_of_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    for setup in everywhere() {
        let setup = setup.env("PATH", "/bin").env("GUARD_RESTART", "never").env("GUARD_MAX_RESTARTS", "3");
        let setup = setup.env("GUARD_STOP_SIGNAL", "QUIT").env("GUARD_STOP_TIMEOUT", "1m30s");
        let setup = setup.env("GUARD_LOG", "debug").env("GUARD_CHDIR", directory.path()).env("GUARD_DRAIN_DELAY", "");
        // What an outer guard handed to this one is not this one's app's.
        let setup = setup.env("GUARD_ID", "outer").env("GUARD_RUN", "17").env("GUARD_INSTANCE", "4");
        let setup = setup.env("GUARD_RESTARTS", "16").env("GUARD_LAST_EXIT", "oom");
        let mut guard = setup.fixture("env exit 0").start();
        let own = ["GUARD_ID=…", "GUARD_RUN=1", "GUARD_INSTANCE=0", "GUARD_RESTARTS=0", "GUARD_STOP_TIMEOUT=90"];
        let expected: BTreeSet<String> = ["PATH=/bin"].into_iter().chain(own).map(str::to_owned).collect();
        assert_eq!(environment(&mut guard), expected);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn the_stop_timeout_is_handed_over_in_bare_seconds() {
    for (timeout, expected) in [("500ms", "0.5"), ("7", "7"), ("1m30s", "90"), ("none", "none"), ("1h", "3600")] {
        let mut guard = child().env("GUARD_STOP_TIMEOUT", timeout).fixture("env exit 0").start();
        assert_eq!(guard.line_after("env GUARD_STOP_TIMEOUT="), expected);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn an_unknown_variable_is_a_warning_with_the_nearest_known_name() {
    for (unknown, nearest) in [
        ("GUARD_STOP_TIMEOT", "GUARD_STOP_TIMEOUT"),
        ("GUARD_RESTARTS_MAX", "GUARD_MAX_RESTARTS"),
        ("GUARD_BACKOFF_INITAL", "GUARD_BACKOFF_INITIAL"),
    ] {
        for setup in everywhere() {
            let mut guard = setup.env(unknown, "5s").fixture("exit 0").start();
            assert_eq!(guard.code(), 0, "a warning, and no error");
            let events = guard.events();
            let warnings = events.iter().filter(|event| event.get("level") == Some("warn"));
            let warnings: Vec<_> = warnings.filter(|event| event.line.contains(unknown)).collect();
            assert_eq!(warnings.len(), 1, "{}", guard.transcript());
            assert!(warnings[0].line.replace(unknown, "").contains(nearest), "{}", guard.transcript());
        }
    }
}

/// A Service called guard: `GUARD_SERVICE_HOST` and its like are in every pod of its namespace.
#[test]
fn what_kubernetes_injects_for_a_service_called_guard_is_silent_and_passed_on() {
    let injected = [
        "GUARD_SERVICE_HOST=10.0.0.7",
        "GUARD_SERVICE_PORT=80",
        "GUARD_SERVICE_PORT_HTTP=80",
        "GUARD_PORT=tcp://10.0.0.7:80",
        "GUARD_PORT_80_TCP=tcp://10.0.0.7:80",
        "GUARD_PORT_80_TCP_ADDR=10.0.0.7",
    ];
    for setup in everywhere() {
        let setup = injected.iter().fold(setup, |setup, entry| {
            let (name, value) = entry.split_once('=').unwrap();
            setup.env(name, value)
        });
        let mut guard = setup.fixture("env exit 0").start();
        let environment = environment(&mut guard);
        assert!(set(injected).is_subset(&environment), "{environment:?}");
        assert_eq!(guard.code(), 0);
        assert!(!guard.err().iter().any(|line| line.contains("level=warn")), "{}", guard.transcript());
    }
}

#[test]
fn bytes_that_are_no_text_pass_untouched() {
    let raw = OsStr::from_bytes(b"\xff\xfe=\x80 \"x\"\n");
    for setup in everywhere() {
        let setup = setup.env(OsStr::from_bytes(b"N\xe9"), raw);
        let command =
            [fixture().as_os_str(), OsStr::new("env"), OsStr::new("args"), OsStr::new("exit"), OsStr::new("0"), raw];
        let mut guard = setup.app(command).start();
        let escaped = raw.as_bytes().escape_ascii().to_string();
        assert!(environment(&mut guard).contains(&format!("N\\xe9={escaped}")), "{}", guard.transcript());
        assert_eq!(guard.line_after("arg 5 "), escaped);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_program_whose_name_is_no_text_runs() {
    let directory = tempfile::tempdir().unwrap();
    let app = fixture_at(directory.path(), "app");
    let odd = directory.path().join(OsStr::from_bytes(b"\xffapp"));
    fs::rename(app, &odd).unwrap();
    let setup = child().env("PATH", directory.path());
    let mut guard = setup.app([OsStr::from_bytes(b"\xffapp"), OsStr::new("exit"), OsStr::new("0")]).start();
    assert_eq!(guard.code(), 0);
}

#[test]
fn an_app_may_ask_guard_at_once() {
    for _ in 0..20 {
        let Some(setup) = common::pid1() else { return };
        let app = ["sh", "-c", r#"exec "$0" ready"#, env!("CARGO_BIN_EXE_guard")];
        let mut guard = setup.env("GUARD_RESTART", "never").app(app).start();
        assert_eq!(guard.code(), 0, "{}", guard.transcript());
    }
}
