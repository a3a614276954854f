//! The page for Prometheus (its text format, version 0.0.4): conventional names and base units.

use super::status::{GuardStatus, HeldStatus, MOST_HELD};
use crate::config::duration::show_seconds;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// What the Content-Type of the page says.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The states that an instance can be in, as `guard status` names them: each has its sample, 0 included.
const STATES: [&str; 7] = ["starting", "ready", "draining", "stopping", "sweeping", "backoff", "finished"];

/// Why a run was followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// It exited with a code that is no success.
    Exit,
    /// It exited with success, and GUARD_RESTART=always.
    Success,
    /// It died of a signal.
    Signal,
    /// The kernel's out-of-memory killer chose it.
    OutOfMemory,
    NotReady,
    Watchdog,
    Health,
    /// There was no process: the command could not be executed.
    SpawnFailed,
    /// It reached GUARD_MAX_MEMORY.
    MemoryLimit,
    /// It reached GUARD_MAX_LIFETIME.
    Lifetime,
    /// A file has changed (GUARD_ON_CHANGE).
    ChangedFile,
    /// An operator asked for a restart.
    Restart,
    /// A new run took its place.
    Reload,
}

const REASONS: [(RestartReason, &str); 13] = [
    (RestartReason::Exit, "exit"),
    (RestartReason::Success, "success"),
    (RestartReason::Signal, "signal"),
    (RestartReason::OutOfMemory, "oom"),
    (RestartReason::NotReady, "not-ready"),
    (RestartReason::Watchdog, "watchdog"),
    (RestartReason::Health, "health"),
    (RestartReason::SpawnFailed, "spawn-failed"),
    (RestartReason::MemoryLimit, "memory-limit"),
    (RestartReason::Lifetime, "lifetime"),
    (RestartReason::ChangedFile, "changed-file"),
    (RestartReason::Restart, "restart"),
    (RestartReason::Reload, "reload"),
];

/// Counters, which only grow.
#[derive(Debug, Default)]
pub struct Counters {
    restarts: [u64; REASONS.len()],
    pub orphans_reaped: u64,
    pub signals_forwarded: u64,
}

impl Counters {
    /// A run was, or is about to be, followed by another.
    pub fn count_restart(&mut self, reason: RestartReason) {
        for ((known, _), count) in REASONS.iter().zip(&mut self.restarts) {
            *count += u64::from(*known == reason);
        }
    }
}

/// Limits of the configuration; `None` leaves one out.
#[derive(Debug, Default)]
pub struct Limits {
    pub restarts: Option<u32>,
    pub restart_window: Duration,
    pub stop_timeout: Option<Duration>,
    pub ready_timeout: Option<Duration>,
    pub watchdog: Option<Duration>,
    pub lifetime: Option<Duration>,
    /// In bytes, for one instance.
    pub memory: Option<u64>,
}

