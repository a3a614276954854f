//! Flags and variables, their errors, and the defaults that depend on the platform.

use crate::common::{Guard, Setup, child, everywhere};
use std::collections::BTreeSet;

/// The variables that a text names, each once.
fn variables(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !(character.is_ascii_uppercase() || character == '_'));
    words.filter(|word| word.starts_with("GUARD_")).collect()
}

fn end(setup: Setup, expected: i32) -> Guard {
    let mut guard = setup.start();
    assert_eq!(guard.code(), expected, "{}", guard.transcript());
    guard
}

fn help() -> String {
    end(child().options(["--help"]), 0).out().join("\n")
}

#[test]
fn help_lists_every_variable_with_its_flag() {
    let help = help();
    let expected = [
        "RESTART",
        "MAX_RESTARTS",
        "RESTART_WINDOW",
        "BACKOFF_INITIAL",
        "BACKOFF_MAX",
        "STABLE_AFTER",
        "SUCCESS_CODES",
        "NO_RESTART_CODES",
        "STOP_SIGNAL",
        "STOP_TIMEOUT",
        "DRAIN_DELAY",
        "PRE_STOP",
        "DRAIN_FILE",
        "SIGNAL_SCOPE",
        "SIGNAL_MAP",
        "ON_CHANGE",
        "READY",
        "READY_TIMEOUT",
        "WATCHDOG",
        "NODE_IPC",
        "HEALTH_CHECK",
        "HEALTH_INTERVAL",
        "HEALTH_TIMEOUT",
        "HEALTH_RETRIES",
        "HEALTH_START_PERIOD",
        "ENV_FILES",
        "USER",
        "LIMIT_NOFILE",
        "LIMIT_CORE",
        "LIMIT_NPROC",
        "LIMIT_MEMLOCK",
        "LIMIT_STACK",
        "CHDIR",
        "HTTP",
        "TERMINATION_LOG",
        "LOG",
        "LOG_FORMAT",
    ];
    for name in expected {
        assert!(variables(&help).contains(format!("GUARD_{name}").as_str()), "{name}\n{help}");
        assert!(help.contains(&format!("--{}", name.to_lowercase().replace('_', "-"))), "{name}\n{help}");
    }
    assert!(help.contains("guard [OPTIONS] -- COMMAND"), "{help}");
    for takes in ["on-failure, always or never", "process or group", "text or json", "exec:COMMAND", "true, yes, 1"] {
        assert!(help.contains(takes), "{takes}\n{help}");
    }
}

#[test]
fn the_version_is_cargos() {
    assert_eq!(end(child().options(["--version"]), 0).out(), [concat!("guard ", env!("CARGO_PKG_VERSION"))]);
}

