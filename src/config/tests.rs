use super::subcommands::{ClientCommand, Invocation};
use super::*;
use std::ffi::{CStr, CString, OsString};
use std::time::Duration;

impl Config {
    /// What this line gives, for the tests of other rooms.
    pub(crate) fn of_line(line: &str) -> Config {
        resolve(line, &[]).expect("a configuration")
    }
}

/// What the arguments, written as a line, and these variables give.
fn resolve(line: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let (_, layers) = layers(line, environment);
    Config::resolve(layers)
}

fn layers(line: &str, environment: &[(&str, &str)]) -> (Invocation, Layers) {
    let arguments = line.split_ascii_whitespace().map(OsString::from).collect();
    let entry = |(name, value): &(&str, &str)| -> &'static CStr {
        let entry = CString::new(format!("{name}={value}")).expect("no NUL");
        Box::leak(entry.into_boxed_c_str())
    };
    Layers::new(arguments, &environment.iter().map(entry).collect::<Vec<_>>())
}

fn errors(line: &str, environment: &[(&str, &str)]) -> Vec<String> {
    resolve(line, environment).expect_err("a configuration with errors").errors
}

#[test]
fn a_flag_wins_over_its_variable() {
    let environment = [("GUARD_STOP_TIMEOUT", "5s"), ("GUARD_DRAIN_DELAY", "1s")];
    let config =
        resolve("--stop-timeout 3s --signal-scope=group -- app --stop-timeout 9s", &environment).expect("valid");
    assert_eq!(config.stop.timeout, Some(Duration::from_secs(3)));
    assert_eq!(config.signal_scope, Scope::Group);
    assert_eq!(config.command, ["app", "--stop-timeout", "9s"]);
    let origins = ["GUARD_STOP_TIMEOUT", "GUARD_DRAIN_DELAY", "GUARD_RESTART"].map(|name| config.origin(name));
    assert_eq!(origins, [Origin::Flag, Origin::Environment, Origin::Default]);
}

#[test]
fn schemes_are_written_in_any_case() {
    for (text, shown) in [("EXEC:true 1", "exec:true 1"), ("Http://localhost/x", "http://localhost/x")] {
        let config = resolve("-- app", &[("GUARD_HEALTH_CHECK", text)]).expect("a configuration");
        assert_eq!(config.health_check.map(|check| check.to_string()).as_deref(), Some(shown));
    }
}

#[test]
fn an_error_is_one_line_whatever_was_given() {
    let errors = resolve("-- app", &[("GUARD_RESTART", "a\u{1b}[31mb\nguard: c")]).expect_err("an error").to_string();
    assert!(errors.starts_with(r"GUARD_RESTART=a\u{1b}[31mb\nguard: c: ") && errors.lines().count() == 1, "{errors}");
}

#[test]
fn all_errors_come_at_once_and_name_what_was_given_and_what_is_taken() {
    let environment = [
        ("GUARD_STOP_SIGNAL", "FOO"),
        ("GUARD_MAX_RESTARTS", "-1"),
        ("GUARD_SIGNAL_MAP", "HUP=BAR,USR1=USR2,KILL=TERM"),
        ("GUARD_SUCCESS_CODES", "1,256,BAZ"),
        ("GUARD_STOP_TIMOUT", "5s"),
    ];
    let errors = errors("--bogus=1 --drain-dela=1s --restart", &environment);
    for parts in [
        &["--bogus: no such option; guard --help has them all"][..],
        &["--drain-dela", "--drain-delay"],
        &["GUARD_SIGNAL_MAP=HUP=BAR", "\"BAR\"", "SIGKILL cannot be mapped"],
        &["GUARD_SUCCESS_CODES=1,256,BAZ", "\"256\"", "\"BAZ\""],
        &["warning: GUARD_STOP_TIMOUT", "GUARD_STOP_TIMEOUT"],
        &["--restart", "no value", "on-failure"],
        &["GUARD_STOP_SIGNAL=FOO", "a signal such as TERM"],
        &["GUARD_MAX_RESTARTS=-1", "unlimited"],
    ] {
        let found = errors.iter().any(|error| parts.iter().all(|part| error.contains(part)));
        assert!(found, "{parts:?} in {errors:#?}");
    }
}

