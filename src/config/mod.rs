//! From raw layers (flags over the environment) to one typed, complete and immutable [`Config`].
//!
//! Every error is collected, so that a user mends them all at once. Nothing here acts on what was configured.

pub mod codes;
pub mod duration;
pub mod entry;
pub mod layers;
mod problems;
mod suggest;
pub mod target;
mod values;
pub mod variables;
mod words;

use crate::platform::Platform;
use crate::signal::Signal;
use codes::CodeSet;
use entry::Entry;
use layers::Layers;
pub use problems::{ConfigErrors, Unknown};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;
use target::Target;
use variables::VARIABLES;

/// Everything that guard can be told, with the defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// The app and its arguments; empty only for `guard check` without a command.
    pub command: Vec<OsString>,
    /// The environment that the app starts from: guard's own, without guard's configuration.
    pub environment: Vec<Entry>,
    /// Where whoever started guard wants to hear from it.
    pub notify_socket: Option<OsString>,
    pub restart: RestartSettings,
    pub stop: StopSettings,
    pub ready: ReadySettings,
    /// How often the app must send WATCHDOG=1 from ready on.
    pub watchdog: Option<Duration>,
    pub health_check: Option<HealthCheck>,
    pub health: HealthSettings,
    /// Node's IPC channel is opened.
    pub node_ipc: bool,
    /// What to do with signals that have been given another meaning, in the order given.
    pub signal_map: SignalMap,
    pub signal_scope: Scope,
    pub pre_stop: Vec<String>,
    pub drain_file: Option<PathBuf>,
    pub chdir: Option<PathBuf>,
    /// Where the app, hooks and health checks are started; `None` is guard's own working directory.
    pub directory: Option<PathBuf>,
    pub termination_log: Option<PathBuf>,
    /// A filter in env_logger's form.
    pub log_filter: String,
    pub log_format: LogFormat,
    pub platform: Platform,
    /// Where each value comes from, in the order of [`VARIABLES`].
    pub origins: [Origin; VARIABLES.len()],
    /// What is worth a warning but no error.
    pub warnings: Vec<Unknown>,
}

/// When a run that ended is followed by another, and how soon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RestartSettings {
    pub policy: RestartPolicy,
    /// Restarts allowed inside the window; `None` is no limit.
    pub max: Option<u32>,
    pub window: Duration,
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
    pub stable_after: Duration,
    pub success_codes: CodeSet,
    pub no_restart_codes: CodeSet,
}

/// How a run is asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StopSettings {
    /// `None`: the signal that guard received, TERM where none came.
    pub signal: Option<Signal>,
    /// From the stop request to SIGKILL; `None` leaves the kill to the orchestrator.
    pub timeout: Option<Duration>,
    /// The timeout of a restart in place, which no orchestrator would end: as above, or the platform's default after
    /// the drain delay.
    pub restart_timeout: Duration,
    pub drain_delay: Duration,
}

/// When a run can take work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadySettings {
    pub when: Readiness,
    /// Not ready by then is a failure of the run, unless it is ready at once.
    pub timeout: Duration,
}

/// GUARD_READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// Once it was started.
    Exec,
    /// Once it has said so.
    Notify,
    /// Once its first health check has passed.
    Health,
}

/// When health checks run, and how many must fail. The names are those of Docker's HEALTHCHECK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HealthSettings {
    /// From the end of one check to the start of the next.
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row that are a failure of the run, at least 1.
    pub retries: u32,
    /// From the run's start; until then or until the first success failures do not count.
    pub start_period: Duration,
}

/// GUARD_HEALTH_CHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// By guard's own `probe`.
    Probe(Target),
    /// By a command, in words.
    Exec(Vec<String>),
}

/// GUARD_RESTART.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestartPolicy {
    OnFailure,
    Always,
    Never,
}

/// Who gets the stop signal and forwarded signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Process,
    Group,
}

/// What guard does with a signal that GUARD_SIGNAL_MAP names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    Forward(Signal),
    Stop,
    Restart,
    Reload,
    Ignore,
}

/// GUARD_SIGNAL_MAP, in the order given; a signal occurs once.
pub type SignalMap = Vec<(Signal, Meaning)>;

/// GUARD_LOG_FORMAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The layer that a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    Environment,
    Flag,
}

