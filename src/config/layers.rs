//! The raw layers: what the command line and the environment say, not yet read as values.

use super::arguments::{Argument, Arguments};
use super::entry::Entry;
use super::settings::{Origin, Warning, WarningKind};
use super::subcommands::{Invocation, SUBCOMMANDS};
use super::suggest::{hint, slip};
use super::variable::Variable;
use super::variables::VARIABLES;
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Flags and environment side by side; a flag wins.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    flags: Vec<(&'static str, OsString)>,
    environment: Vec<Entry>,
    /// The entries of the environment whose names begin as guard's do.
    own: Vec<Entry>,
    /// The command after `--`.
    pub command: Vec<OsString>,
    /// The arguments of [`Invocation::Ask`] and [`Invocation::Probe`], which read them themselves.
    pub words: Vec<OsString>,
    /// What feeds stdin, where that can be read only once.
    pub stdin: Option<&'static str>,
    /// Errors of the command line itself.
    pub errors: Vec<String>,
}

/// How the command line is written; part of the errors about it.
pub const USAGE: &str = "usage: guard [OPTIONS] -- COMMAND [ARG]..., and guard --help for more";

/// Those of [`HANDED_DOWN`] that are a letter away from a setting.
const SLIPS: [&str; 2] = ["GUARD_INSTANCE", "GUARD_RESTARTS"];

/// Variables that an outer guard hands to its app, which may be guard again.
pub const HANDED_DOWN: [&str; 8] = [
    "GUARD_ID",
    "GUARD_RUN",
    "GUARD_INSTANCE",
    "GUARD_RESTARTS",
    "GUARD_LAST_EXIT",
    "GUARD_MAIN_PID",
    "GUARD_STOP_SIGNAL_RECEIVED",
    "GUARD_STOP_TIME_LEFT",
];