#[test]
fn every_variable_refuses_nonsense_and_takes_what_it_shows() {
    let config = resolve("-- app", &[]).expect("valid");
    for variable in VARIABLES {
        let shown = (variable.show)(&config);
        let refuses = |value| resolve("-- app", &[(variable.name, value)]).is_err();
        let free_text = ["GUARD_PRE_STOP", "GUARD_DRAIN_FILE", "GUARD_TERMINATION_LOG"].contains(&variable.name);
        assert!(free_text || refuses("\u{1}?"), "{}", variable.name);
        let by_words = ["the signal received", "inherited", "the URL's"].contains(&shown.as_str());
        assert!(by_words || !refuses(&shown), "{}={shown}", variable.name);
        assert!(!refuses(""), "an empty variable counts as not set: {}", variable.name);
    }
}

#[test]
fn values_that_contradict_each_other_are_errors() {
    for (environment, word) in [
        ([("GUARD_DRAIN_DELAY", "10s"), ("HOME", "/")], "a default"),
        ([("GUARD_DRAIN_DELAY", "2s"), ("GUARD_STOP_TIMEOUT", "2s")], "GUARD_STOP_TIMEOUT (2s)"),
        ([("GUARD_BACKOFF_INITIAL", "2s"), ("GUARD_BACKOFF_MAX", "1s")], "GUARD_BACKOFF_MAX"),
        ([("GUARD_DRAIN_DELAY", "60s"), ("GUARD_LOG", "off")], "GUARD_STOP_TIMEOUT"),
        ([("GUARD_SUCCESS_CODES", "3,4"), ("GUARD_NO_RESTART_CODES", "4")], "4 is in GUARD_SUCCESS_CODES too"),
        ([("GUARD_NOTIFY", "off"), ("GUARD_READY", "notify")], "GUARD_NODE_IPC=on"),
        ([("GUARD_NOTIFY", "off"), ("GUARD_WATCHDOG", "30s")], "GUARD_WATCHDOG"),
    ] {
        let errors = errors("-- app", &environment);
        assert!(errors.len() == 1 && errors[0].contains(word), "{environment:?}: {errors:?}");
    }
    // The value as it was set, and where.
    let told = errors("-- app", &[("GUARD_DRAIN_DELAY", "20000ms")]);
    assert!(told[0].starts_with("GUARD_DRAIN_DELAY=20000ms: leaves"), "{told:?}");
    let told = errors("--drain-delay 20 -- app", &[]);
    assert!(told[0].starts_with("GUARD_DRAIN_DELAY=20 (--drain-delay): leaves"), "{told:?}");
    assert!(resolve("-- app", &[("GUARD_DRAIN_DELAY", "1h"), ("GUARD_STOP_TIMEOUT", "none")]).is_ok());
}

#[test]
fn the_app_gets_a_notify_socket_where_something_asks_for_one() {
    for (environment, expected) in [
        (&[][..], false),
        (&[("GUARD_NOTIFY", "on")], true),
        (&[("GUARD_READY", "notify")], true),
        (&[("GUARD_READY", "notify"), ("GUARD_NODE_IPC", "on")], true),
        (&[("GUARD_READY", "notify"), ("GUARD_NODE_IPC", "on"), ("GUARD_NOTIFY", "off")], false),
        (&[("GUARD_NODE_IPC", "on")], false),
        (&[("GUARD_WATCHDOG", "1s")], true),
        (&[("NOTIFY_SOCKET", "/run/outer")], true),
        (&[("NOTIFY_SOCKET", "/run/outer"), ("GUARD_NOTIFY", "off")], false),
        (&[("NOTIFY_SOCKET", "")], false),
        (&[("GUARD_HEALTH_CHECK", "exec:true")], false),
    ] {
        assert_eq!(resolve("-- app", environment).expect("valid").notify, expected, "{environment:?}");
    }
}

#[test]
fn the_app_does_not_see_guards_configuration_and_unknown_names_are_told() {
    let names =
        ["PATH", "GUARD_RESTART", "GUARD_ID", "GUARD_RUN", "GUARD_SERVICE_HOST", "GUARD_PORT_80_TCP", "GUARD_RESTRAT"];
    let config = resolve("-- app", &names.map(|name| (name, "always"))).expect("valid");
    let kept: Vec<_> = config.environment.iter().map(|entry| entry.name().to_str().expect("a name")).collect();
    assert_eq!(kept, ["PATH", "GUARD_SERVICE_HOST", "GUARD_PORT_80_TCP", "GUARD_RESTRAT"]);
    let text = "GUARD_RESTRAT is no variable of guard's; the nearest is GUARD_RESTART".to_owned();
    let kind = WarningKind::UnknownVariable;
    assert_eq!(config.warnings, [Warning { kind, variable: "GUARD_RESTRAT".to_owned(), text }]);
}

