//! The configuration as a value: plain types, and questions that they can answer alone.

use super::codes::CodeSet;
use super::entry::Entry;
use super::limits::Limits;
use super::listen::{Listen, TcpAddress};
use super::target::Target;
use super::user::User;
use crate::platform::Platform;
use crate::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All settings, with the defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// The app and its arguments; empty only for `guard check` without a command.
    pub command: Vec<OsString>,
    /// The environment that the app starts from: guard's own, without guard's configuration.
    pub environment: Vec<Entry>,
    /// The socket of the manager that started guard (`sd_notify(3)`).
    pub notify_socket: Option<OsString>,
    pub restart: RestartSettings,
    pub stop: StopSettings,
    pub ready: ReadySettings,
    /// The app gets a NOTIFY_SOCKET.
    pub notify: bool,
    /// The app must send WATCHDOG=1 this often, from ready on.
    pub watchdog: Option<Duration>,
    /// How a run that hangs is diagnosed, and its time for that.
    pub diagnose: Option<Diagnose>,
    pub diagnose_timeout: Duration,
    /// What the processes of an instance may use together.
    pub max_memory: Option<MaxMemory>,
    /// A run is replaced when it has lived about this long.
    pub max_lifetime: Option<Duration>,
    pub health_check: Option<HealthCheck>,
    pub health: HealthSettings,
    /// What an http check names as its Host; `None` is the URL's.
    pub health_host: Option<String>,
    /// Sockets that guard opens for the app.
    pub listen: Vec<Listen>,
    /// What the app listens on and guard holds.
    pub hold: Hold,
    /// How long a queue is held while no run listens.
    pub hold_timeout: Duration,
    /// guard opens Node's IPC channel.
    pub node_ipc: bool,
    pub instances: Instances,
    pub signal_map: SignalMap,
    pub signal_scope: Scope,
    /// Files and directories whose change has a meaning.
    pub on_change: Vec<(PathBuf, Meaning)>,
    /// The hook's command in words; empty for none.
    pub pre_stop: Vec<String>,
    pub drain_file: Option<PathBuf>,
    pub chdir: Option<PathBuf>,
    /// Variables of the app that are read before each run from the file that the variable with `_FILE` at its end names.
    pub env_files: Vec<String>,
    /// The user that guard and the app become.
    pub user: Option<User>,
    /// Resource limits of the app.
    pub limits: Limits,
    /// Where the app, hooks and health checks are started; `None` is guard's own working directory.
    pub directory: Option<PathBuf>,
    /// Where the HTTP door listens.
    pub http: Option<TcpAddress>,
    pub termination_log: Option<PathBuf>,
    /// A filter in env_logger's form.
    pub log_filter: String,
    pub log_format: LogFormat,
    pub platform: Platform,
    /// What feeds stdin, if that makes `never` the default of GUARD_RESTART.
    pub stdin: Option<&'static str>,
    /// The variables that were set, by name, and the layer that set each.
    pub origins: Vec<(&'static str, Origin)>,
    /// Values that are valid and may be a slip, and other things that a user should know.
    pub warnings: Vec<Warning>,
}

/// When another run follows one that ended, and how soon.
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

impl RestartSettings {
    /// Whether a run is ever followed by another that nobody has asked for.
    pub fn may_restart(&self) -> bool {
        self.policy != RestartPolicy::Never && self.max != Some(0)
    }
}

/// GUARD_MAX_MEMORY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxMemory {
    Bytes(u64),
    /// Of the container's limit, for all instances together.
    Percent(u32),
}

/// How guard stops a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StopSettings {
    /// `None`: the signal that guard received, TERM where none came. By default TERM where the platform asks with SIGINT.
    pub signal: Option<Signal>,
    /// From the stop request to SIGKILL; `None` leaves the kill to the orchestrator.
    pub timeout: Option<Duration>,
    /// The timeout of a restart in place, which no orchestrator would end: `timeout`, or the platform's default after
    /// the drain delay.
    pub restart_timeout: Duration,
    pub drain_delay: Duration,
    /// After the drain delay the stop signal waits for connections to end, this long at most.
    pub drain_idle: Duration,
}

/// When a run can take work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadySettings {
    pub when: Readiness,
    /// A run that is not ready by then has failed. It means nothing with [`Readiness::Exec`].
    pub timeout: Duration,
}

/// GUARD_READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// As soon as the run was started.
    Exec,
    /// As soon as the run says so.
    Notify,
    /// As soon as the run listens on a stream socket.
    Listen,
    /// As soon as a health check of the run has passed.
    Health,
}

/// GUARD_HOLD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    Off,
    /// Every TCP port.
    All,
    These(Vec<u16>),
}

impl Hold {
    /// Whether what listens on this port is held. Port 0 is any that is free.
    pub fn contains(&self, port: u16) -> bool {
        port != 0
            && match self {
                Hold::Off => false,
                Hold::All => true,
                Hold::These(ports) => ports.contains(&port),
            }
    }
}

