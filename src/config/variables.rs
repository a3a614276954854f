//! The one table of variables: parsing, `--help`, `guard check` and the test of docs/configuration.md all read it.

use super::codes::CodeSet;
use super::duration;
use super::instances::instances;
use super::limits::{self, Resource};
use super::listen;
use super::target::parse_host;
use super::user;
use super::values::{
    FORMATS, POLICIES, READINESS, SCOPES, SWITCH, changes, choose, chosen, command, diagnose, directory, health_check,
    hold, log_filter, max_memory, optional, path, positive, show_changes, show_hold, show_max_memory, show_path,
    show_signal_map, signal_map, variable_names,
};
use super::variable::Variable;
use crate::signal::{Signal, number};

/// A resource limit.
macro_rules! limit {
    ($name:literal, $resource:expr, $help:literal) => {
        Variable {
            name: $name,
            default: "inherited",
            takes: $resource.takes(),
            help: $help,
            set: |config, text| limits::set(config, $resource, text),
            show: |config| limits::show(config, $resource),
        }
    };
}

const DURATION: &str = "a duration such as 500ms, 10s, 1m30s or a number of seconds";

/// In the order of docs/configuration.md: restart, stop, signals, readiness, health, sockets, surroundings, log.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "GUARD_RESTART",
        default: "on-failure; never where stdin is a pipe or a file",
        takes: "on-failure, always or never",
        help: "when another run follows one that ended; jobs want never",
        set: |config, text| choose(&POLICIES, text).map(|policy| config.restart.policy = policy),
        show: |config| chosen(&POLICIES, config.restart.policy),
    },
    Variable {
        name: "GUARD_MAX_RESTARTS",
        default: "10",
        takes: "a number, 0 for never, or unlimited",
        help: "restarts allowed inside the window before guard gives up",
        set: |config, text| {
            let is_limited = !text.eq_ignore_ascii_case("unlimited");
            let max = is_limited.then(|| number(text).ok_or("not a number in range")).transpose()?;
            config.restart.max = max;
            Ok(())
        },
        show: |config| config.restart.max.map_or("unlimited".to_owned(), |max| max.to_string()),
    },
    Variable {
        name: "GUARD_RESTART_WINDOW",
        default: "5m",
        takes: DURATION,
        help: "a restart is forgotten when it is older than this and a run since then was stable",
        set: |config, text| duration::parse(text).map(|window| config.restart.window = window),
        show: |config| duration::show(config.restart.window),
    },
    Variable {
        name: "GUARD_BACKOFF_INITIAL",
        default: "100ms",
        takes: DURATION,
        help: "delay before the second restart in a row; the first is immediate",
        set: |config, text| duration::parse(text).map(|delay| config.restart.backoff_initial = delay),
        show: |config| duration::show(config.restart.backoff_initial),
    },
    Variable {
        name: "GUARD_BACKOFF_MAX",
        default: "10s",
        takes: DURATION,
        help: "the delay doubles up to this; each is drawn from its upper half",
        set: |config, text| duration::parse(text).map(|delay| config.restart.backoff_max = delay),
        show: |config| duration::show(config.restart.backoff_max),
    },
    Variable {
        name: "GUARD_STABLE_AFTER",
        default: "10s",
        takes: DURATION,
        help: "a run that was ready this long ends the row: the next restart is immediate again",
        set: |config, text| duration::parse(text).map(|time| config.restart.stable_after = time),
        show: |config| duration::show(config.restart.stable_after),
    },
    Variable {
        name: "GUARD_SUCCESS_CODES",
        default: "none",
        takes: "exit codes (0 to 255) and signal names, comma-separated, or none",
        help: "exit codes and signals that count as success besides 0; guard exits 0 for them",
        set: |config, text| {
            let codes = optional(text, CodeSet::parse)?.unwrap_or_default();
            if codes.oom {
                return Err("an OOM kill is no success".to_owned());
            }
            config.restart.success_codes = codes;
            Ok(())
        },
        show: |config| config.restart.success_codes.to_string(),
    },
    Variable {
        name: "GUARD_NO_RESTART_CODES",
        default: "none",
        takes: "exit codes (1 to 255), signal names and oom, comma-separated, or none",
        help: "failures that no restart can mend; guard exits with them at once",
        set: |config, text| {
            let codes = optional(text, CodeSet::parse)?.unwrap_or_default();
            if codes.contains(0) {
                return Err("0 is no failure".to_owned());
            }
            config.restart.no_restart_codes = codes;
            Ok(())
        },
        show: |config| config.restart.no_restart_codes.to_string(),
    },
    Variable {
        name: "GUARD_STOP_SIGNAL",
        default: "the signal received, TERM where none came, and on Nomad and Fly.io",
        takes: "a signal such as TERM, SIGQUIT, 15 or RTMIN+3",
        help: "signal that asks the app to stop; guard takes it as a stop request too",
        set: |config, text| {
            let signal: Signal = text.parse()?;
            if signal == Signal::CHLD {
                return Err(format!("{signal} stops no app"));
            }
            config.stop.signal = Some(signal);
            Ok(())
        },
        show: |config| config.stop.signal.map_or("the signal received".to_owned(), |signal| signal.to_string()),
    },
    Variable {
        name: "GUARD_STOP_TIMEOUT",
        default: "by platform: 25s Kubernetes, ECS; 8.3s Docker, Cloud Run; 4s Nomad, Fly.io",
        takes: "a duration such as 500ms, 10s, 1m30s, a number of seconds, or none",
        help: "from the stop request to SIGKILL; none leaves the kill to the orchestrator",
        set: |config, text| optional(text, duration::parse).map(|timeout| config.stop.timeout = timeout),
        show: |config| config.stop.timeout.map_or("none".to_owned(), duration::show),
    },
    Variable {
        name: "GUARD_DRAIN_DELAY",
        default: "0s",
        takes: "a duration below the stop timeout, such as 500ms, 5s or a number of seconds",
        help: "time for load balancers to notice before the app gets its stop signal",
        set: |config, text| duration::parse(text).map(|delay| config.stop.drain_delay = delay),
        show: |config| duration::show(config.stop.drain_delay),
    },
    Variable {
        name: "GUARD_DRAIN_IDLE",
        default: "none",
        takes: "a duration such as 500ms, 10s or a number of seconds, or none",
        help: "after the drain delay the stop signal waits until no connection is left, at most this long",
        set: |config, text| optional(text, positive).map(|time| config.stop.drain_idle = time.unwrap_or_default()),
        show: |config| {
            let time = Some(config.stop.drain_idle).filter(|time| !time.is_zero());
            time.map_or("none".to_owned(), duration::show)
        },
    },
    Variable {
        name: "GUARD_PRE_STOP",
        default: "none",
        takes: "a command with its arguments, quoted as in a shell, or none",
        help: "command run at the stop request, beside the drain delay",
        set: |config, text| optional(text, command).map(|words| config.pre_stop = words.unwrap_or_default()),
        show: |config| if config.pre_stop.is_empty() { "none".to_owned() } else { shell_words::join(&config.pre_stop) },
    },
    Variable {
        name: "GUARD_DRAIN_FILE",
        default: "none",
        takes: "the path of a file, or none",
        help: "a file that exists exactly while guard drains",
        set: |config, text| path(text).map(|path| config.drain_file = path),
        show: |config| show_path(config.drain_file.as_ref()),
    },
    Variable {
        name: "GUARD_SIGNAL_SCOPE",
        default: "process",
        takes: "process or group",
        help: "who gets the stop signal and forwarded signals",
        set: |config, text| choose(&SCOPES, text).map(|scope| config.signal_scope = scope),
        show: |config| chosen(&SCOPES, config.signal_scope),
    },
    Variable {
        name: "GUARD_SIGNAL_MAP",
        default: "none",
        takes: "none, or SIGNAL=MEANING, comma-separated, a meaning being a signal, stop, restart, reload, scale+, scale- or ignore",
        help: "other meanings for signals: HUP=USR2,USR1=restart,WINCH=stop",
        set: |config, text| optional(text, signal_map).map(|map| config.signal_map = map.unwrap_or_default()),
        show: |config| show_signal_map(&config.signal_map),
    },
    Variable {
        name: "GUARD_ON_CHANGE",
        default: "none",
        takes: "none, or PATH=MEANING, comma-separated, a meaning being a signal, stop, restart, reload, scale+, scale- or ignore",
        help: "what follows when a file or directory changes: /etc/tls=HUP,/etc/app=reload",
        set: |config, text| optional(text, changes).map(|changes| config.on_change = changes.unwrap_or_default()),
        show: |config| show_changes(&config.on_change),
    },
    Variable {
        name: "GUARD_READY",
        default: "health with a health check, else listen with GUARD_HOLD, else exec",
        takes: "exec, listen, notify or health",
        help: "when a run is ready: started, listening, by READY=1 or Node's 'ready', or at the first check that passes",
        set: |config, text| choose(&READINESS, text).map(|when| config.ready.when = when),
        show: |config| chosen(&READINESS, config.ready.when),
    },
    Variable {
        name: "GUARD_READY_TIMEOUT",
        default: "60s",
        takes: DURATION,
        help: "with all but exec: not ready by then is a failure; the times of a health check may make the default longer",
        set: |config, text| positive(text).map(|timeout| config.ready.timeout = timeout),
        show: |config| duration::show(config.ready.timeout),
    },
    Variable {
        name: "GUARD_NOTIFY",
        default: "on with GUARD_READY=notify, GUARD_WATCHDOG or a NOTIFY_SOCKET of guard's own, else off",
        takes: "on or off (also true, yes, 1; false, no, 0)",
        help: "the app gets a NOTIFY_SOCKET",
        set: |config, text| choose(&SWITCH, text).map(|on| config.notify = on),
        show: |config| chosen(&SWITCH, config.notify),
    },
    Variable {
        name: "GUARD_WATCHDOG",
        default: "none",
        takes: "a duration such as 500ms, 30s or a number of seconds, or none",
        help: "once ready the app must send WATCHDOG=1 this often, else SIGABRT and the restart policy",
        set: |config, text| optional(text, positive).map(|period| config.watchdog = period),
        show: |config| config.watchdog.map_or("none".to_owned(), duration::show),
    },
    Variable {
        name: "GUARD_DIAGNOSE",
        default: "none",
        takes: "a signal such as QUIT or ABRT, exec:COMMAND, or none",
        help: "asks a run that hangs what it has to say, once, before it is ended",
        set: |config, text| optional(text, diagnose).map(|diagnose| config.diagnose = diagnose),
        show: |config| config.diagnose.as_ref().map_or("none".to_owned(), ToString::to_string),
    },
    Variable {
        name: "GUARD_DIAGNOSE_TIMEOUT",
        default: "5s",
        takes: DURATION,
        help: "how long it has for that; before the SIGKILL of a stop at most a third of the stop timeout",
        set: |config, text| positive(text).map(|timeout| config.diagnose_timeout = timeout),
        show: |config| duration::show(config.diagnose_timeout),
    },
    Variable {
        name: "GUARD_NODE_IPC",
        default: "off",
        takes: "on or off (also true, yes, 1; false, no, 0)",
        help: "opens Node's IPC channel for 'ready', 'drain' and 'shutdown'",
        set: |config, text| choose(&SWITCH, text).map(|on| config.node_ipc = on),
        show: |config| chosen(&SWITCH, config.node_ipc),
    },
    Variable {
        name: "GUARD_MAX_MEMORY",
        default: "none",
        takes: "a size such as 512M or 1.5G, a part of the container's memory such as 80%, or none",
        help: "an instance whose processes use more is restarted gracefully; instances share a percentage",
        set: |config, text| optional(text, max_memory).map(|limit| config.max_memory = limit),
        show: |config| show_max_memory(config.max_memory),
    },
    Variable {
        name: "GUARD_MAX_LIFETIME",
        default: "none",
        takes: "a duration such as 12h, 90m or a number of seconds, or none",
        help: "a run this long is restarted gracefully, up to a tenth sooner or later",
        set: |config, text| optional(text, positive).map(|lifetime| config.max_lifetime = lifetime),
        show: |config| config.max_lifetime.map_or("none".to_owned(), duration::show),
    },
    Variable {
        name: "GUARD_HEALTH_CHECK",
        default: "none",
        takes: "http://HOST:PORT/PATH, http+unix:///SOCKET:/PATH, tcp://HOST:PORT, exec:COMMAND or none",
        help: "a run has failed when its checks fail GUARD_HEALTH_RETRIES times in a row",
        set: |config, text| optional(text, health_check).map(|check| config.health_check = check),
        show: |config| config.health_check.as_ref().map_or("none".to_owned(), ToString::to_string),
    },
    Variable {
        name: "GUARD_HEALTH_HOST",
        default: "the URL's",
        takes: "the name of a host, or none",
        help: "the Host that an http check names, for servers that insist on theirs",
        set: |config, text| optional(text, parse_host).map(|host| config.health_host = host),
        show: |config| config.health_host.clone().unwrap_or("the URL's".to_owned()),
    },
    Variable {
        name: "GUARD_HEALTH_INTERVAL",
        default: "10s",
        takes: DURATION,
        help: "from the end of one health check to the next",
        set: |config, text| positive(text).map(|interval| config.health.interval = interval),
        show: |config| duration::show(config.health.interval),
    },
    Variable {
        name: "GUARD_HEALTH_TIMEOUT",
        default: "2s",
        takes: DURATION,
        help: "a health check that takes longer has failed",
        set: |config, text| positive(text).map(|timeout| config.health.timeout = timeout),
        show: |config| duration::show(config.health.timeout),
    },
    Variable {
        name: "GUARD_HEALTH_RETRIES",
        default: "3",
        takes: "a number from 1 on",
        help: "so many failures in a row are a failure of the run",
        set: |config, text| {
            config.health.retries = number(text).filter(|&retries| retries > 0).ok_or("not a number in range")?;
            Ok(())
        },
        show: |config| config.health.retries.to_string(),
    },
    Variable {
        name: "GUARD_HEALTH_START_PERIOD",
        default: "60s",
        takes: DURATION,
        help: "from the run's start; failures do not count in it, and the first success ends it",
        set: |config, text| duration::parse(text).map(|period| config.health.start_period = period),
        show: |config| duration::show(config.health.start_period),
    },
    Variable {
        name: "GUARD_INSTANCES",
        default: "1",
        takes: "a number from 1 to 1024, or auto",
        help: "copies of the app; auto is the container's CPU quota rounded up",
        set: |config, text| instances(text).map(|instances| config.instances = instances),
        show: |config| config.instances.to_string(),
    },
    Variable {
        name: "GUARD_ENV_FILES",
        default: "none",
        takes: "names of variables, comma-separated, or none",
        help: "DB_PASSWORD: before each run the file that DB_PASSWORD_FILE names is read into it",
        set: |config, text| optional(text, variable_names).map(|names| config.env_files = names.unwrap_or_default()),
        show: |config| if config.env_files.is_empty() { "none".to_owned() } else { config.env_files.join(",") },
    },
    Variable {
        name: "GUARD_USER",
        default: "inherited",
        takes: "NAME, UID, NAME:GROUP or UID:GID, as /etc/passwd and /etc/group have them",
        help: "guard and the app become this user, after guard has opened what needs root",
        set: |config, text| user::parse(text).map(|user| config.user = Some(user)),
        show: |config| config.user.as_ref().map_or("inherited".to_owned(), ToString::to_string),
    },
    limit!("GUARD_LIMIT_NOFILE", Resource::NoFile, "open descriptors of the app, soft or soft:hard"),
    limit!("GUARD_LIMIT_CORE", Resource::Core, "bytes of a core file of the app, soft or soft:hard"),
    limit!("GUARD_LIMIT_NPROC", Resource::NProc, "processes of the app's user, soft or soft:hard"),
    limit!("GUARD_LIMIT_MEMLOCK", Resource::MemLock, "bytes of memory that the app may lock, soft or soft:hard"),
    limit!("GUARD_LIMIT_STACK", Resource::Stack, "bytes of the app's stack, soft or soft:hard"),
    Variable {
        name: "GUARD_LISTEN",
        default: "none",
        takes: "8080, 127.0.0.1:8080, [::1]:8080, unix:/PATH, each also as NAME=8080, comma-separated, or none",
        help: "sockets that guard opens and holds; the app gets them by LISTEN_FDS",
        set: |config, text| optional(text, listen::parse).map(|all| config.listen = all.unwrap_or_default()),
        show: |config| listen::show(&config.listen),
    },
    Variable {
        name: "GUARD_HOLD",
        default: "on with several instances and no GUARD_LISTEN, else off",
        takes: "on, off, or TCP ports, comma-separated",
        help: "what an app that knows nothing of guard listens on is held, or these ports of it",
        set: |config, text| hold(text).map(|hold| config.hold = hold),
        show: |config| show_hold(&config.hold),
    },
    Variable {
        name: "GUARD_HOLD_TIMEOUT",
        default: "10s",
        takes: DURATION,
        help: "so long a held queue waits while no run listens; then clients are refused until one does",
        set: |config, text| duration::parse(text).map(|timeout| config.hold_timeout = timeout),
        show: |config| duration::show(config.hold_timeout),
    },
    Variable {
        name: "GUARD_CHDIR",
        default: "inherited",
        takes: "the path of a directory that is there",
        help: "working directory of the app",
        set: |config, text| directory(text).map(|directory| config.chdir = Some(directory)),
        show: |config| config.chdir.as_ref().map_or("inherited".to_owned(), |path| path.display().to_string()),
    },
    Variable {
        name: "GUARD_HTTP",
        default: "none",
        takes: "a port (all addresses), ADDRESS:PORT such as 127.0.0.1:9901 or [::1]:9901, or none",
        help: "serves /livez, /readyz, /metrics and /status, read-only",
        set: |config, text| optional(text, listen::parse_tcp).map(|address| config.http = address),
        show: |config| config.http.map_or("none".to_owned(), |address| address.to_string()),
    },
    Variable {
        name: "GUARD_TERMINATION_LOG",
        default: "/dev/termination-log if it is there",
        takes: "the path of a file, or none",
        help: "where the last word goes, 4096 bytes at most",
        set: |config, text| path(text).map(|path| config.termination_log = path),
        show: |config| show_path(config.termination_log.as_ref()),
    },
    Variable {
        name: "GUARD_LOG",
        default: "info",
        takes: "off, error, warn, info, debug or trace, also as TARGET=LEVEL or a list of such",
        help: "log level, as a filter of env_logger's; off is silence",
        set: |config, text| log_filter(text).map(|filter| config.log_filter = filter),
        show: |config| config.log_filter.clone(),
    },
    Variable {
        name: "GUARD_LOG_FORMAT",
        default: "text",
        takes: "text or json",
        help: "one line an event on stderr, as key=value text or as JSON",
        set: |config, text| choose(&FORMATS, text).map(|format| config.log_format = format),
        show: |config| chosen(&FORMATS, config.log_format),
    },
];
