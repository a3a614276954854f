//! How the values of single variables are read and shown.

use super::duration;
use super::list::each;
use super::settings::{
    Diagnose, HealthCheck, Hold, LogFormat, MaxMemory, Meaning, Readiness, RestartPolicy, Scope, SignalMap,
};
use super::size;
use super::target::Target;
use crate::signal::{Signal, number};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The words that a variable takes, and the meaning of each.
type Choices<T, const N: usize> = [(&'static str, T); N];

pub(super) const POLICIES: Choices<RestartPolicy, 3> =
    [("on-failure", RestartPolicy::OnFailure), ("always", RestartPolicy::Always), ("never", RestartPolicy::Never)];
pub(super) const SCOPES: Choices<Scope, 2> = [("process", Scope::Process), ("group", Scope::Group)];
pub(super) const READINESS: Choices<Readiness, 4> = [
    ("exec", Readiness::Exec),
    ("listen", Readiness::Listen),
    ("notify", Readiness::Notify),
    ("health", Readiness::Health),
];
/// YAML turns a bare `on` into `true`. The first of each is the one that is shown.
pub(super) const SWITCH: Choices<bool, 8> = [
    ("on", true),
    ("off", false),
    ("true", true),
    ("false", false),
    ("yes", true),
    ("no", false),
    ("1", true),
    ("0", false),
];
const MEANINGS: Choices<Meaning, 6> = [
    ("stop", Meaning::Stop),
    ("restart", Meaning::Restart),
    ("reload", Meaning::Reload),
    ("scale+", Meaning::ScaleUp),
    ("scale-", Meaning::ScaleDown),
    ("ignore", Meaning::Ignore),
];
pub(super) const FORMATS: Choices<LogFormat, 2> = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// The value of this word, in any case.
pub(super) fn choose<T: Copy>(choices: &[(&str, T)], text: &str) -> Result<T, String> {
    let choice = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    choice.map(|(_, value)| *value).ok_or_else(|| "unknown word".to_owned())
}

/// The word for this value.
pub(super) fn chosen<T: Copy + PartialEq>(choices: &[(&str, T)], value: T) -> String {
    let choice = choices.iter().find(|(_, known)| *known == value);
    choice.map_or_else(String::new, |(word, _)| (*word).to_owned())
}

/// A size, or a part of the container's memory.
pub(super) fn max_memory(text: &str) -> Result<MaxMemory, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent = number(percent).filter(|percent| (1..=100).contains(percent));
        return percent.map(MaxMemory::Percent).ok_or_else(|| "not a percentage from 1% to 100%".to_owned());
    }
    let bytes = size::parse(text)?;
    if bytes == 0 { Err("no app can do without memory".to_owned()) } else { Ok(MaxMemory::Bytes(bytes)) }
}

pub(super) fn show_max_memory(limit: Option<MaxMemory>) -> String {
    match limit {
        None => "none".to_owned(),
        Some(MaxMemory::Bytes(bytes)) => size::show(bytes),
        Some(MaxMemory::Percent(percent)) => format!("{percent}%"),
    }
}

/// `on`, `off`, or ports.
pub(super) fn hold(text: &str) -> Result<Hold, String> {
    if let Ok(on) = choose(&SWITCH, text) {
        return Ok(if on { Hold::All } else { Hold::Off });
    }
    let mut ports = Vec::new();
    each(text, &mut |port| {
        ports.push(number::<u16>(port).filter(|&port| port > 0).ok_or_else(|| format!("{port:?} is not a port"))?);
        Ok(())
    })?;
    Ok(Hold::These(ports))
}

pub(super) fn show_hold(hold: &Hold) -> String {
    match hold {
        Hold::Off => chosen(&SWITCH, false),
        Hold::All => chosen(&SWITCH, true),
        Hold::These(ports) => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
    }
}

/// A duration of a millisecond or more: a shorter one would be shown as `0s`.
pub(super) fn positive(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text)?;
    if duration < Duration::from_millis(1) { Err("less than a millisecond".to_owned()) } else { Ok(duration) }
}