impl Config {
    /// The configuration that `layers` give, or every error in them.
    pub fn resolve(mut layers: Layers) -> Result<Config, ConfigErrors> {
        let platform = Platform::detect(|name| layers.environment(name).is_some());
        let mut config = Config::of_platform(platform);
        let mut errors = std::mem::take(&mut layers.errors);
        let mut misread = Vec::new();
        for (index, variable) in VARIABLES.iter().enumerate() {
            let Some((origin, value)) = layers.value(variable) else { continue };
            config.origins[index] = origin;
            let by_flag = if origin == Origin::Flag { format!(" ({})", variable.flag()) } else { String::new() };
            let read = value.to_str().ok_or_else(|| "not valid UTF-8".to_owned());
            if let Err(problem) = read.and_then(|text| (variable.set)(&mut config, text)) {
                let (name, value) = (variable.name, value.to_string_lossy());
                errors.push(format!("{name}={value}{by_flag}: {problem}; it takes {}", variable.takes));
                misread.push(variable.name);
            }
        }
        if config.health_check.is_some() && config.origin("GUARD_READY") == Origin::Default {
            config.ready.when = Readiness::Health;
        }
        let pairs = config.contradictions().into_iter();
        errors.extend(
            pairs.filter(|(names, _)| !names.iter().any(|name| misread.contains(name))).map(|(_, error)| error),
        );
        let without_limit = platform.stop_timeout().saturating_add(config.stop.drain_delay);
        config.stop.restart_timeout = config.stop.timeout.unwrap_or(without_limit);
        config.warnings = layers.unknown();
        config.notify_socket = layers.environment("NOTIFY_SOCKET").map(OsStr::to_owned);
        config.command = std::mem::take(&mut layers.command);
        config.directory = config.chdir.clone();
        config.environment = layers.into_environment_of_the_app();
        if errors.is_empty() {
            Ok(config)
        } else {
            // One of them may be what was meant.
            errors.extend(config.warnings.iter().map(|unknown| format!("warning: {unknown}")));
            Err(ConfigErrors { errors, termination_log: config.termination_log })
        }
    }

    fn of_platform(platform: Platform) -> Config {
        let termination_log = PathBuf::from("/dev/termination-log");
        Config {
            command: Vec::new(),
            environment: Vec::new(),
            notify_socket: None,
            restart: RestartSettings::default(),
            stop: StopSettings {
                signal: None,
                timeout: Some(platform.stop_timeout()),
                restart_timeout: platform.stop_timeout(),
                drain_delay: Duration::ZERO,
            },
            ready: ReadySettings { when: Readiness::Exec, timeout: Duration::from_secs(60) },
            watchdog: None,
            health: HealthSettings::default(),
            health_check: None,
            node_ipc: false,
            signal_map: Vec::new(),
            signal_scope: Scope::Process,
            pre_stop: Vec::new(),
            drain_file: None,
            chdir: None,
            directory: None,
            termination_log: Some(termination_log).filter(|path| path.exists()),
            log_filter: "info".to_owned(),
            log_format: LogFormat::Text,
            platform,
            origins: [Origin::Default; VARIABLES.len()],
            warnings: Vec::new(),
        }
    }

    /// Makes relative paths absolute: they were meant from the working directory that guard has left.
    pub fn resolve_paths(&mut self, left: &Path) {
        for path in [&mut self.chdir, &mut self.drain_file, &mut self.termination_log].into_iter().flatten() {
            *path = left.join(&path);
        }
        self.directory = self.chdir.clone().or_else(|| Some(left.to_owned()));
    }

    /// What a user calls the directory that children are started in.
    pub fn directory_name(&self) -> String {
        let directory = self.directory.as_deref().unwrap_or(Path::new(".")).display();
        let setting = if self.chdir.is_some() { "GUARD_CHDIR=" } else { "the working directory " };
        format!("{setting}{directory}")
    }

    /// Where the value of the variable called `name` comes from.
    pub fn origin(&self, name: &str) -> Origin {
        let index = VARIABLES.iter().position(|variable| variable.name == name);
        index.map_or(Origin::Default, |index| self.origins[index])
    }

    /// The app and its arguments, for people.
    pub fn command_line(&self) -> String {
        self.command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Whether guard itself asks whether the app is healthy.
    pub fn is_probed(&self) -> bool {
        matches!(self.health_check, Some(HealthCheck::Probe(_)))
    }

    /// The value of a variable that the app gets.
    pub fn variable_of_the_app(&self, name: &str) -> Option<&OsStr> {
        self.environment.iter().find(|entry| entry.name() == name).map(|entry| entry.value())
    }
}

impl Default for HealthSettings {
    fn default() -> HealthSettings {
        HealthSettings {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            retries: 3,
            start_period: Duration::from_secs(60),
        }
    }
}

impl Default for RestartSettings {
    fn default() -> RestartSettings {
        RestartSettings {
            policy: RestartPolicy::OnFailure,
            max: Some(10),
            window: Duration::from_secs(300),
            backoff_initial: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            stable_after: Duration::from_secs(10),
            success_codes: CodeSet::default(),
            no_restart_codes: CodeSet::default(),
        }
    }
}

#[cfg(test)]
mod tests;