/// All samples.
pub fn text(status: &GuardStatus, counters: &Counters, limits: &Limits, lines_dropped: u64) -> String {
    let mut page = MetricsPage(String::new());
    page.family("guard_info", "gauge", "The version of guard.");
    page.sample("guard_info", &[("version", &status.version)], &1);
    page.single("guard_uptime_seconds", "gauge", "How long guard has run.", &show_seconds(status.uptime));
    page.single("guard_ready", "gauge", "Whether the app can take work.", &u8::from(status.readiness.is_ok()));
    page.single("guard_stopping", "gauge", "Whether guard is on its way to exit.", &u8::from(status.stopping));

    page.family("guard_instances", "gauge", "Instances by the state that they are in.");
    for state in STATES {
        let count = status.instances.iter().filter(|instance| instance.state == state).count();
        page.sample("guard_instances", &[("state", &state)], &count);
    }
    let desired = "Instances that there are to be.";
    page.single("guard_instances_desired", "gauge", desired, &status.desired);
    page.family("guard_runs_total", "counter", "Runs that were started.");
    for instance in &status.instances {
        page.sample("guard_runs_total", &[("app_instance", &instance.number)], &instance.runs);
    }
    page.family("guard_restarts_total", "counter", "Runs that were followed by another, by the reason.");
    for ((_, reason), count) in REASONS.iter().zip(counters.restarts) {
        page.sample("guard_restarts_total", &[("reason", reason)], &count);
    }
    let running = || status.instances.iter().filter(|instance| instance.pid.is_some());
    page.family("guard_app_uptime_seconds", "gauge", "How long the main process of the run has lived.");
    for instance in running() {
        let uptime = instance.uptime.unwrap_or_default();
        page.sample("guard_app_uptime_seconds", &[("app_instance", &instance.number)], &show_seconds(uptime));
    }
    let serving =
        || status.instances.iter().filter(|instance| instance.pid.is_some() || instance.serving_old().is_some());
    page.family("guard_app_resident_memory_bytes", "gauge", "Resident memory of all processes of the run.");
    for instance in serving() {
        page.sample(
            "guard_app_resident_memory_bytes",
            &[("app_instance", &instance.number)],
            &instance.usage_of_serving().0,
        );
    }
    page.family("guard_app_cpu_seconds_total", "counter", "CPU time of the run, from its start.");
    for instance in serving() {
        let cpu = show_seconds(instance.usage_of_serving().1);
        page.sample("guard_app_cpu_seconds_total", &[("app_instance", &instance.number)], &cpu);
    }

    page.held(&status.held);
    let (orphans, signals) = (counters.orphans_reaped, counters.signals_forwarded);
    page.single("guard_orphans_reaped_total", "counter", "Orphans that guard has reaped.", &orphans);
    page.single("guard_signals_forwarded_total", "counter", "Signals that guard has sent to the app.", &signals);
    let dropped = "Log lines that stderr had no room for.";
    page.single("guard_log_lines_dropped_total", "counter", dropped, &lines_dropped);
    let refused = "Datagrams of senders that may not talk to guard.";
    page.single("guard_datagrams_refused_total", "counter", refused, &status.refused);

    let seconds = |limit: Option<Duration>| limit.map(show_seconds);
    page.limit(
        "guard_restarts_limit",
        "Restarts allowed inside the window.",
        limits.restarts.map(|max| max.to_string()),
    );
    page.limit("guard_restart_window_seconds", "That window.", seconds(Some(limits.restart_window)));
    page.limit("guard_stop_timeout_seconds", "From a stop request to SIGKILL.", seconds(limits.stop_timeout));
    page.limit("guard_ready_timeout_seconds", "A run must be ready by then.", seconds(limits.ready_timeout));
    page.limit("guard_max_lifetime_seconds", "A run is replaced after about this long.", seconds(limits.lifetime));
    let memory = limits.memory.map(|bytes| bytes.to_string());
    page.limit("guard_max_memory_bytes", "What the processes of an instance may use.", memory);
    page.limit("guard_watchdog_seconds", "How often the app must say that it is alive.", seconds(limits.watchdog));
    page.0
}

struct MetricsPage(String);

/// What a held socket's sample says; `None` leaves it out.
type Figure = fn(&HeldStatus) -> Option<u32>;

impl MetricsPage {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: &dyn Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            let _ = write!(LabelValue(&mut self.0), "{value}");
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: &dyn Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The held sockets. Several sockets of one address (SO_REUSEPORT) are one sample: no sample may come twice.
    fn held(&mut self, held: &[HeldStatus]) {
        if held.is_empty() {
            return;
        }
        let mut addresses: Vec<&str> = Vec::new();
        for socket in held.iter().take(MOST_HELD) {
            if !addresses.contains(&socket.address.as_str()) {
                addresses.push(&socket.address);
            }
        }
        let waiting: Figure = |socket| socket.queue.map(|(waiting, _)| waiting);
        let limit: Figure = |socket| socket.queue.map(|(_, limit)| limit);
        let refusing: Figure = |socket| Some(u32::from(socket.refusing));
        let families = [
            ("guard_held_queue_length", "Clients that wait at a held socket.", waiting),
            ("guard_held_queue_limit", "How many can wait there.", limit),
            ("guard_held_refusing", "Held sockets that refuse clients, since no run serves them.", refusing),
        ];
        for (name, help, value) in families {
            self.family(name, "gauge", help);
            for address in &addresses {
                let sockets = held.iter().filter(|socket| socket.address == *address);
                if let Some(sum) = sockets.filter_map(value).reduce(u32::saturating_add) {
                    self.sample(name, &[("address", address)], &sum);
                }
            }
        }
    }

    fn limit(&mut self, name: &str, help: &str, value: Option<String>) {
        if let Some(value) = value {
            self.single(name, "gauge", help, &value);
        }
    }
}

/// Writes the value of a label, with the format's escapes.
struct LabelValue<'a>(&'a mut String);

impl Write for LabelValue<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}