/// A command in words, at least one, split by the quoting rules of POSIX (Shell Command Language, 2.2); nothing is
/// expanded.
pub(super) fn command(text: &str) -> Result<Vec<String>, String> {
    let words = shell_words::split(text).map_err(|_| "a quote is not closed")?;
    if words.first().is_none_or(String::is_empty) { Err("no command".to_owned()) } else { Ok(words) }
}

/// What follows `exec:`, which is written in any case as the schemes of URLs are.
fn after_exec(text: &str) -> Option<&str> {
    text.split_once(':').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("exec")).map(|(_, command)| command)
}

pub(super) fn health_check(text: &str) -> Result<HealthCheck, String> {
    match after_exec(text) {
        Some(text) => command(text).map(HealthCheck::Exec),
        None => Target::parse(text).map(HealthCheck::Probe),
    }
}

/// In the form that the variable takes.
impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthCheck::Probe(target) => target.fmt(f),
            HealthCheck::Exec(words) => write!(f, "exec:{}", shell_words::join(words)),
        }
    }
}

pub(super) fn diagnose(text: &str) -> Result<Diagnose, String> {
    match after_exec(text) {
        Some(text) => command(text).map(Diagnose::Exec),
        None => {
            let signal: Signal = text.parse()?;
            // No app can answer them.
            let is_deaf = [Signal::KILL, Signal::STOP, Signal::CHLD, Signal::CONT].contains(&signal);
            if is_deaf { Err(format!("{signal} asks nothing")) } else { Ok(Diagnose::Signal(signal)) }
        }
    }
}

/// In the form that the variable takes.
impl fmt::Display for Diagnose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Diagnose::Signal(signal) => signal.fmt(f),
            Diagnose::Exec(words) => write!(f, "exec:{}", shell_words::join(words)),
        }
    }
}

/// How variables begin that guard gives the app, or takes from it.
const SET_BY_GUARD: [&str; 7] =
    ["GUARD_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_FD", "LISTEN_PID", "NODE_CHANNEL_FD", "NODE_APP_INSTANCE"];

/// Names of variables, comma-separated.
pub(super) fn variable_names(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    each(text, &mut |name| {
        let is_plain = |(index, byte): (usize, u8)| {
            byte == b'_' || byte.is_ascii_alphabetic() || index > 0 && byte.is_ascii_digit()
        };
        if name.is_empty() || !name.bytes().enumerate().all(is_plain) {
            return Err(format!("{name:?} is no name of a variable"));
        }
        if SET_BY_GUARD.iter().any(|start| name.starts_with(start)) {
            return Err(format!("{name:?} is one that guard sets itself"));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        Ok(())
    })?;
    Ok(names)
}

/// A directory that exists.
pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    let directory = PathBuf::from(text);
    let metadata = directory.metadata().map_err(|error| error.to_string())?;
    if metadata.is_dir() { Ok(directory) } else { Err("not a directory".to_owned()) }
}

/// A filter that names only levels and parts of guard.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    // YAML turns a bare `off` into `false`.
    if choose(&SWITCH, text) == Ok(false) {
        return Ok(chosen(&SWITCH, false));
    }
    for directive in text.split(',').map(str::trim) {
        // A target is guard's: env_logger takes any word for one, so a typing error would silence the log. A second = or a / never
        // reaches env_logger, which prints filters that it cannot read.
        let (target, level) = directive.split_once('=').unwrap_or((directive, "off"));
        let is_ours = target == "guard" || target.starts_with("guard::") && !target.contains('/');
        let is_level = |text: &str| text.parse::<log::LevelFilter>().is_ok();
        if !(is_ours && is_level(level) || is_level(directive)) {
            return Err(format!("{directive:?} sets no level of guard's log"));
        }
    }
    Ok(text.to_owned())
}

/// `none`, or what `parse` reads.
pub(super) fn optional<T>(text: &str, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.eq_ignore_ascii_case("none") { Ok(None) } else { parse(text).map(Some) }
}

pub(super) fn path(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() { Err("no path".to_owned()) } else { optional(text, |text| Ok(PathBuf::from(text))) }
}