/// Only rows of tables count: the text beside them may name any variable.
#[test]
fn the_documentation_lists_exactly_the_variables_of_help() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let document = std::fs::read_to_string(path).expect("docs/configuration.md can be read");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `GUARD_")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(|name| format!("GUARD_{name}")).collect();
    // Another table lists the variables that guard hands to the app. They are no configuration.
    let handed = ["GUARD_RUN", "GUARD_INSTANCE", "GUARD_RESTARTS", "GUARD_LAST_EXIT"];
    let documented: BTreeSet<&str> =
        documented.iter().map(String::as_str).filter(|name| !handed.contains(name)).collect();
    let help = help();
    let listed: BTreeSet<&str> = variables(&help).into_iter().filter(|name| !handed.contains(name)).collect();
    assert_eq!(documented, listed);
}

/// Text with control sequences that a terminal would obey, and a line that would look like one of guard's.
const HOSTILE: &str = "\u{1b}[31m\r\u{9b}1m\nguard: forged";

/// guard printed the hostile text, and it neither controls a terminal nor begins a line.
#[track_caller]
fn assert_harmless(guard: &Guard) {
    for line in guard.out().into_iter().chain(guard.err()) {
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line != "guard: forged" && line != "guard: guard: forged", "{}", guard.transcript());
    }
    let said = [guard.out(), guard.err()].concat().join("\n");
    assert!(said.contains(r"\u{1b}[31m\r\u{9b}1m\nguard: forged"), "{}", guard.transcript());
}

#[test]
fn hostile_text_on_the_command_line_cannot_control_the_terminal() {
    let option = format!("--{HOSTILE}");
    let value = format!("--restart={HOSTILE}");
    let [timeout, pid] = ["timeout", "pid"].map(|name| format!("--{name}={HOSTILE}"));
    let (url, host) = (format!("http://{HOSTILE}/"), format!("x{HOSTILE}"));
    for (variable, words) in [
        (Some("GUARD_RESTART"), &["--", "true"][..]),
        (Some("GUARD_LOG"), &["check"]),
        (Some(HOSTILE), &["check", "--restart=sometimes"]),
        (None, &[&option, "--", "true"]),
        (None, &[&value, "--", "true"]),
        (None, &[HOSTILE, "true"]),
        (None, &["node", HOSTILE]),
        (None, &["ready", HOSTILE]),
        (None, &["stop", &option]),
        (None, &["status", &timeout]),
        (None, &["restart", &pid]),
        (None, &["probe", &url]),
        (None, &["probe", &host]),
        (None, &["probe", &option]),
        (None, &["probe", &timeout]),
        (None, &["probe", "http://localhost/", HOSTILE]),
    ] {
        let setup = match variable {
            Some(HOSTILE) => child().env(format!("GUARD_{HOSTILE}"), "x"),
            Some(name) => child().env(name, HOSTILE),
            None => child(),
        };
        assert_harmless(&end(setup.options(words.iter().copied()), 125));
    }
}

#[test]
fn check_shows_hostile_values_without_control_characters() {
    let directory = tempfile::tempdir().unwrap();
    let odd = directory.path().join(HOSTILE);
    std::fs::create_dir(&odd).unwrap();
    for name in ["GUARD_CHDIR", "GUARD_DRAIN_FILE", "GUARD_TERMINATION_LOG"] {
        assert_harmless(&end(child().env(name, &odd).options(["check"]), 0));
    }
    for (name, before) in
        [("GUARD_PRE_STOP", "sh -c "), ("GUARD_HEALTH_CHECK", "exec:sh -c "), ("GUARD_LOG", "guard::")]
    {
        let value = if name == "GUARD_LOG" { format!("{before}{HOSTILE}") } else { format!("{before}'{HOSTILE}'") };
        assert_harmless(&end(child().env(name, value).options(["check"]), 0));
    }
    assert_harmless(&end(child().env(format!("GUARD_{HOSTILE}"), "x").options(["check"]), 0));
    assert_harmless(&end(child().options(["check", "--", "app", HOSTILE]), 0));
}

/// env_logger prints the parts of a filter that it cannot read, raw and past guard's writer, and is silent for a target that nobody has.
#[test]
fn a_log_filter_is_read_by_guard_alone() {
    for filter in
        ["guard=warn=info", "x/y=info", "info/x", "guard::a/b", "guard::a/b/c", "gaurd=debug", "info,app=debug"]
    {
        let guard = end(child().env("GUARD_LOG", filter).fixture("exit 0"), 125);
        assert!(guard.err().iter().all(|line| line.starts_with("guard: ")), "{}", guard.transcript());
    }
}

/// The stop timeout in force, as guard hands it to the app.
fn stop_timeout(setup: Setup) -> String {
    setup.fixture("env exit 0").start().line_after("env GUARD_STOP_TIMEOUT=")
}

/// A guard below reads it.
#[test]
fn no_platform_makes_the_stop_timeout_longer_than_guard_takes() {
    let setup = child().env("WEBSITE_INSTANCE_ID", "x").env("WEBSITES_CONTAINER_STOP_TIME_LIMIT", u64::MAX.to_string());
    assert_eq!(stop_timeout(setup), "2628000000");
}

#[test]
fn a_flag_wins_over_its_variable() {
    for flag in
        [vec!["--stop-timeout", "5s"], vec!["--stop-timeout=5s"], vec!["--stop-timeout", "3s", "--stop-timeout=5s"]]
    {
        for setup in everywhere() {
            assert_eq!(stop_timeout(setup.env("GUARD_STOP_TIMEOUT", "7s").options(flag.clone())), "5");
        }
    }
    assert_eq!(stop_timeout(child().env("GUARD_STOP_TIMEOUT", "7s")), "7");
    // A good flag hides a bad variable; a good variable does not mend a bad flag.
    assert_eq!(stop_timeout(child().env("GUARD_STOP_TIMEOUT", "soon").options(["--stop-timeout=5s"])), "5");
    end(child().env("GUARD_STOP_TIMEOUT", "5s").options(["--stop-timeout=soon"]).fixture("exit 0"), 125);
}

#[test]
fn every_flag_does_what_its_variable_does() {
    for (flag, value) in [("--restart", "never"), ("--max-restarts", "0"), ("--no-restart-codes", "3")] {
        let mut guard = child().options([flag, value]).fixture("say once exit 3").start();
        assert_eq!(guard.code(), 3, "{flag}");
        assert_eq!(guard.out(), ["once"], "{flag}");
    }
    end(child().options(["--success-codes", "3"]).fixture("exit 3"), 0);
    let mut guard =
        child().options(["--stop-signal=QUIT", "--signal-map=USR1=stop"]).fixture("quit QUIT 7 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGUSR1);
    guard.line("got QUIT");
    assert_eq!(guard.code(), 7);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    for name in ["GUARD_STOP_TIMEOUT", "GUARD_RESTART", "GUARD_STOP_SIGNAL", "GUARD_CHDIR", "KUBERNETES_SERVICE_HOST"] {
        assert_eq!(stop_timeout(child().env(name, "")), "8.3", "{name}");
    }
}

#[test]
fn none_is_taken_where_it_is_the_default() {
    let names = ["SUCCESS_CODES", "NO_RESTART_CODES", "PRE_STOP", "DRAIN_FILE", "SIGNAL_MAP", "TERMINATION_LOG"];
    for name in names.into_iter().chain(["WATCHDOG", "HEALTH_CHECK"]) {
        end(child().env(format!("GUARD_{name}"), "none").fixture("exit 0"), 0);
    }
}

/// For each variable a wrong value, and a word that the error must contain since it says what the variable takes.
const WRONG: [(&str, &str, &str); 29] = [
    ("GUARD_RESTART", "sometimes", "on-failure"),
    ("GUARD_MAX_RESTARTS", "-1", "unlimited"),
    ("GUARD_RESTART_WINDOW", "5 parsecs", "1m30s"),
    ("GUARD_BACKOFF_INITIAL", "fast", "500ms"),
    ("GUARD_BACKOFF_MAX", "1y", "500ms"),
    ("GUARD_STABLE_AFTER", "-5s", "500ms"),
    ("GUARD_SUCCESS_CODES", "256", "255"),
    ("GUARD_NO_RESTART_CODES", "SIGNOPE", "signal"),
    ("GUARD_STOP_SIGNAL", "KIL", "TERM"),
    ("GUARD_STOP_TIMEOUT", "soon", "none"),
    ("GUARD_DRAIN_DELAY", "later", "500ms"),
    ("GUARD_DRAIN_IDLE", "0", "none"),
    ("GUARD_PRE_STOP", "curl 'x", "command"),
    ("GUARD_SIGNAL_SCOPE", "session", "group"),
    ("GUARD_SIGNAL_MAP", "HUP>USR1", "restart"),
    ("GUARD_READY", "steady", "notify"),
    ("GUARD_READY_TIMEOUT", "0", "1m30s"),
    ("GUARD_WATCHDOG", "0", "none"),
    ("GUARD_DIAGNOSE", "jstack", "exec:COMMAND"),
    ("GUARD_DIAGNOSE_TIMEOUT", "0", "500ms"),
    ("GUARD_NODE_IPC", "maybe", "off"),
    ("GUARD_HEALTH_CHECK", "https://localhost/", "exec:COMMAND"),
    ("GUARD_HEALTH_INTERVAL", "0", "500ms"),
    ("GUARD_HEALTH_TIMEOUT", "0s", "500ms"),
    ("GUARD_HEALTH_RETRIES", "0", "from 1"),
    ("GUARD_HEALTH_START_PERIOD", "a while", "500ms"),
    ("GUARD_CHDIR", "/no/such/directory", "directory"),
    ("GUARD_LOG", "loud", "debug"),
    ("GUARD_LOG_FORMAT", "xml", "json"),
];

#[test]
fn every_error_is_reported_at_once_with_name_value_and_what_it_takes() {
    for setup in everywhere() {
        let setup = WRONG.iter().fold(setup, |setup, (name, value, _)| setup.env(name, value));
        let guard = end(setup.fixture("say started exit 0"), 125);
        assert!(guard.out().is_empty(), "{}", guard.transcript());
        for (name, value, takes) in WRONG {
            let about = |line: &&str| line.contains(&format!("{name}={value}")) && line.contains(takes);
            assert_eq!(guard.err().into_iter().filter(about).count(), 1, "{name}\n{}", guard.transcript());
        }
    }
}

#[test]
fn errors_of_flags_are_reported_with_the_others() {
    let options = ["--stop-timeot=5s", "--restart", "sometimes", "--backoff-max=fast"];
    let guard = end(child().options(options).env("GUARD_STOP_SIGNAL", "KIL").fixture("exit 0"), 125);
    let said = guard.err().join("\n");
    for part in ["--stop-timeot", "--stop-timeout", "sometimes", "fast", "GUARD_STOP_SIGNAL=KIL"] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[test]
fn values_that_contradict_each_other_are_errors() {
    for (first, second) in [
        (("GUARD_DRAIN_DELAY", "10s"), ("GUARD_STOP_TIMEOUT", "10s")),
        (("GUARD_DRAIN_DELAY", "9s"), ("GUARD_LOG", "info")), // more than the default of 8.3 s
    ] {
        let guard = end(child().env(first.0, first.1).env(second.0, second.1).fixture("exit 0"), 125);
        let said = guard.err().join("\n");
        assert!(said.contains("GUARD_DRAIN_DELAY") && said.contains("GUARD_STOP_TIMEOUT"), "{said}");
    }
    end(child().env("GUARD_DRAIN_DELAY", "9s").env("GUARD_STOP_TIMEOUT", "none").fixture("exit 0"), 0);
}

#[test]
fn readiness_by_health_needs_a_health_check() {
    for setup in [child(), child().env("GUARD_HEALTH_CHECK", "none")] {
        let guard = end(setup.env("GUARD_READY", "health").fixture("exit 0"), 125);
        let said = guard.err().join("\n");
        assert!(said.contains("GUARD_READY=health") && said.contains("GUARD_HEALTH_CHECK"), "{said}");
    }
    // A check that cannot be read is one error, not two.
    let guard = end(child().options(["check", "--ready=health", "--health-check=exec:"]), 125);
    assert_eq!(guard.err().len(), 1, "{}", guard.transcript());
    end(child().env("GUARD_READY", "health").env("GUARD_HEALTH_CHECK", "exec:true").fixture("exit 0"), 0);
}

#[test]
fn a_health_check_is_a_url_or_a_command() {
    for check in ["http://localhost", "http://[::1]:80/x?y=z", "tcp://db:5432", "exec:true", "exec: sh -c 'exit 0'"] {
        end(child().env("GUARD_HEALTH_CHECK", check).options(["check"]), 0);
    }
    for (check, why) in [
        ("https://localhost/", "TLS"),
        ("exec:", "no command"),
        ("exec: ''", "no command"),
        ("exec:'a", "quote"),
        ("curl localhost", "exec:COMMAND"),
        ("true", "exec:COMMAND"),
        ("tcp://db", "port"),
        ("http://::1/", "brackets"),
    ] {
        let guard = end(child().env("GUARD_HEALTH_CHECK", check).options(["check"]), 125);
        let said = guard.err().join("\n");
        assert!(said.contains(&format!("GUARD_HEALTH_CHECK={check}: ")) && said.contains(why), "{said}");
    }
}

#[test]
fn a_time_that_must_pass_is_a_millisecond_or_more() {
    // A shorter time would be shown as `0s`, to a probe too.
    for name in ["READY_TIMEOUT", "WATCHDOG", "HEALTH_INTERVAL", "HEALTH_TIMEOUT"] {
        for value in ["0", "0s", "0.0001", "0.9ms"] {
            end(child().env(format!("GUARD_{name}"), value).options(["check"]), 125);
        }
        end(child().env(format!("GUARD_{name}"), "1ms").options(["check"]), 0);
    }
    end(child().env("GUARD_HEALTH_START_PERIOD", "0").options(["check"]), 0);
}

#[test]
fn durations_are_read_and_nonsense_is_not() {
    for (text, seconds) in
        [("500ms", "0.5"), ("10s", "10"), ("1m30s", "90"), ("2h", "7200"), ("45", "45"), ("0.5", "0.5")]
    {
        assert_eq!(stop_timeout(child().env("GUARD_STOP_TIMEOUT", text)), seconds, "{text}");
    }
    for text in ["s", "5 s", "5x", "-5", "1.5.2s", "ms", "99999999999999999999s", "١s", "1e3", "+5"] {
        end(child().env("GUARD_STOP_TIMEOUT", text).fixture("exit 0"), 125);
    }
}

#[test]
fn a_large_bare_number_is_taken_with_a_warning_that_names_both_readings() {
    for (name, text, doubt) in [
        ("GUARD_STOP_TIMEOUT", "20000", "20000 seconds (5h33m20s); did you mean 20000ms (20s)?"),
        ("GUARD_STOP_TIMEOUT", "1000", "1000 seconds (16m40s); did you mean 1000ms (1s)?"),
        ("GUARD_STABLE_AFTER", "1500.5", "1500.5 seconds (25m0.5s); did you mean 1500.5ms (1.5s)?"),
        ("GUARD_HEALTH_INTERVAL", "30000", "30000 seconds (8h20m); did you mean 30000ms (30s)?"),
        ("GUARD_WATCHDOG", "5000", "5000 seconds (1h23m20s); did you mean 5000ms (5s)?"),
    ] {
        let whole = format!("{name}={text}: {doubt}");
        for setup in everywhere() {
            let guard = end(setup.env(name, text).fixture("exit 0"), 0);
            let events = guard.events();
            let said: Vec<_> = events.iter().filter(|event| event.get("msg") == Some(&whole)).collect();
            assert_eq!(said.len(), 1, "{}", guard.transcript());
            let keys = ["event", "level", "variable"].map(|key| said[0].get(key));
            assert_eq!(keys, [Some("setting"), Some("warn"), Some(name)]);
        }
        let guard = end(child().env(name, text).env("GUARD_HEALTH_CHECK", "exec:true").options(["check"]), 0);
        assert!(guard.out().contains(&format!("warning: {whole}").as_str()), "{}", guard.transcript());
    }
    // A flag is named as one.
    let guard = end(child().options(["check", "--backoff-max=3000"]), 0);
    let said = "GUARD_BACKOFF_MAX=3000 (--backoff-max): 3000 seconds (50m); did you mean 3000ms (3s)?";
    assert!(guard.out().join("\n").contains(said), "{}", guard.transcript());
    for text in ["999", "1000s", "0.5", "2h", "none"] {
        let guard = end(child().env("GUARD_STOP_TIMEOUT", text).options(["check"]), 0);
        assert!(!guard.out().join("\n").contains("did you mean"), "{}", guard.transcript());
    }
    for (name, text) in [("GUARD_MAX_RESTARTS", "5000"), ("GUARD_DRAIN_FILE", "20000")] {
        let guard = end(child().env(name, text).options(["check"]), 0);
        assert!(!guard.out().join("\n").contains("did you mean"), "{}", guard.transcript());
    }
}

#[test]
fn a_stop_timeout_above_the_platforms_own_is_a_note() {
    for setup in everywhere() {
        let setup = setup.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").env("GUARD_STOP_TIMEOUT", "31s");
        let guard = end(setup.fixture("exit 0"), 0);
        let events = guard.events();
        let note = events.iter().find(|event| event.name() == "setting").expect("a note");
        assert_eq!((note.get("level"), note.get("variable")), (Some("info"), Some("GUARD_STOP_TIMEOUT")));
        for part in ["GUARD_STOP_TIMEOUT=31s", "Kubernetes", "30s"] {
            assert!(note.get("msg").unwrap().contains(part), "{}", note.line);
        }
    }
    let check = |timeout: &str| {
        let guard = end(child().env("GUARD_STOP_TIMEOUT", timeout).options(["check"]), 0);
        guard.out().join("\n").contains("note: GUARD_STOP_TIMEOUT=")
    };
    assert_eq!(["11s", "10s", "9s", "none"].map(check), [true, false, false, false]);
}

#[test]
fn words_are_taken_in_any_case() {
    for (name, given, shown) in [
        ("GUARD_NODE_IPC", "true", "on"),
        ("GUARD_NODE_IPC", "True", "on"),
        ("GUARD_NODE_IPC", "YES", "on"),
        ("GUARD_NODE_IPC", "1", "on"),
        ("GUARD_NODE_IPC", "On", "on"),
        ("GUARD_NODE_IPC", "false", "off"),
        ("GUARD_NODE_IPC", "No", "off"),
        ("GUARD_NODE_IPC", "0", "off"),
        ("GUARD_NODE_IPC", "OFF", "off"),
        ("GUARD_RESTART", "On-Failure", "on-failure"),
        ("GUARD_RESTART", "NEVER", "never"),
        ("GUARD_MAX_RESTARTS", "Unlimited", "unlimited"),
        ("GUARD_SIGNAL_SCOPE", "Group", "group"),
        (
            "GUARD_SIGNAL_MAP",
            "usr1=Restart,hup=Ignore,winch=STOP,usr2=term",
            "SIGUSR1=restart,SIGHUP=ignore,SIGWINCH=stop,SIGUSR2=SIGTERM",
        ),
        ("GUARD_READY", "Notify", "notify"),
        ("GUARD_STOP_TIMEOUT", "None", "none"),
        ("GUARD_WATCHDOG", "NONE", "none"),
        ("GUARD_LOG_FORMAT", "JSON", "json"),
        ("GUARD_HEALTH_CHECK", "HTTP://localhost/", "http://localhost/"),
    ] {
        let guard = end(child().env(name, given).options(["check"]), 0);
        let row = [name, shown, "environment"].map(str::to_owned);
        let rows = guard.out().into_iter().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert!(rows.into_iter().any(|found| found == row), "{name}={given}\n{}", guard.transcript());
    }
    for level in ["OFF", "Info", "WARN", "guard=info", "warn,guard::runtime=debug"] {
        end(child().env("GUARD_LOG", level).fixture("exit 0"), 0);
    }
}

#[test]
fn signals_are_read_and_nonsense_is_not() {
    for text in ["TERM", "SIGTERM", "15", "RTMIN", "RTMIN+30", "SIGRTMIN+3", "64"] {
        end(child().env("GUARD_STOP_SIGNAL", text).fixture("exit 0"), 0);
    }
    for text in ["TERMINATE", "0", "65", "-1", "RTMIN+31", "RTMIN-1", "SIG", "SIGSIGTERM", "TERM,INT"] {
        end(child().env("GUARD_STOP_SIGNAL", text).fixture("exit 0"), 125);
    }
}

#[test]
fn signals_that_cannot_be_taken_cannot_be_mapped() {
    for map in ["KILL=TERM", "STOP=TERM", "HUP=USR1,HUP=USR2", "HUP", "HUP=", "=HUP", "HUP=start"] {
        end(child().env("GUARD_SIGNAL_MAP", map).fixture("exit 0"), 125);
    }
}

#[test]
fn a_value_that_is_not_utf8_is_an_error_like_others() {
    use std::os::unix::ffi::OsStrExt;
    let guard = end(child().env("GUARD_STOP_TIMEOUT", std::ffi::OsStr::from_bytes(b"\xff5s")).fixture("exit 0"), 125);
    assert!(guard.err().join("\n").contains("GUARD_STOP_TIMEOUT"), "{}", guard.transcript());
}

#[test]
fn without_dashes_guard_says_how_to_write_the_line() {
    for setup in everywhere() {
        let guard = end(setup.options(["node", "server.js", "--port", "80"]), 125);
        let said = guard.err().join("\n");
        assert!(said.contains("guard [OPTIONS] -- node server.js --port 80"), "{said}");
    }
    let guard = end(child(), 125);
    assert!(guard.err().join("\n").contains("guard [OPTIONS] -- COMMAND"), "{}", guard.transcript());
}

#[test]
fn a_subcommand_says_how_its_line_is_written() {
    for verb in ["ready", "health", "status", "stop", "restart"] {
        for wrong in ["--nonsense", "now"] {
            let guard = end(child().options([verb, wrong]), 125);
            let said = guard.err().join("\n");
            assert!(said.contains(&format!("usage: guard {verb} ")), "{said}");
            assert!(said.contains(wrong), "{said}");
        }
    }
    for verb in ["ready", "health", "status", "stop", "restart", "reload", "probe", "check"] {
        for words in [&["--help"][..], &["-h"], &["--timeout=5s", "--help"]] {
            let words = if verb == "check" { &words[words.len() - 1..] } else { words };
            let guard = end(child().options([&[verb], words].concat()), 0);
            let page = guard.out();
            assert!(page[0].starts_with(&format!("usage: guard {verb} ")) && page.len() < 12, "{page:?}");
            assert!(page[2].ends_with('.') || page[2].len() > 60, "it says what it does: {page:?}");
            assert_eq!(
                page.iter().any(|line| line.contains("--pid N ")),
                !["probe", "check"].contains(&verb),
                "{page:?}"
            );
        }
    }
    let guard = end(child(), 125);
    assert!(guard.err().join("\n").contains("guard --help"), "{}", guard.transcript());
}

#[test]
fn options_after_the_dashes_are_the_apps() {
    let mut guard = child().options(["--", "/bin/echo", "--help", "--stop-timeout=5s", "--"]).start();
    assert_eq!(guard.code(), 0);
    assert_eq!(guard.out(), ["--help --stop-timeout=5s --"]);
}

#[test]
fn check_prints_each_value_and_where_it_comes_from() {
    let setup = child().env("GUARD_STOP_TIMEOUT", "7s").options(["check", "--restart=never"]).fixture("say started");
    let guard = end(setup, 0);
    let shown = guard.out().join("\n");
    let help = help();
    let handed = ["GUARD_RUN", "GUARD_INSTANCE", "GUARD_RESTARTS", "GUARD_LAST_EXIT"];
    for name in variables(&help).into_iter().filter(|name| !handed.contains(name)) {
        assert_eq!(guard.out().iter().filter(|line| variables(line).contains(name)).count(), 1, "{name}\n{shown}");
    }
    let line = |name: &str| *guard.out().iter().find(|line| variables(line).contains(name)).unwrap();
    for (name, value, origin) in [
        ("GUARD_STOP_TIMEOUT", "7s", "environment"),
        ("GUARD_RESTART", "never", "--restart"),
        ("GUARD_BACKOFF_MAX", "10s", "default"),
    ] {
        assert!(line(name).contains(value) && line(name).contains(origin), "{name}\n{shown}");
    }
    assert!(!guard.out().contains(&"started"));
}

#[test]
fn check_names_what_is_in_doubt_and_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none/drain");
    for (name, value, about, way_out, at_start) in [
        (
            "GUARD_SIGNAL_MAP",
            "TERM=ignore",
            "GUARD_SIGNAL_MAP=SIGTERM=ignore: SIGTERM is no stop request",
            "SIGTERM=stop",
            true,
        ),
        ("GUARD_SIGNAL_MAP", "HUP=USR1,INT=restart", "SIGINT=restart", "SIGINT=stop", true),
        ("GUARD_STOP_SIGNAL", "KILL", "GUARD_STOP_SIGNAL=SIGKILL: the app has no time", "SIGTERM", true),
        ("GUARD_STOP_SIGNAL", "STOP", "GUARD_STOP_SIGNAL=SIGSTOP: the app does not hear", "SIGTERM", true),
        ("GUARD_DRAIN_FILE", missing.to_str().unwrap(), "there is no directory", "mount or make one", true),
        ("GUARD_DRAIN_FILE", directory.path().to_str().unwrap(), "it is a directory", "name a file", true),
        ("GUARD_DRAIN_FILE", "/dev/null", "it is a device", "name a file", true),
        ("GUARD_PRE_STOP", "true && true", "&& needs a shell", "sh -c", true),
        ("GUARD_PRE_STOP", "echo http://localhost:$PORT/", "$PORT needs a shell", "sh -c", true),
        ("GUARD_HEALTH_CHECK", "exec:true | true", "| needs a shell", "exec:sh -c", true),
        (
            "GUARD_PRE_STOP",
            "no-such-program",
            "GUARD_PRE_STOP: no-such-program: no such file in PATH",
            "whole path",
            true,
        ),
        ("GUARD_HEALTH_CHECK", "exec:/no/such/program", "/no/such/program: no such file", "right path", true),
        ("GUARD_DIAGNOSE", "exec:true | true", "| needs a shell", "exec:sh -c", true),
        (
            "GUARD_DIAGNOSE",
            "exec:no-such-program",
            "GUARD_DIAGNOSE: no-such-program: no such file in PATH",
            "whole path",
            true,
        ),
        ("GUARD_HEALTH_INTERVAL", "5s", "GUARD_HEALTH_INTERVAL=5s: does nothing", "GUARD_HEALTH_CHECK", true),
        ("HOME", "/", "the command: no-such-app: no such file in PATH", "whole path", false),
    ] {
        let app = if at_start { "true" } else { "no-such-app" };
        let guard = end(child().env(name, value).options(["check"]).app([app]), 0);
        let is_it = |line: &&str| line.starts_with("warning: ") && line.contains(about) && line.contains(way_out);
        assert_eq!(guard.out().into_iter().filter(is_it).count(), 1, "{about}\n{}", guard.transcript());
        assert_eq!(guard.out().iter().filter(|line| line.starts_with("warning")).count(), 1, "{}", guard.transcript());
        if at_start {
            let guard = end(child().env(name, value).app(["true"]), 0);
            let is_it = |msg: &str| msg.contains(about) && msg.contains(way_out);
            let said =
                guard.events().iter().any(|event| event.name() == "setting" && event.get("msg").is_some_and(is_it));
            assert!(said, "{about}\n{}", guard.transcript());
        }
    }
}

#[test]
fn a_drain_file_where_guards_user_may_not_write_is_in_doubt() {
    let user = if nix::unistd::geteuid().is_root() { "setuid 65534" } else { "" };
    let guard = end(child().inherits(user).env("GUARD_DRAIN_FILE", "/usr/drain").options(["check"]), 0);
    let warning = "warning: GUARD_DRAIN_FILE=/usr/drain: /usr cannot be written; mount a tmpfs or an emptyDir there";
    assert!(guard.out().contains(&warning), "{}", guard.transcript());
}

/// What would end guard at its start.
#[test]
fn check_tries_limits_and_files() {
    let user = if nix::unistd::geteuid().is_root() { "setuid 65534" } else { "" };
    let setup = child().inherits(user).env("GUARD_ENV_FILES", "SECRET").env("SECRET_FILE", "/no/such/secret");
    let guard = end(setup.env("GUARD_LIMIT_NOFILE", "unlimited").options(["check"]).app(["true"]), 0);
    for warning in ["SECRET: /no/such/secret: No such file or directory (ENOENT)", "GUARD_LIMIT_NOFILE=unlimited: "] {
        let is_it = |line: &&str| line.starts_with("warning: ") && line.contains(warning);
        assert_eq!(guard.out().into_iter().filter(is_it).count(), 1, "{}", guard.transcript());
    }
}

#[test]
fn guards_own_door_and_the_apps_sockets_have_ports_of_their_own() {
    for (listen, http, overlaps) in [
        ("8080", "8080", true),
        ("9090,name=8080", "8080", true),
        ("127.0.0.1:8080", "127.0.0.1:8080", true),
        ("127.0.0.1:8080", "127.0.0.2:8080", false),
        ("8080,unix:/run/8081", "8081", false),
    ] {
        let setup = child().env("GUARD_LISTEN", listen).env("GUARD_HTTP", http);
        let guard = end(setup.options(["check"]).app(["true"]), if overlaps { 125 } else { 0 });
        let is_it =
            |line: &&str| line.contains("GUARD_HTTP has this port (") && line.contains("8080); each takes its own");
        assert_eq!(guard.err().iter().any(is_it), overlaps, "{}", guard.transcript());
    }
}

#[test]
fn check_judges_files_as_the_user_that_guard_becomes() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let [drain, watched, secret] = ["drain", "watched", "secret"].map(|name| directory.path().join(name));
    std::fs::write(&watched, "").unwrap();
    std::fs::write(&secret, "").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o400)).unwrap();
    for (mode, warnings) in [
        (0o700, ["cannot write", "cannot read", "cannot read"].as_slice()),
        (0o755, &["cannot write", "cannot read"]),
        (0o777, &["cannot read"]),
    ] {
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode)).unwrap();
        let setup = child().env("GUARD_DRAIN_FILE", &drain).env("GUARD_USER", "54321");
        let setup = setup.env("GUARD_ON_CHANGE", format!("{}=HUP", watched.display()));
        let setup = setup.env("GUARD_ENV_FILES", "SECRET").env("SECRET_FILE", &secret);
        let guard = end(setup.options(["check"]).app(["true"]), 0);
        let found = guard.out().into_iter().filter(|line| line.contains("54321 cannot")).collect::<Vec<_>>();
        assert_eq!(found.len(), warnings.len(), "{}", guard.transcript());
        assert!(found.iter().zip(warnings).all(|(line, warning)| line.contains(warning)), "{found:?}");
    }
}

#[test]
fn what_is_right_is_not_in_doubt() {
    let directory = tempfile::tempdir().unwrap();
    let setup =
        child().env("GUARD_DRAIN_FILE", directory.path().join("drain")).env("GUARD_SIGNAL_MAP", "TERM=stop,HUP=USR1");
    let setup = setup.env("GUARD_PRE_STOP", "sh -c 'true && echo \"$HOME\" | cat'").env("GUARD_HEALTH_INTERVAL", "5s");
    let setup = setup.env("GUARD_HEALTH_CHECK", "exec:sh -c \"test -e $HOME\"").env("GUARD_STOP_SIGNAL", "QUIT");
    let guard = end(setup.options(["check"]).app(["true"]), 0);
    assert!(!guard.out().join("\n").contains("warning"), "{}", guard.transcript());
}

#[test]
fn check_shows_readiness_watchdog_and_health_settings() {
    let check = "exec:sh -c 'curl -f localhost | grep ok'";
    let setup = child().env("GUARD_HEALTH_CHECK", check).env("GUARD_WATCHDOG", "1500ms").env("GUARD_NODE_IPC", "on");
    let setup = setup.env("GUARD_HEALTH_TIMEOUT", "3").env("GUARD_HEALTH_START_PERIOD", "0");
    let guard = end(setup.options(["check", "--ready-timeout=2m", "--health-retries=5"]), 0);
    for (name, value, origin) in [
        // A health check changes this default.
        ("GUARD_READY", "health", "default"),
        ("GUARD_READY_TIMEOUT", "2m", "--ready-timeout"),
        ("GUARD_WATCHDOG", "1.5s", "environment"),
        ("GUARD_NODE_IPC", "on", "environment"),
        ("GUARD_HEALTH_CHECK", check, "environment"),
        ("GUARD_HEALTH_INTERVAL", "10s", "default"),
        ("GUARD_HEALTH_TIMEOUT", "3s", "environment"),
        ("GUARD_HEALTH_RETRIES", "5", "--health-retries"),
        ("GUARD_HEALTH_START_PERIOD", "0s", "environment"),
    ] {
        let rows = guard.out().into_iter().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()));
        let mut rows = rows.map(Iterator::collect::<Vec<_>>);
        assert!(rows.any(|row| row == [name, value, origin]), "{name}\n{}", guard.transcript());
    }
    // The last column lines up.
    let columns: BTreeSet<_> = guard.out().iter().filter_map(|line| line.rfind("  default")).collect();
    assert_eq!(columns.len(), 1, "{}", guard.transcript());
}

#[test]
fn check_needs_no_command_and_shows_the_default_of_the_platform() {
    let guard = end(child().env("KUBERNETES_SERVICE_HOST", "10.0.0.1").options(["check"]), 0);
    let line = guard.out().into_iter().find(|line| variables(line).contains("GUARD_STOP_TIMEOUT"));
    assert!(line.is_some_and(|line| line.contains("25s")), "{}", guard.transcript());
    assert!(guard.out().join("\n").contains("Kubernetes"), "{}", guard.transcript());
}

#[test]
fn check_reports_every_error() {
    let setup = WRONG.iter().fold(child(), |setup, (name, value, _)| setup.env(name, value));
    let guard = end(setup.options(["check"]), 125);
    let said = [guard.out(), guard.err()].concat().join("\n");
    for (name, value, takes) in WRONG {
        assert!(said.contains(&format!("{name}={value}")) && said.contains(takes), "{name}\n{said}");
    }
}

#[test]
fn the_platform_decides_the_default_stop_timeout_and_the_first_line_says_so() {
    for (variable, platform, seconds) in [
        ("KUBERNETES_SERVICE_HOST", "Kubernetes", "25"),
        ("ECS_CONTAINER_METADATA_URI_V4", "ECS", "25"),
        ("CONTAINER_APP_NAME", "Azure Container Apps", "25"),
        ("WEBSITE_INSTANCE_ID", "Azure App Service", "4"),
        ("DYNO", "Heroku", "25"),
        ("RENDER", "Render", "25"),
        ("RAILWAY_ENVIRONMENT_ID", "Railway", "2"),
        ("K_SERVICE", "Cloud Run", "8.3"),
        ("CLOUD_RUN_JOB", "Cloud Run", "8.3"),
        ("CLOUD_RUN_WORKER_POOL", "Cloud Run", "8.3"),
        ("VCAP_APPLICATION", "Cloud Foundry", "8.3"),
        ("NOMAD_ALLOC_ID", "Nomad", "4"),
        ("FLY_APP_NAME", "Fly.io", "4"),
        ("HOSTNAME", "Docker", "8.3"),
    ] {
        for setup in everywhere() {
            let mut guard = setup.env(variable, "x").fixture("env exit 0").start();
            assert_eq!(guard.line_after("env GUARD_STOP_TIMEOUT="), seconds, "{platform}");
            assert_eq!(guard.code(), 0);
            let first = &guard.events()[0];
            assert_eq!(first.name(), "start", "{}", first.line);
            assert_eq!(first.get("stop_timeout"), Some(format!("{seconds}s").as_str()), "{}", first.line);
            assert!(first.line.contains(platform), "{}", first.line);
            assert!(variable == "HOSTNAME" || first.line.contains(variable), "{}", first.line);
        }
    }
}

#[test]
fn a_platform_may_say_its_own_timeout_and_one_that_gives_none_is_a_warning() {
    for (variables, seconds) in [
        ([("WEBSITE_INSTANCE_ID", "x"), ("WEBSITES_CONTAINER_STOP_TIME_LIMIT", "120")], "100"),
        ([("RAILWAY_ENVIRONMENT_ID", "x"), ("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "60")], "50"),
        ([("RAILWAY_ENVIRONMENT_ID", "x"), ("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "0")], "2"),
        ([("RAILWAY_ENVIRONMENT_ID", "x"), ("HOME", "/")], "2"),
    ] {
        let setup = variables.iter().fold(child(), |setup, (name, value)| setup.env(name, value));
        let mut guard = setup.fixture("env exit 0").start();
        assert_eq!(guard.line_after("env GUARD_STOP_TIMEOUT="), seconds, "{variables:?}");
        assert_eq!(guard.code(), 0);
        let warned = guard.events().iter().any(|event| {
            let keys = ["event", "level", "variable"].map(|key| event.get(key));
            keys == [Some("setting"), Some("warn"), Some("RAILWAY_DEPLOYMENT_DRAINING_SECONDS")]
        });
        assert_eq!(warned, seconds == "2", "{}", guard.transcript());
    }
}

#[test]
fn where_the_platform_asks_with_sigint_the_app_gets_sigterm() {
    for (variable, platform) in [("NOMAD_ALLOC_ID", "Nomad"), ("FLY_APP_NAME", "Fly.io")] {
        for setup in everywhere() {
            let mut guard = setup.env(variable, "x").fixture("quit TERM 3 serve").start();
            guard.line("ready");
            let first = guard.event("start");
            let expected = format!("stop signal: SIGTERM, since {platform} asks with SIGINT");
            assert!(first.get("msg").is_some_and(|msg| msg.contains(&expected)), "{}", first.line);
            guard.signal(libc::SIGINT);
            guard.line("got TERM");
            assert_eq!(guard.code(), 3);
            assert!(!guard.out().contains(&"got INT"), "{}", guard.transcript());
        }
        let mut guard = child().env(variable, "x").env("GUARD_STOP_SIGNAL", "INT").fixture("quit INT 3 serve").start();
        guard.line("ready");
        assert!(!guard.event("start").line.contains("stop signal"), "{}", guard.transcript());
        guard.signal(libc::SIGTERM);
        guard.line("got INT");
        assert_eq!(guard.code(), 3);
    }
    // Elsewhere the app gets what came.
    let mut guard = child().fixture("quit INT 3 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGINT);
    guard.line("got INT");
    assert_eq!(guard.code(), 3);
}

#[test]
fn a_configured_stop_timeout_wins_over_the_platform_and_the_first_line_says_so() {
    let setup = child().env("NOMAD_ALLOC_ID", "x").env("GUARD_STOP_TIMEOUT", "1m");
    let mut guard = setup.fixture("env exit 0").start();
    assert_eq!(guard.line_after("env GUARD_STOP_TIMEOUT="), "60");
    assert_eq!(guard.code(), 0);
    let first = &guard.events()[0];
    assert!(first.line.contains("GUARD_STOP_TIMEOUT") && !first.line.contains("default for Nomad"), "{}", first.line);
}