/// When health checks run, and how many must fail. The names are those of Docker's HEALTHCHECK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HealthSettings {
    /// From the end of one check to the start of the next.
    pub interval: Duration,
    pub timeout: Duration,
    /// How many failures in a row are a failure of the run, at least 1.
    pub retries: u32,
    /// From the run's start; failures do not count until it is over or a check has passed.
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

/// GUARD_DIAGNOSE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnose {
    Signal(Signal),
    /// A command, in words.
    Exec(Vec<String>),
}

/// GUARD_INSTANCES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instances {
    /// From 1 to [`MOST_INSTANCES`].
    Number(u32),
    /// As many as the container may use CPUs.
    Auto,
}

/// The most instances that guard runs.
pub const MOST_INSTANCES: u32 = 1024;

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

/// What guard does with a signal that GUARD_SIGNAL_MAP names, or at a change that GUARD_ON_CHANGE names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    Forward(Signal),
    Stop,
    Restart,
    Reload,
    /// One instance more.
    ScaleUp,
    /// One instance less.
    ScaleDown,
    Ignore,
}

/// GUARD_SIGNAL_MAP, in the order given; each signal occurs once.
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

/// Something in a configuration that is no error, and that a user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub kind: WarningKind,
    /// The variable that it is about.
    pub variable: String,
    /// What there is to know, and the way out.
    pub text: String,
}

/// How much a [`Warning`] weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// A variable whose name begins with `GUARD_` and which guard does not know.
    UnknownVariable,
    /// A value that may not do what was meant.
    Doubt,
    /// A value that is right where something else is right, too.
    Note,
}

/// As `guard check` shows it.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            WarningKind::UnknownVariable | WarningKind::Doubt => "warning",
            WarningKind::Note => "note",
        };
        write!(f, "{word}: {}", self.text)
    }
}

impl Config {
    /// Where the value of the variable called `name` comes from.
    pub fn origin(&self, name: &str) -> Origin {
        let set = self.origins.iter().find(|(variable, _)| *variable == name);
        set.map_or(Origin::Default, |(_, origin)| *origin)
    }

    /// The commands that guard runs beside the app, each with its variable.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let hook = Some(("GUARD_PRE_STOP", &self.pre_stop));
        let health = match &self.health_check {
            Some(HealthCheck::Exec(words)) => Some(("GUARD_HEALTH_CHECK", words)),
            Some(HealthCheck::Probe(_)) | None => None,
        };
        let diagnose = match &self.diagnose {
            Some(Diagnose::Exec(words)) => Some(("GUARD_DIAGNOSE", words)),
            Some(Diagnose::Signal(_)) | None => None,
        };
        let all = [hook, health, diagnose].into_iter().flatten();
        all.filter(|(_, words)| !words.is_empty()).map(|(name, words)| (name, words.as_slice()))
    }

    /// Makes relative paths absolute, which start at `left`, the working directory that guard has left.
    pub fn resolve_paths(&mut self, left: &Path) {
        for path in [&mut self.chdir, &mut self.drain_file, &mut self.termination_log].into_iter().flatten() {
            *path = left.join(&path);
        }
        self.on_change.iter_mut().for_each(|(path, _)| *path = left.join(&path));
        self.directory = self.chdir.clone().or_else(|| Some(left.to_owned()));
    }

    /// Why GUARD_RESTART is `never` by default; `None` where it is not, or where it was set.
    pub fn why_never(&self) -> Option<String> {
        self.stdin.map(|feeder| format!("since stdin is {feeder}, which a second run would find empty"))
    }

    /// The directory that children are started in, by the name that a user knows.
    pub fn directory_name(&self) -> String {
        let directory = self.directory.as_deref().unwrap_or(Path::new(".")).display();
        let setting = if self.chdir.is_some() { "GUARD_CHDIR=" } else { "the working directory " };
        format!("{setting}{directory}")
    }

    /// The app and its arguments, for people.
    pub fn command_line(&self) -> String {
        self.command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Whether a setting is about what the app says on its NOTIFY_SOCKET.
    pub(super) fn needs_notify(&self) -> bool {
        self.ready.when == Readiness::Notify || self.watchdog.is_some()
    }

    /// Whether the health check is guard's own probe.
    pub fn is_probed(&self) -> bool {
        matches!(self.health_check, Some(HealthCheck::Probe(_)))
    }

    /// The value of a variable that the app gets.
    pub fn variable_of_the_app(&self, name: &str) -> Option<&OsStr> {
        self.environment.iter().find(|entry| entry.is(name)).map(|entry| entry.value())
    }

    /// The same, where it is not empty: compose files leave a variable empty that is not set.
    pub fn set_variable_of_the_app(&self, name: &str) -> Option<&OsStr> {
        self.variable_of_the_app(name).filter(|value| !value.is_empty())
    }

    /// The file of a variable of GUARD_ENV_FILES, as the app would find it.
    pub fn file_of(&self, variable: &str) -> Option<PathBuf> {
        let file = self.set_variable_of_the_app(&format!("{variable}_FILE"))?;
        Some(self.directory.as_deref().unwrap_or(Path::new("")).join(file))
    }
}