pub(super) fn show_path(path: Option<&PathBuf>) -> String {
    path.map_or("none".to_owned(), |path| path.display().to_string())
}

/// A signal that no process can catch, or that guard needs for itself, takes no other meaning.
pub(super) fn signal_map(text: &str) -> Result<SignalMap, String> {
    let mut map = SignalMap::new();
    each(text, &mut |entry| {
        let (from, to) = entry.split_once('=').ok_or_else(|| format!("{entry:?} has no ="))?;
        let signal: Signal = from.trim().parse()?;
        if [Signal::KILL, Signal::STOP, Signal::CHLD].contains(&signal) {
            return Err(format!("{signal} cannot be mapped"));
        }
        if map.iter().any(|(mapped, _)| *mapped == signal) {
            return Err(format!("{signal} is mapped twice"));
        }
        map.push((signal, meaning(to.trim())?));
        Ok(())
    })?;
    Ok(map)
}

/// In the form that the variables take.
impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meaning::Forward(signal) => signal.fmt(f),
            Meaning::Stop | Meaning::Restart | Meaning::Reload => f.write_str(&chosen(&MEANINGS, *self)),
            Meaning::ScaleUp | Meaning::ScaleDown | Meaning::Ignore => f.write_str(&chosen(&MEANINGS, *self)),
        }
    }
}

/// Paths, each with its meaning after the last `=`.
pub(super) fn changes(text: &str) -> Result<Vec<(PathBuf, Meaning)>, String> {
    let mut changes: Vec<(PathBuf, Meaning)> = Vec::new();
    each(text, &mut |entry| {
        let (path, to) = entry.rsplit_once('=').ok_or_else(|| format!("{entry:?} has no ="))?;
        let path = PathBuf::from(path.trim());
        if path.as_os_str().is_empty() {
            return Err(format!("{entry:?} names no path"));
        }
        if changes.iter().any(|(known, _)| *known == path) {
            return Err(format!("{} is named twice", path.display()));
        }
        changes.push((path, meaning(to.trim())?));
        Ok(())
    })?;
    Ok(changes)
}

pub(super) fn show_changes(changes: &[(PathBuf, Meaning)]) -> String {
    let entries: Vec<String> = changes.iter().map(|(path, meaning)| format!("{}={meaning}", path.display())).collect();
    if entries.is_empty() { "none".to_owned() } else { entries.join(",") }
}

fn meaning(text: &str) -> Result<Meaning, String> {
    choose(&MEANINGS, text).or_else(|_| text.parse().map(Meaning::Forward))
}

pub(super) fn show_signal_map(map: &SignalMap) -> String {
    let entries: Vec<String> = map.iter().map(|(signal, meaning)| format!("{signal}={meaning}")).collect();
    if entries.is_empty() { "none".to_owned() } else { entries.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        for (text, words) in [
            ("  curl  -X POST ", &["curl", "-X", "POST"][..]),
            ("echo 'a b' \"c d\" e\\ f", &["echo", "a b", "c d", "e f"]),
            ("a'b'\"c\"d", &["abcd"]),
            ("a '' \"\"", &["a", "", ""]),
            (r#""a\"b\\c\d""#, &[r#"a"b\c\d"#]),
            (r"'a\b'", &[r"a\b"]),
            ("echo $HOME *", &["echo", "$HOME", "*"]),
            ("a\\\nb", &["ab"]),
            ("a#b #c", &["a#b"]),
        ] {
            assert_eq!(command(text), Ok(words.iter().map(|&word| word.to_owned()).collect()), "{text}");
        }
    }

    #[test]
    fn an_open_quote_and_no_command_are_errors() {
        for (text, problem) in
            [("'a", "quote"), ("\"a", "quote"), ("\"a\\", "quote"), ("", "no command"), ("''", "no command")]
        {
            assert!(command(text).is_err_and(|error| error.contains(problem)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_command_that_is_shown_reads_back(words in prop::collection::vec("[\\PC\\n\\r\\t]+", 1..5)) {
            prop_assert_eq!(command(&shell_words::join(&words)), Ok(words));
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = command(&text);
        }
    }
}