impl Layers {
    /// Reads the arguments of the process (without the program's name), and its environment.
    pub fn new(arguments: Vec<OsString>, environment: &[&'static CStr]) -> (Invocation, Layers) {
        let environment: Vec<Entry> = environment.iter().map(|text| Entry::new(text)).collect();
        let own = environment.iter().copied().filter(|entry| is_prefixed(entry.name())).collect();
        let mut layers = Layers { environment, own, ..Layers::default() };
        let mut arguments = Arguments::new(arguments);
        let first = arguments.peek();
        let subcommand = SUBCOMMANDS.iter().find(|subcommand| first.is_some_and(|first| first == subcommand.name));
        if subcommand.is_some() {
            arguments.next();
        }
        let invocation = subcommand.map_or(Invocation::Run, |subcommand| subcommand.invocation);
        let subcommand = subcommand.map(|subcommand| subcommand.name);
        if let Invocation::Ask(_) | Invocation::Probe = invocation {
            layers.words = arguments.rest();
            let wants_help = layers.words.iter().any(|word| word == "--help" || word == "-h");
            return (if wants_help { Invocation::Help(subcommand) } else { invocation }, layers);
        }
        let mut separated = false;
        while let Some(argument) = arguments.next() {
            match argument {
                Argument::Separator => {
                    separated = true;
                    layers.command = arguments.rest();
                }
                Argument::Option(name, inline) => match name.as_str() {
                    "--help" | "-h" => return (Invocation::Help(subcommand), layers),
                    "--version" | "-V" => return (Invocation::Version, layers),
                    name => layers.flag(name, inline, &mut arguments),
                },
                // After an option that guard does not know, nobody knows where the command begins.
                Argument::Word(_) if !layers.errors.is_empty() => {}
                Argument::Word(word) => {
                    // The command begins here, so guard can make no sense of the rest.
                    let rest = arguments.rest();
                    let words = [&word].into_iter().chain(&rest).map(|word| word.to_string_lossy());
                    let line = words.collect::<Vec<_>>().join(" ");
                    let mut known = SUBCOMMANDS.iter().map(|subcommand| subcommand.name).chain(["--help", "--version"]);
                    let meant = slip(&word.to_string_lossy(), &mut known);
                    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean guard {meant}?"));
                    layers.errors.push(format!("the command stands after --: guard [OPTIONS] -- {line}{meant}"));
                    return (invocation, layers);
                }
            }
        }
        let is_missing =
            layers.command.first().is_none_or(|word| word.is_empty()) && (invocation == Invocation::Run || separated);
        if is_missing && layers.errors.is_empty() {
            let problem = if separated { "no command after --" } else { "no command" };
            layers.errors.push(format!("{problem}; {USAGE}"));
        }
        (invocation, layers)
    }

    /// Whether guard with these arguments would run an app.
    pub fn runs_an_app(arguments: &[OsString]) -> bool {
        let (invocation, layers) = Layers::new(arguments.to_vec(), &[]);
        invocation == Invocation::Run && layers.errors.is_empty()
    }

    /// The flags in the order given, each as one argument.
    pub fn flags(&self) -> impl Iterator<Item = OsString> {
        self.flags.iter().filter_map(|(name, value)| {
            let variable = VARIABLES.iter().find(|variable| variable.name == *name)?;
            let mut argument = OsString::from(variable.flag() + "=");
            argument.push(value);
            Some(argument)
        })
    }

    /// An option of the table of variables.
    fn flag(&mut self, name: &str, inline: Option<OsString>, arguments: &mut Arguments) {
        let Some(variable) = VARIABLES.iter().find(|variable| variable.flag() == name) else {
            let flags: Vec<String> = VARIABLES.iter().map(Variable::flag).collect();
            let hint = hint(name, &mut flags.iter().map(String::as_str).chain(["--help", "--version"]));
            return self.errors.push(format!("{name}: no such option{hint}"));
        };
        match arguments.value(inline) {
            Some(value) => self.flags.push((variable.name, value)),
            None => self.errors.push(format!("{name}: no value; it takes {}", variable.takes)),
        }
    }

    /// The value of a variable of the environment; an empty one counts as not set, as compose files leave it so.
    pub fn environment(&self, name: &str) -> Option<&OsStr> {
        let entries = if is_prefixed(name.as_ref()) { &self.own } else { &self.environment };
        let entry = entries.iter().find(|entry| entry.is(name))?;
        Some(entry.value()).filter(|value| !value.is_empty())
    }

    /// The value that wins, and its layer; of a flag given twice, the last.
    pub fn value(&self, variable: &Variable) -> Option<(Origin, &OsStr)> {
        let flag = self.flags.iter().rev().find(|(name, _)| *name == variable.name);
        flag.map(|(_, value)| (Origin::Flag, value.as_os_str()))
            .or_else(|| Some((Origin::Environment, self.environment(variable.name)?)))
    }

    /// The text of the value that wins, of a variable by its name.
    pub fn given(&self, name: &str) -> Option<String> {
        let variable = VARIABLES.iter().find(|variable| variable.name == name)?;
        self.value(variable).map(|(_, text)| text.to_string_lossy().into_owned())
    }

    /// A variable with the value that wins as it was set, and with its flag if that is where the value comes from.
    pub fn shown(&self, name: &str) -> String {
        let Some(variable) = VARIABLES.iter().find(|variable| variable.name == name) else { return name.to_owned() };
        match self.value(variable) {
            Some((Origin::Flag, value)) => format!("{name}={} ({})", value.to_string_lossy(), variable.flag()),
            Some((_, value)) => format!("{name}={}", value.to_string_lossy()),
            None => name.to_owned(),
        }
    }

    /// Whether another guard has handed its variables to this one.
    pub fn is_below_a_guard(&self) -> bool {
        self.environment("GUARD_ID").is_some()
    }

    /// Variables that look like guard's, and are not.
    pub fn unknown(&self) -> impl Iterator<Item = Warning> {
        // Kubernetes injects these for a Service called guard: GUARD_SERVICE_HOST, GUARD_PORT_80_TCP_ADDR and so on.
        let of_kubernetes = |name: &str| name.starts_with("GUARD_SERVICE_") || name.starts_with("GUARD_PORT");
        let names = self.own.iter().map(|entry| entry.name().to_string_lossy());
        // Without a guard above, which hands it down together with GUARD_RUN.
        let is_handed = self.is_below_a_guard() || self.environment("GUARD_RUN").is_some();
        let is_slip = move |name: &str| !is_handed && SLIPS.contains(&name);
        let is_meant = move |name: &str| is_known(OsStr::new(name)) && !is_slip(name) || of_kubernetes(name);
        names.filter(move |name| !is_meant(name)).map(|name| {
            let hint = hint(&name, &mut VARIABLES.iter().map(|variable| variable.name));
            let text = format!("{name} is no variable of guard's{hint}");
            Warning { kind: WarningKind::UnknownVariable, variable: name.into_owned(), text }
        })
    }

    /// The environment without guard's own part: what an app starts from.
    pub fn into_environment_of_the_app(self) -> Vec<Entry> {
        let is_own = |name: &OsStr| is_prefixed(name) && is_known(name);
        self.environment.into_iter().filter(|entry| !is_own(entry.name())).collect()
    }
}

/// Whether a name begins as those of guard's variables do.
fn is_prefixed(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"GUARD_")
}

/// Whether guard takes this variable, or hands it down.
fn is_known(name: &OsStr) -> bool {
    VARIABLES.iter().any(|variable| name == variable.name) || HANDED_DOWN.iter().any(|handed| name == *handed)
}
