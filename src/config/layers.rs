//! The raw layers: what the command line and the environment say, not yet read as values.

use super::entry::Entry;
use super::suggest::nearest;
use super::variables::{VARIABLES, Variable};
use super::{Origin, Unknown};
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What guard is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Run,
    Check,
    /// Ask the guard that runs.
    Ask(Verb),
    /// Probe a server.
    Probe,
    Help,
    Version,
}

/// What the guard that runs can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Ready,
    Health,
    Status,
    Stop,
    Restart,
}

impl Mode {
    /// What a line is for that begins with this word; otherwise it runs an app.
    fn of(first: &str) -> Option<Mode> {
        Some(match first {
            "check" => Mode::Check,
            "probe" => Mode::Probe,
            "ready" => Mode::Ask(Verb::Ready),
            "health" => Mode::Ask(Verb::Health),
            "status" => Mode::Ask(Verb::Status),
            "stop" => Mode::Ask(Verb::Stop),
            "restart" => Mode::Ask(Verb::Restart),
            _ => return None,
        })
    }
}

/// Flags and environment side by side; a flag wins.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    flags: Vec<(&'static str, OsString)>,
    environment: Vec<Entry>,
    /// Those of it whose names begin as guard's do.
    own: Vec<Entry>,
    /// The command after `--`.
    pub command: Vec<OsString>,
    /// What follows [`Mode::Ask`] and [`Mode::Probe`], which read it themselves.
    pub words: Vec<OsString>,
    /// What is wrong with the command line itself.
    pub errors: Vec<String>,
}

/// How to write the line; part of every error about it.
pub const USAGE: &str = "usage: guard [OPTIONS] -- COMMAND [ARG]...";

/// Variables that an outer guard hands to its app, which may be guard again.
pub const HANDED_DOWN: [&str; 6] = [
    "GUARD_RUN",
    "GUARD_INSTANCE",
    "GUARD_RESTARTS",
    "GUARD_LAST_EXIT",
    "GUARD_STOP_SIGNAL_RECEIVED",
    "GUARD_STOP_TIME_LEFT",
];

impl Layers {
    /// Reads the arguments of the process (without the program's name), and its environment.
    pub fn from_process(environment: &[&'static CStr]) -> (Mode, Layers) {
        Layers::new(std::env::args_os().skip(1), environment)
    }

    pub(super) fn new(arguments: impl Iterator<Item = OsString>, environment: &[&'static CStr]) -> (Mode, Layers) {
        let environment: Vec<Entry> = environment.iter().map(|text| Entry::new(text)).collect();
        let own = environment.iter().copied().filter(|entry| is_prefixed(entry.name())).collect();
        let mut layers = Layers { environment, own, ..Layers::default() };
        let mut arguments = arguments.peekable();
        let subcommand = arguments.peek().and_then(|first| Mode::of(first.to_str()?));
        let mode = subcommand.unwrap_or(Mode::Run);
        if subcommand.is_some() {
            arguments.next();
        }
        if subcommand.is_some() && arguments.peek().is_some_and(|word| word == "--help" || word == "-h") {
            return (Mode::Help, layers);
        }
        if matches!(mode, Mode::Ask(_) | Mode::Probe) {
            layers.words = arguments.collect();
            return (mode, layers);
        }
        let mut separated = false;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--") => {
                    separated = true;
                    layers.command = arguments.by_ref().collect();
                }
                Some("--help" | "-h") => return (Mode::Help, layers),
                Some("--version" | "-V") => return (Mode::Version, layers),
                _ if argument.as_bytes().starts_with(b"--") => layers.flag(&argument, &mut arguments),
                _ => {
                    // A word that is no flag: the command begins here, and so ends what guard can make sense of.
                    let mut line = argument.to_string_lossy().into_owned();
                    for rest in arguments.by_ref() {
                        line = format!("{line} {}", rest.to_string_lossy());
                    }
                    layers.errors.push(format!("the command stands after --: guard [OPTIONS] -- {line}"));
                    return (mode, layers);
                }
            }
        }
        if layers.command.is_empty() && (mode == Mode::Run || separated) {
            let what = if separated { "no command after --" } else { "no command" };
            layers.errors.push(format!("{what}; {USAGE}"));
        }
        (mode, layers)
    }

    /// `--name value` or `--name=value`.
    fn flag(&mut self, flag: &OsStr, arguments: &mut std::iter::Peekable<impl Iterator<Item = OsString>>) {
        let mut parts = flag.as_bytes().splitn(2, |&byte| byte == b'=').map(OsStr::from_bytes);
        let name = parts.next().unwrap_or(flag).to_string_lossy();
        let name = name.as_ref();
        let inline = parts.next().map(OsStr::to_os_string);
        let Some(variable) = VARIABLES.iter().find(|variable| variable.flag() == name) else {
            let flags: Vec<String> = VARIABLES.iter().map(Variable::flag).collect();
            let nearest = nearest(name, flags.iter().map(String::as_str));
            self.errors.push(format!("{name}: no such option; the nearest is {nearest}"));
            return;
        };
        match inline.or_else(|| arguments.next_if(|next| next != "--")) {
            Some(value) => self.flags.push((variable.name, value)),
            None => self.errors.push(format!("{name}: no value; it takes {}", variable.takes)),
        }
    }

    /// The value of a variable of the environment; an empty one counts as not set, as compose files leave it so.
    pub fn environment(&self, name: &str) -> Option<&OsStr> {
        let entries = if is_prefixed(name.as_ref()) { &self.own } else { &self.environment };
        let entry = entries.iter().find(|entry| entry.name() == name)?;
        Some(entry.value()).filter(|value| !value.is_empty())
    }

    /// The value that wins, and its layer; of a flag given twice, the last.
    pub fn value(&self, variable: &Variable) -> Option<(Origin, &OsStr)> {
        let flag = self.flags.iter().rev().find(|(name, _)| *name == variable.name);
        flag.map(|(_, value)| (Origin::Flag, value.as_os_str()))
            .or_else(|| Some((Origin::Environment, self.environment(variable.name)?)))
    }

    /// Variables that look like guard's, and are not.
    pub fn unknown(&self) -> Vec<Unknown> {
        let ours = |name: &str| VARIABLES.iter().any(|variable| variable.name == name) || HANDED_DOWN.contains(&name);
        // What Kubernetes injects for a Service called guard: GUARD_SERVICE_HOST, GUARD_PORT_80_TCP_ADDR and so on.
        let kubernetes = |name: &str| name.starts_with("GUARD_SERVICE_") || name.starts_with("GUARD_PORT");
        let names = self.own.iter().map(|entry| entry.name().to_string_lossy());
        names
            .filter(|name| !ours(name) && !kubernetes(name))
            .map(|name| Unknown {
                nearest: nearest(&name, VARIABLES.iter().map(|variable| variable.name)),
                name: name.into_owned(),
            })
            .collect()
    }

    /// The environment without guard's own part of it: what an app starts from.
    pub fn into_environment_of_the_app(self) -> Vec<Entry> {
        let ours = |name: &OsStr| {
            is_prefixed(name)
                && (VARIABLES.iter().any(|variable| name == variable.name)
                    || HANDED_DOWN.iter().any(|handed| name == *handed))
        };
        self.environment.into_iter().filter(|entry| !ours(entry.name())).collect()
    }
}

/// Whether a name begins as those of guard's variables do.
fn is_prefixed(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"GUARD_")
}