#[test]
fn what_a_guard_hands_to_its_app_is_no_unknown_name() {
    let warned = |names: &[&str]| {
        let environment: Vec<_> = names.iter().map(|name| (*name, "1")).collect();
        resolve("-- app", &environment).expect("valid").warnings.len()
    };
    for name in ["GUARD_ID", "GUARD_RUN", "GUARD_LAST_EXIT", "GUARD_MAIN_PID", "GUARD_STOP_TIME_LEFT"] {
        assert_eq!(warned(&[name]), 0, "{name}");
    }
    for slip in ["GUARD_INSTANCE", "GUARD_RESTARTS"] {
        assert_eq!((warned(&[slip]), warned(&[slip, "GUARD_RUN"])), (1, 0), "{slip}");
    }
}

#[test]
fn a_restart_in_place_always_has_a_deadline() {
    let config = resolve("--max-restarts 0 --stop-timeout none -- app", &[("KUBERNETES_SERVICE_HOST", "x")]);
    let config = config.expect("valid");
    assert_eq!(config.restart.max, Some(0));
    assert_eq!((config.stop.timeout, config.stop.restart_timeout), (None, Duration::from_secs(25)));
}

#[test]
fn the_command_stands_after_two_dashes() {
    assert!(errors("node server.js", &[])[0].contains("guard [OPTIONS] -- node server.js"));
    assert!(errors("--", &[])[0].contains("no command after --"));
    // What follows an option that guard does not know is no second error.
    for line in ["--bogus", "--bogus 5s -- app", "--bogus app", "--bogus=5s --", "check --bogus 5s", "--stop-timeout"] {
        let errors = errors(line, &[]);
        assert!(errors.len() == 1 && errors[0].starts_with("--"), "{line}: {errors:?}");
    }
    assert!(errors("--hepl", &[])[0].ends_with("the nearest is --help"));
    assert_eq!(layers("check --restart never", &[]).0, Invocation::Check);
    assert_eq!(layers("--version", &[]).0, Invocation::Version);
    assert_eq!(layers("check --restart never -h", &[]).0, Invocation::Help(Some("check")));
    assert_eq!(layers("-- check", &[]).0, Invocation::Run);
}

#[test]
fn a_first_word_may_be_a_subcommand_which_reads_the_rest_itself() {
    for (line, mode, words) in [
        ("ready", Invocation::Ask(ClientCommand::Ready), 0),
        ("health --timeout 1s", Invocation::Ask(ClientCommand::Health), 2),
        ("status --json --help", Invocation::Help(Some("status")), 2),
        ("stop now", Invocation::Ask(ClientCommand::Stop), 1),
        ("restart -- x", Invocation::Ask(ClientCommand::Restart), 2),
        ("reload", Invocation::Ask(ClientCommand::Reload), 0),
        ("probe http://localhost/ --version", Invocation::Probe, 2),
    ] {
        let (found, layers) = layers(line, &[("GUARD_RESTART", "nonsense")]);
        assert_eq!((found, layers.words.len(), layers.errors), (mode, words, Vec::new()), "{line}");
    }
    let (mode, app) = layers("-- ready", &[]);
    assert_eq!((mode, app.command), (Invocation::Run, vec![OsString::from("ready")]));
    let (mode, late) = layers("--restart=never ready", &[]);
    assert_eq!((mode, late.errors.len()), (Invocation::Run, 1));
}

#[test]
fn the_times_of_checks_are_time_to_become_ready_unless_that_is_set() {
    let timeout = |options: &str| {
        let line = format!("--health-check tcp://127.0.0.1:1 {options} -- app");
        Config::of_line(&line).ready.timeout.as_secs()
    };
    assert_eq!(timeout(""), 60);
    assert_eq!(timeout("--health-start-period 5m"), 300);
    assert_eq!(timeout("--health-start-period 5m --ready health"), 300);
    assert_eq!(timeout("--health-start-period 5m --ready-timeout 30s"), 30);
    assert_eq!(timeout("--health-start-period 5m --ready notify"), 60);
    assert_eq!(timeout("--health-start-period 0 --health-interval 2m"), 122, "the first check comes then");
}
